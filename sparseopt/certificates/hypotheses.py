"""The hypotheses of the theorems, for q on [lo, hi], in ball arithmetic.

    increasing     q' > 0 on every piece between knots
    concave        q'' <= 0 on every piece, and q' does not rise at a knot
    subadditive    follows from concave if the tangent at lo stays >= 0 down to 0, q(lo) >= lo q'(lo): then q can be
                   continued to 0 as a concave function that is not negative there
    bounded        q(hi) at most the ceiling of the class, which q does not reach later either: it does not decrease

A hypothesis is refuted by numbers: q(b) <= q(a) for a < b, (q(a) + q(b)) / 2 > q((a + b) / 2), q(a) + q(b) < q(a + b).
What is neither proved nor refuted is left open. Where concavity fails, three places are enclosed by changes of sign:

    convex_up_to  of q''       diagonal  of 2 q(a) - q(2a)       ratio_peak  of q(u) - u q'(u), the turn of q(u) / u
"""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise
from typing import Any

from sparseopt.certificates.balls import Curve, Refusal, arb, bits, proved

__all__ = ["THRESHOLDS", "checked_hypotheses", "hypotheses"]

Ball = Any
_BITS = 320
PROPERTIES = ("increasing", "concave", "subadditive", "bounded")
THRESHOLDS = ("convex_up_to", "diagonal", "ratio_peak")


def hypotheses(q: Any, lo: float, hi: float) -> dict[str, Any]:
    """Per property "proved", "refuted" or "open", and where it fails; q has value(ball) and shows(name, lo, hi)."""
    found: dict[str, Any] = {"lo": lo, "hi": hi}
    with bits(_BITS):
        shows = q.shows if hasattr(q, "shows") else lambda name, a, b: shown(q, name, a, b)
        points = sorted({lo * (hi / lo) ** (i / 40) for i in range(40)} | {hi} | ({1.0} if lo < 1.0 < hi else set()))
        values = {a: q.value(arb(a)) for a in points}
        for name in PROPERTIES:
            if shows(name, arb(lo), arb(hi)):
                found[name] = "proved"
                continue
            pairs = [(a, b) for i, a in enumerate(points) for b in points[i:] if a + b <= hi and name != "bounded"]
            if name == "increasing":
                pairs = list(pairwise(points))
            pairs.sort(key=lambda pair: abs(math.log(pair[0])) + abs(math.log(pair[1])))
            at = next((pair for pair in pairs if disproves(q, name, *pair, values)), None)
            found[name] = "refuted" if at else "open"
            if at:
                found[f"{name}_at"] = list(at)
        if isinstance(q, Curve) and found["concave"] == "refuted":
            found |= {name: place for name in THRESHOLDS if (place := _turn(q, name, points))}
    return found


def disproves(q: Any, name: str, a: float, b: float, values: dict[float, Ball] | None = None) -> bool:
    """Whether q at a and b shows that the property fails."""
    known = values or {}
    qa, qb = (known[x] if x in known else q.value(arb(x)) for x in (a, b))
    if name == "increasing":
        return bool(0 <= a < b and qb <= qa)
    if name == "concave":
        return bool(q.value((arb(a) + arb(b)) / 2) < (qa + qb) / 2)
    return bool(name == "subadditive" and qa + qb < q.value(arb(a) + arb(b)))


