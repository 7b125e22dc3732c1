"""SlowFast (Feichtenhofer, Fan, Malik and He 2019, arXiv:1812.03982): two pathways look at a clip at two speeds.

The slow one is the backbone, on every α-th frame, with β⁻¹ times the channels of the fast one, which is small, sees all
frames, and has kernels over time throughout. After each stage what the fast one has found goes over to the slow one, by
a convolution over time of stride α (section 3.4). Departures: it is added to the slow map, not put beside it, so that
the backbone keeps its shape; the fast pathway is a plain one of residual blocks, whatever the backbone is.
"""

from __future__ import annotations

from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seeall.backbones.contract import Backbone
from seeall.heads.action.networks import dropped
from seeall.types import SeeallError

_LATERAL = 5
"""Frames that a lateral convolution sees."""
_PROBE = 64


@final
class SlowFast(nn.Module):
    """x (B, 3, T, H, W) normalised → logits (B, K), of both pathways' means over space and time.

    alpha: the slow pathway sees every so manieth frame · beta: channels of the fast one, as a share of the slow one's
    dropout: share of both left out while learning

    Raises: SeeallError for settings out of bounds, and for a backbone whose stages are no modules of their own.
    """

    def __init__(
        self, backbone: Backbone, classes: int, *, alpha: int = 4, beta: float = 0.125, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if not 0 < beta <= 1:
            raise SeeallError(f"setting 'beta' is {beta}: choose a share above 0, 1 at most")
        self.backbone, self.alpha, self.dropout = backbone, alpha, dropped(dropout)
        widths = [max(4, round(beta * channels)) for channels in backbone.channels]
        self.fast = _Fast(widths, backbone.strides)
        self.over = nn.ModuleList(
            nn.Conv3d(width, channels, (_LATERAL, 1, 1), (alpha, 1, 1), (_LATERAL // 2, 0, 0), bias=False)
            for width, channels in zip(widths, backbone.channels)
        )
        for lateral in self.over:
            nn.init.normal_(lateral.weight, std=0.01)  # type: ignore[arg-type]
        self.score = nn.Linear(backbone.embed_dim + widths[-1], classes)
        self._coming: list[Tensor] = []
        for i, module in enumerate(stage_modules(backbone)):
            module.register_forward_hook(lambda *seen, i=i: self._joined(i, seen[2]))

    def _joined(self, stage: int, slow: Tensor) -> Tensor:
        """What leaves a stage of the slow pathway."""
        if not self._coming:
            return slow
        return slow + self._coming[stage].transpose(1, 2).flatten(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        maps = self.fast(x)
        slow = x[:, :, :: self.alpha]
        self._coming = [lateral(part) for lateral, part in zip(self.over, maps)]
        try:
            embedded = self.backbone(slow.transpose(1, 2).flatten(0, 1)).unflatten(0, (x.shape[0], -1)).mean(1)
        finally:
            self._coming = []
        both = torch.cat([embedded, maps[-1].mean((2, 3, 4))], 1)
        scores: Tensor = self.score(self.dropout(both))
        return scores


@final
class _Fast(nn.Module):
    """x (B, 3, T, H, W) → a map for each stage, (B, widths[i], T, ⌈H / strides[i]⌉, ⌈W / strides[i]⌉)."""

    def __init__(self, widths: list[int], strides: tuple[int, ...]) -> None:
        super().__init__()
        self.stages, before, stride = nn.ModuleList(), 3, 1
        for width, now in zip(widths, strides):
            kernel = 5 if before == 3 else 3
            self.stages.append(nn.Sequential(*_block(before, width, kernel, now // stride), _Residual(width)))
            before, stride = width, now

    def forward(self, x: Tensor) -> list[Tensor]:
        """The maps."""
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


def _block(before: int, width: int, time: int, stride: int) -> list[nn.Module]:
    """A convolution over time and space that makes the map `stride` times smaller, whatever its size is."""
    space = max(3, stride + stride % 2 + 1)
    padding = (time // 2, space // 2, space // 2)
    made = nn.Conv3d(before, width, (time, space, space), (1, stride, stride), padding, bias=False)
    return [made, nn.BatchNorm3d(width), nn.ReLU(inplace=True)]


@final
class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        flat = nn.Conv3d(width, width, (1, 3, 3), 1, (0, 1, 1), bias=False)
        self.way = nn.Sequential(*_block(width, width, 3, 1), flat, nn.BatchNorm3d(width))

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, T, H, W), the same shape."""
        return F.relu(x + self.way(x))


@torch.no_grad()
def stage_modules(backbone: Backbone) -> list[nn.Module]:
    """The module that gives each stage's map; the outermost where there are several.

    Raises: SeeallError where a map is no module's own output.
    """
    given: list[tuple[nn.Module, Any]] = []
    hooks = [
        module.register_forward_hook(lambda module, _, out: given.append((module, out)))
        for module in backbone.network.modules()
    ]
    training = backbone.training
    try:
        maps = backbone.eval().stages(torch.zeros(1, backbone.inputs, _PROBE, _PROBE))
    finally:
        backbone.train(training)
        for hook in hooks:
            hook.remove()
    found = []
    for one in maps:
        module = next((module for module, out in reversed(given) if out is one), None)
        if module is None:
            raise SeeallError(
                "slowfast needs a backbone whose stages are modules of their own, as a ResNet's are; choose another"
            )
        found.append(module)
    return found
