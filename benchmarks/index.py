"""Claim: an index that survives a kill at any instant searches exactly, at little more than FAISS's own cost.

    python benchmarks/index.py [--json]
    python benchmarks/index.py --build FOLDER [--rounds 3]

60,000 random unit vectors of 512 dimensions go into an index and come back; beside it, in the same run, a bare
FAISS IndexFlatIP over the same vectors in memory, and numpy's matrix product as the truth. Takes about half a
minute on two cores. Expect `equal` to be exactly 1 (every id of every answer is that of brute force in double
precision), one query and each of a thousand to cost what they cost FAISS, and each of 16 or 100 at once, which
FAISS compares one by one, a quarter to an eighth of that.

--build takes a folder of pictures instead, and `index build` of it turns with embedding it and keeping the features in
memory, through the same ResNet-18 at the pictures' own size (here 32 px). Expect 1.1 times the time or less; 60,000
pictures take half a minute each way.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np

from seeall.backbones.load import build as new_backbone
from seeall.backbones.load import save
from seeall.data.pictures import Pictures, find
from seeall.index.build import build
from seeall.index.store import Index
from seeall.training.embed import Eye

N, DIM, QUERIES, K, SINGLE = 60_000, 512, 1000, 10, 50
SIDE = 32


def clock(work: Callable[[], object], times: int = 1) -> float:
    """Seconds, the median of `times` runs."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def unit(random: np.random.Generator, n: int) -> np.ndarray:
    """(n, DIM) float32 of length one."""
    x = random.standard_normal((n, DIM), dtype=np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def measure(folder: Path) -> dict[str, float]:
    """Every figure of the table."""
    random = np.random.default_rng(0)
    x, queries = unit(random, N), unit(random, QUERIES)
    names = [f"pictures/{n:06d}.jpg" for n in range(N)]
    index = Index.create(folder / "index", dim=DIM, model="none", preprocessing={}, gpu="off")
    add = clock(lambda: index.add(names, x))
    index.close()
    opened = clock(lambda: Index.open(folder / "index", gpu="off").close(), 5)
    index = Index.open(folder / "index", gpu="off")
    bare = faiss.IndexFlatIP(DIM)
    bare_add = clock(lambda: bare.add(x))
    each = iter(range(QUERIES)), iter(range(QUERIES))
    some = {f"{n}_at_once": queries[:n] for n in (16, 100, QUERIES)}
    as_it_comes = {
        f"faiss_{name}_ms": clock(lambda q=q: bare.search(q, K), 3) * 1e3 / len(q) for name, q in some.items()
    }
    first = clock(lambda: index.search(queries[0], K))  # from here on FAISS in this process compares as seeall has it
    figures = {
        "add_s": add,
        "faiss_add_s": bare_add,
        "open_ms": opened * 1e3,
        "first_search_ms": first * 1e3,
        "single_ms": clock(lambda: index.search(queries[next(each[0])], K), SINGLE) * 1e3,
        "faiss_single_ms": clock(lambda: bare.search(queries[next(each[1])][None], K), SINGLE) * 1e3,
        **{f"{name}_ms": clock(lambda q=q: index.search(q, K), 3) * 1e3 / len(q) for name, q in some.items()},
        **as_it_comes,
        "one_more_s": clock(lambda: index.add(["pictures/new.jpg"], x[:1]), 3),
        "check_s": clock(lambda: index.check()),
    }
    index.remove(["pictures/new.jpg"])
    ids, _ = index.search(queries, K)
    figures["equal"] = float((ids - 1 == brute_force(x, queries)).mean())
    figures["bytes_per_vector"] = index.info()["bytes"] / N
    index.close()
    return figures


def building(pictures: Pictures, rounds: int, folder: Path) -> dict[str, float]:
    """Seconds to embed and to build, in turns, and the median of their ratios."""
    backbone, _ = new_backbone("resnet18")
    save(backbone, folder / "backbone.safetensors", name="resnet18", settings={}, preprocessing={"image_size": SIDE})
    eye = Eye.of(folder / "backbone.safetensors")
    eye.see_all(pictures.limit(2000, 0))
    embedding, built = [], []
    for _ in range(rounds):
        embedding.append(clock(lambda: eye.see_all(pictures)))
        built.append(clock(lambda: build(pictures, folder / "backbone.safetensors", folder / "index")))
        shutil.rmtree(folder / "index")
    return {
        "pictures": len(pictures),
        "embedding_s": statistics.median(embedding),
        "build_s": statistics.median(built),
        "ratio": statistics.median(b / e for b, e in zip(built, embedding)),
    }


def brute_force(x: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """(n, K) rows of `x` by descending cosine, in double precision, equal ones by number."""
    found = []
    stored = x.astype(np.float64)
    for part in np.array_split(queries.astype(np.float64), 10):
        scores = part @ stored.T
        best = np.argpartition(-scores, 4 * K)[:, : 4 * K]
        order = np.lexsort((best, -np.take_along_axis(scores, best, 1)))[:, :K]
        found.append(np.take_along_axis(best, order, 1))
    return np.concatenate(found)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    parser.add_argument(
        "--build", metavar="FOLDER", help="measure building beside embedding instead, on these pictures"
    )
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        figures = building(find(options.build), options.rounds, folder) if options.build else measure(folder)
    if options.json:
        print(json.dumps({name: round(value, 4) for name, value in figures.items()}))
        return
    if options.build:
        print("\n".join(f"{name:<24}{value:>10.4g}" for name, value in figures.items()))
        return
    print(f"{N:,} vectors of {DIM} dimensions, {QUERIES} queries, k = {K}\n")
    print(f"{'':<24}{'seeall':>10}{'FAISS':>10}")
    for name, value in figures.items():
        if not name.startswith("faiss_"):
            beside = figures.get(f"faiss_{name}")
            print(f"{name:<24}{value:>10.4g}" + (f"{beside:>10.4g}" if beside is not None else ""))


if __name__ == "__main__":
    main()
