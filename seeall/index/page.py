"""A contact sheet: queries and their neighbours on one HTML page that needs nothing else."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image

from seeall.data.decode import Pixels, Unreadable

THUMB = 128
Read = Callable[[str], Pixels]

_STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2rem auto; max-width: 78rem; padding: 0 1rem; color: #222;
       background: #fafafa }
h1 { font-size: 1.4rem } h2 { font-size: 1rem; margin: 2rem 0 .5rem } p { max-width: 46rem }
.row, .matches { display: flex; gap: .6rem; align-items: flex-start } .matches { flex-wrap: wrap; flex: 1 }
.matches { border-left: 3px solid #888; padding-left: .6rem } figure { margin: 0; width: 128px }
img, .gone { box-sizing: border-box; width: 128px; height: 128px; object-fit: contain; background: #fff }
img, .gone { border: 1px solid #ddd }
.right img { border: 3px solid #2a8a3e } .wrong img { border: 3px solid #c4472f }
.gone { display: flex; align-items: center; justify-content: center; color: #888 }
figcaption { font-size: 12px; overflow-wrap: anywhere } table { border-collapse: collapse }
td, th { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #ddd } td:first-child { text-align: left }
@media (prefers-color-scheme: dark) { body { background: #1c1c1e; color: #ddd } img, .gone { background: #2c2c2e } }
"""


def thumbnail(pixels: Pixels) -> str:
    """A data URI of a picture, at most 128 px a side; small ones are enlarged without smoothing."""
    image = Image.fromarray(pixels)
    if max(image.size) * 2 <= THUMB:
        factor = THUMB // max(image.size)
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    image.thumbnail((THUMB, THUMB))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def figure(path: str, caption: str, read: Read, kind: str = "") -> str:
    """One picture with words under it; a grey box where the file is gone."""
    try:
        picture = f'<img src="{thumbnail(read(path))}" alt="{html.escape(path)}" title="{html.escape(path)}">'
    except Unreadable as fault:
        picture = f'<div class="gone" title="{html.escape(path)}">{html.escape(str(fault))}</div>'
    return f'<figure class="{kind}">{picture}<figcaption>{html.escape(caption)}</figcaption></figure>'


def sheet(title: str, results: Sequence[dict[str, Any]], read: Read, *, intro: str = "", truth: bool = False) -> str:
    """The page for results as `ssl search --json` prints them.

    intro: HTML put under the title · truth: frame neighbours by whether their label is the query's
    """
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style><h1>{html.escape(title)}</h1>{intro}",
    ]
    for result in results:
        query = str(result["query"])
        cells = []
        for match in result["matches"]:
            kind = ("right" if match.get("label") == result.get("label") else "wrong") if truth else ""
            name = str(match["path"]).rpartition("/")[2]
            label = f" · {match['label']}" if match.get("label") else ""
            cells.append(figure(str(match["path"]), f"{match['score']:.3f} · {name}{label}", read, kind))
        title, asked = html.escape(str(result.get("title", query))), figure(query, "query", read)
        parts.append(f'<h2>{title}</h2><div class="row">{asked}<div class="matches">{"".join(cells)}</div></div>')
    return "\n".join(parts) + "</html>\n"
