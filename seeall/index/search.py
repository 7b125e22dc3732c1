"""Nearest neighbours in one generation of an index, the same whatever FAISS index and device found them.

FAISS proposes; the answer is scored again from the stored vectors in double precision and ordered by score,
then by id. So a picture has the same score alone or in a batch, on a CPU or a GPU, and equal pictures come in
a fixed order. A trained file is helped by an exact search over the rows that came after it was built.
"""

from __future__ import annotations

from typing import final

import numpy as np

from seeall.console import log
from seeall.index.engine import Engine, Gpu
from seeall.index.manifest import Projection
from seeall.index.segments import Floats, Ids
from seeall.index.selection import Selection
from seeall.index.snapshot import Snapshot

_SLACK = 8
"""Candidates beyond k, so that rounding inside FAISS does not decide who is the last."""
_TIES = 1024
"""Candidates beyond k where more than _SLACK are as close as the last. A tie wider than this among the
last places is settled by FAISS, not by id."""
_ROUNDING = 1e-5
"""FAISS's float32 scores are right to this."""
_MOST = 1 << 22
"""Numbers gathered for scoring at a time."""
_NOBODY = np.iinfo(np.int64).max


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
        self._covered = alive & (np.arange(len(rows)) < covered)
        self._exact = Engine.flat(lambda: rows.blocks(alive, covered), dim, gpu)

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
        ids, scores = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
        doubtful: list[Ids] = []
        for part in _parts(len(queries), (k + _SLACK) * queries.shape[1]):
            ids[part], scores[part], doubt = self._best(queries[part], k, k + _SLACK, only)
            doubtful.append(part[doubt])
        again = np.concatenate([np.empty(0, np.int64), *doubtful])
        for part in _parts(len(again), (k + _TIES) * queries.shape[1]):
            ids[again[part]], scores[again[part]], _ = self._best(queries[again[part]], k, k + _TIES, only)
        return ids, scores

    def propose(self, queries: Floats, k: int, only: Selection | None = None) -> tuple[Ids, Floats]:
        """k candidates or more for each of unit `queries` (n, D), in no order, as FAISS finds them.

        Returns: positions (n, m), -1 where there are no more, and cosines (n, m) right to about 1e-6.
        """
        if only and only.gathered:
            return only.gathered.search(queries, k)
        found, rough = self._exact.search(queries, k, only and only.mask)
        if self._trained and only:
            more, more_rough = only.through(self._trained, queries, k, self._covered)
        elif self._trained:
            more, more_rough = self._trained.search(queries, k, self._covered)
        else:
            return found, rough
        return np.concatenate([found, more], 1), np.concatenate([rough, more_rough], 1)

    def near(self, queries: Floats, k: int) -> tuple[Ids, Floats]:
        """As `search`, with cosines as FAISS has them: for looking at a whole collection, and much quicker.

        Returns: ids (n, k), -1 where a trained file found no more, and cosines (n, k) right to about 1e-6.
        """
        found, rough = self.propose(queries, k)
        order = np.argsort(np.where(found < 0, np.inf, -rough), axis=1, kind="stable")[:, :k]
        found, rough = np.take_along_axis(found, order, 1), np.take_along_axis(rough, order, 1)
        return np.where(found < 0, -1, self._snapshot.rows.ids[found]), rough

    def _best(self, queries: Floats, k: int, proposed: int, only: Selection | None) -> tuple[Ids, Floats, Ids]:
        """Ids, cosines, and the numbers of the queries for which more candidates might change the answer."""
        found, rough = self.propose(queries, proposed, only)
        rows = self._snapshot.rows
        exact = self._score(queries, found)
        ids = np.where(found < 0, _NOBODY, rows.ids[found])
        order = np.lexsort((ids, -exact))[:, :k]
        scores = np.take_along_axis(exact, order, 1)
        doubt: Ids = np.empty(0, np.int64)
        if proposed < (len(only.ids) if only else self.count):
            worst = np.sort(np.where(found < 0, -np.inf, rough), 1)[:, -proposed]
            doubt = np.flatnonzero(worst >= scores[:, -1] - _ROUNDING)
        return np.take_along_axis(ids, order, 1), scores, doubt

    def _score(self, queries: Floats, found: Ids) -> Floats:
        """(n, m) cosines of `queries` (n, D) with the rows at `found` (n, m); minus infinity where that is -1.

        Summed along the last axis, which numpy does in the same order for every row.
        """
        vectors = self._snapshot.rows.gather(found.clip(0).ravel()).astype(np.float64)
        products = vectors.reshape(*found.shape, queries.shape[1]) * queries[:, None, :]
        cosines = products.sum(-1).clip(-1, 1).astype(np.float32)
        return np.where(found < 0, np.float32(-np.inf), cosines)


def _trained(snapshot: Snapshot, projection: Projection, gpu: Gpu) -> Engine | None:
    """The trained file, ready to search; None where it is missing or damaged."""
    if not snapshot.trained:
        log.warning("%s is missing: searching without it; compact the index to rebuild it", projection.path)
        return None
    try:
        engine = Engine.ivf(snapshot.trained, projection.nprobe, gpu)
        if engine.count == projection.count and engine.dim == snapshot.manifest.dim:
            return engine
        reason = f"it holds {engine.count} vectors of {engine.dim} dimensions"
    except OSError as error:
        reason = str(error)
    log.warning("%s is damaged (%s): searching without it; compact the index to rebuild it", projection.path, reason)
    return None


def _parts(count: int, size: int) -> list[Ids]:
    """The numbers below `count` in runs of so many that `size` for each stays within _MOST."""
    step = max(1, _MOST // size)
    return [np.arange(start, min(start + step, count)) for start in range(0, count, step)]
