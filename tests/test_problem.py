"""Problems: values, gradients and proxes against their definitions, and what `Problem.build` refuses."""

from __future__ import annotations

import pickle
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.sparse import csc_array

from sparseopt import L2, MCP, REGULARIZERS, Composite, Groups, LogSum, Penalty, Problem, Scaled
from sparseopt.losses import Squares
from sparseopt.penalty import named_regularizer

GROUPS = Groups.from_lists([[4, 0], [1], [5, 2, 3]], 6, weights=[1.5, 0.0, 0.7])
W = np.array([1.0, -2.0, 0.5, 0.0, 3.0, -0.25])
EXTRAS = [{}, {"l1_ratio": 0.3}, {"ridge": 0.4}, {"l1_ratio": 0.25, "ridge": 2.0}]


def separable_value(penalty: Penalty, w: np.ndarray) -> float:
    """Omega by its formula, group after group."""
    total = 0.0
    for g, omega in enumerate(penalty.groups.weights):
        block = w[penalty.groups[g]]
        if omega > 0.0:
            u = float(np.sqrt((block**2).sum()))
            total += penalty.lam * (1 - penalty.l1_ratio) * omega * float(penalty.q.value(u))
            total += penalty.lam * penalty.l1_ratio * np.abs(block).sum() + 0.5 * penalty.ridge * u * u
    return total


# -- values ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extra", EXTRAS, ids=str)
@pytest.mark.parametrize("name", REGULARIZERS)
def test_value_is_the_formula(name: str, extra: dict[str, float]) -> None:
    penalty = Penalty(REGULARIZERS[name], GROUPS, 0.8, **extra)
    assert penalty.value(W) == pytest.approx(separable_value(penalty, W), rel=1e-14)
    outputs = np.column_stack([W, W[::-1]])
    assert penalty.value(outputs) == pytest.approx(separable_value(penalty, outputs), rel=1e-14)
    assert penalty.value(np.zeros(6)) == 0.0


@pytest.mark.parametrize("extra", EXTRAS, ids=str)
def test_composite_value_is_the_formula(extra: dict[str, float]) -> None:
    penalty = Composite(LogSum(0.5), GROUPS, 0.8, **extra)
    costs = np.log1p(1.5 * np.hypot(3.0, 1.0) / 0.5) + np.log1p(0.7 * np.sqrt(0.3125) / 0.5)
    terms = separable_value(Penalty(L2(), GROUPS, 0.8, **extra), W) - separable_value(
        Penalty(L2(), GROUPS, 0.8 * (1 - penalty.l1_ratio)), W
    )
    expected = 0.8 * (1 - penalty.l1_ratio) * 0.5 * np.expm1(costs) + terms
    assert penalty.value(W) == pytest.approx(expected, rel=1e-13)


def test_composite_of_one_group_is_the_group_lasso() -> None:
    w = np.where(GROUPS.group_of == 0, W, 0.0)
    for name, q in REGULARIZERS.items():
        if q.increasing():
            composite, lasso = Composite(q, GROUPS, 0.3), Penalty(L2(), GROUPS, 0.3)
            assert composite.value(0.1 * w) == pytest.approx(lasso.value(0.1 * w), rel=1e-10), name


def test_composite_beyond_the_ceiling_is_inf() -> None:
    assert Composite(MCP(1.0), Groups.equal(2), 1.0).value([0.9, 0.9]) == np.inf


def test_l2_composite_is_the_penalty() -> None:
    composite, penalty = Composite(L2(), GROUPS, 0.8, 0.2, 0.1), Penalty(L2(), GROUPS, 0.8, 0.2, 0.1)
    assert composite.value(W) == penalty.value(W)
    np.testing.assert_array_equal(composite.prox(W, 0.3), penalty.prox(W, 0.3))
    assert composite.is_convex


@pytest.mark.parametrize("q", [LogSum(), MCP()], ids=str)
def test_composite_has_no_prox(q: Any) -> None:
    with pytest.raises(TypeError, match="use block_prox, or solve by bcd"):
        Composite(q, GROUPS, 1.0).prox(W, 1.0)


