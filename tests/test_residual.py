"""Residual and gradient of least squares in one reading of X, against the definition."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from sparseopt import Groups, Problem, optimality
from sparseopt.designs import fits, residual
from sparseopt.optimality import duality_gap

Array = np.ndarray
Found = tuple[Array, Array, Array]
SHAPES = {"one sample": (1, 3), "one feature": (70, 1), "odd": (1001, 7), "loops": (9_000, 901)}


def case(n: int, p: int, dtype: str) -> tuple[Array, Array, Array, Array]:
    rng = np.random.default_rng(n + p)
    columns = (rng.normal(size=(p, n)) + 0.5).astype(dtype)
    return columns, rng.uniform(0.0, 2.0, n), rng.normal(size=p), rng.normal(size=n)


def close(found: Found, columns: Array, s: Array, w: Array, t: Array, sums: bool) -> bool:
    """Whether r, V and the sums are those of the definition, up to rounding."""
    exact = columns.astype(np.float64)
    r = exact.T @ w - t
    expected = r, exact @ (s * r), exact @ s if sums else np.empty(0)
    size = np.abs(exact)
    scales = size.T @ np.abs(w) + np.abs(t), size @ (s * np.abs(r)), size @ s if sums else np.empty(0)
    return all(
        a.shape == b.shape and bool((np.abs(a - b) <= 1e-13 * scale).all())
        for a, b, scale in zip(found, expected, scales, strict=True)
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("sums", [True, False])
def test_is_the_definition(shape: str, dtype: str, sums: bool, use_threads: Callable[[int], None]) -> None:
    columns, s, w, t = case(*SHAPES[shape], dtype)
    found = []
    for n_threads in (1, 2, 3):
        use_threads(n_threads)
        found.append(residual(columns, s, w, t, sums))
        assert close(found[-1], columns, s, w, t, sums)
    for others in found[1:]:  # the number of threads does not change the rounding
        for a, b in zip(found[0], others, strict=True):
            np.testing.assert_array_equal(a, b)


WRONG: dict[str, Callable[[Array, Array, Array, Array], Found]] = {
    "weights forgotten": lambda columns, s, w, t: residual(columns, np.ones_like(s), w, t, True),
    "targets forgotten": lambda columns, s, w, t: residual(columns, s, w, 0.0 * t, True),
    "no sums": lambda columns, s, w, t: residual(columns, s, w, t),
    "in single": lambda columns, s, w, t: (
        residual(columns, s, w, t)[0].astype("f4"), *residual(columns, s, w, t, True)[1:]
    ),
    "the last feature left out": lambda columns, s, w, t: residual(columns, s, np.append(w[:-1], 0.0), t, True),
    "the last sample left out": lambda columns, s, w, t: residual(
        columns, np.append(s[:-1], 0.0), w, t, True
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_ones_are_rejected(name: str) -> None:
    columns, s, w, t = case(1001, 7, "f4")
    assert close(residual(columns, s, w, t, True), columns, s, w, t, True)
    assert not close(WRONG[name](columns, s, w, t), columns, s, w, t, True)


def test_fits_where_some_hundred_samples_do() -> None:
    assert fits(np.empty((2048, 0), "f4"))
    assert not fits(np.empty((2049, 0), "f4"))
    assert fits(np.empty((1024, 0)))
    assert not fits(np.empty((1025, 0)))


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("offset", [True, False])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_gaps_are_the_same_either_way(
    dtype: str, offset: bool, intercept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    X = (rng.normal(size=(300, 11)) + 5.0).astype(dtype)
    problem = Problem.build(
        X, X[:, 0] + rng.normal(size=300) + 40.0, Groups.equal(11, 1), lam=0.05, intercept=intercept,
        offset=rng.normal(size=300) if offset else None,
        sample_weight=rng.uniform(0.0, 0.01, 300) * (rng.random(300) > 0.2),
    )  # fmt: skip
    points = [(rng.normal(size=11), rng.normal() if intercept else 0.0) for _ in range(3)]
    found = [duality_gap(problem, *point) for point in points]
    for z, A, V in (optimality._look(problem, *point) for point in points):
        assert not intercept or abs(A.sum()) <= 1e-13 * np.abs(A).sum()
        np.testing.assert_allclose(V, X.astype(float).T @ A, atol=1e-12 * np.abs(X).max() * np.abs(A).sum())
        assert z.shape == A.shape == (300, 1)
    monkeypatch.setattr(optimality, "fits", lambda columns: False)
    for point, gap in zip(points, found, strict=True):
        other = duality_gap(problem, *point)
        assert gap.primal == pytest.approx(other.primal, rel=1e-13)
        assert gap.dual == pytest.approx(other.dual, rel=1e-11)


def test_gaps_with_free_features_are_those_of_the_definition() -> None:
    """Features without a penalty are projected out, which one reading cannot do."""
    X = np.random.default_rng(0).normal(size=(40, 6))
    problem = Problem.build(X, X[:, 0], 2, weights=[0.0, 1.0, 1.0], lam=0.1)
    gap = duality_gap(problem, np.full(6, 0.1), 0.2)
    A = optimality.dual_candidate(problem, problem.predictor(np.full(6, 0.1), 0.2))
    assert np.abs(X[:, :2].T @ A).max() < 1e-12
    assert gap.dual == pytest.approx(optimality.dual_bound(problem, A, X.T @ A), rel=1e-12)
