"""Maps that are kept where nothing has changed are those of the whole network, and what was saved is counted."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seeall.backbones.contract import Backbone
from seeall.backbones.load import build as build_backbone
from seeall.heads import build
from seeall.heads.about import About
from seeall.heads.video.regions import area, boxes, differing, grown, joined
from seeall.heads.video.skip import Reusing, ReusingNetwork, Unchanged
from seeall.types import SeeallError

RECEPTIVE = 435
"""Of ResNet-18, px."""


@functools.cache
def backbone(name: str = "resnet18") -> Backbone:
    torch.manual_seed(0)
    made: Backbone = build_backbone(name)[0]
    with torch.no_grad():
        made.train()(torch.randn(4, 3, 64, 64))
    return made.eval()


def square(width: int = 1280, height: int = 64, side: int = 24) -> Iterator[Tensor]:
    """A square that moves over noise, at the left end, (1, 3, H, W); still in the third frame."""
    ground = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    for x in (4, 9, 9, 50, 35):
        frame = ground.clone()
        frame[..., 20 : 20 + side, x : x + side] = 1
        yield (frame - 0.45) / 0.225


def equal(found: list[Tensor], wanted: list[Tensor]) -> bool:
    return all((a - b).abs().max() <= 1e-5 * b.abs().max() for a, b in zip(found, wanted, strict=True))


@torch.no_grad()
def test_with_all_that_maps_see_it_is_the_network() -> None:
    """Two halos, of what sees a square and of what that sees, are less than the picture, which says how much is."""
    seeing = Reusing(backbone(), threshold=0, halo=RECEPTIVE // 2)
    whole = []
    for frame in square():
        before = seeing.reuse.seen
        assert equal(seeing.stages(frame), backbone().stages(frame))
        whole.append((seeing.reuse.seen - before) / (64 * 1280))
    # the square is in blocks 0 to 2 of 40; 7 are grown by, twice
    assert whole == [1, (2 + 14) / 40, 0, (3 + 14) / 40, (3 + 14) / 40]
    assert seeing.reuse.share == pytest.approx(np.mean(whole))
    frames = torch.cat(list(square()))
    seeing.reuse.forget()
    assert equal(seeing.stages(frames), backbone().stages(frames))
    seeing.reuse.forget()
    assert equal([seeing(frames)], [backbone()(frames)])
    assert seeing.reuse.seen == 3 * round(sum(whole) * 64 * 1280)


@torch.no_grad()
def test_with_a_small_halo_it_is_near_where_it_was_seen_and_unchanged_elsewhere() -> None:
    seeing = Reusing(backbone(), halo=32)
    first, second, *_ = square()
    kept = [one.clone() for one in seeing.stages(first)]
    maps, wanted = seeing.stages(second), backbone().stages(second)
    for one, before, right, stride in zip(maps, kept, wanted, backbone().strides):
        edge = 3 * 32 // stride  # of blocks 0 and 1, and one more
        if stride < 32:  # the picture is as high as two blocks
            assert torch.equal(one[..., edge:], before[..., edge:])
        assert not torch.equal(one[..., :edge], before[..., :edge])
        error = (one - right)[..., :edge].abs().mean() / (before - right)[..., :edge].abs().mean()
        assert error < 0.7, stride


@torch.no_grad()
def test_what_drifts_slowly_is_noticed() -> None:
    """Each frame is like the one before, and soon not like that whose maps are kept."""
    seeing = Reusing(backbone(), threshold=0.05)
    ground = torch.zeros(1, 3, 64, 64)
    changed = []
    for k in range(8):
        before = seeing.reuse.seen
        seeing.stages(ground + k * 0.02 / 0.225)  # 0.02 of the range of pixels brighter each time
        changed.append(seeing.reuse.seen > before)
    assert changed == [True, False, False, True, False, False, True, False]


@torch.no_grad()
def test_most_of_the_picture_is_seen_as_a_whole_and_clips_share_nothing() -> None:
    seeing = Reusing(backbone(), halo=0, most=0.5)
    x = torch.randn(1, 3, 64, 128)
    seeing.stages(x)
    for blocks, share in ((3, 3 / 8), (4, 1.0)):
        y = x.clone()
        y[..., :32, : 32 * blocks] += 1
        seeing.reuse.forget()
        seeing.stages(x)
        before = seeing.reuse.seen
        maps = seeing.stages(y)
        assert (seeing.reuse.seen - before) / (64 * 128) == share
        assert equal(maps, backbone().stages(y)) == (share == 1)
    seeing.reuse.forget()
    before = seeing.reuse.seen
    assert equal(seeing.stages(y), backbone().stages(y)) and seeing.reuse.seen - before == 64 * 128
    assert equal(seeing.stages(x[..., :40]), backbone().stages(x[..., :40]))  # another size is another clip


@torch.no_grad()
@pytest.mark.parametrize("model", ["fpn", "unet"])
def test_a_network_that_names_pixels_is_seen_in_rectangles_too(model: str) -> None:
    """As `segnet` and others. Rectangles are as high as the picture, 61 px; a decoder sees a little beyond its maps."""
    torch.manual_seed(0)
    recipe = build.Recipe("segmentation", model, ("a", "b"), 64, "resnet18", {}, {"model": {"width": 16}})
    network = build.assemble(recipe, backbone(), About(64)).eval().network
    assert isinstance(network, nn.Module)
    seeing = ReusingNetwork(network, backbone(), threshold=0, halo=RECEPTIVE // 2 + 64, tell=True)
    for k, frame in enumerate(square(width=1600)):
        cut = frame[:, :, :61]
        before = seeing.reuse.seen
        if k == 2:
            with pytest.raises(Unchanged):
                seeing(cut)
            continue
        logits = seeing(cut)
        assert logits.shape == (1, 2, 61, 1600) and equal([logits], [network(cut)])
        assert (seeing.reuse.seen - before < 0.6 * 64 * 1600) == (k > 0)


def test_what_cannot_be_reused_is_refused_in_one_line() -> None:
    with pytest.raises(SeeallError, match=r"^a backbone of one stage, as a ViT is, sees the whole picture at once"):
        Reusing(build_backbone("vit_tiny")[0])
    for settings, words in (
        ({"threshold": 1.5}, "'threshold' is 1.5: choose from 0 to 1"),
        ({"block": 48}, "'block' is 48: choose a multiple of 32 px"),
        ({"block": 0}, "'block' is 0"),
        ({"halo": -1}, "'halo' is -1: choose 0 px or more"),
    ):
        with pytest.raises(SeeallError, match=words):
            Reusing(backbone(), **settings)
    with pytest.raises(SeeallError, match="embedding is the mean of its last map"), torch.no_grad():
        Reusing(build_backbone("convnext_tiny")[0])(torch.rand(1, 3, 32, 32))


@pytest.mark.parametrize("block", [8, 32])
def test_differences_are_those_of_an_explicit_loop(block: int) -> None:
    a, b = torch.rand(2, 1, 3, 45, 77, generator=torch.Generator().manual_seed(block))
    found = differing(a, b, block)
    assert found.shape == (-(-45 // block), -(-77 // block))
    off = (a - b).abs()[0].mean(0).numpy()
    for row in range(len(found)):
        for column in range(found.shape[1]):
            part = off[row * block : (row + 1) * block, column * block : (column + 1) * block]
            cells = [
                part[y : y + 8, x : x + 8].mean() for y in range(0, len(part), 8) for x in range(0, part.shape[1], 8)
            ]
            assert found[row, column] == pytest.approx(max(cells), abs=1e-6)


def test_rectangles_hold_all_that_has_changed_and_cost_no_more_than_before() -> None:
    noise = np.random.default_rng(0)
    fewer = 0
    for _ in range(60):
        rows, columns, by = (int(noise.integers(*ends)) for ends in ((3, 15), (3, 15), (0, 3)))
        changed = noise.random((rows, columns)) < noise.random() * 0.4
        apart = boxes(changed)
        together = joined(apart, by, columns, rows)
        for some in (apart, together):
            covered = np.zeros_like(changed)
            for x0, y0, x1, y1 in some:
                assert 0 <= x0 < x1 <= columns and 0 <= y0 < y1 <= rows
                covered[y0:y1, x0:x1] = True
            assert (covered >= changed).all()
        for x0, y0, x1, y1 in apart:  # as tight as can be
            inside = changed[y0:y1, x0:x1]
            assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()
        cost = [sum(area(grown(box, by, columns, rows)) for box in some) for some in (apart, together)]
        assert cost[1] <= cost[0]
        fewer += len(together) < len(apart)
    assert fewer > 10
    assert boxes(np.zeros((3, 3), bool)) == []
