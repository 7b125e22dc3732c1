"""How well things are followed through a clip: the region similarity J of DAVIS (Perazzi et al. 2016, section 4).

J of a thing in a frame is the Jaccard index of its mask, 1 where it neither is there nor was found; its J in a clip is
the mean over frames, without the one that it was given in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from seeall.data.annotations.truth import IGNORE


def region_similarity(
    pairs: Iterable[tuple[NDArray[np.uint8], NDArray[np.uint8]]], things: Sequence[int]
) -> float | None:
    """J of one clip, percent: the mean over its things. None where there is no frame, or no thing.

    pairs: (predicted, true) masks (H, W) of each frame; pixels whose truth is IGNORE count for nothing
    things: the classes that were given, without the background
    """
    found: list[list[float]] = []
    for predicted, true in pairs:
        counted = true != IGNORE
        row = []
        for thing in things:
            one, other = (predicted == thing) & counted, true == thing
            either = int((one | other).sum())
            row.append(int((one & other).sum()) / either if either else 1.0)
        found.append(row)
    return 100 * float(np.mean(found)) if found and things else None
