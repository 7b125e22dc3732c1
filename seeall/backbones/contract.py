"""The feature contract: what every other room may ask of a network, whatever its name.

A backbone is one small class around somebody else's network. A *walk*, a plain function, says how a picture
passes through that network: it returns the map of every stage and the embedding, in one pass.

    channels[i], strides[i]    of stage i, coarsest last
    stages(x)                  x (B, 3, H, W) → list of (B, channels[i], ⌈H / strides[i]⌉, ⌈W / strides[i]⌉)
    forward(x)                 x (B, 3, H, W) → (B, embed_dim)
    preprocessing              mean and std of the normalisation that x has gone through, at least

Any H and W of one pixel or more will do: a size that a stride does not divide is rounded up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, final

from torch import Tensor, nn
from torch.nn import functional as F

from seeall.backbones.pointwise import quicken

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Of ImageNet's red, green and blue, for pixels in [0, 1]."""

Walk = Callable[[Any, Tensor], tuple[list[Tensor], Tensor]]
"""(network, x) → the map of every stage, and the embedding."""


@final
class Backbone(nn.Module):
    """A network and the walk through it.

    `network` holds all parameters, under the names its own library gives them; it has no classifier.
    inputs: channels that x has: 3, but where a head has made it look at several frames at once
    altered: whether a head has made another network of it, which its name and settings do not give
    """

    def __init__(
        self,
        network: nn.Module,
        walk: Walk,
        *,
        channels: tuple[int, ...],
        strides: tuple[int, ...],
        embed_dim: int,
        preprocessing: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.channels, self.strides, self.embed_dim, self.inputs = channels, strides, embed_dim, 3
        self.altered = False
        self.preprocessing: dict[str, Any] = {"mean": MEAN, "std": STD, **(preprocessing or {})}
        self._walk = walk
        quicken(network)

    def stages(self, x: Tensor) -> list[Tensor]:
        """x: (B, 3, H, W) float, normalised → the map of every stage, (B, Cᵢ, ⌈H/sᵢ⌉, ⌈W/sᵢ⌉)."""
        return self._walk(self.network, x)[0]

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, 3, H, W) float, normalised → (B, embed_dim)."""
        return self._walk(self.network, x)[1]


def average(x: Tensor) -> Tensor:
    """Mean over the positions of a map: (B, C, H, W) → (B, C)."""
    return x.mean(dim=(2, 3))


def one_by_one(stages: Any, x: Tensor) -> tuple[list[Tensor], Tensor]:
    """The walk through stages that follow each other; the embedding is the mean of the last map."""
    maps = []
    for stage in stages:
        x = stage(x)
        maps.append(x)
    return maps, average(x)


def pad_to(x: Tensor, multiple: int) -> Tensor:
    """Zeros on the right and at the bottom, so that `multiple` divides H and W.

    Zero is the mean colour of a normalised picture.

    >>> import torch
    >>> pad_to(torch.ones(1, 3, 5, 8), 4).shape
    torch.Size([1, 3, 8, 8])
    """
    below, right = -x.shape[-2] % multiple, -x.shape[-1] % multiple
    return F.pad(x, (0, right, 0, below)) if below or right else x
