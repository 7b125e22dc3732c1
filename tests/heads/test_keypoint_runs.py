"""Keypoints as runs: the whole way of the command, stopped and gone on with, exported, and every mistake."""

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
from seeall.data.motion.movie import Movie
from seeall.heads.export import TOLERANCE, export
from seeall.heads.finetune import finetune
from seeall.heads.plan import parts
from seeall.training import checkpoint
from seeall.training.loop import Stopped
from seeall.types import SeeallError

Ssl = Callable[..., tuple[int, str, str]]
WORLD = "scenes:n=6,size=48,frames=5,things=1-2,seed=3"


def trained(out: Path, data: str = WORLD, **options: Any) -> dict[str, float]:
    given = {"start": "none", "batch_size": 2, "steps": 6, "image_size": 32}
    sets = ("backbone.width=4", "model.width=4", "keypoints=3", "gap=2", *options.pop("set", ()))
    return finetune(data, out, task="keypoints", **{**given, **options}, set=sets)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("keypoints") / "run"
    trained(out)
    return out


def film(path: Path, frames: int = 5) -> Path:
    movie = Movie(path)
    for k in range(frames):
        rows = np.arange(40)[:, None, None] + np.arange(60)[None, :, None] + 3 * k
        movie.write((rows * np.array([3, 5, 2]) % 256).astype(np.uint8), k / 10)
    movie.close()
    return path


def test_the_whole_way(run: Path, ssl: Ssl, tmp_path: Path) -> None:
    facts = json.loads((run / "run.json").read_text())
    assert facts["status"] == "finished" and {"loss", "MSE", "best MSE", "on_things"} <= facts["results"].keys()
    assert (run / "backbone.safetensors").exists() and list((run / "pictures").iterdir())
    page = tmp_path / "p.html"
    code, out, err = ssl("evaluate", run, f"{WORLD},first=24", "--json", "--html", page, "--limit", 3, "--quiet")
    told = json.loads(out)
    assert code == 0 and told["pictures"] == 3 and {"MSE", "MSE/copied", "on_things", "spread/grid"} <= told.keys(), err
    assert "where they have been" in page.read_text()
    code, out, err = ssl("evaluate", run, WORLD, "--json", "--set", "gap=4", "--quiet")
    assert code == 0 and json.loads(out)["pictures"] == 6, err  # one stretch a clip
    assert "it is not known which of them the head has learnt from; judging by all" in err
    code, out, err = ssl("evaluate", run, WORLD, "--json", "--set", "gap=2", "--quiet")
    assert code == 0 and json.loads(out)["pictures"] == 2, err  # of what it was given, the clip that was held back
    assert "not known" not in err
    code, out, err = ssl("compare", run)
    assert code == 0 and "all alike" in out and "MSE" in out, err


def test_keypoints_of_a_video_are_pictures_an_mp4_and_json_at_its_own_size(run: Path, ssl: Ssl, tmp_path: Path) -> None:
    seen = film(tmp_path / "walk.mp4")
    code, out, err = ssl("predict", run, seen, "--out", tmp_path / "said", "--json", "--quiet")
    assert code == 0 and json.loads(out)["pictures"] == 5, err
    told = json.loads((tmp_path / "said/predictions.json").read_text())
    for image in told["images"]:
        assert (image["width"], image["height"]) == (60, 40) and len(image["keypoints"]) == 3
        for point in image["keypoints"]:
            assert 0 <= point["x"] <= 60 and 0 <= point["y"] <= 40 and 0 <= point["score"] <= 1.001
        with Image.open(tmp_path / "said" / image["drawn"]) as picture:
            assert picture.size == (300, 200)
    movie = video.probe(str(tmp_path / "said/videos/walk.mp4"))
    assert len(movie) == 5
    code, _, err = ssl("predict", run, seen, "--out", tmp_path / "tiled", "--tile", 64)
    assert code == 2 and "looked at whole" in err and not (tmp_path / "tiled").exists()


