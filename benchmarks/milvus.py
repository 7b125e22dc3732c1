"""Claim: an index in Milvus answers what one in a folder answers, to the last bit where it is searched exactly.

    python benchmarks/milvus.py [--rows 10000,100000] [--store milvus:http://HOST:19530] [--structure exact] [--json]

Unit vectors of 128 dimensions about 1,000 centres, with labels and two columns of metadata, go into an index in a
folder and into one in Milvus, in turns of 10,000 a commit; by default that is milvus-lite, in this process, in a file
of a temporary folder. 500 queries about the same centres ask both for their ten nearest, all at once and 50 of them one
at a time, without a condition and with one that half of the items fulfil. Takes about two minutes on two busy
cores.

A line for each: items a second added, queries a second, seconds to work out a condition the first time, recall@10
against brute force in double precision, and whether ids and scores are those of the folder to the last bit. With
--structure exact, the default, exit code 1 if they are not.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from seeall.index.plan import Plan
from seeall.index.protocol import Store
from seeall.index.stores import creator

DIM, CENTRES, SPREAD, QUERIES, K, SINGLE, COMMIT = 128, 1000, 0.7, 500, 10, 50, 10_000
WHERE = "half = 1"


def vectors(random: np.random.Generator, centres: np.ndarray, n: int) -> np.ndarray:
    """(n, DIM) float32 of length one about the centres."""
    x = centres[random.integers(0, len(centres), n)]
    x = x + np.float32(SPREAD) * random.standard_normal((n, DIM), dtype=np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def brute(x: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """(n, K) the rows of the nearest, in double precision."""
    found = []
    for query in queries.astype(np.float64):
        scores = x.astype(np.float64) @ query
        some = np.argpartition(-scores, 4 * K)[: 4 * K]
        found.append(some[np.lexsort((some, -scores[some]))][:K])
    return np.array(found)


def clock(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what came of it."""
    began = time.perf_counter()
    found = work()
    return time.perf_counter() - began, found


def measured(index: Store, x: np.ndarray, queries: np.ndarray) -> tuple[dict[str, float], list[np.ndarray]]:
    """Figures, and what was found."""
    taken = 0.0
    for start in range(0, len(x), COMMIT):
        rows = range(start, min(start + COMMIT, len(x)))
        notes = [{"half": str(n % 2), "n": n} for n in rows]
        paths, labels = [f"/photos/{n}.jpg" for n in rows], [f"class {n % 100}" for n in rows]
        began = time.perf_counter()
        index.add(paths, x[rows.start : rows.stop], labels, notes)
        taken += time.perf_counter() - began
    index.search(queries[:1], K)
    together, (ids, scores) = clock(lambda: index.search(queries, K))
    alone, _ = clock(lambda: [index.search(query, K) for query in queries[:SINGLE]])
    deciding, passing = clock(lambda: index.select(WHERE))
    filtered, (some, theirs) = clock(lambda: index.search(queries, K, WHERE))
    figures = {
        "added/s": len(x) / taken,
        "queries/s, all at once": len(queries) / together,
        "queries/s, one at a time": SINGLE / alone,
        f"{WHERE}: s to decide": deciding,
        f"{WHERE}: queries/s": len(queries) / filtered,
        "recall@10": float(np.mean([np.isin(a, b).mean() for a, b in zip(ids - 1, brute(x, queries))])),
    }
    return figures, [ids, scores, some, theirs, passing]


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="10000,100000")
    parser.add_argument("--store", help="by default milvus-lite in a temporary folder")
    parser.add_argument("--structure", default="exact", help="exact, ivf, hnsw or auto")
    parser.add_argument("--json", action="store_true", help="a JSON object for each size instead of the table")
    options = parser.parse_args()
    random = np.random.default_rng(0)
    centres = random.standard_normal((CENTRES, DIM), dtype=np.float32)
    queries, good = vectors(random, centres, QUERIES), True
    for n in map(int, options.rows.split(",")):
        x = vectors(random, centres, n)
        with tempfile.TemporaryDirectory() as place:
            store = options.store or f"milvus:{place}/lite.db"
            told, found = {}, {}
            for name, where, plan in (("folder", None, Plan("exact")), ("milvus", store, Plan(options.structure))):
                make = creator(where)
                with make(Path(place) / name, dim=DIM, model="m", preprocessing={}, plan=plan) as index:
                    told[name], found[name] = measured(index, x, queries)
                    if where and options.store:
                        index._tables.drop()  # type: ignore[attr-defined]
        equal = all(np.array_equal(a, b) for a, b in zip(found["folder"], found["milvus"]))
        good = good and (equal or options.structure != "exact")
        if options.json:
            print(json.dumps({"rows": n, "equal": equal, **told}), flush=True)
            continue
        print(f"\n{n:,} vectors of {DIM} dimensions: the same to the last bit: {'yes' if equal else 'no'}\n")
        print(f"{'':<28}{'folder':>12}{'milvus':>12}")
        for name, value in told["folder"].items():
            print(f"{name:<28}{value:>12,.4g}{told['milvus'][name]:>12,.4g}", flush=True)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
