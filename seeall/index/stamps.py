"""What a file was like when it was looked at: enough to tell later whether it has changed.

Size and time of change decide where they are as they were. Where only the time differs, a digest of the content does. A
file that was written less than two seconds before it was looked at might be written again within the same tick of its
file system's clock: its time is not trusted, so that the digest decides.
"""

from __future__ import annotations

import os
import time
from typing import NamedTuple

from seeall.index import durable

_YOUNG = 2 * 10**9
"""Nanoseconds that a file must have lain still for its time to be trusted."""


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
