"""What goes together trains; what does not is refused before a picture is read, by a reason that names what does."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from seeall import catalog, combinations
from seeall.data.hearing import find_heard
from seeall.data.pixels import Store, load
from seeall.data.sampler import Grouped, Sampler
from seeall.index.nearest import nearest
from seeall.ssl.composing import Composed
from seeall.ssl.feed import Feed
from seeall.ssl.positives.belonging import Belonging
from seeall.ssl.pretrain import Plan
from seeall.training.engine import Engine, launch
from seeall.types import SeeallError

Ssl = Callable[..., tuple[int, str, str]]
BACKBONE, SIZE, BATCH = "shufflenet_v2_x0_5", 32, 16
STILL, MOVING = "scenes:n=32,size=32,identities=8,labels=identity", "scenes:n=6,frames=8,size=32"
SMALL = {"sound": {"seconds": 0.25, "rate": 8000, "mels": 24, "width": 8}}
"""Settings of the positives that are not their own: what is heard is small, too."""
README = Path(__file__).parents[1] / "README.md"
ALONE = ("vicreg", "barlow_twins", "simsiam", "byol", "dino")
MINED = ("random", "hard", "semihard", "distance")
EVERYTHING = list(itertools.product(catalog.OBJECTIVES, catalog.POSITIVES, (None, *catalog.NEGATIVES)))


def goes(objective: str, positives: str, negatives: str | None) -> bool:
    """The rules in words of their own. None is the objective's own choice."""
    if positives == "sound" and objective in ("simsiam", "byol", "dino", "moco"):
        return False  # a predictor or a teacher that knows pictures alone
    if positives == "time" and (objective == "moco" or negatives in ("queue", "neighbours")):
        return False  # who belongs together changes, and what is just outside the window is no negative
    if negatives is None:
        return True
    if objective in ALONE:
        return False
    if objective == "moco":
        return negatives == "queue"
    if objective == "simclr":
        return negatives not in MINED  # it weighs all
    return negatives != "reweighted"  # which is a form of NT-Xent


def own(objective: str, negatives: str | None) -> bool:
    """Whether a negative is written out, or there is none to be written."""
    return (negatives is None) == (objective in ALONE)


SENSIBLE = [one for one in EVERYTHING if goes(*one) and own(one[0], one[2])]
REFUSED = [one for one in EVERYTHING if not goes(*one)]


def test_the_list_of_what_is_sensible_follows_the_rules() -> None:
    assert sorted(combinations.sensible(), key=str) == sorted(SENSIBLE, key=str)
    assert len(set(combinations.sensible())) == len(SENSIBLE) > 100


def test_the_check_follows_the_rules() -> None:
    """What it answers is what was asked for, or the objective's own, and is sensible; what it refuses is not."""
    for objective, positives, negatives in EVERYTHING:
        try:
            chosen = combinations.check(objective, positives, negatives)
        except SeeallError:
            assert not goes(objective, positives, negatives), (objective, positives, negatives)
        else:
            assert goes(objective, positives, negatives), (objective, positives, negatives)
            assert (objective, positives, chosen) in SENSIBLE
            assert negatives is None or chosen == negatives


def test_an_objective_of_ones_own_goes_with_everything() -> None:
    assert combinations.check("mine:Loss", "time", "queue") == "queue"
    assert combinations.check("mine:Loss", "views", None) == "all"


PAIRS = ("vicreg", "barlow_twins", "simsiam", "byol", "dino", "moco")


