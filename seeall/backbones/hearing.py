"""A small network that hears: log-mel spectrograms → embeddings, behind the feature contract.

Four convolutions of 3×3 and stride 2, each with BatchNorm and ReLU; in the two stages between, a residual one after
it (He et al. 2016, arXiv:1512.03385). The embedding is mean plus maximum over the positions of the last map, after
CNN14 of PANNs (Kong et al. 2020, arXiv:1912.10211), which takes the mean over frequencies before: here both go over
frequency and time at once.

x is (B, 1, mels, frames), any number of each from 1 on, normalised beforehand, so `preprocessing` has mean 0 and
deviation 1. In `seeall.backbones.load` its name is "seeall.backbones.hearing:hearing".
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from seeall.backbones.contract import Backbone
from seeall.types import SeeallError


def hearing(*, width: int = 32) -> Backbone:
    """An encoder of sounds: with width 32, 0.6 million parameters, 256 dimensions; in general 8 · width.

    Raises: SeeallError for a width below 1.
    """
    if width < 1:
        raise SeeallError(f"hearing: width must be at least 1, not {width}; 32 is usual")
    channels = (width, 2 * width, 4 * width, 8 * width)
    return Backbone(
        _Ear(channels), _walk, channels=channels, strides=(2, 4, 8, 16), embed_dim=channels[-1],
        preprocessing={"mean": (0.0,), "std": (1.0,)},
    )  # fmt: skip


class _Ear(nn.Module):
    """The layers; `_walk` says how they are passed."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        before = (1, *channels[:-1])
        self.down = nn.ModuleList(_convolution(a, b, 2) for a, b in zip(before, channels))
        self.keep = nn.ModuleList(_convolution(c, c, 1) for c in channels[1:-1])


def _convolution(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def _walk(network: Any, x: Tensor) -> tuple[list[Tensor], Tensor]:
    maps = []
    for stage, down in enumerate(network.down):
        x = down(x)
        if 0 < stage < len(network.down) - 1:
            x = x + network.keep[stage - 1](x)
        maps.append(x)
    return maps, x.mean(dim=(2, 3)) + x.amax(dim=(2, 3))
