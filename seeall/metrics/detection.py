"""How well things are found, and what they are taken for.

`detection` is COCO's protocol (Lin et al. 2014, arXiv:1405.0312, and its evaluation code), by faster-coco-eval:

    AP/NAME      mean of the precision at 101 recalls from 0 to 1, that of a recall being the best at it or above;
                 mean over ten thresholds of IoU, 0.5, 0.55 … 0.95
    mAP          mean of AP over the classes that the truth has; mAP50, mAP75 and AP50/NAME: at a threshold of one IoU
    mAP_small    of things up to 32² px, finds of another size left out that take none; mAP_medium: up to 96² px;
                 mAP_large: beyond
    mAR          the recall of all finds, mean over thresholds and classes

Departure: a thing's size is that of its box, or of its mask where masks are measured; COCO takes the mask's for both.

`curves`, `counts` and `confused` match for themselves. Finds take things one after the other, the highest score first,
each the thing of its class with the largest IoU that is still free. What a crowd covers is neither right nor wrong:
a find is part of a crowd where their intersection is that share of the find, and a crowd is never missed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, final

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster, mask
from numpy.typing import NDArray

from seeall.data.annotations.truth import Truth

_WRONG, _CROWD = -1, -2
"""What became of a find that took nothing."""


@final
class Masks:
    """(M, H, W) bool, kept as COCO's run lengths, which are small however large the picture is.

    Taken as from an array, one of them is (H, W), some are packed still, and parts of each are an array.
    """

    ndim = 3

    def __init__(self, runs: Sequence[dict[str, Any]], height: int, width: int) -> None:
        self.runs, self.shape = list(runs), (len(runs), height, width)

    @classmethod
    def pack(cls, masks: Iterable[NDArray[np.bool_]], height: int, width: int) -> Masks:
        """masks: (H, W) each, of which no two are needed at once."""
        return cls([_run_lengths(one) for one in masks], height, width)

    @property
    def areas(self) -> list[int]:
        """(M,) px."""
        return [int(n) for n in mask.area(self.runs)]

    def __len__(self) -> int:
        return len(self.runs)

    def __iter__(self) -> Iterator[NDArray[np.bool_]]:
        return (mask.decode(runs).view(np.bool_) for runs in self.runs)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, tuple):
            return np.asarray(self)[index]
        rows = np.arange(len(self))[index]
        if rows.ndim == 0:
            return mask.decode(self.runs[rows]).view(np.bool_)
        return Masks([self.runs[row] for row in rows], *self.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        masks = np.zeros(self.shape, np.bool_)
        for k, one in enumerate(self):
            masks[k] = one
        return masks if dtype is None else masks.astype(dtype)


def _run_lengths(values: NDArray[np.bool_]) -> dict[str, Any]:
    """(H, W) → as COCO's tools have it, by way of the part of the picture in which the mask lies."""
    height, width = values.shape
    rows, columns = np.flatnonzero(values.any(1)), np.flatnonzero(values.any(0))
    if not len(rows):
        turns = np.zeros(0, np.int64)
    else:
        part = values[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].T.astype(np.int8)
        column, row = np.nonzero(np.diff(part, axis=1, prepend=0, append=0))
        turns = (columns[0] + column) * height + rows[0] + row
        joined = np.append(turns[1:] == turns[:-1], False)  # the end of a column, on, and the top of the next
        turns = turns[~(joined | np.roll(joined, 1))]
    counts = np.diff(turns, prepend=0, append=height * width).tolist()
    found: dict[str, Any] = mask.frPyObjects(
        {"size": [height, width], "counts": counts if counts[-1] else counts[:-1]}, height, width
    )
    return found


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Found:
    """What was found in one picture of H by W px. M things.

    Raises: ValueError where shapes do not agree, which only a mistake in this package can cause.
    """

    boxes: NDArray[np.float32] = dataclasses.field(default_factory=lambda: np.zeros((0, 4), np.float32))
    """(M, 4) xyxy, px."""
    scores: NDArray[np.float32] = dataclasses.field(default_factory=lambda: np.zeros(0, np.float32))
    """(M,) the surer the higher."""
    classes: NDArray[np.int64] = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
    """(M,) from 0."""
    masks: NDArray[np.bool_] | Masks | None = None
    """(M, H, W)."""

    def __post_init__(self) -> None:
        m = len(self.boxes)
        if self.boxes.shape != (m, 4) or self.scores.shape != (m,) or self.classes.shape != (m,):
            raise ValueError(f"boxes {self.boxes.shape}, scores {self.scores.shape}, classes {self.classes.shape}")
        if self.masks is not None and (self.masks.ndim != 3 or len(self.masks) != m):
            raise ValueError(f"masks {self.masks.shape} for {m} boxes")


