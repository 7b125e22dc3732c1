"""Two streams: what the second one sees, what of it learns, and that a run holds the head of flow it was made with."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seeall.backbones.load import build as build_backbone
from seeall.data.annotations.examples import Example, load
from seeall.data.annotations.truth import Truth
from seeall.data.motion.pairs import find_pairs
from seeall.heads import build
from seeall.heads.about import About
from seeall.heads.export import export
from seeall.heads.finetune import finetune
from seeall.heads.plan import Plan
from seeall.heads.transfer import stages_of
from seeall.training.loop import Stopped
from seeall.types import SeeallError

CLIPS = "scenes:n=8,size=32,frames=4,fps=8,actions=left+right,labels=action"
FLOW = ("model.width=32", "backbone.width=8")


@pytest.fixture(scope="module")
def flow_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("flow") / "run"
    finetune("scenes:n=4,size=64,frames=3", out, task="flow", start="none", steps=2, image_size=64, set=FLOW)
    return out


def head_of(flow: Path, **settings: Any) -> tuple[Any, build.Recipe]:
    torch.manual_seed(0)
    about = About(32)
    own = {"model": {"flow": str(flow), **settings}, "task": {"frames": 4, "views": 1}}
    recipe = build.Recipe("action", "two-stream", ("go", "stay"), 32, "resnet18", {"stem": "3x3"}, own)
    head = build.assemble(recipe, build_backbone("resnet18", stem="3x3")[0], about)
    return head, build.dataclasses.replace(recipe, flow=about.flow)


def test_the_second_stream_sees_what_the_run_of_flow_says(flow_run: Path) -> None:
    head, _ = head_of(flow_run, bound=2.0)
    flow, _ = build.load(flow_run)
    clip = load(find_pairs("scenes:n=1,size=64,frames=2"), None)[0].pixels
    said = flow.predict([clip])[0].flow  # type: ignore[operator]
    seen = head.network.motion(head.normalise(clip).transpose(0, 1)[None])
    speed = np.hypot(said[..., 0], said[..., 1])
    wanted = np.stack([said[..., 0], said[..., 1], speed]) / 2.0
    assert np.abs(wanted).max() > 0
    assert np.allclose(seen[0, :, 0].numpy(), wanted.clip(-1, 1) * 2, atol=1e-4)
    still = head.network.motion(torch.zeros(2, 3, 1, 32, 32))
    assert still.shape == (2, 3, 1, 32, 32) and not still.any()


@pytest.mark.parametrize("streams", ["inflated", "per-frame"])
def test_both_streams_learn_and_the_flow_does_not(flow_run: Path, streams: str) -> None:
    head, _ = head_of(flow_run, streams=streams)
    generator = torch.Generator().manual_seed(0)
    some = [
        Example(torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=generator), Truth(label=k % 2))
        for k in range(4)
    ]
    means = {name: buffer.clone() for name, buffer in head.network.flow.named_buffers()}
    head.train().training_step({"examples": some, "epoch": 0, "rows": [0, 1, 2, 3]})["loss"].backward()
    without = {name for name, p in head.named_parameters() if p.grad is None}
    assert without == {f"network.flow.{name}" for name, _ in head.network.flow.named_parameters()}
    assert all(torch.equal(buffer, means[name]) for name, buffer in head.network.flow.named_buffers())


@pytest.mark.parametrize("streams", ["inflated", "per-frame"])
def test_both_backbones_are_held_and_slowed_down(flow_run: Path, streams: str) -> None:
    """What is asked of the backbone holds for the stream that sees frames and for the one that sees flow."""
    for freeze, rates, frozen in (("backbone", (), 4), ("2", ("stage_decay=0.5", "backbone_rate=0.1"), 2)):
        head, _ = head_of(flow_run, streams=streams)
        still, moving = head.network.backbones
        given = {"data": CLIPS, "task": "action", "model": "two-stream", "start": "none", "backbone": "resnet18"}
        more = {"freeze": freeze, "optimiser": "sgd", "lr": 0.01, "set": (*rates, "norm=frozen")}
        plan = Plan.of({**given, **more})
        plan.hold(head, still)
        rate = {id(p): group["lr"] for group in plan.optimiser(head).param_groups for p in group["params"]}
        stages = stages_of(still)
        assert stages_of(moving) == stages
        for backbone in (still, moving):
            assert {n for n, p in backbone.named_parameters() if not p.requires_grad} == {
                name for name, stage in stages.items() if stage < frozen
            }
            assert {n: rate[id(p)] for n, p in backbone.named_parameters() if p.requires_grad} == {
                name: pytest.approx(0.01 * 0.1 * 0.5 ** (3 - stage))
                for name, stage in stages.items()
                if stage >= frozen
            }
        assert rate[id(head.network.still.score.weight)] == rate[id(head.network.moving.score.weight)] == 0.01
        means = {name: b.clone() for name, b in head.network.named_buffers()}
        head.train().network(torch.randn(2, 3, 4, 32, 32))
        assert [name for name, b in head.network.named_buffers() if not torch.equal(b, means[name])] == []


def test_a_frozen_run_leaves_both_streams_as_they_came(flow_run: Path, tmp_path: Path) -> None:
    finetune(
        CLIPS, tmp_path / "r", task="action", model="two-stream", start="none", backbone="resnet18", freeze="backbone",
        image_size=32, steps=2, batch_size=2, set=(f"flow={flow_run}", "frames=4", "streams=per-frame"),
    )  # fmt: skip
    network: Any = build.load(tmp_path / "r")[0].network
    still, moving = (stream.backbone.state_dict() for stream in (network.still, network.moving))
    assert [name for name in still if not torch.equal(still[name], moving[name])] == []
    assert not torch.equal(network.still.score.weight, network.moving.score.weight)


def test_a_saved_head_needs_the_run_of_flow_no_more(flow_run: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(flow_run, tmp_path / "flow")
    head, recipe = head_of(copied)
    build.save(head.eval(), recipe, tmp_path)
    shutil.rmtree(copied)
    again, read = build.load(tmp_path)
    assert read.model == "two-stream" and read.flow is not None and read.flow["task"] == "flow"
    clip = torch.randint(0, 256, (6, 3, 40, 50), dtype=torch.uint8)
    one, two = head.predict([clip])[0], again.predict([clip])[0]  # type: ignore[operator]
    assert np.array_equal(one.scores, two.scores)


def test_a_run_resumes_and_is_exported(flow_run: Path, tmp_path: Path, at: Callable[[int], None]) -> None:
    settings = (f"flow={flow_run}", "frames=4", "streams=per-frame")

    def run(name: str, **more: Any) -> Path:
        finetune(
            CLIPS, tmp_path / name, task="action", model="two-stream", start="none", backbone="resnet18",
            image_size=32, steps=4, batch_size=2, set=settings, **more,
        )  # fmt: skip
        return tmp_path / name

    whole = run("whole")
    at(2)
    with pytest.raises(Stopped):
        run("cut")
    assert (whole / "head.safetensors").read_bytes() == (run("cut", resume=True) / "head.safetensors").read_bytes()
    told = export(whole, tmp_path / "head.onnx")
    assert told["difference"] < 1e-4 and told["batch"] == "any"


@pytest.mark.slow
@pytest.mark.parametrize("streams", ["inflated", "per-frame"])
def test_exported_it_takes_any_number_of_clips(flow_run: Path, streams: str, tmp_path: Path) -> None:
    head, recipe = head_of(flow_run, streams=streams)
    build.save(head.eval(), recipe, tmp_path)
    told = export(tmp_path, tmp_path / "head.pt2")
    assert told["batch"] == "any" and told["difference"] < 1e-4
    exported = torch.export.load(str(tmp_path / "head.pt2")).module()
    mean, std = (part.view(1, 3, 1, 1, 1) for part in (head.normalise.mean, head.normalise.std))
    for number in (1, 3):
        clips = torch.rand(number, 3, 4, 32, 32, generator=torch.Generator().manual_seed(number))
        with torch.no_grad():
            wanted = head.network((clips - mean) / std).softmax(1)
        assert torch.allclose(exported(clips), wanted, atol=1e-4)


def test_what_is_wrong_is_said(flow_run: Path, tmp_path: Path) -> None:
    for settings, words in (
        ((), "--set flow=RUN"), ((f"flow={tmp_path}",), "no such head"),
        ((f"flow={flow_run}", "bound=0"), "'bound' is 0"), ((f"flow={flow_run}", "streams=both"), "streams"),
    ):  # fmt: skip
        with pytest.raises(SeeallError, match=words) as told:
            finetune(
                CLIPS, tmp_path / "run", task="action", model="two-stream", start="none", steps=1, set=settings
            )  # fmt: skip
        assert "\n" not in str(told.value)
    other = tmp_path / "other"
    finetune(CLIPS, other, task="action", model="per-frame", start="none", steps=1, set=("frames=2",), image_size=32)
    with pytest.raises(SeeallError, match="of --task action: give one of --task flow"):
        finetune(CLIPS, tmp_path / "run", task="action", model="two-stream", start="none", set=(f"flow={other}",))
