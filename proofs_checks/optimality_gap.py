"""Bounds of the global optimum of problem (1), from the group lasso of the same lam.

With F2 the group lasso, D a dual value of it, w2 its minimiser with s active groups, and G = sum_g ||w2_g||,

    D <= OPT(2) <= OPT(1) <= min_g OPT(2 with group g alone),      F1(w) - OPT(1) <= F1(w) - D  for every w,
    OPT(1) - OPT(2) <= lam [q^-1(s q(G/s)) - G]                    for concave q:
        a^p            lam G (s^(1/p - 1) - 1)
        log(1 + a/eps) lam (eps [(1 + G/(s eps))^s - 1] - G) <= lam (eps [e^(G/eps) - 1] - G)

The gap closes where the group lasso has one active group, which is Theorem 1.1. Global optima are those of grids in the
plane, where no solver takes part; larger problems are tried with block descent from random starts.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparseopt import Expm1Mask, LogSum, Power, Problem, TransformedL1, lam_max
from sparseopt.certificates import Report, duality_gap, optimality_gap
from sparseopt.certificates.verify import verify
from sparseopt.proofs_checks.evidence import Evidence, Finding, Statement, Verdict, control, holds, verified
from sparseopt.proofs_checks.figures import COLOURS, axes, legend
from sparseopt.proofs_checks.instances import (
    broken,
    convex_optimum,
    failing_hypothesis,
    gram,
    one_group,
    plane_optimum,
    plane_squares,
    random_squares,
    solved,
    squares,
    with_q,
)
from sparseopt.proofs_checks.scalar_facts import concavity_defect, decrease, subadditivity_defect

__all__ = ["STATEMENT"]

_COUNTS = {"small": 20, "medium": 400, "large": 4000}
_TOLERANCE = 1e-9
Array = NDArray[np.float64]


def check(rng: np.random.Generator, size: str, regularizer: Any = None) -> Evidence:
    """The sandwich and the a-priori gap in the plane, certificates, and larger problems."""
    findings: list[Finding] = []
    series: dict[str, Array] = {}
    planes = [plane_squares(rng) for _ in range(_COUNTS[size])]
    findings.append(_oracle(planes[:5]))
    several = (Power(0.5), LogSum(1.0), TransformedL1(1.0)) + ((LogSum(0.1), Expm1Mask()) if size != "small" else ())
    for q in several if regularizer is None else (regularizer,):
        reason = failing_hypothesis(q)
        if reason:
            findings.append(_outside(q, reason))
            continue
        findings += _in_the_plane(q, planes, series)
    if regularizer is None:
        larger = [random_squares(rng) for _ in range(_COUNTS[size] // 2)]
        findings += [_formulas(rng, larger), *_starts(rng, larger), _open_gap()]
    return Evidence("optimality_gap", tuple(findings), series)


def figure(evidence: Evidence) -> Any:
    """Where OPT(1) lies between OPT(2) and the best single group, and how wide that interval is."""
    drawing, (ax,) = axes(1)
    for colour, (name, values) in zip(COLOURS, evidence.series.items(), strict=False):
        two, one, alone, null = values.T
        open_ = alone - two > 1e-7 * null
        if not open_.any():  # q(a) = a: problem (1) is the group lasso, the sandwich has no width
            continue
        width = ((alone - two) / null)[open_]
        place = ((one - two) / np.maximum(alone - two, 1e-300))[open_]
        ax.semilogx(width, place, ".", markersize=6, alpha=0.75, color=colour, label=name)
    ax.axhline(0.0, color="#888888", linewidth=0.8)
    ax.axhline(1.0, color="#888888", linewidth=0.8)
    ax.set_yticks([0.0, 0.5, 1.0], ["OPT(2)", "½", "one group"])
    ax.set_xlabel("width of the sandwich over L(0), where it is open")
    ax.set_ylabel("place of OPT(1)")
    if ax.lines[:-2]:
        legend(ax, loc="upper center", ncols=3, bbox_to_anchor=(0.5, 1.3))
    else:
        ax.set_title("nowhere open")
    return drawing


def _in_the_plane(q: Any, planes: list[Problem], series: dict[str, Array]) -> list[Finding]:
    """D, OPT(2), OPT(1), the best single group, and the a-priori gap, all relative to L(0)."""
    rows, prior, claimed, refused = [], [], [], []
    concave = concavity_defect(q)[0] <= 1e-10
    for problem in planes:
        solution = solved(problem, tol=1e-13)
        dual = float(duality_gap(problem, solution.w).numbers["dual"])
        null, lam = problem.value(np.zeros(2)), problem.lam
        one = plane_optimum(problem, q)
        rows.append((dual, one, _alone(problem), null))
        a = np.abs(solution.w)
        s, G = int(np.count_nonzero(a)), float(a.sum())
        if concave and s:
            bound = lam * (float(q.inverse(s * float(q.value(G / s)))) - G)
            prior.append((one - solution.objective - bound) / null)
        certificate = optimality_gap(with_q(problem, q), solution.w)
        if certificate.verdict.ok:
            claimed.append((float(certificate.numbers["dual"]) - one) / null)
            refused += _refused(with_q(problem, q), solution.w, certificate) if len(claimed) <= 8 else []
    two, one, alone, null = np.array(rows).T
    series[repr(q)] = np.array(rows)
    closed = int(np.count_nonzero(alone - two <= 1e-7 * null))
    findings = [
        holds(f"D <= OPT(1), {q!r}", (two - one) / null, _TOLERANCE,
              "Over L(0); OPT(1) by grids in the plane, D from the group lasso."),
        holds(f"OPT(1) <= the best single group, {q!r}", (one - alone) / null, 1e-8,
              f"The interval closes in {closed} of {len(rows)} instances."),
    ]  # fmt: skip
    if concave:
        findings.append(holds(f"OPT(1) - OPT(2) <= lam [q^-1(s q(G/s)) - G], {q!r}", prior, 1e-8))
    if claimed:
        findings.append(holds(f"what optimality_gap claims lies below OPT(1), {q!r}", claimed, _TOLERANCE))
        findings.append(verified(f"the claims are verified in ball arithmetic, {q!r}", refused, min(len(claimed), 8)))
    return findings


def _oracle(planes: list[Problem]) -> Finding:
    gaps = []
    for problem in planes:
        gaps.append(abs(convex_optimum(problem) - solved(problem, tol=1e-13).objective) / problem.value(np.zeros(2)))
    return holds("OPT(2) agrees with CVXPY", gaps, _TOLERANCE, "Over L(0).")


def _alone(problem: Problem) -> float:
    """min over the groups of the optimum of the group lasso with that group alone."""
    H, h = gram(problem), -problem.gradient(np.zeros(problem.groups.n_features))[0]
    values = []
    for g in range(len(problem.groups)):
        w, block = np.zeros(len(h)), problem.groups[g]
        w[block] = one_group(H[np.ix_(block, block)], h[block], problem.lam)
        values.append(problem.value(w))
    return min(values)


def _refused(problem: Problem, w: Array, certificate: Any) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "gap.json"
        Report(problem, w, 0.0, (certificate,)).save(file)
        verification = verify(file)
    return [] if verification else [verification.claims[0].sentence]


def _formulas(rng: np.random.Generator, problems: list[Problem]) -> Finding:
    """The a-priori gap in closed form, for powers and logarithms, and F1 at the group-lasso minimiser below it."""
    short = []
    for problem in problems:
        at = problem.at(float(rng.uniform(0.05, 0.9)) * lam_max(problem))
        w = solved(at, tol=1e-13).w
        norms = at.groups.norms(w)
        s, G, lam, scale = int(np.count_nonzero(norms)), float(norms.sum()), at.lam, at.value(np.zeros_like(w))
        excess = {q: with_q(at, q).value(w) - at.value(w) for q in (Power(0.5), Power(0.8), LogSum(1.0), LogSum(3.0))}
        for q, above in excess.items():
            if isinstance(q, Power):
                bounds = [lam * G * (s ** (1.0 / q.p - 1.0) - 1.0)]
            else:
                bounds = [
                    lam * (q.eps * ((1.0 + G / (s * q.eps)) ** s - 1.0) - G),
                    lam * (q.eps * np.expm1(G / q.eps) - G),
                ]
                short.append((bounds[0] - bounds[1]) / scale)
            short.append((above - bounds[0]) / scale)
    return holds("F1 - F2 at the group-lasso minimiser stays below the closed forms for a^p and log(1 + a/eps)", short,
                 1e-10, "Over L(0); 4 to 8 groups.")  # fmt: skip


def _starts(rng: np.random.Generator, problems: list[Problem]) -> list[Finding]:
    """Larger problems: block descent from random starts, against the bound and the best single group."""
    below, above = [], []
    for problem in problems:
        at = problem.at(float(rng.uniform(0.1, 0.9)) * lam_max(problem))
        w2 = solved(at, tol=1e-13).w
        dual, alone, scale = float(duality_gap(at, w2).numbers["dual"]), _alone(at), at.value(np.zeros_like(w2))
        for q in (Power(0.5), LogSum(1.0)):
            f1 = with_q(at, q)
            starts = [w2, *(rng.normal(size=w2.size) for _ in range(4))]
            best = min(f1.value(solved(f1, (start, 0.0), tol=1e-8).w) for start in starts)
            below.append((dual - best) / scale)
            above.append((f1.value(w2) - alone) / scale)
    gain = float(np.mean(np.array(above) > 1e-9))
    return [
        holds("no start of block descent ends below D, 4 to 8 groups", below, _TOLERANCE,
              f"Five starts each, sqrt(a) and log(1 + a). In {gain:.0%} of these the best single group is better than "
              "the group-lasso minimiser."),
    ]  # fmt: skip


def _open_gap() -> Finding:
    """c = (1, 0.8), lam = 0.3: the group lasso has two active groups, and the bound stays below the optimum."""
    problem = squares(np.eye(2), [1.0, 0.8], lam=0.3)
    one = plane_optimum(problem, Power(0.5))
    two = solved(problem, tol=1e-13).objective
    return control(
        "the bound of the group lasso is attained, whatever the number of active groups",
        one - two,
        0.125 - 1e-6,
        f"c = (1, 0.8), lam = 0.3, q = sqrt(a): OPT(2) = {two:.6g} with two groups, OPT(1) = {one:.6g} with one.",
    )


def _outside(q: Any, reason: str) -> Finding:
    found = broken(q)
    if found is None:
        why = f"Not applicable: {reason}."
        return Finding(f"the bound D for {q!r}", Verdict.NOT_APPLICABLE, Verdict.NOT_APPLICABLE, 0, detail=why)
    return control(
        f"D <= OPT(1) for {q!r}", found[0], 1e-8, f"It does not apply: {reason}. Counterexample: {found[1]}."
    )


STATEMENT = Statement(
    name="optimality_gap",
    number="extension of Theorem 1.1",
    title="a bound of the global optimum of problem (1)",
    source="this package",
    text="""
Let OPT(1) and OPT(2) be the optima of problem (1) and of the group lasso at the same λ, D a dual value of the latter.
For q strictly increasing and subadditive with q(0) = 0,
    D ≤ OPT(2) ≤ OPT(1) ≤ min_g OPT(2, group g alone),
so that F₁(w) − D bounds how far any w is from the global optimum. If q is concave and the group lasso has a minimiser
with s active groups and sum of norms G, then
    OPT(1) − OPT(2) ≤ λ [ q⁻¹( s q(G/s) ) − G ].
""",
    hypotheses={
        "q is strictly increasing and q(0) = 0": lambda q: decrease(q)[0] < 0.0 and float(q.value(0.0)) == 0.0,
        "q is subadditive": lambda q: subadditivity_defect(q)[0] <= 1e-10,
        "q is concave (second inequality only)": lambda q: concavity_defect(q)[0] <= 1e-10,
    },
    check=check,
    figure=figure,
    caption="Problems with two features where the interval is open: the optimum of problem (1) always lies between "
    "that of the group lasso and that of the best single feature.",
    takes_regularizer=True,
)
