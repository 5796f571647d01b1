"""Compiled kernels for one shape of block each: the loops around the tiles of `tile`.

A job is an array of int64: addresses, strides in bytes, and a counter from which threads take tasks. `product` walks
the rows of y in tiles of `rows`, the last rows in tiles of `few` and of one, and for each tile the rows of blocks of
its task. `gradient` walks the blocks of its task, for some hundred rows of x and of the output gradient at a time,
which stay in the cache meanwhile.

Kernels are compiled when a shape is first met, for the vector registers of this machine, and kept on disk.
"""

from __future__ import annotations

import functools
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple

import llvmlite.binding as llvm
import numba
from numba.extending import overload

from sparseopt.jit import c_function
from sparseopt.nn.sparse.tile import copy_floats, fetch_add, gradient_tile, peek, poke, product_tile, stack

__all__ = [
    "GradientJob",
    "Job",
    "Tile",
    "compiled_gradient",
    "compiled_product",
    "gradient_for",
    "tile_for",
]

_SOURCES = (Path(__file__), Path(__file__).with_name("tile.py"))


class Job(IntEnum):
    """The numbers of a product's job, by position."""

    X = 0
    IMAGE = 1  # bytes from one image to the next
    LINE = 2  # bytes from one output pixel's first input to that of the pixel below
    PIXEL = 3  # ... to that of the pixel to the right
    LINES = 4  # output pixels: high and wide
    PIXELS = 5
    N = 6  # rows of y: images x output pixels
    Y = 7
    LDY = 8
    BIAS = 9
    RELU = 10
    VALUES = 11
    CROW = 12
    OFF = 13
    FIRST = 14  # for each row of blocks, its first output and the number of its outputs
    HEIGHT = 15
    BOUNDS = 16  # rows of blocks between which the chunks lie
    CHUNKS = 17
    GROUPS = 18
    SPAN = 19  # rows of y in a group, a multiple of a tile
    NEXT = 20
    ADDED = 21  # what is added, lying as y does, or 0
    TAILS = 22  # for each row of blocks, groups of inputs of a last block that sticks out, or 0


class GradientJob(IntEnum):
    """The numbers of a gradient's job, by position."""

    ROWS = 0  # the address of each row of x
    N = 1
    OFF = 2
    PLACE = 3  # for each block, its first output
    GRAD = 4
    LDG = 5
    OUT = 6
    BLOCKS = 7
    SHARE = 8  # blocks in a task
    NEXT = 9


