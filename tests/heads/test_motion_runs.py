"""Heads for motion as runs: the whole way of the command, stopped and gone on with, exported, and every mistake."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from seeall import catalog
from seeall.data import video
from seeall.data.motion import fields
from seeall.data.motion.movie import Movie
from seeall.heads import build
from seeall.heads.action.task import Action
from seeall.heads.examine import examine
from seeall.heads.export import TOLERANCE, export
from seeall.heads.finetune import finetune
from seeall.heads.plan import parts
from seeall.training import checkpoint
from seeall.training.loop import Stopped
from seeall.types import SeeallError

Ssl = Callable[..., tuple[int, str, str]]
WORLDS = {
    "flow": "scenes:n=6,size=48,frames=3,things=1-2,seed=3",
    "action": "scenes:n=12,size=32,frames=6,labels=action,seed=3",
}
SETS: dict[str, list[str]] = {
    "flownets": ["backbone.width=4", "model.width=16"],
    "flownetc": ["backbone.width=4", "model.width=8", "reach=2", "step=1"],
    "raft": ["updates=1"],
    "inflated": ["frames=4"],
    "slowfast": ["frames=4", "alpha=2"],
    "per-frame": ["frames=2"],
    "sideways": ["frames=3"],
}
TASK_OF = {model: task for task in WORLDS for model in catalog.TASKS[task] if model != "two-stream"}
"""Two streams need a run of flow: see test_two_stream.py."""
BEST = {"flow": "EPE", "action": "top1"}
every_model = pytest.mark.parametrize("model", TASK_OF)


def trained(out: Path, model: str, **options: Any) -> dict[str, float]:
    task = TASK_OF[model]
    backbone = None if model == "raft" else "flownet" if task == "flow" else "resnet18"
    size = 24 if model == "raft" else 32
    given = {"start": "none", "backbone": backbone, "batch_size": 2, "epochs": 2, "image_size": size, "limit": 6}
    sets = (*SETS[model], *options.pop("set", ()))
    return finetune(WORLDS[task], out, task=task, model=model, **{**given, **options}, set=sets)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of each model."""
    root = tmp_path_factory.mktemp("motion")
    for model in TASK_OF:
        trained(root / model, model)
    return root


def test_every_model_of_motion_is_here() -> None:
    assert sorted(TASK_OF) == sorted(SETS)


@every_model
def test_the_whole_way(model: str, runs: Path, ssl: Ssl, tmp_path: Path) -> None:
    task, run = TASK_OF[model], runs / model
    facts = json.loads((run / "run.json").read_text())
    assert facts["status"] == "finished" and {"loss", BEST[task], f"best {BEST[task]}"} <= facts["results"].keys()
    assert (run / "backbone.safetensors").exists() == (model in ("flownetc", "per-frame", "slowfast", "sideways"))
    page = tmp_path / "p.html"
    code, out, err = ssl("evaluate", run, f"{WORLDS[task]},first=24", "--json", "--html", page, "--limit", 3, "--quiet")
    told = json.loads(out)
    assert code == 0 and told["pictures"] == 3 and BEST[task] in told and err == ""
    assert page.read_text().startswith("<!doctype html>")
    frames = ("--set", "gap=2") if task == "flow" else ("--set", "fps=4")
    code, out, err = ssl("evaluate", run, WORLDS[task], "--json", *frames, "--quiet")
    assert code == 0 and json.loads(out)["pictures"] >= 1, err
    code, out, err = ssl("compare", run)
    assert code == 0 and "all alike" in out and BEST[task] in out, err


def film(path: Path, frames: int = 4) -> Path:
    out = Movie(path)
    for k in range(frames):
        rows = np.arange(40)[:, None, None] + np.arange(60)[None, :, None] + 3 * k
        out.write((rows * np.array([3, 5, 2]) % 256).astype(np.uint8), k / 10)
    out.close()
    return path


