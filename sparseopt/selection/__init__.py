"""Selection: at most k groups.

    minimise over w, b   L(Xw + b) + ridge / 2 ||w||^2     with at most k groups nonzero, always-in groups not counted

    splicing            exchanges until none helps; the default, and the best of the heuristics
    omp                 one group after another, the one that pulls most, or the one that brings most
    forward-backward    the same, with steps back where they cost little
    ompr                k groups, one of them replaced at each step; the gradient or problem (1) says by which
    sequential          as omp, the next group asked of the group lasso, of problem (1), or of a softmax mask
    iht                 gradient steps, projected on k groups
    exact               the proven optimum, or a bound of it when time runs out

Every method serves all losses, dense and sparse designs, weights and always-in groups (weight 0). Weights act where
gradients are compared (omp, ompr, sequential, forward-backward); the other methods compare objectives, which know none.
All of them fit and score by `fit.refit` and `fit.score`, and say how they ended in `Solution.status`.
"""

from __future__ import annotations

import difflib
import inspect
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparseopt.cardinality import group_count
from sparseopt.centring import centred
from sparseopt.problem import Problem
from sparseopt.progress import shown
from sparseopt.selection.fit import Fit, as_subset_problem, refit, score, solution_of
from sparseopt.selection.greedy import forward_backward, omp
from sparseopt.selection.path import SubsetPath, check_sizes, path_of, path_of_fits
from sparseopt.selection.replacement import ompr
from sparseopt.selection.sequential import sequential
from sparseopt.selection.splicing import pruned, splicing
from sparseopt.selection.splicing_path import splicing_path
from sparseopt.selection.thresholding import iht
from sparseopt.solution import Solution, Status

__all__ = ["METHODS", "SubsetPath", "check_sizes", "refit", "score", "select", "select_path"]

# A heuristic takes (problem, k, start: Fit or None, **options) and returns (Fit, Status, steps).
_HEURISTICS: dict[str, Callable[..., tuple[Fit, Status, int]]] = {
    "splicing": splicing,
    "omp": omp,
    "forward-backward": forward_backward,
    "ompr": ompr,
    "sequential": sequential,
    "iht": iht,
}
METHODS = (*_HEURISTICS, "exact")


def select(
    problem: Problem,
    k: int,
    method: str = "splicing",
    start: Solution | Iterable[int | str] | None = None,
    **options: Any,
) -> Solution:
    """At most k groups.

    Parameters
    ----------
    problem : Problem
        Its loss, design, groups, intercept and ridge count; its regularizer and lam do not matter. Groups of weight 0
        are always in.
    k : int >= 0
        How many of the other groups may be nonzero.
    method : str
        See the top of `sparseopt.selection`.
    start : Solution, or group numbers or names, optional
        A choice to start from; of more than k groups the weakest are left out first.
    **options
        Of the method, for example `exchange=3` for splicing, `by="gain"` for omp, `by="softmax"` for sequential,
        `by="q"` for ompr, `time_limit=60` for exact.

    Returns
    -------
    Solution
        Its problem has the penalty `AtMost`; coefficients are those of the unpenalised fit (ridge aside) on the groups
        chosen. From "exact" with a lower `bound`, and so a `gap`.

    Raises
    ------
    ValueError, TypeError
        If the method, an option, k or a group is unknown.

    Notes
    -----
    Best subsets of groups are NP-hard to find; every method but "exact" returns a good choice without a proof.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt import Problem
    >>> X = np.random.default_rng(0).normal(size=(50, 12))
    >>> problem = Problem.build(X, X[:, 0] - X[:, 7], groups=3)
    >>> select(problem, 2).support, select(problem, 1, method="omp").support
    (array([0, 2]), array([0]))
    """
    k = group_count("k", k)
    began = time.perf_counter()
    near = centred(problem)
    first = _as_fit(near.problem, start)
    if method == "exact":
        from sparseopt.selection.exact import exact

        _check_options(exact, options)
        chosen = None if first is None else near.solution(solution_of(first, k, Status.LOCAL, 0, 0.0))
        return exact(as_subset_problem(problem, k), start=chosen, **options)
    heuristic = _heuristic(method, options)
    if first is not None:
        first = pruned(first, k)
    fit, status, steps = heuristic(near.problem, k, first, **options)
    return near.solution(solution_of(fit, k, status, steps, time.perf_counter() - began))


