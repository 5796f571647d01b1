"""Gradients known up to a bound: the bound holds, and what is asked for exactly is exact."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseopt import Groups, as_design
from sparseopt.solvers.gradients import MEMORY, PATIENCE, SMALL, Gradients

SIZES = [1, 2, 5, SMALL, SMALL + 1, 3]


def violations(gradients: Gradients, X: np.ndarray, A: np.ndarray) -> np.ndarray:
    """By how much the error of each group exceeds its slack, beyond rounding."""
    groups = gradients.groups
    exact = X.T @ A
    error = groups.norms(gradients.V - exact)
    return error - gradients.slack - 1e-12 * np.linalg.norm(X) * np.linalg.norm(A)


def walk(gradients: Gradients, X: np.ndarray, outputs: int, seed: int, step: float, level: float) -> float:
    """The largest violation along a random walk of A, with some groups asked for at every point."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(len(X), outputs))
    worst = -np.inf
    for _ in range(PATIENCE + 2 * MEMORY):
        gradients.at(np.ascontiguousarray(A.T))
        worst = max(worst, violations(gradients, X, A).max())
        asked = np.isin(np.arange(len(SIZES)), rng.choice(len(SIZES), 2, replace=False))
        gradients.ensure(asked)
        worst = max(worst, violations(gradients, X, A).max())
        assert not gradients.slack[asked].any()
        A = A + step * rng.normal(size=A.shape) + level
    return float(worst)


def design_and_matrix(seed: int, mean: float, sparse: bool) -> tuple[object, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(20, sum(SIZES))) + mean
    X[:, 1] = X[:, 2]  # a group of rank one
    X[:, 7] = 0.0
    X *= rng.random(X.shape) < (0.3 if sparse else 1.0)
    return as_design(sp.csc_array(X) if sparse else X), X


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    outputs=st.sampled_from([1, 3]),
    mean=st.sampled_from([0.0, 5.0, 1e4]),
    sparse=st.booleans(),
    step=st.sampled_from([1e-6, 1e-2, 1.0]),
    level=st.sampled_from([0.0, 1.0]),
)
def test_bounds_hold(seed: int, outputs: int, mean: float, sparse: bool, step: float, level: float) -> None:
    design, X = design_and_matrix(seed, mean, sparse)
    gradients = Gradients(design, Groups.from_sizes(SIZES))
    assert walk(gradients, X, outputs, seed, step, level) <= 0.0


WRONG = {
    "half the spread": lambda g: g.spread.__imul__(0.3),
    "the level forgotten": lambda g: g.level.__imul__(0.0),
}


@pytest.mark.parametrize(("name", "sparse"), [(name, False) for name in WRONG] + [("half the spread", True)])
def test_wrong_bounds_are_noticed(name: str, sparse: bool) -> None:
    wrong, worst = WRONG[name], -np.inf
    for mean in (0.0, 1e4):
        design, X = design_and_matrix(0, mean, sparse)
        gradients = Gradients(design, Groups.from_sizes(SIZES))
        assert walk(gradients, X, 1, 0, 1e-2, 1.0) <= 0.0
        wrong(gradients)
        worst = max(worst, walk(gradients, X, 1, 1, 1e-2, 1.0))
    assert worst > 0.0


def test_norms_bound_the_soft_thresholded_blocks() -> None:
    design, X = design_and_matrix(3, 1.0, False)
    groups = Groups.from_sizes(SIZES)
    gradients = Gradients(design, groups)
    rng = np.random.default_rng(0)
    A = rng.normal(size=(20, 2))
    for _ in range(PATIENCE + 3):
        gradients.at(np.ascontiguousarray(A.T))
        for mu in (0.0, 0.7):
            soft = np.maximum(np.abs(X.T @ A) - mu, 0.0)
            assert (groups.norms(soft) <= gradients.norms(mu) * (1.0 + 1e-12) + 1e-12).all()
        gradients.ensure(np.arange(len(SIZES)) == 4)
        exact = groups.norms(np.maximum(np.abs(X.T @ A) - 0.7, 0.0))[4]
        assert gradients.norms(0.7)[4] == pytest.approx(exact, rel=1e-12)
        A = A + 0.01 * rng.normal(size=A.shape)


def test_a_product_that_is_known_is_not_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    design, X = design_and_matrix(4, 1.0, False)
    made: list[None] = []
    product = type(design).rmatvec
    monkeypatch.setattr(type(design), "rmatvec", lambda self, R: made.append(None) or product(self, R))
    rows = np.random.default_rng(0).normal(size=(2, 20))
    gradients = Gradients(design, Groups.from_sizes(SIZES))
    gradients.learn(rows, X.T @ rows.T)
    for factor, count in ((1.0, 0), (1.0 + 1e-15, 0), (1.0 + 1e-13, 1), (2.0, 2), (2.0, 2), (1.0, 3)):
        gradients.at(factor * rows)
        assert len(made) == count
        np.testing.assert_allclose(gradients.V, factor * (X.T @ rows.T), rtol=1e-12, atol=1e-12)
        assert not gradients.slack.any()


def test_most_groups_of_a_path_are_decided_without_a_product() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 3000))
    gradients = Gradients(as_design(X), Groups.equal(3000, 3))
    A = rng.normal(size=(50, 1))
    for _ in range(20):
        gradients.at(np.ascontiguousarray(A.T))
        gradients.ensure(gradients.norms(0.0) > 3.5 * np.linalg.norm(A))
        A = A + 0.01 * rng.normal(size=A.shape)
    assert gradients.known == PATIENCE
