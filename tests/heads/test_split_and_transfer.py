"""Who learns from what, and how much of the backbone learns along."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from seeall.backbones.load import build as build_backbone
from seeall.data.annotations.layouts import find_annotated
from seeall.data.annotations.truth import Annotated, Truth
from seeall.data.motion import fields
from seeall.data.motion.movie import Movie
from seeall.data.motion.pairs import find_pairs
from seeall.data.pictures import Pictures
from seeall.heads.finetune import finetune
from seeall.heads.split import divided, few, limited
from seeall.heads.transfer import freeze, leave_out, rates, stages_of, transfer
from seeall.training.optimisers import adamw, sgd
from seeall.types import SeeallError


def known(labels: str, splits: list[str | None] | None = None, knows: str = "label") -> Annotated:
    """A picture for each letter, which is its label."""
    names = sorted(set(labels))
    ids = [f"{i}.png" for i in range(len(labels))]
    pictures = Pictures(
        "mine", ids, ids, lambda key, _: key, labels=list(labels) if knows == "label" else None, splits=splits
    )
    return Annotated(
        pictures, names, frozenset({knows}), [names.index(x) for x in labels], lambda note, h, w: Truth(label=note)
    )


def never(data: str) -> Annotated:
    raise AssertionError(data)


def ids(*parts: Annotated) -> list[list[str]]:
    return [list(part.pictures.ids) for part in parts]


def test_holding_back_is_a_function_of_the_seed_and_fair_to_classes() -> None:
    data = known("a" * 60 + "b" * 30 + "c" * 10)
    learnt, held = divided(data, None, never, 0)
    assert sorted([*learnt.pictures.ids, *held.pictures.ids]) == sorted(data.pictures.ids)
    assert Counter(held.notes) == {0: 12, 1: 6, 2: 2} and Counter(learnt.notes) == {0: 48, 1: 24, 2: 8}
    assert ids(learnt, held) == ids(*divided(data, "0.2", never, 0)) != ids(*divided(data, None, never, 1))
    assert len(divided(data, "0.05", never, 3)[1]) == 5
    rare = divided(known("a" * 19 + "b"), None, never, 0)[1]
    assert Counter(rare.notes) == {0: 4}, "a class of one picture is learnt from"


def test_boxes_are_held_back_whatever_their_folders() -> None:
    data = known("a" * 50, knows="boxes")
    learnt, held = divided(data, None, never, 0)
    assert (len(learnt), len(held)) == (40, 10) and not set(learnt.pictures.ids) & set(held.pictures.ids)


def test_splits_of_the_data_are_kept() -> None:
    data = known("ab" * 6, ["train"] * 6 + ["val"] * 2 + ["test"] * 3 + [None])
    learnt, held = divided(data, None, never, 0)
    assert ids(learnt, held) == [[f"{i}.png" for i in range(6)], ["6.png", "7.png"]]
    tested = dataclasses.replace(data, pictures=dataclasses.replace(data.pictures, splits=["train"] * 6 + ["test"] * 6))
    assert len(divided(tested, None, never, 0)[1]) == 6
    shared = divided(data, "0.5", never, 0)
    assert (
        sorted(name for part in ids(*shared) for name in part) == [f"{i}.png" for i in range(6)] and len(shared[1]) == 3
    )
    learnt, held = divided(data, "other", lambda _: data, 0)
    assert ids(learnt, held) == [[f"{i}.png" for i in range(6)], ["6.png", "7.png"]]
    whole = known("abab")
    assert ids(*divided(whole, "other", lambda _: whole, 0)) == ids(whole, whole)


def test_other_classes_are_refused() -> None:
    for other in (known("abc"), known("a"), known("xy")):
        with pytest.raises(SeeallError, match="has other classes"):
            divided(known("abab"), "other", lambda _, other=other: other, 0)  # type: ignore[misc]


def test_few_are_drawn_by_seed_all_classes_alike() -> None:
    data = known("a" * 60 + "b" * 30 + "c" * 10)
    some = few(data, "15", 0)
    assert Counter(some.notes) == {0: 5, 1: 5, 2: 5}
    assert ids(some) == ids(few(data, "15%", 0)) == ids(limited(data, 15, 0)) != ids(few(data, "15", 1))
    assert set(few(data, "6", 0).pictures.ids) < set(some.pictures.ids), "fewer are some of more"
    assert few(data, None, 0) is data and len(few(data, "100%", 0)) == 100 == len(limited(data, 1000, 0))
    bare = known("a" * 40, knows="boxes")
    assert len(few(bare, "25%", 0)) == 10 and ids(few(bare, "10", 0)) == ids(few(bare, "25%", 0))
    assert [data.pictures.ids.index(i) for i in some.pictures.ids] == sorted(
        data.pictures.ids.index(i) for i in some.pictures.ids
    )


BACKBONES = {
    "resnet18": [
        "conv1.weight",
        "layer1.1.bn2.bias",
        "layer2.0.conv1.weight",
        "layer3.1.conv2.weight",
        "layer4.0.bn1.weight",
    ],
    "shufflenet_v2_x0_5": [],
    "mobilenet_v3_small": [],
    "convnext_tiny": [],
    "vit_tiny": [],
    "timm/resnet10t": [],
}


@pytest.mark.parametrize("name", BACKBONES)
def test_a_parameter_is_of_the_first_stage_that_depends_on_it(name: str) -> None:
    """Change it, and the maps before that stage stay as they are."""
    torch.manual_seed(0)
    backbone, _ = build_backbone(name, **({"layers": 4} if name == "vit_tiny" else {}))
    backbone.eval()
    stages = stages_of(backbone)
    assert list(stages) == [n for n, _ in backbone.named_parameters()]
    assert set(stages.values()) == set(range(len(backbone.channels)))
    assert all(p.requires_grad for p in backbone.parameters()) and not backbone.training
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        before = backbone.stages(x)
        for k in range(len(backbone.channels)):
            late = [p for n, p in backbone.named_parameters() if stages[n] > k]
            kept = [p.clone() for p in late]
            for p in late:
                p += 1
            assert all(torch.equal(a, b) for a, b in zip(before[: k + 1], backbone.stages(x)[: k + 1]))
            for p, value in zip(late, kept):
                p.copy_(value)
    for place, short in enumerate(BACKBONES[name]):
        assert stages[f"network.{short}"] == max(0, place - 1)


@pytest.mark.parametrize("what", ["none", "1", "3", "backbone"])
def test_exactly_what_is_frozen_stays(what: str) -> None:
    """Parameters and BatchNorm's statistics, through steps of training."""
    torch.manual_seed(0)
    backbone, _ = build_backbone("resnet18")
    stages = stages_of(backbone)
    depth = {"none": 0, "backbone": 4}.get(what) or int(what if what.isdecimal() else 0)
    frozen = freeze(backbone, what)
    assert frozen == sum(stage < depth for stage in stages.values())
    head = nn.Sequential(backbone, nn.Linear(backbone.embed_dim, 2))
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    optimiser = sgd(head, lr=0.1)
    head.train()
    for _ in range(2):
        optimiser.zero_grad()
        head(torch.rand(4, 3, 32, 32)).square().sum().backward()
        optimiser.step()
    same = {name for name, value in backbone.state_dict().items() if torch.equal(value, before[name])}
    owners = {name.rpartition(".")[0]: stage for name, stage in stages.items()}
    assert same == {name for name in before if owners[name.rpartition(".")[0]] < depth}


