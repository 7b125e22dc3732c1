"""Keypoints: Transporter's parts against explicit loops, what it promises over every backbone, and drawings."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seeall.backbones.load import build as build_backbone
from seeall.data.annotations.examples import Example, load
from seeall.data.annotations.truth import Truth
from seeall.data.motion.stretches import find_stretches
from seeall.heads import build
from seeall.heads.about import About
from seeall.heads.keypoints import draw
from seeall.heads.keypoints.augment import PairAugment
from seeall.heads.keypoints.transporter import Transporter, gaussians, joined, places, transported
from seeall.types import SeeallError

FAMILIES: dict[str, dict[str, Any]] = {
    "plain": {"width": 4},
    "flownet": {"width": 4},
    "resnet18": {"stem": "3x3"},
    "vgg16_bn": {},
    "mobilenet_v3_small": {},
    "shufflenet_v2_x0_5": {},
    "convnext_tiny": {},
    "vit_tiny": {"layers": 2},
    "timm/resnet10t": {},
}
WORLD = "scenes:n=2,size=48,frames=4,things=1-2,seed=3"
every_family = pytest.mark.parametrize("family", FAMILIES)


def head_of(family: str) -> tuple[nn.Module, build.Recipe]:
    torch.manual_seed(0)
    recipe = build.Recipe(
        "keypoints", "transporter", (), 32, family, FAMILIES[family], {"model": {"width": 4, "keypoints": 5}}
    )
    return build.assemble(recipe, build_backbone(family, **FAMILIES[family])[0], About(32)), recipe


@every_family
def test_a_step_gives_every_parameter_that_counts_a_gradient(family: str) -> None:
    head, _ = head_of(family)
    some, augment = load(find_stretches(WORLD), 32), PairAugment()
    batch = {"examples": [augment(some[i], 32, 0, i) for i in range(2)], "epoch": 0, "rows": [0, 1]}
    told = head.train().training_step(batch)  # type: ignore[operator]
    assert all(value.ndim == 0 and torch.isfinite(value) for value in told.values()), told
    told["loss"].backward()
    bare = [name for name, p in head.named_parameters() if p.grad is None]
    known = ("classifier.0", "head.norm")
    assert [name for name in bare if not any(part in name for part in known)] == []


@every_family
def test_keypoints_lie_in_the_picture_and_are_the_same_alone_and_together(family: str) -> None:
    head, _ = head_of(family)
    head.eval()
    sizes = [(32, 32), (37, 61), (50, 33), (32, 32), (20, 90), (2, 150), (90, 1)]
    pictures = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in sizes]
    clips = [torch.stack([p, p.flip(-1)]) for p in pictures]
    said, of_clips = head.predict(pictures), head.predict(clips)  # type: ignore[operator]
    for one, both, picture, (height, width) in zip(said, of_clips, pictures, sizes):
        points = one.keypoints.points
        assert points.shape == (5, 3) and one.keypoints.rebuilt is None
        assert (points >= 0).all() and (points <= [width, height, 1 + 1e-5]).all()
        alone = head.predict([picture])[0].keypoints.points  # type: ignore[operator]
        np.testing.assert_allclose(points, alone, atol=1e-3 * max(height, width))
        assert both.keypoints.points.shape == (2, 5, 3) and both.keypoints.rebuilt > 0
        np.testing.assert_allclose(both.keypoints.points[0], points, atol=1e-3 * max(height, width))


@every_family
def test_saved_and_loaded_it_says_the_same(family: str, tmp_path: Path) -> None:
    head, recipe = head_of(family)
    head.eval()
    build.save(head, recipe, tmp_path)
    again, read = build.load(tmp_path)
    assert read == recipe
    picture = [torch.randint(0, 256, (3, 40, 36), dtype=torch.uint8)]
    one, two = (h.predict(picture)[0].keypoints.points for h in (head, again))  # type: ignore[operator]
    assert np.array_equal(one, two)


def test_places_are_the_mean_of_the_softmax() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    found = places(logits.flatten(2).softmax(2).view_as(logits))
    for b in range(2):
        for k in range(3):
            weights = [[math.exp(float(v)) for v in row] for row in logits[b, k]]
            total, x, y = sum(map(sum, weights)), 0.0, 0.0
            for i in range(4):
                for j in range(5):
                    x += weights[i][j] / total * (-1 + (2 * j + 1) / 5)
                    y += weights[i][j] / total * (-1 + (2 * i + 1) / 4)
            assert found[b, k].tolist() == pytest.approx([x, y], abs=1e-12)


def test_a_single_peak_is_where_the_keypoint_is() -> None:
    shares = torch.zeros(1, 2, 4, 8)
    shares[0, 0, 0, 7], shares[0, 1, 3, 0] = 1, 1
    assert places(shares)[0].tolist() == [[0.875, -0.75], [-0.875, 0.75]]


def test_gaussians_and_what_is_carried_are_those_of_loops() -> None:
    torch.manual_seed(1)
    source, target = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    points = [2 * torch.rand(2, 3, 2) - 1 for _ in range(2)]
    maps = [joined(gaussians(p, 0.3, (4, 5))) for p in points]
    found = transported(source, maps[0], target, maps[1])
    for b in range(2):
        for i in range(4):
            for j in range(5):
                here = (-1 + (2 * j + 1) / 5, -1 + (2 * i + 1) / 4)
                h = []
                for p in points:
                    free = 1.0
                    for k in range(3):
                        free *= 1 - math.exp(-(math.dist(here, p[b, k].tolist()) ** 2) / (2 * 0.3**2))
                    h.append(1 - free)
                assert [float(m[b, 0, i, j]) for m in maps] == pytest.approx(h, abs=1e-5)
                wanted = (1 - h[0]) * (1 - h[1]) * source[b, :, i, j] + h[1] * target[b, :, i, j]
                torch.testing.assert_close(found[b, :, i, j], wanted, atol=1e-5, rtol=1e-4)


def test_gradients_are_those_of_small_differences() -> None:
    torch.manual_seed(2)
    source, target = (torch.randn(1, 2, 3, 4, dtype=torch.float64) for _ in range(2))
    one, two = (torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))

    def carried(a: Tensor, b: Tensor) -> Tensor:
        h = [joined(gaussians(places(m.flatten(2).softmax(2).view_as(m)), 0.4, (3, 4))) for m in (a, b)]
        return transported(source, h[0], target, h[1])

    assert torch.autograd.gradcheck(carried, (one, two))


def test_nothing_is_learnt_of_the_source() -> None:
    head, _ = head_of("plain")
    network = head.train().network
    source, target = (torch.randn(2, 3, 32, 32, requires_grad=True) for _ in range(2))
    network.rebuilt(source, target).square().mean().backward()  # type: ignore[operator]
    assert source.grad is None and target.grad is not None and target.grad.abs().max() > 0


def blobs(count: int, key: int) -> Tensor:
    """(count, 2, 3, 32, 32) a bright blob on grey, somewhere else in the second frame."""
    generator = torch.Generator().manual_seed(key)
    centre = 6 + 20 * torch.rand(count, 2, 2, generator=generator)
    line = torch.arange(32) + 0.5
    dx, dy = line - centre[..., :1], line - centre[..., 1:]
    bright = torch.exp(-(dx.square()[:, :, None] + dy.square()[..., None]) / (2 * 2.5**2))
    return (2 * bright[:, :, None]).expand(-1, -1, 3, -1, -1)


def test_a_blob_that_moves_is_carried_to_where_it_is_and_the_keypoint_lies_on_it() -> None:
    torch.manual_seed(0)
    network = Transporter(build_backbone("plain", width=8)[0], keypoints=1, std=0.25, width=8)
    optimiser = torch.optim.Adam(network.parameters(), 5e-3)
    for step in range(120):
        pairs = blobs(16, step)
        optimiser.zero_grad()
        (network.rebuilt(pairs[:, 0], pairs[:, 1]) - pairs[:, 1]).square().mean().backward()
        optimiser.step()
    network.eval()
    pairs = blobs(32, 1000)
    with torch.no_grad():
        with_it = float((network.rebuilt(pairs[:, 0], pairs[:, 1]) - pairs[:, 1]).square().mean())
        points, _ = network(pairs[:, 1])
        network.std = 1e-3  # so that no feature is near a keypoint, and nothing is carried
        without = float((network.rebuilt(pairs[:, 0], pairs[:, 1]) - pairs[:, 1]).square().mean())
    still = float((pairs[:, 0] - pairs[:, 1]).square().mean())
    assert with_it < 0.3 * still and with_it < 0.3 * without
    peak = pairs[:, 1, 0].flatten(1).argmax(1)
    true = torch.stack([peak % 32, peak // 32], 1) + 0.5
    away = ((points[:, 0] + 1) * 16 - true).norm(dim=1)
    assert float(away.max()) < 0.25 * 16 + 1  # within its Gaussian
    assert float((away - away.mean()).abs().max()) < 1.5  # and always as far


def test_pairs_are_drawn_anew_for_each_epoch_and_by_key() -> None:
    frames = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, 3, 16, 20) * 10
    example, augment = Example(frames.contiguous(), Truth()), PairAugment(flip=0, jitter=0)
    drawn = [augment(example, 16, 0, epoch, 7).pixels for epoch in range(200)]
    pairs = [tuple((p[:, 0, 0, 0] // 10).tolist()) for p in drawn]
    assert all(p.shape == (2, 3, 16, 16) for p in drawn) and all(a != b for a, b in pairs)
    assert set(pairs) == {(a, b) for a in range(5) for b in range(5) if a != b}
    assert torch.equal(augment(example, 16, 0, 3, 7).pixels, drawn[3])


def test_both_frames_go_through_the_same() -> None:
    same = torch.randint(0, 256, (3, 24, 24), dtype=torch.uint8)
    example = Example(torch.stack([same, same]), Truth())
    seen = [PairAugment()(example, 24, 0, epoch).pixels for epoch in range(8)]
    assert all(torch.equal(a, b) for a, b in seen) and not all(torch.equal(s[0], same) for s in seen)


@pytest.mark.parametrize("wrong", [{"flip": 2.0}, {"jitter": 1.0}])
def test_settings_out_of_bounds_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SeeallError, match=next(iter(wrong))):
        PairAugment(**wrong)


def test_a_trail_is_of_one_clip_and_of_the_last_frames() -> None:
    black, trails = np.zeros((400, 400, 3), np.uint8), draw.Trails()

    def lit(x: float, clip: str | None) -> set[int]:
        points = np.array([[x, 200, 0]], np.float32)
        return set(np.flatnonzero(trails.draw(black, points, clip)[200].any(1)).tolist())

    dot = lit(50, "a")
    assert min(dot) > 40 and max(dot) < 60
    assert set(range(60, 140)) <= lit(150, "a")
    assert min(lit(150, "b")) > 130  # another clip begins without
    assert min(lit(250, None)) > 230 and min(lit(350, None)) > 330
    for k in range(draw.TRAIL + 1):
        last = lit(20 + 20 * k, "c")
    assert min(last) <= 20
    assert 25 < min(lit(300, "c")) <= 40  # the first is forgotten


def test_crosses_are_where_keypoints_on_things_should_be() -> None:
    some = load(find_stretches(WORLD, gap=3), None)[0]
    frames = some.pixels.permute(0, 2, 3, 1).numpy()
    points = np.full((4, 2, 3), 24, np.float32)
    picture = draw.panel(frames, points, some.truth)
    factor = 320 // 48
    assert picture.shape == (48 * factor, 4 * 48 * factor + 3 * 4, 3)
    colours = draw.colours(8)
    assert len(set(colours)) == 8
