"""Nearest neighbours in Milvus: it proposes, with vectors, and the answer is scored again from these, as for a folder.

So a score is the same to the last bit, and equal ones are ordered by id. Where Milvus compares with every vector, more
is asked for where others may be as near as the last. Where it is asked for more neighbours than it gives, or finds
fewer than there are, all vectors are read and compared with here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from seeall.index.milvus.conditions import Passing
from seeall.index.milvus.rows import Rows
from seeall.index.milvus.tables import MOST, Tables
from seeall.index.segments import Floats, Ids, Mask, Stack, ordered

_SLACK, _TIES, _ROUNDING = 8, 1024, 1e-5
"""As in `search`: candidates beyond k, at first and where these are as close as the last; how exact scores are."""


def nearest(tables: Tables, rows: Rows, queries: Floats, k: int, only: Passing | None, kind: str) -> tuple[Ids, Floats]:
    """Ids (n, k) and cosines (n, k), best first, equal ones by id, of unit `queries` (n, D).

    k: no more than there are. only: the items that may be found, None for all. kind: the structure, exact or not.
    """
    counted = rows.state.condition()
    asked = [f"{part} and {counted}" for part in only.conditions] if only else [counted]
    ids, scores = np.full((len(queries), k), -1), np.full((len(queries), k), -np.inf, np.float32)
    todo = np.arange(len(queries))
    for spare in (_SLACK, _TIES):
        limit = min(k + spare, MOST)
        if k >= MOST or not len(todo):
            break
        ids[todo], scores[todo], doubt = _proposed(tables, queries[todo], k, limit, asked, kind)
        todo = todo[doubt] if kind == "exact" else todo[:0]
    short = np.flatnonzero((ids < 0).any(1))
    if len(short):
        ids[short], scores[short] = _compared(rows, queries[short], k, only and only.ids)
    return ids, scores


def _proposed(
    tables: Tables, queries: Floats, k: int, limit: int, conditions: Sequence[str], kind: str
) -> tuple[Ids, Floats, Mask]:
    """Ids, cosines, and for which queries more candidates might change the answer (n,)."""
    n, m = len(queries), len(conditions)
    found, last = np.full((n, m * limit), -1, np.int64), np.full((n, m), -np.inf, np.float32)
    vectors: dict[int, Any] = {}
    for part, condition in enumerate(conditions):
        for number, hits in tables.nearest(queries, limit, condition, kind):
            for place, (id, rough, vector) in enumerate(hits):
                found[number, part * limit + place] = id
                if id not in vectors:
                    vectors[id] = np.array(vector, np.float32)
                if place == limit - 1:  # there may be more behind
                    last[number, part] = rough
    ids, scores = _scored(queries, found, vectors, k)
    doubt: Mask = np.logical_or.reduce(last >= scores[:, -1:] - _ROUNDING, axis=1)
    return ids, scores, doubt


def _scored(queries: Floats, found: Ids, vectors: dict[int, Any], k: int) -> tuple[Ids, Floats]:
    """The k best of `found` (n, m), ids that may be there twice, -1 for none, by their vectors."""
    known = np.array(sorted(vectors), np.int64)
    if not len(known):
        return np.full((len(queries), k), -1), np.full((len(queries), k), -np.inf, np.float32)
    found = np.sort(found, axis=1)
    found[:, 1:][found[:, 1:] == found[:, :-1]] = -1
    stack = Stack([np.stack([vectors[i] for i in known.tolist()])], queries.shape[1])
    places = np.where(found < 0, -1, np.searchsorted(known, found))
    scores = stack.products(queries, places)
    if places.shape[1] < k:
        more = ((0, 0), (0, k - places.shape[1]))
        places = np.pad(places, more, constant_values=-1)
        scores = np.pad(scores, more, constant_values=-np.inf)
    best, scores = ordered(places, scores, k)
    return np.where(best < 0, -1, known[best]), scores


def _compared(rows: Rows, queries: Floats, k: int, only: Ids | None) -> tuple[Ids, Floats]:
    """The k best by comparing with every vector, of `only` (m,) if given."""
    ids, scores = np.full((len(queries), k), -1), np.full((len(queries), k), -np.inf, np.float32)
    for block, vectors in rows.blocks(4096):
        if only is not None:
            keep = np.isin(block, only)
            block, vectors = block[keep], vectors[keep]
        if not len(block):
            continue
        for number, query in enumerate(queries):
            places = np.arange(len(block))[None]
            fresh = Stack([vectors], vectors.shape[1]).products(query[None], places)[0]
            every, all = np.concatenate([ids[number], block]), np.concatenate([scores[number], fresh])
            order = np.lexsort((every, -all))[:k]
            ids[number], scores[number] = every[order], all[order]
    return ids, scores
