"""Random crops resized to a square, with a flip: drawn for a whole batch, cut in two ways.

The distribution is that of Inception crops (Szegedy et al. 2015), as torchvision's RandomResizedCrop draws
it: the area uniform in `scale`, the aspect ratio log-uniform in `ratio`, the place uniform. One departure:
where a box does not fit the picture, the side that is too long is cut to the picture's instead of drawing up
to ten times again, so that every crop costs one draw.

The resize is bilinear with antialiasing, as Pillow and `torch.nn.functional.interpolate(antialias=True)` do
it. It is linear and separable, so for pictures of one size a whole batch of crop, resize and flip is two
batched matrix products, `Wy @ picture @ Wxᵀ`. Pictures that differ in size are cut one by one.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

RATIO = (3 / 4, 4 / 3)
CHUNK = 1 << 18
"""Numbers in a piece of a batch that a CPU works on at once: 1 MiB of float32, so that it stays in cache."""


def sample_boxes(u: Tensor, sizes: Tensor, scale: tuple[float, float], ratio: tuple[float, float] = RATIO) -> Tensor:
    """Boxes inside pictures, in whole pixels.

    u: (N, 4) in [0, 1), for area, ratio, x and y; sizes: (N, 2) int, height and width of each picture;
    scale: the least and greatest share of the picture's area; ratio: of width to height.

    Returns: (N, 4) int64, x0, y0, width, height, at least one pixel each way.

    >>> sample_boxes(torch.zeros(1, 4), torch.tensor([[100, 100]]), scale=(0.03, 1.0))
    tensor([[ 0,  0, 15, 20]])
    """
    area, aspect, x, y = u.double().unbind(1)
    height, width = sizes.double().unbind(1)
    area = (scale[0] + (scale[1] - scale[0]) * area) * height * width
    aspect = torch.exp(math.log(ratio[0]) + (math.log(ratio[1]) - math.log(ratio[0])) * aspect)
    w = torch.minimum(torch.sqrt(area * aspect).round().clamp_min(1), width)
    h = torch.minimum(torch.sqrt(area / aspect).round().clamp_min(1), height)
    x0 = torch.floor(x * (width - w + 1))
    y0 = torch.floor(y * (height - h + 1))
    return torch.stack([x0, y0, w, h], 1).long()


def crop_batch(pictures: Tensor, boxes: Tensor, flips: Tensor, size: int) -> Tensor:
    """Crops of pictures of one size, small ones above all: the cost grows with the whole picture.

    pictures: (B, 3, H, W) uint8, or float in [0, 1]; boxes: (N, 4) x0, y0, width, height, inside the
    picture, px; flips: (N,) bool, mirrored left to right. N is a multiple of B, and row n is cut from picture
    n mod B: all first views, then all second ones.

    Returns: (N, 3, size, size) float32 in [0, 1], on the device of the pictures.
    """
    B, channels, H, W = pictures.shape
    views = boxes.shape[0] // B
    boxes = boxes.to(pictures.device, torch.float32, non_blocking=True).view(views, B, 4)
    mirrored = flips.to(pictures.device, non_blocking=True).view(views, B)
    out = torch.empty(views, B, channels, size, size, device=pictures.device)
    step = B if pictures.device.type != "cpu" else max(1, CHUNK // (channels * max(H * W, size * size)))
    for first in range(0, B, step):
        part = slice(first, first + step)
        source = pictures[part].to(torch.float32)
        rows = source.reshape(len(source), channels * H, W)
        for view in range(views):
            x0, y0, w, h = boxes[view, part].unbind(1)
            Wx = resize_matrix(x0, w, W, size, mirrored[view, part])
            if not pictures.is_floating_point():
                Wx.div_(255)
            Wy = resize_matrix(y0, h, H, size)
            narrow = torch.bmm(rows, Wx.mT).view(-1, channels, H, size)
            for c in range(channels):
                out[view, part, c] = torch.bmm(Wy, narrow[:, c])
            out[view, part].clamp_(0, 1)
    return out.view(-1, channels, size, size)


def resize_matrix(start: Tensor, length: Tensor, source: int, size: int, mirrored: Tensor | None = None) -> Tensor:
    """(N, size, source) float32: what each source pixel gives to each pixel of a resized stretch.

    A triangle about the pixel's centre, as wide as the pixel is where the stretch is shrunk and one source
    pixel where it is enlarged; nothing from outside the stretch; rows sum to one. start, length: (N,) float,
    px; mirrored: (N,) bool, the stretch read backwards.
    """
    target = torch.arange(size, dtype=torch.float32, device=start.device).expand(len(start), -1)
    if mirrored is not None:
        target = torch.where(mirrored[:, None], size - 1 - target, target)
    place = torch.arange(source, dtype=torch.float32, device=start.device) - start[:, None]
    inside = ((place >= 0) & (place < length[:, None])).to(torch.float32)
    scale = length[:, None, None] / size
    weights = (place + 0.5)[:, None, :] - (target + 0.5)[:, :, None] * scale
    weights.abs_().mul_(-1 / scale.clamp_min(1)).add_(1).clamp_min_(0).mul_(inside[:, None, :])
    return weights.div_(weights.sum(-1, keepdim=True))


def crop_one(picture: NDArray[np.uint8], box: tuple[int, int, int, int], flip: bool, size: int) -> Tensor:
    """One crop of one picture. Safe in threads: it shares nothing and leaves the picture as it is.

    picture: (H, W, 3) uint8; box: x0, y0, width, height, inside the picture, px.

    Returns: (3, size, size) uint8, contiguous.
    """
    x0, y0, w, h = box
    stretch = picture[y0 : y0 + h, x0 : x0 + w, :]
    cut = torch.from_numpy((stretch[:, ::-1] if flip else stretch).copy()).permute(2, 0, 1)[None]
    resized = F.interpolate(cut, (size, size), mode="bilinear", antialias=True)[0]
    return torch.from_numpy(resized.numpy().copy(order="C"))  # by numpy: torch would start threads of its own
