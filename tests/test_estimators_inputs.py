"""Estimators: what X, y and groups may be, degenerate data among it, and that nothing is changed or copied twice."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
import sklearn
from estimator_cases import BINARY, COUNTS, LABELS, MODELS, REPEATS, RNG, THREE, X, Y
from sklearn.base import clone
from sklearn.metrics import r2_score

from sparseopt import Groups, GroupSparseClassifier, GroupSparseRegressor, GroupSparseRegressorCV

# -- what X, y and groups may be ---------------------------------------------------------------------------------------

NAMES = ["size_1", "size_2", "age_1", "age_2", "place_1", "place_2"]
FRAME = pd.DataFrame(X, columns=NAMES)

DESCRIPTIONS = {
    "labels": LABELS,
    "array of labels": np.array(LABELS),
    "series of labels": pd.Series(LABELS, index=NAMES),
    "size": 2,
    "sizes": [2, 2, 2],
    "lists": [[0, 1], [2, 3], [4, 5]],
    "names": [["size_1", "size_2"], ["age_1", "age_2"], ["place_1", "place_2"]],
    "dict": {"size": [0, 1], "age": ["age_1", "age_2"], "place": [4, 5]},
    "prefix": "prefix",
    "prefix with separator": "prefix:_",
    "groups": Groups.from_labels(LABELS),
}


@pytest.mark.parametrize("groups", DESCRIPTIONS.values(), ids=DESCRIPTIONS)
def test_descriptions_of_groups(groups: Any) -> None:
    model = clone(GroupSparseRegressor(groups, lam=0.2)).fit(FRAME, Y)
    assert model.groups_.group_of.tolist() == [0, 0, 1, 1, 2, 2]
    assert model.groups_.weights.tolist() == [2**0.5] * 3
    assert model.selected_groups_.tolist() in (["size"], ["0"])
    assert model.get_group_names_out().tolist() == model.selected_groups_.tolist()
    assert model.get_support().tolist() == [True, True, False, False, False, False]
    assert model.get_support(indices=True).tolist() == [0, 1]
    assert model.get_feature_names_out().tolist() == ["size_1", "size_2"]
    np.testing.assert_allclose(model.group_norms_, [np.linalg.norm(model.coef_[:2]), 0, 0], rtol=1e-15)


def test_reports_without_names() -> None:
    model = GroupSparseRegressor(weights={"3": 0.0}).fit(X, Y)
    assert model.selected_groups_.tolist() == ["0", "1", "3"]  # weight 0: never penalised
    assert model.get_feature_names_out().tolist() == ["x0", "x1", "x3"]
    assert not hasattr(model, "feature_names_in_")
    sparse_inside = GroupSparseRegressor(3, l1_ratio=0.9, lam=0.3).fit(X, Y)
    assert sparse_inside.coef_[2] == 0.0
    assert sparse_inside.get_support(indices=True).tolist() == [0, 1, 2]


def polars_or_skip() -> Any:
    """scikit-learn reads the names of columns; releases up to 1.7 do it by a protocol that polars has given up."""
    if tuple(map(int, sklearn.__version__.split(".")[:2])) < (1, 8):
        pytest.skip(f"scikit-learn {sklearn.__version__} does not read the column names of current polars frames")
    return pl.DataFrame


FORMATS: dict[str, Callable[[np.ndarray], Any]] = {
    "list": lambda x: x.tolist(),
    "columns": np.asfortranarray,
    "pandas": lambda x: pd.DataFrame(x, columns=NAMES),
    "polars": lambda x: polars_or_skip()(x, schema=NAMES),
    "csr": sp.csr_matrix,
    "csc": sp.csc_array,
    "coo": sp.coo_array,
}


@pytest.mark.parametrize("convert", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("kind", ["squares", "multinomial"])
def test_formats_of_X(convert: Callable[[np.ndarray], Any], kind: str) -> None:
    make, y = MODELS[kind]
    dense, other = make().fit(X, y), make().fit(convert(X), y)
    np.testing.assert_allclose(other.coef_, dense.coef_, atol=1e-6)
    np.testing.assert_allclose(other.predict(convert(X)), dense.predict(X), atol=1e-6)
    if hasattr(convert(X), "columns"):
        assert other.feature_names_in_.tolist() == NAMES


@pytest.mark.parametrize("frame", [lambda: pd.DataFrame, polars_or_skip], ids=["pandas", "polars"])
def test_frames_of_mixed_columns(frame: Any) -> None:
    data = frame()({"a_1": [1, 2, 3, 4], "a_2": [0.5, 1.5, -1.0, 0.0], "b": [True, False, True, True]})
    model = GroupSparseRegressor("prefix", lam=0.01).fit(data, [1.0, 2.0, 3.0, 4.0])
    assert model.groups_.names == ("a", "b")
    assert model.selected_groups_.tolist() == ["a"]


def test_float32_is_kept() -> None:
    model = GroupSparseRegressor(LABELS).fit(X.astype(np.float32), Y)
    assert model.solution_.problem.design.columns.dtype == np.float32
    assert model.coef_.dtype == np.float64
    np.testing.assert_allclose(model.coef_, GroupSparseRegressor(LABELS).fit(X, Y).coef_, atol=1e-4)


@pytest.mark.parametrize(("order", "copies"), [("C", 1), ("F", 0)])
def test_X_is_converted_once(order: Any, copies: int) -> None:
    big = np.array(RNG.normal(size=(1000, 500)), order=order)
    y = big[:, 0]
    model = GroupSparseRegressor(10, lam=0.5).fit(big[:20], y[:20])  # compiled before memory is watched
    tracemalloc.start()
    model.fit(big, y)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert copies <= peak / big.nbytes < copies + 0.5
    assert np.shares_memory(model.solution_.problem.design.columns, big) == (copies == 0)


def test_nothing_is_changed() -> None:
    data, y, weights, offset = X.copy(order="F"), Y.copy(), np.ones(60), np.zeros(60)
    for array in (data, y, weights, offset):
        array.flags.writeable = False
    groups = {"a": [0, 1, 2], "b": [3, 4, 5]}
    model = GroupSparseRegressor(groups).fit(data, y, weights, offset)
    assert model.groups is groups
    assert groups == {"a": [0, 1, 2], "b": [3, 4, 5]}


KINDS_OF_LABELS = {
    "bool": BINARY,
    "strings": np.where(BINARY, "no", "yes"),
    "objects": np.where(BINARY, "no", "yes").astype(object),
    "signs": np.where(BINARY, 1, -1),
    "floats": np.where(BINARY, 2.0, 7.0),
    "pandas": pd.Series(np.where(BINARY, "no", "yes"), dtype="category"),
    "polars": pl.Series(np.where(BINARY, "no", "yes")),
    "three": np.array(["low", "middle", "high"])[THREE],
}


@pytest.mark.parametrize("y", KINDS_OF_LABELS.values(), ids=KINDS_OF_LABELS)
def test_labels_of_any_kind(y: Any) -> None:
    model = GroupSparseClassifier(LABELS, lam=0.02).fit(X, y)
    labels = np.asarray(y)
    K = len(set(labels.tolist()))
    assert model.classes_.tolist() == sorted(set(labels.tolist()))
    assert model.coef_.shape == ((1, 6) if K == 2 else (K, 6))
    assert model.intercept_.shape == ((1,) if K == 2 else (K,))
    assert model.decision_function(X).shape == ((60,) if K == 2 else (60, K))
    assert model.predict_proba(X).shape == (60, K)
    assert model.score(X, y) > 0.85
    assert (model.predict(X) == labels).mean() == model.score(X, y)


def test_log_probabilities_do_not_underflow() -> None:
    model = GroupSparseClassifier(lam=0.01).fit(X, BINARY)
    far = 1e4 * X[:1]
    assert np.isfinite(model.predict_log_proba(far)).all()
    assert model.predict_proba(far).sum() == 1.0


def test_several_responses() -> None:
    y = np.column_stack([Y, 2 * Y, X[:, 5]])
    model = GroupSparseRegressor(LABELS, lam=0.3).fit(X, y)
    assert model.coef_.shape == (3, 6)
    assert model.intercept_.shape == (3,)
    assert model.predict(X[:7]).shape == (7, 3)
    for g in range(3):  # a group is zero for all responses or for none
        assert model.coef_[:, model.groups_[g]].any() == (model.group_norms_[g] > 0.0)
    assert model.score(X, y) == pytest.approx(r2_score(y, model.predict(X)), rel=1e-15)
    column = GroupSparseRegressor(LABELS).fit(X, Y[:, None])
    assert column.coef_.shape == (1, 6)
    assert column.predict(X).shape == (60, 1)


def test_the_score_sees_weights_and_offset() -> None:
    weights, offset = 1.0 + REPEATS, np.linspace(-1, 1, 60)
    squares = GroupSparseRegressor().fit(X, Y)
    assert squares.score(X, Y, weights) == r2_score(Y, squares.predict(X), sample_weight=weights)
    poisson = GroupSparseRegressor(loss="poisson", lam=0.01).fit(X, COUNTS, weights, offset)
    # 1 - deviance / deviance of the best model without features, which has the offset as well
    null = GroupSparseRegressor(loss="poisson", lam=1e3).fit(X, COUNTS, weights, offset)
    assert poisson.score(X, COUNTS, weights, offset) > 0.1
    assert null.score(X, COUNTS, weights, offset) == pytest.approx(0.0, abs=1e-12)
    classifier = GroupSparseClassifier().fit(X, BINARY)
    assert classifier.score(X, BINARY, offset=np.full(60, 100.0)) == BINARY.mean()


# -- degenerate data ---------------------------------------------------------------------------------------------------

DEGENERATE = {
    "constant y": (X, np.full(60, 3.0)),
    "zero X": (np.zeros((60, 6)), Y),
    "constant column": (np.column_stack([X[:, :5], np.full(60, 7.0)]), Y),
    "equal columns": (np.column_stack([X[:, :1]] * 6), Y),
    "one feature": (X[:, :1], Y),
    "few samples": (X[:4], Y[:4]),
    "one sample": (X[:1], Y[:1]),
}


@pytest.mark.parametrize(("data", "y"), DEGENERATE.values(), ids=DEGENERATE)
def test_degenerate_data(data: np.ndarray, y: np.ndarray) -> None:
    model = GroupSparseRegressor(1).fit(data, y)
    assert model.solution_.status.ok
    assert np.isfinite(model.predict(data)).all()
    if len(y) > 4:
        chosen = GroupSparseRegressorCV(1, n_lams=4, cv=2).fit(data, y)
        assert np.isfinite(chosen.predict(data)).all()
    if not data.any() or np.ptp(y) == 0.0:
        assert not model.coef_.any()
        assert model.selected_groups_.size == 0
        assert model.intercept_ == pytest.approx(y.mean(), rel=1e-14)
