"""The losses: their laws over a table, their values against other people's code, and what they refuse."""

from __future__ import annotations

import dataclasses
import pickle

import mpmath
import numpy as np
import pytest
import scipy.optimize
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from sparseopt.laws.losses import check_loss
from sparseopt.losses import LOSSES, Huber, Logistic, Loss, Multinomial, Poisson, Squares, get_loss

NAMES = tuple(LOSSES)
N = 14


def response(name: str, n: int, n_outputs: int, rng: np.random.Generator) -> np.ndarray:
    """A target that every loss of that name takes, with the rare values (zero counts, far outliers) in it."""
    if name == "logistic":
        return np.vstack([np.zeros(n_outputs), np.ones(n_outputs), rng.integers(0, 2, (n - 2, n_outputs))])
    if name == "poisson":
        return np.vstack([np.zeros(n_outputs), np.full(n_outputs, 40), rng.poisson(2.0, (n - 2, n_outputs))])
    if name == "multinomial":
        classes = max(2, n_outputs)
        return np.concatenate([np.arange(classes), rng.integers(0, classes, n - classes)])
    return np.vstack([np.full(n_outputs, 30.0), 2.0 * rng.standard_normal((n - 1, n_outputs))])


def build(name: str, n_outputs: int = 1, weights: bool = False, offset: bool = False, seed: int = 0) -> Loss:
    rng = np.random.default_rng(seed)
    y = response(name, N, n_outputs, rng)
    columns = max(2, n_outputs) if name == "multinomial" else n_outputs
    s = np.concatenate([[1.0, 2.0, 1.5], rng.integers(0, 3, N - 3)]) if weights else None
    return get_loss(name, y, s, rng.standard_normal((N, columns)) if offset else None)