def test_convexity_is_told() -> None:
    assert Penalty(L2(), GROUPS, 1.0).is_group_lasso
    assert Penalty(MCP(), GROUPS, 1.0, l1_ratio=1.0).is_convex, "only the l1 term is left"
    assert Penalty(MCP(), GROUPS, 0.0).is_convex
    assert not Penalty(MCP(), GROUPS, 1.0).is_convex
    assert not Composite(LogSum(), GROUPS, 1.0).is_convex
    assert isinstance(Penalty(Scaled(L2(), 3.0), GROUPS, 1.0).q, L2)


# -- proxes ------------------------------------------------------------------------------------------------------------


def prox_objective(penalty: Penalty, w: np.ndarray, t: float, v: np.ndarray) -> float:
    return 0.5 * float(((v - w) ** 2).sum()) + t * separable_value(penalty, v)


def check_prox(penalty: Penalty, w: np.ndarray, t: float, prox: Any) -> None:
    """prox(w, t) is as low as the best that a search from many points finds, and no candidate lies lower."""
    v = prox(w, t)
    here = prox_objective(penalty, w, t, v)
    rng = np.random.default_rng(0)
    candidates = [np.zeros_like(w), w]
    for scale in (0.01, 0.3, 1.0):
        candidates += list(v + scale * rng.standard_normal((30, w.size)))
    # Along the ray through v, and with any of its blocks removed or left as w has it.
    candidates += [factor * v for factor in np.linspace(0.0, 2.0, 41)]
    for g in range(len(penalty.groups)):
        for block in (0.0, 1.0):
            other = v.copy()
            other[penalty.groups[g]] = block * w[penalty.groups[g]]
            candidates.append(other)
    for start in (w, 0.5 * w, v + 0.1):
        candidates.append(minimize(lambda x: prox_objective(penalty, w, t, x), start, method="Powell").x)
    best = min(prox_objective(penalty, w, t, x) for x in candidates)
    assert here <= best + 1e-10 * (1.0 + abs(best)), f"the prox has {here}, but {best} is possible"


@pytest.mark.parametrize("extra", EXTRAS, ids=str)
@pytest.mark.parametrize("name", REGULARIZERS)
def test_prox_minimises(name: str, extra: dict[str, float]) -> None:
    penalty = Penalty(REGULARIZERS[name], GROUPS, 0.8, **extra)
    for t in (0.3, 1.7):
        check_prox(penalty, W, t, penalty.prox)


WRONG_PROXES = {
    "without omega": lambda penalty: Penalty(penalty.q, Groups(GROUPS.indices, GROUPS.indptr, [1, 0, 1]), 0.8, 0.3, 2),
    "unpenalised group shrunk": lambda p: Penalty(
        p.q, Groups(GROUPS.indices, GROUPS.indptr, [1.5, 1, 0.7]), 0.8, 0.3, 2
    ),
    "without the l1 term": lambda penalty: Penalty(penalty.q, GROUPS, 0.56, 0.0, 2.0),
    "without ridge": lambda penalty: Penalty(penalty.q, GROUPS, 0.8, 0.3, 0.0),
}


@pytest.mark.parametrize("wrong", WRONG_PROXES.values(), ids=WRONG_PROXES)
def test_a_wrong_prox_is_rejected(wrong: Any) -> None:
    penalty = Penalty(LogSum(), GROUPS, 0.8, 0.3, 2.0)
    with pytest.raises(AssertionError, match="is possible"):
        check_prox(penalty, W, 0.3, wrong(penalty).prox)


def test_ridge_after_the_norm_is_shrunk_is_rejected() -> None:
    penalty = Penalty(LogSum(), GROUPS, 0.8, 0.0, 2.0)
    plain = Penalty(LogSum(), GROUPS, 0.8)
    with pytest.raises(AssertionError, match="is possible"):
        check_prox(penalty, W, 0.3, lambda w, t: plain.prox(w, t) / (1.0 + 2.0 * t))


def test_prox_with_a_step_per_group() -> None:
    penalty = Penalty(LogSum(), GROUPS, 0.8, 0.2, 0.1)
    steps = np.array([0.3, 5.0, 1.7])
    mixed = penalty.prox(W, steps)
    for g, t in enumerate(steps):
        np.testing.assert_array_equal(mixed[GROUPS[g]], penalty.prox(W, t)[GROUPS[g]])


