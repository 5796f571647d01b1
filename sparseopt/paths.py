"""Solutions for a sequence of lam.

lam_max     the smallest lam at which w = 0 is stationary
path        solutions from lam_max down, each started from the one before
"""

from __future__ import annotations

import warnings
from numbers import Real

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparseopt.centring import centred
from sparseopt.optimality import duality_gap, gradient_scale
from sparseopt.problem import Problem
from sparseopt.solution import ConvergenceWarning, Path
from sparseopt.solvers import BlockDescent, StreamedDescent, compress, descent_for
from sparseopt.solvers.compress import Compressed
from sparseopt.solvers.held import Span
from sparseopt.solvers.stretches import Point, follow

__all__ = ["lam_grid", "lam_max", "path"]

Array = NDArray[np.float64]
LOOK, VISIT = 5, 30  # p^2 numbers of X'X cost what so many do of each feature per lam, and of each that becomes active
SINGLE = 1e-4  # gap from which on X'X of a float32 design may be computed in float32


def lam_max(problem: Problem) -> float:
    """The smallest lam at which all penalised groups are zero in a stationary point.

    For q = L2 and no l1 term max_g ||X_g' dL/dz|| / omega_g at the best intercept and unpenalised coefficients; the
    exact threshold of sum-norm and l1 term together otherwise, by bisection. For other q the value at which no
    prox-gradient step in a single block leaves zero. Where q has slope zero at zero (Lambert-W), zero is stationary for
    no lam, and the threshold of L2 is returned.

    Parameters
    ----------
    problem : Problem
        Its own lam does not matter.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt import Problem
    >>> problem = Problem.build(np.eye(4), [3.0, 4.0, 0.0, 0.0], groups=2, intercept=False, weights="ones")
    >>> lam_max(problem)
    1.25
    """
    return descent_for(centred(problem).problem).zero_threshold(problem.shrinkage)


def path(
    problem: Problem,
    lams: ArrayLike | None = None,
    *,
    n_lams: int = 100,
    ratio: float | None = None,
    tol: float = 1e-6,
    max_epochs: int = 10_000,
    progress: bool | None = None,
) -> Path:
    """Solutions for decreasing lam, each started from the one before.

    Parameters
    ----------
    problem : Problem
        Its own lam does not matter; knots of `Scaled` regularizers move with lam.
    lams : (m,) array, optional
        Values of lam, > 0, solved and returned in decreasing order. Default: geometric, from `lam_max` down.
    n_lams : int
        Length of the default sequence.
    ratio : float in (0, 1), optional
        Smallest lam over largest, for the default sequence; 0.01 if there are more features than samples, else 0.001.
    tol : float
        Relative duality gap, or stationarity where no dual is known, of every solution.
    max_epochs : int
        Limit of sweeps per lam.
    progress : bool, optional
        Whether to show a progress bar; default only on a terminal, and after two seconds.

    Returns
    -------
    Path
        A ConvergenceWarning says how many of its solutions are less accurate than `tol`, if any.

    Notes
    -----
    Least squares with at least four samples per feature are solved on an equivalent problem with p + 1 samples, where
    many groups are expected to become active on many lams. Long convex paths on large designs are solved by two
    threads, see `sparseopt.solvers.stretches`.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt import Problem
    >>> X = np.random.default_rng(0).normal(size=(60, 30))
    >>> solutions = path(Problem.build(X, X[:, 0] + X[:, 4], groups=3), n_lams=20)
    >>> solutions.best("bic").support
    array([0, 1])
    """
    lams = None if lams is None else _values(lams)
    single = tol >= SINGLE and problem.design.dtype == np.float32
    count = n_lams if lams is None else len(lams)
    near = centred(problem)
    solved, short = near.problem, None
    if count * (LOOK + VISIT) >= problem.design.shape[1]:  # else it could not pay with all features active
        short = compress(solved, single, lambda pulls: _pays(problem, pulls, lams, n_lams, ratio))
    grid, found = _follow(solved, short, lams, n_lams, ratio, tol, max_epochs, progress)
    if single and short is not None and not _holds(solved, short[0], grid[-1], found[-1], tol):
        grid, found = _follow(solved, compress(solved), lams, n_lams, ratio, tol, max_epochs, progress)
    failed = sum(not done.status.ok for done, *_ in found)
    if failed:
        warnings.warn(
            f"{failed} of {len(grid)} solutions on the path are less accurate than tol={tol:g}: see Path.statuses.",
            ConvergenceWarning,
            stacklevel=2,
        )
    b = np.array([near.intercept(*rows, b) for _, rows, b in found])
    return Path(
        problem,
        grid,
        tuple(rows for _, rows, _ in found),
        b[:, 0] if b.shape[1] == 1 else b,
        np.array([done.history[-1][1] for done, *_ in found]),
        np.array([done.history[-1][2] for done, *_ in found]),
        tuple(done.status for done, *_ in found),
        np.array([done.epochs for done, *_ in found]),
        np.array([done.seconds for done, *_ in found]),
    )


