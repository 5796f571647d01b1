"""The basis of chosen groups and the span of a pool against fresh fits by lstsq, whatever entered and left before."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import subset_oracle as oracle
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseopt import Groups, Problem
from sparseopt.selection import refit
from sparseopt.selection.basis import Basis
from sparseopt.selection.fit import model
from sparseopt.selection.span import Span

SIZES = (2, 1, 3, 2, 2, 1, 3)
STARTS = np.cumsum((0, *SIZES))


def make(
    seed: int,
    *,
    ridge: float = 0.0,
    intercept: bool = True,
    always_in: bool = False,
    outputs: int = 1,
    weighted: bool = False,
    dependent: bool = False,
    n: int = 25,
) -> Problem:
    """Seven groups of scattered features; `dependent`: within a group, between groups, zeros and a constant."""
    rng = np.random.default_rng(seed)
    p = sum(SIZES)
    X = rng.normal(size=(n, p)) + rng.normal(size=(n, 1))
    if dependent:
        X[:, 5] = X[:, 3] + X[:, 4]  # group 2
        X[:, 6:8] = X[:, 8:10]  # groups 3 and 4
        X[:, 10] = X[:, 0] - X[:, 1]  # group 5 lies in group 0
        X[:, 11] = 0.0
        X[:, 12] = 1.0
    y = rng.normal(size=(n, outputs)) + X[:, [0]] - X[:, [8]]
    order = rng.permutation(p)
    groups = Groups.from_lists(
        [np.flatnonzero(np.isin(order, range(a, b))) for a, b in pairwise(STARTS)],
        p,
        weights=[0.0 if always_in and g == 1 else 1.0 for g in range(7)],
    )
    s = rng.uniform(0.0, 2.0, n) * (rng.random(n) < 0.9) if weighted else None
    return Problem.build(
        X[:, order], y if outputs > 1 else y[:, 0], groups, ridge=ridge, intercept=intercept, sample_weight=s
    )


def span_of(problem: Problem, pool: Any = None) -> Span:
    return Span(problem, problem.loss.s, problem.loss.y, pool)


def check_fit(problem: Problem, basis: Basis, chosen: list[int]) -> None:
    expected = oracle.fit(problem, chosen)
    unit = oracle.fit(problem, []).value
    assert basis.chosen.tolist() == sorted(chosen)
    assert basis.value == pytest.approx(expected.value, abs=1e-10 * unit)
    W, b = basis.coefficients()
    z = oracle.dense(problem) @ W + b
    value = oracle.losses(problem, z)[0]
    shrunk = W[problem.groups.expand(problem.penalty.penalised)]
    value += 0.5 * problem.penalty.ridge * float((shrunk**2).sum())
    assert value == pytest.approx(basis.value, abs=1e-10 * unit)
    out = [g for g in range(7) if problem.groups.weights[g] > 0.0 and g not in chosen]
    assert not W[problem.groups.features(np.array(out, dtype=int))].any()
    root = np.sqrt(problem.loss.s)[:, None]
    np.testing.assert_allclose(root * (problem.loss.y - z), basis.residual, atol=1e-8)
    Q, T = basis.basis, basis.coefs
    ridged = T[sum(len(rows) for g, rows in basis.rows.items() if g < 0) :]
    np.testing.assert_allclose(Q.T @ Q + problem.penalty.ridge * ridged.T @ ridged, np.eye(basis.rank), atol=1e-10)


def check_span(problem: Problem, span: Span, chosen: list[int]) -> None:
    """Gains, losses and exchanges by trying them."""
    unit = oracle.fit(problem, []).value
    F = {0: oracle.fit(problem, chosen).value}

    def value(choice: list[int]) -> float:
        return oracle.fit(problem, choice).value

    gains = span.gains()
    for at, g in enumerate(span.pool.tolist()):
        if g in chosen:
            assert gains[at] == -np.inf
        else:
            assert gains[at] == pytest.approx(F[0] - value([*chosen, g]), abs=1e-9 * unit), f"gain of {g}"
    assert len(span.losses()) == len(span.members)
    for loss, g in zip(span.losses(), span.members, strict=True):
        rest = [m for m in chosen if m != g]
        assert loss == pytest.approx(value(rest) - F[0], abs=1e-9 * unit), f"loss of {g}"
    table = span.exchanges()
    assert table.shape == (len(span.members), len(span.pool))
    for row, out in enumerate(span.members):
        rest = [m for m in chosen if m != out]
        without = span.gains(without=out)
        for at, g in enumerate(span.pool.tolist()):
            if g in chosen:
                assert table[row, at] == -np.inf
                continue
            there = value([*rest, g])
            assert table[row, at] == pytest.approx(F[0] - there, abs=1e-9 * unit), f"{out} for {g}"
            assert without[at] == pytest.approx(value(rest) - there, abs=1e-9 * unit), f"{g} once {out} has left"


PLAIN = {
    "plain": {},
    "no-intercept": {"intercept": False},
    "ridge": {"ridge": 0.1},
    "always-in": {"always_in": True},
    "always-in-ridge": {"always_in": True, "ridge": 0.02, "intercept": False},
    "two-outputs": {"outputs": 2},
    "weights": {"weighted": True, "outputs": 2, "ridge": 0.1},
    "few-samples": {"n": 9},
    "few-samples-ridge": {"n": 6, "ridge": 0.05},
}
DEPENDENT = {f"dependent-{name}": settings | {"dependent": True} for name, settings in PLAIN.items()}
TABLE = PLAIN | DEPENDENT


@pytest.mark.parametrize("name", TABLE)
def test_groups_enter_and_leave(name: str) -> None:
    problem = make(0, **TABLE[name])
    span, chosen = span_of(problem), []
    for g in (2, 0, 5, -0, 3, 4, -2, 6, 2, -3, -5):
        move = abs(g)
        if problem.groups.weights[move] == 0.0:
            continue
        if move in chosen:
            chosen.remove(move)
            span.leave(move)
        else:
            chosen.append(move)
            span.enter(move)
        check_fit(problem, span, chosen)
        check_span(problem, span, chosen)


@given(
    seed=st.integers(0, 10_000),
    name=st.sampled_from(sorted(TABLE)),
    moves=st.lists(st.sampled_from([0, 2, 3, 4, 5, 6]), min_size=1, max_size=14),
)
@settings(max_examples=60)
def test_any_history_gives_the_fit(seed: int, name: str, moves: list[int]) -> None:
    problem = make(seed, **TABLE[name])
    basis = Basis(problem, problem.loss.s, problem.loss.y)
    span, chosen = span_of(problem), []
    for g in moves:
        if g in chosen:
            chosen.remove(g)
            basis.leave(g)
            span.leave(g)
        else:
            chosen.append(g)
            basis.enter(g)
            span.enter(g)
    check_fit(problem, basis, chosen)
    check_fit(problem, span, chosen)
    check_span(problem, span, chosen)


def test_a_thousand_exchanges_do_not_drift() -> None:
    problem = make(1, dependent=True, always_in=True, outputs=2)
    rng = np.random.default_rng(0)
    span = span_of(problem)
    span.move([0, 3])
    for _ in range(1000):
        out = int(rng.choice(span.members))
        into = int(rng.choice(np.setdiff1d([0, 2, 3, 4, 5, 6], span.members)))
        span.leave(out)
        span.enter(into)
    check_fit(problem, span, span.chosen.tolist())
    check_span(problem, span, span.chosen.tolist())


@pytest.mark.parametrize("name", ["plain", "dependent-plain", "dependent-always-in-ridge"])
def test_move_ends_at_the_members_named(name: str) -> None:
    problem = make(2, **TABLE[name])
    span = span_of(problem)
    for chosen in ([0, 2, 3], [3, 6], [], [2, 4, 5, 6], [4]):
        span.move(chosen)
        check_fit(problem, span, chosen)
        check_span(problem, span, chosen)


def test_a_copy_is_independent() -> None:
    problem = make(3, dependent=True)
    span = span_of(problem)
    span.move([0, 2])
    before = span.exchanges()
    twin = span.copy()
    twin.leave(0)
    twin.enter(5)
    twin.enter(0)
    np.testing.assert_array_equal(span.exchanges(), before)
    check_fit(problem, span, [0, 2])
    check_span(problem, twin, [0, 2, 5])


def test_a_pool_is_part_of_the_table() -> None:
    problem = make(4, always_in=True)
    whole, part = span_of(problem), span_of(problem, np.array([5, 0, 3]))
    for span in (whole, part):
        span.move([0, 3])
    assert whole.pool.tolist() == [0, 2, 3, 4, 5, 6]
    np.testing.assert_allclose(part.gains(), whole.gains()[[4, 0, 2]], rtol=1e-10)
    np.testing.assert_allclose(part.exchanges(), whole.exchanges()[:, [4, 0, 2]], rtol=1e-9)


def test_no_groups_to_choose_from() -> None:
    rng = np.random.default_rng(0)
    problem = Problem.build(rng.normal(size=(9, 4)), rng.normal(size=9), groups=2, weights=[0.0, 0.0])
    span = span_of(problem)
    assert span.gains().shape == (0,)
    assert span.exchanges().shape == (0, 0)
    assert span.value == pytest.approx(oracle.fit(problem, []).value)


@pytest.mark.parametrize("loss", ["huber", "logistic", "poisson", "multinomial"])
def test_the_model_touches_the_loss(loss: str) -> None:
    """Its pulls are the gradients of the loss at the fit, and its value is least there."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 10))
    y = {
        "huber": X[:, 0] + rng.standard_t(3, 60),
        "logistic": (X[:, 0] + rng.normal(size=60) > 0.0).astype(float),
        "poisson": rng.poisson(np.exp(0.4 * X[:, 0])).astype(float),
        "multinomial": rng.permutation(np.arange(60) % 3),
    }[loss]
    problem = Problem.build(X, y, groups=2, loss=loss, ridge=0.01)
    fit = refit(problem, [0, 2])
    span = model(fit)
    assert span.chosen.tolist() == [0, 2]
    V = oracle.dense(problem).T @ fit.A
    pulls = np.vstack([V[problem.groups[g]] for g in (1, 3, 4)])
    at = np.concatenate([np.arange(2 * g, 2 * g + 2) for g in (1, 3, 4)])
    np.testing.assert_allclose(-span.pulls[at], pulls, atol=1e-8 * np.abs(V).max())
    W, b = span.coefficients()
    np.testing.assert_allclose(W, fit.W, atol=1e-6 * np.abs(fit.W).max())
    np.testing.assert_allclose(b, fit.b, atol=1e-6)
    assert (span.losses() > 0.0).all()
