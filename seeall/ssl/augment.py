"""The augmentations of the SimCLR study (Chen et al. 2020, figures 4 and 5) as batched tensor operations.

Crop, resize and flip are in `seeall.data.crops`; here are the nine that change what a square crop looks like.
Every operation takes a batch and one parameter a sample, returns a new batch and draws nothing itself. On the
same parameters the results are those of torchvision, to float rounding.

x is always (N, 3, S, S) float32 in [0, 1], RGB, and so is the result. Parameters are (N,) tensors, and may
lie on the CPU while x is on another device.

Departures: jitter has one order, brightness, contrast, saturation, hue, and not a random one. Formulas are
chosen for few passes over memory and without comparisons, which are many times as slow on a CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from seeall.ssl.colour import column, hue, luminance

BLOCK = 32
"""Pixels blurred by one product of a band of the kernel matrix."""


def brightness(x: Tensor, factor: Tensor) -> Tensor:
    """Scaled by `factor` ≥ 0 and clamped."""
    return (x * column(x, factor)).clamp_(0, 1)


def contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Drawn to (factor < 1) or away from the mean luminance of the picture."""
    weight = column(x, factor)
    mean = luminance(x.flatten(2).mean(2)[:, :, None, None])
    return (x * weight).add_(mean.mul_(1 - weight)).clamp_(0, 1)


def saturation(x: Tensor, factor: Tensor) -> Tensor:
    """Drawn to (factor < 1) or away from the luminance of the pixel."""
    weight = column(x, factor)
    return (x * weight).add_(luminance(x).mul_(1 - weight)).clamp_(0, 1)


def jitter(x: Tensor, factors: Tensor) -> Tensor:
    """Colour jitter. factors: (N, 4) for brightness, contrast, saturation and hue (turns), in this order."""
    x = saturation(contrast(brightness(x, factors[:, 0]), factors[:, 1]), factors[:, 2])
    return hue(x, factors[:, 3])


def grey(x: Tensor) -> Tensor:
    """Colour drop: three times the luminance (ITU-R 601)."""
    return luminance(x).expand_as(x)


def blur_kernel_size(size: int) -> int:
    """A tenth of the side, odd, at least 3 (Chen et al. 2020, appendix A): 23 at 224 px."""
    return 2 * max(1, size // 20) + 1


def blur(x: Tensor, sigma: Tensor, kernel_size: int) -> Tensor:
    """Gaussian blur, the picture reflected at its edges. sigma: px; kernel_size: odd, less than 2 S.

    Reflection folded in, each direction is a product with a band matrix, of which only the band is
    multiplied, block by block: several times as fast on a CPU as a convolution by channel.
    """
    N, channels, S, _ = x.shape
    radius = kernel_size // 2
    offset = torch.arange(-radius, radius + 1, device=x.device)
    kernel = torch.exp(-0.5 * (offset / column(x, sigma).flatten(1)) ** 2)
    kernel /= kernel.sum(1, keepdim=True)
    source = (torch.arange(S, device=x.device)[:, None] + offset).abs()
    source = (S - 1 - (S - 1 - source).abs()).clamp_(0, S - 1)
    matrix = torch.zeros(N, S, S, device=x.device)
    matrix.scatter_add_(2, source.expand(N, -1, -1), kernel[:, None, :].expand(-1, S, -1))
    bands = [
        (slice(first, first + BLOCK), slice(max(0, first - radius), first + BLOCK + radius))
        for first in range(0, S, BLOCK)
    ]
    rows = x.reshape(N, channels * S, S)
    across = torch.cat([torch.bmm(rows[:, :, near], matrix[:, own, near].mT) for own, near in bands], 2)
    across = across.view(N, channels, S, S)
    down = [torch.matmul(matrix[:, None, own, near], across[:, :, near]) for own, near in bands]
    return torch.cat(down, 2).clamp_(0, 1)


def rotate(x: Tensor, turns: Tensor) -> Tensor:
    """Rotated by quarter turns, counter-clockwise. turns: (N,) int, on the CPU, 0 to 3."""
    out = x.clone()
    for quarter in (1, 2, 3):
        rows = (turns == quarter).nonzero().flatten().to(x.device, non_blocking=True)
        if len(rows):
            out.index_copy_(0, rows, torch.rot90(x.index_select(0, rows), quarter, (2, 3)))
    return out


def cutout(x: Tensor, boxes: Tensor, value: float = 0.5) -> Tensor:
    """A rectangle of one grey (DeVries and Taylor 2017). boxes: (N, 4) x0, y0, width, height, px; parts
    outside the picture are dropped."""
    place = torch.arange(x.shape[-1], device=x.device)
    x0, y0, w, h = boxes.to(x.device, non_blocking=True)[:, :, None].unbind(1)
    columns = ((place >= x0) & (place < x0 + w)).to(x.dtype)
    rows = ((place >= y0) & (place < y0 + h)).to(x.dtype)
    hole = (rows[:, :, None] * columns[:, None, :])[:, None]
    return (x * (1 - hole)).add_(hole * value)


def noise(x: Tensor, sigma: Tensor, normal: Tensor) -> Tensor:
    """Gaussian noise of standard deviation `sigma`. normal: like x, standard normal numbers."""
    return (normal * column(x, sigma)).add_(x).clamp_(0, 1)


def sobel(x: Tensor) -> Tensor:
    """Gradient magnitude of each channel (Sobel and Feldman 1968), the picture repeated at its edges.

    A step from 0 to 1 along an axis gives 1; steeper slants are clamped.
    """
    S = x.shape[-1]
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    smooth = (padded[:, :, 1:-1] * 2).add_(padded[:, :, :-2]).add_(padded[:, :, 2:])
    across = smooth[..., 2:] - smooth[..., :S]
    smooth = (padded[..., 1:-1] * 2).add_(padded[..., :-2]).add_(padded[..., 2:])
    down = smooth[:, :, 2:] - smooth[:, :, :S]
    return torch.hypot(across, down).mul_(0.25).clamp_(0, 1)
