"""What `seeall.durable` does for a file, with a checksum; the same for two folders; and the lock that lets one
writer in at a time.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, final

from seeall import durable
from seeall.durable import sync_folder
from seeall.types import SeeallError

_HERE, _EXCHANGE = -100, 2
"""AT_FDCWD and RENAME_EXCHANGE of Linux."""


def sha256(file: BinaryIO) -> str:
    """Hexadecimal SHA-256 of what is left to read of `file`."""
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def write(path: Path, body: Callable[[BinaryIO], object]) -> str:
    """Put what `body` writes at `path`, all of it or nothing. Returns its SHA-256; raises OSError."""
    digest = ""

    def whole(file: BinaryIO) -> None:
        nonlocal digest
        body(file)
        file.seek(0)
        digest = sha256(file)

    durable.write(path, whole)
    return digest


def occupied(root: Path) -> int:
    """Bytes of all files in a folder, while somebody may be writing there."""
    total = 0
    for file in root.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # gone since it was listed
            found = file.stat()
            total += found.st_size if stat.S_ISREG(found.st_mode) else 0
    return total


def exchange(new: Path, old: Path) -> None:
    """Swap two folders of one file system in a single step.

    Where the kernel or the file system cannot, two renames do it: a kill between them leaves `old` missing
    and both folders whole under hidden names beside it. Raises OSError.
    """
    swap = getattr(ctypes.CDLL(None), "renameat2", None)
    if swap is None or swap(_HERE, os.fsencode(new), _HERE, os.fsencode(old), _EXCHANGE) != 0:
        aside = new.with_name(new.name + "-old")
        old.rename(aside)
        new.rename(old)
        aside.rename(new)
    sync_folder(old.parent)


@contextlib.contextmanager
def reported(root: Path) -> Iterator[None]:
    """Turn a failure of disk or database into a SeeallError about the index at `root`."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise SeeallError(f"cannot write the index {root}: {reason}; it is as it was before") from error


@final
class Lock:
    """An exclusive lock on a file, held until `release` or the end of the process.

    Raises: SeeallError where somebody else holds it, or where the folder cannot be written.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise SeeallError(f"cannot write in {path.parent}: {error.strerror}") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The folder may have been replaced between the two calls: then this is a lock on the old one.
            if os.fstat(self._descriptor).st_ino != path.stat().st_ino:
                raise BlockingIOError
        except OSError as error:
            os.close(self._descriptor)
            raise SeeallError(
                f"{path.parent} is being written by another process: try again when it is done"
            ) from error

    def release(self) -> None:
        """Let the next one in. Says it outright: a forked child may still hold the same open file."""
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        os.close(self._descriptor)
