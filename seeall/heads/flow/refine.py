"""What FlowNetS and FlowNetC share: refinement from coarse to fine, what it costs, and looking at two frames at once.

Source: Dosovitskiy et al. 2015, arXiv:1504.06852, section 3 and figure 3; the weights of the scales are those of the
authors' training files. Departures: every scale says the flow in px of the frames themselves, and maps of any size are
made to meet by cutting.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seeall.backbones.contract import Backbone
from seeall.backbones.flownet import layer
from seeall.types import SeeallError

_WEIGHTS = (1, 2, 4, 16, 64)
"""Of a place at the finest scale, the next coarser one, …; of coarser ones still as of the last."""
_NARROWEST, _FIRST, _GAIN = 16, 1e-3, 4.0


@final
class Refinement(nn.Module):
    """maps, finest first → flows, finest first, each as large as its map: (B, 2, hᵢ, wᵢ), px of the frames.

    channels: of the maps · width: of what a scale hands to the next finer one; half of that for the scale after it, and
    so on, down to 16 · unit: what an output of 1 means, px. A step of the optimiser moves outputs by so many units,
    whatever they are: the authors' 20, at a tenth of the usual rate here, suits motion of tens of px

    Raises: SeeallError for a unit that is not above 0.
    """

    def __init__(self, channels: Sequence[int], width: int, norm: bool, unit: float) -> None:
        super().__init__()
        if not 0 < unit < math.inf:
            raise SeeallError(f"setting 'unit' is {unit}: choose px, above 0; 5 is usual")
        self.unit = unit
        self.says, self.ups, self.doubles = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        before = channels[-1]
        for k, side in enumerate([*reversed(channels[:-1]), None]):
            self.says.append(_saying(before))
            if side is not None:
                own = max(_NARROWEST, width >> k)
                self.ups.append(_doubling(before, own, norm))
                self.doubles.append(nn.ConvTranspose2d(2, 2, 4, 2, 1))
                before = side + own + 2

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """See above."""
        x, flows = maps[-1], list[Tensor]()
        for k, says in enumerate(self.says):
            flows.insert(0, says(x))
            if k < len(self.ups):
                side = maps[-2 - k]
                x = torch.cat([side, _cut(self.ups[k](x), side), _cut(self.doubles[k](flows[0]), side)], 1)
        return [self.unit * flow for flow in flows]


def _saying(channels: int) -> nn.Conv2d:
    """Begins by saying that next to nothing moves."""
    made = nn.Conv2d(channels, 2, 3, padding=1)
    nn.init.normal_(made.weight, std=_FIRST / channels**0.5)
    nn.init.zeros_(made.bias)  # type: ignore[arg-type]
    return made


def _doubling(before: int, channels: int, norm: bool) -> nn.Sequential:
    made = nn.ConvTranspose2d(before, channels, 4, 2, 1, bias=not norm)
    return nn.Sequential(made, *layer(channels, channels, 3, 1, norm)[1:])


def _cut(x: Tensor, like: Tensor) -> Tensor:
    return x[..., : like.shape[-2], : like.shape[-1]]


def cost(flows: Sequence[Tensor], true: Tensor, known: Tensor) -> Tensor:
    """Σₗ wₗ nₗ / n₀ · the mean end-point error at scale l, px, over places some of whose pixels' flow is known.

    nₗ: places of scale l, as the authors' losses are sums over places, a scale having a quarter of the next finer one's

    flows: (B, 2, hₗ, wₗ), finest first · true: (B, 2, H, W) px · known: (B, H, W); at a scale the truth is the mean of
    what is known within a place
    """
    share = known[:, None].to(true.dtype)
    total, finest = true.new_zeros(()), flows[0][0, 0].numel()
    for k, flow in enumerate(flows):
        size = (flow.shape[-2], flow.shape[-1])
        there = F.adaptive_avg_pool2d(share, size)
        mean = F.adaptive_avg_pool2d(true * share, size) / there.clamp(min=1e-6)
        error = (flow - mean).square().sum(1).clamp(min=1e-12).sqrt()
        counts = there[:, 0] > 0
        weight = _WEIGHTS[min(k, len(_WEIGHTS) - 1)] * counts[0].numel() / finest
        total = total + weight * (error * counts).sum() / counts.sum().clamp(min=1)
    return total


def enlarged(flow: Tensor, size: Sequence[int]) -> Tensor:
    """(B, 2, h, w) → (B, 2, *size), bilinear; what the flow says stays in px of the frames."""
    return flow if list(flow.shape[-2:]) == list(size) else F.interpolate(flow, list(size), mode="bilinear")


def together(first: Tensor, second: Tensor) -> Tensor:
    """Frames (B, 3, H, W) each → (B, 6, H, W), their mean and their difference, enlarged.

    The same as both side by side, for a network that can learn any filters; but what little motion changes is not lost
    in what the frames have in common, so that it is learnt sooner.
    """
    return torch.cat([(first + second) / 2, _GAIN * (second - first)], 1)


def paired(backbone: Backbone) -> Backbone:
    """The same backbone, made to look at two frames at once: its first convolution takes (B, 6, H, W), see `together`.

    It begins with what it had learnt for one frame, and says the same of two equal ones; differences go through the
    same filters, each into the output of another one. Raises: SeeallError where the network has no convolution over 3
    channels.
    """
    for parent in backbone.network.modules():
        for name, module in parent.named_children():
            if isinstance(module, nn.Conv2d) and module.in_channels == backbone.inputs == 3 and module.groups == 1:
                wide = copy.deepcopy(module)
                wide.in_channels, wide.weight = 6, nn.Parameter(torch.cat([module.weight, module.weight.roll(1, 0)], 1))
                setattr(parent, name, wide)
                backbone.inputs, backbone.altered = 6, True
                return backbone
    raise SeeallError("this backbone has no convolution over three channels that two frames could share")
