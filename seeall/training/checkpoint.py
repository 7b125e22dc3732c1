"""Checkpoints that are whole or not there: written beside, forced to disk, then renamed into place.

They hold tensors and plain values only, and loading refuses anything else, so a checkpoint cannot run code.
"""

from __future__ import annotations

import contextlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch

from seeall.types import SeeallError


def sync_folder(folder: Path) -> None:
    """Force a folder's entries (names, renames) to disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a new file, and put it in `path`'s place in one step. Whatever stood there stays if it fails.

    Raises: SeeallError where the disk is full or refuses.
    """
    beside = path.with_name(f".{path.name}.tmp")
    try:
        with beside.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        sync_folder(path.parent)
    except (OSError, RuntimeError) as fault:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        cause: BaseException | None = fault
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__context__ or cause.__cause__
        why = cause.strerror if isinstance(cause, OSError) else str(fault).splitlines()[0]
        raise SeeallError(f"{path}: cannot be saved: {why}; what was there before is intact") from None


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint. Raises SeeallError where it cannot; the one before stays."""
    replace(path, lambda file: torch.save(state, file))


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU. Raises SeeallError where it is missing or damaged."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise SeeallError(f"{path}: no such checkpoint") from None
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, KeyError, ValueError) as fault:
        raise SeeallError(f"{path}: damaged checkpoint: {str(fault).splitlines()[0]}") from None
    return state
