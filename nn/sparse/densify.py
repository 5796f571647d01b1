"""The dense twin of a network with block-sparse layers: ordinary modules, the same names, the same results.

    activation(x W^T + bias)            ->   Linear                      activation "none"
                                             Sequential(Linear, ReLU)    activation "relu"
    activation(x W^T + bias + added)    ->   Summed(Linear, activation)

The zeros of W are stored again, so the twin is for those who know dense layers only: file formats, other runtimes, and
benchmarks that ask what the blocks have saved.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

from torch import Tensor, fx, nn

from sparseopt.nn.sparse.layers import BlockSparseConv1d, BlockSparseConv2d, BlockSparseLinear
from sparseopt.nn.sparse.wiring import replace_module

__all__ = ["Summed", "densified", "replaced"]


def densified(model: nn.Module) -> nn.Module:
    """A copy of `model` with dense layers in place of block-sparse ones.

    Parameters
    ----------
    model : nn.Module
        Not changed. Layers that it uses twice are shared in the copy as well.

    Returns
    -------
    nn.Module
        Its weights have the dtype of the blocks.

    Examples
    --------
    >>> linear = nn.Linear(8, 8)
    >>> densified(nn.Sequential(BlockSparseLinear.from_dense(linear, 4), nn.ReLU()))
    Sequential(
      (0): Linear(in_features=8, out_features=8, bias=True)
      (1): ReLU()
    )
    """
    summed = {
        f"{prefix}.{node.target}".lstrip(".")
        for prefix, graph in model.named_modules()
        if isinstance(graph, fx.GraphModule)
        for node in graph.graph.nodes
        if node.op == "call_module" and len(node.args) == 2
    }
    return replaced(model, lambda name, module: _dense(module, name in summed))


class Summed(nn.Module):
    """activation(layer(x) + added), for a dense layer."""

    def __init__(self, layer: nn.Module, activation: str) -> None:
        super().__init__()
        self.layer = layer
        self.activation = nn.ReLU() if activation == "relu" else nn.Identity()

    def forward(self, x: Tensor, added: Tensor) -> Tensor:
        """The result for one input and the other branch."""
        return self.activation(self.layer(x) + added)


def replaced(model: nn.Module, change: Callable[[str, nn.Module], nn.Module | None]) -> nn.Module:
    """A copy of `model` with other modules at some places.

    Parameters
    ----------
    model : nn.Module
        Not changed.
    change : callable
        From the name and the module of the copy to the one in its place; None keeps it. Asked once for a module with
        several names, and not asked about what lies inside of a replaced one.

    Examples
    --------
    >>> swap = lambda name, module: nn.GELU() if isinstance(module, nn.ReLU) else None
    >>> replaced(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), swap)[1]
    GELU(approximate='none')
    """
    model = deepcopy(model)
    others: dict[str, tuple[nn.Module, nn.Module]] = {}
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in others)
        other = None if inside else change(name, module)
        if other is not None:
            others[name] = module, other
    for old, new in others.values():
        model = replace_module(model, old, new)
    return model


def _dense(layer: nn.Module, summed: bool) -> nn.Module | None:
    if not isinstance(layer, (BlockSparseLinear, BlockSparseConv1d, BlockSparseConv2d)):
        return None
    plain = layer.to_dense()
    if summed:
        return Summed(plain, layer.activation).train(layer.training)
    return nn.Sequential(plain, nn.ReLU()).train(layer.training) if layer.activation == "relu" else plain
