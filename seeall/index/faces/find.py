"""Where faces are in a picture: nowhere to look, if pictures are faces already; else whoever finds them is handed in.

A finder turns pixels (H, W, 3) uint8 into faces, each with its own pixels: so one that knows more may turn a face
upright before it hands it over. `boxed` makes one of anything that gives boxes, `opencv` of OpenCV's Haar cascade
(Viola and Jones 2001, "Rapid object detection using a boosted cascade of simple features").
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np

from seeall.data.decode import Pixels, Unreadable
from seeall.data.pictures import Pictures
from seeall.types import SeeallError

Box = tuple[int, int, int, int]


class Face(NamedTuple):
    """box: x0, y0, x1, y1 in px of the picture, the last ones outside; pixels: (h, w, 3) uint8."""

    box: Box
    pixels: Pixels


Finder = Callable[[Pixels], Sequence[Face]]
"""Pixels of a picture → the faces in it, in any order. It is asked by one thread at a time."""

_SCALE, _NEIGHBOURS, _LEAST = 1.1, 5, 24
"""Of the cascade: steps of its pyramid, hits that make a face, the smallest side in px."""


def boxed(look: Callable[[Pixels], Sequence[Sequence[float]]], margin: float = 0.0) -> Finder:
    """A finder that cuts out the boxes that `look` gives: x0, y0, x1, y1 in px, not ordered, each (≥ 1 px) inside.

    margin: how much of its sides a box is enlarged by on every side
    """

    def find(pixels: Pixels) -> list[Face]:
        faces, (height, width) = [], pixels.shape[:2]
        for x0, y0, x1, y1 in look(pixels):
            dx, dy = margin * (x1 - x0), margin * (y1 - y0)
            left, top = max(0, int(x0 - dx)), max(0, int(y0 - dy))
            box = (left, top, min(width, round(x1 + dx)), min(height, round(y1 + dy)))
            if box[2] > left and box[3] > top:
                faces.append(Face(box, pixels[top : box[3], left : box[2]]))
        return sorted(faces, key=lambda face: face.box)

    return find


def opencv() -> Finder:
    """Faces from the front, by the cascade that comes with OpenCV. Raises SeeallError where that is not installed."""
    try:
        cv2: Any = importlib.import_module("cv2")
    except ImportError:
        raise SeeallError("--find opencv needs OpenCV: pip install 'seeall[faces]'") from None
    if not hasattr(cv2, "CascadeClassifier"):
        raise SeeallError(f"--find opencv: OpenCV {cv2.__version__} has no cascades: pip install 'seeall[faces]'")
    cascade = cv2.CascadeClassifier(str(Path(cv2.data.haarcascades) / "haarcascade_frontalface_default.xml"))

    def look(pixels: Pixels) -> list[list[float]]:
        grey = cv2.equalizeHist(cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY))
        found = cascade.detectMultiScale(grey, _SCALE, _NEIGHBOURS, minSize=(_LEAST, _LEAST))
        return [[x, y, x + w, y + h] for x, y, w, h in found]

    return boxed(look)


def one_each(pictures: Pictures, finder: Finder | None) -> Pictures:
    """The same pictures, cut to the one face in each: where there is none or more than one, they are unreadable."""
    if finder is None:
        return pictures
    mind = Lock()

    def read(key: Any, shortest: int | None) -> Pixels:
        pixels = pictures.reader(key, None)
        with mind:
            faces = finder(pixels)
        if len(faces) != 1:
            raise Unreadable(f"{len(faces)} faces found: cut it to one" if faces else "no face found")
        return faces[0].pixels

    return dataclasses.replace(pictures, reader=read)
