"""Bootstrapping: which finds are mistakes, which are kept, and that a run interrupted while trying loses none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from seeall.data.annotations.examples import Examples, read
from seeall.data.annotations.layouts import find_annotated
from seeall.data.annotations.truth import MISTAKEN, Truth
from seeall.heads.detection.bootstrap import MOST, Bootstrap
from seeall.heads.prediction import Prediction
from seeall.metrics.detection import Found
from seeall.training.engine import launch

THING, CROWD = [10, 10, 30, 30], [500, 500, 700, 700]


class Finds(torch.nn.Module):
    """Says the same of every picture."""

    def __init__(self, boxes: Any) -> None:
        super().__init__()
        self.boxes = np.array(boxes, np.float32).reshape(-1, 4)

    def predict(self, pictures: Sequence[Tensor]) -> list[Prediction]:
        scores = np.linspace(1, 0.1, len(self.boxes), dtype=np.float32)
        found = Found(boxes=self.boxes, scores=scores, classes=np.zeros(len(scores), np.int64))
        return [Prediction(found=found) for _ in pictures]


@pytest.fixture
def examples() -> Examples:
    """One picture with a thing and a crowd."""
    annotated = find_annotated("scenes:n=1,size=32,classes=1", "detection")
    truth = Truth(
        boxes=np.array([THING, CROWD], np.float32), classes=np.zeros(2, np.int64), crowd=np.array([False, True])
    )
    return Examples(annotated, 32, [replace(read(annotated, 0, 32), truth=truth)], [])


def apart(n: int, y: float = 100) -> list[list[float]]:
    return [[40.0 * k, y, 40.0 * k + 20, y + 20] for k in range(n)]


def trial(boxes: Any, examples: Examples, folder: Path) -> Bootstrap:
    return Bootstrap(Finds(boxes), examples, launch(precision="32"), 10, folder)  # type: ignore[arg-type]


def test_a_find_on_a_thing_or_in_a_crowd_is_no_mistake(examples: Examples, tmp_path: Path) -> None:
    near = [12, 10, 32, 30]
    tried = trial([THING, near, [520, 520, 540, 540], [45, 10, 65, 30]], examples, tmp_path)
    assert tried.attempt() == [[[45, 10, 65, 30]]]


def test_the_surest_mistakes_are_kept_and_the_latest_come_first(examples: Examples, tmp_path: Path) -> None:
    tried = trial(apart(MOST + 10), examples, tmp_path)
    tried.take(tried.attempt())
    assert tried.mistakes[0].tolist() == apart(MOST)
    tried.head.boxes = np.array(apart(3, 400), np.float32)  # type: ignore[assignment]
    tried.take(tried.attempt())
    assert tried.mistakes[0].tolist() == apart(3, 400) + apart(MOST - 3)
    marked = tried(examples[0], 0).truth
    assert (marked.classes == MISTAKEN).sum() == MOST and marked.boxes[:2].tolist() == [THING, CROWD]


def test_interrupted_while_trying_it_forgets_nothing(examples: Examples, tmp_path: Path) -> None:
    whole = trial(apart(2), examples, tmp_path / "whole")
    whole.pause(10)
    whole.head.boxes = np.array(apart(3, 400), np.float32)  # type: ignore[assignment]
    whole.pause(20)
    cut = trial(apart(2), examples, tmp_path / "cut")
    cut.pause(10)
    again = trial(apart(3, 400), examples, tmp_path / "cut")  # the second trial of which the first process died
    again.pause(20)
    assert again.mistakes[0].tolist() == whole.mistakes[0].tolist() == apart(3, 400) + apart(2)
