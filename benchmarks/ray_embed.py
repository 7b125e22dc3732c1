"""Claim: processes of Ray see as many pictures a second as threads of one process, once they have started.

    python benchmarks/ray_embed.py FOLDER [--limit 20000] [--rounds 3] [--size 32] [--json]   three minutes on two cores

FOLDER holds pictures, such as CIFAR-10 as files. `ssl embed` as it is, two batches at once with a thread each, takes
turns with two processes of a Ray that was started before, through the same ResNet-18. `local_s` and `ray_s` are seconds
from pictures to files, of which Ray takes several to start the two and import torch; `rate` is pictures a second from
the first that comes back to the last, and `ratio` the median of Ray's rate by the other's of the same round. `equal`
is 1 where both wrote the same bits. Expect 1 for `equal`. On cores that others use too the ratio is above 1, since two
processes have more threads and get a larger share of them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

import ray
import torch

from seeall.backbones.load import build, save
from seeall.data.pictures import Pictures, find
from seeall.training.cluster import Crowd
from seeall.training.embed import Eye, Squares
from seeall.training.features import embed_files

CORES = 2


def rate(seen: Generator[Squares]) -> float:
    """Pictures a second, from the first that comes to the last."""
    counts, times = [], []
    for rows, _, _ in seen:
        counts.append(len(rows))
        times.append(time.perf_counter())
    return sum(counts[1:]) / (times[-1] - times[0])


def clock(pictures: Pictures, run: Path, out: Path, engine: str) -> float:
    """Seconds from pictures to files."""
    start = time.perf_counter()
    embed_files(pictures, run, out, overwrite=True, engine=engine, workers=CORES if engine == "ray" else 0)
    return time.perf_counter() - start


def measure(pictures: Pictures, run: Path, folder: Path, rounds: int) -> dict[str, float]:
    """Both ways in turn."""
    took: dict[str, list[float]] = {name: [] for name in ("local", "ray", "local_s", "ray_s")}
    for turn in range(rounds):
        took["local"].append(rate(Eye.of(run).stream(pictures)))
        took["ray"].append(rate(Crowd(run).stream(pictures, workers=CORES)))
        for engine in ("local", "ray"):
            took[f"{engine}_s"].append(clock(pictures, run, folder / engine, engine))
        print(f"round {turn + 1} of {rounds}", file=sys.stderr)
    same = [(folder / f"{e}.npy").read_bytes() + (folder / f"{e}.parquet").read_bytes() for e in ("local", "ray")]
    return {
        "pictures": len(pictures),
        "local_s": statistics.median(took["local_s"]),
        "ray_s": statistics.median(took["ray_s"]),
        "local_rate": statistics.median(took["local"]),
        "ray_rate": statistics.median(took["ray"]),
        "ratio": statistics.median(r / a for r, a in zip(took["ray"], took["local"])),
        "equal": float(same[0] == same[1]),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--limit", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=32, help="side that the network sees, px")
    parser.add_argument("--json", action="store_true", help="one object instead of a table")
    options = parser.parse_args()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    torch.set_num_threads(CORES)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as place:
        run = Path(place) / "backbone.safetensors"
        backbone, _ = build("resnet18")
        save(backbone, run, name="resnet18", settings={}, preprocessing={"image_size": options.size})
        ray.init("local", num_cpus=CORES, include_dashboard=False, log_to_driver=False)
        figures = measure(find(options.folder, limit=options.limit), run, Path(place), options.rounds)
        ray.shutdown()
    if options.json:
        print(json.dumps(figures))
        return
    print("\n".join(f"{name:<12}{value:>12,.4g}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
