"""Regression: real responses by least squares or Huber's loss, counts by the Poisson loss.

    minimise over w, b   sum_i s_i f(y_i, <x_i, w> + b + o_i) + lam sum_g omega_g q(||w_g||)

with s_i = 1/n, or sample weights divided by their sum. Several responses share their groups: w is (p, K), and a group
is a set of its rows. On groups of one, lam is the alpha of scikit-learn's Lasso and MultiTaskLasso.
"""

from __future__ import annotations

import difflib
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils.validation import check_is_fitted

from sparseopt.estimators.base import GroupEstimator
from sparseopt.estimators.inputs import check_number, sample_shares, validated
from sparseopt.estimators.solving import OneStrength
from sparseopt.losses import LOSSES, get_loss

__all__ = ["GroupSparseRegressor", "Regression"]

NAMES = ("squares", "huber", "poisson")


class Regression(RegressorMixin, GroupEstimator):
    """Fit, prediction and score of all regressors."""

    def fit(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None, offset: ArrayLike | None = None) -> Any:
        """Fit the model.

        Parameters
        ----------
        X : (n, p) array, sparse matrix or data frame
            float32 and float64 are kept, other numbers become float64. Dense columns and CSC are used without a copy.
        y : (n,) or (n, K) array
            Responses; counts >= 0 for the Poisson loss.
        sample_weight : (n,) array, optional
            Weights >= 0, divided by their sum: 2 counts a sample twice, 0 leaves it out.
        offset : (n,) or (n, K) array, optional
            Known part of the linear predictor, such as the logarithm of an exposure.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            If a parameter or an argument is not as described.
        """
        if self.loss not in NAMES:
            near = difflib.get_close_matches(str(self.loss), NAMES, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(map(repr, NAMES))}."
            raise ValueError(f"loss is {self.loss!r}, which is no loss for regression: {hint}")
        loss_params = {"delta": self.delta} if self.loss == "huber" else {}
        for name, value in loss_params.items():
            check_number(name, value)
        X, y = validated(self, X, y, multi_output=True, y_numeric=True, ensure_min_samples=self._min_samples)
        solution = self._fit(X, y, self.loss, sample_shares(sample_weight, len(y)), offset, **loss_params)
        W = solution.problem.matrix(solution.w)
        b = np.atleast_1d(np.asarray(solution.intercept, dtype=np.float64))
        self.coef_ = W[:, 0].copy() if y.ndim == 1 else np.ascontiguousarray(W.T)
        self.intercept_ = float(b[0]) if y.ndim == 1 else b
        self._fitted_loss = self.loss
        return self

    def predict(self, X: Any, offset: ArrayLike | None = None) -> NDArray[np.float64]:
        """The expected response: z for squares and huber, the rate e^z for poisson, z = X coef_' + intercept_ + offset.

        Parameters
        ----------
        X : (m, p) array, sparse matrix or data frame
            New samples, with the features of the fit.
        offset : (m,) or (m, K) array, optional
            Offset of the new samples; 0 if None, also if there was one in `fit`.

        Returns
        -------
        (m,) float64, or (m, K) if y had two dimensions.
        """
        z = self._linear_predictor(X, offset)
        mean = LOSSES[self._fitted_loss].response(z)
        return mean[:, 0] if self.coef_.ndim == 1 else mean

    def score(
        self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None, offset: ArrayLike | None = None
    ) -> float:
        """R^2, or for the Poisson loss D^2, the share of deviance that is explained.

        Parameters
        ----------
        X, y, sample_weight, offset : as in `fit`.

        Returns
        -------
        float <= 1; 0 is the best constant.
        """
        check_is_fitted(self)
        if self._fitted_loss != "poisson":
            return float(r2_score(y, self.predict(X, offset), sample_weight=sample_weight))
        z = self._linear_predictor(X, None)
        loss = get_loss("poisson", y, sample_shares(sample_weight, len(z)), offset)
        return 1.0 - loss.value(z) / loss.value(np.zeros_like(z) + loss.null_intercept())

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.target_tags.positive_only = self.loss == "poisson"
        return tags

    def _more_tags(self) -> dict[str, Any]:  # what scikit-learn < 1.6 asks
        return {"multioutput": True, "requires_positive_y": self.loss == "poisson"}