def test_prox_of_outputs_is_that_of_the_stacked_block() -> None:
    outputs = np.column_stack([W, W[::-1]])
    stacked = Groups.from_lists([[4, 0, 10, 6], [1, 7], [5, 2, 3, 11, 8, 9]], 12, weights=GROUPS.weights)
    for name, q in REGULARIZERS.items():
        got = Penalty(q, GROUPS, 0.8, 0.2, 0.1).prox(outputs, 0.7)
        expected = Penalty(q, stacked, 0.8, 0.2, 0.1).prox(outputs.T.ravel(), 0.7)
        np.testing.assert_allclose(got.T.ravel(), expected, rtol=1e-13, err_msg=name)


@given(st.integers(0, 10**6), st.floats(0.01, 10.0))
@settings(max_examples=50)
def test_convex_prox_is_firmly_nonexpansive(seed: int, t: float) -> None:
    rng = np.random.default_rng(seed)
    penalty = Penalty(L2(), GROUPS, 0.8, 0.3, 0.2)
    a, b = rng.standard_normal((2, 6)) * 10.0 ** rng.uniform(-2, 2)
    moved = penalty.prox(a, t) - penalty.prox(b, t)
    assert moved @ moved <= moved @ (a - b) * (1.0 + 1e-12) + 1e-300


COMPOSITES = ["log", "power", "expm1", "tl1", "arctan", "laplace", "mcp", "scad"]


@pytest.mark.parametrize("extra", EXTRAS, ids=str)
@pytest.mark.parametrize("name", COMPOSITES)
def test_composite_block_prox_minimises_along_the_ray(name: str, extra: dict[str, float]) -> None:
    """For one block the direction is known, so a fine grid of norms is brute force."""
    q, t = REGULARIZERS[name], 0.6
    penalty = Composite(q, GROUPS, 0.8, **extra)
    at = 0.1 * W
    moved = penalty.block_prox(W, t, at)
    for g in (0, 2):
        rows = GROUPS[g]
        thresholded = np.sign(W[rows]) * np.maximum(np.abs(W[rows]) - t * penalty.entry_strength, 0.0)

        def objective(block: np.ndarray, rows: np.ndarray = rows) -> float:
            whole = at.copy()
            whole[rows] = block
            return 0.5 * float(((block - W[rows]) ** 2).sum()) + t * penalty.value(whole)

        best = min(objective(r * thresholded) for r in np.linspace(0.0, 1.0, 1001))
        assert objective(moved[rows]) <= best * (1.0 + 1e-12), f"group {g}"
    np.testing.assert_array_equal(moved[GROUPS[1]], W[GROUPS[1]])


def test_composite_block_prox_depends_on_the_others() -> None:
    penalty = Composite(LogSum(0.5), GROUPS, 0.8)
    assert not np.allclose(penalty.block_prox(W, 0.3, W), penalty.block_prox(W, 0.3, np.zeros(6)))


# -- problems ----------------------------------------------------------------------------------------------------------


def test_value_and_gradient_agree() -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((9, 6))
    labels = {"squares": rng.standard_normal((9, 2)), "multinomial": np.arange(9) % 3, "logistic": np.arange(9) % 2.0}
    for loss, y in labels.items():
        problem = Problem.build(csc_array(X), y, GROUPS, loss=loss, lam=0.0)
        w = rng.standard_normal((6, problem.n_outputs) if problem.n_outputs > 1 else 6)
        b = rng.standard_normal(problem.n_outputs)
        in_w, in_b = problem.gradient(w, b)
        assert in_w.shape == w.shape
        for _ in range(3):
            dw, db = rng.standard_normal(w.shape), rng.standard_normal(b.shape)
            ahead, behind = (problem.value(w + h * dw, b + h * db) for h in (1e-5, -1e-5))
            slope = (ahead - behind) / 2e-5
            assert float((in_w * dw).sum() + in_b @ db) == pytest.approx(slope, rel=1e-7), loss


def test_value_by_hand() -> None:
    problem = Problem.build([[1, 2], [3, 4]], [1.0, 2.0], [[0, 1]], lam=0.5, ridge=0.2, sample_weight=[1.0, 2.0])
    r = np.array([1.0 + 2.0 + 0.5 - 1.0, 3.0 + 4.0 + 0.5 - 2.0])
    expected = 0.5 * (r[0] ** 2 + 2.0 * r[1] ** 2) + 0.5 * np.sqrt(2.0) * np.sqrt(2.0) + 0.1 * 2.0
    assert problem.value([1.0, 1.0], 0.5) == pytest.approx(expected, rel=1e-15)


