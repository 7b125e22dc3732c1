"""Recognising people never seen, after learning from a few others: every pair loss with every way to mine.

    python benchmarks/faces.py ORL [--seeds 3] [--only margin] [--negatives distance] [--choose] [--json FILE]

ORL is a folder with the AT&T faces, s1/ to s40/ of ten pictures each. People 1 to 30 are learnt from, with labels; on
31 to 40, 100 pictures, R@1 and TAR at FAR 1e-2 are measured, by cosine, of the backbone's features, of those of an
untrained network, and of raw pixels: as they are, and less the mean of the pictures tested, which needs no labels and
helps raw pixels most. Each seed begins with `--positives views` on the pictures of people 1 to 30, and every loss goes
on from there for a short while. Every pair runs beside pytorch-metric-learning's loss and miner in the same loop, on
the same batches, views and first weights. With --choose people 1 to 20 are learnt from and 21 to 30 are the new ones.

The whole table takes about 50 minutes on two cores. It says that all of them accept 59 to 72 % of true pairs at one
false one in a hundred, raw pixels 51 and an untrained network 50 %; contrastive with hard negatives is best.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seeall.backbones.load import build
from seeall.console import log
from seeall.data import keyed
from seeall.data.pictures import Pictures, find
from seeall.metrics.retrieval import retrieval
from seeall.metrics.verification import verification
from seeall.ssl.pretrain import pretrain
from seeall.training.embed import Eye, squares

OBJECTIVES = ("contrastive", "triplet", "margin")
NEGATIVES = ("random", "semihard", "hard", "distance")
SIZE, BACKBONE, BATCH = 48, "resnet18", 48
VIEWS = ("grey=0", "jitter=0.3", "hue=0", "crop_min=0.5", "lr=1e-3")
SETTINGS = ("together=4", "grey=0", "jitter=0.2", "hue=0", "crop_min=0.75", "weight_decay=0.3", "lr=1e-3")
APART = 1.4  # contrastive's margin: with 1, unlike faces are soon far enough, and like ones are drawn to one point


class Peer(nn.Module):
    """pytorch-metric-learning's loss on the triplets that its own miner finds."""

    def __init__(self, *, loss: str = "triplet", mine: str = "hard") -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from pytorch_metric_learning import distances, losses, miners
            from pytorch_metric_learning.utils import loss_and_miner_utils

        squared = distances.LpDistance(power=2)

        class Squares(losses.ContrastiveLoss):  # its own is not squared
            def pos_calc(self, d: Tensor, margin: float) -> Tensor:
                return d.square()

            def neg_calc(self, d: Tensor, margin: float) -> Tensor:
                return torch.relu(margin - d).square()

        self.loss: Any = {
            "contrastive": lambda: Squares(neg_margin=APART),
            "triplet": lambda: losses.TripletMarginLoss(margin=0.2, distance=squared),
            "margin": lambda: losses.MarginLoss(margin=0.2, beta=1.2, learn_beta=True),
        }[loss]()
        self.mine: Any = {
            "random": lambda: lambda z, y: loss_and_miner_utils.get_random_triplet_indices(y, t_per_anchor=3),
            "semihard": lambda: miners.TripletMarginMiner(0.2, "semihard", distance=squared),
            "hard": miners.BatchHardMiner,
            "distance": miners.DistanceWeightedMiner,
        }[mine]()
        if loss == "margin":
            self.loss.own_rates = {"beta": 5e-4}

    def forward(self, z: Tensor, groups: Tensor) -> dict[str, Tensor]:
        """z: (N, D), groups: (N,) → loss."""
        return {"loss": self.loss(z, groups, self.mine(z.detach(), groups))}


def people(orl: Path, which: range, file: Path) -> str:
    """A manifest of these people's pictures."""
    with file.open("w", newline="") as out:
        rows = [(p, p.parent.name) for n in which for p in sorted((orl / f"s{n}").resolve().glob("*.png"))]
        csv.writer(out).writerows([("path", "label"), *rows])
    return str(file)


