"""What the tests of block-sparse layers share: problems, the same product in dense float64, and wrong products.

A product is called like `block_sparse`, the operator under test. A law takes the product that it is to hold for, so
that it can be shown to reject a wrong one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sparseopt.nn import BlockGrid
from sparseopt.nn.sparse import ops
from sparseopt.nn.sparse.format import BlockSparse

Product = Callable[..., Tensor]
Geometry = dict[str, tuple[int, ...]]

BLOCKS = ((1, 1), (4, 4), (5, 5), (8, 8), (10, 10), (16, 16), (20, 20), (32, 32), (64, 64))
BLOCKS += ((8, 32), (1, 16), (128, 128), (67, 3))
KINDS: dict[str, tuple[tuple[int, ...], Geometry]] = {  # the kernel, and how it moves
    "linear": ((), {}),
    "conv1x1": ((1, 1), {}),
    "conv1x1 stride 2 padding 1": ((1, 1), {"stride": (2, 2), "padding": (1, 1)}),
    "conv3x3": ((3, 3), {"padding": (1, 1)}),
    "conv3x3 stride 2": ((3, 3), {"stride": (2, 2), "padding": (1, 1)}),
    "conv3x3 dilation 2": ((3, 3), {"padding": (1, 1), "dilation": (2, 2)}),
    "conv2x3 uneven": ((2, 3), {"stride": (1, 3), "padding": (2, 0), "dilation": (3, 1)}),
    "conv1d": ((3,), {"padding": (1,)}),
    "conv1d stride 2 dilation 2": ((3,), {"stride": (2,), "padding": (2,), "dilation": (2,)}),
}
SPATIAL: dict[int, tuple[int, ...]] = {0: (), 1: (9,), 2: (6, 5)}


def block_sparse(
    x: Tensor, weight: BlockSparse, bias: Tensor | None = None, activation: str = "none", **geometry: Any
) -> Tensor:
    """The operator under test."""
    operator = ops.linear if len(weight.shape) == 2 else ops.conv
    return operator(x, weight, bias, activation=activation, **geometry)


def recorded(x: Tensor, weight: BlockSparse, *rest: Any, **geometry: Any) -> Tensor:
    """The operator under test, recorded by autograd."""
    with torch.inference_mode(False), torch.enable_grad():
        values = weight.values.detach()
        values = (values.clone() if values.is_inference() else values).requires_grad_()
        x = x.clone() if x.is_inference() else x
        return block_sparse(x, replace(weight, values=values), *rest, **geometry).detach()


def dense(x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str = "none", **geometry: Any) -> Tensor:
    """The same product in torch's own layers, in float64."""
    operator: Any = {2: functional.linear, 3: functional.conv1d, 4: functional.conv2d}[weight.ndim]
    y: Tensor = operator(x.double(), weight.double(), None if bias is None else bias.double(), **geometry)
    return y.relu() if activation == "relu" else y


@dataclass(frozen=True)
class Problem:
    """An input, a weight in both forms, a bias, and how a kernel moves."""

    x: Tensor
    weight: Tensor  # dense, in float64: exactly what `packed` holds
    packed: BlockSparse
    bias: Tensor | None
    geometry: Geometry

    def of(self, product: Product, activation: str = "none") -> Tensor:
        return product(self.x, self.packed, self.bias, activation, **self.geometry)

    def wanted(self, activation: str = "none") -> Tensor:
        return dense(self.x, self.weight, self.bias, activation, **self.geometry)


