"""What a head is worth: figures that can be known beforehand, the worst first, a page, and runs side by side."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from seeall.data.annotations.draw import palette
from seeall.data.annotations.examples import Examples, load
from seeall.data.annotations.layouts import find_annotated
from seeall.data.annotations.truth import Truth
from seeall.heads.build import Recipe
from seeall.heads.classification import Classification
from seeall.heads.compare import compare, table
from seeall.heads.detection.task import Detection
from seeall.heads.examine import Examined, beside, quality, sheet, taken_for, worst
from seeall.heads.prediction import Prediction
from seeall.heads.report import report
from seeall.heads.segmentation.losses import SegmentationLoss
from seeall.heads.segmentation.task import Segmentation
from seeall.metrics.detection import Found
from seeall.training.embed import Normalise
from seeall.training.run import Run
from seeall.types import SeeallError

TASKS = ("classification", "detection", "instance", "segmentation")
WORLD = "scenes:n=8,size=48,things=1-3,classes=3,poles=0,seed=2"
NAMES = {"disc": "<b>", "square": 'a "b" & c', "triangle": "d/e"}


def judge(task: str, classes: Sequence[str]) -> Any:
    """A head's `judge`, without a network."""
    normalise = Normalise((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    if task == "classification":
        return Classification(nn.Identity(), normalise, 48, classes)
    if task == "segmentation":
        return Segmentation(nn.Identity(), normalise, 48, classes, SegmentationLoss())
    return Detection(nn.Identity(), classes, 0, task == "instance")


def perfect(task: str, truth: Truth, classes: int) -> Prediction:
    if task == "classification":
        assert truth.label is not None
        return Prediction(scores=np.eye(classes, dtype=np.float32)[truth.label])
    if task == "segmentation":
        return Prediction(semantic=truth.semantic)
    scores = np.linspace(0.9, 0.6, len(truth.boxes), dtype=np.float32)
    return Prediction(found=Found(boxes=truth.boxes, scores=scores, classes=truth.classes, masks=truth.masks))


def empty(task: str, truth: Truth, classes: int) -> Prediction:
    """Equal scores, background alone, or nothing found."""
    if task == "classification":
        return Prediction(scores=np.full(classes, 1 / classes, np.float32))
    if task == "segmentation":
        assert truth.semantic is not None
        return Prediction(semantic=np.zeros_like(truth.semantic))
    return Prediction(found=Found(masks=np.zeros((0, 48, 48), bool) if task == "instance" else None))


def shuffled(task: str, truth: Truth, classes: int) -> Prediction:
    """Every class taken for the next."""
    said = perfect(task, truth, classes)
    if said.scores is not None:
        return Prediction(scores=np.roll(said.scores, 1))
    if said.semantic is not None:
        return Prediction(semantic=((said.semantic.astype(int) + 1) % classes).astype(np.uint8))
    assert said.found is not None
    return Prediction(found=replace(said.found, classes=(said.found.classes + 1) % classes))


def examined(task: str, says: Callable[[str, Truth, int], Prediction], names: dict[str, str] | None = None) -> Examined:
    some: Examples = load(find_annotated(WORLD, task), 48)
    classes = tuple((names or {}).get(name, name) for name in some.annotated.classes)
    truths = [some[i].truth for i in range(len(some))]
    predictions = [says(task, truth, len(classes)) for truth in truths]
    recipe = Recipe(task, "any", classes, 48, "resnet18")
    return Examined(
        recipe, some, predictions, {"pictures": len(some), **judge(task, classes).judge(zip(predictions, truths))}
    )


@pytest.mark.parametrize("task", TASKS)
def test_what_is_perfect_has_all(task: str) -> None:
    seen = examined(task, perfect)
    figures = {name: value for name, value in seen.figures.items() if name != "pictures"}
    assert figures and all(value == pytest.approx(100) for value in figures.values()), figures
    matrix, names = taken_for(seen)
    assert matrix.sum() == matrix.diagonal().sum() > 0 and len(names) == len(matrix)
    assert {quality(task, p, t, len(seen.recipe.classes)) for p, t in zip(seen.predictions, seen.truths)} == {1.0}


@pytest.mark.parametrize("task", ["detection", "instance"])
@pytest.mark.parametrize("says", [empty, shuffled])
def test_what_finds_nothing_right_has_none(task: str, says: Callable[[str, Truth, int], Prediction]) -> None:
    seen = examined(task, says)
    assert {value for name, value in seen.figures.items() if name != "pictures"} == {0.0}
    total = sum(len(truth.boxes) for truth in seen.truths)
    matrix, names = taken_for(seen)
    assert names[-1] == "nothing" and matrix.sum() == total and matrix.diagonal().sum() == 0
    assert (matrix[:, -1].sum() == total) == (says is empty), "missed, or taken for something else"


def test_pictures_named_alike_or_wrong() -> None:
    wrong = examined("classification", shuffled)
    assert wrong.figures["top1"] == 0 and all(v == 0 for n, v in wrong.figures.items() if n.startswith("recall/"))
    matrix, names = taken_for(wrong)
    assert all(matrix[k, (k + 1) % len(names)] == matrix[k].sum() for k in range(len(names)))
    equal = examined("classification", empty)
    unknown = examined("classification", lambda *what: Prediction(scores=empty(*what).scores * np.float32("nan")))  # type: ignore[operator]
    assert equal.figures["top1"] == unknown.figures["top1"] == 0, "to say the same of all is to know nothing"


def test_pixels_taken_for_background() -> None:
    seen = examined("segmentation", empty)
    known = np.concatenate([t.semantic.ravel() for t in seen.truths if t.semantic is not None])
    share = 100 * float((known == 0).mean())
    occur = len(np.unique(known))
    assert seen.figures["pixel_accuracy"] == pytest.approx(share) == pytest.approx(seen.figures["iou/background"])
    assert seen.figures["mIoU"] == pytest.approx(share / occur)
    assert seen.figures["class_accuracy"] == pytest.approx(100 / occur)
    wrong = examined("segmentation", shuffled)
    assert wrong.figures["mIoU"] == wrong.figures["pixel_accuracy"] == 0


@pytest.mark.parametrize("task", TASKS)
def test_the_worst_come_first(task: str) -> None:
    """Pictures that are wrong, then those that are right, each in their order."""
    right, wrong = examined(task, perfect), examined(task, shuffled)
    bad = [1, 4, 6]
    mixed = [wrong.predictions[i] if i in bad else right.predictions[i] for i in range(8)]
    assert worst(replace(right, predictions=mixed)) == [1, 4, 6, 0, 2, 3, 5, 7]


def test_a_picture_with_nothing_to_find_is_right_where_nothing_is_found() -> None:
    bare, one = (
        Truth(),
        Found(boxes=np.ones((1, 4), np.float32), scores=np.ones(1, np.float32), classes=np.zeros(1, int)),
    )
    assert quality("detection", Prediction(found=Found()), bare, 2) == 1
    assert quality("detection", Prediction(found=one), bare, 2) == 0
    unsure = replace(one, scores=np.full(1, 0.4, np.float32))
    assert quality("detection", Prediction(found=unsure), bare, 2) == 1


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("says", [perfect, empty, shuffled])
def test_the_page_says_what_was_measured_whatever_classes_are_called(
    task: str, says: Callable[[str, Truth, int], Prediction]
) -> None:
    seen = examined(task, says, NAMES)
    text = re.sub(r"data:image[^\"]*", "", report('What "<i>" says', seen))
    assert "<b>" not in text and "<i>" not in text and "&lt;b&gt;" in text and "a &quot;b&quot; &amp; c" in text
    assert text.count("<figure><img") == len(seen.examples) and "nan" not in text and "None" not in text
    best = {"classification": "top1", "segmentation": "mIoU"}.get(task, "mAP")
    assert f'<td class="name">{best}<td>{seen.figures[best]:.2f}' in text
    assert ("Precision and recall" in text) == (task in ("detection", "instance"))
    for name in ("<b>", "d/e"):
        kind = {"classification": "recall", "segmentation": "iou"}.get(task, "AP")
        assert f"{kind}/{name}" in seen.figures


@pytest.mark.parametrize("task", TASKS)
def test_the_sheet_holds_each_picture_beside_its_truth(task: str) -> None:
    seen = examined(task, perfect)
    pair = beside(seen, 0)
    assert pair.shape == (144, 292, 3) and (pair[:, 144:148] == 255).all(), "48 px, three times as large"
    paper = sheet(seen, 3)
    assert paper.dtype == torch.uint8 and paper.shape == (3, 2 * 156, 2 * 304)
    assert (paper[:, 156:, 304:] == 255).all(), "three of four places"
    if task == "segmentation":
        assert np.array_equal(pair[:, :144], pair[:, 148:]), "what is right looks like the truth"
    assert len(palette(3)) == 3


def run(folder: Path, top1: float, fingerprint: str = "f", status: str = "finished", **settings: Any) -> Path:
    folder.mkdir()
    chosen = {"task": "classification", "start": "none", "seed": 0, "set": [], "data": "here", "val": None, **settings}
    about = {"source": chosen["data"], "pictures": 9, "fingerprint": fingerprint}
    begun = Run(folder, {"format": 1, "settings": chosen, "data": about, "status": status})
    begun.update(results={"loss": 1.0, "top1": top1})
    return folder


def test_runs_that_differ_by_their_seed_are_one_row(tmp_path: Path) -> None:
    runs = [run(tmp_path / f"a{seed}", 50 + seed, seed=seed, data=f"there{seed}", workers=seed) for seed in range(3)]
    runs.append(run(tmp_path / "b", 70, start="runs/photos", set=["flip=0"]))
    plain, learnt = compare([*runs, runs[0], tmp_path / "b" / ".." / "b"])
    assert (plain["runs"], learnt["runs"]) == (3, 1)
    assert plain["name"] == "flip=–, from=none"
    assert plain["metrics"]["top1"] == (51, pytest.approx(1)) and learnt["metrics"]["top1"] == (70, 0)
    lines = table([plain, learnt])
    assert "top1" in lines[0] and "loss" not in lines[0] and "51.00 ± 1.00" in lines[1] and "70.00 " in lines[2]
    assert json.dumps([plain, learnt])


def test_runs_on_other_pictures_are_other_runs(tmp_path: Path) -> None:
    here, there = run(tmp_path / "a", 50), run(tmp_path / "b", 60, fingerprint="g", data="there")
    other = run(tmp_path / "c", 70, val="more")
    assert [group["name"] for group in compare([here, there, other])] == [
        "data=here, val=–", "data=there, val=–", "data=here, val=more",
    ]  # fmt: skip
    assert [group["name"] for group in compare([here])] == ["all alike"]


def test_a_run_that_is_not_done_is_not_compared(tmp_path: Path) -> None:
    with pytest.raises(SeeallError, match="this run is stopped, not finished; go on with it by --resume"):
        compare([run(tmp_path / "a", 50, status="stopped")])
