"""An index folder and all that can be asked of it: the one class that other rooms need.

    manifest.json         the truth: generation, model, counts, checksums
    items.sqlite          id ↔ path, label, metadata
    vectors/NNNNNN.npy    unit vectors, and their ids in NNNNNN.ids.npy; never changed once written
    index/NNNNNNNN.faiss  for a large collection, a trained FAISS file; can be built again from the rest
    lock                  held by the one who writes

How it changes is told in `commit`. Readers take no lock and keep the generation that they opened.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike

from seeall.console import log
from seeall.index import check, durable
from seeall.index.commit import Writer, lookup, replaced
from seeall.index.draft import Draft
from seeall.index.durable import ERASING, LOCK, Lock
from seeall.index.gpus import Gpu
from seeall.index.items import Record
from seeall.index.plan import Plan, bytes_each
from seeall.index.search import Searcher
from seeall.index.segments import Floats, Ids, Rows, unit
from seeall.index.selection import Selection
from seeall.index.snapshot import Snapshot
from seeall.index.where import parse
from seeall.types import SeeallError


@final
@dataclass(frozen=True)
class Item:
    """One item of an index; vector: (D,) float32 of length one."""

    id: int
    path: str
    label: str | None
    metadata: dict[str, Any]
    vector: Floats


@final
class Index:
    """An index folder, opened with `open` or begun with `create`; either way it can be searched and changed.

    Every change is one commit: it takes the writer's lock, starts from the newest generation, whoever made
    it, and leaves this object there too. Searching from several threads is fine, also while another changes or
    refreshes; a forked process opens the index again.
    """

    def __init__(self, root: Path, gpu: Gpu, draft: Draft | None = None, wait: bool = False) -> None:
        self._root, self._gpu, self._draft, self._wait = root, gpu, draft, wait
        self._open: Snapshot | None = Snapshot(root)
        self._searcher: Searcher | None = None
        self._selected: tuple[str, Selection] | None = None
        self._swapping = RLock()
        self._process = os.getpid()

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        dim: int,
        model: str,
        preprocessing: Mapping[str, Any],
        files: Mapping[str, Path] | None = None,
        overwrite: bool = False,
        plan: Plan | None = None,
        gpu: Gpu = "auto",
    ) -> Index:
        """Begin an index at `path`. It appears there with its first commit, whole; until then nothing does.

        dim: dimension of its vectors; model: digest of the network that makes them; preprocessing: how
        pictures get into that network; files: name → file to keep a copy of in the folder; plan: how it is to
        be searched, by default exactly as long as it is small.

        Raises: SeeallError where the folder is not empty, unless it is an index and `overwrite` is set; where
        a name among `files` is taken; where the disk cannot be written.
        """
        if dim < 1:
            raise SeeallError(f"an index of {dim} dimensions cannot hold anything: give one or more")
        fields = {"dim": dim, "model": model, "preprocessing": dict(preprocessing), "plan": plan or Plan()}
        draft = Draft(Path(path), fields, files or {}, overwrite)
        return cls(draft.root, gpu, draft)

    @classmethod
    def open(cls, path: str | Path, *, gpu: Gpu = "auto", wait: bool = False) -> Index:
        """Open the index at `path` in the generation that it is at.

        gpu: "auto" uses one if it can, "off" never, "on" must. wait: a change waits for another writer to be done,
        instead of being refused.
        Raises: SeeallError for a folder that is missing, incomplete, damaged or written by a newer program.
        """
        return cls(Path(path).resolve(), gpu, wait=wait)

    def close(self) -> None:
        """Let go of the files. An index that was begun and never committed is gone."""
        if os.getpid() != self._process:  # they are the parent's
            return
        with self._swapping:
            if self._open:
                self._open.close()
            self._open = self._searcher = self._selected = None
        if self._draft:
            self._draft.discard()
            self._draft = None

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    # changing

    @contextmanager
    def writer(self) -> Iterator[Writer]:
        """Many changes in one commit: `append` and `remove` as often as needed, in bounded memory.

        The commit happens at the end of the `with` block; an exception in it leaves the index as it was.
        Raises: SeeallError where another process is writing and nobody asked to wait, another index has taken this
        one's place, or the disk cannot take it.
        """
        uuid = self._snapshot.manifest.uuid
        with closing(Lock(self._root / LOCK, wait=self._wait)):
            writer = Writer(self._root, uuid)
            if self._searcher and self._searcher.damaged:
                writer.distrust()
            try:
                yield writer
                writer.commit()
            except BaseException:
                writer.close()
                raise
            with self._swapping:
                self._snapshot.close()  # the last to let go of the database tidies its log away
                try:
                    writer.close()
                    if self._draft:
                        self._draft.publish()
                        for gone in self._draft.retired:
                            if gone.store:
                                log.warning("collections seeall_%s… stay at %s: drop them there", gone.uuid, gone.store)
                        self._root, self._draft = self._draft.target, None
                finally:
                    self._reopen(uuid)

    def add(
        self,
        paths: Sequence[str],
        vectors: ArrayLike,
        labels: Sequence[str | None] | None = None,
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
    ) -> Ids:
        """Add items in one commit: see `Writer.append`, whose arguments, result and errors these are."""
        with self.writer() as writer:
            return writer.append(paths, vectors, labels, metadata)

    def remove(self, items: Iterable[int | str]) -> int:
        """Remove items, by id or path, in one commit. Returns how many.

        Raises: SeeallError where one is not in the index, and then removes nothing.
        """
        with self.writer() as writer:
            return writer.remove(items)

    def erase(self, items: Iterable[int | str]) -> int:
        """Remove items, by id or path, so that no file in the folder holds a trace of them, in one commit.

        Copies of the folder, and processes that have opened an older generation, keep what they have: while one of
        these reads, the last traces wait for the first write after it is done, which is said.
        Returns: how many. Raises: SeeallError where one is not in the index, and then erases nothing.
        """
        with self.writer() as writer:
            erased = writer.erase(items)
        self.mind_traces()
        return erased

    def mind_traces(self) -> None:
        """Say it, where traces of what was erased are left."""
        if (self._root / ERASING).exists():
            log.warning(
                "%s: another process reads what it held before: the last traces of what was erased go with the next"
                " write after that, such as ssl index compact", self._root,
            )  # fmt: skip

    def compact(self) -> int:
        """Give back the space of removed items, in one commit; ids stay. Returns the rows dropped."""
        with self.writer() as writer:
            return writer.compact()

    def tune(self, plan: Plan) -> None:
        """Search as `plan` says from now on, in one commit."""
        with self.writer() as writer:
            writer.tune(plan)

    def refresh(self) -> bool:
        """Move on to the newest generation. Returns whether there was one.

        Raises: SeeallError where another index has taken this one's place.
        """
        before = self._snapshot.manifest
        self._reopen(before.uuid)
        return self._snapshot.manifest != before

    def _reopen(self, uuid: str) -> None:
        with self._swapping:
            fresh = Snapshot(self._root)
            if fresh.manifest.uuid != uuid:
                fresh.close()
                raise replaced(self._root)
            old, self._open, self._searcher, self._selected = self._open, fresh, None, None
            if old:
                old.close()

    # asking

    def __len__(self) -> int:
        return self._snapshot.manifest.count

    def __contains__(self, item: int | str) -> bool:
        return self._records([item])[1] != [None]

    @property
    def path(self) -> Path:
        """The folder. A new index is in a hidden one beside it until its first commit."""
        return self._root

    @property
    def dim(self) -> int:
        """D, the dimension of the vectors."""
        return self._snapshot.manifest.dim

    @property
    def preprocessing(self) -> dict[str, Any]:
        """How pictures get into the network."""
        return dict(self._snapshot.manifest.preprocessing)

    @property
    def ids(self) -> Ids:
        """(n,) int64, ascending."""
        return self._snapshot.ids

    def generation(self) -> int:
        """The generation that is open."""
        return self._snapshot.manifest.generation

    def span(self) -> tuple[str, str] | None:
        """The first and the last absolute path, by their bytes: what both begin with, all do. None: there is none."""
        with self.reading() as snapshot:
            return snapshot.items.span(snapshot.manifest.generation)

    def require_model(self, digest: str) -> None:
        """Raises SeeallError unless the vectors here come from the model with this digest."""
        if digest != self._snapshot.manifest.model:
            raise SeeallError(
                f"the index {self._root} was made with model {self._snapshot.manifest.model[:12]},"
                f" not {digest[:12]}: use that model, or build the index again"
            )

    def search(self, vectors: ArrayLike, k: int, where: str | None = None) -> tuple[Ids, Floats]:
        """The k nearest items of each of `vectors` (n, D), which need not be normalised.

        where: a condition, in the language of `seeall.index.where`, that items must fulfil to be found. Where few
        do, they are searched exactly; where many do, more is read of a trained file than without it.

        Returns: ids (n, k) int64 and cosines (n, k) float32, best first, equal ones by id. Where fewer than k items
        are there, or fulfil the condition, k is that many, for all vectors.
        Raises: SeeallError for k below one, a wrong dimension, NaN, infinity or zeros, or a condition that cannot
        be understood.
        """
        if k < 1:
            raise SeeallError(f"k is {k}: ask for one neighbour or more")
        queries = unit(vectors, self.dim)
        with self.reading():
            searcher, only = self._search_engine(), None if where is None else self._selection(where)
        most = len(only.ids) if only else searcher.count
        if k > most:
            what = "the index holds" if where is None else f"where {where!r} holds for"
            log.warning("%s %d items: %d neighbours are returned, not %d", what, most, most, k)
        return searcher.search(queries, min(k, most), only)

    def select(self, where: str) -> Ids:
        """Ids (n,) int64, ascending, of the items that fulfil a condition in the language of `seeall.index.where`.

        Raises: SeeallError where it cannot be understood.
        """
        with self.reading() as snapshot:
            return snapshot.items.select(parse(where), snapshot.manifest.generation)

    def get(self, item: int | str) -> Item:
        """One item by id (a whole number) or path (text). Raises SeeallError where there is none."""
        return self.items([item])[0]

    def items(self, items: Iterable[int | str]) -> list[Item]:
        """Items by id or path, in the order asked. Raises SeeallError where one is not there."""
        asked = [i if isinstance(i, str) else int(i) for i in items]
        rows, found = self._records(asked)
        missing = [i for i, r in zip(asked, found) if r is None]
        if missing:
            raise SeeallError(f"{missing[0]!r} is not in the index {self._root}")
        records = [r for r in found if r]
        vectors = rows.gather(rows.find(np.array([r.id for r in records], np.int64)))
        return [Item(r.id, r.path, r.label, json.loads(r.metadata), v) for r, v in zip(records, vectors)]

    def info(self) -> dict[str, Any]:
        """What `ssl index info` reports: flat names, plain values."""
        m = self._snapshot.manifest
        trained = m.projection
        extra = {**trained.search, "recall@10": trained.recall, "queries_per_second": trained.speed} if trained else {}
        structure = trained.structure if trained else "exact"
        return {
            "path": str(self._root),
            "count": m.count,
            "removed": m.removed,
            "dim": m.dim,
            "metric": m.metric,
            "structure": structure,
            **extra,
            "bytes_per_vector": round(
                trained.bytes / max(trained.count, 1) if trained else bytes_each(structure, m.dim)
            ),
            "bytes": durable.occupied(self._root),
            "generation": m.generation,
            "model": m.model,
            "created": m.created,
            "updated": m.updated,
        }

    def check(self) -> list[str]:
        """Read everything and compare it with every checksum and count. Returns what is wrong, if anything."""
        return check.problems(self._root)

    def notes(self) -> list[str]:
        """What a writer that was killed has left behind: harmless, and gone with the next commit."""
        return check.notes(self._root)

    @property
    def _snapshot(self) -> Snapshot:
        """What is open. Raises SeeallError where nothing is, or where it is another process's."""
        if os.getpid() != self._process:
            raise SeeallError(f"the index {self._root} was opened by another process: open it again in this process")
        if self._open is None:
            raise SeeallError(f"the index {self._root} is closed: open it again")
        return self._open

    @contextmanager
    def reading(self) -> Iterator[Snapshot]:
        """What is open, while nobody can put another generation in its place: for those who ask it several things."""
        _ = self._snapshot  # a fork may have left the lock taken: what is wrong there is said before
        with self._swapping:
            yield self._snapshot

    def _records(self, asked: Sequence[int | str]) -> tuple[Rows, list[Record | None]]:
        """The records of `asked`, and the rows of the same generation."""
        with self.reading() as snapshot:
            return snapshot.rows, lookup(snapshot.items, asked, snapshot.manifest.generation)

    def _search_engine(self) -> Searcher:
        """The searcher of what is open; it serves on when that is closed."""
        with self.reading() as snapshot:
            if self._searcher is None:
                self._searcher = Searcher(snapshot, self._gpu)
            return self._searcher

    def _selection(self, where: str) -> Selection:
        """What fulfils a condition; the last one is kept, since it is often asked for again."""
        with self.reading():
            if self._selected is None or self._selected[0] != where:
                self._selected = where, self._search_engine().select(self.select(where))
            return self._selected[1]
