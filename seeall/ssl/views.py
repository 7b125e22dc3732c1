"""Which augmentations make the views of a picture, how often and how strongly (Chen et al. 2020, appendix A).

A view is a function of (seed, epoch, index of the sample, number of the view) and of the picture: the same
whatever the batch, its order and the workers. Parameters are drawn on the CPU for a whole batch, so it is
known without asking the device which samples an operation concerns, and only those are touched.

The defaults are the paper's for CIFAR-10: colour strength 0.5, which is jitter 0.4 and hue 0.1 here, and no
blur below 64 px. The paper's crops cover 0.08 to 1 of the picture; 0.2 is ours. The four that it studied and
left out of its recipe have probability 0: rotation by quarter turns, Sobel filtering, Gaussian noise and
cutout. How strong these are is our choice too: the constants below.

Why not kornia, which is batched too: a core makes 3 to 4 times fewer views a second with it (4,400 against
17,000 at 32 px, 126 against 396 from 500x375 JPEGs to 224 px, in one run of benchmarks/views.py with --json),
its crops do not antialias by default, and its parameters come from a global generator and not from a key. torchvision's
transforms draw one set of parameters for a whole batch; picture by picture they are slower still.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from seeall.data import crops, keyed
from seeall.ssl import augment
from seeall.types import SeeallError

CROP, PHOTOMETRIC, NOISE = 101, 102, 103
"""Streams of random numbers, so that no two uses share a key."""
BLUR_SIGMA = (0.1, 2.0)
"""Pixels."""
BLUR_FROM = 64
"""The smallest side, px, that is blurred where `blur` is none."""
NOISE_SIGMA = (0.0, 0.1)
CUTOUT_SIDE = 0.5
"""Of the picture's side, as DeVries and Taylor (2017) chose for CIFAR-10; the centre is anywhere in it."""
Operation = Callable[..., Tensor]
Step = tuple[Tensor, Operation, list[Tensor]]
"""(N,) bool, the rows concerned; what is done to them; its parameters, a row each."""


