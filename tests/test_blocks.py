"""Steps in one block lower its model, and stop where the block's own optimality condition holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sparseopt import L0, MCP, SCAD, Arctan, Capped, Laplace, LogSum, Power, TransformedL1
from sparseopt.jit import kernel
from sparseopt.penalty import Lifted, Separable
from sparseopt.solvers.blocks import Terms, Work, work_for
from sparseopt.solvers.kinds import Concave, Proximal

PENALTIES = [
    MCP(1.5),
    SCAD(3.0),
    LogSum(0.5),
    Power(0.5),
    Laplace(0.7),
    TransformedL1(1.0),
    Arctan(1.0),
    Capped(0.8),
    L0(),
]
OMEGA = 1.3


@kernel
def _step(kind, work, d, was_zero, vals, at, vecs, vec_at, shape, omega, terms, total):
    return kind.step(work, d, was_zero, vals, at, vecs, vec_at, shape, omega, terms, total)


class Block:
    """min over w of <g, w - old> + (w - old)'H(w - old) / 2 + block omega q(||w||) + ridge ||w||^2 / 2."""

    def __init__(self, seed: int, d: int, outputs: int, q: Any, ridge: float, spread: float, zero: bool) -> None:
        rng = np.random.default_rng(seed)
        basis = np.linalg.qr(rng.normal(size=(d, d)))[0]
        self.vals = np.sort(np.exp(spread * rng.normal(size=d)))
        self.vecs = basis
        self.H = basis @ np.diag(self.vals) @ basis.T
        self.old = np.zeros((outputs, d)) if zero else rng.normal(size=(outputs, d))
        self.gradient = 2.0 * rng.normal(size=(outputs, d))
        self.shape, self.terms = Separable(q), Terms(0.9, 0.0, ridge)

    def value(self, w: np.ndarray) -> float:
        step = w - self.old
        norm = np.linalg.norm(w)
        smooth = np.vdot(self.gradient, step) + 0.5 * np.vdot(step @ self.H, step) + 0.5 * self.terms.ridge * norm**2
        return float(smooth + self.terms.block * self.shape.part(norm, OMEGA))

    def moved_by_prox(self, w: np.ndarray) -> float:
        """How far a prox-gradient step with step 1 / max(e) moves w."""
        L = self.vals[-1]
        v = (L * w - self.gradient - (w - self.old) @ self.H) / (L + self.terms.ridge)
        u = np.linalg.norm(v)
        shrunk = self.shape.shrink(u, self.terms.block / (L + self.terms.ridge), OMEGA, 0.0)
        return float(L * np.linalg.norm(v * shrunk / u - w))

    def step(self, kind: Any) -> tuple[np.ndarray, float, float]:
        """Where the step leads, d'Hd of it, and the first prox move."""
        work = work_for(*self.old.shape)
        work.gradient[:], work.old[:] = self.gradient, self.old
        vals, vecs = self.vals.copy(), self.vecs.ravel().copy()
        was_zero = not self.old.any()
        d = self.old.shape[1]
        moved, first, _ = _step(kind, work, d, was_zero, vals, 0, vecs, 0, self.shape, OMEGA, self.terms, 0.0)
        return work.new.copy(), moved, first


def blocks(q: Any) -> list[Block]:
    return [
        Block(seed, d, outputs, q, ridge, spread, zero)
        for seed in range(6)
        for d, outputs in ((2, 1), (7, 1), (3, 4))
        for ridge in (0.0, 0.4)
        for spread in (0.0, 1.0)
        for zero in (False, True)
    ]


@pytest.mark.parametrize("q", PENALTIES, ids=str)
def test_concave_steps_lower_the_model_and_rest_where_prox_steps_do(q: Any) -> None:
    left = []
    for block in blocks(q):
        new, moved, first = block.step(Concave())
        assert block.value(new) <= block.value(block.old) + 1e-12 * abs(block.value(block.old))
        assert moved == pytest.approx(np.vdot((new - block.old) @ block.H, new - block.old), rel=1e-9, abs=1e-12)
        assert first == pytest.approx(block.moved_by_prox(block.old), rel=1e-9, abs=1e-12)
        left.append(block.moved_by_prox(new) / max(first, 1e-12))
    assert np.median(left) < 1e-3  # the rest would jump, or converges slowly where q bends as strongly as the loss


