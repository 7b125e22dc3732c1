"""The nearest of a set of vectors among themselves, for those who keep no index: exact, or nearly so."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from seeall.index.engine import Engine
from seeall.index.gpus import Gpu
from seeall.index.plan import EXACT_BELOW, Plan
from seeall.index.segments import Living, Stack, ordered
from seeall.index.structures import build

_BLOCK = 1 << 14


def nearest(vectors: Tensor, k: int, *, gpu: Gpu = "auto") -> tuple[Tensor, Tensor]:
    """Cosines (n, k) and rows (n, k) int64 of the k nearest to each of `vectors` (n, D), of length one; best first.

    A vector is its own nearest. From 100,000 on, about one in a hundred is missed. There
    are n columns where k is more.
    """
    data = np.ascontiguousarray(vectors.cpu().numpy(), dtype=np.float32)
    stack = Stack([data[start : start + _BLOCK] for start in range(0, len(data), _BLOCK)], data.shape[1])
    living = Living(stack, np.ones(len(data), bool))
    if len(data) < EXACT_BELOW:
        engine = Engine.exact(living.blocks, stack.dim, gpu)
    else:
        built = build(living, Plan("ivf"))  # the same each time: not what happens to be the quickest today
        engine = Engine(built.index, search=built.search, gpu=gpu)
    rows, scores = [], []
    for part in stack.parts:
        found, _ = engine.search(part, k)
        places, best = ordered(found, living.products(part, found), k)
        rows.append(places)
        scores.append(best)
    return torch.from_numpy(np.concatenate(scores)), torch.from_numpy(np.concatenate(rows))
