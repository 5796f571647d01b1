"""Estimators: the numbers of `Problem.build` and a solver, the conventions of scikit-learn, and clear refusals."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
import sklearn
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.feature_selection import SelectFromModel
from sklearn.linear_model import Lasso, LogisticRegression, MultiTaskLasso, PoissonRegressor
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, SplineTransformer, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from sparseopt import (
    MCP,
    Groups,
    GroupSparseClassifier,
    GroupSparseClassifierCV,
    GroupSparseRegressor,
    GroupSparseRegressorCV,
    Problem,
    bcd,
    lam_max,
)
from sparseopt.solution import ConvergenceWarning

rng = np.random.default_rng(0)
X = rng.normal(size=(60, 6))
Y = X[:, :2] @ [1.0, -2.0] + 0.3 * rng.normal(size=60)
LABELS = ["size", "size", "age", "age", "place", "place"]
BINARY = Y > 0.0
THREE = np.digitize(Y, [-1.0, 1.0])
COUNTS = rng.poisson(np.exp(0.5 * Y))


# -- scikit-learn's own examination ----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")  # the checks warn by themselves; estimator and check decide, not the warning
@parametrize_with_checks(
    [
        GroupSparseRegressor(),
        GroupSparseRegressor(loss="huber", l1_ratio=0.5, ridge=0.1),
        GroupSparseClassifier(),
        GroupSparseRegressorCV(n_lams=5, cv=2),
        GroupSparseClassifierCV(n_lams=5, cv=2, ratio=0.1),
    ]
)
def test_scikit_learn_checks(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


# -- the same numbers as the rest of the package, and as other packages ------------------------------------------------


@pytest.mark.parametrize("loss", ["squares", "huber", "poisson"])
def test_a_regressor_is_a_problem(loss: str) -> None:
    y = COUNTS if loss == "poisson" else Y
    offset = np.linspace(-0.1, 0.1, 60)
    model = GroupSparseRegressor(LABELS, loss=loss, lam=0.05, l1_ratio=0.2, ridge=0.1, delta=1.345)
    model.fit(X, y, offset=offset)
    problem = Problem.build(X, y, LABELS, loss=loss, lam=0.05, l1_ratio=0.2, ridge=0.1, offset=offset)
    direct = bcd(problem)
    np.testing.assert_array_equal(model.coef_, direct.w)
    assert model.intercept_ == direct.intercept
    np.testing.assert_allclose(model.predict(X[:5], offset[:5]), direct.predict(X[:5], offset[:5]), rtol=1e-14)
    assert model.solution_.gap < 1e-6
    assert (model.lam_, model.n_iter_) == (0.05, direct.epochs)


@pytest.mark.parametrize(("y", "loss"), [(BINARY, "logistic"), (THREE, "multinomial")])
def test_a_classifier_is_a_problem(y: np.ndarray, loss: str) -> None:
    model = GroupSparseClassifier(LABELS, lam=0.05).fit(X, y)
    direct = bcd(Problem.build(X, y, LABELS, loss=loss, lam=0.05))
    np.testing.assert_array_equal(model.coef_, np.atleast_2d(direct.w.T))
    np.testing.assert_array_equal(model.intercept_, np.atleast_1d(direct.intercept))
    expected = direct.predict(X)
    probabilities = model.predict_proba(X)
    np.testing.assert_allclose(probabilities[:, 1] if loss == "logistic" else probabilities, expected, rtol=1e-13)
    np.testing.assert_allclose(np.exp(model.predict_log_proba(X)), probabilities, rtol=1e-14)


def test_the_names_mcp_and_scad_follow_lam() -> None:
    model = GroupSparseRegressor(LABELS, penalty="mcp", lam=0.1, tol=1e-9).fit(X, Y)
    direct = bcd(Problem.build(X, Y, LABELS, penalty="mcp", lam=0.1), tol=1e-9)
    np.testing.assert_array_equal(model.coef_, direct.w)
    # beyond its knot MCP does not shrink at all: the selected group has its least-squares coefficients
    selected = np.column_stack([X[:, :2], np.ones(60)])
    np.testing.assert_allclose(model.coef_[:2], np.linalg.lstsq(selected, Y, rcond=None)[0][:2], rtol=1e-7)


def check_lasso(make: Callable[..., Any]) -> None:
    """On groups of one lam is alpha, for one response and for several."""
    for y, peer in ((Y, Lasso), (np.column_stack([Y, X[:, 4]]), MultiTaskLasso)):
        ours, theirs = make(lam=0.1, tol=1e-12).fit(X, y), peer(alpha=0.1, tol=1e-12).fit(X, y)
        np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-6)
        np.testing.assert_allclose(ours.intercept_, theirs.intercept_, atol=1e-6)
        np.testing.assert_allclose(ours.predict(X), theirs.predict(X), atol=1e-6)
        assert ours.predict(X).shape == theirs.predict(X).shape
        assert ours.coef_.shape == theirs.coef_.shape


def test_lasso() -> None:
    check_lasso(GroupSparseRegressor)


def test_lasso_law_rejects_another_scale_of_lam() -> None:
    with pytest.raises(AssertionError):
        check_lasso(lambda lam, tol: GroupSparseRegressor(lam=lam / 2, tol=tol))


def test_logistic_lasso() -> None:
    ours = GroupSparseClassifier(lam=0.05, tol=1e-11).fit(X, BINARY)
    # scikit-learn 1.8 renamed the way to ask for an l1 penalty.
    l1 = {"l1_ratio": 1.0} if "deprecated" in str(LogisticRegression().penalty) else {"penalty": "l1"}
    theirs = LogisticRegression(C=1 / (60 * 0.05), **l1, solver="saga", tol=1e-10, max_iter=20_000, random_state=0).fit(
        X, BINARY
    )
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-5)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, atol=1e-5)


def test_poisson_with_ridge_only() -> None:
    # alpha / 2 ||w||^2, and the intercept free; D^2 is scikit-learn's
    ours = GroupSparseRegressor(loss="poisson", lam=0.0, ridge=0.1, tol=1e-12).fit(X, COUNTS)
    theirs = PoissonRegressor(alpha=0.1, tol=1e-10, max_iter=1000).fit(X, COUNTS)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-6)
    assert ours.score(X, COUNTS) == pytest.approx(theirs.score(X, COUNTS), rel=1e-8)


# -- weights of samples ------------------------------------------------------------------------------------------------

REPEATS = np.arange(60) % 3


def check_weights(fit: Callable[..., Any], y: np.ndarray) -> None:
    """Weight k is the sample k times, weight 0 none; a common factor changes nothing."""
    repeated = fit(np.repeat(X, REPEATS, axis=0), np.repeat(y, REPEATS))
    for factor in (1.0, 1e-3, 1e300):
        weighted = fit(X, y, factor * REPEATS)
        np.testing.assert_allclose(weighted.coef_, repeated.coef_, atol=1e-5)
        np.testing.assert_allclose(weighted.intercept_, repeated.intercept_, atol=1e-5)


MODELS = {
    "squares": (lambda: GroupSparseRegressor(LABELS, tol=1e-11), Y),
    "huber": (lambda: GroupSparseRegressor(LABELS, loss="huber", tol=1e-11), Y),
    "poisson": (lambda: GroupSparseRegressor(LABELS, loss="poisson", tol=1e-11), COUNTS),
    "logistic": (lambda: GroupSparseClassifier(LABELS, tol=1e-11), BINARY),
    "multinomial": (lambda: GroupSparseClassifier(LABELS, tol=1e-11), THREE),
}


@pytest.mark.parametrize(("make", "y"), MODELS.values(), ids=MODELS)
def test_weights_are_repetitions(make: Callable[[], Any], y: np.ndarray) -> None:
    check_weights(lambda *data: make().fit(*data), y)


def test_the_law_of_weights_rejects_weights_that_are_not_divided_by_their_sum() -> None:
    class Raw:
        def fit(self, X: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None) -> Any:
            solution = bcd(Problem.build(X, y, LABELS, lam=0.1, sample_weight=weights), tol=1e-11)
            self.coef_, self.intercept_ = solution.w, solution.intercept
            return self

    with pytest.raises(AssertionError):
        check_weights(lambda *data: Raw().fit(*data), Y)


def test_a_class_without_weight_is_no_class() -> None:
    weights = (THREE != 1).astype(float)
    model = GroupSparseClassifier(LABELS, tol=1e-11).fit(X, THREE, weights)
    without = GroupSparseClassifier(LABELS, tol=1e-11).fit(X[THREE != 1], THREE[THREE != 1])
    assert model.classes_.tolist() == [0, 2]
    np.testing.assert_allclose(model.coef_, without.coef_, atol=1e-6)


def test_a_number_weighs_all_samples_equally() -> None:
    np.testing.assert_array_equal(
        GroupSparseRegressor().fit(X, Y, 3.0).coef_, GroupSparseRegressor().fit(X, Y, np.ones(60)).coef_
    )


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
    big = np.array(rng.normal(size=(1000, 500)), order=order)
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


# -- in scikit-learn's machinery ---------------------------------------------------------------------------------------

PEOPLE = pd.DataFrame({"city": np.array(["Rome", "Oslo", "Bonn"])[np.arange(60) % 3], "age": X[:, 0], "noise": X[:, 1]})
INCOME = (np.arange(60) % 3 == 1) * 2.0 + np.sin(PEOPLE["age"])


def columns() -> ColumnTransformer:
    return ColumnTransformer(
        [
            ("hot", OneHotEncoder(sparse_output=False), ["city"]),
            ("spline", SplineTransformer(n_knots=4), ["age", "noise"]),
        ],
        verbose_feature_names_out=False,
    )


def test_a_column_transformer_describes_groups() -> None:
    transformer = columns()
    pipeline = make_pipeline(transformer, GroupSparseRegressor(transformer, lam=0.02)).fit(PEOPLE, INCOME)
    assert pipeline[-1].groups_.names == ("city", "age", "noise")
    assert pipeline[-1].selected_groups_.tolist() == ["city", "age"]
    assert pipeline.score(PEOPLE, INCOME) > 0.5


def test_clones_keep_a_fitted_column_transformer() -> None:
    transformer = columns()
    table = transformer.fit_transform(PEOPLE)
    model = GroupSparseRegressor(transformer, lam=0.1)
    assert clone(model).groups is transformer
    assert cross_val_score(model, table, INCOME, cv=3).mean() > 0.3
    assert GroupSparseRegressorCV(transformer, rule="bic").fit(table, INCOME).groups_.names == ("city", "age", "noise")


def test_a_pipeline_is_refitted_with_groups_by_prefix() -> None:
    pipeline = make_pipeline(columns().set_output(transform="pandas"), GroupSparseRegressor("prefix:_", lam=0.1))
    search = GridSearchCV(pipeline, {"groupsparseregressor__lam": [0.5, 0.05, 0.01]}, cv=3).fit(PEOPLE, INCOME)
    assert search.best_params_["groupsparseregressor__lam"] < 0.5
    assert search.best_estimator_[-1].groups_.names == ("city", "age", "noise")


def test_searches_and_selection() -> None:
    search = GridSearchCV(GroupSparseClassifier(LABELS), {"lam": [0.3, 0.03], "penalty": ["l2"]}, cv=3).fit(X, BINARY)
    assert search.best_params_["lam"] == 0.03
    assert (
        SelectFromModel(GroupSparseRegressor(LABELS, lam=0.2)).fit(X, Y).get_support().tolist()
        == [True] * 2 + [False] * 4
    )
    scaled = make_pipeline(StandardScaler(), GroupSparseRegressor(LABELS)).fit(X, Y)
    assert scaled.score(X, Y) > 0.9


@pytest.mark.parametrize("kind", MODELS)
def test_pickles_and_clones(kind: str) -> None:
    make, y = MODELS[kind]
    model = make().fit(X, y)
    twin = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(twin.predict(X), model.predict(X))
    assert twin.groups_ == model.groups_
    assert twin.solution_.objective == model.solution_.objective
    del twin.solution_  # what holds the data: predictions do without
    assert len(pickle.dumps(twin)) < X.nbytes
    np.testing.assert_array_equal(twin.predict(X), model.predict(X))
    fresh = clone(model)
    assert not hasattr(fresh, "coef_")
    assert repr(fresh) == repr(model)
    with pytest.raises(NotFittedError):
        fresh.predict(X)


def test_warm_starts() -> None:
    model = GroupSparseRegressor(LABELS, lam=0.05, tol=1e-10, warm_start=True, loss="huber").fit(X, Y)
    cold, coef = model.n_iter_, model.coef_
    model.fit(X, Y)
    assert model.n_iter_ < cold
    np.testing.assert_allclose(model.coef_, coef, atol=1e-8)
    model.set_params(groups=2).fit(X[:, :2], Y)  # another shape: from zero again
    assert model.coef_.shape == (2,)
    assert model.set_params(loss="squares").fit(X, np.column_stack([Y, Y])).coef_.shape == (2, 6)


def test_cross_validation_chooses_from_the_path() -> None:
    model = GroupSparseRegressorCV(LABELS, n_lams=15).fit(X, Y)
    assert model.lam_ == model.path_.lams[model.cv_.best_index]
    assert len(model.path_) == 15
    np.testing.assert_allclose(model.coef_, model.path_[model.cv_.best_index].w, atol=1e-3)
    one_se = GroupSparseRegressorCV(LABELS, n_lams=15, rule="1se").fit(X, Y)
    assert one_se.lam_ == model.path_.lams[model.cv_.one_se_index] > model.lam_
    assert one_se.selected_groups_.tolist() == ["size"]
    alone = GroupSparseRegressor(LABELS, lam=one_se.lam_, tol=1e-9).fit(X, Y)
    np.testing.assert_allclose(one_se.coef_, alone.coef_, atol=1e-6)
    assert model.path_.lams[0] == pytest.approx(lam_max(Problem.build(X, Y, LABELS)), rel=1e-12)


@pytest.mark.parametrize("rule", ["aic", "bic", "ebic"])
def test_criteria_choose_from_the_path(rule: str) -> None:
    model = GroupSparseRegressorCV(LABELS, n_lams=15, rule=rule).fit(X, Y)
    assert model.cv_ is None
    assert model.lam_ == model.path_.lams[np.argmin(model.path_.criterion(rule))]


def test_folds_of_any_kind() -> None:
    by_splitter = GroupSparseRegressorCV(lams=[0.01, 1.0, 0.1], cv=KFold(3)).fit(X, Y)
    assert by_splitter.path_.lams.tolist() == [1.0, 0.1, 0.01]
    assert by_splitter.cv_.fold_losses.shape == (3, 3)
    splits = list(GroupKFold(3).split(X, groups=np.arange(60) // 20))
    by_list = GroupSparseRegressorCV(lams=[0.01, 1.0, 0.1], cv=splits, n_jobs=1).fit(X, Y)
    np.testing.assert_allclose(np.sort(by_list.cv_.fold_losses), np.sort(by_splitter.cv_.fold_losses), rtol=1e-6)


def test_cross_validated_classes() -> None:
    model = GroupSparseClassifierCV(LABELS, n_lams=6, ratio=0.05, rule="1se", cv=3).fit(
        X, np.array(["a", "b", "c"])[THREE]
    )
    assert model.classes_.tolist() == ["a", "b", "c"]
    assert model.selected_groups_[0] == "size"
    assert model.score(X, np.array(["a", "b", "c"])[THREE]) > 0.8


def test_metadata_is_routed() -> None:
    import sklearn

    with sklearn.config_context(enable_metadata_routing=True):
        model = GroupSparseRegressor().set_fit_request(sample_weight=True, offset=True)
        model = model.set_predict_request(offset=False).set_score_request(sample_weight=True, offset=True)
        search = GridSearchCV(model, {"lam": [0.1, 0.01]}, cv=3)
        search.fit(X, Y, sample_weight=np.ones(60), offset=np.full(60, 5.0))
    assert search.best_estimator_.intercept_ == pytest.approx(GroupSparseRegressor(lam=0.01).fit(X, Y).intercept_ - 5.0)


# -- regularizers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", [MCP, MCP(), "sparseopt:MCP"], ids=["class", "instance", "module"])
def test_penalties_are_named_in_any_way(penalty: Any) -> None:
    model = clone(GroupSparseRegressor(LABELS, penalty=penalty)).fit(X, Y)
    assert model.solution_.problem.penalty.q == MCP()


USERS_CLASS = '''
from typing import NamedTuple
from sparseopt import regularizer
from sparseopt.scalar import maximum

@regularizer
class Twice(NamedTuple):
    """q(u) = 2 u."""
    def value(self, u):
        return 2.0 * u
    def slope(self, u):
        return 2.0 + 0.0 * u
    def prox(self, u, t):
        return maximum(u - 2.0 * t, 0.0)
    def slope_at_zero(self):
        return 2.0
'''


def test_a_users_regularizer(tmp_path: Path) -> None:
    # In a process of its own, and interpreted: in this one all kernels would be compiled again for the new class.
    (tmp_path / "my_penalties.py").write_text(USERS_CLASS)
    code = (
        "import numpy as np\n"
        "from sparseopt import GroupSparseRegressor\n"
        "X = np.random.default_rng(0).normal(size=(20, 4))\n"
        "y = X[:, 0] - X[:, 1]\n"
        "ours = GroupSparseRegressor(2, penalty='my_penalties:Twice', lam=0.1, tol=1e-10).fit(X, y)\n"
        "known = GroupSparseRegressor(2, lam=0.2, tol=1e-10).fit(X, y)\n"
        "np.testing.assert_allclose(ours.coef_, known.coef_, atol=1e-8)\n"
    )
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# -- errors: one sentence with the argument, the value and the remedy --------------------------------------------------

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