def select_path(
    problem: Problem,
    sizes: ArrayLike | None = None,
    method: str = "splicing",
    *,
    both_ways: bool = True,
    progress: bool | None = None,
    **options: Any,
) -> SubsetPath:
    """Choices for increasing numbers of groups, each started from the one before.

    Parameters
    ----------
    problem, method, **options
        See `select`.
    sizes : (m,) integers, optional
        Numbers of groups; default 0, 1, ... up to a size that the samples support, at most 30.
    both_ways : bool
        For splicing, ompr and iht: a second pass downwards starts each size from the choice after it; the better of
        both is kept.
    progress : bool, optional
        Show a progress bar; by default after two seconds on a terminal.

    Returns
    -------
    SubsetPath
        `path[i]` is the `Solution` of the i-th size; `best("bic")`, `criterion("gap")` and so on choose a size.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt import Problem
    >>> X = np.random.default_rng(0).normal(size=(50, 12))
    >>> y = X[:, 0] - X[:, 7] + 0.1 * np.random.default_rng(1).normal(size=50)
    >>> path = select_path(Problem.build(X, y, groups=3))
    >>> path.sizes, path.best("bic").support
    (array([0, 1, 2, 3, 4]), array([0, 2]))
    """
    wanted = check_sizes(problem, sizes)
    if method == "exact":
        solutions: list[Solution] = []
        for k in shown(wanted.tolist(), progress, len(wanted)):
            solutions.append(select(problem, k, method, solutions[-1] if solutions else None, **options))
        return path_of(problem, solutions)
    heuristic = _heuristic(method, options)
    near, found = centred(problem), None
    if method == "splicing":
        found = splicing_path(near.problem, wanted.tolist(), both_ways, progress, **options)
    if found is None:
        again = both_ways and method in ("splicing", "ompr", "iht")
        found = _walk(near.problem, wanted.tolist(), partial(heuristic, **options), again, progress)
    return near.path(path_of_fits(near.problem, wanted, *found))


def _walk(
    problem: Problem, sizes: list[int], heuristic: Callable[..., tuple[Fit, Status, int]], again: bool, progress: Any
) -> tuple[list[Fit], list[tuple[Status, int, float]]]:
    """A fit for each size, and how the method ended; `again`: with a second pass, downwards."""
    fits: list[Fit] = []
    ends: list[tuple[Status, int, float]] = []

    def run(k: int, start: Fit | None) -> tuple[Fit, tuple[Status, int, float]]:
        began = time.perf_counter()
        fit, status, steps = heuristic(problem, k, start)
        return fit, (status, steps, time.perf_counter() - began)

    for k in shown(sizes, progress, len(sizes)):
        fit, end = run(k, fits[-1] if fits else None)
        fits.append(fit)
        ends.append(end)
    if again:
        for at in range(len(fits) - 2, -1, -1):
            fit, end = run(sizes[at], pruned(fits[at + 1], sizes[at]))
            if fit.value < fits[at].value:
                fits[at], ends[at] = fit, end
        for at in range(len(fits) - 1):
            if fits[at + 1].value > fits[at].value:
                fits[at + 1], ends[at + 1] = run(sizes[at + 1], fits[at])
    return fits, ends


def _heuristic(method: str, options: dict[str, Any]) -> Callable[..., tuple[Fit, Status, int]]:
    if method not in _HEURISTICS:
        near = difflib.get_close_matches(str(method).lower(), METHODS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(map(repr, METHODS))}."
        raise ValueError(f"method is {method!r}, which is unknown: {hint}")
    _check_options(_HEURISTICS[method], options)
    return _HEURISTICS[method]


def _as_fit(problem: Problem, start: Any) -> Fit | None:
    if start is None:
        return None
    names, total = problem.groups.names, len(problem.groups)
    if isinstance(start, (str, bytes)) or not isinstance(start, (Solution, Iterable)):
        raise TypeError(f"start is {start!r}: pass a Solution, or a list of group numbers or names.")
    chosen = []
    for g in start.support if isinstance(start, Solution) else start:
        if isinstance(g, str):
            if g not in names:
                near = difflib.get_close_matches(g, names, n=1)
                hint = f"did you mean {near[0]!r}?" if near else "see problem.groups.names."
                raise ValueError(f"start names the group {g!r}, which does not exist: {hint}")
            g = names.index(g)
        elif isinstance(g, (bool, np.bool_)) or not isinstance(g, (int, np.integer)):
            raise TypeError(f"start contains {g!r}: pass group numbers or names.")
        elif not 0 <= g < total:
            raise ValueError(f"start contains the group {g}: pass numbers from 0 to {total - 1}, or names.")
        chosen.append(int(g))
    kept: NDArray[np.int64] = np.array(chosen, dtype=np.int64)
    return refit(problem, kept[problem.penalty.penalised[kept]])


def _check_options(method: Callable[..., Any], options: dict[str, Any]) -> None:
    known = [p for p in inspect.signature(method).parameters if p not in ("problem", "k", "start")]
    for option in options:
        if option not in known:
            raise TypeError(f"option {option!r} is unknown to {method.__name__}: it takes {', '.join(known)}.")
