"""`neighbours`: batches of pictures that look alike to the network itself, though they do not belong together.

Every few epochs all pictures are embedded and searched for their nearest; then batches are composed so that a picture
is followed by its nearest ones of other groups, and each is a hard negative for the others. The idea is old (hard
negative classes of Sohn 2016, "Improved Deep Metric Learning with Multi-class N-pair Loss Objective", section 3.2.1;
mined batches of Xiong et al. 2021, "ANCE", arXiv:2007.00808, section 4).

The nearest pictures are often of the same kind, which no one has said. So the very nearest are skipped, those above
a ceiling of likeness too, and whatever is known to belong together.

Who searches is not known here: a callable is handed in. Which batches come out is a function of the table, the seed and
the epoch alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor

from seeall.console import log
from seeall.data import keyed
from seeall.types import SeeallError

Search = Callable[[Tensor, int], tuple[Tensor, Tensor]]
"""Vectors (n, D) of length one, and k → cosines (n, k) and rows (n, k) int64 of the k nearest to each, best first; -1
where there is none. A vector itself may be among them."""

_SEEDS = 0x3E16


class Neighbours:
    """How batches are composed.

    every: epochs from one search to the next; the epochs before the first search have batches in random order
    beside: neighbours that follow a picture into its batch · skip: how many of the nearest are passed over
    ceiling: the highest cosine that a negative may have

    Raises: SeeallError where every or beside is below 1, skip below 0, or ceiling not above -1.
    """

    def __init__(self, *, every: int = 5, beside: int = 3, skip: int = 5, ceiling: float = 0.95) -> None:
        for name, value, least in (("every", every, 1), ("beside", beside, 1), ("skip", skip, 0)):
            if value < least:
                raise SeeallError(f"setting {name!r} of neighbours is {value}: choose {least} or more")
        if not -1 < ceiling <= 1:
            raise SeeallError(f"setting 'ceiling' of neighbours is {ceiling}: choose a cosine up to 1; 0.95 is usual")
        self.every, self.beside, self.skip, self.ceiling = every, beside, skip, ceiling

    @property
    def asked(self) -> int:
        """How many neighbours to search for, so that some are left when the too near ones are gone."""
        return 1 + self.skip + 4 * self.beside

    def table(self, search: Search, vectors: Tensor) -> Tensor:
        """Vectors (n, D), of any length → (n, k) int64 rows of each one's neighbours, best first, -1 for none."""
        vectors = vectors.float() - vectors.float().mean(0)  # features are all positive, so nearly parallel at first
        vectors = torch.nn.functional.normalize(vectors, dim=1)
        cosine, rows = search(vectors, min(self.asked, len(vectors)))
        itself = rows == torch.arange(len(vectors))[:, None]
        cosine, rows = _closed_up(cosine, rows, itself | (rows < 0))
        near = torch.arange(rows.shape[1]) < self.skip
        rows = _closed_up(cosine, rows, near | (cosine > self.ceiling) | (rows < 0))[1]
        lonely = float((rows[:, :1] < 0).float().mean()) if rows.shape[1] else 1.0
        if lonely > 0.5:
            log.warning(
                "%.0f %% of the pictures have no neighbour to stand beside: all are among the %d skipped, or above the "
                "ceiling of %g; batches are mostly random", 100 * lonely, self.skip, self.ceiling,
            )  # fmt: skip
        return rows


def _closed_up(cosine: Tensor, rows: Tensor, without: Tensor) -> tuple[Tensor, Tensor]:
    """The same (n, k) with some left out, the rest closed up to the left, and -1 behind."""
    order = without.int().argsort(dim=1, stable=True)
    return cosine.gather(1, order), rows.masked_fill(without, -1).gather(1, order)


def compose(table: Tensor, groups: Tensor, *, beside: int, together: int, seed: int, epoch: int) -> Tensor:
    """(n, k) neighbours and (n,) groups → (n,) all rows once, each followed by its neighbours that are still free.

    together: pictures of a group that come with each of them; what one that belongs with nobody begins then comes last
    """
    found = clusters(table, groups, beside=beside, together=together, seed=seed, epoch=epoch)
    # the later a cluster was begun, the fewer neighbours were left; an epoch leaves its end out, which should be anyone
    mixed = keyed.permutation(len(found), seed, _SEEDS, epoch, 1).tolist()
    if together > 1:
        group = groups.tolist()
        sizes = Counter(group)
        mixed.sort(key=lambda c: sizes[group[found[c][0]]] < 2)
    return torch.tensor([row for c in mixed for row in found[c]])


def clusters(table: Tensor, groups: Tensor, *, beside: int, together: int, seed: int, epoch: int) -> list[list[int]]:
    """Rows and the neighbours that follow them, in the order in which they were begun; see `compose`."""
    n = len(table)
    order = keyed.permutation(n, seed, _SEEDS, epoch).tolist()
    near, group = table.tolist(), groups.tolist()
    mates = _mates(order, group) if together > 1 else {}
    free = [True] * n

    def take(row: int) -> list[int]:
        """A row and, of its group, as many free ones as belong with it."""
        free[row] = False
        wanted, rest = [row], mates.get(group[row], [])
        while rest and len(wanted) < together:
            mate = rest.pop()
            if free[mate]:
                free[mate] = False
                wanted.append(mate)
        return wanted

    found: list[list[int]] = []
    for row in order:
        if not free[row]:
            continue
        here, cluster = {group[row]}, take(row)
        for other in near[row]:
            if len(here) > beside:
                break
            if other >= 0 and free[other] and group[other] not in here:
                here.add(group[other])
                cluster += take(other)
        found.append(cluster)
    return found


def _mates(order: list[int], group: list[int]) -> dict[int, list[int]]:
    """The rows of each group, the first in the order given standing last, to be popped."""
    found: dict[int, list[int]] = {}
    for row in reversed(order):
        found.setdefault(group[row], []).append(row)
    return found
