"""What every entry of the tables OBJECTIVES, NEGATIVES and POSITIVES promises; a new entry is found here by itself."""

from __future__ import annotations

import copy
import functools
import importlib
import inspect
import re
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seeall import catalog
from seeall.combinations import USES
from seeall.data.pictures import Pictures, find
from seeall.ssl.positives.belonging import Belonging
from seeall.ssl.pretrain import Plan, pretrain
from seeall.training.optimisers import adamw
from seeall.types import Batch, SeeallError

D = 6
TABLES = {"objective": catalog.OBJECTIVES, "negatives": catalog.NEGATIVES, "positives": catalog.POSITIVES}
ENTRIES = [(role, name) for role, table in TABLES.items() for name in table]
SETTINGS = [(role, name, s) for role, name in ENTRIES for s in catalog.settings(catalog.locate(TABLES[role][name]))]
PAIRS = [(o, n) for o in catalog.OBJECTIVES for n in (USES[o].negatives if o in USES else ()) or (None,)]
BATCHES = {
    "two views": [0, 1, 2, 3, 0, 1, 2, 3],
    "four of a class": [5, 5, 5, 5, -9, -9, -9, -9],
    "uneven": [2**60, 1, 1, 2**60, 7, 1, 1, 3],
    "one group": [4] * 8,
    "all single": list(range(8)),
    "one pair": [2, 2],
    "two alone": [0, 1],
}
PICTURES = "scenes:n=6,frames=4,size=16,identities=3,labels=identity"
"""Pictures with labels, clips and sounds: every way of belonging together finds something."""
OUT_OF_RANGE: dict[type, list[Any]] = {float: [float("nan"), float("-inf"), -1e9], int: [-(10**6)]}
every_entry = pytest.mark.parametrize(("role", "name"), ENTRIES)
every_pair = pytest.mark.parametrize(("objective", "negatives"), PAIRS)


@functools.cache
def plan(objective: str, negatives: str | None, *sets: str) -> Plan:
    """As `pretrain` makes it; z has D dimensions."""
    names = {"objective": objective, "negatives": negatives, "positives": "views"}
    rest = {"backbone": "shufflenet_v2_x0_5", "optimiser": "adamw", "lr": None}
    return Plan.of({**names, **rest, "set": (f"projector.out={D}", "projector.hidden=16", *sets)})


