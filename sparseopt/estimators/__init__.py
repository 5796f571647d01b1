"""Estimators in the manner of scikit-learn: parameters in the constructor, `fit`, `predict`, names with an underscore.

    GroupSparseRegressor      real responses or counts, one or several     squares, huber, poisson
    GroupSparseClassifier     labels of any kind                           logistic, multinomial
    GroupSubsetRegressor      as above, with at most k groups, which are not shrunk
    GroupSubsetClassifier
    ...CV                     the same, with lam or k chosen by cross-validation or by AIC, BIC, EBIC

Each is `Problem.build` followed by a solver or a selection of this package; the `Solution` is kept as `solution_`.
Weights of samples are divided by their sum, so lam means the same for any number of samples, a weight of 2 is the
sample twice, and a weight of 0 is no sample.
"""

from __future__ import annotations

from sparseopt.estimators.classification import GroupSparseClassifier
from sparseopt.estimators.regression import GroupSparseRegressor
from sparseopt.estimators.sizes import GroupSubsetClassifierCV, GroupSubsetRegressorCV
from sparseopt.estimators.strengths import GroupSparseClassifierCV, GroupSparseRegressorCV
from sparseopt.estimators.subsets import GroupSubsetClassifier, GroupSubsetRegressor

__all__ = [
    "GroupSparseClassifier",
    "GroupSparseClassifierCV",
    "GroupSparseRegressor",
    "GroupSparseRegressorCV",
    "GroupSubsetClassifier",
    "GroupSubsetClassifierCV",
    "GroupSubsetRegressor",
    "GroupSubsetRegressorCV",
]
