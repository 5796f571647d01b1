"""Estimators that choose k: choices of 0, 1, 2, ... groups on all samples, and a rule that picks one of them.

min, 1se          by the mean loss on the samples that each fold leaves out
aic, bic, ebic    by the fit on all samples plus a price per parameter
gap               where the last group brought the largest multiple of what the next one does
"""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from sparseopt.estimators.classification import Classification
from sparseopt.estimators.regression import Regression
from sparseopt.estimators.solving import ManySizes

__all__ = ["GroupSubsetClassifierCV", "GroupSubsetRegressorCV"]


class GroupSubsetRegressorCV(ManySizes, Regression):
    """`GroupSubsetRegressor` with k chosen by cross-validation, by an information criterion or by a gap.

    k = argmin over sizes of    mean held-out loss | fit + price * df | log of (fall of the fit to k + 1) / (fall to k)

    where the fit is the deviance, or n log deviance for squares and huber; see `sparseopt.SubsetPath`.

    Parameters
    ----------
    groups, loss, method, method_options, always_in, ridge, weights, fit_intercept, delta
        As in `GroupSubsetRegressor`.
    sizes : sequence of int >= 0, optional
        The candidates for k; None for 0, 1, ... up to the largest k for which k groups of average size have at most
        half as many coefficients as there are samples, and at most 30.
    cv : int, splitter or iterable of (train, test)
        Folds; an integer means shuffled folds with a fixed seed.
    rule : {"min", "1se", "aic", "bic", "ebic", "bonferroni", "gap"}
        "min" takes the k of the smallest mean loss on the samples left out, "1se" the smallest k within one standard
        error of it; "aic", "bic" and "ebic" minimise an information criterion on all samples; "bonferroni" wants of
        each group what the best of all useless ones rarely brings; "gap" takes the k after which the fit improves least
        in relation to before, and needs consecutive sizes. See `SubsetPath.criterion`.
    n_jobs : int, optional
        Processes over folds; None means 1, -1 all processors.

    Attributes
    ----------
    k_ : int
        The chosen number of groups.
    path_ : SubsetPath
        Choices on all samples for every size.
    cv_ : CrossValidation or None
        Losses on the samples left out; None unless the rule is "min" or "1se".
    coef_, intercept_, groups_, group_norms_, selected_groups_, solution_, n_iter_, n_features_in_, feature_names_in_
        As in `GroupSubsetRegressor`, for the chosen k. `path_` and `cv_` refer to X and y, as `solution_` does.

    Notes
    -----
    The score of the chosen k on its own folds is too good: judge the model on samples that `fit` has not seen. Criteria
    count the parameters of the chosen groups, not the search among all of them, except for "ebic" and "bonferroni".
    With method "exact" the choice for every size and, with folds, for every fold is proved (or runs into its time
    limit).

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt import GroupSubsetRegressorCV
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(60, 9))
    >>> y = X[:, 0] - 2 * X[:, 1] + rng.normal(size=60)
    >>> model = GroupSubsetRegressorCV(groups=[3, 3, 3], rule="bic").fit(X, y)
    >>> model.k_, model.selected_groups_, model.path_.sizes
    (1, array(['0'], dtype=object), array([0, 1, 2, 3]))
    """

    def __init__(
        self,
        groups: Any = None,
        *,
        sizes: ArrayLike | None = None,
        loss: str = "squares",
        method: str = "splicing",
        method_options: dict[str, Any] | None = None,
        always_in: Any = (),
        cv: Any = 5,
        rule: str = "min",
        ridge: float = 0.0,
        weights: Any = "sqrt",
        fit_intercept: bool = True,
        delta: float = 1.345,
        n_jobs: int | None = None,
    ) -> None:
        self.groups = groups
        self.sizes = sizes
        self.loss = loss
        self.method = method
        self.method_options = method_options
        self.always_in = always_in
        self.cv = cv
        self.rule = rule
        self.ridge = ridge
        self.weights = weights
        self.fit_intercept = fit_intercept
        self.delta = delta
        self.n_jobs = n_jobs


class GroupSubsetClassifierCV(ManySizes, Classification):
    """`GroupSubsetClassifier` with k chosen by cross-validation, by an information criterion or by a gap.

    Parameters
    ----------
    groups, method, method_options, always_in, ridge, weights, fit_intercept
        As in `GroupSubsetClassifier`.
    sizes, cv, rule, n_jobs
        As in `GroupSubsetRegressorCV`; an integer `cv` means folds with the same shares of the classes, and the loss on
        the samples left out is the negative log-likelihood.

    Attributes
    ----------
    k_, path_, cv_
        As in `GroupSubsetRegressorCV`.
    classes_, coef_, intercept_, groups_, group_norms_, selected_groups_, solution_, n_iter_, n_features_in_, \
feature_names_in_
        As in `GroupSubsetClassifier`, for the chosen k.

    Notes
    -----
    Where groups separate the classes of a fold, its held-out loss is that of extreme probabilities and can be large,
    the more so the smaller `ridge` is.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt import GroupSubsetClassifierCV
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(100, 6))
    >>> y = X[:, 0] - X[:, 1] + 0.5 * rng.normal(size=100) > 0
    >>> GroupSubsetClassifierCV(groups=[2, 2, 2], rule="1se").fit(X, y).selected_groups_
    array(['0'], dtype=object)
    """

    def __init__(
        self,
        groups: Any = None,
        *,
        sizes: ArrayLike | None = None,
        method: str = "splicing",
        method_options: dict[str, Any] | None = None,
        always_in: Any = (),
        cv: Any = 5,
        rule: str = "min",
        ridge: float = 1e-4,
        weights: Any = "sqrt",
        fit_intercept: bool = True,
        n_jobs: int | None = None,
    ) -> None:
        self.groups = groups
        self.sizes = sizes
        self.method = method
        self.method_options = method_options
        self.always_in = always_in
        self.cv = cv
        self.rule = rule
        self.ridge = ridge
        self.weights = weights
        self.fit_intercept = fit_intercept
        self.n_jobs = n_jobs
