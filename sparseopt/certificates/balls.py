"""Ball arithmetic for the verifier: every number is an interval that contains the true one (python-flint's `arb`).

    losses        value, slope and conjugate of one sample, written anew
    roots         the ball of x with f(x) = target, for increasing f
    q             every regularizer of the package as a curve u = a(t), q = Q(t), q' = S(t), cut at its knots
    hypotheses    signs on [lo, hi], by halving the interval until each piece decides

A comparison of balls is True only if it holds for all numbers in them, so `not x < y` never proves x >= y.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

try:
    from flint import arb, arb_mat, arb_series, ctx
except ImportError as error:
    raise ImportError("Verifying needs python-flint: pip install 'sparseopt[verify]'.") from error

__all__ = ["PRECISION", "Curve", "Refusal", "arb", "arb_mat", "balls", "bits", "conjugate", "curve", "definite", "down"]
__all__ += ["norm", "proved", "root", "sample_slope", "sample_value", "up"]

PRECISION = 128
Ball = Any
_ONE = arb(1)


class Refusal(Exception):
    """Why a claim is not verified: one sentence without its full stop."""


def bits(precision: int = PRECISION) -> Any:
    """A context in which balls have that many bits."""
    return ctx.workprec(precision)


def up(x: Ball) -> float:
    """A float >= every number in x."""
    return math.nextafter(float(arb(x).upper()), math.inf) if arb(x).is_finite() else math.inf


def down(x: Ball) -> float:
    """A float <= every number in x."""
    return math.nextafter(float(arb(x).lower()), -math.inf) if arb(x).is_finite() else -math.inf


def balls(x: NDArray[Any]) -> Any:
    """An array of floats as (lists of) balls, exactly."""
    return [balls(row) for row in x] if x.ndim > 1 else [arb(t) for t in x.tolist()]


def norm(values: Iterable[Ball]) -> Ball:
    """Euclidean norm; exactly 0 for zeros."""
    return sum((x * x for x in values), arb(0)).nonnegative_part().sqrt()


def definite(H: list[list[Ball]]) -> bool:
    """Whether a symmetric matrix is certainly positive definite: all pivots of LDL' are positive."""
    H = [list(row) for row in H]
    for k in range(len(H)):
        if not H[k][k] > 0:
            return False
        for i in range(k + 1, len(H)):
            factor = H[i][k] / H[k][k]
            for j in range(k + 1, len(H)):
                H[i][j] -= factor * H[k][j]
    return True


# -- losses of one sample; y, z, v are lists over the outputs ----------------------------------------------------------


def sample_value(loss: str, delta: float, y: Sequence[Ball], z: Sequence[Ball]) -> Ball:
    """f(y, z)."""
    if loss == "multinomial":
        top = max((x.mid() for x in z), key=float)
        return sum(((x - top).exp() for x in z), arb(0)).log() + top - sum(a * x for a, x in zip(y, z, strict=True))
    total = arb(0)
    for a, x in zip(y, z, strict=True):
        if loss == "logistic":
            total += x.max(arb(0)) + (-abs(x)).exp().log1p() - a * x
        elif loss == "poisson":
            total += x.exp() - a * x + _xlogx(a) - a
        else:
            r = abs(x - a)
            near = r.min(arb(delta)) if loss == "huber" else r
            total += near * (r - near / 2)
    return total


def sample_slope(loss: str, delta: float, y: Sequence[Ball], z: Sequence[Ball]) -> list[Ball]:
    """df/dz."""
    if loss == "multinomial":
        top = max((x.mid() for x in z), key=float)
        e = [(x - top).exp() for x in z]
        return [x / sum(e, arb(0)) - a for x, a in zip(e, y, strict=True)]
    if loss == "logistic":
        return [1 / (1 + (-x).exp()) - a for x, a in zip(z, y, strict=True)]
    if loss == "poisson":
        return [x.exp() - a for x, a in zip(z, y, strict=True)]
    r = [x - a for x, a in zip(z, y, strict=True)]
    return [x.min(arb(delta)).max(arb(-delta)) for x in r] if loss == "huber" else r


def conjugate(loss: str, delta: float, y: Sequence[Ball], v: Sequence[Ball]) -> Ball:
    """f*(y, v) = sup_z <v, z> - f(y, z); a Refusal where v may lie outside the domain."""
    total = arb(0)
    for a, x in zip(y, v, strict=True):
        p = x + a
        if loss == "logistic":
            total += _xlogx(p) + _xlogx(1 - a - x)
        elif loss == "poisson":
            total += _xlogx(p) - _xlogx(a) - x
        elif loss == "multinomial":
            total += _xlogx(p)
        elif loss == "huber" and not abs(x) <= delta:
            raise Refusal("the dual point leaves the domain of the conjugate")
        else:
            total += x * (a + x / 2)
    return total


def _xlogx(p: Ball) -> Ball:
    if p > 0:
        return p * p.log()
    if not (p >= 0 and p < 0.3):
        raise Refusal("the dual point leaves the domain of the conjugate")
    return p if p == 0 else p * p.upper().log()


# -- roots and regularizers --------------------------------------------------------------------------------------------


def root(f: Callable[[Ball], Ball], target: Ball, steps: int = 220) -> Ball:
    """A ball with every x >= 0 where the increasing f takes a value in `target`; [x, inf] if f may stay below."""
    high = arb(1)
    while not f(high) > target:
        high = 4 * high * high
        if not high < arb(2) ** 100000:
            return arb.pos_inf()
    sides = []
    for below in (lambda x: f(x) < target, lambda x: not f(x) > target):
        lo, hi = arb(0), high
        for _ in range(steps):
            middle = ((lo + hi) / 2).mid()
            lo, hi = (middle, hi) if below(middle) else (lo, middle)
        sides.append((lo, hi))
    return sides[0][0].union(sides[1][1])


