"""Reweighted and decoupled negatives, a learnt temperature: loops, published forms, degenerate rows, settings."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightly.loss import DCLLoss
from torch import Tensor
from torch.nn.functional import normalize
from torch.testing import assert_close

from seeall.ssl.negatives.queue import Queue
from seeall.ssl.negatives.reweighted import Reweighted
from seeall.ssl.simclr import SimCLR
from seeall.ssl.similarity import similarity_logsumexp
from seeall.types import SeeallError
from tests.objectives.contrastive_loops import close, decoupled, loop, ours, randn, value_and_gradient

PATTERNS = {
    "two views": [0, 1, 2, 3, 0, 1, 2, 3],
    "unequal groups": [5, 5, 5, 9, 9, -7, 5, 2],
    "one group": [3] * 5,
    "everyone alone": [0, 1, 2, 3],
    "one pair, the rest alone": [0, 1, 2, 0, 3],
    "two apart": [1, 2],
    "two together": [1, 1],
    "one row": [4],
}


def reweighted(beta: float, tau: float, temperature: float) -> Callable[..., Tensor]:
    """Robinson et al. 2021, section 4, one scalar at a time."""

    def term(positive: Tensor, negatives: list[Tensor], _: list[Tensor]) -> Tensor:
        if not negatives:
            return positive * 0
        n, own = len(negatives), torch.exp(positive / temperature)
        weights = [torch.exp(beta * s / temperature) for s in negatives]
        mean = sum(w * torch.exp(s / temperature) for w, s in zip(weights, negatives)) / sum(weights)
        g = n * (mean - tau * own) / (1 - tau)
        least = n * math.exp(-1 / temperature)
        return -torch.log(own / (own + (g if g > least else least)))

    return term


SETTINGS = [(1.0, 0.0), (0.0, 0.1), (0.0, 0.0), (1.0, 0.1), (2.5, 0.3), (0.5, 0.9)]


@pytest.mark.parametrize(("beta", "tau"), SETTINGS)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_reweighted_follows_the_paper(pattern: str, beta: float, tau: float) -> None:
    groups = PATTERNS[pattern]
    for temperature in (0.01, 0.1, 1.0):
        z = randn(len(groups), 4, seed=len(groups))
        want = value_and_gradient(lambda x, t=temperature: loop(x, groups, reweighted(beta, tau, t)), z)
        objective = SimCLR(Reweighted(beta=beta, tau_plus=tau), temperature=temperature)
        close(ours(objective, z, groups), want, 1e-9)
        close(ours(objective, z.float(), groups), want, 1e-5 + 1e-6 / temperature)


@settings(deadline=None, max_examples=25, derandomize=True)
@given(
    groups=st.lists(st.integers(-1, 3), min_size=1, max_size=7),
    beta=st.sampled_from([0.0, 0.7, 2.0]),
    tau=st.sampled_from([0.0, 0.05, 0.5]),
    temperature=st.sampled_from([0.02, 0.2, 1.0]),
    seed=st.integers(0, 2**31),
)
def test_any_groups_follow_the_paper(groups: list[int], beta: float, tau: float, temperature: float, seed: int) -> None:
    z = randn(len(groups), 3, seed=seed)
    want = value_and_gradient(lambda x: loop(x, groups, reweighted(beta, tau, temperature)), z)
    close(ours(SimCLR(Reweighted(beta=beta, tau_plus=tau), temperature=temperature), z, groups), want, 1e-8)
    want = value_and_gradient(lambda x: loop(x, groups, decoupled(temperature)), z)
    close(ours(SimCLR(temperature=temperature, decoupled=True), z, groups), want, 1e-8)


def as_published(z: Tensor, beta: float, tau: float, temperature: float) -> Tensor:
    """The form of Robinson et al.'s own programme, for two views: importance weights and a floor."""
    n = len(z) // 2
    u = normalize(z, dim=1)
    e = torch.exp(u @ u.T / temperature)
    other = ~torch.eye(n, dtype=torch.bool).repeat(2, 2)
    negatives = e[other].view(2 * n, 2 * n - 2)
    positive = torch.exp((u * u.roll(n, 0)).sum(1) / temperature)
    importance = torch.exp(beta * negatives.log())
    weighted = (importance * negatives).sum(1) / importance.mean(1)
    g = (weighted - tau * (2 * n - 2) * positive) / (1 - tau)
    g = g.clamp(min=(2 * n - 2) * math.exp(-1 / temperature))
    return -(positive / (positive + g)).log().mean()


