"""What follows a layer, taken into it: BatchNorm in evaluation mode, ReLU, and the sum with another branch.

BatchNorm scales and shifts each output of the layer before it by fixed numbers, so it can go into weight and bias:

    gamma (W x + b - mean) / sqrt(var + eps) + beta  =  (s W) x + s (b - mean) + beta,    s = gamma / sqrt(var + eps).

Zeros stay zeros: s scales whole rows. ReLU goes into the `activation` of a block-sparse layer, which applies it before
its result is written, and the other branch of a residual block becomes the second argument of the layer. All that only
if nothing else reads the result in between; see `Wiring`.

Names and classes of modules stay: a BatchNorm or ReLU that is gone leaves an Identity. Only where a sum is taken in,
ReLU is called as a function, or one module serves several places, the network becomes a `torch.fx.GraphModule` with the
same submodules.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from sparseopt.nn.sparse.wiring import Wiring, replace_module

__all__ = ["absorb_relus", "absorb_sums", "fold_batch_norms", "relu_after"]

_RELU_FUNCTIONS = (torch.relu, torch.relu_, functional.relu, functional.relu_)
_RELU_METHODS = ("relu", "relu_")
_SUMS = (operator.add, torch.add, "add", "add_")  # a trace has no `+=`: it becomes `+`
# Dimensions of what BatchNorm must get, for its channels to be the outputs of the layer.
_PAIRS: dict[type[nn.Module], tuple[type[nn.Module], int]] = {
    nn.Linear: (nn.BatchNorm1d, 2),
    nn.Conv1d: (nn.BatchNorm1d, 3),
    nn.Conv2d: (nn.BatchNorm2d, 4),
}


def fold_batch_norms(wiring: Wiring, dimensions: Mapping[nn.Module, int] | None = None) -> dict[str, str]:
    """Fold every BatchNorm that directly follows a Linear, Conv1d or Conv2d into it, in place.

    Parameters
    ----------
    wiring : Wiring
        Its model and graph are changed.
    dimensions : mapping of BatchNorm1d to int, optional
        How many dimensions its input has: it normalises the second one, which is that of the outputs for (N, C) after
        Linear and (N, C, L) after Conv1d, and not for (N, L, C) after Linear. Those not listed stay.

    Returns
    -------
    dict
        Name of the layer, for each name of a BatchNorm that is gone.

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).eval()
    >>> fold_batch_norms(Wiring(model))
    {'1': '0'}
    >>> model[1]
    Identity()
    """
    folded = {}
    for name, node in wiring.nodes().items():
        source: Any = node.args[0]
        norm: Any = wiring.module(node)
        layer: Any = wiring.module(source)
        kind, needed = _PAIRS.get(type(layer), (None, 0))
        if kind is None or type(norm) is not kind or len(source.users) != 1 or norm.running_mean is None:
            continue
        if kind is nn.BatchNorm1d and (dimensions or {}).get(norm) != needed:
            continue
        if len(layer.weight) != norm.num_features or not _is_plain(layer) or not _is_plain(norm):
            continue
        _fold(layer, norm)
        replace_module(wiring.model, norm, nn.Identity().eval())
        wiring.drop(node)
        folded[name] = str(source.target)
    return folded


def relu_after(wiring: Wiring, name: str) -> fx.Node | None:
    """The ReLU that is all that reads the layer `name`, or None."""
    node = wiring.nodes().get(name)
    users = [] if node is None else list(node.users)
    return users[0] if len(users) == 1 and _is_relu(wiring, users[0]) else None


def absorb_relus(wiring: Wiring, names: Iterable[str]) -> nn.Module:
    """The model without the ReLUs that follow the layers `names`, which apply it themselves.

    Returns
    -------
    nn.Module
        The wiring's model; a `torch.fx.GraphModule` of its submodules where that takes another `forward`.
    """
    rewritten = False
    for name in names:
        node = relu_after(wiring, name)
        if node is None:
            raise ValueError(f"no ReLU follows {name} alone: nothing can be taken into it.")
        module = wiring.module(node)
        if module is None:
            rewritten = True
        else:
            replace_module(wiring.model, module, nn.Identity().eval())
        wiring.drop(node)
    if not rewritten:
        return wiring.model
    return fx.GraphModule(wiring.model, wiring.graph, type(wiring.model).__name__)


def absorb_sums(wiring: Wiring, names: Iterable[str]) -> tuple[nn.Module, int]:
    """Give the block-sparse layers `names` the other branch to add, and the ReLU after the sum.

    Returns
    -------
    model : nn.Module
        The wiring's model; a `torch.fx.GraphModule` of its submodules if there was any sum.
    n_sums : int
        Sums that are gone.
    """
    order = {node: place for place, node in enumerate(wiring.graph.nodes)}
    nodes = {name: node for name, node in wiring.nodes().items() if name in set(names)}
    n_sums = 0
    for name, node in sorted(
        nodes.items(), key=lambda item: -order[item[1]]
    ):  # the last of two branches takes the other
        layer: Any = wiring.module(node)
        total: Any = next(iter(node.users), None)
        if layer.activation != "none" or len(node.users) != 1 or not _is_sum(total, node):
            continue
        between = [each for each in order if order[node] < order[each] < order[total]]
        if any(_changes_its_input(wiring, each) for each in between):
            continue
        other: Any = next(each for each in total.args if each is not node)
        with wiring.graph.inserting_before(total):
            fused = wiring.graph.call_module(name, (node.args[0], other))
        total.replace_all_uses_with(fused)
        wiring.graph.erase_node(total)
        wiring.graph.erase_node(node)
        after = list(fused.users)
        if len(after) == 1 and _is_relu(wiring, after[0]):
            layer.activation = "relu"
            after[0].replace_all_uses_with(fused)
            wiring.graph.erase_node(after[0])
        n_sums += 1
    if not n_sums:
        return wiring.model, 0
    return fx.GraphModule(wiring.model, wiring.graph, type(wiring.model).__name__), n_sums


def _is_sum(total: Any, first: fx.Node) -> bool:
    """Whether `total` is `first` plus one other result; a sum in place must not be one in the other's place."""
    if total.target not in _SUMS or total.kwargs or len(total.args) != 2 or total.args[0] is total.args[1]:
        return False
    in_place = total.target == "add_"
    return all(isinstance(each, fx.Node) for each in total.args) and (total.args[0] is first or not in_place)


