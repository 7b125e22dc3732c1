"""Three small pictures whose truth is known to the pixel, and where larger ones are."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seeall.data.annotations.truth import Annotated

NAMES = ["cat", "dog"]


@dataclass
class Shown:
    """A picture of h by w px. things: (class, corners on the grid); rectangles: what is inside each, x0 y0 x1 y1."""

    stem: str
    h: int
    w: int
    things: list[tuple[str, list[tuple[int, int]]]] = field(default_factory=list)
    rectangles: list[list[tuple[int, int, int, int]]] = field(default_factory=list)

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(len(self.stem) + self.h)
        Image.fromarray(rng.integers(0, 256, (self.h, self.w, 3), dtype=np.uint8)).save(path)

    def boxes(self) -> list[tuple[int, int, int, int]]:
        around = []
        for _, corners in self.things:
            xs, ys = zip(*corners)
            around.append((min(xs), min(ys), max(xs), max(ys)))
        return around

    def masks(self) -> np.ndarray:
        masks = np.zeros((len(self.things), self.h, self.w), bool)
        for mask, inside in zip(masks, self.rectangles):
            for x0, y0, x1, y1 in inside:
                mask[y0:y1, x0:x1] = True
        return masks

    def semantic(self) -> np.ndarray:
        """0 background, 1 cat, 2 dog; later things cover earlier ones."""
        out = np.zeros((self.h, self.w), np.uint8)
        for mask, (name, _) in zip(self.masks(), self.things):
            out[mask] = NAMES.index(name) + 1
        return out


def square(x0: int, y0: int, x1: int, y1: int) -> list[tuple[int, int]]:
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


@pytest.fixture
def three() -> list[Shown]:
    """A cat and a dog that covers it in part, a dog that is an L, and nothing."""
    return [
        Shown(
            "a", 24, 32, [("cat", square(2, 3, 14, 13)), ("dog", square(10, 5, 30, 20))],
            [[(2, 3, 14, 13)], [(10, 5, 30, 20)]],
        ),
        Shown(
            "b", 30, 20, [("dog", [(4, 4), (8, 4), (8, 16), (18, 16), (18, 22), (4, 22)])],
            [[(4, 4, 8, 22), (4, 16, 18, 22)]],
        ),
        Shown("c", 16, 16),
    ]  # fmt: skip


@pytest.fixture
def same(three: list[Shown]) -> Callable[[Annotated], None]:
    """Whether annotations say of the three pictures what is true, to a thousandth of a pixel."""

    def compare(annotated: Annotated) -> None:
        assert [Path(id).stem for id in annotated.pictures.ids] == ["a", "b", "c"]
        for i, shown in enumerate(three):
            assert annotated.pictures.read(i).shape == (shown.h, shown.w, 3)
            truth = annotated.truth(i, shown.h, shown.w)
            if "boxes" in annotated.knows:
                assert list(annotated.classes) == NAMES
                assert np.allclose(truth.boxes, np.array(shown.boxes()).reshape(-1, 4), atol=1e-3)
                assert truth.classes.tolist() == [NAMES.index(name) for name, _ in shown.things]
            if "masks" in annotated.knows:
                assert truth.masks is not None and (truth.masks == shown.masks()).all()
            if "semantic" in annotated.knows:
                assert list(annotated.classes) == ["background", *NAMES]
                assert truth.semantic is not None and (truth.semantic == shown.semantic()).all()

    return compare


@pytest.fixture
def real() -> Callable[[str], Path]:
    """The folder of a real data set by its name; the test is skipped where it is not there."""

    def look(name: str) -> Path:
        there = Path(os.environ.get("SEEALL_DATA", Path(__file__).parents[2] / ".." / "shared" / "data")) / name
        if not there.is_dir():
            pytest.skip(f"no {name} in the folder that SEEALL_DATA names")
        return there

    return look
