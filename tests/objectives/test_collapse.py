"""Embeddings that become all alike: how that is measured, when it is said, and when it is not."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from seeall.ssl.pretrain import pretrain
from seeall.ssl.task import COLLAPSED, collapsed, spread

WORLD = "scenes:n=48,size=32,identities=8"
TINY: dict[str, Any] = {"backbone": "shufflenet_v2_x0_5", "batch_size": 16, "epochs": 5, "image_size": 32}
LIKENESS = '''
"""Objectives without anything that keeps rows apart."""
import torch
from torch.nn.functional import normalize

class Attract(torch.nn.Module):
    def forward(self, z, groups):
        return {"loss": 1 - normalize(z.float(), dim=1).mean(0).square().sum()}
'''


def by_loop(z: Tensor) -> float:
    """√ of the summed variances of rows of length one, a number at a time."""
    rows = [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in z.tolist()]
    total = 0.0
    for column in zip(*rows):
        mean = sum(column) / len(column)
        total += sum((x - mean) ** 2 for x in column) / len(column)
    return math.sqrt(total)


@pytest.mark.parametrize(("n", "dim"), [(2, 1), (5, 3), (64, 16), (30, 200)])
@pytest.mark.parametrize("towards", [0.0, 1.0, 30.0])
def test_the_spread_equals_a_loop(n: int, dim: int, towards: float) -> None:
    z = torch.randn(n, dim, generator=torch.Generator().manual_seed(n)) + towards
    want = by_loop(z.double())
    assert float(spread(z)) == pytest.approx(want, rel=1e-4, abs=1e-6)
    assert float(spread(z * 100)) == pytest.approx(want, rel=1e-4, abs=1e-6)
    mean = torch.nn.functional.normalize(z.double(), dim=1).mean(0)
    assert want**2 == pytest.approx(1 - float(mean.square().sum()), abs=1e-9)


def test_what_it_is_at_its_ends() -> None:
    """1 all over the sphere, and where two opposite groups are; 0 where all are alike, and where there is one row."""
    g = torch.Generator().manual_seed(0)
    assert float(spread(torch.randn(20_000, 8, generator=g))) == pytest.approx(1, abs=1e-3)
    assert float(spread(torch.randn(4096, 128, generator=g).bfloat16())) == pytest.approx(1, abs=1e-3)
    one = torch.randn(1, 8, generator=g)
    assert float(spread(torch.cat([one, -one]))) == pytest.approx(1, abs=1e-6)
    for alike in (one, one.expand(9, -1), torch.zeros(4, 8), one * torch.arange(1, 5)[:, None]):
        assert float(spread(alike)) == pytest.approx(0, abs=1e-6)
    near = one + 0.01 * torch.randn(500, 8, generator=g)
    assert 0 < float(spread(near)) < COLLAPSED


def test_when_it_is_said() -> None:
    assert collapsed({"loss": 0.0}) is None and collapsed({"spread": COLLAPSED}) is None
    words = collapsed({"loss": 0.2, "spread": COLLAPSED - 0.01})
    assert words is not None and "\n" not in words
    assert "(spread 0.090, of about 1)" in words and "--lr" in words and "--negatives" in words


@pytest.fixture
def likeness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An objective of one's own, which draws all rows together."""
    (tmp_path / "likeness_of_all.py").write_text(LIKENESS)
    monkeypatch.syspath_prepend(tmp_path)
    return "likeness_of_all:Attract"


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "all embeddings are nearly alike" in record.message]


def curve(run: Path, name: str) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line[name] for line in lines if name in line]


def test_a_run_that_collapses_says_so_once(tmp_path: Path, likeness: str, caplog: pytest.LogCaptureFixture) -> None:
    """At the end of the first epoch that was spent so; the epochs after it are no better."""
    with caplog.at_level(logging.WARNING, logger="seeall"):
        pretrain(WORLD, tmp_path / "r", **TINY, objective=likeness, lr=1e-2, set=("norm=off",))
    spreads = curve(tmp_path / "r", "spread")
    low = [value < COLLAPSED for value in spreads]
    assert low.count(True) > 1 and low == sorted(low)
    assert len(said(caplog)) == 1
    assert said(caplog)[0].startswith(f"epoch {low.index(True) + 1}: all embeddings are nearly alike (spread 0.0")


def test_batch_hard_from_the_start_collapses(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Hermans et al. 2017, section 3.2: all rows in one place, where the loss is the margin."""
    options = {"objective": "triplet", "positives": "labels", "negatives": "hard", "lr": 0.02, "epochs": 12}
    with caplog.at_level(logging.WARNING, logger="seeall"):
        pretrain(WORLD, tmp_path / "r", **{**TINY, **options}, set=("norm=off",))
    assert curve(tmp_path / "r", "loss")[-1] == pytest.approx(0.2, abs=0.03)
    assert len(said(caplog)) == 1


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"set": ("norm=off",)},
        {"objective": "byol"},
        {"objective": "triplet", "positives": "labels", "set": ("layers=0",)},
    ],
    ids=["simclr", "simclr without the last norm", "byol", "triplet on features"],
)
def test_a_run_that_learns_says_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, options: dict[str, Any]
) -> None:
    with caplog.at_level(logging.WARNING, logger="seeall"):
        pretrain(WORLD, tmp_path / "r", **{**TINY, "epochs": 3, **options})
    assert min(curve(tmp_path / "r", "spread")) > 2 * COLLAPSED
    assert not said(caplog)


def test_a_collapse_behind_a_last_norm_is_said(tmp_path: Path, likeness: str, caplog: pytest.LogCaptureFixture) -> None:
    """All rows lie on a short line: the shift of BatchNorm has grown, and what is left is one dimension of noise."""
    with caplog.at_level(logging.WARNING, logger="seeall"):
        pretrain(WORLD, tmp_path / "r", **{**TINY, "epochs": 12}, objective=likeness, lr=1e-2)
    assert curve(tmp_path / "r", "loss")[-1] < 0.25, "there was no collapse to speak of"
    assert len(said(caplog)) == 1
