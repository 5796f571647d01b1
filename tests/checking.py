"""A check at its small size, and what it found otherwise than predicted."""

from __future__ import annotations

from typing import Any

from sparseopt.proofs_checks.evidence import Evidence
from sparseopt.proofs_checks.running import run

__all__ = ["check", "wrong"]


def wrong(evidence: Evidence) -> list[str]:
    """The claims that did not come out as predicted."""
    return [finding.claim for finding in evidence.findings if not finding.as_expected]


def check(name: str, seed: int = 0, q: Any = None) -> Evidence:
    (evidence,) = run([name], size="small", seed=seed, jobs=1, regularizer=q)
    return evidence
