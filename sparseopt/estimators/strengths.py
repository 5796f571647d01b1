"""Estimators that choose lam: a path on all samples, and a rule that picks one of its solutions.

    min, 1se          by the mean loss on the samples that each fold leaves out
    aic, bic, ebic    by the fit on all samples plus a price per degree of freedom

The chosen solution is solved again to a thousandth of the tolerance: along a path solutions are as accurate as a choice
among them needs, and what is reported should not depend on the path that led there.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from sparseopt.estimators.classification import Classification
from sparseopt.estimators.regression import Regression
from sparseopt.estimators.solving import ManyStrengths

__all__ = ["GroupSparseClassifierCV", "GroupSparseRegressorCV"]


class GroupSparseRegressorCV(ManyStrengths, Regression):
    """`GroupSparseRegressor` with lam chosen from a path, by cross-validation or by an information criterion.

    Parameters
    ----------
    groups, loss, penalty, l1_ratio, ridge, composite, weights, fit_intercept, delta, tol, max_epochs
        As in `GroupSparseRegressor`; `tol` holds for every lam of the path, a thousandth of it for the chosen one.
    lams : sequence of float >= 0, optional
        The candidates; None for `n_lams` of them from lam_max, where all groups are zero, to `ratio` * lam_max.
    n_lams : int >= 1
        Length of that sequence, which is geometric.
    ratio : float in (0, 1), optional
        Its last value over its first; None for 1e-3, or 1e-2 if n < p.
    cv : int, splitter or iterable of (train, test)
        Folds; an integer means shuffled folds with a fixed seed.
    rule : {"min", "1se", "aic", "bic", "ebic"}
        "min" takes the lam of the smallest mean loss on the samples left out, "1se" the largest lam within one standard
        error of it; the others minimise an information criterion on all samples, without folds.
    n_jobs : int, optional
        Processes over folds; None means 1, -1 all processors.

    Attributes
    ----------
    lam_ : float
        The chosen strength.
    path_ : Path
        Solutions on all samples for every lam.
    cv_ : CrossValidation or None
        Losses on the samples left out; None for "aic", "bic" and "ebic".
    coef_, intercept_, groups_, group_norms_, selected_groups_, solution_, n_iter_, n_features_in_, feature_names_in_
        As in `GroupSparseRegressor`, for the chosen lam. `path_` and `cv_` refer to X and y, as `solution_` does.

    Notes
    -----
    The score of the chosen lam on its own folds is too good: judge the model on samples that `fit` has not seen.
    "aic", "bic" and "ebic" take n to be the number of samples of positive weight, so for them, and only for them, a
    weight of 2 is not the sample twice.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt import GroupSparseRegressorCV
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(60, 9))
    >>> y = X[:, 0] - 2 * X[:, 1] + rng.normal(size=60)
    >>> GroupSparseRegressorCV(groups=[3, 3, 3], rule="bic").fit(X, y).selected_groups_
    array(['0'], dtype=object)
    """

    def __init__(
        self,
        groups: Any = None,
        *,
        loss: str = "squares",
        penalty: Any = "l2",
        lams: ArrayLike | None = None,
        n_lams: int = 100,
        ratio: float | None = None,
        cv: Any = 5,
        rule: str = "min",
        l1_ratio: float = 0.0,
        ridge: float = 0.0,
        composite: bool = False,
        weights: Any = "sqrt",
        fit_intercept: bool = True,
        delta: float = 1.345,
        tol: float = 1e-6,
        max_epochs: int = 10_000,
        n_jobs: int | None = None,
    ) -> None:
        self.groups = groups
        self.loss = loss
        self.penalty = penalty
        self.lams = lams
        self.n_lams = n_lams
        self.ratio = ratio
        self.cv = cv
        self.rule = rule
        self.l1_ratio = l1_ratio
        self.ridge = ridge
        self.composite = composite
        self.weights = weights
        self.fit_intercept = fit_intercept
        self.delta = delta
        self.tol = tol
        self.max_epochs = max_epochs
        self.n_jobs = n_jobs


class GroupSparseClassifierCV(ManyStrengths, Classification):
    """`GroupSparseClassifier` with lam chosen from a path, by cross-validation or by an information criterion.

    Parameters
    ----------
    groups, penalty, l1_ratio, ridge, composite, weights, fit_intercept, tol, max_epochs
        As in `GroupSparseClassifier`.
    lams, n_lams, ratio, cv, rule, n_jobs
        As in `GroupSparseRegressorCV`; an integer `cv` means folds with the same shares of the classes, and the loss on
        the samples left out is the negative log-likelihood.

    Attributes
    ----------
    lam_, path_, cv_
        As in `GroupSparseRegressorCV`.
    classes_, coef_, intercept_, groups_, group_norms_, selected_groups_, solution_, n_iter_, n_features_in_, \
feature_names_in_
        As in `GroupSparseClassifier`, for the chosen lam.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt import GroupSparseClassifierCV
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(100, 6))
    >>> y = X[:, 0] - X[:, 1] + 0.5 * rng.normal(size=100) > 0
    >>> GroupSparseClassifierCV(groups=[2, 2, 2], rule="1se", n_lams=20).fit(X, y).selected_groups_
    array(['0'], dtype=object)
    """

    def __init__(
        self,
        groups: Any = None,
        *,
        penalty: Any = "l2",
        lams: ArrayLike | None = None,
        n_lams: int = 100,
        ratio: float | None = None,
        cv: Any = 5,
        rule: str = "min",
        l1_ratio: float = 0.0,
        ridge: float = 0.0,
        composite: bool = False,
        weights: Any = "sqrt",
        fit_intercept: bool = True,
        tol: float = 1e-6,
        max_epochs: int = 10_000,
        n_jobs: int | None = None,
    ) -> None:
        self.groups = groups
        self.penalty = penalty
        self.lams = lams
        self.n_lams = n_lams
        self.ratio = ratio
        self.cv = cv
        self.rule = rule
        self.l1_ratio = l1_ratio
        self.ridge = ridge
        self.composite = composite
        self.weights = weights
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_epochs = max_epochs
        self.n_jobs = n_jobs
