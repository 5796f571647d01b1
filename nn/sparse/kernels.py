"""Products with block-sparse weights on the CPU.

The rows of y are pixels: image by image, line by line. All blocks lie at fixed distances from a pixel's first input
(see `packing`), so a convolution is the product of a Linear layer whose rows of x overlap, and no patches are copied.
x itself is copied if it must be: into a frame of zeros for padding, to float32, or to put the channels side by side.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numba
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sparseopt.nn.sparse import outputs, packing, team
from sparseopt.nn.sparse.format import check_structure
from sparseopt.nn.sparse.geometry import LINEAR, Geometry
from sparseopt.nn.sparse.machine import GradientJob, compiled_gradient, gradient_for

__all__ = ["can_multiply", "product", "product_grad", "product_rows"]

_HAS_COMPILER = not getattr(numba.config, "DISABLE_JIT", 0)


def can_multiply(x: Tensor, values: Tensor) -> bool:
    """Whether the kernels take these tensors: on the CPU, weights in float32 or bfloat16."""
    return (
        (values.dtype is torch.float32 or values.dtype is torch.bfloat16)
        and x.is_cpu
        and values.is_cpu
        and x.dtype is not torch.float64
        and _HAS_COMPILER
    )


def product(
    x: Tensor,
    values: Tensor,
    crow: Tensor,
    col: Tensor,
    bias: Tensor | None,
    out: int,
    geometry: Geometry,
    relu: bool,
    added: Tensor | None = None,
) -> Tensor:
    """y, (N, H', W', out), in the dtype of x; see `reference.product`."""
    images, channels = x.shape[0], x.shape[3]
    alone = geometry.positions == 1
    weight = packing.packed(values, crow, col, out, channels if alone else 0)
    stored = _staged(x, 1 if alone else weight.tile.width, geometry.padding)
    lines, pixels = geometry.sizes(x.shape[1:3])
    y = outputs.empty((images, lines, pixels, out))
    if y.numel():
        prepared = weight.prepared(images, stored.stride(), stored.shape[3], (lines, pixels), geometry)
        weight.multiply(prepared, stored, bias, relu, added, y)
    return y if x.dtype == torch.float32 else y.to(x.dtype)


def product_rows(
    x: Tensor,
    values: Tensor,
    crow: Tensor,
    col: Tensor,
    bias: Tensor | None,
    out: int,
    relu: bool,
    added: Tensor | None = None,
) -> Tensor:
    """y, (..., out), for a contiguous x, (..., in): `product` for a Linear layer, with little around the kernel."""
    channels = x.shape[-1]
    if x.dtype is not torch.float32:
        more = None if added is None else added.reshape(-1, 1, 1, out)
        y = product(x.reshape(-1, 1, 1, channels), values, crow, col, bias, out, LINEAR, relu, more)
        return y.reshape(*x.shape[:-1], out)
    weight = packing.packed(values, crow, col, out, channels)
    n = x.numel() // channels
    y = x.new_empty(n, out) if 4 * n * out < outputs.LARGE else outputs.empty((n, out))
    if n:
        weight.multiply(weight.prepared_rows(n, channels), x, bias, relu, added, y)
    return y if x.ndim == 2 else y.view(*x.shape[:-1], out)


def product_grad(
    x: Tensor,
    grad: Tensor,
    crow: Tensor,
    col: Tensor,
    block: Sequence[int],
    geometry: Geometry,
) -> Tensor:
    """The gradient with respect to `values`, (blocks, b_in, b_out) in float32; see `reference.product_grad`."""
    height, width = block
    rows = len(crow) - 1
    images, lines, pixels, out = grad.shape
    stored = _staged(x, width, geometry.padding)
    grad = grad.detach().to(torch.float32)
    if out < rows * height:
        grad = functional.pad(grad, (0, rows * height - out))
    grad = grad.contiguous()
    result = torch.zeros((len(col), width, height), dtype=torch.float32)
    if len(col) == 0 or grad.numel() == 0:
        return result
    check_structure(crow, col, len(col), geometry.positions * -(-x.shape[3] // width))
    steps = stored.stride()
    off = packing.offsets(col.numpy(), width, geometry, steps, stored.shape[3]).astype(np.int64)
    place = np.repeat(np.arange(rows) * height, np.diff(crow.numpy()))
    image, line, pixel = np.ogrid[:images, :lines, :pixels]
    skips = image * steps[0] + line * (steps[1] * geometry.stride[0]) + pixel * (steps[2] * geometry.stride[1])
    addresses = (stored.data_ptr() + 4 * skips).ravel()
    work = addresses.size * result.numel()
    threads = team.n_threads() if work > packing.ALONE else 1
    job = (ctypes.c_int64 * len(GradientJob))()
    for name, number in {
        GradientJob.ROWS: addresses.ctypes.data,
        GradientJob.N: addresses.size,
        GradientJob.OFF: off.ctypes.data,
        GradientJob.PLACE: place.ctypes.data,
        GradientJob.GRAD: grad.data_ptr(),
        GradientJob.LDG: grad.shape[3],
        GradientJob.OUT: result.data_ptr(),
        GradientJob.BLOCKS: len(col),
        GradientJob.SHARE: max(1, len(col) // (8 * threads)),
    }.items():
        job[name] = number
    team.run(compiled_gradient(gradient_for(height, width)), ctypes.addressof(job), threads)
    return result


def _staged(x: Tensor, run: int, padding: Sequence[int]) -> Tensor:
    """x in float32, its channels side by side in whole runs, in a frame of zeros."""
    images, height, width, channels = x.shape
    (above, left), short = padding, -channels % run
    if not (above or left or short):
        x = x.detach().to(torch.float32)
        return x if x.stride(3) == 1 or channels == 1 else x.contiguous()
    frame = torch.zeros((images, height + 2 * above, width + 2 * left, channels + short))
    frame[:, above : above + height, left : left + width, :channels] = x.detach()
    return frame
