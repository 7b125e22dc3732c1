"""Nearest neighbours in one generation of an index, the same whatever FAISS index and device found them.

FAISS proposes; the answer is scored again from the stored vectors, each by itself, and ordered by score, then by
id. So a picture has the same score alone or in a batch, on a CPU or a GPU, in whatever structure, and equal pictures
come in a fixed order. A trained file is helped by an exact search over the rows that came after it was built.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import numpy as np

from seeall.console import log
from seeall.index.engine import Engine, faiss
from seeall.index.gpus import Gpu
from seeall.index.manifest import Projection
from seeall.index.segments import Floats, Ids, Mask, ordered
from seeall.index.selection import Selection
from seeall.index.snapshot import Snapshot
from seeall.index.threads import suited

_SLACK = 2
"""Candidates beyond k, so that rounding inside FAISS does not decide who is the last."""
_TIES = 1024
"""Candidates beyond k where more than _SLACK are as close as the last. A tie wider than this among the
last places is settled by FAISS, not by id."""
_ROUNDING = 1e-5
"""FAISS's float32 scores are right to this."""
_MOST = 1 << 22
"""Proposals scored at a time."""


@final
class Searcher:
    """FAISS indexes over the living rows of `snapshot`, which need not stay open.

    A trained file that is missing or damaged is done without: search is exact then, and slower.
    """

    def __init__(self, snapshot: Snapshot, gpu: Gpu) -> None:
        self._snapshot = snapshot
        rows, alive, dim = snapshot.rows, snapshot.alive, snapshot.manifest.dim
        projection = snapshot.manifest.projection
        self._trained = _trained(snapshot, projection, gpu) if projection else None
        covered = projection.rows if projection and self._trained else 0
        self._covered: Mask | None = alive & (np.arange(len(rows)) < covered)
        if self._trained and int(self._covered.sum()) == self._trained.count:
            self._covered = None  # all that the file holds may be found
        self._exact = Engine.exact(lambda: rows.blocks(alive, covered), dim, gpu)

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU does the work."""
        return (self._trained or self._exact).on_gpu

    @property
    def damaged(self) -> bool:
        """Whether there should be a trained file, and is done without."""
        return self._trained is None and self._snapshot.manifest.projection is not None

    @property
    def count(self) -> int:
        """Living rows."""
        return self._snapshot.manifest.count

    def select(self, ids: Ids) -> Selection:
        """The living rows of the items `ids`, ascending, for `search` among them alone."""
        snapshot = self._snapshot
        return Selection(snapshot.rows, ids, snapshot.manifest.dim, self._trained)

    def search(self, queries: Floats, k: int, only: Selection | None = None) -> tuple[Ids, Floats]:
        """The k best of the living rows, or of `only`, k no more than there are, for unit `queries` (n, D).

        Returns: ids (n, k) and cosines (n, k), best first, equal ones by id.
        """
        if only and not only.gathered and self._trained and self._trained.walks:
            places, scores = self._compare(queries, k, only)
            return self._snapshot.rows.ids[places], scores
        found = [self._best(queries[part], k, _SLACK, only) for part in _parts(len(queries), k + _SLACK)]
        places, scores, doubtful = (np.concatenate(of) if len(found) > 1 else of[0] for of in zip(*found))
        again = np.flatnonzero(doubtful)
        for part in _parts(len(again), k + _TIES) if len(again) else ():
            places[again[part]], scores[again[part]], _ = self._best(queries[again[part]], k, _TIES, only)
        short = np.flatnonzero((places < 0).any(1))
        if len(short):  # a graph may lead to fewer than there are
            places[short], scores[short] = self._compare(queries[short], k, only)
        return self._snapshot.rows.ids[places], scores

    def _best(self, queries: Floats, k: int, spare: int, only: Selection | None) -> tuple[Ids, Floats, Mask]:
        """Positions, cosines, and (n,) for which queries more candidates might change the answer."""
        proposals = list(self._proposed(queries, k, spare, only))
        found = np.concatenate([places for _, places, _ in proposals], 1)
        places, scores = ordered(found, self._snapshot.rows.products(queries, found), k)
        doubt = np.zeros(len(queries), bool)
        for engine, _, rough in proposals:
            if engine.precise and k + spare <= rough.shape[1] < engine.count:
                doubt |= rough[:, -1] >= scores[:, -1] - _ROUNDING
        return places, scores, doubt

    def _proposed(
        self, queries: Floats, k: int, spare: int, only: Selection | None
    ) -> Iterator[tuple[Engine, Ids, Floats]]:
        """Who proposes, positions (n, m), -1 where there are no more, and FAISS's own scores (n, m)."""
        if only and only.gathered:
            yield only.gathered, *only.gathered.search(queries, k, spare=spare)
            return
        yield self._exact, *self._exact.search(queries, k, only and only.mask, spare)
        if self._trained and only:
            yield self._trained, *only.through(self._trained, queries, k, self._covered, spare)
        elif self._trained:
            yield self._trained, *self._trained.search(queries, k, self._covered, spare)

    def _compare(self, queries: Floats, k: int, only: Selection | None) -> tuple[Ids, Floats]:
        """Positions (n, k) and cosines (n, k) by comparing `queries` (n, D) with every row that may be found."""
        found = np.empty((len(queries), 0), np.int64)
        for positions, vectors in self._snapshot.rows.blocks(only.mask if only else self._snapshot.alive):
            with suited(queries.size * len(vectors)):
                near = faiss.knn(queries, vectors, min(k, len(vectors)), metric=faiss.METRIC_INNER_PRODUCT)[1]
            found = np.concatenate([found, positions[near]], 1)
        return ordered(found, self._snapshot.rows.products(queries, found), k)


def _trained(snapshot: Snapshot, projection: Projection, gpu: Gpu) -> Engine | None:
    """The trained file, ready to search; None where it is missing or damaged."""
    if not snapshot.trained:
        log.warning("%s is missing: searching without it; compact the index to rebuild it", projection.path)
        return None
    try:
        engine = Engine.trained(snapshot.trained, projection.search, gpu)
        if engine.count == projection.count and engine.dim == snapshot.manifest.dim:
            return engine
        reason = f"it holds {engine.count} vectors of {engine.dim} dimensions"
    except OSError as error:
        reason = str(error)
    log.warning("%s is damaged (%s): searching without it; compact the index to rebuild it", projection.path, reason)
    return None


def _parts(count: int, size: int) -> list[slice]:
    """The numbers below `count` in runs of so many that `size` for each stays within _MOST; at least one run."""
    step = max(1, _MOST // size)
    return [slice(start, start + step) for start in range(0, max(count, 1), step)]
