"""FlowNetC (Dosovitskiy et al. 2015, arXiv:1504.06852, section 3): each frame is looked at alone, then compared.

The backbone sees both frames with the same weights. At stride 8, places of one map are compared with places near by of
the other; from there on convolutions halve down to stride 64. Departure: the maps of the first frame that the backbone
has beyond stride 8, which the paper's network has not, stand beside these.
"""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seeall.backbones.contract import Backbone
from seeall.backbones.flownet import SLOPE, layer
from seeall.heads.flow import refine
from seeall.heads.flow.correlation import correlate
from seeall.heads.maps import Maps
from seeall.types import SeeallError

_COMPARED = 8
_OWN = 32


@final
class FlowNetC(nn.Module):
    """Frames (B, 3, H, W) each, normalised → flows from the first to the second, px, finest first.

    reach: how far apart places may lie that are compared, in steps of 8 px · step: every so manieth of them is
    width: channels after the comparison; twice and four times as many at strides 16 and above
    finest: the smallest stride that flow is said at, px · unit: px that an output of 1 means, see `refine.Refinement`
    norm: BatchNorm in what is not the backbone

    Raises: SeeallError where `step` is larger than `reach`, or the backbone has no map of stride 8.
    """

    def __init__(
        self, backbone: Backbone, *, reach: int = 20, step: int = 2, width: int = 256, finest: int = 4,
        unit: float = 5.0, norm: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        if step > reach:
            raise SeeallError(f"setting 'step' is {step}, 'reach' {reach}: choose a step no larger than the reach")
        self.reach, self.step = reach, step
        self.maps = Maps(backbone, min(finest, _COMPARED))
        strides, channels = self.maps.strides, self.maps.channels
        if _COMPARED not in strides:
            raise SeeallError(f"flownetc compares maps of stride 8; this backbone has strides {strides}")
        self.compared = strides.index(_COMPARED)
        self.fine = [i for i, stride in enumerate(strides) if finest <= stride < _COMPARED]
        self.redirect = nn.Sequential(*layer(channels[self.compared], _OWN, 1, 1, norm))
        seen = _OWN + (2 * (reach // step) + 1) ** 2
        self.join = nn.Sequential(*layer(seen, width, 3, 1, norm))
        self.down, self.beside, before, sides = nn.ModuleList(), list[int | None](), width, [width]
        for factor, stride in ((2, 16), (2, 32), (4, 64)):
            own = factor * width
            self.down.append(nn.Sequential(*layer(before, own, 3, 2, norm), *layer(own, own, 3, 1, norm)))
            self.beside.append(strides.index(stride) if stride in strides else None)
            before = own
            sides.append(own + (channels[strides.index(stride)] if stride in strides else 0))
        self.refine = refine.Refinement([*(channels[i] for i in self.fine), *sides], 2 * width, norm, unit)

    def forward(self, first: Tensor, second: Tensor) -> list[Tensor]:
        """(B, 2, ⌈H/s⌉, ⌈W/s⌉) for each stride s from `finest` to 64."""
        count = first.shape[0]  # which exporters see that a file may take any number of
        both = [(part[:count], part[count:]) for part in self.maps(torch.cat([first, second]))]
        one, other = both[self.compared]
        alike = F.leaky_relu(correlate(one, other, self.reach, self.step), SLOPE)
        x = self.join(torch.cat([self.redirect(one), alike], 1))
        maps = [*(both[i][0] for i in self.fine), x]
        for down, beside in zip(self.down, self.beside):
            x = down(x)
            maps.append(x if beside is None else torch.cat([x, both[beside][0]], 1))
        flows: list[Tensor] = self.refine(maps)
        return flows

    cost = staticmethod(refine.cost)