@pytest.mark.parametrize("q", PENALTIES, ids=str)
def test_concave_steps_go_no_less_far_than_proximal_ones(q: Any) -> None:
    ours = np.array([block.value(block.step(Concave())[0]) for block in blocks(q)])
    proximal = np.array([block.value(block.step(Proximal())[0]) for block in blocks(q)])
    assert (ours <= proximal + 1e-3 * np.abs(proximal)).mean() > 0.9


def wrong_tangent(name: str) -> Any:
    """A step whose tangent has another slope than q."""

    class Wrong:
        def __init__(self, shape: Any) -> None:
            self.shape = shape

        def shrink(self, *args: float) -> float:
            return self.shape.shrink(*args)

        def tangent(self, r: float, omega: float, rest: float) -> float:
            right = self.shape.tangent(r, omega, rest)
            return {"no omega": right / omega, "none": 0.0, "at zero": omega * self.shape.q.slope_at_zero()}[name]

    def step(work: Work, d: int, vals: Any, at: int, vecs: Any, vec_at: int, shape: Any, omega: float, terms: Terms):
        return Concave().step(work, d, False, vals, at, vecs, vec_at, Wrong(shape), omega, terms, 0.0)[:2]

    return step


def check_tangent(shape: Any, rest: float) -> None:
    """tangent is the derivative of the penalty in the norm of one group, the others fixed."""
    for u in (0.05, 0.6, 3.0):
        rise = shape.whole(shape.part(u + 1e-6, OMEGA) + rest) - shape.whole(shape.part(u - 1e-6, OMEGA) + rest)
        assert shape.tangent(u, OMEGA, rest) == pytest.approx(rise / 2e-6, rel=1e-5, abs=1e-9)


SEPARABLE = [Separable(q) for q in (LogSum(0.5), Power(0.5), Laplace(0.7), TransformedL1(1.0), MCP(1.5), SCAD(3.0))]
LIFTED = [Lifted(q) for q in (LogSum(0.5), Power(0.5), Laplace(0.7), TransformedL1(1.0))]


@pytest.mark.parametrize("shape", [*SEPARABLE, *LIFTED], ids=str)
def test_tangents(shape: Any) -> None:
    check_tangent(shape, rest=0.0)


@pytest.mark.parametrize("shape", LIFTED[:2], ids=str)  # the other q are bounded
def test_tangents_beside_other_groups(shape: Any) -> None:
    check_tangent(shape, rest=0.05)
    check_tangent(shape, rest=0.3)


def test_one_group_of_a_bounded_q_is_a_group_lasso_where_q_has_lost_its_slope() -> None:
    assert Lifted(MCP(1.5)).tangent(20.0, OMEGA, 0.0) == OMEGA


def test_the_law_of_tangents_rejects_that_of_the_sum() -> None:
    class Sum(Separable):
        def whole(self, parts: float) -> float:
            return float(self.q.inverse(parts))

    with pytest.raises(AssertionError):
        check_tangent(Sum(LogSum(0.5)), rest=0.3)


@pytest.mark.parametrize("name", ["no omega", "none", "at zero"])
def test_a_wrong_tangent_is_noticed(name: str) -> None:
    rests = []
    for block in blocks(LogSum(0.5))[:24]:
        work = work_for(*block.old.shape)
        work.gradient[:], work.old[:] = block.gradient, block.old
        step = wrong_tangent(name)
        d = block.old.shape[1]
        _, first = step(work, d, block.vals, 0, block.vecs.ravel().copy(), 0, block.shape, OMEGA, block.terms)
        rests.append(block.moved_by_prox(work.new) / max(first, 1e-12))
    assert np.median(rests) > 1e-3
