"""Which sound goes with which picture: learnt from pairs, tested on pairs never seen, by class.

    python benchmarks/sound.py DIGITS [--seeds 3] [--epochs 60]

DIGITS is a folder with train/ and test/, each with image/D_NNN.png and sound/D_NNN.wav, D being the digit that is
written and spoken. Nothing is learnt from D: only that a picture and a sound are a pair. Prints recall@1 and nDCG@30 by
digit in the four directions for the trained network, an untrained one and chance. Four minutes a seed on two cores.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import torch

from seeall.console import log
from seeall.data.hearing import find_heard
from seeall.metrics.crossmodal import crossmodal
from seeall.ssl.listening import Together
from seeall.ssl.pretrain import pretrain

DIRECTIONS = ("image_image", "image_sound", "sound_image", "sound_sound")
VIEWS = ("flip=0", "crop_min=0.6", "jitter=0", "hue=0", "grey=0", "seconds=0.6", "rate=8000", "temperature=0.2")


def figures(run: Path, test: Path) -> dict[str, float]:
    both, pictures = Together.of(run), find_heard(str(test))
    seen, rows = both.see(pictures)
    heard = both.hear(pictures, rows)
    return crossmodal(seen, heard, torch.tensor([int(Path(pictures.ids[i]).name[0]) for i in rows]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("digits", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--set", action="append", default=[])
    args = parser.parse_args()
    log.setLevel("ERROR")
    found: dict[str, list[dict[str, float]]] = {"trained": [], "untrained": []}
    for seed in range(args.seeds):
        with tempfile.TemporaryDirectory() as folder:
            for name, more in (("untrained", {"steps": 1, "lr": 1e-9}), ("trained", {"epochs": args.epochs})):
                run = Path(folder) / name
                pretrain(
                    str(args.digits / "train"), run, positives="sound", backbone=args.backbone, image_size=32,
                    seed=seed, set=(*VIEWS, *args.set), **more,
                )  # fmt: skip
                found[name].append(figures(run, args.digits / "test"))
                row(f"{seed}: {name}", [[100 * found[name][-1][f"{d}_recall@1"]] for d in DIRECTIONS])
    for measure in ("recall@1", "ndcg@30"):
        print(measure)
        for name, runs in found.items():
            row(name, [[100 * run[f"{d}_{measure}"] for run in runs] for d in DIRECTIONS])
        row("chance", [[100 * found["trained"][0][f"{d}_chance_{measure}"]] for d in DIRECTIONS])
    pair = statistics.mean(100 * run["image_sound_pair_recall@1"] for run in found["trained"])
    chance = 100 * found["trained"][0]["pair_chance_recall@1"]
    print(f"the very pair, image to sound: {pair:.2f}, chance {chance:.2f}")


def row(name: str, columns: list[list[float]]) -> None:
    words = [
        f"{statistics.mean(c):6.2f}" + (f" ± {statistics.stdev(c):4.2f}" if len(c) > 1 else "       ") for c in columns
    ]
    print(f"  {name:<13}" + "   ".join(f"{d} {w}" for d, w in zip(DIRECTIONS, words)), flush=True)


if __name__ == "__main__":
    main()
