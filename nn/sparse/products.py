"""The product with a block-sparse weight as a torch operator, for images of pixels of channels.

One operator serves linear layers and convolutions: a Linear layer is a 1 x 1 convolution of images of one pixel. With
Y = block_product(X, V),

    grad V = block_product_grad(X, grad Y)      the products of the inputs and output gradients that a block connects
    grad X = block_product(grad Y, V')          V' the same blocks transposed, at the mirrored kernel position

Both are linear in either argument, so second derivatives are made of the same two operators. They take plain tensors
and numbers, which torch's compiler and exporter understand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sparseopt.nn.sparse import kernels, reference, triton_kernels
from sparseopt.nn.sparse.format import rows_of
from sparseopt.nn.sparse.geometry import LINEAR, Geometry

__all__ = ["block_product", "block_product_grad"]


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
    geometry = _geometry(kernel, stride, padding, dilation)
    if bias is not None and tuple(bias.shape) != (out,):
        raise ValueError(f"bias must be ({out},), one number per output, got {tuple(bias.shape)}.")
    shape = (x.shape[0], *geometry.sizes(x.shape[1:3]), out)
    if added is not None and tuple(added.shape) != shape:
        raise ValueError(f"what is added must have the shape of the result, {shape}, got {tuple(added.shape)}.")
    if triton_kernels.is_available(x, values):
        y = triton_kernels.product(x, values, crow, col, bias, out, geometry, relu and added is None)
        if added is None:
            return y
        y += added
        return y.relu_() if relu else y
    module = kernels if kernels.can_multiply(x, values) else reference
    return module.product(x, values, crow, col, bias, out, geometry, relu, added)


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
    geometry = _geometry(kernel, stride, padding, dilation)
    expected = [x.shape[0], *geometry.sizes(x.shape[1:3])]
    if list(grad.shape[:3]) != expected:
        raise ValueError(f"the output of these inputs is {expected} pixels, its gradient has {list(grad.shape[:3])}.")
    if triton_kernels.is_available(x, grad):
        return triton_kernels.product_grad(x, grad, crow, col, block, geometry)
    module = kernels if kernels.can_multiply(x, grad) else reference
    return module.product_grad(x, grad, crow, col, block, geometry)


def _multiply_fake(x, values, crow, col, bias, out, kernel, stride, padding, dilation, relu, added=None):
    return x.new_empty(x.shape[0], *Geometry(kernel, stride, padding, dilation).sizes(x.shape[1:3]), out)


def _multiply_grad_fake(x, grad, crow, col, block, kernel, stride, padding, dilation):
    wide = torch.promote_types(torch.promote_types(x.dtype, grad.dtype), torch.float32)
    return x.new_empty(col.shape[0], block[1], block[0], dtype=wide)


# `torch.library.custom_op` would import torch's compiler, a second of work, at the first call.
_PAIRS = "SymInt[] kernel, SymInt[] stride, SymInt[] padding, SymInt[] dilation"
torch.library.define(
    "sparseopt::block_product",
    f"(Tensor x, Tensor values, Tensor crow, Tensor col, Tensor? bias, SymInt out, {_PAIRS}, bool relu, "
    "Tensor? added=None) -> Tensor",
)
torch.library.define(
    "sparseopt::block_product_grad",
    f"(Tensor x, Tensor grad, Tensor crow, Tensor col, SymInt[] block, {_PAIRS}) -> Tensor",
)
torch.library.impl("sparseopt::block_product", "default", _multiply)
torch.library.impl("sparseopt::block_product_grad", "default", _multiply_grad)
torch.library.register_fake("sparseopt::block_product", _multiply_fake)
torch.library.register_fake("sparseopt::block_product_grad", _multiply_grad_fake)
block_product = torch.ops.sparseopt.block_product.default
block_product_grad = torch.ops.sparseopt.block_product_grad.default


def _save_product(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, values, crow, col, _bias, _out, *geometry, relu, _added = inputs
    ctx.save_for_backward(x, values, crow, col, output if relu else None)
    ctx.geometry = Geometry(*geometry)


def _product_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    x, values, crow, col, y = ctx.saved_tensors
    if y is not None:
        grad = torch.ops.aten.threshold_backward(grad, y, 0)
    needs_x, needs_values, _, _, needs_bias, *_, needs_added = ctx.needs_input_grad
    grad_x = _grad_input(grad, values, crow, col, x.shape, ctx.geometry) if needs_x else None
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
    ctx.geometry = Geometry(*geometry)


def _grad_backward(ctx: Any, second: Tensor) -> tuple[Any, ...]:
    x, grad, crow, col = ctx.saved_tensors
    needs_x, needs_grad, *_ = ctx.needs_input_grad
    second = second.contiguous()
    grad_x = _grad_input(grad, second, crow, col, x.shape, ctx.geometry) if needs_x else None
    grad_grad = (
        block_product(x, second, crow, col, None, grad.shape[3], *ctx.geometry, False).to(grad.dtype)
        if needs_grad
        else None
    )
    return grad_x, grad_grad, None, None, None, None, None, None, None


torch.library.register_autograd("sparseopt::block_product", _product_backward, setup_context=_save_product)
torch.library.register_autograd("sparseopt::block_product_grad", _grad_backward, setup_context=_save_grad)


def _geometry(
    kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> Geometry:
    geometry = Geometry(tuple(kernel), tuple(stride), tuple(padding), tuple(dilation))
    geometry.require()
    return geometry


def _grad_input(
    grad: Tensor, values: Tensor, crow: Tensor, col: Tensor, size: Sequence[int], geometry: Geometry
) -> Tensor:
    """grad X: the product of grad Y, its pixels `stride` apart, with the transposed and mirrored blocks."""
    kernel, stride, padding, dilation = geometry
    weight = _transposed(values, crow, col, size[3], geometry.positions)
    if geometry.positions == 1:  # the product first: it has fewer pixels than the input
        grad = block_product(grad, *weight, None, size[3], *LINEAR, False)
        return _placed(grad, stride, (-padding[0], -padding[1]), size[1:3])
    reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    starts = [r - p for r, p in zip(reach, padding, strict=True)]
    grad = _placed(grad, stride, starts, [n + r for n, r in zip(size[1:3], reach, strict=True)])
    return block_product(grad, *weight, None, size[3], *Geometry(kernel, dilation=dilation), False)


def _transposed(
    values: Tensor, crow: Tensor, col: Tensor, channels: int, positions: int
) -> tuple[Tensor, Tensor, Tensor]:
    rows, runs = crow.shape[0] - 1, -(-channels // values.shape[1])
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
