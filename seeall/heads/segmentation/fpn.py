"""A plain decoder over a feature pyramid: the semantic branch of Panoptic FPN.

Kirillov, Girshick, He and Dollár 2019, arXiv:1901.02446, section 3.2.

Every level of the pyramid is convolved and doubled until it is as large as the finest one; their sum is scored, and the
scores are enlarged to the picture.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import final

from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from seeall.backbones.contract import Backbone
from seeall.heads.maps import Maps
from seeall.heads.segmentation.blocks import conv, resize


@final
class FPN(nn.Module):
    """x (B, 3, H, W) normalised → logits (B, K, H, W).

    width: channels of the pyramid · branch: channels of what its levels are summed in
    """

    def __init__(self, backbone: Backbone, classes: int, *, width: int = 128, branch: int = 64) -> None:
        super().__init__()
        self.maps = Maps(backbone)
        self.pyramid = FeaturePyramidNetwork(list(self.maps.channels), width)
        self.branches = nn.ModuleList(
            nn.ModuleList(conv(width if k == 0 else branch, branch) for k in range(max(1, level)))
            for level in range(len(self.maps.channels))
        )
        self.score = nn.Conv2d(branch, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits as large as the picture."""
        maps = self.maps(x)
        levels = list(self.pyramid(OrderedDict((str(i), m) for i, m in enumerate(maps))).values())
        total: Tensor | None = None
        for level, (y, branch) in enumerate(zip(levels, self.branches)):
            for k, convolve in enumerate(branch.children()):
                y = convolve(y)
                if level:
                    y = resize(y, maps[level - 1 - k])
            total = y if total is None else total + y
        assert total is not None
        scores: Tensor = self.score(total)
        return resize(scores, x)
