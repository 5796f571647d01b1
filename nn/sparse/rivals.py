"""Dense networks as fast as torch makes them on this CPU: what a block-sparse network has to beat.

    torch       the layers as they are; which library multiplies is torch's choice (MKL on x86), and it brings the
                weight into its own order at every call
    oneDNN      linear layers by oneDNN
    packed      linear layers and convolutions by oneDNN, with weights brought into its order once, as `torch.compile`
                does when it freezes a network
    MKL packed  linear layers by MKL, the same

Networks with convolutions get each of it in both memory orders, channels last and channels first. All of them give the
same results; which is fastest differs between machines and batch sizes, so all are timed and the fastest is the rival.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from sparseopt.nn.sparse.densify import replaced

__all__ = ["Contestant", "channels_last", "contestant", "rivals"]

_OPS: Any = torch.ops


@dataclass(frozen=True)
class Contestant:
    """A network, and an example as a tuple or dict of arguments."""

    model: nn.Module
    example: Any

    def __call__(self) -> Any:
        """The outputs for the example, without what autograd would need."""
        with torch.inference_mode():
            return self.model(**self.example) if isinstance(self.example, dict) else self.model(*self.example)


def contestant(model: nn.Module, example: Any) -> Contestant:
    """The network as it is, on a tensor, or tuple or dict of arguments."""
    if isinstance(example, dict):
        return Contestant(model, example)
    return Contestant(model, tuple(example) if isinstance(example, (tuple, list)) else (example,))


def channels_last(entry: Contestant) -> Contestant:
    """The same with images and the weights of convolutions in channels-last memory; the network itself is moved."""
    network: Any = entry.model
    return Contestant(network.to(memory_format=torch.channels_last), pytree.tree_map(_moved, entry.example))


def rivals(model: nn.Module, example: Any) -> dict[str, Contestant]:
    """The dense network in all the ways that torch can run it here.

    Parameters
    ----------
    model : nn.Module
        Not changed; in float32 on the CPU, or there is one way only.
    example : Tensor, or tuple or dict of arguments
        Packed weights suit its batch size.

    Returns
    -------
    dict from str to Contestant

    Examples
    --------
    >>> found = rivals(nn.Sequential(nn.Linear(8, 4)), torch.ones(2, 8))
    >>> "torch" in found, all(torch.allclose(each(), found["torch"]()) for each in found.values())
    (True, True)
    """
    plain = contestant(model, example)
    convs = any(isinstance(module, nn.Conv2d) for module in model.modules())
    ways = _ways(model, convs)
    sizes = _input_sizes(plain) if len(ways) > 1 else {}
    found = {}
    for name, change in ways.items():
        for order in ("channels first", "channels last") if convs else ("",):
            entry = Contestant(replaced(model, partial(_changed, change, sizes)), plain.example)
            found[f"{name}, {order}" if order else name] = channels_last(entry) if order.endswith("last") else entry
    return found


_Change = Callable[[nn.Module, Any], "nn.Module | None"]


def _changed(change: _Change, sizes: Mapping[str, torch.Size], name: str, module: nn.Module) -> nn.Module | None:
    return change(module, sizes.get(name))


def _ways(model: nn.Module, convs: bool) -> dict[str, _Change]:
    ways: dict[str, _Change] = {"torch": lambda module, size: None}
    tensors = [*model.parameters(), *model.buffers()]
    usual = all(t.device.type == "cpu" and t.dtype in (torch.float32, torch.int64) for t in tensors)
    if not usual or not torch.backends.mkldnn.is_available():
        return ways
    if convs:
        return ways | {"packed": _packed}
    ways |= {"oneDNN": _one_dnn, "packed": _packed}
    return ways | ({"MKL packed": _mkl_packed} if torch.backends.mkl.is_available() else {})


def _one_dnn(module: nn.Module, size: Any) -> nn.Module | None:
    return _OneDNNLinear(module, module.weight) if type(module) is nn.Linear else None


def _packed(module: nn.Module, size: Any) -> nn.Module | None:
    if size is None or size.numel() == 0:
        return None
    if type(module) is nn.Linear:
        weight = _OPS.mkldnn._reorder_linear_weight(module.weight.detach(), size.numel() // size[-1])
        return _OneDNNLinear(module, weight)
    if type(module) is nn.Conv2d and module.padding_mode == "zeros" and not isinstance(module.padding, str):
        return _PackedConv2d(module, size)
    return None


def _mkl_packed(module: nn.Module, size: Any) -> nn.Module | None:
    return _MKLLinear(module, size) if type(module) is nn.Linear and size is not None and size.numel() else None


class _OneDNNLinear(nn.Module):
    def __init__(self, linear: nn.Linear, weight: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = weight.detach(), None if linear.bias is None else linear.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        return _OPS.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")


class _MKLLinear(nn.Module):
    def __init__(self, linear: nn.Linear, size: Any) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight.detach(), None if linear.bias is None else linear.bias.detach()
        self.rows = size.numel() // size[-1]
        self.packed = _OPS.mkl._mkl_reorder_linear_weight(self.weight, self.rows)

    def forward(self, x: Tensor) -> Tensor:
        return _OPS.mkl._mkl_linear(x, self.packed, self.weight, self.bias, self.rows)


class _PackedConv2d(nn.Module):
    def __init__(self, conv: nn.Conv2d, size: Any) -> None:
        super().__init__()
        self.geometry = [list(numbers) for numbers in (conv.padding, conv.stride, conv.dilation)]
        self.groups = conv.groups
        self.bias = None if conv.bias is None else conv.bias.detach()
        weight = conv.weight.detach()
        self.weight = _OPS.mkldnn._reorder_convolution_weight(weight, *self.geometry, self.groups, list(size))

    def forward(self, x: Tensor) -> Tensor:
        return _OPS.mkldnn._convolution_pointwise(
            x, self.weight, self.bias, *self.geometry, self.groups, "none", [], ""
        )


def _moved(each: Any) -> Any:
    is_image = isinstance(each, Tensor) and each.ndim == 4
    return each.contiguous(memory_format=torch.channels_last) if is_image else each


def _input_sizes(plain: Contestant) -> dict[str, torch.Size]:
    """The size of the input of every linear layer and convolution, by name."""
    sizes: dict[str, torch.Size] = {}
    hooks = []
    for name, module in plain.model.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            note = lambda _, inputs, name=name: sizes.__setitem__(name, inputs[0].shape)  # noqa: E731
            hooks.append(module.register_forward_pre_hook(note))
    try:
        plain()
    finally:
        for hook in hooks:
            hook.remove()
    return sizes
