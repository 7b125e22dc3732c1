"""The run folder: what was asked for, what came of it, and where to go on.

run.json              settings, versions, seed, fingerprint of the data, command line, status
checkpoints/          last (full state), best
backbone.safetensors  the result, with its contract and preprocessing in the header
metrics.jsonl         one object a line · TensorBoard events beside it · pictures/
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import seeall
from seeall import durable
from seeall.types import SeeallError

FORMAT = 1
LATER = frozenset({"workers", "devices", "data", "out", "val", "allow_skipped"})
"""Settings that a resumed run may change: they do not change the result, or name a place that may move."""


def refuse_inside(out: Path, data: Path | None, option: str = "--out") -> None:
    """SeeallError where `out` lies in the data folder: what is written would be read as data next time."""
    if data is not None and data.is_dir() and out.resolve().is_relative_to(data.resolve()):
        raise SeeallError(f"{option} {out} lies inside the data folder {data}; choose a place outside it")


class Run:
    """One run folder. Only the process of rank 0 writes (`writes`)."""

    def __init__(self, path: Path, facts: dict[str, Any], *, writes: bool = True) -> None:
        self.path, self.facts, self.writes = path, facts, writes

    @classmethod
    def create(
        cls, path: Path, settings: Mapping[str, Any], data: Mapping[str, Any], *, overwrite: bool = False
    ) -> Run:
        """A new run folder. Raises SeeallError where one is already there and not `overwrite`."""
        cls.refuse(path, overwrite=overwrite)
        try:
            path.mkdir(parents=True, exist_ok=True)
            _empty(path)
        except OSError as fault:
            raise SeeallError(f"--out {path}: cannot be written: {fault.strerror}") from None
        facts = {
            "format": FORMAT,
            "status": "running",
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
            "settings": dict(settings),
            "data": dict(data),
            "versions": {
                "seeall": seeall.__version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        }
        run = cls(path, facts)
        run.update()
        return run

    @staticmethod
    def refuse(path: Path, *, overwrite: bool = False) -> None:
        """Raises SeeallError where a new run cannot have this folder; what a killed start left is in no one's way."""
        if path.exists() and not path.is_dir():
            raise SeeallError(f"--out {path} is a file; choose a folder")
        there = next((p for p in (path, *path.absolute().parents) if p.exists()), path)
        if not os.access(there, os.W_OK):
            raise SeeallError(f"--out {path}: {there} cannot be written; choose a place that is yours")
        if path.is_dir() and any(p.suffix != durable.PARTIAL for p in path.iterdir()):
            if not overwrite:
                raise SeeallError(f"--out {path} is not empty: go on with it by --resume, or replace it by --overwrite")
            if not (path / "run.json").exists():
                raise SeeallError(f"--out {path} holds something that is no run, so it is not overwritten; remove it")

    @classmethod
    def open(cls, path: Path) -> Run:
        """The run in a folder. Raises SeeallError where it is none, is damaged, or newer than this program."""
        file = path / "run.json"
        if not path.is_dir():
            raise SeeallError(f"{path}: no such run folder")
        if not file.exists():
            raise SeeallError(f"{path}: not a run folder, or one that never began: it has no run.json")
        return cls(path, read_facts(file))

    def resumable(self, settings: Mapping[str, Any], data: Mapping[str, Any]) -> None:
        """Raises SeeallError where the run began with other settings or other data."""
        began = self.facts["settings"]
        for name, before in began.items():
            now = settings.get(name)
            if name not in LATER and now != before:
                words = ("not given" if value is None else repr(value) for value in (before, now))
                raise SeeallError(
                    f"--resume {self.path}: {name} was {next(words)} when the run began, and is {next(words)} now; "
                    "a run goes on as it began, so leave it out or start a new run"
                )
        if data["fingerprint"] != self.facts["data"]["fingerprint"]:
            raise SeeallError(
                f"--resume {self.path}: the pictures of {data['source']} are not those the run began with "
                f"({data['pictures']} now, {self.facts['data']['pictures']} then); start a new run"
            )

    def update(self, **facts: Any) -> None:
        """Write run.json with these facts changed."""
        self.facts.update(facts)
        if self.writes:
            text = json.dumps(self.facts, indent=2, ensure_ascii=False, default=str) + "\n"
            durable.save(self.path / "run.json", lambda file: file.write(text.encode(errors="replace")))

    @property
    def last(self) -> Path:
        """The checkpoint to go on from."""
        return self.path / "checkpoints" / "last"

    @property
    def best(self) -> Path:
        """The checkpoint with the best figure so far."""
        return self.path / "checkpoints" / "best"


def _empty(path: Path) -> None:
    """Take away all that a folder holds, run.json last: a run that is only half gone can still be replaced."""
    for part in sorted(path.iterdir(), key=lambda p: p.name == "run.json"):
        if part.is_dir() and not part.is_symlink():
            shutil.rmtree(part)
        else:
            part.unlink()


def read_facts(file: Path) -> dict[str, Any]:
    """What a run.json says. Raises SeeallError where it is damaged or newer than this program."""
    try:
        facts: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        version = int(facts["format"])
        facts["settings"], facts["data"]["fingerprint"]
    except OSError as fault:
        raise SeeallError(f"{file}: cannot be read: {fault.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise SeeallError(f"{file}: damaged; it is not what this program wrote") from None
    if version > FORMAT:
        raise SeeallError(f"{file}: format {version} is newer than this program's {FORMAT}; update seeall")
    return facts
