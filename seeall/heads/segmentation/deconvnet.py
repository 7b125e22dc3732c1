"""DeconvNet (Noh, Hong and Han 2015, arXiv:1505.04366): a code of the whole picture, unpooled and deconvolved.

The coarsest map goes through a narrow place, a large convolution to a code ("fc6", "fc7") and a large transposed one
back, and then, step by step, through unpooling by remembered indices and transposed convolutions, which widen what one
activation says over its neighbours. Departures: the code keeps its place in the picture for inputs of any size, where
the paper has 224 px and one position; no batch of proposals, the whole picture at once; where the first map is
smaller than the picture, the logits are enlarged bilinearly.
"""

from __future__ import annotations

import itertools
from typing import final

from torch import Tensor, nn

from seeall.backbones.contract import Backbone
from seeall.heads.maps import Maps
from seeall.heads.segmentation.blocks import conv, remembered, resize, unpool

_WINDOW = 7


def _deconv(channels: int, out: int, window: int = 3) -> nn.Sequential:
    """Transposed convolution that keeps the size, BatchNorm, ReLU."""
    return nn.Sequential(
        nn.ConvTranspose2d(channels, out, window, padding=window // 2, bias=False), nn.BatchNorm2d(out), nn.ReLU(True)
    )


@final
class DeconvNet(nn.Module):
    """x (B, 3, H, W) normalised → logits (B, K, H, W).

    code: channels at the narrow place · deconvolutions: of each step
    """

    def __init__(self, backbone: Backbone, classes: int, *, code: int = 256, deconvolutions: int = 2) -> None:
        super().__init__()
        self.maps = Maps(backbone)
        channels, strides = self.maps.channels, self.maps.strides
        self.factors = [b // a for a, b in itertools.pairwise(strides)]
        last = channels[-2] if len(channels) > 1 else channels[-1]
        self.narrow = nn.Sequential(
            conv(channels[-1], code, kernel_size=_WINDOW), conv(code, code, kernel_size=1), _deconv(code, last, _WINDOW)
        )
        self.steps = nn.ModuleList()
        for i, here in enumerate(channels[:-1]):
            widths = [here] * max(1, deconvolutions) + [channels[max(i - 1, 0)]]
            self.steps.append(nn.Sequential(*(_deconv(a, b) for a, b in itertools.pairwise(widths))))
        self.score = nn.Conv2d(channels[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits as large as the picture."""
        maps = self.maps(x)
        y = self.narrow(maps[-1])
        for i in reversed(range(len(self.steps))):
            where = remembered(maps[i].detach(), self.factors[i])
            y = self.steps[i](unpool(y, where, self.factors[i], maps[i]))
        scores: Tensor = self.score(y)
        return resize(scores, x)
