"""Near-duplicates: the connected components of the graph whose edges are pairs with a cosine of at least a threshold.

The edges are looked for among each item's nearest, 16 at first. Where all of them are above the threshold there may be
more, so such items ask for four times as many, until nothing more is joined, or 1,024 are not enough. Memory holds one
number for each item, and the neighbours of a block.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from seeall.console import bar
from seeall.index.known import walk
from seeall.index.protocol import Store
from seeall.index.segments import Floats, Ids
from seeall.types import SeeallError

_FIRST, _MORE, _MOST = 16, 4, 1024
"""Neighbours that are asked for at first, how many times as many after that, and at most."""


class Group(NamedTuple):
    """Items that look alike: ids (m,), and each one's cosine with the first (m,), which came first; best first."""

    ids: Ids
    scores: Floats


def duplicates(index: Store, threshold: float = 0.95) -> list[Group]:
    """Groups of two or more, the largest first, and of equal ones the oldest.

    Raises: SeeallError for a threshold that is no cosine above 0.
    """
    if not 0 < threshold <= 1:
        raise SeeallError(f"--threshold {threshold:g}: want a cosine above 0 and at most 1; 0.95 is usual")
    ids = index.ids
    parent = np.arange(len(ids))
    doubtful, others = np.ones(len(ids), bool), _FIRST
    while doubtful.any() and others <= _MOST:
        joined = _pass(index, ids, parent, doubtful, others + 1, threshold - 1e-6)
        if not joined or others >= len(ids):
            break
        others *= _MORE
    roots = _root(parent, np.arange(len(ids)))
    order = np.argsort(roots, kind="stable")
    starts = np.flatnonzero(np.diff(roots[order], prepend=-1))
    members = [part for part in np.split(order, starts[1:]) if len(part) > 1]
    members.sort(key=lambda part: (-len(part), int(part[0])))
    return [_scored(index, ids[part]) for part in members]


def _pass(index: Store, ids: Ids, parent: Ids, doubtful: np.ndarray, k: int, threshold: float) -> bool:
    """Join the `doubtful` (n,) with those of their k nearest that are alike; whether that joined anything.

    Afterwards those are doubtful that have found k.
    """
    before, start = _count(parent), 0
    with bar("looking for duplicates", int(doubtful.sum())) as progress:
        for block, vectors in walk(index):
            rows = np.flatnonzero(doubtful[start : start + len(block)])
            start += len(block)
            if not len(rows):
                continue
            found, scores = index.search(vectors[rows], min(k, len(index)))
            alike = scores >= threshold
            own = np.repeat(rows + start - len(block), alike.sum(1))
            _join(parent, own, np.searchsorted(ids, found[alike]))
            doubtful[rows + start - len(block)] = alike.all(1)
            progress.update(len(rows), "{rate:,.0f} items/s")
    return _count(parent) < before


def _count(parent: Ids) -> int:
    return int((parent == np.arange(len(parent))).sum())


def _root(parent: Ids, nodes: Ids) -> Ids:
    """The smallest node of each one's component; the ways there are shortened."""
    at = nodes
    while True:
        up = parent[at]
        if np.array_equal(up, at):
            parent[nodes] = at
            return at
        at = up


def _join(parent: Ids, a: Ids, b: Ids) -> None:
    """Make one component of the two that a[i] and b[i] are in, for every i. A parent is never larger than its child."""
    while len(a):
        a, b = _root(parent, a), _root(parent, b)
        apart = a != b
        a, b = a[apart], b[apart]
        np.minimum.at(parent, np.maximum(a, b), np.minimum(a, b))


def _scored(index: Store, ids: Ids) -> Group:
    first = index.get(int(ids[0])).vector
    scores = np.concatenate([_vectors(index, part) @ first for part in _parts(ids)]).clip(-1, 1)
    order = np.lexsort((ids, -scores.round(6), ids != ids[0]))  # equal pictures by id, whatever the rounding
    return Group(ids[order], scores[order])


def _parts(ids: Ids, size: int = 4096) -> Iterable[Ids]:
    return (ids[start : start + size] for start in range(0, len(ids), size))


def _vectors(index: Store, ids: Ids) -> Floats:
    return np.stack([item.vector for item in index.items(ids.tolist())])
