"""Networks for clips, (B, 3, T, H, W) normalised → logits (B, K): frame by frame, and inflated.

The first is what a network can tell that cannot see motion: the mean of what it says of each frame (Simonyan and
Zisserman 2014, arXiv:1406.2199, the spatial stream). The second is I3D's idea over any backbone; see
`backbones/inflate.py`.
"""

from __future__ import annotations

from typing import final

from torch import Tensor, nn

from seeall.backbones.contract import Backbone
from seeall.backbones.inflate import Taps, Which, inflate
from seeall.types import SeeallError


def dropped(share: float) -> nn.Dropout:
    """Raises SeeallError for a share out of bounds."""
    if not 0 <= share < 1:
        raise SeeallError(f"setting 'dropout' is {share}: choose a share from 0 and below 1")
    return nn.Dropout(share)


@final
class PerFrame(nn.Module):
    """The mean over frames of a linear layer on the embedding. dropout: share of it left out while learning."""

    def __init__(self, backbone: Backbone, classes: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.backbone, self.dropout = backbone, dropped(dropout)
        self.score = nn.Linear(backbone.embed_dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        embedded = self.backbone(x.transpose(1, 2).flatten(0, 1))
        scores: Tensor = self.score(self.dropout(embedded)).unflatten(0, (x.shape[0], -1)).mean(1)
        return scores


@final
class InflatedAction(nn.Module):
    """A linear layer on the embedding of the inflated backbone.

    kernel: frames that a kernel sees · which: of the convolutions with more than one tap are inflated: all, every
    second one (half), or the first · every: the first convolution gives one map for so many frames
    taps: how they begin over time, see `inflate` · dropout: share of the embedding that is left out while learning
    """

    def __init__(
        self, backbone: Backbone, classes: int, *, kernel: int = 3, which: Which = "half", every: int = 1,
        taps: Taps = "turns", dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.backbone = inflate(backbone, kernel=kernel, which=which, every=every, taps=taps)
        self.dropout = dropped(dropout)
        self.score = nn.Linear(backbone.embed_dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        scores: Tensor = self.score(self.dropout(self.backbone(x)))
        return scores
