"""Linear maps and convolutions with block-sparse weights, as differentiable torch operators.

One operator serves both: a Linear layer is a 1 x 1 convolution of images of one pixel. With Y = product(X, V),

    grad V = product_grad(X, grad Y),     the products of the inputs and output gradients that a block connects;
    grad X = product(grad Y, V'),         V' the same blocks transposed, at the mirrored kernel position.

Both are linear in either argument, so second derivatives are made of the same two operators.
`torch.ops.sparseopt.block_product` and `block_product_grad` take plain tensors and numbers, which `torch.compile`,
`torch.export` and `deepcopy` understand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional

from sparseopt.nn.sparse import kernels, reference, triton_kernels
from sparseopt.nn.sparse.format import BlockSparse, rows_of

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
    _require_numbers(x, bias, shape[0])
    if added is not None and not _lies_like(added, x, (*x.shape[:-1], shape[0])):
        return _sum(apply_linear(x, values, crow, col, bias, shape, False), added, relu)
    if _is_plain(x, values, bias, added) and x.is_contiguous():
        return kernels.product_rows(x, values, crow, col, bias, shape[0], relu, added)
    one = (1, 1)
    flat = x.reshape(-1, 1, 1, shape[1])
    more = None if added is None else added.reshape(-1, 1, 1, shape[0])
    y = _multiplier()(flat, values, crow, col, bias, shape[0], one, one, (0, 0), one, relu, more)
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
    _require_numbers(x, bias, shape[0])
    if spatial == 1:
        x = x.unsqueeze(2)
    kernel, stride, dilation = (_pair(s, 1) for s in (shape[2:], stride, dilation))
    padding = _pair(padding, 0)
    _require(kernel, stride, padding, dilation)
    pixels = _spatial_out(x.shape[2:], kernel, stride, padding, dilation)
    if added is not None:
        if not _lies_like(added, x, (x.shape[0], shape[0], *pixels[2 - spatial :])):
            x = x.squeeze(2) if spatial == 1 else x
            y = apply_conv(
                x,
                values,
                crow,
                col,
                bias,
                shape,
                stride[2 - spatial :],
                padding[2 - spatial :],
                dilation[2 - spatial :],
                False,
            )
            return _sum(y, added, relu)
        added = (added.unsqueeze(2) if spatial == 1 else added).permute(0, 2, 3, 1)
    multiply = kernels.product if _is_plain(x, values, bias, added) else _multiplier()
    inside = x.permute(0, 2, 3, 1)
    y = multiply(inside, values, crow, col, bias, shape[0], kernel, stride, padding, dilation, relu, added)
    y = _as_autocast(y.permute(0, 3, 1, 2))
    return y.squeeze(2) if spatial == 1 else y


def _multiply(
    x: Tensor,
    values: Tensor,
    crow: Tensor,
    col: Tensor,
    bias: Tensor | None,
    out: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    relu: bool,
    added: Tensor | None = None,
) -> Tensor:
    """x, (N, H, W, C), to y, (N, H', W', out), by the fastest means there is for these tensors."""
    _require(kernel, stride, padding, dilation)
    if bias is not None and tuple(bias.shape) != (out,):
        raise ValueError(f"bias must be ({out},), one number per output, got {tuple(bias.shape)}.")
    geometry = (kernel, stride, padding, dilation)
    if added is not None:
        shape = (x.shape[0], *_spatial_out(x.shape[1:3], *geometry), out)
        if tuple(added.shape) != shape:
            raise ValueError(f"what is added must have the shape of the result, {shape}, got {tuple(added.shape)}.")
    if triton_kernels.is_available(x, values):
        y = triton_kernels.product(x, values, crow, col, bias, out, *geometry, relu and added is None)
        return y if added is None else _sum(y, added.to(y.dtype), relu)
    module = kernels if kernels.can_multiply(x, values) else reference
    return module.product(x, values, crow, col, bias, out, *geometry, relu, added)


def _multiply_grad(
    x: Tensor,
    grad: Tensor,
    crow: Tensor,
    col: Tensor,
    block: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """The gradient with respect to the blocks, (blocks, b_in, b_out), in float32 or float64."""
    _require(kernel, stride, padding, dilation)
    expected = [x.shape[0], *_spatial_out(x.shape[1:3], kernel, stride, padding, dilation)]
    if list(grad.shape[:3]) != expected:
        raise ValueError(f"the output of these inputs is {expected} pixels, its gradient has {list(grad.shape[:3])}.")
    if triton_kernels.is_available(x, grad):
        return triton_kernels.product_grad(x, grad, crow, col, block, kernel, stride, padding, dilation)
    module = kernels if kernels.can_multiply(x, grad) else reference
    return module.product_grad(x, grad, crow, col, block, kernel, stride, padding, dilation)


def _multiply_fake(x, values, crow, col, bias, out, kernel, stride, padding, dilation, relu, added=None):
    return x.new_empty(x.shape[0], *_spatial_out(x.shape[1:3], kernel, stride, padding, dilation), out)


def _multiply_grad_fake(x, grad, crow, col, block, kernel, stride, padding, dilation):
    wide = torch.promote_types(torch.promote_types(x.dtype, grad.dtype), torch.float32)
    return x.new_empty(col.shape[0], block[1], block[0], dtype=wide)


# `torch.library.custom_op` would import torch's compiler, a second of work, at the first call.
_GEOMETRY = "SymInt[] kernel, SymInt[] stride, SymInt[] padding, SymInt[] dilation"
torch.library.define(
    "sparseopt::block_product",
    f"(Tensor x, Tensor values, Tensor crow, Tensor col, Tensor? bias, SymInt out, {_GEOMETRY}, bool relu, "
    "Tensor? added=None) -> Tensor",
)
torch.library.define(
    "sparseopt::block_product_grad",
    f"(Tensor x, Tensor grad, Tensor crow, Tensor col, SymInt[] block, {_GEOMETRY}) -> Tensor",
)
torch.library.impl("sparseopt::block_product", "default", _multiply)
torch.library.impl("sparseopt::block_product_grad", "default", _multiply_grad)
torch.library.register_fake("sparseopt::block_product", _multiply_fake)
torch.library.register_fake("sparseopt::block_product_grad", _multiply_grad_fake)
block_product = torch.ops.sparseopt.block_product.default
block_product_grad = torch.ops.sparseopt.block_product_grad.default


def _save_product(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, values, crow, col, bias, _out, *geometry, relu, _added = inputs
    ctx.save_for_backward(x, values, crow, col, output if relu else None)
    ctx.geometry, ctx.has_bias = geometry, bias is not None


def _product_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    x, values, crow, col, y = ctx.saved_tensors
    if y is not None:
        grad = torch.ops.aten.threshold_backward(grad, y, 0)
    needs_x, needs_values, _, _, needs_bias, *_, needs_added = ctx.needs_input_grad
    grad_x = _grad_input(grad, values, crow, col, x.shape, *ctx.geometry) if needs_x else None
    grad_values = None
    if needs_values:
        block = (values.shape[2], values.shape[1])
        grad_values = block_product_grad(x, grad, crow, col, block, *ctx.geometry).to(values.dtype)
    grad_bias = grad.sum((0, 1, 2)) if needs_bias else None
    grad_added = grad if needs_added else None
    return grad_x, grad_values, None, None, grad_bias, None, None, None, None, None, None, grad_added


def _save_grad(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, grad, crow, col, _block, *geometry = inputs
    ctx.save_for_backward(x, grad, crow, col)
    ctx.geometry = geometry


def _grad_backward(ctx: Any, second: Tensor) -> tuple[Any, ...]:
    x, grad, crow, col = ctx.saved_tensors
    needs_x, needs_grad, *_ = ctx.needs_input_grad
    second = second.contiguous()
    grad_x = _grad_input(grad, second, crow, col, x.shape, *ctx.geometry) if needs_x else None
    grad_grad = (
        block_product(x, second, crow, col, None, grad.shape[3], *ctx.geometry, False).to(grad.dtype)
        if needs_grad
        else None
    )
    return grad_x, grad_grad, None, None, None, None, None, None, None


torch.library.register_autograd("sparseopt::block_product", _product_backward, setup_context=_save_product)
torch.library.register_autograd("sparseopt::block_product_grad", _grad_backward, setup_context=_save_grad)


def _require(kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]) -> None:
    """Kernels trust these numbers with addresses."""
    if not (len(kernel) == len(stride) == len(padding) == len(dilation) == 2):
        raise ValueError("kernel, stride, padding and dilation must have two numbers each, for lines and pixels.")
    if min(*kernel, *stride, *dilation) < 1 or min(padding) < 0:
        raise ValueError(
            f"kernel={list(kernel)}, stride={list(stride)} and dilation={list(dilation)} must be positive, "
            f"padding={list(padding)} not negative."
        )


def _grad_input(
    grad: Tensor,
    values: Tensor,
    crow: Tensor,
    col: Tensor,
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """grad X: the product of grad Y, its pixels `stride` apart, with the transposed and mirrored blocks."""
    values, crow, col = _transposed(values, crow, col, size[3], kernel)
    one = (1, 1)
    if tuple(kernel) == one:  # the product first: it has fewer pixels than the input
        grad = block_product(grad, values, crow, col, None, size[3], one, one, (0, 0), one, False)
        return _placed(grad, stride, (-padding[0], -padding[1]), size[1:3])
    reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    starts = [r - p for r, p in zip(reach, padding, strict=True)]
    grad = _placed(grad, stride, starts, [n + r for n, r in zip(size[1:3], reach, strict=True)])
    return block_product(grad, values, crow, col, None, size[3], kernel, one, (0, 0), dilation, False)


def _transposed(
    values: Tensor, crow: Tensor, col: Tensor, channels: int, kernel: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    rows, runs, positions = crow.shape[0] - 1, -(-channels // values.shape[1]), kernel[0] * kernel[1]
    row = rows_of(crow, col)
    position, run = col.long() // runs, col.long() % runs
    turned = (positions - 1 - position) * rows + row
    order = torch.argsort(run * (positions * rows) + turned)
    count = crow.new_zeros(runs + 1).index_add(0, run + 1, torch.ones_like(col))
    return (
        values[order].transpose(1, 2).contiguous(),
        count.cumsum(0, dtype=torch.int32),
        turned[order].to(torch.int32),
    )


def _placed(image: Tensor, stride: Sequence[int], starts: Sequence[int], size: Sequence[int]) -> Tensor:
    """Zeros of `size` with the pixels of `image` at start, start + stride, ...; those outside are left out."""
    if tuple(size) == tuple(image.shape[1:3]) and tuple(starts) == (0, 0):
        return image
    for axis in (0, 1):
        step, start, n = stride[axis], starts[axis], image.shape[1 + axis]
        first = max(0, -(start // step)) if start < 0 else 0
        last = min(n, -(-(size[axis] - start) // step))
        image = image.narrow(1 + axis, first, max(last - first, 0))
        lone = image.unsqueeze(2 + axis)
        spread = [0, 0] * (image.ndim - 2 - axis) + [0, step - 1]
        image = functional.pad(lone, spread).flatten(1 + axis, 2 + axis)
        begin = start + first * step
        after = size[axis] - begin - image.shape[1 + axis]
        image = functional.pad(image, [0, 0] * (image.ndim - 2 - axis) + [begin, after])
    return image


def _spatial_out(
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> list[int]:
    out = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True)
    ]
    torch._check(
        out[0] > 0 and out[1] > 0,
        lambda: "an image with its padding must be at least as large as the kernel with its dilation.",
    )
    return out


def _pair(numbers: Sequence[int], fill: int) -> tuple[int, int]:
    return (fill, int(numbers[0])) if len(numbers) == 1 else (int(numbers[0]), int(numbers[1]))


def _require_numbers(x: Tensor, bias: Tensor | None, out: int) -> None:
    if not x.is_floating_point():
        raise TypeError(f"x must be floating point, got {x.dtype}.")
    if bias is not None and (bias.ndim != 1 or bias.shape[0] != out):
        raise ValueError(f"bias must be ({out},), one number per output, got {tuple(bias.shape)}.")


def _lies_like(added: Tensor, x: Tensor, shape: Sequence[int]) -> bool:
    """Whether the kernel can add it; torch adds what must be repeated or has another dtype."""
    return tuple(added.shape) == tuple(shape) and added.dtype == x.dtype


def _sum(y: Tensor, added: Tensor, relu: bool) -> Tensor:
    y = y + added
    return y.relu() if relu else y


def _is_plain(x: Tensor, values: Tensor, bias: Tensor | None, added: Tensor | None) -> bool:
    """Whether the kernel can be called at once: nothing differentiates, records or transforms the call.

    The way through torch's dispatcher takes much longer in Python than a small product.
    """
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


def _multiplier() -> Any:
    """The operator, or what torch can take apart: under forward differentiation and `torch.func`."""
    if not torch.compiler.is_compiling() and (forward_ad._current_level >= 0 or _transforms()):
        return reference.product
    return block_product


def _as_autocast(y: Tensor) -> Tensor:
    """Under autocast, results have its dtype, as those of dense layers; the product itself stays in float32."""
    device = y.device.type
    known = torch.amp.is_autocast_available(device)
    if y.dtype is torch.float64 or not known or not torch.is_autocast_enabled(device):
        return y
    return y.to(torch.get_autocast_dtype(device))
