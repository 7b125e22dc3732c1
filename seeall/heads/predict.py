"""`ssl predict`: pictures, folders or videos in; drawn pictures, JSON and masks out, all at the pictures' own sizes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from seeall import durable
from seeall.console import bar, log
from seeall.data.annotations.draw import palette
from seeall.data.annotations.polygons import encode
from seeall.data.decode import EXTENSIONS, Pixels, Unreadable
from seeall.data.pictures import Pictures, find
from seeall.data.pixels import write_skipped
from seeall.heads import build, tiles
from seeall.heads.examine import as_truth, drawn
from seeall.heads.prediction import Head, Prediction, together
from seeall.metrics.detection import Found
from seeall.types import SeeallError

OVERLAP = 0.25
"""Of a tile's side."""
_NAMED = 5
"""Classes of a picture that are named, the surest ones."""
_BEGUN = ".unfinished"
"""A file that is in the folder from the beginning to the end: what was begun and never finished can be replaced."""


def predict(
    run: str | Path, inputs: Sequence[str], out: Path, *, score: float = 0.5, tile: int = 0, overwrite: bool = False
) -> dict[str, Any]:
    """Say what is in pictures, by the head of `run`, into the folder `out`.

    `out/pictures/` what was seen, drawn, small pictures enlarged · `out/masks/` PNG, a class for each pixel
    `out/predictions.json` COCO's layout for things, one entry a picture otherwise
    `out/skipped.csv` pictures that could not be read, and why, if there were any

    inputs: files, folders, manifests, videos, scenes:… · score: the least of things that are drawn; all found are in
    the JSON · tile: side of the pieces, px, in which pictures larger than that are looked at; 0: each as a whole

    Returns: what was done, by name.
    Raises: SeeallError where there is no head, no picture, or `out` holds something.
    """
    head, recipe = build.load(run)
    if tile and tile < recipe.image_size // 2:
        raise SeeallError(f"--tile {tile} px are too few for a head that sees {recipe.image_size} px; choose more")
    found = [find(text) for text in inputs]
    _prepare(out, overwrite, [pictures.root for pictures in found])
    book = _Book(out, recipe, score)
    with bar("predicting", sum(map(len, found))) as progress:
        for pictures in found:
            for some in together(_readable(pictures, book), lambda one: one[1].shape[:2]):
                said = _seen(head, [pixels for _, pixels in some], tile)  # type: ignore[arg-type]
                for (name, pixels), prediction in zip(some, said):
                    book.write(name, pixels, prediction)
                    progress.update(1)
    if not book.count:
        _clear(out)
        raise SeeallError(f"none of the pictures can be read; the first: {book.skipped[0][0]} ({book.skipped[0][1]})")
    return book.close()


def _readable(pictures: Pictures, book: _Book) -> Iterator[tuple[str, Pixels]]:
    for row in range(len(pictures)):
        try:
            yield pictures.ids[row], pictures.read(row)
        except Unreadable as fault:
            book.skipped.append((pictures.ids[row], str(fault)))


def _seen(head: Head, pixels: Sequence[Pixels], tile: int) -> list[Prediction]:
    pictures = [torch.from_numpy(np.array(p)).permute(2, 0, 1).contiguous() for p in pixels]
    if not tile:
        return head.predict(pictures)
    return [
        tiles.predict(head.predict, p, tile, int(OVERLAP * tile)) if max(p.shape[1:]) > tile else head.predict([p])[0]
        for p in pictures
    ]


def _prepare(out: Path, overwrite: bool, roots: Sequence[Path | None]) -> None:
    from seeall.training.run import refuse_inside

    for root in roots:
        refuse_inside(out, root)
    if out.is_dir() and any(part.suffix != durable.PARTIAL for part in out.iterdir()):
        if not overwrite:
            raise SeeallError(f"--out {out} is not empty: choose another, or replace what is there by --overwrite")
        if not any((out / name).exists() for name in ("predictions.json", _BEGUN)):
            raise SeeallError(f"--out {out} holds no finished prediction, nor one begun, so it is kept; remove it")
    try:
        out.mkdir(parents=True, exist_ok=True)
        durable.write(out / _BEGUN, lambda file: file.write(b""))
        _clear(out, (_BEGUN,))
        (out / "pictures").mkdir()
    except OSError as fault:
        raise SeeallError(f"--out {out}: cannot be written: {fault.strerror}") from None


