"""How the modules of a network are connected, as far as `torch.fx` can tell.

Some changes are right only if nobody else looks: a BatchNorm may be folded into the layer before it if nothing but the
BatchNorm reads that layer's result. So the network is traced as a whole, in evaluation mode, and a network that cannot
be traced stays as it is. What a trace would not show is refused beforehand:

    modules in training mode        their branches are not those of evaluation
    optional arguments              one trace follows one branch, whether or not they are passed
    hooks                           they may read or change whatever passes by

A layer counts as alone if it is called exactly once, nothing reads its weight past it, and no other module shares it.
"""

from __future__ import annotations

import inspect
from collections import Counter
from typing import Any

import torch
from torch import fx, nn

from sparseopt.nn.sparse.layers import BlockSparseLayer
from sparseopt.nn.sparse.shrinking import ShrunkLayer

__all__ = ["Wiring", "replace_module"]


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (BlockSparseLayer, ShrunkLayer)) or super().is_leaf_module(m, module_qualified_name)


class Wiring:
    """A model and its graph.

    Attributes
    ----------
    model : nn.Module
    graph : fx.Graph
        Of its calls; without any if the model cannot be traced.
    obstacle : str
        Why it cannot be, or "".
    """

    def __init__(self, model: nn.Module, trace: bool = True) -> None:
        self.model = model
        self.graph = fx.Graph()
        self.obstacle = _obstacle(model) if trace else "it was not asked for"
        if not self.obstacle:
            try:
                with torch.random.fork_rng(devices=()):
                    self.graph = _Tracer().trace(model)
            except Exception as error:  # whatever the model's own code raises when it meets a symbol
                first = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
                self.obstacle = f"torch.fx cannot trace it ({first})"
        self._calls = Counter(str(node.target) for node in self.graph.nodes if node.op == "call_module")
        reads = {str(node.target).rpartition(".")[0] for node in self.graph.nodes if node.op == "get_attr"}
        self._read = reads - {""}  # the model itself may read its own
        holders = Counter(
            id(parameter)
            for module in model.modules()
            for parameter in module._parameters.values()
            if parameter is not None
        )
        self._shared = {identity for identity, count in holders.items() if count > 1}

    def module(self, node: Any) -> nn.Module | None:
        """The module that a node calls, if it is alone; None otherwise, and for whatever is no node."""
        if not isinstance(node, fx.Node) or node.op != "call_module" or len(node.args) != 1 or node.kwargs:
            return None
        name = str(node.target)
        module = self.model.get_submodule(name)
        shared = any(id(parameter) in self._shared for parameter in module.parameters())
        return None if self._calls[name] != 1 or name in self._read or shared else module

    def nodes(self) -> dict[str, fx.Node]:
        """The calls of modules that are alone, by name, in the order in which they run."""
        return {str(node.target): node for node in self.graph.nodes if self.module(node) is not None}

    def reads_past(self, name: str) -> bool:
        """Whether something uses the parameters of a module without calling it."""
        return name in self._read

    def drop(self, node: fx.Node) -> None:
        """Take a node with one input out of the graph."""
        node.replace_all_uses_with(node.all_input_nodes[0])
        self.graph.erase_node(node)


def replace_module(model: nn.Module, old: nn.Module, new: nn.Module) -> nn.Module:
    """`model` with `new` in all places of `old`; `new` itself if `old` is the whole model."""
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is old:
                parent._modules[name] = new
    return new if model is old else model


def _obstacle(model: nn.Module) -> str:
    if any(module.training for module in model.modules()):
        return "it is in training mode"
    if any(_hooks(module) for module in model.modules()):
        return "it has hooks"
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    for name, parameter in inspect.signature(model.forward).parameters.items():
        if parameter.default is not parameter.empty or parameter.kind in kinds:
            return f"its forward has the optional argument {name!r}"
    return ""


def _hooks(module: nn.Module) -> bool:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, kind, None) for kind in kinds)
