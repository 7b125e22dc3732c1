"""How an index changes: one writer, one generation at a time, and a kill at any instant costs nothing.

A commit is three steps, each on disk before the next begins:

    1. vectors/, index/   new files, written beside, forced, renamed; nothing names them yet
    2. items.sqlite       one transaction, synchronous = FULL; its rows belong to a generation yet to come
    3. manifest.json      replaced in one step: this is the commit, and the new generation is the truth

Whatever a writer that died, failed or gave up has left is undone by `recover`: by itself if it can, and always
by the next one, before its own work. Files that the new manifest no longer names go after the commit by the
same way.

What is erased is removed, all rows that live are written anew, and the database is after the commit. The file
`erasing` is there from before the first of that until no trace is left: so the next writer does, when it is done,
what this one did not come to.
"""

from __future__ import annotations

import math
import os
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike

from seeall.durable import PARTIAL, sync_folder
from seeall.index import durable, engine, segments, skipped, structures
from seeall.index.durable import ERASING
from seeall.index.items import Items, Record, checksum, record
from seeall.index.manifest import NAME, Manifest, Projection, now
from seeall.index.plan import Plan
from seeall.index.segments import Floats, Ids, Living, Mask, Rows, unit
from seeall.index.stamps import Stamp
from seeall.index.threads import suited
from seeall.types import SeeallError

DRIFT = 0.2
"""A trained FAISS file is built again once this share of its items has come or gone since."""
_FOLDERS = ("vectors", "index")
_TWICE = "added twice in one commit: give every item a path of its own"
_NAMED = 3
"""How many names an error lists."""


def recover(root: Path) -> None:
    """Bring `root` to what its manifest says. The caller holds the lock. Raises SeeallError."""
    manifest = Manifest.read(root)
    rows = Rows(root, manifest.segments, manifest.dim)
    items = Items(root, writable=True)
    try:
        items.roll_back(manifest.generation)
        gone = items.removed(manifest.generation)
        items.forget(gone[~np.isin(gone, rows.ids)])
        items.commit()
    finally:
        items.close()
    for folder in _FOLDERS:  # copying through git or to a store of objects loses empty ones
        (root / folder).mkdir(exist_ok=True)
    for leftover in leftovers(root, manifest):
        with suppress(OSError):  # it does no harm
            leftover.unlink(missing_ok=True)


def scrub(root: Path) -> None:
    """Remove the last traces of what was erased, where there may be any, and the file that says so. As `recover`.

    It has to wait, and gives up, while anybody reads an older generation.
    """
    if (root / ERASING).exists() and Items.scrub(root) and not leftovers(root, Manifest.read(root)):
        (root / ERASING).unlink()
        sync_folder(root)


def leftovers(root: Path, manifest: Manifest) -> list[Path]:
    """Files that the manifest does not name, in the places that belong to it alone.

    Not those that NFS keeps as `.nfs…` for whoever has them open: they go by themselves.
    """
    named = {s.vectors_path for s in manifest.segments} | {s.ids_path for s in manifest.segments}
    if manifest.projection:
        named.add(manifest.projection.path)
    found = [root / (name + PARTIAL) for name in (NAME, skipped.NAME, ERASING)]
    for folder in _FOLDERS:
        with suppress(FileNotFoundError):
            found += [p for p in (root / folder).iterdir() if not p.name.startswith(".nfs")]
    return sorted(p for p in found if p.is_file() and p.relative_to(root).as_posix() not in named)


