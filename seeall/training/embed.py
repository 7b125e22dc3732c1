"""Pictures in, features out: the one way that probes, the index and `ssl embed` see through a backbone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seeall.backbones.contract import Backbone
from seeall.backbones.load import load
from seeall.console import bar
from seeall.data.decode import Pixels, Unreadable
from seeall.data.pictures import Pictures
from seeall.data.pixels import background, read_all
from seeall.types import SeeallError

BATCH = 256
"""Pictures that are seen at once, at most."""
_BATCH_PIXELS = 1 << 21  # and their pixels: more would only take memory, and on a CPU leave its caches


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


def squares(
    pictures: Pictures, size: int, *, batch: int = 0, workers: int = 0
) -> Iterator[tuple[list[int], Tensor, list[tuple[int, str]]]]:
    """Batches of pictures, read ahead in the background.

    batch: pictures in one; 0 takes 256, or fewer where they are large · workers: threads that read; 0: one a core

    Yields: rows that could be read, their pixels (b, 3, size, size) uint8, and (row, reason) of those that could not.
    """
    batch = batch or max(1, min(BATCH, _BATCH_PIXELS // size**2))

    def batches() -> Iterator[tuple[list[int], Tensor, list[tuple[int, str]]]]:
        found = enumerate(read_all(pictures, size, workers, lambda pixels: square(pixels, size)))
        while some := list(itertools.islice(found, batch)):
            good = [(row, x) for row, x in some if isinstance(x, Tensor)]
            pixels = torch.stack([x for _, x in good]) if good else torch.empty(0, 3, size, size, dtype=torch.uint8)
            bad = [(row, str(x)) for row, x in some if isinstance(x, Unreadable)]
            yield [row for row, _ in good], pixels, bad

    return background(batches(), depth=3)


@torch.no_grad()
def features(backbone: nn.Module, normalise: Normalise, pixels: Tensor, device: torch.device) -> Tensor:
    """(b, 3, S, S) uint8 → (b, D) float32 on the CPU; the backbone in eval mode."""
    out: Tensor = backbone(normalise(pixels.to(device, non_blocking=True)))
    return out.float().cpu()


class Eye:
    """A backbone, ready to look at pictures, on the best device there is; at 224 px where it does not say."""

    def __init__(self, backbone: Backbone) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.size = int(backbone.preprocessing.get("image_size", 224))
        self.dim = backbone.embed_dim
        self.preprocessing = backbone.preprocessing
        self.normalise = Normalise(backbone.preprocessing["mean"], backbone.preprocessing["std"]).to(self.device)
        self.backbone: nn.Module = backbone.eval().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @classmethod
    def of(cls, source: str | Path) -> Eye:
        """The eye of a run folder or a backbone's file. Raises SeeallError where there is none."""
        return cls(load(source))

    def see(self, pixels: Tensor) -> Tensor:
        """(b, 3, S, S) uint8 → (b, D) float32."""
        return features(self.backbone, self.normalise, pixels, self.device)

    def see_all(self, pictures: Pictures, label: str = "embedding") -> tuple[Tensor, list[int]]:
        """Features (n, D) of the pictures that can be read, and their rows. Raises SeeallError where none can."""
        found, rows = [], list[int]()
        with bar(label, len(pictures)) as progress:
            for good, pixels, bad in squares(pictures, self.size):
                if good:
                    found.append(self.see(pixels))
                rows += good
                progress.update(len(good) + len(bad), "{rate:,.0f} pictures/s")
        if not rows:
            raise SeeallError(f"{pictures.source}: none of the {len(pictures)} pictures can be read")
        return torch.cat(found), rows