def test_flow_of_a_video_is_a_file_a_picture_and_a_frame_of_an_mp4_for_each_pair(
    runs: Path, ssl: Ssl, tmp_path: Path
) -> None:
    seen = film(tmp_path / "walk.mp4")
    code, out, err = ssl("predict", runs / "flownets", seen, "--out", tmp_path / "said", "--json", "--quiet")
    assert code == 0 and json.loads(out)["pictures"] == 3, err
    told = json.loads((tmp_path / "said/predictions.json").read_text())
    for image in told["images"]:
        field = fields.read(tmp_path / "said" / image["flow"])
        assert field.known.shape == (40, 60) == (image["height"], image["width"])
        with Image.open(tmp_path / "said" / image["drawn"]) as picture:
            assert picture.size == (300 + 4 + 300, 200), "five times as large"
    (movie,) = (tmp_path / "said/videos").iterdir()
    found = video.probe(str(movie))
    assert movie.name == "walk.mp4" and len(found) == 3
    np.testing.assert_allclose(found.seconds, [0, 0.1, 0.2], atol=1e-4)
    code, out, err = ssl("predict", runs / "flownets", seen, "--out", tmp_path / "said", "--rate", 5, "--overwrite")
    assert code == 0 and len(list((tmp_path / "said/flow").iterdir())) == 1, err


def test_flow_of_a_folder_of_frames_and_what_happens_in_a_clip(runs: Path, ssl: Ssl, tmp_path: Path) -> None:
    for k in range(3):
        Image.new("RGB", (40, 36), (80 * k, 0, 0)).save((tmp_path / f"{k}.png").as_posix())
    code, out, _ = ssl("predict", runs / "flownets", tmp_path, "--out", tmp_path.with_name("f"), "--json", "--quiet")
    assert code == 0 and json.loads(out)["pictures"] == 2
    seen = film(tmp_path / "films/walk.mp4")
    code, out, _ = ssl("predict", runs / "inflated", seen, "--out", tmp_path.with_name("a"), "--json", "--quiet")
    assert code == 0 and json.loads(out)["pictures"] == 1
    (image,) = json.loads((tmp_path.with_name("a") / "predictions.json").read_text())["images"]
    assert image["file_name"] == "walk.mp4" and len(image["classes"]) >= 2


