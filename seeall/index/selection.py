"""Searching among some of the rows of an index alone: exact where they are few, in a trained file where they are many.

An inverted file is tuned to read so many cells that 99 % of the nearest are found. Where a filter lets only some rows
through, the same cells hold fewer of them, or none. So cells without any are passed over, and of the others so many
are read, the nearest first, that they hold as many rows as otherwise, times `_MORE`; then twice as many, until the
answer stays as it is.
"""

from __future__ import annotations

import math
from typing import Any, final

import numpy as np
from faiss import rev_swig_ptr, swig_ptr

from seeall.index.engine import Engine, faiss
from seeall.index.segments import Floats, Ids, Mask, Rows

GATHER = 1 << 22, 1 << 25
"""Numbers that are gathered for exact search: so many in any case, which are 32,768 vectors of 128 dimensions, and so
many, 128 MiB, where a search of the trained file would read more rows."""
_MORE = 32
"""The nearest rows that pass lie farther away than the nearest of all, so in more cells."""
_TABLE = 1 << 22
"""Similarities of queries and cells that are held at a time."""


@final
class Selection:
    """The rows of the items `ids` (m,), ascending, all of which are in `rows`, whose vectors have D = `dim`.

    trained: the trained file, if there is one. mask: (N,) bool, over all positions. gathered: they alone, for exact
    search; None where they are too many.
    """

    def __init__(self, rows: Rows, ids: Ids, dim: int, trained: Engine | None = None) -> None:
        self.ids = ids
        self.mask: Mask = np.zeros(len(rows), bool)
        self.mask[rows.find(ids)] = True
        most = GATHER[len(ids) <= _read(trained, len(ids))]
        few = len(ids) * dim <= most
        self.gathered = Engine.exact(lambda: rows.blocks(self.mask), dim, "off") if few else None
        self._cells: _Cells | None = None

    def through(self, engine: Engine, queries: Floats, k: int, alive: Mask | None, spare: int) -> tuple[Ids, Floats]:
        """As `engine.search`, of whose rows only those are found that are `alive` (N,), if given, and pass."""
        mask = self.mask if alive is None else alive & self.mask
        if engine.inverted is None or not mask.any():
            return engine.search(queries, k, mask, spare)
        if self._cells is None:
            self._cells = _Cells(*engine.inverted, mask)
        cells, k = self._cells, min(engine.proposals(k, spare), int(mask.sum()))
        places, scores = np.full((len(queries), k), -1), np.full((len(queries), k), -np.inf, np.float32)
        step = max(1, _TABLE // cells.count)
        for start in range(0, len(queries), step):
            part = slice(start, start + step)
            places[part], scores[part] = cells.search(queries[part], k)
        return places, scores


def _read(trained: Engine | None, passing: int) -> float:
    """About how many rows are read for a query in a trained file when `passing` of its rows pass; without one, all."""
    if trained is None or trained.inverted is None:
        return math.inf
    index, probes = trained.inverted
    usual = float(_MORE * probes * index.ntotal / index.nlist)
    return (1 + 2) * usual * float(index.ntotal) / max(passing, 1)


@final
class _Cells:
    """The cells of an inverted file that hold any of the rows in `mask` (N,), and how many each."""

    def __init__(self, index: Any, probes: int, mask: Mask) -> None:
        self._index, self._chosen = index, faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
        lists = index.invlists
        sizes = [lists.list_size(cell) for cell in range(index.nlist)]
        held = [mask[rev_swig_ptr(lists.get_ids(cell), size)].sum() if size else 0 for cell, size in enumerate(sizes)]
        self._cells: Ids = np.flatnonzero(held)
        self._held = np.array(held, np.int64)[self._cells]
        self._centres: Floats = index.quantizer.reconstruct_batch(self._cells)
        self._enough = _MORE * probes * index.ntotal / index.nlist

    @property
    def count(self) -> int:
        """How many cells there are."""
        return len(self._cells)

    def search(self, queries: Floats, k: int) -> tuple[Ids, Floats]:
        """Positions (n, k) and cosines (n, k) of the best in the cells that are read for `queries` (n, D)."""
        near = queries @ self._centres.T
        order = np.argsort(-near, axis=1, kind="stable")
        near, reach = np.take_along_axis(near, order, 1), np.cumsum(self._held[order], axis=1)
        enough = max(self._enough, float(k))
        places, scores = self._read(queries, k, order, near, reach, enough)
        doubtful = np.arange(len(queries))
        while True:
            doubtful = doubtful[reach[doubtful, -1] > enough]
            if not len(doubtful):
                return places, scores
            enough *= 2
            asked, ordered = queries[doubtful], (order[doubtful], near[doubtful], reach[doubtful])
            more, better = self._read(asked, k, *ordered, enough)
            changed = (better > scores[doubtful]).any(1)
            places[doubtful], scores[doubtful] = more, better
            doubtful = doubtful[changed]

    def _read(self, queries: Floats, k: int, order: Ids, near: Floats, reach: Ids, enough: float) -> tuple[Ids, Floats]:
        """The best in the first cells of `order` (n, cells), as similar as `near`, that together hold `enough`."""
        wanted = (reach < enough).sum(1) + 1
        most = min(int(wanted.max()), self.count)
        cells = np.where(np.arange(most) < wanted[:, None], self._cells[order[:, :most]], -1)
        near, queries = np.ascontiguousarray(near[:, :most]), np.ascontiguousarray(queries)
        scores, places = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        params = faiss.SearchParametersIVF(nprobe=most, sel=self._chosen)
        given, found = (swig_ptr(queries), k, swig_ptr(cells), swig_ptr(near)), (swig_ptr(scores), swig_ptr(places))
        self._index.search_preassigned_c(len(queries), *given, *found, False, params)
        return places, scores
