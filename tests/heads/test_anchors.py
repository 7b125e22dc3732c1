"""Anchors fitted to boxes: against the loop in the paper's words, and against scikit-learn where both must agree."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from torch import Tensor
from torchvision.ops import box_iou

from seeall.heads.detection.anchors import fit, generator, medians, overlap, usual
from seeall.types import SeeallError


def boxes_of(sizes: list[tuple[float, float]], seed: int = 0) -> Tensor:
    corners = torch.rand(len(sizes), 2, generator=torch.Generator().manual_seed(seed)) * 100
    return torch.cat([corners, corners + torch.tensor(sizes)], 1)


def drawn(n: int, seed: int) -> list[tuple[float, float]]:
    rng = np.random.default_rng(seed)
    return [(float(w), float(h)) for w, h in np.exp(rng.normal(3, 0.7, (n, 2))).round(3)]


def iou(a: tuple[float, float], b: tuple[float, float]) -> float:
    shared = min(a[0], b[0]) * min(a[1], b[1])
    return shared / (a[0] * a[1] + b[0] * b[1] - shared)


def a_round(sizes: list[tuple[float, float]], anchors: list[tuple[float, float]]) -> list[tuple[float, float] | None]:
    """One round of k-means, a box at a time: where each anchor's boxes have their (lower) medians; None for none."""
    groups: list[list[tuple[float, float]]] = [[] for _ in anchors]
    for size in sizes:
        best = 0
        for k in range(1, len(anchors)):
            if iou(size, anchors[k]) > iou(size, anchors[best]):
                best = k
        groups[best].append(size)
    middle = [(len(group) - 1) // 2 for group in groups]
    return [
        (sorted(w for w, _ in group)[m], sorted(h for _, h in group)[m]) if group else None
        for group, m in zip(groups, middle)
    ]


@pytest.mark.parametrize("seed", range(6))
def test_a_fit_is_where_the_loop_stands_still(seed: int) -> None:
    sizes = drawn(120, seed)
    found = medians(torch.tensor(sizes, dtype=torch.float64), 6)
    measured = [(float(w), float(h)) for w, h in sizes]
    for anchor, median in zip(found, a_round(measured, found)):
        assert median is not None and anchor == pytest.approx(median, abs=0.02)
    areas = [w * h for w, h in found]
    assert areas == sorted(areas)


def test_overlap_is_that_of_boxes_on_one_centre() -> None:
    sizes, anchors = drawn(20, 1), drawn(7, 2)
    table = overlap(torch.tensor(sizes), torch.tensor(anchors))
    centred = [torch.tensor([[-w / 2, -h / 2, w / 2, h / 2] for w, h in some]) for some in (sizes, anchors)]
    torch.testing.assert_close(table, box_iou(*centred), atol=1e-5, rtol=1e-5)
    for i, j in itertools.product(range(20), range(7)):
        assert float(table[i, j]) == pytest.approx(iou(sizes[i], anchors[j]), abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_kinds_of_boxes_that_lie_apart_are_found_as_by_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    kinds = [(10.0, 12.0), (40.0, 22.0), (25.0, 70.0), (120.0, 110.0)]
    sizes = [(w * float(rng.uniform(0.93, 1.07)), h * float(rng.uniform(0.93, 1.07))) for w, h in kinds * 30]
    theirs = KMeans(4, n_init=10, random_state=0).fit(np.log(sizes)).labels_
    groups = [np.array(sizes)[theirs == k] for k in range(4)]
    expected = sorted((np.median(g, 0).tolist() for g in groups), key=lambda one: one[0] * one[1])
    found = medians(torch.tensor(sizes, dtype=torch.float64), 4)
    np.testing.assert_allclose(found, expected, rtol=0.02)


def test_fitted_anchors_lie_closer_to_the_boxes_than_the_usual_ones() -> None:
    sizes = torch.tensor(drawn(400, 5))
    ways = fit(boxes_of(sizes.tolist()), [8, 16, 32], 9, scale=4), usual([8, 16, 32], scale=4, octaves=3)
    fitted, common = (
        overlap(sizes, torch.tensor(list(itertools.chain(*shapes)))).max(1).values.mean() for shapes in ways
    )
    assert fitted > common + 0.05


def test_the_usual_ones_are_those_of_the_paper() -> None:
    """Lin et al. 2017, section 4: areas of 32² to 512² px on strides of 8 to 128, three octaves, 1:2, 1:1 and 2:1."""
    shapes = usual([8, 16, 32, 64, 128], scale=4, octaves=3)
    for level, side in zip(shapes, (32, 64, 128, 256, 512)):
        areas = [w * h for w, h in level]
        np.testing.assert_allclose(areas, [(side * 2 ** (k / 3)) ** 2 for k in range(3) for _ in range(3)], rtol=1e-3)
        np.testing.assert_allclose([h / w for w, h in level], [0.5, 1, 2] * 3, rtol=1e-3)


def test_what_torchvision_lays_out_is_what_was_asked_for() -> None:
    cells = generator([[(10.0, 20.0)], [(30.0, 8.0)]]).cell_anchors
    assert [cell.tolist() for cell in cells] == [[[-5, -10, 5, 10]], [[-15, -4, 15, 4]]]


def test_a_level_is_fitted_to_boxes_of_its_own_sizes() -> None:
    """However many small boxes there are, coarse levels, whose anchors lie far apart, are not spent on them."""
    small, large = [(20.0 + k / 10, 24.0) for k in range(200)], [(160.0 + k, 150.0 - k) for k in range(20)]
    shapes = fit(boxes_of([*small, *large]), [8, 16, 32, 64], 3, scale=4)
    assert len(shapes) == 4 and all(len(level) == 3 for level in shapes)
    assert all(20 <= w <= 40 and h == pytest.approx(24, abs=0.02) for w, h in shapes[0])
    assert all(160 <= w <= 180 and 130 <= h <= 150 for w, h in shapes[2])
    common = usual([8, 16, 32, 64], scale=4, octaves=1)
    assert shapes[1] == common[1] and shapes[3] == common[3]
    beyond = fit(boxes_of([(900.0 + k, 900.0) for k in range(9)]), [8, 16], 3, scale=4)
    assert beyond[0] == usual([8], scale=4, octaves=1)[0] and min(beyond[1]) >= (900, 900)


def test_too_few_boxes() -> None:
    with pytest.raises(SeeallError, match="18 boxes are too few to fit 3 anchors a level to"):
        fit(boxes_of([(3.0, 4.0), (5.0, 6.0)] * 9), [8, 16], 3, scale=4)
