"""Claim: from files to features takes no longer than the bare network where pictures are photos and views of 224 px;
small views are bound by decoding.

    python benchmarks/embed.py [--threads 2] [--rounds 7] [--json]         about two minutes on two idle cores

`whole` is what `ssl embed` does: files are opened, decoded, scaled and cut square, stacked, normalised and put
through a ResNet-18. `bare` is that network alone, as it was built, in batches of the size that suits it best, already
normalised and in its device's memory. Three collections of JPEGs in a temporary folder: 32 x 32 px as in CIFAR, seen
at 32 px; 500 x 375 px, seen at 64 px and at 224 px. Both ways take turns in one process, so that other work on the
machine falls on both; the table shows medians, and the median of the ratios of neighbours. `CPU` is the same ratio in
processor time, the second opinion where the machine is busy. `reading` is the processor time of one thread from a file
to a square, and `bound` is what remains of the bare network's speed where reading takes its processor time from the
same cores. What beats the bound is that BatchNorm is folded into the convolutions, and that cores take batches of their
own instead of waiting for each other at the end of every layer.

Expect, on two idle cores of a server CPU, ratios of 0.8 at 32 px, 0.7 at 64 px and 1.1 at 224 px.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from seeall.backbones.contract import Backbone
from seeall.backbones.load import build
from seeall.data.pictures import Pictures, find
from seeall.training.embed import Eye, square, squares

CASES = {"32px": (2048, 32, 32, 32, 256), "64px": (768, 375, 500, 64, 64), "224px": (160, 375, 500, 224, 40)}
"""Pictures, their height and width, the side that the network sees, px, and the bare network's batch."""
DISTINCT = 96
READING = 96
Clocks = tuple[float, float]


def picture(rng: np.random.Generator, height: int, width: int) -> Image.Image:
    """A coarse random field with a little grain, about as hard to decode as a photo."""
    coarse = rng.integers(0, 256, (height // 12 + 2, width // 12 + 2, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    return Image.fromarray(np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8))


@contextmanager
def folder(n: int, height: int, width: int) -> Iterator[Pictures]:
    """n JPEG files, of quality 90, that last as long as the `with` block."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        files = [Path(name) / f"{i:05d}.jpg" for i in range(n)]
        for i, file in enumerate(files):
            if i < DISTINCT:
                picture(rng, height, width).save(file, quality=90)
            else:
                file.write_bytes(files[i % DISTINCT].read_bytes())
        yield find(name)


def network_of(size: int) -> Backbone:
    """A ResNet-18 with random weights; their values change no time."""
    torch.manual_seed(0)
    backbone, _ = build("resnet18")
    backbone.preprocessing = {**backbone.preprocessing, "image_size": size}
    return backbone.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


@torch.no_grad()
def bare(network: nn.Module, batches: list[Tensor]) -> Tensor:
    """The network alone, as it was built."""
    return torch.cat([network(x) for x in batches]).cpu()


def clocks(work: Callable[[], object]) -> Clocks:
    """Seconds on the clock, and of all processors together."""
    start, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - cpu


def reading(pictures: Pictures, size: int) -> float:
    """Seconds of one thread from a file to a square."""
    some = range(min(READING, len(pictures)))
    start = time.thread_time()
    for i in some:
        square(pictures.read(i, size), size)
    return (time.thread_time() - start) / len(some)


def measure(n: int, height: int, width: int, size: int, batch: int, rounds: int) -> dict[str, float]:
    """Both ways in turn, `rounds` times after one that warms up."""
    network = network_of(size)
    eye = Eye(network)
    network.to(eye.device)
    with folder(n, height, width) as pictures:
        batches = [eye.normalise(x.to(eye.device)) for _, x, _ in squares(pictures, size, batch=batch)]
        ways: dict[str, Callable[[], object]] = {
            "whole": lambda: eye.see_all(pictures),
            "bare": lambda: bare(network, batches),
        }
        took: dict[str, list[Clocks]] = {name: [] for name in ways}
        read = []
        for turn in range(-1, rounds):
            for name in list(ways)[:: 1 if turn % 2 else -1]:
                seconds = clocks(ways[name])
                if turn >= 0:
                    took[name].append(seconds)
            read.append(reading(pictures, size))
    pairs = list(zip(took["whole"], took["bare"]))
    found = {name: statistics.median(n / wall for wall, _ in runs) for name, runs in took.items()}
    found["ratio"] = statistics.median(b / w for (w, _), (b, _) in pairs)
    found["cpu_ratio"] = statistics.median(b / w for (_, w), (_, b) in pairs)
    found["reading_ms"] = 1000 * statistics.median(read)
    busy = 1000 * statistics.median(cpu / n for _, cpu in took["bare"])
    found["bound"] = busy / (busy + found["reading_ms"]) if eye.device.type == "cpu" else 1.0
    return found


def table(report: dict[str, dict[str, float]]) -> str:
    """The report for a person."""
    lines = [f"{'pictures a second':<20}{'whole':>9}{'bare':>9}{'ratio':>8}{'CPU':>8}{'reading':>12}{'bound':>8}"]
    for name, f in report.items():
        lines.append(
            f"{name:<20}{f['whole']:>9,.0f}{f['bare']:>9,.0f}{f['ratio']:>8.3f}{f['cpu_ratio']:>8.3f}"
            f"{f['reading_ms']:>9.3f} ms{f['bound']:>8.3f}"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", choices=CASES, help="one collection")
    parser.add_argument("--json", action="store_true", help="one object instead of a table")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    report = {}
    for name, case in CASES.items():
        if options.only in (None, name):
            report[name] = measure(*case, options.rounds)
            print(f"{name} done", file=sys.stderr)
    found: dict[str, Any] = {f"{k}_{name}": v for name, f in report.items() for k, v in f.items()}
    print(json.dumps({"threads": options.threads, **found}) if options.json else table(report))


if __name__ == "__main__":
    main()