@dataclass(frozen=True)
class Curve:
    """q as a curve: u = a(t), q(u) = Q(t), q'(u) = S(t) for t >= 0, on pieces that start at knots (in t).

    `strict` and `concave` say which hypotheses are known to hold on all of u >= 0, `ceiling` is sup q.
    """

    pieces: tuple[tuple[Ball, Callable[[Any], Any]], ...]
    strict: bool = True
    concave: bool = True
    ceiling: Ball | None = None
    a: Callable[[Any], Any] | None = None
    S: Callable[[Any], Any] | None = None
    unit: Ball = _ONE  # unit q(u / unit)

    def value(self, u: Ball) -> Ball:
        """q(u), from both ends of u: q does not decrease."""
        return self._at((u / self.unit).lower().max(arb(0))).union(self._at((u / self.unit).upper()))

    def inverse(self, v: Ball) -> Ball:
        """A ball around q^-1(v), for strictly increasing q."""
        if self.a is None:
            return self.unit * root(self._at, v / self.unit)
        return self.unit * self.a(root(self.pieces[0][1], v / self.unit))

    def parameter(self, u: Ball) -> Ball:
        """t with a(t) = u / unit."""
        return u / self.unit if self.a is None else root(self.a, u / self.unit)

    def _at(self, u: Ball) -> Ball:
        if u == 0:
            return arb(0)
        t = u if self.a is None else root(self.a, u)
        return self.unit * arb([Q for start, Q in self.pieces if start <= t][-1](t))

    def slopes(self, t: Ball, Q: Callable[[Any], Any]) -> tuple[Ball, Ball]:
        """q' and a number with the sign of q'', at the parameters in t."""
        at = arb_series([t, 1], prec=3)
        found = (self.S or Q)(at)
        c = [*(found.coeffs() if isinstance(found, arb_series) else [arb(found)]), arb(0), arb(0), arb(0)]
        return (c[0], c[1]) if self.S else (c[1], 2 * c[2])


def curve(words: dict[str, Any]) -> Curve:
    """The curve of {"name", "params"}; a Refusal for a name that the package does not have."""
    name, given = words["name"], words["params"]
    if name == "Scaled":
        inner, lam = curve(given["q"]), _positive(given["lam"])
        return Curve(inner.pieces, inner.strict, inner.concave, inner.ceiling, inner.a, inner.S, inner.unit * lam)
    p = {key: _positive(value) for key, value in given.items()}
    one, zero = arb(1), arb(0)
    if name == "L2":
        return Curve(((zero, lambda u: u),))
    if name == "Power" and p["p"] < 1:
        return Curve(((zero, lambda u: (p["p"] * u.log()).exp()),))
    if name == "LogSum":
        return Curve(((zero, lambda u: (1 + u / p["eps"]).log()),))
    if name == "TransformedL1":
        return Curve(((zero, lambda u: (1 + p["c"]) * u / (p["c"] + u)),), ceiling=1 + p["c"])
    if name == "Laplace":
        return Curve(((zero, lambda u: 1 - (-u / p["s"]).exp()),), ceiling=one)
    if name == "Arctan":
        return Curve(((zero, lambda u: (u / p["s"]).atan()),), ceiling=arb.pi() / 2)
    if name == "MCP":
        g = p["gamma"]
        return Curve(((zero, lambda u: u - u * u / (2 * g)), (g, lambda u: g / 2)), strict=False, ceiling=g / 2)
    if name == "Capped":
        return Curve(((zero, lambda u: u), (p["theta"], lambda u: p["theta"])), strict=False, ceiling=p["theta"])
    if name == "L0":
        return Curve(((zero, lambda u: one),), strict=False, ceiling=one)
    if name == "SCAD" and p["theta"] > 1:
        k, top, bend = p["kappa"], p["kappa"] * (p["theta"] + 1) / 2, 2 * (p["theta"] - 1) * p["kappa"]
        middle = (k, lambda u: u - (u - k) * (u - k) / bend)
        return Curve(((zero, lambda u: u), middle, (p["theta"] * k, lambda u: top)), strict=False, ceiling=top)
    if name == "LambertW":
        a, S = lambda w: w.sqrt() * w.exp(), lambda w: 2 * w.sqrt() * (-w).exp()
        return Curve(((zero, lambda w: w * w + w),), concave=False, a=a, S=S)
    if name == "Expm1Mask":
        fade = lambda w: 1 - (-w).exp()  # noqa: E731
        a, S = lambda w: (w * fade(w)).sqrt() * fade(w) * w.exp(), lambda w: 2 * (w / fade(w)).sqrt() * (-w).exp()
        return Curve(((zero, lambda w: w * w + w * fade(w)),), a=a, S=S)
    raise Refusal(f"there is no formula for the regularizer {name!r} with these parameters")


def proved(holds: Callable[[Ball], bool], lo: Ball, hi: Ball, limit: int = 20000) -> bool:
    """Whether `holds` is shown on all of [lo, hi], by halving the pieces on which it is not."""
    todo, used = [(lo, hi)], 0
    while todo:
        lo, hi = todo.pop()
        used += 1
        if not holds(lo.union(hi)):
            middle = ((lo * hi).sqrt() if 0 < 4 * lo < hi else (lo + hi) / 2).mid()
            if used >= limit or not lo < middle < hi:
                return False
            todo += [(lo, middle), (middle, hi)]
    return True


def _positive(value: Any) -> Ball:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 < value < math.inf:
        raise Refusal(f"the regularizer has the parameter {value!r}, which must be positive")
    return arb(value)
