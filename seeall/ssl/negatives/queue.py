"""`queue`: negatives from past batches, besides those of this one.

The memory of MoCo (He et al. 2020, arXiv:1911.05722, section 3.2) and of cross-batch memory (Wang et al. 2020,
arXiv:1912.06798): the last rows that were seen, without gradient, the oldest overwritten first. Rows of an anchor's own
group are never its negatives, so a queue may be longer than an epoch. Nothing is in it at first, and nothing invented.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seeall.types import SeeallError


class Queue(nn.Module):
    """The last rows and their groups; part of the state of a run.

    size: rows that are remembered, the views of a picture being as many rows.

    Raises: SeeallError where size is below 1.
    """

    def __init__(self, *, size: int = 4096) -> None:
        super().__init__()
        if size < 1:
            raise SeeallError(f"setting 'size' of the queue is {size}: choose at least 1; 4096 is usual")
        self.size = size
        self.rows: Tensor
        self.groups: Tensor
        self.register_buffer("rows", torch.empty(0, 0))
        self.register_buffer("groups", torch.empty(0, dtype=torch.int64))

    def recall(self, z: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
        """z (N, D), of length one, and groups (N,), then what is remembered; in training they are remembered next."""
        rows, owners = z, groups
        if len(self.rows):
            rows, owners = torch.cat([z, self.rows.to(z)]), torch.cat([groups, self.groups])
        if self.training:
            self.remember(z, groups)
        return rows, owners

    @torch.no_grad()
    def remember(self, z: Tensor, groups: Tensor) -> None:
        """Put the rows behind those remembered, and forget the oldest beyond `size`."""
        held = z.detach().float()
        known = self.rows.to(held) if len(self.rows) else held[:0]
        self.rows = torch.cat([known, held])[-self.size :].clone()
        self.groups = torch.cat([self.groups, groups])[-self.size :].clone()

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:  # type: ignore[no-untyped-def]
        """A queue takes the length of the one that was saved."""
        for name in ("rows", "groups"):
            if prefix + name in state_dict:
                setattr(self, name, torch.empty_like(state_dict[prefix + name], device=getattr(self, name).device))
        super()._load_from_state_dict(state_dict, prefix, *args)
