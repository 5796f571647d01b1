"""Lemmas 2.4 and 2.5: the composite penalty against the sum of norms.

    R_q(w) = q^-1(sum_g q(||w_g||))  >=  sum_g ||w_g||     for q strictly increasing and subadditive,
    with equality if at most one group is nonzero.

The inequality is tried on norms over several orders of magnitude, where inverse and sum both lose digits; equality is
tried on one group, where q^-1(q(a)) = a must come back. A control takes q(a) = a^2, which is superadditive.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sparseopt import Composite, Expm1Mask, Groups, LambertW, LogSum, Power
from sparseopt.proofs_checks.evidence import Evidence, Statement, Verdict, control, holds
from sparseopt.proofs_checks.figures import COLOURS, axes, legend
from sparseopt.proofs_checks.scalar_facts import decrease, is_admissible, subadditivity_defect

__all__ = ["STATEMENT"]

_COUNTS = {"small": 200, "medium": 2000, "large": 20_000}
_ADMISSIBLE = (Power(0.5), Power(2.0 / 3.0), LogSum(1.0), LogSum(0.01), Expm1Mask())


def check(rng: np.random.Generator, size: str, regularizer: Any = None) -> Evidence:
    """Both lemmas for every admissible regularizer, or for the given one."""
    findings = []
    ratios: dict[str, list[tuple[int, float]]] = {}
    for q in _ADMISSIBLE if regularizer is None else (regularizer,):
        excess, equal, active = [], [], []
        for _ in range(_COUNTS[size]):
            a = _norms(rng)
            total, lifted = float(a.sum()), _lifted(q, a)
            excess.append((total - lifted) / total)
            active.append((a.size, lifted / total))
            one = float(a[0])
            equal.append(abs(_lifted(q, np.array([one, 0.0, 0.0])) / one - 1.0))
        ratios[repr(q)] = active
        applies = is_admissible(q)
        findings.append(
            holds(
                f"R_q >= sum of norms, {q!r}",
                excess,
                1e-9,
                "Relative shortfall of R_q below the sum.",
                expected=Verdict.HOLDS if applies else Verdict.REFUTED,
            )
        )
        findings.append(holds(f"R_q = norm of the only group, {q!r}", equal, 1e-10, "Relative difference."))
    if regularizer is None:
        a = np.array([1.0, 1.0])
        shortfall = (a.sum() - _lifted(LambertW(), a)) / a.sum()
        findings.append(
            control(
                "Lemma 2.4 for the Lambert-W regularizer of Lemma 2.1, at norms (1, 1)",
                float(shortfall),
                1e-3,
                f"R_q(1, 1) = {_lifted(LambertW(), a):.6f} is below 1 + 1: q is superadditive as long as the sum is at "
                "most e.",
                printed="Lemma 2.4 is applied to the regularizer of Lemma 2.1, q(a) = W(2 a^2)^2 / 4 + W(2 a^2) / 2.",
                corrected="That q is not subadditive. The mask e^w - 1 has a concave one, see the repair of Lemma 2.1.",
            )
        )
    series = {name: np.array(values) for name, values in ratios.items()}
    return Evidence("sum_norm_bounds", tuple(findings), series)


def figure(evidence: Evidence) -> Any:
    """R_q over the sum of norms, against the number of active groups."""
    drawing, (ax,) = axes(1)
    for colour, (name, values) in zip(COLOURS, evidence.series.items(), strict=False):
        ax.plot(values[:, 0], values[:, 1], ".", markersize=4, alpha=0.5, color=colour, label=name)
    ax.axhline(1.0, color="#888888", linewidth=1.0)
    ax.set_yscale("log")
    ax.set_xlabel("active groups")
    ax.set_ylabel("R_q / sum of norms")
    legend(ax, loc="upper left")
    return drawing


def _norms(rng: np.random.Generator) -> Any:
    """1 to 8 positive norms over three orders of magnitude."""
    return rng.exponential(size=int(rng.integers(1, 9))) * 10.0 ** rng.uniform(-2.0, 1.0)


def _lifted(q: Any, a: Any) -> float:
    return Composite(q, Groups.equal(a.size, 1, weights="ones"), lam=1.0).value(a)


STATEMENT = Statement(
    name="sum_norm_bounds",
    number="Lemmas 2.4 and 2.5",
    title="the composite penalty lies above the sum of norms",
    source="arXiv 2402.17902 v1, Lemmas 2.4 and 2.5",
    text="""
For q strictly increasing and subadditive with q(0) = 0, and any w,
    R_q(w) = q⁻¹( Σ_g q(‖w_g‖) )  ≥  Σ_g ‖w_g‖,
with equality if at most one group is nonzero, where R_q(w) = ‖w_g‖ whatever q is.
""",
    hypotheses={
        "q is strictly increasing and q(0) = 0": lambda q: decrease(q)[0] <= 0.0,
        "q is subadditive": lambda q: subadditivity_defect(q)[0] <= 1e-10,
    },
    check=check,
    figure=figure,
    caption="Every dot is a random w: R_q is never below the sum of norms (the line at 1), and meets it at one group.",
    takes_regularizer=True,
)
