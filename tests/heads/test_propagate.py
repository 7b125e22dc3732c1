"""Masks carried from frame to frame: by flow, by likeness, for learning from, by the command."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from seeall.backbones.load import build as build_backbone
from seeall.backbones.load import save as save_backbone
from seeall.data.annotations.truth import IGNORE
from seeall.data.motion.masked import by_clip, find_masked
from seeall.heads.finetune import finetune
from seeall.heads.video.affinity import follow, shares
from seeall.heads.video.carry import Likeness, by_flow, carrier
from seeall.heads.video.spread import spread
from seeall.heads.video.warp import chain, moved
from seeall.metrics.video import region_similarity
from seeall.types import SeeallError

WORLD = "scenes:n=3,size=48,frames=7,fps=16,things=1-2"


def constant(dx: float, dy: float, shape: tuple[int, int]) -> Any:
    """The flow of a picture that moves by so many px a frame."""

    def between(a: int, b: int) -> NDArray[np.float32]:
        return np.broadcast_to(np.float32([dx * (b - a), dy * (b - a)]), (*shape, 2)).copy()

    return between


def test_a_chain_leads_back_to_where_pixels_were() -> None:
    mask = np.zeros((12, 15), np.uint8)
    mask[3:6, 2:5] = 1
    for now, where, known in chain([0, 1, 2, 3], constant(2, 1, mask.shape)):
        wanted = np.full_like(mask, IGNORE)
        wanted[now:, 2 * now :] = mask[: 12 - now, : 15 - 2 * now]
        assert np.array_equal(moved(mask, where, known), wanted)
    halves = list(chain([0, 1, 2], constant(0.5, 0, mask.shape)))
    assert torch.allclose(halves[1][1][0, :, 2:], torch.arange(1.0, 14).expand(12, 13))  # half a pixel twice is one


def test_where_flow_does_not_lead_back_nothing_is_known() -> None:
    def between(a: int, b: int) -> NDArray[np.float32]:
        flow = np.zeros((8, 8, 2), np.float32)
        if b < a:
            flow[2:4, 2:4] = 3  # says that it came from elsewhere, which knows nothing of it
        return flow

    _, _, known = next(chain([0, 1], between))
    assert not known[2:4, 2:4].any() and int(known.sum()) == 60


def test_the_nearer_mask_counts_and_the_other_fills_it() -> None:
    masks = {0: np.full((6, 9), 1, np.uint8), 4: np.full((6, 9), 2, np.uint8)}
    found = by_flow(constant(1, 0, (6, 9)))(range(5), masks, 9)
    assert sorted(found) == [1, 2, 3]
    assert (found[1][:, 1:] == 1).all() and (found[1][:, :1] == 2).all()
    assert (found[3][:, -1:] == 1).all() and (found[3][:, :-1] == 2).all()
    assert sorted(by_flow(constant(1, 0, (6, 9)))(range(9), masks, 1)) == [1, 3, 5]


def test_of_the_synthetic_world_the_true_flow_tells_true_masks() -> None:
    whole = find_masked(WORLD, every=3)
    known = find_masked(WORLD)
    carry = carrier("true", whole)
    right, told, count = 0, 0, 0
    for rows in by_clip(whole).values():
        masks = {row: known.truth(row, 48, 48).semantic for row in rows if whole.notes[row] is not None}
        for row, mask in carry(rows, masks, 9).items():  # type: ignore[arg-type]
            there = mask != IGNORE
            right += int((mask == known.truth(row, 48, 48).semantic)[there].sum())
            told, count = told + int(there.sum()), count + mask.size
    assert told > 0.9 * count and right > 0.99 * told


def loop(features: list[Any], known: Any, last: int, near: float, most: int, temperature: float) -> list[Any]:
    """Of each frame after the first, (K, h, w): place by place."""
    _, h, w = features[0].shape
    told = [known]
    for t in range(1, len(features)):
        now = torch.zeros_like(known)
        for y in range(h):
            for x in range(w):
                likes = []
                for s in [0, *range(max(1, t - last), t)]:
                    for v in range(h):
                        for u in range(w):
                            if s and math.hypot(v - y, u - x) > near:
                                continue
                            one, other = features[t][:, y, x], features[s][:, v, u]
                            likes.append((float(one @ other / (one.norm() * other.norm())), told[s][:, v, u]))
                likes = sorted(likes, key=lambda like: -like[0])[:most]
                weights = torch.tensor([math.exp(like / temperature) for like, _ in likes])
                now[:, y, x] = sum(weight * one for weight, (_, one) in zip(weights / weights.sum(), likes))
        told.append(now)
    return told[1:]


@pytest.mark.parametrize(("last", "near", "most"), [(0, 9.0, 5), (2, 1.5, 4), (3, 2.0, 1000)])
def test_likeness_is_a_loop_over_places(last: int, near: float, most: int) -> None:
    generator = torch.Generator().manual_seed(last)
    features = [torch.randn(6, 4, 5, generator=generator) for _ in range(5)]
    mask = np.random.default_rng(0).integers(0, 3, (16, 20)).astype(np.uint8)
    known = shares(mask, 3, (4, 5))
    wanted = loop(features, known, last, near, most, 0.1)
    found = dict(
        follow(range(5), mask, 3, lambda k: features[k], last=last, near=near, most=most, temperature=0.1)
    )  # fmt: skip
    for k, one in enumerate(wanted, start=1):
        large = F.interpolate(one[None], (16, 20), mode="bilinear", align_corners=False)[0]
        assert np.array_equal(found[k], large.argmax(0).numpy().astype(np.uint8))


def test_what_a_place_is_of() -> None:
    mask = np.array([[0, 0, 1, 1], [0, 1, IGNORE, 1], [IGNORE] * 4, [IGNORE] * 4], np.uint8)
    share = shares(mask, 2, (2, 2))
    assert torch.allclose(share[1], torch.tensor([[0.25, 1.0], [0.5, 0.5]]))


@pytest.fixture
def backbone(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    network, _ = build_backbone("resnet18", stem="3x3")
    save_backbone(
        network, tmp_path / "backbone.safetensors", name="resnet18", settings={"stem": "3x3"}, preprocessing={}
    )
    return tmp_path / "backbone.safetensors"


def test_a_still_clip_keeps_its_mask_by_likeness(backbone: Path) -> None:
    whole = find_masked("scenes:n=1,size=64,frames=4,actions=still,noise=0")
    rows = [0, 1, 2, 3]
    mask = whole.truth(1, 64, 64).semantic
    assert mask is not None
    found = carrier(str(backbone), whole, Likeness(side=64, stride=4, most=1))(rows, {1: mask}, 9)
    assert sorted(found) == [0, 2, 3]  # forwards, and backwards before the first
    assert all((one == mask).mean() > 0.95 for one in found.values())
    assert sorted(carrier(str(backbone), whole, Likeness(side=64, stride=4))(rows, {0: mask}, 2)) == [1, 2]
    with pytest.raises(SeeallError, match="'stride' is 5: the stages of this backbone have 1, 2, 4, 8"):
        carrier(str(backbone), whole, Likeness(stride=5))


def test_frames_beside_those_with_a_mask_are_learnt_from() -> None:
    whole, true = find_masked(WORLD, every=6), find_masked(WORLD)
    learnt = whole.known().subset([0, 1])  # of the first clip
    more = spread(learnt, whole, reach=2, by="true")
    assert more.pictures.ids == [true.pictures.ids[k] for k in (0, 1, 2, 4, 5, 6)]
    for i, k in enumerate((0, 1, 2, 4, 5, 6)):
        told, wanted = more.truth(i, 48, 48).semantic, true.truth(k, 48, 48).semantic
        assert told is not None and wanted is not None
        there = told != IGNORE
        assert there.mean() > 0.8 and (told == wanted)[there].mean() > 0.98
        assert (i in (0, 5)) == bool(there.all() and np.array_equal(told, wanted)) or there.all()
    assert spread(learnt, whole) is learnt
    for settings, words in (
        ({"reach": 2}, "needs by"),
        ({"by": "true"}, "needs reach"),
        ({"reach": -1}, "'reach' is -1"),
    ):
        with pytest.raises(SeeallError, match=words):
            spread(learnt, whole, **settings)


def test_video_segmentation_learns_from_told_masks_and_resumes(tmp_path: Path) -> None:
    def run(name: str, *settings: str) -> tuple[bytes, dict[str, Any]]:
        finetune(
            WORLD, tmp_path / name, task="video-segmentation", start="none", backbone="mobilenet_v3_small",
            image_size=48, steps=3, batch_size=2, set=("every=3", "width=8", *settings), val="0.3",
        )  # fmt: skip
        facts = json.loads((tmp_path / name / "run.json").read_text())
        return (tmp_path / name / "head.safetensors").read_bytes(), facts

    _, alone = run("alone")
    one, told = run("told", "reach=1", "by=true", "loss=relaxed")
    again, _ = run("again", "reach=1", "by=true", "loss=relaxed")
    assert alone["resolved"]["pictures"] == 6 and told["resolved"]["pictures"] == 14
    assert one == again


def test_j_is_the_mean_jaccard_index_of_things() -> None:
    one, other = np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
    one[:2], other[1:3] = 1, 1
    assert region_similarity([(one, other)], [1]) == pytest.approx(100 / 3)
    assert region_similarity([(one, one), (one, other)], [1]) == pytest.approx(100 * 2 / 3)
    assert region_similarity([(one, one)], [1, 2]) == 100  # the second is not there, and was not found
    other[:1] = IGNORE
    assert region_similarity([(one, other)], [1]) == pytest.approx(50)
    assert region_similarity([], [1]) is None and region_similarity([(one, one)], []) is None


def test_the_command_writes_masks_of_all_frames_and_judges_them(ssl: Any, backbone: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, printed, fault = ssl("propagate", WORLD, "--from", "true", "--every", "3", "--out", out, "--json")
    assert code == 0, fault
    told = json.loads(printed)
    assert told["pictures"] == 21 and told["clips"] == 3 and told["mIoU"] > 95 and told["J"] > 90
    masks = sorted((out / "masks").rglob("*.png"))
    assert len(masks) == 21 and len(list((out / "videos").rglob("*.mp4"))) == 3
    assert np.asarray(Image.open(masks[0])).shape == (48, 48)
    own = ("--set", "stride=4", "--set", "side=48", "--every", "0", "--json")
    first = json.loads(ssl("propagate", WORLD, "--from", backbone, "--out", tmp_path / "two", *own)[1])
    assert first["known"] == 100 and 0 < first["J"] <= 100
    for more, words in (
        (("--from", tmp_path / "no"), "no weights at"), (("--from", "true", "--every", "-1"), "--every"),
        (("--from", "true", "--reach", "0"), "--reach"), (("--from", "true", "--set", "most=0"), "'most' is 0"),
        (("--from", backbone, "--set", "stride=5", "--overwrite"), "'stride' is 5"),
    ):  # fmt: skip
        code, _, fault = ssl("propagate", WORLD, "--out", out, *more)
        assert code == 2 and words in fault and "Traceback" not in fault, (fault, words)


def test_clips_without_a_mask_are_named(ssl: Any, backbone: Path, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        for part in ("frames", "masks"):
            (tmp_path / "in" / name / part).mkdir(parents=True)
        for k in range(3):
            Image.new("RGB", (48, 48), (80 * k, 0, 0)).save(tmp_path / "in" / name / "frames" / f"{k}.png")
    mask = np.zeros((48, 48), np.uint8)
    mask[:20] = 255
    Image.fromarray(mask).save(tmp_path / "in" / "cat" / "masks" / "0.png")
    own = ("--set", "stride=4", "--set", "side=48", "--quiet", "--json")
    code, out, err = ssl("propagate", tmp_path / "in", "--from", backbone, "--out", tmp_path / "out", *own)
    assert code == 0 and json.loads(out)["pictures"] == 3, err
    assert "1 of 2 clips have no mask to carry: dog" in err
