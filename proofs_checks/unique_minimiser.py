"""Theorem 1.1 as a certificate: one solve of the group lasso settles problem (1) for every q at once.

    gap-safe: all groups but one vanish in every group-lasso minimiser  =>  that minimiser is unique, and the only
    global minimiser of  1/2 ||y - Xw||^2 + lam q^-1(sum_g q(||w_g||)),  q strictly increasing, subadditive, q(0) = 0.

For every instance lam is taken as small as the certificate allows, among shares of the threshold. The claim is saved,
read back and verified in ball arithmetic; the group-lasso optimum is asked of CVXPY as well. Then problem (1) is solved
from random starts: whatever local minimum comes out, it may not lie below the dual bound D, nor closer to w* than its
excess over D allows. With F1 >= F2 and F2 strongly convex that is, for every w,

    F1(w) - D >= 1/2 ||X (w - w*)||^2.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparseopt import LambertW, LogSum, Power, Problem, TransformedL1, lam_max
from sparseopt.certificates import Certificate, Report, theorem_1_1
from sparseopt.certificates.verify import verify
from sparseopt.proofs_checks.evidence import Evidence, Finding, Statement, Verdict, control, holds, proved
from sparseopt.proofs_checks.figures import COLOURS, axes, legend
from sparseopt.proofs_checks.instances import broken, convex_optimum, failing_hypothesis, random_squares, solved, with_q
from sparseopt.proofs_checks.scalar_facts import decrease, subadditivity_defect

__all__ = ["STATEMENT"]

_COUNTS = {"small": 6, "medium": 120, "large": 1000}
_STARTS = 20
_KEPT = 3  # certificates that are saved beside the report
_SHARES = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.995, 0.999, 0.9999)
_TOLERANCE = 1e-9
Instance = tuple[Problem, NDArray[np.float64], Certificate]


def check(rng: np.random.Generator, size: str, regularizer: Any = None) -> Evidence:
    """Certificates, their verification, and random starts of problem (1)."""
    instances = _instances(rng, _COUNTS[size])
    findings = [_verified(instances), _oracle(instances)]
    series: dict[str, NDArray[Any]] = {}
    several = (Power(0.5), LogSum(1.0)) if size == "small" else (Power(0.5), LogSum(1.0), LogSum(0.1), TransformedL1())
    for q in several if regularizer is None else (regularizer,):
        reason = failing_hypothesis(q)
        if reason:
            findings.append(_outside(q, reason))
            continue
        excess, closer = _starts(rng, q, instances)
        series[repr(q)] = excess
        reached, trapped = int((excess.min(axis=1) <= 1e-7).sum()), int((excess > 1e-6).sum())
        findings += [
            holds(
                f"no local minimum of problem (1) lies below the bound, {q!r}",
                -excess.ravel(),
                _TOLERANCE,
                f"(D - F1(w)) / F1(0) over {_STARTS} random starts of each instance, half of them with a single group, "
                f"D from the group lasso alone; {reached} of {len(excess)} instances were solved to 1e-7 by one of "
                f"these, {trapped} of {excess.size} starts ended in another local minimum.",
            ),
            holds(
                f"no other point is as good: F1(w) - D >= ||X(w - w*)||^2 / 2, {q!r}",
                closer.ravel(),
                _TOLERANCE,
                "Shortfall over F1(0), at the ends of all starts.",
            ),
        ]
    if regularizer is None:
        findings.append(_lambertw(instances))
    return Evidence("unique_minimiser", tuple(findings), series)


def figure(evidence: Evidence) -> Any:
    """The excess of every local minimum over the dual bound, on a log scale; what is below 1e-12 is shown there."""
    drawing, (ax,) = axes(1)
    for at, (colour, (name, excess)) in enumerate(zip(COLOURS, evidence.series.items(), strict=False)):
        place = np.arange(1, len(excess) + 1)[:, None] + 0.2 * (at - 0.5 * (len(evidence.series) - 1))
        x = place + np.linspace(-0.08, 0.08, excess.shape[1])  # starts side by side
        ax.plot(x.ravel(), np.maximum(excess, 1e-12).ravel(), ".", markersize=4, alpha=0.6, color=colour, label=name)
    ax.set_yscale("log")
    ax.set_ylim(3e-13, 10.0)
    ax.set_xlabel("instance")
    ax.set_ylabel("(F₁ − D) / F₁(0)")
    legend(ax, loc="upper center", ncols=4, bbox_to_anchor=(0.5, 1.16))
    return drawing


def _instances(rng: np.random.Generator, count: int) -> list[Instance]:
    """Problems at the smallest share of the threshold that the certificate covers, with w* and certificate."""
    out = []
    for _ in range(count):
        problem = random_squares(rng)
        top = lam_max(problem)
        for share in _SHARES:
            at = problem.at(share * top)
            w = solved(at, tol=1e-13).w
            certificate = theorem_1_1(at, w)
            if certificate.verdict.ok:
                break
        out.append((at, w, certificate))
    return out


def _verified(instances: list[Instance]) -> Finding:
    """Every certificate through its file and the verifier in ball arithmetic."""
    refused = []
    kept = {}
    with tempfile.TemporaryDirectory() as folder:
        for at, (problem, w, certificate) in enumerate(instances):
            file = Path(folder) / f"instance-{at}.json"
            report = Report(problem, w, 0.0, (certificate,))
            report.save(file)
            if at < _KEPT:
                kept[f"unique_minimiser_{at}.json"] = report
            verification = verify(file)
            if not verification:
                refused.append(f"instance {at}: {verification.claims[0].sentence}")
    groups = sum(len(problem.groups) for problem, _, _ in instances)
    return proved(
        "one group-lasso solve certifies its minimiser for every q of the theorem",
        not refused,
        "Verified in ball arithmetic from the data and a dual point. "
        f"{sum(len(c.evidence.get('zero', ())) for *_, c in instances)} of {groups} groups are proved zero."
        if not refused
        else f"{len(refused)} certificates were refused; {refused[0]}",
        len(instances),
        reports=kept,
    )


def _oracle(instances: list[Instance]) -> Finding:
    """The group-lasso optimum by CVXPY."""
    gaps = []
    for problem, w, _ in instances[:60]:
        gaps.append(abs(convex_optimum(problem) - problem.value(w)) / problem.value(np.zeros_like(w)))
    return holds("the group-lasso optimum agrees with CVXPY", gaps, _TOLERANCE, "Difference of the optima over F(0).")


def _starts(
    rng: np.random.Generator, q: Any, instances: list[Instance]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(F1 - D) / F1(0) at the ends of all starts, and by how much it falls short of ||X(w - w*)||^2 / 2."""
    excess, closer = np.empty((2, len(instances), _STARTS))
    for at, (problem, best, certificate) in enumerate(instances):
        composite = with_q(problem, q)
        scale = problem.value(np.zeros_like(best))
        dual = float(certificate.numbers["dual"])
        spread = float(np.abs(best).max()) or 1.0
        for start in range(_STARTS):
            first = spread * 10.0 ** rng.uniform(-1.0, 1.0) * rng.normal(size=best.size)
            if start % 2:  # from a single group: a trap for many q
                first[problem.groups.expand(np.arange(len(problem.groups)) != rng.integers(len(problem.groups)))] = 0.0
            w = solved(composite, (first, 0.0), tol=1e-8).w
            value = min(composite.value(w), 1e6 * scale)
            excess[at, start] = (value - dual) / scale
            distance = 0.5 * float(((problem.predictor(w) - problem.predictor(best)) ** 2).sum())
            closer[at, start] = (dual + distance - value) / scale
    return excess, closer


