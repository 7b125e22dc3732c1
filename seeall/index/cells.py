"""How many cells an inverted file should have, found by counting, before any is built.

For a number of cells the centroids are learnt (spherical k-means), a little for a trial, well for the number that is
chosen. What a search would compare is then known without one: a query is compared with every centroid, and with all
vectors of the nearest cells, as many cells as hold its true neighbours. The true neighbours of queries that are held
out come from exact search; cells are as large as they are in the sample that the centroids were learnt from. The
fewest comparisons win.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, final

import faiss as _faiss
import numpy as np

from seeall.index.segments import Floats

faiss: Any = _faiss

_SEED = 1234
_CENTROID = 0.2
"""What comparing with a centroid costs: many queries are compared with all of them at a time."""
WORSE = 1.25
"""How many times the cost of the best the cells of another structure may have, and still be worth a trial."""


class Care(NamedTuple):
    """How well centroids are learnt: from how many vectors for each, in how many rounds."""

    vectors: int
    rounds: int


_TRIAL, _WELL, _BEST = Care(24, 8), Care(64, 10), Care(128, 10)
_FEW, _SOME = 512, 1024
"""So few cells are learnt as well as they can be, which they need more than many; and so few are learnt well at once,
since that takes little time, and a trial of them tells too little."""


class Cost(NamedTuple):
    """Of a query, in comparisons with whole vectors that lie together: `each` for one in a cell that is read, `once`
    in any case."""

    each: float
    once: float


class Cells(NamedTuple):
    """centroids: (nlist, D); nprobe: cells to read per query; read: how many vectors these hold."""

    centroids: Floats
    nprobe: int
    read: float

    def cost(self, cost: Cost) -> float:
        """Of a query, in comparisons with whole vectors."""
        return _cost(len(self.centroids), self.read, cost)


@final
class Trials:
    """Centroids for `count` vectors, and what a search would read with them.

    sample: gives at most so many of the vectors, (n, D); queries: (q, D), held out; near: (q, k, D), their true
    neighbours; recall: the share of those that has to be found.
    """

    def __init__(
        self, sample: Callable[[int], Floats], count: int, queries: Floats, near: Floats, recall: float
    ) -> None:
        self._sample, self._count, self._queries, self._near, self._recall = sample, count, queries, near, recall
        self._learnt: dict[tuple[int, Care], Cells] = {}

    def choose(self, costs: Sequence[Cost]) -> list[Cells]:
        """For each of `costs`, the cells with which a search costs least, learnt for a trial.

        More cells are not tried where they could not win, nor be worth it beside the best at another cost.
        """
        best: list[Cells] = []
        for number in numbers(self._count):
            now = [cells.cost(cost) for cells, cost in zip(best, costs)]
            hopes = [_cost(number, self._count / number, cost) for cost in costs]
            if best and all(hope >= min(cost, WORSE * min(now)) for hope, cost in zip(hopes, now)):
                break
            found = self.learn(number, well=number <= _SOME)
            if best and all(found.cost(cost) >= cells.cost(cost) for cells, cost in zip(best, costs)):
                break
            pairs = zip(best or [found] * len(costs), costs)
            best = [found if found.cost(cost) < cells.cost(cost) else cells for cells, cost in pairs]
        return best

    def learn(self, number: int, well: bool = True) -> Cells:
        """So many centroids, by spherical k-means, well or for a trial; the same are learnt once."""
        care = _BEST if number <= _FEW else _WELL if well else _TRIAL
        if (number, care) not in self._learnt:
            self._learnt[number, care] = self._learn(number, care)
        return self._learnt[number, care]

    def _learn(self, number: int, care: Care) -> Cells:
        learnt = self._sample(number * care.vectors)
        kmeans = faiss.Kmeans(
            learnt.shape[1], number, niter=care.rounds, spherical=True, seed=_SEED,
            max_points_per_centroid=2 * care.vectors, min_points_per_centroid=1,
        )  # fmt: skip
        kmeans.train(learnt)
        centroids: Floats = kmeans.centroids
        sizes = np.bincount(kmeans.index.search(learnt, 1)[1].ravel(), minlength=number) * (self._count / len(learnt))
        order = np.argsort(-(self._queries @ centroids.T), axis=1)
        rank = np.empty_like(order)
        np.put_along_axis(rank, order, np.arange(number)[None], 1)
        near = self._near.reshape(-1, learnt.shape[1])
        homes = kmeans.index.search(near, 1)[1].reshape(self._near.shape[:2])
        ranks = np.sort(np.take_along_axis(rank, homes, 1).ravel())
        last = min(math.ceil(self._recall * len(ranks)), len(ranks)) - 1
        nprobe = int(ranks[last]) + 1 if len(ranks) else number
        read = sizes[order[:, :nprobe]].sum(1).mean() if len(order) else self._count
        return Cells(centroids, nprobe, float(read))


def _cost(number: int, read: float, cost: Cost) -> float:
    return _CENTROID * number + cost.each * read + cost.once


def numbers(count: int) -> list[int]:
    """Numbers of cells worth trying for `count` vectors, ascending.

    >>> numbers(10_000), numbers(1_000_000)
    ([100, 200, 256], [1000, 2000, 4000])
    """
    most = max(1, count // 39)
    return sorted({max(1, min(round(share * math.sqrt(count)), most)) for share in (1, 2, 4)})