def test_at_moves_the_knots_of_the_literature() -> None:
    problem = Problem.build(np.eye(3), [1.0, 2.0, 3.0], penalty="mcp", lam=0.5)
    assert problem.penalty.q == Scaled(MCP(), 0.5)
    assert problem.at(0.25).penalty.q == Scaled(MCP(), 0.25)
    assert problem.at(0.25).lam == 0.25
    assert problem.at(0.0).is_convex
    fixed = Problem.build(np.eye(3), [1.0, 2.0, 3.0], penalty=MCP(2.0), lam=0.5)
    assert fixed.at(0.25).penalty.q == MCP(2.0)


def test_named_regularizers() -> None:
    assert named_regularizer("scad", 2.0).lam == 2.0
    assert named_regularizer("mcp", 0.0) == MCP()
    assert named_regularizer(LogSum, 2.0) == LogSum()
    assert named_regularizer("sparseopt.regularizers:LogSum", 2.0) == LogSum()


def test_nothing_given_is_changed() -> None:
    rng = np.random.default_rng(0)
    given = {"X": rng.standard_normal((8, 6)), "y": np.arange(8.0), "s": np.ones(8), "o": np.ones(8), "w": W.copy()}
    before = {name: array.copy() for name, array in given.items()}
    for array in given.values():
        array.flags.writeable = False
    problem = Problem.build(given["X"], given["y"], GROUPS, sample_weight=given["s"], offset=given["o"], ridge=0.1)
    for penalty in (problem.penalty, Composite(LogSum(), GROUPS, 0.5, 0.1, 0.1)):
        penalty.value(given["w"])
        penalty.block_prox(given["w"], 0.5, given["w"])
    problem.penalty.prox(given["w"], 0.5)
    problem.value(given["w"], 0.5)
    problem.gradient(given["w"], 0.5)
    for name, array in given.items():
        np.testing.assert_array_equal(array, before[name])


def test_the_arrays_of_the_user_may_change_afterwards() -> None:
    y, s = np.arange(4.0), np.ones(4)
    problem = Problem.build(np.eye(4), y, sample_weight=s)
    before = problem.value(np.ones(4))
    y[:], s[:] = 7.0, 3.0
    assert problem.value(np.ones(4)) == before


@pytest.mark.parametrize("layout", [np.asarray, csc_array])
@pytest.mark.parametrize("composite", [False, True])
def test_pickling(layout: Any, composite: bool) -> None:
    X = np.random.default_rng(0).standard_normal((8, 6))
    problem = Problem.build(
        layout(X), np.arange(8.0), GROUPS, penalty="log", composite=composite, offset=np.ones(8), ridge=0.1
    )
    copy = pickle.loads(pickle.dumps(problem))
    assert copy.value(W, 0.5) == problem.value(W, 0.5)
    assert copy.penalty.q == problem.penalty.q
    assert copy.groups == problem.groups
    np.testing.assert_array_equal(copy.gradient(W)[0], problem.gradient(W)[0])


def test_unusual_but_right_designs() -> None:
    y = [1.0, 2.0, 4.0]
    integers = Problem.build(np.array([[1, 0], [0, 2], [3, 3]]), y)
    assert integers.value([1.0, 1.0]) == Problem.build([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]], y).value([1.0, 1.0])
    assert Problem.build(np.zeros((3, 2)), y).value([5.0, 5.0]) > 0.0
    assert Problem.build(np.ones((3, 1)), y).design.shape == (3, 1)
    assert Problem.build(np.array([[True, False]] * 3), y).predictor([2.0, 1.0]).tolist() == [[2.0]] * 3
    assert Problem.build(np.float32([[0.1, 0.2]] * 3), y).predictor([1.0, 0.0]).dtype == np.float64


