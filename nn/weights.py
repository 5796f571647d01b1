"""The weights of a model that can be cut into blocks, and how often each is used.

A multiplication count is exact for the layers listed here: every entry of a linear layer is used once per token, every
entry of a convolution once per output position, an embedding never multiplies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from sparseopt.nn.masks import BlockMask

__all__ = ["CONVOLUTIONS", "Weight", "count_uses", "is_pruned", "weights_of"]

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_IN_PROJECTIONS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


class Weight(NamedTuple):
    """A weight of a model: `module.attribute`, called `name` in the model; `obstacle` says why it cannot be pruned."""

    name: str
    owner: str
    module: nn.Module
    attribute: str
    tensor: Tensor
    obstacle: str


def is_pruned(module: nn.Module, attribute: str) -> bool:
    """Whether a block mask is attached to the weight."""
    return is_parametrized(module, attribute) and any(
        isinstance(each, BlockMask)
        for each in module.parametrizations[attribute]  # type: ignore[index, union-attr]
    )


def weights_of(model: nn.Module) -> list[Weight]:
    """The weights of linear layers, convolutions, embeddings and attention, in the model's order."""
    found: list[Weight] = []
    seen: dict[int, str] = {}
    for owner, module in model.named_modules():
        for attribute in _attributes(module):
            name = f"{owner}.{attribute}" if owner else attribute
            if is_parametrized(module, attribute):
                tensor, obstacle = getattr(module, attribute), "it has another parametrization"
            else:
                tensor = module._parameters.get(attribute)
                if tensor is None:
                    continue
                obstacle = _obstacle(module, tensor, seen.get(id(tensor), ""))
                seen.setdefault(id(tensor), name)
            found.append(Weight(name, owner, module, attribute, tensor, obstacle))
    tied = {entry.obstacle.removeprefix("tied to ") for entry in found if entry.obstacle.startswith("tied to ")}
    return [entry._replace(obstacle="tied to another weight") if entry.name in tied else entry for entry in found]


def _attributes(module: nn.Module) -> tuple[str, ...]:
    if isinstance(module, (nn.Linear, *CONVOLUTIONS, nn.Embedding)):
        return ("weight",)
    return _IN_PROJECTIONS if isinstance(module, nn.MultiheadAttention) else ()


def _obstacle(module: nn.Module, tensor: Tensor, first: str) -> str:
    if first:
        return f"tied to {first}"
    if isinstance(tensor, nn.parameter.UninitializedParameter):
        return "it has no shape before the first batch"
    if not tensor.is_floating_point():
        return f"its entries are {tensor.dtype}"
    if isinstance(module, nn.Embedding) and module.max_norm is not None:
        return "max_norm rescales it in place"
    return ""


def count_uses(model: nn.Module, example_input: Any) -> dict[str, float]:
    """How often one example uses each entry of each weight, by name; empty without an example.

    The model runs once, in evaluation mode and without gradients, and is left as it was.
    """
    if example_input is None:
        return {}
    uses: dict[str, float] = {}
    handles = []
    for weight in weights_of(model):
        handles.append(weight.module.register_forward_hook(_counter(weight, uses)))
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            if isinstance(example_input, Mapping):
                model(**example_input)
            elif isinstance(example_input, Sequence):
                model(*example_input)
            else:
                model(example_input)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes:
            module.training = mode
    batch = _batch(example_input)
    return {name: count / batch for name, count in uses.items()}


def _batch(example: Any) -> int:
    first = next(iter(example.values())) if isinstance(example, Mapping) else example
    while not isinstance(first, Tensor) and isinstance(first, Sequence):
        first = first[0]
    return max(1, int(first.shape[0])) if isinstance(first, Tensor) and first.ndim else 1


def _counter(weight: Weight, uses: dict[str, float]) -> Any:
    module = weight.module

    def count(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(module, nn.Embedding):
            times = 0.0
        elif isinstance(module, CONVOLUTIONS):
            times = output.numel() / module.out_channels
        elif isinstance(module, nn.MultiheadAttention):  # its output projection is used, but not called
            result = output[0] if isinstance(output, tuple) else output
            times = result.numel() / module.embed_dim
            name = weight.name.removesuffix(weight.attribute) + "out_proj.weight"
            uses[name] = uses.get(name, 0.0) + (
                times if weight.attribute in ("in_proj_weight", "q_proj_weight") else 0.0
            )
        else:
            times = output.numel() / prod(output.shape[-1:])
        uses[weight.name] = uses.get(weight.name, 0.0) + times

    return count
