"""Heads of actions that see true flow: what augmentation makes of it is the flow of what it makes of the frames, and a
head is shown again what it has learnt from.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from seeall.data.annotations.examples import Example
from seeall.data.annotations.truth import Truth
from seeall.data.motion.actions import Sees, enlarged, find_actions, mirrored, pictured
from seeall.heads import build
from seeall.heads.action.augment import ClipAugment
from seeall.heads.examine import examine
from seeall.heads.finetune import finetune
from seeall.heads.plan import Plan
from seeall.types import SeeallError

Ssl = Callable[..., tuple[int, str, str]]
WORLD = "scenes:n=8,frames=6,size=32,labels=action,actions=left+right,seed=3"
SIDE = 32


def field(seed: int) -> np.ndarray:
    """(SIDE, SIDE, 2) in sides: some of it slow, some of it beyond what is told apart."""
    return np.random.default_rng(seed).normal(0, 0.08, (SIDE, SIDE, 2)).astype(np.float32)


def seen(*vectors: np.ndarray) -> Tensor:
    """(T, 3, SIDE, SIDE) uint8."""
    return torch.from_numpy(np.stack([pictured(one) for one in vectors])).permute(0, 3, 1, 2)


def changed(clip: Tensor, key: int, sees: Sees = "flow", size: int = SIDE, **settings: float) -> Tensor:
    return ClipAugment(len(clip), sees, **settings)(Example(clip, Truth(label=0)), size, 7, key).pixels


@pytest.mark.parametrize("seed", range(3))
def test_a_mirror_image_moves_the_other_way(seed: int) -> None:
    vectors = field(seed)
    assert np.abs(vectors).max() > 1 / 8
    wanted = seen(vectors[:, ::-1] * np.float32([-1, 1]))
    assert torch.equal(mirrored(seen(vectors)), wanted)
    assert torch.equal(changed(seen(vectors), 0, flip=1.0, crop_min=1.0), wanted)
    assert torch.equal(changed(seen(vectors), 0, crop_min=1.0), seen(vectors))


@pytest.mark.parametrize("factor", [1.0, 1.3, 2.0, 5.0])
def test_what_is_enlarged_moves_by_more(factor: float) -> None:
    vectors = field(4)
    found, wanted = enlarged(seen(vectors), factor).int(), seen(np.float32(factor) * vectors).int()
    assert (found - wanted).abs().max() <= factor / 2 + 1  # of codes that were rounded
    lost = (seen(vectors) == 1) | (seen(vectors) == 255)
    assert lost.any() and torch.equal(found[lost], wanted[lost])


@pytest.mark.parametrize("key", range(6))
def test_a_window_becomes_the_flow_of_the_enlarged_window(key: int) -> None:
    """How much a window is enlarged is read off a ramp that goes through the same augmentation as frames."""
    ramp = torch.arange(SIDE, dtype=torch.uint8).expand(2, 3, SIDE, SIDE) * 7
    flip, u, v = float(key % 2), 0.03, -0.02
    slope = changed(ramp, key, "frames", jitter=0.0, crop_min=0.5, flip=flip)[0, 0, 0].float()
    factor = 7 * (SIDE - 9) / float((slope[-5] - slope[4]).abs())
    even = np.tile(np.float32([u, v]), (SIDE, SIDE, 1))
    found = changed(seen(even, even), key, crop_min=0.5, flip=flip)
    wanted = seen(np.float32(factor) * even * np.float32([-1 if flip else 1, 1]))
    assert 1 < factor < 2.2 and (found.int() - wanted.int()).abs().max() <= 3
    assert abs(float(found[0, 0].float().mean()) - 128) > 1.02 * 127 * 8 * u


def test_by_default_what_stands_still_does_and_what_moves_goes_where_it_went() -> None:
    still, right = np.zeros((SIDE, SIDE, 2), np.float32), np.tile(np.float32([0.04, 0]), (SIDE, SIDE, 1))
    for key in range(20):
        assert (changed(seen(still, still), key, size=24) == 128).all()
        moved = changed(seen(right, right), key, size=24).float()
        speed = float(moved[0, 2, 0, 0]) - 128
        assert 40 <= speed <= 40 / 0.7 + 2 and (moved[:, 0] == 128 + speed).all() and (moved[:, 1] == 128).all()


def test_frames_are_changed_as_ever() -> None:
    clip = torch.randint(0, 256, (3, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(changed(clip, 0, "frames", flip=1.0, crop_min=1.0, jitter=0.0), clip.flip(3))
    assert not torch.equal(changed(clip, 0, "frames", crop_min=1.0), clip)


@pytest.mark.parametrize("sees", ["frames", "flow"])
def test_a_run_changes_what_it_sees_as_what_it_is(sees: Sees) -> None:
    options = {"data": WORLD, "task": "action", "model": "per-frame", "start": "none", "backbone": "plain", "lr": None}
    sets = ("frames=4", f"sees={sees}", "crop_min=0.5")
    plan = Plan.of({**options, "freeze": "none", "optimiser": "adamw", "set": sets})
    assert plan.sees == sees and plan.augment == ClipAugment(4, sees, crop_min=0.5)


def trained(out: Path, *sets: str, model: str = "per-frame") -> Path:
    finetune(
        WORLD, out, task="action", model=model, start="none", backbone="plain", steps=2, batch_size=2,
        image_size=32, set=("frames=4", *sets),
    )  # fmt: skip
    return out


@pytest.fixture(scope="module")
def flow_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("sees") / "flow", "sees=flow", "fps=4")


def test_a_head_is_judged_by_what_it_has_learnt_from(flow_run: Path, tmp_path: Path) -> None:
    assert build.describe(flow_run).sees == "flow"
    clips, examined = find_actions(WORLD, sees="flow", fps=4), examine(flow_run, WORLD)
    assert 0 < len(examined.examples) < len(clips)  # those held back
    for i, name in enumerate(examined.examples.annotated.pictures.ids):
        wanted = clips.pictures.read(clips.pictures.ids.index(name))
        assert np.array_equal(examined.examples[i].pixels.permute(0, 2, 3, 1), wanted) and len(wanted) == 2
    assert len(examine(flow_run, WORLD, sees="frames").examples[0].pixels) == 3
    plain = trained(tmp_path / "frames")
    assert build.describe(plain).sees == "frames" and len(examine(plain, WORLD).examples[0].pixels) == 6


def test_the_command_judges_it_and_refuses_to_say_what_is_in_pictures(flow_run: Path, ssl: Ssl, tmp_path: Path) -> None:
    code, out, err = ssl("evaluate", flow_run, WORLD, "--json", "--quiet", "--html", tmp_path / "page.html")
    assert code == 0 and "top1" in json.loads(out), err
    code, _, err = ssl("predict", flow_run, WORLD, "--out", tmp_path / "said", "--quiet")
    assert code == 2 and "has learnt from the true flow" in err and err.count("\n") == 1
    assert not (tmp_path / "said").exists()


def test_a_head_that_does_not_say_what_it_sees_sees_frames(flow_run: Path, tmp_path: Path) -> None:
    with safe_open(flow_run / "head.safetensors", "pt") as file:
        header = json.loads(file.metadata()["seeall"])
    assert header.pop("sees") == "flow"
    save_file(load_file(flow_run / "head.safetensors"), tmp_path / "head.safetensors", {"seeall": json.dumps(header)})
    assert build.load(tmp_path)[1].sees == "frames"
    assert len(examine(tmp_path, WORLD).examples[0].pixels) == 3
    assert len(examine(tmp_path, WORLD, sees="flow").examples[0].pixels) == 2


@pytest.mark.parametrize(
    ("model", "set_", "words"),
    [
        ("per-frame", "jitter=0.2", "'jitter' is 0.2: it changes colours"),
        ("per-frame", "fps=1", "choose a larger fps than 1"),
        ("two-stream", "flow=RUN", "two-stream tells the flow of frames by itself"),
    ],
)
def test_what_makes_no_sense_of_flow_is_said(model: str, set_: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(SeeallError, match=words) as told:
        trained(tmp_path / "run", "sees=flow", set_, model=model)
    assert "\n" not in str(told.value) and not (tmp_path / "run").exists()


def test_jitter_may_be_left_out_by_name(tmp_path: Path) -> None:
    assert build.describe(trained(tmp_path / "run", "sees=flow", "jitter=0")).sees == "flow"
