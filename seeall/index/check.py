"""Is an index folder what was written? Reads every byte and compares it with every checksum and count."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seeall.index import durable
from seeall.index.commit import leftovers
from seeall.index.items import checksum
from seeall.index.manifest import Manifest
from seeall.index.search import Searcher
from seeall.index.snapshot import Snapshot
from seeall.types import SeeallError

_QUERIES = 64
_NEIGHBOURS = 10
_ACCEPTABLE = 0.9
"""Recall@10 of a trained file on a sample, below which it is not what was measured when it was built."""
_LENGTH = 1e-5
"""How far from one the length of a stored vector may be."""


def problems(root: Path) -> list[str]:
    """What is wrong with the index at `root`, a line each; nothing where all is well.

    What is checked is one generation, whoever writes meanwhile; only where another index takes its place, the
    check begins again.
    """
    while True:
        try:
            found, uuid = _problems(root)
            if Manifest.read(root).uuid == uuid:
                return found
        except SeeallError as error:
            return [str(error)]


def notes(root: Path) -> list[str]:
    """Leftovers of a writer that was killed: no harm, and gone with the next commit."""
    names = [p.relative_to(root).as_posix() for p in leftovers(root, Manifest.read(root))]
    found = [f"{name} is left over from a write that was not finished" for name in names]
    if (root / durable.ERASING).exists():
        found.append("traces of what was erased are left: they go with the next write, such as ssl index compact")
    return found


def _problems(root: Path) -> tuple[list[str], str]:
    """What is wrong with the generation that `root` is at, and the uuid of the index."""
    snapshot = Snapshot(root)
    try:
        found = [*_files(snapshot), *_vectors(snapshot), *_items(snapshot)]
        return found or _search(snapshot), snapshot.manifest.uuid
    finally:
        snapshot.close()


def _files(snapshot: Snapshot) -> list[str]:
    manifest = snapshot.manifest
    found = [_differs(snapshot, name, digest) for name, digest in manifest.files.items()]
    for segment, ids, vectors in snapshot.rows.segmented():
        found.append(_differs(snapshot, segment.vectors_path, segment.vectors_sha256, vectors))
        found.append(_differs(snapshot, segment.ids_path, segment.ids_sha256, ids))
    trained = manifest.projection
    if trained and not snapshot.trained:
        found.append(f"{trained.path} is missing: compact the index to rebuild it")
    elif trained and snapshot.trained:
        snapshot.trained.seek(0)
        if durable.sha256(snapshot.trained) != trained.sha256:
            found.append(f"{trained.path} is not what was written: compact the index to rebuild it")
    return [line for line in found if line]


def _differs(snapshot: Snapshot, name: str, digest: str, held: NDArray[Any] | None = None) -> str:
    """What is wrong with a file. Where a commit has tidied it away since, `held`, its content, stands for it."""
    try:
        with (snapshot.root / name).open("rb") as file:
            right = durable.sha256(file) == digest
    except FileNotFoundError:
        if held is None or Manifest.read(snapshot.root).edition == snapshot.manifest.edition:
            return f"{name} is missing"
        again = hashlib.sha256()
        np.save(SimpleNamespace(write=again.update), held)
        right = again.hexdigest() == digest
    except OSError as error:
        return f"{name} cannot be read: {error.strerror}"
    return "" if right else f"{name} is not what was written: its checksum differs"


def _vectors(snapshot: Snapshot) -> list[str]:
    rows, manifest = snapshot.rows, snapshot.manifest
    found = []
    if (np.diff(rows.ids) <= 0).any():
        found.append("vectors: the ids do not ascend")
    everything = np.ones(len(rows), bool)
    lengths = [np.linalg.norm(v.astype(np.float64), axis=1) for _, v in rows.blocks(everything)]
    wrong = sum(int((~(np.abs(n - 1) < _LENGTH)).sum()) for n in lengths)
    if wrong:
        found.append(f"vectors: {wrong} are not of length one")
    if len(rows) != manifest.count + manifest.removed:
        found.append(f"vectors: {len(rows)} rows where the manifest has {manifest.count + manifest.removed}")
    return found


def _items(snapshot: Snapshot) -> list[str]:
    found = [f"items.sqlite: {line}" for line in snapshot.items.integrity()]
    if found:
        return found
    manifest = snapshot.manifest
    records = list(snapshot.items.all(manifest.generation))
    if len(records) != manifest.count:
        found.append(f"items.sqlite: {len(records)} items where the manifest has {manifest.count}")
    if len({r.path for r in records}) != len(records):
        found.append("items.sqlite: a path stands for more than one item")
    if checksum("0", added=records) != manifest.items_checksum:
        found.append("items.sqlite: the items are not those that were written: their checksum differs")
    if not np.array_equal([r.id for r in records], snapshot.ids):
        found.append("items.sqlite and vectors: not every item has one row, and every living row an item")
    return found


def _search(snapshot: Snapshot) -> list[str]:
    """A trained file against exact search, on vectors of the collection itself."""
    manifest = snapshot.manifest
    trained = manifest.projection
    wanted = manifest.plan.candidates(manifest.count, manifest.dim)
    if (wanted == ("exact",)) != (trained is None):
        return [f"manifest: {manifest.count} items want a search of kind {' or '.join(wanted)}"]
    if not trained or not manifest.count:
        return []
    searcher = Searcher(snapshot, "off")
    positions = np.flatnonzero(snapshot.alive)
    sample = positions[np.linspace(0, len(positions) - 1, _QUERIES).astype(np.int64)]
    queries = snapshot.rows.gather(sample)
    k = min(_NEIGHBOURS, manifest.count)
    found = []
    if searcher.damaged:
        found.append(f"{trained.path} does not hold what the manifest says: compact the index to rebuild it")
    ids, scores = searcher.search(queries, k)
    exact = [np.empty((len(queries), 0))]
    for _, vectors in snapshot.rows.blocks(snapshot.alive):
        exact.append(np.sort(queries @ vectors.T, axis=1)[:, -k:])
    kth = np.sort(np.concatenate(exact, 1), axis=1)[:, -k]
    recall = float((scores >= kth[:, None] - _LENGTH).mean())
    if recall < _ACCEPTABLE or (ids[:, 0] < 0).any():
        found.append(f"{trained.path} finds {recall:.0%} of the nearest neighbours: compact the index to rebuild it")
    return found
