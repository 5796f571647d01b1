"""A regularizer of one's own in words: what it is, whether Theorem 1.1 covers it, where its prox jumps, what breaks it.

    proved     in ball arithmetic on [1e-3, 1e3]
    refuted    by numbers, which are given
    open       neither; then all pairs of a grid from 1e-5 to 1e3 were tried, and none denies it

Theorem 1.1 needs q(0) = 0, increasing and subadditive. Where one fails, the instances of `broken` are searched for one
on which problem (1) goes below the group lasso. A prox jumps where two minimisers tie; the place is found by bisection.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sparseopt.proofs_checks.evidence import Evidence
from sparseopt.proofs_checks.instances import broken
from sparseopt.proofs_checks.scalar_facts import GRID, concavity_defect, decrease, subadditivity_defect

__all__ = ["Answer", "Summary", "jumps", "summary"]

_LO, _HI = 1e-3, 1e3
_STEPS = (0.1, 0.3, 1.0, 3.0, 10.0)
_ROUNDING = 1e-10
_FAR = 1e15
_SHOWN = 2  # jumps per step


@dataclass(frozen=True)
class Answer:
    """A question about q, the answer in a word or two, and the numbers behind it.

    Parameters
    ----------
    question, answer, detail : str
    kind : str
        "proved", "holds", "refuted", "open" or "wrong": how the answer is marked on the page.
    """

    question: str
    answer: str
    detail: str
    kind: str


@dataclass(frozen=True)
class Summary:
    """What there is to say about a regularizer.

    Parameters
    ----------
    name : str
        q as it is written in Python.
    answers : tuple of Answer
    """

    name: str
    answers: tuple[Answer, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def lines(self, width: int = 110) -> list[str]:
        """For a terminal."""
        first = max(len(a.question) for a in self.answers)
        out = [self.name]
        for a in self.answers:
            text = f"{a.answer}. {a.detail}".strip()
            out += textwrap.wrap(
                text, width, initial_indent=f"  {a.question:<{first}}  ", subsequent_indent=" " * (first + 4)
            )
        return out


def summary(q: Any, found: Sequence[Evidence] = ()) -> Summary:
    """The answers for q; `found` is evidence about it, to say which check is not as expected.

    Examples
    --------
    >>> from sparseopt import LogSum
    >>> for answer in summary(LogSum(1.0)).answers[1:4]:
    ...     print(answer.question, answer.answer)
    Increasing proved
    Subadditive proved
    Concave proved
    """
    from sparseopt.certificates.regularizers import examine

    shown = examine(q, _LO, _HI)
    zero = float(np.asarray(q.value(np.zeros(1)))[0])
    at_zero = Answer("q(0) = 0", *(("yes", "", "holds") if zero == 0.0 else ("no", f"q(0) = {zero:g}.", "refuted")))
    hypotheses = [_increasing(q, shown), _subadditive(q, shown), _concave(q, shown)]
    theorem = _theorem(q, [at_zero, *hypotheses[:2]])
    answers = [at_zero, *hypotheses, _bounded(q, shown), theorem, _where_it_jumps(q)]
    return Summary(repr(q), (*answers, _contradictions(found)) if found else tuple(answers))


def jumps(q: Any, t: float) -> list[tuple[float, float, float]]:
    """Where prox(u, t) jumps for u up to 20 + 4t: u, and the values on both sides; at most five, the largest.

    Examples
    --------
    >>> from sparseopt import L0
    >>> [(u, low, high)] = jumps(L0(), 2.0)
    >>> round(u, 9), low, round(high, 9)
    (2.0, 0.0, 2.0)
    """

    def prox(u: Any) -> Any:
        return np.asarray(q.prox(np.asarray(u, dtype=np.float64), t), dtype=np.float64)

    u = np.linspace(0.0, 20.0 + 4.0 * t, 6001)
    rise = np.abs(np.diff(prox(u)))
    steep = np.flatnonzero(rise > 3.0 * (u[1] - u[0]))
    steep = np.sort(steep[np.argsort(-rise[steep], kind="stable")[:5]])
    low, high = u[steep], u[steep + 1]
    for _ in range(60):
        middle = 0.5 * (low + high)
        left = np.abs(prox(middle) - prox(low)) >= np.abs(prox(high) - prox(middle))
        low, high = np.where(left, low, middle), np.where(left, middle, high)
    ends = zip(high, prox(low), prox(high), strict=True)
    return [(float(x), float(a), float(b)) for x, a, b in ends if abs(b - a) > 1e-5 * max(float(x), 1.0)]


def _proved(shown: dict[str, Any], name: str, question: str, detail: str) -> Answer | None:
    if shown.get(name) != "proved":
        return None
    return Answer(question, "proved", f"{detail} on [{_LO:g}, {_HI:g}], in ball arithmetic.", "proved")


def _open(shown: dict[str, Any], question: str, detail: str) -> Answer:
    why = f" No ball arithmetic: {shown['unreadable']}." if "unreadable" in shown else ""
    return Answer(question, "open", f"{detail}{why}", "open")


def _pair(shown: dict[str, Any], name: str, denied: bool, at: tuple[float, float]) -> tuple[float, float] | None:
    """Numbers that refute a property: those of ball arithmetic, or else those of the grid."""
    told = shown.get(f"{name}_at")
    return (float(told[0]), float(told[1])) if told else at if denied else None


def _increasing(q: Any, shown: dict[str, Any]) -> Answer:
    fall, at = decrease(q)
    i = int(np.searchsorted(GRID, at))
    against = _pair(shown, "increasing", fall > _ROUNDING, (float(GRID[max(i - 1, 0)]), at))
    if against:
        a, b = against
        detail = f"q({a:.6g}) = {_at(q, a):.6g}, and q({b:.6g}) = {_at(q, b):.6g}."
        return Answer("Increasing", "refuted", detail, "refuted")
    detail = "It rises between all neighbours of a grid." if fall < 0.0 else f"It is flat in floats near u = {at:.4g}."
    return _proved(shown, "increasing", "Increasing", "q' > 0") or _open(shown, "Increasing", detail)


def _subadditive(q: Any, shown: dict[str, Any]) -> Answer:
    excess, *pair = subadditivity_defect(q)
    against = _pair(shown, "subadditive", excess > _ROUNDING, (pair[0], pair[1]))
    if against:
        a, b = against
        detail = f"q({a:.6g}) + q({b:.6g}) = {_at(q, a) + _at(q, b):.6g} is below q({a + b:.6g}) = {_at(q, a + b):.6g}."
        return Answer("Subadditive", "refuted", detail, "refuted")
    detail = f"None of {GRID.size * (GRID.size + 1) // 2} pairs of norms denies it."
    return _proved(shown, "subadditive", "Subadditive", "Concave with q(0) = 0") or _open(shown, "Subadditive", detail)


def _concave(q: Any, shown: dict[str, Any]) -> Answer:
    excess, *pair = concavity_defect(q)
    against = _pair(shown, "concave", excess > _ROUNDING, (pair[0], pair[1]))
    if against:
        a, b = against
        m = 0.5 * (a + b)
        detail = f"(q({a:.6g}) + q({b:.6g})) / 2 = {0.5 * (_at(q, a) + _at(q, b)):.6g} is above q({m:.6g}) = "
        return Answer("Concave", "refuted", f"{detail}{_at(q, m):.6g}.", "refuted")
    return _proved(shown, "concave", "Concave", "q'' <= 0, and no bend upwards") or _open(
        shown, "Concave", "No chord of a grid lies above it."
    )


def _bounded(q: Any, shown: dict[str, Any]) -> Answer:
    ceiling = float(q.ceiling())
    if ceiling == np.inf:
        return Answer("Bounded", "no bound seen", f"q({_FAR:g}) = {_at(q, _FAR):.6g}.", "open")
    detail = f"q <= {ceiling:.6g}"
    return _proved(shown, "bounded", "Bounded", detail) or _open(shown, "Bounded", f"The class says {detail}.")


def _theorem(q: Any, needed: list[Answer]) -> Answer:
    missing = [a for a in needed if a.kind == "refuted"]
    unsure = [a.question.lower() for a in needed if a.kind == "open"]
    instance = broken(q)
    where = f" {instance[1]}." if instance else " No instance in the plane was found that breaks its conclusion."
    if missing:
        fails = " and ".join("q(0) is not 0" if a is needed[0] else f"q is not {a.question.lower()}" for a in missing)
        said = f"Because {fails}.{' It breaks on an instance:' if instance else ''}{where}"
        return Answer("Theorem 1.1", "does not apply", said, "refuted")
    if instance:
        return Answer("Theorem 1.1", "broken", f"An instance denies it, so q is not what it seems:{where}", "wrong")
    if unsure:
        return Answer("Theorem 1.1", f"applies if q is {' and '.join(unsure)}, which is open", where.strip(), "holds")
    return Answer("Theorem 1.1", "applies", f"Every hypothesis is proved on [{_LO:g}, {_HI:g}].{where}", "proved")


def _where_it_jumps(q: Any) -> Answer:
    said: list[str] = []
    last = 0.0
    for t in _STEPS:
        found = jumps(q, t)
        if not found and not said:
            last = t
        if found:
            shown = [f"from {a:.5g} to {b:.5g} at u = {u:.5g}" for u, a, b in found[:_SHOWN]]
            more = f", and {'more' if len(found) == 5 else len(found) - _SHOWN} later" if len(found) > _SHOWN else ""
            said.append(f"t = {t:g}: {', '.join(shown)}{more}")
    rho = float(q.weak_convexity())
    claim = f" The class says that it is continuous for t < {1.0 / rho:.4g}." if 0.0 < rho < np.inf else ""
    if not said:
        return Answer("Its prox", "does not jump", f"Steps t from {_STEPS[0]:g} to {_STEPS[-1]:g} were tried.", "holds")
    start = f"None up to t = {last:g}. " if last else ""
    return Answer("Its prox", "jumps", f"{start}{'; '.join(said)}.{claim}", "holds")


def _contradictions(found: Sequence[Evidence]) -> Answer:
    wrong = [(e.statement, finding) for e in found for finding in e.findings if not finding.as_expected]
    if not wrong:
        tried = sum(evidence.tried for evidence in found)
        return Answer(
            "The checks", "as expected", f"{tried} instances contradict nothing that the class claims.", "holds"
        )
    said = " ".join(f"{name}: {finding.claim}; {finding.detail}" for name, finding in wrong[:3])
    return Answer("The checks", f"{len(wrong)} not as expected", said, "wrong")


def _at(q: Any, u: float) -> float:
    return float(np.asarray(q.value(np.array([u])))[0])
