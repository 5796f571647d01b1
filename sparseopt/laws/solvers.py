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

import numpy as np
from numpy.typing import NDArray

from sparseopt.designs import Csc, Design, as_design
from sparseopt.groups import Groups
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
        before = _bytes(problem)
        solution = solver(problem)
        try:
            assert _bytes(problem) == before, "the solver changed the problem"
            _shapes_fit(problem, solution)
            assert solution.status is Status.CONVERGED, f"status is {solution.status.name}"
            _is_a_solution(problem, solution, tol)
            if problem.penalty.is_group_lasso:
                _order_does_not_matter(problem, solution, solver, tol)
                _units_do_not_matter(problem, solution, solver, tol)
        except AssertionError as broken:
            raise AssertionError(f"{name}: {broken}") from None


def _shapes_fit(problem: Problem, solution: Solution) -> None:
    p, K = problem.design.shape[1], problem.n_outputs
    expected = (p,) if K == 1 else (p, K)
    assert solution.w.shape == expected, f"w has shape {solution.w.shape}, not {expected}"
    assert np.shape(solution.intercept) == (() if K == 1 else (K,)), f"intercept is {solution.intercept}"
    assert np.isfinite(solution.w).all(), "w is not finite"
    assert np.isfinite(solution.intercept).all(), f"intercept is {solution.intercept}"
    assert problem.intercept or not np.any(solution.intercept), f"intercept is {solution.intercept}, not 0"


def _is_a_solution(problem: Problem, solution: Solution, tol: float) -> None:
    X, W, b = _dense(problem.design), _matrix(problem, solution.w), np.atleast_1d(solution.intercept)
    primal = _objective(problem, X, W, b)
    _close(solution.objective, primal, "the objective it reports", 1e-12)
    if problem.penalty.is_group_lasso:
        dual = _dual_bound(problem, X, X @ W + b)
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
    design = _like(problem.design, _dense(problem.design)[:, to])
    other = replace(problem, design=design, penalty=replace(problem.penalty, groups=shuffled))
    there = solver(other)
    _close(there.objective, solution.objective, "the optimum after features and groups are reordered", 2.0 * tol)
    if problem.penalty.ridge > 0.0 and problem.penalty.penalised.all():
        apart = float(np.linalg.norm(there.w - solution.w[to]))
        allowed = 2.0 * np.sqrt(2.0 * tol * abs(solution.objective) / problem.penalty.ridge)
        assert apart <= allowed, f"w moves by {apart:.3g} when features are reordered; {allowed:.3g} is possible"


def _units_do_not_matter(problem: Problem, solution: Solution, solver: Solver, tol: float) -> None:
    penalty = problem.penalty
    coarse = replace(
        problem,
        design=_like(problem.design, 3.0 * _dense(problem.design)),
        penalty=replace(penalty, lam=3.0 * penalty.lam, ridge=9.0 * penalty.ridge),
    )
    _close(solver(coarse).objective, solution.objective, "the optimum with X, lam in other units", 2.0 * tol)
    heavy = replace(
        problem,
        loss=replace(problem.loss, s=5.0 * problem.loss.s),
        penalty=replace(penalty, lam=5.0 * penalty.lam, ridge=5.0 * penalty.ridge),
    )
    _close(solver(heavy).objective, 5.0 * solution.objective, "the optimum with all weights times 5", 2.0 * tol)


# -- the definitions ---------------------------------------------------------------------------------------------------


def _objective(problem: Problem, X: Array, W: Array, b: Array) -> float:
    penalty, groups = problem.penalty, problem.groups
    total = problem.loss.value(X @ W + b)
    for g, omega in enumerate(groups.weights):
        if omega > 0.0:
            block = W[groups[g]]
            u = float(np.sqrt((block**2).sum()))
            total += penalty.lam * (1.0 - penalty.l1_ratio) * omega * float(penalty.q.value(u))
            total += penalty.lam * penalty.l1_ratio * float(np.abs(block).sum())
            total += 0.5 * penalty.ridge * u * u
    return total


def _dual_bound(problem: Problem, X: Array, z: Array) -> float:
    loss, penalty, groups = problem.loss, problem.penalty, problem.groups
    A = loss.derivative(z)
    free = [groups[g] for g, omega in enumerate(groups.weights) if omega == 0.0]
    U = np.column_stack([np.ones(len(z)) if problem.intercept else np.zeros(len(z)), *(X[:, g] for g in free)])
    root = np.sqrt(loss.curvature(z))[:, None]
    inner = np.divide(A, root, out=np.zeros_like(A), where=root > 0.0)
    for _ in range(2):
        inner = inner - root * (U @ np.linalg.lstsq(root * U, inner, rcond=None)[0])
    A = root * inner
    blocks = [
        (X[:, groups[g]].T @ A, penalty.lam * (1.0 - penalty.l1_ratio) * omega)
        for g, omega in enumerate(groups.weights)
        if omega > 0.0
    ]
    mu = penalty.lam * penalty.l1_ratio
    c = loss.dual_scale(A)
    if penalty.ridge > 0.0:
        excess = sum(max(_soft_norm(c * V, mu) - bound, 0.0) ** 2 for V, bound in blocks)
        return -loss.conjugate(c * A) - excess / (2.0 * penalty.ridge)
    for V, bound in blocks:
        low, high = 0.0, c
        if _soft_norm(high * V, mu) > bound:
            for _ in range(60):
                middle = 0.5 * (low + high)
                low, high = (middle, high) if _soft_norm(middle * V, mu) <= bound else (low, middle)
            c = low
    return -loss.conjugate(c * A)


def _stationarity(problem: Problem, X: Array, W: Array, b: Array) -> float:
    loss, penalty, groups = problem.loss, problem.penalty, problem.groups
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


def _soft_norm(V: Array, mu: float) -> float:
    return float(np.sqrt((np.maximum(np.abs(V) - mu, 0.0) ** 2).sum()))


def _matrix(problem: Problem, w: Array) -> Array:
    return w.reshape(problem.design.shape[1], problem.n_outputs)


def _dense(design: Design) -> Array:
    X: Array = np.array(design.matvec(np.eye(design.shape[1])))
    return X


def _like(design: Design, X: Array) -> Design:
    if not isinstance(design, Csc):
        return as_design(X)
    from scipy.sparse import csc_array

    return as_design(csc_array(X))


def _bytes(problem: Problem) -> tuple[bytes, ...]:
    loss, groups, penalty = problem.loss, problem.groups, problem.penalty
    arrays = [value for value in problem.design if isinstance(value, np.ndarray)]
    arrays += [loss.y, loss.s, groups.indices, groups.indptr, groups.weights]
    arrays += [] if loss.offset is None else [loss.offset]
    numbers = f"{penalty.q} {penalty.lam} {penalty.l1_ratio} {penalty.ridge} {problem.intercept}".encode()
    return (*(array.tobytes() for array in arrays), numbers)


def _close(got: float, expected: float, what: str, tol: float) -> None:
    assert abs(got - expected) <= tol * max(abs(expected), 1e-300), f"{what} is {got!r}, not {expected!r}"
