"""A contact sheet: queries and their neighbours on one HTML page that needs nothing else."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import Any

from seeall.data.decode import Pixels, Unreadable
from seeall.html import THUMB, page, picture

__all__ = ["THUMB", "Read", "figure", "sheet"]

Read = Callable[[str], Pixels]

_STYLE = """
.row, .matches { display: flex; gap: .6rem; align-items: flex-start } .matches { flex-wrap: wrap; flex: 1 }
.matches { border-left: 3px solid #888; padding-left: .6rem } figure { width: 128px }
.right img { border: 3px solid var(--good) } .wrong img { border: 3px solid var(--bad) }
"""


def figure(path: str, caption: str, read: Read, kind: str = "") -> str:
    """One picture with words under it; a grey box where the file is gone."""
    try:
        pixels: Pixels | str = read(path)
    except Unreadable as fault:
        pixels = str(fault)
    return f'<figure class="{kind}">{picture(path, pixels)}<figcaption>{html.escape(caption)}</figcaption></figure>'


def sheet(title: str, results: Sequence[dict[str, Any]], read: Read, *, intro: str = "", truth: bool = False) -> str:
    """The page for results as `ssl search --json` prints them.

    intro: HTML put under the title · truth: frame neighbours by whether their label is the query's
    """
    parts = [intro] if intro else []
    for result in results:
        query = str(result["query"])
        cells = []
        for match in result["matches"]:
            kind = ("right" if match.get("label") == result.get("label") else "wrong") if truth else ""
            name = str(match["path"]).rpartition("/")[2]
            label = f" · {match['label']}" if match.get("label") else ""
            cells.append(figure(str(match["path"]), f"{match['score']:.3f} · {name}{label}", read, kind))
        heading = html.escape(str(result.get("title", query)))
        asked = "".join(figure(str(name), "query", read) for name in result.get("together", [query]))
        parts.append(f'<h2>{heading}</h2><div class="row">{asked}<div class="matches">{"".join(cells)}</div></div>')
    return page(title, parts, _STYLE)
