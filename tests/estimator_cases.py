"""Samples in three groups of features, responses for every loss, and models. Imported by tests of estimators."""

from __future__ import annotations

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.preprocessing import OneHotEncoder, SplineTransformer

from sparseopt import GroupSparseClassifier, GroupSparseRegressor

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 6))
Y = X[:, :2] @ [1.0, -2.0] + 0.3 * RNG.normal(size=60)
LABELS = ["size", "size", "age", "age", "place", "place"]
BINARY = Y > 0.0
THREE = np.digitize(Y, [-1.0, 1.0])
COUNTS = RNG.poisson(np.exp(0.5 * Y))
REPEATS = np.arange(60) % 3  # of samples: weights 0, 1 and 2

MODELS = {
    "squares": (lambda: GroupSparseRegressor(LABELS, tol=1e-11), Y),
    "huber": (lambda: GroupSparseRegressor(LABELS, loss="huber", tol=1e-11), Y),
    "poisson": (lambda: GroupSparseRegressor(LABELS, loss="poisson", tol=1e-11), COUNTS),
    "logistic": (lambda: GroupSparseClassifier(LABELS, tol=1e-11), BINARY),
    "multinomial": (lambda: GroupSparseClassifier(LABELS, tol=1e-11), THREE),
}


def columns() -> ColumnTransformer:
    """Not fitted: a city becomes indicators, age and noise become splines."""
    return ColumnTransformer(
        [
            ("hot", OneHotEncoder(sparse_output=False), ["city"]),
            ("spline", SplineTransformer(n_knots=4), ["age", "noise"]),
        ],
        verbose_feature_names_out=False,
    )
