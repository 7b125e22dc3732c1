"""Pairs worth looking at: the hardest ones, how far pairs lie apart, and both of them while a network learns."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from seeall.metrics.knn import normalised
from seeall.metrics.verification import pair_scores
from seeall.ssl.task import Pretraining
from seeall.training.journal import Journal

PAIRS = 12
"""Pairs of a kind that are shown."""
_TWICE = 2
_BUDGET = 1 << 22
_GAP, _SIDE = 2, 64
_ONE, _TWO = (31, 111, 180), (210, 105, 30)


class Pair(NamedTuple):
    """Two rows and the cosine of what was made of them."""

    first: int
    second: int
    cosine: float


def comparable(labels: Tensor) -> bool:
    """Whether rows with these labels (n,) make pairs of one label, and pairs of two."""
    _, sizes = labels.unique(return_counts=True)  # type: ignore[no-untyped-call]
    return len(sizes) > 1 and bool((sizes > 1).any())


@torch.no_grad()
def hardest(z: Tensor, labels: Tensor, count: int = PAIRS) -> tuple[list[Pair], list[Pair]]:
    """Pairs of one label with the lowest cosine, and of two labels with the highest, hardest first.

    z: (n, D), of any length, normalised here; labels: (n,) int64. The hardest pair is taken, then the next one none of
    whose rows is in two pairs already, and so on: at most `count` of each kind, fewer where there are not so many.
    Raises: SeeallError for features that are none or not finite.
    """
    x, n = normalised(z), len(z)
    labels = labels.to(x.device)
    # all that can be passed over in a row: partners that are in two pairs, at most `count`, and the row's own two
    depth = min(n, 2 * count // _TWICE + _TWICE)
    found: tuple[list[Tensor], list[Tensor]] = ([], [])
    tile = max(1, _BUDGET // n)
    for start in range(0, n, tile):
        rows = torch.arange(start, min(start + tile, n), device=x.device)
        cosine = x[rows] @ x.T
        same = labels[rows, None] == labels
        later = torch.arange(n, device=x.device) > rows[:, None]
        for kind, hard in enumerate((-cosine, cosine)):
            wanted = later & (same if kind == 0 else ~same)
            best, partner = torch.where(wanted, hard, -torch.inf).topk(depth)
            row, place = (best > -torch.inf).nonzero(as_tuple=True)
            pairs = torch.stack([best[row, place].double(), rows[row].double(), partner[row, place].double()])
            found[kind].append(pairs.cpu())
    positives, negatives = (_few(torch.cat(part, dim=1), count) for part in found)
    return [pair._replace(cosine=-pair.cosine) for pair in positives], negatives


def _few(pairs: Tensor, count: int) -> list[Pair]:
    """(3, p) hardness and two rows, by row → the hardest pairs, no row in more than two."""
    taken: list[Pair] = []
    times: dict[int, int] = {}
    for hard, first, second in pairs[:, pairs[0].argsort(descending=True, stable=True)].T.tolist():
        if len(taken) == count:
            break
        if max(times.get(first, 0), times.get(second, 0)) < _TWICE:
            taken.append(Pair(int(first), int(second), hard))
            times |= {row: times.get(row, 0) + 1 for row in (first, second)}
    return taken


def distance(cosine: Tensor) -> Tensor:
    """Cosines → Euclidean distances of rows of length one: 0 equal, √2 unrelated, 2 opposite."""
    return (2 - 2 * cosine).clamp(min=0).sqrt()


def distances(task: Pretraining, journal: Journal, step: int) -> None:
    """How far pairs of the monitored pictures lie apart after an evaluation: of one label, and of two."""
    if task.monitor is None or task.monitored is None or not comparable(task.monitor[1]):
        return
    for name, cosines in zip(("same", "different"), pair_scores(task.monitored, task.monitor[1])):
        journal.histogram(f"distances/{name}", distance(cosines), step)


def sheet(task: Pretraining, journal: Journal, step: int) -> None:
    """`pictures/hardest.png`: of the monitored pictures the hardest pairs of one label, above those of two."""
    if task.monitor is None:
        return
    pixels, targets = task.monitor
    z = task.see(pixels) if task.monitored is None else task.monitored
    bands = [_band(pixels, kind, colour) for kind, colour in zip(hardest(z, targets), (_ONE, _TWO)) if kind]
    if bands:
        wide = max(band.shape[2] for band in bands)
        journal.picture("hardest", torch.cat([F.pad(b, (0, wide - b.shape[2]), value=255) for b in bands], 1), step)


def _band(pixels: Tensor, pairs: list[Pair], colour: tuple[int, int, int]) -> Tensor:
    """Pairs, one picture above the other, in a frame: (3, 2S + …, n(S + 2) + …) uint8."""
    columns = [torch.cat([_padded(pixels[pair.first]), _padded(pixels[pair.second])], 1) for pair in pairs]
    band = torch.cat(columns, 2)
    frame = torch.tensor(colour, dtype=torch.uint8)[:, None, None].expand(3, band.shape[1] + 6, band.shape[2] + 6)
    frame = frame.clone()
    frame[:, 3:-3, 3:-3] = band
    return F.pad(frame, (_GAP, _GAP, _GAP, _GAP), value=255)


def _padded(picture: Tensor) -> Tensor:
    """(3, S, S) uint8 with white around it; a small one is enlarged."""
    factor = max(1, _SIDE // picture.shape[-1])
    return F.pad(picture.repeat_interleave(factor, 1).repeat_interleave(factor, 2), (_GAP, _GAP, _GAP, _GAP), value=255)
