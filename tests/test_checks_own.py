"""The checks on regularizers of one's own: what they are told, what is false of it, and what does not apply.

In a file of their own: a process with such classes keeps its kernels apart, and compiles those of the package again.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest
from checking import check, wrong

from sparseopt import Expm1Mask, LogSum
from sparseopt.proofs_checks.evidence import Evidence, Verdict
from sparseopt.proofs_checks.figures import svg
from sparseopt.proofs_checks.running import statement
from sparseopt.regularizers import regularizer
from sparseopt.scalar import maximum, sin

pytest.importorskip("flint")
pytest.importorskip("matplotlib")


@regularizer
class Square(NamedTuple):
    """q(u) = u^2, superadditive."""

    def value(self, u):
        return u * u

    def slope(self, u):
        return 2.0 * u

    def prox(self, u, t):
        return u / (1.0 + 2.0 * t)

    def slope_at_zero(self):
        return 0.0


@regularizer
class Boastful(NamedTuple):
    """The square again, with claims and a prox that are not true."""

    def value(self, u):
        return u * u

    def slope(self, u):
        return 2.0 * u

    def prox(self, u, t):
        return maximum(u - t, 0.0)

    def slope_at_zero(self):
        return 0.0

    def subadditive(self):
        return True

    def increasing(self):
        return True


@regularizer
class Wavy(NamedTuple):
    """q(u) = u + 2 sin u, which decreases."""

    def value(self, u):
        return u + 2.0 * sin(u)

    def slope(self, u):
        return 1.0 + 2.0 * (1.0 - 2.0 * sin(0.5 * u) ** 2)

    def prox(self, u, t):
        return 0.0 * u

    def slope_at_zero(self):
        return 3.0


def verdicts(evidence: Evidence) -> dict[str, Verdict]:
    return {finding.claim.split(",")[0].split(" covers")[0]: finding.verdict for finding in evidence.findings}


def test_a_sound_regularizer_of_ones_own() -> None:
    for q in (LogSum(0.3), Expm1Mask()):
        hypotheses, functions = check("regularizer_hypotheses", q=q), check("prox_and_block_functions", q=q)
        assert (wrong(hypotheses), wrong(functions)) == ([], [])
        assert verdicts(hypotheses)["Theorem 1.1"] is Verdict.HOLDS


def test_a_regularizer_that_claims_nothing_and_fails_a_hypothesis() -> None:
    evidence = check("regularizer_hypotheses", q=Square())
    assert wrong(evidence) == []  # it claims nothing of the kind
    told = verdicts(evidence)
    assert told["subadditive"] is Verdict.REFUTED
    assert told["Theorem 1.1"] is Verdict.NOT_APPLICABLE
    refuted = next(finding for finding in evidence.findings if finding.claim.startswith("subadditive"))
    assert "a = " in refuted.detail
    assert wrong(check("prox_and_block_functions", q=Square())) == []


def test_false_claims_of_a_regularizer_are_red() -> None:
    assert [claim.split(",")[0] for claim in wrong(check("regularizer_hypotheses", q=Boastful()))] == ["subadditive"]
    evidence = check("prox_and_block_functions", q=Boastful())
    broken = next(finding for finding in evidence.findings if not finding.as_expected)
    assert broken.claim.startswith("prox minimises")
    assert "better" in broken.detail


def test_a_q_that_decreases() -> None:
    evidence = check("regularizer_hypotheses", q=Wavy())
    told = verdicts(evidence)
    assert told["q does not decrease"] is Verdict.REFUTED
    assert told["Theorem 1.1"] is Verdict.NOT_APPLICABLE
    assert svg(statement("regularizer_hypotheses").figure(evidence), "wavy").startswith("<svg")
    functions = check("prox_and_block_functions", q=Wavy())
    assert any("prox minimises" in claim for claim in wrong(functions))
    assert svg(statement("prox_and_block_functions").figure(functions), "wavy").startswith("<svg")
