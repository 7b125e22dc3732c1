"""Fields of flow in files, read and written without loss: Middlebury's .flo and KITTI's PNG.

.flo   the tag PIEH, width and height as int32, then (H, W, 2) float32, all little-endian: px to the right and
       downwards; a component beyond 1e9 says that the flow is not known (Baker et al. 2011)
.png   16 bits of red, green, blue: u = (red - 2^15) / 64, v = (green - 2^15) / 64 px; blue is 0 where the flow
       is not known (Menze and Geiger 2015); needs PyAV
"""

from __future__ import annotations

import io
import struct
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seeall import durable
from seeall.data.film import pyav
from seeall.types import SeeallError

SUFFIXES = (".flo", ".png")
_TAG, _HEAD = b"PIEH", struct.Struct("<4sii")
_UNKNOWN, _UNKNOWN_WRITTEN = 1e9, 1e10
_LARGEST = 1 << 16
_STEPS, _ZERO, _DEEP = 64, 1 << 15, "rgb48be"
LIMIT = _ZERO / _STEPS
"""A PNG holds components from -LIMIT to just below LIMIT, px."""


class Field(NamedTuple):
    """The flow from a frame to another one."""

    vectors: NDArray[np.float32]
    """(H, W, 2) px to the right and downwards; 0 where it is not known."""
    known: NDArray[np.bool_]
    """(H, W)."""
    hidden: NDArray[np.bool_] | None = None
    """(H, W) what cannot be seen in the other frame, where that is known."""


def read(path: str | Path) -> Field:
    """The field in a file. Raises SeeallError where it is missing, cut short, no field at all, or nowhere known."""
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as fault:
        raise SeeallError(f"{path}: cannot be read: {fault.strerror}") from None
    if path.suffix.lower() not in SUFFIXES:
        raise SeeallError(f"{path}: flow is read from files that end in {' or '.join(SUFFIXES)}")
    field = (_flo if path.suffix.lower() == ".flo" else _png)(path, content)
    if not field.known.any():
        raise SeeallError(f"{path}: nowhere in it is the flow known")
    return field


def write(path: Path, vectors: NDArray[np.float32], known: NDArray[np.bool_] | None = None) -> None:
    """Write vectors (H, W, 2), px, to a file, whole or not at all. known: (H, W); None says everywhere.

    A PNG keeps steps of 1/64 px. Raises: SeeallError for another ending, or components that a PNG cannot hold.
    """
    path = Path(path)
    if known is None:
        known = np.ones(vectors.shape[:2], np.bool_)
    if path.suffix.lower() == ".flo":
        filled = np.where(known[..., None], vectors, _UNKNOWN_WRITTEN).astype("<f4")
        content = _HEAD.pack(_TAG, vectors.shape[1], vectors.shape[0]) + filled.tobytes()
    elif path.suffix.lower() == ".png":
        content = _as_png(path, vectors, known)
    else:
        raise SeeallError(f"{path}: flow is written to files that end in {' or '.join(SUFFIXES)}")

    def put(file: BinaryIO) -> None:
        file.write(content)

    durable.save(path, put)


def _flo(path: Path, content: bytes) -> Field:
    if len(content) < _HEAD.size or content[:4] != _TAG:
        raise SeeallError(f"{path}: no .flo file, as it does not begin with PIEH")
    _, width, height = _HEAD.unpack_from(content)
    if not 0 < width <= _LARGEST or not 0 < height <= _LARGEST:
        raise SeeallError(f"{path}: damaged: it says that it is {width} x {height} px")
    want = _HEAD.size + 8 * width * height
    if len(content) != want:
        what = "cut short" if len(content) < want else "too long"
        raise SeeallError(f"{path}: {what}: {len(content):,} bytes, where {width} x {height} px take {want:,}")
    vectors = np.frombuffer(content, "<f4", offset=_HEAD.size).reshape(height, width, 2)
    return _field(vectors, np.asarray((np.abs(vectors) < _UNKNOWN).all(2)))  # which NaN is not


def _png(path: Path, content: bytes) -> Field:
    av = pyav()
    try:
        with av.open(io.BytesIO(content)) as file:
            bits = next(file.decode(video=0))
    except (av.FFmpegError, StopIteration, IndexError) as fault:
        raise SeeallError(f"{path}: cannot be read as PNG: {getattr(fault, 'strerror', 'nothing in it')}") from None
    if bits.format.name != _DEEP:
        raise SeeallError(f"{path}: no field of flow, which has 16 bits of red, green and blue; is it a picture?")
    samples = bits.to_ndarray()
    return _field((samples[..., :2].astype(np.float32) - _ZERO) / _STEPS, samples[..., 2] > 0)


def _field(vectors: NDArray[np.float32], known: NDArray[np.bool_]) -> Field:
    return Field(np.where(known[..., None], vectors, 0).astype(np.float32), known)


def _as_png(path: Path, vectors: NDArray[np.float32], known: NDArray[np.bool_]) -> bytes:
    steps = np.rint(np.where(known[..., None], vectors, 0).astype(np.float64) * _STEPS) + _ZERO
    if not ((steps >= 0) & (steps < 2 * _ZERO)).all():  # nor NaN
        raise SeeallError(f"{path}: a PNG holds flow of up to {LIMIT:g} px only; write a .flo file")
    samples = np.dstack([np.where(known[..., None], steps, 0), known]).astype(np.uint16)
    codec = pyav().CodecContext.create("png", "w")
    codec.height, codec.width, codec.pix_fmt, codec.time_base = *known.shape, _DEEP, Fraction(1)
    frame = pyav().VideoFrame.from_ndarray(samples, format=_DEEP)
    return b"".join(bytes(packet) for packet in (*codec.encode(frame), *codec.encode(None)))
