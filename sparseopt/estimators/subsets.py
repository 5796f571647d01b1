"""Estimators with at most k groups of features.

    minimise over w, b   sum_i s_i f(y_i, <x_i, w> + b) + ridge / 2 ||w||^2     with at most k groups of w nonzero

The chosen groups are not shrunk: their coefficients are those of the plain (or ridge) fit on them. Which groups these
are is found by a method of `sparseopt.selection`, "exact" with a proof.
"""

from __future__ import annotations

from typing import Any

from sparseopt.estimators.classification import Classification
from sparseopt.estimators.regression import Regression
from sparseopt.estimators.solving import OneSize

__all__ = ["GroupSubsetClassifier", "GroupSubsetRegressor"]


class GroupSubsetRegressor(OneSize, Regression):
    """Linear regression on at most k groups of features.

    minimise over w, b   sum_i s_i f(y_i, <x_i, w> + b) + ridge / 2 ||w||^2     with at most k groups of w nonzero

    A group is the dummy columns of a factor, the basis of a spline, the lags of a series; every column for itself is
    best subset selection. Groups that are always in are neither counted nor touched by the ridge.

    Parameters
    ----------
    groups : any description of a partition of the columns, default None
        As in `GroupSparseRegressor`; None makes each column a group.
    k : int >= 0
        How many groups may be nonzero.
    loss : {"squares", "huber", "poisson"}
        f: (z - y)^2 / 2, the same up to |z - y| = delta and linear beyond, or e^z - y z for counts.
    method : str
        How groups are chosen: "splicing" (exchanges until none helps), "omp", "forward-backward", "ompr",
        "sequential", "iht", or "exact" (the proven optimum, or a bound of it when time runs out); see
        `sparseopt.selection`.
    method_options : dict, optional
        Options of the method, such as {"exchange": 3} for splicing or {"time_limit": 60} for exact; see
        `sparseopt.select`.
    always_in : name or number of a group, or several
        Groups that are in every model; the same as a weight of 0.
    ridge : float >= 0
        Strength of the squared norm. A small one helps where chosen columns nearly depend on each other.
    weights : "sqrt", "ones", (n_groups,) array or dict from group name to weight
        What gradients are divided by in methods that compare them ("omp", "ompr", "sequential", "forward-backward");
        "sqrt" is the root of the group's size. Other methods only ask whether a weight is 0: then always in.
    fit_intercept : bool
        Whether to fit b.
    delta : float > 0
        Knot of Huber's loss, in the units of y.
    warm_start : bool
        Start from the last choice if `fit` is called again with the same groups, in methods that can leave it:
        "splicing", "ompr", "iht", "exact".

    Attributes
    ----------
    coef_ : (p,) float64, or (K, p) if y has two dimensions
        w, with exact zeros.
    intercept_ : float, or (K,) float64
        b; 0 without intercept.
    groups_ : Groups
        The partition, with names and weights.
    group_norms_ : (n_groups,) float64
        ||w_g||, in the order of `groups_.names`.
    selected_groups_ : (n_selected,) object
        Names of the groups with w_g != 0, those always in among them.
    k_ : int
        The number of groups that were allowed.
    solution_ : Solution
        With objective, status and problem; from "exact" with a lower `bound` of the optimum, and so a `gap`. It refers
        to X and y: delete it to pickle the model without them, predictions do not need it.
    n_iter_ : int
        Steps of the method: exchanges, groups added, nodes of the search tree.
    n_features_in_ : int
        p.
    feature_names_in_ : (p,) object
        Names of the columns, if X was a data frame with names.

    Notes
    -----
    Best subsets are NP-hard to find: a method other than "exact" says that no move of its own helps, not that no other
    choice is better. The scale of columns does not matter to "splicing" and "exact" with ridge 0, it does to methods
    that compare gradients and to the ridge. A ConvergenceWarning says if a limit of steps or time was reached.

    References
    ----------
    Zhang, Zhu, Zhu, Wang (2023), "A splicing approach to best subset of groups selection", INFORMS J. Comput. 35.
    Hazimeh, Mazumder, Radchenko (2023), "Grouped variable selection with discrete optimization", Math. Program. 202.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt import GroupSubsetRegressor
    >>> X = np.random.default_rng(0).normal(size=(60, 6))
    >>> y = X[:, 0] - 2 * X[:, 1] + 0.1 * X[:, 5]
    >>> labels = ["size", "size", "age", "age", "place", "place"]
    >>> model = GroupSubsetRegressor(groups=labels, k=1).fit(X, y)
    >>> model.selected_groups_, model.coef_.round(1)
    (array(['size'], dtype=object), array([ 1., -2.,  0.,  0.,  0.,  0.]))
    >>> GroupSubsetRegressor(groups=labels, k=1, always_in="age").fit(X, y).selected_groups_
    array(['size', 'age'], dtype=object)
    """

    def __init__(
        self,
        groups: Any = None,
        *,
        k: int = 5,
        loss: str = "squares",
        method: str = "splicing",
        method_options: dict[str, Any] | None = None,
        always_in: Any = (),
        ridge: float = 0.0,
        weights: Any = "sqrt",
        fit_intercept: bool = True,
        delta: float = 1.345,
        warm_start: bool = False,
    ) -> None:
        self.groups = groups
        self.k = k
        self.loss = loss
        self.method = method
        self.method_options = method_options
        self.always_in = always_in
        self.ridge = ridge
        self.weights = weights
        self.fit_intercept = fit_intercept
        self.delta = delta
        self.warm_start = warm_start


