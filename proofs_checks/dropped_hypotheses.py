"""Theorem 1.1 with one hypothesis dropped at a time: each time an instance on which its conclusion fails.

All in the plane, L(w) = 1/2 ||w - c||^2 unless said, so that the global minimum of problem (1) is found by grids that
zoom in, without a solver. Every claim here must be refuted, by at least the margin that the theory predicts.

    dropped                 q                       c          lam
    subadditive             a^2                     (2, 1)     1.2
    subadditive             Lambert-W, Lemma 2.1    (2, 1)     1.2        and (1, 1), 1.1
    strictly increasing     min(a, 1)               (3, 1/2)   1          "all concave q vanishing at 0"
    q(0) = 0                1 + sqrt(a)             (1, 0)     0.9
    uniqueness              sqrt(a)                 L = (w_1 + w_2 - 1)^2 / 2, 1/2
    one active group        sqrt(a), log(1 + a)     (1, 0.8)   0.3
    q unbounded             2a / (1 + a)            R_q(1, 1) is infinite
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from sparseopt import Capped, Expm1Mask, LambertW, LogSum, Power, TransformedL1
from sparseopt.proofs_checks.evidence import Evidence, Finding, Statement, control, holds
from sparseopt.proofs_checks.figures import COLOURS, INK, axes
from sparseopt.proofs_checks.instances import composite, lowest, random_squares, solved, squares, with_q
from sparseopt.proofs_checks.scalar_facts import decrease, subadditivity_defect

__all__ = ["STATEMENT"]

_COUNTS = {"small": 20, "medium": 200, "large": 2000}
_SLACK = 1e-6  # of the margins below, which are those of the theory to six digits


class Plain(NamedTuple):
    """A q given by its value and its inverse, for what no regularizer of the package can be."""

    value: Callable[[Any], Any]
    inverse: Callable[[Any], Any]


_SQUARE = Plain(np.square, np.sqrt)
_LIFTED_ROOT = Plain(lambda a: 1.0 + np.sqrt(a), lambda v: np.square(v - 1.0))
_IN_CLASS = "the class of q of Theorem 1.1 contains all concave q that vanish at 0"
_NOT_ALL = (
    "It contains those concave q that are also strictly increasing; bounded ones with the inverse continued by "
    "infinity. A q that is constant beyond a knot K needs, besides, that the group-lasso minimiser has no norm above K."
)


def check(rng: np.random.Generator, size: str) -> Evidence:
    """The counterexamples, and for two of them the form of the statement that does hold."""
    findings = [
        _beaten("q subadditive, dropped: q = a^2", _SQUARE, (2.0, 1.0), 1.2, 2.18 - 1.963282),
        _beaten(
            "q subadditive, dropped: Lambert-W at c = (2, 1)",
            LambertW(),
            (2.0, 1.0),
            1.2,
            2.18 - 2.043956,
            printed="Theorem 1.1 holds for the regularizer of Lemma 2.1, q(a) = w^2 + w with w = W(2 a^2) / 2.",
            corrected="It does not: that q is superadditive as long as the sum stays below e. It holds for the mask "
            "e^w - 1 in place of e^w, whose q is concave.",
        ),
        _beaten("q subadditive, dropped: Lambert-W at c = (1, 1)", LambertW(), (1.0, 1.0), 1.1, 1.0 - 0.956603),
        _repaired(),
        _beaten(
            "q strictly increasing, dropped: q = min(a, 1)",
            Capped(1.0),
            (3.0, 0.5),
            1.0,
            1.625 - 1.125,
            printed=f"Remark after Theorem 1.1: {_IN_CLASS}.",
            corrected=_NOT_ALL,
        ),
        _within_knot(),
        _beaten("q(0) = 0, dropped: q = 1 + sqrt(a)", _LIFTED_ROOT, (1.0, 0.0), 0.9, 1.964210 - 1.4),
        _two_minimisers(),
        _beaten("at most one active group, dropped: q = sqrt(a)", Power(0.5), (1.0, 0.8), 0.3, 0.804964 - 0.575),
        _beaten("at most one active group, dropped: q = log(1 + a)", LogSum(1.0), (1.0, 0.8), 0.3, 0.555 - 0.528791),
        _infinite(),
        _everywhere(rng, _COUNTS[size]),
    ]
    x = np.linspace(0.0, 1.3, 90)
    series = {"x": x, "c": np.array([2.0, 1.0])}
    for name, q in (("Lambert-W", LambertW()), ("mask eʷ − 1", Expm1Mask())):
        series[name] = _objective(q, (2.0, 1.0), 1.2)(x[None, :], x[:, None] * 0.5)
        series[f"best {name}"] = np.array(lowest(_objective(q, (2.0, 1.0), 1.2), 2.2))
    return Evidence("dropped_hypotheses", tuple(findings), series)


def figure(evidence: Evidence) -> Any:
    """F1 in the plane for a q that is not subadditive, and for its repair: the minimum leaves the axis, and returns."""
    drawing, panels = axes(2, sharey=True)
    x = evidence.series["x"]
    for ax, name in zip(panels, ("Lambert-W", "mask eʷ − 1"), strict=True):
        F = evidence.series[name]
        low = float(F.min())
        ax.contour(x, 0.5 * x, F, levels=low + np.geomspace(0.003, 0.6, 9), colors=COLOURS[0], linewidths=1.0)
        _, a, b = evidence.series[f"best {name}"]
        ax.plot([0.8], [0.0], "s", color=COLOURS[1], markersize=8, clip_on=False, label="minimiser of the group lasso")
        ax.plot([a], [b], "o", color=COLOURS[2], markersize=6, clip_on=False, label="minimiser of problem (1)")
        ax.set_title(f"q of the {name}" if name.startswith("mask") else f"q of {name}", color=INK, fontsize=10)
        ax.set_xlabel("w₁")
    panels[0].set_ylabel("w₂")
    handles, labels = panels[0].get_legend_handles_labels()
    drawing.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=9, labelcolor=INK)
    return drawing


def _objective(q: Any, c: tuple[float, float], lam: float) -> Callable[[Any, Any], Any]:
    """F1 in the plane."""
    return lambda a, b: 0.5 * ((a - c[0]) ** 2 + (b - c[1]) ** 2) + lam * composite(q, a, b)


def _beaten(claim: str, q: Any, c: tuple[float, float], lam: float, margin: float, **more: str) -> Finding:
    """Problem (1) at the group-lasso minimiser, against its global minimum."""
    F = _objective(q, c, lam)
    w = solved(squares(np.eye(2), c, lam=lam), tol=1e-13).w
    ours, (least, a, b) = float(F(w[0], w[1])), lowest(F, 1.2 * c[0])
    where = f"the group lasso gives ({w[0]:.6g}, {w[1]:.6g}), where problem (1) is {ours:.7g}"
    return control(
        claim,
        ours - least,
        margin - _SLACK,
        f"At c = ({c[0]:g}, {c[1]:g}), lam = {lam:g} {where}; its minimum is {least:.7g} at ({a:.6g}, {b:.6g}).",
        **more,
    )


def _repaired() -> Finding:
    """The mask e^w - 1 on the instance that refutes Lambert-W."""
    least, a, b = lowest(_objective(Expm1Mask(), (2.0, 1.0), 1.2), 2.4)
    return holds(
        "with the mask e^w - 1 the minimum returns to the group-lasso minimiser (0.8, 0)",
        [2.18 - least, abs(a - 0.8), b],
        1e-6,
        f"The minimum is {least:.8g} at ({a:.6g}, {b:.2g}).",
    )


def _within_knot() -> Finding:
    """Capped q, +inf beyond its knot K: the theorem holds again where the group-lasso minimiser stays below K."""
    worst = []
    for knot in (2.0, 2.5, 4.0):
        q = Capped(knot)

        def F(a: Any, b: Any, q: Any = q, knot: float = knot) -> Any:
            inside = (a <= knot) & (b <= knot) & (q.value(a) + q.value(b) <= knot)
            return np.where(inside, _objective(q, (3.0, 0.5), 1.0)(a, b), np.inf)

        least, a, b = lowest(F, 3.6)
        worst += [2.625 - least, abs(a - 2.0), b]
    return holds(
        "q = min(a, K), infinite beyond K: the conclusion holds if the group-lasso minimiser has norm at most K",
        worst,
        1e-6,
        "c = (3, 1/2), lam = 1, norm 2, for K = 2, 2.5 and 4: the minimum is that of the group lasso.",
    )


def _two_minimisers() -> Finding:
    """L = (w_1 + w_2 - 1)^2 / 2: the group lasso has a segment of minimisers, two of which are one-sparse."""
    problem = with_q(squares([[1.0, 1.0]], [1.0], lam=0.5), Power(0.5))
    first, second = problem.value([0.5, 0.0]), problem.value([0.0, 0.5])
    least, *_ = lowest(lambda a, b: 0.5 * (a + b - 1.0) ** 2 + 0.5 * composite(Power(0.5), a, b), 1.0)
    apart = 0.5 if max(first, second) <= least + 1e-9 else 0.0
    return control(
        "uniqueness of the group-lasso minimiser, dropped: problem (1) has one minimiser",
        apart,
        0.5,
        f"L = (w_1 + w_2 - 1)^2 / 2, lam = 0.5, q = sqrt(a): (0.5, 0) and (0, 0.5) are global minima of {first:g}.",
    )


def _infinite() -> Finding:
    """A bounded q leaves its range: the inverse is not defined there."""
    problem = with_q(squares(np.eye(2), [1.0, 1.0]), TransformedL1(1.0))
    value = problem.penalty.value([1.0, 1.0])
    return control(
        "problem (1) is defined for every q of the theorem",
        0.0 if np.isfinite(value) else 1.0,
        1.0,
        f"q = 2a / (1 + a) stays below 2 = q(1) + q(1): q^-1 of it is not defined, R_q(1, 1) = {value} here.",
        printed="q is strictly increasing and subadditive with q(0) = 0; R_q = q^-1(sum q).",
        corrected="With q^-1(y) = inf{x : q(x) >= y}, infinite if there is none, both lemmas and the theorem hold for "
        "bounded and for discontinuous q as well.",
    )


def _everywhere(rng: np.random.Generator, count: int) -> Finding:
    """Lambert-W fails at every one-group group-lasso minimiser that leaves a gradient in another group."""
    falls = []
    for _ in range(count):
        problem = random_squares(rng)
        i = int(rng.integers(len(problem.groups)))
        w = np.zeros(problem.groups.n_features)
        w[problem.groups[i]] = rng.normal(size=len(problem.groups[i]))
        f1 = with_q(problem, LambertW(), lam=float(rng.uniform(0.1, 1.0)))
        away = f1.gradient(w)[0]
        away[problem.groups[i]] = 0.0
        step = 1e-5 / float(np.linalg.norm(away))
        falls.append((f1.value(w) - f1.value(w - step * away)) / (step * float(away @ away)))
    return control(
        "a point with one active group is stationary in problem (1) with Lambert-W",
        min(falls),
        0.99,
        f"{count} random points: the objective falls along the gradient of the other groups with their full slope, "
        f"{min(falls):.4f} to {max(falls):.4f} of it, because q'(0) = 0.",
    )


STATEMENT = Statement(
    name="dropped_hypotheses",
    number="Theorem 1.1, converse",
    title="each hypothesis is needed",
    source="arXiv 2402.17902 v1, Theorem 1.1 and the remarks after it; counterexamples of this package",
    text="""
Theorem 1.1 needs q strictly increasing, subadditive and q(0) = 0, and a group lasso with a unique minimiser that has at
most one active group. Without any one of these its conclusion fails on problems with two features,
    F₁(w) = ½‖w − c‖² + λ q⁻¹( q(|w₁|) + q(|w₂|) ).

The regularizer of the paper's own Lemma 2.1 is one of those that the theorem does not cover.
""",
    hypotheses={
        "q is strictly increasing, subadditive and q(0) = 0 (dropped in turn)": lambda q: (
            decrease(q)[0] < 0.0 and subadditivity_defect(q)[0] <= 1e-10
        ),
    },
    check=check,
    figure=figure,
    caption="Contours of problem (1) at c = (2, 1), λ = 1.2: with Lambert-W the minimum leaves the axis on which the "
    "group lasso has its own; with the mask eʷ − 1 they coincide.",
)
