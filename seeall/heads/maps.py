"""From the contract of backbones to what a head needs: maps whose strides double.

A network of one stage, a ViT, gives one map; the others are made of it, finer ones by transposed convolutions and
coarser ones by pooling: the simple feature pyramid of ViTDet (Li et al. 2022, arXiv:2203.16527, section 3). A stride
that is no power of two, as patches of 14 px have, is first made the nearest one, by resizing the map.
"""

from __future__ import annotations

import math
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seeall.backbones.contract import Backbone
from seeall.types import SeeallError

COARSEST = 32
"""The largest stride that is made of a network of one stage."""


@final
class Maps(nn.Module):
    """channels[i], strides[i] of map i, coarsest last; forward: x (B, 3, H, W) → maps (B, Cᵢ, ⌈H/sᵢ⌉, ⌈W/sᵢ⌉).

    finest: the smallest stride that is made of a network of one stage

    Raises: SeeallError for a `finest` that is no power of two, or more than can be made.
    """

    def __init__(self, backbone: Backbone, finest: int = 4) -> None:
        super().__init__()
        if finest < 1 or finest & (finest - 1):
            raise SeeallError(f"setting 'finest' is {finest}: choose a power of two, such as 4 or 8")
        self.backbone = backbone
        self.channels, self.strides = backbone.channels, backbone.strides
        self.finer: nn.ModuleList | None = None
        if len(backbone.strides) > 1:
            return
        if finest > COARSEST:
            raise SeeallError(f"setting 'finest' is {finest}: choose {COARSEST} or less for a backbone of one stage")
        (stride,), (width,) = backbone.strides, backbone.channels
        self.middle = 2 ** round(math.log2(stride))
        self.strides = tuple(2**k for k in range(int(math.log2(finest)), int(math.log2(COARSEST)) + 1))
        self.channels = (width,) * len(self.strides)
        self.finer = nn.ModuleList(
            nn.ConvTranspose2d(width, width, 2, stride=2) for _ in range(max(0, int(math.log2(self.middle / finest))))
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """x: (B, 3, H, W) float, normalised → the maps."""
        maps = self.backbone.stages(x)
        return maps if self.finer is None else self._pyramid(maps[0], x.shape[-2:])

    def _pyramid(self, middle: Tensor, size: torch.Size) -> list[Tensor]:
        assert self.finer is not None
        if self.middle != self.backbone.strides[0]:
            middle = F.interpolate(middle, [-(-side // self.middle) for side in size], mode="bilinear")
        made = {self.middle: middle}
        for k, up in enumerate(self.finer, start=1):
            stride = self.middle // 2**k
            finer = F.gelu(up(made[2 * stride]))
            made[stride] = finer[..., : -(-size[0] // stride), : -(-size[1] // stride)]
        stride = self.middle
        while stride < COARSEST:
            made[2 * stride] = F.max_pool2d(made[stride], 2, ceil_mode=True)
            stride *= 2
        return [made[stride] for stride in self.strides]