X3, Y3 = np.eye(3), np.array([1.0, 2.0, 3.0])
BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "lam is a string": ({"lam": "0.1"}, TypeError, "lam must be a number, got '0.1'"),
    "lam is None": ({"lam": None}, TypeError, "lam must be a number, got None"),
    "lam is a bool": ({"lam": True}, TypeError, "lam must be a number, got True"),
    "lam is a NumPy bool": ({"lam": np.True_}, TypeError, "lam must be a number"),
    "lam is an array": ({"lam": [0.1]}, TypeError, r"lam must be a number, got \[0.1\]"),
    "lam is complex": ({"lam": 1j}, TypeError, "lam must be a number"),
    "lam is negative": ({"lam": -0.1}, ValueError, "lam is -0.1: pass a number that is finite and >= 0"),
    "lam is NaN": ({"lam": float("nan")}, ValueError, "lam is nan"),
    "lam is infinite": ({"lam": float("inf")}, ValueError, "lam is inf"),
    "l1_ratio above 1": ({"l1_ratio": 1.5}, ValueError, "l1_ratio is 1.5: pass a number that is between 0 and 1"),
    "l1_ratio is negative": ({"l1_ratio": -0.1}, ValueError, "l1_ratio is -0.1"),
    "l1_ratio is a string": ({"l1_ratio": "half"}, TypeError, "l1_ratio must be a number, got 'half'"),
    "ridge is negative": ({"ridge": -1.0}, ValueError, "ridge is -1.0"),
    "ridge is NaN": ({"ridge": np.nan}, ValueError, "ridge is nan"),
    "y is longer": ({"y": np.ones(4)}, ValueError, r"y has the shape \(4,\) but X has 3 rows"),
    "y is shorter": ({"y": [1.0]}, ValueError, r"y has the shape \(1,\) but X has 3 rows"),
    "y is a number": ({"y": 1.0}, ValueError, r"y has the shape \(\) but X has 3 rows"),
    "y has three dimensions": ({"y": np.ones((3, 1, 1))}, ValueError, "y has 3 dimensions"),
    "y has NaN": ({"y": [1.0, np.nan, 2.0]}, ValueError, r"y\[1\] is nan"),
    "y is text": ({"y": ["a", "b", "c"]}, TypeError, "y has dtype <U1"),
    "y is no class": ({"loss": "logistic"}, ValueError, "y"),
    "y is negative": ({"loss": "poisson", "y": [1.0, -1.0, 2.0]}, ValueError, "y"),
    "y is no label": ({"loss": "multinomial", "y": [0.5, 1.0, 2.0]}, ValueError, "y"),
    "weights are longer": ({"sample_weight": np.ones(4)}, ValueError, r"weights has shape \(4,\) but y has 3 samples"),
    "weights are negative": ({"sample_weight": [1, -1, 1]}, ValueError, r"weights\[1\] is -1"),
    "weights are zero": ({"sample_weight": [0, 0, 0]}, ValueError, "weights has 3 zeros"),
    "offset is shorter": ({"offset": np.ones(2)}, ValueError, r"offset has shape \(2,\)"),
    "loss misspelt": ({"loss": "sqares"}, ValueError, "loss is 'sqares', which is unknown: did you mean 'squares'"),
    "loss unknown": ({"loss": "zzz"}, ValueError, "known names are squares, huber"),
    "parameter of another loss": ({"delta": 1.0}, TypeError, "loss 'squares' has no parameter 'delta'"),
    "penalty misspelt": ({"penalty": "mpc"}, ValueError, "Unknown regularizer 'mpc': did you mean 'mcp'"),
    "penalty is a number": ({"penalty": 3.0}, TypeError, "float is not a regularizer"),
    "module of the penalty": ({"penalty": "nowhere.land:Q"}, ValueError, "nowhere"),
    "groups overlap": ({"groups": [[0, 1], [1, 2]]}, ValueError, "1"),
    "groups leave a feature out": ({"groups": [[0], [2]]}, ValueError, "1"),
    "a group is empty": ({"groups": [[0, 1, 2], []]}, ValueError, "empty"),
    "a group outside X": ({"groups": [[0, 1], [2, 3]]}, ValueError, "3"),
    "group sizes do not add up": ({"groups": [2, 2]}, ValueError, "2 entries, adding up to 4, for 3 features"),
    "group size does not divide": ({"groups": 2}, ValueError, "groups=2 does not divide the 3 features"),
    "groups of other features": ({"groups": Groups.equal(4)}, ValueError, "groups cover 4 features but X has 3"),
    "group weights of another length": ({"weights": [1.0, 2.0]}, ValueError, r"weights has the shape \(2,\)"),
    "group weights negative": ({"weights": [1.0, -2.0, 1.0]}, ValueError, "-2.0"),
    "no features": ({"X": np.ones((3, 0))}, ValueError, r"X has the shape \(3, 0\)"),
    "no samples": ({"X": np.ones((0, 3)), "y": []}, ValueError, r"X has the shape \(0, 3\)"),
    "X is a number": ({"X": 1.0}, ValueError, "X has 0 dimensions"),
    "X is a vector": ({"X": np.ones(3)}, ValueError, "X has 1 dimensions"),
    "X has three dimensions": ({"X": np.ones((3, 1, 1))}, ValueError, "X has 3 dimensions"),
    "X has NaN": ({"X": [[1.0, np.nan]] * 3}, ValueError, "nan"),
    "X is text": ({"X": [["a"]] * 3}, TypeError, "X"),
    "X is complex": ({"X": 1j * X3}, TypeError, "X has dtype complex128"),
}