@final
class Writer:
    """One commit in the making, for the holder of the lock: any number of changes, then `commit`.

    At most one segment of vectors is held in memory, and nobody sees anything before `commit`. `close` undoes
    what was not committed. Once a change has failed half-way, nothing but `close` is left to do.

    uuid: of the index that is meant; SeeallError where another has taken its place.
    """

    def __init__(self, root: Path, uuid: str) -> None:
        if Manifest.read(root).uuid != uuid:
            raise replaced(root)
        with durable.reported(root):
            recover(root)
        self._root, self._old = root, Manifest.read(root)
        self._items = Items(root, writable=True)
        self._generation = self._old.generation + 1
        self._first_id = self._next_id = self._items.last_id() + 1
        self._count, self._checksum = self._old.count, self._old.items_checksum
        self._pending: list[tuple[Ids, Floats]] = []
        self._segments = list(self._old.segments)
        self._next_segment = self._old.next_segment
        self._plan, self._projection = self._old.plan, self._old.projection
        self._changed = self._broken = self._stamped = False

    def commit(self) -> None:
        """Make the new generation the truth. Raises SeeallError where it cannot, and all is as before."""
        with self._changing():
            if not self._changed:
                if self._stamped:
                    self._items.commit()  # of no generation
                return
            self._absorb_small_segments()
            self._write_segments(everything=True)
            projection = self._project()
            self._items.commit()
            manifest = replace(
                self._old,
                generation=self._generation,
                updated=now(),
                count=self._count,
                removed=sum(s.rows for s in self._segments) - self._count,
                items_checksum=self._checksum,
                segments=tuple(self._segments),
                next_segment=self._next_segment,
                plan=self._plan,
                projection=projection,
            )
            manifest.write(self._root)

    def close(self) -> None:
        """Let go, and tidy: undo what was not committed, remove what the commit no longer names.

        Where that fails, the next writer does it.
        """
        self._items.close()
        with suppress(SeeallError, OSError, sqlite3.Error):
            recover(self._root)
            scrub(self._root)  # not before: who writes has the index open, too

    def append(
        self,
        paths: Sequence[str],
        vectors: ArrayLike,
        labels: Sequence[str | None] | None = None,
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
    ) -> Ids:
        """Add n items with vectors (n, D) of any length but zero; a path already there is replaced.

        Returns: their ids, (n,) int64.
        Raises: SeeallError, before anything is changed, for sequences of different lengths, a wrong dimension,
        NaN, infinity or zeros, a path twice in one commit, or text that cannot be stored; and where the disk
        cannot take it.
        """
        if len(paths) == 0:
            return np.empty(0, np.int64)
        new = unit(vectors, self._old.dim, paths)
        for given, what in ((new, "vectors"), (labels, "labels"), (metadata, "metadata")):
            if given is not None and len(given) != len(paths):
                raise SeeallError(f"{len(given)} {what} for {len(paths)} paths: give every path its own")
        ids = np.arange(self._next_id, self._next_id + len(paths), dtype=np.int64)
        records = [
            record(int(i), path, None if labels is None else labels[n], None if metadata is None else metadata[n])
            for n, (i, path) in enumerate(zip(ids, paths))
        ]
        # Where nothing was there before, nothing is replaced, and the database finds what comes twice.
        there = self._there(records) if self._old.count else []
        refuse(
            [path for path, times in Counter(r.path for r in records).items() if times > 1]
            + [r.path for r in there if r.id >= self._first_id],
            _TWICE,
        )
        with self._changing():
            self._retire(there)
            added = self._items.add(records, self._generation)
        if not added:
            refuse([r.path for r in self._there(records)], _TWICE)
        with self._changing():
            self._checksum = checksum(self._checksum, added=records)
            self._next_id += len(records)
            self._count += len(records)
            self._changed = True
            self._pending.append((ids, new))
            self._write_segments()
        return ids

    def _there(self, records: Sequence[Record]) -> list[Record]:
        """The records of the same paths that are in the index or were added by this commit."""
        return list(self._items.by_path([r.path for r in records], self._generation).values())

    def remove(self, items: Iterable[int | str]) -> int:
        """Remove items by id or path. Returns how many.

        Raises: SeeallError where one is not in the index or was added by this same commit; nothing is removed.
        """
        records = self._found(items)
        with self._changing():
            self._retire(records)
        return len(records)

    def stamp(self, stamps: Mapping[int, Stamp]) -> None:
        """Keep, for each id, what its file is like: see `stamps`. Alone, this makes no new generation."""
        if stamps:
            with self._changing():
                self._items.stamp(stamps)
                self._stamped = True

    def labelled(self, labels: Collection[str]) -> dict[str, list[int]]:
        """Label → ids of the items that have it, as the index was before this commit; of those labels there are."""
        found: dict[str, list[int]] = {}
        for item in self._items.all(self._old.generation):
            if item.label in labels:
                found.setdefault(str(item.label), []).append(item.id)
        return found

    def compact(self) -> int:
        """Write the living rows anew and drop the others. Returns rows dropped.

        A trained FAISS file is built again then, and also where it is not what was written.
        Raises: SeeallError after any other change of the same commit, and where the disk cannot take it.
        """
        if self._changed:
            raise SeeallError(f"the index {self._root} is compacted before any other change of a commit, not after")
        if not self._old.removed:
            if self._projection and not self._serves(self._projection, every_byte=True):
                self._projection, self._changed = None, True
            return 0
        with self._changing():
            self._rewrite()
        return self._old.removed

    def tune(self, plan: Plan) -> None:
        """Search as `plan` says from this commit on; a trained file of another plan is built again."""
        if plan != self._plan:
            self._plan, self._projection, self._changed = plan, None, True

    def erase(self, items: Iterable[int | str]) -> int:
        """Remove items by id or path and leave no trace of them, nor of any that were removed before. Returns how many.

        The rows that live are written anew; after the commit no file in the folder holds what was erased: neither
        vectors, nor the database, nor skipped.csv, nor a trained FAISS file.
        Raises: as `remove`; SeeallError after any other change of the same commit.
        """
        if self._changed:
            raise SeeallError(f"items of the index {self._root} are erased before any other change, not after")
        records = self._found(items)
        with self._changing():
            durable.write(self._root / ERASING, lambda file: file.write(b""))
            paths = {f"/{skipped.written(r.path)}" for r in records}
            skipped.forget(self._root, lambda line: any(path.endswith(f"/{line.get('path')}") for path in paths))
            self._retire(records)
            self._rewrite()
        return len(records)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Failures of the disk as SeeallError; whatever fails in here, the caller cannot commit after all."""
        if self._broken:
            raise SeeallError(f"a change to the index {self._root} has failed: nothing of this commit is kept")
        self._broken = True
        with durable.reported(self._root):
            yield
        self._broken = False

    def distrust(self) -> None:
        """The trained FAISS file cannot be read: the commit, if there is one, builds it again."""
        self._projection = None

    def rebuild(self) -> None:
        """Build the trained FAISS file again with this commit, whatever else it does."""
        self._projection, self._changed = None, True

    def _found(self, items: Iterable[int | str]) -> list[Record]:
        """The records of ids and paths, each once. Raises SeeallError where one is missing or new."""
        asked = list(dict.fromkeys(i if isinstance(i, str) else int(i) for i in items))
        found = lookup(self._items, asked, self._generation)
        refuse([i for i, r in zip(asked, found) if r is None], f"not in the index {self._root}")
        records = {r.id: r for r in found if r}
        refuse([i for i in records if i >= self._first_id], "added by this same commit: leave it out instead")
        return list(records.values())

    def _rewrite(self) -> None:
        """Write the living rows anew, without the others."""
        rows = Rows(self._root, self._old.segments, self._old.dim)
        self._segments, self._projection, self._changed = [], None, True
        for positions, block in rows.blocks(self._alive(rows)):
            self._pending.append((rows.ids[positions], block))
            self._write_segments()

    def _retire(self, records: Sequence[Record]) -> None:
        self._items.retire((r.id for r in records), self._generation)
        self._checksum = checksum(self._checksum, removed=records)
        self._count -= len(records)
        self._changed = self._changed or bool(records)

    def _write_segments(self, everything: bool = False) -> None:
        """Put what is pending on disk as full segments, and with `everything` the rest as a smaller one."""
        waiting = sum(len(ids) for ids, _ in self._pending)
        if waiting < segments.ROWS and not (everything and waiting):
            return
        ids, vectors = (np.concatenate(parts) for parts in zip(*self._pending))
        while len(ids) >= segments.ROWS or (everything and len(ids)):
            new, ids = ids[: segments.ROWS], ids[segments.ROWS :]
            block, vectors = vectors[: segments.ROWS], vectors[segments.ROWS :]
            self._segments.append(segments.write(self._root, self._next_segment, new, block))
            self._next_segment += 1
        self._pending = [(ids, vectors.copy())] if len(ids) else []

    def _absorb_small_segments(self) -> None:
        """Take segments no larger than what is pending along with it.

        So a thousand commits of one item leave about ten segments, and a row is rewritten about log n times.
        """
        waiting = sum(len(ids) for ids, _ in self._pending)
        while self._segments and self._segments[-1].rows <= min(waiting, segments.ROWS - waiting):
            rows = Rows(self._root, [self._segments.pop()], self._old.dim)
            self._pending.insert(0, (rows.ids, rows.gather(np.arange(len(rows)))))
            waiting += len(rows)

    def _alive(self, rows: Rows) -> Mask:
        return ~np.isin(rows.ids, self._items.removed(self._generation))

    def _project(self) -> Projection | None:
        """The trained FAISS file of the new generation: none for a small index, the old one while it serves."""
        plan, dim = self._plan, self._old.dim
        if plan.candidates(self._count, dim) == ("exact",):
            return None
        rows = Rows(self._root, self._segments, dim)
        alive, old = self._alive(rows), self._projection
        if old and self._serves(old):
            came, gone = int(alive[old.rows :].sum()), old.count - int(alive[: old.rows].sum())
            if came + gone <= DRIFT * old.count:
                return old
        with suited(math.inf):
            built = structures.build(Living(rows.stack, alive), plan)
        path = f"index/{self._generation:08d}.faiss"
        digest = durable.write(self._root / path, lambda file: engine.save(built.index, file))
        size = (self._root / path).stat().st_size
        found = (built.structure, built.search, built.recall, built.speed)
        return Projection(path, len(rows), self._count, *found, digest, size)

    def _serves(self, projection: Projection, every_byte: bool = False) -> bool:
        """Whether the trained file is there in its full size; `every_byte` takes reading all of it."""
        try:
            with (self._root / projection.path).open("rb") as file:
                if projection.bytes not in (0, os.fstat(file.fileno()).st_size):
                    return False
                return not every_byte or durable.sha256(file) == projection.sha256
        except OSError:
            return False


def lookup(items: Items, asked: Sequence[int | str], generation: int) -> list[Record | None]:
    """The records of ids (whole numbers) and paths (text), in the order asked; None where there is none."""
    by_path = items.by_path([i for i in asked if isinstance(i, str)], generation)
    by_id = items.by_id([int(i) for i in asked if not isinstance(i, str)], generation)
    return [by_path.get(i) if isinstance(i, str) else by_id.get(int(i)) for i in asked]


def replaced(root: Path) -> SeeallError:
    """The error for an index that is not the one that was opened, though its folder is."""
    return SeeallError(f"the index {root} was replaced since it was opened: open it again")


def refuse(names: Sequence[object], why: str) -> None:
    """Raises SeeallError where there are any names, with the first of them."""
    if names:
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        raise SeeallError(f"{', '.join(repr(n) for n in names[:_NAMED])}{more}: {why}")
