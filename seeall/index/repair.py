"""Mending an index: all that follows from the vectors and the items is made again; the rest can only be named.

    items.sqlite's own indexes   made again from its table
    vectors/*.ids.npy            the ids of the items in their order, where these have the checksum of the manifest
    index/*.faiss                trained again
    manifest.json, older format  written again with what it lacked, such as a `uuid` and the size of the FAISS file
    what a killed writer left    removed

Vectors, the table of items, the manifest and the copy of the network are not made from anything else here.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from seeall.index import check, durable, items
from seeall.index.commit import Writer, leftovers, recover
from seeall.index.durable import LOCK, Lock
from seeall.index.manifest import FORMAT, NAME, Manifest
from seeall.index.segments import Ids
from seeall.types import SeeallError


def repair(root: Path, *, wait: bool = False) -> tuple[list[str], list[str]]:
    """Mend the index at `root`. Returns what was done, and what is still wrong, a line each.

    wait: for another writer to be done. Raises: SeeallError where somebody is writing, there is no index, its manifest
    is damaged, or the disk cannot take it.
    """
    durable.restore(root)
    done: list[str] = []
    Manifest.read(root).require_folder(root)
    with closing(Lock(root / LOCK, wait=wait)):
        manifest = Manifest.read(root)
        left = check.problems(root)
        if left:
            with durable.reported(root):
                done += _database(root)
                done += _ids(root, manifest)
        version = json.loads((root / NAME).read_bytes())["format"]
        if version < FORMAT:
            _renew(root, manifest)
            done.append(f"{NAME} is brought from format {version} to format {FORMAT}")
        old = leftovers(root, manifest)
        try:
            recover(root)
            done += [f"{p.relative_to(root).as_posix()} is removed: nothing named it" for p in old if not p.exists()]
            if _is_about_search(manifest, check.problems(root) if left else []):
                done += _trained(root)
        except (SeeallError, sqlite3.Error):  # it is among the problems
            pass
    return done, check.problems(root)


def _database(root: Path) -> Iterator[str]:
    """Make the indexes of the database again."""
    try:
        with closing(sqlite3.connect((root / items.NAME).absolute().as_uri() + "?mode=rw", uri=True)) as db:
            before = db.execute("PRAGMA integrity_check(1)").fetchall()
            missing = not db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'items_removed'").fetchall()
            if missing:
                db.execute(items.INDEX)
            if before != [("ok",)]:
                db.execute("REINDEX")
            db.commit()
            after = db.execute("PRAGMA integrity_check(1)").fetchall()
    except sqlite3.DatabaseError:  # it is among the problems
        return
    if (missing or before != after) and after == [("ok",)]:
        yield f"{items.NAME}: its indexes are made again"


def _ids(root: Path, manifest: Manifest) -> Iterator[str]:
    """Write those lists of ids again that are not what they were."""
    try:
        with closing(sqlite3.connect((root / items.NAME).absolute().as_uri() + "?mode=ro", uri=True)) as db:
            query = "SELECT id FROM items WHERE added_generation <= ? ORDER BY id"
            known = np.array([row[0] for row in db.execute(query, (manifest.generation,))], np.int64)
    except sqlite3.DatabaseError:  # it is among the problems
        return
    start = 0
    for segment in manifest.segments:
        ids, start = known[start : start + segment.rows], start + segment.rows
        if _digest(ids) == segment.ids_sha256 and not _holds(root / segment.ids_path, segment.ids_sha256):
            durable.write(root / segment.ids_path, lambda file, ids=ids: np.save(file, ids))  # type: ignore[misc]
            yield f"{segment.ids_path} is written again"


def _digest(ids: Ids) -> str:
    digest = hashlib.sha256()
    np.save(SimpleNamespace(write=digest.update), ids)
    return digest.hexdigest()


def _holds(path: Path, digest: str) -> bool:
    try:
        with path.open("rb") as file:
            return durable.sha256(file) == digest
    except OSError:
        return False


def _renew(root: Path, manifest: Manifest) -> None:
    """Write a manifest of an older format in that of today."""
    trained = manifest.projection
    if trained and not trained.bytes and (root / trained.path).exists():
        trained = replace(trained, bytes=(root / trained.path).stat().st_size)
    with durable.reported(root):
        replace(manifest, uuid=manifest.uuid or secrets.token_hex(16), projection=trained).write(root)


def _is_about_search(manifest: Manifest, problems: Sequence[str]) -> bool:
    """Whether any of the problems is one of the trained file."""
    path = manifest.projection.path if manifest.projection else ""
    return any(line.startswith(("manifest: ", path or "manifest: ")) for line in problems)


def _trained(root: Path) -> Iterator[str]:
    """Make the trained file again, or drop one that is too much, in a commit."""
    manifest = Manifest.read(root)
    writer = Writer(root, manifest.uuid)
    try:
        writer.rebuild()
        writer.commit()
    finally:
        writer.close()
    after = Manifest.read(root).projection
    if after or manifest.projection:
        yield f"{after.path} is trained again" if after else "the trained file is dropped: the index is too small"
