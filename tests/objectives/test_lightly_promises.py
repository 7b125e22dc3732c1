"""What VICReg, Barlow Twins, BYOL, SimSiam, MoCo and DINO all promise: in any order, of any rows, resumed, refused."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from seeall.ssl.barlow_twins import BarlowTwins
from seeall.ssl.byol import BYOL
from seeall.ssl.dino import DINO
from seeall.ssl.moco import MoCo
from seeall.ssl.simsiam import SimSiam
from seeall.ssl.twins import twins
from seeall.ssl.vicreg import VICReg
from seeall.types import SeeallError
from tests.objectives.lightly_six import (
    MAKE,
    ORDERED,
    REMEMBERS,
    TAUGHT,
    D,
    call,
    every,
    gradients,
    pairs_by_hand,
    randn,
    used,
)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.lists(st.sampled_from([0, 1, 2, 3, -(2**62), 2**62]), max_size=12))
def test_twins_are_first_and_second_third_and_fourth(groups: list[int]) -> None:
    a, b = twins(torch.tensor(groups, dtype=torch.int64))
    assert a.dtype == b.dtype == torch.int64
    assert sorted(zip(a.tolist(), b.tolist(), strict=True)) == sorted(pairs_by_hand(groups))


@every
def test_order_of_rows_changes_nothing(name: str) -> None:
    groups = torch.tensor([0, 1, 2, 3, 4, 5, 9, 0, 1, 2, 3, 4, 5])
    z, taught = randn(13, D, seed=1), randn(13, D, seed=2)
    order = torch.argsort(randn(13, seed=3))
    if name in ORDERED:  # twins may stand anywhere, but not in each other's place
        order = torch.cat([order[groups[order] == g].sort().values for g in (3, 0, 9, 5, 1, 4, 2)])
    results = []
    for rows in (torch.arange(13), order):
        objective = used(name)

        def loss(x: Tensor, objective: nn.Module = objective, rows: Tensor = rows) -> Tensor:
            return call(name, objective, x[rows], groups[rows], taught[rows])["loss"]

        results.append(gradients(objective, loss, z))
    for got, want in zip(*results, strict=True):
        assert_close(got, want, rtol=1e-10, atol=1e-12)


@every
def test_first_and_second_views_may_change_places(name: str) -> None:
    z, taught, groups = randn(12, D, seed=1), randn(12, D, seed=2), [*range(6)] * 2
    there = call(name, used(name), z, groups, taught)["loss"]
    back = call(name, used(name), z.roll(6, 0), groups, taught.roll(6, 0))["loss"]
    assert_close(there, back, rtol=1e-10, atol=1e-12)


@every
@pytest.mark.parametrize("groups", [[], [4], [0, 1], [0, 1, 2, 3, 4]], ids=str)
def test_a_batch_without_pairs_costs_nothing(name: str, groups: list[int]) -> None:
    objective = used(name)
    keys = call(name, objective, randn(8, D), [0, 1, 2, 3] * 2).keys()
    z = randn(len(groups), D).requires_grad_()
    out = call(name, objective, z, groups)
    out["loss"].backward()
    assert out.keys() == keys
    assert all(v == 0 for v in out.values())
    for x in (z, *objective.parameters()):  # DDP waits for a gradient of every weight
        assert x.grad is not None
        assert not x.grad.any()


DEGENERATE = {
    "one pair": (randn(2, D), [6, 6]),
    "one pair, alike": (torch.ones(2, D), [6, 6]),
    "one pair among others": (randn(4, D), [6, 1, 6, 2]),
    "two pairs": (randn(4, D), [0, 1, 0, 1]),
    "one group": (randn(6, D), [3] * 6),
    "all alike": (torch.ones(8, D), [0, 1, 2, 3] * 2),
    "all zero": (torch.zeros(8, D), [0, 1, 2, 3] * 2),
    "twins opposite": (torch.cat([randn(4, D), -randn(4, D)]), [0, 1, 2, 3] * 2),
    "huge": (1e4 * randn(8, D), [0, 1, 2, 3] * 2),
    "tiny": (1e-12 * randn(8, D), [0, 1, 2, 3] * 2),
}


@every
@pytest.mark.parametrize("kind", DEGENERATE)
@pytest.mark.parametrize("fresh", [True, False])
def test_degenerate_rows_stay_finite(name: str, kind: str, fresh: bool) -> None:
    rows, groups = DEGENERATE[kind]
    objective = (MAKE[name]() if fresh else used(name)).float()
    for _ in range(2):
        z = rows.float().clone().requires_grad_()
        out = call(name, objective, z, groups)
        out["loss"].backward()
        assert all(torch.isfinite(v) for v in out.values())
        for x in (z, *objective.parameters()):
            assert x.grad is not None
            assert torch.isfinite(x.grad).all()
    assert all(torch.isfinite(v).all() for v in objective.state_dict().values())


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_leaves_the_loss_in_float32(name: str, dtype: torch.dtype) -> None:
    objective = used(name).float()
    other = copy.deepcopy(objective)
    z, groups, taught = randn(16, D).to(dtype), [*range(8)] * 2, randn(16, D, seed=1, dtype=torch.float32)

    def under_autocast(x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return call(name, objective, x, groups, taught)["loss"]

    want = gradients(other, lambda x: call(name, other, x.float(), groups, taught)["loss"], z)
    got = gradients(objective, under_autocast, z)
    assert got[0].dtype == torch.float32
    assert got[1].dtype == dtype
    for g, w in zip(got, want, strict=True):
        assert torch.equal(g, w)


@every
def test_float64_rows_meet_float32_weights(name: str) -> None:
    out = call(name, used(name).float(), randn(8, D), [0, 1, 2, 3] * 2)["loss"]
    assert out.dtype == (torch.float64 if name in ORDERED else torch.float32)


@every
def test_what_is_told(name: str) -> None:
    z, objective = randn(12, D).requires_grad_(), used(name)
    out = call(name, objective, z, [*range(6)] * 2)
    assert out["loss"].requires_grad
    assert all(v.ndim == 0 for v in out.values())
    assert not any(v.requires_grad for key, v in out.items() if key != "loss")
    u = F.normalize(z.detach(), dim=1)
    assert_close(out["alignment"], (u[:6] * u[6:]).sum(1).mean())


@pytest.mark.parametrize("name", sorted(TAUGHT))
def test_no_gradient_goes_to_the_teacher(name: str) -> None:
    z, taught = randn(8, D).requires_grad_(), randn(8, D, seed=1).requires_grad_()
    call(name, used(name), z, [0, 1, 2, 3] * 2, taught)["loss"].backward()
    assert z.grad is not None
    assert taught.grad is None


@pytest.mark.parametrize("name", sorted(TAUGHT))
def test_the_teacher_matters_and_the_momentum_is_there_to_read(name: str) -> None:
    z, groups = randn(8, D), [0, 1, 2, 3] * 2
    losses = [call(name, used(name), z, groups, randn(8, D, seed=s))["loss"] for s in (1, 2)]
    assert losses[0] != losses[1]
    assert used(name).momentum == 0.75


@every
def test_a_resumed_objective_goes_on_to_the_bit(name: str, tmp_path: Path) -> None:
    def step(objective: nn.Module, t: int) -> dict[str, Tensor]:
        groups = torch.arange(3 * t, 3 * t + 4).repeat(2) % 7
        return call(name, objective, randn(8, D, seed=t, dtype=torch.float32), groups, randn(8, D, seed=50 + t))

    whole = used(name).float()
    for t in range(3):
        step(whole, t)
    torch.save(whole.state_dict(), tmp_path / "state")
    other = used(name, seed=7).float()
    other.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    for t in range(3, 7):
        want, got = step(whole, t), step(other, t)
        assert all(torch.equal(got[key], want[key]) for key in want)
    assert all(torch.equal(v, other.state_dict()[key]) for key, v in whole.state_dict().items())


@every
def test_evaluation_changes_nothing_and_training_does(name: str) -> None:
    objective = used(name)
    before = {key: v.clone() for key, v in objective.state_dict().items()}

    def same() -> bool:
        return all(torch.equal(v, before[key]) for key, v in objective.state_dict().items())

    z, groups = randn(8, D, seed=1), [0, 1, 2, 3] * 2
    objective.eval()
    first, second = (call(name, objective, z, groups) for _ in range(2))
    assert same()
    assert all(torch.equal(first[key], second[key]) for key in first)
    objective.train()
    trained = call(name, objective, z, groups)
    assert same() == (name not in REMEMBERS)
    assert first.keys() == trained.keys()
    if name not in REMEMBERS:
        assert torch.equal(first["loss"], trained["loss"])


@every
def test_two_of_a_seed_are_equal_to_the_bit(name: str) -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(MAKE[name]().state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@every
def test_shapes_that_do_not_fit_are_refused(name: str) -> None:
    for z, groups in ((4, D), (5,)), ((4, D), (4, 1)), ((4,), (4,)):
        with pytest.raises(ValueError, match="groups"):
            call(name, used(name), torch.zeros(z), torch.zeros(groups), torch.zeros(z))
    if name in REMEMBERS:
        with pytest.raises(ValueError, match="4 dimensions, not 5"):
            call(name, used(name), torch.zeros(6, 5), [0, 1, 2] * 2)
    if name in TAUGHT:
        with pytest.raises(ValueError, match="groups"):
            call(name, used(name), torch.zeros(6, D), [0, 1, 2] * 2, torch.zeros(5, D))


REFUSED: list[tuple[Callable[..., nn.Module], str, list[Any], str]] = [
    (VICReg, "vicreg: invariance", [-1, math.nan, math.inf], "25, 25 and 1"),
    (VICReg, "vicreg: variance", [-0.1, math.nan], "25, 25 and 1"),
    (VICReg, "vicreg: covariance", [-0.1, math.inf], "25, 25 and 1"),
    (BarlowTwins, "barlow_twins: redundancy", [-0.1, math.nan, math.inf], "0.005"),
    (BYOL, "byol: hidden", [0, -3], "512 to 4096"),
    (BYOL, "byol: momentum", [-0.1, 1.0, math.nan], "0.99"),
    (SimSiam, "simsiam: hidden", [0, -3], "a quarter of the width"),
    (MoCo, "moco: size", [0, -1], "4096 to 65536"),
    (MoCo, "moco: temperature", [0.0, -1, math.nan, math.inf], "0.07 to 0.2"),
    (MoCo, "moco: momentum", [-0.1, 1.0, math.nan], "0.99 to 0.999"),
    (DINO, "dino: prototypes", [1, 0], "1024 to 65536"),
    (DINO, "dino: student_temperature", [0.0, math.nan], "0.1"),
    (DINO, "dino: teacher_temperature", [-1, math.inf], "0.04 to 0.07"),
    (DINO, "dino: centre_momentum", [-0.1, 1.0], "0.9"),
    (DINO, "dino: momentum", [-0.1, 1.0, math.nan], "0.99 to 0.996"),
]


@pytest.mark.parametrize(("kind", "what", "values", "usual"), REFUSED, ids=[what for _, what, _, _ in REFUSED])
def test_settings_out_of_range_are_refused(kind: Any, what: str, values: list[Any], usual: str) -> None:
    setting = what.partition(": ")[2]
    for value in values:
        with pytest.raises(SeeallError) as fault:
            kind(**{setting: value}) if kind in (VICReg, BarlowTwins) else kind(D, **{setting: value})
        text = str(fault.value)
        assert text.startswith(f"{what} must be")
        assert text.endswith(f", not {value}; {usual} {'are' if 'and' in usual else 'is'} usual")
        assert "\n" not in text


def test_defaults_can_be_built() -> None:
    assert SimSiam(128).predictor.layers[0].weight.shape == (32, 128)
    assert SimSiam(2).predictor.layers[0].weight.shape == (1, 2)
    for objective in (VICReg(), BarlowTwins(), BYOL(16), SimSiam(16), MoCo(16), DINO(16)):
        z, groups = randn(8, 16, dtype=torch.float32), torch.arange(4).repeat(2)
        more = [z] if hasattr(objective, "momentum") else []
        assert torch.isfinite(objective(z, groups, *more)["loss"])
