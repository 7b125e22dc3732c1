"""Building FAISS structures, and finding for each the least effort with which it finds what it should.

Some vectors are held out while a structure is built and asked of it afterwards, so that what is measured holds for
pictures that are not in the index; then they join it. Their true neighbours come from exact search. Effort is the
number of cells read (`nprobe`) or of candidates kept (`efSearch`), found by bisection; where vectors are kept in
codes, `factor` times as many proposals as wanted are scored again from the vectors. Where several structures will do,
the one that answers the held-out queries quickest wins. An inverted file that has to compare much more than another is
not built, and a graph only where the best of them has to compare so much that it can win: it takes ten times as long.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import faiss as _faiss
import numpy as np

from seeall.console import log
from seeall.index import cells
from seeall.index.plan import EXACT, LINKS, Plan, codes
from seeall.index.segments import Floats, Ids

faiss: Any = _faiss

NEIGHBOURS = 10
_HELD = 512
"""Most queries that are held out."""
_SEED = 1234
_BUILD_EFFORT = 120
"""Candidates kept while the graph is built, efConstruction of the paper."""
_SMALL_GRAPH, _SPARSE_BELOW = 50_000, 0.97
"""A small graph that need not find nearly all is quicker with half the links and a third of the effort."""
_COSTS = {"ivf": 1.0, "ivf-pq": 0.22}
"""What comparing with a vector in a cell costs; four-bit codes are compared many at a time."""
_HARD = 3.0
"""Times the square root of how many vectors there are: comparisons per query from which a graph is tried."""
_WORSE = 2.0
"""How many times the comparisons of the best a structure may need by count, and still be tried."""
_MOST_EFFORT = 2_048
_FACTORS = (2, 3, 4, 6, 8, 12, 16)
_WIDER = 16
"""How many times as many cells as whole vectors need are read for codes, at most."""
_EQUAL = 1e-6
"""Scores this close are a tie as far as recall is concerned."""
_TRAIN_CODES = 65_536
_ROUNDS = 3


class Source(Protocol):
    """Unit vectors to build from, each at a position."""

    dim: int

    def __len__(self) -> int: ...

    def blocks(self) -> Iterable[tuple[Ids, Floats]]:
        """Positions (n,), ascending, with vectors (n, D), a block at a time."""

    def gather(self, positions: Ids) -> Floats:
        """(n, D) the vectors at `positions` (n,)."""

    def products(self, queries: Floats, positions: Ids) -> Floats:
        """(n, m) cosines of `queries` (n, D) with the vectors at `positions` (n, m), -inf where that is negative."""


class Built(NamedTuple):
    """A structure whose ids are positions.

    search: the effort that it needs; recall: of the true ten nearest of held-out queries with that effort; speed:
    of those queries, how many a second, all at once, on this machine.
    """

    index: Any
    structure: str
    search: dict[str, int]
    recall: float
    speed: float


class _Held(NamedTuple):
    """Queries that are held out: their positions (q,), vectors (q, D), and the score (q,) of their tenth neighbour."""

    positions: Ids
    queries: Floats
    last: Floats
    near: Floats


def build(source: Source, plan: Plan) -> Built:
    """The structure that `plan` makes of `source`, measured; exact search of whole vectors needs none."""
    names = plan.candidates(len(source), source.dim)
    held = _hold_out(source)
    aim = plan.target + (1 - plan.target) / 10  # what is measured on a few hundred queries may be off by as much
    found: list[Built] = []
    chosen = _cells(source, held, aim, [name for name in names if name in _COSTS])
    least = min((some.cost for some in chosen.values()), default=0.0)
    easy = least < _HARD * math.sqrt(len(source))
    for name in names:
        if (name == "hnsw" and chosen and easy) or (name in chosen and chosen[name].cost > _WORSE * least):
            continue
        log.info("building %s over %d vectors", name, len(source))
        index = _built(name, source, held, aim, chosen.get(name))
        found.append(_tuned(index, name, source, held, 1.0 if name in EXACT else aim, chosen.get(name)))
        if len(found) > 1:
            found = [max(found, key=lambda b: (b.recall >= plan.target, b.speed))]
    best = found[0]
    best.index.add_with_ids(held.queries, held.positions)
    if best.recall < plan.target:
        log.warning(
            "%s finds %.4f of the nearest ten, not the %.4f asked for: exact search finds all",
            best.structure, best.recall, plan.target,
        )  # fmt: skip
    log.info("%s, %s: recall@%d %.4f", best.structure, best.search, NEIGHBOURS, best.recall)
    return best


def answer(index: Any, queries: Floats, k: int, search: dict[str, int], alive: Any = None) -> tuple[Floats, Ids]:
    """FAISS's own scores and positions, (n, k) each; `alive` is a selector of FAISS's."""
    kinds = {"nprobe": faiss.SearchParametersIVF, "efSearch": faiss.SearchParametersHNSW}
    effort = {name: value for name, value in search.items() if name in kinds}
    params = kinds[next(iter(effort))](**effort, sel=alive) if effort else faiss.SearchParameters(sel=alive)
    scores, places = index.search(queries, min(k, index.ntotal), params=params)
    return scores, places


def _hold_out(source: Source) -> _Held:
    count = len(source)
    positions, queries = _sample(source, min(_HELD, count // 10))
    scores = np.empty((len(queries), 0), np.float32)
    places = np.empty((len(queries), 0), np.int64)
    for where, vectors in _others(source, positions):
        most = min(NEIGHBOURS, len(vectors))
        if most and len(queries):
            more, numbers = faiss.knn(queries, np.ascontiguousarray(vectors), most, metric=faiss.METRIC_INNER_PRODUCT)
            scores, places = np.concatenate([scores, more], 1), np.concatenate([places, where[numbers]], 1)
            order = np.argsort(-scores, 1)[:, :NEIGHBOURS]
            scores, places = np.take_along_axis(scores, order, 1), np.take_along_axis(places, order, 1)
    near = source.gather(places.ravel()).reshape(*places.shape, source.dim)
    last = scores[:, -1] if scores.shape[1] else np.zeros(len(queries), np.float32)
    return _Held(positions, queries, last, near)


def _cells(source: Source, held: _Held, aim: float, names: Sequence[str]) -> dict[str, cells.Cells]:
    """Structure → its cells."""
    if not names:
        return {}
    sample = _sample(source, cells.PER_CELL * cells.numbers(len(source))[-1])[1]
    costs = [_COSTS[name] for name in names]
    return dict(zip(names, cells.choose(sample, len(source), held.queries, held.near, aim, costs)))


def _built(name: str, source: Source, held: _Held, aim: float, chosen: cells.Cells | None) -> Any:
    """All but what is held out, in a structure of this name."""
    dim, product = source.dim, faiss.METRIC_INNER_PRODUCT
    if chosen is not None and name in ("ivf", "ivf-pq"):
        quantizer = faiss.IndexFlatIP(dim)
        quantizer.add(chosen.centroids)
        if name == "ivf":
            index = faiss.IndexIVFFlat(quantizer, dim, len(chosen.centroids), product)
        else:
            index = faiss.IndexIVFPQFastScan(quantizer, dim, len(chosen.centroids), codes(dim), 4, product)
            index.pq.cp.seed = _SEED
            index.train(_sample(source, _TRAIN_CODES)[1])
    elif name == "hnsw":
        sparse = len(source) < _SMALL_GRAPH and aim < _SPARSE_BELOW
        graph = faiss.IndexHNSWFlat(dim, LINKS // 2 if sparse else LINKS, product)
        graph.hnsw.efConstruction = _BUILD_EFFORT // 3 if sparse else _BUILD_EFFORT
        index = faiss.IndexIDMap(graph)
    else:
        kinds = {"exact-fp16": faiss.ScalarQuantizer.QT_fp16, "exact-int8": faiss.ScalarQuantizer.QT_8bit}
        index = faiss.IndexIDMap(faiss.IndexScalarQuantizer(dim, kinds[name], product))
        index.train(_sample(source, _TRAIN_CODES)[1])
    for positions, vectors in _others(source, held.positions):
        index.add_with_ids(np.ascontiguousarray(vectors), positions)
    return index


def _tuned(index: Any, name: str, source: Source, held: _Held, aim: float, chosen: cells.Cells | None) -> Built:
    """With the quickest search whose recall is `aim`, or the best there is."""

    def recall(search: dict[str, int]) -> float:
        if not len(held.queries):
            return 1.0
        _, places = answer(index, held.queries, NEIGHBOURS * search.get("factor", 1), search)
        scores = -np.sort(-source.products(held.queries, places), 1)[:, :NEIGHBOURS]
        return float((scores >= held.last[:, None] - _EQUAL).mean())

    def enough(fixed: dict[str, int], n: int) -> bool:
        return recall({**fixed, effort: n}) >= aim

    def speed(search: dict[str, int]) -> float:
        taken = []
        for _ in range(_ROUNDS):
            start = time.perf_counter()
            places = answer(index, held.queries, NEIGHBOURS * search.get("factor", 1), search)[1]
            source.products(held.queries, places)
            taken.append(time.perf_counter() - start)
        return len(held.queries) / min(taken)

    cell, all_cells = (chosen.nprobe, len(chosen.centroids)) if chosen else (1, 1)
    effort, first, most = {
        "hnsw": ("efSearch", 2 * NEIGHBOURS, _MOST_EFFORT),
        "ivf": ("nprobe", cell, all_cells),
        "ivf-pq": ("nprobe", cell, min(_WIDER * cell, all_cells)),
    }.get(name, ("", 1, 1))
    found: list[Built] = []
    for factor in (1,) if name in ("ivf", "hnsw") else _FACTORS:
        fixed = {"factor": factor} if factor > 1 else {}
        best = _least(first, most, partial(enough, fixed))
        search = {**fixed, **({effort: best} if effort else {})}
        found.append(Built(index, name, search, recall(search), speed(search)))
        if name in EXACT and found[-1].recall >= aim:
            break
    return max(found, key=lambda b: (min(b.recall, aim), b.speed))


def _least(first: int, most: int, good: Callable[[int], bool]) -> int:
    """The smallest number from 1 to `most` that is `good`, as all larger ones are; `most` where none is.

    >>> [_least(4, 100, lambda n: n >= wanted) for wanted in (1, 3, 4, 50, 101)]
    [1, 3, 4, 50, 100]
    """
    low, high = 0, max(1, min(first, most))
    while high < most and not good(high):
        low, high = high, min(2 * high, most)
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (low, middle) if good(middle) else (middle, high)
    return high


def _others(source: Source, held: Ids) -> Iterator[tuple[Ids, Floats]]:
    """The blocks of `source` without the positions `held`, ascending."""
    for positions, vectors in source.blocks():
        keep = ~np.isin(positions, held, assume_unique=True)
        yield (positions, vectors) if keep.all() else (positions[keep], vectors[keep])


def _sample(source: Source, most: int) -> tuple[Ids, Floats]:
    """Positions and vectors of at most `most`, the same ones each time, by ascending position."""
    count = len(source)
    chosen = np.sort(np.random.default_rng(_SEED).choice(count, min(most, count), replace=False))
    places: list[Ids] = [np.empty(0, np.int64)]
    parts: list[Floats] = [np.empty((0, source.dim), np.float32)]
    start = 0
    for positions, vectors in source.blocks():
        here = chosen[(chosen >= start) & (chosen < start + len(vectors))] - start
        places.append(positions[here])
        parts.append(vectors[here])
        start += len(vectors)
    return np.concatenate(places), np.concatenate(parts)
