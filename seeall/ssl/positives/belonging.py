"""What every way of belonging together comes down to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Belonging:
    """Which pictures belong together, epoch by epoch.

    groups: epoch → (n,) int64, equal where pictures belong together
    together: pictures of a group that a batch takes; 1 where each is a group of its own
    hear: rows (B,) int64 and epoch → what was heard with them, (B, samples) float32; None without sound
    ears: (dimensions → projector) → the module that takes what `hear` gives to z, (B, D)
    prepare: reads what has to be read before training → the pictures, (row, reason), of which something cannot be
    """

    groups: Callable[[int], Tensor]
    together: int = 1
    hear: Callable[[Tensor, int], Tensor] | None = None
    ears: Callable[[Callable[[int], nn.Module]], nn.Module] | None = None
    prepare: Callable[[], list[tuple[int, str]]] = list
