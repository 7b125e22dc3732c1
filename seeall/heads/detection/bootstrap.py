"""Where a detector is mistaken: tried out again and again on the pictures it learns from, it collects hard negatives.

Sung and Poggio 1998, "Example-based learning for view-based human face detection", section 4.2: begin with few
negatives, train, run the detector, add what it wrongly takes for a thing to the negatives, train on. Departures:
training goes on from where it is, not anew; the pictures tried are those learnt from, whose things are known and most
of whose background was never drawn as a negative.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from seeall.console import log
from seeall.data.annotations.examples import Example, Examples
from seeall.data.annotations.truth import MISTAKEN
from seeall.heads.detection.task import Detection
from seeall.heads.prediction import answers
from seeall.heads.trial import Trial
from seeall.metrics.detection import overlap_of
from seeall.training.engine import Engine

OVERLAP, MOST = 0.4, 20
"""A find that overlaps no thing by this much, and lies in no crowd by this share, is a mistake; so many of a picture
are kept, the surest ones of the last trial first."""


@final
class Bootstrap(Trial):
    """Marks the places in which a detector was mistaken."""

    def __init__(self, head: Detection, examples: Examples, engine: Engine, every: int, folder: Path) -> None:
        super().__init__(engine, every, folder, "mistakes")
        self.head, self.examples = head, examples
        self.mistakes: list[NDArray[np.float32]] = [np.zeros((0, 4), np.float32)] * len(examples)

    def attempt(self) -> list[Any]:
        """Boxes for each picture: what is wrongly found now, the surest first, and what was before; MOST of it."""
        self.head.eval()
        wrong = []
        for i, (prediction, truth) in enumerate(answers(self.head, self.examples)):
            assert prediction.found is not None
            boxes = prediction.found.boxes
            apart = (overlap_of(boxes, truth.boxes, truth.crowd) < OVERLAP).all(1)
            wrong.append(np.concatenate([boxes[apart].round(2), self.mistakes[i]])[:MOST].tolist())
        self.head.train()
        log.info("%d places in %d pictures were taken for things", sum(map(len, wrong)), len(wrong))
        return wrong

    def take(self, found: list[Any]) -> None:
        """From now on these places are marked."""
        self.mistakes = [np.array(boxes, np.float32).reshape(-1, 4) for boxes in found]

    def __call__(self, example: Example, row: int) -> Example:
        """The example, with the places marked where the detector was mistaken."""
        truth, wrong = example.truth, self.mistakes[row]
        marked = replace(
            truth,
            boxes=np.concatenate([truth.boxes, wrong]).astype(np.float32),
            classes=np.concatenate([truth.classes, np.full(len(wrong), MISTAKEN)]),
            crowd=np.concatenate([truth.crowd, np.zeros(len(wrong), bool)]),
            masks=None,
        )
        return replace(example, truth=marked)
