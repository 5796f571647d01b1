"""Products with block-sparse weights on the CPU: packed weights, jobs, threads.

The rows of y are pixels: image by image, line by line. A pixel's first input lies `n image + h line + w pixel` bytes
into x, and a block at kernel position (a, b), run c of channels, starts

    off = (a dilation W + b dilation) C + c b_in                                                  (W, C: of stored x)

numbers further, for every pixel alike. So a convolution is the product of a Linear layer whose rows of x overlap, and
no patches are copied. x itself is copied if it must be: into a frame of zeros for padding, to float32, or to put the
channels next to each other.

`_packed` brings a weight into the order that tiles read, and checks `crow` and `col`; kernels see the checked copies
only. It is remembered for as long as the tensors live and are not changed.
"""

from __future__ import annotations

import ctypes
import functools
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sparseopt.nn.sparse import outputs, team
from sparseopt.nn.sparse.format import check_structure
from sparseopt.nn.sparse.machine import (
    GradientJob,
    Job,
    Tile,
    compiled_gradient,
    compiled_product,
    gradient_for,
    tile_for,
)

__all__ = ["can_multiply", "product", "product_grad", "product_rows"]

_HAS_COMPILER = not getattr(numba.config, "DISABLE_JIT", 0)
_CHUNK = 256 * 1024  # bytes of values that a task goes through again and again: they stay in the second cache
_ALONE = 300_000  # multiplications that one thread has done before a second has begun


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
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    relu: bool,
    added: Tensor | None = None,
) -> Tensor:
    """y, (N, H', W', out), in the dtype of x; see `reference.product`."""
    images, height, width, channels = x.shape
    alone = kernel[0] * kernel[1] == 1
    packed = _packed(values, crow, col, out, channels if alone else 0)
    lines = (height + 2 * padding[0] - dilation[0] * (kernel[0] - 1) - 1) // stride[0] + 1
    pixels = (width + 2 * padding[1] - dilation[1] * (kernel[1] - 1) - 1) // stride[1] + 1
    stored = _staged(x, 1 if alone else packed.tile.width, padding)
    geometry = lines, pixels, tuple(stride), tuple(kernel), tuple(dilation)
    y = outputs.empty((images, lines, pixels, out))
    packed.multiply(stored, images, stored.stride(), stored.shape[3], geometry, bias, relu, added, y)
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
    shape = x.shape
    channels = shape[-1]
    packed = _packed(values, crow, col, out, channels)
    if x.dtype is not torch.float32:
        one = (1, 1)
        more = None if added is None else added.reshape(-1, 1, 1, out)
        y = product(x.reshape(-1, 1, 1, channels), values, crow, col, bias, out, one, one, (0, 0), one, relu, more)
        return y.reshape(*shape[:-1], out)
    y = outputs.empty((*shape[:-1], out))
    packed.multiply(x, x.numel() // channels, (channels, 0, 0), channels, _ROWS, bias, relu, added, y)
    return y


def product_grad(
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
    """The gradient with respect to `values`, (blocks, b_in, b_out) in float32; see `reference.product_grad`."""
    height, width = block
    rows = len(crow) - 1
    images, lines, pixels, out = grad.shape
    stored = _staged(x, width, padding)
    grad = grad.detach().to(torch.float32)
    if out < rows * height:
        grad = functional.pad(grad, (0, rows * height - out))
    grad = grad.contiguous()
    result = torch.zeros((len(col), width, height), dtype=torch.float32)
    if len(col) == 0 or grad.numel() == 0:
        return result
    check_structure(crow, col, len(col), kernel[0] * kernel[1] * -(-x.shape[3] // width))
    steps = stored.stride()
    off = _offsets(col.numpy(), width, kernel, dilation, steps, stored.shape[3]).astype(np.int64)
    place = np.repeat(np.arange(rows) * height, np.diff(crow.numpy()))
    image, line, pixel = np.ogrid[:images, :lines, :pixels]
    skips = image * steps[0] + line * (steps[1] * stride[0]) + pixel * (steps[2] * stride[1])
    addresses = (stored.data_ptr() + 4 * skips).ravel()
    work = addresses.size * result.numel()
    threads = team.n_threads() if work > _ALONE else 1
    share = max(1, len(col) // (8 * threads))
    job = (ctypes.c_int64 * len(GradientJob))(
        addresses.ctypes.data, addresses.size, off.ctypes.data, place.ctypes.data, grad.data_ptr(), grad.shape[3],
        result.data_ptr(), len(col), share, 0,
    )  # fmt: skip
    team.run(compiled_gradient(gradient_for(height, width)), ctypes.addressof(job), threads)
    return result


_ROWS = (1, 1, (1, 1), (1, 1), (1, 1))
_Numbers = ctypes.c_int64 * len(Job)
_X, _Y, _BIAS, _RELU, _ADDED = map(int, (Job.X, Job.Y, Job.BIAS, Job.RELU, Job.ADDED))  # enumerations are slow


@dataclass(eq=False)
class _Packed:
    """A weight as tiles read it. Rows of tall blocks are cut into parts, each of them a row of its own here."""

    tile: Tile
    values: Tensor  # (stored blocks, b_in / group, pitch, group)
    crow: np.ndarray
    col: np.ndarray
    first: np.ndarray
    heights: np.ndarray
    tails: np.ndarray
    outputs: int
    zeros: Tensor  # stands in for a missing bias
    function: Any
    prepared: dict[Any, tuple[Any, int, Any]] = field(default_factory=dict)

    def multiply(
        self,
        x: Tensor,
        images: int,
        steps: Sequence[int],
        channels: int,
        geometry: tuple[Any, ...],
        bias: Tensor | None,
        relu: bool,
        added: Tensor | None,
        y: Tensor,
    ) -> None:
        """Fill y. Numbers of x lie `steps` apart along images, lines, pixels and its `channels`."""
        if images == 0:
            return
        threads = team.n_threads()
        key = images, steps, channels, geometry, threads
        prepared = self.prepared.get(key)
        if prepared is None:
            if len(self.prepared) >= 16:  # sizes that change with every call must not fill the memory
                self.prepared.clear()
            prepared = self.prepared[key] = self._prepare(images, steps, channels, geometry, threads)
        template, threads, _kept = prepared
        if bias is None:
            bias = self.zeros
        elif bias.dtype is not torch.float32 or not bias.is_contiguous():
            bias = bias.detach().to(torch.float32).contiguous()
        job = _Numbers.from_buffer_copy(template)
        job[_X], job[_Y], job[_BIAS], job[_RELU] = x.data_ptr(), y.data_ptr(), bias.data_ptr(), relu
        if added is not None:
            added = added.detach().to(torch.float32).contiguous()
            job[_ADDED] = added.data_ptr()
        team.run(self.function, ctypes.addressof(job), threads)

    def _prepare(
        self, images: int, steps: Sequence[int], channels: int, geometry: tuple[Any, ...], threads: int
    ) -> tuple[Any, int, Any]:
        """A job but for the tensors of one call, its threads, and what it points to."""
        lines, pixels, stride, kernel, dilation = geometry
        n = images * lines * pixels
        off = _offsets(self.col, self.tile.width, kernel, dilation, steps, channels)
        bounds, groups, span, threads = self._cut(n, threads)
        job = _Numbers()
        for name, number in {
            Job.IMAGE: steps[0] * 4,
            Job.LINE: steps[1] * stride[0] * 4,
            Job.PIXEL: steps[2] * stride[1] * 4,
            Job.LINES: lines,
            Job.PIXELS: pixels,
            Job.N: n,
            Job.LDY: self.outputs,
            Job.VALUES: self.values.data_ptr(),
            Job.CROW: self.crow.ctypes.data,
            Job.OFF: off.ctypes.data,
            Job.FIRST: self.first.ctypes.data,
            Job.HEIGHT: self.heights.ctypes.data,
            Job.TAILS: self.tails.ctypes.data,
            Job.BOUNDS: bounds.ctypes.data,
            Job.CHUNKS: len(bounds) - 1,
            Job.GROUPS: groups,
            Job.SPAN: span,
        }.items():
            job[name] = number
        return job, threads, (off, bounds)

    def _cut(self, n: int, threads: int) -> tuple[np.ndarray, int, int, int]:
        """How n rows and the rows of blocks are shared out: bounds of chunks, groups, rows of a group, threads."""
        rows, parts = self.tile.rows, len(self.heights)
        if n * (self.values.numel() + self.tile.pitch * parts) < _ALONE:
            threads = 1
        tiles = -(-n // rows)
        groups = min(tiles, 16 * threads) if threads > 1 else 1
        chunks = -(-self.values.numel() * self.values.element_size() // _CHUNK)
        if threads > 1:
            chunks = max(chunks, -(-4 * threads // groups))
        chunks = max(1, min(chunks, parts))
        if n <= rows:
            chunks = min(chunks, max(1, 2 * threads)) if threads > 1 else 1
        per = -(-tiles // groups)
        work = self.crow + np.arange(len(self.crow))  # an empty row of blocks costs something too
        bounds = np.searchsorted(work, np.linspace(0, work[-1], chunks + 1)[1:-1])
        bounds = np.concatenate([[0], bounds, [parts]]).astype(np.int64)
        return bounds, -(-tiles // per), per * rows, threads


class _Probe:
    """A sample of a weight that was copied: torch does not count changes made through `.data`.

    Whoever changes a weight as a whole that way, as some averages over training do, changes the sample.
    """

    def __init__(self, values: Tensor) -> None:
        numbers = values.detach().view(torch.int16 if values.dtype == torch.bfloat16 else torch.int32)
        self._numbers = numbers.reshape(-1).numpy()
        size = self._numbers.size
        self._places = np.linspace(0, size - 1, min(size, 32)).astype(np.int64) if size else np.arange(0)
        self._then = self._sample()

    def _sample(self) -> bytes:
        return self._numbers.take(self._places).tobytes()

    def agrees(self) -> bool:
        return self._sample() == self._then


class _Known(NamedTuple):
    """A packed weight, and the tensors it was made of as they were then."""

    values: weakref.ref[Tensor]
    crow: weakref.ref[Tensor]
    col: weakref.ref[Tensor]
    state: tuple[int, ...]
    packed: _Packed
    probe: _Probe | None


_known: dict[int, _Known] = {}


def _packed(values: Tensor, crow: Tensor, col: Tensor, out: int, inputs: int) -> _Packed:
    """`inputs` are those of a kernel of one position, where the last run of channels may be short; 0 for others."""
    known = _known.get(id(values))
    if (
        known is not None
        and known.values() is values
        and known.crow() is crow
        and known.col() is col
        and known.state == (values._version, crow._version, col._version, values.data_ptr(), out, inputs)
        and (known.probe is None or known.probe.agrees())
    ):
        return known.packed
    packed = _pack(values.detach(), crow, col, out, inputs)
    if not (values.is_inference() or crow.is_inference() or col.is_inference()):  # these do not count their changes
        key = id(values)
        state = values._version, crow._version, col._version, values.data_ptr(), out, inputs
        mine = weakref.ref(values, functools.partial(_forget, key))
        probe = None if packed.values.data_ptr() == values.data_ptr() else _Probe(values)
        _known[key] = _Known(mine, weakref.ref(crow), weakref.ref(col), state, packed, probe)
    return packed


def _forget(key: int, gone: Any) -> None:
    known = _known.get(key)
    if known is not None and known.values is gone:
        del _known[key]


def _pack(values: Tensor, crow: Tensor, col: Tensor, out: int, inputs: int) -> _Packed:
    n_blocks, width, height = values.shape
    rows = len(crow) - 1
    if rows != -(-out // height):
        raise ValueError(
            f"crow has {len(crow)} entries, {out} outputs in blocks of {height} need {-(-out // height) + 1}."
        )
    check_structure(crow, col, n_blocks, 2**31 - 1)
    short = inputs % width
    tile = tile_for(height, width, values.dtype == torch.bfloat16, short)
    # A row of tall blocks becomes `parts` rows; those that lie below the last output are left out.
    parts = -(-height // tile.height)
    begin = crow.numpy().astype(np.int64)
    row, part = (each.ravel() for each in np.divmod(np.arange(rows * parts), parts))
    first = row * height + part * tile.height
    heights = np.minimum(np.minimum(tile.height, height - part * tile.height), out - first)
    row, part, first, heights = (each[heights > 0] for each in (row, part, first, heights))
    counts = np.diff(begin)[row]
    crows = np.concatenate([[0], np.cumsum(counts)])
    order = np.arange(crows[-1]) - np.repeat(crows[:-1] - begin[row], counts)
    if parts > 1:
        values = functional.pad(values, (0, parts * tile.height - height)).unflatten(2, (parts, tile.height))
        values = values[torch.from_numpy(order), :, torch.from_numpy(np.repeat(part, counts))]
    if tile.pitch > tile.height:
        values = functional.pad(values, (0, tile.pitch - tile.height))
    values = values.unflatten(1, (width // tile.group, tile.group)).transpose(2, 3).contiguous()
    columns = col.numpy().astype(np.int64)[order]
    tails = np.zeros(len(counts), np.int64)
    if short:
        tails[counts > 0] = (columns[crows[1:][counts > 0] - 1] == inputs // width) * (short // tile.group)
    zeros = torch.zeros(out + tile.pitch)
    return _Packed(tile, values, crows, columns, first, heights, tails, out, zeros, compiled_product(tile))


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


def _offsets(
    col: np.ndarray, width: int, kernel: Sequence[int], dilation: Sequence[int], steps: Sequence[int], channels: int
) -> np.ndarray:
    runs = -(-channels // width)
    position, run = col // runs, col % runs
    if len(col) and position.max() >= kernel[0] * kernel[1]:
        raise ValueError(f"a block lies in column {col.max()}, the weight has {kernel[0] * kernel[1] * runs} of them.")
    down, right = position // kernel[1] * dilation[0], position % kernel[1] * dilation[1]
    off = down * steps[1] + right * steps[2] + run * width
    if len(off) and off.max() >= 2**31:
        raise ValueError("the inputs that one output sees lie more than 2**31 numbers apart: give a smaller image.")
    return off.astype(np.int32)
