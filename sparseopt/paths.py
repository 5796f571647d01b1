"""Solutions for a sequence of lam, and the choice of one of them.

    lam_max          the smallest lam at which w = 0 is stationary
    path             solutions from lam_max down, each started from the one before
    cross_validate   for every lam the mean loss on samples that were left out of the fit

A fold leaves samples out by giving them weight zero, so that all folds share one X.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparseopt.problem import Problem
from sparseopt.solution import ConvergenceWarning, Path, Solution
from sparseopt.solvers import BlockDescent, compress

__all__ = ["CrossValidation", "cross_validate", "lam_max", "path"]

Array = NDArray[np.float64]


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
    return BlockDescent(problem).zero_threshold(problem.penalty)


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
    Least squares with at least four samples per feature are solved on an equivalent problem with p + 1 samples.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt import Problem
    >>> X = np.random.default_rng(0).normal(size=(60, 30))
    >>> solutions = path(Problem.build(X, X[:, 0] + X[:, 4], groups=3), n_lams=20)
    >>> solutions.best("bic").support
    array([0, 1])
    """
    short = compress(problem)
    solved, intercept_of = (problem, None) if short is None else short
    descent = BlockDescent(solved)
    grid = _grid(lams, n_lams, ratio, descent, solved)
    found: list[tuple[Solution, Any, Any]] = []
    for lam in _shown(grid, progress):
        solution = descent.solve(solved.penalty.at(float(lam)), tol, max_epochs)
        W = problem.matrix(solution.w)
        features = np.flatnonzero(W.any(axis=1))
        b = solution.intercept if intercept_of is None else intercept_of(W)
        found.append((replace(solution, w=np.empty(0)), (features, W[features]), np.atleast_1d(b)))
    failed = sum(not solution.status.ok for solution, _, _ in found)
    if failed:
        warnings.warn(
            f"{failed} of {len(grid)} solutions on the path are less accurate than tol={tol:g}: see Path.statuses.",
            ConvergenceWarning,
            stacklevel=2,
        )
    b = np.array([b for _, _, b in found])
    return Path(
        problem,
        grid,
        tuple(rows for _, rows, _ in found),
        b[:, 0] if b.shape[1] == 1 else b,
        np.array([solution.history[-1][1] for solution, _, _ in found]),
        np.array([solution.history[-1][2] for solution, _, _ in found]),
        tuple(solution.status for solution, _, _ in found),
        np.array([solution.epochs for solution, _, _ in found]),
        np.array([solution.seconds for solution, _, _ in found]),
    )


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """Losses on left-out samples along a path, and the solutions they choose.

    Parameters
    ----------
    path : Path
        Solutions on all samples.
    fold_losses : (m, n_folds) array
        Mean loss of each lam on the samples that the fold left out.
    """

    path: Path
    fold_losses: Array

    @property
    def lams(self) -> Array:
        """The values of lam, decreasing, (m,)."""
        return self.path.lams

    @property
    def mean(self) -> Array:
        """Mean over the folds, (m,)."""
        return self.fold_losses.mean(axis=1)

    @property
    def standard_error(self) -> Array:
        """Standard deviation over the folds divided by the root of their number, (m,)."""
        n_folds = self.fold_losses.shape[1]
        return self.fold_losses.std(axis=1, ddof=1) / np.sqrt(n_folds)

    @property
    def best_index(self) -> int:
        """Index of the smallest mean loss; of the largest lam if several tie."""
        return int(np.argmin(self.mean))

    @property
    def one_se_index(self) -> int:
        """Index of the largest lam whose mean loss is within one standard error of the smallest."""
        limit = self.mean[self.best_index] + self.standard_error[self.best_index]
        return int(np.argmax(self.mean <= limit))

    @property
    def best(self) -> Solution:
        """The solution on all samples at the smallest mean loss."""
        return self.choose("min")

    @property
    def one_se(self) -> Solution:
        """The sparsest solution that is not clearly worse: the one-standard-error rule."""
        return self.choose("1se")

    def choose(self, rule: str = "min") -> Solution:
        """The solution that a rule chooses: "min" or "1se".

        Raises
        ------
        ValueError
            If the rule is unknown.
        """
        if rule not in ("min", "1se"):
            raise ValueError(f"rule is {rule!r}, which is unknown: choose 'min' or '1se'.")
        solution: Solution = self.path[self.best_index if rule == "min" else self.one_se_index]
        return solution


