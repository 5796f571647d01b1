"""The certificate of a regularizer: the hypotheses of the theorems, proved or refuted in ball arithmetic on [lo, hi].

Regularizers of the package are taken as the curves that their docstrings state, see `hypotheses`. One of your own is
run as it is written: its `value`, in the words of `sparseopt.scalar`, is evaluated on jets

    (q(u), q'(u), q''(u))   for all u of an interval at once, each an enclosing ball,

where `where` with an open condition returns the hull of both branches and remembers that q may bend there (the larger
or smaller of two numbers) or jump (anything else). A bend never counts as concave, a jump never as increasing.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sparseopt import scalar
from sparseopt.certificates.certificate import Certificate, Verdict, not_applicable
from sparseopt.problem import Problem
from sparseopt.regularizers import REGULARIZERS, Scaled

__all__ = ["examine", "regularizer"]

_SMOOTH, _BENT, _BROKEN = 0, 1, 2


def regularizer(
    problem: Problem, w: ArrayLike | None = None, b: ArrayLike = 0.0, *, lo: float = 1e-3, hi: float = 1e3
) -> Certificate:
    """Which hypotheses of Theorem 1.1 and of the separable bound the regularizer of a problem meets on [lo, hi].

    Parameters
    ----------
    problem : Problem
        With a penalty; only its q matters.
    w, b : arrays, optional
        Not used: the claim is about q.
    lo, hi : float
        The interval, 0 < lo < hi: a, b and a + b lie in it.

    Raises
    ------
    ImportError
        Without python-flint.

    Notes
    -----
    PROVED if q is increasing and subadditive, REFUTED if numbers show that it is not, FAILED if neither could be shown.
    Subadditivity is proved from concavity only: a q like 2u + |sin u| is neither proved nor refuted.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt import Problem
    >>> problem = Problem.build(np.eye(2), [2.0, 0.1], penalty="lambertw", lam=0.5)
    >>> certificate = regularizer(problem)
    >>> certificate.verdict.name, certificate.numbers["ratio_peak"]
    ('REFUTED', [2.718281828459045, 2.7182818284590455])
    """
    kind = "regularizer"
    q = getattr(problem.penalty, "q", None)
    if q is None:
        return not_applicable(kind, "The problem limits the number of groups and has no regularizer.")
    numbers = examine(q, lo, hi)
    where = f"on [{lo:g}, {hi:g}]"
    if "unreadable" in numbers:
        return Certificate(kind, f"{q} could not be evaluated on balls: {numbers['unreadable']}.", Verdict.FAILED)
    words = {"proved": "proved", "refuted": "refuted", "open": "neither proved nor refuted"}
    said = []
    for name in ("increasing", "concave", "subadditive"):
        at = numbers.get(f"{name}_at")
        said.append(f"{name} {words[numbers[name]]}" + (f" at a = {at[0]:.6g}, b = {at[1]:.6g}" if at else ""))
    said.append("bounded by its ceiling" if numbers["bounded"] == "proved" else "no bound shown")
    for name, text in (("convex_up_to", "convex up to"), ("diagonal", "q(2a) <= 2 q(a) from a ="),
                       ("ratio_peak", "q(u) / u largest at")):  # fmt: skip
        if name in numbers:
            said.append(f"{text} {numbers[name][0]:.12g}")
    needed = [numbers["increasing"], numbers["subadditive"]]
    verdict = Verdict.PROVED if needed == ["proved"] * 2 else Verdict.REFUTED if "refuted" in needed else Verdict.FAILED
    caveats: tuple[str, ...] = (f"Anything outside [{lo:g}, {hi:g}].",)
    if not _of_package(q):
        caveats += ("That q(0) = 0, and anything that the verifier could repeat: it has formulas of the package only.",)
    return Certificate(kind, f"{q} {where}: {', '.join(said)}.", verdict, numbers, 0.0, caveats)


def examine(q: Any, lo: float = 1e-3, hi: float = 1e3) -> dict[str, Any]:
    """Per hypothesis "proved", "refuted" or "open" on [lo, hi], the numbers a, b that refute it, and thresholds.

    Parameters
    ----------
    q : regularizer
        Of the package, or your own.
    lo, hi : float
        0 < lo < hi < inf.

    Returns
    -------
    dict
        "lo", "hi"; "increasing", "concave", "subadditive", "bounded"; "<property>_at": [a, b] where refuted;
        "convex_up_to", "diagonal", "ratio_peak": [low, high], where a q of the package is not concave; "unreadable":
        why your q cannot be run on balls, and nothing else then.

    Examples
    --------
    >>> from sparseopt import LogSum
    >>> found = examine(LogSum(0.1))
    >>> found["increasing"], found["concave"], found["subadditive"], found["bounded"]
    ('proved', 'proved', 'proved', 'open')
    """
    from sparseopt.certificates.balls import bits, curve
    from sparseopt.certificates.hypotheses import hypotheses

    if not 0.0 < lo < hi < math.inf:
        raise ValueError(f"lo = {lo}, hi = {hi} is no interval: pass 0 < lo < hi < inf.")
    lo, hi = float(lo), float(hi)
    if _of_package(q):
        with bits():
            found = curve(_words(q))
        return hypotheses(found, lo, hi)
    try:
        return hypotheses(_Text(q), lo, hi)
    except (TypeError, AttributeError, ArithmeticError) as error:
        return {"unreadable": str(error)}


def _of_package(q: Any) -> bool:
    return type(q) in {type(known) for known in REGULARIZERS.values()} or (isinstance(q, Scaled) and _of_package(q.q))


def _words(q: Any) -> dict[str, Any]:
    params = {name: _words(x) if isinstance(x, tuple) else float(x) for name, x in zip(q._fields, q, strict=True)}
    return {"name": type(q).__name__, "params": params}


class _Text:
    """A regularizer as it is written, on balls: what `hypotheses` asks of q."""

    def __init__(self, q: Any) -> None:
        from sparseopt.certificates.balls import arb, proved

        scalar.use(_Jet, _Words)
        scalar.use(_Open, _Words)
        self.q, self.arb, self.proved = q, arb, proved

    def jet(self, u: Any) -> _Jet:
        found = self.q.value(_Jet(u, self.arb(1), self.arb(0)))
        return found if isinstance(found, _Jet) else _constant(found, self.arb)

    def value(self, u: Any) -> Any:
        return self.jet(u).f

    def shows(self, name: str, lo: Any, hi: Any) -> bool:
        if name == "increasing":
            return self._always(lambda j: j.d > 0 and j.rough < _BROKEN, lo, hi)
        if name == "bounded":
            ceiling = float(self.q.ceiling())
            return ceiling < math.inf and self._always(lambda j: j.f <= ceiling, lo, hi)
        if not self._always(lambda j: j.dd <= 0 and j.rough == _SMOOTH, lo, hi):
            return False
        at = self.jet(lo)
        return name == "concave" or bool(at.f >= lo * at.d)

    def _always(self, holds: Any, lo: Any, hi: Any) -> bool:
        shown: bool = self.proved(lambda u: bool(holds(self.jet(u))), lo, hi)
        return shown


class _Jet:
    """q, q', q'' over an interval, and whether q may bend or jump there."""

    __slots__ = ("d", "dd", "f", "rough")
    __array_ufunc__ = None  # NumPy numbers leave arithmetic to this class
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, f: Any, d: Any, dd: Any, rough: int = _SMOOTH) -> None:
        self.f, self.d, self.dd, self.rough = f, d, dd, rough

    def _with(self, other: Any) -> _Jet:
        return other if isinstance(other, _Jet) else _constant(other, type(self.f))

    def through(self, f: Any, d: Any, dd: Any) -> _Jet:
        """g(self) for a smooth g with these derivatives at self.f."""
        return _Jet(f, d * self.d, dd * self.d * self.d + d * self.dd, self.rough)

    def __add__(self, other: Any) -> _Jet:
        o = self._with(other)
        return _Jet(self.f + o.f, self.d + o.d, self.dd + o.dd, max(self.rough, o.rough))

    def __mul__(self, other: Any) -> _Jet:
        o = self._with(other)
        bend = self.dd * o.f + 2 * self.d * o.d + self.f * o.dd
        return _Jet(self.f * o.f, self.d * o.f + self.f * o.d, bend, max(self.rough, o.rough))

    def __truediv__(self, other: Any) -> _Jet:
        return self * self._with(other)._inverse()

    def _inverse(self) -> _Jet:
        return self.through(1 / self.f, -1 / self.f**2, 2 / self.f**3)

    def __pow__(self, power: Any) -> _Jet:
        if isinstance(power, _Jet):
            return _Words.exp(power * _Words.log(self))
        p = type(self.f)(power)
        exponents = [int(power) - k if float(power).is_integer() else p - k for k in range(3)]
        f, d, dd = (self.f**e for e in exponents)
        return self.through(f, p * d, p * (p - 1) * dd)

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self) -> _Jet:
        return self * -1

    def __sub__(self, other: Any) -> _Jet:
        return self + self._with(other) * -1

    def __rsub__(self, other: Any) -> _Jet:
        return self._with(other) - self

    def __rtruediv__(self, other: Any) -> _Jet:
        return self._with(other) / self

    def __rpow__(self, base: Any) -> _Jet:
        return self._with(base) ** self

    def __abs__(self) -> _Jet:
        return _Words.abs(self)

    def __lt__(self, other: Any) -> Any:
        o = self._with(other).f
        return True if self.f < o else False if self.f >= o else _Open(self, other)

    def __le__(self, other: Any) -> Any:
        o = self._with(other).f
        return True if self.f <= o else False if self.f > o else _Open(self, other)

    def __gt__(self, other: Any) -> Any:
        o = self._with(other).f
        return True if self.f > o else False if self.f <= o else _Open(self, other)

    def __ge__(self, other: Any) -> Any:
        o = self._with(other).f
        return True if self.f >= o else False if self.f < o else _Open(self, other)

    def __eq__(self, other: Any) -> Any:
        o = self._with(other).f
        return True if self.f == o else _Open(self, other) if self.f.overlaps(o) else False

    def __ne__(self, other: Any) -> Any:
        same = self == other
        return same if isinstance(same, _Open) else not same


