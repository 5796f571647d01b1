"""What the estimators share: from parameters and data to a `Problem`, from its `Solution` to attributes.

    s_i = sample_weight_i / sum(sample_weight)       groups_ = as_groups(groups, p, feature_names_in_, weights)
    coef_ = w' (K, p)                                z = X coef_' + intercept_ + offset

Predictions need `coef_` and `intercept_` only. What is minimised, and how, is up to the mixins of `solving.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.extmath import safe_sparse_dot
from sklearn.utils.validation import _check_feature_names_in, check_is_fitted

from sparseopt.estimators.inputs import Array, validated_to_predict, with_offset
from sparseopt.groups import as_groups
from sparseopt.groups.columns import is_column_transformer
from sparseopt.solution import Solution

__all__ = ["GroupEstimator"]


class GroupEstimator(BaseEstimator):
    """A linear model that uses few groups of features; see the classes derived from it."""

    _min_samples = 1

    def _fit(
        self, X: Any, y: ArrayLike, loss: str, shares: Array | None, offset: ArrayLike | None, **loss_params: Any
    ) -> Solution:
        """Solve for validated X and y, and set what all estimators report except `coef_` and `intercept_`."""
        names = getattr(self, "feature_names_in_", None)
        problem = self._problem(
            X,
            y,
            as_groups(self.groups, X.shape[1], names, self.weights),
            loss=loss,
            ridge=self.ridge,
            intercept=self.fit_intercept,
            sample_weight=shares,
            offset=offset,
            **loss_params,
        )
        solution = self._solve(problem)
        self.solution_ = solution
        self.groups_ = problem.groups
        self.group_norms_ = solution.group_norms
        self.selected_groups_ = np.array(solution.support_names, dtype=object)
        self.n_iter_ = solution.epochs
        return solution

    def _linear_predictor(self, X: Any, offset: ArrayLike | None) -> Array:
        """z of new samples, (n, K)."""
        check_is_fitted(self)
        X = validated_to_predict(self, X)
        coef = np.atleast_2d(self.coef_)
        return with_offset(safe_sparse_dot(X, coef.T, dense_output=True) + self.intercept_, offset)

    def get_support(self, indices: bool = False) -> NDArray[Any]:
        """Which features lie in a selected group, one with a nonzero coefficient.

        Parameters
        ----------
        indices : bool
            Return the numbers of the features instead of a mask.

        Returns
        -------
        (p,) bool, or (n_selected,) int64. With `l1_ratio` > 0 a feature of a selected group may be zero itself.
        """
        check_is_fitted(self)
        mask: NDArray[np.bool_] = self.groups_.expand(self.group_norms_ > 0.0)
        return np.flatnonzero(mask) if indices else mask

    def get_feature_names_out(self, input_features: ArrayLike | None = None) -> NDArray[np.object_]:
        """Names of the features that lie in a selected group, in the order of X; "x0", "x1", ... if X had no names."""
        mask = self.get_support()
        names: NDArray[np.object_] = _check_feature_names_in(self, input_features)[mask]
        return names

    def get_group_names_out(self) -> NDArray[np.object_]:
        """Names of the selected groups, as `selected_groups_`."""
        check_is_fitted(self)
        names: NDArray[np.object_] = self.selected_groups_.copy()
        return names

    def __sklearn_clone__(self) -> Any:
        twin = super().__sklearn_clone__()
        if is_column_transformer(self.groups):  # a clone would have forgotten its fit, and so the columns
            twin.groups = self.groups
        return twin

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
