"""What a check found: findings, each with its verdict and the verdict that the theory predicts.

    proved           on this instance, by ball arithmetic or a verified certificate
    holds            to a tolerance, on every instance tried
    refuted          with a counterexample
    not applicable   a hypothesis fails, so nothing is claimed

A finding is as expected if its verdict is the predicted one. A negative control drops a hypothesis and is expected to
be refuted: a control that holds means that the check cannot see what it looks for, and counts as an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["SIZES", "Evidence", "Finding", "Statement", "Verdict", "control", "holds", "proved", "verified"]

SIZES = ("small", "medium", "large")


class Verdict(Enum):
    """How a claim stands; the value is what the report prints."""

    PROVED = "proved"
    HOLDS = "holds to tolerance"
    REFUTED = "refuted"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True)
class Finding:
    """One claim, tried on instances.

    Parameters
    ----------
    claim : str
        What was tried, in words.
    verdict, expected : Verdict
        What came out, and what the theory predicts.
    tried : int
        Number of instances.
    violation : float
        Largest amount by which an instance breaks the claim, in the unit of `tolerance`; <= 0 means with room to spare.
    tolerance : float
        What still counts as holding.
    detail : str
        The numbers behind the verdict, in a sentence; a counterexample if there is one.
    printed, corrected : str
        For a statement that is refuted as printed (arXiv v1): its printed form, and the form that does hold.
    reports : dict from file name to Report
        Certificates behind the verdict, some of them; saved under these names they are for `sparseopt verify`.
    """

    claim: str
    verdict: Verdict
    expected: Verdict = Verdict.HOLDS
    tried: int = 1
    violation: float = 0.0
    tolerance: float = 0.0
    detail: str = ""
    printed: str = ""
    corrected: str = ""
    reports: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def certificates(self) -> tuple[str, ...]:
        """Names of the files of `reports`."""
        return tuple(self.reports)

    @property
    def as_expected(self) -> bool:
        """Whether the verdict is the predicted one; a proof where only agreement was predicted is welcome."""
        return self.verdict is self.expected or (self.verdict, self.expected) == (Verdict.PROVED, Verdict.HOLDS)


@dataclass(frozen=True)
class Evidence:
    """What a check found.

    Parameters
    ----------
    statement : str
        Name of the statement.
    findings : tuple of Finding
    series : dict of arrays
        What the figure draws.
    """

    statement: str
    findings: tuple[Finding, ...]
    series: Mapping[str, NDArray[Any]] = field(default_factory=dict, repr=False)

    @property
    def as_expected(self) -> bool:
        """Whether every finding is."""
        return all(finding.as_expected for finding in self.findings)

    @property
    def tried(self) -> int:
        """Instances over all findings."""
        return sum(finding.tried for finding in self.findings)


@dataclass(frozen=True)
class Statement:
    """A statement of the paper, or of its extensions, that can be checked.

    Parameters
    ----------
    name : str
        The name of its module.
    number : str
        "Lemma 2.4", "Theorem 1.1", or "extension" for what goes beyond the paper.
    title : str
        A few words.
    source : str
        Where it is from.
    text : str
        The statement in mathematical words; a line that starts with four blanks is a formula.
    hypotheses : dict from words to condition
        What the statement assumes; a condition takes what the statement is about (a regularizer, or a problem).
    check : callable (rng, size) -> Evidence
        With an argument `regularizer` if `takes_regularizer`.
    figure : callable Evidence -> matplotlib figure
    caption : str
        One sentence: what to see in the figure.
    takes_regularizer : bool
        Whether the check can be run for a regularizer of one's own.
    """

    name: str
    number: str
    title: str
    source: str
    text: str
    hypotheses: Mapping[str, Callable[[Any], bool]]
    check: Callable[..., Evidence]
    figure: Callable[[Evidence], Any]
    caption: str
    takes_regularizer: bool = False


def holds(
    claim: str,
    violations: ArrayLike,
    tolerance: float,
    detail: str = "",
    *,
    expected: Verdict = Verdict.HOLDS,
    where: Callable[[int], str] | None = None,
    **more: Any,
) -> Finding:
    """A finding from the violations of all instances: it holds if none exceeds the tolerance; NaN is a violation.

    `where(i)` describes instance i, for the counterexample if it does not hold.

    Examples
    --------
    >>> holds("2 + 2 = 4", [0.0, 1e-16], 1e-12).verdict.name
    'HOLDS'
    >>> holds("2 + 2 = 5", [1.0], 1e-12, where=lambda i: f"instance {i}").detail
    'Counterexample: instance 0.'
    """
    values = np.atleast_1d(np.asarray(violations, dtype=np.float64)).ravel()
    if not values.size:
        return Finding(claim, Verdict.NOT_APPLICABLE, expected, 0, 0.0, tolerance, detail or "No instance.", **more)
    worst = int(np.argmax(np.where(np.isnan(values), np.inf, values)))
    fine = bool(values[worst] <= tolerance)
    if not fine and where is not None:
        detail = f"{detail} Counterexample: {where(worst)}.".strip()
    return Finding(
        claim,
        Verdict.HOLDS if fine else Verdict.REFUTED,
        expected,
        values.size,
        float(values[worst]),
        tolerance,
        detail,
        **more,
    )


def control(claim: str, violation: float, margin: float, detail: str = "", **more: Any) -> Finding:
    """A negative control: the claim must be broken by at least `margin`, by a known counterexample.

    Examples
    --------
    >>> control("all numbers are even", violation=1.0, margin=0.5).as_expected
    True
    >>> control("all numbers are even", violation=0.0, margin=0.5).as_expected
    False
    """
    broken = violation >= margin
    verdict = Verdict.REFUTED if broken else Verdict.HOLDS
    return Finding(claim, verdict, Verdict.REFUTED, 1, float(violation), float(margin), detail, **more)


def verified(claim: str, refusals: Sequence[str], tried: int) -> Finding:
    """A finding of certificates that were saved and given to the verifier, from its refusals.

    Not applicable where the verifier has no formula of the regularizer: it never runs code that a file names.
    """
    if refusals and all("no formula" in sentence for sentence in refusals):
        apart = Verdict.NOT_APPLICABLE
        return Finding(claim, apart, apart, tried, detail="The verifier knows the regularizers of the package only.")
    detail = f"Refused: {refusals[0]}" if refusals else f"{tried} claims, through their files."
    return proved(claim, not refusals, detail, tried)


def proved(claim: str, enclosed: bool, detail: str = "", tried: int = 1, **more: Any) -> Finding:
    """A finding of ball arithmetic or of a verified certificate: proved, or refuted where the enclosure denies it."""
    verdict = Verdict.PROVED if enclosed else Verdict.REFUTED
    return Finding(claim, verdict, Verdict.PROVED, tried, 0.0 if enclosed else 1.0, 0.0, detail, **more)
