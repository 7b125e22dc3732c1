"""Pictures and their truth at the size a head sees them: read once, so that whatever is wrong is known before training.

Every picture is scaled until its shorter side is `size`, and its truth with it. What fits in memory stays there;
otherwise pictures are read again, by threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from seeall.console import bar, log
from seeall.data.annotations.truth import IGNORE, Annotated, Truth
from seeall.data.decode import Pixels, Unreadable
from seeall.data.motion.fields import Field
from seeall.data.pixels import MEMORY_SHARE, complain, cores, free_memory, in_order
from seeall.types import SeeallError

LONGEST = 8
"""A picture's longer side may be so many times the shorter one; beyond, it is filled up."""


@dataclass(frozen=True, eq=False)
class Example:
    """pixels: (3, H, W) uint8, or (T, 3, H, W) of several frames · truth: at that size
    lost: things too small to cover a pixel at that size
    """

    pixels: Tensor
    truth: Truth
    lost: int = 0


class Examples:
    """n pictures with their truth.

    annotated: those that can be read · skipped: (id, reason) of those that cannot
    """

    def __init__(
        self, annotated: Annotated, size: int | None, kept: Sequence[Example] | None, skipped: Sequence[tuple[str, str]]
    ) -> None:
        self.annotated, self.size, self.skipped, self._kept = annotated, size, skipped, kept
        self._pool = None if kept is not None else ThreadPoolExecutor(cores(), "examples")

    def __len__(self) -> int:
        return len(self.annotated)

    @property
    def resident(self) -> bool:
        """Whether the pixels are in memory."""
        return self._kept is not None

    def __getitem__(self, i: int) -> Example:
        return self._kept[i] if self._kept is not None else read(self.annotated, i, self.size)

    def some(self, rows: Sequence[int]) -> list[Example]:
        """The examples at `rows`. Raises SeeallError where a picture could be read before and cannot now."""
        if self._pool is None:
            return [self[i] for i in rows]
        try:
            return list(self._pool.map(self.__getitem__, rows))
        except Unreadable as fault:
            raise SeeallError(
                f"{self.annotated.pictures.source}: a picture that was readable when training began is now {fault}; "
                "restore it and --resume"
            ) from None

    def subset(self, rows: Sequence[int]) -> Examples:
        """The examples at `rows`, in that order."""
        kept = None if self._kept is None else [self._kept[i] for i in rows]
        return Examples(self.annotated.subset(rows), self.size, kept, self.skipped)


def load(
    annotated: Annotated, size: int | None, *, workers: int = 0, allow_skipped: bool = False, processes: int = 1
) -> Examples:
    """Read all pictures and their truth; keep them where they take no more than a quarter of the free memory.

    size: shorter side, px; None leaves pictures as large as they are · workers: threads that read; 0 takes one for each
    core · processes: as many share the memory

    Raises: SeeallError for a truth that makes no sense, and where nothing, or too little, can be read.
    """
    room, kept, taken, lost = int(free_memory() * MEMORY_SHARE / processes), list[Example](), 0, 0
    good, skipped, fits = list[int](), list[tuple[str, str]](), True

    def attempt(i: int) -> Example | Unreadable:
        try:
            return read(annotated, i, size)
        except Unreadable as fault:
            return fault

    with bar("reading pictures", len(annotated)) as progress:
        for i, found in enumerate(in_order(attempt, range(len(annotated)), workers or cores())):
            progress.update(1)
            if isinstance(found, Unreadable):
                skipped.append((annotated.pictures.ids[i], str(found)))
                continue
            good.append(i)
            lost += found.lost
            taken += _bytes(found)
            fits = fits and taken <= room
            if fits:
                kept.append(found)
            else:
                kept.clear()
    complain(annotated.pictures, skipped, allow_skipped)
    if lost:
        log.warning("%d things are left out: once pictures have %d px they cover no pixel", lost, size)
    return Examples(annotated.subset(good) if skipped else annotated, size, kept if fits else None, skipped)


