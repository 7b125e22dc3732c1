"""`ssl predict`: pictures, folders or videos in; pictures and videos, JSON, masks and flow out, at their own sizes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seeall.console import bar
from seeall.data.clips import NoClip, clips
from seeall.data.decode import Pixels, Unreadable
from seeall.data.pictures import Pictures
from seeall.heads import build, kinds, tiles
from seeall.heads.book import Book, clear, moment, prepare
from seeall.heads.kinds import Kind
from seeall.heads.prediction import Head, Prediction, together
from seeall.heads.video.watch import Watch, watching
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
    reuse: float = 0.0,
    keys: int = 1,
    ahead: int = 1,
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
    rate: frames a second that are taken of a video; where not given, as many as the head has learnt from, or the
    task's own
    reuse: how much pixels in [0, 1] may differ from a frame of the clip whose maps are used again, see `video.skip`; 0:
    no maps are · keys: of so many frames of a clip the network sees one, see `video.keys`; then
    `reuse` is how much a frame may differ from the one before to be the same again
    ahead: frames of a clip that the network works on at once, see `video.parallel`

    Returns: what was done, by name.
    Raises: SeeallError where there is no head, no picture, or `out` holds something; where `reuse`, `keys` or `ahead`
    are not for this head, a head that sees clips gets none, or it has learnt from true flow.
    """
    head, recipe = build.load(run)
    if recipe.sees == "flow":
        raise SeeallError(
            f"{run} has learnt from the true flow of the synthetic world, which is not in pictures: judge it by "
            "ssl evaluate, or learn one with --model two-stream"
        )
    if tile and tile < recipe.image_size // 2:
        raise SeeallError(f"--tile {tile} px are too few for a head that sees {recipe.image_size} px; choose more")
    if tile and recipe.task in ("action", "flow", "keypoints"):
        what = "clip" if recipe.task == "action" else "picture"
        raise SeeallError(
            f"--tile {tile}: for {recipe.task} a {what} is looked at whole, as things move from piece to piece"
        )
    if tile and (reuse or keys > 1 or ahead > 1):
        raise SeeallError(f"--tile {tile}: pieces have no frames before them; leave --reuse, --keys and --ahead out")
    watch = watching(head, recipe.task, reuse=reuse, keys=keys, ahead=ahead)
    kind = kinds.KINDS[recipe.task]
    found, still = _found(inputs, kind, rate or recipe.rate)
    clip = [clips(pictures).clip.tolist() if watch else [] for pictures in found]
    prepare(out, overwrite, [pictures.root for pictures in found])
    book = Book(out, recipe.task, recipe.classes, score)
    book.skipped += still
    with bar("predicting", sum(map(len, found))) as progress:
        for pictures, of in zip(found, clip):
            readable = _readable(pictures, book)
            seen = _watched(watch, readable, of) if watch else _looked(head, readable, tile)  # type: ignore[arg-type]
            for row, pixels, prediction in seen:
                book.write(pictures.ids[row], pixels, prediction, moment(pictures, row))
                progress.update(1)
            book.cut()
    if not book.count:
        clear(out)
        raise SeeallError(f"none of the pictures can be read; the first: {book.skipped[0][0]} ({book.skipped[0][1]})")
    return book.close() | (watch.facts() if watch else {})


def _found(inputs: Sequence[str], kind: Kind, rate: float | None) -> tuple[list[Pictures], list[tuple[str, str]]]:
    """What is looked at, and which inputs are not, and why, as nothing moves in them. Raises NoClip if in none."""
    found, still = list[Pictures](), list[tuple[str, str]]()
    for text in inputs:
        try:
            found.append(kind.look(text, rate))
        except NoClip as fault:
            if len(inputs) == len(still) + 1:
                raise
            still.append((text, fault.reason))
    return found, still


def _readable(pictures: Pictures, book: Book) -> Iterator[tuple[int, Pixels]]:
    for row in range(len(pictures)):
        try:
            yield row, pictures.read(row)
        except Unreadable as fault:
            book.skipped.append((pictures.ids[row], str(fault)))


def _looked(head: Head, readable: Iterator[tuple[int, Pixels]], tile: int) -> Iterator[tuple[int, Pixels, Prediction]]:
    """Pictures, several at once."""
    for some in together(readable, lambda one: one[1].shape[-3:-1]):
        for (row, pixels), prediction in zip(some, _seen(head, [pixels for _, pixels in some], tile)):
            yield row, pixels, prediction


def _watched(
    watch: Watch, readable: Iterator[tuple[int, Pixels]], clip: Sequence[int]
) -> Iterator[tuple[int, Pixels, Prediction]]:
    """The frames of one clip after another. clip: of each row"""
    for _, frames in itertools.groupby(readable, lambda one: (clip[one[0]], one[1].shape)):
        shown, kept = itertools.tee(frames)
        for prediction, (row, pixels) in zip(watch(_tensor(pixels) for _, pixels in shown), kept):
            yield row, pixels, prediction


def _tensor(pixels: Pixels) -> torch.Tensor:
    return torch.from_numpy(np.array(pixels)).movedim(-1, -3).contiguous()


def _seen(head: Head, pixels: Sequence[Pixels], tile: int) -> list[Prediction]:
    pictures = [_tensor(p) for p in pixels]
    if not tile:
        return head.predict(pictures)
    return [
        tiles.predict(head.predict, p, tile, int(OVERLAP * tile)) if max(p.shape[1:]) > tile else head.predict([p])[0]
        for p in pictures
    ]
