"""Sideways beside backpropagation: how well and how fast a network learns whose gradients meet newer frames.

    python benchmarks/sideways.py [--steps 400] [--parts 1,2,3,4] [--rates 4,32] [--picture FILE.png]

What is to be named is the shape of the chief thing of clips of the synthetic world, which a single frame shows; clips
to judge by are of other objects. All clips last as long; of a clip seen at RATE frames a second so many frames in a row
are learnt from, so at a high rate they are nearly alike. `1` part is backpropagation, frame by frame, so that BatchNorm
sees the same batches. For each rate: mean losses along the way, and top-1 on clips to judge by, percent.

Then speed: steps a second, forward and backward, without optimiser and data, medians of rounds that take turns: with
one thread, with all threads in every layer, and with a thread for each part. `counted`: the share of frames whose loss
counts, as the rest fill the pipeline; the work of a part on these is less, too. To expect on two idle cores: threads
pay for two parts and little beyond; the dearest part is what a tick takes.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch.nn import functional as F

from seeall.backbones.load import build
from seeall.console import log
from seeall.heads.about import About
from seeall.heads.finetune import finetune
from seeall.heads.video.sideways import Sideways

SECONDS, POINTS = 2, 8
COLOURS = ("black", "crimson", "royalblue", "seagreen", "darkorange")
Curve = list[tuple[int, float]]


def world(args: argparse.Namespace, rate: int, first: int, n: int) -> str:
    return (
        f"scenes:n={n},identities={n},first={first},first_identity={first},size={args.size},classes={args.classes},"
        f"frames={max(args.frames, SECONDS * rate + 1)},fps={rate},labels=class,poles=0"
    )


def learnt(args: argparse.Namespace, rate: int, parts: int, seed: int, out: Path) -> tuple[Curve, float]:
    """Losses along the way, and top-1 of the end."""
    results = finetune(
        world(args, rate, 0, args.clips), out, task="action", model="sideways", start="none", backbone=args.backbone,
        val=world(args, rate, args.clips, args.held), image_size=args.size, steps=args.steps, lr=args.lr, seed=seed,
        batch_size=args.batch, overwrite=True,
        set=(f"parts={parts}", f"frames={args.frames}", f"fps={rate}", *args.set),
    )  # fmt: skip
    lines = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    return [(line["step"], line["loss"]) for line in lines if "loss" in line], results["top1"]


def thinned(curve: Curve) -> Curve:
    """Means of stretches."""
    size = -(-len(curve) // POINTS)
    some = [curve[i : i + size] for i in range(0, len(curve), size)]
    return [(part[-1][0], statistics.mean(loss for _, loss in part)) for part in some]


def drawn(curves: dict[str, Curve], path: Path) -> None:
    """The curves of one rate, as a picture."""
    width, height, edge = 640, 360, 40
    sheet = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(sheet)
    end, top = max(c[-1][0] for c in curves.values()), max(loss for c in curves.values() for _, loss in c)
    pen.line([(edge, edge), (edge, height - edge), (width - edge, height - edge)], fill="grey")
    pen.text((4, edge), f"{top:.2f}", fill="grey")
    pen.text((width - edge - 30, height - edge + 6), f"{end} steps", fill="grey")
    for k, (name, curve) in enumerate(curves.items()):
        points = [
            (edge + (width - 2 * edge) * t / end, height - edge - (height - 2 * edge) * loss / top) for t, loss in curve
        ]
        pen.line(points, fill=COLOURS[k % len(COLOURS)], width=2)
        pen.text((width - 3 * edge, edge + 14 * k), name, fill=COLOURS[k % len(COLOURS)])
    sheet.save(path)


def learning(args: argparse.Namespace, scratch: Path) -> None:
    for rate in args.rates:
        curves: dict[str, Curve] = {}
        print(f"{rate} frames a second, {args.frames} in a row: {1000 * (args.frames - 1) / rate:.0f} ms")
        for parts in args.parts:
            found = [learnt(args, rate, parts, seed, scratch / "run") for seed in range(args.seeds)]
            mean = [(step, statistics.mean(c[i][1] for c, _ in found)) for i, (step, _) in enumerate(found[0][0])]
            curves[f"{parts} part{'s' * (parts > 1)}"] = mean
            losses = "  ".join(f"{step}: {loss:.3f}" for step, loss in thinned(mean))
            tops = ", ".join(f"{top:.1f}" for _, top in found)
            print(f"  {parts} part{'s' * (parts > 1):<2} top-1 {tops:<18} loss  {losses}", flush=True)
        if args.picture:
            drawn(curves, args.picture.with_stem(f"{args.picture.stem}-{rate}"))


def speed(args: argparse.Namespace) -> None:
    cores = torch.get_num_threads()
    x = torch.randn(args.batch, 3, args.long, args.size, args.size)
    targets = torch.arange(args.batch) % args.classes
    ways: dict[str, tuple[int, Callable[[], None]]] = {}

    def way(parts: int, threads: bool, of_layers: int) -> Callable[[], None]:
        torch.manual_seed(0)
        backbone = build(args.backbone)[0]
        network = Sideways(backbone, args.classes, About(args.size), parts=parts, threads=threads)
        network.train().to(memory_format=torch.channels_last)

        def step() -> None:
            torch.set_num_threads(of_layers)
            network.zero_grad()
            network.learn(x, functools.partial(F.cross_entropy, target=targets))[0].backward()

        return step

    for parts in args.parts:
        ways[f"{parts} parts, 1 thread"] = parts, way(parts, False, 1)
        if cores > 1:
            ways[f"{parts} parts, {cores} threads in each layer"] = parts, way(parts, False, cores)
        if parts > 1:
            ways[f"{parts} parts, a thread each"] = parts, way(parts, True, 1)
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for k in range(args.rounds + 1):
        for name, (_, step) in ways.items():
            start = time.perf_counter()
            step()
            if k:
                taken[name].append(time.perf_counter() - start)
    torch.set_num_threads(cores)
    base = statistics.median(next(iter(taken.values())))
    for name, (parts, _) in ways.items():
        middle = statistics.median(taken[name])
        counted = (args.long - parts + 1) / args.long
        print(f"{name:<36}{1 / middle:8.2f} steps/s  ×{base / middle:.2f}  counted {counted:.0%}")


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=numbers, default=[1, 2, 3, 4])
    parser.add_argument("--rates", type=numbers, default=[4, 32])
    parser.add_argument("--frames", type=int, default=9)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--long", type=int, default=25, help="frames of the clips that speed is measured on")
    parser.add_argument("--clips", type=int, default=300)
    parser.add_argument("--held", type=int, default=150)
    parser.add_argument("--classes", type=int, default=4)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    log.setLevel("ERROR")
    if args.steps:
        with tempfile.TemporaryDirectory(prefix="sideways-") as scratch:
            learning(args, Path(scratch))
    if args.rounds:
        speed(args)


if __name__ == "__main__":
    main()
