"""The dense twin of a network with block-sparse layers: ordinary modules, the same names, the same results.

    activation(x W^T + bias)   ->   Linear                      activation "none"
                                    Sequential(Linear, ReLU)    activation "relu"

The zeros of W are stored again, so the twin is for those who know dense layers only: file formats, other runtimes, and
benchmarks that ask what the blocks have saved.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

from torch import nn

from sparseopt.nn.sparse.layers import BlockSparseConv1d, BlockSparseConv2d, BlockSparseLinear
from sparseopt.nn.sparse.wiring import replace_module

__all__ = ["densified", "replaced"]


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
    return replaced(model, lambda name, module: _dense(module))


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


def _dense(layer: nn.Module) -> nn.Module | None:
    if not isinstance(layer, (BlockSparseLinear, BlockSparseConv1d, BlockSparseConv2d)):
        return None
    plain = layer.to_dense()
    return nn.Sequential(plain, nn.ReLU()).train(layer.training) if layer.activation == "relu" else plain