class Tile(NamedTuple):
    """A kernel's constants; those of `tile.product_tile`, and the rows of its two larger tiles."""

    rows: int
    few: int
    height: int
    width: int
    group: int
    lanes: int
    half: int

    @property
    def pitch(self) -> int:
        """Outputs of a stored block, idle ones included."""
        return -(-self.height * self.group // self.lanes) * self.lanes // self.group


class Gradient(NamedTuple):
    """The constants of `tile.gradient_tile`, and the sides of a block."""

    inputs: int
    height: int
    lanes: int
    width: int
    block_height: int


def tile_for(b_out: int, b_in: int, half: bool, tail: int = 0) -> Tile:
    """The tile for blocks of b_out x b_in. A taller block is cut into parts of at most `height` outputs.

    The last column of blocks may have `tail` inputs only. As many inputs share a register as fill its lanes best, and
    as many rows form a tile as leave the sums in registers.
    """
    lanes, registers = _vectors()
    most = 6 if registers > 16 else 3
    for parts in range(1, b_out + 1):
        height = -(-b_out // parts)
        used = {g: -(-height * g // lanes) for g in (1, 2, 4, 8, 16) if g <= lanes and b_in % g == tail % g == 0}
        fits = [g for g in used if used[g] <= most]
        if fits:
            break
    group = max(fits, key=lambda g: (g / used[g], -g))
    rows = 12 if used[group] == 1 else min(8, (24 if registers > 16 else 12) // used[group])
    return Tile(rows, 4 if rows > 4 else max(1, rows // 2), height, b_in, group, lanes, int(half))


def gradient_for(b_out: int, b_in: int) -> Gradient:
    """The tile for the gradient of blocks of b_out x b_in."""
    lanes, registers = _vectors()
    height = _divisor(b_out, 4 * lanes)
    inputs = _divisor(b_in, max(1, (registers - 8) // -(-height // lanes)))
    return Gradient(inputs, height, lanes, b_in, b_out)


@functools.cache
def _vectors() -> tuple[int, int]:
    """float32 numbers in a vector register of this machine, and how many such registers it has."""
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 16, 32
    if features.get("avx"):
        return 8, 16
    return 4, 16 if features.get("sse2") else 32


def _divisor(number: int, most: int) -> int:
    return max(d for d in range(1, min(number, most) + 1) if number % d == 0)


@functools.cache
def compiled_product(shape: Tile) -> Any:
    """The C function of a `Job`'s address, as ctypes calls it."""
    rows, few, height, width, group, lanes, half = shape
    registers = -(-height * group // lanes)
    stored = registers * lanes * (width // group) * (2 if half else 4)
    splits = max(1, min(8 // registers, width // group))
    table, scratch = rows, -(-(rows + 1) * height // 2)

    def sparse_product(job):
        addresses, spare = stack(table), stack(scratch)
        n_rows, chunks, groups, span = (
            peek(job, Job.N),
            peek(job, Job.CHUNKS),
            peek(job, Job.GROUPS),
            peek(job, Job.SPAN),
        )
        while True:
            task = fetch_add(job + Job.NEXT * 8, 1)
            if task >= chunks * groups:
                return
            chunk = task // groups
            begin, end = peek(peek(job, Job.BOUNDS), chunk), peek(peek(job, Job.BOUNDS), chunk + 1)
            row = (task - chunk * groups) * span
            last = min(row + span, n_rows)
            while row + rows <= last:
                _walk(job, row, begin, end, addresses, spare, stored, rows, height, width, group, lanes, 1, half)
                row += rows
            while row + few <= last:
                _walk(job, row, begin, end, addresses, spare, stored, few, height, width, group, lanes, 1, half)
                row += few
            while row < last:
                _walk(
                    job,
                    row,
                    begin,
                    end,
                    addresses,
                    spare,
                    stored,
                    1,
                    height,
                    width,
                    group,
                    lanes,
                    splits,
                    half,
                )
                row += 1

    return _compiled(sparse_product)


@functools.cache
def compiled_gradient(shape: Gradient) -> Any:
    """The C function of a `GradientJob`'s address, as ctypes calls it."""
    inputs, height, lanes, width, b_out = shape
    at_once = 256

    def sparse_gradient(job):
        n_rows, off, place, grad = (
            peek(job, GradientJob.N),
            peek(job, GradientJob.OFF),
            peek(job, GradientJob.PLACE),
            peek(job, GradientJob.GRAD),
        )
        ldg, out, blocks, share = (
            peek(job, GradientJob.LDG),
            peek(job, GradientJob.OUT),
            peek(job, GradientJob.BLOCKS),
            peek(job, GradientJob.SHARE),
        )
        while True:
            begin = fetch_add(job + GradientJob.NEXT * 8, 1) * share
            if begin >= blocks:
                return
            end = min(begin + share, blocks)
            for row in range(0, n_rows, at_once):
                count = min(at_once, n_rows - row)
                for t in range(begin, end):
                    for i in range(0, width, inputs):
                        for j in range(0, b_out, height):
                            here = grad + (row * ldg + peek(place, t) + j) * 4
                            to = out + ((t * width + i) * b_out + j) * 4
                            rows = peek(job, GradientJob.ROWS) + row * 8
                            gradient_tile(rows, count, peek(off, t) + i, here, ldg, to, inputs, height, lanes, b_out)

    return _compiled(sparse_gradient)


def _compiled(function: Any) -> Any:
    _alive.append(c_function(function, numba.types.void(numba.types.int64), _SOURCES))
    return _alive[-1].ctypes


_alive: list[Any] = []  # machine code is freed with its owner


def _walk(*arguments: Any) -> None:
    """One tile of rows from `row` on, for the rows of blocks from `begin` to `end`: what kernels call by this name."""


@overload(_walk, prefer_literal=True)
def _compiled_walk(job, row, begin, end, addresses, spare, stored, rows, height, width, group, lanes, splits, half):
    nn, hh, ww, gg, ll, ss, ff = (each.literal_value for each in (rows, height, width, group, lanes, splits, half))

    def walk(job, row, begin, end, addresses, spare, stored, rows, height, width, group, lanes, splits, half):
        pixels, lines = peek(job, Job.PIXELS), peek(job, Job.LINES)
        for n in range(nn):
            line = (row + n) // pixels
            image = line // lines
            pixel = row + n - line * pixels
            line -= image * lines
            start = (
                peek(job, Job.X)
                + image * peek(job, Job.IMAGE)
                + line * peek(job, Job.LINE)
                + pixel * peek(job, Job.PIXEL)
            )
            poke(addresses, n, start)
        y, ldy, bias, relu = peek(job, Job.Y), peek(job, Job.LDY), peek(job, Job.BIAS), peek(job, Job.RELU)
        added, tails = peek(job, Job.ADDED), peek(job, Job.TAILS)
        values, crow, off = peek(job, Job.VALUES), peek(job, Job.CROW), peek(job, Job.OFF)
        first, heights = peek(job, Job.FIRST), peek(job, Job.HEIGHT)
        for r in range(begin, end):
            t, j = peek(crow, r), peek(first, r)
            tail, outputs = peek(tails, r), peek(heights, r)
            blocks = peek(crow, r + 1) - t - (1 if tail else 0)
            at, here = values + t * stored, y + (row * ldy + j) * 4
            more = added + (row * ldy + j) * 4 if added else 0
            if outputs == hh:
                product_tile(
                    addresses, off + t * 4, blocks, tail, at, bias + j * 4, more, here, ldy, relu,
                    nn, hh, ww, gg, ll, ss, ff,
                )  # fmt: skip
            else:  # beyond the last output is somebody else's memory
                copy_floats(spare + nn * hh * 4, bias + j * 4, outputs)
                if added:
                    for n in range(nn):
                        copy_floats(spare + n * hh * 4, more + n * ldy * 4, outputs)
                    more = spare
                product_tile(
                    addresses, off + t * 4, blocks, tail, at, spare + nn * hh * 4, more, spare, hh, relu,
                    nn, hh, ww, gg, ll, ss, ff,
                )  # fmt: skip
                for n in range(nn):
                    copy_floats(here + n * ldy * 4, spare + n * hh * 4, outputs)

    return walk
