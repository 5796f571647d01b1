"""Exact selection: the engines against each other and against brute force, and the proof against a checker of its own.

`brute_force` fits every subset by NumPy's least squares on stacked columns; `checked_bound` computes the bound of a
proof from X, y and the definition of the conjugates, and checks that the leaves cover all choices. Both know nothing of
the package's refits and bounds.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csc_array

from sparseopt import AtMost, Groups, Problem, Status
from sparseopt.selection.branching import _Refits, branching
from sparseopt.selection.exact import exact
from sparseopt.selection.exact_bounds import SubsetParts, proof_of
from sparseopt.selection.mixed_integer import mixed_integer
from sparseopt.solution import BoundProof, Solution

OTHERS = ("huber", "logistic", "poisson", "multinomial")


def instance(seed: int, loss: str = "squares", n_groups: int = 7, n: int = 30) -> Problem:
    """All the ways in which problems differ, drawn by the seed."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 4, n_groups)
    labels = np.repeat(np.arange(n_groups), sizes)
    p = len(labels)
    X = rng.standard_normal((n, p)) + rng.choice([0.0, 1.0, 3.0]) * rng.standard_normal((n, 1))
    if rng.random() < 0.3:  # a group of dependent columns
        own = np.flatnonzero(labels == rng.integers(n_groups))
        X[:, own] = X[:, own[:1]] * rng.choice([1.0, -2.0], len(own))
    if rng.random() < 0.2:  # one-hot columns, which depend on the intercept
        own = np.flatnonzero(labels == np.argmax(sizes))
        X[:, own] = np.eye(len(own))[rng.integers(len(own), size=n)]
    K = int(rng.choice([1, 1, 2])) if loss != "multinomial" else 3
    z = X[:, : p // 2] @ rng.standard_normal((p // 2, K)) / 2.0 + rng.standard_normal((n, K))
    z /= np.maximum(z.std(axis=0), 1e-9)
    y = {
        "squares": z,
        "huber": z + rng.standard_t(1, (n, K)),
        "logistic": np.where(rng.random((n, K)) < 0.2, 1.0 - (z > 0.0), z > 0.0),
        "poisson": rng.poisson(np.exp(0.5 * z)).astype(float),
        "multinomial": np.where(rng.random(n) < 0.3, np.arange(n) % 3, z.argmax(axis=1)) if K == 3 else None,
    }[loss]
    y = np.asarray(y, float)
    if loss in ("logistic", "poisson"):
        y[:2] = [[0.0], [1.0]]
    if loss == "multinomial":
        y[:3] = [0, 1, 2]
    weights = {str(g): 0.0 if rng.random() < 0.1 else 1.0 for g in range(n_groups)}
    ridge = float(rng.choice([0.0, 0.0, 1e-3, 0.05, 1.0]))
    if loss in ("logistic", "multinomial", "poisson") and rng.random() < 0.8:
        ridge = float(rng.choice([0.01, 0.1]))
    base = Problem.build(
        csc_array(X) if rng.random() < 0.2 else X,
        y,
        Groups.from_labels(labels.astype(str), weights=weights),
        loss=loss,
        intercept=bool(rng.random() < 0.7),
        sample_weight=rng.uniform(0.2, 1.8, n) / n if rng.random() < 0.5 else None,
        offset=0.3 * rng.standard_normal(n) if rng.random() < 0.3 and loss != "multinomial" else None,
    )
    return replace(base, penalty=AtMost(base.groups, int(rng.integers(0, 5)), ridge))


def dense(problem: Problem) -> np.ndarray:
    return np.asarray(problem.design.matvec(np.eye(problem.design.shape[1])))


def brute_force(problem: Problem) -> float:
    """The optimum for least squares, from the definition."""
    X, loss, groups = dense(problem), problem.loss, problem.groups
    root = np.sqrt(loss.s)[:, None]
    y = root * (loss.y - (0.0 if loss.offset is None else loss.offset))
    counted = np.flatnonzero(groups.weights > 0.0)
    always = [root * X[:, groups[int(g)]] for g in np.flatnonzero(groups.weights == 0.0)]
    always += [root] if problem.intercept else []
    best = np.inf
    for chosen in combinations(counted, min(problem.penalty.k, len(counted))):
        own = [root * X[:, groups[int(g)]] for g in chosen]
        A = np.hstack([np.zeros((len(X), 0)), *own, *always])
        d = sum(block.shape[1] for block in own)
        ridge = np.sqrt(problem.penalty.ridge) * np.eye(d, A.shape[1])
        A, b = np.vstack([A, ridge]), np.vstack([y, np.zeros((d, y.shape[1]))])
        w = np.linalg.lstsq(A, b, rcond=1e-12)[0]
        best = min(best, 0.5 * float(((A @ w - b) ** 2).sum()))
    return best


def conjugate(problem: Problem, A: np.ndarray) -> float:
    """L*(A) by the formulas of each loss."""
    loss = problem.loss
    v, y = A / loss.s[:, None], loss.y
    if loss.name in ("squares", "huber"):
        if loss.name == "huber" and np.abs(v).max() > loss.delta * (1.0 + 1e-9):
            return np.inf
        f = v * y + 0.5 * v**2
    else:
        q = v + y
        if q.min() < -1e-9:
            return np.inf
        q = np.maximum(q, 1e-300)
        if loss.name == "poisson":
            f = q * np.log(q) - q + y - np.where(y > 0, y * np.log(np.where(y > 0, y, 1.0)) - y, 0.0) - y
        elif loss.name == "logistic":
            r = np.maximum(1.0 - q, 1e-300)
            f = q * np.log(q) + r * np.log(r)
        else:
            f = q * np.log(q)
    total = float((loss.s[:, None] * f).sum())
    return total if loss.offset is None else total - float((A * loss.offset).sum())


def checked_bound(problem: Problem, proof: BoundProof) -> float:
    """The bound that a proof proves, after checking that its leaves cover all choices; AssertionError otherwise."""
    X, groups, k = dense(problem), problem.groups, problem.penalty.k
    counted = [int(g) for g in np.flatnonzero(groups.weights > 0.0)]
    leaves = [(frozenset(i), frozenset(o)) for i, o in zip(proof.leaf_in, proof.leaf_out, strict=True)]
    for size in range(min(k, len(counted)) + 1):
        for chosen in combinations(counted, size):
            inside = set(chosen)
            # A choice with fewer groups belongs where it can be filled up.
            assert any(len(i | inside) <= k and not (o & inside) for i, o in leaves), chosen
    out = np.inf
    ridge = problem.penalty.ridge
    for A, (inside, outside) in zip(proof.dual, leaves, strict=True):
        scale = max(np.abs(A).sum(), 1e-300) * np.abs(X).max()
        if problem.intercept:
            assert np.abs(A.sum(axis=0)).max() <= 1e-10 * scale
        for g in np.flatnonzero(groups.weights == 0.0):
            assert np.abs(X[:, groups[int(g)]].T @ A).max() <= 1e-10 * scale
        h = {}
        for g in counted:
            v, radius = float(np.linalg.norm(X[:, groups[g]].T @ A)), float(proof.radius[g])
            u = min(v / ridge, radius) if ridge > 0.0 else radius
            h[g] = v * u - 0.5 * ridge * u**2
        free = sorted((h[g] for g in counted if g not in inside | outside), reverse=True)
        room = k - len(inside)
        bound = -conjugate(problem, A) - sum(h[g] for g in inside) - sum(free[:room])
        out = min(out, bound if room >= 0 else np.inf)
    return out


def is_sound(problem: Problem, found: Solution, optimum: float) -> None:
    """Value, bound, proof and status fit together and to the optimum."""
    scale = max(optimum, 1e-6 * problem.value(np.zeros((problem.design.shape[1], problem.n_outputs))), 1e-12)
    assert found.status is Status.OPTIMAL
    assert found.objective == pytest.approx(optimum, rel=2e-6, abs=1e-6 * scale)
    assert found.bound <= optimum + 1e-8 * scale
    assert found.bound >= optimum - 2e-6 * scale
    assert np.count_nonzero(found.group_norms[problem.penalty.penalised]) <= problem.penalty.k
    if found.proof is not None:
        assert checked_bound(problem, found.proof) == pytest.approx(found.bound, rel=1e-7, abs=1e-8 * scale)
        assert (found.group_norms <= found.proof.radius * (1.0 + 1e-6)).all()


@pytest.mark.parametrize("block", range(10))
def test_least_squares_200_instances(block):
    for seed in range(20 * block, 20 * block + 20):
        problem = instance(seed)
        optimum = brute_force(problem)
        for engine in ("branching", "enumeration"):
            found = exact(problem, engine=engine)
            assert found.proof is not None
            is_sound(problem, found, optimum)


@pytest.mark.parametrize("seed", range(12))
def test_refits_solve_least_squares_too(seed):
    """The general engine, which least squares on independent columns never reach."""
    problem = instance(seed)
    parts = SubsetParts(problem)
    found = _Refits(parts).search(None, 1e-6, np.inf)
    bound, proof = proof_of(parts, found.leaves, brute_force(problem), np.ones(len(parts.ids)))
    assert bound == pytest.approx(brute_force(problem), rel=2e-6)
    assert checked_bound(problem, proof) == pytest.approx(bound, rel=1e-8)


@pytest.mark.parametrize("loss", OTHERS)
def test_other_losses(loss):
    for seed in range(5):
        problem = instance(seed, loss, n_groups=5, n=24)
        everything, tree = (exact(problem, engine=engine) for engine in ("enumeration", "branching"))
        is_sound(problem, everything, everything.objective)
        is_sound(problem, tree, everything.objective)


@pytest.mark.parametrize("seed", range(15))
def test_scip_agrees(seed):
    problem = instance(seed, n_groups=5, n=20)
    parts = SubsetParts(problem)
    optimum = brute_force(problem)
    if problem.penalty.ridge == 0.0 and not np.isfinite(parts.level_radius(optimum)).all():
        with pytest.raises(ValueError, match="no bound of the coefficients can be derived"):
            exact(problem, engine="scip")
        return
    found = exact(problem, engine="scip", tol=1e-5, time_limit=10.0)
    assert found.objective == pytest.approx(optimum, rel=1e-6)
    assert optimum * (1.0 - 1e-5) - 1e-6 <= found.bound <= optimum * (1.0 + 1e-9)
    assert found.proof is None


def test_scip_solves_huber():
    problem = replace(instance(3, "huber", n_groups=4, n=20))
    problem = replace(problem, penalty=AtMost(problem.groups, 2, 0.1))
    found = exact(problem, engine="scip")
    assert found.objective == pytest.approx(exact(problem, engine="enumeration").objective, rel=1e-5)


def test_a_big_m_that_is_too_small_is_caught():
    """SCIP believes M; its claim then lies above the value of a known choice, and is refused."""
    problem = wide(8, k=2, n_groups=6)
    parts = SubsetParts(problem)
    best = exact(problem, engine="branching")
    start = np.flatnonzero(np.isin(parts.ids, best.support))
    right = parts.level_radius(best.objective)
    assert (right >= best.group_norms[parts.ids]).all()
    with pytest.raises(RuntimeError, match="above the value"):
        mixed_integer(parts, start, 1e-6, np.inf, radius=0.05 * best.group_norms.max() * np.ones(len(parts.ids)))


def test_a_wrong_proof_is_caught_by_the_checker():
    problem = wide(3, k=2, n_groups=6, ridge=0.1)
    found = exact(problem)
    proof = found.proof
    assert checked_bound(problem, proof) == pytest.approx(found.bound, rel=1e-9)
    with pytest.raises(AssertionError):  # a leaf is missing
        checked_bound(
            problem, replace(proof, dual=proof.dual[1:], leaf_in=proof.leaf_in[1:], leaf_out=proof.leaf_out[1:])
        )
    with pytest.raises(AssertionError):  # a dual point that sees the intercept
        checked_bound(problem, replace(proof, dual=proof.dual + 0.01))
    assert checked_bound(problem, replace(proof, dual=1.3 * proof.dual)) < found.bound - 1e-3
    small = checked_bound(problem, replace(proof, radius=0.1 * np.ones(6)))
    assert small > found.objective  # a radius that leaves out the optimum claims too much


def wide(seed: int, k: int, n_groups: int = 30, ridge: float = 0.0, n: int = 120) -> Problem:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 3 * n_groups)) + rng.standard_normal((n, 1))
    y = X[:, : 3 * k] @ rng.standard_normal(3 * k) + 4.0 * rng.standard_normal(n)
    base = Problem.build(X, y, groups=3)
    return replace(base, penalty=AtMost(base.groups, k, ridge))


