"""Items of an index in groups: as plain values, and as a page with thumbnails."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from seeall.data import video
from seeall.data.decode import Pixels, Unreadable
from seeall.html import THUMB, page, save
from seeall.index.page import Read, figure
from seeall.index.protocol import Store
from seeall.index.segments import Floats, Ids

GROUPS, PICTURES = 200, 24
"""Groups on a page, and pictures of each: the rest is counted."""
_STYLE = ".group { display: flex; flex-wrap: wrap; gap: .6rem } figure { width: 128px }"


def pictures(index: Store, ids: Ids, scores: Floats) -> list[dict[str, Any]]:
    """What is said of items: {"id", "path", "label", "score"} each."""
    return [
        {"id": item.id, "path": item.path, "label": item.label, "score": round(float(score), 6)}
        for item, score in zip(index.items(ids.tolist()), scores)
    ]


def reader() -> Read:
    """Path or frame → pixels for a thumbnail; raises Unreadable for a picture that was drawn and not kept."""
    films = video.Reader()

    def read(name: str) -> Pixels:
        if name.startswith("scenes/"):
            raise Unreadable("not kept")
        return films(video.named(name) or name, THUMB)

    return read


def album(path: Path, title: str, intro: str, groups: Iterable[tuple[str, Sequence[dict[str, Any]]]]) -> None:
    """Write a page: a heading for each group, and its pictures, as `pictures` says them.

    Raises: SeeallError where the disk refuses.
    """
    read, parts = reader(), [f"<p>{html.escape(intro)}</p>"]
    groups = list(groups)
    for heading, some in groups[:GROUPS]:
        more = f" · {len(some) - PICTURES} more are not shown" if len(some) > PICTURES else ""
        cells = [figure(p["path"], _caption(p), read) for p in some[:PICTURES]]
        parts.append(f'<h2>{html.escape(heading + more)}</h2><div class="group">{"".join(cells)}</div>')
    if len(groups) > GROUPS:
        parts.append(f"<p>{len(groups) - GROUPS} more are not shown.</p>")
    save(path, page(title, parts, _STYLE))


def _caption(picture: dict[str, Any]) -> str:
    name = str(picture["path"]).rpartition("/")[2]
    label = f" · {picture['label']}" if picture["label"] else ""
    return f"{picture['score']:.3f} · {picture['id']} · {name}{label}"
