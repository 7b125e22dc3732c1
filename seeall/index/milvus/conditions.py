"""What a condition holds for, of the items in Milvus.

The language of conditions has rules of its own for numbers, text and what is missing, which Milvus's has not. So Milvus
finds those items that have the marks which a condition implies, where it implies any, and SQLite answers for these, in
memory, by the same SQL as for a folder. The answer is kept until something is written. Equality, `in` and `is not null`
imply marks; for `year > 2020` all items are read that have a year, and for `label is null` all. So are they where
more than an eighth have the marks.

An item never changes, and numbers are never used twice. So once something was written only the numbers from there on
are looked at, and those that passed before are asked whether they are still there.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import final

import numpy as np

from seeall.index.items import Record
from seeall.index.milvus.rows import Rows, hashed, raw, record
from seeall.index.milvus.tables import numbers
from seeall.index.segments import Ids
from seeall.index.where import Condition

_LIST = 10_000
"""Ids that a condition names."""
_TABLE = "CREATE TABLE items (id INTEGER PRIMARY KEY, path TEXT NOT NULL, label TEXT, metadata TEXT NOT NULL)"
_INSERT = "INSERT INTO items VALUES (?, CAST(? AS TEXT), CAST(? AS TEXT), ?)"


def select(rows: Rows, condition: Condition, before: Passing | None = None) -> Passing:
    """What `condition` holds for; before: what it held for in an earlier state."""
    if before is None:
        having = " and ".join(f"array_contains_any(marks, {numbers(hashed(some))})" for some in condition.implied)
        having, first = having if having and rows.few(having) else "", 1
        ids, passing = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    else:
        having, first = before.having, before.end
        ids, passing = [before.all], [rows.living(before.ids)]
    query = f"SELECT id FROM items WHERE {condition.sql}"
    db = sqlite3.connect(":memory:", isolation_level=None)
    try:
        db.execute(_TABLE)
        for some in rows.words(having, first):
            db.execute("DELETE FROM items")
            db.executemany(_INSERT, (_values(record(row)) for row in some))
            ids.append(np.array([row["id"] for row in some], np.int64))
            passing.append(np.sort(np.array([row[0] for row in db.execute(query, condition.values)], np.int64)))
    finally:
        db.close()
    return Passing(np.concatenate(ids), np.concatenate(passing), having, rows.state.next_id)


@final
class Passing:
    """Those items `ids` (m,), ascending, that a condition holds for, of `all` (n,) below `end` of which `having` holds.

    Some of `all` may be gone.
    """

    def __init__(self, all: Ids, ids: Ids, having: str, end: int) -> None:
        self.all, self.ids, self.having, self.end = all, ids, having, end
        if len(ids) <= _LIST:
            self.conditions = [f"id in {numbers(ids.tolist())}"] if len(ids) else []
        else:
            prefix = f"{having} and " if having else ""
            self.conditions = [prefix + part for part in _stretches(all, np.isin(all, ids))]


def _stretches(ids: Ids, passing: np.ndarray) -> Iterator[str]:
    """Conditions that hold for those of `ids` (n,) that are `passing` (n,) and for no others, each of which for one.

    Each is about a stretch of ids, and names those that pass or those that do not: so many stretches that at most
    _LIST are named in one.
    """
    yes, no = np.cumsum(passing), np.cumsum(~passing)
    start = 0
    while start < len(ids):
        before = (yes[start - 1], no[start - 1]) if start else (0, 0)
        ends = [np.searchsorted(count, at + _LIST, side="right") for count, at in zip((yes, no), before)]
        stop = int(max(ends))
        part, good = ids[start:stop], passing[start:stop]
        fewer = good.sum() <= (~good).sum()
        if good.any():
            named = part[good if fewer else ~good]
            which = f" and id {'in' if fewer else 'not in'} {numbers(named.tolist())}" if len(named) else ""
            yield f"id >= {part[0]} and id <= {part[-1]}{which}"
        start = stop


def _values(r: Record) -> tuple[int, bytes, bytes | None, str]:
    return r.id, raw(r.path), None if r.label is None else raw(r.label), r.metadata
