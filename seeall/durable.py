"""Files that are whole or not there: written beside their place, forced to disk, renamed into it. Knows no torch.

A kill or a power cut at any instant leaves the old file or the new one; a full disk leaves the old one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from seeall.types import SeeallError

PARTIAL = ".tmp"
"""How the name of a file ends while it is being written."""


def sync_folder(folder: Path) -> None:
    """Force the names in `folder` to disk."""
    if os.name != "posix":  # Windows opens no folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write(path: Path, body: Callable[[BinaryIO], object]) -> None:
    """Put what `body` writes at `path`, all of it or nothing. Raises whatever `body` or the disk raises."""
    partial = path.with_name(path.name + PARTIAL)
    try:
        with partial.open("w+b") as file:
            body(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)  # noqa: PTH105
    except Exception:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise
    sync_folder(path.parent)


def save(path: Path, body: Callable[[BinaryIO], object]) -> None:
    """The same for a file that the user waits for.

    Raises: SeeallError where the disk is full or refuses, what was at `path` being still there; anything else that
        `body` raises.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, body)
    except (OSError, RuntimeError) as fault:  # torch wraps the disk's refusal in an error of its own
        cause: BaseException | None = fault
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__context__ or cause.__cause__
        if cause is None:
            raise
        raise SeeallError(f"{path}: cannot be saved: {cause.strerror}; what was there before is intact") from None


def link(source: Path, path: Path) -> None:
    """Put the file `source` at `path` as well: a second name where the file system has such, else a copy."""
    partial = path.with_name(path.name + PARTIAL)
    partial.unlink(missing_ok=True)
    try:
        os.link(source, partial)
    except OSError:
        save(path, lambda file: file.write(source.read_bytes()))
    else:
        os.replace(partial, path)  # noqa: PTH105
        sync_folder(path.parent)
