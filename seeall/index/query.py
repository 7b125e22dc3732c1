"""Searching an index by pictures or by what it already holds, and the page that shows what was found."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from seeall.console import log
from seeall.data.decode import Pixels
from seeall.data.pictures import Pictures, find
from seeall.html import save
from seeall.index.album import reader
from seeall.index.page import sheet
from seeall.index.protocol import Store
from seeall.index.segments import Floats, unit
from seeall.index.stores import open_store
from seeall.types import SeeallError

if TYPE_CHECKING:
    from seeall.training.embed import Eye

Box = tuple[int, int, int, int]
_NAME = 255
"""Most letters in the name of a file."""


def opened(folder: Path, gpu: str) -> Store:
    """The index at `folder`, to be searched as --gpu says. Raises SeeallError where that says nothing."""
    if gpu not in ("auto", "on", "off"):
        raise SeeallError(f"--gpu {gpu}: choose from auto, on, off")
    return open_store(folder, gpu=cast(Literal["auto", "on", "off"], gpu))


def search(
    folder: Path,
    queries: Sequence[str],
    k: int,
    *,
    run: Path | None = None,
    gpu: str = "auto",
    where: str | None = None,
    together: bool = False,
    box: str | None = None,
) -> list[dict[str, Any]]:
    """The k nearest items of each query: a picture, a folder of them, or the id of an item.

    where: a condition that items must fulfil to be found, see `seeall.index.where`. together: all queries are one, the
    mean direction of what they show. box: only that region of the one picture that is asked for, "x1,y1,x2,y2" px.

    Returns: one {"query", "label", "matches": [{"id", "path", "label", "score", "metadata"}]} a query, best first; of
    queries together the one names them all, and has "together": their names.
    Raises: SeeallError for a query that is neither, k below 1, a run that the index was not made with, a condition
    that cannot be understood, or a box that is no region of one picture.
    """
    if k < 1:
        raise SeeallError(f"-k {k}: ask for at least 1 look-alike")
    with opened(folder, gpu) as index:
        if run is not None:
            from seeall.backbones.load import digest

            index.require_model(digest(run))
        names, labels, vectors = _vectors(index, queries, _region(box, queries))
        everything = names if together else []
        if together:
            directions = unit(vectors, index.dim, names)
            names, labels, vectors = [" + ".join(names)], [_common(labels)], directions.mean(0, keepdims=True)
        ids, scores = index.search(vectors, k, where)
        items = {item.id: item for item in index.items(np.unique(ids).tolist())}
    return [
        {
            "query": name,
            "label": label,
            **({"together": everything} if together else {}),
            "matches": [
                {
                    "id": int(i),
                    "path": items[int(i)].path,
                    "label": items[int(i)].label,
                    "score": round(float(score), 6),
                    "metadata": items[int(i)].metadata,
                }
                for i, score in zip(ids[row], scores[row])
            ],
        }
        for row, (name, label) in enumerate(zip(names, labels))
    ]


def _vectors(index: Store, queries: Sequence[str], box: Box | None) -> tuple[list[str], list[str | None], Any]:
    names: list[str] = []
    labels: list[str | None] = []
    parts: list[Any] = []
    eye = None
    for query in queries:
        if _is_id(query) and box:
            query = index.get(int(query[:_NAME])).path
        elif _is_id(query):
            item = index.get(int(query[:_NAME]))
            names, labels = [*names, item.path], [*labels, item.label]
            parts.append(item.vector[None])
            continue
        from seeall.index.build import eye_of
        from seeall.index.sync import where

        pictures = find(query)
        if box:
            pictures = _cut(pictures, box)
        eye = eye or eye_of(index)
        rows, seen = _seen(pictures, eye)
        names += [where(pictures, row) for row in rows]
        labels += [pictures.labels[row] if pictures.labels else None for row in rows]
        parts.append(seen)
    return names, labels, np.concatenate(parts)


def _seen(pictures: Pictures, eye: Eye) -> tuple[list[int], Floats]:
    """Which of the pictures can be read, and their features (n, D). Raises SeeallError where none can."""
    rows: list[int] = []
    found: list[Floats] = []
    unread: list[str] = []
    for some, z, bad in eye.stream(pictures):
        rows += some
        found.append(z.numpy())
        unread += [f"{pictures.keys[row]}: cannot be searched for: {why}" for row, why in bad]
    if not rows:
        raise SeeallError(unread[0])
    if unread:
        log.warning("%d of %d pictures are left out: %s", len(unread), len(pictures), "; ".join(unread[:3]))
    return rows, np.concatenate(found)


def _common(labels: Sequence[str | None]) -> str | None:
    """The label that all have, if there is one."""
    return labels[0] if len(set(labels)) == 1 else None


def _region(box: str | None, queries: Sequence[str]) -> Box | None:
    """Left, top, right and bottom, px, of a box as it is typed."""
    if box is None:
        return None
    try:
        left, top, right, bottom = (int(part) for part in box.split(","))
    except ValueError:
        raise SeeallError(f"--box {box}: want four whole numbers, x1,y1,x2,y2 in px") from None
    if not (0 <= left < right and 0 <= top < bottom):
        raise SeeallError(f"--box {box}: want x1,y1,x2,y2 in px with x1 < x2 and y1 < y2, none below 0")
    if len(queries) > 1:
        raise SeeallError(f"--box {box}: goes with one picture, not {len(queries)}")
    return left, top, right, bottom


def _cut(pictures: Pictures, box: Box) -> Pictures:
    """The one of `pictures`, of which nothing is seen but what is in `box`."""
    if len(pictures) > 1:
        raise SeeallError(f"{pictures.source}: --box goes with one picture, not {len(pictures)}")
    left, top, right, bottom = box

    def read(key: Any, shortest: int | None) -> Pixels:
        pixels = pictures.reader(key, None)
        height, width = pixels.shape[:2]
        if right > width or bottom > height:
            raise SeeallError(f"{key}: is {width} x {height} px, and --box {left},{top},{right},{bottom} is not in it")
        return pixels[top:bottom, left:right]

    return dataclasses.replace(pictures, reader=read)


def _is_id(query: str) -> bool:
    """Whether a query is a number and no file: digits such as ² are none, nor is what is longer than a name."""
    return query.isascii() and query.isdecimal() and (len(query) > _NAME or not Path(query).exists())


def page(path: Path, folder: Path, results: Sequence[dict[str, Any]]) -> None:
    """Write the contact sheet of `results` to an HTML file. Raises SeeallError where the disk refuses."""
    save(path, sheet(f"Look-alikes in {folder.name}", results, reader()))
