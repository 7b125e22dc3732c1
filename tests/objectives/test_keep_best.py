"""`keep=best` in pretraining: the weights that told labelled pictures apart best, or a word why there are none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from seeall.ssl.pretrain import pretrain
from seeall.training import checkpoint
from seeall.types import SeeallError
from tests.conftest import draw

TINY: dict[str, Any] = {"backbone": "plain", "batch_size": 8, "epochs": 1, "image_size": 32}


def pictures(folder: Path, count: int, labels: tuple[str, ...]) -> Path:
    for i in range(count):
        draw(folder / labels[i % len(labels)] / f"{i:02d}.png", (36, 32), seed=i)
    return folder


@pytest.mark.parametrize(
    ("count", "labels", "why"),
    [
        (62, ("",), "the pictures have no labels, or all the same"),
        (62, ("one",), "the pictures have no labels, or all the same"),
        (59, ("one", "two"), "59 pictures are fewer than 60"),
    ],
)
def test_where_nothing_tells_which_are_the_best(tmp_path: Path, count: int, labels: tuple[str, ...], why: str) -> None:
    """It is said before training begins, and nothing is left."""
    data = pictures(tmp_path / "pictures", count, labels)
    with pytest.raises(SeeallError, match=f"setting 'keep' is best: .* and {why}; choose keep=last, or ") as error:
        pretrain(str(data), tmp_path / "r", **TINY, set=("keep=best",))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "r").exists()
    pretrain(str(data), tmp_path / "r", **TINY, set=("keep=last",))
    assert not (tmp_path / "r" / "checkpoints" / "best").exists()


def test_where_too_few_can_be_read(tmp_path: Path) -> None:
    data = pictures(tmp_path / "pictures", 60, ("one", "two"))
    (data / "one" / "00.png").write_bytes(b"")
    with pytest.raises(SeeallError, match="59 pictures are fewer than 60"):
        pretrain(str(data), tmp_path / "r", **TINY, allow_skipped=True, set=("keep=best",))
    assert not (tmp_path / "r").exists()


def test_the_command_says_so_on_one_line(
    folder: Path, tmp_path: Path, ssl: Callable[..., tuple[int, str, str]]
) -> None:
    code, out, err = ssl("pretrain", folder, "--out", tmp_path / "r", "--set", "keep=best", "--quiet")
    assert (code, out) == (2, "") and err.count("\n") == 1 and "48 pictures are fewer than 60" in err


def test_the_best_are_kept(tmp_path: Path) -> None:
    """At a rate so high that they are not the last."""
    options = {**TINY, "epochs": 6, "optimiser": "sgd", "lr": 3.0, "set": ("keep=best", "clip=1")}
    results = pretrain("scenes:n=64,size=32,identities=8", tmp_path / "r", **options)
    lines = [json.loads(line) for line in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()]
    found = {line["step"]: line["knn20"] for line in lines if "knn20" in line}
    assert results["knn20"] == results["best knn20"] == pytest.approx(max(found.values()), abs=1e-5)
    best = checkpoint.load(tmp_path / "r" / "checkpoints" / "best")
    assert best["step"] < 48
    left = load_file(tmp_path / "r" / "backbone.safetensors")
    assert all(torch.equal(value, best["model"][f"backbone.network.{name}"]) for name, value in left.items())
