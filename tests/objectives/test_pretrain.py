"""Pretraining as a whole: it learns, it repeats, it resumes to the last bit after any end."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import time
import wave
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from seeall.ssl.pretrain import choose_size, pretrain
from seeall.training.loop import Stopped
from seeall.types import SeeallError

WORLD = "scenes:n=64,size=32,identities=8"
TINY = {"backbone": "shufflenet_v2_x0_5", "batch_size": 16, "epochs": 4, "image_size": 32}
OPTIONS = ["--backbone", "shufflenet_v2_x0_5", "--batch-size", "16", "--epochs", "4", "--image-size", "32", "--quiet"]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "backbone.safetensors")


def same(a: Path, b: Path) -> bool:
    one, two = weights(a), weights(b)
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    out = tmp_path_factory.mktemp("whole") / "run"
    pretrain(WORLD, out, **TINY)
    return out


def test_what_a_run_leaves(whole: Path) -> None:
    facts = json.loads((whole / "run.json").read_text())
    assert facts["status"] == "finished" and facts["step"] == 16
    assert facts["resolved"] == {"image_size": 32, "batch_size": 16, "pictures": 64, "precision": "32"}
    assert facts["data"]["pictures"] == 64 and facts["settings"]["seed"] == 0
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [4, 8, 12, 16]
    assert [line["step"] for line in lines if "knn20" in line] == [4, 8, 12, 16]
    assert list(whole.glob("events.out.tfevents.*"))
    with Image.open(whole / "pictures" / "views.png") as sheet:
        assert sheet.size == (8 * 32, 2 * 32)
    assert {p.name for p in (whole / "checkpoints").iterdir()} == {"last", "best"}


def test_pictures_whose_sound_cannot_be_read_are_skipped(tmp_path: Path) -> None:
    """And with so many in one tensor, or read from files again, the run is that of the others alone."""
    for kind in ("image", "sound"):
        (tmp_path / "all" / kind).mkdir(parents=True)
    for i in range(24):
        Image.new("RGB", (40, 40 + 2 * (i % 2)), (10 * i, 90, 0)).save(tmp_path / "all" / "image" / f"{i:02}.png")
        with wave.open(str(tmp_path / "all" / "sound" / f"{i:02}.wav"), "wb") as out:
            out.setparams((1, 2, 8000, 0, "NONE", ""))
            out.writeframes(bytes(range(i, 200)) * 80)
    shutil.copytree(tmp_path / "all", tmp_path / "good")
    for kind, name in (("image", "03.png"), ("sound", "03.wav")):
        (tmp_path / "good" / kind / name).unlink()
    (tmp_path / "all" / "sound" / "03.wav").write_bytes(b"RIFF....WAVE")
    how = {**TINY, "positives": "sound", "epochs": 1, "batch_size": 8}
    for name in ("all", "good"):
        pretrain(str(tmp_path / name), tmp_path / f"run of {name}", **how)
    assert same(tmp_path / "run of all", tmp_path / "run of good")
    assert json.loads((tmp_path / "run of all" / "run.json").read_text())["resolved"]["pictures"] == 23
    why = f"its sound {tmp_path / 'all' / 'sound' / '03.wav'}: damaged"
    assert why in (tmp_path / "run of all" / "skipped.csv").read_text()
    for i in (4, 5):
        (tmp_path / "all" / "sound" / f"{i:02}.wav").write_bytes(b"")
    with pytest.raises(SeeallError, match="3 of 24 pictures cannot be read: .*empty file.*--allow-skipped"):
        pretrain(str(tmp_path / "all"), tmp_path / "none", **how)
    pretrain(str(tmp_path / "all"), tmp_path / "some", allow_skipped=True, **how)


def test_it_learns(tmp_path: Path) -> None:
    """Views of one picture come to lie closer than those of others: the loss falls well below that of chance."""
    easy = ("crop_min=0.5", "jitter=0.1", "hue=0.01", "grey=0")
    results = pretrain(WORLD, tmp_path / "r", image_size=32, batch_size=32, epochs=15, lr=1e-3, set=easy)
    assert results["loss"] < 0.6 * math.log(2 * 32 - 1) and results["alignment"] > 0.4


def test_the_same_seed_gives_the_same_weights_and_another_does_not(whole: Path, tmp_path: Path) -> None:
    pretrain(WORLD, tmp_path / "again", **TINY)
    assert same(whole, tmp_path / "again")
    pretrain(WORLD, tmp_path / "other", **TINY, seed=1)
    assert not same(whole, tmp_path / "other")


def test_finished_runs_are_left_alone(whole: Path) -> None:
    before = (whole / "run.json").read_bytes()
    assert pretrain(WORLD, whole, **TINY, resume=True)["loss"] > 0
    assert (whole / "run.json").read_bytes() == before


def test_a_signal_leaves_a_usable_run_and_resume_goes_on(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from seeall.data.sampler import Sampler

    ordinary = Sampler.__call__

    def interrupted(self: Sampler, t: int):
        if t == 6:
            os.kill(os.getpid(), signal.SIGINT)
        return ordinary(self, t)

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Sampler, "__call__", interrupted)
        pretrain(WORLD, tmp_path / "r", **TINY)
    assert json.loads((tmp_path / "r" / "run.json").read_text())["status"] == "stopped"
    assert weights(tmp_path / "r")
    pretrain(WORLD, tmp_path / "r", **TINY, resume=True)
    assert same(whole, tmp_path / "r")


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_kill_9_and_resume_equals_an_uninterrupted_run(
    devices: int, tmp_path: Path, ssl_process: Callable[..., subprocess.Popen[str]]
) -> None:
    """Killed as soon as a checkpoint stands, then resumed; benchmarks/kills.py does it at many random moments."""
    env = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    args = ["pretrain", WORLD, *OPTIONS, "--devices", devices, "--set", "checkpoint_seconds=0"]
    through = ssl_process(*args, "--out", tmp_path / "a", **env)
    _, err = through.communicate(timeout=300)
    assert through.returncode == 0, err
    process = ssl_process(*args, "--out", tmp_path / "b", **env)
    while not (tmp_path / "b" / "checkpoints" / "last").exists() and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert json.loads((tmp_path / "b" / "run.json").read_text())["status"] == "running"
    again = ssl_process("pretrain", "--out", tmp_path / "b", "--resume", "--quiet", **env)
    _, err = again.communicate(timeout=300)
    assert again.returncode == 0, err
    assert same(tmp_path / "a", tmp_path / "b")


@pytest.mark.slow
def test_two_processes_see_the_loss_that_one_sees(
    tmp_path: Path, ssl_process: Callable[..., subprocess.Popen[str]]
) -> None:
    """The same global batch, the same views, statistics and negatives over both: the same loss."""
    losses = []
    for devices in (1, 2):
        out = tmp_path / str(devices)
        process = ssl_process(
            "pretrain",
            WORLD,
            "--quiet",
            "--image-size",
            32,
            "--batch-size",
            64,
            "--steps",
            1,
            "--devices",
            devices,
            "--out",
            out,
            OMP_NUM_THREADS="1",
        )
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        losses.append(next(line["loss"] for line in lines if "loss" in line))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize(
    ("side", "gpu", "size"),
    [(20, False, 32), (32, False, 32), (100, False, 64), (4000, False, 64), (300, True, 224), (150, True, 128)],
)
def test_the_side_of_views_follows_the_pictures(side: int, gpu: bool, size: int) -> None:
    assert choose_size(torch.tensor([[side, side + 10]] * 5), gpu) == size
