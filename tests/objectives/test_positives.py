"""Who belongs together: labels, sound and views, and the batches that are made of them."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from seeall.data.pictures import find
from seeall.data.pixels import load
from seeall.data.sampler import Grouped, Sampler
from seeall.ssl.feed import Feed
from seeall.ssl.listening import FILE, Together
from seeall.ssl.positives.labels import labels
from seeall.ssl.positives.sound import sound
from seeall.ssl.positives.time import time
from seeall.ssl.positives.views import views
from seeall.ssl.pretrain import Plan, pretrain
from seeall.types import SeeallError
from tests.objectives.grey_pictures import made


def batches(groups: Tensor, together: int, batch: int, *, seed: int = 0, epochs: int = 1) -> list[Tensor]:
    sampler = Sampler(len(groups), batch, seed, order=Grouped(lambda epoch: groups, together, batch, seed))
    return [sampler(t)[1] for t in range(epochs * sampler.steps_per_epoch)]


# views


def test_views_are_alone() -> None:
    found = views(made(["a", "a", "b"]), 0)
    assert found.groups(7).tolist() == [0, 1, 2] and found.together == 1 and found.hear is None


# labels


def test_pictures_of_one_label_belong_together(notes: list[str]) -> None:
    names = [f"person {i % 7}" for i in range(30)]
    found = labels(made(names), 0, together=3)
    for epoch in (0, 5):
        groups = found.groups(epoch).tolist()
        for i, j in itertools.combinations(range(30), 2):
            assert (groups[i] == groups[j]) == (names[i] == names[j])
    assert found.together == 3 and labels(made(names), 0).together == 4 and notes == []


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (None, "memory: no labels found, or one alone; give each class a sub-folder or a manifest a column 'label'"),
        (["a"] * 5, "memory: all pictures have one label, so there is nothing to tell apart"),
        (list("abcde"), "memory: no label has two pictures, so none belong together; give more, or choose --positives"),
    ],
)
def test_labels_that_will_not_do(names: list[str] | None, words: str) -> None:
    pictures = made(names) if names else made(moments=[("a", 0.0)] * 4)
    with pytest.raises(SeeallError, match=f"^{re.escape(words)}") as fault:
        labels(pictures, 0)
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize("together", [1, 0, -4])
def test_fewer_than_two_are_no_group(together: int) -> None:
    for positives, pictures in ((labels, made(list("aabb"))), (time, made(moments=[("a", 0.0), ("a", 0.1)]))):
        with pytest.raises(SeeallError, match=f"^setting 'together' is {together}: choose 2 pictures of a group or mo"):
            positives(pictures, 0, together=together)


def test_who_is_alone_is_left_out_and_named(notes: list[str]) -> None:
    alone = ["zoe", "amy", "bob", "eve", "dan", "cat", "fay"]
    names = ["ann"] * 6 + alone + ["ben"] * 5
    found = labels(made(names), 0, together=2)
    assert notes == [
        "left out, as a picture alone in its class has nothing to be near to: 7 of 9 classes: "
        "amy, bob, cat, dan, eve and 2 more"
    ]
    rows = torch.cat(batches(found.groups(0), 2, 4, epochs=20)).tolist()
    assert {names[row] for row in rows} == {"ann", "ben"}
    notes.clear()
    labels(made(["a", "a", "b"]), 0)
    assert notes == [
        "left out, as a picture alone in its class has nothing to be near to: 1 of 2 classes: b"
    ]  # fmt: skip


@pytest.mark.parametrize(("classes", "together", "batch"), [(8, 4, 16), (5, 4, 16), (3, 4, 8), (7, 2, 12), (4, 3, 12)])
@pytest.mark.parametrize("seed", range(5))
def test_batches_are_so_many_classes_of_so_many_pictures(classes: int, together: int, batch: int, seed: int) -> None:
    """P classes, K pictures each, in every batch (Hermans et al. 2017, section 2); all of them equally often."""
    groups = torch.arange(classes * 20) % classes
    shown: Counter[int] = Counter()
    visits: Counter[int] = Counter()
    for rows in batches(groups, together, batch, seed=seed):
        assert len(set(rows.tolist())) == batch
        assert sorted(Counter(groups[rows].tolist()).values()) == [together] * (batch // together)
        shown.update(rows.tolist())
        visits.update(set(groups[rows].tolist()))
    assert max(visits.values()) - min(visits.values()) <= 2 and len(visits) == classes
    for g in range(classes):
        within = [shown[row] for row in range(len(groups)) if groups[row] == g]
        assert max(within) - min(within) <= 1


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    """Asked in any order, by anyone, now or later; and another seed, or epoch, has others."""
    groups = torch.arange(60) % 6
    straight = batches(groups, 4, 12, epochs=4)
    sampler = Sampler(60, 12, 0, order=Grouped(lambda epoch: groups, 4, 12, 0))
    for t in (19, 0, 7, 6, 19, 3, 12):
        epoch, rows = sampler(t)
        assert epoch == t // 5 and torch.equal(rows, straight[t])
        again = Sampler(60, 12, 0, order=Grouped(lambda epoch: groups, 4, 12, 0))
        assert torch.equal(again(t)[1], rows)
    assert not torch.equal(straight[0], straight[5])
    assert not torch.equal(straight[0], batches(groups, 4, 12, seed=1)[0])


@pytest.mark.parametrize("world", [2, 3, 4])
def test_shares_of_all_processes_are_the_batch_of_one(world: int) -> None:
    groups = torch.arange(60) % 6
    parts = [Sampler(60, 12, 0, r, world, Grouped(lambda epoch: groups, 4, 12, 0)) for r in range(world)]
    for t, rows in enumerate(batches(groups, 4, 12, epochs=2)):
        assert torch.equal(torch.cat([part(t)[1] for part in parts]), rows)


@settings(deadline=None, max_examples=150, derandomize=True)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    together=st.integers(2, 6),
    batch=st.integers(2, 16),
    seed=st.integers(0, 2**40),
    epoch=st.integers(0, 50),
)
def test_any_groups(sizes: list[int], together: int, batch: int, seed: int, epoch: int) -> None:
    """No picture twice, nobody alone, all of a group equally often, as many groups in a batch as there can be."""
    values = [(-7) ** g for g in range(len(sizes)) for _ in range(sizes[g])]
    groups = torch.tensor(values)[torch.randperm(len(values), generator=torch.Generator().manual_seed(seed % 2**31))]
    assume(len(groups) >= batch)
    usable = sum(size for size in sizes if size > 1)
    order = Grouped(lambda e: groups, together, batch, seed)
    if usable < batch:
        with pytest.raises(SeeallError, match=f"^--batch-size {batch}: only {usable} pictures belong .* most {usable}"):
            order(0)
        return
    rows = order(epoch)
    assert rows.dtype == torch.int64 and len(rows) == len(groups) // batch * batch
    size_of = Counter(groups.tolist())
    able = [g for g in size_of if size_of[g] > 1]
    for part in torch.split(rows, batch):
        here = Counter(groups[part].tolist())
        assert len(set(part.tolist())) == batch
        assert all(size_of[g] > 1 for g in here)
        full = sum(min(together, size_of[g]) for g in able)
        assert batch >= full or all(count <= together for count in here.values())
        assert batch < full or all(here[g] >= min(together, size_of[g]) for g in able)
        short = [g for g in here if here[g] < min(together, size_of[g])]
        assert len(short) <= 1  # the last one fills what room is left
    shown = Counter(rows.tolist())
    for g in able:
        within = [shown[row] for row in range(len(groups)) if int(groups[row]) == g]
        assert max(within) - min(within) <= 1
    assert torch.equal(rows, Grouped(lambda e: groups, together, batch, seed)(epoch))


# sound


def test_a_picture_and_its_sound_are_a_group() -> None:
    """A batch has the views of its pictures, what was heard with each of them, and a number for every pair."""
    pictures = find("scenes:n=12,size=32,identities=4")
    names = {"objective": "simclr", "positives": "sound", "negatives": None, "lr": None}
    plan = Plan.of({**names, "backbone": "shufflenet_v2_x0_5", "optimiser": "adamw", "set": ("projector.out=5",)})
    found = sound(pictures, 0, seconds=0.2, rate=8000, mels=16, width=2)
    assert found.together == 1 and found.groups(3).tolist() == list(range(12))
    task = plan.task("shufflenet_v2_x0_5", "none", 0, found.ears)
    found.prepare()
    feed = Feed(load(pictures, shortest=32), plan.views, Sampler(12, 6, 0), task, 32, 0, torch.device("cpu"), found)
    batch = feed.fetch(1)
    epoch, rows = feed.sampler(1)
    assert batch["groups"].tolist() == rows.tolist() and batch["views"].shape == (6, 3, 32, 32)
    assert found.hear is not None and torch.equal(batch["sounds"], found.hear(rows, epoch))
    assert batch["sounds"].shape == (6, 1600)
    seen: list[tuple[Tensor, Tensor]] = []
    task.objective.register_forward_pre_hook(lambda module, given: seen.append(given))
    task.training_step(batch)
    z, groups = seen[0]
    assert z.shape == (12, 5) and groups.tolist() == rows.tolist() * 2


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"seconds": 0.01}, "setting 'seconds' is 0.01: choose from 0.05 to 60; 1 is usual"),
        ({"seconds": math.nan}, "setting 'seconds' is nan: choose from 0.05 to 60; 1 is usual"),
        ({"seconds": 61.0}, "setting 'seconds' is 61.0: choose from 0.05 to 60; 1 is usual"),
        ({"rate": 0}, "rate must be 1 to 999999 Hz, not 0"),
        ({"mels": 0}, "mels must be at least 1, not 0"),
        ({"mels": 5000}, "5000 bands are too many"),
        ({"width": 0}, "width must be at least 1, not 0"),
    ],
)
def test_settings_of_sound_that_will_not_do(setting: dict[str, float], words: str) -> None:
    with pytest.raises(SeeallError, match=re.escape(words)):
        sound(find("scenes:n=2,size=16"), 0, **setting)


def test_pictures_without_sounds() -> None:
    with pytest.raises(SeeallError, match="^memory: no sounds found; give a manifest with columns 'path' and 'sound'"):
        sound(made(["a", "b"]), 0)


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learnt from sound."""
    out = tmp_path_factory.mktemp("heard") / "run"
    sets = ("seconds=0.2", "rate=8000", "mels=16", "positives.width=2", "projector.out=7", "projector.hidden=16")
    pretrain(
        "scenes:n=16,size=32,identities=4", out, positives="sound", backbone="shufflenet_v2_x0_5", image_size=32,
        batch_size=8, steps=2, set=sets,
    )  # fmt: skip
    return out


