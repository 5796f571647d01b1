"""Certificates and regularizers of one's own: what is not applied to them, and what a file says of them.

In a file of their own: a process with such classes keeps its kernels apart, and compiles those of the package again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from certified_cases import plain
from verified_cases import lasso, report

from sparseopt import L0, MCP, SCAD, Capped, LambertW, LogSum, Power, regularizer
from sparseopt.certificates import Verdict, duality_gap, one_group_kkt, one_group_window, optimality_gap, theorem_1_1
from sparseopt.certificates.files import load_report, save_report
from sparseopt.certificates.regularizers import regularizer as regularizer_claim
from sparseopt.certificates.verify import verify
from sparseopt.scalar import log1p


@regularizer
class Square(NamedTuple):
    """q = u^2, strictly increasing and superadditive."""

    def value(self, u):
        return u * u

    def slope(self, u):
        return 2.0 * u

    def prox(self, u, t):
        return u / (1.0 + 2.0 * t)

    def slope_at_zero(self):
        return 0.0

    def increasing(self):
        return True

    def concave(self):
        return False

    def subadditive(self):
        return False


@pytest.mark.parametrize("q", [LambertW(), Square(), Capped(1.0), MCP(3.0), SCAD(), L0()], ids=str)
def test_the_theorem_is_not_applied_to_other_q(q: Any) -> None:
    """c = (2, 1), lam = 1.2: the group lasso has one active group, and its bound 2.18 would be wrong for these q."""
    this = plain(np.eye(2), [2.0, 1.0], penalty=q, composite=True, lam=1.2)
    for make in (theorem_1_1, optimality_gap, one_group_window, one_group_kkt):
        claim = make(this, np.array([0.8, 0.0]))
        assert claim.verdict is Verdict.NOT_APPLICABLE
        assert "needs q strictly increasing and subadditive" in claim.statement
        assert not claim.numbers


def test_the_counterexamples_are_ones() -> None:
    """The bound of the group lasso lies above values that problem (1) takes for Lambert-W and for u^2."""
    lasso = plain(np.eye(2), [2.0, 1.0], lam=1.2)
    bound = duality_gap(lasso, [0.8, 0.0]).numbers["dual"]
    assert bound == pytest.approx(2.18, rel=1e-10)
    for q, w in ((LambertW(), [0.820273, 0.289091]), (Square(), [0.926687, 0.463344])):
        assert plain(np.eye(2), [2.0, 1.0], penalty=q, composite=True, lam=1.2).value(w) < bound - 0.1
    assert theorem_1_1(lasso, [0.8, 0.0]).verdict is Verdict.PROVED
    separable = plain(np.eye(2), [2.0, 1.0], penalty=Power(0.5), lam=1.2)
    assert theorem_1_1(separable, [0.8, 0.0]).verdict is Verdict.NOT_APPLICABLE


@regularizer
class Own(NamedTuple):
    """A regularizer that is not of the package."""

    eps: float = 1.0

    def value(self, u: Any) -> Any:
        return log1p(u / self.eps)

    def slope(self, u: Any) -> Any:
        return 1.0 / (self.eps + u)

    def prox(self, u: Any, t: Any) -> Any:
        return LogSum(self.eps).prox(u, t)

    def slope_at_zero(self) -> float:
        return 1.0 / self.eps

    def increasing(self) -> bool:
        return True

    def subadditive(self) -> bool:
        return True


def test_a_regularizer_of_ones_own_must_be_passed(tmp_path: Path) -> None:
    pytest.importorskip("flint", reason="the verifier computes with python-flint")
    problem = lasso(penalty=Own(0.5), composite=True)
    save_report(report(problem, optimality_gap, regularizer_claim), tmp_path / "own.json")
    with pytest.raises(ValueError, match="pass it as q"):
        load_report(tmp_path / "own.json")
    assert load_report(tmp_path / "own.json", q=Own(0.5)).problem.penalty.q == Own(0.5)
    found = verify(tmp_path / "own.json")
    assert not found.ok
    assert "no formula" in str(found)