def _clear(out: Path, kept: Sequence[str] = ()) -> None:
    """Take away what a prediction consists of, and nothing else; what says that one was begun goes last."""
    for name in ("pictures", "masks", "predictions.json", "skipped.csv", _BEGUN):
        if (out / name).is_dir():
            shutil.rmtree(out / name)
        elif name not in kept:
            (out / name).unlink(missing_ok=True)


class _Book:
    """What is written down of each picture."""

    def __init__(self, out: Path, recipe: build.Recipe, score: float) -> None:
        self.out, self.recipe, self.score = out, recipe, score
        self.images: list[dict[str, Any]] = []
        self.things: list[dict[str, Any]] = []
        self.skipped: list[tuple[str, str]] = []
        self._taken: set[str] = set()

    @property
    def count(self) -> int:
        return len(self.images)

    def write(self, name: str, pixels: Pixels, prediction: Prediction) -> None:
        """One picture: its entry, its drawing, its mask."""
        height, width = pixels.shape[:2]
        stem, number = self._stem(name), len(self.images) + 1
        entry: dict[str, Any] = {"id": number, "file_name": name, "width": width, "height": height}
        entry["drawn"] = f"pictures/{stem}.png"
        classes = self.recipe.classes
        if prediction.scores is not None:
            best = np.argsort(-prediction.scores)[:_NAMED]
            entry["classes"] = [{"name": classes[k], "score": round(float(prediction.scores[k]), 6)} for k in best]
        if prediction.semantic is not None:
            entry["mask"] = f"masks/{stem}.png"
            _save_mask(self.out / "masks" / f"{stem}.png", prediction.semantic)
        if prediction.found is not None:
            self._things(number, prediction.found)
        self.images.append(entry)
        truth, scores = as_truth(prediction, self.score)
        file = self.out / "pictures" / f"{stem}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(drawn(pixels, truth, classes, scores)).save(file)

    def _things(self, picture: int, found: Found) -> None:
        """An entry for each thing, in COCO's layout: x, y, width and height, categories from 1."""
        for k, (x0, y0, x1, y1) in enumerate(found.boxes.tolist()):
            thing = {
                "id": len(self.things) + 1,
                "image_id": picture,
                "category_id": int(found.classes[k]) + 1,
                "bbox": [round(v, 2) for v in (x0, y0, x1 - x0, y1 - y0)],
                "area": round((x1 - x0) * (y1 - y0), 2),
                "iscrowd": 0,
                "score": round(float(found.scores[k]), 6),
            }
            self.things.append(thing if found.masks is None else {**thing, "segmentation": encode(found.masks[k])})

    def _stem(self, name: str) -> str:
        """A name for the files of one picture, below the folder, and no other's."""
        path = Path(name)
        path = path.with_suffix("") if path.suffix.lower() in EXTENSIONS else path
        clean = "/".join(part for part in path.parts if part not in ("/", "..", "."))
        stem, k = clean, 2
        while stem in self._taken:
            stem, k = f"{clean}-{k}", k + 1
        self._taken.add(stem)
        return stem

    def close(self) -> dict[str, Any]:
        """Write the JSON; what was done."""
        told: dict[str, Any] = {
            "task": self.recipe.task, "images": self.images,
            "categories": [{"id": k + 1, "name": name} for k, name in enumerate(self.recipe.classes)],
        }  # fmt: skip
        if self.recipe.task in ("detection", "instance"):
            told["annotations"] = self.things
        write_skipped(self.out / "skipped.csv", self.skipped)
        text = json.dumps(told, ensure_ascii=False).encode(errors="backslashreplace")
        durable.save(self.out / "predictions.json", lambda file: file.write(text))
        (self.out / _BEGUN).unlink()
        if self.skipped:
            first = ", ".join(f"{name} ({why})" for name, why in self.skipped[:3])
            log.warning("skipped %d pictures: %s", len(self.skipped), first)
        facts: dict[str, Any] = {"out": str(self.out), "pictures": self.count, "skipped": len(self.skipped)}
        return facts | ({"things": len(self.things)} if "annotations" in told else {})


def _save_mask(file: Path, semantic: np.ndarray) -> None:
    """A palette PNG whose values are the classes, so that it looks like something and can be read back."""
    file.parent.mkdir(parents=True, exist_ok=True)
    mask = Image.fromarray(semantic, mode="P")
    mask.putpalette(palette(256).ravel().tolist())
    mask.save(file)
