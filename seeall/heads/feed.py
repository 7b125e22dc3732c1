"""Step → batch: which examples, augmented by key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypedDict

from seeall.data.annotations.examples import Example, Examples
from seeall.data.sampler import Sampler


class HeadBatch(TypedDict):
    """examples: B of them, on the CPU · epoch: from 0 · rows: the numbers of the examples."""

    examples: list[Example]
    epoch: int
    rows: list[int]


class Augmentation(Protocol):
    """What an example goes through before a head learns from it. size: of what is learnt from, px."""

    def __call__(self, example: Example, size: int, *key: int) -> Example: ...


@dataclass(frozen=True)
class Feed:
    """Micro-batch number → what a head's `training_step` takes.

    size: of what is learnt from, px · mark: what an example and its number go through first, or None
    """

    examples: Examples
    augment: Augmentation
    size: int
    sampler: Sampler
    seed: int
    mark: Callable[[Example, int], Example] | None = None

    def fetch(self, t: int) -> HeadBatch:
        """The batch of step t: a function of (seed, t) alone."""
        epoch, picked = self.sampler(t)
        rows: list[int] = picked.tolist()
        some = self.examples.some(rows)
        if self.mark:
            some = [self.mark(example, row) for example, row in zip(some, rows)]
        seen = [self.augment(example, self.size, self.seed, epoch, row) for example, row in zip(some, rows)]
        return {"examples": seen, "epoch": epoch, "rows": rows}