def test_files_without_truth_are_learnt_from_and_judged_by_what_is_drawn(run: Path, ssl: Ssl, tmp_path: Path) -> None:
    for clip in ("a", "b"):
        (tmp_path / "d" / clip).mkdir(parents=True)
        for k in (9, 10, 11, 12):
            Image.new("RGB", (40, 36), (20 * k, 90, 0)).save(tmp_path / f"d/{clip}/{k}.png")
    results = trained(tmp_path / "r", str(tmp_path / "d"), steps=2)
    assert {"MSE", "MSE/copied"} <= results.keys() and not {"stays", "on_things"} & results.keys()
    code, out, err = ssl("evaluate", tmp_path / "r", tmp_path / "d", "--json", "--quiet")
    assert code == 0 and json.loads(out).keys() == {"pictures", "MSE", "MSE/copied"}, err
    code, _, err = ssl("predict", run, tmp_path / "d", "--out", tmp_path / "p", "--quiet")
    assert code == 0, err
    told = json.loads((tmp_path / "p/predictions.json").read_text())
    assert [image["file_name"] for image in told["images"]] == [f"{c}/{k}.png" for c in "ab" for k in (9, 10, 11, 12)]
    assert len(video.probe(str(tmp_path / "p/videos/a.mp4"))) == 4
    code, out, _ = ssl("predict", run, tmp_path / "d/a/9.png", "--out", tmp_path / "q", "--json", "--quiet")
    assert code == 0 and json.loads(out)["pictures"] == 1 and not (tmp_path / "q/videos").exists()


def test_resumed_it_ends_as_if_never_stopped(run: Path, tmp_path: Path, at: Callable[[int], None]) -> None:
    at(3)
    with pytest.raises(Stopped):
        trained(tmp_path / "cut")
    trained(tmp_path / "cut", resume=True)
    one, two = (checkpoint.load(folder / "checkpoints" / "last") for folder in (run, tmp_path / "cut"))
    assert [name for name in one["model"] if not torch.equal(one["model"][name], two["model"][name])] == []


def test_it_begins_with_a_backbone_that_has_learnt(run: Path, tmp_path: Path) -> None:
    results = trained(tmp_path / "more", start=str(run), steps=1, freeze="backbone")
    assert np.isfinite(results["loss"])


@pytest.mark.slow
def test_exported_it_says_the_same(run: Path, tmp_path: Path) -> None:
    for name in ("head.onnx", "head.pt2"):
        told = export(run, tmp_path / name)
        assert told["difference"] <= TOLERANCE and told["outputs"] == "keypoints" and told["batch"] == "any"
        assert (tmp_path / name).exists()


@pytest.mark.parametrize(
    ("data", "options", "words"),
    [
        (WORLD, {"set": ("std=0",)}, "'std' is 0"), (WORLD, {"set": ("keypoints=0",)}, "'keypoints' is 0"),
        (WORLD, {"set": ("gap=0",)}, "'gap' is 0"), (WORLD, {"set": ("flip=3",)}, "'flip' is 3"),
        (WORLD, {"set": ("backbone.width=0",)}, "'width' is 0"), (WORLD, {"set": ("model.width=0",)}, "'width' is 0"),
        (WORLD, {"set": ("widen=on",)}, "for still pictures"), (WORLD, {"model": "raft"}, "for --task flow"),
        ("scenes:n=4,size=32", {}, "no two frames of one clip"),
        ("scenes:n=1,size=32,frames=9", {}, "one clip cannot be learnt from"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_writes_nothing(
    data: str, options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(SeeallError, match=words) as told:
        finetune(data, tmp_path / "run", task="keypoints", **{"start": "none", **options})
    assert "\n" not in str(told.value) and not (tmp_path / "run").exists()


def test_settings_that_are_listed_can_be_typed_back() -> None:
    roles = parts("keypoints", "transporter", None, "adamw")
    listed = [
        f"{role}.{n}={'none' if d is None else d}"
        for role, t in roles.items()
        for n, (_, d) in catalog.settings(t).items()
    ]
    assert catalog.resolve(roles, listed)
