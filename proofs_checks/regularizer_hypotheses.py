"""The hypotheses of Theorem 1.1, regularizer by regularizer: increasing, concave, subadditive, bounded.

Three answers must agree: the table of the theory, the flags of the class, and `examine`, which proves or refutes each
property in ball arithmetic on an interval. What intervals cannot say (q(0) = 0, slope at 0, weak convexity, whether q
is bounded on all of u >= 0) is measured on q itself. A regularizer of one's own is held to the flags that it claims.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sparseopt import L0, L2, MCP, SCAD, Arctan, Capped, Expm1Mask, LambertW, Laplace, LogSum, Power, TransformedL1
from sparseopt.certificates.regularizers import examine
from sparseopt.proofs_checks.evidence import Evidence, Finding, Statement, Verdict, control, holds
from sparseopt.proofs_checks.figures import COLOURS, axes, legend
from sparseopt.proofs_checks.scalar_facts import GRID, concavity_defect, decrease, subadditivity_defect

__all__ = ["STATEMENT"]

_PROPERTIES = ("increasing", "concave", "subadditive", "bounded")
_LO, _HI = 1e-3, 1e3  # for a q of one's own
_RANGE = 1e-2, 1e2  # in multiples of the scale, for those of the package
# Which of the properties hold, sup q, q'(0+), the weak convexity sup -q''. Parameters are drawn around 1.
_TABLE: tuple[tuple[Any, str, Any], ...] = (
    (L2, "increasing concave subadditive", lambda: (math.inf, 1.0, 0.0)),
    (Power, "increasing concave subadditive", lambda p: (math.inf, math.inf, math.inf)),
    (LogSum, "increasing concave subadditive", lambda eps: (math.inf, 1.0 / eps, eps**-2)),
    (LambertW, "increasing", lambda: (math.inf, 0.0, 2.0 * (2.0 - math.sqrt(3.0)) * math.exp(-math.sqrt(3.0)))),
    (Expm1Mask, "increasing concave subadditive", lambda: (math.inf, 2.0, math.inf)),
    (MCP, "concave subadditive bounded", lambda g: (0.5 * g, 1.0, 1.0 / g)),
    (SCAD, "concave subadditive bounded", lambda k, th: (0.5 * k * (th + 1.0), 1.0, 1.0 / ((th - 1.0) * k))),
    (Capped, "concave subadditive bounded", lambda th: (th, 1.0, math.inf)),
    (TransformedL1, " ".join(_PROPERTIES), lambda c: (1.0 + c, (1.0 + c) / c, 2.0 * (1.0 + c) / c**2)),
    (Laplace, " ".join(_PROPERTIES), lambda s: (1.0, 1.0 / s, s**-2)),
    (Arctan, " ".join(_PROPERTIES), lambda s: (math.pi / 2.0, 1.0 / s, 3.0 * math.sqrt(3.0) / (8.0 * s * s))),
    (L0, "concave subadditive bounded", lambda: (1.0, math.inf, math.inf)),
)
_DRAWS = {"small": 1, "medium": 8, "large": 40}


class Ripple:
    """q(u) = 2u + |sin u|: increasing and subadditive, not concave."""

    def value(self, u: Any) -> Any:
        return 2.0 * u + np.abs(np.sin(u))


def check(rng: np.random.Generator, size: str, regularizer: Any = None) -> Evidence:
    """The table, or the flags of the given regularizer."""
    if regularizer is not None:
        return Evidence("regularizer_hypotheses", tuple(_own(regularizer)), {repr(regularizer): _region(regularizer)})
    findings = []
    for kind, flags, numbers in _TABLE:
        drawn = [kind()] + [kind(*_parameters(rng, kind)) for _ in range(_DRAWS[size]) if kind._fields]
        findings.append(_flags(drawn, tuple(flags.split())))
        findings.append(_numbers(drawn, numbers))
    findings += [*_ripple(), *_controls()]
    series = {repr(q): _region(q) for q in (LambertW(), Expm1Mask())}
    return Evidence("regularizer_hypotheses", tuple(findings), series)


def _parameters(rng: np.random.Generator, kind: Any) -> tuple[float, ...]:
    if kind is Power:
        return (float(rng.uniform(0.1, 0.8)),)
    if kind is SCAD:
        return (float(10.0 ** rng.uniform(-1.0, 1.0)), float(rng.uniform(2.0, 6.0)))
    return (float(10.0 ** rng.uniform(-1.0, 1.0)),)


def _flags(drawn: list[Any], flags: tuple[str, ...]) -> Finding:
    """The class says what the table says, and the balls prove that or its contrary."""
    wrong = []
    for q in drawn:
        found = examine(q, *(end * _scale(q) for end in _RANGE))
        for name in _PROPERTIES:
            told, true = getattr(q, name)(), name in flags
            if told != true:
                wrong.append(f"{q!r}.{name}() is {told}")
            if name != "bounded" and found[name] != ("proved" if true else "refuted"):
                wrong.append(f"{q!r}: {name} is {found[name]} in ball arithmetic")
            if name == "bounded" and (found[name] == "proved") != true:
                wrong.append(f"{q!r}: a ceiling is {found[name]} in ball arithmetic")
    # On an interval; whether q is bounded on all of u >= 0 is for `_numbers`.
    said = [name if name in flags else f"not {name}" for name in _PROPERTIES[:3]]
    return Finding(
        f"{type(drawn[0]).__name__} is {', '.join(said)}",
        Verdict.REFUTED if wrong else Verdict.PROVED,
        Verdict.PROVED,
        len(drawn),
        float(len(wrong)),
        0.0,
        f"Wrong: {'; '.join(wrong)}."
        if wrong
        else "Flags of the class, and ball arithmetic from 0.01 to 100 times the scale of q, for "
        f"{', '.join(map(repr, drawn[:3]))}.",
    )


def _numbers(drawn: list[Any], numbers: Any) -> Finding:
    """q(0), sup q, q'(0+) and sup -q'' against the table, and against q itself."""
    errors, words = [], []
    for q in drawn:
        ceiling, steep, rho = numbers(*q)
        told = (q.ceiling(), q.slope_at_zero(), q.weak_convexity())
        seen = (float(q.value(1e30)), float(q.value(1e-12)) / 1e-12, _sharpest(q))
        for name, a, b, c in zip(("ceiling", "slope at 0", "weak convexity"), (ceiling, steep, rho), told, seen,
                                 strict=True):  # fmt: skip
            # What is seen of an infinite number is only large, and of a slope at 1e-12 off by about 1e-6.
            unit = _scale(q) if name == "weak convexity" else 1.0
            near = c * unit > 50.0 if a == math.inf else abs(c - a) <= 1e-3 * max(a, 1e-3)
            errors.append((0.0 if a == b or abs(a - b) <= 1e-14 * abs(a) else 1.0) + (0.0 if near else 1.0))
            words.append(f"{name} of {q!r}: table {a:.6g}, class {b:.6g}, measured {c:.6g}")
        errors.append(abs(float(q.value(0.0))))
        words.append(f"q(0) of {q!r}")
    name = type(drawn[0]).__name__
    claim = f"{name}: q(0) = 0, ceiling, slope at 0 and weak convexity are those of the table"
    return holds(claim, errors, 0.0, "Table, class and measurement; 1 for each disagreement.", where=words.__getitem__)


