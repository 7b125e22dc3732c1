"""The nearest of vectors among themselves: exact as brute force, by an inverted file nearly so; no file is left."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from seeall.index import nearest as module
from seeall.index.nearest import nearest


def units(n: int, dim: int = 16, seed: int = 0) -> Tensor:
    return normalize(torch.randn(n, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def clusters(n: int, dim: int = 16, centres: int = 40) -> Tensor:
    noise = 0.25 * torch.randn(n, dim, generator=torch.Generator().manual_seed(2))
    return normalize(units(centres, dim, 1)[torch.arange(n) % centres] + noise, dim=1)


def brute(vectors: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Every cosine in float64, sorted."""
    cosine = vectors.double() @ vectors.double().T
    best, rows = cosine.sort(dim=1, descending=True, stable=True)
    return best[:, :k], rows[:, :k]


@pytest.mark.parametrize(("n", "k"), [(1, 1), (2, 2), (50, 50), (300, 7)])
def test_flat_equals_brute_force(n: int, k: int) -> None:
    vectors = units(n)
    cosine, rows = nearest(vectors, k)
    want, places = brute(vectors, k)
    assert cosine.shape == rows.shape == (n, k) and rows.dtype == torch.int64 and cosine.dtype == torch.float32
    torch.testing.assert_close(cosine.double(), want, rtol=0, atol=1e-6)
    assert torch.equal(rows, places)
    assert torch.equal(rows[:, 0], torch.arange(n))


def test_several_blocks_are_searched_among_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = units(45)
    whole = nearest(vectors, 6)
    monkeypatch.setattr(module, "_BLOCK", 20)
    for one, other in zip(whole, nearest(vectors, 6), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_more_are_asked_for_than_there_are() -> None:
    """All there are, once each; nothing is invented behind them."""
    _, rows = nearest(units(5), 9)
    for row in rows.tolist():
        assert sorted(x for x in row if x >= 0) == [0, 1, 2, 3, 4]


def test_one_vector_many_times() -> None:
    cosine, rows = nearest(units(1).expand(6, -1), 4)
    torch.testing.assert_close(cosine, torch.ones(6, 4))
    assert all(len(set(row)) == 4 for row in rows.tolist())


def test_any_layout_and_type() -> None:
    """Columns of a larger tensor, and float64, are the same vectors."""
    vectors = units(40)
    wide = torch.cat([vectors, vectors], dim=1)[:, :16]
    for other in (wide, vectors.double(), vectors.T.contiguous().T):
        assert torch.equal(nearest(other, 5)[1], nearest(vectors, 5)[1])


def test_an_inverted_file_finds_nearly_all_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n, k = 1600, 10
    monkeypatch.setattr(module, "EXACT_BELOW", n)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    trained = []
    ordinary = module.build
    monkeypatch.setattr(module, "build", lambda *given: trained.append(ordinary(*given)) or trained[-1])
    vectors = clusters(n)
    cosine, rows = nearest(vectors, k)
    assert trained[0].index.nlist > trained[0].search["nprobe"] >= 1  # it is not all read
    want, _ = brute(vectors, k)
    assert float((cosine >= want[:, -1:].float() - 1e-6).float().mean()) >= 0.95
    picked = (vectors.double()[rows] * vectors.double()[:, None]).sum(2)
    torch.testing.assert_close(cosine.double(), picked, rtol=0, atol=1e-5)  # scores are of the rows they stand with
    assert all(len(set(row)) == k for row in rows.tolist())
    assert (cosine.diff(dim=1) <= 1e-6).all()
    again = nearest(vectors, k)
    assert torch.equal(again[0], cosine) and torch.equal(again[1], rows)
    assert not list(tmp_path.rglob("*"))
    nearest(vectors[:10], 3)
    assert len(trained) == 2 and not list(tmp_path.rglob("*"))  # ten are searched as they are


def test_vectors_are_left_as_they_were() -> None:
    vectors = units(30)
    before = vectors.clone()
    cosine, rows = nearest(vectors, 3)
    cosine[:], rows[:] = 0, 0  # what comes back is one's own
    assert torch.equal(vectors, before)
