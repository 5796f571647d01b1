"""The constraint to k groups by brute force over all choices, and the columns that selection works on."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csc_array

from sparseopt import AtMost, Groups, Problem, Status, as_design, select
from sparseopt.designs import Csc, Dense, dense_columns, take_columns
from sparseopt.solution import Solution

GROUPS = Groups.from_lists(
    [[0, 5], [1], [7, 2, 4], [3, 9], [6, 8, 11], [10]], 12, weights=[1.0, 3.0, 0.5, 0.0, 2.0, 1.0]
)
COUNTED = (0, 1, 2, 4, 5)


def cost(penalty: AtMost, v: np.ndarray, w: np.ndarray, steps: np.ndarray) -> float:
    """sum_g ||v_g - w_g||^2 / (2 t_g) + Omega(v), from the definition."""
    total, active = 0.0, 0
    for g in range(6):
        at = GROUPS[g]
        total += float(((v[at] - w[at]) ** 2).sum()) / (2.0 * steps[g])
        if g in COUNTED:
            total += 0.5 * penalty.ridge * float((v[at] ** 2).sum())
            active += bool(v[at].any())
    return total if active <= penalty.k else np.inf


@pytest.mark.parametrize("shape", [(12,), (12, 1), (12, 3)], ids=str)
@pytest.mark.parametrize("ridge", [0.0, 0.7])
@pytest.mark.parametrize("k", range(7))
def test_value(k: int, ridge: float, shape: tuple[int, ...]) -> None:
    penalty = AtMost(GROUPS, k, ridge)
    rng = np.random.default_rng(k)
    for chosen in (c for m in range(6) for c in combinations(COUNTED, m)):
        w = np.zeros(shape)
        for g in (*chosen, 3):
            w[GROUPS[g]] = rng.normal(size=w[GROUPS[g]].shape)
        expected = 0.5 * ridge * sum(float((w[GROUPS[g]] ** 2).sum()) for g in chosen) if len(chosen) <= k else np.inf
        assert penalty.value(w) == pytest.approx(expected, rel=1e-14)
    w = np.zeros(shape)
    w[0] = 1e-200  # the square underflows, the group is nonzero all the same
    assert penalty.value(w) == (0.0 if k else np.inf)


@pytest.mark.parametrize("outputs", [None, 2])
@pytest.mark.parametrize("ridge", [0.0, 0.7])
@pytest.mark.parametrize("k", range(7))
def test_prox_by_brute_force(k: int, ridge: float, outputs: int | None) -> None:
    penalty = AtMost(GROUPS, k, ridge)
    rng = np.random.default_rng(k)
    for steps in (np.full(6, 0.3), rng.uniform(0.05, 3.0, 6), rng.uniform(1e-3, 1e3, 6)):
        w = rng.normal(size=12 if outputs is None else (12, outputs))
        found = penalty.prox(w, steps)
        candidates = []
        for chosen in combinations(COUNTED, min(k, 5)):
            v = np.zeros_like(w)
            v[GROUPS[3]] = w[GROUPS[3]]
            for g in chosen:
                v[GROUPS[g]] = w[GROUPS[g]] / (1.0 + steps[g] * ridge)
            candidates.append(cost(penalty, v, w, steps))
        assert found.shape == w.shape
        assert cost(penalty, found, w, steps) == pytest.approx(min(candidates), rel=1e-12)
        np.testing.assert_array_equal(found[GROUPS[3]], w[GROUPS[3]])
    np.testing.assert_array_equal(penalty.prox(w, 0.3), penalty.prox(w, np.full(6, 0.3)))


def test_ties_go_to_the_first_group() -> None:
    groups = Groups.equal(8, 2)
    w = np.array([1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.6, 0.8])
    assert np.flatnonzero(groups.norms(AtMost(groups, 2).prox(w, 1.0))).tolist() == [0, 1]


@pytest.mark.parametrize("ridge", [0.0, 0.7])
@pytest.mark.parametrize("k", range(6))
def test_block_prox_by_brute_force(k: int, ridge: float) -> None:
    """Each block by itself, the others fixed: w_g shrunk, or zero, whichever costs less."""
    penalty = AtMost(GROUPS, k, ridge)
    rng = np.random.default_rng(0)
    for chosen in (c for m in range(min(k, 5) + 1) for c in combinations(COUNTED, m)):
        at, w, steps = np.zeros(12), rng.normal(size=12), rng.uniform(0.1, 2.0, 6)
        for g in (*chosen, 3):
            at[GROUPS[g]] = rng.normal(size=len(GROUPS[g]))
        found = penalty.block_prox(w, steps, at)
        for g in range(6):
            here = GROUPS[g]
            target = at.copy()
            target[here] = w[here]  # the cost of moving the other blocks is the same for all candidates
            options = []
            for block in (np.zeros(len(here)), w[here] / (1.0 + steps[g] * ridge * (g in COUNTED))):
                v = at.copy()
                v[here] = block
                options.append((cost(penalty, v, target, steps), tuple(block)))
            np.testing.assert_allclose(found[here], min(options)[1], rtol=1e-14)


def test_its_part_as_a_penalty() -> None:
    penalty = AtMost(GROUPS, 2, 0.5)
    assert (penalty.lam, penalty.l1_ratio, penalty.block_strength, penalty.entry_strength) == (0.0, 0.0, 0.0, 0.0)
    assert penalty.penalised.tolist() == [True, True, True, False, True, True]
    assert not penalty.is_group_lasso
    assert [AtMost(GROUPS, k).is_convex for k in (0, 4, 5, 6)] == [False, False, True, True]
    other = penalty.at(4.0)
    assert (other.k, other.ridge, other.groups) == (4, 0.5, GROUPS)
    assert AtMost(GROUPS, np.int64(3)).k == 3


@pytest.mark.parametrize(
    ("build", "error", "sentence"),
    [
        (lambda: AtMost([[0, 1]], 1), TypeError, "groups must be a Groups, got list: convert it with as_groups."),
        (lambda: AtMost(GROUPS, 1.0), TypeError, r"k must be .*, got 1.0.*\."),
        (lambda: AtMost(GROUPS, True), TypeError, r"k must be .*, got True.*\."),
        (lambda: AtMost(GROUPS, "2"), TypeError, r"k must be .*, got '2'.*\."),
        (lambda: AtMost(GROUPS, -1), ValueError, r"k is -1: pass .* >= 0\."),
        (lambda: AtMost(GROUPS, 1, -0.5), ValueError, r"ridge is -0.5: .*\."),
        (lambda: AtMost(GROUPS, 1, np.nan), ValueError, r"ridge is nan: .*\."),
    ],
    ids=["groups", "float", "bool", "str", "negative", "ridge", "nan"],
)
def test_errors(build: Callable[[], Any], error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=f"^{sentence}$"):
        build()


def test_a_stationary_choice_has_no_block_to_move() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 12)), rng.normal(size=40)
    problem = Problem.build(X, y, GROUPS, ridge=0.1)
    solution = select(problem, 2)
    assert solution.stationarity <= 1e-10
    assert solution.gap is None
    moved = Solution(solution.w * 1.01, solution.intercept, solution.problem, Status.LOCAL)
    assert moved.stationarity > 1e-4


# -- columns -----------------------------------------------------------------------------------------------------------


def design(layout: str, dtype: Any = np.float64) -> tuple[np.ndarray, Dense | Csc]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(7, 9)).astype(dtype)
    X[rng.random(X.shape) < 0.5] = 0.0
    X[:, 4] = 0.0
    return X.astype(np.float64), as_design(X if layout == "dense" else csc_array(X))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("layout", ["dense", "sparse"])
@pytest.mark.parametrize("features", [[], [4], [0], [8, 2, 4], [3, 3, 0], list(range(9)), [*range(8, -1, -1)]], ids=str)
def test_columns(features: list[int], layout: str, dtype: Any) -> None:
    X, whole = design(layout, dtype)
    part = take_columns(whole, features)
    assert type(part) is type(whole)
    assert part.shape == (7, len(features))
    np.testing.assert_array_equal(part.matvec(np.eye(len(features))), X[:, features])
    v = np.arange(14.0).reshape(7, 2)
    np.testing.assert_allclose(part.rmatvec(v), X[:, features].T @ v, rtol=1e-6 if dtype == np.float32 else 1e-14)
    columns = dense_columns(whole, features)
    assert columns.dtype == np.float64
    np.testing.assert_array_equal(columns, X[:, features])
    assert columns.flags.f_contiguous or not columns.size


@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_all_columns_are_the_design_itself(layout: str) -> None:
    X, whole = design(layout)
    assert take_columns(whole, range(9)) is whole
    part = dense_columns(whole, range(9))
    part[:] = 0.0
    np.testing.assert_array_equal(whole.matvec(np.eye(9)), X)
