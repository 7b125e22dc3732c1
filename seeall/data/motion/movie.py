"""Pictures and their times → an mp4 that any player plays. Needs PyAV."""

from __future__ import annotations

import contextlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from seeall import durable
from seeall.data.decode import Pixels
from seeall.data.film import pyav
from seeall.types import SeeallError

TICK = Fraction(1, 90_000)
"""Times are kept in steps of this, seconds."""
_CODECS = ("libx264", "mpeg4")


class Movie:
    """A video that is written frame by frame, and is there once it is closed.

    All frames have the size of the first; others are cut, or filled up with black.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._partial = path.with_name(f".{path.name}{durable.PARTIAL}")
        self._container: Any = None
        self._stream: Any = None
        self._last = -1

    def write(self, pixels: Pixels, seconds: float) -> None:
        """pixels: (H, W, 3) uint8 · seconds: when it is shown, later than the frame before."""
        av = pyav()
        if self._container is None:
            self._open(*pixels.shape[:2])
        frame = np.zeros((self._stream.height, self._stream.width, 3), np.uint8)
        height, width = (min(a, b) for a, b in zip(frame.shape, pixels.shape[:2]))
        frame[:height, :width] = pixels[:height, :width]
        picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
        self._last = max(self._last + 1, round(seconds / TICK))
        picture.pts, picture.time_base = self._last, TICK
        self._container.mux(self._stream.encode(picture))

    def _open(self, height: int, width: int) -> None:
        av = pyav()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._container = av.open(str(self._partial), "w", format="mp4")
        codec = next((name for name in _CODECS if name in av.codecs_available), None)
        if codec is None:
            raise SeeallError("this PyAV has no encoder for mp4: install the wheel from PyPI, pip install av")
        self._stream = self._container.add_stream(codec)
        self._stream.height, self._stream.width = height + height % 2, width + width % 2  # colours are halved
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = TICK

    def close(self) -> None:
        """Finish the file and put it in its place; nothing where no frame was written."""
        if self._container is None:
            return
        self._container.mux(self._stream.encode(None))
        self._container.close()
        self._container = None
        self._partial.replace(self.path)

    def discard(self) -> None:
        """Leave nothing behind."""
        if self._container is not None:
            with contextlib.suppress(pyav().FFmpegError):
                self._container.close()
            self._container = None
        self._partial.unlink(missing_ok=True)