def cross_validate(
    problem: Problem,
    lams: ArrayLike | None = None,
    *,
    cv: Any = 5,
    n_lams: int = 100,
    ratio: float | None = None,
    tol: float = 1e-5,
    max_epochs: int = 10_000,
    n_jobs: int | None = None,
    progress: bool | None = None,
) -> CrossValidation:
    """A path on all samples and, for every lam, the loss on samples left out.

    Parameters
    ----------
    problem, lams, n_lams, ratio, tol, max_epochs, progress
        See `path`.
    cv : int, splitter or iterable of (train, test)
        Number of folds (shuffled with a fixed seed, stratified by class for logistic and multinomial), or anything that
        scikit-learn takes.
    n_jobs : int, optional
        Folds at a time, by joblib: its backend may be a cluster (`joblib.parallel_config`).

    Returns
    -------
    CrossValidation

    Raises
    ------
    ValueError
        If a fold leaves no sample of positive weight on either side.

    References
    ----------
    Hastie, Tibshirani, Friedman (2009), "The Elements of Statistical Learning", section 7.10, for the
    one-standard-error rule.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt import Problem
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(60, 30))
    >>> cv = cross_validate(Problem.build(X, X[:, 0] + X[:, 4] + rng.normal(size=60), groups=3), n_lams=20)
    >>> cv.one_se.support
    array([0, 1, 4, 7])
    """
    from joblib import Parallel, delayed

    grid = _grid(lams, n_lams, ratio, BlockDescent(problem), problem)
    splits = list(_splits(problem, cv))
    whole = path(problem, grid, tol=tol, max_epochs=max_epochs, progress=progress)
    tasks = (delayed(_fold_losses)(problem, grid, test, tol, max_epochs) for test in splits)
    results = Parallel(n_jobs=n_jobs, return_as="generator")(tasks)
    return CrossValidation(whole, np.stack(list(_shown(results, progress, len(splits))), axis=1))


def _fold_losses(problem: Problem, grid: Array, test: NDArray[np.bool_], tol: float, max_epochs: int) -> Array:
    s = problem.loss.s
    kept = np.where(test, 0.0, s)
    train = replace(problem.loss, s=kept * (s.sum() / kept.sum()))
    left = np.where(test, s, 0.0)
    judge = replace(problem.loss, s=left / left.sum())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the path on all samples speaks for the folds
        fitted = path(replace(problem, loss=train), grid, tol=tol, max_epochs=max_epochs, progress=False)
    return np.array([judge.value(problem.predictor(solution.w, solution.intercept)) for solution in fitted])


def _splits(problem: Problem, cv: Any) -> Iterable[NDArray[np.bool_]]:
    """Masks of the samples that each fold leaves out."""
    from sklearn.model_selection import KFold, StratifiedKFold, check_cv

    loss = problem.loss
    n = loss.n_samples
    labels = None
    if loss.name in ("logistic", "multinomial"):
        labels = loss.y[:, 0] if loss.n_outputs == 1 else loss.y.argmax(axis=1)
    if isinstance(cv, (int, np.integer)) and not isinstance(cv, bool):
        if not 2 <= cv <= n:
            raise ValueError(f"cv is {cv}: pass a number of folds from 2 to the number of samples, {n}.")
        rare = labels is not None and np.unique(labels, return_counts=True)[1].min() < cv
        cv = (KFold if labels is None or rare else StratifiedKFold)(int(cv), shuffle=True, random_state=0)
    for k, (_, test) in enumerate(check_cv(cv).split(np.zeros((n, 1)), labels)):
        mask = np.zeros(n, dtype=np.bool_)
        mask[test] = True
        if not loss.s[mask].any() or not loss.s[~mask].any():
            raise ValueError(f"cv fold {k} has no sample of positive weight on one side: use fewer folds.")
        yield mask


def _grid(lams: ArrayLike | None, n_lams: int, ratio: float | None, descent: BlockDescent, problem: Problem) -> Array:
    if lams is not None:
        try:
            grid = np.atleast_1d(np.asarray(lams, dtype=np.float64))
        except (TypeError, ValueError) as error:
            raise TypeError(f"lams must be a sequence of positive numbers, got {lams!r}.") from error
        if grid.ndim != 1 or not grid.size or not ((grid > 0.0) & (grid < np.inf)).all():
            raise ValueError(f"lams must be a sequence of positive numbers, got {lams!r}.")
        return -np.sort(-grid)
    if n_lams < 1:
        raise ValueError(f"n_lams is {n_lams}: pass at least 1.")
    n, p = problem.design.shape
    ratio = (1e-2 if n < p else 1e-3) if ratio is None else ratio
    if not _is_number(ratio) or not 0.0 < ratio < 1.0:
        raise ValueError(f"ratio is {ratio}: pass smallest over largest lam, between 0 and 1.")
    top = descent.zero_threshold(problem.penalty)
    return (top if top > 0.0 else 1.0) * np.geomspace(1.0, ratio, n_lams)


def _is_number(value: object) -> bool:
    return isinstance(value, Real)


def _shown(steps: Any, progress: bool | None, total: int | None = None) -> Any:
    """`steps` behind a progress bar: after two seconds on a terminal, or as `progress` says."""
    if progress is False:
        return steps
    from tqdm import tqdm

    silent = None if progress is None else False  # None: unless standard error is a terminal
    return tqdm(steps, total=total, delay=0.0 if progress else 2.0, disable=silent, leave=False)
