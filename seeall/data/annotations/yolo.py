"""YOLO text: `images/` and `labels/`, a line for each thing, coordinates as shares of the picture's width and height.

A line is a class number and either x and y of the middle, width and height of a box, or the corners of an outline.
Names are in `data.yaml`, of which the entry `names` is read, or in `classes.txt`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from seeall.data.annotations import files
from seeall.data.annotations.files import Repair
from seeall.data.annotations.things import Entry, Found, Note, Thing
from seeall.types import SeeallError

_FARTHEST = 2.0
"""A share beyond which a coordinate must be meant in px."""
_ITEM = re.compile(r"(?:\s*\d+\s*:)?\s*(?:'(?:[^']|'')*'|\"[^\"]*\"|[^\s,'\"][^,]*)")
"""A name in brackets, with its number where it has one; quotes count where they open it."""
_LISTS = ("classes.txt", "obj.names", "labels/classes.txt")


def find(root: Path, names: Sequence[str] | None) -> Found:
    """What is in the folder `root`. Classes are `names`, else as the folder names them, else called by their numbers.

    Raises: SeeallError for a line that makes no sense and for a class without a name.
    """
    repairs: list[Repair] = []
    places = files.pictures(root, "images", repairs)
    classes = list(names or _names(root) or ())
    labels = {
        base: {s: Path(f) for s, f in files.below(base / "labels", {".txt"}).items() if Path(s).name != "classes"}
        for _, base in files.homes(root, "labels")
    }
    read = {file: _read(file, len(classes)) for there in labels.values() for file in there.values()}
    most = max((thing.kind for things in read.values() for thing in things), default=-1)
    found = Found("YOLO text", root, classes or [str(k) for k in range(most + 1)], repairs=repairs)
    for place in places:
        file = labels.get(place.base, {}).pop(place.stem, None)
        if file is None:
            found.repairs.append((place.id, f"picture without annotation taken as empty: no labels/{place.stem}.txt"))
        things = read[file] if file else ()
        found.entries.append(Entry(place.id, place.file, Note(place.id, tuple(things), relative=True), place.split))
    for base, there in labels.items():
        found.missing += [(f"images/{stem}", file.relative_to(base).as_posix()) for stem, file in there.items()]
    return found


def _names(root: Path) -> list[str] | None:
    for file in sorted([*root.glob("*.yaml"), *root.glob("*.yml")]):
        if (names := yaml_names(file)) is not None:
            return names
    return next((files.lines(root / name) for name in _LISTS if (root / name).is_file()), None)


def yaml_names(file: Path) -> list[str] | None:
    """The entry `names` of a YAML file, None without one: a list or numbered names, in brackets or line by line.

    Raises: SeeallError where numbered names leave a number out.
    """
    lines = [re.sub(r"(^|\s)#.*", "", line).rstrip() for line in files.text(file).splitlines()]
    start = next((k for k, line in enumerate(lines) if re.match(r"names\s*:", line)), None)
    if start is None:
        return None
    rest = lines[start].partition(":")[2].strip()
    if rest:
        text = rest
        for line in lines[start + 1 :]:
            if text.count("[") + text.count("{") <= text.count("]") + text.count("}"):
                break
            text += " " + line.strip()
        items = [part.strip() for part in _ITEM.findall(text.strip("[]{} "))]
    else:
        items = []
        for line in lines[start + 1 :]:
            if line and not line.startswith((" ", "\t", "-")):
                break
            items += [re.sub(r"^-\s*", "", line.strip())] if line.strip() else []
    numbered = [re.fullmatch(r"(\d+)\s*:\s*(.*)", item) for item in items]
    told = {int(m[1]): m[2] for m in numbered if m} if all(numbered) else dict(enumerate(items))
    if sorted(told) != list(range(len(told))):
        raise SeeallError(f"{file}: the numbers of names are not 0 to {len(told) - 1}; name every class")
    return [_unquoted(told[k].strip()) for k in sorted(told)] or None


def _unquoted(name: str) -> str:
    """What a name in YAML says."""
    if len(name) > 1 and name[0] == name[-1] and name[0] in "'\"":
        return name[1:-1].replace("''", "'") if name[0] == "'" else name[1:-1]
    return name


def _read(file: Path, classes: int) -> list[Thing]:
    """The things of one file. classes: how many have names, 0 where none has."""
    things = []
    for row, line in enumerate(files.text(file).splitlines(), 1):
        if not (parts := line.split()):
            continue
        where = f"{file}, line {row}"
        try:
            values = [float(part) for part in parts]
        except ValueError:
            raise SeeallError(f"{where}: {line.strip()[:40]!r} holds something that is no number; mend it") from None
        if not all(map(math.isfinite, values)):
            raise SeeallError(f"{where}: {line.strip()[:40]!r} holds no finite number; mend it")
        kind, shape = int(values[0]), values[1:]
        if kind != values[0] or kind < 0:
            raise SeeallError(f"{where}: class {parts[0]} is no whole number from 0; mend it")
        if classes and kind >= classes:
            raise SeeallError(f"{where}: class {kind}, but names are given for 0 to {classes - 1}; name it or mend it")
        if len(shape) != 4 and (len(shape) < 6 or len(shape) % 2):
            raise SeeallError(
                f"{where}: {len(values)} numbers, want class x y width height or class x y x y x y …; mend it"
            )
        if abs(worst := max(shape, key=abs)) > _FARTHEST:
            raise SeeallError(f"{where}: {worst:g} is no share of the picture; divide px by its width or height")
        if len(shape) == 4:
            x, y, w, h = shape
            things.append(Thing(kind, (x - w / 2, y - h / 2, x + w / 2, y + h / 2)))
        else:
            things.append(Thing(kind, outline=[np.array(shape).reshape(-1, 2)]))
    return things
