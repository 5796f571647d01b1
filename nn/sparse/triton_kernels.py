"""The product with a block-sparse weight on a GPU, in Triton: what is launched, and with which tiles.

The operands are those of `reference`. Convolutions gather their inputs where they lie, no image is unfolded; float16
and bfloat16 are multiplied on tensor cores and added up in float32; float32 stays float32 unless PyTorch was told that
matrix products may use TF32. Bias and ReLU are applied before a tile is written. Nothing waits for the GPU.

The outputs of a block are padded to a power of two from 16 on, so half the work at 8 outputs, and 15 parts of 16 at
one, are spent on zeros. Narrow blocks waste little: a slice of inputs spans several of them.

`torch.sparse._triton_ops.bsr_dense_addmm` is not called: it is private, takes neither convolutions, sides other than
powers of two from 16 on nor ReLU, and wants the blocks and both images the other way round, which costs three copies.

Tested in Triton's interpreter, and by compiling for GPUs of compute capability 8.0 and 9.0. It has not been run on a
GPU yet: neither its results nor its speed there are known.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from math import gcd
from typing import Any

import torch
from torch import Tensor

from sparseopt.nn.sparse.geometry import Geometry

__all__ = ["is_available", "product", "product_grad"]

_HALVES = (torch.float16, torch.bfloat16)
_MANY = 2**30  # fewer pixels are numbered in 32 bits, those after the end of the last tile included


def is_available(*tensors: Tensor) -> bool:
    """Whether `product` and `product_grad` take these operands: float32 or half precision, on a GPU that Triton serves.

    With TRITON_INTERPRET=1 in the environment before Triton is imported, they also take tensors on the CPU.
    """
    if not _has_triton() or any(t.dtype not in (torch.float32, *_HALVES) for t in tensors):
        return False
    return os.environ.get("TRITON_INTERPRET") == "1" or all(t.is_cuda and _serves(t.device) for t in tensors)


def product(
    x: Tensor,
    values: Tensor,
    crow: Tensor,
    col: Tensor,
    bias: Tensor | None,
    out: int,
    geometry: Geometry,
    relu: bool,
) -> Tensor:
    """y, (N, H', W', out), in the dtype of x; multiplied in the wider dtype of x and `values`."""
    sizes = geometry.sizes(x.shape[1:3])
    y = x.new_empty(x.shape[0], *sizes, out)
    pixels, rows, (width, height) = y.numel() // out, len(crow) - 1, values.shape[1:]
    if not pixels:
        return y
    from sparseopt.nn.sparse.triton_source import product_kernel

    dtype = torch.promote_types(x.dtype, values.dtype)
    tile = _tile(width, height, pixels, dtype)
    x, numbers, constants = _described(x, sizes, width, height, geometry, dtype, tile)
    grid = _ceil(pixels, tile["PIXELS"]) * rows * _ceil(height, tile["OUTPUTS"])
    operands = (x, values.contiguous(), crow.contiguous(), col.contiguous(), bias, y)
    numbers = (pixels, out, rows, min(len(col), len(values)), *numbers)
    options = _options(tile["PIXELS"], tile["OUTPUTS"])
    _launch(product_kernel, (grid,), *operands, *numbers, RELU=relu, **constants, **tile, **options)
    return y


def product_grad(
    x: Tensor,
    grad: Tensor,
    crow: Tensor,
    col: Tensor,
    block: Sequence[int],
    geometry: Geometry,
) -> Tensor:
    """The gradient with respect to `values`, (blocks, b_in, b_out), in float32: the same bits in every run."""
    height, width = block
    blocks, rows, out = len(col), len(crow) - 1, grad.shape[3]
    pixels = grad.numel() // out
    if not blocks or not pixels:
        return torch.zeros(blocks, width, height, device=x.device)
    from sparseopt.nn.sparse.triton_source import grad_kernel

    dtype = torch.promote_types(x.dtype, grad.dtype)
    tile = _tile(width, height, pixels, dtype)
    tile["PIXELS"] = min(tile["PIXELS"], 64 if dtype in _HALVES else 32)
    owner, starts = _slices(crow, blocks, width, tile["DEPTH"])
    programs = len(owner) * _ceil(height, tile["OUTPUTS"])
    share = tile["PIXELS"] * _ceil(pixels, tile["PIXELS"] * _ceil(4 * _processors(x.device), programs))
    parts = _ceil(pixels, share)
    x, numbers, constants = _described(x, grad.shape[1:3], width, height, geometry, dtype, tile)
    sums = torch.zeros(parts, blocks, width, height, device=x.device)  # zeros: entries that a broken crow leaves out
    operands = (x, grad.contiguous(), crow.contiguous(), col.contiguous(), owner, starts, sums)
    numbers = (pixels, share, out, rows, blocks, *numbers)
    options = _options(tile["DEPTH"], tile["OUTPUTS"])
    _launch(grad_kernel, (programs, parts), *operands, *numbers, **constants, **tile, **options)
    return sums.sum(0) if parts > 1 else sums[0]


def _tile(width: int, height: int, pixels: int, dtype: torch.dtype) -> dict[str, int]:
    """The sides of a tile, all powers of two from 16 on: twice as long where tensor cores multiply."""
    fast = dtype in _HALVES or _precision() == "tf32"
    outputs = max(16, _power(height))
    if outputs > 64:
        outputs = min((128, 64) if fast else (64,), key=lambda n: _ceil(height, n) * n)
    return {
        "PIXELS": min(max(16, _power(pixels)), 128 if fast else 64),
        "OUTPUTS": outputs,
        "DEPTH": 64 if dtype in _HALVES and width % 64 == 0 else 32,
    }


def _options(high: int, wide: int) -> dict[str, int]:
    """How a tile of high x wide sums is compiled: few enough in a thread that none spill, fused multiply-adds."""
    warps = 8 if high * wide > 8192 else min(max(high * wide // 256, 1), 4)
    return {"num_warps": warps, "num_stages": 3, "enable_fp_fusion": True}


def _described(
    x: Tensor,
    sizes: Sequence[int],
    width: int,
    height: int,
    geometry: Geometry,
    dtype: torch.dtype,
    tile: dict[str, int],
) -> tuple[Tensor, tuple[int, ...], dict[str, Any]]:
    """x with its channels side by side; the numbers and the constants of a compilation that both kernels take."""
    import triton.language as tl

    x = x if x.stride(3) == 1 else x.contiguous()
    channels = x.shape[3]
    kernel, stride, padding, dilation = geometry
    point = tuple(kernel) == (1, 1) and tuple(padding) == (0, 0)
    if point and tuple(stride) == (1, 1) and x.is_contiguous():
        x, sizes = x.view(-1, 1, 1, channels), (1, 1)  # every pixel its own image: nothing to divide by
    runs = _ceil(channels, width)
    strides = [step for step, n in zip(x.stride()[:3], x.shape[:3], strict=True) if n > 1]
    numbers = (geometry.positions * runs, runs, channels, *x.shape[1:3], *sizes, *x.stride()[:3])
    constants = {
        "KERNEL_W": kernel[1],
        "DOWN": stride[0],
        "RIGHT": stride[1],
        "TOP": padding[0],
        "LEFT": padding[1],
        "SPREAD_H": dilation[0],
        "SPREAD_W": dilation[1],
        "WIDTH": width,
        "HEIGHT": height,
        "RUN": gcd(width, tile["DEPTH"], *strides),  # so many inputs lie side by side, from a multiple of it on
        "WHOLE": width % tile["DEPTH"] == 0,
        "POINT": point,
        "RAGGED": channels % width != 0,
        "INDEX": tl.int32 if x.shape[0] * sizes[0] * sizes[1] < _MANY else tl.int64,
        "COMPUTE": {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}.get(dtype, tl.float32),
        "PRECISION": _precision(),
    }
    return x, numbers, constants


def _slices(crow: Tensor, blocks: int, width: int, depth: int) -> tuple[Tensor, Tensor]:
    """The row of blocks of every slice of `depth` inputs, and every row's first slice.

    How many slices there are stands on the GPU, so there are as many owners as there could be: those left over get the
    number of rows.
    """
    bounds = crow.long().clamp(0, blocks)
    counts = (bounds[1:] - bounds[:-1]).clamp(min=0)
    ends = ((counts * width + depth - 1) // depth).cumsum(0)
    most = blocks * width // depth + min(len(counts), blocks)
    owner = torch.searchsorted(ends, torch.arange(most, device=crow.device), right=True)
    return owner.to(torch.int32), torch.cat([ends.new_zeros(1), ends[:-1]]).to(torch.int32)


def _launch(compiled: Any, grid: tuple[int, ...], *operands: Any, **constants: Any) -> None:
    with torch.cuda.device_of(operands[0]):  # Triton launches on the current device
        compiled[grid](*operands, **constants)


def _precision() -> str:
    matmul = torch.backends.cuda.matmul
    tf32 = matmul.fp32_precision == "tf32" if hasattr(matmul, "fp32_precision") else matmul.allow_tf32
    return "tf32" if tf32 else "ieee"


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


@cache
def _serves(device: torch.device) -> bool:
    return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)


@cache
def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def _ceil(n: int, step: int) -> int:
    return -(-n // step)


def _power(n: int) -> int:
    """The least power of two that is not below n."""
    return 1 << (n - 1).bit_length()