def _scale(q: Any) -> float:
    """The norm at which q bends: its first parameter, if that is a length."""
    return float(q[0]) if q._fields and not isinstance(q, Power) else 1.0


def _sharpest(q: Any) -> float:
    """sup -q'' from differences of q', and from second differences of q at 0, where it may jump."""
    u = _scale(q) * np.unique(np.concatenate([np.geomspace(1e-4, 1e3, 4001), [1e-9, 1e-8]]))
    slope = np.asarray(q.slope(u), dtype=np.float64)
    bend = -np.diff(slope) / np.diff(u)
    h = 1e-4 * _scale(q)
    at_zero = float(2.0 * q.value(h) - q.value(2.0 * h) - q.value(0.0)) / h**2
    return max(float(bend.max()), at_zero, 0.0)


def _ripple() -> list[Finding]:
    q = Ripple()
    defect, a, b = subadditivity_defect(q)
    bend, x, y = concavity_defect(q)
    return [
        holds("q(u) = 2u + |sin u| is subadditive and increasing", [defect, decrease(q)[0]], 1e-12,
              f"All pairs of {GRID.size} norms; the closest pair is ({a:.4g}, {b:.4g})."),
        control("Every subadditive increasing q is concave: 2u + |sin u|", bend, 1e-3,
                f"The chord from {x:.4g} to {y:.4g} lies above the middle: Theorem 1.1 asks for less than concavity."),
    ]  # fmt: skip


