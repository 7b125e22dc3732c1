"""What a file was like when it was looked at: enough to tell later whether it has changed.

Size and time of change decide where they are as they were. Where only the time differs, a digest of the content does. A
file that was written less than two seconds before it was looked at might be written again within the same tick of its
file system's clock: its time is not trusted, so that the digest decides.

The digest is of the very bytes that were decoded, where a picture is no larger than can be held.
"""

from __future__ import annotations

import hashlib
import io
import os
import time
from typing import NamedTuple, final

from seeall.data.decode import Pixels, Unreadable, decode
from seeall.index import durable

_YOUNG = 2 * 10**9
"""Nanoseconds that a file must have lain still for its time to be trusted."""
_WHOLE = 1 << 24
"""Bytes of a file that is read whole before it is decoded, at most."""


class Stamp(NamedTuple):
    """size: bytes; changed: nanoseconds since 1970, 0 where that is not to be trusted; digest: SHA-256, hexadecimal."""

    size: int
    changed: int
    digest: str


def look(path: str) -> tuple[int, int] | None:
    """Size and time of change of a file, without reading it; None where there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return None
    return found.st_size, found.st_mtime_ns


def digest(path: str) -> str:
    """SHA-256 of a file, hexadecimal; empty where it cannot be read."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return durable.sha256(file)
    except OSError:
        return ""


def stamp(path: str, before: tuple[int, int] | None) -> Stamp | None:
    """The stamp of a file that was as `before` when somebody began to look at it; None where it has changed since."""
    content = digest(path)
    if before is None or not content or look(path) != before:
        return None
    size, changed = before
    return Stamp(size, changed if trusted(changed) else 0, content)


def trusted(changed: int) -> bool:
    """Whether a file that changed at that time, in nanoseconds, will show it if it changes once more."""
    return changed < time.time_ns() - _YOUNG


@final
class Reader:
    """`decode` for files, by any number of threads, which also takes their stamps."""

    def __init__(self) -> None:
        self._taken: dict[str, Stamp | None] = {}

    def __call__(self, file: str, shortest: int | None = None) -> Pixels:
        """As `decode`."""
        content, taken = _whole(file)
        if content:
            try:
                pixels = decode(io.BytesIO(content), shortest)
            except Unreadable:
                pixels, taken = decode(file, shortest), None  # which knows the reason better, by the file's name
        else:
            before = look(file)
            pixels = decode(file, shortest)
            taken = stamp(file, before)
        self._taken[file] = taken
        return pixels

    def taken(self, file: str) -> Stamp | None:
        """The stamp of a file that was read, once; None where it changed meanwhile."""
        return self._taken.pop(file, None)


def _whole(path: str) -> tuple[bytes, Stamp | None]:
    """A file's bytes and its stamp, None if it changed meanwhile; no bytes where it is too large or cannot be read."""
    try:
        file = os.open(path, os.O_RDONLY)
        try:
            before = os.fstat(file)
            content = os.read(file, before.st_size) if before.st_size <= _WHOLE else b""
            after = os.fstat(file)
        finally:
            os.close(file)
    except (OSError, ValueError):
        return b"", None
    if len(content) != before.st_size:
        return b"", None
    size, changed = after.st_size, after.st_mtime_ns
    if (size, changed) != (before.st_size, before.st_mtime_ns):
        return content, None
    return content, Stamp(size, changed if trusted(changed) else 0, hashlib.sha256(content).hexdigest())
