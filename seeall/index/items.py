"""`items.sqlite`: what each id is. Where its vector lies is the segments' business.

Every row carries the generations in which it came and went, and is part of generation G where
added_generation <= G < removed_generation. So the manifest alone decides what exists, and a transaction whose
manifest never came is undone by those two columns. Write-ahead logging lets a reader keep the state that it
opened while others write.

What is deleted is overwritten with zeros, and `scrub` leaves nothing of it in any page.

File names that are no valid UTF-8 reach Python as surrogate escapes; they are stored as the bytes they were.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from json.encoder import encode_basestring_ascii as quoted
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np

from seeall.index.manifest import damaged, unreadable
from seeall.index.segments import Ids
from seeall.index.stamps import Stamp
from seeall.index.where import Condition
from seeall.types import SeeallError

NAME = "items.sqlite"
_NEVER = 2**63 - 1
_SCHEMA = f"""
PRAGMA journal_mode = WAL;
CREATE TABLE items (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    path TEXT NOT NULL,
    label TEXT,
    metadata TEXT NOT NULL,
    added_generation INTEGER NOT NULL,
    removed_generation INTEGER NOT NULL DEFAULT {_NEVER},
    UNIQUE (path, removed_generation)
);
"""
INDEX = f"CREATE INDEX items_removed ON items (removed_generation) WHERE removed_generation < {_NEVER}"
"""What finds the removed items, who are few."""
_FILES = (
    "CREATE TABLE IF NOT EXISTS files"
    " (id INTEGER PRIMARY KEY, size INTEGER NOT NULL, changed INTEGER NOT NULL, digest TEXT NOT NULL)",
    "CREATE TRIGGER IF NOT EXISTS items_deleted AFTER DELETE ON items BEGIN DELETE FROM files WHERE id = OLD.id; END",
)
"""What the files of items were like, for those who want to know whether they have changed. It belongs to no
generation, as an id is never used twice; an index that was made before there was such a table gets it with its first
stamp."""
_GONE = f"removed_generation < {_NEVER}"
"""Written out, since SQLite uses the index above only where it finds this very condition."""
_REMOVED = f"SELECT id FROM items INDEXED BY items_removed WHERE removed_generation <= ? AND {_GONE} ORDER BY id"
_BACK = f"UPDATE items INDEXED BY items_removed SET removed_generation = ? WHERE removed_generation > ? AND {_GONE}"
_ALIVE = "added_generation <= ? AND removed_generation > ?"
_COLUMNS = "id, path, label, metadata"
_PATIENCE = 1000
"""Milliseconds that readers of older generations are waited for."""
_BATCH = 500
"""Values in one query, below the limit of every build of SQLite."""


class Record(NamedTuple):
    """One row as it is stored: metadata as JSON text."""

    id: int
    path: str
    label: str | None
    metadata: str

    @property
    def fingerprint(self) -> int:
        """128 bits. Their sum over all items, modulo 2^128, is the checksum that a commit keeps up to date."""
        label = "null" if self.label is None else quoted(self.label)
        text = f"[{self.id}, {quoted(self.path)}, {label}, {quoted(self.metadata)}]"  # as json.dumps(self) is, sooner
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")


Known = tuple[Record, Stamp | None]
"""A record, and what the file was like when it was looked at, if that is known."""


def checksum(old: str, added: Iterable[Record] = (), removed: Iterable[Record] = ()) -> str:
    """The checksum of the items after `added` came and `removed` went, in whatever order."""
    total = int(old, 16) + sum(r.fingerprint for r in added) - sum(r.fingerprint for r in removed)
    return f"{total % 2**128:x}"


def record(id: int, path: str, label: str | None, metadata: Mapping[str, Any] | None) -> Record:
    """A row to store, path and label as text; raises SeeallError for what cannot be stored and read back the same."""
    path, label = str(path), None if label is None else str(label)
    for text in (path, label or ""):
        try:
            _bytes(text)
        except UnicodeEncodeError:
            raise SeeallError(f"{text!r} is neither text nor the name of a file: rename it") from None
        if "\0" in text:
            raise SeeallError(f"{text!r} holds a zero byte, which no name may: rename it")
    if not path:
        raise SeeallError("an item has an empty name: give every item a path or a key of its own")
    try:
        return Record(id, path, label, json.dumps(dict(metadata), allow_nan=False) if metadata else "{}")
    except (TypeError, ValueError) as error:
        raise SeeallError(f"the metadata of {path!r} cannot be kept as JSON: {error}") from None


@final
class Items:
    """One connection to the database of `root`: a reader of the state it opened, or the one writer.

    Raises: SeeallError where the database is missing, no database, or cannot be read.
    """

    def __init__(self, root: Path, *, writable: bool = False) -> None:
        self._root = root
        try:
            self._db = _connect(root, "mode=rw") if writable else _reader(root)
            if writable:
                self._db.execute("PRAGMA synchronous = FULL")
                self._db.execute("PRAGMA secure_delete = ON")
                self._db.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            raise _fault(root, error) from None

    @staticmethod
    def create(root: Path) -> None:
        """An empty database in `root`."""
        db = sqlite3.connect(root / NAME, isolation_level=None)
        db.executescript(";".join([_SCHEMA, INDEX, *_FILES]))
        db.close()

    @staticmethod
    def scrub(root: Path) -> bool:
        """Write the database of `root` anew from what is in it, so that nothing is left of what was deleted.

        Returns: whether its log is emptied too, which it cannot be while somebody reads an older generation.
        Raises: sqlite3.Error, and then nothing has changed.
        """
        db = _connect(root, "mode=rw")
        try:
            db.execute(f"PRAGMA busy_timeout = {_PATIENCE}")
            db.execute("PRAGMA secure_delete = ON")
            db.execute("VACUUM")
            busy, _, _ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            db.close()
        return not busy

    def close(self) -> None:
        """Forget what was not committed and let go of the file."""
        self._db.close()

    def commit(self) -> None:
        """Force the writer's changes to disk. Raises sqlite3.Error, and then nothing has changed."""
        self._db.execute("COMMIT")

    # reading

    def by_id(self, ids: Sequence[int], generation: int) -> dict[int, Record]:
        """Id → record, of those of `ids` that are part of `generation`."""
        return {r.id: r for r in self._select("id", [i for i in ids if 0 < i < _NEVER], "?", generation)}

    def by_path(self, paths: Sequence[str], generation: int) -> dict[str, Record]:
        """Path → record, of those of `paths` that are part of `generation`."""
        known = self._select("path", [b for p in paths if (b := _key(p))], "CAST(? AS TEXT)", generation)
        return {r.path: r for r in known}

    def all(self, generation: int) -> Iterator[Record]:
        """Every record of `generation`, by ascending id."""
        query = f"SELECT {_COLUMNS} FROM items WHERE {_ALIVE} ORDER BY id"
        return map(Record._make, self._read(query, (generation, generation)))

    def select(self, condition: Condition, generation: int) -> Ids:
        """Ids (n,), ascending, of what `condition` holds for in `generation`."""
        query = f"SELECT id FROM items WHERE {_ALIVE} AND ({condition.sql}) ORDER BY id"
        found = self._read(query, (generation, generation, *condition.values))
        return np.array([row[0] for row in found], np.int64)

    def keys(self, generation: int) -> set[str]:
        """The keys of all metadata of `generation`."""
        query = f"SELECT DISTINCT found.key FROM items, json_each(items.metadata) AS found WHERE {_ALIVE}"
        return {row[0] for row in self._read(query, (generation, generation))}

    def beginning(self, start: str, generation: int) -> list[str]:
        """The path of every item of `generation` that begins with `start`, a folder and a slash, say, and goes on."""
        first = _bytes(start)
        query = f"SELECT path FROM items WHERE path > CAST(? AS TEXT) AND path < CAST(? AS TEXT) AND {_ALIVE}"
        values = (first, first[:-1] + bytes([first[-1] + 1]), generation, generation)
        return [row[0] for row in self._read(query, values)]

    def stamps(self, ids: Sequence[int]) -> dict[int, Stamp]:
        """Id → what its file was like, of those of `ids` of which that is known."""
        found: dict[int, Stamp] = {}
        if self._read("SELECT 1 FROM sqlite_schema WHERE name = 'files'", ()):
            for start in range(0, len(ids), _BATCH):
                batch = ids[start : start + _BATCH]
                query = f"SELECT id, size, changed, digest FROM files WHERE id IN ({', '.join('?' * len(batch))})"
                found |= {row[0]: Stamp(*row[1:]) for row in self._read(query, batch)}
        return found

    def removed(self, generation: int) -> Ids:
        """Ids (n,), ascending, of what is known and no longer part of `generation`."""
        found = self._read(_REMOVED, (generation,))
        return np.array([row[0] for row in found], np.int64)

    def last_id(self) -> int:
        """The highest id ever given; the next is one more, so that none is used twice."""
        found = self._read("SELECT seq FROM sqlite_sequence WHERE name = 'items'", ())
        return int(found[0][0]) if found else 0

    def span(self, generation: int) -> tuple[str, str] | None:
        """The first and the last absolute path of `generation`, by their bytes; None where there is none."""
        query = "SELECT path FROM items WHERE path >= '/' AND path < '0' AND {} ORDER BY path {} LIMIT 1"
        found = [self._read(query.format(_ALIVE, way), (generation, generation)) for way in ("ASC", "DESC")]
        return (str(found[0][0][0]), str(found[1][0][0])) if all(found) else None

    def integrity(self) -> list[str]:
        """What SQLite itself finds wrong."""
        try:
            lines = [str(row[0]) for row in self._db.execute("PRAGMA integrity_check(10)")]
        except sqlite3.DatabaseError as error:
            return [str(error)]
        return [] if lines == ["ok"] else lines

    # writing

    def add(self, records: Iterable[Record], generation: int) -> bool:
        """Insert `records` as of `generation`; False, and none is inserted, where a path of theirs is there already."""
        self._db.execute("SAVEPOINT adding")
        try:
            self._db.executemany(
                "INSERT INTO items (id, path, label, metadata, added_generation)"
                " VALUES (?, CAST(? AS TEXT), CAST(? AS TEXT), ?, ?)",
                (
                    (r.id, _bytes(r.path), None if r.label is None else _bytes(r.label), r.metadata, generation)
                    for r in records
                ),
            )
        except sqlite3.IntegrityError:
            self._db.execute("ROLLBACK TO adding")
            return False
        finally:
            self._db.execute("RELEASE adding")
        return True

    def stamp(self, stamps: Mapping[int, Stamp]) -> None:
        """Keep, for each id, what its file was like."""
        for statement in _FILES:
            self._db.execute(statement)
        self._db.executemany(
            "INSERT OR REPLACE INTO files (id, size, changed, digest) VALUES (?, ?, ?, ?)",
            ((int(i), *found) for i, found in stamps.items()),
        )

    def retire(self, ids: Iterable[int], generation: int) -> None:
        """Let `ids` end with `generation`."""
        self._db.executemany(
            "UPDATE items SET removed_generation = ? WHERE id = ?", ((generation, int(i)) for i in ids)
        )

    def roll_back(self, generation: int) -> None:
        """Undo whatever belongs to a later generation than this one."""
        # Ids and generations rise together, so the newest row that may stay is found without a full scan.
        newest = "SELECT id FROM items WHERE added_generation <= ? ORDER BY id DESC LIMIT 1"
        found = self._read(newest, (generation,))
        self._db.execute("DELETE FROM items WHERE id > ?", (found[0][0] if found else 0,))
        self._db.execute(_BACK, (_NEVER, generation))

    def forget(self, ids: Iterable[int]) -> None:
        """Delete the records of `ids`, whose vectors are gone."""
        self._db.executemany("DELETE FROM items WHERE id = ?", ((int(i),) for i in ids))

    def _select(self, column: str, values: Sequence[Any], slot: str, generation: int) -> Iterator[Record]:
        for start in range(0, len(values), _BATCH):
            batch = values[start : start + _BATCH]
            slots = ", ".join(slot for _ in batch)
            query = f"SELECT {_COLUMNS} FROM items WHERE {column} IN ({slots}) AND {_ALIVE}"
            yield from map(Record._make, self._read(query, (*batch, generation, generation)))

    def _read(self, query: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise _fault(self._root, error) from None


def _fault(root: Path, error: sqlite3.Error) -> SeeallError:
    """Damaged is what is missing or malformed: the rest, such as a lock or too many open files, may pass."""
    malformed = type(error) is sqlite3.DatabaseError or "no such" in str(error)
    if malformed or not (root / NAME).exists():
        return damaged(root, f"{NAME}: {error}")
    return unreadable(root, NAME, error)


def _connect(root: Path, mode: str) -> sqlite3.Connection:
    address = f"{(root / NAME).absolute().as_uri()}?{mode}"
    db = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False, timeout=30)
    db.text_factory = _text
    return db


def _reader(root: Path) -> sqlite3.Connection:
    """A connection that goes on seeing the state of now. A folder that cannot be written is read as it lies."""
    db = _connect(root, "mode=ro")
    try:
        db.execute("BEGIN")
        db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except sqlite3.Error:
        db.close()
        log = root / f"{NAME}-wal"
        if os.access(root, os.W_OK) or (log.exists() and log.stat().st_size):
            raise
        db = _connect(root, "mode=ro&immutable=1")
        db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    return db


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _key(path: str) -> bytes | None:
    with suppress(UnicodeEncodeError):
        return _bytes(path)
    return None
