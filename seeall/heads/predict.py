"""`ssl predict`: pictures, folders or videos in; pictures and videos, JSON, masks and flow out, at their own sizes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seeall.console import bar
from seeall.data.decode import Pixels, Unreadable
from seeall.data.pictures import Pictures, find
from seeall.heads import build, kinds, tiles
from seeall.heads.book import Book, clear, moment, prepare
from seeall.heads.prediction import Head, Prediction, together
from seeall.types import SeeallError

OVERLAP = 0.25
"""Of a tile's side."""


def predict(
    run: str | Path,
    inputs: Sequence[str],
    out: Path,
    *,
    score: float = 0.5,
    tile: int = 0,
    rate: float | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Say what is in pictures, by the head of `run`, into the folder `out`.

    `out/pictures/` what was seen, drawn, small pictures enlarged · `out/videos/` the same as mp4, for clips
    `out/masks/` PNG, a class for each pixel · `out/flow/` .flo, from each frame to the next one of its clip
    `out/predictions.json` COCO's layout for things, one entry a picture otherwise; the k-th of the keypoints
    is the same in every picture
    `out/skipped.csv` pictures that could not be read, and why, if there were any

    inputs: files, folders, manifests, videos, scenes:… · score: the least of things that are drawn; all found are in
    the JSON · tile: side of the pieces, px, in which pictures larger than that are looked at; 0: each as a whole
    rate: frames a second that are taken of a video; the task's own where not given

    Returns: what was done, by name.
    Raises: SeeallError where there is no head, no picture, or `out` holds something.
    """
    head, recipe = build.load(run)
    if tile and tile < recipe.image_size // 2:
        raise SeeallError(f"--tile {tile} px are too few for a head that sees {recipe.image_size} px; choose more")
    if tile and recipe.task in ("flow", "keypoints"):
        raise SeeallError(
            f"--tile {tile}: for {recipe.task} a picture is looked at whole, as things move from piece to piece"
        )
    kind = kinds.KINDS[recipe.task]
    found = [kind.looks_at(find(text, rate=rate or kind.rate)) for text in inputs]
    prepare(out, overwrite, [pictures.root for pictures in found])
    book = Book(out, recipe.task, recipe.classes, score)
    with bar("predicting", sum(map(len, found))) as progress:
        for pictures in found:
            for some in together(_readable(pictures, book), lambda one: one[1].shape[-3:-1]):
                said = _seen(head, [pixels for _, pixels in some], tile)  # type: ignore[arg-type]
                for (row, pixels), prediction in zip(some, said):
                    book.write(pictures.ids[row], pixels, prediction, moment(pictures, row))
                    progress.update(1)
            book.cut()
    if not book.count:
        clear(out)
        raise SeeallError(f"none of the pictures can be read; the first: {book.skipped[0][0]} ({book.skipped[0][1]})")
    return book.close()


def _readable(pictures: Pictures, book: Book) -> Iterator[tuple[int, Pixels]]:
    for row in range(len(pictures)):
        try:
            yield row, pictures.read(row)
        except Unreadable as fault:
            book.skipped.append((pictures.ids[row], str(fault)))


def _seen(head: Head, pixels: Sequence[Pixels], tile: int) -> list[Prediction]:
    pictures = [torch.from_numpy(np.array(p)).movedim(-1, -3).contiguous() for p in pixels]
    if not tile:
        return head.predict(pictures)
    return [
        tiles.predict(head.predict, p, tile, int(OVERLAP * tile)) if max(p.shape[1:]) > tile else head.predict([p])[0]
        for p in pictures
    ]
