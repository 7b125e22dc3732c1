"""Convolutions whose whole output is one position, done as the matrix product that they are.

Deep in a network that looks at 32 px, a 3×3 kernel meets a map of 1×1 or 2×2, and most of its taps see only padding.
Of oneDNN's kernels the gradients of just these are slow: on a CPU with AVX2 a training step of ResNet-18 at 32 px
takes half the time without them (benchmarks/pointwise.py). What is computed is the same, up to the order of a sum.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Convolution(nn.Conv2d):
    """As `nn.Conv2d`."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W) → (B, K, H', W')."""
        plain = self.groups == 1 and self.dilation == (1, 1) and self.padding_mode == "zeros"
        padding = self.padding
        if x.device.type != "cpu" or max(x.shape[2:]) > 2 or not plain or isinstance(padding, str):
            return super().forward(x)
        sides = zip(x.shape[2:], padding, self.kernel_size, self.stride)
        if any((side + 2 * pad - kernel) // stride != 0 for side, pad, kernel, stride in sides):
            return super().forward(x)
        top, left = padding
        taps = self.weight[:, :, top : top + x.shape[2], left : left + x.shape[3]]  # those that lie on the map
        seen = x[:, :, : taps.shape[2], : taps.shape[3]]
        return F.linear(seen.flatten(1), taps.flatten(1), self.bias)[:, :, None, None]


def quicken(network: nn.Module) -> None:
    """Let all plain convolutions of `network` that have more than one tap do so. Names and weights stay."""
    for module in network.modules():
        if type(module) is nn.Conv2d and max(module.kernel_size) > 1:
            module.__class__ = Convolution  # the same state; only what `forward` does is another
