"""Losses of pixels against loops written from the papers, torch, torchvision and scikit-learn."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import f1_score, jaccard_score
from torch import Tensor
from torch.testing import assert_close
from torchvision.ops import sigmoid_focal_loss

from seeall.data.annotations.truth import IGNORE
from seeall.heads.segmentation.losses import cross_entropy, dice, focal, lovasz, relaxed
from tests.heads.pixel_batches import CASES, Loss, batch, close, value_and_gradient

WEIGHTS = torch.tensor([0.5, 2.0, 1.0, 3.0], dtype=torch.float64)


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
