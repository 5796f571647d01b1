"""Estimators in scikit-learn's machinery: pipelines, searches, clones, pickles, warm starts and cross-validation."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
from estimator_cases import BINARY, LABELS, MODELS, THREE, X, Y, columns
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.feature_selection import SelectFromModel
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sparseopt import (
    GroupSparseClassifier,
    GroupSparseClassifierCV,
    GroupSparseRegressor,
    GroupSparseRegressorCV,
    Problem,
    lam_max,
)

PEOPLE = pd.DataFrame({"city": np.array(["Rome", "Oslo", "Bonn"])[np.arange(60) % 3], "age": X[:, 0], "noise": X[:, 1]})
INCOME = (np.arange(60) % 3 == 1) * 2.0 + np.sin(PEOPLE["age"])


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
