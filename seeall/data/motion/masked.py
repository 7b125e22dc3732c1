"""Clips some of whose frames have a mask: what is known of few frames may be told of the others.

    CLIP/frames/, CLIP/masks/               a folder for each clip, below train, val, test or not; also with images/
    JPEGImages/…/CLIP/, Annotations/…/CLIP/     as DAVIS has it (Perazzi et al. 2016)
    images/CLIP/, masks/CLIP/               a folder for all frames, and one for all masks
    scenes:frames=…                         the synthetic world

A mask belongs to the frame of the same name. Frames without one are kept.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seeall.data.annotations import files, masks, world
from seeall.data.annotations.files import Place, Repair
from seeall.data.annotations.truth import Annotated, Truth
from seeall.data.decode import decode
from seeall.data.pictures import SPLITS, Pictures
from seeall.types import SeeallError

_FRAMES, _MASKS = ("frames", "images", "JPEGImages"), ("masks", "Annotations")
_DEEPEST = 3
FPS = 24.0
"""Frames a second of folders of frames, which do not say."""


def find_masked(
    data: str, *, every: int = 1, names: str | None = None, ignore: str | None = None, colours: str | None = None
) -> Annotated:
    """All frames of the clips that `data` names, in their order; the notes of those without a mask are None.

    every: of each clip, the masks of the first frame and of every so manieth one after it are known, no others
    names, ignore, colours: see `layouts.find_annotated`

    Raises: SeeallError where it does not exist, nothing is recognised, or there is no mask.
    """
    if every < 1:
        raise SeeallError(f"setting 'every' is {every}: choose 1 or more")
    if data == "scenes" or data.startswith("scenes:"):
        if ignore or colours:
            raise SeeallError(f"{data}: ignore and colours are settings of files, not of the synthetic world")
        known = world.find(data, "segmentation")
        if not known.pictures.moments:
            raise SeeallError(f"{data}: it takes clips; write frames=10 or so")
        if (wanted := files.named(names)) is not None and len(wanted) != len(known.classes):
            raise SeeallError(f"{data} has {len(known.classes)} classes; names must be as many, not {len(wanted)}")
        return _thinned(dataclasses.replace(known, classes=wanted or known.classes), every)
    root = Path(data).expanduser()
    if not root.is_dir():
        raise SeeallError(f"{data}: {'not a folder' if root.exists() else 'no such file or folder'}")
    return _thinned(_files(root, data, files.named(names), ignore, colours), every)


def by_clip(annotated: Annotated) -> dict[str, list[int]]:
    """The numbers of the frames of each clip, in their order."""
    rows: dict[str, list[int]] = defaultdict(list)
    for i, (clip, _) in enumerate(annotated.pictures.moments or ()):
        rows[clip].append(i)
    return {clip: sorted(mine, key=lambda i: annotated.pictures.moments[i][1]) for clip, mine in rows.items()}  # type: ignore[index]


@dataclass(frozen=True)
class _Home:
    """A folder that holds frames in one folder, and masks in another."""

    base: Path
    frames: str
    masks: str
    split: str | None


def _files(root: Path, source: str, names: list[str] | None, ignore: str | None, colours: str | None) -> Annotated:
    repairs: list[Repair] = []
    places: list[tuple[str, Place]] = []
    homes = _homes(root)
    if not homes:
        raise SeeallError(
            f"{source}: no clips with masks; want CLIP/frames/ and CLIP/masks/, images/CLIP/ and masks/CLIP/, or "
            "JPEGImages/ and Annotations/ as DAVIS has them"
        )
    if len({home.masks for home in homes}) > 1:
        raise SeeallError(f"{source}: masks are both in masks/ and in Annotations/; give one of the two")
    there: dict[Path, set[str]] = {}
    for home in homes:
        there[home.base] = set(files.below(home.base / home.masks, masks.SUFFIXES))
        for stem, file in files.below(home.base / home.frames, repairs=repairs).items():
            clip = (home.base / Path(stem).parent).relative_to(root).as_posix()
            name = Path(file).relative_to(root).as_posix()
            first = Path(clip).parts[0].lower() if clip != "." else ""
            places.append((clip, Place(name, file, home.base, stem, home.split or SPLITS.get(first))))
    places.sort(key=lambda one: (one[0], _natural(one[1].stem)))
    pictured = [place for _, place in places if place.stem in there[place.base]]
    template = None if homes[0].masks == "masks" else f"{homes[0].masks}/{{stem}}.png"
    known = masks.find(
        root, source, pictured, template, names=names, ignore=ignore, colours=colours, repairs=repairs
    )  # fmt: skip
    if template and names is None and known.classes[0] == "0":  # DAVIS numbers things from 1
        known = dataclasses.replace(known, classes=["background", *known.classes[1:]])
    notes = dict(zip(known.pictures.ids, known.notes))
    count: dict[str, int] = defaultdict(int)
    moments = []
    for clip, _ in places:
        moments.append((clip, count[clip] / FPS))
        count[clip] += 1
    splits = [place.split for _, place in places]
    pictures = Pictures(
        source, [place.id for _, place in places], [place.file for _, place in places], decode,
        splits=splits if any(splits) else None, root=root, moments=moments,
    )  # fmt: skip
    return dataclasses.replace(known, pictures=pictures, notes=[notes.get(name) for name in pictures.ids])


def _homes(root: Path) -> list[_Home]:
    """The folders below `root` that have frames and masks; none lies in another."""
    found: list[_Home] = []
    here: list[tuple[Path, str | None]] = [(root, None)]
    for _ in range(_DEEPEST):
        inner: list[tuple[Path, str | None]] = []
        for base, split in here:
            frames = next((name for name in _FRAMES if (base / name).is_dir()), None)
            marks = next((name for name in _MASKS if (base / name).is_dir()), None)
            if frames and marks:
                found.append(_Home(base, frames, marks, split))
                continue
            below = sorted(p for p in base.iterdir() if p.is_dir() and not p.name.startswith("."))
            inner += [(p, split or SPLITS.get(p.name.lower())) for p in below]
        here = inner
    return found


def _natural(stem: str) -> list[tuple[int, str]]:
    """9 comes before 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", stem)]


def _thinned(annotated: Annotated, every: int) -> Annotated:
    """Of each clip only the masks of every so manieth frame."""
    kept = {i for rows in by_clip(annotated).values() for i in rows[::every]}
    notes = [note if i in kept else None for i, note in enumerate(annotated.notes)]
    if all(note is None for note in notes):
        raise SeeallError(f"{annotated.pictures.source}: no mask is left with every={every}; choose fewer")
    reading = functools.partial(_interpret, known=annotated.interpret)
    return dataclasses.replace(annotated, notes=notes, interpret=reading)


def _interpret(note: Any, height: int, width: int, *, known: Callable[[Any, int, int], Truth]) -> Truth:
    return Truth() if note is None else known(note, height, width)
