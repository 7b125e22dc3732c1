"""Grey pictures in memory that have labels, or moments in clips."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from seeall.data.pictures import Pictures


def made(names: Sequence[str] | None = None, moments: Sequence[tuple[str, float]] | None = None) -> Pictures:
    """Grey pictures with these labels, or these moments."""
    n = len(names or moments or ())
    grey = np.full((8, 8, 3), 100, np.uint8)
    return Pictures("memory", [f"{i}" for i in range(n)], range(n), lambda i, _: grey, labels=names, moments=moments)