def _changes_its_input(wiring: Wiring, node: fx.Node) -> bool:
    """Whether a call may write into what it gets, so that a layer must not be moved behind it."""
    if node.op == "call_module":
        module = wiring.model.get_submodule(str(node.target))
        return any(getattr(each, "inplace", False) for each in module.modules())
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    of_operator = getattr(node.target, "__module__", "") == "_operator" and name.startswith("i") and name != "invert"
    return (
        name.endswith("_")
        or of_operator
        or bool(node.kwargs.get("inplace"))
        or True in node.args
        or "out" in node.kwargs
    )


def _is_relu(wiring: Wiring, node: fx.Node) -> bool:
    if node.op == "call_module":
        return type(wiring.model.get_submodule(str(node.target))) is nn.ReLU
    return (node.op == "call_function" and node.target in _RELU_FUNCTIONS) or (
        node.op == "call_method" and node.target in _RELU_METHODS
    )


def _is_plain(module: nn.Module) -> bool:
    """Whether weight and bias are parameters of their own, and not computed from others."""
    return not hasattr(module, "parametrizations") and all(name in module._parameters for name in ("weight", "bias"))


@torch.no_grad()
def _fold(layer: Any, norm: Any) -> None:
    mean, var = norm.running_mean.double(), norm.running_var.double()
    scale = (var + norm.eps).rsqrt() * _or(norm.weight, 1.0)
    weight = layer.weight.double() * scale.view(-1, *[1] * (layer.weight.ndim - 1))
    bias = (_or(layer.bias, 0.0) - mean) * scale + _or(norm.bias, 0.0)
    trained = layer.weight.requires_grad
    layer.weight = nn.Parameter(weight.to(layer.weight), trained)
    layer.bias = nn.Parameter(bias.to(layer.weight), trained)


def _or(tensor: Tensor | None, number: float) -> Any:
    return number if tensor is None else tensor.double()
