"""Keypoints that nobody has named: do they stay on their things? In drawn clips, where that is known, and in real ones.

    python benchmarks/keypoints.py [--davis DAVIS] [--steps 3000] [--pictures FOLDER] [--json FILE]

Transporter learns from 300 drawn clips of one or two things at 64 px, from frames up to one second apart, and is asked
about 60 new ones: how many keypoints on things are within 5 px of their true place one second later, of all, and of
those whose place is farther off than that, and how many are on the same thing at all; beside them keypoints that do not
move, and a regular grid, and all in the middle.

DAVIS is a folder with NAME/frames/ and NAME/masks/ for each clip. There it learns from the frames alone, at 96 px, and
is asked about the same frames: what share of the keypoints lies on the thing that is masked, beside that thing's share
of the picture and how often the middle of the picture is on it. FOLDER gets drawn.png and davis.png: every second frame
of some clips with keypoints and trails.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from seeall.console import log
from seeall.data.decode import Pixels
from seeall.data.motion.stretches import frames_in
from seeall.data.pictures import find
from seeall.heads import build
from seeall.heads.examine import examine
from seeall.heads.finetune import finetune
from seeall.heads.keypoints.draw import Trails

WORLD = "scenes:size=64,frames=16,things=1-2"
LEARN, NEW = f"{WORLD},n=300", f"{WORLD},n=60,first=300"
CLIPS, SHOWN, EVERY, WIDE = 6, 8, 2, 160
"""Of the pictures: clips, frames of each, one of how many, and how wide one is, px."""
ROWS = (
    ("Transporter", "stays", "stays/moving", "kept", "on_things", "covered", "spread"),
    ("not moving", "stays/still", "", "kept/still", "on_things", "covered", "spread"),
    ("grid", "stays/grid", "", "kept/grid", "on_things/grid", "covered/grid", "spread/grid"),
    ("middle", "stays/middle", "", "kept/middle", "on_things/middle", "covered/middle", ""),
)
Seen = dict[str, list[tuple[Pixels, np.ndarray, str]]]
"""Clip → its frames in order, (H, W, 3), their keypoints, (K, 3) px, and ids."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--davis", type=Path)
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
        ways = {"drawn": (LEARN, NEW, 64)}
        if args.davis:
            frames = linked(args.davis, Path(scratch) / "frames")
            ways["davis"] = (str(frames), str(frames), 96)
        for name, (data, asked, size) in ways.items():
            start, out = time.monotonic(), Path(scratch) / name
            finetune(
                data, out, task="keypoints", start="none", val=asked, image_size=size, steps=args.steps, lr=args.lr,
                seed=args.seed, set=("gap=8", *args.set),
            )  # fmt: skip
            figures = examine(out, asked, gap=8).figures
            print(f"{name}: {time.monotonic() - start:.0f} s, {figures['pictures']} stretches of clips")
            print(f"  mean squared error {figures['MSE']:.3f}, of copying {figures['MSE/copied']:.3f}")
            seen = look(out, asked)
            found[name] = {**figures, "seconds": time.monotonic() - start}
            if name == "drawn":
                tell(figures)
            else:
                found[name]["masked"] = masked(seen, args.davis)
            if args.pictures:
                args.pictures.mkdir(parents=True, exist_ok=True)
                sheet(list(seen.values())[:CLIPS]).save(args.pictures / f"{name}.png")
            if args.json:
                args.json.write_text(json.dumps(found))


def linked(davis: Path, folder: Path) -> Path:
    """A folder that has the frames of each clip, and not the masks."""
    folder.mkdir()
    for clip in sorted(part for part in davis.iterdir() if (part / "frames").is_dir()):
        (folder / clip.name).symlink_to((clip / "frames").resolve())
    return folder


def look(run: Path, data: str) -> Seen:
    head: Any = build.load(run)[0]
    pictures, seen = frames_in(find(data)), Seen()
    for i, (clip, _) in enumerate(pictures.moments or ()):
        pixels = pictures.read(i)
        (said,) = head.predict([torch.from_numpy(np.array(pixels)).permute(2, 0, 1)])
        if len(seen) < CLIPS or clip in seen:
            seen.setdefault(clip, []).append((pixels, said.keypoints.points, pictures.ids[i]))
    return seen


def tell(figures: dict[str, float]) -> None:
    print(f"  {'':<13}within 5 px  of those moving  on their thing  on things  things covered  apart, px")
    for name, *columns in ROWS:
        cells = [figures.get(c, 0.0) for c in columns]
        print("  {:<13}{:>11.1f}{:>17.1f}{:>16.1f}{:>11.1f}{:>16.1f}{:>11.1f}".format(name, *cells), flush=True)


def masked(seen: Seen, davis: Path) -> dict[str, list[float]]:
    """Clip → percent of the keypoints that lie on what is masked, of the picture that is, and of middles that are."""
    found = {}
    for clip, frames in seen.items():
        rows = []
        for _, points, name in frames:
            mask = np.asarray(Image.open(davis / clip / "masks" / f"{Path(name).stem}.png").convert("L")) > 0
            x, y = (points[:, k].astype(int).clip(0, mask.shape[1 - k] - 1) for k in (0, 1))
            rows.append((mask[y, x].mean(), mask.mean(), mask[mask.shape[0] // 2, mask.shape[1] // 2]))
        found[clip] = [100 * float(value) for value in np.mean(rows, 0)]
        here, everywhere, middle = found[clip]
        print(
            f"  {clip:<13}on the thing are {here:.1f} % of the keypoints, {everywhere:.1f} % of the picture, "
            f"{middle:.1f} % of its middles"
        )
    return found


def sheet(clips: Sequence[list[tuple[Pixels, np.ndarray, str]]]) -> Image.Image:
    """A row for each clip."""
    rows = []
    for frames in clips:
        trails = Trails()
        drawn = [trails.draw(pixels, points, "clip") for pixels, points, _ in frames[: SHOWN * EVERY]][::EVERY]
        high = round(WIDE * drawn[0].shape[0] / drawn[0].shape[1])
        rows.append(np.concatenate([np.asarray(Image.fromarray(one).resize((WIDE, high))) for one in drawn], 1))
    widest = max(one.shape[1] for one in rows)
    return Image.fromarray(np.concatenate([np.pad(one, ((0, 4), (0, widest - one.shape[1]), (0, 0))) for one in rows]))


if __name__ == "__main__":
    main()
