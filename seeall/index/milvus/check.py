"""Whether what Milvus holds is what was written: counts, vectors, paths, and the network in the folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from seeall.index import durable
from seeall.index.manifest import Manifest
from seeall.index.milvus.rows import WORDS, Rows, given, key
from seeall.index.milvus.tables import window

_LENGTH = 1e-5
"""How far from one the length of a vector may be."""
_NAMED = 3
"""How many items a line lists."""


def problems(root: Path, manifest: Manifest, rows: Rows) -> list[str]:
    """What is wrong, a line each; everything is read."""
    found, count, last = [], 0, 0
    long, wrong, twice, seen = list[int](), list[int](), list[int](), set[int]()
    for block in rows.windows((*WORDS, "key", "vector"), window(manifest.dim)):
        x = np.array([row["vector"] for row in block], np.float64)
        ids = [int(row["id"]) for row in block]
        lengths = np.sqrt((x * x).sum(1))
        long += [i for i, length in zip(ids, lengths) if not abs(length - 1) < _LENGTH]
        wrong += [i for i, row in zip(ids, block) if key(given(row["path"]) or "") != row["key"]]
        for i, row in zip(ids, block):
            if row["key"] in seen:
                twice.append(i)
            seen.add(row["key"])
        count, last = count + len(block), ids[-1]
    if count != rows.state.count:
        found.append(f"{count} items are there, and {rows.state.count} were written")
    kinds = {"vectors not of length one": long, "paths that are not found": wrong, "paths twice": twice}
    for what, some in kinds.items():
        if some:
            found.append(f"{len(some)} {what}: items {', '.join(map(str, some[:_NAMED]))}")
    if last >= rows.state.next_id:
        found.append(f"item {last} is there, and none from {rows.state.next_id} on was written")
    for name, digest in manifest.files.items():
        try:
            with (root / name).open("rb") as file:
                if durable.sha256(file) != digest:
                    found.append(f"{name} is not what was written")
        except OSError as error:
            found.append(f"{name}: {error.strerror}")
    return found
