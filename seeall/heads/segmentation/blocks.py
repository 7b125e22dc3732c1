"""What the decoders share: a convolution with its norm, and making a map larger."""

from __future__ import annotations

from functools import partial
from typing import Literal, final

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

Upsampling = Literal["nearest", "bilinear", "transposed"]

conv = partial(Conv2dNormActivation, kernel_size=3)
"""(channels in, channels out) → 3×3 convolution, BatchNorm, ReLU; the size stays."""


def resize(x: Tensor, like: Tensor, how: str = "bilinear") -> Tensor:
    """x (B, C, h, w) at the height and width of `like`."""
    if x.shape[-2:] == like.shape[-2:]:
        return x
    return F.interpolate(x, like.shape[-2:], mode=how, align_corners=False if how == "bilinear" else None)


@final
class Upsample(nn.Module):
    """(B, C, h, w) → (B, C, H, W), about twice as large, the size of `like`."""

    def __init__(self, channels: int, how: Upsampling) -> None:
        super().__init__()
        self.how = how
        self.up = nn.ConvTranspose2d(channels, channels, 2, stride=2) if how == "transposed" else None

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        """like: (B, any, H, W)."""
        if self.up is None:
            return resize(x, like, self.how)
        larger: Tensor = self.up(x)
        return larger[..., : like.shape[-2], : like.shape[-1]]


def remembered(x: Tensor, factor: int) -> Tensor:
    """Where the largest value of each window of `factor` by `factor` lies: indices (B, C, ⌈H/f⌉, ⌈W/f⌉) for
    `unpool`.
    """
    _, where = F.max_pool2d(x, factor, ceil_mode=True, return_indices=True)
    return where


def unpool(x: Tensor, where: Tensor, factor: int, like: Tensor) -> Tensor:
    """x (B, C, h, w) put back where the largest values were, zeros elsewhere: (B, C, H, W), the size of `like`."""
    return F.max_unpool2d(x, where, [factor, factor], output_size=like.shape[-2:])