@pytest.mark.parametrize("ridge", [0.0, 0.02])
def test_time_limit_gives_a_valid_bound(ridge):
    problem = wide(0, k=8, ridge=ridge)
    exact(wide(0, k=1, n_groups=3, ridge=ridge))  # compiles
    early = exact(problem, time_limit=0.01)
    late = exact(problem, tol=1e-3, time_limit=4.0)
    assert early.status is Status.TIME_LIMIT
    assert early.bound < early.objective
    assert early.seconds < 5.0
    assert early.bound <= late.objective
    assert late.bound <= late.objective <= early.objective + 1e-12
    assert 0.0 < early.bound
    assert early.gap > 1e-6


def test_time_limit_of_the_other_engines():
    problem = instance(1, "logistic", n_groups=7, n=40)
    problem = replace(problem, penalty=AtMost(problem.groups, 3, 0.01))
    optimum = exact(problem, engine="branching").objective
    for engine in ("enumeration", "branching"):
        found = exact(problem, engine=engine, time_limit=1e-6)
        assert found.status is Status.TIME_LIMIT
        assert 0.0 <= found.bound <= optimum
        assert checked_bound(problem, found.proof) == pytest.approx(found.bound, rel=1e-8, abs=1e-12)


def test_too_many_leaves_leave_the_bound_without_a_proof(monkeypatch):
    from sparseopt.selection import branching as module

    problem = wide(2, k=4, n_groups=12)
    reference = exact(problem, engine="branching")
    monkeypatch.setattr(module, "MAX_LEAVES", 10)
    for loss_free in (problem, replace(problem, penalty=AtMost(problem.groups, 4, 0.01))):
        found = exact(loss_free, engine="branching")
        assert found.proof is None
        assert found.status is Status.OPTIMAL
        assert found.bound <= brute_force(loss_free)
    assert exact(problem, engine="branching").objective == pytest.approx(reference.objective, rel=1e-12)
    other = instance(0, "logistic")
    other = replace(other, penalty=AtMost(other.groups, 3, 0.1))
    found = exact(other, engine="branching")
    assert found.proof is None or len(found.proof.leaf_in) <= 10


