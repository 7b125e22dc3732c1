"""Outliers: the items that are least like those nearest to them, by the mean cosine with the k nearest others.

A distance-based outlier by the mean over its neighbours (Angiulli and Pizzuti 2002), with cosines of unit vectors in
place of distances. Memory holds the worst so far, and the neighbours of a block.
"""

from __future__ import annotations

import numpy as np

from seeall.console import bar
from seeall.index.known import walk
from seeall.index.protocol import Store
from seeall.index.segments import Floats, Ids
from seeall.types import SeeallError


def outliers(index: Store, most: int = 20, neighbours: int = 10) -> tuple[Ids, Floats]:
    """The `most` items with the lowest mean cosine with their nearest others, and that; the lowest first.

    Raises: SeeallError for less than one, or an index of fewer than two items.
    """
    for name, value in (("--most", most), ("-k", neighbours)):
        if value < 1:
            raise SeeallError(f"{name} {value}: want 1 or more")
    if len(index) < 2:
        raise SeeallError(f"the index {index.path} holds {len(index)} items: nothing can be unlike the others")
    worst, lowest = np.empty(0, np.int64), np.empty(0, np.float32)
    with bar("looking for outliers", len(index)) as progress:
        for ids, vectors in walk(index):
            worst, lowest = (
                np.concatenate([worst, ids]),
                np.concatenate([lowest, _mean(index, ids, vectors, neighbours)]),
            )
            order = np.lexsort((worst, lowest))[:most]
            worst, lowest = worst[order], lowest[order]
            progress.update(len(ids), "{rate:,.0f} items/s")
    return worst, lowest


def _mean(index: Store, ids: Ids, vectors: Floats, neighbours: int) -> Floats:
    """(m,) mean cosine with the nearest others."""
    found, scores = index.search(vectors, min(neighbours + 1, len(index)))
    own = found == ids[:, None]
    own[~own.any(1), -1] = True  # among many equal ones it may not have found itself
    others = scores[~own].reshape(len(ids), -1)
    mean: Floats = others.mean(1).astype(np.float32)
    return mean