@pytest.mark.parametrize("objective", catalog.OBJECTIVES)
@pytest.mark.parametrize(
    ("positives", "sets", "rows", "said"),
    [
        ("views", ("views=3",), 3, "setting 'views' is 3"),
        ("views", ("views=4",), 4, ""),
        ("views", (), 2, ""),
        ("labels", ("together=3",), 3, "setting 'together' is 3"),
        ("labels", ("together=5", "views=3"), 15, "setting 'together' is 5"),
        ("labels", ("together=3", "views=2"), 6, ""),
        ("labels", ("views=3",), 12, ""),
        ("labels", (), 4, ""),
        ("sound", (), 2, ""),
    ],
)
def test_an_odd_last_row_is_refused_where_it_would_have_no_part(
    objective: str, positives: str, sets: tuple[str, ...], rows: int, said: str
) -> None:
    """Rows of one group: an odd last one has a gradient exactly where nothing is refused."""
    if not goes(objective, positives, None):
        return
    names = {"objective": objective, "positives": positives, "negatives": None}
    options = {**names, "backbone": "plain", "optimiser": "adamw", "lr": None, "set": sets}
    if not said or objective not in PAIRS:
        plan = Plan.of(options)
        torch.manual_seed(0)
        z, groups = torch.randn(2 * rows, 128, requires_grad=True), torch.arange(2).repeat(rows)
        made = plan.objective()
        taught = (torch.randn(2 * rows, 128),) if hasattr(made, "momentum") else ()
        for _ in range(2):  # MoCo's memory is empty the first time
            made(z, groups, *taught)["loss"].backward()
        assert z.grad is not None
        if objective in PAIRS:  # a miner may pass rows over
            assert bool((z.grad != 0).any(1).all())
        return
    with pytest.raises(SeeallError) as error:
        Plan.of(options)
    assert str(error.value).startswith(f"{said}: --objective {objective} learns from pairs, so the last of ")
    assert f"choose an even number, such as {int(said[-1]) + 1}" in str(error.value) and "\n" not in str(error.value)


class World(NamedTuple):
    """Pictures that were read once, and who belongs together among them, by the name of the positives."""

    engine: Engine
    stores: dict[str, Store]
    belonging: dict[str, Belonging]


@pytest.fixture(scope="module")
def world() -> World:
    still, moving = (load(find_heard(data), shortest=SIZE, workers=1) for data in (STILL, MOVING))
    stores = {"views": still, "labels": still, "time": moving, "sound": still}
    found = {
        name: catalog.locate(catalog.POSITIVES[name])(stores[name].pictures, 0, **SMALL.get(name, {}))
        for name in stores
    }
    for one in found.values():
        one.prepare()
    return World(launch(devices=1, precision="32"), stores, found)


@pytest.mark.parametrize(("objective", "positives", "negatives"), combinations.sensible())
def test_what_is_sensible_trains(
    objective: str, positives: str, negatives: str | None, world: World, tmp_path: Path
) -> None:
    """Two steps as `pretrain` takes them; with neighbours, those after the first search."""
    sets = ("every=1", "ceiling=1") if negatives == "neighbours" else ()
    names = {"objective": objective, "positives": positives, "negatives": negatives}
    plan = Plan.of({**names, "backbone": BACKBONE, "optimiser": "adamw", "lr": None, "set": sets})
    store, belonging = world.stores[positives], world.belonging[positives]
    task = plan.task(BACKBONE, "none", 0, belonging.ears)
    order = Grouped(belonging.groups, belonging.together, BATCH, 0) if belonging.together > 1 else None
    sampler, begin = Sampler(len(store), BATCH, 0, order=order), 0
    if negatives == "neighbours":
        assert plan.composes
        begin = sampler.steps_per_epoch
        composed = Composed(
            plan.composes, nearest, belonging, store, task, world.engine,
            size=SIZE, seed=0, epoch_steps=begin, folder=tmp_path / "checkpoints", before=sampler.epoch,
        )  # fmt: skip
        composed.pause(begin)
        sampler = Sampler(len(store), BATCH, 0, order=composed)
        assert bool((composed(1) != order(1) if order else composed(1) != sampler.epoch(0)).any())
        assert (tmp_path / "checkpoints" / "neighbours-1.safetensors").exists()
    feed = Feed(store, plan.views, sampler, task, SIZE, 0, world.engine.device, belonging)
    optimiser = plan.optimiser(task)
    before = next(task.backbone.parameters()).detach().clone()
    for t in (begin, begin + 1):
        batch = feed.fetch(t)
        assert len(batch["views"]) == BATCH * plan.views.views == BATCH * (2 if positives == "views" else 1)
        assert ("sounds" in batch) == (positives == "sound")
        _, sizes = batch["groups"].unique(return_counts=True)
        assert len(sizes) > 1 and (positives == "sound" or int(sizes.max()) > 1)
        told = task.training_step(batch)
        assert all(bool(torch.isfinite(value)) for value in told.values()), told
        optimiser.zero_grad()
        told["loss"].backward()
        optimiser.step()
    assert not torch.equal(before, next(task.backbone.parameters()))


