"""An index whose vectors and items are in Milvus: what `seeall.index.store.Index` is for a folder, by the same words.

The folder is small: manifest.json says of what network it is and where its items are, model.safetensors is that
network, skipped.csv and lock are as ever. It never holds a token, and may be copied to whoever is to search.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, final

import numpy as np
from numpy.typing import ArrayLike

from seeall.console import log
from seeall.index import durable
from seeall.index.commit import replaced
from seeall.index.draft import Draft
from seeall.index.durable import LOCK, Lock
from seeall.index.items import Known
from seeall.index.manifest import Manifest
from seeall.index.milvus import check
from seeall.index.milvus import log as commits
from seeall.index.milvus.conditions import Passing, select
from seeall.index.milvus.rows import Rows, record
from seeall.index.milvus.search import nearest
from seeall.index.milvus.tables import KINDS, Tables, address
from seeall.index.milvus.writer import Writer
from seeall.index.plan import Plan
from seeall.index.protocol import Away
from seeall.index.segments import Floats, Ids, unit
from seeall.index.store import Item
from seeall.index.where import parse
from seeall.types import SeeallError

T = TypeVar("T")
_ATTEMPTS = 20


@final
class MilvusIndex:
    """An index in Milvus, opened with `open` or begun with `create`; either way it can be searched and changed.

    Every answer is of one generation, the newest there is when it is given: unlike an index in a folder, one in Milvus
    does not keep an older generation for those who opened it.
    """

    def __init__(self, root: Path, manifest: Manifest, tables: Tables, draft: Draft | None, wait: bool) -> None:
        self._root, self._manifest, self._tables, self._draft, self._wait = root, manifest, tables, draft, wait
        self._state = commits.read(tables).state
        self._ids: tuple[Any, Ids] | None = None
        self._selected: tuple[str, commits.State, Passing] | None = None
        self._process, self._closed = os.getpid(), False

    @classmethod
    def create(
        cls,
        path: str | Path,
        store: str,
        *,
        dim: int,
        model: str,
        preprocessing: Mapping[str, Any],
        files: Mapping[str, Path] | None = None,
        overwrite: bool = False,
        plan: Plan | None = None,
    ) -> MilvusIndex:
        """Begin an index at `path` whose items are at the address `store`: see `Index.create`.

        Raises: as `Index.create`; SeeallError for a plan that Milvus cannot follow, and where it does not answer.
        """
        if dim < 2:
            raise SeeallError(f"Milvus keeps vectors of two dimensions or more, and these have {dim}")
        plan, store = plan or Plan(), address(store)
        if plan.structure not in KINDS or plan.recall is not None or plan.memory is not None:
            raise SeeallError(
                f"--store {store}: choose --structure from {', '.join(KINDS)}; --recall and --memory are for an index"
                " in a folder, as Milvus does not measure them"
            )
        fields = {"dim": dim, "model": model, "preprocessing": dict(preprocessing), "plan": plan, "store": store}
        draft = Draft(Path(path), fields, files or {}, overwrite)
        try:
            manifest = Manifest.read(draft.root)
            tables = Tables(store, manifest.uuid)
            try:
                tables.create(dim, plan.structure)
                index = cls(draft.root, manifest, tables, draft, False)
            except BaseException:
                with suppress(SeeallError):
                    tables.drop()
                tables.close()
                raise
        except BaseException:
            draft.discard()
            raise
        index._forget(draft)
        return index

    @classmethod
    def open(cls, path: str | Path, *, wait: bool = False) -> MilvusIndex:
        """Open the index at `path`: see `Index.open`. Raises: as it does, and where Milvus does not answer."""
        root = Path(path).resolve()
        manifest = Manifest.read(root)
        tables = Tables(manifest.store, manifest.uuid)
        try:
            tables.open(manifest.dim)
            return cls(root, manifest, tables, None, wait)
        except BaseException:
            tables.close()
            raise

    def close(self) -> None:
        """Hang up. An index that was begun and never committed is gone."""
        if os.getpid() != self._process or self._closed:
            return
        if self._draft:
            with suppress(SeeallError):
                self._tables.drop()
            self._draft.discard()
            self._draft = None
        self._closed = True
        self._tables.close()

    def __enter__(self) -> MilvusIndex:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    # changing

    @contextmanager
    def writer(self) -> Iterator[Writer]:
        """Many changes in one commit: see `Index.writer`. Raises: SeeallError, and where somebody elsewhere writes."""
        self._check()
        with closing(Lock(self._root / LOCK, wait=self._wait)):
            self._in_place()
            writer = Writer(self._tables, self._root, self.dim)
            try:
                yield writer
                writer.commit()
            except BaseException:
                writer.undo()
                raise
            if self._draft:
                self._draft.publish()
                self._root, draft, self._draft = self._draft.target, self._draft, None
                self._forget(draft)
        self._state = commits.read(self._tables).state

    def add(
        self,
        paths: Sequence[str],
        vectors: ArrayLike,
        labels: Sequence[str | None] | None = None,
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
    ) -> Ids:
        """Add items in one commit: see `commit.Writer.append`, whose arguments, result and errors these are."""
        with self.writer() as writer:
            return writer.append(paths, vectors, labels, metadata)

    def remove(self, items: Iterable[int | str]) -> int:
        """Remove items, by id or path, in one commit: see `Index.remove`."""
        with self.writer() as writer:
            return writer.remove(items)

    def refresh(self) -> bool:
        """Look whether there is a newer generation than was last seen. Returns whether there is.

        Raises: SeeallError where another index has taken this one's place.
        """
        self._check()
        self._in_place()
        before, self._state = self._state.generation, commits.read(self._tables).state
        return self._state.generation != before

    # asking

    def __len__(self) -> int:
        self._check()
        return self._state.count

    def __contains__(self, item: int | str) -> bool:
        return self._steady(lambda rows: self._rows(rows, [item])) != [None]

    @property
    def path(self) -> Path:
        """The folder. A new index is in a hidden one beside it until its first commit."""
        return self._root

    @property
    def dim(self) -> int:
        """D, the dimension of the vectors."""
        return self._manifest.dim

    @property
    def preprocessing(self) -> dict[str, Any]:
        """How pictures get into the network."""
        return dict(self._manifest.preprocessing)

    @property
    def ids(self) -> Ids:
        """(n,) int64, ascending. All of them are read, once for each generation."""

        def read(rows: Rows) -> Ids:
            if self._ids is None or self._ids[0] != rows.state.edition:
                self._ids = rows.state.edition, rows.ids()
            return self._ids[1]

        return self._steady(read)

    def generation(self) -> int:
        """The newest generation there is."""
        self._check()
        return commits.read(self._tables).state.generation

    def span(self) -> tuple[str, str] | None:
        """The first and the last absolute path, by their bytes, that were ever here since it was last empty."""
        return self._steady(lambda rows: rows.state.span)

    def require_model(self, digest: str) -> None:
        """Raises SeeallError unless the vectors here come from the model with this digest."""
        if digest != self._manifest.model:
            raise SeeallError(
                f"the index {self._root} was made with model {self._manifest.model[:12]},"
                f" not {digest[:12]}: use that model, or build the index again"
            )

    def search(self, vectors: ArrayLike, k: int, where: str | None = None) -> tuple[Ids, Floats]:
        """The k nearest items of each of `vectors` (n, D): see `Index.search`.

        For a condition all items may be read from Milvus, without vectors: see `conditions`.
        """
        if k < 1:
            raise SeeallError(f"k is {k}: ask for one neighbour or more")
        queries = unit(vectors, self.dim)
        kind = (
            "exact" if self._tables.lite and self._manifest.plan.structure == "auto" else self._manifest.plan.structure
        )

        def read(rows: Rows) -> tuple[int, Ids, Floats]:
            only = None if where is None else self._passing(rows, where)
            most = rows.state.count if only is None else len(only.ids)
            return most, *nearest(self._tables, rows, queries, min(k, most), only, kind)

        most, ids, scores = self._steady(read)
        if k > most:
            what = "the index holds" if where is None else f"where {where!r} holds for"
            log.warning("%s %d items: %d neighbours are returned, not %d", what, most, most, k)
        return ids, scores

    def select(self, where: str) -> Ids:
        """Ids (n,) int64, ascending, of the items that fulfil a condition: see `Index.select`, and `search`."""
        return self._steady(lambda rows: self._passing(rows, where).ids)

    def get(self, item: int | str) -> Item:
        """One item by id (a whole number) or path (text). Raises SeeallError where there is none."""
        return self.items([item])[0]

    def items(self, items: Iterable[int | str]) -> list[Item]:
        """Items by id or path, in the order asked. Raises SeeallError where one is not there."""
        asked = [i if isinstance(i, str) else int(i) for i in items]
        found = self._steady(lambda rows: self._rows(rows, asked, ["vector"]))
        told = []
        for name, row in zip(asked, found):
            if row is None:
                raise SeeallError(f"{name!r} is not in the index {self._root}")
            r = record(row)
            told.append(Item(r.id, r.path, r.label, json.loads(r.metadata), np.array(row["vector"], np.float32)))
        return told

    def info(self) -> dict[str, Any]:
        """What `ssl index info` reports: flat names, plain values."""
        state = self._steady(lambda rows: rows.state)
        return {
            "path": str(self._root),
            "store": self._manifest.store,
            "collection": self._tables.items,
            "count": state.count,
            "dim": self.dim,
            "metric": self._manifest.metric,
            "structure": self._manifest.plan.structure,
            "bytes": durable.occupied(self._root),
            "generation": state.generation,
            "model": self._manifest.model,
            "created": self._manifest.created,
            "updated": state.updated or self._manifest.updated,
        }

    def check(self) -> list[str]:
        """Read everything, and compare it with what was written. Returns what is wrong, if anything."""
        return self._steady(lambda rows: check.problems(self._root, self._manifest, rows))

    def notes(self) -> list[str]:
        """What writers that died have left behind: harmless, and gone with the next commit."""
        writing = len(commits.read(self._tables).unfinished)
        return [f"{writing} writes have begun and are not finished: they go on, or go with the next"] if writing else []

    @contextmanager
    def reading(self) -> Iterator[MilvusView]:
        """What `known` asks, of which each answer is of one generation."""
        self._check()
        yield MilvusView(self._manifest, self._state, self._steady)

    def _steady(self, work: Callable[[Rows], T]) -> T:
        """What `work` makes of the rows of one state, in which nothing has changed meanwhile."""
        self._check()
        for _ in range(_ATTEMPTS):
            state = self._state
            found = work(Rows(self._tables, state, self.dim))
            self._state = commits.read(self._tables).state
            if self._state.edition == state.edition:
                return found
        raise Away(f"the index {self._root} is changing too fast to be read: try again")

    @staticmethod
    def _rows(rows: Rows, asked: Sequence[int | str], more: Sequence[str] = ()) -> list[dict[str, Any] | None]:
        """The rows of ids and paths, in the order asked; None where there is none."""
        by_path = rows.by_path([i for i in asked if isinstance(i, str)], more)
        by_id = rows.by_id([int(i) for i in asked if not isinstance(i, str)], more)
        return [by_path.get(i) if isinstance(i, str) else by_id.get(int(i)) for i in asked]

    def _passing(self, rows: Rows, where: str) -> Passing:
        """What fulfils a condition; the last one is kept, since it is often asked for again."""
        state, known = rows.state, self._selected
        if known and (known[0] != where or known[1].batch in state.void):  # a commit that was taken back
            known = None
        if known is None or known[1].edition != state.edition:
            passing = select(rows, parse(where), known and known[2])
            known = self._selected = where, state, passing
        return known[2]

    def _check(self) -> None:
        """Raises SeeallError where nothing is open, or where it is another process's."""
        if os.getpid() != self._process:
            raise SeeallError(f"the index {self._root} was opened by another process: open it again in this process")
        if self._closed:
            raise SeeallError(f"the index {self._root} is closed: open it again")

    def _in_place(self) -> None:
        if Manifest.read(self._root).uuid != self._manifest.uuid:
            raise replaced(self._root)

    def _forget(self, draft: Draft) -> None:
        """Delete what Milvus keeps of indexes that went for this one."""
        while draft.retired:
            gone = draft.retired.pop()
            if gone.store:
                try:
                    with closing(Tables(gone.store, gone.uuid)) as tables:
                        tables.drop()
                except SeeallError as fault:
                    log.warning("what %s keeps of the index that was here stays there: %s", gone.store, fault)


