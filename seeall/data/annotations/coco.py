"""COCO JSON (Lin et al. 2014, arXiv:1405.0312): images, categories, annotations; boxes are x, y, width, height in px.

Category ids may be any numbers; classes are numbered from 0 in their order. What is `iscrowd` is a crowd.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np

from seeall.data.annotations import files
from seeall.data.annotations.polygons import Box, Outline, encode
from seeall.data.annotations.things import Entry, Found, Note, Thing
from seeall.types import SeeallError

__all__ = ["Source", "encode", "find"]

Source = tuple[Path, str | None, Any]
"""A JSON file, its split, what it holds."""
_SAMPLE = 50
"""Pictures that are looked for to tell which folder they are in."""


def find(root: Path, sources: Sequence[Source], names: Sequence[str] | None) -> Found:
    """What JSON files say. Classes are in the order of their ids, those of later files behind, or `names`.

    Raises: SeeallError for what is no COCO JSON, an unknown category id, a category id with two names, annotations of
        other pictures alone, a coordinate that is no number, a picture that is there twice, and pictures that are not
        found.
    """
    seen: dict[str, int] = {}
    repairs: list[files.Repair] = []
    for path, _, held in sources:
        told = _categories(path, held)
        ids, counts = sorted(told), Counter(_id(a, "category_id", path, "annotation") for a in held["annotations"])
        if ids and ids != list(range(ids[0], ids[0] + len(ids))):
            repairs.append((path.name, f"category ids with holes: {ids[0]} to {ids[-1]}, numbered anew from 0"))
        again = Counter(_id(one, "id", path, "category") for one in held["categories"]) - Counter(ids)
        repairs += [(path.name, f"category listed more than once, taken once: id {id}, {told[id]}") for id in again]
        for id in ids:
            seen[told[id]] = seen.get(told[id], 0) + counts.get(id, 0)
    classes, unwanted = files.chosen(seen, names, str(root))
    found = Found("COCO JSON", root, classes, repairs=repairs + unwanted)
    for source in sources:
        _add(found, source)
    twice = next((id for id, times in Counter(e.id for e in found.entries).items() if times > 1), None)
    if twice is not None:
        raise SeeallError(f"{root}: {twice} is listed twice; list every picture once, in one file")
    return found


def _add(found: Found, source: Source) -> None:
    """The pictures of one file."""
    path, split, held = source
    told = _categories(path, held)
    places = {name: k for k, name in enumerate(found.classes)}
    kinds = {id: places.get(name) for id, name in told.items()}
    images = {_id(image, "id", path, "image"): image for image in held["images"]}
    if len(images) < len(held["images"]):
        raise SeeallError(f"{path}: an image id is there twice; number the images anew")
    things: dict[Any, list[Thing]] = {id: [] for id in images}
    strays = []
    for k, one in enumerate(held["annotations"]):
        number = k if one.get("id") is None else _id(one, "id", path, "annotation")
        where = f"{path}: annotation {number}"
        category, image = (_id(one, key, path, "annotation") for key in ("category_id", "image_id"))
        if category not in kinds:
            raise SeeallError(f"{where}: category id {category!r} is not among the categories; add it or mend it")
        if image not in images:
            found.repairs.append((path.name, f"annotation of no picture left out: image id {image!r}"))
            strays.append(image)
        elif (kind := kinds[category]) is not None:
            things[image].append(_thing(one, kind, where, images[image]))
    if images and strays and len(strays) == len(held["annotations"]):
        raise SeeallError(
            f"{path}: none of its {len(strays)} annotations is of a picture that it lists: image ids such as "
            f"{strays[0]!r}, but pictures with ids such as {next(iter(images))!r}; mend the ids"
        )
    folder = _folder(path, [str(_get(image, "file_name", path, "image")) for image in images.values()])
    for id, image in images.items():
        file = folder / str(image["file_name"])
        name = file.relative_to(found.root).as_posix() if file.is_relative_to(found.root) else str(image["file_name"])
        if not file.is_file():
            found.missing.append((name, path.name))
            continue
        height, width = image.get("height"), image.get("width")
        said = (height, width) if isinstance(height, int) and isinstance(width, int) and height and width else None
        found.entries.append(Entry(name, str(file), Note(name, tuple(things[id])), split, said))


def _categories(path: Path, held: Any) -> dict[Any, str]:
    """Id → name. Raises SeeallError for an id with two names."""
    for part in ("images", "annotations", "categories"):
        if not isinstance(held, dict) or not isinstance(held.get(part), list):
            raise SeeallError(f"{path}: COCO JSON without a list {part!r}; add it")
        if any(not isinstance(one, dict) for one in held[part]):
            raise SeeallError(f"{path}: {part!r} holds something that is no object; take it out")
    told: dict[Any, str] = {}
    for one in held["categories"]:
        id, name = _id(one, "id", path, "category"), str(_get(one, "name", path, "category"))
        if told.setdefault(id, name) != name:
            raise SeeallError(f"{path}: category id {id} is both {told[id]} and {name}; number the categories anew")
    if any(not isinstance(id, int) for id in told):
        raise SeeallError(f"{path}: a category id that is no whole number; number the categories")
    return told


def _get(one: dict[str, Any], key: str, path: Path, kind: str) -> Any:
    value = one.get(key)
    if not isinstance(value, (int, str)):
        raise SeeallError(f"{path}: an {kind} without {key!r}; add it".replace("an category", "a category"))
    return value


def _id(one: dict[str, Any], key: str, path: Path, kind: str) -> Any:
    """An id: text or a whole number, which may be written 1.0."""
    value = one.get(key)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, (int, str, NoneType)):
        raise SeeallError(f"{path}: {kind} whose {key!r} is {value!r}, want a whole number; mend it")
    return _get(one, key, path, kind)


def _folder(path: Path, names: Sequence[str]) -> Path:
    """The folder that `file_name` is relative to: of those it may be, the one with the most pictures."""
    part = path.stem.split("_")[-1]
    beside, above = path.parent, path.parent.parent
    choices = [
        beside, beside / "images", beside / part, beside / path.stem, above, above / "images", above / part,
        above / "images" / part, above / part / "images",
    ]  # fmt: skip
    sample = names[:: max(1, len(names) // _SAMPLE)]
    hits = {folder: sum((folder / name).is_file() for name in sample) for folder in choices}
    best = max(choices, key=lambda folder: hits[folder])
    if names and not hits[best]:
        raise SeeallError(
            f"{path}: its pictures, such as {names[0]}, are neither beside it nor in images or {part}; put them there"
        )
    return best


def _thing(one: dict[str, Any], kind: int, where: str, image: dict[str, Any]) -> Thing:
    outline = _outline(one.get("segmentation"), where)
    box: Box | None = None
    if (told := one.get("bbox")) or outline is None:
        if not isinstance(told, list) or len(told) != 4:
            raise SeeallError(f"{where}: bbox is {told!r}, want x, y, width, height; mend it")
        x, y, width, height = (files.number(v, where) for v in told)
        box = x, y, x + width, y + height
    return Thing(kind, box, outline, bool(one.get("iscrowd")))


def _outline(told: Any, where: str) -> Outline | None:
    if not told:
        return None
    if isinstance(told, dict):
        size = told.get("size")
        if not isinstance(size, list) or len(size) != 2 or not isinstance(told.get("counts"), (list, str)):
            raise SeeallError(f"{where}: a run-length encoding needs size and counts; mend it")
        return {"size": size, "counts": told["counts"]}
    if not isinstance(told, list) or any(not isinstance(part, list) or len(part) % 2 for part in told):
        raise SeeallError(f"{where}: segmentation is neither polygons x, y, x, y, … nor run lengths; mend it")
    outline = [np.array([files.number(v, where) for v in part]).reshape(-1, 2) for part in told if len(part) >= 6]
    return outline or None
