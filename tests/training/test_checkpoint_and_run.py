"""What is saved is whole; what cannot be saved leaves the old one; what is foreign is refused."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from seeall.training import checkpoint
from seeall.training.run import FORMAT, Run, refuse_inside
from seeall.types import SeeallError

ABOUT = {"source": "here", "pictures": 3, "fingerprint": "abc"}


def test_round_trip(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "c", {"step": 3, "w": torch.arange(4.0)})
    state = checkpoint.load(tmp_path / "c")
    assert state["step"] == 3 and torch.equal(state["w"], torch.arange(4.0))
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "owned",))

    (tmp_path / "c").write_bytes(pickle.dumps(Evil(), protocol=2))
    with pytest.raises(SeeallError, match="damaged checkpoint"):
        checkpoint.load(tmp_path / "c")
    torch.save({"x": Evil()}, tmp_path / "d")
    with pytest.raises(SeeallError, match="damaged checkpoint"):
        checkpoint.load(tmp_path / "d")
    assert not (tmp_path / "owned").exists()


def test_damaged_and_missing(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "c", {"w": torch.zeros(1000)})
    data = (tmp_path / "c").read_bytes()
    (tmp_path / "c").write_bytes(data[: len(data) // 2])
    with pytest.raises(SeeallError, match="damaged checkpoint"):
        checkpoint.load(tmp_path / "c")
    with pytest.raises(SeeallError, match="no such checkpoint"):
        checkpoint.load(tmp_path / "none")


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: the same fault at the same place."""
    code = f"""
import resource, signal, torch
from pathlib import Path
from seeall.training import checkpoint
from seeall.types import SeeallError
path = Path({str(tmp_path / "c")!r})
checkpoint.save(path, {{"step": 1}})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    checkpoint.save(path, {{"step": 2, "w": torch.zeros(1_000_000)}})
except SeeallError as fault:
    print(fault)
assert checkpoint.load(path) == {{"step": 1}}
assert [p.name for p in path.parent.iterdir()] == ["c"]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "cannot be saved: File too large; what was there before is intact" in done.stdout


def test_a_new_run_wants_a_place_of_its_own(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "r", {"epochs": 3}, ABOUT)
    assert json.loads((tmp_path / "r" / "run.json").read_text())["settings"] == {"epochs": 3}
    with pytest.raises(SeeallError, match="--resume.*--overwrite"):
        Run.create(tmp_path / "r", {}, ABOUT)
    (run.path / "checkpoints").mkdir()
    (run.path / "checkpoints" / "last").touch()
    Run.create(tmp_path / "r", {}, ABOUT, overwrite=True)
    assert not (run.path / "checkpoints" / "last").exists()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    with pytest.raises(SeeallError, match="no run, so it is not overwritten"):
        Run.create(tmp_path / "photos", {}, ABOUT, overwrite=True)
    assert (tmp_path / "photos" / "a.jpg").exists()
    with pytest.raises(SeeallError, match="is a file"):
        Run.create(tmp_path / "photos" / "a.jpg", {}, ABOUT)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_kill_at_the_start_leaves_a_place_to_start_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    """A run that dies before any change it makes to the disk is begun again by the same words."""

    class Killed(BaseException):
        pass

    left = 0

    def mortal(change: Callable[..., object]) -> Callable[..., object]:
        def one(*args: Any, **named: Any) -> object:
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed
            return change(*args, **named)

        return one

    for name in ("mkdir", "unlink", "rmdir", "fsync", "replace"):
        monkeypatch.setattr(os, name, mortal(getattr(os, name)))
    for n in range(1, 100):
        path = tmp_path / str(n)
        if overwrite:
            old = Run.create(path, {"epochs": 1}, ABOUT)
            (old.path / "checkpoints").mkdir()
            for file in ("checkpoints/last", "a.txt", "z.txt"):
                (old.path / file).touch()
        left = n
        try:
            Run.create(path, {"epochs": 3}, ABOUT, overwrite=overwrite)
        except Killed:
            left = 0
            begun = (path / "run.json").exists()  # then --resume goes on with it
            Run.create(path, {"epochs": 3}, ABOUT, overwrite=overwrite or begun)
        else:
            left = 0
            break
        assert [p.name for p in path.iterdir()] == ["run.json"]
        assert Run.open(path).facts["settings"] == {"epochs": 3}
    assert n > (8 if overwrite else 4)


def test_opening(tmp_path: Path) -> None:
    with pytest.raises(SeeallError, match="no such run folder"):
        Run.open(tmp_path / "no")
    with pytest.raises(SeeallError, match="no run.json"):
        Run.open(tmp_path)
    Run.create(tmp_path / "r", {}, ABOUT)
    file = tmp_path / "r" / "run.json"
    facts = json.loads(file.read_text())
    file.write_text(json.dumps({**facts, "format": FORMAT + 1}))
    with pytest.raises(SeeallError, match=f"format {FORMAT + 1} is newer"):
        Run.open(tmp_path / "r")
    for text in ("", "{", "[]", '{"format": 1}', '{"format": 1, "settings": {}, "data": 3}'):
        file.write_text(text)
        with pytest.raises(SeeallError, match="damaged"):
            Run.open(tmp_path / "r")


def test_a_run_goes_on_as_it_began(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "r", {"epochs": 3, "workers": 1}, ABOUT)
    run.resumable({"epochs": 3, "workers": 2}, ABOUT)
    with pytest.raises(SeeallError, match="epochs was 3 when the run began, and is 4 now"):
        run.resumable({"epochs": 4, "workers": 1}, ABOUT)
    with pytest.raises(SeeallError, match="are not those the run began with"):
        run.resumable({"epochs": 3, "workers": 1}, {**ABOUT, "fingerprint": "other"})


def test_output_inside_the_data(tmp_path: Path) -> None:
    refuse_inside(tmp_path / "out", tmp_path / "data")
    (tmp_path / "data").mkdir()
    for out in (tmp_path / "data", tmp_path / "data" / "a" / ".." / "run"):
        with pytest.raises(SeeallError, match="inside the data folder"):
            refuse_inside(out, tmp_path / "data")
