"""A backbone as torchvision's detectors want it: with a feature pyramid (Lin et al. 2017, arXiv:1612.03144)."""

from __future__ import annotations

from collections import OrderedDict
from typing import final

from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock

from seeall.backbones.contract import Backbone
from seeall.heads.maps import Maps
from seeall.types import SeeallError


def check(score: float, nms: float, most: int) -> None:
    """Raises SeeallError for settings of what is found that are out of bounds."""
    for name, value in (("score", score), ("nms", nms)):
        if not 0 <= value <= 1:
            raise SeeallError(f"setting {name!r} is {value}: choose from 0 to 1")
    if most < 1:
        raise SeeallError(f"setting 'most' is {most}: choose at least 1 thing in a picture")


@final
class Pyramid(nn.Module):
    """x (B, 3, H, W) normalised → levels (B, out_channels, ⌈H/s⌉, ⌈W/s⌉), finest first, by name "0", "1", …

    finest: the smallest stride that is used, px · extra: what adds coarser levels, and how many those are
    strides: of the levels
    """

    def __init__(self, backbone: Backbone, width: int, finest: int, extra: ExtraFPNBlock, more: int) -> None:
        super().__init__()
        self.maps, self.out_channels = Maps(backbone, finest), width
        self.used = [i for i, stride in enumerate(self.maps.strides) if stride >= finest]
        if not self.used:
            raise SeeallError(
                f"setting 'finest' is {finest}: the coarsest map of the backbone has stride {self.maps.strides[-1]}"
            )
        strides = [self.maps.strides[i] for i in self.used]
        self.strides = [*strides, *(strides[-1] * 2 ** (k + 1) for k in range(more))]
        self.pyramid = FeaturePyramidNetwork([self.maps.channels[i] for i in self.used], width, extra)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """The levels."""
        maps = self.maps(x)
        levels: dict[str, Tensor] = self.pyramid(OrderedDict((str(k), maps[i]) for k, i in enumerate(self.used)))
        return levels