@pytest.mark.parametrize(("changes", "kind", "reason"), BAD.values(), ids=BAD)
def test_bad_input_is_refused_in_one_sentence(changes: dict[str, Any], kind: type[Exception], reason: str) -> None:
    arguments = {"X": X3, "y": Y3} | changes
    with pytest.raises(kind, match=reason) as refused:
        Problem.build(arguments.pop("X"), arguments.pop("y"), arguments.pop("groups", None), **arguments)
    message = str(refused.value)
    assert message.endswith((".", "?")), message
    assert len(re.findall(r"[.!] [A-Z]", message)) == 0, f"more than one sentence: {message}"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("convert", [np.asfortranarray, lambda X: X.astype(np.float32), csc_array])
@pytest.mark.parametrize("outputs", [1, 2])
def test_a_bad_value_is_found_in_a_sample_that_does_not_count(outputs: int, convert: Any, bad: float) -> None:
    X, y = np.random.default_rng(0).normal(size=(9, 7)), np.arange(9.0 * outputs).reshape(9, outputs)
    X[4, 5] = bad
    weight = np.where(np.arange(9) == 4, 0.0, 0.125)
    with pytest.raises(ValueError, match=f"X contains {bad} in row 4, column 5"):
        Problem.build(convert(X), y, sample_weight=weight)


def test_products_that_overflow_are_no_bad_values() -> None:
    problem = Problem.build(np.full((3, 2), 1e308), [0.0, 10.0, -1e3], intercept=False)
    assert np.isinf(problem.null_gradient).all()


@pytest.mark.parametrize("loss", ["squares", "logistic", "poisson", "huber", "multinomial"])
@pytest.mark.parametrize("intercept", [True, False])
def test_null_gradient_is_the_gradient_at_zero(intercept: bool, loss: str) -> None:
    rng = np.random.default_rng(1)
    problem = Problem.build(rng.normal(size=(12, 5)), np.arange(12) % 2, loss=loss, intercept=intercept)
    b = problem.loss.null_intercept() if intercept else 0.0
    zero = np.zeros((5, problem.n_outputs))
    np.testing.assert_allclose(problem.null_gradient, problem.gradient(zero, b)[0], rtol=1e-12, atol=1e-15)


def test_a_composite_checks_the_same_numbers() -> None:
    with pytest.raises(ValueError, match="lam is -1"):
        Composite(LogSum(), GROUPS, -1.0)
    with pytest.raises(TypeError, match="groups must be a Groups, got list"):
        Composite(LogSum(), [[0]], 1.0)  # type: ignore[arg-type]


def test_mismatched_parts_are_refused() -> None:
    design = Problem.build(X3, Y3).design
    with pytest.raises(ValueError, match="y has 2 samples but X has 3 rows"):
        Problem(design, Squares.of([1.0, 2.0]), Penalty(L2(), Groups.equal(3), 1.0))
    with pytest.raises(ValueError, match="groups cover 6 features but X has 3 columns"):
        Problem(design, Squares.of(Y3), Penalty(L2(), GROUPS, 1.0))


@pytest.mark.parametrize("shape", [(4,), (3, 2), (1, 3), ()])
def test_coefficients_of_another_size_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=re.escape(f"w has the shape {shape}: pass (3,)")):
        Problem.build(X3, Y3).matrix(np.ones(shape))
