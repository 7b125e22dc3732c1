"""How many cells an inverted file should have, found by counting, before any is built.

For a number of cells the centroids are learnt (spherical k-means). What a search would compare is then known
without one: a query is compared with every centroid, and with all vectors of the nearest cells, as many cells as
hold its true neighbours. The true neighbours of queries that are held out come from exact search; cells are as
large as they are in the sample that the centroids were learnt from. The fewest comparisons win.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import faiss as _faiss
import numpy as np

from seeall.index.segments import Floats

faiss: Any = _faiss

PER_CELL = 64
"""Vectors per cell that the centroids are learnt from."""
_ITERATIONS = 10
_SEED = 1234
_CENTROID = 0.2
"""What comparing with a centroid costs beside comparing with a vector: centroids lie close together in memory."""


class Cells(NamedTuple):
    """centroids: (nlist, D); nprobe: cells to read per query; cost: of a query, in comparisons with whole vectors."""

    centroids: Floats
    nprobe: int
    cost: float


def numbers(count: int) -> list[int]:
    """Numbers of cells worth trying for `count` vectors, ascending.

    >>> numbers(10_000), numbers(1_000_000)
    ([50, 100, 200, 256], [500, 1000, 2000, 4000])
    """
    most = max(1, count // 39)
    return sorted({max(1, min(round(share * math.sqrt(count)), most)) for share in (0.5, 1, 2, 4)})


def choose(
    sample: Floats, count: int, queries: Floats, near: Floats, recall: float, costs: Sequence[float]
) -> list[Cells]:
    """The cells with which a search of `count` vectors costs least, for each cost of comparing with one in a cell.

    sample: (n, D) of the vectors; queries: (q, D), held out; near: (q, k, D), their true neighbours; recall: the
    share of those that has to be found; costs: beside a whole vector, which costs 1.
    """
    best: list[Cells] = []
    for number in numbers(count):
        centroids, nprobe, read = _try(sample, count, queries, near, recall, number)
        found = [Cells(centroids, nprobe, _CENTROID * number + cost * read) for cost in costs]
        if best and all(new.cost >= old.cost for new, old in zip(found, best)):
            break
        best = [min(pair, key=lambda c: c.cost) for pair in zip(best, found)] if best else found
    return best


def _try(
    sample: Floats, count: int, queries: Floats, near: Floats, recall: float, number: int
) -> tuple[Floats, int, float]:
    """Centroids (number, D), how many cells to read for a query, and how many vectors these hold."""
    step = max(1, len(sample) // (number * PER_CELL))
    learnt = np.ascontiguousarray(sample[::step])
    kmeans = faiss.Kmeans(
        sample.shape[1], number, niter=_ITERATIONS, spherical=True, seed=_SEED,
        max_points_per_centroid=2 * PER_CELL, min_points_per_centroid=1,
    )  # fmt: skip
    kmeans.train(learnt)
    centroids: Floats = kmeans.centroids
    sizes = np.bincount(kmeans.index.search(learnt, 1)[1].ravel(), minlength=number) * (count / len(learnt))
    order = np.argsort(-(queries @ centroids.T), axis=1)
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(number)[None], 1)
    homes = kmeans.index.search(near.reshape(-1, near.shape[2]), 1)[1].reshape(near.shape[:2])
    ranks = np.sort(np.take_along_axis(rank, homes, 1).ravel())
    nprobe = int(ranks[min(math.ceil(recall * len(ranks)), len(ranks)) - 1]) + 1 if len(ranks) else number
    read = sizes[order[:, :nprobe]].sum(1).mean() if len(order) else count
    return centroids, nprobe, float(read)
