"""Claim: the structure that an index chooses for itself is about the fastest that FAISS has for its vectors.

    python benchmarks/structures.py [--n 10000,100000] [--recall 0.95,0.99] [--vectors FILE.npy] [--peers PYTHON]
                                    [--only NAMES] [--rounds 3] [--json FILE]

Vectors of 128 dimensions around 1,000 centres, each cluster flat in most directions as embeddings are, or those of
FILE.npy as `ssl embed` writes it; 2,000 queries are vectors of the same kind that are not in the index. Beside an index
with `Plan(recall=…)`, searched through `Index.search`, which scores every answer again and puts names to it, a grid of
bare FAISS structures is built and searched in the same run, with the same threads, all queries in one call: exact,
graphs, inverted files of whole vectors and of codes that are refined. For each, the fastest effort that reaches the
recall counts. With --peers, an interpreter that has autofaiss and hnswlib runs those on the same vectors.

Build is the time of the commit less that of one which searches exactly, beside FAISS building the structure that was
chosen with its own settings; memory is what the process grew by at most meanwhile. Then what a person waits for: adding
1,000, removing a tenth, opening and a first search.

10,000 and 100,000 take about 8 minutes on two cores, a million about 40; with --only IVF1000,IVF2000, those of the grid
whose names begin so, 5.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

K, QUERIES, DIM, CENTRES, FLAT = 10, 2000, 128, 1000, 16
_MOST_CELLS = 4000
"""More take a quarter of an hour to learn on two cores, and were never the best."""


def clustered(n: int, seed: int) -> np.ndarray:
    """(n, DIM) unit vectors around CENTRES centres, which differ from them in FLAT directions and a little in all."""
    world, random = np.random.default_rng(0), np.random.default_rng(seed)
    centres = world.standard_normal((CENTRES, DIM), dtype=np.float32)
    directions = world.standard_normal((CENTRES, FLAT, DIM), dtype=np.float32)
    x = np.empty((n, DIM), np.float32)
    for start in range(0, n, 1 << 14):
        part = random.integers(0, CENTRES, min(1 << 14, n - start))
        along = np.einsum("nf,nfd->nd", random.standard_normal((len(part), FLAT), dtype=np.float32), directions[part])
        noise = random.standard_normal((len(part), DIM), dtype=np.float32)
        x[start : start + len(part)] = centres[part] + 0.2 * along + 0.2 * noise
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def clock(work: Callable[[], Any], rounds: int) -> tuple[Any, float]:
    """What `work` returns, and the shortest time that it took, s."""
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        result = work()
        taken.append(time.perf_counter() - start)
    return result, min(taken)


def recall(found: np.ndarray, true: np.ndarray) -> float:
    """Of the true K of each row, the share found."""
    return float((found[:, :, None] == true[:, None, :]).any(2).mean())


def structures(x: np.ndarray) -> Iterator[tuple[str, Callable[[], Any], list[dict[str, Any]]]]:
    """Name, how to build it, and the efforts to try, as keywords of `search`'s parameters."""
    import faiss

    product, root, dim = faiss.METRIC_INNER_PRODUCT, math.sqrt(len(x)), x.shape[1]
    probes = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256]

    def built(index: Any) -> Callable[[], Any]:
        def build() -> Any:
            index.train(x)
            index.add(x)
            return index

        return build

    yield "Flat", built(faiss.IndexFlatIP(dim)), [{}]
    for links, effort in ((16, 40), (32, 40), (32, 120)):
        graph = faiss.IndexHNSWFlat(dim, links, product)
        graph.hnsw.efConstruction = effort
        efforts = [{"efSearch": n} for n in (12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)]
        yield f"HNSW{links},{effort}", built(graph), efforts
    for share in (1, 2, 4, 8):
        cells = round(share * root)
        if cells * 39 > len(x) or cells > _MOST_CELLS:
            continue
        yield (
            f"IVF{cells},Flat",
            built(faiss.index_factory(dim, f"IVF{cells},Flat", product)),
            [{"nprobe": n} for n in probes if n < cells],
        )
        fast = faiss.index_factory(dim, f"IVF{cells},PQ{dim // 2}x4fs", product)
        yield (
            f"IVF{cells},PQ{dim // 2}x4fs,Refine",
            built(faiss.IndexRefineFlat(fast)),
            [{"nprobe": n, "k_factor": f} for n in probes if n < cells for f in (2, 4, 8, 16)],
        )


