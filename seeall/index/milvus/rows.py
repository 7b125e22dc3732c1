"""Items in Milvus as they are read, in one state: by id, by path, all of them, or those that a condition holds for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, final

import numpy as np

from seeall.index import marks
from seeall.index.items import Known, Record
from seeall.index.milvus.log import State
from seeall.index.milvus.tables import LONGEST, MOST, Tables, window
from seeall.index.segments import Floats, Ids
from seeall.index.stamps import Stamp
from seeall.types import SeeallError

WORDS = ("id", "path", "label", "metadata")
_PATH = 4096
"""Bytes of a path, at most: as many as Linux allows."""
_LETTERS = 1 << 22
"""Of text that are read at a time, about."""
_TOGETHER = 4096
"""Rows with words that are read at a time."""
_SHARE = 8
"""Where more than one of so many may fulfil a condition, reading all is the quicker."""


def key(path: str) -> int:
    """What a path is looked up by: 64 bits of its SHA-256, as Milvus has no index that is quick for long texts."""
    return _digest(raw(path))


def _digest(data: bytes) -> int:
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big", signed=True)


def hashed(some: Iterable[str]) -> list[int]:
    """Marks as they are stored."""
    return sorted(_digest(mark.encode("utf-8", "surrogatepass")) for mark in some)


def kept(text: str | None) -> str | None:
    """A text as it is stored: itself, or as JSON where it is no UTF-8 or might be taken for JSON.

    >>> kept("a.jpg"), kept("a\\udc80"), kept('"a')
    ('a.jpg', '"a\\\\udc80"', '"\\\\"a"')
    """
    if text is None:
        return None
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(text)
    return json.dumps(text) if text.startswith('"') else text


def given(stored: str | None) -> str | None:
    """The text that was stored."""
    return str(json.loads(stored)) if stored is not None and stored.startswith('"') else stored


def written(record: Record) -> dict[str, Any]:
    """The columns of a record. Raises: SeeallError for what is longer than Milvus takes."""
    row = {"path": kept(record.path), "label": kept(record.label), "metadata": record.metadata}
    for name, text in row.items():
        most = _PATH if name == "path" else LONGEST
        if text is not None and len(text.encode()) > most:
            raise SeeallError(f"the {name} of {record.path[:200]!r} takes more than the {most:,} bytes that are kept")
    own = [text if text is None else raw(text).decode(errors="surrogateescape") for text in record[1:3]]
    found = marks.marks(own[0] or "", own[1], json.loads(record.metadata))
    return {"id": record.id, "key": key(record.path), **row, "marks": hashed(found)}


def record(row: dict[str, Any]) -> Record:
    """The record that columns are."""
    return Record(int(row["id"]), given(row["path"]) or "", given(row["label"]), row["metadata"])


@final
class Rows:
    """What counts in `state`, whose vectors are (D,); own: a batch that counts, too."""

    def __init__(self, tables: Tables, state: State, dim: int, own: int | None = None) -> None:
        self._tables, self.state, self._dim = tables, state, dim
        self._condition = state.condition(own)

    def by_id(self, ids: Sequence[int], more: Sequence[str] = ()) -> dict[int, dict[str, Any]]:
        """Id → columns, WORDS and `more`, of those of `ids` that there are."""
        good = [i for i in dict.fromkeys(ids) if 0 < i < 2**63]
        fields, step = [*WORDS, *more], min(4096, window(self._dim))
        return {
            int(r["id"]): r for r in self._tables.among(self._tables.items, "id", good, self._condition, fields, step)
        }

    def by_path(self, paths: Sequence[str], more: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
        """Path → columns, WORDS and `more`, of those of `paths` that there are."""
        wanted = {key(path): path for path in paths if _is_path(path)}
        fields, step = [*WORDS, *more], min(4096, window(self._dim))
        found = self._tables.among(self._tables.items, "key", list(wanted), self._condition, fields, step)
        return {path: row for row in found if (path := given(row["path"])) == wanted[key(str(path))]}

    def windows(self, fields: Sequence[str], step: int, first: int = 1) -> Iterator[list[dict[str, Any]]]:
        """All rows from the id `first` on, ascending, `step` ids at a time, or more where they hold little text."""
        while first < self.state.next_id:
            rows = self._window(fields, first, step)
            first += step
            if rows:
                yield rows
            if rows and "vector" not in fields:
                letters = sum(len(value) for row in rows for value in row.values() if isinstance(value, str))
                step = min(MOST, max(1, _LETTERS * len(rows) // max(letters, 1)))

    def block(self, first: int, size: int) -> tuple[Ids, Floats]:
        """Of the ids from `first` on, `size` of them: those that there are (m,), ascending, and vectors (m, D)."""
        step, rows = window(self._dim), list[dict[str, Any]]()
        for start in range(first, first + size, step):
            rows += self._window(("id", "vector"), start, min(step, first + size - start))
        ids = np.array([row["id"] for row in rows], np.int64)
        return ids, np.array([row["vector"] for row in rows], np.float32).reshape(len(ids), self._dim)

    def blocks(self, size: int) -> Iterator[tuple[Ids, Floats]]:
        """Ids (m,), ascending, with vectors (m, D), at most `size` at a time."""
        for first in range(1, self.state.next_id, size):
            ids, vectors = self.block(first, size)
            if len(ids):
                yield ids, vectors

    def _window(self, fields: Sequence[str], first: int, step: int) -> list[dict[str, Any]]:
        """The rows of ids from `first` on, `step` of them, in their order."""
        some = f"id >= {first} and id < {first + step}"
        rows = self._tables.rows(self._tables.items, f"{some} and {self._condition}", fields)
        unique = {int(row["id"]): row for row in rows}
        return [unique[i] for i in sorted(unique)]

    def ids(self) -> Ids:
        """(n,) ascending."""
        parts = [np.array([r["id"] for r in rows], np.int64) for rows in self.windows(("id",), MOST)]
        return np.concatenate([np.empty(0, np.int64), *parts])

    def records(self) -> Iterator[Record]:
        """All, by ascending id."""
        for rows in self.windows(WORDS, _TOGETHER):
            yield from map(record, rows)

    def stamps(self, ids: Sequence[int]) -> dict[int, Stamp]:
        """Id → what its file was like, of those of `ids` of which that is known."""
        fields = ("id", "size", "changed", "digest")
        rows = self._tables.among(self._tables.files, "id", list(ids), "id > 0", fields)
        return {int(r["id"]): Stamp(int(r["size"]), int(r["changed"]), str(r["digest"])) for r in rows}

    def files(self, paths: Sequence[str]) -> dict[str, Known]:
        """See `known.files`."""
        found = {path: record(row) for path, row in self.by_path(paths).items()}
        stamps = self.stamps([r.id for r in found.values()])
        return {path: (r, stamps.get(r.id)) for path, r in found.items()}

    def known(self, ids: Ids) -> list[Known]:
        """See `known.records`."""
        rows, stamps = self.by_id(ids.tolist()), self.stamps(ids.tolist())
        return [(record(rows[i]), stamps.get(i)) for i in ids.tolist()]

    def keys(self) -> set[str]:
        """See `known.keys`."""
        return {str(name) for r in self.records() if r.metadata != "{}" for name in json.loads(r.metadata)}

    def beginning(self, start: str) -> list[str]:
        """See `Items.beginning`."""
        first = raw(start)
        return [r.path for r in self.records() if raw(r.path).startswith(first) and raw(r.path) != first]

    def living(self, ids: Ids) -> Ids:
        """Those of `ids` (n,), ascending, that there are."""
        found = self._tables.among(self._tables.items, "id", ids.tolist(), self._condition, ("id",), MOST)
        return np.array(sorted({int(row["id"]) for row in found}), np.int64)

    def few(self, condition: str) -> bool:
        """Whether a condition holds for so few that they are sooner found than all are read."""
        return self._tables.count(self._tables.items, condition) <= max(_TOGETHER, self.state.next_id // _SHARE)

    def words(self, condition: str, first: int) -> Iterator[list[dict[str, Any]]]:
        """WORDS of the rows of which a condition holds, of all if it is "", from the id `first` on; ascending."""
        if condition:
            return self._having(condition, first, self.state.next_id)
        return self.windows(WORDS, _TOGETHER, first)

    def _having(self, condition: str, first: int, end: int) -> Iterator[list[dict[str, Any]]]:
        """The rows of which a condition holds whose ids are from `first` to `end`, exclusive; halved where too many."""
        some = f"{condition} and id >= {first} and id < {end} and {self._condition}"
        if first >= end or not (count := self._tables.count(self._tables.items, some)):
            return
        if count <= _TOGETHER or end - first <= _TOGETHER:
            rows = self._tables.rows(self._tables.items, some, WORDS)
            unique = {int(row["id"]): row for row in rows}
            yield [unique[i] for i in sorted(unique)]
        else:
            middle = (first + end) // 2
            yield from self._having(condition, first, middle)
            yield from self._having(condition, middle, end)


def raw(text: str) -> bytes:
    """A text as the bytes that a folder's database has."""
    return text.encode("utf-8", "surrogateescape")


def _is_path(text: str) -> bool:
    try:
        return bool(raw(text))
    except UnicodeEncodeError:
        return False
