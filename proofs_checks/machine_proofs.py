"""Proofs in ball arithmetic: signs shown on whole intervals and rectangles, by cutting them until each piece decides.

    concave on an interval     q'' <= 0 on every piece, from the Taylor coefficients of q on balls
    subadditive on a square    q(a) + q(b) - q(a + b) > 0 on every rectangle
    one instance of (1)        a least-squares problem, its optimum enclosed by a verifier of its own

A proof here covers every number of the interval, not a sample; the count of pieces says how hard it was.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sparseopt import Expm1Mask, LambertW, LogSum, Power, Problem, TransformedL1, certify, solve
from sparseopt.certificates import one_group_window
from sparseopt.proofs_checks.evidence import Evidence, Finding, Statement, proved
from sparseopt.proofs_checks.figures import COLOURS, axes, legend
from sparseopt.proofs_checks.lambertw_thresholds import diagonal_threshold
from sparseopt.solution import ConvergenceWarning

__all__ = ["STATEMENT"]

_INSTANCES = {"small": 1, "medium": 6, "large": 30}
_WIDTHS = {"small": 1.0, "medium": 10.0, "large": 100.0}  # how much farther the intervals reach
Rectangle = tuple[float, float, float, float]


def check(rng: np.random.Generator, size: str) -> Evidence:
    """Concavity, subadditivity, the exception, and instances with a verified certificate."""
    from sparseopt.certificates.balls import bits

    with bits(192):
        findings = [*_concave(_WIDTHS[size]), *_lambert()]
        square, pieces = _square(lambda u: (1 + u).log(), 0.25, 4.0)
        root, other = _square(lambda u: u.sqrt(), 0.1, 4.0)
    for name, shown, count, low in (("log(1 + u)", square, len(pieces), 0.25), ("√u", root, len(other), 0.1)):
        claim = f"{name} is strictly subadditive for a, b in [{low:g}, 4]"
        findings.append(proved(claim, shown, f"{count} rectangles, each decided by the enclosures of three values."))
    findings += [_instance(rng) for _ in range(_INSTANCES[size])]
    series = {"log": np.array(pieces), "root": np.array(other)}
    return Evidence("machine_proofs", tuple(findings), series)


def _counted(holds: Callable[[Any], bool], low: float, high: float) -> tuple[bool, int]:
    """Whether it holds on all of [low, high], and in how many looks."""
    from sparseopt.certificates import balls

    looks = 0

    def look(u: Any) -> bool:
        nonlocal looks
        looks += 1
        return holds(u)

    shown: bool = balls.proved(look, balls.arb(low), balls.arb(high))
    return shown, looks


def _curve(q: Any) -> Any:
    from sparseopt.certificates.balls import curve

    return curve({"name": type(q).__name__, "params": dict(zip(q._fields, q, strict=True))})


def _concave(width: float) -> list[Finding]:
    """q'' < 0 on an interval of norms."""
    findings = []
    for q, low, high in (
        (LogSum(1.0), 1e-6, 1e6),
        (Power(0.5), 1e-4, 1e4),
        (Power(2.0 / 3.0), 1e-4, 1e4),
        (TransformedL1(1.0), 1e-4, 1e4),
        (Expm1Mask(), 1e-3, 1e3),
    ):
        low, high = low / width, high * width
        at = _curve(q)
        start, end = (float(at.parameter(_ball(u)).mid()) for u in (low, high))
        formula = at.pieces[0][1]
        if isinstance(q, TransformedL1):  # with u once: numerator and denominator share it
            formula = lambda u, c=q.c: (1 + c) * (1 - c / (c + u))  # noqa: E731

        def bends(t: Any, at: Any = at, formula: Any = formula) -> bool:
            return bool(at.slopes(t, formula)[1] < 0)

        shown, looks = _counted(bends, start, end)
        claim = f"{q!r} is strictly concave on [{low:g}, {high:g}]"
        findings.append(proved(claim, shown, f"The sign of q'' by halving: {looks} intervals looked at."))
    return findings


def _ball(u: float) -> Any:
    from sparseopt.certificates.balls import arb

    return arb(u)


def _lambert() -> list[Finding]:
    """q(2) > 2 q(1); convex to sqrt(e/2), concave from there; q(u)/u rises to e and falls from there."""
    at = _curve(LambertW())
    gap = at.value(_ball(2.0)) - 2 * at.value(_ball(1.0))
    formula, findings = at.pieces[0][1], []
    regions: tuple[tuple[str, Callable[[Any], bool], float, float], ...] = (
        ("is convex for logits from 1e-9 to 0.499", lambda w: bool(at.slopes(w, formula)[1] > 0), 1e-9, 0.499),
        ("is concave for logits from 0.501 to 50", lambda w: bool(at.slopes(w, formula)[1] < 0), 0.501, 50.0),
        # q - u q' = w^2 + w - 2w = w (w - 1)
        ("has q(u)/u rising for logits from 1e-9 to 0.999", lambda w: bool(_tangent(w) < 0), 1e-9, 0.999),
        ("has q(u)/u falling for logits from 1.001 to 50", lambda w: bool(_tangent(w) > 0), 1.001, 50.0),
    )
    for words, holds_on, low, high in regions:
        shown, looks = _counted(holds_on, low, high)
        findings.append(proved(f"The Lambert-W q {words}", shown, f"{looks} intervals looked at."))
    return [
        proved("q(2) > 2 q(1) for the Lambert-W q: it is not subadditive", bool(gap > 0),
               f"q(2) − 2 q(1) = {gap.str(15, radius=False)}; on the diagonal the sign changes at "
               f"{diagonal_threshold().str(15, radius=False)}."),
        *findings,
    ]  # fmt: skip


def _tangent(w: Any) -> Any:
    """q(u) - u q'(u) at the logit w, by the curve's own value and slope."""
    at = _curve(LambertW())
    return (at.pieces[0][1](w) - at.a(w) * at.S(w)) / w


def _square(q: Callable[[Any], Any], low: float, high: float, limit: int = 20_000) -> tuple[bool, list[Rectangle]]:
    """Whether q(a) + q(b) > q(a + b) on [low, high]^2 with a <= b, and the rectangles that show it."""
    todo = [(_ball(low), _ball(high), _ball(low), _ball(high))]
    done: list[Rectangle] = []
    while todo:
        if len(done) + len(todo) > limit:
            return False, done
        a, b, c, d = todo.pop()
        if a >= d:  # below the diagonal: follows by symmetry
            continue
        x, y = a.union(b), c.union(d)
        if q(x) + q(y) > q(x + y):
            done.append((float(a), float(b), float(c), float(d)))
        elif b - a > d - c:
            middle = ((a + b) / 2).mid()
            todo += [(a, middle, c, d), (middle, b, c, d)]
        else:
            middle = ((c + d) / 2).mid()
            todo += [(a, b, c, middle), (a, b, middle, d)]
    return True, done


def _instance(rng: np.random.Generator) -> Finding:
    """Least squares, 20 samples and 10 features in 5 groups, q = sqrt: claims saved, and enclosed by the verifier."""
    from sparseopt.certificates.verify import verify

    X, w = rng.normal(size=(20, 10)), np.zeros(10)
    w[:2] = rng.normal(size=2)
    y = X @ w + 0.1 * rng.normal(size=20)
    options: dict[str, Any] = {"groups": 2, "intercept": False, "weights": "ones"}
    window = one_group_window(Problem.build(X, y, **options)).numbers
    lam = 1.0001 * float(window["lam_low"])
    convex = solve(Problem.build(X, y, lam=lam, **options), tol=1e-12)
    problem = Problem.build(X, y, lam=lam, penalty=Power(0.5), composite=True, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        solution = solve(problem, start=convex, tol=1e-13)
        report = certify(solution, kinds=["optimality_gap"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "instance.json"
        report.save(path)
        verification = str(verify(path))
    numbers = report[0].numbers
    dual, primal = float(numbers["dual"]), float(numbers["primal"])
    gap = (primal - dual) / primal
    return proved(
        "The global optimum of an instance of problem (1), least squares with q = √, is enclosed",
        verification.startswith("VERIFIED") and gap < 1e-9,
        f"20 × 10, five groups, λ at {lam / float(window['tau']):.2f} of its threshold: OPT lies in "
        f"[{dual:.13f}, {primal:.13f}], relative gap {gap:.1e}; the saved claim is "
        f"{'verified' if verification.startswith('VERIFIED') else 'refused'}.",
        reports={"machine_proofs.json": report},
    )


def figure(evidence: Evidence) -> Any:
    """The rectangles of the two proofs in the plane."""
    drawing, made = axes(2, height=3.7)
    names = (("log", "log(1 + u)", 0), ("root", "√u", 1))
    for ax, (key, name, colour) in zip(made, names, strict=True):
        for a, b, c, d in evidence.series[key]:
            ax.fill([a, b, b, a], [c, c, d, d], facecolor=COLOURS[colour], alpha=0.25, linewidth=0.0)
            ax.plot([a, b, b, a, a], [c, c, d, d, c], color=COLOURS[colour], linewidth=0.6)
        ax.plot([0.0, 4.0], [0.0, 4.0], color="#888888", linewidth=0.9, linestyle="--")
        ax.plot([], [], "s", color=COLOURS[colour], alpha=0.6, label=f"{name}: {len(evidence.series[key])} rectangles")
        ax.set_aspect("equal")
        ax.set_xlabel("a")
        ax.set_ylabel("b")
        legend(ax, loc="upper center", bbox_to_anchor=(0.5, -0.15))
    return drawing


STATEMENT = Statement(
    name="machine_proofs",
    number="Extension",
    title="hypotheses and an instance proved in ball arithmetic",
    source="extension of arXiv 2402.17902",
    text="""
Enclosures of q and its derivatives over whole intervals prove
    q''(u) < 0 on [lo, hi],    q(a) + q(b) > q(a + b) on a square,    q(2) > 2 q(1) for the Lambert-W q,
and the optimum of an instance of problem (1) lies between the dual value of the group lasso and the value of a point,
both enclosed by a verifier that shares no code with the solvers.
""",
    hypotheses={},
    check=check,
    figure=figure,
    caption="Rectangles on each of which the enclosures show q(a) + q(b) > q(a + b); the part below the diagonal "
    "(dashed) follows by symmetry.",
)
