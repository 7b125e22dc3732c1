"""Parameters with a learning rate of their own: in which group they are, by what they move, what is remembered."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seeall.ssl.margin import Margin
from seeall.ssl.simclr import SimCLR
from seeall.training import checkpoint
from seeall.training.engine import launch
from seeall.training.loop import Stopped, fit
from seeall.training.optimisers import adamw, cosine, lars, parameter_groups, sgd
from seeall.training.run import Run
from seeall.types import SeeallError

OPTIMISERS = [adamw, sgd, lars]
Made = Callable[..., torch.optim.Optimizer]


class Task(nn.Module):
    """A network with matrices, biases and norms, some of it frozen, and the margin loss on top."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 4))
        self.still = nn.Linear(4, 4).requires_grad_(False)
        self.objective = Margin(**settings)

    def training_step(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        x, groups = batch
        return dict(self.objective(self.still(self.net(x)), groups))

    def evaluation(self) -> dict[str, float]:
        return {}


def data(t: int) -> tuple[Tensor, Tensor]:
    return torch.randn(12, 6, generator=torch.Generator().manual_seed(t)), torch.arange(12) % 4


def group_of(optimiser: torch.optim.Optimizer, parameter: Tensor) -> dict[str, Any]:
    """The one group that holds it."""
    found = [g for g in optimiser.param_groups if any(p is parameter for p in g["params"])]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("beta_lr", [0.0, 0.03])
def test_every_parameter_that_learns_is_in_one_group(optimiser: Made, beta_lr: float) -> None:
    task = Task(beta_lr=beta_lr)
    made = optimiser(task, lr=0.1)
    held = [id(p) for group in made.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in task.parameters() if p.requires_grad)
    decays = {name: group_of(made, p)["weight_decay"] > 0 for name, p in task.named_parameters() if p.requires_grad}
    assert {name for name, does in decays.items() if does} == {"net.0.weight", "net.2.weight"}
    assert len(made.param_groups) == (3 if beta_lr else 2)
    if beta_lr:
        own = group_of(made, task.objective.beta)
        assert own["lr"] == beta_lr and own["weight_decay"] == 0 and len(own["params"]) == 1
    rest = [g["lr"] for g in made.param_groups if not any(p is task.objective.beta for p in g["params"])]
    assert rest == [0.1, 0.1]


def test_several_own_rates_at_any_depth() -> None:
    class Two(nn.Module):
        def __init__(self, rate: float) -> None:
            super().__init__()
            self.a, self.b = nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.ones(()))
            self.own_rates = {"a": rate, "b": 2 * rate}

    module = nn.Sequential(Two(0.5), nn.Sequential(Two(0.7), nn.Linear(2, 2)))
    shared = module[0]
    module.append(shared)  # a part that is met twice is one part
    groups = parameter_groups(module, 0.1, 0.01)
    rates = {id(p): g.get("lr", 0.1) for g in groups for p in g["params"]}
    assert sum(len(g["params"]) for g in groups) == len(rates) == 6
    assert [rates[id(p)] for p in (shared.a, shared.b, module[1][0].a, module[1][0].b)] == [0.5, 1.0, 0.7, 1.4]
    assert all(g["weight_decay"] == 0 for g in groups if "lr" in g)  # matrices too


def test_a_learnt_temperature_goes_by_the_rate_of_all() -> None:
    """It asks for none of its own, and does not decay."""
    objective = SimCLR(learn_temperature=True)
    group = group_of(adamw(nn.Sequential(nn.Linear(2, 2), objective), lr=0.3), objective.log_temperature)
    assert group["lr"] == 0.3 and group["weight_decay"] == 0


def one_step(optimiser: Made, task: Task, factor: float) -> tuple[float, float]:
    """How far β and a bias move in one step of the loop's schedule, and by which gradient β."""
    made = optimiser(task, lr=0.1)
    for group in made.param_groups:
        group["lr"] *= factor
    before = float(task.objective.beta.detach())
    task.training_step(data(0))["loss"].backward()
    made.step()
    return float(task.objective.beta.detach()) - before, float(task.objective.beta.grad)


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("factor", [1.0, 0.25])
def test_the_first_step_by_hand(optimiser: Made, factor: float) -> None:
    """By its rate times the gradient; Adam's first step is by the rate itself, whatever the gradient. No decay."""
    moved, gradient = one_step(optimiser, Task(beta_lr=0.03, beta=1.4), factor)
    assert abs(gradient) > 1e-3
    want = 0.03 * factor * (gradient / abs(gradient) if optimiser is adamw else gradient)
    assert moved == pytest.approx(-want, rel=1e-3)