def detection(
    found: Sequence[Found], truths: Sequence[Truth], names: Sequence[str], *, masks: bool = False, most: int = 100
) -> dict[str, float]:
    """COCO's measures.

    found, truths: one for every picture, in the same order; names: of the classes.
    masks: by the IoU of masks, which all that is found and known must have then.
    most: how many finds of a class a picture may have; those of the lowest scores are left out beyond it.
    Returns: mAP, mAP50, mAP75, mAP_small, mAP_medium and mAP_large where there are things of that size, mAR, and for
        every class that the truth has AP/NAME and AP50/NAME, all in percent; nothing where nothing is to be found.
    Raises: ValueError if there are not as many of both, for a class without a name, or where masks are missing.
    """
    _check(found, truths, names)
    if not any((~truth.crowd).any() for truth in truths):
        return {}
    pictures = [{"id": i} | _size(f, t, masks) for i, (f, t) in enumerate(zip(found, truths))]
    base = {"images": pictures, "categories": [{"id": c, "name": name} for c, name in enumerate(names)]}
    known = [a | {"iscrowd": int(c)} for i, t in enumerate(truths) for a, c in zip(_things(i, t, masks), t.crowd)]
    guessed = [
        a | {"iscrowd": 0, "score": float(s)}
        for i, f in enumerate(found)
        for a, s in zip(_things(i, f, masks), f.scores)
    ]
    judge = COCOeval_faster(
        *(COCO(base | {"annotations": _numbered(a)}, print_function=_silent) for a in (known, guessed)),
        iouType="segm" if masks else "bbox",
        print_function=_silent,
        extra_calc=False,
    )
    judge.params.maxDets = [most]
    judge.evaluate()
    judge.accumulate()
    # thresholds, recalls, classes, sizes; a class without truth of a size has -1
    precision, recall = judge.eval["precision"][..., 0], judge.eval["recall"][..., 0]
    measures = {"mAP": precision[..., 0], "mAP50": precision[0, ..., 0], "mAP75": precision[5, ..., 0]}
    measures |= {f"mAP_{size}": precision[..., a] for a, size in enumerate(("small", "medium", "large"), 1)}
    measures["mAR"] = recall[..., 0]
    for c, name in enumerate(names):
        measures |= {f"AP/{name}": precision[:, :, c, 0], f"AP50/{name}": precision[0, :, c, 0]}
    return {name: 100 * float(x[x > -1].mean()) for name, x in measures.items() if (x > -1).any()}


def curves(
    found: Sequence[Found], truths: Sequence[Truth], names: Sequence[str], *, iou: float = 0.5
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]]:
    """Recall and precision of each class that the truth has, as the threshold of the score falls.

    iou: the least that counts as found.
    Returns: NAME → recall, precision and scores, each (c,) for c different scores: of all finds at or above a score.
    Raises: ValueError as `detection`.
    """
    _check(found, truths, names)
    result = {}
    for c, name in enumerate(names):
        total = sum(int((~t.crowd[t.classes == c]).sum()) for t in truths)
        if not total:
            continue
        scores, taken = (np.concatenate(parts) for parts in zip(*_matched(found, truths, c, iou)))
        scores, taken = scores[taken != _CROWD].astype(np.float64), taken[taken != _CROWD]
        order = np.argsort(-scores, kind="stable")
        scores, right = scores[order], (taken[order] >= 0).cumsum()
        last = np.append(scores[1:] != scores[:-1], True) if len(scores) else np.zeros(0, bool)
        result[name] = (right[last] / total, right[last] / (1 + np.flatnonzero(last)), scores[last])
    return result


def counts(
    found: Sequence[Found], truths: Sequence[Truth], names: Sequence[str], *, score: float = 0.5, iou: float = 0.5
) -> dict[str, int]:
    """true_positives, false_positives and missed: of all classes, from the finds at or above a score.

    Arguments and errors as for `curves`.
    """
    _check(found, truths, names)
    kept = [_at_least(f, score) for f in found]
    taken = np.concatenate(
        [np.zeros(0, int)] + [t for c in range(len(names)) for _, t in _matched(kept, truths, c, iou)]
    )
    right = int((taken >= 0).sum())
    return {
        "true_positives": right,
        "false_positives": int((taken == _WRONG).sum()),
        "missed": sum(int((~t.crowd).sum()) for t in truths) - right,
    }