@final
class MilvusView:
    """An index in Milvus for those who ask it several things: see `protocol.View`."""

    def __init__(
        self, manifest: Manifest, state: commits.State, steady: Callable[[Callable[[Rows], Any]], Any]
    ) -> None:
        self.manifest = replace(manifest, generation=state.generation, count=state.count)
        self._next_id, self._steady = state.next_id, steady

    def walk(self, size: int) -> Iterator[tuple[Ids, Floats]]:
        """See `known.walk`. Raises: SeeallError where something is written meanwhile."""
        for first in range(1, self._next_id, size):
            generation, block = self._steady(partial(_block, first, size))
            if generation != self.manifest.generation:
                raise SeeallError(f"{self.manifest.store} was written to while it was read: try again")
            if len(block[0]):
                yield block

    def files(self, paths: Sequence[str]) -> dict[str, Known]:
        """See `known.files`."""
        return dict(self._steady(lambda rows: rows.files(paths)))

    def records(self, ids: Ids) -> list[Known]:
        """See `known.records`."""
        return list(self._steady(lambda rows: rows.known(ids)))

    def keys(self) -> set[str]:
        """See `known.keys`."""
        return set(self._steady(lambda rows: rows.keys()))

    def beginning(self, start: str) -> list[str]:
        """See `Items.beginning`."""
        return list(self._steady(lambda rows: rows.beginning(start)))


def _block(first: int, size: int, rows: Rows) -> tuple[int, tuple[Ids, Floats]]:
    return rows.state.generation, rows.block(first, size)