def problem(
    kind: str = "linear",
    block: tuple[int, int] = (4, 3),
    shape: tuple[int, ...] | None = None,
    batch: int = 3,
    kept: float = 0.5,
    dtype: torch.dtype = torch.float32,
    x_dtype: torch.dtype | None = None,
    bias: bool = True,
    seed: int = 0,
) -> Problem:
    """Two whole blocks and a ragged one on either side, one row of blocks empty, the corners kept.

    The channels of a convolution are whole blocks; give a `shape` for others. `kept` = 0 drops everything.
    """
    kernel, geometry = KINDS[kind]
    height, width = block
    if shape is None:
        inputs = 2 * width + (-(-width // 3) if not kernel else 0)
        shape = (2 * height + -(-height // 2), inputs if width < 64 or not kernel else width, *kernel)
    generator = torch.Generator().manual_seed(seed)
    grid = BlockGrid(shape, block)
    mask = torch.rand(grid.counts, generator=generator) < kept
    if kept > 0:
        mask[grid.counts[0] // 2] = kept == 1
        mask[0, 0] = mask[-1, -1] = True
    weight = torch.randn(shape, generator=generator).to(dtype) * grid.expand(mask.to(dtype))
    x = torch.randn(batch, shape[1], *SPATIAL[len(kernel)], generator=generator).to(x_dtype or dtype)
    b = torch.randn(shape[0], generator=generator).to(dtype) if bias else None
    return Problem(x, weight.double(), BlockSparse.from_dense(weight, grid, mask), b, geometry)


def error(y: Tensor, wanted: Tensor) -> float:
    """The largest difference relative to the largest number wanted; infinite where shapes differ or a NaN stands."""
    if y.shape != wanted.shape:
        return float("inf")
    y, wanted = y.detach(), wanted.detach()
    if not wanted.numel():
        return 0.0
    difference = (y.double() - wanted).abs().max() / wanted.abs().max().clamp(min=1e-300)
    return float(difference.nan_to_num(nan=float("inf")))


def matrix(weight: Tensor) -> Tensor:
    """(out) x (kernel positions, input channels), channels fastest."""
    return weight.permute(0, *range(2, weight.ndim), 1).reshape(len(weight), -1)


def blocks_of(weight: Tensor, packed: BlockSparse) -> Tensor:
    """The values that `packed` would hold of `weight`, entry by entry as the format defines them."""
    flat, values = matrix(weight), torch.zeros(packed.values.shape, dtype=weight.dtype)
    count, width, height = packed.values.shape
    crow, col = packed.crow.tolist(), packed.col.tolist()
    for t in range(count):
        r = next(r for r in range(len(crow) - 1) if crow[r] <= t < crow[r + 1])
        part = flat[r * height : (r + 1) * height, col[t] * width : (col[t] + 1) * width]
        values[t, : part.shape[1], : part.shape[0]] = part.T
    return values


def scattered(packed: BlockSparse, values: Tensor | None = None) -> Tensor:
    """The weight that the format's definition reads from `packed`, block by block."""
    values = packed.values.detach() if values is None else values
    rows, cols = packed.shape[0], prod(packed.shape[1:])
    flat = torch.zeros(rows, cols, dtype=values.dtype)
    width, height = values.shape[1:]
    crow, col = packed.crow.tolist(), packed.col.tolist()
    for r in range(len(crow) - 1):
        for t in range(crow[r], crow[r + 1]):
            part = flat[r * height : (r + 1) * height, col[t] * width : (col[t] + 1) * width]
            part.copy_(values[t].T[: part.shape[0], : part.shape[1]])
    split = flat.reshape(rows, *packed.shape[2:], packed.shape[1])
    return split.permute(0, split.ndim - 1, *range(1, split.ndim - 1))


# Wrong products.


def transposed_blocks(x: Tensor, weight: BlockSparse, *rest: Any, **geometry: Any) -> Tensor:
    """Wrong: every block is read with its sides exchanged."""
    return block_sparse(x, replace(weight, values=weight.values.mT), *rest, **geometry)


def last_block_lost(x: Tensor, weight: BlockSparse, *rest: Any, **geometry: Any) -> Tensor:
    """Wrong: the loop over blocks ends one early."""
    crow = weight.crow.clamp(max=len(weight.col) - 1)
    return block_sparse(x, BlockSparse(weight.values[:-1], crow, weight.col[:-1], weight.shape), *rest, **geometry)


def empty_row_filled(x: Tensor, weight: BlockSparse, *rest: Any, **geometry: Any) -> Tensor:
    """Wrong: a row of blocks that is empty takes the first block of the next one."""
    crow = weight.crow.clone()
    empty = next(r for r in range(1, len(crow) - 1) if crow[r - 1] == crow[r] < crow[r + 1])
    crow[empty] += 1
    return block_sparse(x, replace(weight, crow=crow), *rest, **geometry)


def bias_twice(x: Tensor, weight: BlockSparse, bias: Tensor | None = None, *rest: Any, **geometry: Any) -> Tensor:
    """Wrong: the bias starts the sum, and is added at its end."""
    return block_sparse(x, weight, None if bias is None else 2 * bias, *rest, **geometry)


def last_input_lost(x: Tensor, weight: BlockSparse, *rest: Any, **geometry: Any) -> Tensor:
    """Wrong: the ragged edge on the right is cut one too early."""
    channels = -1 if len(weight.shape) == 2 else 1
    x = x.clone()
    x.narrow(channels, x.shape[channels] - 1, 1).zero_()
    return block_sparse(x, weight, *rest, **geometry)


def last_output_lost(x: Tensor, weight: BlockSparse, *rest: Any, **geometry: Any) -> Tensor:
    """Wrong: the ragged edge below is cut one too early."""
    y = block_sparse(x, weight, *rest, **geometry).clone()
    channels = -1 if len(weight.shape) == 2 else 1
    y.narrow(channels, y.shape[channels] - 1, 1).zero_()
    return y


def zeros_multiplied(
    x: Tensor, weight: BlockSparse, bias: Tensor | None = None, activation: str = "none", **geometry: Any
) -> Tensor:
    """Wrong: the dropped blocks take part."""
    return dense(x, scattered(weight), bias, activation, **geometry).to(x.dtype)


def rows_mixed(x: Tensor, weight: BlockSparse, *rest: Any, **geometry: Any) -> Tensor:
    """Wrong: what belongs to another row is multiplied by zero instead of left out."""
    y = block_sparse(x, weight, *rest, **geometry)
    return y + 0 * y.roll(1, 0)


def input_overwritten(x: Tensor, weight: BlockSparse, *rest: Any, **geometry: Any) -> Tensor:
    """Wrong: x serves as working memory."""
    y = block_sparse(x, weight, *rest, **geometry)
    x.detach()[-1].zero_()
    return y


def last_row_lost(x: Tensor, weight: BlockSparse, *rest: Any, **geometry: Any) -> Tensor:
    """Wrong: rows of x are taken in fours, and what is left over is forgotten."""
    y = block_sparse(x, weight, *rest, **geometry).clone()
    y[len(y) // 4 * 4 :] = 0
    return y


def relu_before_bias(
    x: Tensor, weight: BlockSparse, bias: Tensor | None = None, activation: str = "none", **geometry: Any
) -> Tensor:
    """Wrong: the activation comes first."""
    y = block_sparse(x, weight, None, activation, **geometry)
    if bias is None:
        return y
    return y + bias.reshape(-1, *[1] * (len(weight.shape) - 2)).to(y.dtype)


def relu_without_nan(
    x: Tensor, weight: BlockSparse, bias: Tensor | None = None, activation: str = "none", **geometry: Any
) -> Tensor:
    """Wrong: NaN is smaller than nothing, so that max(y, 0) is 0 where y is NaN."""
    y = block_sparse(x, weight, bias, "none", **geometry)
    return torch.where(y > 0, y, 0) if activation == "relu" else y


def mirrored_kernel(x: Tensor, weight: BlockSparse, *rest: Any, **geometry: Any) -> Tensor:
    """Wrong: convolution in the sense of analysis."""
    flipped = scattered(weight).flip(*range(2, len(weight.shape)))
    return block_sparse(x, BlockSparse.from_dense(flipped, weight.block), *rest, **geometry)


def axes_exchanged(x: Tensor, weight: BlockSparse, *rest: Any, **geometry: Any) -> Tensor:
    """Wrong: the numbers of a geometry are given to the axes in reverse."""
    reverse = {name: numbers[::-1] for name, numbers in geometry.items()}
    return block_sparse(x, weight, *rest, **reverse)


def whole_blocks_of_x(x: Tensor, weight: BlockSparse, *rest: Any, **geometry: Any) -> Tensor:
    """Wrong: whole blocks of x are read, into the next row; what lies there meets zeros of the weight."""
    short = -x.shape[-1] % weight.block[1]
    steps = (x.stride(0), x.stride(1))
    fits = (x.untyped_storage().nbytes() // x.element_size() - x.storage_offset() - x.shape[1] - short) // steps[0] + 1
    wide = x.as_strided((min(len(x), fits), x.shape[1] + short), steps)
    full = BlockSparse(weight.values, weight.crow, weight.col, (weight.shape[0], wide.shape[1]))
    y = block_sparse(wide, full, *rest, **geometry)
    return torch.cat([y, block_sparse(x[fits:], weight, *rest, **geometry)])


def packed_in_memory(x: Tensor, weight: BlockSparse, *rest: Any, **geometry: Any) -> Tensor:
    """Wrong: x is taken to lie in memory without gaps, from the start of its storage."""
    held = torch.empty(0, dtype=x.dtype).set_(x.untyped_storage())
    flat = functional.pad(held, (0, max(0, x.numel() - len(held))))
    return block_sparse(flat[: x.numel()].reshape(x.shape), weight, *rest, **geometry)


def weight_in_memory(x: Tensor, weight: BlockSparse, *rest: Any, **geometry: Any) -> Tensor:
    """Wrong: the values are taken to lie in memory without gaps."""
    held = torch.empty(0, dtype=weight.values.dtype).set_(weight.values.untyped_storage())
    values = held[: weight.values.numel()].reshape(weight.values.shape)
    return block_sparse(x, replace(weight, values=values), *rest, **geometry)


def sum_per_thread(x: Tensor, weight: BlockSparse, *rest: Any, **geometry: Any) -> Tensor:
    """Wrong: each thread adds up a share of the inputs, so that the number of threads sets the order of a sum."""
    y: Any = 0
    for thread in range(torch.get_num_threads()):
        share = torch.arange(x.shape[1]) % torch.get_num_threads() == thread
        part = torch.where(share.reshape(-1, *[1] * (x.ndim - 2)), x, 0)
        y = y + block_sparse(part, weight, *(rest if thread == 0 else ()), **geometry)
    return y


_SCRATCH: dict[int, Tensor] = {}


def shared_scratch(x: Tensor, weight: BlockSparse, *rest: Any, **geometry: Any) -> Tensor:
    """Wrong: one piece of working memory for all calls of a size."""
    y = block_sparse(x, weight, *rest, **geometry)
    scratch = _SCRATCH.setdefault(y.numel(), torch.empty_like(y))
    scratch.copy_(y)
    time.sleep(0.001)
    return scratch.reshape(y.shape).clone()


def sums_in_half(
    x: Tensor, weight: BlockSparse, bias: Tensor | None = None, activation: str = "none", **geometry: Any
) -> Tensor:
    """Wrong: sums are kept in bfloat16."""
    y: Any = 0
    for i in range(x.shape[1]):
        part = torch.zeros_like(x)
        part[:, i] = x[:, i]
        y = (y + block_sparse(part, weight, bias if i == 0 else None, **geometry)).bfloat16()
    return (y.relu() if activation == "relu" else y).to(x.dtype)


def bias_without_gradient(
    x: Tensor, weight: BlockSparse, bias: Tensor | None = None, activation: str = "none", **geometry: Any
) -> Tensor:
    """Wrong: the bias is a constant to autograd."""
    return block_sparse(x, weight, None if bias is None else bias.detach(), activation, **geometry)


def straight_through(
    x: Tensor, weight: BlockSparse, bias: Tensor | None = None, activation: str = "none", **geometry: Any
) -> Tensor:
    """Wrong: autograd does not see the relu."""
    y = block_sparse(x, weight, bias, "none", **geometry)
    return y + (y.relu() - y).detach() if activation == "relu" else y


def gradient_halved(x: Tensor, weight: BlockSparse, *rest: Any, **geometry: Any) -> Tensor:
    """Wrong: the value is right, its derivatives are not."""
    y = block_sparse(x, weight, *rest, **geometry)
    return 0.5 * y + 0.5 * y.detach()
