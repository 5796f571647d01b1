"""The two one-dimensional problems of every solver, against the best point of a dense grid.

    prox(u, t)              argmin over v >= 0 of (v - u)^2 / 2 + t q(v)
    lifted_prox(u, t, c)    argmin over v >= 0 of (v - u)^2 / 2 + t phi(v),   phi(v) = q^-1(q(v) + c)

phi is what one block of problem (1) sees when the others cost c. Its slope is q'(v) / q'(phi(v)); it is convex, affine
or concave as 1 / q' is, which makes problem (1) convex in each block for several q that are not convex themselves. The
places where prox leaves 0 or jumps are compared with their formulas. Any regularizer can be put here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from sparseopt import L0, L2, MCP, SCAD, Arctan, Capped, Expm1Mask, LambertW, Laplace, LogSum, Power, TransformedL1
from sparseopt.proofs_checks.evidence import Evidence, Finding, Statement, control, holds
from sparseopt.proofs_checks.figures import COLOURS, axes, legend

__all__ = ["STATEMENT"]

Tries = Iterator[tuple[float, str]]  # a violation, and the instance in words

_COUNTS = {"small": 80, "medium": 600, "large": 5000}
_PACKAGE: tuple[Any, ...] = (
    L2(),
    Power(0.5),
    Power(2.0 / 3.0),
    Power(0.3),
    LogSum(1.0),
    LogSum(0.1),
    LambertW(),
    Expm1Mask(),
)
_PACKAGE += (MCP(3.0), SCAD(1.0, 3.7), Capped(1.0), TransformedL1(1.0), Laplace(0.5), Arctan(1.0), L0())
_STEPS = (math.log(0.01), math.log(15.0))
_SHAPE = {"L2": 0, "LogSum": 0, "Power": -1, "TransformedL1": 1, "Laplace": 1, "Arctan": 1, "Expm1Mask": -1, "MCP": 1}


def check(rng: np.random.Generator, size: str, regularizer: Any = None) -> Evidence:
    """Both prox against a grid, then thresholds, slopes and shapes."""
    own, count = regularizer is not None, _COUNTS[size]
    chosen = (regularizer,) if own else _PACKAGE
    about = repr(regularizer) if own else f"{len(chosen)} regularizers of the package"
    claims = (
        ("prox minimises", _prox, count, 1e-9, "Objective above the best of a grid of [0, 2u], relative to u²."),
        ("The prox of one block of (1) minimises", _lifted_prox, max(count // 2, 20), 1e-9, "Relative excess."),
        ("slope is the derivative of value", _slope, count, 1e-6, "Central differences, away from knots."),
    )
    findings = []
    for claim, tries, times, tolerance, detail in claims:
        found = [pair for q in chosen for pair in tries(q, rng, times)]
        errors, words = [error for error, _ in found], [text for _, text in found]
        findings.append(holds(f"{claim}, {about}", errors, tolerance, detail, where=words.__getitem__))
    if not own:
        findings += _shapes(rng, count)
        findings += [*_thresholds(rng, count), *_block_formulas(rng, count), _no_dead_zone()]
    shown = (regularizer,) if own else (L2(), Power(0.5), LogSum(1.0), MCP(3.0), LambertW())
    u = np.linspace(0.0, 4.0, 401)
    series = {repr(q): np.array([u, np.asarray(q.prox(u, 1.5)), _phi(q, u, _share(q))]) for q in shown}
    return Evidence("prox_and_block_functions", tuple(findings), series)


def _share(q: Any) -> float:
    """A cost of the other blocks at which phi is defined for some v."""
    return 0.4 * min(float(q.value(1.0)), q.ceiling())


def _phi(q: Any, v: Any, rest: float) -> Any:
    lifted = np.asarray(q.inverse(q.value(v) + rest), dtype=np.float64)
    return np.where(np.isfinite(lifted), lifted, np.nan)


def _rivals(q: Any, u: float) -> Any:
    """A dense grid up to beyond u, denser at 0, with the parameters of q, where its knots are."""
    numbers = [float(x) for x in q if isinstance(x, (int, float))]
    knots = [x for a in (1.0, *numbers) for b in (1.0, *numbers) if 0.0 < (x := a * b) < 2.0 * u]
    share = np.concatenate([[0.0], np.geomspace(1e-8, 2e-3, 120), np.linspace(2e-3, 1.0, 1800), [1.1, 1.5, 2.0]])
    return np.concatenate([u * share, knots])


def _prox(q: Any, rng: np.random.Generator, count: int) -> Tries:
    """Blocks from 0.01 to 10, steps from 0.01 to 15."""
    for _ in range(count):
        u, t = float(10.0 ** rng.uniform(-2.0, 1.0)), float(np.exp(rng.uniform(*_STEPS)))
        found = float(np.asarray(q.prox(np.array([u]), t))[0])
        rivals = _rivals(q, u)
        with np.errstate(all="ignore"):
            # Objective at the prox minus that at each rival, without u^2 - u^2.
            gain = 0.5 * (found - rivals) * (found + rivals - 2.0 * u) + t * (q.value(found) - q.value(rivals))
        best = int(np.argmax(gain))
        fine = math.isfinite(found) and found >= 0.0
        words = f"{q!r} at u = {u:.6g}, t = {t:.6g}: prox {found:.9g}, better {rivals[best]:.9g}"
        yield (float(gain[best]) / (u * u) if fine else math.inf), words


def _lifted_prox(q: Any, rng: np.random.Generator, count: int) -> Tries:
    """The other blocks cost up to 0.95 of q(u)."""
    ceiling = q.ceiling()
    for _ in range(count):
        u, t = float(10.0 ** rng.uniform(-1.0, 1.0)), float(10.0 ** rng.uniform(-2.0, 0.7))
        rest = float(rng.uniform(0.0, 0.95)) * min(float(q.value(u)), 0.99 * ceiling)
        found = float(q.lifted_prox(u, t, rest))
        knot = float(q.inverse(ceiling)) if ceiling < math.inf and not q.increasing() else math.inf
        rivals = np.append(np.minimum(_rivals(q, u), knot), found)
        with np.errstate(all="ignore"):
            # A point on the edge of the domain of phi may round to the outside.
            inside = rivals * np.append(np.ones(rivals.size - 1), 1.0 - 1e-12)
            value = 0.5 * (rivals - u) ** 2 + t * np.minimum(q.inverse(q.value(inside) + rest), 1e300)
        best = int(np.argmin(np.where(np.isnan(value), np.inf, value)))
        nowhere = not value[best] < 1e299
        wrong = abs(found) if nowhere else (value[-1] - value[best]) / max(value[best], u * u)
        at = f"{q!r} at u = {u:.6g}, t = {t:.6g}, cost of the others {rest:.6g}"
        fine = math.isfinite(found) and found >= 0.0
        yield (float(wrong) if fine else math.inf), f"{at}: {found:.9g}, better {rivals[best]:.9g}"


def _slope(q: Any, rng: np.random.Generator, count: int) -> Tries:
    v = 10.0 ** rng.uniform(-1.5, 1.0, count)
    h = 1e-5 * v
    knots = [float(x) for x in q if isinstance(x, (int, float))]
    knots += [a * b for a in knots for b in knots]
    far = np.all([np.abs(v - knot) > 2.0 * h for knot in knots], axis=0) if knots else np.ones(count, bool)
    v, h = v[far], h[far]
    told = np.asarray(q.slope(v), dtype=np.float64)
    seen = (np.asarray(q.value(v + h)) - np.asarray(q.value(v - h))) / (2.0 * h)
    error = np.abs(seen - told) / np.maximum(np.abs(told), 1e-3)
    for e, x, a, b in zip(error, v, told, seen, strict=True):
        yield float(e), f"{q!r} at u = {x:.6g}: slope {a:.9g}, differences {b:.9g}"


def _shapes(rng: np.random.Generator, count: int) -> list[Finding]:
    """phi is convex, affine or concave as 1 / q' is: chords of both; and the slope of phi by differences."""
    chords: dict[int, list[float]] = {0: [], 1: [], -1: []}
    names: dict[int, set[str]] = {0: set(), 1: set(), -1: set()}
    slopes: list[float] = []
    for q in _PACKAGE:
        sign = _SHAPE.get(type(q).__name__)
        if sign is None:
            continue
        rest = _share(q)
        top = float(q.inverse(q.ceiling() - rest)) if q.ceiling() < math.inf else 5.0
        a, b = np.sort(rng.uniform(0.02, 0.95, (2, count)) * min(top, 5.0), axis=0)
        for f in (lambda v: _phi(q, v, rest), lambda v: 1.0 / np.asarray(q.slope(v))):  # noqa: B023
            chord = (0.5 * (f(a) + f(b)) - f(0.5 * (a + b))) / np.maximum(f(b), 1e-3)
            chords[sign] += (np.abs(chord) if sign == 0 else -sign * chord).tolist()
        names[sign].add(type(q).__name__)
        h = 1e-5 * a
        seen = (_phi(q, a + h, rest) - _phi(q, a - h, rest)) / (2.0 * h)
        slopes += np.abs(seen * q.slope(_phi(q, a, rest)) / q.slope(a) - 1.0).tolist()
    findings = [
        holds(f"φ and 1/q' are {word}: {', '.join(sorted(names[sign]))}", chords[sign], 1e-9, "Chords and midpoints.")
        for sign, word in ((0, "affine"), (1, "convex"), (-1, "concave"))
    ]
    return [*findings, holds("φ'(v) = q'(v) / q'(φ(v))", slopes, 1e-5, "Central differences, relative.")]


