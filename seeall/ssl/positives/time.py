"""`time`: frames of one clip that lie close in time belong together.

Time-contrastive learning (Sermanet et al. 2018, "Time-Contrastive Networks", arXiv:1704.06888, section 3), which pairs
frames within a window and pushes away those outside. Departure: a clip is cut into stretches of one window's length,
frames of a stretch being a group, so that belonging together is never at odds with itself. Where the cuts fall is drawn
anew for every clip and epoch; so frames d seconds apart are together in a share 1 - d / window of the epochs.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from seeall.console import log
from seeall.data import keyed
from seeall.data.clips import clips
from seeall.data.pictures import Pictures
from seeall.ssl.positives.belonging import Belonging
from seeall.ssl.positives.labels import at_least_two
from seeall.types import SeeallError

_CUTS = 0x71AE


def time(pictures: Pictures, seed: int, *, window: float = 1.0, together: int = 2, fps: float = 24.0) -> Belonging:
    """window: seconds · together: frames of a stretch in a batch · fps: of folders of frames, which do not say

    Raises: SeeallError where no clip has two frames, no two are within the window, or a setting is out of range.
    """
    at_least_two(together)
    for name, value in (("window", window), ("fps", fps)):
        if not 0 < value < torch.inf:
            raise SeeallError(f"setting {name!r} is {value}: choose a number above 0")
    found = clips(pictures, fps)
    shortest = _shortest_step(found.clip, found.seconds)
    if shortest >= window:
        raise SeeallError(
            f"{pictures.source}: frames are {shortest:.3g} s apart or more, so none lie within the window of "
            f"{window:g} s; choose a longer one by --set window=…"
        )

    log.info("%d frames of %d clips", len(pictures), len(found.names))

    @functools.lru_cache(maxsize=2)
    def groups(epoch: int) -> Tensor:
        start = keyed.uniform(seed, _CUTS, epoch, found.clip, n=1)[:, 0].double() * window
        stretch = ((found.seconds + start) / window).floor().long()
        numbers: Tensor = found.clip * (int(stretch.max()) + 1) + stretch
        return numbers

    return Belonging(groups, together)


def _shortest_step(clip: Tensor, seconds: Tensor) -> float:
    """The least time between two frames of one clip; infinite where no clip has two."""
    order = seconds.argsort(stable=True)
    order = order[clip[order].argsort(stable=True)]
    same = clip[order].diff() == 0
    steps = seconds[order].diff()[same]
    return float(steps.min()) if len(steps) else torch.inf
