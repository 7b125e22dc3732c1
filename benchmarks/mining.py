"""What mining costs: the share of a training step that goes into finding triplets in a batch of 512.

    python benchmarks/mining.py [--rounds 5]

A step of ResNet-18 at 32 px on 512 pictures, four of each group: forward, loss, backward and AdamW. Distances and
the choice of triplets are timed alone on the same embeddings, in turns with the step; medians. To expect on two idle
cores: one or two percent. About a quarter of a minute.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from seeall.backbones.load import build
from seeall.ssl.margin import Margin
from seeall.ssl.negatives import mining
from seeall.ssl.negatives.distance import DistanceWeighted
from seeall.ssl.negatives.hard import Hard
from seeall.ssl.negatives.random import Random
from seeall.ssl.negatives.semihard import SemiHard
from seeall.ssl.projector import projector
from seeall.training.optimisers import adamw

BATCH, TOGETHER, SIZE = 512, 4, 32


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.manual_seed(0)
    backbone, _ = build("resnet18")
    network = torch.nn.Sequential(backbone, projector(backbone.embed_dim)).to(memory_format=torch.channels_last)
    x = torch.randn(BATCH, 3, SIZE, SIZE).to(memory_format=torch.channels_last)
    groups = torch.arange(BATCH // TOGETHER).repeat_interleave(TOGETHER)
    objective = Margin(DistanceWeighted())
    optimiser = adamw(torch.nn.ModuleList([network, objective]))

    def step() -> None:
        optimiser.zero_grad()
        objective(network(x), groups)["loss"].backward()
        optimiser.step()

    with torch.no_grad():
        z = network(x)
    miners = {"random": Random(), "semihard": SemiHard(), "hard": Hard(), "distance": DistanceWeighted()}
    step()
    taken: dict[str, list[float]] = {"step": [], **{name: [] for name in miners}}
    for _ in range(args.rounds):
        taken["step"].append(seconds(step))
        for name, mine in miners.items():
            with torch.no_grad():
                taken[name].append(seconds(lambda: mining.triplets(z, groups, mine)))  # noqa: B023
    whole = statistics.median(taken["step"])
    for name, times in taken.items():
        middle = statistics.median(times)
        print(f"{name:<12}{1000 * middle:9.1f} ms   {100 * middle / whole:6.2f} % of a step")


if __name__ == "__main__":
    main()
