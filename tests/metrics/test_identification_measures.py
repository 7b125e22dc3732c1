"""Identification against loops over pictures, thresholds and resamples, and cases made by hand."""

import math
import random
from statistics import quantiles

import numpy as np
import pytest
import torch
from pytest import approx
from torch import Tensor

from seeall.data import keyed
from seeall.metrics import identification as module
from seeall.metrics.identification import cmc, decisions, identification
from seeall.types import SeeallError

FPIRS, RANKS = (0.3, 0.1, 0.02), (1, 2, 4)


def trials(seed: int, m: int = 60, enrolled: int = 6, strangers: int = 5, ties: bool = False) -> tuple[Tensor, ...]:
    """Scores (m, P), truth, people. ties: scores in steps of a tenth."""
    rng = random.Random(seed)
    people = [rng.randrange(enrolled + strangers) for _ in range(m)]
    truth = [p if p < enrolled else -1 for p in people]
    scores = [[rng.gauss(1.2 if p == t else 0, 0.7) for p in range(enrolled)] for t in truth]
    x = torch.tensor(scores, dtype=torch.float64)
    return (x * 10).round() / 10 if ties else x, torch.tensor(truth), 7 * torch.tensor(people) - 3


def rank(row: list[float], own: int) -> int:
    return 1 + sum(other >= row[own] for p, other in enumerate(row) if p != own)


def by_loop(rows: list[list[float]], truth: list[int], fpirs: tuple[float, ...], precision: float) -> dict[str, float]:
    """Everything from its definition, every threshold tried."""
    known = [(row, t) for row, t in zip(rows, truth) if t >= 0]
    unknown = [row for row, t in zip(rows, truth) if t < 0]
    found = {f"rank@{r}": sum(rank(row, t) <= r for row, t in known) / len(known) for r in RANKS}
    thresholds = [*sorted({max(row) for row in rows}), math.inf]
    for rate in fpirs:
        for threshold in thresholds:
            if sum(max(row) >= threshold for row in unknown) <= rate * len(unknown) + 1e-9:
                right = sum(rank(row, t) == 1 and row[t] >= threshold for row, t in known)
                found[f"tpir@fpir={float(f'{rate:e}'.split('e')[0]):g}e{math.floor(math.log10(rate))}"] = right / len(
                    known
                )
                break
    best = 0.0
    for threshold in thresholds:
        answers = sum(max(row) >= threshold for row in rows)
        right = sum(rank(row, t) == 1 and row[t] >= threshold for row, t in known)
        if right >= precision * answers - 1e-9:
            best = max(best, sum(max(row) >= threshold for row, _ in known) / len(known))
    return found | {f"coverage@precision={precision:g}": best}


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_the_loop(seed: int, ties: bool) -> None:
    scores, truth, people = trials(seed, ties=ties)
    for precision in (0.99, 0.7):
        found = identification(
            scores, truth, people, ranks=RANKS, fpirs=FPIRS[:2], precision=precision, resamples=0
        )  # fmt: skip
        wanted = by_loop(scores.tolist(), truth.tolist(), FPIRS[:2], precision)
        assert {n: v for n, v in found.items() if n in wanted} == approx(wanted)
        assert len(found) == len(wanted) + 2 and found["known"] + found["unknown"] == 60
    curve = cmc(scores, truth)
    known = [(row, t) for row, t in zip(scores.tolist(), truth.tolist()) if t >= 0]
    assert curve.tolist() == approx([sum(rank(row, t) <= r for row, t in known) / len(known) for r in range(1, 7)])
    assert float(curve[-1]) == 1


