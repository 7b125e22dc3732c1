"""A training step with and without `seeall/backbones/pointwise.py`, on a CPU.

    python benchmarks/pointwise.py [--rounds 7] [--sizes 32,48,64] [--batch 128]

ResNet-18, NT-Xent, forward, backward and AdamW, the two in turns on the same tensors; medians, and the median ratio of
the rounds. What to expect depends on the processor: with AVX2 alone, more than twice as fast at 32 px, a third faster
at 48 px, a sixth at 64 px. Two minutes on two cores.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from seeall.backbones.load import build
from seeall.backbones.pointwise import Convolution
from seeall.ssl.projector import projector
from seeall.ssl.simclr import SimCLR
from seeall.training.optimisers import adamw


def stepping(x: torch.Tensor, quick: bool) -> Callable[[], float]:
    """A step of training on x (N, 3, S, S), which returns its seconds."""
    torch.manual_seed(0)
    backbone, _ = build("resnet18")
    for module in backbone.modules():
        if not quick and isinstance(module, Convolution):
            module.__class__ = nn.Conv2d
    network = nn.Sequential(backbone, projector(backbone.embed_dim)).to(memory_format=torch.channels_last)
    optimiser, objective = adamw(network), SimCLR()
    groups = torch.arange(len(x) // 2).repeat(2)

    def step() -> float:
        start = time.perf_counter()
        optimiser.zero_grad()
        objective(network(x), groups)["loss"].backward()
        optimiser.step()
        return time.perf_counter() - start

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--sizes", default="32,48,64")
    parser.add_argument("--batch", type=int, default=128, help="pictures, of two views each")
    args = parser.parse_args()
    print(f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads")
    for size in map(int, args.sizes.split(",")):
        x = torch.randn(2 * args.batch, 3, size, size).to(memory_format=torch.channels_last)
        ours, plain = stepping(x, True), stepping(x, False)
        ours(), plain()
        pairs = [(ours(), plain()) for _ in range(args.rounds)]
        quick, slow = (statistics.median(side) for side in zip(*pairs))
        ratio = statistics.median(b / a for a, b in pairs)
        print(f"{size} px: {quick:.3f} s a step, torch's convolutions {slow:.3f} s: {ratio:.2f} times as fast")


if __name__ == "__main__":
    main()
