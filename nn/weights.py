"""The weights of a model that can be cut into blocks, and how often each is used.

A multiplication count is exact for the layers listed here: every entry of a linear layer is used once per token, every
entry of a convolution once per output position, an embedding never multiplies. In attention, the rows for queries are
used once per query, those for keys and values once per key; a weight that stacks the three gets the mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
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
        for each in module.parametrizations[attribute]  # type: ignore[index]
    )


def weights_of(model: nn.Module) -> list[Weight]:
    """The weights of linear layers, convolutions, embeddings and attention, in the model's order."""
    # All holders of a parameter, also those of other types: a mask on one would leave the others without.
    holders: dict[int, list[str]] = {}
    for owner, module in model.named_modules():
        for attribute, parameter in module._parameters.items():
            if parameter is not None:
                holders.setdefault(id(parameter), []).append(f"{owner}.{attribute}" if owner else attribute)
    found: list[Weight] = []
    for owner, module in model.named_modules():
        for attribute in _attributes(module):
            name = f"{owner}.{attribute}" if owner else attribute
            if is_parametrized(module, attribute):
                tensor, obstacle = _computed(module, attribute), "it has another parametrization"
            elif module._parameters.get(attribute) is not None:
                tensor = module._parameters[attribute]
                obstacle = _obstacle(module, tensor, [each for each in holders[id(tensor)] if each != name])
            elif isinstance(getattr(module, attribute, None), Tensor):
                tensor = getattr(module, attribute)
                obstacle = "it is computed from other parameters, as by weight_norm"
            else:
                continue
            found.append(Weight(name, owner, module, attribute, tensor, obstacle))
    return found


def _attributes(module: nn.Module) -> tuple[str, ...]:
    if isinstance(module, (nn.Linear, *CONVOLUTIONS, nn.Embedding)):
        return ("weight",)
    return _IN_PROJECTIONS if isinstance(module, nn.MultiheadAttention) else ()


@torch.no_grad()
def _computed(module: Any, attribute: str) -> Tensor:
    """The weight behind a block mask, or what another parametrization computes."""
    chain = module.parametrizations[attribute]
    if is_pruned(module, attribute):
        return chain.original
    # Reading the weight of spectral_norm changes it while it trains.
    modes = [(each, each.training) for each in chain.modules()]
    chain.eval()
    try:
        return getattr(module, attribute)
    finally:
        for each, mode in modes:
            each.training = mode


def _obstacle(module: nn.Module, tensor: Tensor, others: list[str]) -> str:
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        return f"tied to {others[0]}{more}"
    if is_lazy(tensor):
        return "it has no shape before the first batch"
    if not tensor.is_floating_point():
        return f"its entries are {tensor.dtype}"
    if isinstance(module, nn.Embedding) and module.max_norm is not None:
        return "max_norm rescales it in place"
    if isinstance(module, nn.Embedding) and module.sparse:
        return "its gradient is sparse: build it with sparse=False"
    return ""


def count_uses(model: nn.Module, example_input: Any) -> dict[str, float]:
    """How often one example uses each entry of each weight, by name; empty without an example.

    The model runs once, in evaluation mode and without gradients, and is left as it was. Weights that this run does not
    reach have no number. The first dimension of the first tensor of `example_input` is the number of examples.

    Raises
    ------
    ValueError
        When the model has lazy layers: running it would change them.
    """
    if example_input is None:
        return {}
    if any(is_lazy(tensor) for tensor in (*model.parameters(), *model.buffers())):
        raise ValueError("the model has lazy layers without shapes: run one batch through it before counting.")
    uses: dict[str, float] = {}
    handles = [
        weight.module.register_forward_hook(_counter(weight, uses), with_kwargs=True) for weight in weights_of(model)
    ]
    modes = [(module, module.training) for module in model.modules()]
    fast = torch.backends.mha.get_fastpath_enabled()
    # The fast path of transformers packs padded batches into nested tensors, whose sizes nobody can ask for.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        model.eval()
        with torch.no_grad():
            if isinstance(example_input, Mapping):
                model(**example_input)
            elif isinstance(example_input, Sequence):
                model(*example_input)
            else:
                model(example_input)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for handle in handles:
            handle.remove()
        for module, mode in modes:
            module.training = mode
    first = _first_tensor(example_input)
    batch = 1 if first is None else max(1, first.shape[0])
    return {name: count / batch for name, count in uses.items()}


def _first_tensor(example: Any) -> Tensor | None:
    """The first tensor in nested arguments that has dimensions."""
    if isinstance(example, Tensor):
        return example if example.ndim else None
    if isinstance(example, str):
        return None
    inside = example.values() if isinstance(example, Mapping) else example if isinstance(example, Sequence) else ()
    return next((found for each in inside if (found := _first_tensor(each)) is not None), None)


def _counter(weight: Weight, uses: dict[str, float]) -> Any:
    module = weight.module

    def add(name: str, times: float) -> None:
        uses[name] = uses.get(name, 0.0) + times

    def count(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if isinstance(module, nn.Embedding):
            add(weight.name, 0.0)
        elif isinstance(module, CONVOLUTIONS):
            add(weight.name, output.numel() / module.out_channels)
        elif isinstance(module, nn.MultiheadAttention):
            given = {**dict(zip(("query", "key", "value"), args, strict=False)), **kwargs}
            queries, keys, values = (given[k].numel() / given[k].shape[-1] for k in ("query", "key", "value"))
            times = {"q_proj_weight": queries, "k_proj_weight": keys, "v_proj_weight": values}
            add(weight.name, times.get(weight.attribute, (queries + keys + values) / 3.0))
            if weight.attribute in ("in_proj_weight", "q_proj_weight"):
                # The output projection is used, but not called.
                add(weight.name.removesuffix(weight.attribute) + "out_proj.weight", queries)
        else:
            add(weight.name, output.numel() / output.shape[-1])

    return count