def _leaves_zero(q: Any, t: float) -> tuple[float, float]:
    """Where prox(., t) leaves 0 by bisection, and its value just beyond."""
    low, high = 0.0, 1e3
    for _ in range(80):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if float(q.prox(middle, t)) > 0.0 else (middle, high)
    return high, float(q.prox(high * (1.0 + 1e-12), t))


def _thresholds(rng: np.random.Generator, count: int) -> list[Finding]:
    """Where prox leaves 0 and to what, as formulas."""
    threshold: dict[str, list[float]] = {}
    for t in np.exp(rng.uniform(*_STEPS, max(count // 6, 8))):
        p, c, g, th = (float(x) for x in rng.uniform((0.1, 0.3, 0.5, 0.3), (0.9, 3.0, 4.0, 3.0)))
        t = float(t)
        a = (2.0 * t * (1.0 - p)) ** (1.0 / (2.0 - p))
        jump = t > c * c / (2.0 * (1.0 + c))
        tl1 = math.sqrt(2.0 * t * (1.0 + c)) - 0.5 * c if jump else t * (1.0 + c) / c
        cases: tuple[tuple[Any, float, float], ...] = (
            (Power(p), a * (2.0 - p) / (2.0 * (1.0 - p)), a),
            (TransformedL1(c), tl1, tl1 - 0.5 * c if jump else 0.0),
            (MCP(g), math.sqrt(g * t) if t >= g else t, math.sqrt(g * t) if t >= g else 0.0),
            (Capped(th), math.sqrt(2.0 * t * th) if t >= 2.0 * th else t, math.sqrt(2.0 * t * th) if t >= 2.0 * th
             else 0.0),
            (L0(), math.sqrt(2.0 * t), math.sqrt(2.0 * t)),
            (L2(), t, 0.0),
        )  # fmt: skip
        for q, leaves, lands in cases:
            found, value = _leaves_zero(q, t)
            error = max(abs(found - leaves), abs(value - lands)) / max(leaves, 1e-3)
            threshold.setdefault(type(q).__name__, []).append(error)
        q = LogSum(c)
        found, value = _leaves_zero(q, t)
        if t <= c * c:
            error = max(abs(found - t / c), value) / (t / c)
        else:  # both objectives are equal, in the window [2 sqrt(t) - eps, t / eps]
            level = 0.5 * (value - found) ** 2 + t * float(q.value(value)) - 0.5 * found**2
            inside = 2.0 * math.sqrt(t) - c - 1e-9 <= found <= t / c + 1e-9
            error = abs(level) / found**2 if inside else math.inf
        threshold.setdefault("LogSum", []).append(error)
    names, errors = ", ".join(threshold), [error for found in threshold.values() for error in found]
    each = [name for name, found in threshold.items() for _ in found]
    claim = f"prox leaves 0 where the formula says, and lands where it says: {names}"
    return [holds(claim, errors, 1e-6, "Relative; t from 0.01 to 15, random parameters.", where=each.__getitem__)]


def _formulas(eps: float, c: float, s: float) -> tuple[tuple[Any, Callable[[float, float], float]], ...]:
    """phi(v) with C the cost of the other blocks."""
    return (
        (LogSum(eps), lambda v, C: math.exp(C) * v + eps * math.expm1(C)),
        (Power(0.5), lambda v, C: v + 2.0 * C * math.sqrt(v) + C * C),
        (TransformedL1(c), lambda v, C: c * ((1.0 + c + C) * v + C * c) / (c * (1.0 + c - C) - C * v)),
        (Laplace(s), lambda v, C: -s * math.log(math.exp(-v / s) - C)),
        (Arctan(s), lambda v, C: s * (v + s * math.tan(C)) / (s - math.tan(C) * v)),
        (MCP(4.0), lambda v, C: 4.0 - math.sqrt((4.0 - v) ** 2 - 8.0 * C)),
    )


def _block_formulas(rng: np.random.Generator, count: int) -> list[Finding]:
    """phi in closed form for the logarithm, the square root and the bounded regularizers."""
    found: dict[str, list[float]] = {}
    for _ in range(count):
        v, eps, c, s, share = (float(x) for x in rng.uniform((0.01, 0.1, 0.3, 0.3, 0.05), (3.0, 2.0, 3.0, 2.0, 0.9)))
        for q, formula in _formulas(eps, c, s):
            room = q.ceiling() - float(q.value(v)) if q.ceiling() < math.inf else 2.0
            told, seen = formula(v, share * room), float(_phi(q, v, share * room))
            found.setdefault(type(q).__name__, []).append(abs(seen / told - 1.0))
    names, errors = ", ".join(found), [error for each in found.values() for error in each]
    which = [name for name, each in found.items() for _ in each]
    return [holds(f"φ in closed form: {names}", errors, 1e-9, "Relative difference.", where=which.__getitem__)]


def _no_dead_zone() -> Finding:
    q, u = LambertW(), np.geomspace(1e-8, 1e2, 200)
    low, high = 17.0, 17.1
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if q.prox(middle, 20.0) < 4.0 else (low, middle)
    least = min(float((np.asarray(q.prox(u, t)) / u).min()) for t in (0.1, 1.0, 10.0, 100.0))
    return control(
        "Every nonconvex penalty sets small blocks to zero: Lambert-W",
        least,
        1e-4,
        f"prox(u, t) ≥ {least:.4g} u for t up to 100: there is no dead zone, small blocks are scaled by 1/(1 + 2t). At "
        f"t = 20 it jumps at u = {high:.6f} from {q.prox(low, 20.0):.6f} to {q.prox(high, 20.0):.6f}.",
    )


def figure(evidence: Evidence) -> Any:
    """prox curves with their jumps, and phi."""
    drawing, (left, right) = axes(2, height=3.4)
    for colour, (name, (u, prox, phi)) in zip(COLOURS, evidence.series.items(), strict=False):
        jumps = np.flatnonzero(np.diff(prox) > 0.1)
        left.plot(np.insert(u, jumps + 1, np.nan), np.insert(prox, jumps + 1, np.nan), color=colour, label=name)
        right.plot(u, phi, color=colour)
    left.plot([0.0, 4.0], [0.0, 4.0], color="#888888", linewidth=0.8, linestyle=":")
    right.plot([0.0, 4.0], [0.0, 4.0], color="#888888", linewidth=0.8, linestyle=":")
    left.set_xlabel("norm u")
    left.set_ylabel("prox(u, 1.5)")
    right.set_xlabel("norm v")
    right.set_ylabel("φ(v)")
    right.set_ylim(0.0, 8.0)
    legend(left, loc="upper left")
    return drawing


STATEMENT = Statement(
    name="prox_and_block_functions",
    number="Extension",
    title="the prox, and the function that one block of problem (1) sees",
    source="formulas of sparseopt.regularizers; the shape theorem is an extension of arXiv 2402.17902",
    text="""
With c the cost of the other blocks, one block of problem (1) has the penalty
    φ(v) = q⁻¹(q(v) + c),   φ'(v) = q'(v) / q'(φ(v)),
which is convex, affine or concave as 1/q' is: (log φ')' = q'(v) [ϱ(φ(v)) − ϱ(v)] with ϱ = (1/q')' and φ(v) ≥ v. So
problem (1) is convex in each block for the logarithm and for transformed l1, Laplace, arctan and MCP, although its
separable relative is not.
""",
    hypotheses={"q does not decrease": lambda q: bool(np.all(np.diff(q.value(np.geomspace(1e-6, 1e4, 500))) >= 0.0))},
    check=check,
    figure=figure,
    caption="Left: the prox, with its jumps, below the dotted diagonal. Right: φ for a fixed cost of the other blocks, "
    "up to the end of its domain.",
    takes_regularizer=True,
)
