"""Verification against loops over pairs, scikit-learn, hand-made cases and faces."""

from __future__ import annotations

import io
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pytest import approx
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from seeall.metrics import verification as module
from seeall.metrics.verification import pair_scores, roc, verification
from seeall.types import SeeallError

FARS = (0.5, 0.1, 0.03, 1e-2, 1e-3)
FACES = Path(__file__).parents[2].parent / "shared" / "data" / "orl_faces.zip"


def pictures(n: int, identities: int, seed: int, ties: bool = False) -> tuple[Tensor, Tensor]:
    """`ties`: signs in 16 dimensions, whose cosines are multiples of 1/8 and tie exactly."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, identities, (n,), generator=g)
    centres = torch.randn(identities, 16, generator=g)
    x = centres[labels] + torch.randn(n, 16, generator=g)
    return (x.sign() if ties else x), labels * 7 - 3


def all_pairs(x: Tensor, labels: Tensor) -> tuple[list[float], list[float]]:
    """Cosines of all pairs in float64, one pair at a time, on the grid of the module: same, different."""
    rows = x.double().tolist()
    unit = [[v / math.sqrt(sum(w * w for w in row)) for v in row] for row in rows]
    kinds: tuple[list[float], list[float]] = ([], [])
    for i in range(len(unit)):
        for j in range(i):
            cosine = sum(p * q for p, q in zip(unit[i], unit[j]))
            kinds[int(labels[i] != labels[j])].append(round(cosine * 2**20) / 2**20)
    return kinds


def tar_at(same: list[float], different: list[float], far: float) -> float:
    """Every score, and more than all of them, tried as threshold: the lowest whose share is small enough."""
    for threshold in sorted({*same, *different, math.inf}):
        if sum(s >= threshold for s in different) <= far * len(different):
            return sum(s >= threshold for s in same) / len(same)
    raise AssertionError("infinity accepts nothing")


def equal_error(same: list[float], different: list[float]) -> float:
    """Where FAR meets FRR, walked from the lowest threshold upwards in straight lines."""
    before = (1.0, 0.0)
    for threshold in [*sorted({*same, *different}), math.inf]:
        far = sum(s >= threshold for s in different) / len(different)
        frr = sum(s < threshold for s in same) / len(same)
        if far <= frr:
            fall, rise = before[0] - far, frr - before[1]
            share = (before[0] - before[1]) / (fall + rise)
            return before[0] - share * fall
        before = (far, frr)
    raise AssertionError("at infinity all are refused")


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("budget", [1 << 22, 100])
def test_agrees_with_the_loop_and_scikit_learn(ties: bool, budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BUDGET", budget)
    for seed in range(2):
        x, labels = pictures(40, 6, seed, ties)
        same, different = all_pairs(x, labels)
        found = verification(x, labels, fars=FARS)
        assert (found["pairs_same"], found["pairs_different"]) == (len(same), len(different))
        assert "tar@far=1e-3" not in found  # fewer than 1000 pairs
        for far, name in zip(FARS, ("5e-1", "1e-1", "3e-2", "1e-2")):
            assert found[f"tar@far={name}"] == approx(tar_at(same, different, far), abs=1e-12), name
        assert found["eer"] == approx(equal_error(same, different), abs=1e-6)
        truth = [1] * len(same) + [0] * len(different)
        assert found["auc"] == approx(roc_auc_score(truth, same + different), abs=1e-6)
        got = pair_scores(x, labels)
        assert all(torch.equal(part * 2**20, (part * 2**20).round()) for part in got)
        assert sorted(got[0].tolist()) == approx(sorted(same), abs=2e-6)
        assert sorted(got[1].tolist()) == approx(sorted(different), abs=2e-6)


@pytest.mark.parametrize("ties", [False, True])
def test_the_curve_is_scikit_learns(ties: bool) -> None:
    same, different = pair_scores(*pictures(60, 5, 0, ties))
    far, tar, thresholds = roc(same, different)
    truth = np.r_[np.ones(len(same)), np.zeros(len(different))]
    want = roc_curve(truth, torch.cat([same, different]).double().numpy(), drop_intermediate=False)
    assert (far[0], tar[0], far[-1], tar[-1], thresholds[0]) == (0, 0, 1, 1, math.inf)
    whole = {tuple(point) for point in np.stack(want, 1).round(9).tolist()}
    ours = [tuple(point) for point in torch.stack([far, tar, thresholds], 1).numpy().round(9).tolist()]
    assert set(ours) <= whole
    assert float(torch.trapezoid(tar, far)) == approx(roc_auc_score(truth, torch.cat([same, different])), abs=1e-12)
    if not ties:  # steps alone: what was dropped lies within an upright or a level line
        assert len(ours) < len(whole)
        turns = (far.diff() > 0) ^ (tar.diff() > 0)
        assert turns.all() and ((far.diff()[1:] > 0) != (far.diff()[:-1] > 0)).all()


def test_a_curve_to_draw_is_thin_and_lies_on_the_whole_one() -> None:
    same, different = pair_scores(*pictures(300, 20, 0))
    whole, thin = roc(same, different), roc(same, different, points=100)
    assert 50 < len(thin[0]) <= 102 < len(whole[0])
    assert {*zip(*(c.tolist() for c in thin))} <= {*zip(*(c.tolist() for c in whole))}
    assert (thin[0][0], thin[1][0], thin[0][-1], thin[1][-1]) == (0, 0, 1, 1)
    assert float((thin[0] > 0).double().mul(thin[0] < 0.01).sum()) > 10  # the left end, drawn in logarithms, is there
    assert float(torch.trapezoid(thin[1], thin[0])) == approx(float(torch.trapezoid(whole[1], whole[0])), abs=0.01)


def test_a_threshold_that_ties_across_the_quantile_is_not_taken() -> None:
    """Of eight pairs of two identities, two score as high as all of one: a FAR below 2/8 lets none of them in."""
    angle = torch.tensor([0.0, 0.0, 0.0, 0.5, 0.5]) * math.pi
    x = torch.stack([angle.cos(), angle.sin()], 1)
    labels = torch.tensor([0, 0, 1, 2, 2])  # the picture of label 1 equals both of label 0
    found = verification(x, labels, fars=(0.2, 0.25, 0.5, 1))
    assert (found["pairs_same"], found["pairs_different"]) == (2, 8)
    assert (found["tar@far=2e-1"], found["tar@far=2.5e-1"]) == (0, 1)
    assert found["tar@far=5e-1"] == found["tar@far=1e0"] == 1
    assert found["auc"] == approx((6 + 2 / 2) / 8)
    assert found["eer"] == approx(0.2)  # from (2/8, 0) straight to (0, 1): far = frr at 1/5


def folds_by_a_loop(x: Tensor, labels: Tensor, folds: int, seed: int) -> list[float]:
    """The protocol over again with numpy, every threshold tried; only who is drawn is taken from the module."""
    _, number = labels.unique(return_inverse=True)
    unit = torch.nn.functional.normalize(x, dim=1)
    fold, count = module._deal(number, folds, seed)
    pairs = [[s.numpy() for s in module._fold_pairs(unit[fold == f], number[fold == f], seed, f)] for f in range(count)]
    shares = []
    for f in range(count):
        same, different = (np.concatenate([p[kind] for g, p in enumerate(pairs) if g != f]) for kind in (0, 1))
        scores = np.unique(np.r_[same, different])
        cuts = [-np.inf, *((scores[1:].astype(float) + scores[:-1]) / 2), np.inf]
        right = [(same >= c).sum() + (different < c).sum() for c in cuts]
        best = cuts[int(np.argmax(right))]
        own, other = pairs[f]
        shares.append(((own >= best).mean() + (other < best).mean()) / 2)
    return shares


@pytest.mark.parametrize(("identities", "ties"), [(40, False), (40, True), (7, False)])
def test_accuracy_follows_the_protocol(identities: int, ties: bool) -> None:
    x, labels = pictures(160, identities, 1, ties)
    found = verification(x, labels, seed=5)
    shares = folds_by_a_loop(x, labels, 10, 5)
    assert len(shares) == min(10, identities // 2)
    assert found["accuracy"] == approx(np.mean(shares), abs=1e-12)
    assert found["accuracy_std"] == approx(np.std(shares, ddof=1), abs=1e-12)


def test_folds_share_no_identity_and_hold_as_many_pairs_of_each_kind() -> None:
    x, labels = pictures(200, 90, 2)  # some identities have one picture
    _, number = labels.unique(return_inverse=True)
    assert (number.bincount() == 1).any()
    fold, count = module._deal(number, 10, 0)
    assert count == 10 and set(fold.tolist()) == set(range(10))
    for identity in number.unique():
        assert len(fold[number == identity].unique()) == 1
    for f in range(10):
        same, different = module._fold_pairs(x[fold == f], number[fold == f], 0, f)
        assert len(same) == len(different) > 0
    assert not torch.equal(fold, module._deal(number, 10, 1)[0])


def test_every_fold_has_an_identity_with_two_pictures() -> None:
    number = torch.cat([torch.arange(24), torch.tensor([3, 11, 20])])  # 3 with two pictures, 21 with one
    for seed in range(5):
        fold, count = module._deal(number, 10, seed)
        assert count == 3 and sorted(fold[24:].tolist()) == [0, 1, 2]
        assert torch.equal(fold[24:], fold[[3, 11, 20]])


def test_few_identities_make_few_folds_or_no_accuracy() -> None:
    for identities, folds in ((3, 0), (4, 2), (5, 2), (6, 3)):
        labels = torch.arange(identities).repeat(3)
        assert module._deal(labels, 10, 0)[1] == max(folds, identities // 2)
        found = verification(pictures(len(labels), 2, 0)[0], labels)
        assert ("accuracy" in found) == ("accuracy_std" in found) == (folds > 1)


def test_perfect_worst_and_collapsed() -> None:
    labels = torch.arange(120) % 12
    sides = torch.nn.functional.one_hot(labels).float()
    best = verification(sides, labels, fars=(0.1, 1e-3))
    assert best["tar@far=1e-1"] == best["tar@far=1e-3"] == best["auc"] == best["accuracy"] == 1
    assert best["eer"] == best["accuracy_std"] == 0
    worst = verification(sides, torch.arange(120) // 12, fars=(0.01,))  # equal pictures are different people
    assert worst["tar@far=1e-2"] == 0 and worst["auc"] < 0.5 < worst["eer"]
    for x in (torch.ones(120, 3), torch.zeros(120, 3), torch.rand(1, 700).expand(120, 700)):
        collapsed = verification(x, labels, fars=(0.5, 0.1))
        assert collapsed["tar@far=5e-1"] == collapsed["tar@far=1e-1"] == collapsed["accuracy_std"] == 0
        assert collapsed["auc"] == collapsed["eer"] == collapsed["accuracy"] == 0.5


def test_too_many_pairs_are_those_of_pictures_drawn_by_key() -> None:
    x, labels = pictures(300, 20, 3)
    whole = verification(x, labels)
    some = verification(x, labels, most_pairs=10_000)
    assert some["pairs_same"] + some["pairs_different"] == math.comb(141, 2) <= 10_000 < math.comb(142, 2)
    assert some == verification(x, labels, most_pairs=10_000)
    assert some != verification(x, labels, most_pairs=10_000, seed=1)
    assert some["auc"] == approx(whole["auc"], abs=0.03)
    assert verification(x, labels, most_pairs=math.comb(300, 2)) == whole
    assert sum(map(len, pair_scores(x, labels, most_pairs=10_000))) == math.comb(141, 2)
    for most in (math.comb(50, 2) - 1, math.comb(49, 2)):
        drawn = verification(*pictures(50, 4, 0), most_pairs=most)
        assert drawn["pairs_same"] + drawn["pairs_different"] == math.comb(49, 2)


def test_length_type_and_names_of_labels_change_nothing() -> None:
    x, labels = pictures(80, 10, 4)
    assert verification(x, labels) == verification(8 * x, labels) == verification(x.double(), labels + 2**60)
    with_gradient = verification(x.clone().requires_grad_(), labels)
    assert with_gradient == verification(x, labels)


class Largest(TorchDispatchMode):
    """Remembers the size of the largest tensor that any operation returns, in bytes."""

    size = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(t, Tensor):
                self.size = max(self.size, t.untyped_storage().nbytes())
        return out


def test_memory_does_not_grow_with_the_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LEVELS", 1 << 10)
    monkeypatch.setattr(module, "_BUDGET", 1 << 16)
    x, labels = pictures(1500, 100, 5)
    with Largest() as seen:
        found = verification(x, labels)
    assert found["pairs_same"] + found["pairs_different"] == math.comb(1500, 2)
    assert seen.size <= 8 << 16 < 4 * math.comb(1500, 2)


def test_raw_faces() -> None:
    """Pixels of 40 people by 10 pictures say something about who it is, and far from all."""
    if not FACES.exists():
        pytest.skip(f"needs {FACES.name} beside the repository")
    x, labels = [], []
    with zipfile.ZipFile(FACES) as archive:
        for name in sorted(n for n in archive.namelist() if n.endswith(".png")):
            small = Image.open(io.BytesIO(archive.read(name))).convert("L").resize((23, 28))
            x.append(np.asarray(small, dtype=np.float32).ravel())
            labels.append(int(name.split("/")[1][1:]))
    features = torch.from_numpy(np.stack(x))
    found = verification(features - features.mean(0), torch.tensor(labels))
    assert (found["pairs_same"], found["pairs_different"]) == (40 * 45, math.comb(40, 2) * 100)
    assert found["tar@far=1e-4"] < found["tar@far=1e-3"] < found["tar@far=1e-2"] < found["tar@far=1e-1"] < 1
    assert 0.05 < found["eer"] < 0.25 and 0.85 < found["auc"] < 1 and 0.8 < found["accuracy"] < 1


def test_what_cannot_be_measured_is_said() -> None:
    x = pictures(6, 2, 0)[0]
    with pytest.raises(SeeallError, match="at least two identities: check the labels"):
        verification(x, torch.zeros(6, dtype=torch.int64))
    with pytest.raises(SeeallError, match="an identity with at least two pictures: check the labels"):
        verification(x, torch.arange(6))
    with pytest.raises(SeeallError, match="2 pictures were drawn; raise most_pairs"):
        verification(x, torch.arange(6) // 2, most_pairs=2)
    with pytest.raises(SeeallError, match="NaN"):
        verification(torch.full((4, 2), torch.nan), torch.arange(4) // 2)
    with pytest.raises(SeeallError, match="no features"):
        verification(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64))
    for settings, message in (
        ({"fars": (0.1, 0.0)}, "rate must be above 0 and at most 1, not 0.0"),
        ({"fars": (math.nan,)}, "rate must be above 0 and at most 1, not nan"),
        ({"folds": 1}, "folds must be at least 2, not 1"),
        ({"most_pairs": 0}, "most_pairs must be at least 1, not 0"),
    ):
        with pytest.raises(SeeallError, match=message):
            verification(x, torch.arange(6) // 2, **settings)
    with pytest.raises(ValueError, match="labels"):
        verification(x, torch.arange(5))
    with pytest.raises(SeeallError, match="of one identity and of two"):
        roc(torch.ones(3), torch.ones(0))
    with pytest.raises(SeeallError, match="NaN or infinity"):
        roc(torch.ones(3), torch.tensor([torch.inf]))


@pytest.mark.gpu
def test_cuda_equals_cpu() -> None:
    x, labels = pictures(1500, 100, 6)
    want, got = verification(x, labels, most_pairs=10**6), verification(x.cuda(), labels.cuda(), most_pairs=10**6)
    assert got == approx(want, abs=1e-3)
    curve = roc(*pair_scores(x.cuda(), labels.cuda()), points=100)
    assert all(part.is_cuda for part in curve)
