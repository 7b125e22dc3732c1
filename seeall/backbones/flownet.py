"""The contracting part of FlowNetS (Dosovitskiy et al. 2015, arXiv:1504.06852, figure 2) as a backbone.

Ten convolutions with leaky ReLUs of slope 0.1, strides 2 to 64. Departures: `norm` puts BatchNorm behind each, as
later implementations do, since it learns sooner; `width` makes all of it narrower.
"""

from __future__ import annotations

from torch import nn

from seeall.backbones.contract import Backbone, one_by_one
from seeall.types import SeeallError

_LAYERS = ((1, 7), (2, 5), (4, 5), (8, 3), (8, 3), (16, 3))
"""Channels, as factors of the width, and the kernel of the convolution that halves; from the third on, one follows that
does not."""
_SECOND = 2
SLOPE = 0.1


def flownet(*, width: int = 64, norm: bool = True) -> Backbone:
    """38 million parameters with the rest of the paper's network at its width of 64.

    width: channels of the first convolution · norm: BatchNorm behind each

    Raises: SeeallError for a width below 1.
    """
    if width < 1:
        raise SeeallError(f"setting 'width' is {width}: choose 1 or more")
    stages, before = nn.ModuleList(), 3
    for i, (factor, kernel) in enumerate(_LAYERS):
        channels = factor * width
        layers = [*layer(before, channels, kernel, 2, norm)]
        if i >= _SECOND:
            layers += layer(channels, channels, 3, 1, norm)
        stages.append(nn.Sequential(*layers))
        before = channels
    factors = [factor for factor, _ in _LAYERS]
    return Backbone(
        stages, one_by_one, channels=tuple(width * f for f in factors),
        strides=tuple(2 ** (k + 1) for k in range(len(_LAYERS))), embed_dim=width * factors[-1],
    )  # fmt: skip


def layer(before: int, channels: int, kernel: int = 3, stride: int = 1, norm: bool = True) -> list[nn.Module]:
    """A convolution, its norm if there is one, and the leaky ReLU."""
    made = nn.Conv2d(before, channels, kernel, stride, (kernel - 1) // 2, bias=not norm)
    nn.init.kaiming_normal_(made.weight, SLOPE)
    return [made, *([nn.BatchNorm2d(channels)] if norm else []), nn.LeakyReLU(SLOPE, inplace=True)]
