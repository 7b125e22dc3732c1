"""Which pictures make up batch t: a function of (seed, t) alone, so that nothing has to be remembered."""

from __future__ import annotations

import dataclasses
import functools

from torch import Tensor

from seeall.data import keyed

_STREAM = 0x5A3  # keeps the order apart from other randomness of the same seed


@dataclasses.dataclass(frozen=True)
class Sampler:
    """Batches of `batch` out of n pictures, every epoch in a new order; the rest of an epoch is left out.

    rank, world: this process and how many there are; `batch` counts the pictures of all of them together.

    >>> Sampler(10, batch=4, seed=0).steps_per_epoch
    2
    """

    n: int
    batch: int
    seed: int
    rank: int = 0
    world: int = 1

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch."""
        return self.n // self.batch

    def __call__(self, t: int) -> tuple[int, Tensor]:
        """The epoch of step t, and the (batch / world,) int64 rows that this process takes."""
        epoch, step = divmod(t, self.steps_per_epoch)
        share = self.batch // self.world
        start = step * self.batch + self.rank * share
        return epoch, _order(self.n, self.seed, epoch)[start : start + share]


@functools.lru_cache(maxsize=2)
def _order(n: int, seed: int, epoch: int) -> Tensor:
    return keyed.permutation(n, seed, _STREAM, epoch)
