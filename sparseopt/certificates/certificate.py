"""What is claimed of an answer: a statement in words, the numbers in it, and what it does not prove.

A certificate is made from a problem, coefficients and evidence, such as a dual point, and states numbers that whoever
holds these can recompute. Its verdict keeps apart

    proved             follows from the numbers; bounds leave room for the rounding of this computation
    holds              true to a tolerance, in floating point
    refuted, failed    shown to be false; could not be shown, which says nothing about its truth
    not applicable     the theorem behind it needs what this problem does not have

A `Report` is a list of certificates of one answer. Saved, it is checked by `sparseopt.certificates.verify` from the
data and the coefficients alone, in ball arithmetic, by formulas of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparseopt.problem import Problem

__all__ = ["Certificate", "Report", "Verdict", "as_dual", "not_applicable"]

Array = NDArray[np.float64]


class Verdict(Enum):
    """How a claim stands; the value is a sentence."""

    PROVED = "Proved."
    HOLDS = "Holds to the tolerance stated."
    REFUTED = "Refuted: the claim is false."
    FAILED = "Could not be shown, which does not make it false."
    NOT_APPLICABLE = "Does not apply to this problem."

    @property
    def ok(self) -> bool:
        """Whether the claim stands: proved, or true to a tolerance."""
        return self in (Verdict.PROVED, Verdict.HOLDS)


@dataclass(frozen=True, eq=False)
class Certificate:
    """One claim about coefficients of a problem.

    Parameters
    ----------
    kind : str
        The name of the function that made it, such as "duality_gap".
    statement : str
        The claim in words, with its numbers; why it fails or does not apply, if so.
    verdict : Verdict
        How the claim stands.
    numbers : dict
        What the claim says, by name: floats, integers, words or lists of these.
    tolerance : float
        What a claim of verdict HOLDS was held against; 0 where nothing is compared.
    not_proved : tuple of str
        Sentences: what a reader might take to be proved and is not, and what was assumed.
    evidence : dict of arrays
        What the claim is proved from, besides the problem and the coefficients.

    Examples
    --------
    >>> print(Certificate("duality_gap", "The optimum lies between 0.5 and 0.75.", Verdict.PROVED, {"dual": 0.5}))
    duality_gap: Proved. The optimum lies between 0.5 and 0.75.
    """

    kind: str
    statement: str
    verdict: Verdict
    numbers: Mapping[str, Any] = field(default_factory=dict)
    tolerance: float = 0.0
    not_proved: tuple[str, ...] = ()
    evidence: Mapping[str, NDArray[Any]] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        lines = [f"{self.kind}: {self.verdict.value} {self.statement}"]
        return "\n".join(lines + [f"  Not proved: {sentence}" for sentence in self.not_proved])


@dataclass(frozen=True, eq=False)
class Report(Sequence[Certificate]):
    """Certificates of one answer.

    Parameters
    ----------
    problem : Problem
        What the answer is an answer to.
    w : (p,) or (p, K) array
        Its coefficients.
    b : float or (K,) array
        Its intercept.
    certificates : tuple of Certificate
        The claims.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt import Problem
    >>> from sparseopt.certificates import duality_gap
    >>> problem = Problem.build(np.eye(2), [2.0, 0.0], lam=0.5, intercept=False)
    >>> report = Report(problem, np.array([1.0, 0.0]), 0.0, (duality_gap(problem, [1.0, 0.0]),))
    >>> report["duality_gap"].verdict.value
    'Proved.'
    """

    problem: Problem
    w: Array
    b: Any
    certificates: tuple[Certificate, ...]

    def __len__(self) -> int:
        return len(self.certificates)

    def __getitem__(self, index: Any) -> Any:
        """The certificate of that number, or the first one of that kind; a slice gives a tuple."""
        if isinstance(index, str):
            for certificate in self.certificates:
                if certificate.kind == index:
                    return certificate
            raise KeyError(f"report has no {index!r}: it has {', '.join(c.kind for c in self.certificates) or 'none'}.")
        return self.certificates[index]

    def __iter__(self) -> Iterator[Certificate]:
        return iter(self.certificates)

    @property
    def ok(self) -> bool:
        """Whether every claim that applies stands."""
        return all(c.verdict.ok or c.verdict is Verdict.NOT_APPLICABLE for c in self)

    def __str__(self) -> str:
        lines = []
        for heading, verdicts in _HEADINGS.items():
            chosen = [c for c in self if c.verdict in verdicts]
            if not chosen:
                continue
            lines.append(heading)
            for certificate in chosen:
                lines.append(f"  {certificate.kind}: {certificate.statement}")
                lines += [f"    not proved: {sentence}" for sentence in certificate.not_proved]
        return "\n".join(lines) if lines else "Nothing is claimed."

    def save(self, path: str | Path) -> None:
        """Write the claims to `path` (JSON) and the arrays beside it (NPZ); see `sparseopt.certificates.files`."""
        from sparseopt.certificates.files import save_report

        save_report(self, path)

    @classmethod
    def load(cls, path: str | Path, q: Any = None) -> Report:
        """Read what `save` wrote; q is needed where the regularizer is not one of the package."""
        from sparseopt.certificates.files import load_report

        return load_report(path, q)


_HEADINGS = {
    "Proved": (Verdict.PROVED,),
    "Holds to a tolerance": (Verdict.HOLDS,),
    "Refuted": (Verdict.REFUTED,),
    "Could not be shown": (Verdict.FAILED,),
    "Does not apply": (Verdict.NOT_APPLICABLE,),
}


def not_applicable(kind: str, reason: str) -> Certificate:
    """A certificate that says why a kind does not apply."""
    return Certificate(kind, reason, Verdict.NOT_APPLICABLE)


def as_dual(problem: Problem, A: ArrayLike, leaves: bool = False) -> Array:
    """Evidence of dual points as a float64 array (n, K), or (m, n, K); ValueError if it has another size."""
    A = np.asarray(A, dtype=np.float64)
    shape = problem.loss.y.shape
    if leaves and A.ndim == 2 and shape[1] == 1:
        A = A[:, :, None]
    elif not leaves and A.shape == shape[:1]:
        A = A[:, None]
    if not np.isfinite(A).all():
        raise ValueError("A has entries that are not finite: pass dual points in units of dL/dz.")
    if A.shape[-2:] != shape or A.ndim != 2 + leaves:
        wanted = f"(m, {shape[0]}, {shape[1]})" if leaves else f"{shape}"
        raise ValueError(f"A has the shape {A.shape}: pass dual points of shape {wanted}, in units of dL/dz.")
    return A
