"""SegNet (Badrinarayanan, Kendall and Cipolla 2017, arXiv:1511.00561): unpooling by remembered indices.

The decoder gets nothing of the encoder's finer maps but where, in each window, their largest value was. It brings the
coarse map to as many channels as the finer one has, puts its values at those places, and convolves what is then a
sparse map into a dense one. Over a VGG-16, whose maps are those before each pooling, this is the paper's network, less
its last pooling. A backbone with strides in place of pooling has its maps pooled for their indices alone; where its
first map is smaller than the picture, the logits are enlarged bilinearly.
"""

from __future__ import annotations

import itertools
from typing import final

from torch import Tensor, nn

from seeall.backbones.contract import Backbone
from seeall.heads.maps import Maps
from seeall.heads.segmentation.blocks import conv, remembered, resize, unpool


@final
class SegNet(nn.Module):
    """x (B, 3, H, W) normalised → logits (B, K, H, W).

    convolutions: of each step of the decoder, the last of which narrows the map
    """

    def __init__(self, backbone: Backbone, classes: int, *, convolutions: int = 2) -> None:
        super().__init__()
        self.maps = Maps(backbone)
        channels, strides = self.maps.channels, self.maps.strides
        self.factors = [b // a for a, b in itertools.pairwise(strides)]
        self.bring = nn.ModuleList(conv(b, a) for a, b in itertools.pairwise(channels))
        self.dense = nn.ModuleList(
            nn.Sequential(*(conv(a, a) for _ in range(max(1, convolutions)))) for a in channels[:-1]
        )
        self.score = nn.Conv2d(channels[0], classes, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits as large as the picture."""
        maps = self.maps(x)
        y = maps[-1]
        for i in reversed(range(len(self.bring))):
            where = remembered(maps[i].detach(), self.factors[i])
            y = self.dense[i](unpool(self.bring[i](y), where, self.factors[i], maps[i]))
        scores: Tensor = self.score(y)
        return resize(scores, x)
