"""`gallery.json`: how a gallery scores, where it finds faces, and what it was calibrated on. It names nobody."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, final

from seeall import durable
from seeall.index.faces.calibrate import Threshold
from seeall.index.faces.score import RULES
from seeall.types import SeeallError

NAME = "gallery.json"
FORMAT = 1
PAIR = "pair"
"""The threshold for two pictures, beside one for each rule."""


@final
@dataclass(frozen=True)
class Calibration:
    """Thresholds at one rate, and what they rest on.

    far: the rate asked for; people, pictures: of strangers; enrolled, enrolled_pictures, generation: the gallery as it
    was; thresholds: rule or `pair` → threshold
    """

    far: float
    people: int
    pictures: int
    enrolled: int
    enrolled_pictures: int
    generation: int
    date: str
    thresholds: Mapping[str, Threshold] = field(default_factory=dict)


@final
@dataclass(frozen=True)
class Settings:
    """score: the rule that is used unless another is asked for; find: none, opencv, or the digest of a head, whose
    folder is `find_run`."""

    score: str = "best"
    find: str = "none"
    find_run: str | None = None
    calibration: Calibration | None = None

    def save(self, root: Path) -> None:
        """Raises SeeallError where the disk refuses."""
        body = {"format": FORMAT, **asdict(self)}
        if self.calibration:
            body["calibration"]["thresholds"] = {k: t._asdict() for k, t in self.calibration.thresholds.items()}
        durable.save(root / NAME, lambda file: file.write(json.dumps(body, indent=1).encode()))

    @classmethod
    def read(cls, root: Path) -> Settings:
        """Of the gallery at `root`. Raises SeeallError where that is none, or damaged, or of a newer program."""
        try:
            raw = json.loads((root / NAME).read_bytes())
        except FileNotFoundError:
            raise SeeallError(
                f"{root} is no gallery of faces (no {NAME}): make one with `ssl faces enrol`, in a folder of its own"
            ) from None
        except OSError as fault:
            raise SeeallError(f"{root / NAME}: cannot be read: {fault.strerror}") from None
        except ValueError as fault:
            raise _damaged(root, str(fault)) from None
        version = raw.pop("format", None) if isinstance(raw, dict) else None
        if not isinstance(version, int):
            raise _damaged(root, "it is not what a gallery has")
        if version > FORMAT:
            raise SeeallError(
                f"{root / NAME} is in format {version} and this program reads up to {FORMAT}: update seeall"
            )
        try:
            calibration = raw.pop("calibration")
            found = cls(**raw, calibration=_calibration(calibration) if calibration else None)
        except (KeyError, TypeError, AttributeError, ValueError) as fault:
            raise _damaged(root, str(fault)) from None
        if found.score not in RULES or not isinstance(found.find, str):
            raise _damaged(root, f"score {found.score!r}")
        return found


def _calibration(raw: dict[str, Any]) -> Calibration:
    known = {f.name for f in fields(Calibration)}
    if raw.keys() != known:
        raise ValueError(f"the calibration holds {', '.join(sorted(raw.keys() ^ known))}")
    kinds = {name: Threshold(*(float(t[part]) for part in Threshold._fields)) for name, t in raw["thresholds"].items()}
    return Calibration(**{**raw, "thresholds": kinds})


def _damaged(root: Path, why: str) -> SeeallError:
    return SeeallError(
        f"{root / NAME} is damaged ({' '.join(why.split())}): restore it from a copy, or enrol anew in another folder"
    )
