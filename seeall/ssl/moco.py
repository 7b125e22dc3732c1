"""MoCo v2 (He et al. 2020, arXiv:1911.05722, eq. 1; Chen et al. 2020, arXiv:2003.04297).

    L = mean over queries of   -log  exp(q·k₊ / T) / (exp(q·k₊ / T) + Σ_m exp(q·m / T))

Every row of a pair is a query q, its twin as the teacher sees it the key k₊, all of unit length, and m runs over the
keys of past steps. Departures: the loss is symmetric; the memory begins empty, not random, so the first step has no
negatives and a loss of 0; keys of the query's own group are no negatives; batches are not shuffled between processes
against leaks through BatchNorm, which takes the rows of all of them as one batch.

lightly's `NTXentLoss` has such a memory, but it is no part of the `state_dict`, begins with numbers of the global
generator, does not know the groups and drops the rest of a batch at its end. A resumed run would be another run, and
every process would have a memory of its own. So the memory is kept here, and the loss is a cross-entropy.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seeall.ssl.twins import alignment, nothing, rows, twins
from seeall.types import SeeallError


class MoCo(nn.Module):
    """Finds the teacher's key of a row's twin among keys of past steps.

    Args:
        dim: D, width of the rows.
        size: keys in the memory.
        temperature: T.
        momentum: the share of the teacher's weights that stays at each micro-batch; whoever keeps the teacher reads it.
            0.99 suits short runs, 0.999 long ones.

    Raises:
        SeeallError: a setting is out of its range.
    """

    memory: Tensor
    memory_groups: Tensor
    seen: Tensor

    def __init__(self, dim: int, *, size: int = 4096, temperature: float = 0.2, momentum: float = 0.99) -> None:
        super().__init__()
        if size < 1:
            raise SeeallError(f"moco: size must be at least 1, not {size}; 4096 to 65536 is usual")
        if not 0 < temperature < math.inf:
            raise SeeallError(f"moco: temperature must be above 0, not {temperature}; 0.07 to 0.2 is usual")
        if not 0 <= momentum < 1:
            raise SeeallError(f"moco: momentum must be from 0 and below 1, not {momentum}; 0.99 to 0.999 is usual")
        self.temperature, self.momentum = temperature, momentum
        self.register_buffer("memory", torch.zeros(size, dim))
        self.register_buffer("memory_groups", torch.zeros(size, dtype=torch.int64))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, z: Tensor, groups: Tensor, taught: Tensor) -> dict[str, Tensor]:
        """The loss in the type of the memory, float32 as a rule. In training the keys are remembered afterwards.

        z: (N, D); groups: (N,) int64, the same number for the same group at every step; taught: (N, D), the same
        rows seen by the teacher, no gradient goes there. Rows without a twin are remembered and no queries.
        Returns: `loss`, 0 without pairs; `accuracy`, the share of queries that are closer to their key than to
            any negative; `alignment`, the mean cosine of pairs.
        Raises: ValueError where the shapes are others.
        """
        with torch.autocast(z.device.type, enabled=False):
            z = rows(z, groups, self.memory)
            keys = F.normalize(rows(taught, groups, self.memory).detach(), dim=1)
            a, b = twins(groups)
            loss, accuracy = nothing(z, self), z.new_zeros(())
            if len(a):
                query = torch.cat([a, b])
                logits = self._logits(F.normalize(z[query], dim=1), groups[query], keys[torch.cat([b, a])])
                loss = F.cross_entropy(logits, torch.zeros_like(query))
                accuracy = (logits[:, 0] > logits[:, 1:].amax(1)).to(z.dtype).mean()
            if self.training:
                self._remember(keys, groups)
            return {"loss": loss, "accuracy": accuracy, "alignment": alignment(z, a, b)}

    def _logits(self, query: Tensor, groups: Tensor, key: Tensor) -> Tensor:
        """query, key: (n, D); groups: (n,) → (n, 1 + size): the positive first, -∞ for what is no negative."""
        memory = self.memory.clone()  # it changes before the backward pass
        empty = torch.arange(len(memory), device=memory.device) >= self.seen
        hidden = empty | (groups[:, None] == self.memory_groups)
        negatives = (query @ memory.T).masked_fill(hidden, -math.inf)
        return torch.cat([(query * key).sum(1, keepdim=True), negatives], dim=1) / self.temperature

    @torch.no_grad()
    def _remember(self, keys: Tensor, groups: Tensor) -> None:
        """keys: (N, D), groups: (N,), over the oldest ones; the last rows where there are more than places."""
        size = len(self.memory)
        number = self.seen + torch.arange(len(keys), device=keys.device)
        places = number[-size:] % size
        self.memory.index_copy_(0, places, keys[-size:])
        self.memory_groups.index_copy_(0, places, groups[-size:])
        self.seen += len(keys)
