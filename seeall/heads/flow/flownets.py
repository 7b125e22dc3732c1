"""FlowNetS (Dosovitskiy et al. 2015, arXiv:1504.06852, section 3): one network looks at both frames at once.

Its contracting part is the backbone; `--backbone flownet` is the paper's. Departure: the frames go in as their mean and
their difference, see `refine.together`.
"""

from __future__ import annotations

from typing import final

from torch import Tensor, nn

from seeall.backbones.contract import Backbone
from seeall.heads.flow import refine
from seeall.heads.maps import Maps


@final
class FlowNetS(nn.Module):
    """Frames (B, 3, H, W) each, normalised → flows from the first to the second, px, finest first.

    width: channels of the refinement at its coarsest · finest: the smallest stride that flow is said at, px
    unit: px that an output of 1 means, see `refine.Refinement` · norm: BatchNorm in the refinement
    """

    def __init__(
        self, backbone: Backbone, *, width: int = 512, finest: int = 4, unit: float = 5.0, norm: bool = True
    ) -> None:
        super().__init__()
        self.maps = Maps(refine.paired(backbone), finest)
        self.used = [i for i, stride in enumerate(self.maps.strides) if stride >= finest]
        self.refine = refine.Refinement([self.maps.channels[i] for i in self.used], width, norm, unit)

    def forward(self, first: Tensor, second: Tensor) -> list[Tensor]:
        """(B, 2, ⌈H/s⌉, ⌈W/s⌉) for each stride s from `finest` on."""
        maps = self.maps(refine.together(first, second))
        flows: list[Tensor] = self.refine([maps[i] for i in self.used])
        return flows

    cost = staticmethod(refine.cost)
