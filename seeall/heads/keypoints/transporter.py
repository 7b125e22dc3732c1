"""Transporter (Kulkarni et al. 2019, arXiv:1906.11883, section 3): keypoints that explain how frames differ.

Φ(x) are features of a frame, Ψ(x) its K keypoints: each the mean place of a softmax over its map. H(x) is a map that is
1 at the keypoints and falls off around them like Gaussians of one width. From a source frame x_s and a target frame x_t
of a clip (equation 1)

    Φ̂ = (1 - H(x_s)) · (1 - H(x_t)) · Φ(x_s) + H(x_t) · Φ(x_t)

the target is drawn, at a cost of the mean squared error. Only what is near a keypoint of the target is taken from it,
so the keypoints go where frames differ; no gradient goes to Φ(x_s) and Ψ(x_s).

Departures: Ψ is built on any backbone, of whose maps coarser ones are added to the one of stride 4; K Gaussians h are
joined as H = 1 - Π (1 - h), which the paper leaves open; Φ and the decoder are smaller.
"""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seeall.backbones.contract import Backbone
from seeall.backbones.plain import layers
from seeall.heads.maps import Maps
from seeall.heads.segmentation.blocks import conv, resize
from seeall.types import SeeallError

STRIDE = 4
"""Of the maps on which keypoints are found and features are carried."""


@final
class Transporter(nn.Module):
    """x (B, 3, H, W) normalised → points (B, K, 2) and how sure they are (B, K); see `rebuilt` for learning.

    keypoints: K · std: of the Gaussians, where half a side of the picture is 1 · width: channels of Φ at stride 2

    Raises: SeeallError for a std out of bounds.
    """

    def __init__(self, backbone: Backbone, *, keypoints: int = 8, std: float = 0.1, width: int = 32) -> None:
        super().__init__()
        if not 0.001 <= std <= 2:
            raise SeeallError(f"setting 'std' is {std}: choose 0.001 to 2, where half a side of the picture is 1")
        self.std = std
        self.maps = Maps(backbone, STRIDE)
        finest = max((i for i, stride in enumerate(self.maps.strides) if stride <= STRIDE), default=0)
        self.used = list(range(finest, len(self.maps.strides)))
        own = self.maps.channels[finest]
        self.beside = nn.ModuleList(nn.Conv2d(self.maps.channels[i], own, 1) for i in self.used[1:])
        self.score = nn.Conv2d(own, keypoints, 1)
        self.features = layers(width)
        self.decoder = nn.ModuleList([conv(2 * width, 2 * width), conv(2 * width, width), conv(width, width)])
        self.paint = nn.Conv2d(width, 3, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """points: x and y from -1, left or top edge, to 1 · strength: the share of each softmax within its Gaussian."""
        shares = self._shares(x)
        points = places(shares)
        return points, (shares * gaussians(points, self.std, shares.shape[-2:])).sum((2, 3))

    def _shares(self, x: Tensor) -> Tensor:
        """(B, K, h, w) a softmax over the places, for each keypoint."""
        maps = self.maps(x)
        total = maps[self.used[0]]
        for i, layer in zip(self.used[1:], self.beside):
            total = total + resize(layer(maps[i]), total)
        logits: Tensor = self.score(total).float()
        return logits.flatten(2).softmax(2).view_as(logits)

    def _seen(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Φ(x) (B, C, h, w) and H(x) (B, 1, h, w)."""
        features = self.features(x)
        return features, joined(gaussians(places(self._shares(x)), self.std, features.shape[-2:]))

    def rebuilt(self, source: Tensor, target: Tensor) -> Tensor:
        """The target frames (B, 3, H, W), normalised, as drawn from the source and what is carried over."""
        with torch.no_grad():
            before = self._seen(source)
        y = transported(*before, *self._seen(target))
        for i, layer in enumerate(self.decoder):
            y = layer(y)
            if i:
                y = F.interpolate(y, [-(-side * i // 2) for side in target.shape[-2:]], mode="bilinear")
        drawn: Tensor = self.paint(y)
        return drawn


def centres(shape: torch.Size | tuple[int, int], like: Tensor) -> tuple[Tensor, Tensor]:
    """x (w,) and y (h,) of the middles of a map's places, from -1 to 1 over the whole map."""
    down, across = ((torch.arange(n, dtype=like.dtype, device=like.device) + 0.5) * 2 / n - 1 for n in shape)
    return across, down


def places(shares: Tensor) -> Tensor:
    """(B, K, h, w), sums of 1 → the mean place of each (B, K, 2), x and y."""
    x, y = centres(shares.shape[-2:], shares)
    return torch.stack([(shares.sum(2) * x).sum(2), (shares.sum(3) * y).sum(2)], 2)


def gaussians(points: Tensor, std: float, shape: torch.Size | tuple[int, int]) -> Tensor:
    """points (B, K, 2) → exp(-d² / 2 std²) at each place of a map of `shape`, (B, K, h, w)."""
    x, y = centres(shape, points)
    dx, dy = x - points[..., :1], y - points[..., 1:]
    return torch.exp(-(dx.square()[:, :, None] + dy.square()[..., None]) / (2 * std**2))


def joined(each: Tensor) -> Tensor:
    """(B, K, h, w) in [0, 1] → 1 - Π (1 - each), (B, 1, h, w)."""
    return 1 - (1 - each).prod(1, keepdim=True)


def transported(source: Tensor, from_: Tensor, target: Tensor, to: Tensor) -> Tensor:
    """Equation 1: features (B, C, h, w) of both frames and where their keypoints are, (B, 1, h, w)."""
    return (1 - from_) * (1 - to) * source + to * target
