"""Measures of pixels against loops, scikit-learn and hand-made cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytest import approx
from sklearn import metrics
from torch import Tensor

from seeall.data.annotations.truth import IGNORE
from seeall.metrics.segmentation import confusion, segmentation

NAMES = ["sky", "road", "car", "sign", "cat"]


def maps(seed: int, ignored: bool = True) -> tuple[Tensor, Tensor]:
    """Class 3 is in the truth alone, class 2 in the prediction alone, class 4 in neither."""
    g = torch.Generator().manual_seed(seed)
    predicted = torch.tensor([0, 1, 2])[torch.randint(0, 3, (2, 9, 7), generator=g)]
    truth = torch.tensor([0, 1, 3])[torch.randint(0, 3, (2, 9, 7), generator=g)]
    if ignored:
        truth[torch.rand(truth.shape, generator=g) < 0.3] = IGNORE
    return predicted, truth


def loop(predicted: Tensor, truth: Tensor) -> tuple[list[list[int]], dict[str, float]]:
    """The definitions, one pixel and class at a time, by sets of pixels."""
    pixels = [(t, p) for t, p in zip(truth.flatten().tolist(), predicted.flatten().tolist()) if t != IGNORE]
    matrix = [[pixels.count((t, p)) for p in range(5)] for t in range(5)]
    iou, recall = {}, []
    for c, name in enumerate(NAMES):
        of_class = {i for i, (t, _) in enumerate(pixels) if t == c}
        taken = {i for i, (_, p) in enumerate(pixels) if p == c}
        if of_class | taken:
            iou[f"iou/{name}"] = 100 * len(of_class & taken) / len(of_class | taken)
        if of_class:
            recall.append(100 * len(of_class & taken) / len(of_class))
    right = sum(t == p for t, p in pixels)
    measures = {"mIoU": sum(iou.values()) / len(iou), "class_accuracy": sum(recall) / len(recall)}
    return matrix, measures | iou | {"pixel_accuracy": 100 * right / len(pixels)}


@pytest.mark.parametrize("ignored", [False, True])
def test_agrees_with_the_loop_and_scikit_learn(ignored: bool) -> None:
    for seed in range(5):
        predicted, truth = maps(seed, ignored)
        matrix = confusion(predicted, truth, 5)
        want, measures = loop(predicted, truth)
        assert matrix.tolist() == want
        assert matrix.dtype == torch.int64
        found = segmentation(matrix, NAMES)
        assert found == approx(measures)
        assert set(found) == {"mIoU", "pixel_accuracy", "class_accuracy", "iou/sky", "iou/road", "iou/car", "iou/sign"}
        y, p = truth[truth != IGNORE].numpy(), predicted[truth != IGNORE].numpy()
        assert np.array_equal(matrix.numpy(), metrics.confusion_matrix(y, p, labels=range(5)))
        jaccard = metrics.jaccard_score(y, p, labels=range(4), average=None)
        assert [found[f"iou/{name}"] for name in NAMES[:4]] == approx(list(100 * jaccard))
        assert found["mIoU"] == approx(100 * jaccard.mean())
        assert found["pixel_accuracy"] == approx(100 * metrics.accuracy_score(y, p))
        recall = metrics.recall_score(y, p, labels=[0, 1, 3], average="macro")
        assert found["class_accuracy"] == approx(100 * recall)


def test_matrices_add_up() -> None:
    predicted, truth = maps(0)
    parts = [confusion(p, t, 5) for p, t in zip(predicted, truth)]
    assert torch.equal(sum(parts), confusion(predicted, truth, 5))


def test_bytes_are_numbers_too() -> None:
    predicted, truth = maps(0)
    assert torch.equal(confusion(predicted.byte(), truth.byte(), 5), confusion(predicted, truth, 5))


def test_perfect_and_worst() -> None:
    truth = maps(0)[1]
    best = segmentation(confusion(truth.where(truth != IGNORE, 4), truth, 5), NAMES)
    assert best == dict.fromkeys(("mIoU", "pixel_accuracy", "class_accuracy", "iou/sky", "iou/road", "iou/sign"), 100)
    worst = segmentation(confusion((truth + 1) % 4, truth, 5), NAMES)
    assert set(worst.values()) == {0}


def test_by_hand() -> None:
    """Six pixels, one of which counts for nothing."""
    truth, predicted = torch.tensor([[0, 0, 0], [1, 1, IGNORE]]), torch.tensor([[0, 0, 1], [1, 0, 0]])
    found = segmentation(confusion(predicted, truth, 2), ["a", "b"])
    assert found["iou/a"] == approx(100 * 2 / 4)
    assert found["iou/b"] == approx(100 * 1 / 3)
    assert found["mIoU"] == approx(100 * 5 / 12)
    assert found["pixel_accuracy"] == approx(60)
    assert found["class_accuracy"] == approx(100 * (2 / 3 + 1 / 2) / 2)


def test_where_nothing_counts_nothing_is_measured() -> None:
    matrix = confusion(torch.zeros(2, 3), torch.full((2, 3), IGNORE), 4)
    assert matrix.tolist() == [[0] * 4] * 4
    assert segmentation(matrix, list("abcd")) == {}
    assert confusion(torch.zeros(0, 2, 3), torch.zeros(0, 2, 3), 4).tolist() == matrix.tolist()


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="truth"):
        confusion(torch.zeros(2, 3), torch.zeros(3, 2), 4)
    for predicted, truth in ((4, 0), (0, 4), (-1, 0), (IGNORE, 0)):
        with pytest.raises(ValueError, match="want 0 to 3"):
            confusion(torch.tensor([predicted]), torch.tensor([truth]), 4)
    with pytest.raises(ValueError, match="names"):
        segmentation(torch.zeros(4, 4), ["a"])