@pytest.mark.parametrize(("beta", "tau"), SETTINGS)
@pytest.mark.parametrize("temperature", [0.01, 0.02, 0.07, 0.5, 1.0])
@pytest.mark.parametrize("dim", [2, 8, 1024])
def test_reweighted_equals_the_published_form(beta: float, tau: float, temperature: float, dim: int) -> None:
    """In high dimensions cosines are small, and at a low temperature exponentials leave float32's range."""
    z, groups = randn(24, dim), torch.arange(12).repeat(2)
    objective = SimCLR(Reweighted(beta=beta, tau_plus=tau), temperature=temperature)
    want = value_and_gradient(lambda x: as_published(x, beta, tau, temperature), z)
    close(ours(objective, z, groups), want, 1e-9)
    close(ours(objective, z.float(), groups), want, 1e-5 + 1e-6 / temperature)


def test_nothing_reweighted_is_nearly_simclr() -> None:
    """With one positive an anchor and every setting 0 it is NT-Xent itself."""
    z, groups = randn(20, 6), torch.arange(10).repeat(2)
    close(ours(SimCLR(Reweighted(beta=0)), z, groups), ours(SimCLR(), z, groups), 1e-12)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("temperature", [0.01, 0.1, 1.0])
def test_decoupled_follows_the_paper(pattern: str, temperature: float) -> None:
    groups = PATTERNS[pattern]
    z = randn(len(groups), 4, seed=len(groups))
    want = value_and_gradient(lambda x: loop(x, groups, decoupled(temperature)), z)
    objective = SimCLR(temperature=temperature, decoupled=True)
    close(ours(objective, z, groups), want, 1e-10)
    close(ours(objective, z.float(), groups), want, 1e-5 + 1e-6 / temperature)


@pytest.mark.parametrize("temperature", [0.05, 0.2, 1.0])
def test_decoupled_equals_lightly(temperature: float) -> None:
    z, peer = randn(200, 16), DCLLoss(temperature=temperature)
    want = value_and_gradient(lambda x: peer(*x.chunk(2)), z)
    objective = SimCLR(temperature=temperature, decoupled=True)
    close(ours(objective, z, torch.arange(100).repeat(2)), want, 1e-10)
    close(ours(objective, z.float(), torch.arange(100).repeat(2)), want, 1e-5)


VARIANTS: dict[str, Callable[..., SimCLR]] = {
    "plain": SimCLR,
    "decoupled": lambda **k: SimCLR(decoupled=True, **k),
    "queue": lambda **k: SimCLR(Queue(size=6), **k),
    "decoupled queue": lambda **k: SimCLR(Queue(size=6), decoupled=True, **k),
    "reweighted": lambda **k: SimCLR(Reweighted(beta=1.5), **k),
    "debiased": lambda **k: SimCLR(Reweighted(beta=0, tau_plus=0.1), **k),
    "both": lambda **k: SimCLR(Reweighted(beta=10, tau_plus=0.05), **k),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("temperature", [0.021, 0.1, 0.5])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_learnt_temperature(variant: str, temperature: float, dtype: torch.dtype) -> None:
    """The loss of the same fixed temperature; its own gradient as differences tell."""
    z, groups = randn(9, 5).to(dtype), torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 0])
    z[8] = z[0] + 0.01 * z[8]
    objective = VARIANTS[variant](temperature=temperature, learn_temperature=True).double()
    objective(randn(4, 5, seed=9), torch.arange(4) + 50)  # something for a queue to remember
    objective.eval()
    objective.zero_grad()
    got = ours(objective, z, groups)
    with torch.no_grad():
        log, h = objective.log_temperature.clone(), 1e-6
        assert float(log.exp()) == pytest.approx(temperature)
        differ = []
        for step in (h, -h):
            objective.log_temperature.copy_(log + step)
            differ.append(objective(z.double(), groups)["loss"])
        objective.log_temperature.copy_(log)
    tolerance = 1e-6 if dtype == torch.float64 else 1e-5 + 1e-5 / temperature
    assert_close(objective.log_temperature.grad, (differ[0] - differ[1]) / (2 * h), rtol=tolerance, atol=1e-7)

    fixed = VARIANTS[variant](temperature=float(log.exp())).double()
    fixed.load_state_dict({k: v for k, v in objective.state_dict().items() if k != "log_temperature"})
    close(got, ours(fixed.eval(), z.double(), groups), 1e-9 if dtype == torch.float64 else tolerance)
    assert float(objective(z, groups)["temperature"]) == pytest.approx(temperature)


