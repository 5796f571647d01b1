"""Pruning methods, by name."""

from __future__ import annotations

import difflib
from dataclasses import MISSING, fields, replace
from typing import Any

from sparseopt.nn.methods.attention import SequentialAttention
from sparseopt.nn.methods.expm1 import Expm1
from sparseopt.nn.methods.growth import OMP
from sparseopt.nn.methods.hard_thresholding import ACDC
from sparseopt.nn.methods.magnitude import GradualMagnitude, Magnitude
from sparseopt.nn.methods.masked_l1 import MaskedL1
from sparseopt.nn.methods.method import Method
from sparseopt.nn.methods.power_propagation import PowerPropagation
from sparseopt.nn.methods.proximal import GroupLasso, ProximalMethod
from sparseopt.nn.methods.swaps import OMPR, RigL

__all__ = [
    "ACDC",
    "METHODS",
    "OMP",
    "OMPR",
    "Expm1",
    "GradualMagnitude",
    "GroupLasso",
    "Magnitude",
    "MaskedL1",
    "Method",
    "PowerPropagation",
    "ProximalMethod",
    "RigL",
    "SequentialAttention",
    "get_method",
]

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (
        SequentialAttention,
        ACDC,
        Magnitude,
        GradualMagnitude,
        PowerPropagation,
        MaskedL1,
        Expm1,
        GroupLasso,
        ProximalMethod,
        OMP,
        OMPR,
        RigL,
    )
}
_ALIASES = {"sa++": "sequential-attention++", "acdc": "ac/dc", "powerprop": "power-propagation", "l1": "masked-l1"}


def get_method(spec: str | Method | type[Method], **settings: Any) -> Method:
    """The method that `spec` names, or `spec` itself, with settings of its own.

    Parameters
    ----------
    spec : str, Method or class of methods
        A name of `METHODS` (capitals do not matter, "_" is as good as "-"), or one of the short names "sa++", "acdc",
        "powerprop" and "l1".
    **settings
        Settings of the method; of a finished `spec`, those to change.

    Raises
    ------
    ValueError
        When the name is not known, or the value of a setting is not possible.
    TypeError
        When the method has no such setting, or lacks one that it needs.

    Examples
    --------
    >>> get_method("ac/dc", zero=False)
    ACDC(reset='layers', updates=100, share=Exponential(c=4.0), zero=False)
    """
    if isinstance(spec, Method):
        _check_settings(type(spec), settings)
        return replace(spec, **settings)
    if isinstance(spec, type) and issubclass(spec, Method):
        kind = spec
    else:
        name = str(spec).lower().replace("_", "-")
        name = _ALIASES.get(name, name)
        if name not in METHODS:
            close = difflib.get_close_matches(name, [*METHODS, *_ALIASES], n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(METHODS)}."
            raise ValueError(f"method {spec!r} is not known: {hint}")
        kind = METHODS[name]
    _check_settings(kind, settings)
    for each in fields(kind):
        if each.name not in settings and each.default is MISSING and each.default_factory is MISSING:
            raise TypeError(f"method {kind.name!r} needs a setting {each.name!r}: pass {each.name}=...")
    return kind(**settings)


def _check_settings(kind: type[Method], settings: dict[str, Any]) -> None:
    known = [each.name for each in fields(kind)]
    for name in settings:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(known)}."
            raise TypeError(f"method {kind.name!r} has no setting {name!r}: {hint}")
