"""The laws of a solver, a function from a problem to a solution.

    status       it says that it converged, and has: what follows holds for its w and b, recomputed from the definitions
    gap          q = L2: F(w, b) - D <= tol |F|, with a dual bound D <= F* worked out here, so F is within tol of F*
    rest         other q: no prox step of length 1 / L_g in one block moves it, and F(w, b) <= F(0, b_0)
    report       objective, gap and stationarity of the solution are those numbers
    order        renaming and reordering features and groups does not change the optimum
    units        F(X, lam, ridge) = F(a X, a lam, a^2 ridge) at the optimum, and a F = F(a s, a lam, a ridge)
    hands off    the problem is as it was

The dual bound: for A = dL/dz with the gradient of all free directions projected out, and scaled by c so that
||soft(X_g'A, lam a)|| <= lam (1 - a) omega_g, F* >= -L*(cA); with ridge, minus sum of (excess)^2 / (2 ridge) instead.
Everything is computed here by loops over the groups of a dense X; of the package, only losses and regularizers are
asked, which have laws of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparseopt.groups import Groups
from sparseopt.laws.definitions import as_bytes, check_close, check_shapes, dense, dual_bound, like, matrix
from sparseopt.laws.problems import solver_problems
from sparseopt.problem import Problem
from sparseopt.solution import Solution, Status

__all__ = ["check_solver"]

Array = NDArray[np.float64]
Solver = Callable[[Problem], Solution]


def check_solver(solver: Solver, problems: Mapping[str, Problem] | None = None, tol: float = 1e-8) -> None:
    """Check that `solver` solves every problem of a table, and says so truthfully.

    Parameters
    ----------
    solver : function from Problem to Solution. Its own tolerance must be a little finer than `tol`.
    problems : by name; with separable penalties. Default: `sparseopt.laws.problems.solver_problems()`.
    tol : accepted relative duality gap (q = L2), or stationarity (other q).

    Raises
    ------
    AssertionError
        At the first law broken, with the problem and the numbers.

    Examples
    --------
    >>> from sparseopt.laws.problems import solver_problems
    >>> from sparseopt.solvers import fista
    >>> some = {name: problem for name, problem in solver_problems().items() if name.startswith("logistic, dense, l2")}
    >>> check_solver(lambda problem: fista(problem, tol=1e-9), some)
    """
    for name, problem in (solver_problems() if problems is None else problems).items():
        before = as_bytes(problem)
        solution = solver(problem)
        try:
            assert as_bytes(problem) == before, "the solver changed the problem"
            check_shapes(problem, solution.w, solution.intercept)
            assert solution.status is Status.CONVERGED, f"status is {solution.status.name}"
            _is_a_solution(problem, solution, tol)
            if problem.penalty.is_group_lasso:
                _order_does_not_matter(problem, solution, solver, tol)
                _units_do_not_matter(problem, solution, solver, tol)
        except AssertionError as broken:
            raise AssertionError(f"{name}: {broken}") from None


def _is_a_solution(problem: Problem, solution: Solution, tol: float) -> None:
    X, W, b = dense(problem.design), matrix(problem, solution.w), np.atleast_1d(solution.intercept)
    primal = _objective(problem, X, W, b)
    check_close(solution.objective, primal, "the objective it reports", 1e-12)
    if problem.penalty.is_group_lasso:
        dual = dual_bound(problem, X, X @ W + b)
        gap = (primal - dual) / max(abs(primal), abs(dual), 1e-300)
        assert gap <= tol, f"it says CONVERGED, but F = {primal!r} and a dual bound is {dual!r}: relative gap {gap:.3g}"
        assert solution.gap is not None, "its gap is None"
        assert solution.gap <= tol, f"the gap it reports is {solution.gap:.3g}"
        return
    rest = _stationarity(problem, X, W, b)
    assert rest <= tol, f"it says CONVERGED, but a prox step moves a block: stationarity {rest:.3g}"
    assert solution.stationarity <= 2.0 * tol, f"the stationarity it reports is {solution.stationarity:.3g}"
    b_0 = problem.loss.null_intercept() if problem.intercept else np.zeros_like(b)
    start = _objective(problem, X, np.zeros_like(W), b_0)
    assert primal <= start * (1.0 + 1e-12), f"F = {primal!r} is above F(0) = {start!r}"


def _order_does_not_matter(problem: Problem, solution: Solution, solver: Solver, tol: float) -> None:
    rng = np.random.default_rng(0)
    groups = problem.groups
    to = rng.permutation(groups.n_features)  # new feature j is the old to[j]
    where = np.argsort(to)
    order = rng.permutation(len(groups))
    lists = [rng.permutation(where[groups[int(g)]]) for g in order]
    shuffled = Groups.from_lists(lists, groups.n_features, weights=groups.weights[order])
    design = like(problem.design, dense(problem.design)[:, to])
    other = replace(problem, design=design, penalty=replace(problem.penalty, groups=shuffled))
    there = solver(other)
    check_close(there.objective, solution.objective, "the optimum after features and groups are reordered", 2.0 * tol)
    if problem.penalty.ridge > 0.0 and problem.penalty.penalised.all():
        apart = float(np.linalg.norm(there.w - solution.w[to]))
        allowed = 2.0 * np.sqrt(2.0 * tol * abs(solution.objective) / problem.penalty.ridge)
        assert apart <= allowed, f"w moves by {apart:.3g} when features are reordered; {allowed:.3g} is possible"


def _units_do_not_matter(problem: Problem, solution: Solution, solver: Solver, tol: float) -> None:
    penalty: Any = problem.penalty
    coarse = replace(
        problem,
        design=like(problem.design, 3.0 * dense(problem.design)),
        penalty=replace(penalty, lam=3.0 * penalty.lam, ridge=9.0 * penalty.ridge),
    )
    check_close(solver(coarse).objective, solution.objective, "the optimum with X, lam in other units", 2.0 * tol)
    heavy = replace(
        problem,
        loss=replace(problem.loss, s=5.0 * problem.loss.s),
        penalty=replace(penalty, lam=5.0 * penalty.lam, ridge=5.0 * penalty.ridge),
    )
    check_close(solver(heavy).objective, 5.0 * solution.objective, "the optimum with all weights times 5", 2.0 * tol)


# -- the definitions ---------------------------------------------------------------------------------------------------


def _objective(problem: Problem, X: Array, W: Array, b: Array) -> float:
    groups = problem.groups
    penalty: Any = problem.penalty
    total = problem.loss.value(X @ W + b)
    for g, omega in enumerate(groups.weights):
        if omega > 0.0:
            block = W[groups[g]]
            u = float(np.sqrt((block**2).sum()))
            total += penalty.lam * (1.0 - penalty.l1_ratio) * omega * float(penalty.q.value(u))
            total += penalty.lam * penalty.l1_ratio * float(np.abs(block).sum())
            total += 0.5 * penalty.ridge * u * u
    return total


def _stationarity(problem: Problem, X: Array, W: Array, b: Array) -> float:
    loss, groups = problem.loss, problem.groups
    penalty: Any = problem.penalty
    z = X @ W + b
    A, c = loss.derivative(z), loss.curvature(z)
    moves = [float(np.linalg.norm(A.sum(axis=0)))] if problem.intercept else [0.0]
    for g, omega in enumerate(groups.weights):
        here = X[:, groups[g]]
        L = float(np.linalg.eigvalsh(here.T @ (c[:, None] * here))[-1])
        if L <= 0.0:
            continue
        v = W[groups[g]] - here.T @ A / L
        if omega > 0.0:
            v = np.sign(v) * np.maximum(np.abs(v) - penalty.lam * penalty.l1_ratio / L, 0.0) / (1.0 + penalty.ridge / L)
            u = float(np.sqrt((v**2).sum()))
            t = penalty.lam * (1.0 - penalty.l1_ratio) * omega / (L + penalty.ridge)
            v = v * (float(penalty.q.prox(u, t)) / u if u > 0.0 else 0.0)
        moves.append(L * float(np.linalg.norm(v - W[groups[g]])))
    b_0 = loss.null_intercept() if problem.intercept else np.zeros_like(b)
    V = X.T @ loss.derivative(np.tile(b_0, (len(X), 1)))
    return max(moves) / max(float(np.linalg.norm(V[groups[g]])) for g in range(len(groups)))
