"""An index beside its twin, a dictionary and a matrix product, through whatever hypothesis thinks of.

    python twin.py [--steps 1000] [--seed 0]        prints one JSON object: steps, and how often each was taken

A program of its own, like `disasters.py`, since it makes segments of 16 rows and counts what it does. Steps add,
replace, remove, compact, write what a sync writes, fail half-way, are refused, ask with and without a condition, open
again, and let a second reader, which keeps the generation that it opened, refresh. Vectors are drawn from a pool of
few, so that ties are everywhere. Most of the indexes keep a trained file from 20 items on, each structure in its turn;
graphs and codes may miss some of the nearest, and nothing else.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from seeall.console import log
from seeall.index import segments
from seeall.index.known import below, files
from seeall.index.plan import STRUCTURES, Plan
from seeall.index.stamps import Stamp
from seeall.index.store import Index
from seeall.types import SeeallError

DIM = 4
MEMORY = Path("/dev/shm")
POOL = np.random.default_rng(0).integers(-1, 2, (9, DIM)).astype(np.float32) + np.float32(0.5)
NAMES = [f"{'/photos' if n % 3 else '/films'}/{n:02d}" for n in range(60)]
TAKEN: Counter[str] = Counter()
STEPS = 50


class Known(NamedTuple):
    """What the twin holds of an item."""

    id: int
    vector: np.ndarray
    label: str | None
    metadata: dict[str, Any]


Twin = dict[str, Known]
Holds = Callable[[Known], bool | None]
words = st.tuples(
    st.sampled_from([None, "cat", "dog"]),
    st.fixed_dictionaries({}, optional={"n": st.integers(0, 5), "t": st.sampled_from(["1", "7", "x"])}),
)
new = st.dictionaries(st.sampled_from(NAMES), st.tuples(st.integers(0, len(POOL) - 1), words), min_size=1, max_size=12)
conditions: st.SearchStrategy[tuple[str, Holds]] = st.sampled_from(
    [
        ("label = 'cat'", lambda i: None if i.label is None else i.label == "cat"),
        ("label is null", lambda i: i.label is None),
        ("n >= 3", lambda i: None if "n" not in i.metadata else i.metadata["n"] >= 3),
        ("t < 5", lambda i: None if "t" not in i.metadata else i.metadata["t"] == "1"),
        ("n in (0, 2) ", lambda i: None if "n" not in i.metadata else i.metadata["n"] in (0, 2)),
        ("id > 7", lambda i: i.id > 7),
        ("id < 0", lambda i: False),
    ]
)


def agree(
    twin: Twin, queries: np.ndarray, k: int, holds: Holds, ids: np.ndarray, scores: np.ndarray, sure: bool
) -> bool:
    """Whether these are the k best of those that `holds` is true of, best first, equal ones by id.

    Brute force in double precision; two that are equal but for rounding may stand either way round. Where search is
    not `sure`, k of them, each once, with their own scores.
    """
    kept = sorted((i for i in twin.values() if holds(i)), key=lambda i: i.id)
    numbers, k = np.array([i.id for i in kept], np.int64), min(k, len(kept))
    if not k:
        return ids.shape == scores.shape == (len(queries), 0)
    rows = np.stack([i.vector for i in kept]).astype(np.float64)
    true = (segments.unit(queries, DIM).astype(np.float64)[:, None] * rows[None]).sum(-1).clip(-1, 1)
    best = -np.sort(-true, axis=1)[:, :k]
    if ids.shape != best.shape or not np.isin(ids, numbers).all() or any(len(set(row)) < k for row in ids.tolist()):
        return False
    if sure and not np.allclose(scores, best, atol=1e-6):
        return False
    own = np.take_along_axis(true, np.searchsorted(numbers, ids), 1)
    in_order = (np.diff(scores) < 0) | ((np.diff(scores) == 0) & (np.diff(ids) > 0))
    return bool(np.allclose(own, scores, atol=1e-6) and in_order.all())


def equal(index: Index, twin: Twin) -> None:
    """Whether the index holds what its twin holds."""
    assert len(index) == len(twin) and index.ids.tolist() == sorted(i.id for i in twin.values())
    for item in index.items(list(twin)):
        known = twin[item.path]
        assert (item.id, item.label, item.metadata) == (known.id, known.label, known.metadata)
        assert np.array_equal(item.vector, known.vector)


class Machine(RuleBasedStateMachine):
    """The steps. `twin` is what is committed, `seen` what the second reader has open."""

    @initialize(structure=st.sampled_from([None, *STRUCTURES]), first=new)
    def begin(self, structure: str | None, first: dict[str, Any]) -> None:
        self.place = tempfile.TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None)
        self.root = Path(self.place.name) / "index"
        plan = Plan() if structure is None else Plan(structure, exact_below=20)
        self.index = Index.create(self.root, dim=DIM, model="m", preprocessing={}, gpu="off", plan=plan)
        self.sure = structure not in ("hnsw", "ivf-pq")
        self.twin: Twin = {}
        self.last, self.generation = 0, 0
        self.add(first)
        self.reader, self.seen = Index.open(self.root, gpu="off"), dict(self.twin)

    def teardown(self) -> None:
        for index in (getattr(self, "index", None), getattr(self, "reader", None)):
            if index:
                index.close()
        if hasattr(self, "place"):
            self.place.cleanup()

    def _written(self, wanted: dict[str, Any], ids: np.ndarray, twin: Twin) -> None:
        """What came of `wanted` goes into the twin; rounding while normalising is the index's own."""
        assert (ids > self.last).all(), "an id was used twice"
        self.last = int(ids.max())
        for number, (name, (vector, (label, metadata))) in zip(ids.tolist(), wanted.items()):
            kept = segments.unit(vector, DIM)[0]
            twin[name] = Known(number, kept, label, metadata)

    def _append(self, writer: Any, wanted: dict[str, Any], twin: Twin) -> None:
        given = {n: (POOL[v] if isinstance(v, int) else v, w) for n, (v, w) in wanted.items()}
        vectors = np.stack([v for v, _ in given.values()])
        labels, metadata = zip(*(w for _, w in given.values()))
        self._written(given, writer.append(list(given), vectors, labels, metadata), twin)

    def _commit(self, name: str, change: bool = True) -> None:
        TAKEN[name] += 1
        self.generation += change
        assert self.index.info()["generation"] == self.generation

    @rule(items=new)
    def add(self, items: dict[str, Any]) -> None:
        with self.index.writer() as writer:
            self._append(writer, items, self.twin)
        self._commit("add")

    @precondition(lambda self: self.twin)
    @rule(data=st.data())
    def update(self, data: st.DataObject) -> None:
        names = data.draw(st.lists(st.sampled_from(sorted(self.twin)), min_size=1, max_size=5, unique=True))
        items = {n: (data.draw(st.integers(0, len(POOL) - 1)), data.draw(words)) for n in names}
        with self.index.writer() as writer:
            self._append(writer, items, self.twin)
        self._commit("update")

    @precondition(lambda self: self.twin)
    @rule(data=st.data(), by_id=st.booleans())
    def remove(self, data: st.DataObject, by_id: bool) -> None:
        names = data.draw(st.lists(st.sampled_from(sorted(self.twin)), min_size=1, max_size=8, unique=True))
        gone = [self.twin[n].id if by_id else n for n in names]
        assert self.index.remove(gone) == len(names)
        for name in names:
            del self.twin[name]
        self._commit("remove")

    @rule()
    def compact(self) -> None:
        removed = self.index.info()["removed"]
        assert self.index.compact() == removed and self.index.info()["removed"] == 0
        self._commit("compact", removed > 0)

    @rule(items=new, data=st.data())
    def sync(self, items: dict[str, Any], data: st.DataObject) -> None:
        """In one commit: other words for vectors that stay, pictures new and changed, stamps, and removals."""
        rest = sorted(self.twin.keys() - items.keys())
        some = data.draw(st.lists(st.sampled_from(rest), max_size=6, unique=True)) if rest else []
        relabelled, gone = some[::2], some[1::2]
        twin = dict(self.twin)
        with self.index.writer() as writer:
            self.index.refresh()
            if relabelled:
                vectors = {item.path: item.vector for item in self.index.items(relabelled)}
                self._append(writer, {n: (vectors[n], data.draw(words)) for n in relabelled}, twin)
            self._append(writer, items, twin)
            writer.stamp({twin[n].id: Stamp(1, 2, "3") for n in items})
            for name in gone:
                del twin[name]
            writer.remove(gone)
        self.twin = twin
        found = files(self.index, list(items))
        assert all(found[n][1] == (1, 2, "3") for n in items) and len(found) == len(items)
        assert sorted(below(self.index, "/films")) == sorted(n for n in twin if n.startswith("/films/"))
        self._commit("sync")

    @precondition(lambda self: self.twin)
    @rule()
    def stamp(self) -> None:
        with self.index.writer() as writer:
            writer.stamp({i.id: Stamp(4, 5, "6") for i in self.twin.values()})
        self._commit("stamp", False)

    @rule(items=new)
    def fail(self, items: dict[str, Any]) -> None:
        """An exception in the middle of a commit, and one that was refused, leave everything as it was."""
        last = self.last
        try:
            with self.index.writer() as writer:
                self._append(writer, items, {})
                raise ZeroDivisionError
        except ZeroDivisionError:
            self.last = last
        for refused in (lambda: self.index.remove(["/photos/99"]), lambda: self.index.add(["a", "a"], POOL[:2])):
            try:
                refused()
                raise AssertionError("nothing was refused")
            except SeeallError:
                pass
        self._commit("fail", False)

    @rule(which=st.lists(st.integers(0, len(POOL) - 1), min_size=1, max_size=3), k=st.integers(1, 12), asked=conditions,
          how=st.sampled_from(["all", "where", "not", "or"]), other=conditions, second=st.booleans())  # fmt: skip
    def search(
        self, which: list[int], k: int, asked: tuple[str, Holds], how: str, other: tuple[str, Holds], second: bool
    ) -> None:
        index, twin = (self.reader, self.seen) if second else (self.index, self.twin)
        text, holds = asked
        wheres: dict[str, tuple[str | None, Holds]] = {
            "all": (None, lambda i: True),
            "where": asked,
            "not": (f"not ({text})", lambda i: holds(i) is False),
            "or": (f"{text} or {other[0]}", lambda i: bool(holds(i)) or bool(other[1](i))),
        }
        where, true = wheres[how]
        if where is not None:
            assert index.select(where).tolist() == sorted(i.id for i in twin.values() if true(i)), where
        if twin:
            queries = POOL[which] + np.float32(0.25)
            ids, scores = index.search(queries, k, where)
            assert agree(twin, queries, k, true, ids, scores, self.sure), (where, ids, scores)
        TAKEN["filter" if where else "search"] += 1

    @rule()
    def reopen(self) -> None:
        self.index.close()
        self.index = Index.open(self.root, gpu="off")
        TAKEN["reopen"] += 1

    @rule()
    def refresh(self) -> None:
        stale = self.reader.info()["generation"] != self.generation
        assert self.reader.refresh() == stale
        self.seen = dict(self.twin)
        TAKEN["refresh"] += 1

    @rule()
    def check(self) -> None:
        assert self.index.check() == [] and self.index.notes() == []
        TAKEN["check"] += 1

    @invariant()
    def same(self) -> None:
        if hasattr(self, "reader"):
            equal(self.index, self.twin)
            equal(self.reader, self.seen)


def main() -> None:
    """Take steps until there are enough."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    segments.ROWS = 16
    log.setLevel(logging.ERROR)
    rules = settings(
        max_examples=10, stateful_step_count=STEPS, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    turn = options.seed
    while TAKEN.total() < options.steps:
        run_state_machine_as_test(seed(turn)(Machine), settings=rules)
        turn += 1
    print(json.dumps({"steps": TAKEN.total(), **TAKEN}))


if __name__ == "__main__":
    main()
