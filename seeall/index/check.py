"""Is an index folder what was written? Reads every byte and compares it with every checksum and count."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from seeall.index import durable
from seeall.index.commit import leftovers
from seeall.index.engine import choose
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

    While somebody writes, the check begins again with the new generation.
    """
    while True:
        try:
            before = Manifest.read(root).generation
            found = _problems(root)
            if Manifest.read(root).generation == before:
                return found
        except SeeallError as error:
            return [str(error)]


def notes(root: Path) -> list[str]:
    """Leftovers of a writer that was killed: no harm, and gone with the next commit."""
    names = [p.relative_to(root).as_posix() for p in leftovers(root, Manifest.read(root))]
    return [f"{name} is left over from a write that was not finished" for name in names]


def _problems(root: Path) -> list[str]:
    snapshot = Snapshot(root)
    try:
        files = _files(root, snapshot.manifest)
        found = [*files, *_vectors(snapshot), *_items(snapshot)]
        return found or _search(snapshot)
    finally:
        snapshot.close()


def _files(root: Path, manifest: Manifest) -> list[str]:
    wanted = {s.vectors_path: s.vectors_sha256 for s in manifest.segments}
    wanted |= {s.ids_path: s.ids_sha256 for s in manifest.segments} | dict(manifest.files)
    if manifest.projection:
        wanted[manifest.projection.path] = manifest.projection.sha256
    found = []
    for name, digest in wanted.items():
        try:
            with (root / name).open("rb") as file:
                if durable.sha256(file) != digest:
                    found.append(f"{name} is not what was written: its checksum differs")
        except OSError as error:
            found.append(f"{name} cannot be read: {error.strerror}")
    return found


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
    wanted = choose(manifest.count, manifest.ivf_from)
    if (wanted == "ivf") != (trained is not None):
        return [f"manifest: {manifest.count} items want a search of kind {wanted}"]
    if not trained or not manifest.count:
        return []
    searcher = Searcher(snapshot, "off")
    positions = np.flatnonzero(snapshot.alive)
    sample = positions[np.linspace(0, len(positions) - 1, _QUERIES).astype(np.int64)]
    queries = snapshot.rows.gather(sample)
    k = min(_NEIGHBOURS, manifest.count)
    found = []
    if searcher.trained_count != trained.count:
        found.append(f"{trained.path} holds {searcher.trained_count} vectors, not {trained.count}")
    ids, scores = searcher.search(queries, k)
    exact = [np.empty((len(queries), 0))]
    for _, vectors in snapshot.rows.blocks(snapshot.alive):
        exact.append(np.sort(queries @ vectors.T, axis=1)[:, -k:])
    kth = np.sort(np.concatenate(exact, 1), axis=1)[:, -k]
    recall = float((scores >= kth[:, None] - _LENGTH).mean())
    if recall < _ACCEPTABLE or (ids[:, 0] < 0).any():
        found.append(f"{trained.path} finds {recall:.0%} of the nearest neighbours: compact the index to rebuild it")
    return found
