"""The verifier: every number of every claim again, in ball arithmetic, from the data and the coefficients in the files.

It shares no formula with the makers of the claims and imports nothing of them: what it reads is `files`, what it
computes with is `balls`, and `exact` holds the problem. A claimed upper bound must be >= every number in the ball that
encloses the true one, a claimed lower bound <=. So a bound that was raised, a coefficient that was changed, a group
that was swapped is refused even if the hashes were made to fit. The words of a statement are not read: what is verified
is said in sentences of the verifier's own.

Claims of the verdict HOLDS (stationarity, one_group_kkt, approximation, exact_recovery) are checked to their tolerance,
with formulas of their own, and claim no more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparseopt.certificates.balls import Refusal, arb, bits, curve, down, up
from sparseopt.certificates.choices import best_subset
from sparseopt.certificates.exact import Exact
from sparseopt.certificates.files import read
from sparseopt.certificates.hypotheses import checked_hypotheses
from sparseopt.certificates.tolerance import approximation, exact_recovery, one_group_kkt, stationarity
from sparseopt.certificates.windows import largest, one_group_window

__all__ = ["Checked", "Verification", "verify"]

Ball = Any
_CURVATURE = {"squares": 1.0, "huber": 1.0, "logistic": 0.25, "multinomial": 0.5}


@dataclass(frozen=True)
class Claim:
    """A claim of a file, with its evidence."""

    kind: str
    verdict: str
    numbers: dict[str, Any]
    tolerance: float
    evidence: dict[str, NDArray[Any]]

    def number(self, name: str) -> float:
        """A number of the claim; a Refusal if it is missing."""
        value = self.numbers.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
            raise Refusal(f"the claim has no number {name!r}")
        return float(value)

    def array(self, name: str) -> NDArray[Any]:
        """An array of the evidence; a Refusal if it is missing."""
        if name not in self.evidence:
            raise Refusal(f"the claim has no evidence {name!r}")
        return self.evidence[name]


@dataclass(frozen=True)
class Checked:
    """What became of one claim.

    Parameters
    ----------
    kind : str
        The kind of the claim.
    outcome : str
        "verified", "refused", or "nothing claimed" for verdicts FAILED and NOT_APPLICABLE.
    sentence : str
        What was shown, or what failed.
    gap : float, optional
        Upper end of the enclosed difference between F(w, b) and the lower bound.
    """

    kind: str
    outcome: str
    sentence: str
    gap: float | None = None


@dataclass(frozen=True)
class Verification:
    """The outcome for a file; true if every claim in it was verified and there was one.

    Parameters
    ----------
    path : str
        The file.
    claims : tuple of Checked
        One per claim; a single refused entry of kind "file" if the files could not be read.
    """

    path: str
    claims: tuple[Checked, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing was refused and something was verified."""
        outcomes = {claim.outcome for claim in self.claims}
        return "verified" in outcomes and "refused" not in outcomes

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        lines = [f"{'VERIFIED' if self.ok else 'REFUSED'} {self.path}"]
        if not any(claim.outcome != "nothing claimed" for claim in self.claims):
            lines.append("  The file claims nothing that could be verified.")
        return "\n".join(lines + [f"  {claim.kind}: {claim.outcome}: {claim.sentence}" for claim in self.claims])


def verify(path: str | Path) -> Verification:
    """Check every claim in a file written by `Report.save`.

    Parameters
    ----------
    path : str or Path
        The .json file; the .npz file lies beside it.

    Returns
    -------
    Verification
        Per claim whether it was verified, or a sentence that says what failed. Files that cannot be read, were altered
        or are malformed are refused the same way.

    Notes
    -----
    What is verified is the claim about the data in the file: whether these are your data, compare the arrays.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt import Problem
    >>> from sparseopt.certificates import Report, duality_gap
    >>> problem = Problem.build(np.eye(2), [2.0, 0.0], lam=0.5, intercept=False)
    >>> w = np.array([1.0, 0.0])
    >>> Report(problem, w, 0.0, (duality_gap(problem, w),)).save("gap.json")
    >>> print(verify("gap.json"))
    VERIFIED gap.json
      duality_gap: verified: the optimum lies between 0.75 and 0.75, F(w, b) within ... of it.
    """
    try:
        document, arrays = read(path)
    except ValueError as error:
        return Verification(Path(path).name, (Checked("file", "refused", str(error)),))
    done = []
    with bits():
        for words in document["claims"]:
            evidence = {name: arrays[key] for name, key in words["evidence"].items()}
            claim = Claim(words["kind"], words["verdict"], words["numbers"], float(words["tolerance"]), evidence)
            done.append(_outcome(claim, document["problem"], arrays))
    return Verification(Path(path).name, tuple(done))


