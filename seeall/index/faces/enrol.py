"""From folders of people to a gallery, and from pictures to the faces that are asked about."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from seeall.console import bar, log
from seeall.data.decode import Unreadable
from seeall.data.pictures import Pictures
from seeall.data.pixels import NAMED
from seeall.index import skipped
from seeall.index.faces.find import Box, Finder, one_each
from seeall.index.faces.gallery import Gallery
from seeall.index.segments import Floats, unit
from seeall.index.sync import where
from seeall.types import SeeallError

_HEADER = ("person", "path", "reason")
SAME = 1e-5
"""How far the numbers of a picture that was seen again may be from what they were."""
_TOGETHER = 64
"""Pictures in which faces are looked for, before these are seen."""


class Seen(NamedTuple):
    """Pictures of people. paths, people: n names; vectors: (n, D) of length one; bad: (person, path, reason)."""

    paths: list[str]
    people: list[str]
    vectors: Floats
    bad: list[tuple[str, str, str]]


class Asked(NamedTuple):
    """A picture that is asked about. faces: box or None where it is all face, and (D,); why: it is none."""

    path: str
    faces: list[tuple[Box | None, Floats]]
    why: str = ""


def people_of(pictures: Pictures) -> list[str]:
    """Who is on each picture: the folder below the one that was given, or the label of a manifest.

    Raises: SeeallError where that cannot be told.
    """
    if pictures.root is None:
        if pictures.labels is None:
            raise SeeallError(
                f"{pictures.source}: it does not say who is who: give a folder with a sub-folder a person"
            )
        return list(pictures.labels)
    parts = [Path(name).parts for name in pictures.ids]
    alone = next((name for name, part in zip(pictures.ids, parts) if len(part) == 1), None)
    if alone is not None:
        raise SeeallError(
            f"{pictures.source}: {alone} lies in no sub-folder: give every person a folder with the person's name"
        )
    return [part[0] for part in parts]


def see(gallery: Gallery, pictures: Pictures, finder: Finder | None, *, workers: int = 0) -> Seen:
    """All pictures of people, each with one face. Raises SeeallError where none has."""
    people, vectors = people_of(pictures), np.empty((len(pictures), gallery.index.dim), np.float32)
    good, bad = list[int](), list[tuple[str, str, str]]()
    with bar("looking", len(pictures)) as progress:
        for rows, z, skips in gallery.eye.stream(one_each(pictures, finder), workers=workers):
            vectors[rows] = z.numpy()
            good += rows
            bad += [(people[row], where(pictures, row), why) for row, why in skips]
            progress.update(len(rows) + len(skips), "{rate:,.0f} pictures/s")
    if not good:
        raise SeeallError(
            f"{pictures.source}: none of the {len(pictures)} pictures can be used; the first: {bad[0][1]} ({bad[0][2]})"
        )
    paths = [where(pictures, row) for row in good]
    return Seen(paths, [people[row] for row in good], unit(vectors[good], gallery.index.dim, paths), bad)


def tell_skipped(seen: Seen) -> None:
    """A note where pictures could not be used."""
    if seen.bad:
        first = ", ".join(f"{path} ({why})" for _, path, why in seen.bad[:NAMED])
        more = f" and {len(seen.bad) - NAMED} more" if len(seen.bad) > NAMED else ""
        log.warning("skipped %d of %d pictures: %s%s", len(seen.bad), len(seen.bad) + len(seen.paths), first, more)
    nobody = sorted({person for person, _, _ in seen.bad} - set(seen.people))
    if nobody:
        log.warning("no picture of %s can be used", ", ".join(map(repr, nobody)))


def enrol(gallery: Gallery, pictures: Pictures, finder: Finder | None, *, workers: int = 0) -> dict[str, Any]:
    """Add people, or pictures to people. Pictures already there are left as they are, or replaced where they changed.

    What cannot be used is listed in the gallery's `skipped.csv`.
    Returns: what was done, by name. Raises: SeeallError where no picture can be used, or the disk refuses.
    """
    seen = see(gallery, pictures, finder, workers=workers)
    tell_skipped(seen)
    known = [path for path in seen.paths if path in gallery.index]
    before = {item.path: item for item in gallery.index.items(known)}
    new = []
    for row, (path, person) in enumerate(zip(seen.paths, seen.people)):
        old = before.get(path)
        if old is None or old.label != person or np.abs(old.vector - seen.vectors[row]).max() > SAME:
            new.append(row)
    with gallery.index.writer() as writer:
        writer.append([seen.paths[i] for i in new], seen.vectors[new], [seen.people[i] for i in new])
        _list(gallery.path, seen)
    people, replaced = gallery.people, sum(seen.paths[i] in before for i in new)
    return {
        "path": str(gallery.path), "people": len(people), "pictures": sum(people.values()),
        "enrolled": len(new) - replaced, "replaced": replaced, "unchanged": len(seen.paths) - len(new),
        "skipped": len(seen.bad),
    }  # fmt: skip


def _list(root: Path, seen: Seen) -> None:
    """Put what was skipped on the list, and take off it what could be used after all."""
    looked_at = {skipped.written(path) for path in (*seen.paths, *(path for _, path, _ in seen.bad))}
    lines = [line for line in skipped.lines(root) if line.get("path") not in looked_at]
    rows = [tuple(line.get(name, "") for name in _HEADER) for line in lines]
    fresh = [tuple(skipped.written(part) for part in line) for line in seen.bad]
    if rows or fresh or skipped.lines(root):
        skipped.save(root, _HEADER, [*rows, *fresh])


def ask(gallery: Gallery, found: Sequence[Pictures], finder: Finder | None) -> Iterator[Asked]:
    """Every picture that is asked about, in order, with its faces; some are looked at together."""
    for pictures in found:
        if finder is None:
            yield from _whole(gallery, pictures)
            continue
        for start in range(0, len(pictures), _TOGETHER):
            yield from _searched(gallery, pictures, range(start, min(start + _TOGETHER, len(pictures))), finder)


def _whole(gallery: Gallery, pictures: Pictures) -> Iterator[Asked]:
    for rows, z, bad in gallery.eye.stream(pictures):
        vectors, why = dict(zip(rows, z.numpy())), dict(bad)
        for row in sorted([*rows, *why]):
            faces: list[tuple[Box | None, Floats]] = [(None, vectors[row])] if row in vectors else []
            yield Asked(where(pictures, row), faces, why.get(row, ""))


def _searched(gallery: Gallery, pictures: Pictures, rows: range, finder: Finder) -> Iterator[Asked]:
    faces, why = {}, {}
    for row in rows:
        try:
            faces[row] = finder(pictures.read(row))
        except Unreadable as fault:
            faces[row], why[row] = [], str(fault)
    vectors = iter(gallery.see([face.pixels for row in rows for face in faces[row]]))
    for row in rows:
        yield Asked(where(pictures, row), [(face.box, next(vectors)) for face in faces[row]], why.get(row, ""))