def shown(q: Curve, name: str, lo: Ball, hi: Ball) -> bool:
    """Whether a property of a curve of the package is shown on [lo, hi]."""
    if name == "bounded":
        with bits(4096):  # the ceiling is approached exponentially
            return q.ceiling is not None and bool(q.value(hi) <= (q.ceiling * q.unit).lower())
    start, end = q.parameter(lo).lower(), q.parameter(hi).upper()
    starts = [knot for knot, _ in q.pieces]
    for n, (knot, Q) in enumerate(q.pieces):
        left, right = knot.max(start), (starts[n + 1] if n + 1 < len(starts) else end).min(end)
        if not left < right:
            continue
        if not proved(partial(_bends if name != "increasing" else _rises, q, Q), left, right):
            return False
        if name != "increasing" and n and start < knot:  # q' may fall at a knot, not rise
            if not q.slopes(knot, Q)[0] <= q.slopes(knot, q.pieces[n - 1][1])[0]:
                return False
    if name != "subadditive":
        return True
    slope = q.slopes(start, [Q for knot, Q in q.pieces if knot <= start][-1])[0]
    return bool(q.value(lo) >= lo * slope)


def _rises(q: Curve, Q: Any, t: Ball) -> bool:
    return bool(q.slopes(t, Q)[0] > 0)


def _bends(q: Curve, Q: Any, t: Ball) -> bool:
    return bool(q.slopes(t, Q)[1] <= 0)


def _side(q: Curve, name: str, u: Ball) -> Ball:
    """The number whose sign changes at a threshold, from - to +."""
    if name == "diagonal":
        return 2 * q.value(u) - q.value(2 * u)
    t = q.parameter(u)
    slope, bend = q.slopes(t, [Q for knot, Q in q.pieces if knot <= t][-1])
    return -bend if name == "convex_up_to" else q.value(u) - u * slope


def _turn(q: Curve, name: str, points: list[float]) -> list[float] | None:
    """Two floats, as close as can be told, between which the sign changes once from - to +; None if it does not."""
    pairs = [(a, b) for a, b in pairwise(points) if _side(q, name, arb(a)) < 0 < _side(q, name, arb(b))]
    if len(pairs) != 1:
        return None
    low, high = pairs[0]
    while low < (middle := 0.5 * (low + high)) < high:
        side = _side(q, name, arb(middle))
        if not (side < 0 or side > 0):
            return None
        low, high = (middle, high) if side < 0 else (low, middle)
    return [low, high]


def checked_hypotheses(q: Curve, numbers: dict[str, Any], verdict: str) -> str:
    """Say which properties hold or fail, or refuse; `numbers` are those of the claim."""
    lo, hi = numbers.get("lo"), numbers.get("hi")
    if not (isinstance(lo, float) and isinstance(hi, float) and 0.0 < lo < hi < math.inf):
        raise Refusal(f"[{lo}, {hi}] is not an interval of positive numbers")
    said = []
    with bits(_BITS):
        for name in PROPERTIES:
            state, at = numbers.get(name), numbers.get(f"{name}_at")
            if state == "proved" and not shown(q, name, arb(lo), arb(hi)):
                raise Refusal(f"q is not shown to be {name} on [{lo:g}, {hi:g}]")
            if state == "refuted":
                if not (isinstance(at, list) and len(at) == 2 and disproves(q, name, float(at[0]), float(at[1]))):
                    raise Refusal(f"{at} does not show that q is not {name}")
                said.append(f"not {name}, as a = {at[0]:.6g}, b = {at[1]:.6g} show")
            elif state == "proved":
                said.append(name)
            elif state != "open":
                raise Refusal(f"the claim says {state!r} of {name}")
        for name in THRESHOLDS:
            if name in numbers:
                low, high = map(float, numbers[name])
                if not (0.0 < low < high and _side(q, name, arb(low)) < 0 < _side(q, name, arb(high))):
                    raise Refusal(f"{name} does not lie between {low} and {high}")
                said.append(f"{name} in [{low:.17g}, {high:.17g}]")
    needed = [numbers[name] for name in ("increasing", "subadditive")]
    if verdict == "PROVED" and needed != ["proved", "proved"]:
        raise Refusal("the hypotheses of Theorem 1.1 are not all proved")
    if verdict == "REFUTED" and "refuted" not in needed:
        raise Refusal("no hypothesis of Theorem 1.1 is refuted")
    return f"on [{lo:g}, {hi:g}] q is " + ", ".join(said)
