"""Searching an index by pictures or by what it already holds, and the page that shows what was found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from seeall import durable
from seeall.data import video
from seeall.data.decode import Pixels, Unreadable
from seeall.data.pictures import find
from seeall.index.page import THUMB, sheet
from seeall.index.store import Index
from seeall.types import SeeallError

_NAME = 255
"""Most letters in the name of a file."""


def search(
    folder: Path, queries: Sequence[str], k: int, *, run: Path | None = None, gpu: str = "auto"
) -> list[dict[str, Any]]:
    """The k nearest items of each query: a picture, a folder of them, or the id of an item.

    Returns: one {"query", "label", "matches": [{"id", "path", "label", "score", "metadata"}]} a query, best first.
    Raises: SeeallError for a query that is neither, k below 1, or a run that the index was not made with.
    """
    if gpu not in ("auto", "on", "off"):
        raise SeeallError(f"--gpu {gpu}: choose from auto, on, off")
    if k < 1:
        raise SeeallError(f"-k {k}: ask for at least 1 look-alike")
    with Index.open(folder, gpu=cast(Literal["auto", "on", "off"], gpu)) as index:
        if run is not None:
            from seeall.backbones.load import digest

            index.require_model(digest(run))
        names, labels, vectors = _vectors(index, queries)
        ids, scores = index.search(vectors, k)
        items = {item.id: item for item in index.items(np.unique(ids).tolist())}
    return [
        {
            "query": name,
            "label": label,
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


def _vectors(index: Index, queries: Sequence[str]) -> tuple[list[str], list[str | None], Any]:
    names: list[str] = []
    labels: list[str | None] = []
    parts: list[Any] = []
    eye = None
    for query in queries:
        if _is_id(query):
            item = index.get(int(query[:_NAME]))
            names, labels = [*names, item.path], [*labels, item.label]
            parts.append(item.vector[None])
            continue
        from seeall.index.build import eye_of, look, where

        pictures = find(query)
        eye = eye or eye_of(index)
        names += [where(pictures, row) for row in range(len(pictures))]
        labels += pictures.labels or [None] * len(pictures)
        parts.append(look(pictures, eye).numpy())
    return names, labels, np.concatenate(parts)


def _is_id(query: str) -> bool:
    """Whether a query is a number and no file: digits such as ² are none, nor is what is longer than a name."""
    return query.isascii() and query.isdecimal() and (len(query) > _NAME or not Path(query).exists())


def page(path: Path, folder: Path, results: Sequence[dict[str, Any]]) -> None:
    """Write the contact sheet of `results` to an HTML file."""

    reader = video.Reader()

    def read(name: str) -> Pixels:
        if name.startswith("scenes/"):
            raise Unreadable("not kept")
        frame = video.named(name)
        return reader(frame or name, THUMB)

    text = sheet(f"Look-alikes in {folder.name}", results, read)
    durable.save(path, lambda file: file.write(text.encode(errors="backslashreplace")))
