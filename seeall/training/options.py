"""What every command that trains asks of its options and its run folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from seeall.training.engine import rank
from seeall.training.run import Run
from seeall.types import SeeallError


def training(
    *,
    warmup: float = 0.1,
    accumulate: int = 1,
    clip: float | None = None,
    ema: float | None = None,
    keep: Literal["last", "best"] = "last",
    checkpoint_seconds: float = 60.0,
) -> dict[str, Any]:
    """Settings of the loop itself; see `training.loop.fit`."""
    if accumulate < 1:
        raise SeeallError(f"setting 'accumulate' is {accumulate}: choose at least 1")
    if not checkpoint_seconds >= 0:
        raise SeeallError(f"setting 'checkpoint_seconds' is {checkpoint_seconds}: choose 0 or more")
    if not 0 <= warmup < 1:
        raise SeeallError(f"setting 'warmup' is {warmup}: choose a share of the steps, from 0 and below 1")
    if clip is not None and not clip > 0:
        raise SeeallError(f"setting 'clip' is {clip}: choose a largest norm above 0, or none")
    if ema is not None and not 0 < ema < 1:
        raise SeeallError(f"setting 'ema' is {ema}: choose a decay between 0 and 1, such as 0.99")
    return locals()


def at_least(**numbers: tuple[int | None, int]) -> None:
    """Raises SeeallError for an option, name → (value, least), that is below its least."""
    for name, (value, least) in numbers.items():
        if value is not None and value < least:
            raise SeeallError(f"--{name.replace('_', '-')} {value} must be at least {least}")


def last_of_each(pairs: tuple[str, ...]) -> list[str]:
    """`name=value` pairs, sorted, the last of each name."""
    return sorted({pair.partition("=")[0].strip(): pair for pair in pairs}.values())


def begun(
    out: Path, settings: Mapping[str, Any], about: Mapping[str, Any], resume: bool, overwrite: bool
) -> Run | None:
    """The run to go on with, or None where a new one begins. Raises SeeallError where neither can be."""
    if resume:
        run = Run.open(out)
        run.resumable(settings, about)
        return run
    Run.refuse(out, overwrite=overwrite or rank() > 0)
    return None