def confused(
    found: Sequence[Found], truths: Sequence[Truth], names: Sequence[str], *, score: float = 0.5, iou: float = 0.5
) -> NDArray[np.int64]:
    """What things are taken for, whatever their class: of a find and a thing, those of the largest IoU go first.

    Arguments and errors as for `counts`. Among pairs of one IoU that of the surer find goes first.
    Returns: (K + 1, K + 1), rows truth, columns found; in the last row what was found where nothing is, in the last
        column what was missed.
    """
    _check(found, truths, names)
    K = len(names)
    matrix = np.zeros((K + 1, K + 1), np.int64)
    for f, t in zip((_at_least(f, score) for f in found), truths):
        overlap = overlap_of(f.boxes, t.boxes, t.crowd)
        free_finds, free_things = np.ones(len(f.boxes), bool), ~t.crowd
        pairs = np.argwhere((overlap >= iou) & ~t.crowd)
        for d, g in pairs[np.lexsort((-f.scores[pairs[:, 0]], -overlap[tuple(pairs.T)]))]:
            if free_finds[d] and free_things[g]:
                matrix[t.classes[g], f.classes[d]] += 1
                free_finds[d] = free_things[g] = False
        free_finds &= ~((overlap >= iou) & t.crowd).any(1)
        np.add.at(matrix[K], f.classes[free_finds], 1)
        np.add.at(matrix[:, K], t.classes[free_things], 1)
    return matrix


def _check(found: Sequence[Found], truths: Sequence[Truth], names: Sequence[str]) -> None:
    if len(found) != len(truths):
        raise ValueError(f"found in {len(found)} pictures, the truth of {len(truths)}")
    for classes in [*(f.classes for f in found), *(t.classes for t in truths)]:
        if len(classes) and not 0 <= classes.min() <= classes.max() < len(names):
            raise ValueError(f"classes from {classes.min()} to {classes.max()}, {len(names)} names")


def _at_least(found: Found, score: float) -> Found:
    kept = found.scores >= score
    return Found(boxes=found.boxes[kept], scores=found.scores[kept], classes=found.classes[kept])


def _matched(
    found: Sequence[Found], truths: Sequence[Truth], c: int, iou: float
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Scores of the finds of class c, best first, and what each took: a thing's place, _WRONG or _CROWD; by picture."""
    for f, t in zip(found, truths):
        finds, things = np.flatnonzero(f.classes == c), np.flatnonzero(t.classes == c)
        finds = finds[np.argsort(-f.scores[finds], kind="stable")]
        crowd = t.crowd[things]
        overlap = overlap_of(f.boxes[finds], t.boxes[things], crowd)
        taken = np.full(len(finds), _WRONG)
        free = ~crowd
        for d, row in enumerate(overlap):
            fits = free & (row >= iou)
            if fits.any():
                g = np.flatnonzero(fits & (row == row[fits].max()))[-1]  # the last of equals, as COCO has it
                taken[d], free[g] = things[g], False
            elif (crowd & (row >= iou)).any():
                taken[d] = _CROWD
        yield f.scores[finds], taken


def overlap_of(boxes: NDArray[Any], others: NDArray[Any], crowd: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(M, 4), (N, 4) xyxy, crowd: (N,) → (M, N) IoU; with a crowd, the share of the box that it covers."""
    a, b = boxes[:, None].astype(np.float64), others[None].astype(np.float64)
    sides = (np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])).clip(min=0)
    both = sides.prod(-1)
    area, area_of_other = ((x[..., 2:] - x[..., :2]).clip(min=0).prod(-1) for x in (a, b))
    whole = np.where(crowd, area, area + area_of_other - both)
    shares: NDArray[np.float64] = np.divide(both, whole, out=np.zeros_like(both), where=whole > 0)
    return shares


def _things(picture: int, part: Found | Truth, masks: bool) -> list[dict[str, Any]]:
    """As COCO writes them down."""
    corner, size = (
        part.boxes[:, :2].astype(np.float64),
        np.diff(part.boxes.astype(np.float64).reshape(-1, 2, 2), axis=1),
    )
    things = [
        {"image_id": picture, "category_id": int(c), "bbox": [*xy, *wh], "area": wh[0] * wh[1]}
        for c, xy, wh in zip(part.classes, corner.tolist(), size[:, 0].tolist())
    ]
    if masks and things:
        if part.masks is None:
            raise ValueError(f"picture {picture} has {len(things)} boxes and no masks")
        drawn = part.masks if isinstance(part.masks, Masks) else Masks.pack(part.masks, *part.masks.shape[1:])
        for thing, runs, area in zip(things, drawn.runs, drawn.areas):
            thing |= {"segmentation": runs, "area": area}
    return things


def _numbered(things: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """From 1, as 0 would mean that nothing was taken."""
    return [thing | {"id": i} for i, thing in enumerate(things, 1)]


def _size(found: Found, truth: Truth, masks: bool) -> dict[str, int]:
    sizes = {part.masks.shape[1:] for part in (truth, found) if masks and part.masks is not None}
    if len(sizes) > 1:
        raise ValueError(f"masks of one picture are of different sizes: {sorted(sizes)}")
    return dict(zip(("height", "width"), sizes.pop())) if sizes else {}


def _silent(*_: object) -> None:
    pass