def made(objective: str, negatives: str | None, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return plan(objective, negatives).objective()


def rows(n: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(n, D, generator=torch.Generator().manual_seed(seed)).to(dtype).requires_grad_()


def call(objective: nn.Module, z: Tensor, groups: list[int], seed: int = 0) -> dict[str, Tensor]:
    """As the task does: seeded before each call, and told what a teacher says where it is taught."""
    taught = (z.detach().flip(1) * 0.5 + 0.1,) if hasattr(objective, "momentum") else ()
    torch.manual_seed(seed)
    told: dict[str, Tensor] = objective(z, torch.tensor(groups), *taught)
    return told


def sound_loss(told: dict[str, Tensor], z: Tensor) -> None:
    """A finite scalar with a finite gradient of z's own type; all else are finite scalars without gradient."""
    assert all(value.shape == () and bool(torch.isfinite(value)) for value in told.values())
    assert [name for name, value in told.items() if value.requires_grad] == ["loss"]
    told["loss"].backward()
    assert z.grad is not None and z.grad.dtype == z.dtype and bool(torch.isfinite(z.grad).all())


@every_pair
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_loss_and_gradient(objective: str, negatives: str | None, dtype: torch.dtype) -> None:
    """A few calls, so that what is remembered counts; after the first some gradient reaches z."""
    made_one, reached = made(objective, negatives), 0.0
    for turn in range(3):
        for groups in (BATCHES["two views"], BATCHES["four of a class"]):
            z = rows(8, turn, dtype)
            told = call(made_one, z, groups)
            sound_loss(told, z)
            assert told["loss"].dtype == (dtype if dtype == torch.float64 else torch.float32) or any(
                True
                for _ in (*made_one.parameters(), *made_one.buffers())  # then the type is that of its weights
            )
            reached += float(z.grad.abs().sum())
    assert reached > 0


@every_pair
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_degenerate_batches(objective: str, negatives: str | None, mode: str) -> None:
    """Finite whatever comes, first of all or later, and the same names every time."""
    names = call(made(objective, negatives), rows(8, 0), BATCHES["two views"]).keys()
    assert "loss" in names
    later = made(objective, negatives).train(mode == "train")
    for groups in BATCHES.values():
        for kind in (rows(len(groups), 1), torch.ones(len(groups), D), torch.zeros(len(groups), D)):
            for one in (made(objective, negatives).train(mode == "train"), later):
                z = kind.detach().clone().requires_grad_()
                told = call(one, z, groups)
                assert told.keys() == names
                sound_loss(told, z)


@every_pair
def test_state_goes_on_where_it_was(objective: str, negatives: str | None) -> None:
    """What an objective remembers is in its state_dict: another one that takes it over says the same next."""
    one, other = made(objective, negatives), made(objective, negatives, seed=9)
    for turn in range(3):
        call(one, rows(8, turn), BATCHES["two views"], seed=turn)
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    for turn in (3, 4):
        z, same = rows(8, turn), rows(8, turn)
        told, again = (call(m, x, BATCHES["uneven"], seed=turn) for m, x in ((one, z), (other, same)))
        assert told.keys() == again.keys() and all(torch.equal(told[k], again[k]) for k in told)
        told["loss"].backward(), again["loss"].backward()
        assert torch.equal(z.grad, same.grad)


@every_pair
def test_everything_that_learns_moves(objective: str, negatives: str | None) -> None:
    """Three steps of AdamW move every parameter that is pulled, and its teacher's after it.

    The first step may teach nothing, as a memory is empty then, and a teacher follows a step behind. A parameter with
    a rate of its own, such as a boundary, may be pulled to both sides alike.
    """
    task = plan(objective, negatives).task("shufflenet_v2_x0_5", "none", seed=0)
    before = {name: p.detach().clone() for name, p in task.named_parameters()}
    own = {f"objective.{name}" for name in getattr(task.objective, "own_rates", {})}
    pulled: set[str] = set()
    optimiser = adamw(task, lr=1e-3, weight_decay=0)
    for turn in range(3):
        batch: Batch = {
            "views": torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(turn)),
            "groups": torch.tensor(BATCHES["two views"]) + 4 * turn,
            "pictures": 4,
            "key": turn,
        }
        told = task.training_step(batch)
        optimiser.zero_grad()
        told["loss"].backward()
        optimiser.step()
        pulled |= {name for name, p in task.named_parameters() if p.grad is not None and bool(p.grad.any())}
    for name, p in task.named_parameters():
        taught = name.startswith("teacher.")
        assert p.requires_grad is not taught, name
        assert taught or name in own or name in pulled, f"{name} is not pulled"
        assert bool((p != before[name]).any()) == (taught or name in pulled), name
        assert bool(torch.isfinite(p).all()), name


@every_entry
def test_settings_are_typed_keyword_only_and_have_defaults(role: str, name: str) -> None:
    target = catalog.locate(TABLES[role][name])
    given = {"objective": {"negatives", "dim"}, "negatives": set(), "positives": {"pictures", "seed"}}[role]
    assert set(catalog.positional(target)) <= given
    hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    arguments = inspect.signature(target).parameters
    assert all(p.kind is not p.VAR_KEYWORD and p.kind is not p.VAR_POSITIONAL for p in arguments.values())
    found = catalog.settings(target)
    assert found.keys() == arguments.keys() - set(catalog.positional(target))
    for setting, (kind, default) in found.items():
        assert kind == hints[setting] and default is not inspect.Parameter.empty
        assert catalog.convert(setting, "none" if default is None else str(default), kind) == default


@every_entry
def test_built_from_its_defaults_twice_nothing_is_shared(role: str, name: str) -> None:
    if role == "positives":
        assert belonging(name) is not belonging(name)
    elif role == "negatives":
        target = catalog.locate(TABLES[role][name])
        assert target() is not target()
    else:
        one, other = made(name, None), made(name, None)
        shared = {id(p) for p in (*one.parameters(), *one.buffers())}
        assert not shared & {id(p) for p in (*other.parameters(), *other.buffers())}


@pytest.mark.parametrize(("role", "name", "setting"), SETTINGS)
def test_a_setting_out_of_range_is_refused(role: str, name: str, setting: str) -> None:
    """By one line that names it, before there is anything to train."""
    kind, _ = catalog.settings(catalog.locate(TABLES[role][name]))[setting]
    kinds = [k for k in typing.get_args(kind) or (kind,) if k in OUT_OF_RANGE]
    for value in [value for k in kinds for value in OUT_OF_RANGE[k]]:
        with pytest.raises(SeeallError) as fault:
            if role == "positives":
                belonging(name, **{setting: value})
            elif role == "negatives":
                catalog.locate(TABLES[role][name])(**{setting: value})
            else:
                plan(name, None, f"objective.{setting}={value}")
        assert "\n" not in str(fault.value) and setting in str(fault.value)


@every_entry
def test_it_is_in_the_table_of_what_goes_together(role: str, name: str) -> None:
    if role == "objective":
        assert name in USES and USES[name].purpose and USES[name].positives
        wants = "negatives" in catalog.positional(catalog.locate(TABLES[role][name]))
        assert not wants or USES[name].negatives
    else:
        assert any(name in getattr(use, role) for use in USES.values())


def test_nothing_else_is_in_the_table_of_what_goes_together() -> None:
    assert USES.keys() == catalog.OBJECTIVES.keys()
    for use in USES.values():
        assert set(use.positives) <= catalog.POSITIVES.keys() and set(use.negatives) <= catalog.NEGATIVES.keys()
        assert len(set(use.positives)) == len(use.positives) and len(set(use.negatives)) == len(use.negatives)


@every_entry
def test_its_file_says_what_it_is(role: str, name: str) -> None:
    """An objective names the paper it follows, and so does whatever has settings to choose negatives by."""
    target = catalog.locate(TABLES[role][name])
    words = inspect.getdoc(importlib.import_module(target.__module__))
    assert words and len(words) > 20 and inspect.getdoc(target)
    if role == "objective" or (role == "negatives" and catalog.settings(target)):
        assert re.search(r"arXiv:\d{4}\.\d{4,5}|[A-Z][\w-]+ (et al\. |and [A-Z]\w+ )?(19|20)\d\d", words)


@functools.cache
def pictures() -> Pictures:
    return find(PICTURES)


def belonging(name: str, **settings: Any) -> Belonging:
    found: Belonging = catalog.locate(catalog.POSITIVES[name])(pictures(), 3, **settings)
    return found


@pytest.mark.parametrize("name", catalog.POSITIVES)
def test_belonging_is_a_function_of_seed_and_epoch(name: str) -> None:
    one, other = belonging(name), belonging(name)
    assert one.together >= 1
    for epoch in (4, 0, 4):
        groups = one.groups(epoch)
        assert groups.shape == (len(pictures()),) and groups.dtype == torch.int64
        assert torch.equal(groups, other.groups(epoch))
    _, sizes = one.groups(0).unique(return_counts=True)
    assert len(sizes) > 1, "nobody is left to be told from"
    assert one.together == 1 or int(sizes.max()) > 1, "nobody belongs together"


@pytest.mark.parametrize("name", catalog.POSITIVES)
def test_what_is_heard_meets_what_is_seen(name: str) -> None:
    """Ears and something to hear come together or not at all; the ears take it to as many dimensions as asked."""
    found = belonging(name)
    assert (found.ears is None) == (found.hear is None)
    found.prepare()
    if found.ears is None or found.hear is None:
        return
    heard, again = (found.hear(torch.tensor([5, 0, 7]), 2) for _ in range(2))
    assert heard.shape[0] == 3 and heard.dtype == torch.float32 and torch.equal(heard, again)
    z = found.ears(lambda dim: nn.Linear(dim, D))(heard)
    assert z.shape == (3, D) and bool(torch.isfinite(z).all())


OWN = '''"""A loss of one's own (Nobody 2024)."""

import torch
from torch import nn

from seeall.types import SeeallError


class Pull(nn.Module):
    def __init__(self, dim, *, strength: float = 1.0, hidden: int | None = None):
        super().__init__()
        if strength <= 0:
            raise SeeallError(f"pull: strength is {strength}: choose above 0")
        self.strength, self.weight = strength, nn.Linear(dim, hidden or dim)

    def forward(self, z, groups):
        z = nn.functional.normalize(self.weight(z.float()), dim=1)
        likeness, same = z @ z.T, groups[:, None] == groups
        loss = self.strength * (likeness[~same].square().mean() - likeness[same].mean())
        return {"loss": loss, "strength": torch.tensor(self.strength)}


class Push(nn.Module):
    def __init__(self, negatives):
        super().__init__()
        self.negatives = negatives

    def forward(self, z, groups):
        return {"loss": z.float().square().mean(), "miner": torch.tensor(float(self.negatives.margin))}
'''
TINY = {"backbone": "shufflenet_v2_x0_5", "batch_size": 8, "steps": 2, "image_size": 32}
WORLD = "scenes:n=16,size=32,identities=4"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A file with objectives, on the path."""
    name = "a_loss_of_ones_own"
    (tmp_path / f"{name}.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield name
    sys.modules.pop(name, None)


def test_an_objective_of_ones_own_trains(own: str, tmp_path: Path) -> None:
    sets = ("strength=0.25", "objective.hidden=5", "projector.out=12")
    results = pretrain(WORLD, tmp_path / "run", objective=f"{own}:Pull", set=sets, **TINY)
    assert results["strength"] == 0.25 and abs(results["loss"]) < 1
    assert (tmp_path / "run" / "backbone.safetensors").exists()
    results = pretrain(
        WORLD, tmp_path / "labels", objective=f"{own}:Push", positives="labels", negatives="semihard",
        set=("margin=0.5",), **TINY,
    )  # fmt: skip
    assert results["miner"] == 0.5


@pytest.mark.parametrize(
    ("what", "sets", "words"),
    [
        ("Pull", ("strenght=1",), "unknown setting 'strenght': did you mean strength"),
        ("Pull", ("strength=much",), "'strength' wants a number, not 'much'"),
        ("Pull", ("strength=0",), "pull: strength is 0.0: choose above 0"),
        ("Draw", (), "cannot be imported: .*no attribute 'Draw'"),
    ],
)
def test_mistakes_with_an_objective_of_ones_own(
    own: str, what: str, sets: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    with pytest.raises(SeeallError, match=words) as fault:
        pretrain("nowhere", tmp_path / "run", objective=f"{own}:{what}", set=sets, **TINY)
    assert "\n" not in str(fault.value) and not (tmp_path / "run").exists()