def fitted(path: Path, task: Task, optimiser: Made, fetch: Any = data, run: Run | None = None, **options: Any) -> Task:
    run = run or Run.create(path, {}, {"fingerprint": "x"})
    given = {"steps": 12, "epoch_steps": 4, "samples": 12, "warmup": 0.25, "checkpoint_seconds": 1e9, **options}
    fit(launch(precision="32"), task, fetch, lambda m: optimiser(m, lr=1e-2), run, **given)
    return task


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_the_schedule_scales_every_group(tmp_path: Path, optimiser: Made) -> None:
    """Rates as they are at every step, read off the optimiser that the loop was given."""
    held: list[torch.optim.Optimizer] = []
    rates: list[list[float]] = []

    def made(module: nn.Module, **settings: Any) -> torch.optim.Optimizer:
        held.append(optimiser(module, **settings))
        return held[0]

    class Watched(Task):
        def training_step(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
            rates.append([group["lr"] for group in held[0].param_groups])
            return super().training_step(batch)

    fitted(tmp_path / "r", Watched(beta_lr=0.4), made)
    for t, (weights, biases, own) in enumerate(rates):
        assert weights == biases == pytest.approx(1e-2 * cosine(t, 12, 3))
        assert own == pytest.approx(0.4 * cosine(t, 12, 3))
    assert rates[0][2] < rates[1][2] < rates[2][2] > rates[-1][2]


def test_the_rate_is_the_only_thing_that_differs(tmp_path: Path) -> None:
    """SGD without momentum moves β ten times as far with ten times the rate, and the network not at all otherwise."""
    moved = []
    for rate in (1e-5, 1e-4):
        task = fitted(
            tmp_path / str(rate), Task(beta_lr=rate, beta=1.4), lambda m, lr: sgd(m, lr=1e-9, momentum=0), warmup=0.0
        )
        moved.append(float(task.objective.beta.detach()) - 1.4)
    assert moved[1] == pytest.approx(10 * moved[0], rel=0.02) and abs(moved[0]) > 1e-6
    task = fitted(tmp_path / "none", Task(beta_lr=0, beta=1.4), adamw)
    assert float(task.objective.beta.detach()) == pytest.approx(1.4, abs=1e-6)


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_its_momentum_is_saved_and_resumed(tmp_path: Path, optimiser: Made) -> None:
    whole = fitted(tmp_path / "a", Task(beta_lr=0.05), optimiser)

    def interrupted(t: int) -> tuple[Tensor, Tensor]:
        if t == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return data(t)

    with pytest.raises(Stopped):
        fitted(tmp_path / "b", Task(beta_lr=0.05), optimiser, interrupted)
    state = checkpoint.load(tmp_path / "b" / "checkpoints" / "last")["optimiser"]
    own = state["param_groups"][2]
    assert own["lr"] == pytest.approx(0.05 * cosine(5, 12, 3)) and len(own["params"]) == 1
    kept = state["state"][own["params"][0]]
    assert any(isinstance(v, Tensor) and v.shape == () and float(v) != 0 for k, v in kept.items() if k != "step")
    again = fitted(tmp_path / "b", Task(beta_lr=0.05), optimiser, run=Run.open(tmp_path / "b"), resume=True)
    one, two = (checkpoint.load(tmp_path / r / "checkpoints" / "last") for r in "ab")
    betas = [float(task.objective.beta.detach()) for task in (whole, again)]
    assert betas[0] == betas[1] != pytest.approx(1.2)
    assert all(torch.equal(one["model"][k], two["model"][k]) for k in one["model"])
    assert one["optimiser"]["param_groups"] == two["optimiser"]["param_groups"]


def test_beta_is_clipped_with_the_rest(tmp_path: Path) -> None:
    """A norm of next to nothing holds everything where it is."""
    task = fitted(tmp_path / "r", Task(beta_lr=1.0), lambda m, lr: sgd(m, lr=lr, momentum=0), clip=1e-9)
    assert float(task.objective.beta.detach()) == pytest.approx(1.2, abs=1e-6)


@pytest.mark.parametrize("lr", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_that_is_none(lr: float) -> None:
    with pytest.raises(SeeallError) as error:
        adamw(Task(), lr=lr)
    assert str(error.value) == f"the learning rate, --lr, is {lr}: choose a number above 0"
