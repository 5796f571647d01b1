"""Weights in the order that tiles read, and how a product is shared out among tasks.

`packed` checks `crow` and `col`, and kernels see the checked copies only. What it makes is remembered for as long as
the tensors live and are not changed.

A pixel's first input lies `n image + h line + w pixel` bytes into x, and a block at kernel position (a, b), run c of
channels, starts

    off = (a dilation W + b dilation) C + c b_in                                                  (W, C: of stored x)

numbers further, for every pixel alike.
"""

from __future__ import annotations

import ctypes
import functools
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sparseopt.nn.sparse import team
from sparseopt.nn.sparse.format import check_structure
from sparseopt.nn.sparse.geometry import LINEAR, Geometry
from sparseopt.nn.sparse.machine import Job, Tile, compiled_product, tile_for

__all__ = ["ALONE", "Packed", "offsets", "packed"]

_CHUNK = 256 * 1024  # bytes of values that a task goes through again and again: they stay in the second cache
ALONE = 300_000  # multiplications that one thread has done before a second has begun
_Numbers = ctypes.c_int64 * len(Job)
_X, _Y, _BIAS, _RELU, _ADDED = map(int, (Job.X, Job.Y, Job.BIAS, Job.RELU, Job.ADDED))  # enumerations are slow


class _Prepared(NamedTuple):
    """A job but for the tensors of one call, its threads, and what it points to."""

    template: Any
    threads: int
    arrays: Any


@dataclass(eq=False)
class Packed:
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
    _jobs: dict[Any, _Prepared] = field(default_factory=dict)

    def prepared(
        self,
        images: int,
        steps: Sequence[int],
        channels: int,
        sizes: tuple[int, int],
        geometry: Geometry,
    ) -> _Prepared:
        """A product whose numbers of x lie `steps` apart along images, lines, pixels and its `channels`."""
        key = images, steps, channels, sizes, geometry, team.n_threads()
        return self._jobs.get(key) or self._keep(key, self._prepare(*key))

    def prepared_rows(self, n: int, channels: int) -> _Prepared:
        """A product with n rows of `channels` that lie one behind the other: found faster than by `prepared`."""
        key = n, team.n_threads()
        return self._jobs.get(key) or self._keep(
            key, self._prepare(n, (channels, 0, 0), channels, (1, 1), LINEAR, key[1])
        )

    def multiply(
        self, prepared: _Prepared, x: Tensor, bias: Tensor | None, relu: bool, added: Tensor | None, y: Tensor
    ) -> None:
        """Fill y."""
        if bias is None:
            bias = self.zeros
        elif bias.dtype is not torch.float32 or not bias.is_contiguous():
            bias = bias.detach().to(torch.float32).contiguous()
        job = _Numbers.from_buffer_copy(prepared.template)
        job[_X], job[_Y], job[_BIAS], job[_RELU] = x.data_ptr(), y.data_ptr(), bias.data_ptr(), relu
        if added is not None:
            added = added.detach().to(torch.float32).contiguous()
            job[_ADDED] = added.data_ptr()
        team.run(self.function, ctypes.addressof(job), prepared.threads)

    def _keep(self, key: Any, prepared: _Prepared) -> _Prepared:
        if len(self._jobs) >= 16:  # sizes that change with every call must not fill the memory
            self._jobs.clear()
        self._jobs[key] = prepared
        return prepared

    def _prepare(
        self,
        images: int,
        steps: Sequence[int],
        channels: int,
        sizes: tuple[int, int],
        geometry: Geometry,
        threads: int,
    ) -> _Prepared:
        lines, pixels = sizes
        n = images * lines * pixels
        off = offsets(self.col, self.tile.width, geometry, steps, channels)
        bounds, groups, span, threads = self._cut(n, threads)
        job = _Numbers()
        for name, number in {
            Job.IMAGE: steps[0] * 4,
            Job.LINE: steps[1] * geometry.stride[0] * 4,
            Job.PIXEL: steps[2] * geometry.stride[1] * 4,
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
        return _Prepared(job, threads, (off, bounds))

    def _cut(self, n: int, threads: int) -> tuple[np.ndarray, int, int, int]:
        """How n rows and the rows of blocks are shared out: bounds of chunks, groups, rows of a group, threads."""
        rows, parts = self.tile.rows, len(self.heights)
        if n * (self.values.numel() + self.tile.pitch * parts) < ALONE:
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
    packed: Packed
    probe: _Probe | None


_known: dict[int, _Known] = {}


def packed(values: Tensor, crow: Tensor, col: Tensor, out: int, inputs: int) -> Packed:
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
    new = _pack(values.detach(), crow, col, out, inputs)
    if not (values.is_inference() or crow.is_inference() or col.is_inference()):  # these do not count their changes
        key = id(values)
        state = values._version, crow._version, col._version, values.data_ptr(), out, inputs
        mine = weakref.ref(values, functools.partial(_forget, key))
        probe = None if new.values.data_ptr() == values.data_ptr() else _Probe(values)
        _known[key] = _Known(mine, weakref.ref(crow), weakref.ref(col), state, new, probe)
    return new


def _forget(key: int, gone: Any) -> None:
    known = _known.get(key)
    if known is not None and known.values is gone:
        del _known[key]


def _pack(values: Tensor, crow: Tensor, col: Tensor, out: int, inputs: int) -> Packed:
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
    return Packed(tile, values, crows, columns, first, heights, tails, out, zeros, compiled_product(tile))


def offsets(col: np.ndarray, width: int, geometry: Geometry, steps: Sequence[int], channels: int) -> np.ndarray:
    runs = -(-channels // width)
    position, run = col // runs, col % runs
    if len(col) and position.max() >= geometry.positions:
        raise ValueError(f"a block lies in column {col.max()}, the weight has {geometry.positions * runs} of them.")
    kernel, dilation = geometry.kernel, geometry.dilation
    down, right = position // kernel[1] * dilation[0], position % kernel[1] * dilation[1]
    off = down * steps[1] + right * steps[2] + run * width
    if len(off) and off.max() >= 2**31:
        raise ValueError("the inputs that one output sees lie more than 2**31 numbers apart: give a smaller image.")
    return off.astype(np.int32)
