"""`ssl predict --reuse`, `--keys` and `--ahead`: clips for less, and the same said of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from seeall import cli
from seeall.backbones.load import build as build_backbone
from seeall.heads import build
from seeall.heads.about import About
from seeall.heads.predict import predict
from seeall.heads.video.watch import watching
from seeall.types import SeeallError

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "classification": ("linear", {}),
    "detection": ("retinanet", {"width": 16, "score": 0.0}),
    "segmentation": ("fpn", {"width": 16, "branch": 16}),
    "flow": ("raft", {}),
}


@torch.no_grad()
def balance(network: Any) -> None:
    """Let every class be the likeliest somewhere."""
    x = torch.randn(4, 3, 64, 64)
    network.train()(x)
    logits = network.eval()(x)
    network.score.bias -= logits.mean((0, 2, 3))
    network.score.weight *= 10


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a head that has learnt nothing but what pictures look like, by its task."""
    root = tmp_path_factory.mktemp("heads")

    def made(task: str, name: str = "shufflenet_v2_x0_5") -> Path:
        folder = root / task / name
        if not folder.exists():
            folder.mkdir(parents=True)
            torch.manual_seed(0)
            model, settings = MODELS[task]
            classes = ("background", "cat", "dog") if task == "segmentation" else ("cat", "dog")
            recipe = build.Recipe(task, model, classes, 64, name, {}, {"model": settings})
            backbone = None if name == build.NONE else build_backbone(name)[0]
            if backbone is not None:
                with torch.no_grad():
                    backbone.train()(torch.randn(4, 3, 64, 64))
            head = build.assemble(recipe, backbone, About(64))
            if task == "segmentation":
                balance(head.network)  # type: ignore[arg-type]
            build.save(head, recipe, folder)
        return folder

    return made


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Folders of frames: `a` stands still in its frames 1 and 2, `b` begins as `a` ends, and is larger later on."""
    noise = np.random.default_rng(0)
    ground = noise.integers(0, 256, (64, 96, 3), dtype=np.uint8)
    for name, places in (("a", (0, 8, 8, 60)), ("b", (60, 8, 60))):
        (tmp_path / "clips" / name).mkdir(parents=True)
        for k, x in enumerate(places):
            frame = ground.copy()
            frame[:20, x : x + 20] = 255
            if name == "b" and k:
                frame = np.pad(frame, ((0, 0), (0, 32), (0, 0)))
            Image.fromarray(frame).save(tmp_path / "clips" / name / f"{k}.png")
    return tmp_path / "clips"


def told(out: Path) -> tuple[Any, list[Any]]:
    """The JSON, and the masks."""
    said = json.loads((out / "predictions.json").read_text())
    for image in said["images"] if "annotations" in said else ():  # the order of things that are as sure is anyone's
        image["scores"] = sorted(one["score"] for one in said["annotations"] if one["image_id"] == image["id"])
    said.pop("annotations", None)
    return said, [np.array(Image.open(out / one["mask"])) for one in said["images"] if "mask" in one]


def close(a: Any, b: Any) -> bool:
    """JSON that is the same, numbers to the rounding of a sum; of pixels almost all, and of several classes."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(close(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(close, a, b))
    if isinstance(a, np.ndarray):
        return bool((a == b).mean() > 0.999) and len(np.unique(a)) > 1
    return a == pytest.approx(b, abs=2e-2) if isinstance(a, float) else bool(a == b)


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_ahead_says_the_same(task: str, heads: Callable[..., Path], clips: Path, tmp_path: Path) -> None:
    plain = predict(heads(task), [str(clips)], tmp_path / "plain")
    assert plain == {"out": str(tmp_path / "plain"), "pictures": 7, "skipped": 0}
    (clips / "a" / "1.5.png").write_text("words")  # a frame that cannot be read is left out
    facts = predict(heads(task), [str(clips)], tmp_path / "ahead", ahead=3)
    assert facts.pop("frames_per_second") > 0
    assert facts == {"out": str(tmp_path / "ahead"), "pictures": 7, "skipped": 1, "parts": 3}
    assert close(told(tmp_path / "ahead"), told(tmp_path / "plain"))


@pytest.mark.parametrize("task", ["classification", "detection", "segmentation"])
def test_what_is_reused_is_counted_and_of_one_clip(
    task: str, heads: Callable[..., Path], clips: Path, tmp_path: Path
) -> None:
    """With small pictures every frame that has changed is seen whole, so only what stands still is reused."""
    predict(heads(task), [str(clips)], tmp_path / "plain")
    facts = predict(heads(task), [str(clips)], tmp_path / "reuse", reuse=1e-6)
    assert facts["reused"] == 1 and facts["frames_per_second"] > 0
    assert 0.8 < facts["computed"] < 0.9  # of 7 frames 6
    assert close(told(tmp_path / "reuse"), told(tmp_path / "plain"))
    stood = told(tmp_path / "reuse")[0]["images"][2]
    assert stood["file_name"] == "a/2.png" and (tmp_path / "reuse" / stood["drawn"]).exists()
    lazy = predict(heads(task), [str(clips)], tmp_path / "lazy", reuse=1)
    assert lazy["reused"] == 4  # 3 of a, and the last of b, whose first two are not of one size


