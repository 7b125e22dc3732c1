"""Losses of pixels against loops written from the papers, torch, torchvision and scikit-learn."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import f1_score, jaccard_score
from torch import Tensor
from torch.testing import assert_close
from torchvision.ops import sigmoid_focal_loss

from seeall import catalog
from seeall.data.annotations.truth import IGNORE
from seeall.heads.segmentation.losses import SegmentationLoss, cross_entropy, dice, focal, lovasz, relaxed
from seeall.types import SeeallError

Loss = Callable[[Tensor, Tensor], Tensor]
CASES = (
    "random",
    "ignored in part",
    "one picture",
    "one class",
    "one class of many",
    "absent class",
    "perfect",
    "wrong",
)
WEIGHTS = torch.tensor([0.5, 2.0, 1.0, 3.0], dtype=torch.float64)


def batch(case: str, K: int = 4, size: tuple[int, int, int] = (2, 4, 5)) -> tuple[Tensor, Tensor]:
    """Logits (B, K, H, W) float64 and target (B, H, W)."""
    g = torch.Generator().manual_seed(CASES.index(case))
    B, H, W = (1, *size[1:]) if case == "one picture" else size
    K = 1 if case == "one class" else K
    logits = torch.randn(B, K, H, W, generator=g, dtype=torch.float64)
    target = torch.randint(0, K - 1 if case == "absent class" else K, (B, H, W), generator=g)
    if case == "one class of many":
        target[:] = 1
    if case == "ignored in part":
        target[torch.rand(B, H, W, generator=g) < 0.4] = IGNORE
        target[0] = IGNORE
    if case in ("perfect", "wrong"):
        logits += 9 * F.one_hot(target, K).movedim(3, 1) * (1 if case == "perfect" else -1)
    return logits, target


class Loop:
    """One pixel and class at a time, in float64."""

    def __init__(self, logits: Tensor, target: Tensor) -> None:
        self.z = logits.detach().clone().requires_grad_()
        self.zero, self.K = self.z.sum() * 0, logits.shape[1]
        self.p: list[list[Tensor]] = []
        self.y: list[int] = []
        self.picture: list[int] = []
        self.near: list[list[set[int]]] = []
        for b in range(len(logits)):
            for i in range(logits.shape[2]):
                for j in range(logits.shape[3]):
                    if target[b, i, j] == IGNORE:
                        continue
                    powers = [torch.exp(self.z[b, c, i, j]) for c in range(self.K)]
                    self.p.append([power / sum(powers) for power in powers])
                    self.y.append(int(target[b, i, j]))
                    self.picture.append(b)
                    self.near.append([self.around(target[b].tolist(), i, j, border) for border in (1, 2)])

    @staticmethod
    def around(labels: list[list[int]], i: int, j: int, border: int) -> set[int]:
        """The classes that are no more than `border` px away."""
        rows, columns = range(len(labels)), range(len(labels[0]))
        return {
            labels[a][b]
            for a in range(i - border, i + border + 1)
            for b in range(j - border, j + border + 1)
            if a in rows and b in columns
        } - {IGNORE}

    def relaxed(self, border: int) -> Tensor:
        total = self.zero
        for p, near in zip(self.p, self.near):
            total = total - torch.log(sum((p[c] for c in sorted(near[border - 1])), self.zero))
        return total / len(self.p) if self.p else self.zero

    def gradient(self, value: Tensor) -> tuple[Tensor, Tensor]:
        return value.detach(), torch.autograd.grad(value + self.zero, self.z)[0]

    def focal(self, gamma: float, weights: Tensor | None) -> Tensor:
        w = [1.0] * self.K if weights is None else weights.tolist()
        total, weight = self.zero, 0.0
        for p, y in zip(self.p, self.y):
            total = total - w[y] * (1 - p[y]) ** gamma * torch.log(p[y])
            weight += w[y]
        return total / weight if weight else self.zero

    def dice(self, smooth: float) -> Tensor:
        terms = []
        for c in sorted(set(self.y)):
            g = [float(y == c) for y in self.y]
            both = sum(p[c] * q for p, q in zip(self.p, g))
            sizes = sum(p[c] * p[c] + q * q for p, q in zip(self.p, g))
            terms.append(1 - (2 * both + smooth) / (sizes + smooth))
        return sum(terms) / len(terms) if terms else self.zero

    def lovasz(self, pixels: list[int], present: bool) -> Tensor:
        """The Lovász extension of a set function, which is evaluated on sets."""
        terms = []
        for c in range(self.K):
            of_class = {i for i in pixels if self.y[i] == c}
            if present and not of_class:
                continue
            m = {i: 1 - self.p[i][c] if i in of_class else self.p[i][c] for i in pixels}

            def loss(wrong: set[int], of_class: set[int] = of_class) -> float:
                union = of_class | wrong
                return 1 - len(of_class - wrong) / len(union) if union else 0.0

            term, wrong = self.zero, set()
            for i in sorted(pixels, key=lambda i, m=m: -m[i].item()):
                term = term + m[i] * (loss(wrong | {i}) - loss(wrong))
                wrong = wrong | {i}
            terms.append(term)
        return sum(terms) / len(terms) if terms else self.zero

    def lovasz_per_picture(self, present: bool) -> Tensor:
        pictures = sorted(set(self.picture))
        terms = [self.lovasz([i for i, b in enumerate(self.picture) if b == q], present) for q in pictures]
        return sum(terms) / len(terms) if terms else self.zero


def algorithm_1(logits: Tensor, target: Tensor) -> Tensor:
    """Lovász-Softmax as printed in the paper: the loss of every prefix, and differences of them."""
    counted = (target != IGNORE).flatten()
    p, y = logits.softmax(1).movedim(1, 3).flatten(0, 2)[counted], target.flatten()[counted]
    terms = []
    for c in y.unique():
        g = (y == c).double()
        m, order = (g - p[:, c]).abs().sort(descending=True)
        g = g[order]
        jaccard = 1 - (g.sum() - g.cumsum(0)) / (g.sum() + (1 - g).cumsum(0))
        terms.append(m @ torch.cat([jaccard[:1], jaccard.diff()]))
    return torch.stack(terms).mean()


def value_and_gradient(loss: Loss, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    z = logits.detach().clone().requires_grad_()
    value = loss(z, target)
    value.backward()
    assert z.grad is not None
    return value.detach(), z.grad


def close(got: tuple[Tensor, Tensor], want: tuple[Tensor, Tensor], tolerance: float = 1e-10) -> None:
    for g, w in zip(got, want, strict=True):
        assert torch.isfinite(g).all()
        assert_close(g.double(), w.double(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("case", CASES)
def test_losses_follow_the_papers(case: str) -> None:
    logits, target = batch(case)
    weights = WEIGHTS[: logits.shape[1]]
    loop = Loop(logits, target)
    everything = list(range(len(loop.y)))
    pairs: list[tuple[Loss, Callable[[Loop], Tensor]]] = [
        (cross_entropy, lambda q: q.focal(0, None)),
        (lambda z, t: cross_entropy(z, t, weights), lambda q: q.focal(0, weights)),
        (focal, lambda q: q.focal(2, None)),
        (lambda z, t: focal(z, t, gamma=1.5, weights=weights), lambda q: q.focal(1.5, weights)),
        (dice, lambda q: q.dice(1)),
        (lambda z, t: dice(z, t, smooth=0.1), lambda q: q.dice(0.1)),
        (relaxed, lambda q: q.relaxed(1)),
        (lambda z, t: relaxed(z, t, border=2), lambda q: q.relaxed(2)),
        (lovasz, lambda q: q.lovasz(everything, True)),
        (lambda z, t: lovasz(z, t, present=False), lambda q: q.lovasz(everything, False)),
        (lambda z, t: lovasz(z, t, per_picture=True), lambda q: q.lovasz_per_picture(True)),
        (lambda z, t: lovasz(z, t, per_picture=True, present=False), lambda q: q.lovasz_per_picture(False)),
    ]
    for ours, theirs in pairs:
        got, want = value_and_gradient(ours, logits, target), loop_value(theirs, logits, target)
        close(got, want)
        close(value_and_gradient(ours, logits.float(), target), want, 2e-6)


def loop_value(loss: Callable[[Loop], Tensor], logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    loop = Loop(logits, target)
    return loop.gradient(loss(loop))


@pytest.mark.parametrize("case", CASES)
def test_second_implementations(case: str) -> None:
    logits, target = batch(case, size=(3, 12, 17))
    weights = WEIGHTS[: logits.shape[1]]
    for w in (None, weights):

        def theirs(z: Tensor, t: Tensor, w: Tensor | None = w) -> Tensor:
            return F.cross_entropy(z, t, w, ignore_index=IGNORE)

        want = value_and_gradient(theirs, logits, target)
        close(value_and_gradient(lambda z, t, w=w: cross_entropy(z, t, w), logits, target), want)
        close(value_and_gradient(lambda z, t, w=w: focal(z, t, gamma=0, weights=w), logits, target), want)
    close(value_and_gradient(lovasz, logits, target), value_and_gradient(algorithm_1, logits, target))


def test_of_two_classes_focal_is_torchvisions() -> None:
    logits, target = batch("random", K=2)

    def theirs(z: Tensor, t: Tensor, alpha: float) -> Tensor:
        return sigmoid_focal_loss(z[:, 1] - z[:, 0], t.double(), alpha=alpha, gamma=2, reduction="sum")

    want = value_and_gradient(lambda z, t: theirs(z, t, -1) / t.numel(), logits, target)
    close(value_and_gradient(focal, logits, target), want)
    weights = torch.tensor([0.75, 0.25], dtype=torch.float64)
    want = value_and_gradient(lambda z, t: theirs(z, t, 0.25) / weights[t].sum(), logits, target)
    close(value_and_gradient(lambda z, t: focal(z, t, weights=weights), logits, target), want)


def test_of_sure_answers_dice_is_f1_and_lovasz_is_jaccard() -> None:
    """p of 0 and 1: there both are what they extend."""
    g = torch.Generator().manual_seed(3)
    for _ in range(5):
        target, answer = torch.randint(0, 3, (2, 2, 6, 7), generator=g)
        answer[0, 0, 0] = 3  # a class that is nowhere
        logits = 2000.0 * F.one_hot(answer, 4).movedim(3, 1)
        y, p, labels = target.flatten(), answer.flatten(), target.unique()
        assert_close(
            float(dice(logits, target, smooth=0)), 1 - f1_score(y, p, labels=labels, average="macro"), rtol=0, atol=1e-6
        )
        assert_close(
            float(lovasz(logits, target)), 1 - jaccard_score(y, p, labels=labels, average="macro"), rtol=0, atol=1e-6
        )


def test_the_lovasz_extension_is_convex_in_the_errors() -> None:
    """Of two classes, with p in place of logits: below the chord between any two points, and 0 where all is right."""
    target = batch("random", K=2)[1]
    for seed in range(20):
        g = torch.Generator().manual_seed(seed)
        p, q = (torch.rand(target.shape, generator=g, dtype=torch.float64) * 0.98 + 0.01 for _ in range(2))

        def of(p: Tensor) -> Tensor:
            return lovasz(torch.stack([1 - p, p], 1).log(), target)

        assert of((p + q) / 2) <= (of(p) + of(q)) / 2 + 1e-12


@pytest.mark.parametrize("loss", [cross_entropy, focal, dice, lovasz, relaxed])
def test_where_nothing_counts_nothing_is_lost(loss: Loss) -> None:
    logits, target = batch("random")
    for dtype in (torch.float32, torch.float64):
        z = logits.to(dtype).requires_grad_()
        value = loss(z, torch.full_like(target, IGNORE))
        (65536 * value).backward()
        assert value == 0
        assert z.grad is not None and z.grad.eq(0).all()


@pytest.mark.parametrize("loss", [cross_entropy, focal, dice, lovasz, relaxed])
def test_ignored_pixels_change_nothing(loss: Loss) -> None:
    """Neither their logits, nor how many there are; and they get no gradient."""
    logits, target = batch("random")
    target[:, 2:] = IGNORE
    want, gradient = value_and_gradient(loss, logits, target)
    assert gradient[:, :, 2:].eq(0).all()
    close((want, gradient[:, :, :2]), value_and_gradient(loss, logits[:, :, :2], target[:, :2]), 1e-12)
    other = logits.clone()
    other[:, :, 2:] *= -50
    close((want, gradient), value_and_gradient(loss, other, target), 1e-12)


@pytest.mark.parametrize("loss", [cross_entropy, focal, dice, lovasz, relaxed, lambda z, t: focal(z, t, gamma=0.5)])
def test_what_is_known_for_sure_costs_nothing(loss: Loss) -> None:
    target = batch("random")[1]
    value, gradient = value_and_gradient(loss, 1000.0 * F.one_hot(target, 4).movedim(3, 1), target)
    assert value == 0
    assert gradient.eq(0).all()


def test_equal_logits_tie_and_are_worth_the_same() -> None:
    target = batch("random")[1]
    logits = torch.zeros(2, 4, 4, 5, dtype=torch.float64)
    loop = Loop(logits, target)
    assert_close(lovasz(logits, target), loop.lovasz(list(range(len(loop.y))), True).detach())
    assert_close(cross_entropy(logits, target).item(), math.log(4))
    assert value_and_gradient(lovasz, logits, target)[1].isfinite().all()


@pytest.mark.parametrize("loss", [cross_entropy, focal, dice, lovasz, relaxed])
def test_gradients_equal_differences(loss: Loss) -> None:
    logits, target = batch("ignored in part", size=(2, 2, 3))
    assert torch.autograd.gradcheck(lambda z: loss(z, target), logits.requires_grad_())


@pytest.mark.parametrize("loss", [cross_entropy, focal, dice, lovasz, relaxed])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_autocast_leaves_the_loss_in_float32(loss: Loss, dtype: torch.dtype) -> None:
    logits, target = batch("random")
    logits = logits.to(dtype)
    want = value_and_gradient(loss, logits, target)
    with torch.autocast("cpu", torch.bfloat16):
        got = value_and_gradient(loss, logits, target)
    assert got[0].dtype == torch.float32
    assert torch.equal(got[0], want[0])
    assert torch.equal(got[1], want[1])


def test_lovasz_of_many_pixels_is_as_exact_as_of_few() -> None:
    """In float32 the difference of two losses near 1 would be rounding."""
    g = torch.Generator().manual_seed(0)
    logits, target = torch.randn(1, 3, 400, 500, generator=g), torch.randint(0, 3, (1, 400, 500), generator=g)
    got = value_and_gradient(lovasz, logits, target)
    value, gradient = value_and_gradient(algorithm_1, logits.double(), target)
    assert_close(got[0].double(), value, rtol=1e-6, atol=0)
    assert (got[1] - gradient).abs().max() < 1e-4 * gradient.abs().max()


@pytest.mark.parametrize("loss", [cross_entropy, focal, dice, lovasz, relaxed])
@pytest.mark.parametrize("shapes", [((2, 3, 4, 5), (2, 5, 4)), ((2, 3, 4, 5), (2, 1, 4, 5)), ((2, 3), (2,))])
def test_shapes_that_do_not_fit_are_refused(loss: Loss, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="target"):
        loss(torch.zeros(shapes[0]), torch.zeros(shapes[1], dtype=torch.int64))


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
