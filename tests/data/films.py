"""Videos of a known pattern, written for tests, and the plain decode of them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

av = pytest.importorskip("av")

FRAMES, HEIGHT, WIDTH = 40, 48, 64


def pattern(seed: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return coarse.repeat(8, 0).repeat(8, 1)


def film(
    path: Path,
    codec: str = "mpeg4",
    options: dict[str, str] | None = None,
    n: int = FRAMES,
    *,
    times: list[int] | None = None,
    container: dict[str, str] | None = None,
) -> Path:
    """A video of n frames, 25 a second; or at `times`, in ms."""
    try:
        av.codec.Codec(codec, "w")
    except av.codec.codec.UnknownCodecError:
        pytest.skip(f"this PyAV has no encoder {codec}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=container or {}) as out:
        stream = out.add_stream(codec, rate=25, options=options or {"g": "12", "bf": "0"})
        stream.width, stream.height = WIDTH, HEIGHT
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        for i in range(n):
            frame = av.VideoFrame.from_ndarray(pattern(i), format="rgb24")
            if times:
                frame.pts, frame.time_base = times[i], Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def plain(path: Path) -> list[np.ndarray]:
    """The oracle: all frames, decoded one after another."""
    return [pixels for _, pixels in timed(path)]


def timed(path: Path) -> list[tuple[float | None, np.ndarray]]:
    with av.open(str(path)) as file:
        return [(f.time, f.to_ndarray(format="rgb24")) for f in file.decode(video=0)]


def orders(n: int) -> Iterator[list[int]]:
    yield list(range(n))
    yield random.Random(0).sample(range(n), n)
    yield list(range(n))[::-1]
    yield [i for i in range(0, n, 3) for _ in range(2)]
