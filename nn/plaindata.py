"""Nested containers of plain data and tensors: what a checkpoint holds.

`mapped` visits them. Of a sharded model some tensors are in shards, which `shards` lists; `whole` puts whole tensors in
their place, in the same order in all processes.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sparseopt.nn.sharding import full, is_sharded

__all__ = ["mapped", "plain", "shards", "states", "whole"]

_PLAIN = (type(None), bool, int, float, complex, str, bytes, Tensor, nn.Parameter)
_PLAIN += (torch.dtype, torch.device, torch.Size)  # type: ignore[assignment]


def mapped(value: Any, where: str, leaf: Callable[[Any, str], Any]) -> Any:
    """`value` with `leaf(each, its place)` for everything that its dicts, lists and tuples hold."""
    if type(value) in (dict, OrderedDict, Counter):
        items = [
            (mapped(key, f"a key of {where}", leaf), mapped(each, f"{where}[{key!r}]", leaf))
            for key, each in value.items()
        ]
        made = type(value)(dict(items))
        if hasattr(value, "_metadata"):  # the versions of a model's modules
            made._metadata = value._metadata
        return made
    if type(value) in (list, tuple):
        return type(value)(mapped(each, f"{where}[{i}]", leaf) for i, each in enumerate(value))
    return leaf(value, where)


def plain(value: Any, where: str) -> Any:
    """`value`, NumPy's numbers as Python's; a sentence about what `torch.load(weights_only=True)` would refuse."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Tensor) and _freed(value):
        raise ValueError(f"{where} is a copy that fully_shard has freed: take it from model.state_dict().")
    if type(value) in _PLAIN:
        return value
    raise ValueError(
        f"{where} is a {type(value).__name__}, which a checkpoint cannot hold: "
        "use numbers, strings, tensors, and lists, tuples and dicts of them."
    )


def shards(value: Any) -> list[tuple[str, torch.Size]]:
    """Places and whole shapes of the sharded tensors in nested containers."""
    found = []
    mapped(value, "", lambda each, where: found.append((where, each.shape)) if is_sharded(each) else None)
    return found


def whole(value: Any, keep: bool) -> Any:
    """`value` with whole tensors in main memory for the sharded ones; with None for them where nobody keeps them.

    All processes call this together, with the same `shards`. Beside what is kept, there is one whole tensor at a time.
    """
    return mapped(value, "", lambda each, _: _gathered(each, keep) if is_sharded(each) else each)


def states(state: Mapping[str, Any], optimizer: Optimizer) -> Iterator[tuple[Tensor, dict[str, Any]]]:
    """(parameter, what is kept of it) for a state dict of the optimizer, which knows parameters by their place."""
    for there, here in zip(state["param_groups"], optimizer.param_groups, strict=True):
        for place, parameter in zip(there["params"], here["params"], strict=True):
            if isinstance(own := state["state"].get(place), dict):
                yield parameter, own


def _freed(tensor: Tensor) -> bool:
    """Whether there is nothing behind the tensor, as behind parameters that were gathered for a forward pass."""
    return tensor.layout == torch.strided and tensor.numel() > 0 and tensor.untyped_storage().nbytes() == 0


def _gathered(tensor: Tensor, keep: bool) -> Tensor | None:
    gathered = full(tensor)
    return gathered.cpu() if keep else None
