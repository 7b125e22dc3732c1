"""VGG Image Annotator, VIA 1 and 2 (Dutta and Zisserman 2019, arXiv:1904.10699): outlines drawn by hand, in px.

The class of a region is one of its attributes: the only one, or the first of `_KEYS` that there is. Where no region has
any, all are of one class.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seeall.data.annotations import files
from seeall.data.annotations.coco import Source
from seeall.data.annotations.polygons import Polygon, ellipse
from seeall.data.annotations.things import Entry, Found, Note, Thing
from seeall.types import SeeallError

NAMELESS = "thing"
"""The class where there is no attribute."""
_KEYS = ("class", "label", "name", "category", "type", "object")


def content(held: Any) -> dict[str, Any] | None:
    """Key → picture of what a VIA file holds; None where it is something else."""
    if isinstance(held, dict) and isinstance(held.get("_via_img_metadata"), dict):
        held = held["_via_img_metadata"]
    if not isinstance(held, dict) or not held:
        return None
    whole = all(isinstance(one, dict) and "filename" in one and "regions" in one for one in held.values())
    return held if whole else None


def find(root: Path, sources: Sequence[Source], names: Sequence[str] | None) -> Found:
    """What JSON files say of the pictures beside them. Classes are sorted by name, or `names`.

    Raises: SeeallError for a shape that is none, a coordinate that is no number, or no telling which attribute is the
        class.
    """
    told = [(path, split, one) for path, split, held in sources for one in (content(held) or {}).values()]
    regions = [(path, one, region) for path, _, one in told for region in _regions(one, path)]
    key = _attribute([region for _, _, region in regions], sources[0][0])
    seen = Counter(name for _, _, region in regions if (name := _class(region, key)) is not None)
    if key is None:
        classes, unwanted = list(names or [NAMELESS]), list[tuple[str, str]]()
        if len(classes) > 1:
            raise SeeallError(f"{root}: the regions have no attribute to tell {len(classes)} classes by; give one name")
    else:
        classes, unwanted = files.chosen(dict(sorted(seen.items())), names, str(root))
    places = {name: k for k, name in enumerate(classes)}
    found = Found("VIA JSON", root, classes, repairs=unwanted)
    for path, split, one in told:
        file = next((f for f in (path.parent / d / str(one["filename"]) for d in ("", "images")) if f.is_file()), None)
        if file is None:
            found.missing.append((str(one["filename"]), path.relative_to(root).as_posix()))
            continue
        id = file.relative_to(root).as_posix() if file.is_relative_to(root) else str(one["filename"])
        things = []
        for region in _regions(one, path):
            name = classes[0] if key is None else _class(region, key)
            if name is None:
                found.repairs.append((id, f"region without a class left out: its attribute {key!r} is empty"))
            elif (polygon := _polygon(region, f"{path}: {one['filename']}")) is None:
                found.repairs.append((id, f"point left out: {name}"))
            elif name in places:
                things.append(Thing(places[name], outline=[polygon]))
        found.entries.append(Entry(id, str(file), Note(id, tuple(things)), split))
    twice = next((id for id, times in Counter(e.id for e in found.entries).items() if times > 1), None)
    if twice is not None:
        raise SeeallError(f"{root}: {twice} is listed twice; list every picture once")
    return found


def _regions(one: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    regions = one["regions"]
    regions = list(regions.values()) if isinstance(regions, dict) else regions
    if not isinstance(regions, list) or any(not isinstance(r, dict) for r in regions):
        raise SeeallError(f"{path}: the regions of {one['filename']} are no list; write the file again")
    return regions


def _attribute(regions: Sequence[dict[str, Any]], path: Path) -> str | None:
    """The attribute that is the class."""
    keys = Counter(key for region in regions for key in _filled(region))
    if not keys:
        return None
    key = next(iter(keys)) if len(keys) == 1 else next((k for k in _KEYS if k in keys), None)
    if key is None:
        raise SeeallError(f"{path}: which attribute is the class: {', '.join(sorted(keys))}? call it 'class'")
    return key


def _filled(region: dict[str, Any]) -> dict[str, Any]:
    attributes = region.get("region_attributes")
    return {k: v for k, v in attributes.items() if v not in ("", None, {})} if isinstance(attributes, dict) else {}


def _class(region: dict[str, Any], key: str | None) -> str | None:
    value = _filled(region).get(key or "")
    if isinstance(value, dict):  # boxes that were ticked
        value = next((k for k, ticked in value.items() if ticked), None)
    return None if value is None else str(value).strip()


def _polygon(region: dict[str, Any], where: str) -> Polygon | None:
    """The outline of a region; None for a point, which has none. A line is taken to be closed."""
    shape = region.get("shape_attributes")
    kind = shape.get("name") if isinstance(shape, dict) else None
    if not isinstance(shape, dict) or kind not in ("polygon", "polyline", "rect", "circle", "ellipse", "point"):
        raise SeeallError(f"{where}: a region of shape {kind!r}; want polygon, polyline, rect, circle or ellipse")
    if kind == "point":
        return None
    if kind in ("polygon", "polyline"):
        xs, ys = shape.get("all_points_x"), shape.get("all_points_y")
        if not isinstance(xs, list) or not isinstance(ys, list) or len(xs) != len(ys):
            raise SeeallError(f"{where}: a {kind} whose all_points_x and all_points_y do not go together; mend it")
        corners = np.array([(files.number(x, where), files.number(y, where)) for x, y in zip(xs, ys)]).reshape(-1, 2)
        return corners if len(corners) >= 3 else np.repeat(corners[:1], 3, 0) if len(corners) else np.zeros((3, 2))
    if kind == "rect":
        x, y, w, h = (files.number(shape.get(k), where) for k in ("x", "y", "width", "height"))
        return np.array([(x, y), (x + w, y), (x + w, y + h), (x, y + h)])
    x, y = (files.number(shape.get(k), where) for k in ("cx", "cy"))
    across, down = (files.number(shape.get(k), where) for k in (("r", "r") if kind == "circle" else ("rx", "ry")))
    return ellipse(x, y, across, down, files.number(shape.get("theta", 0), where))
