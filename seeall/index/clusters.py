"""Clusters: spherical k-means (Dhillon and Modha 2001) by FAISS on a sample, then every item to its nearest centre.

It begins three times with centres drawn as in k-means++ (Arthur and Vassilvitskii 2007), and the best counts. How many,
where nobody says: of 2, 3, 4, 6, 8, 12, … up to 128, the number with the best simplified silhouette (Hruschka, de
Castro and Campello 2004) on a sample: 1 minus the distance to one's own centre over that to the next. Distances are
1 - cosine. Memory holds the sample, the centres, the most central items so far, and a block.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from seeall.console import bar, log
from seeall.data import keyed
from seeall.index.engine import faiss
from seeall.index.known import walk
from seeall.index.protocol import Store
from seeall.index.segments import Floats, Ids
from seeall.types import SeeallError

_EACH = 256
"""Vectors for each centre that k-means looks at, at most."""
_NUMBERS = 1 << 25
"""And numbers in all of them: 128 MiB."""
_SAMPLE = 10_000
"""Vectors that the number of clusters is judged by."""
_ITERATIONS, _REDO = 20, 3
_LADDER = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
_STREAM = 0xC1057E


class Cluster(NamedTuple):
    """size: items; cohesion: their mean cosine with the centre; the most central: ids (m,), scores (m,), best first."""

    size: int
    cohesion: float
    ids: Ids
    scores: Floats


def clusters(index: Store, k: int | None = None, *, most: int = 8, seed: int = 0) -> list[Cluster]:
    """The clusters of an index that hold any item, the largest first, each with its `most` most central items.

    Raises: SeeallError for fewer than 1 cluster or more than there are items.
    """
    if most < 1:
        raise SeeallError(f"--most {most}: want 1 or more")
    if k is not None and not 1 <= k <= len(index):
        raise SeeallError(f"-k {k}: want at least 1 cluster and at most {len(index)}, as many as there are items")
    if not len(index):
        raise SeeallError(f"the index {index.path} is empty: there is nothing to group")
    wanted = _SAMPLE if k is None else max(_SAMPLE, k, min(_EACH * k, _NUMBERS // index.dim))
    sample = _sample(index, min(len(index), wanted), seed)
    centres = _means(sample, k, seed) if k else _best(sample, seed)
    return _assigned(index, centres, most)


def _sample(index: Store, n: int, seed: int) -> Floats:
    """(n, D) vectors of the index, the same for the same seed."""
    chosen = np.sort(keyed.permutation(len(index), seed, _STREAM)[:n].numpy())
    parts, start = [], 0
    for ids, vectors in walk(index):
        parts.append(vectors[chosen[(chosen >= start) & (chosen < start + len(ids))] - start])
        start += len(ids)
    return np.concatenate(parts)


def _means(sample: Floats, k: int, seed: int) -> Floats:
    """(k, D) centres of length one."""
    if k >= len(sample):
        return sample[:k]
    found = []
    for turn in range(_REDO):
        means = faiss.Kmeans(
            sample.shape[1], k, niter=_ITERATIONS, spherical=True, seed=1 + seed,
            min_points_per_centroid=1, max_points_per_centroid=max(_EACH, len(sample) // k + 1),
        )  # fmt: skip
        means.train(sample, init_centroids=_seeds(sample, k, seed, turn))
        found.append((float(means.obj[-1]), turn, means.centroids))
    centres: Floats = max(found)[2]  # the sum of cosines
    return centres


def _seeds(sample: Floats, k: int, seed: int, turn: int) -> Floats:
    """(k, D) vectors of the sample, each the best of a few drawn by their distances from those before."""
    random = np.random.default_rng([_STREAM, seed, turn])
    chosen = [int(random.integers(len(sample)))]
    distance = _far(sample, chosen)[:, 0]
    for _ in range(k - 1):
        reach = np.cumsum(distance, dtype=np.float64)
        drawn = np.searchsorted(reach, random.random(2 + int(np.log(k))) * reach[-1]).clip(0, len(sample) - 1)
        after = np.minimum(distance[:, None], _far(sample, drawn))
        best = int(after.sum(0).argmin())
        chosen.append(int(drawn[best]))
        distance = after[:, best]
    return sample[chosen]


def _far(sample: Floats, rows: Sequence[int] | Ids) -> Floats:
    """(n, m) distances of everything from some; never 0, since somebody has to be drawn."""
    distance: Floats = (1 - sample @ sample[rows].T).clip(1e-12)
    return distance


def _best(sample: Floats, seed: int) -> Floats:
    """The centres of the number of clusters that suits best; one where there are too few items for two."""
    tried = [(_silhouette(sample, centres), centres) for centres in _trials(sample, seed)]
    if not tried:
        return _means(sample, 1, seed)
    value, centres = max(tried, key=lambda t: t[0])
    log.info("%d clusters suit best: silhouette %.3f", len(centres), value)
    return centres


def _trials(sample: Floats, seed: int) -> list[Floats]:
    numbers = [k for k in _LADDER if k <= max(2, len(sample) // 4) and k < len(sample)]
    with bar("trying numbers of clusters", len(numbers)) as progress:
        found = []
        for k in numbers:
            found.append(_means(sample, k, seed))
            progress.update()
    return found


def _silhouette(sample: Floats, centres: Floats) -> float:
    nearest = np.partition(1 - sample @ centres.T, 1, axis=1)[:, :2].clip(1e-7)
    return float((1 - nearest[:, 0] / nearest[:, 1]).mean())


def _assigned(index: Store, centres: Floats, most: int) -> list[Cluster]:
    """Every item to its nearest centre."""
    size, total = np.zeros(len(centres), np.int64), np.zeros(len(centres))
    belongs, score, ids = np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.int64)
    with bar("assigning", len(index)) as progress:
        for block, vectors in walk(index):
            near = vectors @ centres.T
            own = near.argmax(1)
            best = near[np.arange(len(own)), own]
            size += np.bincount(own, minlength=len(centres))
            total += np.bincount(own, best, minlength=len(centres))
            belongs, score, ids = (np.concatenate(p) for p in ((belongs, own), (score, best), (ids, block)))
            order = np.lexsort((ids, -score, belongs))
            rank = np.arange(len(order)) - np.searchsorted(belongs[order], belongs[order])
            order = order[rank < most]
            belongs, score, ids = belongs[order], score[order], ids[order]
            progress.update(len(block), "{rate:,.0f} items/s")
    found = [
        Cluster(int(size[c]), float(total[c] / size[c]), ids[belongs == c], score[belongs == c].clip(-1, 1))
        for c in np.flatnonzero(size)
    ]
    return sorted(found, key=lambda c: (-c.size, int(c.ids[0])))
