"""Step → batch: which examples, augmented by key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from seeall.data.annotations.examples import Example, Examples
from seeall.data.sampler import Sampler
from seeall.heads.augment import Augment


class HeadBatch(TypedDict):
    """examples: B of them, on the CPU · epoch: from 0 · rows: the numbers of the examples."""

    examples: list[Example]
    epoch: int
    rows: list[int]


@dataclass(frozen=True)
class Feed:
    """Micro-batch number → what a head's `training_step` takes."""

    examples: Examples
    augment: Augment
    sampler: Sampler
    seed: int

    def fetch(self, t: int) -> HeadBatch:
        """The batch of step t: a function of (seed, t) alone."""
        epoch, picked = self.sampler(t)
        rows: list[int] = picked.tolist()
        seen = [self.augment(e, self.seed, epoch, row) for e, row in zip(self.examples.some(rows), rows)]
        return {"examples": seen, "epoch": epoch, "rows": rows}
