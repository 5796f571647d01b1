"""Estimators with at most k groups: the numbers of `select`, of a search through all subsets, and of scikit-learn."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.feature_selection import SelectFromModel
from sklearn.linear_model import LinearRegression, LogisticRegression, PoissonRegressor
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from sparseopt import (
    Groups,
    GroupSubsetClassifier,
    GroupSubsetClassifierCV,
    GroupSubsetRegressor,
    GroupSubsetRegressorCV,
    Problem,
    Status,
    cross_validate_subsets,
    select,
    select_path,
)
from sparseopt.selection import METHODS
from sparseopt.solution import ConvergenceWarning

rng = np.random.default_rng(0)
X = rng.normal(size=(80, 8))
X[:, 4:6] += 0.6 * X[:, :2]
Y = X[:, :2] @ [1.0, -2.0] + 0.5 * X[:, 6] + 0.7 * rng.normal(size=80)
LABELS = ["size", "size", "age", "age", "place", "place", "time", "time"]
BINARY = Y > 0.3
THREE = np.digitize(Y, [-1.0, 1.0])
COUNTS = rng.poisson(np.exp(0.4 * Y))

R, C, RCV, CCV = GroupSubsetRegressor, GroupSubsetClassifier, GroupSubsetRegressorCV, GroupSubsetClassifierCV


@pytest.mark.filterwarnings("ignore")  # the checks warn by themselves; estimator and check decide, not the warning
@parametrize_with_checks([R(), C(), RCV(sizes=[0, 1, 2], cv=2), CCV(sizes=[1, 2], cv=2), R(k=1, method="omp")])
def test_scikit_learn_checks(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


# -- the same numbers as the rest of the package, and as others --------------------------------------------------------


@pytest.mark.parametrize("loss", ["squares", "huber", "poisson"])
def test_a_regressor_is_a_choice(loss: str) -> None:
    y = COUNTS if loss == "poisson" else Y
    offset, weights = np.linspace(-0.1, 0.1, 80), 1.0 + np.arange(80) % 3
    model = R(LABELS, k=2, loss=loss, ridge=0.01).fit(X, y, weights, offset)
    problem = Problem.build(X, y, LABELS, loss=loss, ridge=0.01, offset=offset, sample_weight=weights / weights.sum())
    direct = select(problem, 2)
    np.testing.assert_allclose(model.coef_, direct.w, rtol=1e-12, atol=0.0)
    assert model.intercept_ == pytest.approx(direct.intercept, rel=1e-12)
    np.testing.assert_allclose(model.predict(X[:5], offset[:5]), direct.predict(X[:5], offset[:5]), rtol=1e-12)
    assert (model.k_, model.n_iter_, len(model.selected_groups_)) == (2, direct.epochs, 2)
    assert model.solution_.problem.penalty.k == 2


@pytest.mark.parametrize(("y", "loss"), [(BINARY, "logistic"), (THREE, "multinomial")])
def test_a_classifier_is_a_choice(y: np.ndarray, loss: str) -> None:
    model = C(LABELS, k=1).fit(X, y)
    direct = select(Problem.build(X, y, LABELS, loss=loss, ridge=1e-4), 1)
    np.testing.assert_allclose(model.coef_, np.atleast_2d(direct.w.T), rtol=1e-10, atol=0.0)
    np.testing.assert_allclose(model.intercept_, np.atleast_1d(direct.intercept), rtol=1e-10)
    assert model.selected_groups_.tolist() == ["size"]
    assert model.score(X, y) > 0.7


def check_best(make: Callable[[int], Any]) -> None:
    """No other k groups have a smaller sum of squares; those chosen have their least-squares coefficients."""
    for k in (1, 2, 3):
        model = make(k).fit(X, Y)
        rests = {}
        for groups in combinations(range(4), k):
            columns = np.isin(np.arange(8) // 2, groups)
            plain = LinearRegression().fit(X[:, columns], Y)
            rests[groups] = np.sum((Y - plain.predict(X[:, columns])) ** 2)
        best = min(rests, key=lambda groups: rests[groups])
        chosen = np.flatnonzero(model.group_norms_)
        assert tuple(chosen.tolist()) == best
        columns = model.get_support()
        plain = LinearRegression().fit(X[:, columns], Y)
        np.testing.assert_allclose(model.coef_[columns], plain.coef_, rtol=1e-9)
        assert not model.coef_[~columns].any()
        assert model.intercept_ == pytest.approx(plain.intercept_, rel=1e-9)


@pytest.mark.parametrize("method", ["splicing", "exact"])
def test_the_best_of_all_subsets(method: str) -> None:
    check_best(lambda k: R(2, k=k, method=method))


def test_the_law_of_best_subsets_rejects_another_choice() -> None:
    with pytest.raises(AssertionError):
        check_best(lambda k: R(2, k=k, method="omp", weights=[10.0, 1.0, 1.0, 1.0]))
    with pytest.raises(AssertionError):
        check_best(lambda k: R(2, k=k, ridge=0.1))


def test_classes_as_in_scikit_learn() -> None:
    ours = C(LABELS, k=2, ridge=1e-2).fit(X, BINARY)
    columns = ours.get_support()
    theirs = LogisticRegression(C=1 / (80 * 1e-2), tol=1e-10, max_iter=1000).fit(X[:, columns], BINARY)
    np.testing.assert_allclose(ours.coef_[:, columns], theirs.coef_, atol=1e-6)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X[:, columns]), atol=1e-6)


def test_counts_as_in_scikit_learn() -> None:
    ours = R(LABELS, k=1, loss="poisson", ridge=0.1).fit(X, COUNTS)
    columns = ours.get_support()
    theirs = PoissonRegressor(alpha=0.1, tol=1e-10, max_iter=1000).fit(X[:, columns], COUNTS)
    np.testing.assert_allclose(ours.coef_[columns], theirs.coef_, atol=1e-6)
    assert ours.score(X, COUNTS) == pytest.approx(theirs.score(X[:, columns], COUNTS), rel=1e-8)


@pytest.mark.parametrize(("make", "y"), [(R, Y), (C, BINARY)], ids=["squares", "logistic"])
def test_weights_are_repetitions(make: Any, y: np.ndarray) -> None:
    repeats = np.arange(80) % 3
    repeated = make(LABELS, k=2).fit(np.repeat(X, repeats, axis=0), np.repeat(y, repeats))
    for factor in (1.0, 1e-3):
        weighted = make(LABELS, k=2).fit(X, y, factor * repeats)
        np.testing.assert_allclose(weighted.coef_, repeated.coef_, atol=1e-8)


def test_formats_of_X() -> None:
    dense = R(LABELS, k=2).fit(X, Y)
    names = [f"{label}_{j}" for j, label in enumerate(LABELS)]
    frame = pd.DataFrame(X, columns=names)
    for other in (sp.csc_array(X), sp.csr_matrix(X), X.tolist()):
        np.testing.assert_allclose(R(LABELS, k=2).fit(other, Y).coef_, dense.coef_, atol=1e-9)
    model = R("prefix", k=2).fit(frame, Y)
    np.testing.assert_allclose(model.coef_, dense.coef_, atol=1e-9)
    assert model.get_feature_names_out().tolist() == ["size_0", "size_1", "time_6", "time_7"]
    assert model.get_group_names_out().tolist() == ["size", "time"]
    single = R(LABELS, k=2).fit(X.astype(np.float32), Y)
    np.testing.assert_allclose(single.coef_, dense.coef_, atol=1e-4)


def test_several_responses() -> None:
    y = np.column_stack([Y, X[:, 6], Y])
    model = R(LABELS, k=2).fit(X, y)
    assert (model.coef_.shape, model.predict(X).shape) == ((3, 8), (80, 3))
    assert model.selected_groups_.tolist() == ["size", "time"]
    columns = model.get_support()
    np.testing.assert_allclose(model.coef_[:, columns], LinearRegression().fit(X[:, columns], y).coef_, atol=1e-9)


# -- groups that are always in -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["age", ["age"], 1, [np.int64(1)], ("age", 1), np.array(["age"])])
def test_groups_always_in(which: Any) -> None:
    model = R(LABELS, k=1, always_in=which, ridge=5.0).fit(X, Y)
    assert model.selected_groups_.tolist() == ["size", "age"]
    assert model.groups_.weights.tolist() == [2**0.5, 0.0, 2**0.5, 2**0.5]
    same = R(LABELS, k=1, weights={"age": 0.0}, ridge=5.0).fit(X, Y)
    np.testing.assert_array_equal(model.coef_, same.coef_)
    # The ridge spares them: residuals are orthogonal to their columns.
    rest = Y - model.predict(X)
    assert np.abs(X[:, 2:4].T @ rest).max() < 1e-9
    assert np.abs(X[:, :2].T @ rest).max() > 1.0


def test_weights_stay_where_groups_are_always_in() -> None:
    given = Groups.from_sizes([2, 2, 2, 2], weights="ones")
    model = R(given, k=1, always_in=[2]).fit(X, Y)
    assert model.groups_.weights.tolist() == [1.0, 1.0, 0.0, 1.0]
    assert given.weights.tolist() == [1.0] * 4
    assert R(given, k=0).fit(X, Y).selected_groups_.size == 0
    everything = R(given, k=0, always_in=range(4)).fit(X, Y)
    np.testing.assert_allclose(everything.coef_, LinearRegression().fit(X, Y).coef_, atol=1e-9)
    assert R(given, k=99).fit(X, Y).selected_groups_.size == 4


# -- methods -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_methods(method: str) -> None:
    model = R(LABELS, k=2, method=method).fit(X, Y)
    assert model.selected_groups_.tolist() == ["size", "time"]
    assert (model.solution_.gap is not None) == (method == "exact")


def test_options_of_methods() -> None:
    problem = Problem.build(X, Y, LABELS)
    model = R(LABELS, k=2, method="sequential", method_options={"by": "softmax"}).fit(X, Y)
    np.testing.assert_allclose(model.coef_, select(problem, 2, "sequential", by="softmax").w, rtol=1e-12)
    exact = R(LABELS, k=2, method="exact", method_options={"engine": "branching", "tol": 1e-9}).fit(X, Y)
    assert exact.solution_.status is Status.OPTIMAL
    assert exact.solution_.bound == pytest.approx(exact.solution_.objective, rel=1e-9)
    assert exact.solution_.proof is not None


def test_a_limit_of_time_is_a_warning() -> None:
    wide = rng.normal(size=(100, 60))
    y = wide @ rng.normal(size=60)
    with pytest.warns(ConvergenceWarning, match="Time ran out"):
        model = R(k=10, method="exact", method_options={"time_limit": 1e-3}).fit(wide, y)
    assert model.solution_.status is Status.TIME_LIMIT
    assert 0.0 < model.solution_.gap <= 2.0


def test_warm_starts() -> None:
    wide = rng.normal(size=(100, 40))
    y = wide[:, :10] @ rng.normal(size=10) + rng.normal(size=100)
    model = R(k=8, loss="huber", warm_start=True).fit(wide, y)
    cold, coef, steps = model.coef_, model.coef_, model.n_iter_
    model.fit(wide, y)
    assert model.n_iter_ == 0 <= steps
    np.testing.assert_allclose(model.coef_, coef, atol=1e-7)
    model.set_params(k=3).fit(wide, y)  # more groups than allowed to start from
    assert model.k_ == np.count_nonzero(model.coef_) == 3
    model.set_params(k=8, method="ompr").fit(wide, y)
    assert np.count_nonzero(model.coef_) == 8
    greedy = R(k=2, method="omp", warm_start=True).fit(wide, y)
    greedy.fit(wide, wide[:, 30] + wide[:, 31])  # a method that never goes back starts anew
    assert np.flatnonzero(greedy.coef_).tolist() == [30, 31]
    model.set_params(groups=2).fit(wide, y)  # other groups: anew
    assert len(model.groups_) == 20
    np.testing.assert_array_equal(cold, coef)


# -- how many groups ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["aic", "bic", "ebic", "bonferroni", "gap"])
def test_criteria_choose_from_the_path(rule: str) -> None:
    model = RCV(LABELS, rule=rule).fit(X, Y)
    path = select_path(Problem.build(X, Y, LABELS))
    assert model.cv_ is None
    assert model.path_.sizes.tolist() == [0, 1, 2, 3, 4]
    assert model.k_ == path.sizes[np.argmin(path.criterion(rule))]
    np.testing.assert_allclose(model.coef_, path.best(rule).w, rtol=1e-12)
    assert model.k_ in (1, 2)


@pytest.mark.parametrize("rule", ["min", "1se"])
def test_folds_choose_from_the_path(rule: str) -> None:
    model = RCV(LABELS, rule=rule, sizes=range(4), cv=4).fit(X, Y)
    direct = cross_validate_subsets(Problem.build(X, Y, LABELS), range(4), cv=4)
    np.testing.assert_allclose(model.cv_.fold_losses, direct.fold_losses, rtol=1e-10)
    np.testing.assert_allclose(model.coef_, direct.choose(rule).w, rtol=1e-10)
    assert model.path_ is model.cv_.path
    assert model.k_ == 2
    # The same k by hand: means of squared errors on samples left out, each half of scikit-learn's.
    folds = KFold(4, shuffle=True, random_state=0)
    by_hand = [
        -cross_val_score(R(LABELS, k=k), X, Y, cv=folds, scoring="neg_mean_squared_error").mean() for k in range(4)
    ]
    np.testing.assert_allclose(2.0 * model.cv_.mean, by_hand, rtol=1e-9)


def test_folds_of_any_kind_and_processes() -> None:
    by_splitter = RCV(LABELS, sizes=[2, 0, 2, 1], cv=KFold(3)).fit(X, Y)
    assert by_splitter.path_.sizes.tolist() == [0, 1, 2]
    by_list = RCV(LABELS, sizes=[0, 1, 2], cv=list(KFold(3).split(X)), n_jobs=1).fit(X, Y)
    np.testing.assert_allclose(by_list.cv_.fold_losses, by_splitter.cv_.fold_losses, rtol=1e-12)


def test_cross_validated_classes() -> None:
    labels = np.array(["a", "b", "c"])[THREE]
    model = CCV(LABELS, sizes=[0, 1, 2], rule="1se", cv=3, always_in="place").fit(X, labels)
    assert model.classes_.tolist() == ["a", "b", "c"]
    assert model.selected_groups_.tolist() == ["size", "place"]
    assert model.k_ == 1
    assert model.predict_proba(X).shape == (80, 3)


def test_the_chosen_size_is_proved() -> None:
    model = RCV(LABELS, rule="bic", method="exact").fit(X, Y)
    assert model.solution_.status is Status.OPTIMAL
    assert model.solution_.gap <= 1e-6
    assert model.k_ == RCV(LABELS, rule="bic").fit(X, Y).k_


# -- in scikit-learn's machinery ---------------------------------------------------------------------------------------


def test_searches_pipelines_and_selection() -> None:
    search = GridSearchCV(R(LABELS), {"k": [0, 2], "method": ["splicing", "omp"]}, cv=3).fit(X, Y)
    assert search.best_params_["k"] == 2
    pipeline = make_pipeline(StandardScaler(), SelectFromModel(R(LABELS, k=1)), LinearRegression()).fit(X, Y)
    assert pipeline[1].get_support().tolist() == [True] * 2 + [False] * 6
    assert cross_val_score(C(LABELS, k=1), X, THREE, cv=3).mean() > 0.6


@pytest.mark.parametrize(("model", "y"), [(R(LABELS, k=2), Y), (C(LABELS, k=2), THREE), (RCV(2, rule="bic"), Y)])
def test_pickles_and_clones(model: Any, y: np.ndarray) -> None:
    model = clone(model).fit(X, y)
    twin = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(twin.predict(X), model.predict(X))
    assert twin.solution_.objective == model.solution_.objective
    fresh = clone(model)
    assert not hasattr(fresh, "coef_")
    assert repr(fresh) == repr(model)


# -- errors: one sentence with the argument, the value and the remedy --------------------------------------------------

WRONG: dict[str, tuple[Any, type[Exception], str]] = {
    "k of text": (R(k="2"), TypeError, "k must be an integer, got .2."),
    "k of float": (R(k=2.0), TypeError, "k must be an integer, got 2.0"),
    "negative k": (R(k=-1), ValueError, "k is -1: pass an integer >= 0"),
    "loss": (R(loss="square"), ValueError, "loss is 'square', .* did you mean 'squares'"),
    "method": (R(method="splice"), ValueError, "method is 'splice', which is unknown: choose one of 'splicing', 'omp'"),
    "option": (R(method_options={"exchanges": 3}), TypeError, "option 'exchanges' is unknown to splicing: it takes"),
    "options": (R(method_options=[3]), TypeError, r"method_options is \[3\]: pass a dict from option to value"),
    "start": (
        R(method_options={"start": [0]}),
        TypeError,
        "method_options has 'start', which is no option of a method",
    ),
    "option's value": (R(method_options={"exchange": 0}), ValueError, "exchange is 0: pass"),
    "engine": (R(method="exact", method_options={"engine": "x"}), ValueError, "engine is 'x', which is unknown"),
    "always in": (R(LABELS, always_in="ages"), ValueError, "always_in names the group 'ages', which .* mean 'age'"),
    "number": (R(LABELS, always_in=[4]), ValueError, "always_in has the group 4: pass numbers from 0 to 3, or names"),
    "kind": (R(LABELS, always_in=[1.0]), TypeError, "always_in has 1.0: pass names or numbers of groups"),
    "not several": (R(LABELS, always_in=1.0), TypeError, "always_in is 1.0: pass names or numbers of groups"),
    "ridge": (R(ridge=-1.0), ValueError, "ridge is -1.0: pass a number that is finite and >= 0"),
    "delta": (R(loss="huber", delta=0.0), ValueError, "delta is 0.0: pass a number that is finite and > 0"),
    "groups": (R(LABELS[:5]), ValueError, "groups has 5 entries for 8 features"),
    "rule": (RCV(rule="max"), ValueError, "rule is 'max', which is unknown: choose one of 'min', '1se', .* 'gap'"),
    "sizes of text": (RCV(sizes="many"), TypeError, "sizes is 'many': pass a sequence of numbers of groups"),
    "sizes of floats": (RCV(sizes=[1.5]), TypeError, r"sizes is \[1.5\]: pass a sequence of numbers of groups"),
    "no sizes": (RCV(sizes=np.array([], dtype=int)), ValueError, "sizes is empty: pass at least one"),
    "negative sizes": (RCV(sizes=[-1]), ValueError, "sizes is -1: pass an integer >= 0"),
    "gaps": (RCV(sizes=[0, 2, 4], rule="gap"), ValueError, "sizes are .*: the gap criterion needs three consecutive"),
    "cv": (RCV(cv=81), ValueError, "cv is 81: pass a number of folds"),
    "one fold": (RCV(groups=LABELS, cv=1), ValueError, "cv is 1: pass a number of folds"),
}


@pytest.mark.parametrize(("model", "error", "sentence"), WRONG.values(), ids=WRONG)
def test_wrong_arguments(model: Any, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence) as caught:
        model.fit(X, Y)
    assert "\n" not in str(caught.value)


# -- degenerate data ---------------------------------------------------------------------------------------------------

DEGENERATE = {
    "constant y": (X, np.full(80, 3.0)),
    "zero X": (np.zeros((80, 4)), Y),
    "constant column": (np.column_stack([X[:, :3], np.full(80, 7.0)]), Y),
    "equal columns": (np.column_stack([X[:, :1]] * 4), Y),
    "one feature": (X[:, :1], Y),
    "more features than samples": (X[:4], Y[:4]),
    "one sample": (X[:1], Y[:1]),
}


@pytest.mark.parametrize("kind", DEGENERATE)
def test_degenerate_data(kind: str) -> None:
    data, y = DEGENERATE[kind]
    model = R(1, k=2).fit(data, y)
    assert model.solution_.status.ok
    assert np.isfinite(model.predict(data)).all()
    assert model.selected_groups_.size <= 2
    if len(y) > 4:
        chosen = RCV(1, sizes=[0, 1, 2], cv=2).fit(data, y)
        assert np.isfinite(chosen.predict(data)).all()
    if not data.any() or np.ptp(y) == 0.0:
        assert model.intercept_ == pytest.approx(y.mean(), rel=1e-12)