class Views:
    """The recipe. Rows are ordered by view: all first views of a batch, then all second ones.

    views: how many of each picture, none: 2, or 1 where something else than views belongs together; crop_min: the
    least share of the picture's area in a crop; flip: share mirrored; jitter: strength of brightness, contrast and
    saturation, factors being uniform in 1 ± jitter; hue: greatest shift, in turns, up to 0.5; jitter_p: share whose
    colours are jittered; grey, blur, rotate, cutout, noise, sobel: share of views each is applied to. blur none: 0
    below 64 px, 0.5 from there.

    Raises: SeeallError, naming the setting, where one is out of range.
    """

    def __init__(
        self,
        *,
        views: int | None = None,
        crop_min: float = 0.2,
        flip: float = 0.5,
        jitter: float = 0.4,
        hue: float = 0.1,
        jitter_p: float = 0.8,
        grey: float = 0.2,
        blur: float | None = None,
        rotate: float = 0.0,
        cutout: float = 0.0,
        noise: float = 0.0,
        sobel: float = 0.0,
    ) -> None:
        shares = {"flip": flip, "jitter_p": jitter_p, "grey": grey, "rotate": rotate, "cutout": cutout}
        shares |= {"noise": noise, "sobel": sobel, "jitter": jitter} | ({} if blur is None else {"blur": blur})
        for name, value in shares.items():
            _within(name, value, 0, 1)
        _within("hue", hue, 0, 0.5)
        if not 0 < crop_min <= 1:
            raise SeeallError(f"setting 'crop_min' is {crop_min}: choose a share above 0 and up to 1")
        if views is not None and views < 1:
            raise SeeallError(f"setting 'views' is {views}: choose at least 1")
        self.views, self.crop_min, self.flip = views or 2, crop_min, flip
        self.jitter, self.hue, self.jitter_p, self.grey, self.blur = jitter, hue, jitter_p, grey, blur
        self.rotate, self.cutout, self.noise, self.sobel = rotate, cutout, noise, sobel

    def boxes(self, seed: int, epoch: int, index: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """Where to cut, for the functions of `seeall.data.crops`.

        index: (B,) int64, the samples' numbers in the data set; sizes: (B, 2) int, height and width, px.

        Returns: (V·B, 4) int64, x0, y0, width, height, inside the pictures; (V·B,) bool, mirror it or not.
        """
        u = self._uniform(seed, epoch, index, CROP, 5)
        boxes = crops.sample_boxes(u[:, :4], sizes.cpu().repeat(self.views, 1), (self.crop_min, 1.0))
        return boxes, u[:, 4] < self.flip

    def photometric(self, x: Tensor, seed: int, epoch: int, index: Tensor) -> Tensor:
        """Everything after the crop.

        x: (V·B, 3, S, S), uint8 or float in [0, 1], on any device, left as it is; index: as for `boxes`, the
        B samples that x holds V views of.

        Returns: (V·B, 3, S, S) float32 in [0, 1], where x is; not normalised.
        Raises: ValueError where x has another number of rows.
        """
        u = self._uniform(seed, epoch, index, PHOTOMETRIC, 16)
        if len(x) != len(u):
            raise ValueError(f"{len(x)} rows are not {self.views} views of {len(index)} samples")
        noise_keys = keyed.bits(seed, epoch, index.cpu(), torch.arange(self.views)[:, None], NOISE).flatten()
        steps = self._steps(u, noise_keys, x.shape[-1])
        out = torch.empty(x.shape, device=x.device)
        step = max(1, crops.CHUNK // x[0].numel()) if x.device.type == "cpu" else len(x)
        for first in range(0, len(x), step):
            part = slice(first, first + step)
            piece = out[part].copy_(x[part])
            if not x.is_floating_point():
                piece.div_(255)
            for concerned, operation, parameters in steps:
                _replace(piece, concerned[part], operation, [p[part] for p in parameters])
        return out

    def _uniform(self, seed: int, epoch: int, index: Tensor, stream: int, n: int) -> Tensor:
        """(V·B, n): view v of sample i has the key (seed, epoch, i, v, stream)."""
        view = torch.arange(self.views)[:, None]
        return keyed.uniform(seed, epoch, index.cpu()[None], view, stream, n=n).flatten(0, 1)

    def _steps(self, u: Tensor, noise_keys: Tensor, size: int) -> list[Step]:
        """What is done to which rows of a batch, in order. u: (N, 16), each operation reading columns of its
        own, so that switching one on or off leaves the others as they are."""
        strength = torch.tensor([self.jitter] * 3 + [self.hue])
        factors = (2 * u[:, 3:7] - 1) * strength + torch.tensor([1.0, 1.0, 1.0, 0.0])
        blur = self.blur if self.blur is not None else 0.5 * (size >= BLUR_FROM)
        blurred = partial(augment.blur, kernel_size=augment.blur_kernel_size(size))
        side = round(CUTOUT_SIDE * size)
        corner = (u[:, 14:16] * size).long() - side // 2
        hole = torch.cat([corner, torch.full_like(corner, side)], 1)
        steps: list[Step] = [
            (u[:, 0] < self.rotate, augment.rotate, [1 + (u[:, 1] * 3).long()]),
            (u[:, 2] < self.jitter_p, augment.jitter, [factors]),
            (u[:, 7] < self.grey, augment.grey, []),
            (u[:, 8] < blur, blurred, [_between(u[:, 9], BLUR_SIGMA)]),
            (u[:, 10] < self.sobel, augment.sobel, []),
            (u[:, 11] < self.noise, _add_noise, [_between(u[:, 12], NOISE_SIGMA), noise_keys]),
            (u[:, 13] < self.cutout, augment.cutout, [hole]),
        ]
        return [step for step in steps if step[0].any()]


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise SeeallError(f"setting {name!r} is {value}: choose a number from {low} to {high}")


def _between(u: Tensor, span: tuple[float, float]) -> Tensor:
    return span[0] + (span[1] - span[0]) * u


def _replace(x: Tensor, concerned: Tensor, operation: Operation, parameters: list[Tensor]) -> None:
    """Put operation(x, *parameters) in the place of the rows concerned. All but x is on the CPU."""
    rows = concerned.nonzero().flatten()
    if len(rows) == len(x):
        x.copy_(operation(x, *parameters))
    elif len(rows):
        there = rows.to(x.device, non_blocking=True)
        x.index_copy_(0, there, operation(x.index_select(0, there), *(p[rows] for p in parameters)))


def _add_noise(x: Tensor, sigma: Tensor, keys: Tensor) -> Tensor:
    normal = keyed.normal(keys.to(x.device, non_blocking=True), n=x[0].numel()).view_as(x)
    return augment.noise(x, sigma, normal)
