"""`ssl propagate`: masks of some frames of clips in, masks of all their frames out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seeall.console import bar, log
from seeall.data.annotations.truth import IGNORE
from seeall.data.motion.masked import by_clip, find_masked
from seeall.heads.book import Book, moment, prepare
from seeall.heads.prediction import Prediction
from seeall.heads.video.carry import Likeness, Mask, carrier
from seeall.heads.video.spread import mask_of
from seeall.metrics.segmentation import confusion, segmentation
from seeall.metrics.video import region_similarity
from seeall.types import SeeallError

_NAMED = 5


def propagate(
    data: str,
    out: Path,
    *,
    by: str,
    every: int | None = None,
    reach: int | None = None,
    how: Likeness | None = None,
    overwrite: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Carry masks of frames along to the frames without one, into the folder `out`.

    `out/masks/` PNG, a class for each pixel, 255 where it is not known · `out/pictures/`, `out/videos/` the same, drawn
    on the frames · `out/predictions.json` an entry for each frame

    data: see `masked.find_masked`, as `settings` · by: a run of flow, a run or file with a backbone, or true
    every: use the masks of every so manieth frame, and judge by the others; 0: of the first frame alone; None: use all
    reach: frames that a mask is carried, at most; None: all

    Returns: what was done by name, and, of frames whose mask was not used, `J` and `J/CLIP`, `mIoU` and `known`, the
        share of their pixels that was told a class, percent.
    Raises: SeeallError for anything the caller can mend.
    """
    for name, value, least in (("every", every, 0), ("reach", reach, 1)):
        if value is not None and value < least:
            raise SeeallError(f"--{name} {value}: choose {least} or more")
    whole = find_masked(data, **settings)
    clips = by_clip(whole)
    carry = carrier(by, whole, how)
    prepare(out, overwrite, [whole.pictures.root])
    book, told = Book(out, "video-segmentation", whole.classes, 0.0), _Judged(whole.classes)
    bare = list[str]()
    with bar("carrying masks", len(whole)) as progress:
        for clip, rows in clips.items():
            there = [row for row in rows if whole.notes[row] is not None]
            masks = {row: mask_of(whole, row) for row in _used(rows, there, every)}
            found = carry(rows, masks, reach or len(rows)) if masks else {}
            bare += [] if masks else [clip]
            for row in rows:
                progress.update(1)
                mask = masks[row] if row in masks else found.get(row)
                if mask is not None:
                    pixels = whole.pictures.read(row)
                    book.write(whole.pictures.ids[row], pixels, Prediction(semantic=mask), moment(whole.pictures, row))
            book.cut()
            judged = [row for row in there if row in found]
            told.clip(clip, masks.values(), [(found[row], mask_of(whole, row)) for row in judged])
    if bare:
        more = f" and {len(bare) - _NAMED} more" if len(bare) > _NAMED else ""
        log.warning("%d of %d clips have no mask to carry: %s%s", len(bare), len(clips), ", ".join(bare[:_NAMED]), more)
    return {**book.close(), "clips": len(clips), **told.figures()}


def _used(rows: Sequence[int], there: Sequence[int], every: int | None) -> Sequence[int]:
    """The frames of a clip whose masks are carried. there: those that have one."""
    if every is None:
        return there
    known = set(there)
    return there[:1] if every == 0 else [row for row in rows[::every] if row in known]


class _Judged:
    """How right masks are that were told, where the truth is known."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = classes
        self.each: dict[str, float] = {}
        self.taken = torch.zeros(len(classes), len(classes), dtype=torch.int64)
        self.told, self.pixels = 0, 0

    def clip(self, name: str, given: Iterable[Mask], pairs: Sequence[tuple[Mask, Mask]]) -> None:
        """given: the masks that were used · pairs: (told, true) of frames whose masks were not."""
        seen = {int(k) for mask in given for k in np.unique(mask)} - {IGNORE}
        seen = {k for k in seen if self.classes[k] != "background"}
        if (value := region_similarity(pairs, sorted(seen))) is not None:
            self.each[name] = value
        for told, true in pairs:
            known = told != IGNORE
            self.told, self.pixels = self.told + int(known.sum()), self.pixels + known.size
            true = np.where(known, true, IGNORE).astype(np.uint8)
            one, other = (torch.from_numpy(mask) for mask in (np.where(known, told, 0), true))
            self.taken += confusion(one, other, len(self.classes))

    def figures(self) -> dict[str, float]:
        """By flat name; none where nothing could be judged. mIoU is of pixels that were told something."""
        if not self.pixels:
            return {}
        told = {"mIoU": segmentation(self.taken, self.classes).get("mIoU", 0.0), "known": 100 * self.told / self.pixels}
        mean = {"J": float(np.mean(list(self.each.values())))} if self.each else {}
        return {**mean, **told, **{f"J/{clip}": value for clip, value in self.each.items()}}
