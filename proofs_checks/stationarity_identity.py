"""What the gradient norms tell at a stationary point of problem (1).

With a_g = ||w_g||, R = q^-1(sum_g q(a_g)) and A the active groups,

    dR/da_g = q'(a_g) / q'(R),    so    ||grad_g L|| = lam q'(a_g) / q'(R)  for g in A,

and for two families the norms a_g can be eliminated:

    q = a^p          sum_{g in A} (lam / ||grad_g L||)^(p / (1 - p)) = 1
    q = log(1 + a/eps)   prod_{g in A} ||grad_g L|| / lam = (1 + R / eps)^(|A| - 1)

The points are those where block descent ends from random starts, local minima of all kinds. The group lasso, where all
these norms are lam, is the control.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparseopt import Arctan, Expm1Mask, Laplace, LogSum, Power, Problem, TransformedL1, lam_max
from sparseopt.proofs_checks.evidence import Evidence, Finding, Statement, control, holds
from sparseopt.proofs_checks.figures import COLOURS, INK, axes, legend
from sparseopt.proofs_checks.instances import composite, random_squares, solved, with_q

__all__ = ["STATEMENT"]

_COUNTS = {"small": 40, "medium": 600, "large": 6000}
_STARTS = 4
Array = NDArray[np.float64]


def check(rng: np.random.Generator, size: str) -> Evidence:
    """The derivative of R, both identities at stationary points, and the control."""
    findings = [_derivative(rng, _COUNTS[size])]
    series: dict[str, Array] = {}
    problems = [random_squares(rng) for _ in range(_COUNTS[size] // 2)]
    for q in (Power(0.5), Power(0.8), LogSum(1.0), LogSum(0.1)):
        balance, identity, sizes = [], [], []
        for problem in problems:
            at = with_q(problem, q, 10.0 ** rng.uniform(-2.3, -0.3) * lam_max(problem))
            for _ in range(_STARTS):
                w = solved(at, (rng.normal(size=at.groups.n_features), 0.0), tol=1e-11).w
                norms = at.groups.norms(w)
                active = np.flatnonzero(norms)
                if not active.size:
                    continue
                pulls = at.groups.norms(at.gradient(w)[0])[active] / at.lam
                R = at.penalty.value(w) / at.lam
                expected = np.asarray(q.slope(norms[active])) / float(q.slope(R))
                balance.append(float(np.abs(pulls / expected - 1.0).max()))
                identity.append(_identity(q, pulls, R))
                sizes.append(active.size)
        series[repr(q)] = np.array([sizes, np.maximum(np.abs(identity), 1e-17)])
        said = f"{len(sizes)} stationary points with {min(sizes)} to {max(sizes)} active groups"
        formula = "prod ||g|| / lam = (1 + R / eps)^(|A| - 1)" if isinstance(q, LogSum) else (
            "sum (lam / ||g||)^(p / (1 - p)) = 1")  # fmt: skip
        findings += [
            holds(f"||grad_g L|| = lam q'(a_g) / q'(R), {q!r}", balance, 1e-7, f"Relatively; {said}."),
            holds(f"{formula}, {q!r}", np.abs(identity), 1e-7, "Difference, relatively."),
        ]
    findings.append(_group_lasso(problems))
    return Evidence("stationarity_identity", tuple(findings), series)


def figure(evidence: Evidence) -> Any:
    """How far the identities are from equality, against the number of active groups."""
    drawing, (ax,) = axes(1)
    for at, (colour, (name, values)) in enumerate(zip(COLOURS, evidence.series.items(), strict=False)):
        shift = 0.14 * (at - 1.5)
        ax.semilogy(values[0] + shift, values[1], ".", markersize=5, alpha=0.7, color=colour, label=name)
    ax.axhline(1e-7, color=INK, linewidth=0.8, linestyle="--")
    ax.set_ylim(3e-18, 1e-5)
    ax.set_xlabel("active groups")
    ax.set_ylabel("|difference|")
    legend(ax, loc="upper center", ncols=4, bbox_to_anchor=(0.5, 1.18))
    return drawing


def _identity(q: Any, pulls: Array, R: float) -> float:
    """Left minus right side; for products of the logarithms."""
    if isinstance(q, LogSum):
        right = (len(pulls) - 1) * np.log1p(R / q.eps)
        return float(np.log(pulls).sum() - right) / max(1.0, float(right))
    return float((pulls ** (-q.p / (1.0 - q.p))).sum()) - 1.0


def _derivative(rng: np.random.Generator, count: int) -> Finding:
    """dR/da by differences, for two groups."""
    apart, where = [], []
    for q in (Power(0.5), LogSum(0.3), Expm1Mask(), TransformedL1(20.0), Laplace(20.0), Arctan(20.0)):
        a, b = 10.0 ** rng.uniform(-1.5, 0.7, (2, count))
        h = 1e-5 * a
        slope = (composite(q, a + h, b) - composite(q, a - h, b)) / (2.0 * h)
        expected = np.asarray(q.slope(a)) / np.asarray(q.slope(composite(q, a, b)))
        apart += np.abs(slope / expected - 1.0).tolist()
        where += [f"{q!r} at a = {x:.6g}, b = {y:.6g}" for x, y in zip(a, b, strict=True)]
    return holds(
        "dR/da_g = q'(a_g) / q'(R), by differences", apart, 1e-6, "Relatively, six q.", where=where.__getitem__
    )


def _group_lasso(problems: list[Problem]) -> Finding:
    """A group-lasso minimiser with several active groups is no stationary point: all norms are lam, the sum is |A|."""
    sums = []
    for problem in problems:
        at = problem.at(0.3 * lam_max(problem))
        w = solved(at, tol=1e-13).w
        active = np.flatnonzero(at.groups.norms(w))
        if active.size > 1:
            pulls = at.groups.norms(at.gradient(w)[0])[active] / at.lam
            sums.append(abs(_identity(Power(0.5), pulls, 1.0)))
    return control(
        "the identity for q = sqrt(a) at group-lasso minimisers with several active groups",
        min(sums, default=0.0),
        0.9,
        f"There the sum is the number of active groups, not 1, in all {len(sums)} instances.",
    )


STATEMENT = Statement(
    name="stationarity_identity",
    number="extension",
    title="gradient norms at stationary points of problem (1)",
    source="this package",
    text="""
At a stationary point w of L(w) + λ q⁻¹(Σ_g q(‖w_g‖)), with R = q⁻¹(Σ_g q(‖w_g‖)) and A the groups that are not zero,
    ‖∇_g L‖ = λ q'(‖w_g‖) / q'(R)   for g in A.
For q(a) = a^p, 0 < p < 1, and for q(a) = log(1 + a/ε) that means
    Σ_{g ∈ A} ( λ / ‖∇_g L‖ )^{p/(1−p)} = 1    and    Π_{g ∈ A} ‖∇_g L‖ / λ = (1 + R/ε)^{|A|−1}.
""",
    hypotheses={
        "w is stationary, and not 0": lambda solution: bool(solution.stationarity <= 1e-8 and solution.w.any())
    },
    check=check,
    figure=figure,
    caption="Every dot is where block descent ended from a random start: both identities hold to rounding, whatever "
    "the number of active groups.",
)
