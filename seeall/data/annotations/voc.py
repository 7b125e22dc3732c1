"""Pascal VOC (Everingham et al. 2010): `JPEGImages/`, `Annotations/*.xml`, `ImageSets/Main/{train,val,test}.txt`.

Coordinates count pixels from 1 and both ends belong to the box, as the devkit has it; where a set holds a coordinate 0,
all of it is taken to count from 0, the far end not in the box. What is difficult is a crowd: not to be learnt.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from seeall.data.annotations import files
from seeall.data.annotations.files import Repair
from seeall.data.annotations.polygons import Box
from seeall.data.annotations.things import Entry, Found, Note, Thing
from seeall.types import SeeallError

CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""Of the masks in `SegmentationClass/`, by their values."""


class _Written(NamedTuple):
    """One XML file. things: (name, box as written, whether it is difficult)."""

    things: list[tuple[str, Box, bool]]
    size: tuple[int, int] | None


def find(root: Path, names: Sequence[str] | None) -> Found:
    """What is in the folder `root`; classes are sorted by name, or `names`.

    Raises: SeeallError for broken XML and for coordinates that are no numbers.
    """
    twins: list[Repair] = []
    pictures = files.below(root / "JPEGImages", repairs=twins)
    written = {stem: _read(Path(file)) for stem, file in files.below(root / "Annotations", {".xml"}).items()}
    splits, repairs = listed(root / "ImageSets" / "Main", {*pictures, *written})
    seen = Counter(name for one in written.values() for name, _, _ in one.things)
    classes, unwanted = files.chosen(dict(sorted(seen.items())), names, str(root))
    places = {name: k for k, name in enumerate(classes)}
    base = 0 if any(0 in box[:2] for one in written.values() for _, box, _ in one.things) else 1
    found = Found("Pascal VOC", root, classes, repairs=[*twins, *repairs, *unwanted])
    for stem, file in pictures.items():
        id = Path(file).relative_to(root).as_posix()
        one = written.get(stem)
        if one is None:
            found.repairs.append((id, f"picture without annotation taken as empty: no Annotations/{stem}.xml"))
        things = [
            Thing(places[name], _box(box, base, id, found.repairs), crowd=difficult)
            for name, box, difficult in (one.things if one else ())
            if name in places
        ]
        found.entries.append(Entry(id, file, Note(id, tuple(things)), splits.get(stem), one.size if one else None))
    lost = {stem: f"Annotations/{stem}.xml" for stem in written} | {
        s: f"ImageSets, {part}" for s, part in splits.items()
    }
    found.missing = [(f"JPEGImages/{stem}.jpg", where) for stem, where in lost.items() if stem not in pictures]
    return found


def listed(folder: Path, stems: Container[str]) -> tuple[dict[str, str], list[Repair]]:
    """Stem → split, from train.txt (or trainval.txt), val.txt and test.txt; of two splits the later counts.

    A line that is none of `stems` may end in the -1, 0 or 1 of the lists that VOC has for each class.
    """
    splits: dict[str, str] = {}
    repairs: list[Repair] = []
    first = "train" if (folder / "train.txt").is_file() or (folder / "val.txt").is_file() else "trainval"
    for name in (first, "val", "test"):
        if not (folder / f"{name}.txt").is_file():
            continue
        split = name.removesuffix("val") or name
        for line in files.lines(folder / f"{name}.txt"):
            stem = line if line in stems else re.sub(r"\s+(-1|0|1)$", "", line)
            if splits.get(stem, split) != split:
                repairs.append((stem, f"listed in two splits: {splits[stem]} and {split}, taken as {split}"))
            splits[stem] = split
    return splits, repairs


def _box(box: Box, base: int, id: str, repairs: list[Repair]) -> Box:
    """The corners in px; `base` is the number of the first pixel."""
    x0, y0, x1, y1 = box
    if x0 > x1 or y0 > y1:
        repairs.append((id, f"box whose corners are the wrong way round, swapped: ({x0:g}, {y0:g}, {x1:g}, {y1:g})"))
        x0, x1, y0, y1 = min(x0, x1), max(x0, x1), min(y0, y1), max(y0, y1)
    return x0 - base * (x1 > x0), y0 - base * (y1 > y0), x1, y1


def _read(path: Path) -> _Written:
    try:
        tree = ElementTree.fromstring(files.text(path))
    except (ElementTree.ParseError, ValueError) as fault:
        raise SeeallError(f"{path}: broken XML: {fault}; write it again") from None
    things = []
    for thing in tree.iter("object"):
        name, corners = (thing.findtext("name") or "").strip(), thing.find("bndbox")
        if not name or corners is None:
            raise SeeallError(
                f"{path}: an object without {'bndbox' if name else 'name'}; add it or take the object out"
            )
        told: Mapping[str, str] = {part.tag: (part.text or "").strip() for part in corners}
        x0, y0, x1, y1 = (_number(told.get(key), key, path) for key in ("xmin", "ymin", "xmax", "ymax"))
        things.append((name, (x0, y0, x1, y1), (thing.findtext("difficult") or "0").strip() == "1"))
    height, width = ((tree.findtext(f"size/{key}") or "").strip() for key in ("height", "width"))
    size = (int(height), int(width)) if height.isdecimal() and width.isdecimal() else None
    return _Written(things, size if size and min(size) > 0 else None)


def _number(text: str | None, key: str, path: Path) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise SeeallError(f"{path}: {key} is {text!r}, want a number of px; mend it")
    return value