@pytest.mark.parametrize(("objective", "positives", "negatives"), REFUSED)
def test_what_is_not_is_refused_before_anything_is_read(
    objective: str, positives: str, negatives: str | None, ssl: Ssl, tmp_path: Path
) -> None:
    """There is no such data, and that would be the first thing to be noticed."""
    asked = ["--objective", objective, "--positives", positives, *(["--negatives", negatives] if negatives else [])]
    code, out, err = ssl("pretrain", tmp_path / "nowhere", "--out", tmp_path / "run", *asked)
    assert code == 2 and out == "" and not (tmp_path / "run").exists()
    (line,) = err.splitlines()
    assert line.startswith("error: --") and "nowhere" not in line
    culprits = {objective, positives, *([negatives] if negatives else [])}
    assert len(culprits & set(re.findall(r"--\w+ (\w+)", line))) == (1 if "leave --negatives out" in line else 2)
    if "leave --negatives out" in line:
        assert goes(objective, positives, None)
        return
    reason = re.fullmatch(r"error: --\w+ \w+ does not go with --\w+ \w+: (.{20,}); (it goes with|choose) (.+)", line)
    assert reason, line
    for mend in reason[3].split(", "):
        if mend in catalog.POSITIVES:
            assert goes(objective, mend, None)
        else:
            assert goes(objective, positives, mend), f"{line}\nbut {mend} does not go with {positives}"


def test_lines_and_table_say_the_same() -> None:
    """A line and a row for each objective, with its purpose, its positives and its negatives."""
    lines, (head, rule, *rows) = combinations.lines(), combinations.table().splitlines()
    assert len(lines) == len(rows) == len(catalog.OBJECTIVES)
    assert head.count("|") == rule.count("|") == 5
    for objective, line, row in zip(combinations.USES, lines, rows):
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[0] == f"`{objective}`" and line.startswith(f"{objective}: ")
        for words in cells[1:]:
            assert words in line
        kinds = {one for one in combinations.sensible() if one[0] == objective}
        assert set(cells[2].split(", ")) == {positives for _, positives, _ in kinds}
        assert set(cells[3].split(", ")) == {negatives or "none" for _, _, negatives in kinds}


def test_the_help_has_them(ssl: Ssl) -> None:
    code, out, _ = ssl("pretrain", "--help")
    words = " ".join(out.split())
    assert code == 0
    for line in combinations.lines():
        assert line in words


def test_the_readme_has_the_table() -> None:
    """Between its markers, as `combinations.table` writes it."""
    text = README.read_text(encoding="utf-8")
    found = re.search(r"<!-- combinations -->\n(.*?)\n<!-- /combinations -->", text, re.DOTALL)
    if not found:
        pytest.skip("the README has no place for the table yet")
    assert found[1].strip() == combinations.table()


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"positives": "label"}, "unknown positives 'label': did you mean labels"),
        ({"negatives": "semihrd"}, "unknown negatives 'semihrd': did you mean semihard"),
        ({"objective": "triplets"}, "unknown objective 'triplets': did you mean triplet"),
        ({"positives": "zzz"}, "unknown positives 'zzz': choose from: labels, sound, time, views"),
    ],
)
@pytest.mark.parametrize("way", ["run", "settings"])
def test_names_that_are_none(asked: dict[str, Any], words: str, way: str, ssl: Ssl, tmp_path: Path) -> None:
    options = [part for name, value in asked.items() for part in (f"--{name}", value)]
    more = [tmp_path / "nowhere", "--out", tmp_path / "run"] if way == "run" else ["--settings"]
    code, out, err = ssl("pretrain", *more, *options)
    assert code == 2 and out == "" and words in err.splitlines()[-1], err
