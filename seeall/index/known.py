"""What an index knows of its items, for those who go through many of them: by path, by id, by folder, all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from seeall.index.items import Record
from seeall.index.segments import Floats, Ids
from seeall.index.stamps import Stamp
from seeall.index.store import Index

Known = tuple[Record, Stamp | None]
"""A record, and what the file was like when it was looked at, if that is known."""


def walk(index: Index, size: int = 4096) -> Iterator[tuple[Ids, Floats]]:
    """Every item once, by ascending id, at most `size` at a time: ids (m,) and unit vectors (m, D)."""
    with index.reading() as snapshot:
        rows, alive = snapshot.rows, snapshot.alive
    for positions, vectors in rows.blocks(alive):
        for start in range(0, len(positions), size):
            part = slice(start, start + size)
            yield rows.ids[positions[part]], np.ascontiguousarray(vectors[part])


def files(index: Index, paths: Sequence[str]) -> dict[str, Known]:
    """Path → what is known, of those of `paths` that are in the index."""
    with index.reading() as snapshot:
        records = snapshot.items.by_path(paths, snapshot.manifest.generation)
        known = snapshot.items.stamps([r.id for r in records.values()])
    return {path: (r, known.get(r.id)) for path, r in records.items()}


def records(index: Index, ids: Ids) -> list[Known]:
    """What is known of `ids` (n,), all of which are in the index, in that order."""
    with index.reading() as snapshot:
        found = snapshot.items.by_id(ids.tolist(), snapshot.manifest.generation)
        known = snapshot.items.stamps(ids.tolist())
    return [(found[i], known.get(i)) for i in ids.tolist()]


def keys(index: Index) -> set[str]:
    """The keys of all metadata."""
    with index.reading() as snapshot:
        return snapshot.items.keys(snapshot.manifest.generation)


def below(index: Index, folder: str) -> list[str]:
    """The paths of all items that lie in `folder`, an absolute path, or below it."""
    with index.reading() as snapshot:
        return snapshot.items.below(folder, snapshot.manifest.generation)