@pytest.mark.parametrize("budget", [1 << 22, 200])
def test_intervals_are_of_people_drawn_again(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every resample written out with its pictures as often as their person was drawn."""
    monkeypatch.setattr(module, "_BUDGET", budget)
    scores, truth, people = trials(1, m=80)
    found = identification(scores, truth, people, ranks=RANKS, fpirs=FPIRS[:2], resamples=40, seed=5)
    drawn: dict[str, list[float]] = {}
    kinds = [sorted(set(people[truth >= 0].tolist())), sorted(set(people[truth < 0].tolist()))]
    for r in range(40):
        rows: list[list[float]] = []
        who: list[int] = []
        for names, stream in zip(kinds, (module._KNOWN, module._UNKNOWN)):
            for u in keyed.uniform(5, stream, torch.tensor([r]), n=len(names))[0].tolist():
                here = (people == names[int(u * len(names))]).nonzero()[:, 0]
                rows += scores[here].tolist()
                who += truth[here].tolist()
        for name, value in by_loop(rows, who, FPIRS[:2], 0.99).items():
            drawn.setdefault(name, []).append(value)
    for name, values in drawn.items():
        ends = quantiles(values, n=40, method="inclusive")
        assert found[f"{name}_low"] == approx(ends[0]) and found[f"{name}_high"] == approx(ends[-1])
        assert np.quantile(values, 0.025) == approx(ends[0])


def test_interval_covers_the_truth() -> None:
    """Of many samples of people whose pictures stand or fall together, most intervals hold the true rate."""
    g = torch.Generator().manual_seed(0)
    held = 0
    for seed in range(60):
        right = (torch.rand(30, generator=g) < 0.7).repeat_interleave(5)
        scores = torch.eye(30, dtype=torch.float64).repeat_interleave(5, 0)
        scores = torch.where(right[:, None], scores, scores.roll(1, 1))
        who = torch.arange(30).repeat_interleave(5)
        found = identification(scores, who, who, resamples=200, seed=seed)
        held += found["rank@1_low"] <= 0.7 <= found["rank@1_high"]
    assert 50 <= held <= 60


def test_by_hand() -> None:
    scores = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.5], [0.7, 0.3], [0.3, 0.4]], dtype=torch.float64)
    truth = torch.tensor([0, 1, 1, -1, -1])
    found = identification(scores, truth, torch.tensor([0, 1, 1, 2, 3]), fpirs=(0.5,), ranks=(1, 2))
    assert found["rank@1"] == approx(2 / 3) and found["rank@2"] == 1
    assert found["tpir@fpir=5e-1"] == approx(2 / 3) and found["coverage@precision=0.99"] == approx(2 / 3)
    assert decisions(scores, truth, 0.6) == {
        "named": approx(2 / 3), "misnamed": approx(1 / 3), "missed": 0, "taken": 0.5,
    }  # fmt: skip
    assert decisions(scores[:3], truth[:3], 0.85) == {"named": approx(1 / 3), "misnamed": 0, "missed": approx(2 / 3)}


def test_a_collapse_is_worth_nothing() -> None:
    truth = torch.tensor([0, 1, 2, -1, -1])
    found = identification(torch.ones(5, 3), truth, torch.arange(5), fpirs=(0.5,), ranks=(1,))
    assert found["rank@1"] == found["tpir@fpir=5e-1"] == found["coverage@precision=0.99"] == 0
    assert cmc(torch.ones(5, 3), truth).tolist() == [0, 0, 1]


def test_what_cannot_be_told_is_left_out() -> None:
    scores, truth, people = trials(0)
    assert not any("1e-2" in name for name in identification(scores, truth, people))
    known = truth >= 0
    alone = identification(scores[known], truth[known], people[known])
    assert alone["unknown"] == 0 and not any("tpir" in name for name in alone) and "rank@1_low" in alone
    one = truth == truth[known][0]
    assert "rank@1_low" not in identification(scores[one], truth[one], people[one])


def test_refuses() -> None:
    scores, truth, people = trials(0)
    with pytest.raises(SeeallError, match="NaN"):
        identification(scores * math.nan, truth, people)
    with pytest.raises(SeeallError, match="nobody|no picture of anybody"):
        identification(scores, torch.full_like(truth, -1), people)
    with pytest.raises(SeeallError, match="above 0 and at most 1, not 2"):
        identification(scores, truth, people, fpirs=(2,))
    with pytest.raises(ValueError, match="want scores"):
        identification(scores, truth[1:], people)