class GroupSparseRegressor(OneStrength, Regression):
    """Linear regression that selects groups of features.

    minimise over w, b   sum_i s_i f(y_i, <x_i, w> + b) + lam [(1 - a) sum_g omega_g q(||w_g||) + a ||w||_1]
                         + ridge / 2 ||w||^2,     a = l1_ratio

    All coefficients of a group are zero together, or none is (up to `l1_ratio`): the dummy columns of a factor, the
    basis of a spline, the lags of a series. Bring columns to comparable scales first, for example by StandardScaler:
    the penalty compares coefficients, whose units are those of y over those of the column.

    Parameters
    ----------
    groups : any description of a partition of the columns, default None
        None (each column for itself), one label per column, sizes of consecutive groups, lists or a dict of columns by
        number or name, "prefix" or "prefix:SEP" for column names that agree up to SEP, a fitted ColumnTransformer that
        made the columns, or `Groups`; see `sparseopt.as_groups`.
    loss : {"squares", "huber", "poisson"}
        f: (z - y)^2 / 2, the same up to |z - y| = delta and linear beyond, or e^z - y z for counts.
    penalty : str, class or regularizer, default "l2"
        q: a name ("l2" is the group lasso; "mcp", "scad", "log", ... shrink large groups less and are not convex),
        "module:Class", a class or an instance; see `sparseopt.get_regularizer`.
    lam : float >= 0
        Strength. For groups of one and "l2" the alpha of scikit-learn's Lasso.
    l1_ratio : float in [0, 1]
        Share of lam that acts on single coefficients (sparse group lasso).
    ridge : float >= 0
        Strength of the squared norm.
    composite : bool
        Replace sum_g omega_g q(||w_g||) by q^-1(sum_g q(omega_g ||w_g||)), see `sparseopt.Composite`.
    weights : "sqrt", "ones", (n_groups,) array or dict from group name to weight
        omega: "sqrt" is the root of the group's size. Groups of weight 0 are never penalised.
    fit_intercept : bool
        Whether to fit b, which is not penalised.
    delta : float > 0
        Knot of Huber's loss, in the units of y.
    tol : float > 0
        Relative duality gap for "l2", stationarity otherwise; see `sparseopt.bcd`.
    max_epochs : int >= 1
        Limit of sweeps; a ConvergenceWarning says if it was reached.
    warm_start : bool
        Start from the last solution if `fit` is called again with as many features and responses.

    Attributes
    ----------
    coef_ : (p,) float64, or (K, p) if y has two dimensions
        w, with exact zeros.
    intercept_ : float, or (K,) float64
        b; 0 without intercept.
    groups_ : Groups
        The partition, with weights and names.
    group_norms_ : (n_groups,) float64
        ||w_g||, in the order of `groups_.names`.
    selected_groups_ : (n_selected,) object
        Names of the groups with w_g != 0.
    solution_ : Solution
        With objective, duality gap, status and problem. It refers to X and y: delete it to pickle the model without
        them, predictions do not need it.
    lam_ : float
        The strength used.
    n_iter_ : int
        Sweeps of the solver.
    n_features_in_ : int
        p.
    feature_names_in_ : (p,) object
        Names of the columns, if X was a data frame with names.

    Notes
    -----
    `clone`, and so every cross-validation, keeps a fitted ColumnTransformer in `groups` as it is, fitted. In a pipeline
    that is refitted as a whole, let the transformer make named columns, `set_output(transform="pandas")` with
    `verbose_feature_names_out=False`, and group them by "prefix".

    References
    ----------
    Yuan, Lin (2006), "Model selection and estimation in regression with grouped variables", JRSS B 68.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt import GroupSparseRegressor
    >>> X = np.random.default_rng(0).normal(size=(60, 6))
    >>> y = X[:, 0] - 2 * X[:, 1] + 0.1 * X[:, 5]
    >>> model = GroupSparseRegressor(groups=["size", "size", "age", "age", "place", "place"], lam=0.2).fit(X, y)
    >>> model.selected_groups_, model.get_support(indices=True)
    (array(['size'], dtype=object), array([0, 1]))
    """

    def __init__(
        self,
        groups: Any = None,
        *,
        loss: str = "squares",
        penalty: Any = "l2",
        lam: float = 0.1,
        l1_ratio: float = 0.0,
        ridge: float = 0.0,
        composite: bool = False,
        weights: Any = "sqrt",
        fit_intercept: bool = True,
        delta: float = 1.345,
        tol: float = 1e-6,
        max_epochs: int = 10_000,
        warm_start: bool = False,
    ) -> None:
        self.groups = groups
        self.loss = loss
        self.penalty = penalty
        self.lam = lam
        self.l1_ratio = l1_ratio
        self.ridge = ridge
        self.composite = composite
        self.weights = weights
        self.fit_intercept = fit_intercept
        self.delta = delta
        self.tol = tol
        self.max_epochs = max_epochs
        self.warm_start = warm_start
