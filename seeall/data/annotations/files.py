"""Reading what layouts are made of: text, JSON, lists of names, the pictures below a folder and their sizes."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from seeall import catalog
from seeall.console import bar
from seeall.data.decode import EXTENSIONS
from seeall.data.pictures import SPLITS
from seeall.data.pixels import cores, in_order
from seeall.types import SeeallError

Repair = tuple[str, str]
"""A picture or file; what was wrong, a colon, and the particulars."""
ON_THEIR_SIDE = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""


@dataclass(frozen=True)
class Place:
    """A picture: `file` is `base/FOLDER/stem.suffix`, its `id` is relative to where the data begin."""

    id: str
    file: str
    base: Path
    stem: str
    split: str | None


def text(path: Path) -> str:
    """What a text file holds. Raises SeeallError where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as fault:
        raise SeeallError(f"{path}: cannot be read as text: {getattr(fault, 'strerror', None) or 'no UTF-8'}") from None


def load_json(path: Path) -> Any:
    """What a JSON file holds. Raises SeeallError where it is broken."""
    try:
        return json.loads(text(path))
    except (ValueError, RecursionError) as fault:
        raise SeeallError(f"{path}: broken JSON: {str(fault).splitlines()[0]}; write it again") from None


def below(
    folder: Path, suffixes: frozenset[str] | set[str] = EXTENSIONS, repairs: list[Repair] | None = None
) -> dict[str, str]:
    """Path below `folder` without suffix → file, sorted, of all files that end so; hidden ones are left out.

    Links are followed, each folder once. Of files that differ in their suffix alone the first counts; `repairs` is
    told of the others.
    """
    found: dict[str, str] = {}
    seen: set[str] = set()
    for here, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and real not in seen)
        if real in seen:
            continue
        seen.add(real)
        for name in sorted(names):
            file = Path(here) / name
            if file.suffix.lower() not in suffixes or name.startswith("."):
                continue
            first = found.setdefault(file.relative_to(folder).with_suffix("").as_posix(), str(file))
            if first != str(file) and repairs is not None:
                where = file.relative_to(folder.parent).as_posix()
                repairs.append((where, f"file of the same name left out: {Path(first).name} is taken"))
    return dict(sorted(found.items()))


def homes(root: Path, name: str) -> list[tuple[str | None, Path]]:
    """(split, folder) of the folders that hold a folder `name`: `root` itself, or its folders train, val and test."""
    if (root / name).is_dir():
        return [(None, root)]
    tops = sorted(p for p in root.iterdir() if p.name.lower() in SPLITS and (p / name).is_dir())
    return [(SPLITS[p.name.lower()], p) for p in tops]


def pictures(root: Path, name: str, repairs: list[Repair]) -> list[Place]:
    """The pictures of the folders `name`, with splits from folders train, val, test above or below them.

    repairs: told what `below` tells
    """
    found = []
    for split, base in homes(root, name):
        there = below(base / name, repairs=repairs)
        tops = {Path(stem).parts[0].lower() if "/" in stem else "" for stem in there}
        inner = split is None and tops and tops <= SPLITS.keys()
        for stem, file in there.items():
            own = SPLITS[Path(stem).parts[0].lower()] if inner else split
            found.append(Place(Path(file).relative_to(root).as_posix(), file, base, stem, own))
    return found


def named(names: str | None) -> list[str] | None:
    """The setting `names`: text with commas, or a file of a name a line; None for None."""
    if names is None:
        return None
    path = os.path.expanduser(names)  # noqa: PTH111
    listed = lines(Path(path)) if os.path.isfile(path) else [name.strip() for name in names.split(",")]  # noqa: PTH113
    listed = [name for name in listed if name]
    twice = next((name for name in listed if listed.count(name) > 1), None)
    if not listed or twice:
        raise SeeallError(
            f"names={names}: {f'{twice!r} is there twice' if twice else 'no name in it'}; list every class once"
        )
    return listed


def lines(path: Path) -> list[str]:
    """The lines of a text file that hold something, without the space around it."""
    return [line.strip() for line in text(path).splitlines() if line.strip()]


def chosen(seen: Mapping[str, int], wanted: Sequence[str] | None, where: str) -> tuple[list[str], list[Repair]]:
    """The classes to learn, of those `seen`, each with how many things: all, or those `wanted`, in that order.

    Raises: SeeallError where some seen are not wanted and some wanted not seen, which is how a wrong name shows.
    """
    if wanted is None:
        return list(seen), []
    others = [name for name in seen if name not in wanted]
    strange = [name for name in wanted if name not in seen]
    if others and strange:
        raise SeeallError(f"{where}: names: no class is called {strange[0]!r}; {catalog.suggest(strange[0], seen)}")
    return list(wanted), [(where, f"class not among names left out: {name}, {seen[name]} things") for name in others]


def number(value: Any, where: str) -> float:
    """A coordinate of a JSON file. Raises SeeallError where it is no finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise SeeallError(f"{where}: {value!r} among its coordinates, want numbers of px; mend it")
    return float(value)


def sizes(files: Sequence[str]) -> list[tuple[int, int] | None]:
    """Height and width in px of pictures set upright, from their headers; None where that cannot be read."""
    found = []
    with bar("measuring pictures", len(files)) as progress:
        for size in in_order(_size, files, min(8, 2 * cores())):
            found.append(size)
            progress.update(1)
    return found


def orientation(file: str) -> int:
    """EXIF's, 1 to 8, of a picture whose size could be told; 1 where none is given."""
    with Image.open(file) as image:
        return _orientation(image)


def _size(file: str) -> tuple[int, int] | None:
    try:
        with Image.open(file) as image:
            width, height = _lying(image)
            turned = _orientation(image) in ON_THEIR_SIDE
    except Exception:  # a damaged header meets a different fault in every decoder
        return None
    return (width, height) if turned else (height, width)


def _lying(image: Image.Image) -> tuple[int, int]:
    """Width and height as the picture lies in its file; of a TIFF some versions of Pillow say those it has upright."""
    return (image.getexif()[0x0100], image.getexif()[0x0101]) if image.format == "TIFF" else image.size


def _orientation(image: Image.Image) -> int:
    told: int = image.getexif().get(0x0112, 1) if "exif" in image.info or image.format == "TIFF" else 1
    return told
