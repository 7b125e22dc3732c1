"""Keypoints that nobody has named: do they stay on their things? In drawn clips, where that is known, and in real ones.

    python benchmarks/keypoints.py [--davis DAVIS] [--steps 3000] [--pictures FOLDER] [--json FILE]

DAVIS is a folder with a folder of frames for each clip, or videos. Transporter learns from 300 drawn clips of one or
two things at 64 px, from frames up to one second apart, and is asked about 60 new ones: how many keypoints on things
are within 5 px of their true place one second later, of all and of those that go farther than that; beside them
keypoints that do not move, and a regular grid. Then it learns from the real clips alone, at 96 px. FOLDER gets drawn.png
and davis.png: every second frame of some clips, their keypoints, and where these have been.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from seeall.console import log
from seeall.data.clips import clips
from seeall.data.motion.stretches import frames_in
from seeall.data.pictures import Pictures, find
from seeall.heads import build
from seeall.heads.examine import examine
from seeall.heads.finetune import finetune
from seeall.heads.keypoints.draw import Trails

WORLD = "scenes:size=64,frames=16,things=1-2"
LEARN, NEW = f"{WORLD},n=300", f"{WORLD},n=60,first=300"
SHOWN, EVERY, SIDE = 8, 2, 192
"""Of a clip: frames that are shown, one of so many, and how wide, px."""
ROWS = (
    ("Transporter", "stays", "stays/moving", "on_things", "covered", "spread"),
    ("not moving", "stays/still", None, "on_things", "covered", "spread"),
    ("grid", "stays/grid", None, "on_things/grid", "covered/grid", "spread/grid"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--davis")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    log.setLevel("ERROR")
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="keypoints-") as scratch:
        ways = {"drawn": (LEARN, NEW, NEW, 64, 1), "davis": (args.davis, args.davis, args.davis, 96, 0)}
        for name, (data, val, shown, size, scenes) in ways.items():
            if data is None:
                continue
            start, out = time.monotonic(), Path(scratch) / name
            finetune(
                data, out, task="keypoints", start="none", val=val, image_size=size, steps=args.steps, lr=args.lr,
                seed=args.seed, set=("gap=8", *(() if scenes else ("fps=24",)), *args.set),
            )  # fmt: skip
            seconds = time.monotonic() - start
            figures = examine(out, val, gap=8).figures
            print(f"{name}: {seconds:.0f} s, {figures['pictures']} stretches")
            print(f"  mean squared error {figures['MSE']:.3f}, copying {figures['MSE/copied']:.3f}")
            if scenes:
                tell(figures)
            found[name] = {**figures, "seconds": seconds}
            if args.pictures:
                args.pictures.mkdir(parents=True, exist_ok=True)
                contact(out, shown).save(args.pictures / f"{name}.png")
            if args.json:
                args.json.write_text(json.dumps(found))


def tell(figures: dict[str, float]) -> None:
    print(f"  {'':<13}within 5 px  of those moving  on things  things covered  apart, px")
    for name, *columns in ROWS:
        cells = [0.0 if c is None else figures.get(c, float("nan")) for c in columns]
        print("  {:<13}{:>11.1f}{:>17.1f}{:>11.1f}{:>16.1f}{:>11.1f}".format(name, *cells), flush=True)


def contact(run: Path, data: str, most: int = 6) -> Image.Image:
    """A row for each of the first clips."""
    head, _ = build.load(run)
    pictures = frames_in(find(data))
    number = clips(pictures).clip
    return Image.fromarray(np.concatenate([row(head, pictures, (number == k).nonzero()[:, 0].tolist())
                                           for k in range(min(most, int(number.max()) + 1))]))  # fmt: skip


def row(head: Any, pictures: Pictures, rows: list[int]) -> np.ndarray:
    trails, shown = Trails(), []
    for i in rows[: SHOWN * EVERY]:
        pixels = pictures.read(i)
        (said,) = head.predict([torch.from_numpy(np.array(pixels)).permute(2, 0, 1)])
        shown.append(trails.draw(pixels, said.keypoints.points, "clip"))
    small = [Image.fromarray(one).resize((SIDE, round(SIDE * one.shape[0] / one.shape[1]))) for one in shown[1::EVERY]]
    blank = [Image.new("RGB", small[0].size)] * (SHOWN - len(small))
    tall = max(SIDE, small[0].height)
    return np.concatenate(
        [np.pad(np.asarray(one), ((0, tall - one.height), (0, 0), (0, 0))) for one in small + blank], 1
    )


if __name__ == "__main__":
    main()
