"""The laws of a selector, a function from a problem and k to a solution of at most k groups.

    count        at most k groups of positive weight have coefficients; those of weight 0 are always in
    fit          the gradient of loss and ridge is zero on what is in (groups, always-in groups, intercept): as the
                 objective is convex there, the coefficients are those of the fit
    null         the objective is at most that of k = 0, which by the law above is the null model
    all          with k >= the number of groups, it is the minimum over all groups
    report       the solution's problem is the one asked, with the penalty AtMost(k), and its objective is true
    status       it says that it ended well, or that it cycled; CONVERGED means that no other group would help, OPTIMAL
                 that the bound meets the objective and that no choice of k groups is better
    again        the same question gives the same answer, bit by bit
    layout       dense and sparse X give the same objective
    order        so do groups, features and samples in another order
    copies       so do samples without weight left out, and some samples given six times at a sixth of their weight
    units        so do 30 X with 900 ridge; and s / 50 with ridge / 50, which give F / 50
    hands off    the problem is as it was

and, for selectors that measure the gradient of a group by its weight,

    group units  without a ridge, c X_g and c omega_g give the same objective

Objectives are compared, not choices: equal groups are interchangeable. None of this says that the choice is good.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from sparseopt.cardinality import AtMost
from sparseopt.designs import Csc, as_design
from sparseopt.groups import Groups
from sparseopt.laws.definitions import as_bytes, as_sparse, check_close, check_shapes, dense, dual_bound, like, matrix
from sparseopt.laws.problems import selector_problems
from sparseopt.penalty import Penalty
from sparseopt.problem import Problem
from sparseopt.regularizers import L2
from sparseopt.selection import refit
from sparseopt.solution import Solution, Status

__all__ = ["check_selector"]

Array = NDArray[np.float64]
Selector = Callable[[Problem, int], Solution]

_ENDS = (Status.CONVERGED, Status.OPTIMAL, Status.LOCAL, Status.CYCLING)


def check_selector(
    selector: Selector,
    problems: Mapping[str, Problem] | None = None,
    tol: float = 1e-8,
    *,
    group_units: bool = False,
) -> None:
    """Check that `selector` obeys the laws above on every problem of a table, for several k.

    Parameters
    ----------
    selector : function from (Problem, k) to Solution.
    problems : by name, with at most about 8 groups. Default: `sparseopt.laws.problems.selector_problems()`.
    tol : accepted gradient on what is in, relative to the largest one of the null model; and difference of objectives,
        relative to that of the null model.
    group_units : whether the selector claims the last law.

    Raises
    ------
    AssertionError
        At the first law broken, with the problem, k and the numbers.

    Examples
    --------
    >>> from sparseopt.laws.problems import selector_problems
    >>> from sparseopt.selection import select
    >>> some = {name: problem for name, problem in selector_problems().items() if name.startswith("squares, dense")}
    >>> check_selector(lambda problem, k: select(problem, k, "omp"), some, group_units=True)
    """
    for name, problem in (selector_problems() if problems is None else problems).items():
        total = int(np.count_nonzero(problem.penalty.penalised))
        null: float | None = None
        for k in (0, 1, 3, total, total + 2):
            try:
                solution = _asked(selector, problem, k)
                _has_no_memory(selector, problem, solution, k)
                scale = _scale(problem)
                _is_what_was_asked(problem, solution, k)
                F = solution.objective
                assert null is None or F <= null * (1.0 + 1e-12), f"F = {F!r} is above {null!r} of the null model"
                _is_the_fit(problem, solution, scale, tol)
                null = F if null is None else null
                if k >= total:
                    _is_the_minimum_over_all(problem, solution, null, tol)
                _status_is_true(problem, solution, k, scale, null)
                if k == 3:
                    for what, other, factor in _rewritten(problem, group_units and not problem.penalty.ridge):
                        found = _asked(selector, other, k).objective
                        check_close(found, factor * F, f"F {what}", tol, factor * null)
            except AssertionError as broken:
                raise AssertionError(f"{name}: k = {k}: {broken}") from None


def _asked(selector: Selector, problem: Problem, k: int) -> Solution:
    before = as_bytes(problem)
    solution = selector(problem, k)
    assert as_bytes(problem) == before, "the selector changed the problem"
    check_shapes(problem, solution.w, solution.intercept)
    return solution


def _has_no_memory(selector: Selector, problem: Problem, solution: Solution, k: int) -> None:
    again = selector(problem, k)
    for one, other in ((solution.w, again.w), (solution.intercept, again.intercept)):
        same = np.asarray(one).tobytes() == np.asarray(other).tobytes()
        assert same, f"the same question has two answers: groups {solution.support}, then {again.support}"


def _is_what_was_asked(problem: Problem, solution: Solution, k: int) -> None:
    asked = solution.problem
    assert isinstance(asked.penalty, AtMost), f"the solution's penalty is {type(asked.penalty).__name__}, not AtMost"
    assert asked.penalty.k == k, f"the solution's problem has k = {asked.penalty.k}"
    same = replace(asked, penalty=problem.penalty)
    assert as_bytes(same) == as_bytes(problem), "the solution's problem is another one"
    assert asked.penalty.ridge == problem.penalty.ridge, f"the solution's problem has ridge {asked.penalty.ridge}"
    for before, after in (
        (problem.groups.indices, asked.groups.indices),
        (problem.groups.indptr, asked.groups.indptr),
        (problem.groups.weights, asked.groups.weights),
    ):
        assert np.array_equal(before, after), "the solution's problem has other groups"
    W = matrix(problem, solution.w)
    active = [g for g in np.flatnonzero(problem.groups.weights > 0.0) if W[problem.groups[int(g)]].any()]
    assert len(active) <= k, f"{len(active)} groups are in: {[int(g) for g in active]}"
    value = _objective(problem, W, solution.intercept)
    check_close(solution.objective, value, "the objective it reports", 1e-12)


def _is_the_fit(problem: Problem, solution: Solution, scale: float, tol: float) -> None:
    W = matrix(problem, solution.w)
    pulls, pull = _gradients(problem, W, solution.intercept)
    assert pull <= tol * scale, f"no fit: the gradient in the intercept is {pull / scale:.3g} of that of the null model"
    for g, omega in enumerate(problem.groups.weights):
        if omega == 0.0 or W[problem.groups[g]].any():
            kind = "always-in group" if omega == 0.0 else "group"
            at = pulls[g] / scale
            assert at <= tol, f"no fit: the gradient in {kind} {g} is {at:.3g} of that of the null model"


def _is_the_minimum_over_all(problem: Problem, solution: Solution, null: float, tol: float) -> None:
    """By a dual bound: of the ridge problem, or of the loss with all groups free."""
    groups, ridge = problem.groups, problem.penalty.ridge
    weights = np.where(groups.weights > 0.0, 1.0 if ridge else 0.0, 0.0)
    penalty = Penalty(L2(), Groups(groups.indices, groups.indptr, weights), 0.0, 0.0, ridge)
    z = dense(problem.design) @ matrix(problem, solution.w) + solution.intercept
    bound = dual_bound(replace(problem, penalty=penalty), dense(problem.design), z)
    F = solution.objective
    assert F - bound <= tol * null, f"k allows all groups, but F = {F!r} and only {bound!r} is a bound of their minimum"


def _status_is_true(problem: Problem, solution: Solution, k: int, scale: float, null: float) -> None:
    status = solution.status
    assert isinstance(status, Status), f"status is {status!r}"
    assert status in _ENDS, f"status is {status.name}"
    F = solution.objective
    if solution.bound is not None:
        assert solution.bound <= F + 1e-9 * null, f"the bound {solution.bound!r} is above F = {F!r}"
    if status is Status.CONVERGED:
        pulls, _ = _gradients(problem, matrix(problem, solution.w), solution.intercept)
        g = int(np.argmax(pulls))
        assert pulls[g] <= 1e-6 * scale, f"it says CONVERGED, but group {g} pulls with {pulls[g] / scale:.3g} of that"
    if status is Status.OPTIMAL:
        assert solution.bound is not None, "it says OPTIMAL, but gives no bound"
        gap = (F - solution.bound) / null
        assert gap <= 1e-4, f"it says OPTIMAL, but F = {F!r} and its bound is {solution.bound!r}"
        counted = np.flatnonzero(problem.groups.weights > 0.0)
        for choice in combinations(counted.tolist(), min(k, len(counted))):
            better = refit(problem, choice).value
            assert F <= better + 1e-4 * null, f"it says OPTIMAL with F = {F!r}, but groups {choice} give {better!r}"


def _rewritten(problem: Problem, group_units: bool) -> Iterator[tuple[str, Problem, float]]:
    """The same problem in other words, and the factor of the objective."""
    rng = np.random.default_rng(0)
    X, groups, loss, penalty = dense(problem.design), problem.groups, problem.loss, problem.penalty
    other = as_design(X) if isinstance(problem.design, Csc) else as_sparse(X)
    yield "with X in the other layout", replace(problem, design=other), 1.0
    to = rng.permutation(groups.n_features)  # new feature j is the old to[j]
    where = np.argsort(to)
    order = rng.permutation(len(groups))
    lists = [rng.permutation(where[groups[int(g)]]) for g in order]
    shuffled = Groups.from_lists(lists, groups.n_features, weights=groups.weights[order])
    design = like(problem.design, X[:, to])
    yield (
        "with features and groups reordered",
        replace(problem, design=design, penalty=replace(penalty, groups=shuffled)),
        1.0,
    )
    kept = np.flatnonzero(loss.s)
    some = kept[: len(kept) // 3]
    rows = rng.permutation(np.concatenate([kept, *[some] * 5]))
    offset = None if loss.offset is None else loss.offset[rows]
    s = loss.s[rows] * np.where(np.isin(rows, some), 1.0 / 6.0, 1.0)
    yield (
        "with samples reordered, split, or left out at weight zero",
        replace(problem, design=like(problem.design, X[rows]), loss=replace(loss, y=loss.y[rows], s=s, offset=offset)),
        1.0,
    )
    coarse = replace(penalty, ridge=900.0 * penalty.ridge)
    yield "with 30 X and 900 ridge", replace(problem, design=like(problem.design, 30.0 * X), penalty=coarse), 1.0
    light = replace(penalty, ridge=penalty.ridge / 50.0)
    yield "with all weights over 50", replace(problem, loss=replace(loss, s=loss.s / 50.0), penalty=light), 1.0 / 50.0
    if group_units:
        c = np.resize([2.0, 0.25, 1.0, 8.0], len(groups))
        design = like(problem.design, X * groups.expand(c))
        scaled = replace(penalty, groups=Groups(groups.indices, groups.indptr, c * groups.weights))
        yield "with groups and their weights in other units", replace(problem, design=design, penalty=scaled), 1.0


# -- the definitions ---------------------------------------------------------------------------------------------------


def _objective(problem: Problem, W: Array, b: Array | float) -> float:
    total = problem.loss.value(dense(problem.design) @ W + b)
    for g, omega in enumerate(problem.groups.weights):
        if omega > 0.0:
            total += 0.5 * problem.penalty.ridge * float((W[problem.groups[g]] ** 2).sum())
    return total


def _gradients(problem: Problem, W: Array, b: Array | float) -> tuple[Array, float]:
    """Norm of the gradient of loss and ridge in each group, and in the intercept, 0 if there is none."""
    X = dense(problem.design)
    A = problem.loss.derivative(X @ W + b)
    norms = np.zeros(len(problem.groups))
    for g, omega in enumerate(problem.groups.weights):
        here = problem.groups[g]
        norms[g] = np.linalg.norm(X[:, here].T @ A + (problem.penalty.ridge * W[here] if omega > 0.0 else 0.0))
    return norms, float(np.linalg.norm(A.sum(axis=0))) if problem.intercept else 0.0


def _scale(problem: Problem) -> float:
    """The largest gradient in a group at w = 0 and the best intercept."""
    K = problem.n_outputs
    b = problem.loss.null_intercept() if problem.intercept else np.zeros(K)
    norms, _ = _gradients(problem, np.zeros((problem.design.shape[1], K)), b)
    return float(norms.max())
