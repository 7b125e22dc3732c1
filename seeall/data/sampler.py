"""Which pictures make up batch t: a function of (seed, t) alone, so that nothing has to be remembered."""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from seeall.data import keyed
from seeall.types import SeeallError

_STREAM = 0x5A3  # keeps the order apart from other randomness of the same seed
_GROUPS = 0x6A0

Order = Callable[[int], Tensor]
"""Epoch → the rows of its batches, one batch after another."""


@dataclasses.dataclass(frozen=True)
class Sampler:
    """Batches of `batch` out of n pictures, every epoch in a new order; the rest of an epoch is left out.

    rank, world: this process and how many there are; `batch` counts the pictures of all of them together.
    order: how an epoch is made up, where it is not all pictures in random order

    >>> Sampler(10, batch=4, seed=0).steps_per_epoch
    2
    """

    n: int
    batch: int
    seed: int
    rank: int = 0
    world: int = 1
    order: Order | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch."""
        return self.n // self.batch

    def __call__(self, t: int) -> tuple[int, Tensor]:
        """The epoch of step t, and the (batch / world,) int64 rows that this process takes."""
        epoch, step = divmod(t, self.steps_per_epoch)
        share = self.batch // self.world
        start = step * self.batch + self.rank * share
        return epoch, self.epoch(epoch)[start : start + share]

    def epoch(self, epoch: int) -> Tensor:
        """The rows of an epoch's batches, of all processes, and perhaps some left over."""
        return self.order(epoch) if self.order else _order(self.n, self.seed, epoch)


@functools.lru_cache(maxsize=2)
def _order(n: int, seed: int, epoch: int) -> Tensor:
    return keyed.permutation(n, seed, _STREAM, epoch)


def partnered(groups: Tensor) -> int:
    """How many of the pictures whose groups (n,) these are belong with another one.

    >>> partnered(torch.tensor([3, 5, 3, 4, 3]))
    3
    """
    sizes = groups.unique(return_counts=True)[1]  # type: ignore[no-untyped-call]
    return int(sizes[sizes > 1].sum())


class Grouped:
    """Batches of several groups, `together` pictures of each, every group as often as any other.

    groups: epoch → (n,) int64 · batch: pictures in one. A group of one picture takes no part; one of fewer than
    `together` gives all it has; the last one of a batch fills what room is left. No picture is twice in a batch, and
    no group comes again while another has not come at all.

    Raises: SeeallError, when first asked for an epoch, where groups of two and more hold fewer pictures than a batch.
    In later epochs, whose groups may be others, pictures that are alone fill what room is left.
    """

    def __init__(self, groups: Order, together: int, batch: int, seed: int) -> None:
        self.groups, self.together, self.batch, self.seed = groups, together, batch, seed
        self._made: tuple[int, Tensor] = (-1, torch.empty(0))

    def __call__(self, epoch: int) -> Tensor:
        """(n // batch * batch,) int64 rows."""
        if self._made[0] != epoch:
            self._made = (epoch, self._make(epoch))
        return self._made[1]

    def _make(self, epoch: int) -> Tensor:
        groups = self.groups(epoch)
        mixed = keyed.permutation(len(groups), self.seed, _GROUPS, epoch)
        mixed = mixed[groups[mixed].argsort(stable=True)]
        _, sizes = groups[mixed].unique_consecutive(return_counts=True)  # type: ignore[no-untyped-call]
        parts = [part.tolist() for part in torch.split(mixed, sizes.tolist())]
        members, alone = [part for part in parts if len(part) > 1], [part[0] for part in parts if len(part) == 1]
        usable = sum(map(len, members))
        if usable < self.batch and epoch == 0:
            raise SeeallError(
                f"--batch-size {self.batch}: only {usable} pictures belong with another one; choose at most {usable}"
            )
        taken = [0] * len(members)  # how often each group has given a picture, over and over from its first
        rows: list[int] = []
        turns, waiting = self._turns(len(members), epoch), collections.deque[int]()
        for _ in range(len(groups) // self.batch):
            room, here, passed = min(self.batch, usable), dict[int, int](), list[int]()
            while room:
                g = waiting.popleft() if waiting else next(turns)
                if g in here and len(here) < len(members):
                    passed.append(g)
                    continue
                some, before = members[g], here.get(g, 0)
                share = min(self.together, len(some) - before, room)
                rows += [some[(taken[g] + j) % len(some)] for j in range(share)]
                taken[g] += share
                here[g] = before + share
                room -= share
            waiting.extendleft(reversed(passed))
            rows += alone[: max(0, self.batch - usable)]
        return torch.tensor(rows)

    def _turns(self, count: int, epoch: int) -> Iterator[int]:
        """All groups in random order, again and again."""
        for turn in itertools.count():
            yield from keyed.permutation(count, self.seed, _GROUPS, epoch, turn).tolist()
