"""The nearest of a set of vectors among themselves, for those who keep no index: exact, or by an inverted file."""

from __future__ import annotations

import io
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from seeall.index.engine import Engine, Floats, Gpu, Ids, choose, save, train

_BLOCK = 1 << 14


def nearest(vectors: Tensor, k: int, *, gpu: Gpu = "auto") -> tuple[Tensor, Tensor]:
    """Cosines (n, k) and rows (n, k) int64 of the k nearest to each of `vectors` (n, D), of length one; best first.

    A vector is its own nearest. From 100,000 on, about one in a hundred is missed, as an inverted file is used. There
    are n columns where k is more.
    """
    data = np.ascontiguousarray(vectors.cpu().numpy(), dtype=np.float32)

    def blocks() -> Iterable[tuple[Ids, Floats]]:
        for start in range(0, len(data), _BLOCK):
            part = data[start : start + _BLOCK]
            yield np.arange(start, start + len(part)), part

    if choose(len(data)) == "flat":
        engine = Engine.flat(blocks, data.shape[1], gpu)
    else:
        index, tuning = train(blocks, len(data), data.shape[1])
        file = io.BytesIO()
        save(index, file)
        engine = Engine.ivf(file, tuning.nprobe, gpu)
    found = [engine.search(part, k) for _, part in blocks()]
    rows, scores = (np.concatenate(column) for column in zip(*found))
    return torch.from_numpy(scores), torch.from_numpy(rows)