def _controls() -> list[Finding]:
    q, a = LambertW(), 1.0
    excess = float(q.value(2.0 * a) - 2.0 * q.value(a))
    capped = Capped(1.0)
    return [
        control(
            "The q of Lemma 2.1 is subadditive",
            excess,
            0.1,
            f"q(2) − 2 q(1) = {excess:.12f}.",
            printed="The regularizer of Lemma 2.1 meets the hypotheses of Theorem 1.1.",
            corrected="It is increasing, but convex up to √(e/2) and superadditive for norms with sum up to e.",
        ),
        control(
            "All concave q with q(0) = 0 are strictly increasing: min(u, 1)",
            float(capped.value(1.0) + capped.value(1.0) - capped.value(2.0)),
            0.5,
            "min(u, 1), MCP and SCAD are concave, vanish at 0 and are constant from a knot on. At norms (1, 1) "
            "min(u, 1) has Σq = 2 above its ceiling 1, where q⁻¹ does not exist; with q⁻¹(2) = 1 Lemma 2.4 would read "
            "1 ≥ 2.",
            printed="The class of Theorem 1.1 contains all concave functions that vanish at 0.",
            corrected="It contains the strictly increasing ones among them. For the others the theorem holds on norms "
            "below the knot, with the extra check that the solution stays there, or see the separable bound.",
        ),
    ]


def _own(q: Any) -> list[Finding]:
    """What a regularizer of one's own is, against what it claims; what it does not claim is not expected of it."""
    found, name = examine(q, _LO, _HI), repr(q)
    seen = {"increasing": decrease(q)[0], "concave": concavity_defect(q)[0], "subadditive": subadditivity_defect(q)[0]}
    zero = abs(float(q.value(np.zeros(1))[0]))
    findings = [holds(f"q(0) = 0, {name}", zero, 0.0)]
    findings.append(holds(f"q does not decrease, {name}", max(seen["increasing"], 0.0), 1e-12, _place("decreases", q)))
    reached = {}
    for prop, defect in seen.items():
        state = found.get(prop, "open")
        strictly = defect < 0.0 if prop == "increasing" else defect <= 1e-10
        verdict = Verdict.PROVED if state == "proved" else Verdict.REFUTED
        if state == "open":
            verdict = Verdict.HOLDS if strictly else Verdict.REFUTED
        at = found.get(f"{prop}_at")
        detail = f"Refuted by a = {at[0]:.6g}, b = {at[1]:.6g}." if at else ""
        if state == "open":
            detail = found.get("unreadable", "") and f"No ball arithmetic: {found['unreadable']}. "
            detail += "All pairs of a grid." if strictly else _place(prop, q)
        elif state == "proved":
            detail = f"Ball arithmetic on [{_LO:g}, {_HI:g}]."
        claimed = bool(getattr(q, prop)())
        expected = Verdict.HOLDS if claimed else verdict
        detail += f" The class {'claims it' if claimed else 'does not claim it'}."
        findings.append(Finding(f"{prop}, {name}", verdict, expected, 1, float(defect), 1e-10, detail))
        reached[prop] = verdict is not Verdict.REFUTED
    fits = reached["increasing"] and reached["subadditive"] and zero == 0.0
    missing = [prop for prop in ("increasing", "subadditive") if not reached[prop]]
    verdict = Verdict.HOLDS if fits else Verdict.NOT_APPLICABLE
    detail = "Strictly increasing and subadditive with q(0) = 0." if fits else f"It is not {' and not '.join(missing)}."
    return [*findings, Finding(f"Theorem 1.1 covers {name}", verdict, verdict, 1, 0.0, 0.0, detail)]


