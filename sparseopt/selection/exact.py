"""The best choice of at most k groups, with a proof that it is the best.

    minimise over w, b    L(Xw + b) + rho/2 ||w||^2      with at most k groups of positive weight nonzero

    enumeration    every choice, one refit each                                             any loss, few choices
    branching      branch and bound on refits and dual points, see `branching`              any loss
    scip           a mixed-integer conic program for SCIP, see `mixed_integer`              squares and huber

All end with the best choice found and a lower bound of all choices, also when time runs out. Enumeration and branching
say what proves the bound as well: one dual point per leaf of their trees, see `exact_bounds`.
"""

from __future__ import annotations

import difflib
import time
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparseopt.cardinality import AtMost
from sparseopt.penalty import bounded_number
from sparseopt.problem import Problem
from sparseopt.selection.branching import Found, branching
from sparseopt.selection.enumeration import choices, enumeration
from sparseopt.selection.exact_bounds import SubsetParts, proof_of
from sparseopt.selection.fit import refit, solution_of
from sparseopt.selection.mixed_integer import mixed_integer
from sparseopt.solution import ConvergenceWarning, Solution, Status

__all__ = ["ENGINES", "exact"]

ENGINES = ("auto", "enumeration", "branching", "scip")

_FEW = 20  # choices: below, trying them all takes as long as the first nodes of a tree
_MANY = 20_000


def exact(
    problem: Problem,
    *,
    engine: str = "auto",
    start: Solution | ArrayLike | None = None,
    tol: float = 1e-6,
    time_limit: float = 60.0,
) -> Solution:
    """The best choice of at most k groups, and a bound that proves how good it is.

    Parameters
    ----------
    problem : Problem
        With an `AtMost`; any loss for branching and enumeration, squares or huber for scip.
    engine : str
        "auto" (enumeration of up to 20 choices, otherwise branching), "enumeration", "branching" or "scip".
    start : Solution, or group numbers, optional
        A choice to begin with; its groups beyond k are ignored.
    tol : float
        Relative gap at which a choice counts as optimal.
    time_limit : float
        Seconds, after which the best choice found and the bound reached are returned.

    Returns
    -------
    Solution
        With `bound` and, unless it would be too large (5000 leaves or 2e7 numbers) or SCIP made it, `proof`. Status
        OPTIMAL if the gap is at most `tol` (or below rounding, 1e-12 of the objective without groups), TIME_LIMIT
        if time ran out, STALLED if rounding allows no smaller gap.

    Raises
    ------
    TypeError
        If the problem has another penalty.
    ValueError
        If the engine is unknown, or cannot solve this problem.

    Notes
    -----
    A bound of branching or enumeration holds up to rounding in float64; that of scip to the tolerances of SCIP, for
    which a margin is subtracted. With ridge 0 the bound is for all w with ||w_g|| <= proof.radius. Mostly this leaves
    nothing out: for squares with independent columns no better w lies outside, and dual points that are orthogonal to
    all groups that their leaf allows need no radius. Whether that can be proved, `certificates.best_subset` says.

    References
    ----------
    Furnival, Wilson (1974), "Regressions by leaps and bounds". Bertsimas, Van Parys (2020), "Sparse high-dimensional
    regression", Ann. Statist. 48. Hazimeh, Mazumder, Radchenko (2023), "Grouped variable selection with discrete
    optimization", Math. Program. 202.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt import AtMost, Groups, Problem
    >>> from sparseopt.losses import Squares
    >>> from sparseopt.designs import as_design
    >>> X = np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    >>> problem = Problem(as_design(X), Squares.of([3.0, 2.0, 0.5, 0.5]), AtMost(Groups.equal(3, 1), k=2))
    >>> best = exact(problem)
    >>> best.support, best.status.name, round(best.objective, 6), round(best.bound, 6)
    (array([0, 1]), 'OPTIMAL', 0.0625, 0.0625)
    """
    if not isinstance(problem.penalty, AtMost):
        raise TypeError(f"penalty is a {type(problem.penalty).__name__}: pass a problem with AtMost(groups, k, ridge).")
    if engine not in ENGINES:
        near = difflib.get_close_matches(str(engine).lower(), ENGINES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(ENGINES)}."
        raise ValueError(f"engine is {engine!r}, which is unknown: {hint}")
    for name, value in (("tol", tol), ("time_limit", time_limit)):
        if not bounded_number(name, value, np.inf) > 0.0:
            raise ValueError(f"{name} is {value}: pass a positive number.")
    began = time.perf_counter()
    deadline = began + time_limit
    parts = SubsetParts(problem)
    first = _start(parts, start)
    if engine == "auto":
        engine = "enumeration" if choices(parts) <= _FEW else "branching"
    if engine == "enumeration" and choices(parts) > _MANY:
        raise ValueError(f"k = {parts.k} of {len(parts.ids)} groups are {choices(parts)} choices: use 'branching'.")
    with warnings.catch_warnings(), np.errstate(over="ignore", invalid="ignore"):
        warnings.simplefilter("ignore", ConvergenceWarning)  # of refits; the gap says what they leave open
        found = _search(parts, engine, first, tol, deadline)
        return _finish(parts, found, tol, began, deadline)


def _search(parts: SubsetParts, engine: str, start: NDArray[np.int64] | None, tol: float, deadline: float) -> Found:
    if engine == "enumeration":
        return enumeration(parts, deadline)
    if engine == "branching":
        return branching(parts, start, tol, deadline)
    if start is None:
        start = branching(parts, None, tol, time.perf_counter()).chosen  # a first dive
    return mixed_integer(parts, start, tol, deadline)


def _start(parts: SubsetParts, start: Any) -> NDArray[np.int64] | None:
    """Counted groups, numbered 0, ..., G - 1, of a start."""
    if start is None:
        return None
    groups = start.support if isinstance(start, Solution) else np.unique(np.asarray(start, np.int64))
    known = len(parts.problem.groups)
    if groups.size and not (0 <= groups.min() and groups.max() < known):
        raise ValueError(
            f"start has the group {groups[(groups < 0) | (groups >= known)][0]}: pass numbers below {known}."
        )
    return np.flatnonzero(np.isin(parts.ids, groups))[: parts.k]


def _finish(parts: SubsetParts, found: Found, tol: float, began: float, deadline: float) -> Solution:
    fit = refit(parts.problem, parts.ids[found.chosen])
    penalty = parts.problem.penalty
    assert isinstance(penalty, AtMost)
    solution = solution_of(fit, penalty.k, Status.OPTIMAL, found.nodes, 0.0)
    bound, proof = found.bound, None
    if found.leaves is not None:
        bound, proof = proof_of(parts, found.leaves, solution.objective, solution.group_norms[parts.ids])
    gap = solution.objective - bound
    null = refit(parts.problem, [])
    if gap > max(tol * abs(solution.objective), 1e-12 * null.value, null.rounding):
        status = Status.TIME_LIMIT if time.perf_counter() >= deadline else Status.STALLED
    else:
        status = Status.OPTIMAL
    return replace(solution, bound=bound, proof=proof, status=status, seconds=time.perf_counter() - began)
