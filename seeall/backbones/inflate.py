"""A network for pictures made one for clips: its kernels get a third side, time (Carreira and Zisserman 2017, I3D,
arXiv:1705.07750, section 3).

A kernel of k × k becomes t × k × k, whose sum over time is the old one. So a still that is tiled in time gives the
features that the still gives, in every network: beyond the first and last frame, the frame itself goes on, where the
paper has zeros. All else in a network is done frame by frame, as it was written; so any backbone can be inflated, its
walk as it is. Departures: the paper repeats the old kernel t times and divides it by t, which is `taps="mean"`: such a
network cannot tell a clip from the same clip backwards, and takes long to learn it. Here each filter sees one frame.
And time is not pooled on the way, but by `every`, at the first convolution.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seeall.backbones.contract import Backbone
from seeall.types import SeeallError

Which = Literal["all", "half", "first"]
Taps = Literal["turns", "mean", "middle"]


@dataclass
class _Clock:
    """How many frames each clip has where the network is now."""

    frames: int = 1


@final
class TimeConvolution(nn.Conv3d):
    """x (B·T, C, H, W) → (B·T', K, H', W'): a convolution over the frames of B clips."""

    clock: _Clock

    def forward(self, x: Tensor) -> Tensor:
        """See above; T' = ⌈T / stride⌉."""
        frames, (before, *_) = self.clock.frames, self.kernel_size
        clips = _unfolded(x, frames)
        if before > 1:
            clips = _held(clips, (before - 1) // 2, before // 2)
        y = F.conv3d(
            clips, self.weight, self.bias, self.stride, (0, *self.padding[1:]), self.dilation, self.groups
        )  # fmt: skip
        self.clock.frames = y.shape[2]
        return y.transpose(1, 2).flatten(0, 1)


def _unfolded(x: Tensor, frames: int) -> Tensor:
    """(B·T, C, H, W) → (B, C, T, H, W)."""
    return x.reshape(-1, frames, *x.shape[1:]).transpose(1, 2)


def _held(clips: Tensor, before: int, after: int) -> Tensor:
    """(B, C, T, H, W) with its first frame so many times more, and its last."""
    first, last = clips[:, :, :1], clips[:, :, -1:]
    return torch.cat([first.expand(-1, -1, before, -1, -1), clips, last.expand(-1, -1, after, -1, -1)], 2)


@final
class Inflated(nn.Module):
    """The contract of backbones over clips.

    channels, strides, embed_dim, preprocessing: as of the backbone; strides in space
    stages(x): x (B, 3, T, H, W) float, normalised → maps (B, Cᵢ, T', ⌈H / sᵢ⌉, ⌈W / sᵢ⌉)
    forward(x): → (B, embed_dim), the mean over time
    """

    def __init__(self, backbone: Backbone, clock: _Clock) -> None:
        super().__init__()
        self.backbone, self._clock = backbone, clock
        self.channels, self.strides, self.embed_dim = backbone.channels, backbone.strides, backbone.embed_dim
        self.preprocessing = backbone.preprocessing

    def stages(self, x: Tensor) -> list[Tensor]:
        """The maps of every stage."""
        return [_unfolded(part, part.shape[0] // x.shape[0]) for part in self.backbone.stages(self._folded(x))]

    def forward(self, x: Tensor) -> Tensor:
        """The embedding."""
        y: Tensor = self.backbone(self._folded(x))
        return y.view(x.shape[0], -1, y.shape[1]).mean(1)

    def _folded(self, x: Tensor) -> Tensor:
        self._clock.frames = x.shape[2]
        return x.transpose(1, 2).flatten(0, 1)


def inflate(
    backbone: Backbone, *, kernel: int = 3, which: Which = "all", every: int = 1, taps: Taps = "turns"
) -> Inflated:
    """The same network over clips; it takes over the weights, and the modules, of `backbone`.

    kernel: how many frames a kernel sees · which: of the convolutions with more than one tap, all of them, every second
    one, or the first; that is always inflated · every: the first convolution gives one map for so many frames
    taps: how kernels begin over time. `mean`: alike in all frames, as the paper has it; `middle`: zero in all but the
    middle one; `turns`: each filter sees one frame, the filters in turn the first, the second, …, so that the next
    layer can tell at once how frames differ. In all of them a still gives what it gave

    Raises: SeeallError where the network has no convolution to inflate, or `kernel` is even.
    """
    if kernel % 2 == 0:
        raise SeeallError(f"setting 'kernel' is {kernel}: choose an odd number of frames, so that one is in the middle")
    found = [
        (parent, name, module)
        for parent in backbone.network.modules()
        for name, module in parent.named_children()
        if isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1
    ]
    if isinstance(backbone.network, nn.Conv2d) or not found:
        raise SeeallError("this backbone has no convolution within it that could be inflated")
    clock, backbone.altered = _Clock(), True
    for i, (parent, name, module) in enumerate(found):
        if i == 0 or which == "all" or (which == "half" and i % 2 == 0):
            setattr(parent, name, _inflated(module, kernel, every if i == 0 else 1, taps, clock))
    return Inflated(backbone, clock)


def _inflated(flat: nn.Conv2d, kernel: int, every: int, taps: Taps, clock: _Clock) -> TimeConvolution:
    if isinstance(flat.padding, str) or flat.padding_mode != "zeros":
        raise SeeallError("this backbone has a convolution whose padding is not of zeros, which cannot be inflated")
    with torch.random.fork_rng(devices=[]):  # weights are set below
        (height, width), (down, across), (above, beside) = flat.kernel_size, flat.stride, flat.padding
        made = TimeConvolution(
            flat.in_channels, flat.out_channels, (kernel, height, width), (every, down, across), (0, above, beside),
            (1, flat.dilation[0], flat.dilation[1]), flat.groups, flat.bias is not None,
        )  # fmt: skip
    made.clock = clock
    weight = flat.weight.detach()
    if taps == "mean":
        made.weight = nn.Parameter(weight[:, :, None].repeat(1, 1, kernel, 1, 1) / kernel)
    else:
        filters = torch.arange(len(weight))
        made.weight = nn.Parameter(weight.new_zeros(made.weight.shape))
        made.weight.data[filters, :, filters % kernel if taps == "turns" else kernel // 2] = weight
    made.bias = copy.copy(flat.bias)
    return made
