"""Building FAISS structures, and finding for each the least effort with which it finds what it should.

Some vectors are held out while a structure is built and asked of it afterwards, so that what is measured holds for
pictures that are not in the index; then they join it. Their true neighbours come from exact search. Effort is the
number of cells read (`nprobe`) or of candidates kept (`efSearch`), found by bisection; where vectors are kept in
codes, `factor` times as many proposals as wanted are scored again from the vectors, as many as hold the true ones
among the proposals of the held-out queries. Codes in a cell are of what its centroid leaves over, which is short.

Where several structures will do, the one that answers the held-out queries quickest wins. An inverted file that has to
compare much more than another is not built, and a graph only where the best of them has to compare so much that it can
win: it takes ten times as long.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import faiss as _faiss
import numpy as np

from seeall.console import log
from seeall.index import cells
from seeall.index.plan import LINKS, Plan, codes
from seeall.index.segments import Floats, Ids

faiss: Any = _faiss

NEIGHBOURS = 10
_HELD = 1024
"""Most queries that are held out."""
_DOUBT = 0.002
"""By so much the recall of other queries may be lower than that of a thousand."""
_SEED = 1234
_BUILD_EFFORT = 120
"""Candidates kept while the graph is built, efConstruction of the paper."""
_SMALL_GRAPH, _SPARSE_BELOW = 50_000, 0.97
"""A small graph that need not find nearly all is quicker with half the links and a third of the effort."""
_COSTS = {"ivf": cells.Cost(2, 0), "ivf-pq": cells.Cost(0.3, 120)}
"""Four-bit codes are compared many at a time; then some vectors are fetched from all over the memory."""
_HARD = 4.0
"""Times the square root of how many vectors there are: comparisons per query from which a graph is tried."""
_MOST_EFFORT = 2_048
_FACTOR = 32
"""Most proposals for each that is wanted."""
_SURE = 1.5
"""Times as many proposals as held-out queries need are scored again where none is to be missed."""
_WIDER = 2
"""As many ways to read more cells, and then need fewer proposals, are tried."""
_FARTHER = 8
"""Times as many cells as hold the true neighbours are read for codes, at most: more do not mend coarse codes."""
_EQUAL = 1e-6
"""Scores this close are a tie as far as recall is concerned."""
_TRAIN_BYTES, _TRAIN_CODES = 65_536, 8_192
_ROUNDS = 8
_BLOCK = 1 << 14
"""Vectors that FAISS is given at a time: it makes several copies of them."""


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


Effort = dict[str, float]
"""`nprobe` or `efSearch`, whole numbers, and `factor`."""


class Built(NamedTuple):
    """A structure whose ids are positions.

    search: the effort that it needs; recall: of the true ten nearest of held-out queries with that effort; speed:
    of those queries, how many a second, all at once, on this machine.
    """

    index: Any
    structure: str
    search: Effort
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
    missed = 1 - plan.target
    aim = plan.target + max(missed / 10, min(missed / 4, _DOUBT))
    trials = cells.Trials(lambda n: _sample(source, n)[1], len(source), held.queries, held.near, aim)
    celled = [name for name in names if name in _COSTS]
    tried = dict(zip(celled, trials.choose([_COSTS[name] for name in celled]))) if celled else {}
    found: list[Built] = []
    hopeful = _hopeful(names, tried, len(source))
    for name in (*hopeful, *(name for name in names if name not in hopeful)):
        if name not in hopeful and found[0].recall >= plan.target:
            break
        log.info("building %s over %d vectors", name, len(source))
        chosen = trials.learn(len(tried[name].centroids)) if name in tried else None
        index = _built(name, source, held, aim, chosen)
        found.append(_tuned(index, name, source, held, aim, chosen))
        found = [max(_raced(found, source, held), key=lambda b: (min(b.recall, plan.target), b.speed))]
    best = found[0]
    best.index.add_with_ids(held.queries, held.positions)
    if best.recall < plan.target:
        log.warning(
            "%s finds %.4f of the nearest ten, not the %.4f asked for: exact search finds all",
            best.structure, best.recall, plan.target,
        )  # fmt: skip
    log.info("%s, %s: recall@%d %.4f", best.structure, best.search, NEIGHBOURS, best.recall)
    return best


def answer(index: Any, queries: Floats, k: int, search: Mapping[str, float], alive: Any = None) -> tuple[Floats, Ids]:
    """FAISS's own scores and positions, (n, k) each; `alive` is a selector of FAISS's."""
    kinds = {"nprobe": faiss.SearchParametersIVF, "efSearch": faiss.SearchParametersHNSW}
    effort = {name: int(value) for name, value in search.items() if name in kinds}
    params = kinds[next(iter(effort))](**effort, sel=alive) if effort else faiss.SearchParameters(sel=alive)
    scores, places = index.search(queries, min(k, index.ntotal), params=params)
    return scores, places


def proposals(k: int, search: Mapping[str, float]) -> int:
    """How many to propose where k are wanted.

    >>> proposals(10, {"nprobe": 3}), proposals(10, {"factor": 1.1}), proposals(7, {"factor": 2.5})
    (10, 11, 18)
    """
    return math.ceil(round(k * search.get("factor", 1), 6))


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


def _hopeful(names: Sequence[str], tried: Mapping[str, cells.Cells], count: int) -> list[str]:
    """Those of `names` that may be the quickest, from what is in the cells `tried`; the others are last resorts."""
    costs = {name: some.cost(_COSTS[name]) for name, some in tried.items()}
    least = min(costs.values(), default=math.inf)
    hard = least >= _HARD * math.sqrt(count)
    return [name for name in names if (costs[name] <= cells.WORSE * least if name in costs else hard)]


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
            index.by_residual, index.pq.cp.seed = True, _SEED
            index.pq.cp.min_points_per_centroid = 1  # it says so on the terminal where it has fewer
            index.train(_sample(source, _TRAIN_CODES)[1])
    elif name == "hnsw":
        sparse = len(source) < _SMALL_GRAPH and aim < _SPARSE_BELOW
        graph = faiss.IndexHNSWFlat(dim, LINKS // 2 if sparse else LINKS, product)
        graph.hnsw.efConstruction = _BUILD_EFFORT // 3 if sparse else _BUILD_EFFORT
        index = faiss.IndexIDMap(graph)
    elif name == "exact":
        index = faiss.IndexIDMap(faiss.IndexFlatIP(dim))
    else:
        kinds = {"exact-fp16": faiss.ScalarQuantizer.QT_fp16, "exact-int8": faiss.ScalarQuantizer.QT_8bit}
        index = faiss.IndexIDMap(faiss.IndexScalarQuantizer(dim, kinds[name], product))
        index.train(_sample(source, _TRAIN_BYTES)[1])
    for positions, vectors in _others(source, held.positions):
        index.add_with_ids(np.ascontiguousarray(vectors), positions)
    return index


def _tuned(index: Any, name: str, source: Source, held: _Held, aim: float, chosen: cells.Cells | None) -> Built:
    """With the quickest search whose recall is `aim`, or the best there is."""

    def least(effort: str, first: int, most: int, factor: float = 1) -> int:
        return _least(
            first, most, lambda n: bool(_recalls(index, source, held, {effort: n, "factor": factor})[-1] >= aim)
        )

    def narrowed(search: Effort, aim: float, times: float = 1) -> Effort:
        recalls = _recalls(index, source, held, {**search, "factor": _FACTOR})
        enough = int(np.argmax(recalls >= aim)) + 1 if recalls[-1] >= aim else len(recalls)
        return {**search, "factor": min(max(times * enough, NEIGHBOURS) / NEIGHBOURS, _FACTOR)}

    cell, all_cells = (chosen.nprobe, len(chosen.centroids)) if chosen else (1, 1)
    ways: list[Effort]
    if name == "hnsw":
        ways = [{"efSearch": least("efSearch", 2 * NEIGHBOURS, _MOST_EFFORT)}]
    elif name == "ivf":
        ways = [{"nprobe": least("nprobe", cell, all_cells)}]
    elif name == "ivf-pq":
        most = min(_FARTHER * cell, all_cells)
        first = least("nprobe", cell, most, _FACTOR)
        ways = [narrowed({"nprobe": n}, aim) for n in range(first, min(first + _WIDER, most) + 1)]
    else:
        ways = [{} if name == "exact" else narrowed({}, 1.0, _SURE)]
    found = [Built(index, name, way, float(_recalls(index, source, held, way)[-1]), 0.0) for way in ways]
    return max(_raced(found, source, held), key=lambda b: (min(b.recall, aim), b.speed))


def _raced(found: Sequence[Built], source: Source, held: _Held) -> list[Built]:
    """The same with their speeds, taken in turns, so that what else the machine does slows all alike."""
    taken = [math.inf] * len(found)
    for _ in range(_ROUNDS):
        for n, built in enumerate(found):
            start = time.perf_counter()
            places = answer(built.index, held.queries, proposals(NEIGHBOURS, built.search), built.search)[1]
            source.products(held.queries, places)
            taken[n] = min(taken[n], time.perf_counter() - start)
    return [built._replace(speed=len(held.queries) / seconds) for built, seconds in zip(found, taken)]


def _recalls(index: Any, source: Source, held: _Held, search: Effort) -> Floats:
    """(m,) recall with the first one, the first two, ... of the m proposals of a search."""
    if not len(held.queries):
        return np.ones(1, np.float32)
    places = answer(index, held.queries, proposals(NEIGHBOURS, search), search)[1]
    true = source.products(held.queries, places) >= held.last[:, None] - _EQUAL
    recalls: Floats = np.cumsum(true, 1).clip(max=NEIGHBOURS).mean(0) / NEIGHBOURS
    return recalls


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
    """The blocks of `source` without the positions `held`, ascending, in smaller ones."""
    for positions, vectors in source.blocks():
        for start in range(0, len(positions), _BLOCK):
            here, part = positions[start : start + _BLOCK], vectors[start : start + _BLOCK]
            keep = ~np.isin(here, held, assume_unique=True)
            yield (here, part) if keep.all() else (here[keep], part[keep])


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
