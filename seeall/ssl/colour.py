"""Luminance and hue, without a detour over angles.

With m and V the least and greatest of a pixel's R, G, B and C = V - m, its hue in sixths of a turn is

    h = sign(G - B) · (1 + (G + B - R - m) / C)      in [-3, 3]

and turned to a, wrapped into [-3, 3], the colour is

    R = V - C · clamp(|a| - 1, 0, 1)    G = V - C · clamp(2 - |a + 1|, 0, 1)    B = V - C · clamp(2 - |a - 1|, 0, 1)

It is the hexagonal HSV model (Smith 1978), as torchvision's adjust_hue follows it case by case; here there are
no cases, so every step is a vectorised pass.
"""

from __future__ import annotations

import torch
from torch import Tensor

WEIGHTS = (0.2989, 0.587, 0.114)
"""Of R, G and B in the luminance: ITU-R 601, rounded as torchvision rounds them."""


def luminance(x: Tensor) -> Tensor:
    """(N, 3, …) RGB to (N, 1, …)."""
    red, green, blue = x[:, 0:1], x[:, 1:2], x[:, 2:3]
    return (red * WEIGHTS[0]).add_(green, alpha=WEIGHTS[1]).add_(blue, alpha=WEIGHTS[2])


def column(x: Tensor, parameter: Tensor) -> Tensor:
    """A parameter a sample, (N,), as (N, 1, 1, 1) where x is, without waiting for the device."""
    return parameter.to(x.device, x.dtype, non_blocking=True).view(-1, 1, 1, 1)


def hue(x: Tensor, turn: Tensor) -> Tensor:
    """x: (N, 3, H, W) RGB in [0, 1], its hue turned by `turn`: (N,), in full turns, -0.5 to 0.5."""
    red, green, blue = x[:, 0:1], x[:, 1:2], x[:, 2:3]
    greatest, least = x.amax(1, keepdim=True), x.amin(1, keepdim=True)
    chroma = greatest - least
    angle = (green + blue).sub_(red).sub_(least).div_(chroma.clamp_min(1e-12)).add_(1)
    angle = torch.copysign(angle, green - blue).add_(column(x, 6 * turn))
    angle.sub_((angle * (1 / 6)).round_(), alpha=6)
    out = torch.empty_like(x)
    torch.add(angle, 1, out=out[:, 1:2])
    torch.sub(angle, 1, out=out[:, 2:3])
    out[:, 1:].abs_().sub_(2).clamp_(-1, 0).mul_(chroma).add_(greatest)
    torch.mul(angle.abs_().sub_(1).clamp_(0, 1), chroma, out=chroma)
    torch.sub(greatest, chroma, out=out[:, 0:1])
    return out
