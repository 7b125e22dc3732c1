"""Claim: what an index costs grows with its vectors as planned in docs/a-billion-pictures.md.

    python benchmarks/scale.py [--n 1000000,10000000] [--dim 128] [--recall 0.95] [--json FILE]

Clustered vectors, as of benchmarks/structures.py, are added in commits of a million, with a path, a label and three
fields of metadata each; then a structure is chosen. Printed for each size: bytes an item of each part of the folder,
seconds a million for adding and for the choice, by how much memory grew meanwhile (and how much of that is not files
mapped from disk), seconds to open and search once, milliseconds of one query, queries a second of 2,000 at once, and
recall@10 of 500 of them beside exact search.

A million takes about half a minute on two idle cores, ten millions six minutes, 8 GB of disk and 10 of memory.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from structures import QUERIES, K, clock, clustered, memory, recall

from seeall.index.plan import Plan
from seeall.index.store import Index

_COMMIT = 1_000_000
_JUDGED = 500


def size(folder: Path, pattern: str) -> int:
    """Bytes of the files that match."""
    return sum(path.stat().st_size for path in folder.glob(pattern))


class Peak:
    """By how many MB the process grew at most, in all and but for files that are mapped; looked at every 10 ms."""

    def __enter__(self) -> Peak:
        self._before = memory("VmRSS"), memory("RssAnon")
        self.grown, self._done = (0.0, 0.0), threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def _look(self) -> None:
        while not self._done.wait(0.01):
            now = memory("VmRSS") - self._before[0], memory("RssAnon") - self._before[1]
            self.grown = max(self.grown[0], now[0]), max(self.grown[1], now[1])

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def metadata(n: int) -> dict[str, Any]:
    return {"camera": "NIKON D750", "year": 1990 + n % 35, "caption": f"picture number {n} of a large collection"}


def measure(n: int, dim: int, target: float, folder: Path) -> dict[str, Any]:
    """What an index of `n` vectors costs."""
    queries, best, near = clustered(QUERIES, 1)[:, :dim].copy(), np.empty((_JUDGED, 0)), np.empty((_JUDGED, 0), int)
    faiss.normalize_L2(queries)
    root, added = folder / "index", 0.0
    with Index.create(root, dim=dim, model="m", preprocessing={}, plan=Plan("exact"), gpu="off") as index:
        for first in range(0, n, _COMMIT):
            x = clustered(min(_COMMIT, n - first), 2 + first)[:, :dim].copy()
            faiss.normalize_L2(x)
            scores, places = faiss.knn(queries[:_JUDGED], x, K, metric=faiss.METRIC_INNER_PRODUCT)
            best, near = np.concatenate([best, scores], 1), np.concatenate([near, places + first], 1)
            numbers = range(first, first + len(x))
            paths, labels = [f"/archive/{i // 1000:06d}/{i:010d}.jpg" for i in numbers], ["archive"] * len(x)
            words = [metadata(i) for i in numbers]
            start = time.perf_counter()
            index.add(paths, x, labels, words)
            added += time.perf_counter() - start
    true = np.take_along_axis(near, np.argsort(-best, 1)[:, :K], 1)
    with Index.open(root, gpu="off") as index, Peak() as peak:
        start = time.perf_counter()
        index.tune(Plan(recall=target))
        chosen = time.perf_counter() - start
        info = index.info()
    start = time.perf_counter()
    with Index.open(root, gpu="off") as index:
        opened = time.perf_counter() - start
        index.search(queries[0], K)
        first_search = time.perf_counter() - start
        (ids, _), taken = clock(lambda: index.search(queries, K), 5)
        each = [clock(lambda q=q: index.search(q, K), 1)[1] for q in queries[:300]]
        found = recall(ids[:_JUDGED] - 1, true)
    return {
        "n": n, "dim": dim, "structure": info["structure"],
        "search": {name: info[name] for name in ("nprobe", "efSearch", "factor") if name in info},
        "vectors": size(root, "vectors/*") / n, "items": size(root, "items.sqlite*") / n,
        "structure_bytes": size(root, "index/*") / n, "add_s": added / n * 1e6, "choose_s": chosen / n * 1e6,
        "grown_mb": peak.grown[0], "grown_unmapped_mb": peak.grown[1], "open_s": opened, "first_s": first_search,
        "one_ms": 1e3 * float(np.median(each)), "speed": len(queries) / taken, "recall": found,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", default="1000000,10000000")
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--recall", type=float, default=0.95)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    everything = []
    for n in [int(n) for n in args.n.split(",")]:
        with tempfile.TemporaryDirectory(prefix="scale-") as scratch:
            found = measure(n, args.dim, args.recall, Path(scratch))
        print(f"{n:,} vectors of {args.dim} dimensions: {found['structure']} {found['search']}, recall "
              f"{found['recall']:.4f}\n  bytes an item: vectors {found['vectors']:.1f}, items {found['items']:.1f}, "
              f"structure {found['structure_bytes']:.1f}\n  a million: add {found['add_s']:.1f} s, choose "
              f"{found['choose_s']:.1f} s; memory grew by {found['grown_mb']:,.0f} MB, "
              f"{found['grown_unmapped_mb']:,.0f} of them not mapped\n  open {found['open_s']:.2f} s, with a first "
              f"search {found['first_s']:.2f} s; one query {found['one_ms']:.2f} ms, at once "
              f"{found['speed']:,.0f} a second", flush=True)  # fmt: skip
        everything.append(found)
        if args.json:
            args.json.write_text(json.dumps(everything))


if __name__ == "__main__":
    main()
