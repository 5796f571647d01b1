"""Sweeps of the Gram matrix against fits by lstsq, against the orthonormal basis, and against trying everything."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import subset_oracle as oracle
from hypothesis import given, settings
from hypothesis import strategies as st
from selection_cases import hard
from test_basis import DEPENDENT, PLAIN, TABLE, make, span_of

from sparseopt import Groups, Problem, Status, select, select_path
from sparseopt.designs import Csc
from sparseopt.selection import refit
from sparseopt.selection.sweep import Dependent, Sweep

Answer = Callable[[Sweep, float], "tuple[int, int] | None"]
splicing_module = importlib.import_module("sparseopt.selection.splicing")
path_module = importlib.import_module("sparseopt.selection.splicing_path")


def sweep_of(problem: Problem, room: int = 6) -> Sweep:
    return Sweep(problem, np.flatnonzero(problem.penalty.penalised), room)


def check(problem: Problem, sweep: Sweep, chosen: list[int]) -> None:
    """Fit, gains and losses by trying them."""
    unit, here = oracle.fit(problem, []).value, oracle.fit(problem, chosen)
    fit = sweep.fit()
    assert sweep.chosen.tolist() == fit.chosen.tolist() == sorted(chosen)
    assert fit.value == pytest.approx(here.value, abs=1e-12 * unit)
    assert sweep.value == pytest.approx(here.value, abs=1e-9 * unit)
    np.testing.assert_allclose(fit.A, here.A, atol=1e-8 * np.abs(here.A).max(initial=1.0))
    W, b = refit(problem, chosen).W, refit(problem, chosen).b
    np.testing.assert_allclose(fit.W, W, atol=1e-7 * np.abs(W).max(initial=1.0))
    np.testing.assert_allclose(fit.b, b, atol=1e-7 * np.abs(b).max(initial=1.0))
    for gain, g in zip(sweep.gains(), sweep.pool.tolist(), strict=True):
        if g in chosen:
            assert gain == -np.inf
        else:
            assert gain == pytest.approx(here.value - oracle.fit(problem, [*chosen, g]).value, abs=1e-9 * unit)
    for loss, g in zip(sweep.losses(), sweep.members, strict=True):
        rest = [m for m in chosen if m != g]
        assert loss == pytest.approx(oracle.fit(problem, rest).value - here.value, abs=1e-9 * unit)


def check_exchange(problem: Problem, sweep: Sweep, answer: Answer) -> None:
    """The exchange that `answer` names lowers the objective as much as any does, by a span that tries them all."""
    span = span_of(problem)
    span.move(sweep.chosen)
    table, unit = span.exchanges(), oracle.fit(problem, []).value
    best = float(table.max(initial=-np.inf))
    helps = best > 1e-9 * unit
    for least in (1e-10 * unit, 0.5 * best, 2.0 * best) if helps else (1e-8 * unit,):
        found = answer(sweep, least)
        if best <= least:
            assert found is None, "no exchange helps as much"
        else:
            assert found is not None, "an exchange was overlooked"
            i, j = span.members.index(found[0]), span.pool.tolist().index(found[1])
            assert table[i, j] == pytest.approx(best, abs=1e-9 * unit), "another exchange is better"


def right(sweep: Sweep, least: float) -> tuple[int, int] | None:
    return sweep.best_exchange(least)


@given(
    seed=st.integers(0, 10_000),
    name=st.sampled_from(sorted(TABLE)),
    moves=st.lists(st.sampled_from([0, 2, 3, 4, 5, 6]), min_size=1, max_size=14),
)
@settings(max_examples=60)
def test_any_history_gives_the_fit(seed: int, name: str, moves: list[int]) -> None:
    problem = make(seed, **TABLE[name])
    sweep, chosen = sweep_of(problem), []
    for g in moves:
        if g in chosen:
            chosen.remove(g)
            sweep.leave(g)
            continue
        try:
            sweep.enter(g)
            chosen.append(g)
        except Dependent:
            few = problem.design.shape[0] < 20 and problem.penalty.ridge == 0.0
            assert name in DEPENDENT or few, "these groups are independent"
    check(problem, sweep, chosen)
    check_exchange(problem, sweep, right)


@pytest.mark.parametrize("name", PLAIN)
def test_a_thousand_exchanges_do_not_drift(name: str) -> None:
    problem = make(1, **PLAIN[name])
    if problem.design.shape[0] < 20:
        problem = make(1, **PLAIN[name] | {"n": 20})
    rng = np.random.default_rng(0)
    sweep = sweep_of(problem)
    sweep.move([0, 3])
    for _ in range(1000):
        sweep.leave(int(rng.choice(sweep.members)))
        sweep.enter(int(rng.choice(np.setdiff1d([0, 2, 3, 4, 5, 6], sweep.members))))
    check(problem, sweep, sweep.chosen.tolist())


def test_wrong_exchanges_are_rejected() -> None:
    """By gains and losses at the choice, which is what others rank by; and the first that helps."""

    def marginal(sweep: Sweep, least: float) -> tuple[int, int] | None:
        i, j = int(np.argmin(sweep.losses())), int(np.argmax(sweep.gains()))
        return (sweep.members[i], int(sweep.pool[j])) if sweep.gains()[j] - sweep.losses()[i] > least else None

    def first(sweep: Sweep, least: float) -> tuple[int, int] | None:
        span = span_of(sweep.problem)
        span.move(sweep.chosen)
        found = np.argwhere(span.exchanges() > least)
        return (span.members[found[0][0]], int(span.pool[found[0][1]])) if len(found) else None

    def try_all(answer: Answer) -> None:
        for seed in range(20):
            problem = hard(seed)
            sweep = sweep_of(problem)
            sweep.move(np.random.default_rng(seed).permutation(10)[:3])
            check_exchange(problem, sweep, answer)

    try_all(right)
    for wrong, complaint in ((marginal, "overlooked|better"), (first, "better")):
        with pytest.raises(AssertionError, match=complaint):
            try_all(wrong)


def test_few_exchanges_are_evaluated() -> None:
    """The bound rules out nearly all of 6 x 194; without it all would be evaluated."""
    from sparseopt.selection.exchange_kernels import best_exchange

    rng = np.random.default_rng(0)
    X = rng.normal(size=(150, 600)) + rng.normal(size=(150, 1))
    problem = Problem.build(X, X[:, :18] @ rng.normal(size=18) + 3.0 * rng.normal(size=150), groups=3)
    sweep = sweep_of(problem, 7)
    for _ in range(6):
        sweep.enter(int(sweep.pool[np.argmax(sweep.gains())]))
    sweep.gains()
    unit = refit(problem, []).value
    assert best_exchange(sweep.table, 1e-10 * unit)[3] <= 60
    check_exchange(problem, sweep, right)


def test_a_copy_is_independent() -> None:
    problem = make(3)
    sweep = sweep_of(problem)
    sweep.move([0, 2])
    twin = sweep.copy()
    twin.leave(0)
    twin.enter(5)
    twin.enter(4)
    check(problem, sweep, [0, 2])
    check(problem, twin, [2, 4, 5])


def test_what_depends_on_members_does_not_enter() -> None:
    """Exactly, and up to a part in 10^5, whose square is what a Gram matrix sees; nothing changes then."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 8))
    X[:, 2] = X[:, 0] + 1e-5 * rng.normal(size=40)
    X[:, 4] = X[:, 0] - X[:, 1]
    problem = Problem.build(X, X[:, 0] + X[:, 6] + rng.normal(size=40), groups=2)
    sweep = sweep_of(problem, 4)
    sweep.enter(0)
    for g in (1, 2):
        with pytest.raises(Dependent):
            sweep.enter(g)
        assert sweep.chosen.tolist() == sweep.fit().chosen.tolist() == [0]
        assert sweep.fit().value == pytest.approx(oracle.fit(problem, [0]).value, rel=1e-12)
    sweep.enter(3)
    sweep.leave(0)
    sweep.enter(1)
    sweep.enter(2)
    assert sweep.fit().value == pytest.approx(oracle.fit(problem, [1, 2, 3]).value, rel=1e-12)
    for k in range(5):
        assert select(problem, k).objective == pytest.approx(
            min(oracle.fit(problem, c).value for c in oracle.combinations(range(4), k)), rel=1e-9
        )


