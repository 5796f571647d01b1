"""Estimators: errors are one sentence with the argument, the value and the remedy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from estimator_cases import BINARY, LABELS, X, Y, columns

from sparseopt import Groups, GroupSparseClassifier, GroupSparseRegressor, GroupSparseRegressorCV
from sparseopt.solution import ConvergenceWarning

BAD_X = X.copy()
BAD_X[3, 2] = np.nan
R, C, RCV = GroupSparseRegressor, GroupSparseClassifier, GroupSparseRegressorCV

WRONG: dict[str, tuple[Any, Any, Any, type[Exception], str]] = {
    "nan in X": (R(), BAD_X, Y, ValueError, "X contains nan in row 3, column 2: impute or drop"),
    "inf in X": (R(), np.where(np.isnan(BAD_X), np.inf, X), Y, ValueError, "X contains inf in row 3, column 2"),
    "nan in sparse X": (R(), sp.csr_array(BAD_X), Y, ValueError, "X contains nan in row 3, column 2"),
    "nan in y": (R(), X, np.where(Y > 1, np.nan, Y), ValueError, "Input y contains NaN"),
    "lengths": (R(), X, Y[:-1], ValueError, r"inconsistent numbers of samples: \[60, 59\]"),
    "one class": (C(), X, np.ones(60), ValueError, "y has one class only, .*1.0.*: pass samples of at least one other"),
    "continuous labels": (C(), X, Y, ValueError, "Unknown label type: continuous"),
    "negative counts": (R(loss="poisson"), X, Y, ValueError, "y contains -.* but the Poisson loss needs counts"),
    "no counts": (R(loss="poisson"), X, 0 * Y, ValueError, "y is 0 wherever the weight is positive"),
    "loss": (R(loss="square"), X, Y, ValueError, "loss is 'square', .* did you mean 'squares'"),
    "loss of classes": (
        R(loss="logistic"),
        X,
        Y,
        ValueError,
        "loss is 'logistic', .* choose one of 'squares', 'huber'",
    ),
    "lam of text": (R(lam="0.1"), X, Y, TypeError, "lam must be a number, got '0.1': pass a float"),
    "negative lam": (R(lam=-1.0), X, Y, ValueError, "lam is -1.0: pass a number that is finite and >= 0"),
    "l1_ratio": (R(l1_ratio=1.5), X, Y, ValueError, "l1_ratio is 1.5: pass a number that is between 0 and 1"),
    "ridge": (R(ridge=np.nan), X, Y, ValueError, "ridge is nan: pass a number that is finite and >= 0"),
    "delta": (R(loss="huber", delta=0.0), X, Y, ValueError, "delta is 0.0: pass a number that is finite and > 0"),
    "tol": (R(tol="small"), X, Y, TypeError, "tol must be a number, got 'small'"),
    "tol zero": (R(tol=0), X, Y, ValueError, "tol is 0: pass a number that is finite and > 0"),
    "max_epochs": (R(max_epochs=0), X, Y, ValueError, "max_epochs is 0: pass an integer >= 1"),
    "max_epochs of float": (R(max_epochs=1e4), X, Y, TypeError, "max_epochs must be an integer, got 10000.0"),
    "penalty": (R(penalty="mpc"), X, Y, ValueError, "Unknown regularizer 'mpc': did you mean 'mcp'"),
    "penalty of number": (R(penalty=1.0), X, Y, TypeError, "regularizer"),
    "weights": (
        R(LABELS, weights=[1, 2]),
        X,
        Y,
        ValueError,
        r"weights has the shape \(2,\): give one weight for each of 3",
    ),
    "few labels": (R(LABELS[:5]), X, Y, ValueError, "groups has 5 entries for 6 features: give one label per feature"),
    "other groups": (R(Groups.equal(4, 2)), X, Y, ValueError, "groups cover 4 features but X has 6"),
    "prefix without names": (R("prefix"), X, Y, ValueError, "groups by prefix need feature_names"),
    "unfitted transformer": (R(columns()), X, Y, ValueError, "groups is a ColumnTransformer that is not fitted"),
    "rule": (RCV(rule="max"), X, Y, ValueError, "rule is 'max', which is unknown: choose one of 'min', '1se', 'aic'"),
    "lams": (RCV(lams="many"), X, Y, TypeError, "lams is 'many': pass a sequence of positive numbers"),
    "negative lams": (RCV(lams=[0.1, -0.1]), X, Y, ValueError, "lams must be a sequence of positive numbers"),
    "n_lams": (RCV(n_lams=2.5), X, Y, TypeError, "n_lams must be an integer, got 2.5"),
    "ratio": (RCV(ratio=1.0), X, Y, ValueError, "ratio is 1.0: pass a number that is between 0 and 1, both excluded"),
    "cv": (RCV(cv=61), X, Y, ValueError, "cv is 61: pass a number of folds"),
    "one sample": (RCV(), X[:1], Y[:1], ValueError, r"1 sample\(s\)"),
}


@pytest.mark.parametrize(("model", "data", "y", "error", "sentence"), WRONG.values(), ids=WRONG)
def test_wrong_arguments(model: Any, data: Any, y: Any, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence) as caught:
        model.fit(data, y)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("weights", "error", "sentence"),
    [
        (np.ones(3), ValueError, r"sample_weight has the shape \(3,\) but X has 60 rows: pass one weight per row"),
        (np.where(np.arange(60) == 4, -1.0, 1.0), ValueError, r"sample_weight\[4\] is -1.0: pass finite weights >= 0"),
        (np.full(60, np.inf), ValueError, r"sample_weight\[0\] is inf"),
        (np.zeros(60), ValueError, "sample_weight is zero for every sample"),
        (["a"] * 60, TypeError, "sample_weight has dtype <U1: pass real numbers"),
    ],
)
def test_wrong_weights_of_samples(weights: Any, error: type[Exception], sentence: str) -> None:
    for model, y in ((GroupSparseRegressor(), Y), (GroupSparseClassifier(), BINARY)):
        with pytest.raises(error, match=sentence):
            model.fit(X, y, sample_weight=weights)


def test_wrong_new_samples() -> None:
    model = GroupSparseRegressor().fit(X, Y)
    with pytest.raises(ValueError, match="X contains nan in row 3, column 2"):
        model.predict(BAD_X)
    with pytest.raises(ValueError, match="X has 5 features, but GroupSparseRegressor is expecting 6"):
        model.predict(X[:, :5])
    with pytest.raises(ValueError, match=r"offset has the shape \(3,\) but X has 60 rows: pass \(60,\)"):
        model.predict(X, offset=np.zeros(3))
    huge = np.full((2, 6), 3e307)  # finite, although its sum is not
    assert np.isfinite(model.predict(huge)).all()


def test_too_few_epochs_are_a_warning() -> None:
    with pytest.warns(ConvergenceWarning, match="limit was reached"):
        model = GroupSparseRegressor(loss="huber", lam=1e-3, max_epochs=1, tol=1e-12).fit(X, Y)
    assert model.n_iter_ == 1
    assert not model.solution_.status.ok