class GroupSubsetClassifier(OneSize, Classification):
    """Logistic or multinomial regression on at most k groups of features.

    minimise over w, b   sum_i s_i f(y_i, <x_i, w> + b) + ridge / 2 ||w||^2     with at most k groups of w nonzero

    with f the negative log-likelihood of the label. With more than two classes a group holds the coefficients of its
    features for all classes, so features are chosen for all classes together.

    Parameters
    ----------
    groups, k, method, method_options, always_in, weights, fit_intercept, warm_start
        As in `GroupSubsetRegressor`.
    ridge : float >= 0
        Strength of the squared norm. Positive by default: the chosen groups may separate the classes, and then no
        minimum exists without it.

    Attributes
    ----------
    classes_ : (K,) array
        The labels, sorted.
    coef_ : (1, p) float64 for two classes, (K, p) for more
        Coefficients, with exact zeros.
    intercept_ : (1,) or (K,) float64
        Intercepts; 0 without intercept.
    groups_, group_norms_, selected_groups_, k_, solution_, n_iter_, n_features_in_, feature_names_in_
        As in `GroupSubsetRegressor`.

    Notes
    -----
    With `ridge` 0 and groups that separate the classes, the coefficients are those at which the objective is next to
    its infimum: large, and not unique. The default is the C = 10 of scikit-learn's LogisticRegression at 1000 samples.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt import GroupSubsetClassifier
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(90, 6))
    >>> y = np.where(X[:, 0] + 0.5 * rng.normal(size=90) > X[:, 1], "yes", "no")
    >>> model = GroupSubsetClassifier(groups=[2, 2, 2], k=1).fit(X, y)
    >>> model.selected_groups_, model.score(X, y) > 0.8
    (array(['0'], dtype=object), True)
    """

    def __init__(
        self,
        groups: Any = None,
        *,
        k: int = 5,
        method: str = "splicing",
        method_options: dict[str, Any] | None = None,
        always_in: Any = (),
        ridge: float = 1e-4,
        weights: Any = "sqrt",
        fit_intercept: bool = True,
        warm_start: bool = False,
    ) -> None:
        self.groups = groups
        self.k = k
        self.method = method
        self.method_options = method_options
        self.always_in = always_in
        self.ridge = ridge
        self.weights = weights
        self.fit_intercept = fit_intercept
        self.warm_start = warm_start
