"""The linear probe against scikit-learn's logistic regression, on real handwritten digits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from seeall.metrics import linear
from seeall.metrics.linear import linear_accuracy
from seeall.types import SeeallError


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    data = load_digits()
    x, y = torch.tensor(data.data).float(), torch.tensor(data.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    x, y = x[order], y[order]
    return x[:900], y[:900], x[900:], y[900:]


def test_within_a_point_of_scikit_learn_on_digits(digits: tuple[Tensor, ...]) -> None:
    x, y, u, v = digits
    scaler = StandardScaler().fit(x)
    peer = LogisticRegression(C=1.0, max_iter=1000).fit(scaler.transform(x), y)
    top1, top5 = linear_accuracy(x, y, u, v)
    assert abs(top1 - peer.score(scaler.transform(u), v)) <= 0.01
    assert 0.93 < top1 < top5 <= 1


@pytest.mark.parametrize("strength", [0.1, 0.003])
def test_the_same_strength_gives_scikit_learns_solution(
    digits: tuple[Tensor, ...], strength: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y, _, _ = digits
    x = torch.tensor(StandardScaler().fit_transform(x)).float()
    monkeypatch.setattr(linear, "_ROWS", 400)  # three chunks, the last one shorter
    ours = linear._scores(x, linear._fit(x, y, 10, strength, None)).softmax(dim=1)
    peer = LogisticRegression(C=1 / (strength * len(x)), max_iter=2000, tol=1e-8)
    theirs = peer.fit(x.double().numpy(), y.numpy()).predict_proba(x.double().numpy())
    np.testing.assert_allclose(ours.numpy(), theirs, atol=0.01)


def test_same_answer_twice_and_within_inference_mode(digits: tuple[Tensor, ...]) -> None:
    x, y, u, v = (t[:300] for t in digits)
    first = linear_accuracy(x, y, u, v)
    with torch.inference_mode():
        assert linear_accuracy(x.clone(), y.clone(), u.clone(), v.clone()) == first


def test_neither_scale_nor_shift_nor_label_numbers_matter(digits: tuple[Tensor, ...]) -> None:
    x, y, u, v = (t[:300] for t in digits)
    first = linear_accuracy(x, y, u, v)
    for scale, shift in ((1000, 50), (1e-9, 0)):
        moved = linear_accuracy(scale * x + shift, y * 13 - 4, scale * u + shift, v * 13 - 4)
        assert moved == pytest.approx(first, abs=0.004)


def test_a_feature_that_is_constant_in_training_is_ignored(digits: tuple[Tensor, ...]) -> None:
    x, y, u, v = (t[:300] for t in digits)
    dead = 0.1 + 1e-8 * torch.arange(300)[:, None].float()  # rounding noise, no more
    alive = 1e6 * torch.arange(300)[:, None].float()
    with_dead = linear_accuracy(torch.cat([x, dead], 1), y, torch.cat([u, alive], 1), v)
    assert with_dead == linear_accuracy(x, y, u, v)


def test_strong_regularisation_is_chosen_where_it_helps() -> None:
    """Fifty pictures, four hundred dimensions of noise: the weakest strength is the worst by far."""
    g = torch.Generator().manual_seed(0)
    y = torch.arange(60) % 2
    x = torch.randn(60, 400, generator=g) + 0.17 * (2 * y[:, None] - 1)
    strength, _ = linear._choose(x, y, 2)
    assert strength == linear.STRENGTHS[0]


def test_unseen_classes_are_wrong_and_few_classes_do_not_break_top5() -> None:
    x = torch.tensor([[0.0], [1.0], [0.1], [0.9]])
    y = torch.tensor([4, 9, 4, 9])
    top1, top5 = linear_accuracy(x, y, torch.tensor([[0.0], [1.0], [1.0], [0.5]]), torch.tensor([4, 9, 4, 7]))
    assert (top1, top5) == (0.5, 0.75)
    assert linear_accuracy(x[:1], y[:1], x, y) == (0.5, 0.5)


def test_what_cannot_be_measured_is_one_line() -> None:
    good, labels = torch.rand(4, 2), torch.tensor([0, 1, 0, 1])
    with pytest.raises(SeeallError, match="NaN"):
        linear_accuracy(good / 0 - good / 0, labels, good, labels)
    with pytest.raises(SeeallError, match="no features"):
        linear_accuracy(good, labels, good[:0], labels[:0])
