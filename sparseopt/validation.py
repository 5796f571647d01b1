"""Choice by losses on samples that were left out of the fit.

    cross_validate           for every lam of a path
    cross_validate_subsets   for every number of groups

A fold leaves samples out by giving them weight zero, so that all folds share one X. Candidates run from sparse to
dense, so that the first one within a standard error of the best is the sparsest.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparseopt.paths import lam_grid, path
from sparseopt.problem import Problem
from sparseopt.progress import shown
from sparseopt.selection import check_sizes, select_path
from sparseopt.solution import ConvergenceWarning, Path, Solution

__all__ = ["CrossValidation", "cross_validate", "cross_validate_subsets"]

Array = NDArray[np.float64]


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
    run = partial(path, lams=lam_grid(problem, lams, n_lams, ratio), tol=tol, max_epochs=max_epochs)
    return _cross_validated(problem, run, cv, n_jobs, progress)


def cross_validate_subsets(
    problem: Problem,
    sizes: ArrayLike | None = None,
    *,
    cv: Any = 5,
    n_jobs: int | None = None,
    progress: bool | None = None,
    **options: Any,
) -> CrossValidation:
    """Choices of k groups on all samples and, for every k, the loss on samples left out.

    Parameters
    ----------
    problem, sizes, **options
        See `sparseopt.selection.select_path`.
    cv, n_jobs, progress
        See `cross_validate`.

    Returns
    -------
    CrossValidation
        Its path is a `SubsetPath`, its "lams" are the sizes.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt import Problem
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(60, 30))
    >>> cv = cross_validate_subsets(Problem.build(X, X[:, 0] + X[:, 4] + rng.normal(size=60), groups=3), range(6))
    >>> cv.best.support
    array([0, 1])
    """
    run = partial(select_path, sizes=check_sizes(problem, sizes), **options)
    return _cross_validated(problem, run, cv, n_jobs, progress)


def _cross_validated(
    problem: Problem, run: Callable[..., Path], cv: Any, n_jobs: int | None, progress: bool | None
) -> CrossValidation:
    from joblib import Parallel, delayed

    splits = list(_splits(problem, cv))
    whole = run(problem, progress=progress)
    tasks = (delayed(_fold_losses)(problem, run, test) for test in splits)
    results = Parallel(n_jobs=n_jobs, return_as="generator")(tasks)
    return CrossValidation(whole, np.stack(list(shown(results, progress, len(splits))), axis=1))


def _fold_losses(problem: Problem, run: Callable[..., Path], test: NDArray[np.bool_]) -> Array:
    s = problem.loss.s
    kept = np.where(test, 0.0, s)
    train = replace(problem.loss, s=kept * (s.sum() / kept.sum()))
    left = np.where(test, s, 0.0)
    judge = replace(problem.loss, s=left / left.sum())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the path on all samples speaks for the folds
        fitted = run(replace(problem, loss=train), progress=False)
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
