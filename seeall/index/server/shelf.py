"""The index that is served, as it is now: it moves on by itself when somebody changes the folder."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seeall.console import log
from seeall.index.build import eye_of
from seeall.index.faces.settings import NAME as GALLERY
from seeall.index.gpus import Gpu
from seeall.index.manifest import NAME
from seeall.index.protocol import Away, Store
from seeall.index.segments import Floats, Ids, unit
from seeall.index.server.errors import Refusal, without_paths
from seeall.index.server.names import Names, clean
from seeall.index.server.people import Finding, people_of, whole
from seeall.index.store import Item
from seeall.index.stores import open_store
from seeall.index.where import parse
from seeall.training.embed import Eye
from seeall.types import SeeallError

T = TypeVar("T")
Vector = NDArray[np.floating[Any]]
_LINGER = 60.0
"""Seconds that an index whose place another has taken stays open, for those who are still at it."""


class Query(NamedTuple):
    """One question. Exactly one of the four is given: an item, a vector (D,), pixels or faces (3, S, S) uint8.

    first, last: which neighbours are wanted, or people for each face, from 0, last exclusive · where: a filter, or ""
    """

    first: int
    last: int
    where: str = ""
    id: int | None = None
    vector: Vector | None = None
    pixels: Tensor | None = None
    faces: Sequence[Tensor] | None = None


class Hit(NamedTuple):
    """Items and cosines, best first; query: the item that was asked for; more: whether there are others behind.

    who: for each face that was asked for, (person, score), best first
    """

    items: list[Item]
    scores: list[float]
    query: Item | None
    more: bool
    shelf: Opened
    who: Sequence[Sequence[Any]] = ()


@final
class Opened:
    """One index with its eye and the names of its items. It is replaced as a whole, never changed.

    edition: what tells this index from another that was at its place
    """

    def __init__(self, index: Store, eye: Eye, finding: Finding) -> None:
        self.index, self.eye = index, eye
        self.people = people_of(index, eye, finding)
        self.names = Names(index.span())
        info = index.info()
        self.generation = int(info["generation"])
        self.edition = f"{info['model'][:8]}-{info['created']}"

    def shown(self, item: Item) -> dict[str, Any]:
        """An item as it is told outside."""
        label = None if item.label is None else clean(item.label)
        name, metadata = self.names.name(item.path), self.names.bare(item.metadata)
        return {"id": item.id, "name": name, "label": label, "metadata": metadata}

    def refusal(self, fault: SeeallError, status: int, code: str) -> Refusal:
        """What `fault` says, without a path."""
        return Refusal(status, code, without_paths(str(fault), str(self.index.path), self.names.root or "/"))

    def select(self, where: str) -> Ids:
        """The items that a filter lets through, ascending; all where it is "". Raises Refusal.

        Conditions on the path are refused: by asking often enough, the folders of the disk could be guessed.
        """
        if not where:
            return self.reached(lambda: self.index.ids)
        try:
            condition = parse(where)
        except SeeallError as fault:
            raise self.refusal(fault, 422, "filter") from None
        if re.search(r"\bpath\b", condition.sql):
            raise Refusal(422, "filter", "where: the path is not told here; the label, the id and other columns are")
        return self.reached(lambda: self.index.select(where))

    def reached(self, work: Callable[[], T]) -> T:
        """What `work` asks of the index. Raises Refusal where that is away."""
        try:
            return work()
        except Away as fault:
            log.warning("%s", fault)
            raise Refusal(503, "away", "the index cannot be read just now: try again in a moment") from None

    def items(self, ids: Sequence[int]) -> list[Item]:
        """Raises Refusal where one has just gone."""
        try:
            return self.index.items(ids)
        except SeeallError:
            raise Refusal(503, "changed", "the index has just changed: ask again") from None

    def get(self, id: int) -> Item:
        """Raises Refusal where there is none."""
        if not self.reached(lambda: id in self.index):
            raise Refusal(404, "no_such_item", f"there is no item {id}")
        return self.items([id])[0]


@final
class Shelf:
    """The index at `folder`. Whoever asks takes `now` once and stays with it.

    `refresh` and `answer` belong to one thread.

    Raises: SeeallError where there is no index, or it cannot be opened.
    """

    def __init__(self, folder: Path, gpu: Gpu = "auto", finding: Finding = whole) -> None:
        self._folder, self._gpu, self._finding = folder, gpu, finding
        self._stamp = _stamp(folder)
        index = open_store(folder, gpu=gpu)
        try:
            self.now = Opened(index, eye_of(index), self._finding)
        except BaseException:
            index.close()
            raise
        self._unread = self._away = False
        self._old: list[tuple[float, Store]] = []

    @property
    def stale(self) -> bool:
        """Whether there is something newer that cannot be read, or nothing can be."""
        return self._unread or self._away

    @property
    def name(self) -> str:
        """The folder's name."""
        return clean(self._folder.resolve().name)

    def close(self) -> None:
        """Let go of all files."""
        for _, index in [*self._old, (0.0, self.now.index)]:
            index.close()

    def refresh(self) -> None:
        """Move on to the newest generation, or to another index that has taken this one's place.

        What is served stays as it is where that cannot be read, and `stale` says so.
        """
        while self._old and time.monotonic() - self._old[0][0] > _LINGER:
            self._old.pop(0)[1].close()
        stamp = _stamp(self._folder)
        if stamp == self._stamp and not self._moved():
            return
        try:
            self._move()
            self._unread = False
        except SeeallError as fault:
            self._unread = True
            log.warning("%s; what was read before is still served", fault)
        self._stamp = stamp

    def _moved(self) -> bool:
        """Whether the index has a newer generation without a sign of it in the folder, as one in Milvus has."""
        try:
            moved = self.now.index.generation() != self.now.generation
            self._away = False
        except SeeallError as fault:
            if not self._away:
                log.warning("%s", fault)
            self._away, moved = True, False
        return moved

    def _move(self) -> None:
        index, eye = self.now.index, self.now.eye
        try:
            if index.path == self._folder.resolve():
                index.refresh()
                self.now = Opened(index, eye, self._finding)
                return
        except SeeallError:  # another index has taken its place, or what is there cannot be read
            pass
        fresh = open_store(self._folder, gpu=self._gpu)
        try:
            self.now = Opened(fresh, eye_of(fresh), self._finding)
        except BaseException:
            fresh.close()
            raise
        self._old.append((time.monotonic(), index))

    def answer(self, queries: Sequence[Query]) -> list[Hit | Exception]:
        """All of `queries`: pictures embedded together, and what has the same filter searched together."""
        shelf = self.now
        found: list[Hit | Exception | None] = [None] * len(queries)
        vectors: dict[int, Vector] = {}
        asked: dict[int, Item] = {}
        seen = self._see(shelf, queries)
        for row, query in enumerate(queries):
            try:
                if query.faces is not None:
                    found[row] = self._who(shelf, query, seen[row])
                elif query.id is not None:
                    asked[row] = shelf.get(query.id)
                    vectors[row] = asked[row].vector
                else:
                    vector = query.vector if query.pixels is None else _only(seen[row])
                    vectors[row] = _vector(vector, shelf.index.dim)
            except Refusal as fault:
                found[row] = fault
        groups: dict[tuple[str, int], list[int]] = {}
        for row in vectors:
            # those who want about as many: a deep page is not to make the others of its batch wait longer
            groups.setdefault((queries[row].where, queries[row].last.bit_length()), []).append(row)
        for (where, _), rows in groups.items():
            together = [queries[row] for row in rows]
            hits: Sequence[Hit | Exception]
            try:
                hits = self._search(shelf, where, together, np.stack([vectors[row] for row in rows]))
            except Refusal as fault:
                hits = [fault] * len(rows)
            for row, hit in zip(rows, hits):
                found[row] = hit._replace(query=asked.get(row)) if isinstance(hit, Hit) else hit
        return [hit or Refusal(500, "internal", "no answer") for hit in found]

    @staticmethod
    def _see(shelf: Opened, queries: Sequence[Query]) -> Mapping[int, Floats | None]:
        """Features (n, D) of a query's pictures, None where the eye has another size than when they were cut."""
        size = shelf.eye.size
        cut = {
            row: [query.pixels] if query.pixels is not None else list(query.faces or [])
            for row, query in enumerate(queries)
            if query.pixels is not None or query.faces is not None
        }
        fit = [row for row, some in cut.items() if all(one.shape[1:] == (size, size) for one in some)]
        together = [one for row in fit for one in cut[row]]
        z = shelf.eye.see(torch.stack(together)).numpy() if together else np.empty((0, shelf.index.dim), np.float32)
        parts = np.split(z, np.cumsum([len(cut[row]) for row in fit])[:-1]) if fit else []
        return {**dict.fromkeys(cut), **dict(zip(fit, parts))}

    @staticmethod
    def _who(shelf: Opened, query: Query, z: Floats | None) -> Hit:
        if z is None or shelf.people is None:
            raise _changed()
        try:
            who = shelf.people.identify(z, query.last)
        except SeeallError as fault:
            raise shelf.refusal(fault, 422, "faces") from None
        return Hit([], [], None, False, shelf, who)

    @staticmethod
    def _search(shelf: Opened, where: str, queries: Sequence[Query], vectors: Vector) -> list[Hit]:
        most = len(shelf.select(where)) if where else len(shelf.index)
        k = min(max(query.last for query in queries) + 1, most)
        if not k:
            return [Hit([], [], None, False, shelf) for _ in queries]
        ids, scores = shelf.reached(lambda: shelf.index.search(vectors, k, where or None))
        ranges = [slice(query.first, query.last) for query in queries]
        wanted = sorted({int(i) for row, part in enumerate(ranges) for i in ids[row][part] if i >= 0})
        items = {item.id: item for item in shelf.items(wanted)}
        return [
            Hit(
                [items[int(i)] for i in ids[row][part] if i >= 0],
                [float(score) for i, score in zip(ids[row][part], scores[row][part]) if i >= 0],
                None,
                int((ids[row] >= 0).sum()) > part.stop,
                shelf,
            )
            for row, part in enumerate(ranges)
        ]


def _vector(vector: Vector | None, dim: int) -> Vector:
    """The same, in double precision; raises Refusal for what cannot be searched for."""
    if vector is None:
        raise _changed()
    if len(vector) != dim:
        raise Refusal(422, "vector", f"vector: {len(vector)} numbers, where this index has {dim} dimensions")
    try:
        unit(vector, dim)
    except SeeallError:
        raise Refusal(
            422, "vector", "vector: it has no direction, for it is all zeros or holds what is no number"
        ) from None
    return vector.astype(np.float64)


def _only(z: Floats | None) -> Floats | None:
    return None if z is None else z[0]


def _changed() -> Refusal:
    return Refusal(503, "changed", "the index has just been replaced: ask again")


def _stamp(folder: Path) -> tuple[tuple[int, ...], ...]:
    """What changes whenever the manifest does, or what makes an index a gallery."""
    found = list[tuple[int, ...]]()
    for name in (NAME, GALLERY):
        try:
            about = (folder / name).stat()
        except OSError:
            found.append((0,))
        else:
            found.append((about.st_dev, about.st_ino, about.st_mtime_ns, about.st_size))
    return tuple(found)
