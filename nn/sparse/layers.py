"""Layers with block-sparse weights, in place of Linear, Conv1d and Conv2d.

    y = activation(x W^T + bias + added)        BlockSparseLinear
    y = activation(W * x + bias + added)        BlockSparseConv1d, BlockSparseConv2d

where `added` is an optional second argument, such as the other branch of a residual network.

W holds its kept blocks only, as the parameter `values`; which blocks those are is fixed when the layer is made and
stored in the buffers `crow` and `col`. So a layer can be trained further, and no optimizer can bring back a block.

Some sizes of blocks are copied into another order before they are multiplied, and copied again when torch counts a
change of `values`. Changes through `values.data` are not counted: they are noticed if they touch the whole weight, and
may not be if they touch single blocks. Write with `torch.no_grad()` instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sparseopt.nn.blocks import BlockGrid
from sparseopt.nn.sparse.format import BlockSparse
from sparseopt.nn.sparse.ops import apply_conv, apply_linear, is_relu

__all__ = ["BlockSparseConv1d", "BlockSparseConv2d", "BlockSparseLayer", "BlockSparseLinear"]


class BlockSparseLayer(nn.Module):
    """What the layers share: a weight of fixed blocks and a bias."""

    crow: Tensor
    col: Tensor
    bias: nn.Parameter | None

    def __init__(self, weight: BlockSparse, bias: Tensor | None = None, activation: str = "none") -> None:
        super().__init__()
        is_relu(activation)
        if bias is not None and tuple(bias.shape) != weight.shape[:1]:
            raise ValueError(f"bias must be ({weight.shape[0]},), one number per output, got {tuple(bias.shape)}.")
        self.shape = weight.shape
        self.activation = activation
        self.values = nn.Parameter(weight.values.detach().clone())
        self.register_buffer("crow", weight.crow)
        self.register_buffer("col", weight.col)
        self.register_parameter("bias", None if bias is None else nn.Parameter(bias.detach().clone()))

    @property
    def weight(self) -> BlockSparse:
        """The weight as it is now."""
        return BlockSparse(self.values.detach(), self.crow, self.col, self.shape)

    @property
    def block(self) -> tuple[int, int]:
        """(outputs, inputs) of a stored block."""
        return self.values.shape[2], self.values.shape[1]

    @property
    def density(self) -> float:
        """Share of the weight's blocks that are stored."""
        return len(self.col) / BlockGrid(self.shape, self.block).n_blocks

    def extra_repr(self) -> str:
        """Sizes, blocks and density, for `print`."""
        parts = [f"{self.shape[1]}, {self.shape[0]}", *self._geometry(), f"block={self.block}"]
        parts += [f"density={self.density:.3g}", f"bias={self.bias is not None}"]
        return ", ".join(parts + [f"activation={self.activation!r}"] * (self.activation != "none"))

    def _geometry(self) -> list[str]:
        return []

    def _weight_like(self, dense: Any) -> Any:
        """`dense` with this layer's weight and bias."""
        with torch.no_grad():
            dense.weight.copy_(self.weight.to_dense())
            if self.bias is not None:
                dense.bias.copy_(self.bias)
        return dense.train(self.training)


class BlockSparseLinear(BlockSparseLayer):
    """A Linear layer with a block-sparse weight.

    Parameters
    ----------
    weight : BlockSparse
        Of shape (out, in).
    bias : Tensor, (out,), optional
    activation : {"none", "relu"}
        Applied as the result is written.

    Examples
    --------
    >>> dense = nn.Linear(64, 32)
    >>> _ = dense.weight.data[:, 16:].zero_()
    >>> layer = BlockSparseLinear.from_dense(dense, 16)
    >>> layer
    BlockSparseLinear(64, 32, block=(16, 16), density=0.25, bias=True)
    >>> x = torch.randn(5, 64)
    >>> torch.allclose(layer(x), dense(x), atol=1e-5)
    True
    """

    def __init__(self, weight: BlockSparse, bias: Tensor | None = None, activation: str = "none") -> None:
        if len(weight.shape) != 2:
            raise ValueError(f"BlockSparseLinear takes a weight (out, in), got the shape {weight.shape}.")
        super().__init__(weight, bias, activation)
        self.out_features, self.in_features = weight.shape

    @classmethod
    def from_dense(
        cls,
        linear: nn.Linear,
        block: BlockGrid | tuple[int, int] | int,
        mask: Tensor | None = None,
        activation: str = "none",
    ) -> BlockSparseLinear:
        """The blocks of `linear` that are not entirely zero, or those that `mask` keeps."""
        return cls(BlockSparse.from_dense(linear.weight, block, mask), linear.bias, activation).train(linear.training)

    def to_dense(self) -> nn.Linear:
        """A Linear layer of the same weight and bias, without the activation."""
        like = {"device": self.values.device, "dtype": self.values.dtype}
        return self._weight_like(nn.Linear(self.in_features, self.out_features, self.bias is not None, **like))

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """activation(x W^T + bias + added), x of shape (..., in), `added` of the result's shape."""
        # `self.values` would cost a call each.
        parameters: dict[str, Any] = self._parameters
        buffers: dict[str, Any] = self._buffers
        values = parameters["values"] if "values" in parameters else self.values
        relu = self.activation == "relu"
        return apply_linear(x, values, buffers["crow"], buffers["col"], parameters["bias"], self.shape, relu, added)


