"""`ssl data check`: reads every picture and its truth and says what is there, what is odd, and what cannot be used."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from seeall.console import bar
from seeall.data.annotations.draw import draw
from seeall.data.annotations.examples import scaled
from seeall.data.annotations.truth import IGNORE, Annotated, Truth
from seeall.data.decode import Pixels, Unreadable
from seeall.data.pixels import cores, in_order
from seeall.types import SeeallError

EXAMPLES = 5
"""Of each kind of finding that are named."""
_CELL = 480
"""Longest side of a picture on the sheet, px."""
MOST = 12
"""Pictures on a sheet."""
_GAP = 8
Drawn = Callable[[Pixels, Truth, Sequence[str]], Pixels]
_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


@dataclass
class Kind:
    """Findings of one kind: how many, and the first few as (where, what)."""

    count: int = 0
    examples: list[tuple[str, str]] = field(default_factory=list)

    def add(self, where: str, what: str) -> None:
        """One more."""
        self.count += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append((where, what))


@dataclass(frozen=True, eq=False)
class Findings:
    """What a check found.

    pictures: split → pictures; the split is "all" where there are none · kinds: what is odd → how often and where
    unit: what `balance` counts, pictures, things or pixels · balance: split → (K,) of each class
    sizes, ratios: (M,) of boxes: root of the area as a share of the picture's; width by height
    frames: (n,) of clips · speeds: (n,) of flow, the mean of each pair, px
    """

    annotated: Annotated
    pictures: dict[str, int]
    kinds: dict[str, Kind]
    unit: str
    balance: dict[str, NDArray[np.int64]]
    sizes: NDArray[np.float64]
    ratios: NDArray[np.float64]
    frames: NDArray[np.float64]
    speeds: NDArray[np.float64]

    def lines(self) -> list[str]:
        """All of it in words."""
        classes, total = self.annotated.classes, max(1, sum(int(part.sum()) for part in self.balance.values()))
        splits = ", ".join(f"{name} {n}" for name, n in self.pictures.items())
        what = "pairs" if "flow" in self.annotated.knows else "clips" if len(self.frames) else "pictures"
        said = [f"{len(self.annotated)} {what} ({splits})" + (f", {len(classes)} classes" if classes else "")]
        wide = max(map(len, classes), default=0)
        if classes:
            said += ["", f"{self.unit} of each class"]
            said.append("  ".join([" " * wide, *(f"{name:>11}" for name in self.balance), "  share"]))
        for k, name in enumerate(classes):
            row = [int(part[k]) for part in self.balance.values()]
            said.append("  ".join([f"{name:{wide}}", *(f"{n:>11,}" for n in row), f"{100 * sum(row) / total:6.2f}%"]))
        rows = {
            f"boxes, {len(self.sizes)}": (("root of the area's share", self.sizes), ("width by height", self.ratios)),
            f"clips, {len(self.frames)}": (("frames", self.frames),),
            f"pairs, {len(self.speeds)}": (("mean speed, px", self.speeds),),
        }
        for title, measures in rows.items():
            if len(measures[0][1]):
                said += ["", f"{title:26}" + "  ".join(f"{100 * q:>4.0f}%" for q in _QUANTILES)]
            for name, values in measures if len(measures[0][1]) else ():
                said.append(f"{name:26}" + "  ".join(f"{v:5.2f}" for v in np.quantile(values, _QUANTILES)))
        said += ["", *([] if self.kinds else ["nothing odd found"])]
        for name, kind in self.kinds.items():
            said.append(f"{kind.count} x {name}")
            said += [f"    {where}{': ' if what else ''}{what}" for where, what in kind.examples]
        return said

    def facts(self) -> dict[str, Any]:
        """The same for JSON."""
        return {
            "pictures": self.pictures,
            "classes": list(self.annotated.classes),
            "unit": self.unit,
            "balance": {split: part.tolist() for split, part in self.balance.items()},
            **{
                name: np.quantile(values, _QUANTILES).tolist() if len(values := getattr(self, name)) else []
                for name in ("sizes", "ratios", "frames", "speeds")
            },
            "findings": {name: {"count": kind.count, "examples": kind.examples} for name, kind in self.kinds.items()},
        }


@dataclass(frozen=True, eq=False)
class _Seen:
    """One picture. wrong: why it cannot be used, None where it can · counts: (K,) of each class."""

    digest: str | None
    wrong: tuple[str, str] | None
    counts: NDArray[np.int64]
    boxes: NDArray[np.float64]
    area: int = 1
    empty: bool = False
    frames: int | None = None
    speed: float | None = None


def check(annotated: Annotated) -> Findings:
    """Read all pictures and their truth; of clips, all of their frames."""
    own = annotated.pictures.splits
    splits = [s or "in no split" for s in own] if own else ["all"] * len(annotated)
    kinds: dict[str, Kind] = {}
    for where, words in annotated.repairs:
        name, _, rest = words.partition(": ")
        kinds.setdefault(name, Kind()).add(where, rest)
    names = sorted(set(splits), key=lambda s: ("train", "val", "test").index(s) if s in ("train", "val", "test") else 3)
    balance = {name: np.zeros(len(annotated.classes), np.int64) for name in names}
    boxes, ratios, first = list[NDArray[np.float64]](), list[NDArray[np.float64]](), dict[str, int]()
    frames, speeds = list[int](), list[float]()
    with bar("checking pictures", len(annotated)) as progress:
        for i, seen in enumerate(in_order(lambda i: _look(annotated, i), range(len(annotated)), cores())):
            progress.update(1)
            id = annotated.pictures.ids[i]
            if seen.digest is not None and (twin := first.setdefault(seen.digest, i)) != i:
                across = splits[twin] != splits[i]
                name = f"same picture in {splits[twin]} and {splits[i]}" if across else "same picture twice"
                kinds.setdefault(name, Kind()).add(id, f"is {annotated.pictures.ids[twin]}")
            if seen.wrong:
                kinds.setdefault(seen.wrong[0], Kind()).add(id, seen.wrong[1])
                continue
            balance[splits[i]] += seen.counts
            if seen.empty:
                kinds.setdefault("picture with nothing in it", Kind()).add(id, "")
            if seen.frames is not None:
                frames.append(seen.frames)
                if seen.frames < 2:
                    kinds.setdefault("clip of one frame, in which nothing moves", Kind()).add(id, "")
            if seen.speed is not None:
                speeds.append(seen.speed)
            sides = seen.boxes[:, 2:] - seen.boxes[:, :2]
            boxes.append(np.sqrt(sides.prod(1) / seen.area))
            ratios.append(sides[:, 0] / sides[:, 1])
    for split, counts in balance.items():
        for k in np.flatnonzero(counts == 0).tolist():
            kinds.setdefault("class never seen", Kind()).add(split, annotated.classes[k])
    unit = "pictures" if "label" in annotated.knows else "pixels" if "semantic" in annotated.knows else "things"
    pictures = {name: splits.count(name) for name in names}
    sizes, shapes = (np.concatenate([np.zeros(0), *parts]) for parts in (boxes, ratios))
    return Findings(
        annotated, pictures, kinds, unit, balance, sizes, shapes, np.array(frames, float), np.array(speeds, float)
    )


def _look(annotated: Annotated, i: int) -> _Seen:
    """Picture i with its truth."""
    none, no_boxes, key = np.zeros(len(annotated.classes), np.int64), np.zeros((0, 4)), annotated.pictures.keys[i]
    digest = None
    try:
        if isinstance(key, str):
            digest = hashlib.sha256(Path(key).read_bytes()).hexdigest()
        pixels = annotated.pictures.read(i)
        height, width = pixels.shape[-3:-1]
        truth = annotated.truth(i, height, width)
    except (Unreadable, OSError) as fault:
        return _Seen(digest, ("picture cannot be read", str(fault)), none, no_boxes)
    except SeeallError as fault:
        return _Seen(digest, ("annotation cannot be used", str(fault)), none, no_boxes)
    if truth.motion is not None:
        speeds = np.hypot(*np.moveaxis(truth.motion.vectors[truth.motion.known], 1, 0))
        return _Seen(
            digest, None, none, no_boxes, speed=float(speeds.mean()) if len(speeds) else None, empty=not len(speeds)
        )
    if truth.label is not None:
        counted = np.array([truth.label])
    elif truth.semantic is not None:
        counted = truth.semantic[truth.semantic != IGNORE]
    else:
        counted = truth.classes
    counts = np.bincount(counted.ravel(), minlength=len(none)).astype(np.int64)
    background = truth.semantic is not None and annotated.classes[0] == "background"
    empty = not counts[1 if background else 0 :].any()
    frames = len(pixels) if "frames" in annotated.knows else None
    return _Seen(digest, None, counts, truth.boxes.astype(np.float64), height * width, empty, frames)


def sheet(annotated: Annotated, rows: Sequence[int], drawn: Drawn = draw) -> Image.Image:
    """The pictures at `rows`, at most 12, in a grid, with their truth drawn; those that cannot be read are left out.

    drawn: a picture, its truth and the names of the classes → what is shown; of clips, the frame in the middle

    Raises: SeeallError where none of them can be read.
    """
    cells = [cell for i in list(rows)[:MOST] if (cell := _cell(annotated, i, drawn)) is not None]
    if not cells:
        raise SeeallError(f"{annotated.pictures.source}: none of the pictures chosen for the sheet can be read")
    columns = min(len(cells), 4 if len(cells) > 6 else 3)
    lines = [cells[k : k + columns] for k in range(0, len(cells), columns)]
    wide, highs = max(cell.width for cell in cells), [max(cell.height for cell in line) for line in lines]
    paper = Image.new("RGB", (columns * (wide + _GAP) + _GAP, sum(highs) + _GAP * (len(lines) + 1)), "white")
    y = _GAP
    for line, high in zip(lines, highs):
        for k, cell in enumerate(line):
            x = k * (wide + _GAP) + _GAP
            paper.paste(cell, (x + (wide - cell.width) // 2, y + (high - cell.height) // 2))
        y += high + _GAP
    return paper


def _cell(annotated: Annotated, i: int, drawn: Drawn) -> Image.Image | None:
    """One picture with its truth, at the size of the sheet."""
    try:
        pixels = annotated.pictures.read(i)
        pixels = pixels[(len(pixels) - 1) // 2] if pixels.ndim == 4 else pixels
        before = pixels.shape[0], pixels.shape[1]
        truth = annotated.truth(i, *before)
    except (Unreadable, SeeallError):
        return None
    picture = ImageOps.contain(Image.fromarray(pixels), (_CELL, _CELL), Image.Resampling.BICUBIC)
    after = picture.height, picture.width
    return Image.fromarray(drawn(np.array(picture), scaled(truth, before, after), annotated.classes))