def test_with_keys_some_frames_are_looked_at_and_the_others_follow(
    heads: Callable[..., Path], clips: Path, tmp_path: Path
) -> None:
    """Of `a`, frames 0 and 3 are keys, 1 is moved, 2 is 1 again; of `b` 0, 1, which is larger, and 2 is moved."""
    predict(heads("segmentation"), [str(clips)], tmp_path / "plain")
    facts = predict(heads("segmentation"), [str(clips)], tmp_path / "keys", keys=2)
    assert facts["reused"] == 1 and facts["computed"] == round(4 / 7, 4) and facts["frames_per_second"] > 0
    plain, keyed = told(tmp_path / "plain")[1], told(tmp_path / "keys")[1]
    assert [np.array_equal(a, b) for a, b in zip(plain, keyed, strict=True)] == [
        True, False, False, True, True, True, False
    ]  # fmt: skip
    assert np.array_equal(keyed[1], keyed[2])


def test_another_clip_does_not_depend_on_the_one_before(
    heads: Callable[..., Path], clips: Path, tmp_path: Path
) -> None:
    """With a threshold that nothing is above, a clip is what its first frame is."""
    for out, inputs in (("both", [clips]), ("one", [clips / "b"])):
        predict(heads("segmentation"), [str(one) for one in inputs], tmp_path / out, reuse=1)
    both, one = told(tmp_path / "both")[1], told(tmp_path / "one")[1]
    assert all(np.array_equal(a, b) for a, b in zip(both[4:], one, strict=True))
    assert all(np.array_equal(mask, both[0]) for mask in both[1:4]) and not np.array_equal(both[3], both[4])


def test_what_does_not_go_is_said_in_one_line_before_anything_is_written(
    heads: Callable[..., Path], clips: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    cases: list[tuple[Path, dict[str, Any], str]] = [
        (heads("segmentation"), {"reuse": 0.1, "ahead": 2}, "--reuse 0.1 and --ahead 2: .*; choose one"),
        (heads("segmentation"), {"ahead": 2, "tile": 32}, "--tile 32: .* leave --reuse, --keys and --ahead out"),
        (heads("segmentation"), {"keys": 2, "ahead": 2}, "--keys 2 and --ahead 2: .*; choose one"),
        (heads("segmentation"), {"keys": 2, "tile": 32}, "--tile 32: .* leave --reuse, --keys and --ahead out"),
        (heads("detection"), {"keys": 2}, "--keys is for heads that name pixels; this one is for detection"),
        (heads("detection"), {"ahead": 2}, "--ahead is for heads of .*; this one is for detection"),
        (heads("flow", build.NONE), {"reuse": 0.1}, "--reuse is for heads that .*; this one is for flow"),
        (heads("segmentation", "vit_tiny"), {"reuse": 0.1}, "a backbone of one stage"),
        (heads("classification", "convnext_tiny"), {"reuse": 0.1}, "embedding is the mean of its last map"),
    ]
    for run, settings, words in cases:
        with pytest.raises(SeeallError, match=words):
            predict(run, [str(clips)], out, **settings)
        assert not out.exists()
    for settings in ({"reuse": 0.1}, {"ahead": 2}):
        with pytest.raises(SeeallError, match="no two frames of one clip"):
            predict(heads("segmentation"), [str(clips / "a" / "0.png")], out, **settings)
        assert not out.exists()


@pytest.mark.parametrize(("words", "facts"), [
    (("--reuse", "0.000001"), {"computed": 0.8571, "reused": 1}), (("--keys", "2"), {"computed": 0.5714, "reused": 1}),
    (("--ahead", "2"), {"parts": 2}),
])  # fmt: skip
def test_by_the_command(
    words: tuple[str, ...], facts: dict[str, float], heads: Callable[..., Path], clips: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run = heads("segmentation")
    assert cli.run(["predict", str(run), str(clips), "--out", str(tmp_path / "out"), "--json", *words]) == 0
    said = json.loads(capsys.readouterr().out)
    assert {key: said[key] for key in facts} == pytest.approx(facts, abs=0.03) and said["frames_per_second"] > 0
    assert cli.run(["predict", str(run), str(clips), "--out", str(tmp_path / "no"), *words, "--tile", "32"]) == 2
    assert "pieces have no frames before them" in capsys.readouterr().err and not (tmp_path / "no").exists()


def test_neither_is_nothing(heads: Callable[..., Path]) -> None:
    assert watching(build.load(heads("flow", build.NONE))[0], "flow", reuse=0, keys=1, ahead=1) is None
