"""Checkpoints that are whole or not there, see `durable`.

They hold tensors and plain values only, and loading refuses anything else, so a checkpoint cannot run code.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from seeall import durable
from seeall.types import SeeallError


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint. Raises SeeallError where it cannot; the one before stays."""
    durable.save(path, lambda file: torch.save(state, file))


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU. Raises SeeallError where it is missing or damaged."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise SeeallError(f"{path}: no such checkpoint") from None
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, KeyError, ValueError) as fault:
        raise SeeallError(f"{path}: damaged checkpoint: {str(fault).splitlines()[0]}") from None
    return state
