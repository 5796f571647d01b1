"""Regularizers: scalar functions q of a block's norm u = ||w_g||_2 >= 0.

A block penalty is omega q(||w_g||_2). Everything a solver, a certificate or a network needs of it is a question about
q:

    value(u)          q(u)
    slope(u)          q'(u) for u > 0; its limit at 0+ is slope_at_zero(), inf for powers
    inverse(v)        the u with q(u) = v: problem (1) needs it for q^-1(sum_g q(u_g))
    prox(u, t)        argmin over v >= 0 of (v - u)^2 / 2 + t q(v), for every t > 0
    lifted_prox(u, t, rest)   the same with q^-1(q(v) + rest) for q: one block of problem (1)
    weak_convexity()  rho: q + rho u^2 / 2 is convex, so the prox is single-valued for t < 1 / rho
    increasing(), concave(), subadditive(), bounded(), ceiling()   the hypotheses of the theorems

The prox of the block itself is radial: prox(u, t) / u * w_g. Where two minimisers tie, the smaller is returned. A new
regularizer is a NamedTuple with the first, second, fourth and `slope_at_zero`, decorated by `regularizer`.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from typing import Any

from sparseopt.regularizers._define import Regularizer, checked, regularizer
from sparseopt.regularizers.bounded import Arctan, Laplace, TransformedL1
from sparseopt.regularizers.concave import L2, LogSum
from sparseopt.regularizers.jumps import L0, Capped
from sparseopt.regularizers.knots import MCP, SCAD
from sparseopt.regularizers.masks import Expm1Mask, LambertW
from sparseopt.regularizers.power import Power
from sparseopt.regularizers.scaled import Scaled

__all__ = [
    "L0",
    "L2",
    "MCP",
    "REGULARIZERS",
    "SCAD",
    "Arctan",
    "Capped",
    "Expm1Mask",
    "LambertW",
    "Laplace",
    "LogSum",
    "Power",
    "Regularizer",
    "Scaled",
    "TransformedL1",
    "checked",
    "get_regularizer",
    "regularizer",
]

REGULARIZERS: dict[str, Regularizer] = {
    "l2": L2(),
    "power": Power(),
    "log": LogSum(),
    "lambertw": LambertW(),
    "expm1": Expm1Mask(),
    "mcp": MCP(),
    "scad": SCAD(),
    "capped": Capped(),
    "tl1": TransformedL1(),
    "laplace": Laplace(),
    "arctan": Arctan(),
    "l0": L0(),
}


def get_regularizer(spec: Any, **params: float) -> Regularizer:
    """The regularizer that `spec` names, with its parameters checked.

    Parameters
    ----------
    spec : str, class or regularizer
        A name of the table `REGULARIZERS`; "module:Class" for a class that can be imported; a class; or an instance.
    **params : float
        Parameters of q; those left out have the defaults of the class, or the values of the instance.

    Returns
    -------
    regularizer
        An instance with float parameters.

    Raises
    ------
    ValueError
        If the name is unknown, or a parameter lies outside its domain.
    TypeError
        If `spec` is no regularizer, or q has no such parameter.

    Examples
    --------
    >>> get_regularizer("mcp", gamma=2)
    MCP(gamma=2.0)
    >>> get_regularizer("sparseopt.regularizers:LogSum", eps=0.1)
    LogSum(eps=0.1)
    """
    q = _find(spec) if isinstance(spec, str) else spec
    fields = getattr(q, "_fields", ())
    unknown = [name for name in params if name not in fields]
    if unknown:
        allowed = f"it has {', '.join(fields)}" if fields else "it has no parameters"
        name = q.__name__ if inspect.isclass(q) else type(q).__name__
        raise TypeError(f"{name} has no parameter {unknown[0]!r}: {allowed}.")
    if inspect.isclass(q) and fields:
        missing = [name for name in fields if name not in params and name not in getattr(q, "_field_defaults", ())]
        if missing:
            raise TypeError(f"{q.__name__} needs a value for {missing[0]}: pass {missing[0]}=... or an instance.")
    if inspect.isclass(q) and issubclass(q, tuple):
        q = q(**params)
    elif params:
        q = q._replace(**params)
    checked_q: Regularizer = checked(q)
    return checked_q


def _find(name: str) -> Any:
    if name in REGULARIZERS:
        return REGULARIZERS[name]
    module, colon, attribute = name.partition(":")
    if colon:
        try:
            found = getattr(importlib.import_module(module), attribute, None)
        except ModuleNotFoundError as error:
            raise ValueError(
                f"Module {error.name!r} of the regularizer {name!r} was not found: is it on sys.path?"
            ) from error
        if found is None:
            raise ValueError(f"Module {module!r} has no {attribute!r}: write the regularizer as 'module:Class'.")
        return found
    near = difflib.get_close_matches(name, REGULARIZERS, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"the names are {', '.join(REGULARIZERS)}."
    raise ValueError(f"Unknown regularizer {name!r}: {hint}")