def _place(prop: str, q: Any) -> str:
    if prop in ("decreases", "increasing"):
        fall, at = decrease(q)
        return "" if fall < 0.0 else f"It does not rise on the grid towards u = {at:.6g}."
    defect, a, b = (concavity_defect if prop == "concave" else subadditivity_defect)(q)
    return f"Refuted by a = {a:.6g}, b = {b:.6g}: relative defect {defect:.3g}."


def _region(q: Any) -> Any:
    """[q(a) + q(b) - q(a + b)] / q(a + b) on a logarithmic grid, with the grid in front."""
    u = np.geomspace(0.01, 100.0, 81)
    a, b = np.meshgrid(u, u)
    whole = np.asarray(q.value(a + b), dtype=np.float64)
    slack = (q.value(a) + q.value(b) - whole) / np.maximum(np.abs(whole), 1e-300)
    return np.vstack([u, slack])


def figure(evidence: Evidence) -> Any:
    """Where q(a) + q(b) falls below q(a + b)."""
    drawing, made = axes(len(evidence.series), height=3.6)
    for ax, (name, values) in zip(made, evidence.series.items(), strict=True):
        u, slack = values[0], values[1:]
        worst = float(slack.min())
        if worst < -1e-12:
            ax.contourf(u, u, slack, levels=[worst - 1.0, 0.0], colors=[COLOURS[1]], alpha=0.45)
            ax.contour(u, u, slack, levels=[0.0], colors=[COLOURS[1]], linewidths=1.2)
        if slack.max() > 0.0:
            ax.contourf(u, u, slack, levels=[0.0, slack.max() + 1.0], colors=[COLOURS[0]], alpha=0.4)
        ax.plot([], [], "s", color=COLOURS[1], alpha=0.6, label="q(a) + q(b) < q(a + b)")
        ax.plot([], [], "s", color=COLOURS[0], alpha=0.6, label="q(a) + q(b) ≥ q(a + b)")
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_title(name, fontsize=10, color=ax.xaxis.label.get_color())
        ax.set_xlabel("norm a")
        ax.set_ylabel("norm b")
    legend(made[-1], loc="upper center", bbox_to_anchor=(0.5, -0.18))
    return drawing


STATEMENT = Statement(
    name="regularizer_hypotheses",
    number="Hypotheses of Theorem 1.1",
    title="which regularizers are increasing, concave, subadditive, bounded",
    source="arXiv 2402.17902 v1, Section 2 and Theorem 1.1",
    text="""
Theorem 1.1 asks of q : [0, ∞) → [0, ∞) that
    q(0) = 0,  q(a) < q(b) for a < b,  q(a + b) ≤ q(a) + q(b).
A concave q with q(0) = 0 and q ≥ 0 is subadditive; the converse is false. The bound for separable penalties asks for
concavity but not for strict monotonicity.
""",
    hypotheses={
        "q is strictly increasing": lambda q: decrease(q)[0] < 0.0,
        "q is subadditive": lambda q: subadditivity_defect(q)[0] <= 1e-10,
        "q(0) = 0": lambda q: float(q.value(np.zeros(1))[0]) == 0.0,
    },
    check=check,
    figure=figure,
    caption="Pairs of norms (a, b), by whether q costs less apart or together; Theorem 1.1 needs all of them blue.",
    takes_regularizer=True,
)