@pytest.mark.parametrize("mean", [1e3, 1e5])
def test_a_large_mean_of_features_does_no_harm(mean: float) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 12))
    y = X[:, 0] - X[:, 7] + 0.3 * rng.normal(size=60)
    expected = select_path(Problem.build(X, y, groups=3), range(4))
    found = select_path(Problem.build(X + mean, y, groups=3), range(4))
    np.testing.assert_allclose(found.objective, expected.objective, rtol=1e-6)


def test_sparse_designs_and_float32() -> None:
    from scipy.sparse import csc_array

    rng = np.random.default_rng(0)
    X = (rng.normal(size=(50, 12)) * (rng.random((50, 12)) < 0.4)).astype(np.float32)
    y = X[:, 0] + X[:, 4] + rng.normal(size=50)
    paths = [select_path(Problem.build(A, y, groups=2), range(5)) for A in (X.astype(float), X, csc_array(X))]
    assert isinstance(paths[2].problem.design, Csc)
    for path in paths[1:]:
        np.testing.assert_allclose(path.objective, paths[0].objective, rtol=1e-10)


# -- paths -------------------------------------------------------------------------------------------------------------


def by_spans(monkeypatch: pytest.MonkeyPatch, run: Callable[[], Any]) -> Any:
    """What `run` returns where no sweep serves."""

    def none(*_: Any) -> None:
        raise Dependent

    with monkeypatch.context() as patch:
        patch.setattr(splicing_module, "Sweep", none)
        patch.setattr(path_module, "Sweep", none)
        return run()