def _follow(
    problem: Problem,
    short: Compressed | None,
    lams: ArrayLike | None,
    n_lams: int,
    ratio: float | None,
    tol: float,
    max_epochs: int,
    progress: bool | None,
) -> tuple[Array, list[Point]]:
    """The values of lam, and what was found for each of them."""
    solved, intercept_of = (problem, None) if short is None else short
    descent = descent_for(solved, n_lams=n_lams if lams is None else np.size(lams))
    if isinstance(descent, StreamedDescent) and isinstance(descent.store, Span):
        intercept_of = descent.store.intercept
    grid = _grid(lams, n_lams, ratio, descent, problem)
    found = follow(descent, grid, tol, max_epochs, progress)
    return grid, found if intercept_of is None else [point._replace(b=intercept_of(*point.rows)) for point in found]


def _pays(problem: Problem, pulls: Array, lams: Array | None, n_lams: int, ratio: float | None) -> bool:
    """Whether X'X costs less than it saves, going by the groups that the smallest lam leaves if blocks are orthogonal.

    Measured with 2 to 100 samples per feature; where it is wrong, a path takes up to twice as long.
    """
    p = len(pulls)
    penalised, sizes = problem.penalty.penalised, problem.groups.sizes
    scores = problem.groups.norms(pulls)[penalised] / problem.groups.weights[penalised]
    count = n_lams if lams is None else len(lams)
    least = scores.max(initial=0.0) * _ratio(problem, ratio) if lams is None else lams[-1]
    active = int(sizes[penalised][scores >= least].sum()) + int(sizes[~penalised].sum())
    return bool(count * (LOOK * p + VISIT * active) >= p * p)


def _holds(problem: Problem, short: Problem, lam: float, point: Point, tol: float) -> bool:
    """Whether accuracy on a problem that was compressed in float32 is accuracy on the problem itself.

    Asked at the smallest lam: there coefficients are largest, and the thresholds for gradients smallest. Where no gap
    is known, accuracy is a move, and an error of the gradient changes a move by about as much, except at a jump.
    """
    W = np.zeros((problem.design.shape[1], problem.n_outputs))
    W[point.rows[0]] = point.rows[1]
    if problem.shrinkage.is_group_lasso:
        found = duality_gap(problem.at(float(lam)), W, point.b).relative
        return bool(abs(found - point.progress.history[-1][2]) <= 0.1 * tol)
    error = problem.gradient(W, point.b)[0] - short.gradient(W)[0]
    return bool(problem.groups.norms(error).max() <= 0.1 * tol * gradient_scale(short))


def lam_grid(problem: Problem, lams: ArrayLike | None = None, n_lams: int = 100, ratio: float | None = None) -> Array:
    """Decreasing values of lam: the given ones, or `n_lams` of them, geometric, from `lam_max` down to its `ratio`.

    Raises
    ------
    ValueError, TypeError
        If the values are not positive numbers.
    """
    return _grid(lams, n_lams, ratio, descent_for(centred(problem).problem), problem)


def _grid(lams: ArrayLike | None, n_lams: int, ratio: float | None, descent: BlockDescent, problem: Problem) -> Array:
    if lams is not None:
        return _values(lams)
    if n_lams < 1:
        raise ValueError(f"n_lams is {n_lams}: pass at least 1.")
    ratio = _ratio(problem, ratio)
    top = descent.zero_threshold(problem.shrinkage)
    return (top if top > 0.0 else 1.0) * np.geomspace(1.0, ratio, n_lams)


def _values(lams: ArrayLike) -> Array:
    """Given values of lam, decreasing."""
    try:
        grid = np.atleast_1d(np.asarray(lams, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise TypeError(f"lams must be a sequence of positive numbers, got {lams!r}.") from error
    if grid.ndim != 1 or not grid.size or not ((grid > 0.0) & (grid < np.inf)).all():
        raise ValueError(f"lams must be a sequence of positive numbers, got {lams!r}.")
    return -np.sort(-grid)


def _ratio(problem: Problem, ratio: object) -> float:
    """The smallest lam over the largest."""
    n, p = problem.design.shape
    if ratio is None:
        return 1e-2 if n < p else 1e-3
    if not isinstance(ratio, Real) or not 0.0 < float(ratio) < 1.0:
        raise ValueError(f"ratio is {ratio}: pass smallest over largest lam, between 0 and 1.")
    return float(ratio)
