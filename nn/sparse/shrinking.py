"""Dense layers without the outputs and inputs that vanished.

Where whole rows or columns of a weight are zero, the others make a smaller dense weight V:

    y[kept outputs] = V x[kept inputs] + b[kept outputs],      y[other outputs] = b[other outputs].

Outputs keep their places and their bias, so the layer is one for one the dense layer that it replaces. It pays where
blocks were whole rows or columns, or few blocks remain and those side by side.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["ShrunkConv2d", "ShrunkLayer", "ShrunkLinear"]


class ShrunkLayer(nn.Module, ABC):
    """What the layers share: a small weight, the bias of all outputs, and which outputs and inputs the weight has."""

    outputs: Tensor
    inputs: Tensor
    _axis: int  # of the channels in inputs and outputs, counted from the last

    def __init__(
        self, weight: Tensor, outputs: Tensor, inputs: Tensor, size: tuple[int, int], bias: Tensor | None = None
    ) -> None:
        super().__init__()
        for name, index, total, length in zip(
            ("outputs", "inputs"), (outputs, inputs), size, weight.shape[:2], strict=True
        ):
            if index.dtype != torch.int64 or tuple(index.shape) != (length,):
                raise ValueError(f"{name} must be {length} int64 numbers, one for each of the weight's, got {index}.")
            if length and (int(index.min()) < 0 or int(index.max()) >= total or bool((index.diff() <= 0).any())):
                raise ValueError(f"{name} must increase and lie between 0 and {total - 1}, got {index.tolist()}.")
        if bias is not None and tuple(bias.shape) != size[:1]:
            raise ValueError(f"bias must be ({size[0]},), one number per output, got {tuple(bias.shape)}.")
        self.size = size
        self.weight = nn.Parameter(weight.detach())
        self.bias = None if bias is None else nn.Parameter(bias.detach())
        self.register_buffer("outputs", outputs)
        self.register_buffer("inputs", inputs)

    @property
    def density(self) -> float:
        """Share of the dense layer's entries that are stored."""
        dense = self.weight[:1, :1].numel() if self.weight.numel() else 1
        return self.weight.numel() / (self.size[0] * self.size[1] * dense)

    def forward(self, x: Tensor) -> Tensor:
        """What the dense layer computes."""
        if len(self.inputs) < self.size[1]:
            x = x.index_select(self._axis, self.inputs)
        if len(self.outputs) == self.size[0]:
            return self._product(x, self.bias)
        y = self._product(x, None if self.bias is None else self.bias[self.outputs])
        sides = [*y.shape]
        sides[self._axis] = self.size[0]
        rest = y.new_zeros(()) if self.bias is None else self.bias.to(y.dtype).view(-1, *[1] * (-1 - self._axis))
        return rest.expand(sides).index_copy(self._axis, self.outputs, y)

    def extra_repr(self) -> str:
        """Sizes, for `print`."""
        (all_out, all_in), (out, into) = self.size, self.weight.shape[:2]
        return f"{all_in}, {all_out}, inputs={into}, outputs={out}, bias={self.bias is not None}"

    @abstractmethod
    def _product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """The product with the small weight."""


class ShrunkLinear(ShrunkLayer):
    """A Linear layer without the outputs and inputs whose weights are all zero.

    Parameters
    ----------
    weight : Tensor, (kept outputs, kept inputs)
    outputs, inputs : Tensor of int64
        Which of all outputs and inputs those are, increasing.
    size : (outputs, inputs)
        Of the dense layer.
    bias : Tensor, (outputs,), optional
        Of all outputs.

    Examples
    --------
    >>> dense = nn.Linear(8, 6)
    >>> _ = dense.weight.data[2:].zero_()
    >>> layer = ShrunkLinear.from_dense(dense)
    >>> layer
    ShrunkLinear(8, 6, inputs=8, outputs=2, bias=True)
    >>> x = torch.randn(3, 8)
    >>> torch.allclose(layer(x), dense(x), atol=1e-6)
    True
    """

    _axis = -1

    @classmethod
    def from_dense(cls, linear: nn.Linear) -> ShrunkLinear:
        """The layer without outputs and inputs that vanished."""
        parts, size = _parts(linear.weight)
        return _like(cls(*parts, size, linear.bias), linear)

    def _product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        return functional.linear(x, self.weight, bias)


class ShrunkConv2d(ShrunkLayer):
    """A convolution in two dimensions, `groups` = 1, without the channels whose weights are all zero.

    Parameters
    ----------
    weight : Tensor, (kept outputs, kept inputs, height, width)
    outputs, inputs, size, bias
        As those of `ShrunkLinear`.
    stride, padding, dilation : int, tuple of int or str
        As those of `nn.Conv2d`; the padding is zeros.
    """

    _axis = -3

    def __init__(
        self,
        weight: Tensor,
        outputs: Tensor,
        inputs: Tensor,
        size: tuple[int, int],
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
    ) -> None:
        super().__init__(weight, outputs, inputs, size, bias)
        self.stride, self.padding, self.dilation = stride, padding, dilation

    @classmethod
    def from_dense(cls, conv: nn.Conv2d) -> ShrunkConv2d:
        """The layer without channels that vanished."""
        parts, size = _parts(conv.weight)
        return _like(cls(*parts, size, conv.bias, conv.stride, conv.padding, conv.dilation), conv)

    def _product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        return functional.conv2d(x, self.weight, bias, self.stride, self.padding, self.dilation)


def _parts(weight: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[int, int]]:
    """The small weight, its outputs and inputs, and the size of the large one; one of each stays in any case."""
    alive = weight.detach().flatten(2) != 0 if weight.ndim > 2 else (weight.detach() != 0).unsqueeze(2)
    outputs, inputs = (alive.any(2).any(axis).nonzero().squeeze(1) for axis in (1, 0))
    first = outputs.new_zeros(1)
    outputs, inputs = (index if len(index) else first for index in (outputs, inputs))
    small = weight.detach()[outputs][:, inputs].contiguous()
    return (small, outputs, inputs), (weight.shape[0], weight.shape[1])


def _like(layer: Any, dense: nn.Module) -> Any:
    return layer.train(dense.training)