def test_a_temperature_at_its_floor_can_rise() -> None:
    """Where it started, and where a step has taken it lower than it may be: the loss wants it higher."""
    z, groups = randn(12, 6, dtype=torch.float32), torch.arange(6).repeat(2)
    objective = SimCLR(temperature=0.02, learn_temperature=True)
    for start in (0.02, 0.015):
        objective.log_temperature.data.fill_(math.log(start))
        objective.zero_grad()
        out = objective(z, groups)
        assert float(out["temperature"]) == pytest.approx(0.02)
        out["loss"].backward()
        assert float(objective.log_temperature.grad) < -1


@pytest.mark.parametrize("tile", [2, 3, 4, 4096])
def test_logsumexp_over_other_groups(tile: int) -> None:
    groups = torch.tensor([4, 0, 0, 1, 1, 1, 2, 0, 9])
    z, t = normalize(randn(9, 4), dim=1).requires_grad_(), torch.tensor(0.3).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x, s: similarity_logsumexp(x, s, groups=groups, tile=tile), (z, t))
    g = randn(9, seed=1)
    for temperature in (0.3, 0.004):
        s = (z @ z.T / temperature).masked_fill(groups[:, None] == groups, -math.inf)
        got = similarity_logsumexp(z, temperature, groups=groups, tile=tile)
        assert_close(got, s.logsumexp(1), rtol=1e-12, atol=1e-12)
        want = torch.autograd.grad(s.logsumexp(1) @ g, z)[0]
        assert_close(torch.autograd.grad(got @ g, z)[0], want, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("temperature", [0.3, 0.004, torch.tensor(0.3, dtype=torch.float64)])
def test_logsumexp_over_nothing(temperature: Any) -> None:
    z = normalize(randn(5, 4), dim=1).requires_grad_()
    lse = similarity_logsumexp(z, temperature, groups=torch.ones(5, dtype=torch.int64), tile=2)
    assert (lse == -math.inf).all()
    lse.masked_fill(lse == -math.inf, 0).sum().backward()
    assert not z.grad.any()


@pytest.mark.parametrize("beta", [0.0, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_degenerate_rows_stay_finite(beta: float, dtype: torch.dtype) -> None:
    """Rows alike, opposite, of zeros; no rows."""
    makes = [lambda t: SimCLR(Reweighted(beta=beta, tau_plus=0.1), temperature=t)]
    makes += [lambda t: SimCLR(Queue(size=5), decoupled=True, temperature=t)]
    for z in (torch.ones(6, 4), torch.ones(6, 4) * torch.tensor([1, -1] * 3)[:, None], torch.zeros(6, 4)):
        for groups in (torch.arange(3).repeat(2), torch.zeros(6), torch.arange(6)):
            for objective in [make(t) for make in makes for t in (0.01, 0.1, 1.0)] * 2:
                got = ours(objective, z.to(dtype), groups.long())
                assert torch.isfinite(got[0])
                assert torch.isfinite(got[1]).all()
    for objective in [make(0.1) for make in makes] * 2:
        out = objective(torch.zeros(0, 4, requires_grad=True), torch.zeros(0, dtype=torch.int64))
        out["loss"].backward()
        assert out["loss"] == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Reweighted(beta=-1.0), "reweighted: beta is -1.0: choose 0 or more"),
        (lambda: Reweighted(beta=math.inf), "reweighted: beta is inf"),
        (lambda: Reweighted(tau_plus=1.0), "reweighted: tau_plus is 1.0: choose from 0 and below 1"),
        (
            lambda: SimCLR(Reweighted(), decoupled=True),
            "reweighted negatives are decoupled already; leave decoupled out",
        ),
        (lambda: SimCLR(temperature=0.019, learn_temperature=True), "temperature must be 0.02 or more, not 0.019"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(SeeallError) as error:
        make()
    assert message in str(error.value)
    assert "\n" not in str(error.value)
