"""Convolutions whose whole output is one position, done as the matrix product that they are.

Deep in a network that looks at 32 px, a 3×3 kernel meets a map of 1×1 or 2×2, and most of its taps see only padding.
Of oneDNN's kernels the gradients of just these are slow: on a CPU with AVX2 a training step of ResNet-18 at 32 px
takes less than half the time without them. What is computed is the same, up to the order of a sum.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Convolution(nn.Conv2d):
    """As `nn.Conv2d`."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W) → (B, K, H', W')."""
        if x.device.type != "cpu" or max(x.shape[2:]) > 2 or not self._plain():
            return super().forward(x)
        return self._product(x) if self._positions(x) == (1, 1) else super().forward(x)

    def _plain(self) -> bool:
        return self.groups == 1 and self.dilation == (1, 1) and self.padding_mode == "zeros"

    def _positions(self, x: Tensor) -> tuple[int, ...]:
        if isinstance(self.padding, str):
            return ()
        sides = zip(x.shape[2:], self.padding, self.kernel_size, self.stride)
        return tuple((side + 2 * pad - kernel) // stride + 1 for side, pad, kernel, stride in sides)

    def _product(self, x: Tensor) -> Tensor:
        """The kernel's taps that lie on the map, times what they see: (B, C, H, W) → (B, K, 1, 1)."""
        top, left = self.padding
        taps = self.weight[:, :, top : top + x.shape[2], left : left + x.shape[3]]
        seen = x[:, :, : taps.shape[2], : taps.shape[3]]
        return F.linear(seen.flatten(1), taps.flatten(1), self.bias)[:, :, None, None]


def quicken(network: nn.Module) -> None:
    """Let all plain convolutions of `network` that have more than one tap do so. Names and weights stay."""
    for module in network.modules():
        if type(module) is nn.Conv2d and max(module.kernel_size) > 1:
            module.__class__ = Convolution  # the same state; only what `forward` does is another
