"""YOLO text: `images/` and `labels/`, a line for each thing, coordinates as shares of the picture's width and height.

A line is a class number and either x and y of the middle, width and height of a box, or the corners of an outline.
Names are in `data.yaml`, of which the entry `names` is read, or in `classes.txt`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from seeall.data.annotations import files
from seeall.data.annotations.files import Repair
from seeall.data.annotations.things import Entry, Found, Note, Thing
from seeall.types import SeeallError

_FARTHEST = 2.0
"""A share beyond which a coordinate must be meant in px."""
_LISTS = ("classes.txt", "obj.names", "labels/classes.txt")


def find(root: Path, names: Sequence[str] | None) -> Found:
    """What is in the folder `root`. Classes are `names`, else as the folder names them, else called by their numbers.

    Raises: SeeallError for a line or a file of names that makes no sense and for a class without a name.
    """
    repairs: list[Repair] = []
    places = files.pictures(root, "images", repairs)
    classes = list(names or _names(root, repairs) or ())
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


def _names(root: Path, repairs: list[Repair]) -> list[str] | None:
    """What the folder calls its classes. A broken file that says nothing of names is left out; `repairs` is told."""
    for file in sorted([*root.glob("*.yaml"), *root.glob("*.yml")]):
        try:
            if (names := yaml_names(file)) is not None:
                return names
        except SeeallError as fault:
            if "names" in files.text(file):
                raise
            repairs.append((file.name, f"YAML file that cannot be read left out: {fault}"))
    return next((files.lines(root / name) for name in _LISTS if (root / name).is_file()), None)


def yaml_names(file: Path) -> list[str] | None:
    """The entry `names` of a YAML file, a list or names by number, each as it is written; None where it names nothing.

    Raises: SeeallError where the file is broken, and where `names` is anything else or leaves a class without a name.
    """
    try:
        top = yaml.compose(files.text(file), yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError) as fault:
        mark, problem = getattr(fault, "problem_mark", None), getattr(fault, "problem", None)
        where = f"{file}, line {mark.line + 1}" if mark else str(file)
        raise SeeallError(f"{where}: broken YAML: {problem or str(fault).splitlines()[0]}; mend it") from None
    entries = top.value if isinstance(top, yaml.MappingNode) else []
    held = [value for key, value in entries if key.value == "names"]
    if len(held) > 1:
        raise SeeallError(f"{file}: names is there {len(held)} times; leave one")
    if not held or not held[0].value:
        return None
    if isinstance(held[0], yaml.ScalarNode):
        raise SeeallError(f"{file}: names is {held[0].value[:40]!r}, want a list, or names by number; mend it")
    if isinstance(held[0], yaml.MappingNode):
        numbers, names = [str(key.value) for key, _ in held[0].value], [value for _, value in held[0].value]
    else:
        numbers, names = [str(k) for k in range(len(held[0].value))], held[0].value
    told = {int(number): name for number, name in zip(numbers, names) if number.isdecimal()}
    if sorted(told) != list(range(len(names))):
        there = ", ".join(numbers)[:60]
        raise SeeallError(f"{file}: the numbers of names are not 0 to {len(names) - 1}, but {there}; name every class")
    for k, name in told.items():
        if not isinstance(name, yaml.ScalarNode) or not name.value.strip():
            where = f"{file}, line {name.start_mark.line + 1}"
            raise SeeallError(f"{where}: the name of class {k} is empty or no text; name every class")
    return [told[k].value for k in sorted(told)]


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
