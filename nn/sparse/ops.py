"""Linear maps and convolutions with block-sparse weights, as functions of tensors.

    linear(x, W)  =  activation(x W^T + bias + added)           conv(x, W)  =  activation(W * x + bias + added)

Both go through the operator of `products`, except where nothing differentiates, records or transforms the call: then
the kernel is called at once, because the way through torch's dispatcher takes longer in Python than a small product.
Under forward differentiation and `torch.func`, which the operator does not know, plain torch does the work.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad

from sparseopt.nn.sparse import kernels, reference
from sparseopt.nn.sparse.format import BlockSparse
from sparseopt.nn.sparse.geometry import LINEAR, Geometry
from sparseopt.nn.sparse.products import block_product

__all__ = ["conv", "linear"]

_ACTIVATIONS = ("none", "relu")


def linear(
    x: Tensor,
    weight: BlockSparse,
    bias: Tensor | None = None,
    activation: str = "none",
    added: Tensor | None = None,
) -> Tensor:
    """activation(x W^T + bias + added) for a block-sparse W.

    Parameters
    ----------
    x : Tensor, (..., in)
        Any floating dtype; the product is computed in float32 (float64 for weights in float64) and returned in x's.
    weight : BlockSparse
        W, of shape (out, in).
    bias : Tensor, (out,), optional
    activation : {"none", "relu"}
        Applied before the result is written.
    added : Tensor, (..., out), optional
        What is added to the product, such as the other branch of a residual network; by the rules of `torch.add`.

    Returns
    -------
    Tensor, (..., out)

    Examples
    --------
    >>> w = torch.eye(4)
    >>> linear(torch.arange(4.0), BlockSparse.from_dense(w, 2), bias=torch.full((4,), -1.0), activation="relu")
    tensor([0., 0., 1., 2.])
    """
    if len(weight.shape) != 2:
        raise ValueError(f"linear takes the weight of a Linear layer, (out, in), got the shape {weight.shape}.")
    relu = is_relu(activation)
    return apply_linear(x, weight.values, weight.crow, weight.col, bias, weight.shape, relu, added)


def conv(
    x: Tensor,
    weight: BlockSparse,
    bias: Tensor | None = None,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    activation: str = "none",
    added: Tensor | None = None,
) -> Tensor:
    """activation(W * x + bias + added), a convolution in one or two dimensions with a block-sparse W and zero padding.

    Parameters
    ----------
    x : Tensor, (N, in, length) or (N, in, height, width)
        Channels-last memory is read where it lies; other inputs are copied first.
    weight : BlockSparse
        W, of shape (out, in, *kernel).
    bias : Tensor, (out,), optional
    stride, padding, dilation : tuple of int
        One number per spatial dimension.
    activation : {"none", "relu"}
    added : Tensor, (N, out, *spatial), optional

    Returns
    -------
    Tensor, (N, out, *spatial), in channels-last memory
    """
    relu = is_relu(activation)
    weights = (weight.values, weight.crow, weight.col, bias, weight.shape)
    return apply_conv(x, *weights, stride, padding, dilation, relu, added)


def is_relu(activation: str) -> bool:
    """Whether `activation` is "relu"; refuses what is neither that nor "none"."""
    if activation not in _ACTIVATIONS:
        raise ValueError(f"activation must be one of {_ACTIVATIONS}, got {activation!r}.")
    return activation == "relu"


def apply_linear(
    x: Tensor,
    values: Tensor,
    crow: Tensor,
    col: Tensor,
    bias: Tensor | None,
    shape: Sequence[int],
    relu: bool,
    added: Tensor | None = None,
) -> Tensor:
    """`linear` on the plain tensors of a weight."""
    if x.ndim < 1 or x.shape[-1] != shape[1]:
        raise ValueError(f"the last dimension of x must be the layer's {shape[1]} inputs, x is {tuple(x.shape)}.")
    if not x.is_floating_point() or (bias is not None and bias.shape != (shape[0],)):
        _refuse_numbers(x, bias, shape[0])
    if added is not None and not _lies_like(added, x, (*x.shape[:-1], shape[0])):
        return _sum(apply_linear(x, values, crow, col, bias, shape, False), added, relu)
    if _is_plain(x, values, bias, added) and x.is_contiguous():
        return kernels.product_rows(x, values, crow, col, bias, shape[0], relu, added)
    flat = x.reshape(-1, 1, 1, shape[1])
    more = None if added is None else added.reshape(-1, 1, 1, shape[0])
    y = _multiplied(flat, values, crow, col, bias, shape[0], LINEAR, relu, more)
    return _as_autocast(y.reshape(*x.shape[:-1], shape[0]))


def apply_conv(
    x: Tensor,
    values: Tensor,
    crow: Tensor,
    col: Tensor,
    bias: Tensor | None,
    shape: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    relu: bool,
    added: Tensor | None = None,
) -> Tensor:
    """`conv` on the plain tensors of a weight."""
    spatial = len(shape) - 2
    if spatial not in (1, 2):
        raise ValueError(f"conv takes the weight of a Conv1d or Conv2d layer, got the shape {tuple(shape)}.")
    if x.ndim != spatial + 2 or x.shape[1] != shape[1]:
        expected = "(N, {}, length)" if spatial == 1 else "(N, {}, height, width)"
        raise ValueError(f"x must be {expected.format(shape[1])}, got {tuple(x.shape)}.")
    if not x.is_floating_point() or (bias is not None and bias.shape != (shape[0],)):
        _refuse_numbers(x, bias, shape[0])
    geometry = Geometry(_pair(shape[2:], 1), _pair(stride, 1), _pair(padding, 0), _pair(dilation, 1))
    geometry.require()
    image = x.unsqueeze(2) if spatial == 1 else x
    sizes = geometry.sizes(image.shape[2:])
    if added is not None:
        if not _lies_like(added, x, (x.shape[0], shape[0], *sizes[2 - spatial :])):
            y = apply_conv(x, values, crow, col, bias, shape, stride, padding, dilation, False)
            return _sum(y, added, relu)
        added = (added.unsqueeze(2) if spatial == 1 else added).permute(0, 2, 3, 1)
    y = _multiplied(image.permute(0, 2, 3, 1), values, crow, col, bias, shape[0], geometry, relu, added)
    y = _as_autocast(y.permute(0, 3, 1, 2))
    return y.squeeze(2) if spatial == 1 else y


def _pair(numbers: Sequence[int], fill: int) -> tuple[int, int]:
    return (fill, int(numbers[0])) if len(numbers) == 1 else (int(numbers[0]), int(numbers[1]))


def _refuse_numbers(x: Tensor, bias: Tensor | None, out: int) -> None:
    if not x.is_floating_point():
        raise TypeError(f"x must be floating point, got {x.dtype}.")
    raise ValueError(
        f"bias must be ({out},), one number per output, got {None if bias is None else tuple(bias.shape)}."
    )


def _lies_like(added: Tensor, x: Tensor, shape: Sequence[int]) -> bool:
    """Whether the kernel can add it; torch adds what must be repeated or has another dtype."""
    return tuple(added.shape) == tuple(shape) and added.dtype == x.dtype


def _sum(y: Tensor, added: Tensor, relu: bool) -> Tensor:
    y = y + added
    return y.relu() if relu else y


def _is_plain(x: Tensor, values: Tensor, bias: Tensor | None, added: Tensor | None) -> bool:
    """Whether the kernel can be called at once: nothing differentiates, records or transforms the call."""
    if torch.compiler.is_compiling() or type(x) is not Tensor or not kernels.can_multiply(x, values):
        return False
    if torch.is_grad_enabled() and any(each is not None and each.requires_grad for each in (x, values, bias, added)):
        return False
    return not (
        _dispatch_modes()
        or _function_modes()
        or _is_tracing()
        or _transforms()
        or forward_ad._current_level >= 0
        or torch.is_autocast_enabled("cpu")
        or x.is_neg()
        or x._is_zerotensor()
        or (added is not None and (type(added) is not Tensor or added.is_neg() or added._is_zerotensor()))
    )


_dispatch_modes, _function_modes = torch._C._len_torch_dispatch_stack, torch._C._len_torch_function_stack
_is_tracing, _transforms = torch._C._get_tracing_state, torch._C._functorch.peek_interpreter_stack


def _multiplied(
    x: Tensor,
    values: Tensor,
    crow: Tensor,
    col: Tensor,
    bias: Tensor | None,
    out: int,
    geometry: Geometry,
    relu: bool,
    added: Tensor | None,
) -> Tensor:
    weight = values, crow, col, bias, out
    if _is_plain(x, values, bias, added):
        return kernels.product(x, *weight, geometry, relu, added)
    if not torch.compiler.is_compiling() and (forward_ad._current_level >= 0 or _transforms()):
        return reference.product(x, *weight, geometry, relu, added)  # torch can take it apart
    return block_product(x, *weight, *geometry, relu, added)


def _as_autocast(y: Tensor) -> Tensor:
    """Under autocast, results have its dtype, as those of dense layers; the product itself stays in float32."""
    device = y.device.type
    known = torch.amp.is_autocast_available(device)
    if y.dtype is torch.float64 or not known or not torch.is_autocast_enabled(device):
        return y
    return y.to(torch.get_autocast_dtype(device))
