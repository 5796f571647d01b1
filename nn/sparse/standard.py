"""Standard modules of torch as a class and its arguments.

A module is described by the arguments that its class would need to make it, and is made again on the device "meta",
where the largest layer takes no memory. Only the classes of `vocabulary` are, and only with arguments that it lists.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from sparseopt.nn.sparse.literals import brief, decoded, encoded
from sparseopt.nn.sparse.vocabulary import MODULES

__all__ = ["CLASSES", "made", "module_record"]

CLASSES = {cls: name for name, (cls, _) in MODULES.items()}


def module_record(module: nn.Module, names: list[str]) -> dict[str, Any]:
    """Class and arguments of a module of CLASSES, without those that have their defaults.

    Raises
    ------
    ValueError
        When the arguments do not make this module again: somebody has changed it.

    Examples
    --------
    >>> module_record(nn.Linear(4, 2), ["fc"])
    {'names': ['fc'], 'class': 'Linear', 'arguments': {'in_features': 4, 'out_features': 2}}
    """
    kind = CLASSES[type(module)]
    cls, wanted = MODULES[kind]
    defaults = {key: p.default for key, p in inspect.signature(cls).parameters.items()}
    given = {key: _argument(module, key) for key in wanted if key in defaults or "args" in defaults}
    given = {k: v for k, v in given.items() if type(v) is not type(defaults.get(k)) or v != defaults[k]}
    arguments = {key: encoded(value) for key, value in given.items()}
    again = made(kind, arguments, len(list(module.parameters())))
    for key, value in vars(again).items():
        own = key in ("training", "_parameters", "_buffers", "_modules") or key.startswith("_flat_weight")
        if not own and vars(module).get(key, again) != value:
            raise ValueError(f"its module {names[0]!r} is not as {kind} makes it, {key} was changed.")
    if "forward" in vars(module):
        raise ValueError(f"its module {names[0]!r} has a forward of its own.")
    return {"names": names, "class": kind, "arguments": arguments}


def made(kind: str, arguments: Mapping[str, Any], n_tensors: int) -> nn.Module:
    """A module on the device "meta", in a model of so many tensors.

    Raises
    ------
    ValueError
        When it is not among those that a file may name, or cannot be made.
    """
    if kind not in MODULES:
        raise ValueError(f"a file may not name the module {kind!r:.60}.")
    cls, names = MODULES[kind]
    unknown = arguments.keys() - set(names)
    if unknown:
        raise ValueError(f"{kind} has no argument {min(unknown)!r:.60}.")
    values = {key: decoded(value) for key, value in arguments.items()}
    layers = values.get("num_layers", 0)  # the one number that a constructor counts up to
    if type(layers) is not int or layers > n_tensors:
        raise ValueError(f"{kind} with num_layers={layers!r:.60} does not fit to {n_tensors} tensors.")
    try:
        with torch.device("meta"):
            return cls(**values)
    except Exception as error:
        raise ValueError(f"{kind} cannot be made ({brief(error)}).") from error


def _argument(module: Any, key: str) -> Any:
    if isinstance(module, nn.MultiheadAttention) and key in ("bias", "add_bias_kv"):
        return (module.in_proj_bias if key == "bias" else module.bias_k) is not None
    value = getattr(module, key)
    return value is not None if key == "bias" and not isinstance(value, bool) else value
