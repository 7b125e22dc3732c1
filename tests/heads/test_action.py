"""Actions: what networks for clips promise, which frames they see, and how clips are found."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from seeall.backbones.load import build as build_backbone
from seeall.data.annotations.examples import Example, load
from seeall.data.annotations.truth import Truth
from seeall.data.decode import Unreadable
from seeall.data.motion.actions import clips_in, find_actions, pictured
from seeall.data.motion.movie import Movie
from seeall.data.pictures import find
from seeall.heads import build
from seeall.heads.about import About
from seeall.heads.action.augment import ClipAugment, taken
from seeall.heads.action.slowfast import stage_modules
from seeall.types import SeeallError
from tests.data.films import film

FAMILIES: dict[str, dict[str, Any]] = {
    "resnet18": {"stem": "3x3"},
    "vgg16_bn": {},
    "mobilenet_v3_small": {},
    "shufflenet_v2_x0_5": {},
    "convnext_tiny": {},
    "vit_tiny": {"layers": 2},
    "timm/resnet10t": {},
}
MODELS = ("per-frame", "inflated", "slowfast", "sideways")
every = pytest.mark.parametrize(("model", "family"), [(model, family) for model in MODELS for family in FAMILIES])
FRAMES = 5


def head_of(model: str, family: str) -> tuple[nn.Module, build.Recipe]:
    torch.manual_seed(0)
    recipe = build.Recipe(
        "action", model, ("go", "stay", "turn"), 32, family, FAMILIES[family], {"task": {"frames": FRAMES, "views": 2}}
    )
    backbone, _ = build_backbone(family, **FAMILIES[family])
    try:
        return build.assemble(recipe, backbone, About(32)), recipe
    except SeeallError as fault:
        assert model == "slowfast" and "stages are modules of their own" in str(fault)
        pytest.skip(f"{family}: {fault}")


def clips(n: int = 2, frames: int = FRAMES) -> list[Example]:
    generator = torch.Generator().manual_seed(n)
    some = torch.randint(0, 256, (n, frames, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return [Example(clip, Truth(label=k % 3)) for k, clip in enumerate(some)]


@every
def test_a_step_gives_every_parameter_that_counts_a_gradient(model: str, family: str) -> None:
    head, _ = head_of(model, family)
    told = head.train().training_step({"examples": clips(), "epoch": 0, "rows": [0, 1]})  # type: ignore[operator]
    assert all(value.ndim == 0 and torch.isfinite(value) for value in told.values()), told
    told["loss"].backward()
    assert [name for name, p in head.named_parameters() if p.grad is None] == []


@every
def test_saved_and_loaded_it_says_the_same_of_clips_of_any_size(model: str, family: str, tmp_path: Path) -> None:
    head, recipe = head_of(model, family)
    head.eval()
    build.save(head, recipe, tmp_path)
    again, read = build.load(tmp_path)
    assert read == recipe
    sizes = [(5, 32, 32), (1, 40, 33), (3, 50, 90), (12, 33, 32)]
    some = [torch.randint(0, 256, (t, 3, h, w), dtype=torch.uint8) for t, h, w in sizes]
    for one, two in zip(head.predict(some), again.predict(some)):  # type: ignore[operator]
        assert one.scores.shape == (3,) and one.scores.sum() == pytest.approx(1)
        assert np.array_equal(one.scores, two.scores)


@torch.no_grad()
@pytest.mark.parametrize("family", ["resnet18", "mobilenet_v3_small", "timm/resnet10t"])
def test_only_networks_over_time_see_in_which_order_frames_come(family: str) -> None:
    clip = torch.randn(2, 3, 8, 32, 32)
    for model in MODELS:
        network = head_of(model, family)[0].train().network
        for module in network.modules():  # type: ignore[union-attr]
            if isinstance(module, nn.Conv3d):  # inflated kernels begin the same forwards and backwards
                nn.init.kaiming_normal_(module.weight)
        one, two = (network(x) for x in (clip, clip.flip(2)))  # type: ignore[operator]
        assert torch.allclose(one, two, atol=1e-4) == (model in ("per-frame", "sideways")), model


def test_the_stages_of_a_network_are_the_modules_that_give_its_maps() -> None:
    backbone, _ = build_backbone("resnet18")
    network: Any = backbone.network
    assert stage_modules(backbone) == [network.layer1, network.layer2, network.layer3, network.layer4]


@pytest.mark.parametrize(
    ("length", "frames", "place", "wanted"),
    [
        (8, 4, 0.0, [0, 1, 2, 3]), (8, 4, 1.0, [4, 5, 6, 7]), (8, 4, 0.5, [2, 3, 4, 5]), (3, 5, 0.7, [0, 1, 2, 2, 2]),
        (1, 3, 0.0, [0, 0, 0]), (4, 4, 0.3, [0, 1, 2, 3]),
    ],
)  # fmt: skip
def test_which_frames_are_taken(length: int, frames: int, place: float, wanted: list[int]) -> None:
    assert taken(torch.arange(length)[:, None], frames, place)[:, 0].tolist() == wanted


def test_a_clip_is_changed_alike_in_all_frames() -> None:
    still = clips(1, 1)[0].pixels.expand(9, -1, -1, -1)
    augment = ClipAugment(6, flip=1.0, crop_min=0.5)
    seen = augment(Example(still, Truth(label=0)), 24, 0, 1)
    assert seen.pixels.shape == (6, 3, 24, 24) and (seen.pixels == seen.pixels[:1]).all()
    assert torch.equal(seen.pixels, augment(Example(still, Truth(label=0)), 24, 0, 1).pixels)
    plain = ClipAugment(9, crop_min=1, jitter=0)(Example(still, Truth(label=0)), 32, 0, 1)
    assert torch.equal(plain.pixels, still)


def movie(path: Path, times: list[float], size: tuple[int, int] = (48, 64)) -> None:
    out = Movie(path)
    for k, time in enumerate(times):
        out.write(np.full((*size, 3), 20 * k % 256, np.uint8), time)
    out.close()


def test_videos_in_folders_that_name_them(tmp_path: Path) -> None:
    for split, names in (("train", "ab"), ("test", "c")):
        for label in ("run", "walk"):
            for name in names:
                movie(tmp_path / split / label / f"{name}.mp4", [k / 16 for k in range(16)])
    found = find_actions(str(tmp_path))
    assert found.classes == ["run", "walk"] and len(found) == 6
    assert sorted(map(str, found.pictures.splits or ())) == ["test"] * 2 + ["train"] * 4
    assert found.pictures.read(0).shape == (8, 48, 64, 3)
    assert find_actions(str(tmp_path), fps=4).pictures.read(0).shape[0] == 4
    some = load(found, 32)
    assert some[0].pixels.shape == (8, 3, 32, 43)


def test_a_variable_frame_rate_is_kept(tmp_path: Path) -> None:
    for label in ("a", "b"):
        movie(tmp_path / label / "x.mp4", [0, 0.01, 0.02, 0.5, 0.51, 1.0])
    read = find_actions(str(tmp_path), fps=2).pictures.read(0)
    values = read.mean((1, 2, 3)).round(-1)
    assert len(read) == 3 and values.tolist() == [0, 60, 100]


@pytest.mark.parametrize("suffix", [".mkv", ".webm"])
def test_time_stamps_that_were_rounded_cost_no_frames(suffix: str, tmp_path: Path) -> None:
    """Matroska has time stamps of whole milliseconds: at 15 frames a second 0.133 s is where the third slot begins."""
    codec = "libvpx" if suffix == ".webm" else "mpeg4"
    for label in ("a", "b"):
        film(tmp_path / label / f"x{suffix}", codec, {"g": "12"}, 30, times=[round(1000 * k / 30) for k in range(30)])
    for fps, wanted in ((30, 30), (15, 15), (10, 10), (8, 8), (6, 6)):
        pictures, clips = find(str(tmp_path), rate=fps), find_actions(str(tmp_path), fps=fps).pictures
        assert [len(rows) for rows in clips.keys] == [wanted, wanted]
        assert [pictures.keys[i].number for i in clips.keys[0]] == [math.ceil(30 * k / fps) for k in range(wanted)]
        assert [len(rows) for rows in clips_in(find(str(tmp_path), rate=math.inf), fps).keys] == [wanted, wanted]


def test_folders_of_frames(tmp_path: Path) -> None:
    for label in ("run", "walk"):
        for clip in ("x", "y"):
            folder = tmp_path / label / clip
            folder.mkdir(parents=True)
            for k in range(12):
                Image.new("RGB", (40, 36), (k, 0, 0)).save(folder / f"{k}.png")
    found = find_actions(str(tmp_path), fps=8, frames_fps=24)
    assert found.pictures.ids == ["run/x", "run/y", "walk/x", "walk/y"] and found.classes == ["run", "walk"]
    assert found.pictures.read(0)[:, 0, 0, 0].tolist() == [0, 3, 6, 9]
    Image.new("RGB", (30, 36)).save(tmp_path / "run/x/3.png")
    with pytest.raises(Unreadable, match="several sizes"):
        found.pictures.read(0)


def test_clips_of_the_synthetic_world() -> None:
    found = find_actions("scenes:n=16,size=32,frames=8,labels=action")
    assert len(found) == 16 and "left" in found.classes and found.pictures.read(3).shape == (8, 32, 32, 3)
    assert len(clips_in(find("scenes:n=3,size=32,frames=6"))) == 3


def test_the_true_flow_of_the_synthetic_world_as_a_clip() -> None:
    world = "scenes:n=6,size=32,frames=5,labels=action,actions=left+right"
    found, frames = find_actions(world, sees="flow"), find_actions(world)
    assert found.classes == frames.classes and len(found) == len(frames)
    for i in range(len(found)):
        clip = found.pictures.read(i)
        assert clip.shape == (4, 32, 32, 3) and clip.dtype == np.uint8
        moving = clip[..., 2] > 132
        right = frames.classes[found.truth(i, 32, 32).label or 0] == "right"
        assert moving.any() and (clip[..., 0][moving].mean() > 128) == right
    vectors = np.float32([[[0, 0], [0.0625, -0.5]]])
    assert pictured(vectors).tolist() == [[[128, 128, 128], [192, 1, 255]]]
    with pytest.raises(SeeallError, match="of the synthetic world alone"):
        find_actions("clips", sees="flow")


def test_a_broken_stream_is_reported_and_others_are_learnt_from(tmp_path: Path) -> None:
    for label in ("a", "b"):
        for name in ("x", "y"):
            movie(tmp_path / label / f"{name}.mp4", [k / 8 for k in range(8)])
    (tmp_path / "a/z.mp4").write_bytes(b"no video" * 100)
    found = load(find_actions(str(tmp_path)), 32, allow_skipped=True)
    assert len(found) == 4 and [name for name, _ in found.skipped] == ["a/z.mp4"]
    with pytest.raises(SeeallError, match="a/z.mp4"):
        load(find_actions(str(tmp_path)), 32)


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    movie(tmp_path / "one/a/x.mp4", [0, 0.5])
    (tmp_path / "still/a").mkdir(parents=True)
    Image.new("RGB", (32, 32)).save(tmp_path / "still/a/1.png")
    for data, words in (
        (str(tmp_path / "one"), "no labels"), (str(tmp_path / "still"), "no two frames of one clip"),
        ("scenes:n=4,size=32", "no two frames of one clip"), (str(tmp_path / "nowhere"), "no such file"),
        ("scenes:n=4,size=32,frames=4,classes=1", "only one label"),
    ):  # fmt: skip
        with pytest.raises(SeeallError, match=words) as told:
            find_actions(data)
        assert "\n" not in str(told.value)
    with pytest.raises(SeeallError, match="'fps' is 0"):
        find_actions(str(tmp_path / "one"), fps=0)