def test_statistics_can_be_kept_while_weights_learn() -> None:
    backbone, _ = build_backbone("shufflenet_v2_x0_5")
    assert freeze(backbone, "none", norm="frozen") == 0
    before = {name: value.clone() for name, value in backbone.named_buffers()}
    backbone.train()(torch.rand(4, 3, 32, 32)).sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in backbone.named_buffers())
    assert all(p.requires_grad for p in backbone.parameters())


def test_rates_reach_the_optimiser() -> None:
    torch.manual_seed(0)
    backbone, _ = build_backbone("resnet18")
    task = nn.Module()
    task.network = nn.Sequential(backbone, nn.Linear(backbone.embed_dim, 2))
    task.rate_factors = rates(task, backbone, 0.1, 0.5)  # type: ignore[assignment]
    stages = {f"network.0.{name}": stage for name, stage in stages_of(backbone).items()}
    wanted = {id(p): 0.1 * 0.5 ** (3 - stages[n]) if n in stages else 1.0 for n, p in task.named_parameters()}
    optimiser = adamw(task, lr=0.01)
    told = {id(p): group["lr"] for group in optimiser.param_groups for p in group["params"]}
    assert told == {key: pytest.approx(0.01 * factor) for key, factor in wanted.items()}
    assert {round(group["lr"], 9) for group in optimiser.param_groups} == {0.01, 0.001, 0.0005, 0.00025, 0.000125}
    assert rates(task, backbone, 1.0, 1.0) == {}


