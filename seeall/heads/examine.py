"""How good is a head? Its task's own metrics, which pictures it is worst at, and what it takes for what."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seeall.catalog import SEMANTIC
from seeall.console import log
from seeall.data.annotations.draw import draw
from seeall.data.annotations.examples import Examples, load, scaled
from seeall.data.annotations.truth import Annotated, Truth
from seeall.data.decode import Pixels
from seeall.heads import build, kinds
from seeall.heads.build import Recipe
from seeall.heads.flow.draw import panel
from seeall.heads.keypoints.draw import panel as keypoints_panel
from seeall.heads.kinds import Kind
from seeall.heads.prediction import Answer, Head, Prediction, answers
from seeall.heads.split import divided, fingerprint, limited, share_of
from seeall.metrics.detection import Found, confused, counts
from seeall.metrics.flow import flow
from seeall.metrics.segmentation import confusion, segmentation
from seeall.training.run import read_facts
from seeall.types import SeeallError

SURE, OVERLAP = 0.5, 0.5
"""The score and the IoU at which a find counts, where one number is wanted for a picture."""
_WIDE = 3
"""A picture that is so many times as wide as high has a row of a sheet for itself."""
_APART = 12
"""Between the pairs of a sheet, px."""
_READABLE = 160
"""Pictures are drawn enlarged as long as their longer side is not above this, px, so that words on them can be read."""


@dataclass(frozen=True)
class Examined:
    """figures: metrics by flat name, percent · predictions: one for each example."""

    recipe: Recipe
    examples: Examples
    predictions: Sequence[Prediction]
    figures: dict[str, float]

    @functools.cached_property
    def truths(self) -> list[Truth]:
        """What is known about each example."""
        return [self.examples[i].truth for i in range(len(self.examples))]


def examine(run: str | Path, data: str, *, limit: int | None = None, seed: int = 0, **settings: Any) -> Examined:
    """Judge the head of `run` by the test pictures of `data`, else by its validation pictures, else by those that it
    held back where these are the pictures it was given, else by all.

    limit: at most so many of them, drawn by seed · settings: of how the task finds its data

    Raises: SeeallError where there is no head, or the data have classes that it does not know.
    """
    head, recipe = build.load(run)
    kind = kinds.KINDS[recipe.task]
    annotated = kind.find(data, **_as_learnt(kind, recipe) | settings)
    strange = [name for name in annotated.classes if name not in recipe.classes]
    if list(annotated.classes) != list(recipe.classes):
        raise SeeallError(
            f"{data}: the head knows {', '.join(recipe.classes)}; these data have "
            f"{', '.join(strange) if strange else 'fewer classes, or another order'}; say which by --set names=…"
        )
    splits = set(annotated.pictures.splits or ())
    if splits & {"test", "val"}:
        annotated = next(annotated.split(name) for name in ("test", "val") if name in splits)
    else:
        annotated = _unseen(run, annotated)
    size = None if kind.own_size else recipe.image_size
    examples = load(limited(annotated.known(), limit, seed), size, allow_skipped=True)
    return of(head, recipe, examples)  # type: ignore[arg-type]


def _as_learnt(kind: Kind, recipe: Recipe) -> dict[str, Any]:
    """The settings by which data are found as the head has learnt from them."""
    paced = {kind.pace: recipe.rate} if recipe.rate else {}
    return paced | ({"sees": recipe.sees} if recipe.sees != "frames" else {})


def _unseen(run: str | Path, annotated: Annotated) -> Annotated:
    """Of the very pictures that a run was given, those it held back; others all."""
    file = Path(run) / "run.json"
    facts = read_facts(file) if file.is_file() else None
    if facts is None:
        return annotated
    if facts["data"]["fingerprint"] != fingerprint(annotated):
        if _same_place(facts["data"]["source"], annotated.pictures.source):
            log.warning(
                "%s: these pictures or settings are not those of the run, so it is not known which of them the head has"
                " learnt from; judging by all", annotated.pictures.source,
            )  # fmt: skip
        return annotated
    settings = facts["settings"]
    if settings["val"] is not None and share_of(settings["val"]) is None:
        log.warning("the head has learnt from these pictures, so it will know them better than others")
        return annotated
    _, held = divided(annotated, settings["val"], lambda data: annotated, settings["seed"])
    log.info("the head has learnt from the other pictures: judging by the %d held back", len(held))
    return held


def _same_place(one: str, other: str) -> bool:
    """Whether two names of data are the same, or lead to the same files."""
    return one == other or (Path(one).exists() and Path(one).resolve() == Path(other).resolve())


def of(head: Head, recipe: Recipe, examples: Examples) -> Examined:
    """The same for a head and examples at hand."""
    predictions = list[Prediction]()

    def kept() -> Iterator[Answer]:
        for prediction, truth in answers(head, examples):
            predictions.append(prediction)
            yield prediction, truth

    found = head.judge(kept()) if len(examples) else {}
    return Examined(recipe, examples, predictions, {"pictures": len(examples), **found})


def quality(task: str, prediction: Prediction, truth: Truth, classes: int) -> float:
    """How right one picture is, 0 to 1.

    The probability of the true class; the mean IoU of classes; or of things TP / (TP + FP + FN), at a score and an IoU
    of one half, 1 where there are none and none is found. Of flow, 1 / (1 + its end-point error in px); of
    keypoints, 1 / (1 + the mean squared error of what is drawn by them).
    """
    if prediction.flow is not None:
        assert truth.motion is not None
        return 1 / (1 + flow([(prediction.flow, *truth.motion)])["EPE"])
    if prediction.keypoints is not None:
        return 1 / (1 + (prediction.keypoints.rebuilt or 0.0))
    if prediction.scores is not None:
        return float(prediction.scores[truth.label or 0])
    if prediction.semantic is not None:
        assert truth.semantic is not None
        table = _confusion(prediction.semantic, truth.semantic, classes)
        return segmentation(table, [str(k) for k in range(classes)]).get("mIoU", 100.0) / 100
    assert prediction.found is not None
    told = counts([prediction.found], [truth], [str(k) for k in range(classes)], score=SURE, iou=OVERLAP)
    total = sum(told.values())
    return told["true_positives"] / total if total else 1.0


def worst(examined: Examined) -> list[int]:
    """The examples, those first that the head is worst at."""
    found = [
        quality(examined.recipe.task, p, t, len(examined.recipe.classes))
        for p, t in zip(examined.predictions, examined.truths)
    ]
    return sorted(range(len(found)), key=lambda i: found[i])


def taken_for(examined: Examined) -> tuple[Tensor, list[str]]:
    """What is taken for what, counts (n, n), rows by truth; and the names of rows and columns.

    Pictures, pixels, or things, of which the last row and column are the background: found where nothing is, or missed.
    """
    names = list(examined.recipe.classes)
    if examined.recipe.task in ("classification", "action"):
        table = torch.zeros(len(names), len(names), dtype=torch.int64)
        for prediction, truth in zip(examined.predictions, examined.truths):
            assert prediction.scores is not None and truth.label is not None
            table[truth.label, int(prediction.scores.argmax())] += 1
        return table, names
    if examined.recipe.task in SEMANTIC:
        total = torch.zeros(len(names), len(names), dtype=torch.int64)
        for prediction, truth in zip(examined.predictions, examined.truths):
            assert prediction.semantic is not None and truth.semantic is not None
            total += _confusion(prediction.semantic, truth.semantic, len(names))
        return total, names
    found = [p.found for p in examined.predictions if p.found is not None]
    return torch.as_tensor(confused(found, examined.truths, names, score=SURE, iou=OVERLAP)), [*names, "nothing"]


def _confusion(said: NDArray[np.uint8], known: NDArray[np.uint8], classes: int) -> Tensor:
    return confusion(torch.from_numpy(said.astype(np.int64)), torch.from_numpy(known.astype(np.int64)), classes)


def drawn(pixels: Pixels, truth: Truth, classes: Sequence[str], scores: Any = None) -> Pixels:
    """As `draw`; a small picture first becomes larger by a whole number."""
    height, width = pixels.shape[:2]
    if (factor := _READABLE // max(height, width)) > 1:
        pixels = pixels.repeat(factor, 0).repeat(factor, 1)
        truth = scaled(truth, (height, width), (factor * height, factor * width))
    return draw(pixels, truth, classes, scores)


def beside(examined: Examined, i: int) -> Pixels:
    """Example i as the head sees it, left, and as it is, right: (H, 2 W + 4, 3) uint8, small ones enlarged."""
    example, prediction = examined.examples[i], examined.predictions[i]
    if prediction.flow is not None:
        return panel(example.pixels.permute(0, 2, 3, 1).numpy(), prediction.flow, example.truth.motion)
    if prediction.keypoints is not None:
        frames = example.pixels.permute(0, 2, 3, 1).numpy()
        return keypoints_panel(frames, prediction.keypoints.points, example.truth)
    pixels = as_one(example.pixels.movedim(-3, -1).numpy())
    said, scores = as_truth(prediction, SURE)
    seen = drawn(pixels, said, examined.recipe.classes, scores)
    known = drawn(pixels, example.truth, examined.recipe.classes)
    gap = np.full((seen.shape[0], 4, 3), 255, np.uint8)
    return np.concatenate([seen, gap, known], 1)


def as_one(pixels: Pixels, most: int = 4) -> Pixels:
    """A picture (H, W, 3) as it is; of a clip (T, H, W, 3) some frames side by side, evenly spread."""
    if pixels.ndim == 3:
        return pixels
    shown = np.unique(np.linspace(0, len(pixels) - 1, most).round().astype(int))
    return np.concatenate(list(pixels[shown]), 1)


def sheet(examined: Examined, most: int = 8) -> Tensor:
    """The examples that the head is worst at, each beside its truth, in one column or two: (3, H, W) uint8."""
    pairs = [beside(examined, i) for i in worst(examined)[:most]]
    high, wide = (max(pair.shape[axis] for pair in pairs) + _APART for axis in (0, 1))
    columns = 2 if wide < _WIDE * high else 1
    paper = np.full((-(-len(pairs) // columns) * high, columns * wide, 3), 255, np.uint8)
    for k, pair in enumerate(pairs):
        y, x = k // columns * high, k % columns * wide
        paper[y : y + pair.shape[0], x : x + pair.shape[1]] = pair
    return torch.from_numpy(paper).permute(2, 0, 1)


def as_truth(prediction: Prediction, score: float) -> tuple[Truth, Any]:
    """A prediction as something that can be drawn, and the scores that belong to it; things of `score` and above."""
    if prediction.scores is not None:
        best = int(prediction.scores.argmax())
        return Truth(label=best), prediction.scores[[best]]
    if prediction.semantic is not None:
        return Truth(semantic=prediction.semantic), None
    found = prediction.found or Found()
    sure = found.scores >= score
    masks = None if found.masks is None else found.masks[sure]
    crowd = np.zeros(int(sure.sum()), np.bool_)
    return Truth(boxes=found.boxes[sure], classes=found.classes[sure], crowd=crowd, masks=masks), found.scores[sure]