Row = tuple[float, float, float]


def measured(z: Tensor, pictures: Pictures) -> Row:
    """Percent: R@1 and TAR at FAR 1e-2 of z (n, D), and that TAR of z less its mean."""
    targets = pictures.targets()
    tar, less_mean = (100 * verification(x, targets)["tar@far=1e-2"] for x in (z, z - z.mean(0)))
    return 100 * retrieval(z, targets, ks=(1,))["recall@1"], tar, less_mean


def raw(pictures: Pictures) -> Tensor:
    return torch.cat([part for _, part, _ in squares(pictures, SIZE)]).float().flatten(1)


def untrained(seed: int) -> Eye:
    torch.manual_seed(keyed.seed(seed, 0x1417))
    backbone, _ = build(BACKBONE)
    backbone.preprocessing = {**backbone.preprocessing, "image_size": SIZE}
    return Eye(backbone)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("orl", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--views-epochs", type=int, default=60)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--only", default=",".join(OBJECTIVES), help="objectives, with commas between them")
    parser.add_argument("--negatives", default=",".join(NEGATIVES))
    parser.add_argument("--ours-only", action="store_true")
    parser.add_argument("--choose", action="store_true")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    log.setLevel("ERROR")
    sys.modules["faces_peer"] = sys.modules[__name__]
    with tempfile.TemporaryDirectory(prefix="faces-") as folder:
        compare(args, Path(folder))


def compare(args: argparse.Namespace, scratch: Path) -> None:
    known, strangers = (range(1, 21), range(21, 31)) if args.choose else (range(1, 31), range(31, 41))
    data, new = people(args.orl, known, scratch / "learn.csv"), find(people(args.orl, strangers, scratch / "new.csv"))
    seeds, common = range(args.seeds), {"backbone": BACKBONE, "image_size": SIZE, "overwrite": True}
    rows: dict[str, list[Row]] = {
        "raw pixels": [measured(raw(new), new)],
        "untrained": [measured(untrained(seed).see_all(new)[0], new) for seed in seeds],
    }
    begun, start = [scratch / f"views-{seed}" for seed in seeds], time.monotonic()
    for seed in seeds:
        pretrain(data, begun[seed], batch_size=100, epochs=args.views_epochs, seed=seed, set=VIEWS, **common)
    rows["views"] = [measured(Eye.of(folder).see_all(new)[0], new) for folder in begun]
    tell(rows, (time.monotonic() - start) / len(seeds))
    for loss, mine in itertools.product(args.only.split(","), args.negatives.split(",")):
        ways: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
            f"{loss}, {mine}": (
                {"objective": loss, "negatives": mine},
                (f"objective.margin={APART}",) if loss == "contrastive" else (),
            )
        }
        if not args.ours_only:
            ways[f"{loss}, {mine}: peer"] = ({"objective": "faces_peer:Peer"}, (f"loss={loss}", f"mine={mine}"))
        for name, (chosen, own) in ways.items():
            rows[name], start = [], time.monotonic()
            for seed in seeds:
                pretrain(
                    data, scratch / "run", positives="labels", weights=str(begun[seed]), batch_size=BATCH,
                    steps=args.steps, seed=seed, set=(*SETTINGS, *args.set, *own), **chosen, **common,
                )  # fmt: skip
                rows[name].append(measured(Eye.of(scratch / "run").see_all(new)[0], new))
            tell({name: rows[name]}, (time.monotonic() - start) / len(seeds))
            if args.json:
                args.json.write_text(json.dumps(rows))


def tell(rows: dict[str, list[Row]], seconds: float = 0) -> None:
    for name, found in rows.items():
        words = [
            f"{statistics.mean(column):6.2f} ± {statistics.stdev(column) if len(column) > 1 else 0:5.2f}"
            for column in zip(*found)
        ]
        print(f"{name:<28}R@1 {words[0]}   TAR@1e-2 {words[1]}, less mean {words[2]}   {seconds:5.1f} s", flush=True)


if __name__ == "__main__":
    main()
