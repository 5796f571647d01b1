"""The GPU product as Triton functions. Importing this file imports Triton: `triton_kernels` does, at its first call.

Rows of blocks are stored one after another, and so are the inputs of a block: row r of blocks is one dense matrix with
(crow[r + 1] - crow[r]) b_in rows and b_out columns, wherever its blocks lie. A tile of the product walks down that
matrix DEPTH inputs at a time and gathers the same inputs of its pixels from the image:

    y[m, j] = sum over k:  image[m, tap(k)] row[k, j],      tap(k) = where input k % b_in of block k // b_in reads.

If DEPTH divides b_in, a slice lies in one block (WHOLE), its kernel position is one number and padding is tested once
per pixel; else it spans several narrow blocks and every lane looks up its own. The gradient walks down the pixels:

    grad row[k, j] = sum over m:  image[m, tap(k)] grad[m, j],      in equal parts that are added up in a fixed order.

No entry of crow or col is trusted: rows end inside `values`, and columns that do not exist read as zero.
Arguments in capitals are constants of a compilation.
"""

# mypy: allow-incomplete-defs
# Triton tells constants by their annotation; the others are pointers and numbers of any width.

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["grad_kernel", "product_kernel"]


@triton.jit
def _pixels(m, out_height, out_width, x_image, x_row, x_pixel, DOWN, RIGHT, TOP, LEFT, RUN):
    """Of output pixels m: where their window begins in memory, and its upper left corner in the image."""
    line = m // out_width
    top = ((line % out_height) * DOWN - TOP).to(tl.int32)
    left = ((m % out_width) * RIGHT - LEFT).to(tl.int32)
    begin = (line // out_height).to(tl.int64) * x_image + top.to(tl.int64) * x_row + left.to(tl.int64) * x_pixel
    begin = tl.multiple_of(begin, RUN)
    return begin[:, None], top[:, None], left[:, None]


@triton.jit
def _taps(
    col, first, end, step, pixels, columns, runs, channels, x_row, x_pixel,
    KERNEL_W: tl.constexpr, SPREAD_H: tl.constexpr, SPREAD_W: tl.constexpr,
    WIDTH: tl.constexpr, RUN: tl.constexpr, DEPTH: tl.constexpr,
    WHOLE: tl.constexpr, POINT: tl.constexpr, RAGGED: tl.constexpr,
):  # fmt: skip
    """Of inputs step, step + 1, ... of a row of blocks: where they lie from the window's corner on.

    First comes how many pixels have them: all, or 0 of an input that does not exist. Then their place in memory, and
    how far their kernel position lies below and right of the corner.
    """
    k = step + tl.arange(0, DEPTH)
    if WHOLE:
        block = step // WIDTH
        column = tl.load(col + first + block, mask=first + block < end, other=-1)
    else:
        block = k // WIDTH
        column = tl.load(col + first + block, mask=first + block < end, other=-1)[None, :]
    having = tl.where((column >= 0) & (column < columns), pixels, 0)
    position = column * 0
    if not POINT:
        position = column // runs
    channel = (column - position * runs) * WIDTH + (k - block * WIDTH)[None, :]
    if RAGGED:
        having = tl.where(channel < channels, having, 0)
    below = (position // KERNEL_W) * SPREAD_H
    right = (position % KERNEL_W) * SPREAD_W
    place = below.to(tl.int64) * x_row + right.to(tl.int64) * x_pixel
    if not WHOLE:
        place = tl.max_constancy(tl.multiple_of(place, [1, RUN]), [1, RUN])
    return having, place + channel, below, right


@triton.jit
def _inputs(x, having, place, below, right, m, begin, top, left, height, width, POINT: tl.constexpr):
    """The tile of the image at (pixels, inputs), zero where either does not exist or lies in the padding."""
    inside = m[:, None] < having
    if not POINT:  # a coordinate below zero is a huge unsigned one
        inside = inside & ((top + below).to(tl.uint32) < height) & ((left + right).to(tl.uint32) < width)
    return tl.load(x + begin + place, mask=inside, other=0.0)


@triton.jit(do_not_specialize=["pixels"])
def product_kernel(
    x, values, crow, col, bias, y,
    pixels, outputs, rows, blocks, columns, runs, channels, height, width, out_height, out_width,
    x_image, x_row, x_pixel,
    KERNEL_W: tl.constexpr, DOWN: tl.constexpr, RIGHT: tl.constexpr, TOP: tl.constexpr, LEFT: tl.constexpr,
    SPREAD_H: tl.constexpr, SPREAD_W: tl.constexpr,
    WIDTH: tl.constexpr, HEIGHT: tl.constexpr, RUN: tl.constexpr,
    WHOLE: tl.constexpr, POINT: tl.constexpr, RAGGED: tl.constexpr, RELU: tl.constexpr,
    INDEX: tl.constexpr, COMPUTE: tl.constexpr, PRECISION: tl.constexpr,
    PIXELS: tl.constexpr, OUTPUTS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """A tile of PIXELS pixels and OUTPUTS outputs of one row of blocks.

    Tiles that read the same pixels are neighbours in the grid, so these stay in the cache; all weights fit beside them.
    """
    PARTS: tl.constexpr = (HEIGHT + OUTPUTS - 1) // OUTPUTS
    across = rows * PARTS
    tile = tl.program_id(0)
    row = (tile % across) // PARTS
    j = (tile % PARTS) * OUTPUTS + tl.arange(0, OUTPUTS)
    m = (tile // across).to(INDEX) * PIXELS + tl.arange(0, PIXELS)
    begin, top, left = _pixels(m, out_height, out_width, x_image, x_row, x_pixel, DOWN, RIGHT, TOP, LEFT, RUN)
    first = tl.maximum(tl.load(crow + row), 0)
    end = tl.minimum(tl.load(crow + row + 1), blocks)
    total = (end - first) * WIDTH
    lane = tl.arange(0, DEPTH)
    weights = values + first.to(tl.int64) * (WIDTH * HEIGHT) + (lane[:, None] * HEIGHT + j[None, :])
    sums = tl.zeros((PIXELS, OUTPUTS), dtype=tl.float32)
    for step in range(0, total, DEPTH):
        having, place, below, right = _taps(
            col, first, end, step, pixels, columns, runs, channels, x_row, x_pixel,
            KERNEL_W, SPREAD_H, SPREAD_W, WIDTH, RUN, DEPTH, WHOLE, POINT, RAGGED,
        )  # fmt: skip
        a = _inputs(x, having, place, below, right, m, begin, top, left, height, width, POINT)
        b = tl.load(weights, mask=(step + lane < total)[:, None] & (j < HEIGHT)[None, :], other=0.0)
        sums = tl.dot(a.to(COMPUTE), b.to(COMPUTE), sums, input_precision=PRECISION)
        weights += DEPTH * HEIGHT
    output = row * HEIGHT + j
    kept = (j < HEIGHT) & (output < outputs)
    if bias is not None:
        sums += tl.load(bias + output, mask=kept, other=0.0).to(tl.float32)[None, :]
    if RELU:
        sums = tl.where(sums < 0, 0.0, sums)  # NaN stays NaN
    place = y + m.to(tl.int64)[:, None] * outputs + output[None, :]
    tl.store(place, sums.to(y.dtype.element_ty), mask=(m < pixels)[:, None] & kept[None, :])


@triton.jit(do_not_specialize=["pixels", "share"])
def grad_kernel(
    x, grad, crow, col, owner, starts, sums,
    pixels, share, outputs, rows, blocks, columns, runs, channels, height, width, out_height, out_width,
    x_image, x_row, x_pixel,
    KERNEL_W: tl.constexpr, DOWN: tl.constexpr, RIGHT: tl.constexpr, TOP: tl.constexpr, LEFT: tl.constexpr,
    SPREAD_H: tl.constexpr, SPREAD_W: tl.constexpr,
    WIDTH: tl.constexpr, HEIGHT: tl.constexpr, RUN: tl.constexpr,
    WHOLE: tl.constexpr, POINT: tl.constexpr, RAGGED: tl.constexpr,
    INDEX: tl.constexpr, COMPUTE: tl.constexpr, PRECISION: tl.constexpr,
    PIXELS: tl.constexpr, OUTPUTS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """A slice of DEPTH inputs and OUTPUTS outputs of one row of blocks, summed over one share of the pixels.

    Slice s belongs to row owner[s], whose first slice is starts[owner[s]]; it belongs to none if owner[s] = rows.
    """
    PARTS: tl.constexpr = (HEIGHT + OUTPUTS - 1) // OUTPUTS
    piece = tl.program_id(0) // PARTS
    row = tl.load(owner + piece)
    if row < rows:
        step = (piece - tl.load(starts + row)) * DEPTH
        first = tl.maximum(tl.load(crow + row), 0)
        end = tl.minimum(tl.load(crow + row + 1), blocks)
        having, place, below, right = _taps(
            col, first, end, step, pixels, columns, runs, channels, x_row, x_pixel,
            KERNEL_W, SPREAD_H, SPREAD_W, WIDTH, RUN, DEPTH, WHOLE, POINT, RAGGED,
        )  # fmt: skip
        j = (tl.program_id(0) % PARTS) * OUTPUTS + tl.arange(0, OUTPUTS)
        output = row * HEIGHT + j
        kept = (j < HEIGHT) & (output < outputs)
        low = tl.program_id(1).to(INDEX) * share
        result = tl.zeros((DEPTH, OUTPUTS), dtype=tl.float32)
        for at in range(low, tl.minimum(low + share, pixels), PIXELS):
            m = at + tl.arange(0, PIXELS)
            begin, top, left = _pixels(m, out_height, out_width, x_image, x_row, x_pixel, DOWN, RIGHT, TOP, LEFT, RUN)
            a = _inputs(x, having, place, below, right, m, begin, top, left, height, width, POINT)
            place_b = grad + m.to(tl.int64)[:, None] * outputs + output[None, :]
            b = tl.load(place_b, mask=(m < pixels)[:, None] & kept[None, :], other=0.0)
            result = tl.dot(tl.trans(a.to(COMPUTE)), b.to(COMPUTE), result, input_precision=PRECISION)
        k = step + tl.arange(0, DEPTH)
        total = (end - first) * WIDTH
        base = (tl.program_id(1).to(tl.int64) * blocks + first) * (WIDTH * HEIGHT)
        place = sums + base + k.to(tl.int64)[:, None] * HEIGHT + j[None, :]
        tl.store(place, result, mask=(k < total)[:, None] & (j < HEIGHT)[None, :])
