"""Two streams (Simonyan and Zisserman 2014, arXiv:1406.2199): one sees the frames, the other how things move.

What the second sees is the flow from each frame to the next, said by a head of `--task flow` that has learnt before and
does not change here (section 3.1). Both streams begin as the same backbone, and the mean of what they say counts
(section 5; inflated, as in Carreira and Zisserman 2017, arXiv:1705.07750, section 2.4). Departures: flow is computed
from the frames as they are seen, and is no file; each field is a picture by itself, its third channel the speed, in
place of a stack of several; both streams learn together.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Literal, final

import torch
from torch import Tensor, nn

from seeall.backbones.contract import Backbone
from seeall.backbones.inflate import Taps, Which
from seeall.heads.action.networks import InflatedAction, PerFrame
from seeall.heads.flow.refine import enlarged
from seeall.types import SeeallError

_RANGE = 2.0
"""What the largest flow becomes: about as far from the mean as normalised pixels are."""


@final
class TwoStream(nn.Module):
    """x (B, 3, T, H, W) normalised → logits (B, K).

    flow_head: opens a run of flow
    flow: that run · streams: what both are · bound: px a frame above which all speeds are one
    kernel, which, taps: of inflated streams · dropout: share of the embeddings that is left out while learning

    Raises: SeeallError for settings out of bounds, and where there is no run of flow.
    """

    def __init__(
        self, backbone: Backbone, classes: int, flow_head: Callable[[str], nn.Module], *, flow: str = "",
        streams: Literal["inflated", "per-frame"] = "inflated", bound: float = 8.0, kernel: int = 3,
        which: Which = "half", taps: Taps = "turns", dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        if not bound > 0:
            raise SeeallError(f"setting 'bound' is {bound}: choose px a frame, above 0")
        self.flow, self.bound = flow_head(flow).requires_grad_(False), bound

        def stream(seen: Backbone) -> nn.Module:
            if streams == "per-frame":
                return PerFrame(seen, classes, dropout=dropout)
            return InflatedAction(seen, classes, kernel=kernel, which=which, taps=taps, dropout=dropout)

        self.backbones = (backbone, copy.deepcopy(backbone))
        """Of the stream that sees frames, and of the other: both are held, and learn as fast, as is asked of one."""
        self.moving, self.still = stream(self.backbones[1]), stream(self.backbones[0])
        known = backbone.preprocessing
        self.mean: Tensor
        self.std: Tensor
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(known[name]).view(1, 3, 1, 1, 1), persistent=False)
        self.train()

    def train(self, mode: bool = True) -> TwoStream:
        """The head of flow does not learn, nor do its means."""
        super().train(mode)
        self.flow.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        said: Tensor = (self.still(x) + self.moving(self.motion(x))) / 2
        return said

    @torch.no_grad()
    def motion(self, x: Tensor) -> Tensor:
        """(B, 3, T - 1, H, W): to the right, down, and the speed; of one frame alone, no motion."""
        if x.shape[2] < 2:
            return torch.zeros_like(x)
        frames = self.flow.normalise((x * self.std + self.mean).transpose(1, 2).flatten(0, 1))  # type: ignore[operator]
        frames = frames.unflatten(0, (x.shape[0], -1))
        pairs = frames[:, :-1].flatten(0, 1), frames[:, 1:].flatten(0, 1)
        vectors = enlarged(self.flow.network(*pairs)[0].float(), x.shape[-2:]) / self.bound  # type: ignore[operator]
        seen = torch.cat([vectors, vectors.square().sum(1, keepdim=True).sqrt()], 1).clamp(-1, 1) * _RANGE
        clips: Tensor = seen.view(x.shape[0], -1, *seen.shape[1:]).transpose(1, 2).to(x.dtype)
        return clips
