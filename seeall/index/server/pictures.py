"""Pictures that strangers send, and thumbnails of those in the index: both at a size that is known beforehand."""

from __future__ import annotations

import io
import threading
import warnings
from collections import OrderedDict
from typing import final

from PIL import Image

from seeall.data import video
from seeall.data.decode import Pixels, Unreadable, decode
from seeall.index.server.errors import Refusal, without_paths
from seeall.types import SeeallError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF", "MPO")
"""What is read of what strangers send: Pillow knows others, some of which start other programs."""
MOST_PIXELS = 50_000_000
_CACHE = 64 << 20
"""Bytes of thumbnails that are kept."""
_QUALITY = 85


def read(data: bytes, shortest: int | None, most: int = MOST_PIXELS) -> Pixels:
    """RGB pixels (H, W, 3) uint8 of a picture's file; see `decode` for `shortest`.

    Nothing is unpacked before the header has told that the picture has at most `most` px.
    Raises: Refusal.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                width, height = image.size
    except Image.DecompressionBombError:
        raise Refusal(413, "too_many_pixels", f"the picture is too large: {most:,} px at most") from None
    except Exception:
        raise Refusal(422, "no_picture", "this is no picture that can be read; JPEG, PNG and WebP can") from None
    if width * height > most:
        raise Refusal(413, "too_many_pixels", f"the picture has {width:,} x {height:,} px: {most:,} px at most")
    try:
        return decode(io.BytesIO(data), shortest)
    except Unreadable as fault:
        raise Refusal(422, "no_picture", f"the picture cannot be read: {without_paths(str(fault))}") from None


@final
class Thumbs:
    """JPEG files of pictures in the index, those of last use kept in memory."""

    def __init__(self, room: int = _CACHE, most: int = MOST_PIXELS) -> None:
        self._room, self._most, self._held = room, most, 0
        self._kept: OrderedDict[tuple[object, ...], bytes] = OrderedDict()
        self._lock = threading.Lock()
        self._reader = video.Reader()

    def get(self, edition: object, path: str, side: int) -> bytes:
        """A picture of at most `side` px a side. edition: what may not be mistaken for one of another time.

        Raises: Refusal where the file is gone or cannot be read.
        """
        key = (edition, path, side)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = self._make(path, side)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = made
                self._held += len(made)
            while self._held > self._room:
                self._held -= len(self._kept.popitem(last=False)[1])
        return made

    def _make(self, path: str, side: int) -> bytes:
        if not path.startswith("/"):
            raise Refusal(404, "not_kept", "there is no file of this picture")
        try:
            frame = video.named(path)
            if frame is None:
                with Image.open(path) as image:
                    if image.width * image.height > self._most:
                        raise Refusal(404, "too_many_pixels", "the file of this picture is too large to be shown")
            shown = Image.fromarray(self._reader(frame or path, side))
        except (Unreadable, SeeallError, OSError, Image.DecompressionBombError):
            raise Refusal(404, "gone", "the file of this picture is gone, or cannot be read") from None
        shown.thumbnail((side, side))
        file = io.BytesIO()
        shown.save(file, "JPEG", quality=_QUALITY)
        return file.getvalue()
