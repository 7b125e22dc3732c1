"""Automatic domain randomisation: the synthetic world grows more varied as long as a head can follow.

OpenAI 2019, "Solving Rubik's Cube with a Robot Hand" (arXiv:1910.07113), section 5.2, algorithm 1: every parameter of
the world has a range of its own; it is widened where the model does well at its edge, and narrowed where it does badly.
Departures: what counts as the edge is a world one step wider, of which new pictures are drawn; all ranges are tried
at every trial; they grow upwards alone, from what `scenes:…` says.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

from seeall.console import log
from seeall.data.annotations.examples import Example, Examples, read
from seeall.data.annotations.layouts import find_annotated
from seeall.data.annotations.truth import Annotated
from seeall.data.scenes import Scenes
from seeall.data.scenes.dataset import RANGES
from seeall.heads.examine import quality
from seeall.heads.prediction import Head, answers
from seeall.heads.trial import Trial
from seeall.training.engine import Engine
from seeall.types import SeeallError

PICTURES, ELSEWHERE = 32, 1 << 29
"""Pictures that are tried in a world; they come from about this number on, where nobody learns or is judged."""


def randomise(
    *, widen: bool = False, widen_every: int = 1, widen_by: float = 0.1, widen_at: float = 0.6
) -> dict[str, Any]:
    """widen: let the world vary more and more while the head copes · widen_every: epochs between two trials
    widen_by: what is added to a range of 0 to 1 · widen_at: the share of a picture that must come out right, 0 to 1, on
    average (`examine.quality`); below half of it a range goes back by one step

    Raises: SeeallError for settings out of bounds.
    """
    if widen_every < 1:
        raise SeeallError(f"setting 'widen_every' is {widen_every}: choose 1 epoch or more")
    for name, value in (("widen_by", widen_by), ("widen_at", widen_at)):
        if not 0 < value <= 1:
            raise SeeallError(f"setting {name!r} is {value}: choose above 0, 1 at most")
    return locals()


@final
class Randomise(Trial):
    """Draws what is learnt from anew, with the ranges that hold now.

    world: where the examples are from · examples: what is learnt from in it · by, at: as in `randomise`
    """

    def __init__(
        self, head: Head, world: Scenes, task: str, examples: Examples, engine: Engine, every: int, by: float,
        at: float, folder: Path,
    ) -> None:  # fmt: skip
        super().__init__(engine, every, folder, "ranges")
        self.head, self.world, self.task, self.size, self.by, self.at = head, world, task, examples.size, by, at
        self.rows: Sequence[int] = examples.annotated.notes
        self.start = {name: float(getattr(world, name)) for name in RANGES}
        if world.size < 32:  # where things may not be small
            del self.start["small"]
        self.take(self.start)

    def attempt(self) -> dict[str, float]:
        """The ranges, each tried one step wider than it is."""
        found = dict(self.ranges)
        self.head.eval()  # type: ignore[attr-defined]
        for name, now in self.ranges.items():
            wider = min(1.0, round(now + self.by, 6))
            right = self._right({**self.ranges, name: wider})
            if right >= self.at:
                found[name] = wider
            elif right < self.at / 2:
                found[name] = max(self.start[name], round(now - self.by, 6))
        self.head.train()  # type: ignore[attr-defined]
        log.info("the world varies by %s", ", ".join(f"{name} {value:.2f}" for name, value in found.items()))
        return found

    def _right(self, ranges: Mapping[str, float]) -> float:
        """The share that comes out right of new pictures of a world with these ranges."""
        turns = max(1, (ELSEWHERE - self.world.first) // self.world.identities)
        first = self.world.first + turns * self.world.identities
        annotated = self._at(ranges, first=first)
        some = [read(annotated, i, self.size) for i in range(min(PICTURES, len(annotated)))]
        examples, classes = Examples(annotated.subset(range(len(some))), self.size, some, []), len(annotated.classes)
        return statistics.mean(quality(self.task, said, truth, classes) for said, truth in answers(self.head, examples))

    def _at(self, ranges: Mapping[str, float], **more: Any) -> Annotated:
        return find_annotated(dataclasses.replace(self.world, **more, **ranges).text(), self.task)  # type: ignore[arg-type]

    def take(self, found: dict[str, float]) -> None:
        """From now on these ranges hold."""
        self.ranges = found
        self.annotated = self._at(found).subset(self.rows)

    def __call__(self, example: Example, row: int) -> Example:
        """The same things at the same places, in the world as it is now."""
        return read(self.annotated, row, self.size)
