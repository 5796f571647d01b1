"""Everything that can be proved about an answer: evidence from the solvers, claims by `sparseopt.certificates`.

    problem solved                     evidence gathered here                        claims
    group lasso (q = L2)               the point's own dual                          gap, zero groups, one group, window
    problem (1), q^-1(sum q)           the group lasso at the same lam, to 1e-10     gap to the global optimum, the same
    separable, concave q               group lassos at many strengths                lower bound of the global optimum
    at most k groups                   branch and bound, within `seconds`            gap to the best choice, constants

Solvers only produce evidence (dual points, trees of a search): a certificate recomputes what follows from it, and the
saved file is verified by code that shares nothing with them. So an error here costs a proof, never a false one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparseopt import certificates as claims
from sparseopt.cardinality import AtMost
from sparseopt.certificates import Certificate, Report
from sparseopt.optimality import dual_candidate
from sparseopt.paths import lam_max, path
from sparseopt.penalty import Composite, Penalty
from sparseopt.problem import Problem
from sparseopt.progress import shown
from sparseopt.regularizers import L2, LogSum
from sparseopt.selection import SubsetPath
from sparseopt.selection.exact import exact
from sparseopt.solution import ConvergenceWarning, Solution
from sparseopt.solvers import solve

__all__ = ["KINDS", "certify", "certify_path"]

Array = NDArray[np.float64]

KINDS = (
    "stationarity",
    "duality_gap",
    "zero_groups",
    "theorem_1_1",
    "one_group_window",
    "one_group_kkt",
    "optimality_gap",
    "separable_bound",
    "regularizer",
    "best_subset",
    "approximation",
    "exact_recovery",
)
_TIGHT = 1e-12  # relative gap asked of companion problems: their dual is the proof
_STRENGTHS = 60


def certify(solution: Solution, *, kinds: Iterable[str] | None = None, seconds: float = 10.0) -> Report:
    """What can be proved about a solution.

    Parameters
    ----------
    solution : Solution
        Of any problem of the package.
    kinds : iterable of str, optional
        Names of `KINDS`; default all that apply to the problem.
    seconds : float
        Time for the proof that a choice of groups is best, where the solution does not bring one.

    Returns
    -------
    Report
        `print` it to read in words what is proved and what is not; `save` it for `sparseopt verify`.

    Raises
    ------
    ValueError
        If a kind is unknown.

    Notes
    -----
    The claims are about the solution as it is: one that was solved loosely gets a wide gap. Solve to 1e-10 first to
    prove much.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt import Problem, solve
    >>> X = np.random.default_rng(0).normal(size=(40, 8))
    >>> problem = Problem.build(X, X[:, 0] + X[:, 1], groups=2, lam=0.1)
    >>> report = certify(solve(problem, tol=1e-10), kinds=["duality_gap", "zero_groups"])
    >>> [certificate.verdict.name for certificate in report]
    ['PROVED', 'PROVED']
    """
    wanted = KINDS if kinds is None else tuple(kinds)
    for kind in wanted:
        if kind not in KINDS:
            raise ValueError(f"kind is {kind!r}, which is unknown: choose among {', '.join(KINDS)}.")
    problem = solution.problem
    makers = _makers(solution, seconds)
    found = tuple(makers[kind]() for kind in KINDS if kind in makers and kind in wanted)
    return Report(problem, solution.w, solution.intercept, found)


def certify_path(
    found: SubsetPath, *, penalty: Any = None, seconds: float = 10.0, progress: bool | None = None
) -> dict[str, Report]:
    """What can be proved about choices of 1, 2, ... groups, and about problem (1) on the same data.

    Parameters
    ----------
    found : SubsetPath
        See `sparseopt.selection.select_path`.
    penalty : regularizer, optional
        q of problem (1); default LogSum with eps = 1.
    seconds : float
        Time for each proof that a choice is best.

    Returns
    -------
    dict from name to Report
        "one_group": problem (1) at a lam where exactly one group is active; for every size k >= 1 "subset_k", the
        choice itself, and "composite_k", a solution of problem (1) with as many groups, as far as one was found.
    """
    base = found.problem
    q = LogSum(1.0) if penalty is None else penalty
    plain = replace(base, penalty=Penalty(L2(), base.groups, 1.0, 0.0, base.penalty.ridge))
    composite = replace(base, penalty=Composite(q, base.groups, 1.0, 0.0, base.penalty.ridge))
    reports = {"one_group": certify(_in_window(plain, composite), seconds=seconds)}
    along = _quietly(lambda: path(composite, n_lams=100, tol=1e-9, progress=progress))
    penalised = base.penalty.penalised
    active = np.count_nonzero(along.group_norms[:, penalised], axis=1)
    for at in shown(range(len(found)), progress, len(found)):
        k = int(found.sizes[at])
        if k == 0:
            continue
        reports[f"subset_{k}"] = certify(found[at], seconds=seconds)
        if (active == k).any():
            reports[f"composite_{k}"] = certify(along[int(np.argmax(active == k))], seconds=seconds)
    return reports


def _makers(solution: Solution, seconds: float) -> dict[str, Callable[[], Certificate]]:
    """The claims that make sense for a problem, by kind."""
    problem, w, b = solution.problem, solution.w, solution.intercept
    penalty = problem.penalty
    makers: dict[str, Callable[[], Certificate]] = {"stationarity": lambda: claims.stationarity(problem, w, b)}
    if isinstance(penalty, AtMost):
        makers["best_subset"] = lambda: _best_subset(solution, seconds)
        makers["approximation"] = lambda: claims.approximation(problem, w, b)
        makers["exact_recovery"] = lambda: claims.exact_recovery(problem, w, b)
        return makers
    one = int(np.count_nonzero(solution.group_norms[penalty.penalised])) == 1
    if penalty.is_group_lasso:
        makers["duality_gap"] = lambda: claims.duality_gap(problem, w, b)
        makers["zero_groups"] = lambda: claims.zero_groups(problem, w, b)
        makers["theorem_1_1"] = lambda: claims.theorem_1_1(problem, w, b)
        makers["one_group_window"] = lambda: claims.one_group_window(problem, w, b)
        if one:
            makers["one_group_kkt"] = lambda: claims.one_group_kkt(problem, w, b)
        return makers
    makers["regularizer"] = lambda: claims.regularizer(problem, w, b)
    if isinstance(penalty, Composite):
        A = _companion_dual(problem)
        makers["optimality_gap"] = lambda: claims.optimality_gap(problem, w, b, A=A)
        makers["theorem_1_1"] = lambda: claims.theorem_1_1(problem, w, b, A=A)
        makers["one_group_window"] = lambda: claims.one_group_window(problem, w, b)
        if one:
            makers["one_group_kkt"] = lambda: claims.one_group_kkt(problem, w, b)
        return makers

    def separable() -> Certificate:
        strengths, duals = _duals(problem)
        return claims.separable_bound(problem, w, b, strengths=strengths, A=duals)

    makers["separable_bound"] = separable
    return makers


def _best_subset(solution: Solution, seconds: float) -> Certificate:
    proof = solution.proof
    if proof is None:
        proof = _quietly(lambda: exact(solution.problem, start=solution, time_limit=seconds)).proof
    return claims.best_subset(solution.problem, solution.w, solution.intercept, proof)


def _companion_dual(problem: Problem) -> Array:
    """The dual point of the group lasso with the lam, ridge and l1 term of a problem."""
    penalty = problem.penalty
    convex = replace(problem, penalty=Penalty(L2(), penalty.groups, penalty.lam, penalty.l1_ratio, penalty.ridge))
    best = _quietly(lambda: solve(convex, tol=_TIGHT))
    return dual_candidate(convex, convex.predictor(best.w, best.intercept))


def _duals(problem: Problem) -> tuple[Array, Array]:
    """Strengths and dual points of group lassos, from the strength at which all groups vanish to next to nothing."""
    penalty = problem.penalty
    convex = replace(problem, penalty=Penalty(L2(), penalty.groups, 1.0, penalty.l1_ratio, penalty.ridge))
    along = _quietly(lambda: path(convex, n_lams=_STRENGTHS, ratio=1e-4, tol=1e-9, progress=False))
    points = [dual_candidate(s.problem, s.problem.predictor(s.w, s.intercept)) for s in along]
    return along.lams, np.stack(points)


def _in_window(plain: Problem, composite: Problem) -> Solution:
    """Problem (1) at a lam just below the threshold, where one group is active; solved as the group lasso there."""
    window = claims.one_group_window(plain).numbers
    top = float(window["tau"]) if "tau" in window else lam_max(plain)
    low = float(window["lam_low"]) if "lam_low" in window else 0.999 * top
    lam = 0.5 * (low + top)
    best = _quietly(lambda: solve(plain.at(lam), tol=_TIGHT))
    return replace(best, problem=composite.at(lam))


def _quietly(run: Callable[[], Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the certificate says what accuracy was reached
        return run()
