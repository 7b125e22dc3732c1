"""Pictures and masks: for every picture another whose values, or colours, are the class of each pixel.

Values are places in the list of classes. 255, and the one value that equals the number of classes, stand for pixels
that belong to none; any other value beyond the classes is an error. Masks of 0 and 255 alone are a background and a
thing; so are masks of 0 and 1 with one name, which is the thing's. Without names, values are classes up to the highest;
where less than a quarter of those is seen, as with 0, 128 and 255, they are no places in a list, which is an error.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from seeall import catalog
from seeall.console import bar
from seeall.data.annotations import files
from seeall.data.annotations.files import Place, Repair
from seeall.data.annotations.things import left_out
from seeall.data.annotations.truth import IGNORE, MOST_CLASSES, Annotated, Truth
from seeall.data.decode import decode
from seeall.data.pictures import Pictures
from seeall.data.pixels import cores, in_order
from seeall.types import SeeallError

SUFFIXES = frozenset([".png", ".tif", ".tiff", ".bmp", ".gif", ".jpg", ".jpeg", ".webp", ".pgm", ".ppm"])
_SPARSE = 4
"""How many times as many values there may be up to the highest as are seen."""
_SHOWN = 5
"""Values in a message."""
_FEW = 1 << 16
"""Values below this are counted rather than sorted, which is quicker."""
Colours = Mapping[int, str]
"""R · 65536 + G · 256 + B → name."""


@dataclass(frozen=True, eq=False)
class Table:
    """What values mean. values: (V,) sorted · classes: (V,) uint8, a class or IGNORE · coloured: values are colours."""

    values: NDArray[np.int64]
    classes: NDArray[np.uint8]
    coloured: bool


def find(
    root: Path, source: str, places: Sequence[Place], template: str | None, *, names: Sequence[str] | None,
    ignore: str | None, colours: str | None, repairs: Sequence[Repair] = (),
) -> Annotated:  # fmt: skip
    """The pictures at `places` that have a mask. Reads every mask.

    template: the mask's file relative to the folder above the pictures, `{stem}` for the picture's name without its
        suffix; None for `masks/` and any suffix · names, ignore, colours: see `layouts.find_annotated`
    repairs: what was mended to find the places

    Raises: SeeallError where there are no masks, for one that cannot be read or measures what its picture does not,
        and for a value or colour that is no class.
    """
    pairs, mended = _paired(root, source, places, template)
    named = _colours(root, colours)
    scans = _scan([mask for _, mask in pairs], named is not None)
    for (place, mask), (size, _), real in zip(pairs, scans, files.sizes([place.file for place, _ in pairs])):
        if real and size != real:
            raise SeeallError(f"{mask}: the mask is {_px(size)}, its picture {place.id} {_px(real)}; scale either")
    where: dict[int, str] = {}
    counts = Counter(value for _, values in scans for value in values)
    for (_, mask), (_, values) in zip(pairs, scans):
        for value in values:
            where.setdefault(value, mask)
    if named is not None:
        classes, table = _by_colour(named, names, _words(ignore), where)
    else:
        classes, table, told = _by_value(
            source, names or _listed(root, pairs), _words(ignore), where, counts, len(pairs)
        )
        mended += told
    if len(classes) > MOST_CLASSES or not classes:
        raise SeeallError(f"{source}: {len(classes)} classes in masks, want 1 to {MOST_CLASSES}; see names and ignore")
    splits = [place.split for place, _ in pairs]
    pictures = Pictures(
        source, [place.id for place, _ in pairs], [place.file for place, _ in pairs], decode,
        splits=splits if any(splits) else None, root=root,
    )  # fmt: skip
    reading = functools.partial(interpret, table=table)
    return Annotated(
        pictures, classes, frozenset({"semantic"}), [mask for _, mask in pairs], reading, [*repairs, *mended]
    )


def interpret(mask: str, height: int, width: int, *, table: Table) -> Truth:
    """The truth of the picture of `height` by `width` px that belongs to `mask`."""
    values = _values(mask, table.coloured)
    if values.shape != (height, width):
        raise SeeallError(f"{mask}: the mask is {_px(values.shape)}, its picture {_px((height, width))}; scale either")
    at = np.searchsorted(table.values, values).clip(max=len(table.values) - 1)
    strange = table.values[at] != values
    if strange.any():
        raise SeeallError(f"{mask}: {_say(int(values[strange][0]), table.coloured)} was not there before; put it back")
    return Truth(semantic=table.classes[at])


def _paired(
    root: Path, source: str, places: Sequence[Place], template: str | None
) -> tuple[list[tuple[Place, str]], list[Repair]]:
    """Pictures that have a mask, with it."""
    pairs: list[tuple[Place, str]] = []
    bare: list[Place] = []
    missing: list[tuple[str, str]] = []
    if template is not None and "{stem}" not in template:
        raise SeeallError(f"masks={template}: say where the picture's name goes, as in masks/{{stem}}_L.png")
    repairs: list[Repair] = []
    there = {
        base: files.below(base / "masks", SUFFIXES, repairs) if template is None else {}
        for base in sorted({p.base for p in places})
    }
    for place in places:
        mask = there[place.base].pop(place.stem, None)
        if template is not None:
            file = place.base / template.replace("{stem}", place.stem)
            mask = str(file) if file.is_file() else None
        if mask is None:
            bare.append(place)
        else:
            pairs.append((place, mask))
    for unused in there.values():
        missing += [(f"images/{stem}", Path(file).relative_to(root).as_posix()) for stem, file in unused.items()]
    if not places:
        raise SeeallError(f"{source}: no pictures in images; put them there, and their masks into masks")
    if not pairs:
        wanted = (template or "masks/{stem}.png").replace("{stem}", places[0].stem)
        raise SeeallError(f"{source}: none of {len(places)} pictures has a mask; looked for {places[0].base / wanted}")
    repairs += [(place.id, "picture without a mask left out: give it one, or take it away") for place in bare]
    return pairs, repairs + left_out(source, missing, len(pairs))


def _words(ignore: str | None) -> list[str]:
    return [word.strip() for word in (ignore or "").split(",") if word.strip()]


def _listed(root: Path, pairs: Sequence[tuple[Place, str]]) -> list[str] | None:
    """The names in classes.txt, which lies in the folder or one level up or down."""
    choices = [root / "classes.txt", root.parent / "classes.txt", pairs[0][0].base / "classes.txt"]
    choices.append(root / "masks" / "classes.txt")
    return next((files.lines(path) for path in choices if path.is_file()), None)


def _colours(root: Path, colours: str | None) -> Colours | None:
    """The colours in the file that was named, or in label_colors.txt."""
    path = Path(colours).expanduser() if colours else root / "label_colors.txt"
    if not colours and not path.is_file():
        return None
    found: dict[int, str] = {}
    for row, line in enumerate(files.lines(path), 1):
        match = re.fullmatch(r"(\d+)[\s,]+(\d+)[\s,]+(\d+)[\s,]+(.+)", line)
        numbers = [int(match[k]) for k in (1, 2, 3)] if match else [256]
        if match is None or max(numbers) > 255:
            raise SeeallError(f"{path}, line {row}: {line[:40]!r}; want red, green, blue (0 to 255) and a name")
        found[numbers[0] << 16 | numbers[1] << 8 | numbers[2]] = match[4].strip()
    if not found:
        raise SeeallError(f"{path}: no colours in it; write red, green, blue and a name a line")
    return found


def _by_colour(
    named: Colours, names: Sequence[str] | None, ignored: Sequence[str], where: Mapping[int, str]
) -> tuple[list[str], Table]:
    """Classes in the order of the colours, or `names`; those that are not wanted are ignored."""
    known = list(dict.fromkeys(named.values()))
    for word in [*ignored, *(names or ())]:
        if word not in known:
            raise SeeallError(f"{word!r} is no name of a colour; {catalog.suggest(word, known)}")
    classes = [name for name in names or known if name not in ignored]
    for value, mask in sorted(where.items()):
        if value not in named:
            raise SeeallError(f"{mask}: {_say(value, True)} has no name{_lossy(mask)}; add it to the colours")
    values = sorted(named)
    places = [classes.index(named[v]) if named[v] in classes else IGNORE for v in values]
    return classes, Table(np.array(values, np.int64), np.array(places, np.uint8), True)


def _by_value(
    source: str,
    names: Sequence[str] | None,
    ignored: Sequence[str],
    where: Mapping[int, str],
    counts: Counter[int],
    n: int,
) -> tuple[list[str], Table, list[Repair]]:
    """Classes in the order of their values, without the ignored ones."""
    repairs: list[Repair] = []
    pair = list(names or ("background", "thing"))
    pair = pair if len(pair) > 1 else list(dict.fromkeys(["background", *pair]))
    binary = ({0, IGNORE}, {0, 1}) if names is not None and len(names) == 1 else ({0, IGNORE},)
    if set(where) in binary and not ignored and len(pair) == 2:
        high = max(where)
        repairs.append((source, f"masks of 0 and {high} alone: taken as two classes, {pair[0]} and {pair[1]}"))
        return pair, Table(np.array([0, high]), np.array([0, 1], np.uint8), False), repairs
    if names is None:
        plain = [v for v in where if v != IGNORE and str(v) not in ignored]
        high = max(plain, default=-1)
        if high >= _SPARSE * len(plain) > 0:
            shown = ", ".join(map(str, sorted(where)[:_SHOWN])) + (", …" if len(where) > _SHOWN else "")
            raise SeeallError(
                f"{where[high]}: values {shown} are too far apart to be classes{_lossy(where[high])}; say what they "
                "are by --set colours=FILE, 'r g b name' a line"
            )
        names = [str(v) for v in range(min(high, MOST_CLASSES) + 1)]
    strange = next((w for w in ignored if w not in names and not w.isdecimal()), None)
    if strange is not None:
        raise SeeallError(
            f"ignore={','.join(ignored)}: no class is called {strange!r}; {catalog.suggest(strange, names)}"
        )
    classes = [name for k, name in enumerate(names) if name not in ignored and str(k) not in ignored]
    places = {k: classes.index(name) if name in classes else IGNORE for k, name in enumerate(names)}
    for value, mask in sorted(where.items()):
        if value in places:
            continue
        if str(value) not in ignored:
            if value not in (IGNORE, len(names)):
                raise SeeallError(
                    f"{mask}: value {value} is no class, which are 0 to {len(names) - 1}{_lossy(mask)}; name it in "
                    f"classes.txt or --set ignore={value}"
                )
            repairs.append((source, f"value beyond the classes ignored: {value}, in {counts[value]} of {n} masks"))
        places[value] = IGNORE
    values = sorted(places)
    table = Table(np.array(values, np.int64), np.array([places[v] for v in values], np.uint8), False)
    return classes, table, repairs


def _scan(masks: Sequence[str], coloured: bool) -> list[tuple[tuple[int, ...], list[int]]]:
    """Size and the values of every mask."""

    def look(mask: str) -> tuple[tuple[int, ...], list[int]]:
        values = _values(mask, coloured)
        few = values.size and values.min() >= 0 and values.max() < _FEW
        there = np.flatnonzero(np.bincount(values.ravel())) if few else np.unique(values)
        return values.shape, there.tolist()

    found = []
    with bar("reading masks", len(masks)) as progress:
        for one in in_order(look, masks, cores()):
            found.append(one)
            progress.update(1)
    return found


def _values(mask: str, coloured: bool) -> NDArray[np.int64]:
    """(H, W) of a mask file: whole numbers, or packed colours. Raises SeeallError where it has no such."""
    try:
        with Image.open(mask) as image:
            values = np.asarray(image.convert("RGB") if coloured else image).astype(np.int64)
    except Exception as fault:  # a damaged file meets a different fault in every decoder
        raise SeeallError(
            f"{mask}: cannot be read as a mask: {str(fault).splitlines()[0]}; mend or remove it"
        ) from None
    if coloured:
        return values[..., 0] << 16 | values[..., 1] << 8 | values[..., 2]
    if values.ndim == 3:
        if values.shape[2] >= 3 and (values[..., :3] != values[..., :1]).any():
            raise SeeallError(
                f"{mask}: a mask in colours; say which is what by --set colours=FILE, 'r g b name' a line"
            )
        values = values[..., 0]
    return values


def _px(size: Sequence[int]) -> str:
    return f"{size[1]}x{size[0]} px"


def _say(value: int, coloured: bool) -> str:
    return f"colour {value >> 16} {value >> 8 & 255} {value & 255}" if coloured else f"value {value}"


def _lossy(mask: str) -> str:
    return " (JPEG changes values: store masks as PNG)" if Path(mask).suffix.lower() in (".jpg", ".jpeg") else ""
