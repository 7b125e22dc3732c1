"""Flow: what networks promise over every family of backbones, and their parts against explicit loops."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.utils import flow_to_image

from seeall.backbones.load import build as build_backbone
from seeall.data.annotations.examples import Example, load, scaled
from seeall.data.annotations.truth import Truth
from seeall.data.motion.fields import Field
from seeall.data.motion.pairs import find_pairs
from seeall.heads import build
from seeall.heads.about import About
from seeall.heads.flow import draw, refine
from seeall.heads.flow.augment import FlowAugment
from seeall.heads.flow.correlation import correlate
from seeall.types import SeeallError

FAMILIES: dict[str, dict[str, Any]] = {
    "flownet": {"width": 4},
    "resnet18": {"stem": "3x3"},
    "vgg16_bn": {},
    "mobilenet_v3_small": {},
    "shufflenet_v2_x0_5": {},
    "convnext_tiny": {},
    "vit_tiny": {"layers": 2},
    "timm/resnet10t": {},
}
SMALL: dict[str, dict[str, Any]] = {
    "flownets": {"width": 16},
    "flownetc": {"width": 8, "reach": 2, "step": 1},
    "raft": {"updates": 2},
}
WORLD = "scenes:n=4,size=48,frames=3,things=1-2,seed=3"
STILL = {"flip": 0.0, "turn": 0.0, "zoom_min": 1.0, "zoom_max": 1.0, "apart": 0.0, "jitter": 0.0, "noise": 0.0}
every_pair = pytest.mark.parametrize(
    ("model", "family"),
    [(model, family) for model in ("flownets", "flownetc") for family in FAMILIES] + [("raft", build.NONE)],
)


def head_of(model: str, family: str) -> tuple[nn.Module, build.Recipe]:
    torch.manual_seed(0)
    settings = FAMILIES.get(family, {})
    recipe = build.Recipe("flow", model, (), 32, family, settings, {"model": SMALL[model]})
    backbone = None if family == build.NONE else build_backbone(family, **settings)[0]
    return build.assemble(recipe, backbone, About(32)), recipe


def examples(n: int = 2) -> list[Example]:
    some = load(find_pairs(WORLD), None)
    augment = FlowAugment()
    return [augment(some[i], 32, 0, i) for i in range(n)]


@every_pair
def test_a_step_gives_every_parameter_that_counts_a_gradient(model: str, family: str) -> None:
    head, _ = head_of(model, family)
    told = head.train().training_step({"examples": examples(), "epoch": 0, "rows": [0, 1]})  # type: ignore[operator]
    assert all(value.ndim == 0 and torch.isfinite(value) for value in told.values()), told
    told["loss"].backward()
    bare = [name for name, p in head.named_parameters() if p.grad is None]
    assert [name for name in bare if "classifier.0" not in name and "head.norm" not in name] == []


@every_pair
def test_flow_has_the_size_of_the_frames_and_is_the_same_alone_and_together(model: str, family: str) -> None:
    head, _ = head_of(model, family)
    head.eval()
    sizes = [(32, 32), (37, 61), (50, 33), (32, 32), (20, 90), (2, 70), (70, 1)]
    pairs = [torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8) for size in sizes]
    said = head.predict(pairs)  # type: ignore[operator]
    for one, pair, size in zip(said, pairs, sizes):
        assert one.flow.shape == (*size, 2) and np.isfinite(one.flow).all()
        np.testing.assert_allclose(one.flow, head.predict([pair])[0].flow, atol=1e-3)  # type: ignore[operator]


@every_pair
def test_saved_and_loaded_it_says_the_same(model: str, family: str, tmp_path: Path) -> None:
    head, recipe = head_of(model, family)
    head.eval()
    build.save(head, recipe, tmp_path)
    again, read = build.load(tmp_path)
    assert read == recipe
    pair = [torch.randint(0, 256, (2, 3, 40, 36), dtype=torch.uint8)]
    assert np.array_equal(head.predict(pair)[0].flow, again.predict(pair)[0].flow)  # type: ignore[operator]


@pytest.mark.parametrize(("version", "words"), [(1, "older version, whose flownet.*: learn"), (99, "upgrade seeall")])
@pytest.mark.parametrize("model", ["flownets", "flownetc"])
def test_a_head_of_another_version_is_refused(
    model: str, version: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(build, "FORMAT", version)
        build.save(*head_of(model, "flownet"), tmp_path)
    with pytest.raises(SeeallError, match=words):
        build.load(tmp_path)


def test_two_frames_seen_at_once_begin_with_what_was_learnt_of_one() -> None:
    backbone, _ = build_backbone("resnet18")
    x = torch.rand(1, 3, 40, 40)
    alone = backbone.eval().stages(x)
    both = refine.paired(backbone).stages(refine.together(x, x))
    for a, b in zip(alone, both):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    forth, back = (backbone.stages(refine.together(*frames))[0] for frames in ((x, 1 - x), (1 - x, x)))
    assert (forth - back).abs().max() > 0.1  # it sees from the first which frame is which
    with pytest.raises(SeeallError, match="no convolution over three channels"):
        refine.paired(backbone)


def test_outputs_of_the_same_weights_mean_as_many_px_as_the_unit() -> None:
    maps = [torch.rand(1, 4, 8, 8), torch.rand(1, 6, 4, 4), torch.rand(1, 8, 2, 2)]
    said = []
    for unit in (2.0, 20.0):
        torch.manual_seed(0)
        said.append(refine.Refinement([4, 6, 8], 32, False, unit)(maps))
    assert [flow.shape[2] for flow in said[0]] == [8, 4, 2]
    for few, many in zip(*said):
        torch.testing.assert_close(10 * few, many)


@pytest.mark.parametrize(("reach", "step"), [(2, 1), (4, 2), (5, 2), (0, 1), (3, 3)])
def test_correlation_is_its_definition(reach: int, step: int) -> None:
    torch.manual_seed(reach)
    first, second = torch.randn(2, 3, 5, 6), torch.randn(2, 3, 5, 6)
    found = correlate(first, second, reach, step)
    far = reach // step * step
    offsets = range(-far, far + 1, step)
    assert found.shape == (2, len(offsets) ** 2, 5, 6)
    for b in range(2):
        for y in range(5):
            for x in range(6):
                for k, (dy, dx) in enumerate((dy, dx) for dy in offsets for dx in offsets):
                    there = 0 <= y + dy < 5 and 0 <= x + dx < 6
                    wanted = float(first[b, :, y, x] @ second[b, :, y + dy, x + dx]) / 3 if there else 0.0
                    assert float(found[b, k, y, x]) == pytest.approx(wanted, abs=1e-5)


def test_the_cost_is_the_sum_of_the_papers_scales() -> None:
    torch.manual_seed(1)
    true, known = 5 * torch.randn(2, 2, 8, 12), torch.rand(2, 8, 12) < 0.6
    known[0, :4, :4] = False
    flows = [torch.randn(2, 2, 8 // s, 12 // s) for s in (1, 2, 4)]
    wanted = 0.0
    for weight, flow, s in zip((1, 2, 4), flows, (1, 2, 4)):
        errors = []
        for b in range(2):
            for y in range(8 // s):
                for x in range(12 // s):
                    at = (b, slice(y * s, y * s + s), slice(x * s, x * s + s))
                    here = true[at[0], :, at[1], at[2]][:, known[at]]
                    if here.shape[1]:
                        errors.append(math.dist(flow[b, :, y, x].tolist(), here.mean(1).tolist()))
        wanted += weight / s**2 * sum(errors) / len(errors)
    assert float(refine.cost(flows, true, known)) == pytest.approx(wanted, rel=1e-5)


def test_what_is_not_known_costs_nothing_whatever_is_said() -> None:
    true, known = torch.randn(1, 2, 8, 8), torch.ones(1, 8, 8, dtype=torch.bool)
    known[0, :, 4:] = False
    flow = torch.zeros(1, 2, 8, 8, requires_grad=True)
    refine.cost([flow], true, known).backward()
    assert flow.grad is not None and (flow.grad[..., 4:] == 0).all() and (flow.grad[..., :4] != 0).any()
    assert refine.cost([flow.detach()], true, torch.zeros_like(known)) == 0


def test_perfect_flow_costs_nothing_and_has_finite_gradients() -> None:
    true = torch.ones(1, 2, 8, 8)
    flows = [torch.ones(1, 2, s, s, requires_grad=True) for s in (8, 4)]
    loss = refine.cost(flows, true, torch.ones(1, 8, 8, dtype=torch.bool))
    loss.backward()
    assert loss.item() < 1e-5 and all(torch.isfinite(f.grad).all() for f in flows)  # type: ignore[arg-type]


def test_augmentation_with_nothing_to_do_changes_nothing() -> None:
    some = load(find_pairs(WORLD), None)[0]
    seen = FlowAugment(**STILL)(some, 48, 0, 0)
    assert torch.equal(seen.pixels, some.pixels)
    assert seen.truth.motion is not None and some.truth.motion is not None
    np.testing.assert_allclose(seen.truth.motion.vectors, some.truth.motion.vectors, atol=1e-4)
    assert (seen.truth.motion.known == some.truth.motion.known).all()


def smooth(size: int, shift: tuple[float, float] = (0.0, 0.0)) -> Tensor:
    """A picture without edges, seen by a camera that has gone by `shift` px."""
    x, y = np.meshgrid(np.arange(size) + 0.5 - shift[0], np.arange(size) + 0.5 - shift[1])
    waves = [np.sin(x / 9 + k) + np.cos(y / 11 - 2 * k) + np.sin((x + y) / 13) for k in range(3)]
    return torch.from_numpy(np.stack(waves) * 40 + 127).round().to(torch.uint8)


@pytest.mark.parametrize("key", range(6))
def test_augmented_flow_leads_to_what_the_second_frame_shows(key: int) -> None:
    """Whatever is turned, enlarged, mirrored or moved apart: the second frame, put back by the flow, is the first."""
    move, size = (3.25, -2.5), 96
    vectors = np.broadcast_to(np.array(move, np.float32), (size, size, 2)).copy()
    pair = torch.stack([smooth(size), smooth(size, move)])
    example = Example(pair, Truth(motion=Field(vectors, np.ones((size, size), np.bool_))))
    augment = FlowAugment(jitter=0, noise=0, turn=60, apart=1)
    seen = augment(example, 64, key, 0)
    motion = seen.truth.motion
    assert motion is not None and seen.pixels.shape == (2, 3, 64, 64)
    frames = seen.pixels.permute(0, 2, 3, 1).numpy()
    back = draw.put_back(frames[1], motion.vectors)
    inside = motion.known.copy()
    x, y = np.meshgrid(np.arange(64) + 0.5, np.arange(64) + 0.5)
    there = np.stack([x, y], -1) + motion.vectors
    inside &= ((there > 4) & (there < 60)).all(2) & (frames[0] != 127).any(2)
    inside &= np.abs(frames[1].astype(int) - 127).sum(2) > 0
    assert inside.mean() > 0.3
    errors = np.abs(back.astype(int) - frames[0].astype(int))[inside]
    assert np.median(errors) <= 1.5 and np.quantile(errors, 0.9) <= 4
    assert torch.equal(augment(example, 64, key, 0).pixels, seen.pixels)
    without = draw.put_back(frames[1], np.zeros_like(motion.vectors))
    assert np.abs(without.astype(int) - frames[0].astype(int))[inside].mean() > 3 * errors.mean()


def test_frames_smaller_than_the_window_are_known_where_they_are() -> None:
    some = load(find_pairs(WORLD), None)[0]
    seen = FlowAugment(**STILL)(some, 64, 0, 0)
    assert seen.truth.motion is not None
    known = seen.truth.motion.known
    assert seen.pixels.shape[-2:] == (64, 64) and known.sum() == 48 * 48 and known[8:56, 8:56].all()


@pytest.mark.parametrize(
    "wrong", [{"flip": 2}, {"turn": 200}, {"zoom_min": 2, "zoom_max": 1}, {"apart": -1}, {"jitter": 1}, {"noise": 2}]
)
def test_settings_out_of_bounds_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SeeallError, match=next(iter(wrong))):
        FlowAugment(**wrong)


def test_a_truth_that_is_scaled_moves_as_much_faster() -> None:
    vectors = np.arange(24, dtype=np.float32).reshape(3, 4, 2)
    known = np.ones((3, 4), np.bool_)
    known[0, 0] = False
    motion = scaled(Truth(motion=Field(vectors, known, ~known)), (3, 4), (6, 12)).motion
    assert motion is not None and motion.hidden is not None and motion.vectors.shape == (6, 12, 2)
    np.testing.assert_allclose(motion.vectors[::2, ::3], vectors * [3, 2])
    assert (motion.known[::2, ::3] == known).all() and (motion.hidden == ~motion.known).all()


def test_colours_are_torchvisions_at_a_scale_that_stays() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(0, 3, (6, 7, 2)).astype(np.float32)
    longest = float(np.linalg.norm(vectors, axis=2).max())
    theirs = flow_to_image(torch.from_numpy(vectors).permute(2, 0, 1)).permute(1, 2, 0).numpy()
    ours = draw.coloured(vectors, longest)
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 1
    slow = draw.coloured(vectors / 2, longest)
    assert (slow.astype(int).sum() > ours.astype(int).sum()) and not np.array_equal(slow, ours)
    assert (draw.coloured(np.zeros((2, 2, 2), np.float32), 1.0) >= 254).all()


def test_the_second_frame_is_put_back_exactly_by_whole_steps() -> None:
    rng = np.random.default_rng(0)
    second = rng.integers(0, 256, (8, 9, 3), dtype=np.uint8)
    vectors = np.zeros((8, 9, 2), np.float32)
    vectors[..., 0] = 2
    back = draw.put_back(second, vectors)
    assert (back[:, :7] == second[:, 2:]).all() and (back[:, 7:] == 0).all()


def groups(ink: np.ndarray) -> int:
    """How many runs of columns have ink: letters that touch no other."""
    columns = np.concatenate([[False], ink.any(0)])
    return int((columns[1:] & ~columns[:-1]).sum())


@pytest.mark.parametrize("side", [32, 64, 320])
@pytest.mark.parametrize(("scale", "letters"), [(4.2, 5), (42.0, 4), (3.42, 6)])
def test_the_speed_of_the_wheel_stands_on_white_with_its_point(side: int, scale: float, letters: int) -> None:
    """Every letter, digit and point is a run of columns of its own, on white below the wheel."""
    said = np.zeros((side, side, 2), np.float32)
    said[..., 0] = scale
    picture = draw.beside(np.zeros((side, side, 3), np.uint8), said, scale)
    assert picture.shape == (320, 644, 3), "small ones are enlarged"
    seen = picture[:, 324:].astype(int)
    other = (seen != seen[-1, -1]).any(2)
    corner = seen[: np.flatnonzero(other.any(1))[-1] + 1, : np.flatnonzero(other.any(0))[-1] + 1]
    assert 0.02 < corner.shape[0] * corner.shape[1] / seen[..., 0].size < 0.1, "a corner, and no more"
    grey = corner.max(2) == corner.min(2)
    below = corner[np.flatnonzero(~grey.all(1))[-1] + 1 :]
    ink = below.min(2) < 160
    assert groups(ink) == letters and (below[:, [0, -1]] == 255).all() and (below[[0, -1]] == 255).all()
    assert 8 <= np.flatnonzero(ink.any(1)).size <= 24, "as high as letters that can be read"


def test_a_panel_is_enlarged_pixel_by_pixel_and_a_large_or_narrow_one_is_not_spoilt() -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (2, 60, 80, 3), dtype=np.uint8)
    still = np.zeros((60, 80, 2), np.float32)
    paper = draw.panel(frames, still, Field(still, np.ones((60, 80), np.bool_)))
    assert paper.shape == (240, 5 * 320 + 4 * 4, 3)
    assert np.array_equal(paper[:, :320], frames[1].repeat(4, 0).repeat(4, 1)), "put back by no motion"
    assert np.array_equal(paper[:, 324:644], frames[0].repeat(4, 0).repeat(4, 1))
    assert (paper[:, 3 * 324 : 3 * 324 + 320] >= 254).all() and (paper[:, -320:] == 0).all()
    large = draw.beside(np.zeros((200, 400, 3), np.uint8), np.zeros((200, 400, 2), np.float32), 1.0)
    assert large.shape == (200, 804, 3)
    narrow = draw.beside(np.zeros((4, 200, 3), np.uint8), np.zeros((4, 200, 2), np.float32), 1.0)
    assert narrow.shape == (4, 404, 3) and (narrow[:, 204:] >= 254).all(), "no part of a wheel"