class _BlockSparseConv(BlockSparseLayer):
    _dense: ClassVar[type[nn.Conv1d] | type[nn.Conv2d]]

    def __init__(
        self,
        weight: BlockSparse,
        bias: Tensor | None = None,
        stride: Sequence[int] | int = 1,
        padding: Sequence[int] | int = 0,
        dilation: Sequence[int] | int = 1,
        activation: str = "none",
    ) -> None:
        spatial = 1 if self._dense is nn.Conv1d else 2
        if len(weight.shape) != spatial + 2:
            raise ValueError(f"{type(self).__name__} takes a weight (out, in, {'k' * spatial}), got {weight.shape}.")
        super().__init__(weight, bias, activation)
        self.out_channels, self.in_channels, *_ = weight.shape
        self.kernel_size = weight.shape[2:]
        self.stride = _sides(stride, spatial, "stride", 1)
        self.padding = _sides(padding, spatial, "padding", 0)
        self.dilation = _sides(dilation, spatial, "dilation", 1)

    @classmethod
    def from_dense(
        cls,
        conv: Any,
        block: BlockGrid | tuple[int, int] | int,
        mask: Tensor | None = None,
        activation: str = "none",
    ) -> Any:
        """The blocks of `conv` that are not entirely zero, or those that `mask` keeps."""
        if conv.groups != 1 or conv.padding_mode != "zeros":
            raise ValueError(
                f"only convolutions with groups=1 and zero padding have a block-sparse form, this one has "
                f"groups={conv.groups} and padding_mode={conv.padding_mode!r}: leave it dense."
            )
        padding = conv.padding
        if isinstance(padding, str):
            reach = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
            if padding == "same" and any(r % 2 for r in reach):
                raise ValueError("padding='same' of an even kernel is not the same on both sides: pad explicitly.")
            padding = tuple(r // 2 if padding == "same" else 0 for r in reach)
        weight = BlockSparse.from_dense(conv.weight, block, mask)
        return cls(weight, conv.bias, conv.stride, padding, conv.dilation, activation).train(conv.training)

    def to_dense(self) -> Any:
        """A dense convolution of the same weight and bias, without the activation."""
        like = {"device": self.values.device, "dtype": self.values.dtype}
        sizes = (self.in_channels, self.out_channels, self.kernel_size, self.stride, self.padding, self.dilation)
        dense: Any = self._dense
        return self._weight_like(dense(*sizes, bias=self.bias is not None, **like))

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """activation(W * x + bias + added), x of shape (N, in, *spatial), `added` of the result's shape."""
        weight = (self.values, self.crow, self.col, self.bias)
        return apply_conv(
            x, *weight, self.shape, self.stride, self.padding, self.dilation, self.activation == "relu", added
        )

    def _geometry(self) -> list[str]:
        named = {"kernel_size": self.kernel_size, "stride": self.stride, "padding": self.padding}
        if set(self.dilation) != {1}:
            named["dilation"] = self.dilation
        return [f"{name}={value}" for name, value in named.items()]


class BlockSparseConv1d(_BlockSparseConv):
    """A convolution in one dimension with a block-sparse weight, `groups` = 1 and zero padding.

    Parameters
    ----------
    weight : BlockSparse
        Of shape (out, in, k).
    bias : Tensor, (out,), optional
    stride, padding, dilation : int or tuple of int
    activation : {"none", "relu"}
    """

    _dense = nn.Conv1d


class BlockSparseConv2d(_BlockSparseConv):
    """A convolution in two dimensions with a block-sparse weight, `groups` = 1 and zero padding.

    The result lies in channels-last memory, and inputs that do are read without a copy, so a network runs fastest when
    it is moved there as a whole: `model.to(memory_format=torch.channels_last)`.

    Parameters
    ----------
    weight : BlockSparse
        Of shape (out, in, k, k).
    bias : Tensor, (out,), optional
    stride, padding, dilation : int or tuple of int
    activation : {"none", "relu"}

    Examples
    --------
    >>> dense = nn.Conv2d(16, 32, 3, stride=2, padding=1)
    >>> _ = dense.weight.data[:16].zero_()
    >>> layer = BlockSparseConv2d.from_dense(dense, 16)
    >>> layer
    BlockSparseConv2d(16, 32, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), block=(16, 16), density=0.5, bias=True)
    >>> x = torch.randn(2, 16, 9, 9)
    >>> torch.allclose(layer(x), dense(x), atol=1e-5)
    True
    """

    _dense = nn.Conv2d


def _sides(numbers: Sequence[int] | int, spatial: int, name: str, least: int) -> tuple[int, ...]:
    sides = (numbers,) * spatial if isinstance(numbers, int) else tuple(int(n) for n in numbers)
    if len(sides) != spatial or min(sides) < least:
        raise ValueError(f"{name} must be {spatial} whole number(s) of at least {least}, got {numbers!r}.")
    return sides