class _Open:
    """A comparison that holds on a part of the interval only, or nobody knows."""

    __array_ufunc__ = None

    def __init__(self, left: Any = None, right: Any = None) -> None:
        self.between = (left, right)

    def __and__(self, other: Any) -> Any:
        return False if other is False else _Open()

    def __or__(self, other: Any) -> Any:
        return True if other is True else _Open()

    __rand__, __ror__ = __and__, __or__

    def __bool__(self) -> bool:
        raise TypeError("it branches by `if` on a number that is only known to lie in an interval: write where(...)")


class _Words:
    """The words of `sparseopt.scalar` on jets."""

    @staticmethod
    def where(condition: Any, a: Any, b: Any) -> Any:
        kind = next((type(x.f) for x in (a, b) if isinstance(x, _Jet)), None)
        if kind is None:
            from sparseopt.certificates.balls import arb as kind
        x, y = (v if isinstance(v, _Jet) else _constant(v, kind) for v in (a, b))
        bent = {id(v) for v in condition.between} == {id(a), id(b)}
        rough = max(x.rough, y.rough, _BENT if bent else _BROKEN)
        return _Jet(x.f.union(y.f), x.d.union(y.d), x.dd.union(y.dd), rough)

    @staticmethod
    def sqrt(x: _Jet) -> _Jet:
        f = x.f.sqrt()
        return x.through(f, 1 / (2 * f), -1 / (4 * f * x.f))

    @staticmethod
    def exp(x: _Jet) -> _Jet:
        f = x.f.exp()
        return x.through(f, f, f)

    @staticmethod
    def expm1(x: _Jet) -> _Jet:
        f = x.f.exp()
        return x.through(x.f.expm1(), f, f)

    @staticmethod
    def log(x: _Jet) -> _Jet:
        return x.through(x.f.log(), 1 / x.f, -1 / x.f**2)

    @staticmethod
    def log1p(x: _Jet) -> _Jet:
        return x.through(x.f.log1p(), 1 / (1 + x.f), -1 / (1 + x.f) ** 2)

    @staticmethod
    def sin(x: _Jet) -> _Jet:
        f = x.f.sin()
        return x.through(f, x.f.cos(), -f)

    @staticmethod
    def cos(x: _Jet) -> _Jet:
        f = x.f.cos()
        return x.through(f, -x.f.sin(), -f)

    @staticmethod
    def tan(x: _Jet) -> _Jet:
        f = x.f.tan()
        return x.through(f, 1 + f * f, 2 * f * (1 + f * f))

    @staticmethod
    def cosh(x: _Jet) -> _Jet:
        f = x.f.cosh()
        return x.through(f, x.f.sinh(), f)

    @staticmethod
    def arctan(x: _Jet) -> _Jet:
        g = 1 + x.f**2
        return x.through(x.f.atan(), 1 / g, -2 * x.f / g**2)

    @staticmethod
    def arcsin(x: _Jet) -> _Jet:
        g = (1 - x.f**2).sqrt()
        return x.through(x.f.asin(), 1 / g, x.f / g**3)

    @staticmethod
    def arccos(x: _Jet) -> _Jet:
        g = (1 - x.f**2).sqrt()
        return x.through(x.f.acos(), -1 / g, -x.f / g**3)

    @staticmethod
    def arccosh(x: _Jet) -> _Jet:
        g = (x.f**2 - 1).sqrt()
        return x.through(x.f.acosh(), 1 / g, -x.f / g**3)

    @staticmethod
    def abs(x: _Jet) -> _Jet:
        if x.f > 0:
            return x
        if x.f < 0:
            return -x
        both = _Words.where(_Open(), x, -x)
        return _Jet(abs(x.f), both.d, both.dd, max(x.rough, _BENT))


def _constant(value: Any, kind: Any) -> _Jet:
    if isinstance(value, (int, float, np.floating)):
        value = kind(float(value))
    return _Jet(value, kind(0), kind(0))
