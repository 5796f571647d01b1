"""The layers of sparseopt as they stand in a file: a record each, and tensors.

    names        where the layer is in the model; more than one if it is shared
    kind         BlockSparseLinear, BlockSparseConv1d, BlockSparseConv2d, ShrunkLinear, ShrunkConv2d
    arguments    block-sparse: shape, block, activation; shrunk: size; convolutions: stride, padding, dilation
    bias         whether there is one

Kernels compute addresses from these numbers and from the layer's integer tensors. So a layer is made from numbers of
the right form only, and by the constructors that check the integers against them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sparseopt.nn.sparse.format import BlockSparse
from sparseopt.nn.sparse.layers import BlockSparseConv1d, BlockSparseConv2d, BlockSparseLinear
from sparseopt.nn.sparse.literals import ANY, brief, conform
from sparseopt.nn.sparse.shrinking import ShrunkConv2d, ShrunkLayer, ShrunkLinear

__all__ = ["FORM", "KINDS", "check_replaced", "kind_of", "layer_of", "positions", "record_of", "tensors_of"]

FORM = {"names": [str], "kind": str, "arguments": {str: ANY}, "bias": bool}


class _Kind(NamedTuple):
    layer: type[nn.Module]
    dense: type[nn.Module]
    weight: str
    positions: tuple[str, str]
    arguments: dict[str, Any]


_GEOMETRY = {"stride": [int], "padding": [int], "dilation": [int]}
_BLOCKS = "values", ("crow", "col"), {"shape": [int], "block": [int], "activation": str}
_SHRUNK = "weight", ("outputs", "inputs"), {"size": [int]}
KINDS = {
    kind.layer.__name__: kind
    for kind in (
        _Kind(BlockSparseLinear, nn.Linear, *_BLOCKS),
        _Kind(BlockSparseConv1d, nn.Conv1d, *_BLOCKS[:2], _BLOCKS[2] | _GEOMETRY),
        _Kind(BlockSparseConv2d, nn.Conv2d, *_BLOCKS[:2], _BLOCKS[2] | _GEOMETRY),
        _Kind(ShrunkLinear, nn.Linear, *_SHRUNK),
        _Kind(ShrunkConv2d, nn.Conv2d, *_SHRUNK[:2], _SHRUNK[2] | _GEOMETRY | {"padding": ANY}),  # it may be "same"
    )
}
_FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def positions(layer: nn.Module) -> tuple[str, ...]:
    """The integer tensors of a layer; none if it is not one of KINDS."""
    kind = KINDS.get(type(layer).__name__)
    return kind.positions if kind is not None and type(layer) is kind.layer else ()


def record_of(layer: Any, names: list[str]) -> dict[str, Any]:
    """The record of a layer of KINDS."""
    kind = type(layer).__name__
    spatial = 1 if kind.endswith("1d") else 2
    arguments = {}
    for key in KINDS[kind].arguments:
        value = getattr(layer, key)
        if isinstance(value, int):
            value = [value] * spatial
        arguments[key] = value if isinstance(value, str) else list(value)
    return {"names": names, "kind": kind, "arguments": arguments, "bias": layer.bias is not None}


def kind_of(record: Mapping[str, Any]) -> str:
    """The kind of a record, if it is one of KINDS."""
    if record["kind"] not in KINDS:
        raise ValueError(f"a file may not name the layer {record['kind']!r:.60}.")
    return record["kind"]


def tensors_of(record: Mapping[str, Any]) -> dict[str, str]:
    """The names of a recorded layer's tensors, by their keys in the layer.

    >>> tensors_of({"names": ["fc"], "kind": "ShrunkLinear", "arguments": {"size": [4, 4]}, "bias": False})
    {'weight': 'fc.weight', 'outputs': 'fc.outputs', 'inputs': 'fc.inputs'}
    """
    if not record["names"]:
        raise ValueError("one of its layers has no name.")
    kind, name = KINDS[kind_of(record)], record["names"][0]
    keys = (kind.weight, *kind.positions, *["bias"] * record["bias"])
    return {key: f"{name}.{key}" if name else key for key in keys}


def layer_of(record: Mapping[str, Any], stored: Mapping[str, Tensor]) -> nn.Module:
    """The layer of a record of the form FORM, made of the tensors on the CPU.

    Raises
    ------
    ValueError
        When it would read or write outside of its tensors, or is no layer at all.
    """
    names, arguments, kind = tensors_of(record), record["arguments"], KINDS[record["kind"]]
    where = f"the layer {record['names'][0]!r:.60}"
    missing = [name for name in names.values() if name not in stored]
    if missing:
        raise ValueError(f"{where} lacks its tensor {missing[0]!r:.60}.")
    found = {key: stored[name] for key, name in names.items()}
    if any(found[key].dtype not in _FLOATS for key in found.keys() - set(kind.positions)):
        raise ValueError(f"{where} has weights of a type that is not multiplied.")
    conform(arguments, kind.arguments, where)
    numbers = [n for value in arguments.values() if isinstance(value, list) for n in value]
    if not all(type(n) is int and 0 <= n < 2**31 for n in numbers):
        raise ValueError(f"{where} has numbers that no layer has.")
    more = {key: tuple(v) if isinstance(v, list) else v for key, v in arguments.items() if key in _GEOMETRY}
    try:
        return _made(kind, found, arguments, more)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where} is not valid: {brief(error)}.") from error


def check_replaced(name: str, layer: Any, module: nn.Module | None) -> None:
    """Refuse to put a layer in the place of a module that it does not come from."""
    dense = KINDS[type(layer).__name__].dense
    shape, theirs = _dense_shape(layer), _dense_shape(module)
    if not isinstance(module, (dense, type(layer))) or theirs != shape:
        raise ValueError(
            f"it has a {type(layer).__name__} of shape {shape} at {name!r:.60}, where the model has "
            f"{type(module).__name__} of shape {theirs}: pass the dense model that was compressed."
        )


def _dense_shape(module: Any) -> tuple[int, ...]:
    shape = tuple(getattr(getattr(module, "weight", None), "shape", ()))
    return (*module.size, *shape[2:]) if isinstance(module, ShrunkLayer) else shape


def _made(kind: _Kind, found: Mapping[str, Tensor], arguments: Mapping[str, Any], more: Mapping[str, Any]) -> nn.Module:
    weight, (first, second) = found[kind.weight], (found[key] for key in kind.positions)
    if kind.weight == "values":
        packed = BlockSparse(weight, first, second, tuple(arguments["shape"]))
        if list(packed.block) != arguments["block"]:
            raise ValueError(f"its blocks are {packed.block} and described as {arguments['block']!r:.60}.")
        return kind.layer(packed, found.get("bias"), activation=arguments["activation"], **more)
    sides = [arguments["size"], *(value for value in more.values() if isinstance(value, tuple))]
    steps = [n for key in ("stride", "dilation") for n in more.get(key, ())]
    fits = all(len(side) == 2 for side in sides) and weight.ndim == (4 if more else 2)
    if not fits or min([*weight.shape, *steps]) < 1 or more.get("padding", "same") not in ("same", "valid", *sides):
        raise ValueError(f"its weight {tuple(weight.shape)} does not fit to {dict(arguments)!r:.200}.")
    return kind.layer(weight, first, second, tuple(arguments["size"]), found.get("bias"), **more)
