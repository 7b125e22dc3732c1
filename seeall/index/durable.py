"""What `seeall.durable` does for a file, with a checksum; the same for two folders; and the lock that lets one
writer in at a time.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import glob
import hashlib
import os
import re
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, final

from seeall import durable
from seeall.console import log
from seeall.durable import sync_folder
from seeall.types import SeeallError

_HERE, _EXCHANGE = -100, 2
"""AT_FDCWD and RENAME_EXCHANGE of Linux."""
LOCK = "lock"
"""The file in an index that its writer holds."""
ERASING = "erasing"
"""The file in an index that says: traces of what was erased may be left, and the next writer removes them."""
_ASIDE = "-old"
_PAUSE = 0.05
"""Seconds between two looks at a lock that is waited for."""


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
    for folder, _, names in os.walk(root):  # which passes over folders that go meanwhile
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # gone since it was listed
                found = Path(folder, name).stat()
                total += found.st_size if stat.S_ISREG(found.st_mode) else 0
    return total


def exchange(new: Path, old: Path) -> None:
    """Swap two folders of one file system in a single step; `new` is one of `hidden`, `old`'s lock is held.

    Where the kernel or the file system cannot, renames do it: a kill between them leaves `old` missing and both
    folders whole under hidden names beside it, from where `restore` brings it back. Raises OSError, and all is
    as before.
    """
    swap = _swap()
    if swap is None or swap(_HERE, os.fsencode(new), _HERE, os.fsencode(old), _EXCHANGE) != 0:
        aside = new.with_name(new.name + _ASIDE)
        old.rename(aside)
        try:
            new.rename(old)
        except OSError:
            aside.rename(old)
            raise
        with contextlib.suppress(OSError):  # done, and whoever clears up finds it under either name
            aside.rename(new)
    sync_folder(old.parent)


def _swap() -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), "renameat2", None)


def restore(target: Path) -> None:
    """Give an index its name back whose replacement died between the renames of `exchange`; waits for a live one."""
    if target.exists():
        return
    for aside in hidden(target):
        if aside.name.endswith(_ASIDE):
            # It may have come back by itself while we wait for the lock, or we may not write here.
            with contextlib.suppress(SeeallError, OSError), contextlib.closing(Lock(aside / LOCK, wait=True)):
                if not target.exists():
                    aside.rename(target)
                    sync_folder(target.parent)


def hidden(target: Path) -> list[Path]:
    """Folders beside `target` that are called as one on its way in or out: `.NAME.tmp-` and eight hex digits."""
    name = re.compile(re.escape(f".{target.name}.tmp-") + f"[0-9a-f]{{8}}({_ASIDE})?")
    found = target.parent.glob(f".{glob.escape(target.name)}.tmp-*")
    return sorted(p for p in found if name.fullmatch(p.name) and p.is_dir() and not p.is_symlink())


def retired(folder: Path) -> bool:
    """Whether `folder`, one of `hidden`, is an index that was moved aside."""
    return folder.name.endswith(_ASIDE)


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
    """An exclusive lock on a file, held until `close` or the end of the process.

    wait: until whoever holds it is done, instead of raising.
    Raises: SeeallError where somebody else holds it, or where the folder cannot be written or locked.
    """

    def __init__(self, path: Path, *, wait: bool = False) -> None:
        found, told = _locked(path), False
        while found is None:
            if not wait:
                raise SeeallError(
                    f"{path.parent} is being written by another process: try again when it is done, or wait with --wait"
                )
            if not told:
                log.info("waiting for another process that is writing %s", path.parent)
            told = True
            time.sleep(_PAUSE)
            found = _locked(path)
        self._descriptor = found

    def close(self) -> None:
        """Let the next one in. Says it outright: a forked child may still hold the same open file."""
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        os.close(self._descriptor)


def _locked(path: Path) -> int | None:
    """A descriptor of the file at `path`, locked; None where somebody else holds it."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise SeeallError(f"cannot write in {path.parent}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The folder may have been replaced between the two calls: then this is a lock on the old one.
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError as error:
        os.close(descriptor)
        raise SeeallError(f"cannot lock {path}: {error.strerror}; keep the index where files can be locked") from error
    os.close(descriptor)
    return None