def test_a_head_sees_as_many_frames_a_second_as_it_learnt_from(
    ssl: Ssl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(tmp_path / "run", "per-frame", set=("fps=5",))
    assert build.describe(tmp_path / "run").rate == 5
    seen, own = list[int](), Action.predict
    monkeypatch.setattr(Action, "predict", lambda head, clips: seen.extend(map(len, clips)) or own(head, clips))
    ask = ("predict", tmp_path / "run", film(tmp_path / "walk.mp4", 8), "--overwrite", "--out", tmp_path / "p")
    for options in ((), ("--rate", 10)):
        code, _, err = ssl(*ask, *options)
        assert code == 0, err
    assert seen == [4, 8]
    examined = examine(tmp_path / "run", WORLDS["action"])
    assert len(examined.examples[0].pixels) == 4 and len(examined.examples) < 12  # 6 frames at 8 a second; held back
    assert len(examine(tmp_path / "run", WORLDS["action"], fps=8.0).examples[0].pixels) == 6


def test_a_detector_writes_a_video_too(ssl: Ssl, tmp_path: Path) -> None:
    world = "scenes:n=6,size=32"
    light = ("--backbone", "shufflenet_v2_x0_5", "--image-size", 32, "--steps", 1, "--quiet", "--batch-size", 2)
    code, _, err = ssl("finetune", world, "--task", "classification", "--from", "none", "--out", tmp_path / "r", *light)
    assert code == 0, err
    code, _, err = ssl("predict", tmp_path / "r", film(tmp_path / "walk.mp4"), "--out", tmp_path / "p", "--rate", 100)
    assert code == 0 and len(video.probe(str(tmp_path / "p/videos/walk.mp4"))) == 4, err


def test_a_video_in_which_nothing_moves_does_not_keep_others_from_being_seen(
    runs: Path, ssl: Ssl, tmp_path: Path
) -> None:
    seen, still = film(tmp_path / "walk.mp4"), tmp_path / "broken.mp4"
    still.write_bytes(b"no film at all")
    ask = ("predict", runs / "inflated", still)
    code, out, err = ssl(*ask, seen, "--out", tmp_path / "p", "--json", "--quiet")
    assert code == 0 and json.loads(out)["pictures"] == json.loads(out)["skipped"] == 1, err
    rows = (tmp_path / "p/skipped.csv").read_text().splitlines()
    assert rows[1:] == [f'{still},"no two frames of one clip: its videos are damaged, or of one frame"']
    code, _, err = ssl(*ask, still, "--out", tmp_path / "q")
    assert code == 2 and "no two frames of one clip" in err and not (tmp_path / "q").exists()


@every_model
def test_resumed_it_ends_as_if_never_stopped(model: str, runs: Path, tmp_path: Path, at: Callable[[int], None]) -> None:
    at(3)
    with pytest.raises(Stopped):
        trained(tmp_path / "cut", model)
    trained(tmp_path / "cut", model, resume=True)
    one, two = (checkpoint.load(run / "checkpoints" / "last") for run in (runs / model, tmp_path / "cut"))
    assert [name for name in one["model"] if not torch.equal(one["model"][name], two["model"][name])] == []


@pytest.mark.slow
@every_model
def test_exported_it_says_the_same(model: str, runs: Path, tmp_path: Path) -> None:
    for name in ("head.onnx", "head.pt2"):
        told = export(runs / model, tmp_path / name)
        assert told["difference"] <= TOLERANCE and (tmp_path / name).exists()
        alone = name == "head.onnx" and model == "raft"  # it cuts a batch of 2 B in two
        assert told["batch"] == (1 if alone else "any")


@pytest.mark.parametrize(
    ("task", "options", "words"),
    [
        ("flow", {"model": "raft", "start": "none", "backbone": "resnet18"}, "encoders of its own"),
        ("flow", {"model": "raft", "start": "none", "freeze": "backbone"}, "encoders of its own"),
        ("flow", {"model": "flownetc", "set": ("step=9", "reach=3")}, "'step' is 9"),
        ("flow", {"model": "flownetc", "set": ("unit=-1",)}, "'unit' is"),
        ("flow", {"set": ("unit=0",)}, "'unit' is 0"),
        ("flow", {"set": ("zoom_min=3",)}, "zoom_min"), ("flow", {"set": ("gap=9",)}, "frames=10 or more"),
        ("action", {"set": ("frames=0",)}, "'frames' is 0"), ("action", {"set": ("kernel=2",)}, "odd number"),
        ("action", {"set": ("fps=0",)}, "'fps' is 0"), ("action", {"set": ("flip=3",)}, "'flip' is 3"),
        ("action", {"model": "flownets"}, "--model flownets is for --task flow"),
        ("action", {"model": "slowfast", "backbone": "vit_tiny"}, "modules of their own"),
        ("action", {"model": "slowfast", "set": ("beta=2",)}, "'beta' is 2"),
        ("action", {"set": ("views=0",)}, "'views' is 0"), ("flow", {"set": ("widen=on",)}, "for still pictures"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_writes_nothing(
    task: str, options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(SeeallError, match=words) as told:
        finetune(WORLDS[task], tmp_path / "run", task=task, **{"start": "none", **options})
    assert "\n" not in str(told.value) and not (tmp_path / "run").exists()


def test_a_run_of_another_task_and_pieces_of_what_moves_are_refused(runs: Path, ssl: Ssl, tmp_path: Path) -> None:
    code, _, err = ssl("predict", runs / "flownets", WORLDS["flow"], "--out", tmp_path / "p", "--tile", 64)
    assert code == 2 and "for flow a picture is looked at whole" in err
    code, _, err = ssl(
        "predict", runs / "per-frame", "scenes:n=2,size=96,frames=4", "--out", tmp_path / "p", "--tile", 64
    )
    assert code == 2 and "for action a clip is looked at whole" in err and not (tmp_path / "p").exists()
    code, _, err = ssl("predict", runs / "flownets", "scenes:n=2,size=32", "--out", tmp_path / "p")
    assert code == 2 and "no two frames of one clip" in err and not (tmp_path / "p").exists()
    code, _, err = ssl("evaluate", runs / "inflated", "scenes:n=8,size=32,frames=4")
    assert code == 2 and "the head knows" in err


@every_model
def test_settings_that_are_listed_can_be_typed_back(model: str) -> None:
    roles = parts(TASK_OF[model], model, None, "adamw")
    listed = [
        f"{role}.{n}={'none' if d is None else d}"
        for role, t in roles.items()
        for n, (_, d) in catalog.settings(t).items()
    ]
    assert catalog.resolve(roles, listed)
