"""Pictures in, features out: the one way that probes, the index and `ssl embed` see through a backbone."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seeall.backbones.contract import Backbone
from seeall.backbones.fold import folded
from seeall.backbones.load import load
from seeall.console import bar
from seeall.data.decode import Pixels, Unreadable
from seeall.data.pictures import Pictures
from seeall.data.pixels import cores, in_order, stretches
from seeall.types import SeeallError

BATCH = 256
"""Pictures that are seen at once, at most."""
_PIXELS, _PIXELS_CPU, _FEW = 1 << 22, 1 << 18, 8  # and their pixels: more take memory, and on a CPU leave its caches
_QUICK = 0.5e-3  # seconds: how soon a small picture is read

Squares = tuple[list[int], Tensor, list[tuple[int, str]]]
"""Rows of pictures that could be read, what they gave, and (row, reason) of those that could not."""


def square(pixels: Pixels, size: int) -> Tensor:
    """(H, W, 3) uint8 → (3, size, size) uint8: the shorter side scaled to `size`, then the middle."""
    x = torch.from_numpy(np.ascontiguousarray(pixels) if pixels.flags.writeable else pixels.copy()).permute(2, 0, 1)
    height, width = x.shape[1:]
    if min(height, width) != size:
        scale = size / min(height, width)
        shape = (max(size, round(height * scale)), max(size, round(width * scale)))
        x = F.interpolate(x[None], shape, mode="bilinear", antialias=True)[0]
    top, left = (x.shape[1] - size) // 2, (x.shape[2] - size) // 2
    return x[:, top : top + size, left : left + size]


def at_once(size: int, device: str) -> int:
    """How many pictures of `size` px a device of that type sees at once."""
    if device == "cpu":
        return max(_FEW, min(BATCH, _PIXELS_CPU // size**2))
    return max(1, min(BATCH, _PIXELS // size**2))


class Normalise(nn.Module):
    """uint8 0 to 255, or float 0 to 1, (N, 3, S, S) → what a backbone takes: float, channels last, per-channel."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape, float32."""
        scale = 255.0 if x.dtype == torch.uint8 else 1.0
        y = x.to(torch.float32, memory_format=torch.channels_last, copy=True)
        return y.sub_(self.mean * scale).div_(self.std * scale)


def read_squares(pictures: Pictures, rows: Sequence[int], size: int) -> Squares:
    """The rows that can be read, their pixels (b, 3, size, size) uint8, and (row, reason) of those that cannot."""
    good, found, bad = list[int](), list[Tensor](), list[tuple[int, str]]()
    for row in rows:
        try:
            found.append(square(pictures.read(row, size), size))
            good.append(row)
        except Unreadable as fault:
            bad.append((row, str(fault)))
    return good, torch.stack(found) if found else torch.empty(0, 3, size, size, dtype=torch.uint8), bad


def squares(pictures: Pictures, size: int, *, batch: int = 0, workers: int = 0) -> Iterator[Squares]:
    """`read_squares` of all pictures, a batch at a time, read ahead.

    batch: pictures in one; 0 takes 256, or fewer where they are large · workers: threads that read; 0: one a core,
        or one alone for pictures so small that threads would only fight for the interpreter
    """
    rows = stretches(len(pictures), batch or at_once(size, "cuda")) or [range(0)]
    if not workers:
        start = time.perf_counter()
        yield read_squares(pictures, rows[0], size)
        quick = (time.perf_counter() - start) / max(len(rows[0]), 1) < _QUICK
        workers, rows = 1 if quick else cores(), rows[1:]
    yield from in_order(lambda some: read_squares(pictures, some, size), rows, workers)


@torch.no_grad()
def features(backbone: nn.Module, normalise: Normalise, pixels: Tensor, device: torch.device) -> Tensor:
    """(b, 3, S, S) uint8 → (b, D) float32 on the CPU; the backbone in eval mode."""
    out: Tensor = backbone(normalise(pixels.to(device, non_blocking=True)))
    return out.float().cpu()


class Eye:
    """A backbone, ready to look at pictures; at 224 px where it does not say.

    device: the best there is, where not given
    """

    def __init__(self, backbone: Backbone, device: torch.device | None = None) -> None:
        self.device = device or torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
        self.size = int(backbone.preprocessing.get("image_size", 224))
        self.dim = backbone.embed_dim
        self.preprocessing = backbone.preprocessing
        self.normalise = Normalise(backbone.preprocessing["mean"], backbone.preprocessing["std"]).to(self.device)
        self.backbone: nn.Module = folded(backbone).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @classmethod
    def of(cls, source: str | Path, device: torch.device | None = None) -> Eye:
        """The eye of a run folder or a backbone's file. Raises SeeallError where there is none."""
        return cls(load(source), device)

    def see(self, pixels: Tensor) -> Tensor:
        """(b, 3, S, S) uint8 → (b, D) float32."""
        if not len(pixels):
            return torch.empty(0, self.dim)
        return features(self.backbone, self.normalise, pixels, self.device)

    def stream(self, pictures: Pictures, *, workers: int = 0) -> Generator[Squares]:
        """As `squares`, with features (b, D) float32 in place of pixels.

        On a CPU several batches are seen at once, with one thread each: no core waits for another at the end of
        every layer, nor for a file.
        """
        if self.device.type != "cpu":
            for good, pixels, bad in squares(pictures, self.size, workers=workers):
                yield good, self.see(pixels), bad
            return

        def see(some: Squares) -> Squares:
            good, pixels, bad = some
            return good, self.see(pixels), bad

        threads = torch.get_num_threads()
        read = squares(pictures, self.size, batch=at_once(self.size, "cpu"), workers=workers)
        try:
            yield from in_order(see, read, threads, lambda: torch.set_num_threads(1))
        finally:
            torch.set_num_threads(threads)  # of threads still to come; this one has kept its own

    def see_all(self, pictures: Pictures, label: str = "embedding") -> tuple[Tensor, list[int]]:
        """Features (n, D) of the pictures that can be read, and their rows. Raises SeeallError where none can."""
        found, rows = [], list[int]()
        with bar(label, len(pictures)) as progress:
            for good, z, bad in self.stream(pictures):
                found.append(z)
                rows += good
                progress.update(len(good) + len(bad), "{rate:,.0f} pictures/s")
        if not rows:
            raise SeeallError(f"{pictures.source}: none of the {len(pictures)} pictures can be read")
        return torch.cat(found), rows