@pytest.mark.parametrize("offset", [False, True], ids=["", "offset"])
@pytest.mark.parametrize("weights", [False, True], ids=["", "weights"])
@pytest.mark.parametrize("n_outputs", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_laws(name, n_outputs, weights, offset):
    for seed in range(3):
        check_loss(build(name, n_outputs, weights, offset, seed), np.random.default_rng(seed))


@pytest.mark.parametrize("name", NAMES)
def test_laws_hold_on_one_sample_of_each_kind_and_on_a_subset_without_a_class(name):
    loss = build(name, 3)
    check_loss(loss.take([0]))
    check_loss(loss.take([0, 2, 2, 5]))


def test_laws_hold_for_any_knot_and_for_fractional_counts():
    y = np.random.default_rng(0).standard_normal(N)
    for delta in (1e-3, 0.5, 100.0):
        check_loss(Huber.of(y, delta=delta))
    check_loss(Poisson.of(np.abs(y)))


# Values against other packages -----------------------------------------------------------------------------------


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def test_squares_is_half_the_mean_squared_error(rng):
    y, z, s = rng.standard_normal((N, 2)), rng.standard_normal((N, 2)), rng.random(N)
    expected = metrics.mean_squared_error(y, z, multioutput="raw_values").sum() / 2.0
    assert Squares.of(y).value(z) == pytest.approx(expected, rel=1e-14)
    weighted = metrics.mean_squared_error(y, z, sample_weight=s, multioutput="raw_values").sum() / 2.0
    assert Squares.of(y, s).value(z) == pytest.approx(s.sum() * weighted, rel=1e-14)


def test_huber_is_scipys(rng):
    y, z = 3.0 * rng.standard_normal((N, 1)), rng.standard_normal((N, 1))
    assert Huber.of(y, delta=0.8).value(z) == pytest.approx(scipy.special.huber(0.8, z - y).mean(), rel=1e-14)
    assert Huber.of(y, delta=0.8).derivative(z) == pytest.approx(np.clip(z - y, -0.8, 0.8) / N, rel=1e-14)


def test_logistic_is_log_loss(rng):
    y, z, s = rng.integers(0, 2, N), rng.standard_normal((N, 1)), rng.random(N)
    p = scipy.special.expit(z[:, 0])
    assert Logistic.of(y).value(z) == pytest.approx(metrics.log_loss(y, p), rel=1e-13)
    assert Logistic.of(y, s).value(z) == pytest.approx(
        metrics.log_loss(y, p, sample_weight=s, normalize=False), rel=1e-13
    )
    assert Logistic.of(y).mean(z)[:, 0] == pytest.approx(p, rel=1e-14)


def test_multinomial_is_log_loss(rng):
    y, z = np.concatenate([[0, 1, 2], rng.integers(0, 3, N - 3)]), rng.standard_normal((N, 3))
    p = scipy.special.softmax(z, axis=1)
    assert Multinomial.of(y).value(z) == pytest.approx(metrics.log_loss(y, p), rel=1e-13)
    assert Multinomial.of(y).mean(z) == pytest.approx(p, rel=1e-13)


def test_poisson_is_half_the_mean_deviance(rng):
    y, z = rng.poisson(3.0, N), rng.standard_normal((N, 1))
    deviance = metrics.mean_poisson_deviance(y, np.exp(z[:, 0]))
    loss = Poisson.of(y)
    assert loss.value(z) == pytest.approx(deviance / 2.0, rel=1e-13)
    assert loss.deviance(z) == pytest.approx(N * deviance, rel=1e-13)


def test_two_classes_are_logistic_at_the_difference(rng):
    y, z = np.concatenate([[0, 1], rng.integers(0, 2, N - 2)]), rng.standard_normal((N, 2))
    two, one = Multinomial.of(y), Logistic.of(y)
    difference = z[:, 1:] - z[:, :1]
    assert two.value(z) == pytest.approx(one.value(difference), rel=1e-13)
    assert two.derivative(z)[:, 1:] == pytest.approx(one.derivative(difference), rel=1e-12)
    assert two.curvature(z) == pytest.approx(2.0 * one.curvature(difference), rel=1e-12)


def test_huber_with_a_far_knot_is_squares(rng):
    y, z = rng.standard_normal((N, 1)), rng.standard_normal((N, 1))
    far, squares = Huber.of(y, delta=1e6), Squares.of(y)
    assert far.value(z) == pytest.approx(squares.value(z), rel=1e-14)
    assert far.conjugate(far.derivative(z)) == pytest.approx(squares.conjugate(squares.derivative(z)), rel=1e-14)


def test_curvature_is_tight(rng):
    z = rng.standard_normal((N, 1))
    p = scipy.special.expit(z[:, 0])
    assert build("logistic").curvature(z) == pytest.approx(p * (1.0 - p) / N, rel=1e-13)
    assert build("poisson").curvature(z) == pytest.approx(np.exp(z[:, 0]) / N, rel=1e-14)
    assert build("squares").curvature(z) == pytest.approx(np.full(N, 1.0 / N), rel=1e-15)
    # At equal probabilities the Hessian is I / K - 11' / K^2, whose largest eigenvalue is 1 / K.
    assert build("multinomial", 3).curvature(np.zeros((N, 3))) == pytest.approx(np.full(N, 1.0 / 3.0 / N), rel=1e-14)
    assert build("poisson").curvature_bound() is None
    assert build("logistic").curvature_bound() == pytest.approx(np.full(N, 0.25 / N), rel=1e-15)
    assert build("multinomial").curvature_bound() == pytest.approx(np.full(N, 0.5 / N), rel=1e-15)


@pytest.mark.parametrize(("name", "low", "high"), [("huber", -1.0, 1.0), ("logistic", 0, 1), ("poisson", 0, 5)])
def test_conjugate_is_the_supremum(name, low, high):
    """Against a scalar search, for one sample at a time; low and high are the ends of v + y, or of v for Huber."""
    for y in (0.0, 1.0):
        loss = LOSSES[name](np.array([[y]]), np.array([0.4]), np.array([[0.3]]))
        shift = 0.0 if name == "huber" else y
        for v in np.linspace(low - shift, high - shift, 7)[1:-1]:
            a = np.array([[0.4 * v]])
            found = scipy.optimize.minimize_scalar(
                lambda z, loss=loss, a=a: loss.value(np.array([[z]])) - float(a[0, 0]) * z, bounds=(-40.0, 40.0)
            )
            assert loss.conjugate(a) == pytest.approx(-found.fun, abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("offset", [False, True])
def test_null_intercept_is_the_minimum(name, offset):
    loss = build(name, 2, weights=True, offset=offset)

    def value(b):
        return loss.value(np.tile(b, (N, 1)))

    found = scipy.optimize.minimize(value, np.zeros(loss.n_outputs), method="BFGS", options={"gtol": 1e-9})
    assert value(loss.null_intercept()) <= found.fun + 1e-12
    assert value(loss.null_intercept()) == pytest.approx(found.fun, rel=1e-6)


def test_null_intercept_in_closed_form():
    assert Squares.of([1.0, 4.0], [3.0, 1.0], [0.5, 0.0]).null_intercept() == pytest.approx([(3 * 0.5 + 4.0) / 4.0])
    assert Logistic.of([0, 1, 1], [1.0, 1.0, 2.0]).null_intercept() == pytest.approx([np.log(3.0)], rel=1e-14)
    assert Poisson.of([0, 6]).null_intercept() == pytest.approx([np.log(3.0)], rel=1e-14)
    logs = np.log([0.5, 0.25, 0.25])
    assert Multinomial.of([0, 0, 1, 2]).null_intercept() == pytest.approx(logs - logs.mean(), rel=1e-14)
    assert Huber.of([0.0, 0.0, 0.0, 9.0], delta=1.0).null_intercept() == pytest.approx([1.0 / 3.0], rel=1e-14)


def test_null_intercept_survives_large_offsets(rng):
    for scale in (10.0, 300.0):
        for name in NAMES:
            loss = build(name, 3)
            loss = dataclasses.replace(loss, offset=scale * rng.standard_normal(loss.y.shape))
            b = loss.null_intercept()
            derivative = loss.derivative(np.tile(b, (N, 1)))
            assert np.abs(derivative.sum(axis=0)).max() <= 1e-10 * np.abs(derivative).sum()


def test_deviance_of_squares_is_the_residual_sum(rng):
    y = rng.standard_normal((N, 1))
    z = np.zeros((N, 1))
    assert Squares.of(y).deviance(z) == pytest.approx((y**2).sum(), rel=1e-14)
    assert Squares.of(y, np.full(N, 5.0)).deviance(z) == pytest.approx((y**2).sum(), rel=1e-14)
    first = np.arange(N) < 4
    assert Squares.of(y, first.astype(float)).deviance(z) == pytest.approx((y[first] ** 2).sum(), rel=1e-14)


# Numbers far out, against 60 digits --------------------------------------------------------------------------------


def close(got: float, exact: mpmath.mpf, rel: float) -> bool:
    return abs(mpmath.mpf(float(got)) - exact) <= rel * abs(exact) + mpmath.mpf(5e-324)


@settings(max_examples=100)
@given(z=st.floats(-1e4, 1e4), y=st.sampled_from([0.0, 1.0]))
def test_logistic_is_accurate_everywhere(z, y):
    loss = Logistic(np.array([[y]]), np.ones(1))
    with mpmath.workdps(5000 if abs(z) > 500 else 300):
        value = mpmath.log1p(mpmath.exp(mpmath.mpf(z))) - mpmath.mpf(y) * mpmath.mpf(z)
        p = 1 / (1 + mpmath.exp(-mpmath.mpf(z)))
        at = np.array([[z]])
        # Below 1e-308 numbers lose digits; there an absolute error of the smallest normal number is allowed.
        assert close(loss.value(at), value, 1e-14) or value < 1e-307
        assert close(loss.derivative(at)[0, 0], p - y, 1e-14) or abs(p - y) < 1e-307
        assert close(loss.curvature(at)[0], p * (1 - p), 1e-14) or p * (1 - p) < 1e-307
        assert loss.value(at) >= 0.0


@settings(max_examples=100)
@given(z=st.floats(-50, 50), y=st.integers(0, 10**9))
def test_poisson_is_accurate_near_its_minimum(z, y):
    loss = Poisson(np.array([[float(y)]]), np.ones(1))
    with mpmath.workdps(60):
        entropy = y * mpmath.log(y) - y if y else mpmath.mpf(0)
        value = mpmath.exp(mpmath.mpf(z)) - y * mpmath.mpf(z) + entropy
        scale = mpmath.exp(mpmath.mpf(z)) + y
        # Far from the minimum the value is larger than the scale by up to 70: two ulps of it are what float64 can hold.
        assert abs(loss.value(np.array([[z]])) - value) <= 1e-14 * scale + 2.0 * np.finfo(float).eps * value
    if y:
        # One part in 1e8 off the minimum, L is about y 1e-16 / 2: naive evaluation has an error of y 1e-15.
        near = np.log(y) + 1e-8
        with mpmath.workdps(60):
            exact = mpmath.exp(mpmath.mpf(near)) - y * mpmath.mpf(near) + entropy
        assert abs(loss.value(np.array([[near]])) - exact) <= 1e-7 * y * 1e-15 + 1e-6 * exact


def test_multinomial_is_accurate_far_out():
    loss = Multinomial.of([0, 1, 2])
    z = np.array([[50.0, 0.0, 0.0], [0.0, 40.0, -1e4], [0.0, 0.0, 45.0]])
    with mpmath.workdps(60):
        exact = (
            mpmath.log1p(2 * mpmath.exp(-50)) + mpmath.log1p(mpmath.exp(-40)) + mpmath.log1p(2 * mpmath.exp(-45))
        ) / 3
    assert close(loss.value(z), exact, 1e-13)
    assert loss.derivative(z)[0, 0] == pytest.approx(-2.0 * np.exp(-50.0) / 3.0, rel=1e-13)


def test_overflow_is_infinite_and_silent():
    loss = Poisson.of([1, 0, 3])
    far = np.array([[1e4], [0.0], [-1e4]])
    assert loss.value(far) == np.inf
    assert loss.derivative(far)[:, 0] == pytest.approx([np.inf, 1.0 / 3.0, -1.0])
    assert loss.curvature(far)[0] == np.inf
    assert loss.mean(far)[0, 0] == np.inf
    weightless = Poisson.of([1, 0, 3], [0.0, 1.0, 1.0])
    assert weightless.value(far) == pytest.approx(1.0 + 3.0 * (np.log(3.0) - 1.0) + 3e4)
    assert weightless.derivative(far)[0, 0] == 0.0
    assert Squares.of([0.0]).value(np.array([[1e200]])) == np.inf


@pytest.mark.parametrize("name", NAMES)
def test_nan_in_nan_out(name):
    loss = build(name, 2)
    z = np.zeros((N, 2))
    z[3, 0] = np.nan
    assert np.isnan(loss.value(z))
    assert np.isnan(loss.derivative(z)[3]).any()
    assert not np.isnan(np.delete(loss.derivative(z), 3, axis=0)).any()
    assert np.isnan(loss.conjugate(z))
    assert np.isnan(loss.dual_scale(z))


# Duality -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "a", "scale"),
    [
        (Squares.of([1.0]), [[1e9]], 1.0),
        (Huber.of([1.0], delta=2.0), [[-8.0]], 0.25),
        (Logistic.of([0, 1], [1.0, 1.0]), [[4.0], [0.0]], 0.25),
        (Logistic.of([0, 1], [1.0, 1.0]), [[0.5], [-2.0]], 0.5),
        (Logistic.of([0, 1], [1.0, 1.0]), [[-1e-3], [0.0]], 0.0),
        (Logistic.of([0, 1], [2.0, 1.0]), [[4.0], [0.0]], 0.5),
        (Poisson.of([3, 0], [1.0, 1.0]), [[-4.0], [1e9]], 0.75),
        (Multinomial.of([0, 1], [1.0, 1.0]), [[-2.0, 2.0], [0.0, 0.0]], 0.5),
        (Multinomial.of([0, 1], [1.0, 1.0]), [[-0.5, 0.4], [0.0, 0.0]], 0.0),
        (Squares.of([1.0, 2.0], [1.0, 0.0]), [[1.0], [1e-9]], 0.0),
    ],
)
def test_dual_scale_by_hand(loss, a, scale):
    a = np.array(a)
    assert loss.dual_scale(a) == pytest.approx(scale, rel=1e-15)
    inside = loss.dual_scale(a) * a
    assert np.isfinite(loss.conjugate(inside))
    assert loss.inner_conjugate(inside) == loss.conjugate(inside)
    assert (loss.conjugate(a) == np.inf) == (scale < 1.0)


@settings(max_examples=60)
@given(name=st.sampled_from(NAMES), seed=st.integers(0, 10**6), size=st.floats(1e-3, 1e3))
def test_scaled_dual_points_bound_the_value_from_below(name, seed, size):
    loss = build(name, 2, weights=True, offset=True, seed=seed)
    rng = np.random.default_rng(seed)
    z, there = size**0.5 * rng.standard_normal((2, N, 2))
    a = size * loss.derivative(np.clip(there, -8.0, 8.0))
    a *= loss.dual_scale(a)
    slack = loss.value(z) + loss.conjugate(a) - (a * z).sum()
    assert slack >= -1e-10 * (1.0 + abs(loss.conjugate(a)) + np.abs(a * z).sum())


# Construction ------------------------------------------------------------------------------------------------------


def test_labels_come_in_many_forms():
    expected = np.array([[0.0], [1.0], [1.0]])
    for y in (
        [0, 1, 1],
        [False, True, True],
        [-1, 1, 1],
        np.array([[0.0], [1.0], [1.0]]),
        np.array([0, 1, 1], dtype="uint8"),
    ):
        loss = Logistic.of(y)
        assert loss.y.dtype == np.float64
        assert (loss.y == expected).all()
    one_hot = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    for y in ([0, 2, 1], [[0], [2], [1]], np.array([0.0, 2.0, 1.0]), one_hot, one_hot.astype(bool)):
        assert (Multinomial.of(y).y == one_hot).all()


def test_shapes_weights_and_offsets():
    loss = Squares.of(np.zeros((3, 2)), offset=[1.0, 2.0, 3.0])
    assert (loss.n_samples, loss.n_outputs) == (3, 2)
    assert (loss.offset == [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]).all()
    assert loss.s == pytest.approx(np.full(3, 1.0 / 3.0))
    assert (Squares.of([1.0, 2.0], [3, 0]).s == [3.0, 0.0]).all()


def test_the_loss_owns_its_arrays():
    y, weights, offset = np.ones(3), np.ones(3), np.zeros(3)
    loss = Squares.of(y, weights, offset)
    y[:], weights[:], offset[:] = 7.0, 7.0, 7.0
    assert loss.value(np.zeros((3, 1))) == 1.5
    with pytest.raises(dataclasses.FrozenInstanceError):
        loss.y = y


@pytest.mark.parametrize("name", NAMES)
def test_pickle_and_take_and_new_samples(name):
    loss = build(name, 2, weights=True, offset=True)
    z = np.random.default_rng(0).standard_normal(loss.y.shape)
    assert pickle.loads(pickle.dumps(loss)).value(z) == loss.value(z)
    assert loss.take(np.arange(N)).value(z) == pytest.approx(loss.value(z), rel=1e-14)
    assert loss.take(loss.s > 0.0).value(z[loss.s > 0.0]) == pytest.approx(loss.value(z), rel=1e-14)
    assert loss.take([0, 1, 1]).s.sum() == pytest.approx(loss.s.sum(), rel=1e-14)
    assert loss.response(np.zeros((2 * N, 2))).shape == (2 * N, 2)
    assert build(name).take([0, 1]).s == pytest.approx([0.5, 0.5])


def test_take_refuses_nothing_that_counts():
    loss = Squares.of([1.0, 2.0], [1.0, 0.0])
    for rows in ([1], [], np.zeros(2, dtype=bool)):
        with pytest.raises(ValueError, match="none of positive weight"):
            loss.take(np.asarray(rows, dtype=None if len(rows) else np.int64))


def test_a_vector_is_not_a_column():
    loss = Squares.of([1.0, 2.0])
    for method in (loss.value, loss.derivative, loss.curvature, loss.mean):
        with pytest.raises(ValueError, match=r"z has shape \(2,\) but y has shape \(2, 1\)"):
            method(np.zeros(2))
    for method in (loss.conjugate, loss.dual_scale):
        with pytest.raises(ValueError, match=r"a has shape \(2,\) but y has shape \(2, 1\)"):
            method(np.zeros(2))


BAD = [
    (Squares, {"y": [1.0, np.nan]}, r"^y\[1\] is nan: remove or impute"),
    (Squares, {"y": [[1.0, 2.0], [3.0, -np.inf]]}, r"^y\[1, 1\] is -inf: remove or impute"),
    (Squares, {"y": 3.0}, r"^y has 0 dimensions: pass one row per sample"),
    (Squares, {"y": np.zeros((2, 2, 2))}, r"^y has 3 dimensions: pass one row per sample"),
    (Squares, {"y": []}, r"^y has shape \(0,\) and so no samples"),
    (Squares, {"y": np.zeros((3, 0))}, r"^y has shape \(3, 0\) and so no samples"),
    (Squares, {"y": [1, 2], "weights": [1.0]}, r"^weights has shape \(1,\) but y has 2 samples"),
    (Squares, {"y": [1, 2], "weights": 1.0}, r"^weights has shape \(\) but y has 2 samples"),
    (Squares, {"y": [1, 2], "weights": [1.0, -2.0]}, r"^weights\[1\] is -2: pass weights >= 0"),
    (Squares, {"y": [1, 2], "weights": [0.0, 0.0]}, r"^weights has 2 zeros and nothing else"),
    (Squares, {"y": [1, 2], "weights": [1.0, np.inf]}, r"^weights\[1\] is inf"),
    (Squares, {"y": [1, 2], "offset": [1.0, 2.0, 3.0]}, r"^offset has shape \(3,\) but y has shape \(2, 1\)"),
    (Squares, {"y": [1, 2], "offset": [1.0, np.nan]}, r"^offset\[1\] is nan"),
    (
        Squares,
        {"y": np.ones((2, 3)), "offset": np.ones((2, 2))},
        r"^offset has shape \(2, 2\) but y has shape \(2, 3\)",
    ),
    (Huber, {"y": [1, 2], "delta": 0.0}, r"^delta is 0.0: pass a positive finite knot"),
    (Huber, {"y": [1, 2], "delta": np.nan}, r"^delta is nan: pass a positive finite knot"),
    (Logistic, {"y": [1, 2]}, r"^y contains 2: pass 0 and 1"),
    (Logistic, {"y": [-1, 0, 1]}, r"^y contains -1: pass 0 and 1"),
    (Logistic, {"y": [0.2, 1.0]}, r"^y contains 0.2: pass 0 and 1"),
    (Logistic, {"y": [1, 1]}, r"^y has no sample of class 0 with a positive weight: two classes are needed"),
    (Logistic, {"y": [0, 0]}, r"^y has no sample of class 1 with a positive weight: two classes are needed"),
    (Logistic, {"y": [0, 1], "weights": [1, 0]}, r"^y has no sample of class 1 with a positive weight"),
    (Logistic, {"y": [[0, 0], [1, 0]]}, r"^y has no sample of class 1 with a positive weight"),
    (Poisson, {"y": [1, -3]}, r"^y contains -3 but the Poisson loss needs counts"),
    (Poisson, {"y": [0, 0]}, r"^y is 0 wherever the weight is positive"),
    (Poisson, {"y": [0, 1], "weights": [1, 0]}, r"^y is 0 wherever the weight is positive"),
    (Multinomial, {"y": [0, 2]}, r"^y contains the label 2, but the 2 classes must be 0, 1, ..., 1"),
    (Multinomial, {"y": [1, 2, 3]}, r"^y contains the label 1, but the 3 classes must be"),
    (Multinomial, {"y": [0, 0.5, 1]}, r"^y contains the label 0.5, but"),
    (Multinomial, {"y": [0, 0]}, r"^y contains the label 0 only"),
    (Multinomial, {"y": [[1, 0], [1, 1]]}, r"^y of shape \(2, 2\) is not one-hot"),
    (Multinomial, {"y": [[1, 0], [0.5, 0.5]]}, r"^y of shape \(2, 2\) is not one-hot"),
    (Multinomial, {"y": [[1, 0, 0], [0, 1, 0]]}, r"^y has no sample of class 2 with a positive weight"),
    (Multinomial, {"y": [0, 1], "offset": [1.0, 2.0]}, r"^offset has shape \(2,\): pass \(2, 2\)"),
]


@pytest.mark.parametrize(("cls", "arguments", "message"), BAD)
def test_bad_input_is_refused_in_one_sentence(cls, arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        cls.of(**arguments)
    text = str(caught.value)
    assert text.endswith(".")
    assert "\n" not in text
    assert text.count(". ") == 0


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (["a", "b"], r"^y has dtype <U1: pass real numbers, for example np.unique"),
        ([1j, 2.0], r"^y has dtype complex128: pass real numbers"),
        (np.array([1.0, object()], dtype=object), r"^y of dtype object is not numeric"),
        (np.array(["1", 2], dtype=object), r"^y has dtype object: pass real numbers"),
        (np.array(["2020-01-01"], dtype="datetime64[D]"), r"^y has dtype datetime64"),
    ],
)
def test_what_is_not_a_number_is_refused(y, message):
    with pytest.raises(TypeError, match=message):
        Squares.of(y)


