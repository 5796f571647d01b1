"""Paths cost no more work than they did: epochs, passes over X, columns and operations, the same on every machine.

The bounds are what `python -m sparseopt.experiments.bench_growth --work` printed. A better solver prints less: then
they are lowered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sparseopt import Problem, path
from sparseopt.designs import Csc, Dense
from sparseopt.experiments import work
from sparseopt.experiments.work import CASES, Work, counted
from sparseopt.solvers import descent, gradients
from sparseopt.solvers.gradients import Gradients
from sparseopt.solvers.iterate import Iterate

HEADROOM = 0.15  # other processors sum in another order, and a sweep more or less follows

BOUNDS = {
    "dense": Work(165, 24, 3705, 4930, 12.37),
    "wide": Work(182, 13, 7230, 10130, 3.724),
    "corr": Work(61, 10, 1060, 1305, 2.815),
    "unequal": Work(144, 29, 1848, 11575, 21.43),
    "tall": Work(53, 6, 280, 275, 0.1581),
    "sparse": Work(123, 18, 6750, 20330, 1.266),
    "logistic": Work(190, 27, 4380, 6605, 15.41),
    "multitask": Work(132, 23, 250, 2293, 47.6),
    "sgl": Work(180, 22, 3415, 4265, 10.65),
    "dense, intercept": Work(161, 24, 3585, 4880, 12.08),
    "logistic, intercept": Work(188, 26, 4330, 6505, 14.89),
    "dense, mcp": Work(338, 19, 1900, 1560, 10.72),
    "dense, scad": Work(318, 17, 5825, 2875, 11.69),
    "multitask, mcp": Work(387, 12, 2082, 1259, 66.14),
}


# Kernels for SCAD are needed by no other test, and take ten seconds to compile; MCP stays.
@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if "scad" in n else []) for n in CASES])
def test_a_path_costs_no_more_than_it_did(name: str) -> None:
    assert counted(CASES[name]()).beyond(BOUNDS[name], HEADROOM) == []


def test_counts_are_the_same_every_time() -> None:
    assert counted(CASES["unequal"]()) == counted(CASES["unequal"]())


# -- the counters ------------------------------------------------------------------------------------------------------


def test_a_product_and_a_group_count_what_they_read() -> None:
    X = np.random.default_rng(0).standard_normal((20, 12))
    problem = Problem.build(X, X[:, 0], groups=3, intercept=False)
    rows = np.ones((1, 20))
    with work.counting() as counts:
        slow = Gradients(problem.design, problem.groups)
        for k in range(gradients.PATIENCE):
            slow.at((1.0 + k) * rows)
        assert (counts["passes"], counts["columns"]) == (gradients.PATIENCE, 0)
        assert counts["flops"] == gradients.PATIENCE * 2 * 20 * 12
        slow.at(np.arange(20.0)[None, :])
        assert slow.ensure(np.array([True, False, False, False]))
        assert (counts["passes"], counts["columns"]) == (gradients.PATIENCE, 3)
        assert counts["flops"] == gradients.PATIENCE * 2 * 20 * 12 + 2 * 20 * 3


def test_the_library_is_as_it_was_afterwards() -> None:
    before = (Dense.rmatvec, Csc.rmatvec, Gradients._above, Iterate.minimise)
    with work.counting():
        assert Dense.rmatvec is not before[0]
    assert (Dense.rmatvec, Csc.rmatvec, Gradients._above, Iterate.minimise) == before


def test_counting_changes_no_answer() -> None:
    problem = CASES["dense"]()
    plain = path(problem, n_lams=5, progress=False)
    with work.counting():
        watched = path(problem, n_lams=5, progress=False)
    np.testing.assert_array_equal(plain.coefs, watched.coefs)


# -- wasteful solvers --------------------------------------------------------------------------------------------------


def no_screening(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = descent.BlockDescent._first_set
    monkeypatch.setattr(descent.BlockDescent, "_first_set", lambda self: np.ones_like(chosen(self)))


def no_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descent, "IMPATIENCE", 10**9)  # every check multiplies by all of X


def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradients, "WORTH", 0.0)  # a single undecided group costs a product with all of X


def too_accurate(monkeypatch: pytest.MonkeyPatch) -> None:
    goal = descent.BlockDescent._goal
    monkeypatch.setattr(descent.BlockDescent, "_goal", lambda self, tol: 1e-4 * goal(self, tol))


def no_warm_start(monkeypatch: pytest.MonkeyPatch) -> None:
    advance = descent.BlockDescent.advance

    def from_zero(self: Any, *args: Any) -> Any:
        fresh = descent.BlockDescent(self.problem)
        self.point, self.gradients, self.lam = fresh.point, fresh.gradients, fresh.lam
        return advance(self, *args)

    monkeypatch.setattr(descent.BlockDescent, "advance", from_zero)


def loose_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    at = Gradients.at

    def looser(self: Gradients, rows: Any) -> None:
        at(self, rows)
        self.slack *= 10.0

    monkeypatch.setattr(Gradients, "at", looser)
    monkeypatch.setattr(gradients, "WORTH", np.inf)
    monkeypatch.setattr(gradients, "MOST", np.inf)


WASTE = (
    ("screened", no_screening),
    ("passes", no_bounds),
    ("passes", no_patience),
    ("columns", loose_bounds),
    ("epochs", too_accurate),
    ("flops", no_warm_start),
)


@pytest.mark.parametrize(("what", "spoil"), WASTE)
def test_waste_is_rejected(what: str, spoil: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch)
    assert what in " ".join(counted(CASES["dense"]()).beyond(BOUNDS["dense"], HEADROOM))