def parameters(effort: dict[str, Any]) -> Any:
    import faiss

    if "k_factor" in effort:
        inner = faiss.SearchParametersIVF(nprobe=effort["nprobe"])
        return faiss.IndexRefineSearchParameters(k_factor=effort["k_factor"], base_index_params=inner)
    if "nprobe" in effort:
        return faiss.SearchParametersIVF(**effort)
    return faiss.SearchParametersHNSW(**effort) if effort else None


def grid(
    x: np.ndarray, queries: np.ndarray, true: np.ndarray, targets: list[float], rounds: int, only: tuple[str, ...]
) -> dict[float, Any]:
    """Recall asked for → the fastest (queries a second, name, effort, recall) of those with names that begin so."""
    best: dict[float, Any] = dict.fromkeys(targets, (0.0,))
    for name, build, efforts in structures(x):
        if not name.startswith(only):
            continue
        start = time.perf_counter()
        index = build()
        seconds = time.perf_counter() - start
        here: dict[float, Any] = dict.fromkeys(targets, (0.0,))
        for effort in efforts:
            (_, found), taken = clock(
                lambda index=index, e=effort: index.search(queries, K, params=parameters(e)), rounds
            )
            reached = recall(found, true)
            for target in targets:
                if reached >= target:
                    here[target] = max(here[target], (len(queries) / taken, name, effort, reached), key=lambda b: b[0])
        told = "  ".join(f"{t}: {h[0]:,.0f}" for t, h in here.items())
        print(f"    {name:<26} built in {seconds:6.1f} s   queries/s at {told}", flush=True)
        best = {t: max(best[t], here[t], key=lambda b: b[0]) for t in targets}
    return best


def peers(folder: Path, targets: list[float], rounds: int) -> None:
    """In the other interpreter: autofaiss and hnswlib on what is in `folder`."""
    x, queries, true = (np.load(folder / f"{name}.npy") for name in ("x", "queries", "true"))
    import hnswlib

    start = time.perf_counter()
    graph = hnswlib.Index("ip", x.shape[1])
    graph.init_index(len(x), M=32, ef_construction=120)
    graph.add_items(x)
    seconds = time.perf_counter() - start
    for target in targets:
        for effort in (12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512):
            graph.set_ef(effort)
            (found, _), taken = clock(lambda: graph.knn_query(queries, K), rounds)
            if recall(found.astype(np.int64), true) >= target:
                break
        reached = recall(found.astype(np.int64), true)
        print(f"    hnswlib 32,120 ef {effort:<9} built in {seconds:6.1f} s   {target}: "
              f"{len(queries) / taken:,.0f} queries/s, recall {reached:.4f}", flush=True)  # fmt: skip
    from autofaiss import build_index

    start = time.perf_counter()
    index, _ = build_index(x, save_on_disk=False, metric_type="ip", verbose=40, nb_cores=os.cpu_count())
    seconds = time.perf_counter() - start
    (_, found), taken = clock(lambda: index.search(queries, K), rounds)
    print(f"    autofaiss, as it chooses     built in {seconds:6.1f} s   {len(queries) / taken:,.0f} queries/s, "
          f"recall {recall(found, true):.4f}", flush=True)  # fmt: skip


