"""Masks carried along by likeness: a place of a new frame is what the places are that look like it in frames before.

With f the features of places, normalised, and y what is known of them, a share for each class, for place i of frame t

    y_t(i) = Σ_j softmax_j(f_t(i) · f_s(j) / τ) y_s(j),

over the k places j most like it, of the first frame and the last few, no more than r px away except in the first (as in
Jabri, Owens and Efros 2020, arXiv:2006.14613, section 4.1). Features come from any backbone, and nothing is learnt.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from seeall.data.annotations.truth import IGNORE

See = Callable[[int], Tensor]
"""A frame → the features of its places, (C, h, w)."""
_ROWS = 1 << 24
"""Likenesses that are computed at once."""


def follow(
    frames: Sequence[int], mask: NDArray[np.uint8], classes: int, see: See, *, last: int, near: float, most: int,
    temperature: float,
) -> Iterator[tuple[int, NDArray[np.uint8]]]:  # fmt: skip
    """Each frame after the first, whose `mask` (H, W) is known: its number, and its mask.

    last: frames before that count, besides the first · near: r, in places · most: k · temperature: τ
    """
    first = F.normalize(see(frames[0]), dim=0)
    shape = first.shape[1:]
    known = shares(mask, classes, shape)
    begun = (first.flatten(1), known.flatten(1))
    before: deque[tuple[Tensor, Tensor]] = deque(maxlen=last)
    close = _close(shape, near)
    for now in frames[1:]:
        features = F.normalize(see(now), dim=0).flatten(1)
        context = [begun, *before]
        found = _said(features, context, close, most, temperature)
        before.append((features, found))
        whole = F.interpolate(found.view(1, classes, *shape), mask.shape, mode="bilinear", align_corners=False)
        yield now, whole[0].argmax(0).to(torch.uint8).numpy()


def shares(mask: NDArray[np.uint8], classes: int, shape: Sequence[int]) -> Tensor:
    """(H, W) → (K, *shape): how much of each place is of each class; all alike where nothing is known."""
    labels = torch.from_numpy(np.ascontiguousarray(mask)).long()
    there = (labels != IGNORE).float()
    one = F.one_hot(labels.clamp(max=classes - 1), classes).permute(2, 0, 1) * there
    small = F.adaptive_avg_pool2d(torch.cat([one, there[None]])[None], (shape[0], shape[1]))[0]
    share = small[:-1] / small[-1].clamp(min=1e-6)
    return torch.where(small[-1] > 0, share, torch.full_like(share, 1 / classes))


def _close(shape: Sequence[int], near: float) -> Tensor:
    """(P, P) whether two places are no more than `near` apart."""
    rows, columns = torch.meshgrid(*(torch.arange(side).float() for side in shape), indexing="ij")
    at = torch.stack([rows.flatten(), columns.flatten()], 1)
    return torch.cdist(at, at) <= near


def _said(
    features: Tensor, context: Sequence[tuple[Tensor, Tensor]], close: Tensor, most: int, temperature: float
) -> Tensor:
    """(K, P): what the places of a frame are. features: (C, P)."""
    seen = torch.cat([one for one, _ in context], 1)
    known = torch.cat([one for _, one in context], 1)
    places, parts = features.shape[1], []
    step = max(1, _ROWS // seen.shape[1])
    for start in range(0, places, step):
        rows = slice(start, min(places, start + step))
        like = features[:, rows].T @ seen
        like[:, places:].masked_fill_(~close[rows].repeat(1, len(context) - 1), -torch.inf)
        best, at = like.topk(min(most, like.shape[1]), dim=1)
        weight = (best / temperature).softmax(1)
        parts.append(torch.einsum("pm,kpm->kp", weight, known[:, at]))
    return torch.cat(parts, 1)