def test_a_run_that_heard_has_its_ears(heard: Path) -> None:
    """What it sees and hears comes to one space; the ears' projector is another than the eyes'."""
    both, pictures = Together.of(heard), find("scenes:n=5,size=32,identities=4")
    z, rows = both.see(pictures)
    told = both.hear(pictures, rows)
    assert rows == list(range(5)) and z.shape == told.shape == (5, 7)
    assert bool(torch.isfinite(torch.cat([z, told])).all()) and not torch.allclose(z, told)
    torch.testing.assert_close(both.hear(pictures, [3, 1]), told[[3, 1]])
    assert torch.equal(Together.of(heard).see(pictures)[0], z)


def test_runs_without_ears_or_with_damaged_ones(heard: Path, run: Path, tmp_path: Path) -> None:
    with pytest.raises(SeeallError, match="has not learnt from sound; pretrain with --positives sound$"):
        Together.of(run)
    for name in (FILE, "backbone.safetensors"):
        (tmp_path / name).write_bytes((heard / name).read_bytes())
    content = (tmp_path / FILE).read_bytes()
    for damaged in (content[: len(content) // 2], b"", content.replace(b"ears.", b"tail.")):
        (tmp_path / FILE).write_bytes(damaged)
        with pytest.raises(SeeallError, match=f"{FILE}: damaged: ") as fault:
            Together.of(tmp_path)
        assert "\n" not in str(fault.value)


# what a run says


def test_a_note_is_given_once(tmp_path: Path, notes: list[str]) -> None:
    for i in range(17):
        (tmp_path / "in" / ("cat", "dog")[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), (15 * i, 99, 0)).save(tmp_path / "in" / ("cat", "dog")[i % 2] / f"{i}.png")
    (tmp_path / "in" / "emu").mkdir()
    Image.new("RGB", (40, 40), "red").save(tmp_path / "in" / "emu" / "1.png")
    pretrain(
        str(tmp_path / "in"), tmp_path / "out", positives="labels", backbone="shufflenet_v2_x0_5", image_size=32,
        batch_size=8, steps=1,
    )  # fmt: skip
    assert len([note for note in notes if "emu" in note]) == 1
