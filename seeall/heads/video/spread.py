"""Frames without a mask become examples: their masks are told from frames that have one (Zhu et al. 2019,
arXiv:1812.01593, section 3.1, label propagation).

Edges that were carried along are not to be relied upon: see `relaxed` in `heads/segmentation/losses.py`.
"""

from __future__ import annotations

import dataclasses
import functools
import io
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from seeall.console import bar
from seeall.data.annotations.truth import Annotated, Truth
from seeall.data.motion.masked import by_clip
from seeall.heads.video.carry import Mask, carrier
from seeall.types import SeeallError


@dataclasses.dataclass(frozen=True)
class _Told:
    """A mask that was told, as a PNG, which is small."""

    png: bytes


def spread(learnt: Annotated, whole: Annotated, *, reach: int = 0, by: str = "") -> Annotated:
    """The frames to learn from, and those of `whole` beside them whose masks can be told from theirs.

    reach: frames on either side of one with a mask that learn from it; 0: none
    by: a run of flow, or a backbone; or true, the exact flow of the synthetic world

    Raises: SeeallError for a reach below 0, or without `by`, or the other way round.
    """
    if reach < 0:
        raise SeeallError(f"setting 'reach' is {reach}: choose 0 or more frames")
    if bool(by) != bool(reach):
        lacks = (
            "by, which says how masks are told: a run of flow, a backbone" if reach else "reach, how many frames far"
        )
        raise SeeallError(f"setting {'reach' if reach else 'by'!r} needs {lacks}")
    if not reach:
        return learnt
    carry, known = carrier(by, whole), dict(zip(learnt.pictures.ids, learnt.notes))
    notes: dict[int, Any] = {}
    clips = by_clip(whole)
    with bar("telling masks", len(clips)) as progress:
        for rows in clips.values():
            progress.update(1)
            masks = {row: mask_of(whole, row) for row in rows if whole.pictures.ids[row] in known}
            notes |= {row: known[whole.pictures.ids[row]] for row in masks}
            if masks:
                notes |= {row: _Told(_png(mask)) for row, mask in carry(rows, masks, reach).items()}
    rows = sorted(notes)
    found = whole.subset(rows)
    reading = functools.partial(_interpret, known=learnt.interpret)
    return dataclasses.replace(found, notes=[notes[row] for row in rows], interpret=reading)


def mask_of(annotated: Annotated, row: int) -> Mask:
    """The mask of a frame that has one."""
    semantic = annotated.truth(row, *annotated.pictures.read(row).shape[:2]).semantic
    assert semantic is not None
    return semantic


def _png(mask: Mask) -> bytes:
    held = io.BytesIO()
    Image.fromarray(mask).save(held, "png")
    return held.getvalue()


def _interpret(note: Any, height: int, width: int, *, known: Callable[[Any, int, int], Truth]) -> Truth:
    if not isinstance(note, _Told):
        return known(note, height, width)
    with Image.open(io.BytesIO(note.png)) as image:
        return Truth(semantic=np.array(image))
