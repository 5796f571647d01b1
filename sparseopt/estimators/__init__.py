"""Estimators in the manner of scikit-learn: parameters in the constructor, `fit`, `predict`, names with an underscore.

    GroupSparseRegressor      real responses or counts, one or several     squares, huber, poisson
    GroupSparseClassifier     labels of any kind                           logistic, multinomial
    ...CV                     the same, with lam chosen along a path by cross-validation or by AIC, BIC, EBIC

Each is `Problem.build` followed by a solver of this package; the `Solution` is kept as `solution_`. Weights of samples
are divided by their sum, so lam means the same for any number of samples, a weight of 2 is the sample twice, and a
weight of 0 is no sample.
"""

from __future__ import annotations

from sparseopt.estimators.classification import GroupSparseClassifier
from sparseopt.estimators.regression import GroupSparseRegressor
from sparseopt.estimators.selection import GroupSparseClassifierCV, GroupSparseRegressorCV

__all__ = ["GroupSparseClassifier", "GroupSparseClassifierCV", "GroupSparseRegressor", "GroupSparseRegressorCV"]