def _lambertw(instances: list[Instance]) -> Finding:
    """At a one-group minimiser the composite of Lambert-W falls along every other group with a gradient."""
    below = []
    for problem, w, certificate in instances:
        composite = with_q(problem, LambertW())
        gradient = problem.gradient(w)[0]
        away = np.where(problem.groups.expand(problem.groups.norms(w) > 0.0), 0.0, gradient)
        least = min(composite.value(w - step * away) for step in np.geomspace(1e-4, 1.0, 17))
        below.append((float(certificate.numbers["dual"]) - least) / problem.value(np.zeros_like(w)))
    return control(
        "Theorem 1.1 for the regularizer of Lemma 2.1 (Lambert-W), on the same instances",
        min(below),
        1e-9,
        "It is strictly increasing but not subadditive, and q'(0) = 0: from every one-group minimiser a step into the "
        f"other groups goes below the bound, by {min(below):.2g} to {max(below):.2g} of F1(0).",
    )


def _outside(q: Any, reason: str) -> Finding:
    """For a q that the theorem does not cover: a plane instance that breaks it, or that it does not apply."""
    found = broken(q)
    claim = f"Theorem 1.1 for {q!r}"
    if found is None:
        why = f"The theorem does not apply: {reason}. No plane instance was found that breaks its conclusion."
        return Finding(claim, Verdict.NOT_APPLICABLE, Verdict.NOT_APPLICABLE, 0, detail=why)
    below, where = found
    return control(claim, below, 1e-8, f"It does not apply: {reason}. Counterexample: {where}.")


STATEMENT = Statement(
    name="unique_minimiser",
    number="Theorem 1.1",
    title="a group lasso with one active group has the minimiser of problem (1), for every q",
    source="arXiv 2402.17902 v1, Theorem 1.1; gap-safe certificate after Ndiaye et al. (2017)",
    text="""
Let q be strictly increasing and subadditive with q(0) = 0, and w* the unique minimiser of the group lasso
    L(w) + λ Σ_g ‖w_g‖.
If at most one group of w* is nonzero, then w* is the unique minimiser of problem (1),
    L(w) + λ q⁻¹( Σ_g q(‖w_g‖) ).

The hypothesis is about a convex problem, so a dual point proves it: a group with ‖X_g'A‖ + ‖X_g‖ √(2 gap) < λ is zero
in every minimiser. One solve thus settles problem (1) for all q.
""",
    hypotheses={
        "q is strictly increasing and q(0) = 0": lambda q: decrease(q)[0] < 0.0 and float(q.value(0.0)) == 0.0,
        "q is subadditive": lambda q: subadditivity_defect(q)[0] <= 1e-10,
        "the group lasso has a unique minimiser, with at most one active group": lambda problem: (
            theorem_1_1(problem, solved(problem, tol=1e-13).w).verdict.ok
        ),
    },
    check=check,
    figure=figure,
    caption="Every dot is the end of one of 20 random starts of problem (1): some end in other local minima, none "
    "falls below the bound D (dots at the bottom reach it).",
    takes_regularizer=True,
)