@pytest.mark.parametrize("options", [{}, {"both_ways": False}, {"exchange": 3}, {"max_steps": 1}], ids=str)
def test_paths_are_those_of_spans(monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]) -> None:
    passes = 0
    for seed in range(10):
        problem = hard(seed)
        sizes = range(8) if seed % 2 else [1, 2, 5, 7]
        found = select_path(problem, sizes, **options)
        expected = by_spans(monkeypatch, lambda: select_path(problem, sizes, **options))  # noqa: B023
        np.testing.assert_allclose(found.objective, expected.objective, rtol=1e-9)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one.support, other.support)
            assert one.status is other.status
        one_way = select_path(problem, sizes, **options | {"both_ways": False})
        passes += (one_way.objective > found.objective * (1.0 + 1e-6)).any()
    assert passes or options.get("both_ways") is False, "the second pass never mattered: a path without it would do"


def test_dependent_columns_get_a_path_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(5):
        problem = make(seed, dependent=True)
        found = select_path(problem, range(7))
        expected = by_spans(monkeypatch, lambda: select_path(problem, range(7)))  # noqa: B023
        np.testing.assert_allclose(found.objective, expected.objective, rtol=1e-9, atol=1e-20)
        assert (np.diff(found.objective) <= 1e-12 * found.objective[0]).all()


def test_the_limit_of_steps_is_said() -> None:
    limited = [select_path(hard(seed), range(8), max_steps=0) for seed in range(10)]
    assert {status for path in limited for status in path.statuses} == {Status.LOCAL, Status.MAX_EPOCHS}
    with pytest.raises(ValueError, match=r"^exchange is 0: pass the number of groups"):
        select_path(hard(0), range(3), exchange=0)


# -- how many groups ---------------------------------------------------------------------------------------------------


def noise_shares(criterion: str) -> float:
    """In how many of 60 problems without signal, 100 groups of 4 and 80 samples, a criterion takes a group."""
    taken = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        path = select_path(Problem.build(rng.normal(size=(80, 400)), rng.normal(size=80), groups=4), range(6))
        taken.append(len(path.best(criterion).support) > 0)
    return float(np.mean(taken))


def test_bonferroni_rarely_takes_noise_and_bic_does() -> None:
    """One group enters by chance in 5 %, a pair or more a little oftener: 10 of 60 would be one in 10^3."""
    assert noise_shares("bonferroni") <= 9 / 60
    assert noise_shares("bic") > 9 / 60


def test_bonferroni_by_hand() -> None:
    """Prices from quantiles of scipy.stats, groups of different sizes, one of them always in, two outputs."""
    from scipy.stats import f

    rng = np.random.default_rng(0)
    X, sizes = rng.normal(size=(50, 12)), np.array([2, 3, 1, 2, 4])
    Y = X[:, [0]] - X[:, [3]] + rng.normal(size=(50, 2))
    groups = Groups.from_sizes(sizes, weights=[1.0, 1.0, 0.0, 1.0, 1.0])
    path = select_path(Problem.build(X, Y, groups), range(5))
    fit = 100.0 * np.log(path.deviance / 100.0)
    for at, solution in enumerate(path):
        chosen = [int(g) for g in solution.support if g != 2]
        assert len(chosen) == at
        d, price = 2.0 * sizes[chosen].sum() / max(at, 1), 0.0
        for j in range(1, at + 1):
            m = 100.0 - 2.0 * (1 + 1) - j * d
            price += 100.0 * np.log(1.0 + d * f.isf(0.05 / (4 - j + 1), d, m) / m)
        assert path.criterion("bonferroni")[at] == pytest.approx(fit[at] + price, rel=1e-9)
    assert path.best().support.tolist() == path.best("bonferroni").support.tolist()


def test_bonferroni_knows_that_separated_classes_say_little() -> None:
    """Enough useless groups separate the classes: a deviance of 0, which any price per group would pay."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 240))
    y = (X[:, :4].sum(axis=1) + 0.7 * rng.normal(size=120) > 0.0).astype(float)
    path = select_path(Problem.build(X, y, groups=4, loss="logistic", ridge=1e-6), range(11))
    assert path.deviance[-1] < 1e-2 * path.deviance[0]
    assert path.best().support.tolist() == [0]
    assert len(path.best("bic").support) > 1
    assert path.criterion()[-1] > path.criterion()[0]
