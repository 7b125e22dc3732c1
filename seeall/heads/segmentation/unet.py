"""U-Net (Ronneberger, Fischer and Brox 2015, arXiv:1505.04597), its left side being any backbone.

Each step doubles the map, puts the encoder's map of that size beside it, and convolves twice. A backbone's first map
has often a quarter of the picture's size already; for the two steps after it the picture itself, convolved once,
stands in for the maps that the paper has there, so that thin things are not lost.
Departures: padded convolutions with BatchNorm, so that the output is as large as the picture.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seeall.backbones.contract import Backbone
from seeall.heads.maps import Maps
from seeall.heads.segmentation.blocks import Upsample, Upsampling, conv

_WIDEST = 256


@final
class UNet(nn.Module):
    """x (B, 3, H, W) normalised → logits (B, K, H, W).

    width: channels of the decoder at full size; twice as many at half of it, and so on, up to 256
    upsample: how maps are doubled
    """

    def __init__(self, backbone: Backbone, classes: int, *, width: int = 16, upsample: Upsampling = "bilinear") -> None:
        super().__init__()
        self.maps = Maps(backbone)
        finest = self.maps.strides[0]
        self.halvings = [2**k for k in range(finest.bit_length()) if 2**k < finest]
        self.stems = nn.ModuleList(conv(3, width) for _ in self.halvings)
        strides = [*self.halvings, *self.maps.strides]
        sides = [*(width for _ in self.halvings), *self.maps.channels]
        channels, self.ups, self.joins = sides[-1], nn.ModuleList(), nn.ModuleList()
        for stride, side in reversed(list(zip(strides[:-1], sides[:-1]))):
            out = min(_WIDEST, width * stride)
            self.ups.append(Upsample(channels, upsample))
            self.joins.append(nn.Sequential(conv(channels + side, out), conv(out, out)))
            channels = out
        self.score = nn.Conv2d(channels, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits as large as the picture."""
        small = [F.avg_pool2d(x, s, ceil_mode=True, count_include_pad=False) if s > 1 else x for s in self.halvings]
        sides = [*(stem(part) for stem, part in zip(self.stems, small)), *self.maps(x)]
        y = sides.pop()
        for up, join in zip(self.ups, self.joins):
            side = sides.pop()
            y = join(torch.cat([up(y, side), side], 1))
        scores: Tensor = self.score(y)
        return scores
