"""What an index knows of its items, for those who go through many of them: by path, by id, by folder, all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from seeall.data.video import is_video
from seeall.index.items import Known
from seeall.index.protocol import Store
from seeall.index.segments import Floats, Ids


def walk(index: Store, size: int = 4096) -> Iterator[tuple[Ids, Floats]]:
    """Every item once, by ascending id, at most `size` at a time: ids (m,) and unit vectors (m, D)."""
    with index.reading() as view:
        blocks = view.walk(size)
    yield from blocks


def files(index: Store, paths: Sequence[str]) -> dict[str, Known]:
    """Path → what is known, of those of `paths` that are in the index."""
    with index.reading() as view:
        return view.files(paths)


def records(index: Store, ids: Ids) -> list[Known]:
    """What is known of `ids` (n,), all of which are in the index, in that order."""
    with index.reading() as view:
        return view.records(ids)


def keys(index: Store) -> set[str]:
    """The keys of all metadata."""
    with index.reading() as view:
        return view.keys()


def below(index: Store, path: str) -> list[str]:
    """The paths of all items that lie in the folder `path`, absolute, or below it, or are frames of the film `path`."""
    path = path.rstrip("/")
    with index.reading() as view:
        return [name for mark in ("/#" if is_video(path) else "/") for name in view.beginning(path + mark)]
