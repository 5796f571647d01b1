"""Classification: logistic loss for two classes, multinomial loss for more.

    two classes     P(second class) = 1 / (1 + e^-z),      z = <x, w> + b           w (p,)
    K > 2 classes   P(class k) = e^(z_k) / sum_j e^(z_j),  z = W'x + b              W (p, K), a group is a set of rows

On groups of one, two classes and "l2", lam = 1 / (n C) for the C of scikit-learn's LogisticRegression with l1 penalty.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils.multiclass import check_classification_targets

from sparseopt.estimators.base import GroupEstimator
from sparseopt.estimators.inputs import sample_shares, validated
from sparseopt.estimators.solving import OneStrength

__all__ = ["Classification", "GroupSparseClassifier"]

Array = NDArray[np.float64]


class Classification(ClassifierMixin, GroupEstimator):
    """Fit, prediction and score of all classifiers."""

    def fit(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None, offset: ArrayLike | None = None) -> Any:
        """Fit the model.

        Parameters
        ----------
        X : (n, p) array, sparse matrix or data frame
            float32 and float64 are kept, other numbers become float64. Dense columns and CSC are used without a copy.
        y : (n,) array
            Labels of any sortable kind, of two classes or more.
        sample_weight : (n,) array, optional
            Weights >= 0, divided by their sum: 2 counts a sample twice, 0 leaves it out.
        offset : (n,) array for two classes, (n, K) for K > 2, optional
            Known part of the linear predictor.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            If a parameter or an argument is not as described.
        """
        X, y = validated(self, X, y, ensure_min_samples=self._min_samples)
        check_classification_targets(y)
        shares = sample_shares(sample_weight, len(y))
        classes = np.unique(y if shares is None else y[shares > 0.0])
        if len(classes) < 2:
            raise ValueError(f"y has one class only, {classes[0]!r}: pass samples of at least one other class.")
        # A label without weight may be none of the classes: any code does for a sample that does not count.
        codes = np.minimum(np.searchsorted(classes, y), len(classes) - 1)
        solution = self._fit(X, codes, "logistic" if len(classes) == 2 else "multinomial", shares, offset)
        self.classes_ = classes
        self.coef_ = np.ascontiguousarray(solution.problem.matrix(solution.w).T)
        self.intercept_ = np.atleast_1d(np.asarray(solution.intercept, dtype=np.float64))
        return self

    def decision_function(self, X: Any, offset: ArrayLike | None = None) -> Array:
        """z = X coef_' + intercept_ + offset: (m,), positive for `classes_[1]`, or (m, K), largest for the class."""
        z = self._linear_predictor(X, offset)
        return z[:, 0] if z.shape[1] == 1 else z

    def predict(self, X: Any, offset: ArrayLike | None = None) -> NDArray[Any]:
        """The most probable class of each sample, (m,).

        Parameters
        ----------
        X : (m, p) array, sparse matrix or data frame
            New samples, with the features of the fit.
        offset : array, optional
            Offset of the new samples, shaped as in `fit`; 0 if None, also if there was one in `fit`.
        """
        z = self._linear_predictor(X, offset)
        best = (z[:, 0] > 0.0).astype(np.int64) if z.shape[1] == 1 else z.argmax(axis=1)
        labels: NDArray[Any] = self.classes_[best]
        return labels

    def predict_proba(self, X: Any, offset: ArrayLike | None = None) -> Array:
        """Probabilities of `classes_`, (m, K)."""
        return np.exp(self.predict_log_proba(X, offset))

    def predict_log_proba(self, X: Any, offset: ArrayLike | None = None) -> Array:
        """Logarithms of the probabilities of `classes_`, (m, K); finite even where a probability underflows."""
        z = self._linear_predictor(X, offset)
        if z.shape[1] == 1:
            z = np.hstack([np.zeros_like(z), z])
        log_proba: Array = log_softmax(z, axis=1)
        return log_proba

    def score(
        self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None, offset: ArrayLike | None = None
    ) -> float:
        """Accuracy, the share of samples whose class is predicted right; arguments as in `fit`."""
        return float(accuracy_score(y, self.predict(X, offset), sample_weight=sample_weight))


class GroupSparseClassifier(OneStrength, Classification):
    """Logistic or multinomial regression that selects groups of features.

    minimise over w, b   sum_i s_i f(y_i, <x_i, w> + b) + lam [(1 - a) sum_g omega_g q(||w_g||) + a ||w||_1]
                         + ridge / 2 ||w||^2,     a = l1_ratio

    with f the negative log-likelihood of the label. With more than two classes a group holds the coefficients of its
    features for all classes, so features are selected for all classes together. Bring columns to comparable scales.

    Parameters
    ----------
    groups, penalty, lam, l1_ratio, ridge, composite, weights, fit_intercept, tol, max_epochs, warm_start
        As in `GroupSparseRegressor`.

    Attributes
    ----------
    classes_ : (K,) array
        The labels, sorted.
    coef_ : (1, p) float64 for two classes, (K, p) for more
        Coefficients, with exact zeros.
    intercept_ : (1,) or (K,) float64
        Intercepts; 0 without intercept.
    groups_, group_norms_, selected_groups_, solution_, lam_, n_iter_, n_features_in_, feature_names_in_
        As in `GroupSparseRegressor`.

    Notes
    -----
    If the penalty leaves groups out (weight 0) or lam is 0 and the classes can be separated, no minimum exists, and the
    solver stops at `max_epochs` with a ConvergenceWarning; a small `ridge` helps.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt import GroupSparseClassifier
    >>> X = np.random.default_rng(0).normal(size=(90, 6))
    >>> y = np.where(X[:, 0] > X[:, 1], "yes", "no")
    >>> model = GroupSparseClassifier(groups=[2, 2, 2], lam=0.05).fit(X, y)
    >>> model.selected_groups_, model.score(X, y) > 0.9
    (array(['0'], dtype=object), True)
    """

    def __init__(
        self,
        groups: Any = None,
        *,
        penalty: Any = "l2",
        lam: float = 0.1,
        l1_ratio: float = 0.0,
        ridge: float = 0.0,
        composite: bool = False,
        weights: Any = "sqrt",
        fit_intercept: bool = True,
        tol: float = 1e-6,
        max_epochs: int = 10_000,
        warm_start: bool = False,
    ) -> None:
        self.groups = groups
        self.penalty = penalty
        self.lam = lam
        self.l1_ratio = l1_ratio
        self.ridge = ridge
        self.composite = composite
        self.weights = weights
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_epochs = max_epochs
        self.warm_start = warm_start
