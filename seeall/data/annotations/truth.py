"""What is known about pictures: the truth of one, and a collection with the truth of each.

Every layout of files ends up here, and nothing after this asks how it was written down.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from seeall.data.motion.fields import Field
from seeall.data.pictures import Pictures

T = TypeVar("T")

IGNORE = 255
"""The value of pixels of `Truth.semantic` that count for nothing."""
MOST_CLASSES = IGNORE
"""Classes are numbered 0 to 254."""
MISTAKEN = -1
"""The class of a box where there is nothing, which a detector once took for a thing: a hard negative."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Truth:
    """What is known about one picture of H by W px. M things.

    Raises: ValueError where shapes do not agree, which only a mistake in this package can cause.
    """

    label: int | None = None
    """The class of the whole picture."""
    boxes: NDArray[np.float32] = dataclasses.field(default_factory=lambda: np.zeros((0, 4), np.float32))
    """(M, 4) xyxy, px: the pixel in column c covers x from c to c + 1."""
    classes: NDArray[np.int64] = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
    """(M,) from 0: places in `Annotated.classes`; or MISTAKEN."""
    crowd: NDArray[np.bool_] = dataclasses.field(default_factory=lambda: np.zeros(0, np.bool_))
    """(M,) things that are not to be learnt, and whose detection counts neither as right nor as wrong."""
    masks: NDArray[np.bool_] | None = None
    """(M, H, W)."""
    semantic: NDArray[np.uint8] | None = None
    """(H, W) a class for each pixel, or IGNORE."""
    motion: Field | None = None
    """Where each pixel goes until another frame."""

    def __post_init__(self) -> None:
        m = len(self.boxes)
        if self.boxes.shape != (m, 4) or self.classes.shape != (m,) or self.crowd.shape != (m,):
            raise ValueError(f"boxes {self.boxes.shape}, classes {self.classes.shape}, crowd {self.crowd.shape}")
        if self.masks is not None and (self.masks.ndim != 3 or len(self.masks) != m):
            raise ValueError(f"masks {self.masks.shape} for {m} boxes")


@dataclasses.dataclass(frozen=True)
class Annotated:
    """n pictures, and notes that say what is in each.

    pictures: the pictures · classes: names, in the order of their numbers
    knows: which of "label", "boxes", "masks", "semantic" and "flow" the truth has; "frames" where pictures are clips
    notes: n things that `interpret` turns, with the picture's height and width in px, into a `Truth`; it raises
    `SeeallError` where that cannot be done; None where nothing is known of a picture
    repairs: (picture or file, what was wrong and what was made of it), one for each thing mended
    """

    pictures: Pictures
    classes: Sequence[str]
    knows: frozenset[str]
    notes: Sequence[Any]
    interpret: Callable[[Any, int, int], Truth]
    repairs: Sequence[tuple[str, str]] = ()

    def __len__(self) -> int:
        return len(self.pictures)

    def truth(self, i: int, height: int, width: int) -> Truth:
        """What is known about picture i, which is `height` by `width` px."""
        return self.interpret(self.notes[i], height, width)

    def subset(self, rows: Sequence[int]) -> Annotated:
        """The pictures at `rows`, in that order."""
        return dataclasses.replace(self, pictures=self.pictures.subset(rows), notes=[self.notes[i] for i in rows])

    def known(self) -> Annotated:
        """Those of which something is known: whose note is not None."""
        rows = [i for i, note in enumerate(self.notes) if note is not None]
        return self if len(rows) == len(self) else self.subset(rows)

    def split(self, name: str) -> Annotated:
        """The pictures of one split; empty where there is none of that name."""
        return self.subset([i for i, s in enumerate(self.pictures.splits or []) if s == name])
