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

from collections.abc import Callable

import torch
from torch import Tensor

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
        vectors = torch.nn.functional.normalize(vectors.float(), dim=1)
        cosine, rows = search(vectors, min(self.asked, len(vectors)))
        itself = rows == torch.arange(len(vectors))[:, None]
        cosine, rows = _closed_up(cosine, rows, itself | (rows < 0))
        near = torch.arange(rows.shape[1]) < self.skip
        return _closed_up(cosine, rows, near | (cosine > self.ceiling) | (rows < 0))[1]


def _closed_up(cosine: Tensor, rows: Tensor, without: Tensor) -> tuple[Tensor, Tensor]:
    """The same (n, k) with some left out, the rest closed up to the left, and -1 behind."""
    order = without.int().argsort(dim=1, stable=True)
    return cosine.gather(1, order), rows.masked_fill(without, -1).gather(1, order)


def compose(table: Tensor, groups: Tensor, *, beside: int, together: int, seed: int, epoch: int) -> Tensor:
    """(n, k) neighbours and (n,) groups → (n,) all rows once, each followed by its neighbours that are still free.

    together: pictures of a group that come with each of them.
    """
    n = len(table)
    order = keyed.permutation(n, seed, _SEEDS, epoch).tolist()
    near, group = table.tolist(), groups.tolist()
    mates = _mates(order, group) if together > 1 else {}
    if together > 1:  # those that belong with nobody come last, to fill what room is left
        order.sort(key=lambda row: len(mates[group[row]]) < 2)
    free = [True] * n
    rows: list[int] = []

    def take(row: int) -> None:
        """A row and, of its group, as many free ones as belong with it."""
        wanted = [row, *(mate for mate in mates.get(group[row], ()) if mate != row and free[mate])][:together]
        for one in wanted:
            free[one] = False
        rows.extend(wanted)

    for row in order:
        if not free[row]:
            continue
        here = {group[row]}
        take(row)
        for other in near[row]:
            if len(here) > beside:
                break
            if other >= 0 and free[other] and group[other] not in here:
                here.add(group[other])
                take(other)
    return torch.tensor(rows)


def _mates(order: list[int], group: list[int]) -> dict[int, list[int]]:
    """The rows of each group, in the order given."""
    found: dict[int, list[int]] = {}
    for row in order:
        found.setdefault(group[row], []).append(row)
    return found
