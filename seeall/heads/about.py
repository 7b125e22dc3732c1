"""What a head is told about the data and the pictures before it is built, and what it keeps to be built again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from seeall.heads.detection.anchors import Shapes


@dataclass
class About:
    """What goes from the data to a head."""

    image_size: int
    """Shorter side of pictures, px, as the network sees them."""
    boxes: Callable[[], Tensor] | None = None
    """Gives (n, 4) xyxy, px at that size, of all things to learn from, for which they are read; None where a finished
    head is built again."""
    anchors: Shapes | None = None
    """What a detector took; filled in by it."""
    flow: dict[str, Any] | None = None
    """The recipe of the head of flow within it; filled in where one is opened."""
    again: bool = False
    """Whether a finished head is built again, whose weights are at hand."""
    every: int | None = None
    """Epochs after which it wants to hear where it was mistaken, again and again; filled in by it."""
