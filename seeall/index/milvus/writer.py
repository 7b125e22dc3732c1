"""One commit to an index in Milvus, in the making: what `commit.Writer` is for a folder. `log` says how it is done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike

from seeall.index.commit import refuse
from seeall.index.items import Record
from seeall.index.items import record as checked
from seeall.index.manifest import now
from seeall.index.milvus import log
from seeall.index.milvus.rows import Rows, record, written
from seeall.index.milvus.tables import Tables
from seeall.index.segments import Ids, unit
from seeall.index.stamps import Stamp
from seeall.types import SeeallError

_BLOCK = 4096
"""Items that are sent at a time."""


@final
class Writer:
    """Any number of changes, then `commit`; nobody sees any before. The caller holds the lock of the folder `root`.

    Raises: SeeallError where Milvus does not answer, or somebody elsewhere writes.
    """

    def __init__(self, tables: Tables, root: Path, dim: int) -> None:
        self._tables, self._root, self._dim = tables, root, dim
        self._old = log.recover(tables, root)
        self._next_id, self._count, self._span = self._old.next_id, self._old.count, self._old.span
        self._batch: int | None = None
        self._gone: set[int] = set()
        self._broken = False

    def append(
        self,
        paths: Sequence[str],
        vectors: ArrayLike,
        labels: Sequence[str | None] | None = None,
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
    ) -> Ids:
        """Add n items: see `commit.Writer.append`, whose arguments, result and errors these are."""
        if len(paths) == 0:
            return np.empty(0, np.int64)
        new = unit(vectors, self._dim, paths)
        for given, what in ((new, "vectors"), (labels, "labels"), (metadata, "metadata")):
            if given is not None and len(given) != len(paths):
                raise SeeallError(f"{len(given)} {what} for {len(paths)} paths: give every path its own")
        ids = np.arange(self._next_id, self._next_id + len(paths), dtype=np.int64)
        records = [
            checked(int(i), path, None if labels is None else labels[n], None if metadata is None else metadata[n])
            for n, (i, path) in enumerate(zip(ids, paths))
        ]
        rows = [written(r) for r in records]
        found = self._rows().by_path([r.path for r in records])
        replaced = [record(row) for row in found.values() if row["id"] not in self._gone]
        refuse(
            [path for path, times in Counter(r.path for r in records).items() if times > 1]
            + [r.path for r in replaced if r.id >= self._old.next_id],
            "added twice in one commit: give every item a path of its own",
        )
        with self._changing() as batch:
            for start in range(0, len(rows), _BLOCK):
                part = slice(start, start + _BLOCK)
                block = [{**row, "batch": batch, "vector": v} for row, v in zip(rows[part], new[part])]
                self._tables.insert(self._tables.items, block)
            self._retire(replaced)
            self._next_id += len(records)
            self._count += len(records)
            self._span = _wider(self._span, [r.path for r in records])
        return ids

    def remove(self, items: Iterable[int | str]) -> int:
        """Remove items by id or path: see `commit.Writer.remove`."""
        asked = list(dict.fromkeys(i if isinstance(i, str) else int(i) for i in items))
        rows = self._rows()
        by_path = rows.by_path([i for i in asked if isinstance(i, str)])
        by_id = rows.by_id([i for i in asked if not isinstance(i, str)])
        found = [by_path.get(i) if isinstance(i, str) else by_id.get(i) for i in asked]
        living = [record(row) if row and row["id"] not in self._gone else None for row in found]
        refuse([i for i, r in zip(asked, living) if r is None], f"not in the index {self._root}")
        records = {r.id: r for r in living if r}
        refuse([i for i in records if i >= self._old.next_id], "added by this same commit: leave it out instead")
        if records:
            with self._changing():
                self._retire(list(records.values()))
        return len(records)

    def stamp(self, stamps: Mapping[int, Stamp]) -> None:
        """Keep, for each id, what its file is like. Alone, this makes no new generation."""
        if stamps:
            self._tables.renew(self._tables.files, [{"id": int(i), **s._asdict()} for i, s in stamps.items()])

    def commit(self) -> None:
        """Make what was changed count. Raises SeeallError where it cannot."""
        if self._broken:
            raise SeeallError(f"a change to the index {self._root} has failed: nothing of this commit is kept")
        if self._batch is None:
            return
        self._tables.force(self._tables.items, self._tables.files)
        span = self._span if self._count else None
        state = log.State(self._old.generation + 1, self._count, self._next_id, now(), span)
        log.finish(self._tables, self._batch, state, sorted(self._gone))
        with suppress(SeeallError):  # the next writer does it
            log.tidy(self._tables)

    def undo(self) -> None:
        """What was changed, and is not committed, will never count. Where Milvus is away, the next writer does it."""
        with suppress(SeeallError):
            if self._batch is not None:
                log.undo(self._tables, [self._batch])
                self._tables.delete(self._tables.files, f"id >= {self._old.next_id}")

    def _rows(self) -> Rows:
        return Rows(self._tables, self._old, self._dim, self._batch)

    def _retire(self, records: Sequence[Record]) -> None:
        self._gone.update(r.id for r in records)
        self._count -= len(records)

    @contextmanager
    def _changing(self) -> Iterator[int]:
        """The batch, begun. Whatever fails in here, the caller cannot commit after all."""
        self._broken = True
        if self._batch is None:
            self._batch = log.begin(self._tables, self._root)
        yield self._batch
        self._broken = False


def _wider(span: tuple[str, str] | None, paths: Sequence[str]) -> tuple[str, str] | None:
    """The first and the last absolute path of those in `span` and `paths`, by their bytes."""
    absolute = [*(span or ()), *(path for path in paths if path.startswith("/"))]
    by_bytes = sorted(absolute, key=lambda path: path.encode("utf-8", "surrogateescape"))
    return (by_bytes[0], by_bytes[-1]) if by_bytes else None
