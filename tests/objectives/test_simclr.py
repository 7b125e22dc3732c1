"""NT-Xent over groups against loops written from the papers, lightly, and pytorch-metric-learning."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from seeall.ssl.simclr import SimCLR
from seeall.ssl.similarity import similarity_logsumexp
from seeall.types import SeeallError

PATTERNS = {
    "two views": [0, 1, 2, 3, 0, 1, 2, 3],
    "unequal groups": [5, 5, 5, 9, 9, -7, 5, 2],
    "one group": [3] * 7,
    "one pair, the rest alone": [0, 1, 2, 0, 3, 4],
    "far apart ids": [2**62, -(2**62), 2**62, 0, 0, -(2**62), 0],
}


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def by_the_paper(z: Tensor, groups: list[int], temperature: float) -> Tensor:
    """Khosla et al. 2020, eq. 2, one scalar at a time, as a mean over anchors; it can be differentiated."""
    n, d = z.shape
    rows = [[z[i, k] for k in range(d)] for i in range(n)]
    unit = [[x / sum(y * y for y in row).sqrt() for x in row] for row in rows]
    terms = []
    for i in range(n):
        positives = [p for p in range(n) if p != i and groups[p] == groups[i]]
        if not positives:
            continue
        similar = {}
        for j in range(n):
            if j != i:
                similar[j] = sum(unit[i][k] * unit[j][k] for k in range(d)) / temperature
        denominator = sum(torch.exp(s) for s in similar.values())
        terms.append(sum(-torch.log(torch.exp(similar[p]) / denominator) for p in positives) / len(positives))
    return sum(terms) / len(terms) if terms else z.sum() * 0


def dense_logsumexp(z: Tensor, temperature: float) -> Tensor:
    s = z @ z.T / temperature
    return torch.logsumexp(s.masked_fill(torch.eye(len(z), dtype=torch.bool), -math.inf), 1)


def value_and_gradient(loss: Any, z: Tensor) -> tuple[Tensor, Tensor]:
    z = z.detach().clone().requires_grad_()
    value = loss(z)
    value.backward()
    assert z.grad is not None
    return value.detach(), z.grad


def ours(z: Tensor, groups: list[int] | Tensor, temperature: float = 0.2) -> tuple[Tensor, Tensor]:
    groups = torch.as_tensor(groups, dtype=torch.int64)
    return value_and_gradient(lambda x: SimCLR(temperature=temperature)(x, groups)["loss"], z)


def close(got: tuple[Tensor, Tensor], want: tuple[Tensor, Tensor], tolerance: float) -> None:
    """The value within `tolerance` relatively, the gradient relatively to its largest entry."""
    for g, w in zip(got, want, strict=True):
        assert torch.isfinite(g).all()
        assert_close(g.double(), w.double(), rtol=tolerance, atol=tolerance * float(w.abs().max()))


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_value_and_gradient_follow_the_paper(pattern: str, temperature: float) -> None:
    groups = PATTERNS[pattern]
    z = randn(len(groups), 5)
    want = value_and_gradient(lambda x: by_the_paper(x, groups, temperature), z)
    close(ours(z, groups, temperature), want, 1e-12)
    close(ours(z.float(), groups, temperature), want, 3e-6)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    groups=st.lists(st.integers(-2, 4), min_size=1, max_size=9),
    temperature=st.sampled_from([0.015, 0.07, 0.2, 1.0, 10.0]),
    seed=st.integers(0, 2**31),
)
def test_any_groups_follow_the_paper(groups: list[int], temperature: float, seed: int) -> None:
    z = randn(len(groups), 3, seed=seed)
    value, gradient = value_and_gradient(lambda x: by_the_paper(x, groups, temperature), z)
    got = ours(z, groups, temperature)
    assert_close(got[0], value, rtol=1e-9, atol=1e-12)
    assert_close(got[1], gradient, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("temperature", [0.05, 0.2, 1.0])
def test_two_views_equal_lightly(temperature: float) -> None:
    from lightly.loss import NTXentLoss

    z = randn(600, 32, dtype=torch.float32)
    lightly = NTXentLoss(temperature=temperature)
    want = value_and_gradient(lambda x: lightly(*x.chunk(2)), z)
    close(ours(z, torch.arange(300).repeat(2), temperature), want, 1e-5)


def test_labels_equal_pytorch_metric_learning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        losses = pytest.importorskip("pytorch_metric_learning.losses")
    z, labels = randn(120, 16), torch.arange(120).sqrt().long()  # groups of 1, 3, 5, … rows
    assert (labels.unique(return_counts=True)[1] == 1).any()
    want = value_and_gradient(lambda x: losses.SupConLoss(temperature=0.1)(x, labels), z)
    close(ours(z, labels, 0.1), want, 1e-6)


@pytest.mark.parametrize("temperature", [1e-3, 0.01, 0.0199, 0.0201, 0.05, 1.0, 100.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_temperatures_and_types(temperature: float, dtype: torch.dtype) -> None:
    """Any temperature in any type, with rows nearly equal, nearly opposite and unrelated."""
    z = randn(70, 24)
    z[35:] = z[:35] + 0.1 * randn(35, 24, seed=1)
    z[20:35] = -z[:15]
    z, groups = z.to(dtype), torch.arange(35).repeat(2)

    def dense(x: Tensor) -> Tensor:
        u = torch.nn.functional.normalize(x, dim=1)
        return (dense_logsumexp(u, temperature) - (u * u.roll(35, 0)).sum(1) / temperature).mean()

    scale = 500 * (1 + temperature)  # as a loss scaler would, so that the gradient is representable in float16
    objective = SimCLR(temperature=temperature)
    got = value_and_gradient(lambda x: scale * objective(x, groups)["loss"], z)
    want = value_and_gradient(lambda x: scale * dense(x), z.double())
    assert got[0].dtype == torch.float32
    assert got[1].dtype == dtype
    assert float((got[0] - want[0]).abs() / scale) < 1e-6 * (5 + 1 / temperature)
    stored = {torch.float32: 0.0, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}[dtype]  # rounding of z.grad
    error = (got[1].double() - want[1]).abs().max() / want[1].abs().max()
    assert error < stored + 1e-5 + 1e-6 / temperature


@pytest.mark.parametrize("temperature", [0.2, 0.01])
def test_gradcheck(temperature: float) -> None:
    groups = torch.tensor([0, 0, 1, 1, 1, 2])
    z = randn(6, 4, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: SimCLR(temperature=temperature)(x, groups)["loss"], z)
    unit = torch.nn.functional.normalize(z.detach(), dim=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: similarity_logsumexp(x, temperature, tile=4), unit)


@pytest.mark.parametrize("temperature", [0.2, 0.01])
@pytest.mark.parametrize("tile", [3, 7, 32, 99, 100, 101, 4096])
def test_tiles_of_any_size_agree_with_the_whole_matrix(tile: int, temperature: float) -> None:
    z, g = torch.nn.functional.normalize(randn(100, 8), dim=1), randn(100, seed=3)  # one g for each row
    lse = similarity_logsumexp(z, temperature, tile=tile)
    assert_close(lse, dense_logsumexp(z, temperature), rtol=1e-12, atol=1e-12)
    got = value_and_gradient(lambda x: similarity_logsumexp(x, temperature, tile=tile) @ g, z)
    close(got, value_and_gradient(lambda x: dense_logsumexp(x, temperature) @ g, z), 1e-10)


def test_rows_that_are_all_the_same() -> None:
    value, gradient = ours(torch.ones(50, 8), torch.arange(25).repeat(2))
    assert_close(value, torch.tensor(math.log(49)))
    assert float(gradient.abs().max()) < 1e-6


@pytest.mark.parametrize("rows", [0, 1, 2, 5])
@pytest.mark.parametrize("temperature", [0.2, 0.01])
def test_a_batch_without_positives_costs_nothing(rows: int, temperature: float) -> None:
    z = randn(rows, 4, dtype=torch.float32).requires_grad_()
    out = SimCLR(temperature=temperature)(z, torch.arange(rows))
    out["loss"].backward()
    assert out["loss"] == 0
    assert torch.equal(z.grad, torch.zeros_like(z))
    assert all(torch.isfinite(v) for v in out.values())


def test_zero_rows_stay_finite() -> None:
    z = randn(8, 4, dtype=torch.float32)
    z[[0, 5]] = 0
    value, gradient = ours(z, torch.arange(4).repeat(2))
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()


def test_rows_alone_are_negatives_but_no_anchors() -> None:
    z = randn(4, 6)
    groups = [0, 0, 1, 2]
    with_them, _ = ours(z, groups)
    assert with_them > ours(z[:2], groups[:2])[0]
    _, gradient = ours(z, groups)
    assert (gradient[2:].abs().sum(1) > 0).all()


@pytest.mark.parametrize("kind", ["columns", "every second row", "every second column"])
def test_strided_input_changes_nothing(kind: str) -> None:
    groups = torch.arange(6).repeat(2)
    base = {"columns": randn(5, 12), "every second row": randn(24, 5), "every second column": randn(12, 9)}[kind]

    def view(x: Tensor) -> Tensor:
        return {"columns": x.T, "every second row": x[::2], "every second column": x[:, ::2]}[kind]

    def loss(x: Tensor) -> Tensor:
        return SimCLR(temperature=0.2)(view(x), groups)["loss"]

    def plain(x: Tensor) -> Tensor:
        return by_the_paper(view(x).contiguous(), groups.tolist(), 0.2)

    close(value_and_gradient(loss, base), value_and_gradient(plain, base), 1e-11)
    close(value_and_gradient(lambda x: 3 * loss(x), base), value_and_gradient(lambda x: 3 * plain(x), base), 1e-11)


def test_order_of_rows_changes_nothing() -> None:
    z, groups, order = randn(40, 6), torch.arange(40) % 11, torch.argsort(randn(40))
    value, gradient = ours(z, groups)
    close(ours(z[order], groups[order]), (value, gradient[order]), 1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_leaves_the_loss_in_float32(dtype: torch.dtype) -> None:
    z, groups = randn(64, 16).to(dtype), torch.arange(32).repeat(2)
    want = ours(z, groups)
    with torch.autocast("cpu", torch.bfloat16):
        got = ours(z, groups)
    assert got[0].dtype == torch.float32
    assert torch.equal(got[0], want[0])
    assert torch.equal(got[1], want[1])


def test_what_is_logged() -> None:
    z, groups = randn(20, 4).requires_grad_(), torch.arange(10).repeat(2)
    out = SimCLR(temperature=0.3)(z, groups)
    u = torch.nn.functional.normalize(z.detach(), dim=1)
    assert_close(out["alignment"], (u[:10] * u[10:]).sum(1).mean())
    apart = torch.exp(-torch.cdist(u, u).square() / 0.6)[~torch.eye(20, dtype=torch.bool)].view(20, 19)
    assert_close(out["uniformity"], apart.mean(1).log().mean())
    assert out["loss"].requires_grad
    assert not out["alignment"].requires_grad
    assert not out["uniformity"].requires_grad
    assert all(v.ndim == 0 for v in out.values())


def test_a_second_derivative_is_refused() -> None:
    z = randn(6, 4).requires_grad_()
    loss = SimCLR()(z, torch.arange(3).repeat(2))["loss"]
    (gradient,) = torch.autograd.grad(loss, z, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivative"):
        gradient.square().sum().backward()


class Largest(TorchDispatchMode):
    """Remembers the size of the largest tensor that any operation returns, in entries."""

    entries = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(t, Tensor):
                self.entries = max(self.entries, t.untyped_storage().nbytes() // t.element_size())
        return out


@pytest.mark.parametrize("temperature", [0.2, 0.01])
def test_nothing_is_as_large_as_the_similarity_matrix(temperature: float) -> None:
    n, d, tile = 1500, 16, 100
    z, saved = torch.nn.functional.normalize(randn(n, d), dim=1).requires_grad_(), []
    with Largest() as seen, saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        lse = similarity_logsumexp(z, temperature, tile=tile)
        lse.sum().backward()
    assert seen.entries <= max(n * d, 2 * tile**2)
    assert sum(saved) <= n * d + n + 1


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_a_temperature_that_makes_no_sense_is_refused(temperature: float) -> None:
    with pytest.raises(SeeallError, match="temperature must be above 0"):
        SimCLR(temperature=temperature)


@pytest.mark.parametrize("shapes", [((4, 3), (5,)), ((4, 3), (4, 1)), ((4,), (4,))])
def test_shapes_that_do_not_fit_are_refused(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="groups"):
        SimCLR()(torch.zeros(shapes[0]), torch.zeros(shapes[1], dtype=torch.int64))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("temperature", [0.2, 0.01])
def test_cuda_equals_cpu(temperature: float) -> None:
    z, groups = randn(5000, 64, dtype=torch.float32), torch.arange(5000) % 1777
    want = ours(z.double(), groups, temperature)
    loss = SimCLR(temperature=temperature).cuda()
    got = value_and_gradient(lambda x: loss(x, groups.cuda())["loss"], z.cuda())
    close((got[0].cpu(), got[1].cpu()), want, 1e-5 + 1e-6 / temperature)
