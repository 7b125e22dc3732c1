"""Claim: a search through a filter finds what brute force over the filtered rows finds, however few pass it.

    python benchmarks/filters.py [--rows 100000] [--structure auto] [--json]

Half a minute on two cores; a million rows, six minutes.

Unit vectors of 128 dimensions about 1,000 centres go into an index with two columns of metadata: `draw`, a number
between 0 and 1, which says nothing about the vector, and `cluster`, which says all. 1,000 queries about the same
centres ask for their ten nearest where `draw` is below 0.5, 0.05, 0.005 and 0.0005, and where `cluster` is one of the
first 500, 50, 5: there a query's own neighbourhood passes whole or not at all, which misleads a search that reads a
fixed number of cells.

A line for each condition: rows that pass, recall@10 against brute force in double precision over these rows,
milliseconds to work out which rows pass, queries a second all at once and one at a time, and queries a second of a
matrix product over the rows that pass, which lie ready in memory. Expect a recall of exactly 1 where 32,768 rows or
fewer pass, since these are searched exactly, and at least 0.98 elsewhere. Exit code 1 otherwise.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from seeall.index.plan import Plan
from seeall.index.selection import GATHER
from seeall.index.store import Index

DIM, CENTRES, SPREAD, QUERIES, K, SINGLE, BLOCK = 128, 1000, 0.7, 1000, 10, 50, 100
CONDITIONS = [
    "draw < 0.5",
    "draw < 0.05",
    "draw < 0.005",
    "draw < 0.0005",
    "cluster < 500",
    "cluster < 50",
    "cluster < 5",
]


def vectors(random: np.random.Generator, centres: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, DIM) float32 of length one about the centres, and which centre each is about."""
    cluster = random.integers(0, CENTRES, n)
    x = centres[cluster] + np.float32(SPREAD) * random.standard_normal((n, DIM), dtype=np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True), cluster


def brute(x: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, float]:
    """The rows of the ten nearest of every query in double precision, and queries a second in single precision."""
    began = time.perf_counter()
    for start in range(0, len(queries), BLOCK):
        scores = queries[start : start + BLOCK] @ x.T
        np.argpartition(-scores, min(K, len(x)) - 1, axis=1)
    rate = len(queries) / (time.perf_counter() - began)
    found = []
    for start in range(0, len(queries), BLOCK):
        scores = queries[start : start + BLOCK].astype(np.float64) @ x.T.astype(np.float64)
        best = np.argpartition(-scores, min(K, len(x)) - 1, axis=1)[:, :K]
        found.append(best)
    return np.concatenate(found), rate


def measure(index: Index, x: np.ndarray, passes: np.ndarray, queries: np.ndarray, where: str) -> dict[str, float | str]:
    """One line of the table."""
    rows = np.flatnonzero(passes)
    began = time.perf_counter()
    selected = index.select(where)
    select = time.perf_counter() - began
    assert np.array_equal(selected - 1, rows), where
    index.search(queries[:1], K, where)
    began = time.perf_counter()
    ids, _ = index.search(queries, K, where)
    batch = time.perf_counter() - began
    began = time.perf_counter()
    for query in queries[:SINGLE]:
        index.search(query, K, where)
    single = time.perf_counter() - began
    found, rate = brute(x[rows], queries)
    recall = np.mean([len(np.intersect1d(a - 1, rows[b])) / len(b) for a, b in zip(ids, found)])
    return {
        "where": where,
        "rows": len(rows),
        "recall@10": float(recall),
        "select_ms": select * 1e3,
        "queries_s": QUERIES / batch,
        "single_queries_s": SINGLE / single,
        "brute_queries_s": rate,
    }


def main() -> None:
    """Build, ask, compare."""
    parser = argparse.ArgumentParser(description=" ".join((__doc__ or "").split("\n\n")[0].split()))
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--structure", default="auto", help="as of ssl index tune")
    parser.add_argument("--json", action="store_true", help="an object a line instead of a table")
    options = parser.parse_args()
    random, n = np.random.default_rng(0), options.rows
    centres = random.standard_normal((CENTRES, DIM), dtype=np.float32)
    x, cluster = vectors(random, centres, n)
    queries, _ = vectors(random, centres, QUERIES)
    draw = random.random(n)
    good, plan = True, Plan(options.structure)
    with (
        tempfile.TemporaryDirectory() as folder,
        Index.create(Path(folder) / "index", dim=DIM, model="none", preprocessing={}, gpu="off", plan=plan) as index,
    ):
        with index.writer() as writer:
            for start in range(0, n, 50_000):
                part = range(start, min(start + 50_000, n))
                notes = [{"draw": float(draw[i]), "cluster": int(cluster[i])} for i in part]
                writer.append([f"{i:08d}.jpg" for i in part], x[part.start : part.stop], None, notes)
        facts = index.info()
        if not options.json:
            print(f"{n} rows, {facts['structure']}, recall@10 of the trained file {facts.get('recall@10', 1):.4f}")
            print(
                f"{'':<16}{'rows':>8}{'recall@10':>11}{'select':>10}{'queries/s':>11}{'one by one':>12}"
                f"{'brute force':>13}"
            )
        for where in CONDITIONS:
            passes = eval(where, {"draw": draw, "cluster": cluster})
            line = measure(index, x, passes, queries, where)
            exact = len(np.flatnonzero(passes)) * DIM <= GATHER[0]
            good = good and line["recall@10"] >= (1 if exact else 0.98)
            if options.json:
                print(json.dumps({**line, "structure": facts["structure"]}), flush=True)
            else:
                print(
                    f"{where:<16}{line['rows']:>8}{line['recall@10']:>11.4f}{line['select_ms']:>7.0f} ms"
                    f"{line['queries_s']:>11,.0f}{line['single_queries_s']:>12,.0f}{line['brute_queries_s']:>13,.0f}",
                    flush=True,
                )
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
