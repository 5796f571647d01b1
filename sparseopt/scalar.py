"""Elementwise words: one name for a float, an ndarray, a tensor and a scalar inside a compiled kernel.

A formula written in these words, `where(u <= knot, u - u * u / (2 * knot), knot / 2)`, is a single definition that

    a Python or NumPy float   evaluates at once,
    a NumPy array             evaluates elementwise,
    a Numba kernel            compiles to scalar code,
    a torch tensor            evaluates on its device, with gradients.

Both branches of a `where` are always evaluated on arrays, so both must be finite: clip the argument of a root or of a
logarithm before, not after. Arithmetic, comparisons, `&`, `|` and `**` need no word.

Array libraries join with `use(array_type, namespace)`; `sparseopt.nn` does that for torch, so the core never imports
it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba.extending import overload

__all__ = [
    "arccos",
    "arccosh",
    "arcsin",
    "arctan",
    "cos",
    "cosh",
    "exp",
    "expm1",
    "log",
    "log1p",
    "maximum",
    "minimum",
    "sin",
    "sqrt",
    "tan",
    "use",
    "where",
]

_NAMESPACES: dict[type, Any] = {}


def use(array_type: type, namespace: Any) -> None:
    """Let the words act on `array_type` through the functions of `namespace` (for example `torch.Tensor`, `torch`)."""
    _NAMESPACES[array_type] = namespace


def _namespace(*values: Any) -> Any:
    for value in values:
        for kind, namespace in _NAMESPACES.items():
            if isinstance(value, kind):
                return namespace
    return np


def _apply(word: str, x: Any) -> Any:
    """The function `word` of the library that owns `x`.

    A float stays a Python float: a NumPy float64, which NumPy's functions would return, turns a float32 array that it
    multiplies into float64.
    """
    y = getattr(_namespace(x), word)(x)
    return float(y) if isinstance(x, (int, float)) else y


def where(condition: Any, a: Any, b: Any) -> Any:
    """`a` where `condition` holds, else `b`."""
    if isinstance(condition, (bool, np.bool_)):
        return a if condition else b
    return _namespace(condition).where(condition, a, b)


def maximum(a: Any, b: Any) -> Any:
    """The larger of `a` and `b`; `a` may be an array or a tensor, `b` may also be a number."""
    return where(a < b, b, a)


def minimum(a: Any, b: Any) -> Any:
    """The smaller of `a` and `b`; `a` may be an array or a tensor, `b` may also be a number."""
    return where(a > b, b, a)


def sqrt(x: Any) -> Any:
    """Square root, x >= 0."""
    return _apply("sqrt", x)


def exp(x: Any) -> Any:
    """e to the power x."""
    return _apply("exp", x)


def expm1(x: Any) -> Any:
    """e to the power x, minus 1, exact near 0."""
    return _apply("expm1", x)


def log(x: Any) -> Any:
    """Natural logarithm, x > 0."""
    return _apply("log", x)


def log1p(x: Any) -> Any:
    """Natural logarithm of 1 + x, exact near 0; x > -1."""
    return _apply("log1p", x)


def sin(x: Any) -> Any:
    """Sine, x in radians."""
    return _apply("sin", x)


def cos(x: Any) -> Any:
    """Cosine, x in radians."""
    return _apply("cos", x)


def tan(x: Any) -> Any:
    """Tangent, x in radians."""
    return _apply("tan", x)


def cosh(x: Any) -> Any:
    """Hyperbolic cosine."""
    return _apply("cosh", x)


def arcsin(x: Any) -> Any:
    """Inverse sine in radians, -1 <= x <= 1."""
    return _apply("arcsin", x)


def arccos(x: Any) -> Any:
    """Inverse cosine in radians, -1 <= x <= 1."""
    return _apply("arccos", x)


def arctan(x: Any) -> Any:
    """Inverse tangent in radians."""
    return _apply("arctan", x)


def arccosh(x: Any) -> Any:
    """Inverse hyperbolic cosine, x >= 1."""
    return _apply("arccosh", x)


@overload(where, jit_options={"forceinline": True})
def _where(condition, a, b):
    return lambda condition, a, b: a if condition else b


# Written so that NaN in `a` comes out as NaN on every backend: every comparison with NaN is false.
@overload(maximum)
def _maximum(a, b):
    return lambda a, b: b if a < b else a


@overload(minimum)
def _minimum(a, b):
    return lambda a, b: b if a > b else a


def _compile(word: Any, function: Any) -> None:
    @overload(word)
    def _overloaded(x):
        return lambda x: function(x)


for _word, _function in (
    (sqrt, math.sqrt),
    (exp, math.exp),
    (expm1, math.expm1),
    (log, math.log),
    (log1p, math.log1p),
    (sin, math.sin),
    (cos, math.cos),
    (tan, math.tan),
    (cosh, math.cosh),
    (arcsin, math.asin),
    (arccos, math.acos),
    (arctan, math.atan),
    (arccosh, math.acosh),
):
    _compile(_word, _function)