def _outcome(claim: Claim, words: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Checked:
    if claim.verdict in ("FAILED", "NOT_APPLICABLE"):
        return Checked(claim.kind, "nothing claimed", "the maker of the claim could not show it.")
    if claim.kind not in _CHECKS:
        return Checked(claim.kind, "refused", f"the verifier knows no claim of the kind {claim.kind!r}.")
    verdicts, check = _CHECKS[claim.kind]
    if claim.verdict not in verdicts:
        return Checked(claim.kind, "refused", f"the verdict {claim.verdict} is not one that such a claim can have.")
    try:
        sentence, gap = check(Exact(words, arrays), claim)
    except Refusal as reason:
        return Checked(claim.kind, "refused", f"{reason}.")
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RuntimeError) as error:
        return Checked(
            claim.kind, "refused", f"the claim or the problem is malformed ({type(error).__name__}: {error})."
        )
    return Checked(claim.kind, "verified", f"{sentence}.", gap)


# -- claims about bounds -----------------------------------------------------------------------------------------------


def _bracket(claim: Claim, primal: Ball, dual: Ball, what: str = "the optimum") -> tuple[str, float]:
    high, low = claim.number("primal"), claim.number("dual")
    if not primal <= high:
        raise Refusal(f"F(w, b) is {float(primal.mid()):.15g}, not at most {high:.15g} as claimed")
    if not dual >= low:
        raise Refusal(f"the lower bound is {float(dual.mid()):.15g}, not at least {low:.15g} as claimed")
    if "relative_gap" in claim.numbers:
        scale, gap = max(abs(high), abs(low)), max(high - low, 0.0)
        if not claim.number("relative_gap") * scale >= gap * (1.0 - 1e-9):
            raise Refusal(f"the claimed relative gap {claim.number('relative_gap'):.3g} is not that of the bounds")
    gap = up(primal - dual)
    return f"{what} lies between {low:.10g} and {high:.10g}, F(w, b) within {max(gap, 0.0):.1e} of it", gap


def _need_lasso(case: Exact, composite: bool = False) -> None:
    if not (case.is_lasso or (composite and case.kind == "composite")):
        raise Refusal("the problem is no group lasso, so the dual bound does not hold")


def _duality_gap(case: Exact, claim: Claim) -> tuple[str, float | None]:
    _need_lasso(case)
    return _bracket(claim, case.objective(), case.bound(claim.array("A"))[0])


def _optimality_gap(case: Exact, claim: Claim) -> tuple[str, float | None]:
    if case.kind != "composite":
        raise Refusal("the claim is about problem (1), and the penalty is another")
    if not case.is_lasso and not (case.q.strict and case.q.concave):
        raise Refusal("q is not known to be strictly increasing and subadditive, which Theorem 1.1 needs")
    return _bracket(claim, case.objective(), case.bound(claim.array("A"))[0], "the global optimum of problem (1)")


def _separable_bound(case: Exact, claim: Claim) -> tuple[str, float | None]:
    if case.kind != "penalty" or not case.q.concave:
        raise Refusal("the bound needs a separable penalty with concave q")
    lines = {0.0: arb(0)}  # the loss is not negative
    for strength, a in zip(claim.array("strengths").tolist(), claim.array("A"), strict=True):
        if not 0.0 <= strength < np.inf:
            raise Refusal(f"the strength {strength} is not a number >= 0")
        value = arb(down(case.bound(a, arb(strength))[0])) if strength > 0.0 or a.any() else arb(0)
        lines[strength] = max(lines.get(strength, value), value)
    weights = [case.omega[g] for g in np.flatnonzero(case.penalised)]
    least = min(weights) if weights else arb(1)
    slopes = [(arb(mu), value) for mu, value in lines.items() if value.is_finite()]
    meets = [(d - e) / (m - n) for i, (m, d) in enumerate(slopes) for n, e in slopes[:i]]
    total = max(value for _, value in slopes).lower()
    for r in [x for x in meets if not x < 0]:
        top = max((value - mu * r).lower() for mu, value in slopes)
        here = top + (case.block * least * case.q.value(r.lower().max(arb(0)) / least)).lower()
        total = total if total < here else here
    return _bracket(claim, case.objective(), total, "the global optimum")


def _best_subset(case: Exact, claim: Claim) -> tuple[str, float | None]:
    primal, dual, what, why = best_subset(case, claim)
    sentence, gap = _bracket(claim, primal, dual, what)
    return f"{sentence}; {why}", gap


# -- claims about groups -----------------------------------------------------------------------------------------------


