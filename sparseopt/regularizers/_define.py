"""What a regularizer is, and what it need not say itself.

A regularizer is a NamedTuple of parameters with the methods of a scalar function q on block norms u >= 0. Four of them
define it: `value`, `slope`, `prox`, `slope_at_zero`. The decorator `regularizer` adds the others by search,

    inverse      the u with q(u) = v, by bisection
    lifted_prox  argmin over v >= 0 of (v - u)^2 / 2 + t phi(v),  phi(v) = q^-1(q(v) + rest),  by global search
    ceiling      sup q, by a look at q far away

answers that claim nothing (`increasing`, `concave`, `subadditive`: False; `weak_convexity`: inf), and makes all of them
callable inside kernels. A class that knows better writes the method itself.
"""

from __future__ import annotations

import inspect
import math
from numbers import Real
from typing import Any, Protocol, TypeVar

from sparseopt.regularizers._lifted import lifted_prox_by_search
from sparseopt.scalar import where
from sparseopt.structs import compiled

__all__ = ["Array", "Regularizer", "checked", "positive", "regularizer"]

Array = Any  # a float, an ndarray or a tensor: what goes in comes out

_Class = TypeVar("_Class", bound=type)


class Regularizer(Protocol):
    """The methods of a regularizer; `u`, `v`, `t` are elementwise, `lifted_prox` takes floats only."""

    def value(self, u: Array) -> Array:
        """q(u) for u >= 0; q(0) = 0, nondecreasing."""

    def slope(self, u: Array) -> Array:
        """q'(u) for u > 0; at a kink any number between the one-sided slopes."""

    def inverse(self, v: Array) -> Array:
        """The u with q(u) = v; the smallest if q is constant there, inf for v above the ceiling."""

    def prox(self, u: Array, t: Array) -> Array:
        """The minimiser over v >= 0 of (v - u)^2 / 2 + t q(v), for every t > 0; the smaller of two that tie."""

    def lifted_prox(self, u: float, t: float, rest: float) -> float:
        """The minimiser over v >= 0 of (v - u)^2 / 2 + t q^-1(q(v) + rest), rest >= 0."""

    def slope_at_zero(self) -> float:
        """The limit of q(u) / u as u falls to 0: q'(0+), or inf if q jumps or is infinitely steep there."""

    def weak_convexity(self) -> float:
        """The least rho for which q(u) + rho u^2 / 2 is convex, or inf; prox is single-valued for t < 1 / rho."""

    def increasing(self) -> bool:
        """Whether a < b implies q(a) < q(b)."""

    def concave(self) -> bool:
        """Whether q is concave on u >= 0."""

    def subadditive(self) -> bool:
        """Whether q(a + b) <= q(a) + q(b) for all a, b >= 0."""

    def bounded(self) -> bool:
        """Whether q stays below a constant."""

    def ceiling(self) -> float:
        """The least upper bound of q, inf if there is none."""


def regularizer(cls: _Class) -> _Class:
    """Make a NamedTuple with `value`, `slope`, `prox` and `slope_at_zero` a regularizer.

    The methods are written in the words of `sparseopt.scalar`, so that one text runs on floats, NumPy arrays, torch
    tensors and inside compiled kernels. Methods that are missing are added: see `Regularizer` for what each means and
    the top of this file for how they are found. `sparseopt.laws.check_regularizer` tests an instance of the class.

    Parameters
    ----------
    cls : class
        A NamedTuple whose fields are the parameters of q, all floats. A private method `_check(self)`, if there is one,
        raises ValueError for parameters outside their domain; every problem calls it.

    Returns
    -------
    class
        The same class.

    Raises
    ------
    TypeError
        If `cls` is no NamedTuple, lacks one of the four methods, or writes a method with other argument names.

    Notes
    -----
    Not valid for q that decreases somewhere or has q(0) != 0. A method must not create arrays: kernels that call it
    have no memory to give, and Numba refuses to compile them. The defaults of `increasing`, `concave` and `subadditive`
    are False, so theorems that need these properties are not applied to the class until it claims them.

    Examples
    --------
    >>> from typing import NamedTuple
    >>> from sparseopt.scalar import maximum
    >>> @regularizer
    ... class Half(NamedTuple):
    ...     def value(self, u):
    ...         return 0.5 * u
    ...     def slope(self, u):
    ...         return 0.5 + 0.0 * u
    ...     def prox(self, u, t):
    ...         return maximum(u - 0.5 * t, 0.0)
    ...     def slope_at_zero(self):
    ...         return 0.5
    >>> Half().prox(3.0, 1.0), round(Half().inverse(2.0), 12), Half().ceiling()
    (2.5, 4.0, inf)
    """
    fields = getattr(cls, "_fields", None)
    if not (isinstance(cls, type) and issubclass(cls, tuple) and fields is not None):
        raise TypeError(
            f"{_name(cls)} must be a NamedTuple: write `class {_name(cls)}(NamedTuple)`, parameters as fields."
        )
    hidden = [name for name in (*_NEEDED, *_DEFAULTS) if name in fields]
    if hidden:
        raise TypeError(
            f"{_name(cls)} must not have a field called {hidden[0]}: it is the name of a method, rename the field."
        )
    missing = [name for name in _NEEDED if not callable(getattr(cls, name, None))]
    if missing:
        needed = ", ".join(f"{name}({arguments})" for name, arguments in _NEEDED.items())
        raise TypeError(f"{_name(cls)} lacks {', '.join(missing)}: a regularizer must define {needed}.")
    for default in _DEFAULTS.values():
        if not callable(getattr(cls, default.__name__, None)):
            setattr(cls, default.__name__, default)
    return compiled(cls)


