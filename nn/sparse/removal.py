"""Channels that a network can do without.

Between a layer P and the layers C that read it, through functions of single numbers such as ReLU, a channel can go if

    nobody reads it:      every C has weights of zero for it, or
    it is a constant:     the row of P is zero, all C get k = f(bias of P), and  W_C[:, c] k  goes into the bias of C.

The second is exact for Linear. A convolution that pads with zeros reads zeros past the edge where it should read k, so
there it holds for k = 0 only. A channel that goes takes a row of P with it, and that may leave inputs of P unread:
the search goes on until nothing changes.

Widths that are no multiple of 8 are slow everywhere, so where channels vanish one by one some of them stay. Where they
vanish block by block, the block is kept as the step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from math import gcd
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from sparseopt.nn.sparse.wiring import Wiring

__all__ = ["remove_channels"]

_MODULES = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Hardtanh, nn.Sigmoid, nn.Tanh)
_FUNCTIONS = (torch.relu, torch.sigmoid, torch.tanh, functional.relu, functional.gelu, functional.silu)
_METHODS = ("relu", "sigmoid", "tanh")
_IDENTITIES = (nn.Identity, nn.Dropout, nn.Dropout2d)  # in evaluation mode
_EVEN = 8

Function = Callable[[Tensor], Tensor]


class _Reader(NamedTuple):
    """A layer that reads another one, and what is applied in between."""

    layer: Any
    function: Function


def remove_channels(wiring: Wiring, exclude: Collection[str] = ()) -> Counter[str]:
    """Take out channels between Linear layers and between Conv2d layers, in place, until none can go.

    Parameters
    ----------
    wiring : Wiring
        Traced; the sizes of its model's layers change, the graph does not.
    exclude : collection of str
        Layers that keep all their inputs and outputs.

    Returns
    -------
    Counter
        How many outputs each layer has lost, by name.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4)).eval()
    >>> _ = model[0].weight.data[8:24].zero_()
    >>> remove_channels(Wiring(model)), model[0].out_features, model[2].in_features
    (Counter({'0': 16}), 16, 16)
    """
    nodes = {name: node for name, node in wiring.nodes().items() if name not in exclude}
    removed: Counter[str] = Counter()
    changed = True
    while changed:
        changed = False
        for name, node in nodes.items():
            layer: Any = wiring.module(node)
            readers = _readers(wiring, node, type(layer), exclude) if _is_simple(layer) else None
            if readers:
                kept = _kept(layer, readers)
                if not bool(kept.all()):
                    removed[name] += int((~kept).sum())
                    _cut(layer, readers, kept)
                    changed = True
    return removed


def _readers(wiring: Wiring, node: fx.Node, kind: type[nn.Module], exclude: Collection[str]) -> list[_Reader] | None:
    """All layers of type `kind` that read a node; None if anything else does."""
    found: list[_Reader] = []
    for user in node.users:
        module = wiring.module(user)
        if type(module) is kind and _is_simple(module) and str(user.target) not in exclude:
            found.append(_Reader(module, lambda k: k))
            continue
        function = _function(wiring, user, kind)
        # In place, it would change what the other readers see.
        if function is None or (len(node.users) > 1 and _is_in_place(wiring, user)):
            return None
        behind = _readers(wiring, user, kind, exclude)
        if behind is None:
            return None
        found += [_Reader(layer, _composed(function, last)) for layer, last in behind]
    return found


def _function(wiring: Wiring, node: fx.Node, kind: type[nn.Module]) -> Function | None:
    """What a node does to every number of its only input, or None."""
    if len(node.args) != 1 or len(node.all_input_nodes) != 1:
        return None
    named, target = dict(node.kwargs), node.target
    if node.op == "call_module":
        module = wiring.model.get_submodule(str(target))
        if type(module) in _IDENTITIES:
            return lambda k: k
        if kind is nn.Conv2d and isinstance(module, nn.MaxPool2d) and not module.return_indices:
            return lambda k: k  # of a constant image
        return module if type(module) in _MODULES else None
    if node.op == "call_function" and target in _FUNCTIONS:
        return lambda k: target(k, **named)
    if node.op == "call_method" and target in _METHODS:
        return lambda k: getattr(k, str(target))(**named)
    return None


def _kept(layer: Any, readers: list[_Reader]) -> Tensor:
    """The channels that have to stay, bool."""
    constant = _rows_of_zeros(layer)
    gone = torch.ones_like(constant)
    for reader, function in readers:
        unread = ~(reader.weight.detach() != 0).transpose(0, 1).flatten(1).any(1)
        value = _value(layer, function)
        padded = isinstance(reader, nn.Conv2d) and reader.padding not in ((0, 0), "valid")
        gone &= unread | (constant & value.isfinite() & ((value == 0) | (not padded)))
    return ~_in_steps(gone)


def _in_steps(gone: Tensor) -> Tensor:
    """Of the channels that could go, those that do: a whole number of steps, and never all."""
    total = len(gone)
    edges = (gone[1:] != gone[:-1]).nonzero().squeeze(1) + 1
    left = total - int(gone.sum())
    by_blocks = gcd(total, *edges.tolist()) >= _EVEN // 2
    stay = _EVEN if left == 0 else 0 if by_blocks else -left % _EVEN
    gone = gone.clone()
    gone[gone.nonzero().squeeze(1)[:stay]] = False
    return gone


@torch.no_grad()
def _cut(layer: Any, readers: list[_Reader], kept: Tensor) -> None:
    constant = _rows_of_zeros(layer) & ~kept
    for reader, function in readers:
        weight = reader.weight
        columns = weight[:, constant].double()
        columns = columns.flatten(2).sum(2) if weight.ndim > 2 else columns
        shift = columns @ _value(layer, function)[constant].double()
        if bool((shift != 0).any()):
            bias = shift if reader.bias is None else reader.bias + shift
            reader.bias = nn.Parameter(bias.to(weight), weight.requires_grad)
        reader.weight = nn.Parameter(weight[:, kept].contiguous(), weight.requires_grad)
    layer.weight = nn.Parameter(layer.weight[kept].contiguous(), layer.weight.requires_grad)
    if layer.bias is not None:
        layer.bias = nn.Parameter(layer.bias[kept].contiguous(), layer.bias.requires_grad)
    for each in (layer, *(reader for reader, _ in readers)):
        out, into = each.weight.shape[:2]
        if isinstance(each, nn.Linear):
            each.out_features, each.in_features = out, into
        else:
            each.out_channels, each.in_channels = out, into


def _rows_of_zeros(layer: Any) -> Tensor:
    return ~(layer.weight.detach() != 0).flatten(1).any(1)


def _value(layer: Any, function: Function) -> Tensor:
    """What readers get for outputs whose weights are zero."""
    bias = layer.weight.new_zeros(len(layer.weight)) if layer.bias is None else layer.bias.detach().clone()
    return function(bias)


def _is_simple(layer: Any) -> bool:
    """Whether rows and columns of the weight are outputs and inputs, with nothing attached to them."""
    if type(layer) not in (nn.Linear, nn.Conv2d) or hasattr(layer, "parametrizations"):
        return False
    if "weight" not in layer._parameters:  # computed from others
        return False
    return isinstance(layer, nn.Linear) or (layer.groups == 1 and layer.padding_mode == "zeros")


def _is_in_place(wiring: Wiring, node: fx.Node) -> bool:
    if node.op == "call_module":
        return bool(getattr(wiring.model.get_submodule(str(node.target)), "inplace", False))
    return bool(node.kwargs.get("inplace", False))


def _composed(first: Function, second: Function) -> Function:
    return lambda k: second(first(k))
