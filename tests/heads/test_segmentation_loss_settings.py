"""Losses of pixels put together: sums, another from some epoch on, weights by frequency, and wrong settings."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from seeall import catalog
from seeall.heads.segmentation.losses import SegmentationLoss, cross_entropy, dice, focal, lovasz
from seeall.types import SeeallError
from tests.heads.pixel_batches import batch, close, value_and_gradient


def test_sums_of_losses() -> None:
    logits, target = batch("random")
    out = SegmentationLoss(loss="cross-entropy + 0.5*dice+2 * lovasz + focal", gamma=1.5)(logits, target, 0)
    parts = {
        "cross-entropy": cross_entropy(logits, target),
        "dice": dice(logits, target),
        "lovasz": lovasz(logits, target),
        "focal": focal(logits, target, gamma=1.5),
    }
    factors = {"cross-entropy": 1, "dice": 0.5, "lovasz": 2, "focal": 1}
    assert list(out) == ["loss", *parts]
    assert {n: float(v) for n, v in out.items() if n != "loss"} == {n: float(v) for n, v in parts.items()}
    assert_close(out["loss"], sum(factors[n] * v for n, v in parts.items()))


def test_another_loss_from_some_epoch_on() -> None:
    """The names stay, as curves need them; the gradient is that of the loss alone."""
    logits, target = batch("random")
    loss = SegmentationLoss(loss="cross-entropy+0.5*dice", then="lovasz+dice", switch=3)
    for epoch in range(6):
        z = logits.clone().requires_grad_()
        out = loss(z, target, epoch)
        assert list(out) == ["loss", "cross-entropy", "dice", "lovasz"]
        assert all(v.ndim == 0 and v.requires_grad == (name == "loss") for name, v in out.items())
        want = (cross_entropy, 0.5) if epoch < 3 else (lovasz, 1.0)
        total = value_and_gradient(lambda q, t, w=want: w[0](q, t) + w[1] * dice(q, t), logits, target)
        out["loss"].backward()
        close((out["loss"].detach(), z.grad), total, 1e-12)


def test_median_frequency() -> None:
    """Eigen and Fergus: pixels of a class over pixels of the pictures that have it; the median over that."""
    g = torch.Generator().manual_seed(1)
    pictures = [torch.randint(0, 5, (6, 7), generator=g) for _ in range(3)]
    pictures[0][pictures[0] == 2] = 0  # class 2 is not in all, class 4 in none
    pictures = [p.where(p != 4, torch.tensor(3)) for p in pictures]
    counts = torch.stack([p.flatten().bincount(minlength=5) for p in pictures])
    frequencies = []
    for c in range(5):
        having = [p for p in pictures if (p == c).any()]
        pixels = sum(p.numel() for p in having)
        frequencies.append(sum(int((p == c).sum()) for p in having) / pixels if having else 0.0)
    middle = sorted(frequencies[:4])
    weights = torch.tensor([(middle[1] + middle[2]) / 2 / f if f else 0.0 for f in frequencies])
    logits, target = torch.randn(3, 5, 6, 7, generator=g), torch.stack(pictures)
    loss = SegmentationLoss(loss="cross-entropy+focal+dice", balance="median")
    with pytest.raises(ValueError, match="set_counts"):
        loss(logits, target, 0)
    loss.set_counts(counts)
    out = loss(logits, target, 0)
    assert_close(loss.weights, weights)
    assert_close(out["cross-entropy"], cross_entropy(logits, target, weights))
    assert_close(out["focal"], focal(logits, target, weights=weights))
    assert_close(out["dice"], dice(logits, target))
    assert not loss.state_dict()
    plain = SegmentationLoss()
    plain.set_counts(counts)
    assert plain.weights is None


def test_classes_as_frequent_as_each_other_weigh_one() -> None:
    loss = SegmentationLoss(balance="median")
    loss.set_counts(torch.tensor([[10, 10, 10], [4, 4, 4]]))
    assert_close(loss.weights, torch.ones(3))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"loss": "lovas"}, "unknown loss 'lovas': did you mean lovasz?"),
        ({"loss": "cross-entropy+"}, "unknown loss '': choose from: cross-entropy, dice, focal, lovasz, relaxed"),
        ({"loss": "half*dice"}, "'half' before dice is no number: write 0.5*dice"),
        ({"loss": "0*dice"}, "the factor of dice is 0: choose above 0"),
        ({"loss": "nan*dice"}, "the factor of dice is nan"),
        ({"loss": "dice+dice"}, "dice is twice in 'dice+dice'"),
        ({"then": "dice"}, "then needs switch"),
        ({"switch": 3}, "switch needs then"),
        ({"then": "dicey", "switch": 3}, "unknown loss 'dicey': did you mean dice?"),
        ({"then": "dice", "switch": 0}, "switch is 0: choose an epoch from 1 on"),
        ({"gamma": -1.0}, "gamma is -1.0: choose 0 or more"),
        ({"gamma": math.nan}, "gamma is nan"),
        ({"border": 0}, "border is 0: choose 1 px or more"),
        ({"balance": "medium"}, "balance is 'medium': did you mean median?"),
        ({"balance": "median", "loss": "dice"}, "balance weighs cross-entropy and focal alone; 'dice' has neither"),
    ],
)
def test_settings_that_make_no_sense_are_refused(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(SeeallError) as error:
        SegmentationLoss(**setting)
    assert str(error.value).startswith("segmentation: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_settings_are_read_off_the_signature() -> None:
    given = ["loss=cross-entropy+dice", "then=lovasz", "switch=5", "balance=median", "gamma=1"]
    chosen = catalog.resolve({"loss": SegmentationLoss}, given)["loss"]
    assert SegmentationLoss(**chosen).names == ["cross-entropy", "dice", "lovasz"]
