"""What layouts of things have in common: from boxes and outlines as written to boxes and masks that can be learnt.

A layout gives a `Found`; `annotated` looks for what is wrong with it, by the real sizes of the pictures, mends what
can be mended and says so. What is wrong is named before a colon, so that `check` can count it by kind.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seeall.data.annotations import files, polygons
from seeall.data.annotations.files import Repair
from seeall.data.annotations.polygons import Box, Outline
from seeall.data.annotations.truth import IGNORE, MOST_CLASSES, Annotated, Truth
from seeall.data.decode import decode
from seeall.data.pictures import Pictures
from seeall.types import SeeallError

MISSING_SHARE = 0.05
"""The part of the pictures that may be missing before it is an error."""
KNOWS = {"detection": {"boxes"}, "instance": {"boxes", "masks"}, "segmentation": {"semantic"}}
"""Task → what it is told."""
_SLACK = 0.5
"""How far a box may reach outside its picture without a word, px: what rounding does."""
_BLANK = "outline without a pixel in the picture left out"


@dataclass(frozen=True)
class Thing:
    """One thing. kind: place in the classes · box, outline: at least one of them · crowd: not to be learnt."""

    kind: int
    box: Box | None = None
    outline: Outline | None = None
    crowd: bool = False


@dataclass(frozen=True)
class Note:
    """The things in one picture. where: its name · relative: coordinates are shares of width and height."""

    where: str
    things: tuple[Thing, ...]
    relative: bool = False


@dataclass(frozen=True)
class Entry:
    """A picture as a layout has it. said: height and width in px as written, None where they are not, or things are
    not in px.
    """

    id: str
    file: str
    note: Note
    split: str | None = None
    said: tuple[int, int] | None = None


@dataclass
class Found:
    """What a layout holds. missing: (picture, where it is named) · layout: what to call it in messages."""

    layout: str
    root: Path
    classes: Sequence[str]
    entries: list[Entry] = field(default_factory=list)
    missing: list[tuple[str, str]] = field(default_factory=list)
    repairs: list[Repair] = field(default_factory=list)


def annotated(found: Found, source: str, task: str) -> Annotated:
    """The pictures of `found` with what `task` is told; for segmentation, class 0 is the background.

    Raises: SeeallError where there are no pictures, too many are missing, nothing is annotated that can be
        learnt, or outlines are asked for and there are none.
    """
    repairs = [*found.repairs, *left_out(source, found.missing, len(found.entries))]
    written = [thing for entry in found.entries for thing in entry.note.things]
    if not found.entries:
        raise SeeallError(f"{source}: {found.layout} without pictures; put them where its annotations say they are")
    if not written:
        raise SeeallError(f"{source}: {len(found.entries)} pictures, but nothing is annotated in any; annotate some")
    if len(found.classes) >= MOST_CLASSES:
        raise SeeallError(f"{source}: {len(found.classes)} classes, of {MOST_CLASSES - 1}; choose some by names=…")
    if task != "detection" and not any(thing.outline is not None for thing in written):
        raise SeeallError(
            f"{source}: {found.layout} with boxes only, which serve --task detection; {task} needs outlines"
        )
    notes, sizes, before = [], files.sizes([entry.file for entry in found.entries]), len(repairs)
    for entry, size, turn in zip(found.entries, sizes, _turns(found.entries, sizes)):
        note = entry.note
        if size and entry.said and size != entry.said:
            said, real = ("x".join(str(n) for n in reversed(s)) for s in (entry.said, size))
            if turn:
                note = _upright(note, turn, *entry.said)
                repairs.append(
                    (entry.id, f"annotated on its side, set upright with the picture: {said} px, EXIF {turn}")
                )
            else:
                repairs.append((entry.id, f"another size in the annotation: {said} px, taken as {real} px"))
        notes.append(_mended(note, size, task, found.classes, repairs))
    if not any(_why_not(thing, note, size, task) is None for note, size in zip(notes, sizes) for thing in note.things):
        raise SeeallError(f"{source}: {_nothing(notes, sizes, task, repairs[before:])}; mend that or annotate more")
    splits = [entry.split for entry in found.entries]
    pictures = Pictures(
        source, [entry.id for entry in found.entries], [entry.file for entry in found.entries], decode,
        splits=splits if any(splits) else None, root=found.root,
    )  # fmt: skip
    classes = ["background", *found.classes] if task == "segmentation" else list(found.classes)
    reading = functools.partial(interpret, task=task)
    return Annotated(pictures, classes, frozenset(KNOWS[task]), notes, reading, repairs)


def _why_not(thing: Thing, note: Note, size: tuple[int, int] | None, task: str) -> str | None:
    """Why a thing that is kept can still not be learnt; None where it can."""
    if thing.crowd:
        return "crowd or difficult thing, not to be learnt"
    if task == "detection" or size is None:
        return None
    return None if polygons.area(_placed(thing, note, *size).outline or [], *size, note.where) else _BLANK


def _nothing(
    notes: Sequence[Note], sizes: Sequence[tuple[int, int] | None], task: str, repairs: Sequence[Repair]
) -> str:
    """Why nothing can be learnt, by kind and with an example. repairs: those of the things."""
    lost = [(where, words) for where, words in repairs if words.partition(": ")[0].endswith("left out")]
    lost += [
        (note.where, why)
        for note, size in zip(notes, sizes)
        for thing in note.things
        if (why := _why_not(thing, note, size, task))
    ]
    kinds = Counter(words.partition(": ")[0] for _, words in lost)
    where, words = lost[0]
    return (
        f"{len(notes)} pictures, but nothing annotated in them can be learnt: "
        f"{', '.join(f'{times} x {kind}' for kind, times in kinds.items())}, such as in {where}"
        + (f": {words.partition(': ')[2]}" if ": " in words else "")
    )


def left_out(source: str, missing: Sequence[tuple[str, str]], there: int) -> list[Repair]:
    """A repair for every missing picture. Raises SeeallError where too many are."""
    if len(missing) > MISSING_SHARE * (len(missing) + there):
        name, where = missing[0]
        raise SeeallError(
            f"{source}: {len(missing)} of {len(missing) + there} annotated pictures are missing, such as {name}, "
            f"named in {where}; put them back"
        )
    return [(where, f"picture missing, its annotation left out: {name}") for name, where in missing]


def interpret(note: Note, height: int, width: int, *, task: str) -> Truth:
    """The truth of a picture of `height` by `width` px.

    In `semantic` later things cover earlier ones, and crowds are IGNORE where nothing covers them.
    """
    placed = [_placed(thing, note, height, width) for thing in note.things]
    boxes = [_clipped(_box(thing, note.where), height, width) for thing in placed]
    kept = [(thing, box) for thing, box in zip(placed, boxes) if box is not None]
    if task == "detection":
        return _truth(kept)
    if task == "segmentation":
        semantic = np.zeros((height, width), np.uint8)
        for thing, _ in sorted(kept, key=lambda pair: not pair[0].crowd):
            mask = polygons.mask(thing.outline or [], height, width, note.where)
            semantic[mask] = IGNORE if thing.crowd else thing.kind + 1
        return Truth(semantic=semantic)
    masks, shown = np.empty((len(kept), height, width), np.bool_), list[tuple[Thing, Box]]()
    for thing, box in kept:
        mask = polygons.mask(thing.outline or [], height, width, note.where)
        if mask.any():
            masks[len(shown)] = mask
            shown.append((thing, box))
    return _truth(shown, masks[: len(shown)])


def _truth(kept: Sequence[tuple[Thing, Box]], masks: NDArray[np.bool_] | None = None) -> Truth:
    return Truth(
        boxes=np.array([box for _, box in kept], np.float32).reshape(-1, 4),
        classes=np.array([thing.kind for thing, _ in kept], np.int64),
        crowd=np.array([thing.crowd for thing, _ in kept], np.bool_),
        masks=masks,
    )


def _placed(thing: Thing, note: Note, height: int, width: int) -> Thing:
    """The same in px."""
    if not note.relative:
        return thing
    box, outline = thing.box, thing.outline
    if box is not None:
        box = box[0] * width, box[1] * height, box[2] * width, box[3] * height
    if outline is not None and not isinstance(outline, dict):
        outline = [polygon * (width, height) for polygon in outline]
    return replace(thing, box=box, outline=outline)


def _box(thing: Thing, where: str) -> Box:
    return thing.box if thing.box is not None else polygons.bounds(thing.outline or [], where)


def _clipped(box: Box, height: int, width: int) -> Box | None:
    """What of a box is in the picture; None where nothing is."""
    x0, y0, x1, y1 = max(box[0], 0.0), max(box[1], 0.0), min(box[2], float(width)), min(box[3], float(height))
    return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None


def _turns(entries: Sequence[Entry], sizes: Sequence[tuple[int, int] | None]) -> list[int | None]:
    """The EXIF orientation that what is annotated has yet to follow, None for none. sizes: of the upright pictures.

    Where the size that is written is that of a picture as it lies in its file, so are the things; unless, over all
    such pictures, they fit the upright ones more often: then only the sizes were taken from the files.
    """
    turns, lying = list[int | None](), 0
    for entry, size in zip(entries, sizes):
        turn = files.orientation(entry.file) if size and entry.said == size[::-1] != size else None
        turns.append(turn if turn in files.ON_THEIR_SIDE else None)
        if size and turns[-1]:
            lying += _fits(entry.note, *size[::-1]) - _fits(entry.note, *size)
    return turns if lying >= 0 else [None] * len(turns)


def _fits(note: Note, height: int, width: int) -> bool:
    """Whether all things lie in a picture of that size, and masks have it."""
    boxes = [_box(thing, note.where) for thing in note.things]
    sizes = [tuple(thing.outline["size"]) for thing in note.things if isinstance(thing.outline, dict)]
    return all(size == (height, width) for size in sizes) and not any(_outside(box, height, width) for box in boxes)


def _upright(note: Note, orientation: int, height: int, width: int) -> Note:
    """What is annotated in px in a picture of that size, as it lies in its file, for that set upright."""
    turn = orientation, height, width
    things = [
        replace(
            thing,
            box=None if thing.box is None else polygons.upright_box(thing.box, *turn),
            outline=None if thing.outline is None else polygons.upright(thing.outline, *turn, note.where),
        )
        for thing in note.things
    ]
    return replace(note, things=tuple(things))


def _mended(note: Note, size: tuple[int, int] | None, task: str, classes: Sequence[str], repairs: list[Repair]) -> Note:
    """The note without what cannot be learnt; every thing left out or clipped is told."""
    if task != "detection":
        note = _only(
            note, lambda thing: thing.outline is not None, "thing without an outline left out", classes, repairs
        )
    if size is None:
        return note
    height, width = size
    kept = []
    for thing in note.things:
        placed = _placed(thing, note, height, width)
        if isinstance(thing.outline, dict):
            polygons.whole(thing.outline, height, width, note.where)
        box = _box(placed, note.where)
        wrong = _wrong(box, height, width)
        if wrong:
            named = ", ".join(f"{v:g}" for v in np.round(box, 1).tolist())
            repairs.append((note.where, f"{wrong}: {classes[thing.kind]} ({named}) in {width}x{height} px"))
        if not _clipped(box, height, width):
            continue
        if task != "detection" and _blank(placed.outline or [], height, width, note.where):
            repairs.append((note.where, f"{_BLANK}: {classes[thing.kind]} in {width}x{height} px"))
            continue
        kept.append(thing)
    return replace(note, things=tuple(kept))


def _blank(outline: Outline, height: int, width: int, where: str) -> bool:
    """Whether an outline has no pixel in the picture, as far as that shows without filling polygons."""
    if isinstance(outline, dict):
        return not polygons.area(outline, height, width, where)
    return _clipped(polygons.bounds(outline, where), height, width) is None


def _wrong(box: Box, height: int, width: int) -> str | None:
    x0, y0, x1, y1 = box
    if x1 <= x0 or y1 <= y0:
        return "box without width or height left out"
    if _clipped(box, height, width) is None:
        return "box outside the picture left out"
    return "box partly outside the picture clipped" if _outside(box, height, width) else None


def _outside(box: Box, height: int, width: int) -> bool:
    x0, y0, x1, y1 = box
    return min(x0, y0) < -_SLACK or x1 > width + _SLACK or y1 > height + _SLACK


def _only(
    note: Note, right: Callable[[Thing], bool], wrong: str, classes: Sequence[str], repairs: list[Repair]
) -> Note:
    repairs += [(note.where, f"{wrong}: {classes[thing.kind]}") for thing in note.things if not right(thing)]
    return replace(note, things=tuple(thing for thing in note.things if right(thing)))