def test_get_loss():
    assert isinstance(get_loss("poisson", [1, 2]), Poisson)
    assert get_loss("huber", [1, 2], delta=3).delta == 3.0
    with pytest.raises(
        ValueError, match=r"^loss is 'logistc', which is unknown: did you mean 'logistic'\? Known names are"
    ):
        get_loss("logistc", [0, 1])
    with pytest.raises(ValueError, match=r"^loss is 'tweedie', which is unknown: known names are squares, huber"):
        get_loss("tweedie", [0, 1])
    with pytest.raises(ValueError, match=r"^loss is None, which is unknown"):
        get_loss(None, [0, 1])
    with pytest.raises(TypeError, match=r"^loss 'squares' has no parameter 'delta': it takes none\.$"):
        get_loss("squares", [0, 1], delta=1.0)
    with pytest.raises(TypeError, match=r"^loss 'huber' has no parameter 'gamma': it takes delta\.$"):
        get_loss("huber", [0, 1], gamma=1.0)


def test_the_table_names_every_loss():
    assert {cls.name for cls in LOSSES.values()} == set(LOSSES) == set(NAMES)
    assert [name for name, cls in LOSSES.items() if cls.is_quadratic] == ["squares"]
    with pytest.raises(TypeError, match="abstract"):
        Loss(np.zeros((1, 1)), np.ones(1))