def test_more_features_than_samples_with_and_without_ridge():
    rng = np.random.default_rng(4)
    X = rng.standard_normal((12, 24))
    y = X[:, :4] @ np.ones(4) + 0.5 * rng.standard_normal(12)
    base = Problem.build(X, y, groups=4)
    for ridge in (0.0, 0.1):
        problem = replace(base, penalty=AtMost(base.groups, 2, ridge))
        is_sound(problem, exact(problem, engine="branching"), brute_force(problem))


def test_a_perfect_fit_is_optimal_at_zero():
    X = np.random.default_rng(5).standard_normal((20, 12))
    base = Problem.build(X, X[:, 2:4] @ [1.0, 2.0], groups=2, intercept=False)
    found = exact(replace(base, penalty=AtMost(base.groups, 1)), engine="branching")
    assert found.objective < 1e-20
    assert found.status is Status.OPTIMAL
    np.testing.assert_array_equal(found.support, [1])


@pytest.mark.parametrize("engine", ["auto", "enumeration", "branching", "scip"])
def test_no_group_and_all_groups(engine):
    base = wide(1, k=1, n_groups=4, n=30)
    for k in (0, 4, 9):
        problem = replace(base, penalty=AtMost(base.groups, k, 0.1))
        found = exact(problem, engine=engine)
        assert found.objective == pytest.approx(brute_force(problem), rel=1e-8)
        assert found.problem is problem or found.problem.penalty.k == k