def checked(q: Any) -> Any:
    """`q` with float parameters, if they lie in their domain.

    Raises
    ------
    TypeError
        If `q` is no instance of a class decorated with `regularizer`, or a parameter is no number.
    ValueError
        If a parameter lies outside its domain.

    Examples
    --------
    >>> from sparseopt.regularizers import MCP
    >>> checked(MCP(3))
    MCP(gamma=3.0)
    """
    if not isinstance(q, tuple) or not all(callable(getattr(q, name, None)) for name in (*_NEEDED, *_DEFAULTS)):
        hint = f"write {_name(q)}() for an instance" if inspect.isclass(q) else "decorate its class with @regularizer"
        raise TypeError(f"{_name(q)} is not a regularizer: {hint}.")
    parameters = {}
    for name, value in zip(q._fields, q, strict=True):  # type: ignore[attr-defined]
        if isinstance(value, Real):
            parameters[name] = float(value)
        elif isinstance(value, tuple):
            parameters[name] = checked(value)
        else:
            raise TypeError(f"{name} of {_name(q)} must be a number, got {value!r}.")
    q = q._replace(**parameters)  # type: ignore[attr-defined]
    if hasattr(q, "_check"):
        q._check()
    return q


def positive(name: str, value: float, remedy: str = "") -> None:
    """Raise ValueError unless the parameter called `name` is positive and finite."""
    if not 0.0 < value < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {value}{': ' + remedy if remedy else ''}.")


def _name(thing: Any) -> str:
    return str(getattr(thing, "__name__", None) or type(thing).__name__)


def inverse(self: Any, v: Array) -> Array:
    high = 0.0 * v + 1.0
    for _ in range(25):
        high = where(self.value(high) < v, 16.0 * high, high)
    low = 0.0 * high
    top = high
    for _ in range(110):
        middle = 0.5 * (low + high)
        below = self.value(middle) < v
        low = where(below, middle, low)
        high = where(below, high, middle)
    found = where(self.value(top) < v, math.inf, high)
    return where(v <= 0.0, 0.0 * v, found)


def lifted_prox(self: Any, u: float, t: float, rest: float) -> float:
    return lifted_prox_by_search(self, u, t, rest)


def weak_convexity(self: Any) -> float:
    return math.inf


def increasing(self: Any) -> bool:
    return False


def concave(self: Any) -> bool:
    return False


def subadditive(self: Any) -> bool:
    return False


def ceiling(self: Any) -> float:
    far = self.value(1e30)
    return far if far <= self.value(1e15) * (1.0 + 1e-12) else math.inf


def bounded(self: Any) -> bool:
    return self.ceiling() < math.inf


_NEEDED = {"value": "self, u", "slope": "self, u", "prox": "self, u, t", "slope_at_zero": "self"}
_DEFAULTS = {
    function.__name__: function
    for function in (inverse, lifted_prox, weak_convexity, increasing, concave, subadditive, bounded, ceiling)
}
