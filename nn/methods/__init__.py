"""Pruning methods, by name."""

from __future__ import annotations

import difflib
from dataclasses import replace
from typing import Any

from sparseopt.nn.methods.attention import SequentialAttention
from sparseopt.nn.methods.hard_thresholding import ACDC
from sparseopt.nn.methods.magnitude import GradualMagnitude, Magnitude
from sparseopt.nn.methods.method import Method

__all__ = ["METHODS", "ACDC", "GradualMagnitude", "Magnitude", "Method", "SequentialAttention", "get_method"]

METHODS: dict[str, type[Method]] = {
    method.name: method for method in (SequentialAttention, ACDC, Magnitude, GradualMagnitude)
}
_ALIASES = {"sa++": "sequential-attention++", "acdc": "ac/dc"}


def get_method(spec: str | Method, **settings: Any) -> Method:
    """The method that `spec` names, or `spec` itself, with settings of its own.

    >>> get_method("ac/dc", zero=False)
    ACDC(reset='layers', updates=100, share=Exponential(c=4.0), zero=False)
    """
    if isinstance(spec, Method):
        return replace(spec, **settings) if settings else spec
    name = str(spec).lower()
    name = _ALIASES.get(name, name)
    if name not in METHODS:
        close = difflib.get_close_matches(name, METHODS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(METHODS)}."
        raise ValueError(f"method {spec!r} is not known: {hint}")
    try:
        return METHODS[name](**settings)
    except TypeError as error:
        known = ", ".join(METHODS[name].__dataclass_fields__)
        raise TypeError(f"method {name!r} has no such setting ({error}): it has {known}.") from None