def test_a_start_is_used():
    problem = wide(0, k=5, n_groups=20)
    best = exact(problem)
    again = exact(problem, start=best)
    assert again.objective == pytest.approx(best.objective, rel=1e-12)
    assert exact(problem, start=[0, 1, 2]).objective == pytest.approx(best.objective, rel=1e-9)
    with pytest.raises(ValueError, match=r"start has the group 20: pass numbers below 20"):
        exact(problem, start=[20])


def test_auto_takes_few_choices_by_enumeration_and_many_by_branching(monkeypatch):
    calls: list[str] = []
    module = sys.modules["sparseopt.selection.exact"]
    for name in ("enumeration", "branching"):
        original: Any = getattr(module, name)

        def spy(*args, name=name, original=original):
            calls.append(name)
            return original(*args)

        monkeypatch.setattr(module, name, spy)
    exact(wide(0, k=1, n_groups=5))
    exact(wide(0, k=3, n_groups=9))
    assert calls == ["enumeration", "branching"]


def test_what_is_refused():
    problem = wide(0, k=3, n_groups=40)
    with pytest.raises(TypeError, match=r"penalty is a Penalty: pass a problem with AtMost"):
        exact(Problem.build(np.eye(4), np.arange(4.0), groups=2))
    with pytest.raises(ValueError, match=r"did you mean 'branching'"):
        exact(problem, engine="branch")
    with pytest.raises(ValueError, match=r"are 91390 choices: use 'branching'"):
        exact(replace(problem, penalty=problem.penalty.at(4)), engine="enumeration")
    with pytest.raises(ValueError, match=r"tol is 0"):
        exact(problem, tol=0.0)
    logistic = instance(0, "logistic")
    with pytest.raises(ValueError, match=r"loss is 'logistic', which has no form of second order"):
        exact(logistic, engine="scip")


