"""Choices of groups: bounds against enumeration, radii against level sets, and leaves that leave choices out."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from certified_cases import at_most, best_choice, plain, problem, search_tree

from sparseopt import AtMost, Groups, Problem
from sparseopt.certificates import Verdict, best_subset, subset
from sparseopt.certificates.radii import level_radii
from sparseopt.selection.exact import exact
from sparseopt.solution import BoundProof

CHOICES = [("squares", "none"), ("squares", "both"), ("logistic", "both"), ("huber", "none")]


@pytest.mark.parametrize(("loss", "free"), CHOICES)
def test_the_bound_of_a_choice_is_below_the_best(loss: str, free: str) -> None:
    for k in (1, 2):
        for ridge in (0.1, 1.0):
            this = at_most(k, ridge, loss, free)
            best, w, b = best_choice(k, ridge, loss, free)
            weak = best_subset(this, w, b)
            strong = best_subset(this, w, b, search_tree(this, w, b, [1, 0, 2]))
            for claim in (weak, strong):
                positive = claim.numbers["dual"] > 0.0
                assert claim.verdict is (Verdict.PROVED if positive else Verdict.FAILED)
                assert positive or (claim is weak and "No bound better than 0" in claim.statement)
                assert claim.numbers["dual"] <= best * (1.0 + 1e-12)
                assert claim.numbers["primal"] >= best * (1.0 - 1e-9)
            limited = np.full(len(this.groups), np.sqrt(2.0 * best / ridge) * 1.01)
            tree = replace(search_tree(this, w, b, [2]), radius=limited)
            claim = best_subset(this, w, b, tree)
            assert claim.numbers["dual"] <= best * (1.0 + 1e-12)
            assert not any("radii" in sentence for sentence in claim.not_proved), "radii that exclude nothing better"


def one_leaf(this: Problem, A: np.ndarray, radius: np.ndarray) -> BoundProof:
    return BoundProof(A[None], ((),), ((),), radius)


def test_without_ridge_the_radii_are_assumed_where_nothing_can_be_proved() -> None:
    this = at_most(1, 0.0, "squares", "none")
    best, w, b = best_choice(1, 0.0, "squares", "none")
    short = (1.0 + 1e-6) * this.groups.norms(w) + 1e-3
    everything = best_choice(4, 0.0, "squares", "none")  # the fit on all groups, of which it is no choice
    A = this.loss.derivative(this.predictor(*everything[1:]))
    skew = A + 1e-4 * np.random.default_rng(0).standard_normal(A.shape) * this.loss.s[:, None]
    claim = best_subset(this, w, b, one_leaf(this, skew, short))
    assert claim.verdict is Verdict.PROVED
    assert claim.numbers["radius"] == "assumed"
    assert "the radii are assumed, as they are smaller than what can be proved" in claim.not_proved[0]
    assert "with ||w_g|| <= M_g" in claim.statement
    inside = one_leaf(this, skew, 0.9 * this.groups.norms(w))
    assert best_subset(this, w, b, inside).verdict is Verdict.FAILED, "w must obey the radii that are assumed"
    wide = 1.01 * level_radii(this, claim.numbers["dual"])
    claim = best_subset(this, w, b, one_leaf(this, skew, wide))
    assert (claim.verdict, claim.numbers["radius"]) == (Verdict.PROVED, "proved")
    assert not any("radii" in sentence for sentence in claim.not_proved)
    assert claim.numbers["dual"] <= best
    claim = best_subset(this, w, b, one_leaf(this, A, short))
    assert claim.numbers["radius"] == "not needed", "the fit on all groups is orthogonal to all that is allowed"
    assert claim.numbers["dual"] <= everything[0]
    assert best_subset(this, w, b).verdict is Verdict.FAILED, "infinite radii bound nothing without a ridge"


@pytest.mark.parametrize("free", ["none", "both"])
def test_the_radii_hold_the_level_set(free: str) -> None:
    """Steps from the minimiser to the rim of the level set stay inside, and some come near."""
    this = at_most(4, 0.0, "squares", free)
    rng = np.random.default_rng(0)
    design = np.column_stack([this.design.matvec(np.eye(10)), *([np.ones(25)] if this.intercept else [])])
    s = this.loss.s
    y = (this.loss.y - this.loss.offset)[:, 0]
    H = design.T @ (s[:, None] * design)
    center = np.linalg.solve(H, design.T @ (s * y))
    least = 0.5 * float(s @ (y - design @ center) ** 2)
    level = 1.3 * least
    radius = level_radii(this, level)
    nearest = np.zeros(len(this.groups))
    for g in range(len(this.groups)):
        own = this.groups[g]
        pushes = [np.linalg.solve(H, np.eye(len(H))[:, own] @ rng.standard_normal(len(own))) for _ in range(300)]
        for push in (sign * push for push in pushes for sign in (1.0, -1.0)):
            w = center + push * np.sqrt(2.0 * (level - least) / (push @ H @ push))
            nearest = np.maximum(nearest, this.groups.norms(w[:10]))
    assert (nearest <= radius).all()
    assert (nearest >= 0.7 * radius).all()
    deep = level_radii(this, 0.5 * least)
    assert (deep <= radius).all(), "a level that nothing reaches"
    assert level_radii(replace(this, loss=problem("logistic").loss), level) is None
    twice = plain(np.ones((5, 2)), np.arange(5.0), groups=1)
    assert level_radii(replace(twice, penalty=AtMost(twice.groups, 1)), 100.0) is None, "dependent columns"


@pytest.mark.parametrize("loss", ["squares", "logistic", "multinomial", "poisson", "huber"])
def test_dependent_and_separating_columns_need_no_radius(loss: str) -> None:
    """One-hot columns beside an intercept, one of which holds samples of a single class."""
    rng = np.random.default_rng(1)
    kind = np.repeat(np.arange(4), 8)
    X = np.column_stack([np.eye(4)[kind], rng.standard_normal((32, 3))])
    y = {
        "logistic": (rng.random(32) < 0.5).astype(float),
        "multinomial": np.arange(32) % 3,
        "poisson": rng.poisson(2.0, 32).astype(float),
    }.get(loss, X[:, 4] + rng.standard_normal(32))
    if loss not in ("squares", "huber"):
        y = np.where(kind == 0, 0, y)
    base = Problem.build(X, y, Groups.from_sizes([4, 2, 1]), loss=loss)
    this = replace(base, penalty=AtMost(base.groups, 2))
    best = exact(this)
    claim = best_subset(this, best.w, best.intercept, best.proof)
    assert (claim.verdict, claim.numbers["radius"]) == (Verdict.PROVED, "not needed")
    assert claim.numbers["relative_gap"] < 1e-6
    assert claim.numbers["dual"] <= best.objective


def test_a_bound_of_zero_is_no_bound_unless_the_fit_is_perfect() -> None:
    this = at_most(1, 0.0, "squares", "none")
    _, w, b = best_choice(1, 0.0, "squares", "none")
    zero = one_leaf(this, np.zeros((25, 1)), np.full(4, np.inf))
    claim = best_subset(this, w, b, zero)
    assert claim.verdict is Verdict.FAILED
    assert claim.statement.startswith("No bound better than 0 was found")
    X = np.random.default_rng(5).standard_normal((20, 6))
    base = Problem.build(X, X[:, 2:4] @ [1.0, 2.0] + 1.0, groups=2)
    perfect = replace(base, penalty=AtMost(base.groups, 1))
    found = exact(perfect)
    claim = best_subset(perfect, found.w, found.intercept, found.proof)
    assert claim.verdict is Verdict.PROVED
    assert claim.numbers["dual"] == 0.0
    assert claim.numbers["gap_to_null"] < 1e-9
    assert claim.numbers["null"] == pytest.approx(base.loss.value(np.broadcast_to(base.loss.y.mean(), (20, 1))))
    assert "of the loss without groups" in claim.statement


def test_leaves_that_leave_choices_out_are_rejected() -> None:
    this = at_most(2, 0.5)
    _, w, b = best_choice(2, 0.5)
    whole = search_tree(this, w, b, [0, 1])
    assert best_subset(this, w, b, whole).verdict is Verdict.PROVED
    for m in range(4):
        kept = [j for j in range(4) if j != m]
        part = BoundProof(
            whole.dual[kept],
            tuple(whole.leaf_in[j] for j in kept),
            tuple(whole.leaf_out[j] for j in kept),
            whole.radius,
        )
        claim = best_subset(this, w, b, part)
        assert claim.verdict is Verdict.FAILED
        assert "do not cover" in claim.statement
    for bad in (((0,), (0,)), ((17,), ()), ((-1,), ())):
        claim = best_subset(this, w, b, BoundProof(whole.dual[:1], (bad[0],), (bad[1],), whole.radius))
        assert claim.verdict is Verdict.FAILED
    dense = best_subset(this, np.ones(10), b, whole)
    assert dense.verdict is Verdict.FAILED
    with pytest.raises(ValueError, match="radius has the shape"):
        best_subset(this, w, b, replace(whole, radius=np.ones(1)))
    with pytest.raises(ValueError, match="pass one for each"):
        best_subset(this, w, b, replace(whole, leaf_in=((),)))


def test_covers_agrees_with_enumeration() -> None:
    rng = np.random.default_rng(0)
    answers = set()
    for _ in range(400):
        t, k = 4, int(rng.integers(1, 4))
        states = rng.choice([-1, 0, 0, 1], size=(int(rng.integers(1, 9)), t))
        choices = [set(c) for size in range(k + 1) for c in combinations(range(t), size)]
        # A leaf that forces more than k groups in holds no choice; a choice within fewer than k is one of k as well.
        truth = all(any(all((g in c) == (s > 0) for g, s in enumerate(row) if s) for row in states) for c in choices)
        assert subset.covers(states, k) == truth
        answers.add(truth)
    assert answers == {True, False}


def test_a_choice_counted_short_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the conjugate the bound exceeds the best value."""
    this = at_most(1, 1.0)
    best, w, b = best_choice(1, 1.0)
    assert best_subset(this, w, b).numbers["dual"] <= best
    monkeypatch.setattr(subset, "_worth", lambda v, radius, ridge: 0.0 * v)
    assert best_subset(this, w, b).numbers["dual"] > best
