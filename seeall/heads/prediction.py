"""What a head says about a picture, and how well a set of that agrees with the truth."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from seeall.data.annotations.examples import LONGEST, Examples
from seeall.data.annotations.truth import Truth
from seeall.metrics.detection import Found

if TYPE_CHECKING:
    from seeall.heads.feed import HeadBatch

T = TypeVar("T")

BATCH, PIXELS = 8, 1 << 20
"""Pictures that are looked at together, at most, and the pixels of all of them; one that has more is seen alone."""


class Pointed(NamedTuple):
    """Keypoints of one picture, or of T frames of a clip."""

    points: NDArray[np.float32]
    """(K, 3) or (T, K, 3): x and y, px, and how sure each is, 0 to 1."""
    rebuilt: float | None = None
    """Of frames: the mean squared error of the last one, drawn from the first and what is carried over."""
    copied: float | None = None
    """Of frames: that of the first one in place of the last."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Prediction:
    """About one picture of H by W px, at its own size. One of these is there, by task."""

    scores: NDArray[np.float32] | None = None
    """(K,) a probability for each class."""
    found: Found | None = None
    """Things, with boxes and perhaps masks."""
    semantic: NDArray[np.uint8] | None = None
    """(H, W) a class for each pixel."""
    flow: NDArray[np.float32] | None = None
    """(H, W, 2) where each pixel goes until the next frame, px to the right and downwards."""
    keypoints: Pointed | None = None
    """Points that stay on things, of the picture or of each frame of a clip."""


Answer = tuple[Prediction, Truth]
"""What a head says about an example, and what is known about it."""


class Head(Protocol):
    """What every head can do; also an `nn.Module`, and a `Task`.

    held: what it is judged by while it learns, or None
    """

    held: Examples | None

    def training_step(self, batch: HeadBatch) -> dict[str, Tensor]: ...

    def evaluation(self) -> dict[str, float]: ...

    def predict(self, pictures: Sequence[Tensor]) -> list[Prediction]:
        """pictures: (3, H, W) uint8 each, of any sizes; pairs of frames (2, 3, H, W) where the task is about motion."""
        ...

    def judge(self, answers: Iterable[Answer]) -> dict[str, float]:
        """Metrics by flat name, percent; of the answers, no two are needed at once."""
        ...


def together(things: Iterable[T], shape: Callable[[T], Sequence[int]]) -> Iterator[list[T]]:
    """The things in their order, as many at once as are looked at together. shape: a thing's height and width, px.

    >>> list(together([900, 200, 100, 1100, 50, 50], lambda side: (side, side)))
    [[900, 200, 100], [1100], [50, 50]]
    """
    some, taken = list[T](), 0
    for thing in things:
        pixels = math.prod(full(*shape(thing)))
        if some and (len(some) == BATCH or taken + pixels > PIXELS):
            yield some
            some, taken = [], 0
        some.append(thing)
        taken += pixels
    if some:
        yield some


def answers(head: Head, examples: Examples) -> Iterator[Answer]:
    """A prediction for each example, and its truth, in order; each example is read once."""
    rows = (range(start, min(start + BATCH, len(examples))) for start in range(0, len(examples), BATCH))
    each = (example for some in rows for example in examples.some(some))
    for some in together(each, lambda example: example.pixels.shape[-2:]):
        yield from zip(head.predict([example.pixels for example in some]), [example.truth for example in some])


def evaluate(head: Head, examples: Examples | None) -> dict[str, float]:
    """The task's own metrics over the examples; {} where there are none."""
    if examples is None or not len(examples):
        return {}
    return head.judge(answers(head, examples))


def filled(pictures: Tensor) -> Tensor:
    """(…, H, W) with rows below or columns on the right, of zeros, where one side is over LONGEST times the other."""
    height, width = pictures.shape[-2:]
    below, right = (a - b for a, b in zip(full(height, width), (height, width)))
    return F.pad(pictures, (0, right, 0, below))


def full(height: int, width: int) -> tuple[int, int]:
    """Height and width of what was filled up.

    >>> full(2, 1000), full(480, 640)
    ((125, 1000), (480, 640))
    """
    return max(height, -(-width // LONGEST)), max(width, -(-height // LONGEST))


def by_shape(pictures: Sequence[Tensor]) -> list[list[int]]:
    """The numbers of pictures that are equally large, so that they can be looked at together."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, picture in enumerate(pictures):
        groups.setdefault(tuple(picture.shape), []).append(i)
    return list(groups.values())