def test_factors_out_of_bounds_are_refused() -> None:
    for name in ("backbone_rate", "stage_decay"):
        with pytest.raises(SeeallError, match=f"'{name}' is 0.0: choose a factor above 0"):
            transfer(**{name: 0.0})


def test_a_frozen_backbone_leaves_a_finetune_as_it_came(run: Path, tmp_path: Path) -> None:
    finetune(
        "scenes:n=8,size=32,identities=2", tmp_path / "r", task="classification", start=str(run), freeze="backbone",
        image_size=32, batch_size=4, steps=2,
    )  # fmt: skip
    one, two = (build_backbone("shufflenet_v2_x0_5", source)[0].state_dict() for source in (run, tmp_path / "r"))
    assert [name for name in one if not torch.equal(one[name], two[name])] == []


@pytest.mark.parametrize("family", ["convnext_tiny", "vit_tiny", "mobilenet_v3_small"])
def test_what_no_map_depends_on_is_left_out(family: str) -> None:
    """Where several processes train together, a parameter without a gradient ends them all."""
    backbone, _ = build_backbone(family)
    leave_out(backbone)
    torch.stack([stage.sum() for stage in backbone.stages(torch.randn(2, 3, 64, 64))]).sum().backward()
    learns = {name: p.requires_grad for name, p in backbone.named_parameters()}
    assert learns == {name: p.grad is not None for name, p in backbone.named_parameters()}
    assert sum(learns.values()) > 0.9 * len(learns)


@pytest.mark.parametrize("seed", range(4))
def test_a_clip_is_learnt_from_or_judged_by_as_a_whole(seed: int) -> None:
    pairs = find_pairs("scenes:n=7,size=32,frames=4")
    learnt, held = divided(pairs, "0.3", find_pairs, seed)
    clips = [{name for name, _ in part.pictures.moments or ()} for part in (learnt, held)]
    assert clips[0] and clips[1] and not clips[0] & clips[1] and len(learnt) + len(held) == len(pairs)
    with pytest.raises(SeeallError, match="one clip cannot be learnt from and judged by"):
        divided(find_pairs("scenes:n=1,size=32,frames=6"), None, find_pairs, seed)


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Three videos of a, and three of b, which are longer."""
    for k in range(6):
        with contextlib.closing(Movie(tmp_path / "films" / "ab"[k % 2] / f"{k}.mp4")) as movie:
            for t in range(4 + 4 * (k % 2)):
                movie.write(np.full((32, 32, 3), 20 * t, np.uint8), t / 8)
    return tmp_path / "films"


@pytest.mark.parametrize("seed", range(4))
def test_a_video_is_learnt_from_or_judged_by_as_a_whole(seed: int, films: Path) -> None:
    frames = find_annotated(str(films), "classification")
    learnt, held = divided(frames, "0.3", never, seed)
    names = [{key.video.path for key in part.pictures.keys} for part in (learnt, held)]
    assert len(names[1]) == 2 and not names[0] & names[1] and len(learnt) + len(held) == len(frames)
    assert set(held.notes) == {0, 1}, "every class has its share of videos"
    for k in (2, 4):
        (films / "a" / f"{k}.mp4").unlink()
    with pytest.raises(SeeallError, match="one clip of a cannot be learnt from and judged by"):
        for other in range(20):  # one video is the first to be held back, or a later one
            divided(find_annotated(str(films), "classification"), "0.5", never, other)


@pytest.mark.parametrize("seed", range(4))
def test_both_renderings_of_a_scene_are_on_one_side(seed: int, tmp_path: Path) -> None:
    root = tmp_path / "training"
    for scene in ("alley_1", "bamboo_2", "cave_4"):
        for render in ("clean", "final", "flow"):
            (root / render / scene).mkdir(parents=True)
        for t in range(1, 5):
            for render in ("clean", "final"):
                Image.new("RGB", (16, 16)).save(root / render / scene / f"frame_{t:04d}.png")
            if t < 4:
                fields.write(root / "flow" / scene / f"frame_{t:04d}.flo", np.zeros((16, 16, 2), np.float32))
    learnt, held = divided(find_pairs(str(tmp_path)), None, never, seed)
    scenes = [{Path(pair.flow).parent.name for pair in part.notes} for part in (learnt, held)]
    assert (len(learnt), len(held)) == (12, 6) and not scenes[0] & scenes[1]
    assert held.pictures.moments is not None and {seconds for _, seconds in held.pictures.moments} == {
        1 / 24, 2 / 24, 3 / 24,
    }  # fmt: skip