def read(annotated: Annotated, i: int, size: int | None) -> Example:
    """Picture i and its truth, the shorter side scaled to `size`; things whose masks vanish are left out.

    Raises: Unreadable, or SeeallError for its truth.
    """
    pixels = annotated.pictures.read(i, size if "frames" in annotated.knows else None)
    truth = annotated.truth(i, *pixels.shape[-3:-1])
    if size is None:
        return Example(scaled_pixels(pixels, pixels.shape[-3:-1]), truth)
    pixels, truth = filled_up(pixels, truth)
    height, width = pixels.shape[-3:-1]
    shape = fitted(height, width, size)
    truth = scaled(truth, (height, width), shape)
    lost = 0
    if truth.masks is not None and not (there := truth.masks.any((1, 2))).all():
        lost = int((~there).sum())
        truth = replace(
            truth, boxes=truth.boxes[there], classes=truth.classes[there], crowd=truth.crowd[there],
            masks=truth.masks[there],
        )  # fmt: skip
    return Example(scaled_pixels(pixels, shape), truth, lost)


def filled_up(pixels: Pixels, truth: Truth) -> tuple[Pixels, Truth]:
    """A picture and its truth, with black rows below or columns on the right where one side is too long for the other.

    What is filled up counts for nothing.
    """
    height, width = pixels.shape[-3:-1]
    below, right = max(0, -(-width // LONGEST) - height), max(0, -(-height // LONGEST) - width)
    if not below and not right:
        return pixels, truth
    masks, semantic = truth.masks, truth.semantic
    if masks is not None:
        masks = np.pad(masks, ((0, 0), (0, below), (0, right)))
    if semantic is not None:
        semantic = np.pad(semantic, ((0, below), (0, right)), constant_values=IGNORE)
    filled = np.pad(pixels, ((0, 0),) * (pixels.ndim - 3) + ((0, below), (0, right), (0, 0)))
    return filled, replace(truth, masks=masks, semantic=semantic)


def fitted(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width once the shorter side is `size`.

    >>> fitted(480, 640, 240)
    (240, 320)
    """
    scale = size / min(height, width)
    return max(size, round(height * scale)), max(size, round(width * scale))


def scaled_pixels(pixels: Pixels, shape: tuple[int, int]) -> Tensor:
    """(…, H, W, 3) uint8 → (…, 3, *shape) uint8, antialiased."""
    x = torch.from_numpy(np.array(pixels)).movedim(-1, -3)
    if tuple(x.shape[-2:]) != tuple(shape):
        small = F.interpolate(x.reshape(-1, *x.shape[-3:]), shape, mode="bilinear", antialias=True)
        x = small.reshape(*x.shape[:-2], *shape)
    return x.contiguous()


def scaled(truth: Truth, before: tuple[int, int], after: tuple[int, int]) -> Truth:
    """The truth of a picture of `before` px (height, width) once it has `after`."""
    if before == after:
        return truth
    factors = np.array([after[1] / before[1], after[0] / before[0]] * 2, np.float32)
    return replace(
        truth,
        boxes=truth.boxes * factors,
        masks=None if truth.masks is None else _nearest(truth.masks, after),
        semantic=None if truth.semantic is None else _nearest(truth.semantic, after),
        motion=None if truth.motion is None else _faster(truth.motion, factors[:2], after),
    )


def _faster(motion: Field, factors: NDArray[np.float32], shape: tuple[int, int]) -> Field:
    vectors = np.moveaxis(_nearest(np.moveaxis(motion.vectors, 2, 0), shape), 0, 2) * factors
    hidden = None if motion.hidden is None else _nearest(motion.hidden, shape)
    return Field(vectors.astype(np.float32), _nearest(motion.known, shape), hidden)


def _nearest(values: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    """(…, H, W) → (…, *shape): what lies under the middle of each new pixel."""
    down, across = (((np.arange(new) + 0.5) * old / new).astype(np.int64) for new, old in zip(shape, values.shape[-2:]))
    return values[..., down[:, None], across[None, :]]


def _bytes(example: Example) -> int:
    truth = example.truth
    parts = (truth.masks, truth.semantic, *(truth.motion or ()))
    return example.pixels.nbytes + sum(0 if part is None else part.nbytes for part in parts)
