"""Scores of people against loops over their pictures, and against scikit-learn's regression."""

import numpy as np
import pytest
from pytest import approx
from sklearn.linear_model import Ridge

from seeall.index.faces import score
from seeall.index.faces.score import RULES, Scorer
from seeall.types import SeeallError


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def gallery(n: int = 30, dim: int = 12, people: int = 5, seed: int = 0) -> tuple[np.ndarray, list[str], np.ndarray]:
    rng = np.random.default_rng(seed)
    who = [f"p{i % people}" if i < people else f"p{rng.integers(people)}" for i in range(n)]
    return unit(rng.standard_normal((n, dim)) + 0.5), who, unit(rng.standard_normal((9, dim)) + 0.5)


@pytest.mark.parametrize("rows", [4096, 4])
def test_best_and_mean_are_the_loop(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score, "_ROWS", rows)
    monkeypatch.setattr(score, "_QUERIES", rows)
    vectors, who, queries = gallery()
    found = {rule: Scorer(vectors, who, rule) for rule in ("best", "mean")}
    assert found["best"].names == sorted(set(who))
    for q, x in enumerate(queries.astype(np.float64)):
        for p, name in enumerate(found["best"].names):
            own = [v.astype(np.float64) for v, person in zip(vectors, who) if person == name]
            assert found["best"](queries)[q, p] == approx(max(float(v @ x) for v in own), abs=1e-6)
            mean = sum(own)
            assert found["mean"](queries)[q, p] == approx(float(mean @ x) / np.linalg.norm(mean), abs=1e-6)


@pytest.mark.parametrize(("n", "dim"), [(30, 12), (10, 40)])
def test_classifier_is_a_ridge_regression_and_the_nearest(n: int, dim: int) -> None:
    """By either form of the equations."""
    vectors, who, queries = gallery(n, dim)
    names = sorted(set(who))
    target = np.array([[float(person == name) for name in names] for person in who])
    square = float(np.square(vectors - vectors.mean(0)).sum()) / n
    said = Ridge(alpha=score._STRENGTH * square).fit(vectors.astype(np.float64), target).predict(queries)
    best = Scorer(vectors, who, "best")(queries)
    wanted = best - score._WEIGHT * (said.max(1, keepdims=True) - said)
    assert Scorer(vectors, who, "classifier")(queries) == approx(wanted, abs=2e-6)


@pytest.mark.parametrize("rule", RULES)
def test_a_picture_alone_and_among_others_and_in_any_order(rule: str) -> None:
    vectors, who, queries = gallery(200, 64, 20)
    scorer = Scorer(vectors, who, rule)
    together = scorer(queries)
    assert np.array_equal(together, np.concatenate([scorer(queries[i : i + 1]) for i in range(len(queries))]))
    order = np.random.default_rng(1).permutation(200)
    again = Scorer(vectors[order], [who[i] for i in order], rule)
    assert again.names == scorer.names and again(queries) == approx(together, abs=2e-6)


@pytest.mark.parametrize("rule", RULES)
def test_one_person_and_one_picture_each(rule: str) -> None:
    vectors, _, queries = gallery(4)
    alone = Scorer(vectors[:1], ["ann"], rule)
    assert alone.names == ["ann"] and alone(queries)[:, 0] == approx(queries @ vectors[0], abs=1e-6)
    each = Scorer(vectors, list("dcba"), rule)
    assert each.names == list("abcd")
    assert each(vectors[::-1]).argmax(1).tolist() == [0, 1, 2, 3]
    assert each(vectors)[0, 3] == approx(1, abs=2e-6)


def test_vectors_that_cancel_out_and_vectors_that_are_all_the_same() -> None:
    x = np.array([[1, 0], [-1, 0], [0, 1]], np.float32)
    assert Scorer(x, ["a", "a", "b"], "mean")(x).tolist() == [[0, 0], [0, 0], [0, 1]]
    same = np.ones((4, 1), np.float32)
    assert Scorer(same, ["a", "a", "b", "b"], "classifier")(same[:1]).tolist() == [[1, 1]]


def test_a_rule_that_is_none() -> None:
    with pytest.raises(SeeallError, match="--score bets: did you mean best"):
        Scorer(np.ones((1, 2), np.float32), ["a"], "bets")