def memory(name: str) -> float:
    """MB of this process, from Linux."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024 / 1e6


def ours(folder: Path, target: float, rounds: int) -> dict[str, Any]:
    """In a process of its own, so that its memory can be measured: an index of what is in `folder`."""
    from seeall.index.plan import Plan, bytes_each
    from seeall.index.store import Index

    x, queries, true = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("x", "queries", "true"))
    names, place = [f"{n}.jpg" for n in range(len(x))], folder / f"index-{target}"
    plan = Plan("exact")
    with Index.create(place, dim=x.shape[1], model="m", preprocessing={}, plan=plan, gpu="off") as index:
        for start in range(0, len(x), 1 << 16):
            part = slice(start, start + (1 << 16))
            index.add(names[part], x[part])
        _ = index.search(np.array(queries[:1]), 1)
    before = memory("VmRSS")
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    with Index.open(place, gpu="off") as index:
        start = time.perf_counter()
        index.tune(Plan(recall=target))
        built = time.perf_counter() - start
        grown = memory("VmHWM") - before
        info = index.info()
    start = time.perf_counter()
    index = Index.open(place, gpu="off")
    opened = time.perf_counter() - start
    index.search(queries[0], K)
    first = time.perf_counter() - start
    asked = np.array(queries)
    (ids, scores), taken = clock(lambda: index.search(asked, K), rounds)
    products = np.einsum("qd,qkd->qk", asked.astype(np.float64), x[ids - 1].astype(np.float64))
    each = [clock(lambda q=q: index.search(q, K), 1)[1] for q in asked[:200]]
    start = time.perf_counter()
    index.add([f"new{n}.jpg" for n in range(1000)], x[:1000] + np.float32(1e-3))
    added = time.perf_counter() - start
    start = time.perf_counter()
    index.remove(range(1, len(x) // 10))
    return {
        "structure": info["structure"], "search": {n: info[n] for n in ("nprobe", "efSearch", "factor") if n in info},
        "foretold": info.get("recall@10", 1.0), "recall": recall(ids - 1, true), "speed": len(asked) / taken,
        "one_ms": 1e3 * float(np.median(each)), "build_s": built, "grown_mb": grown,
        "index_mb": bytes_each(info["structure"], x.shape[1]) * len(x) / 1e6, "open_ms": 1e3 * opened,
        "first_ms": 1e3 * first, "add_1000_s": added, "remove_tenth_s": time.perf_counter() - start,
        "wrong": float(np.abs(products - scores).max()), "most": float(scores.max()),
    }  # fmt: skip


def raw_build(x: np.ndarray, chosen: dict[str, Any]) -> float:
    """Seconds that FAISS takes for the structure that was chosen, with its own settings."""
    kind = chosen["structure"]
    if kind == "exact":
        return 0.0
    names = {"ivf": ",Flat", "ivf-pq": f",PQ{x.shape[1] // 2}x4fs", "hnsw": "HNSW32"}
    for name, build, _ in structures(x):
        if (kind == "hnsw" and name == "HNSW32,120") or (kind != "hnsw" and name.endswith(names[kind])):
            return clock(build, 1)[1]
    return 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", default="10000,100000")
    parser.add_argument("--recall", default="0.95,0.99")
    parser.add_argument("--vectors", type=Path)
    parser.add_argument("--peers", help="an interpreter that has autofaiss and hnswlib")
    parser.add_argument("--only", default="", help="beginnings of names, such as IVF1000,HNSW32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--as-peer", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    targets = [float(t) for t in args.recall.split(",")]
    if args.as_peer:
        return peers(args.inside, targets, args.rounds)
    if args.inside:
        print(json.dumps(ours(args.inside, targets[0], args.rounds)))
        return None
    import faiss

    everything = []
    given = None if args.vectors is None else np.load(args.vectors).astype(np.float32)
    for n in [int(n) for n in args.n.split(",")] if given is None else [len(given) - QUERIES]:
        with tempfile.TemporaryDirectory(prefix="structures-") as scratch:
            folder = Path(scratch)
            if given is None:
                x, queries = clustered(n, 1), clustered(QUERIES, 2)
            else:
                unit = given / np.linalg.norm(given, axis=1, keepdims=True)
                order = np.random.default_rng(0).permutation(len(unit))
                x, queries = unit[order[QUERIES:]], unit[order[:QUERIES]]
            true = faiss.knn(queries, x, K, metric=faiss.METRIC_INNER_PRODUCT)[1]
            for name, array in (("x", x), ("queries", queries), ("true", true)):
                np.save(folder / f"{name}.npy", array)
            print(f"{n:,} vectors of {x.shape[1]} dimensions, {faiss.omp_get_max_threads()} threads", flush=True)
            best = grid(x, queries, true, targets, args.rounds, tuple(args.only.split(",")))
            for target in targets:
                command = [sys.executable, __file__, "--inside", str(folder), "--recall", str(target)]
                found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                ratio = found["speed"] / best[target][0]
                print(f"  recall {target}: {found['structure']} {found['search']}, {found['recall']:.4f} found "
                      f"({found['foretold']:.4f} foretold), {found['speed']:,.0f} queries/s, one alone "
                      f"{found['one_ms']:.2f} ms; best of the grid {best[target][0]:,.0f}, {best[target][1]} "
                      f"{best[target][2]}: {ratio:.2f}")  # fmt: skip
                print(f"    build {found['build_s']:.1f} s; memory grew by {found['grown_mb']:.0f} MB "
                      f"for {found['index_mb']:.0f}; "
                      f"open {found['open_ms']:.0f} ms, with a first search {found['first_ms']:.0f}; add 1,000 "
                      f"{found['add_1000_s']:.1f} s, remove a tenth {found['remove_tenth_s']:.1f} s; scores off by "
                      f"{found['wrong']:.1e}, at most {found['most']:.7f}", flush=True)  # fmt: skip
                everything.append({"n": n, "target": target, **found, "grid": best[target], "ratio": ratio})
            if args.peers:
                subprocess.run(
                    [args.peers, __file__, "--as-peer", "--inside", str(folder), "--recall", args.recall], check=True
                )
            if args.json:
                args.json.write_text(json.dumps(everything))
    return None


if __name__ == "__main__":
    main()
