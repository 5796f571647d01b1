"""Arguments of calls as JSON, and JSON of a given form.

    numbers, strings, None, lists       as they are
    everything else                     {kind: content}: node, tuple, slice, dict, ellipsis, float, torch, device

What is read becomes part of Python code that `torch.fx` writes, by `repr`. So strings are short, without quotes,
backslashes, braces and line ends, and integers have 64 bits; the rest is refused, whoever wrote it.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx

from sparseopt.nn.sparse.vocabulary import CONSTANTS

__all__ = ["ANY", "brief", "conform", "decoded", "encoded", "parsed"]

ANY: Any = object()
_STRING = re.compile(r"[A-Za-z0-9_ .,:>()*+/-]{0,100}")
_DEVICE = re.compile(r"[a-z]{1,20}(:[0-9]{1,3})?")
_DEPTH = 8


def parsed(text: str | bytes) -> Any:
    """The data in a JSON text in which no name comes twice; NaN and infinities are no JSON.

    Raises
    ------
    ValueError
        When the text is something else, or nested too deep.
    """
    try:
        return json.loads(text, parse_constant=_no_constant, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise ValueError(f"its header or description is not JSON ({str(error)[:100].rstrip('.')}).") from error


def conform(value: Any, pattern: Any, where: str = "the description") -> None:
    """Refuse data of another form: a type, [pattern of entries], {str: pattern of values}, or {key: pattern, ...}.

    >>> conform({"sides": [2, 3]}, {"sides": [int]})
    >>> conform({"sides": [2, True]}, {"sides": [int]})
    Traceback (most recent call last):
        ...
    ValueError: the description['sides'][1] must be int, not True.
    """
    if pattern is ANY:
        return
    kind = pattern if isinstance(pattern, type) else type(pattern)
    found = type(value)
    if found is not kind:
        raise ValueError(f"{where} must be {kind.__name__}, not {value!r:.60}.")
    inside: list[tuple[Any, Any]] = []
    if isinstance(pattern, list):
        inside = [(number, pattern[0]) for number in range(len(value))]
    elif isinstance(pattern, dict) and list(pattern) == [str]:
        inside = [(key, pattern[str]) for key in value]
    elif isinstance(pattern, dict):
        inside = list(pattern.items())
        if value.keys() != pattern.keys():
            raise ValueError(f"{where} must have the entries {', '.join(pattern)}, not {', '.join(value)!r:.60}.")
    for key, part in inside:
        conform(value[key], part, f"{where}[{key!r:.60}]")


def encoded(value: Any, nodes: Mapping[fx.Node, int] | None = None) -> Any:
    """An argument as JSON; nodes by their number in `nodes`.

    >>> encoded((1, slice(None, 2), float("inf")))
    {'tuple': [1, {'slice': [None, 2, None]}, {'float': 'inf'}]}
    """
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, fx.Node) and nodes is not None:
        return {"node": nodes[value]}
    if isinstance(value, slice):
        return {"slice": [encoded(each, nodes) for each in (value.start, value.stop, value.step)]}
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return {"tuple": [encoded(each, nodes) for each in value]}
    if isinstance(value, list):
        return [encoded(each, nodes) for each in value]
    if isinstance(value, dict):
        return {"dict": {key: encoded(each, nodes) for key, each in value.items()}}
    if value is Ellipsis:
        return {"ellipsis": None}
    if isinstance(value, torch.device):
        return {"device": str(value)}
    if isinstance(value, (torch.dtype, torch.memory_format)):
        return {"torch": str(value).removeprefix("torch.")}
    raise ValueError(f"it uses a {type(value).__name__} as a constant, which a file cannot hold.")


def decoded(value: Any, nodes: Sequence[fx.Node] = (), depth: int = 0) -> Any:
    """The argument that `encoded` wrote.

    Raises
    ------
    ValueError
        For anything that may not be written into code.
    """
    if depth > _DEPTH:
        raise ValueError(f"an argument is nested more than {_DEPTH} deep.")
    if type(value) is list:
        return [decoded(each, nodes, depth + 1) for each in value]
    if type(value) is dict and len(value) == 1:
        ((kind, content),) = value.items()
        known = _READERS.get(kind)
        if known and type(content) is known[0]:
            found = known[1](content, lambda each: decoded(each, nodes, depth + 1), nodes)
            if found is not _NOTHING:
                return found
    elif value is None or type(value) in (bool, float) or (type(value) is int and abs(value) < 2**63):
        return value
    elif type(value) is str and _STRING.fullmatch(value):
        return value
    raise ValueError(f"{value!r:.60} cannot be an argument.")


def brief(error: BaseException) -> str:
    """What another library says, as a part of a sentence."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(". ")[:200]


_NOTHING = object()
_Inner = Callable[[Any], Any]


def _dict(content: dict[str, Any], inner: _Inner, nodes: Sequence[fx.Node]) -> Any:
    named = all(_STRING.fullmatch(key) for key in content)
    return {key: inner(each) for key, each in content.items()} if named else _NOTHING


def _device(content: str, inner: _Inner, nodes: Sequence[fx.Node]) -> Any:
    if _DEVICE.fullmatch(content):
        with contextlib.suppress(RuntimeError):  # a device that this version of torch has not
            return torch.device(content)
    return _NOTHING


_READERS: dict[str, tuple[type, Callable[[Any, _Inner, Sequence[fx.Node]], Any]]] = {
    "node": (int, lambda content, inner, nodes: nodes[content] if 0 <= content < len(nodes) else _NOTHING),
    "tuple": (list, lambda content, inner, nodes: tuple(inner(each) for each in content)),
    "slice": (list, lambda content, inner, nodes: slice(*map(inner, content)) if len(content) == 3 else _NOTHING),
    "dict": (dict, _dict),
    "ellipsis": (type(None), lambda content, inner, nodes: ...),
    "float": (str, lambda content, inner, nodes: float(content) if content in ("inf", "-inf", "nan") else _NOTHING),
    "torch": (str, lambda content, inner, nodes: CONSTANTS.get(content, _NOTHING)),
    "device": (str, _device),
}


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name comes twice")
    return found