def test_without_scip_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyscipopt", None)
    with pytest.raises(ImportError, match=r"pyscipopt is missing, which engine 'scip' needs: pip install"):
        exact(wide(0, k=2, n_groups=5), engine="scip")


def test_the_radius_holds_every_w_that_is_as_good():
    """Random directions on the boundary of the level set stay inside, and the radius is not far larger."""
    rng = np.random.default_rng(0)
    for loss in ("squares", "huber", "logistic", "poisson"):
        problem = instance(2, loss, n_groups=3, n=60)
        problem = replace(problem, penalty=AtMost(problem.groups, 1, 0.0))
        parts = SubsetParts(problem)
        full = exact(replace(problem, penalty=problem.penalty.at(3)))
        upper = exact(problem).objective
        radius = np.full(3, np.inf)
        radius[parts.ids] = parts.level_radius(upper)
        if not np.isfinite(radius).any():
            continue
        for _ in range(200):
            move, shift = rng.standard_normal(full.w.shape), rng.standard_normal(np.shape(full.intercept))
            low, high = 0.0, 100.0
            for _ in range(40):
                t = 0.5 * (low + high)
                inside = problem.loss.value(
                    problem.predictor(full.w + t * move, full.intercept + t * shift * problem.intercept)
                )
                low, high = (t, high) if inside <= upper else (low, t)
            assert (problem.groups.norms(full.w + low * move) <= radius).all()


@pytest.mark.slow
def test_hard_instances_end_or_stay_honest():
    for seed in range(4):
        for ridge in (0.0, 0.05):
            problem = wide(seed, k=6, ridge=ridge, n_groups=40, n=150)
            found = exact(problem, tol=1e-4, time_limit=30.0)
            assert found.bound <= found.objective
            assert found.status in (Status.OPTIMAL, Status.TIME_LIMIT)


@pytest.mark.slow
@pytest.mark.parametrize("loss", OTHERS)
def test_other_losses_many(loss):
    for seed in range(10, 30):
        problem = instance(seed, loss, n_groups=6, n=30)
        everything, tree = (exact(problem, engine=engine) for engine in ("enumeration", "branching"))
        is_sound(problem, tree, everything.objective)


def test_branching_stops_at_once_when_time_is_over():
    parts = SubsetParts(wide(0, k=3, n_groups=10))
    found = branching(parts, None, 1e-6, 0.0)
    assert found.nodes <= 100
    assert len(found.chosen) == 3
    assert 0.0 < found.bound < np.inf