def _vanishing(case: Exact, claim: Claim) -> tuple[list[int], float, list[int]]:
    """The gap, and the groups that are left once those of the evidence are shown to vanish in every minimiser."""
    _need_lasso(case, composite=True)
    if case.loss not in _CURVATURE:
        raise Refusal(f"the curvature of the loss {case.loss} has no bound, so no ball holds the dual optimum")
    dual, norms = case.bound(claim.array("A"))
    primal = case.objective(lasso=True)
    _bracket(claim, primal, dual)
    radius = (2 * (primal - dual).upper().max(arb(0))).sqrt()
    if not radius <= claim.number("radius"):
        raise Refusal(f"the radius is {up(radius):.3g}, not at most {claim.number('radius'):.3g} as claimed")
    zero = sorted({int(g) for g in claim.array("zero")})
    for g in zero:
        if not 0 <= g < len(case.groups) or not case.penalised[g]:
            raise Refusal(f"{g} is not the number of a penalised group")
        room = (case.block * case.omega[g] - norms[g]) / radius if radius > 0 else arb("inf")
        if not (norms[g] < case.block * case.omega[g] and (room == arb("inf") or _reaches(case, g, room))):
            raise Refusal(f"group {case.names[g]} is not shown to vanish")
    left = [int(g) for g in np.flatnonzero(case.penalised) if g not in set(zero)]
    if claim.number("n_left") != len(left) or claim.numbers.get("n_zero", len(zero)) != len(zero):
        raise Refusal(f"{len(zero)} groups vanish and {len(left)} are left, not as claimed")
    return zero, up(primal - dual), left


def _reaches(case: Exact, g: int, room: Ball) -> bool:
    """Whether ||diag(nu s)^(1/2) X_g|| < room."""
    X = case.columns(case.groups[g])
    scaled = [[s * x for x in row] for s, row in zip(case.s, X.tolist(), strict=True)]
    gram = X.transpose() * type(X)(scaled)
    enough = room * room / _CURVATURE[case.loss]
    return bool(largest(gram, enough) < enough)


def _zero_groups(case: Exact, claim: Claim) -> tuple[str, float | None]:
    _need_lasso(case)
    zero, gap, left = _vanishing(case, claim)
    return f"{len(zero)} groups vanish in every minimiser, {len(left)} may not; gap {gap:.1e}", gap


def _theorem_1_1(case: Exact, claim: Claim) -> tuple[str, float | None]:
    _, gap, left = _vanishing(case, claim)
    active = case.names[left[0]] if left else "none"
    if len(left) > 1 or not case.lam > 0 or claim.number("lam") != case.words["lam"]:
        raise Refusal(f"{len(left)} groups are left at lam = {case.words['lam']:.6g}, which is not what is claimed")
    if str(claim.numbers.get("active")) != active:
        raise Refusal(f"the group that may be active is {active}, not {claim.numbers.get('active')}")
    unique = not left or case.loss != "huber" or bool(case.ridge > 0)
    if claim.numbers.get("unique") != "no" and not unique:
        raise Refusal(f"the minimiser need not be unique: the loss {case.loss} is not strictly convex")
    what = "unique in its penalised coefficients and " if unique else ""
    only = f"no active group but possibly {active}" if left else "no active group"
    return (
        f"at lam = {case.words['lam']:.6g} the group-lasso minimiser has {only}; it is {what}a global minimiser of "
        f"problem (1) for every strictly increasing subadditive q with q(0) = 0"
    ), gap


def _regularizer(case: Exact, claim: Claim) -> tuple[str, float | None]:
    return checked_hypotheses(curve(case.words["q"]), claim.numbers, claim.verdict), None


def _without_gap(check: Callable[[Exact, Any], str]) -> Callable[[Exact, Claim], tuple[str, float | None]]:
    return lambda case, claim: (check(case, claim), None)


_CHECKS: dict[str, tuple[tuple[str, ...], Callable[[Exact, Claim], tuple[str, float | None]]]] = {
    "duality_gap": (("PROVED",), _duality_gap),
    "optimality_gap": (("PROVED",), _optimality_gap),
    "separable_bound": (("PROVED",), _separable_bound),
    "best_subset": (("PROVED",), _best_subset),
    "zero_groups": (("PROVED",), _zero_groups),
    "theorem_1_1": (("PROVED",), _theorem_1_1),
    "one_group_window": (("PROVED",), _without_gap(one_group_window)),
    "regularizer": (("PROVED", "REFUTED"), _regularizer),
    "stationarity": (("HOLDS",), _without_gap(stationarity)),
    "one_group_kkt": (("HOLDS", "REFUTED"), _without_gap(one_group_kkt)),
    "approximation": (("HOLDS",), _without_gap(approximation)),
    "exact_recovery": (("HOLDS",), _without_gap(exact_recovery)),
}
