"""Convolutions whose output is one position, or two by two, done as the matrix products that they are.

Deep in a network that looks at 32 to 64 px, a 3×3 kernel meets a map of 1×1 to 4×4, and many of its taps see only
padding. Of oneDNN's kernels the gradients of just these are slow: on a CPU with AVX2 a training step of ResNet-18 takes
less than half the time without them at 32 px, and three quarters at 48 px (benchmarks/pointwise.py). What is computed
is the same, up to the order of a sum.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MOST = 2  # positions of output a side: with three, oneDNN is as fast


class Convolution(nn.Conv2d):
    """As `nn.Conv2d`."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W) → (B, K, H', W')."""
        plain = self.groups == 1 and self.dilation == (1, 1) and self.padding_mode == "zeros"
        if x.device.type != "cpu" or not plain or isinstance(self.padding, str) or torch.compiler.is_compiling():
            return super().forward(x)  # what is exported or compiled must hold for other sizes too
        rows, columns = (
            _spans(side, kernel, stride, padding)
            for side, kernel, stride, padding in zip(x.shape[2:], self.kernel_size, self.stride, self.padding)
        )
        if not 1 <= len(rows) <= MOST or not 1 <= len(columns) <= MOST:
            return super().forward(x)
        x, weight = x.permute(0, 2, 3, 1), self.weight.permute(0, 2, 3, 1)  # channels last, as pictures come
        y = [
            F.linear(x[:, on_y, on_x].flatten(1), weight[:, taps_y, taps_x].flatten(1), self.bias)
            for (on_y, taps_y), (on_x, taps_x) in itertools.product(rows, columns)
        ]
        return torch.stack(y, 1).view(len(x), len(rows), len(columns), -1).permute(0, 3, 1, 2)


def _spans(side: int, kernel: int, stride: int, padding: int) -> list[tuple[slice, slice]]:
    """For each position of the output along a side, the stretch of the map that it sees, and the taps that see it."""
    starts = range(-padding, side + padding - kernel + 1, stride)
    if len(starts) > MOST:
        return []
    return [(slice(max(0, s), max(0, s + kernel)), slice(max(0, -s), max(0, min(kernel, side - s)))) for s in starts]


def quicken(network: nn.Module) -> None:
    """Let all plain convolutions of `network` that have more than one tap do so. Names and weights stay."""
    for module in network.modules():
        if type(module) is nn.Conv2d and max(module.kernel_size) > 1:
            module.__class__ = Convolution  # the same state; only what `forward` does is another
