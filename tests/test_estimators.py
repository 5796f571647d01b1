"""Estimators: scikit-learn's own examination, and the numbers of `Problem.build`, a solver and other packages."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from estimator_cases import BINARY, COUNTS, LABELS, MODELS, REPEATS, THREE, X, Y
from sklearn.base import clone
from sklearn.linear_model import Lasso, LogisticRegression, MultiTaskLasso, PoissonRegressor
from sklearn.utils.estimator_checks import parametrize_with_checks

from sparseopt import (
    MCP,
    GroupSparseClassifier,
    GroupSparseClassifierCV,
    GroupSparseRegressor,
    GroupSparseRegressorCV,
    Problem,
    bcd,
)

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


def check_weights(fit: Callable[..., Any], y: np.ndarray) -> None:
    """Weight k is the sample k times, weight 0 none; a common factor changes nothing."""
    repeated = fit(np.repeat(X, REPEATS, axis=0), np.repeat(y, REPEATS))
    for factor in (1.0, 1e-3, 1e300):
        weighted = fit(X, y, factor * REPEATS)
        np.testing.assert_allclose(weighted.coef_, repeated.coef_, atol=1e-5)
        np.testing.assert_allclose(weighted.intercept_, repeated.intercept_, atol=1e-5)


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
