"""A weight as a grid of blocks: the groups of a network.

A weight of shape (out, in, *kernel) is read as a matrix with one row per output and one column per kernel position and
input channel, channels running fastest:

    M[o, p * in + i] = weight[o, i, *position p]

so that of a Linear layer is the weight itself, and that of a convolution is the transpose of the (H W Cin) x Cout
matrix of arXiv 2402.17902. Blocks of b_out rows by b_in columns tile it from the upper left corner; the last ones of a
row or column are smaller where the block does not divide the matrix. `segments` cuts the rows into equal parts first,
for projections that are stacked in one weight (queries, keys, values), so that no block lies in two of them.

Two maps connect blocks and entries, and are adjoint to each other: `expand` repeats one number per block over its
entries, `pool` adds the entries of a block. Neither permutes a weight: a grid is repeated or summed along the rows, and
only the strips in between, smaller by the rows of a block, have their channels moved.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

__all__ = ["BlockGrid"]


@dataclass(frozen=True)
class BlockGrid:
    """The blocks of one weight.

    Parameters
    ----------
    shape : tuple of int
        Shape of the weight: (out, in, *kernel).
    block : tuple of int
        (b_out, b_in): rows and columns of a block. A side that is longer than the matrix is cut to it.
    segments : int
        Parts of equal size that the rows are cut into before blocks are.

    Raises
    ------
    ValueError
        When the weight has fewer than two dimensions or no entries, a side of the block is no positive whole number, or
        `segments` does not divide the rows.

    Examples
    --------
    >>> grid = BlockGrid((10, 4, 3, 3), (4, 8))
    >>> grid.matrix_shape, grid.counts, grid.n_blocks
    ((10, 36), (3, 5), 15)
    >>> grid.sizes()
    tensor([[32, 32, 32, 32, 16],
            [32, 32, 32, 32, 16],
            [16, 16, 16, 16,  8]])
    """

    shape: tuple[int, ...]
    block: tuple[int, int]
    segments: int = 1

    def __post_init__(self) -> None:
        if len(self.shape) < 2 or min(self.shape) < 1:
            raise ValueError(f"a weight needs two dimensions or more, none of them empty, got the shape {self.shape}.")
        if not _is_side(self.segments) or self.shape[0] % self.segments:
            raise ValueError(
                f"segments={self.segments!r} does not divide the {self.shape[0]} outputs: choose a divisor, or 1."
            )
        if len(self.block) != 2 or not all(_is_side(side) for side in self.block):
            raise ValueError(f"block must be two positive whole numbers (outputs, inputs), got {self.block}.")
        rows, cols = self.shape[0] // self.segments, prod(self.shape[1:])
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "block", (min(int(self.block[0]), rows), min(int(self.block[1]), cols)))

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """Rows and columns of the weight as a matrix."""
        return self.shape[0], prod(self.shape[1:])

    @property
    def counts(self) -> tuple[int, int]:
        """(R, C): rows and columns of blocks."""
        rows, cols = self.matrix_shape
        return self.segments * -(-(rows // self.segments) // self.block[0]), -(-cols // self.block[1])

    @property
    def n_blocks(self) -> int:
        """R C."""
        return self.counts[0] * self.counts[1]

    @property
    def numel(self) -> int:
        """Entries of the weight."""
        return prod(self.shape)

    def sizes(self) -> Tensor:
        """Entries of every block, (R, C) of int64."""
        rows, cols = self.matrix_shape
        heights = _lengths(rows // self.segments, self.block[0]).repeat(self.segments)
        return heights.unsqueeze(1) * _lengths(cols, self.block[1])

    def expand(self, values: Tensor) -> Tensor:
        """One number per block, (R, C), repeated over the entries of its block: a tensor of the weight's shape."""
        return self._rows(self._columns(values))

    def scale(self, weight: Tensor, values: Tensor) -> Tensor:
        """weight * expand(values) in the weight's dtype, without the expansion where blocks divide the rows."""
        strips = self._columns(values.to(weight.dtype))
        if (self.shape[0] // self.segments) % self.block[0]:
            return weight * self._rows(strips)
        blocks = weight.unflatten(0, (-1, self.block[0]))
        return (blocks * strips.unsqueeze(1)).flatten(0, 1)

    def pool(self, weight: Tensor) -> Tensor:
        """The sum of the entries of every block, (R, C)."""
        b_out, b_in = self.block
        parts = weight.unflatten(0, (self.segments, -1))
        short = -parts.shape[1] % b_out
        if short:
            parts = torch.cat([parts, parts.new_zeros(self.segments, short, *self.shape[1:])], 1)
        strips = parts.flatten(0, 1).unflatten(0, (-1, b_out)).sum(1)
        columns = strips.flatten(2).transpose(1, 2).flatten(1) if len(self.shape) > 2 else strips
        short = -columns.shape[1] % b_in
        if short:
            columns = torch.cat([columns, columns.new_zeros(len(columns), short)], 1)
        return columns.unflatten(1, (-1, b_in)).sum(2)

    def norms(self, weight: Tensor) -> Tensor:
        """u: the Frobenius norm of every block, (R, C), in float32 at least.

        In float16 the square of 1e-4 is 0, and 8 bits of bfloat16 would make equals of blocks that differ.
        """
        wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
        return self.pool(wide * wide).sqrt()

    def _columns(self, values: Tensor) -> Tensor:
        """(R, C) repeated along the inputs: (R, in, *kernel)."""
        columns = values.repeat_interleave(self.block[1], 1) if self.block[1] > 1 else values
        columns = columns[:, : self.matrix_shape[1]]
        if len(self.shape) == 2:
            return columns
        return columns.unflatten(1, (-1, self.shape[1])).transpose(1, 2).reshape(-1, *self.shape[1:])

    def _rows(self, strips: Tensor) -> Tensor:
        """(R, in, *kernel) repeated along the outputs: the weight's shape."""
        parts = strips.unflatten(0, (self.segments, -1)).repeat_interleave(self.block[0], 1)
        return parts[:, : self.shape[0] // self.segments].flatten(0, 1)


def _lengths(total: int, side: int) -> Tensor:
    """Lengths of the parts of `total` entries cut every `side`: the last one is what remains."""
    return (total - torch.arange(0, total, side)).clamp(max=side)


def _is_side(value: Any) -> bool:
    return isinstance(value, Integral) and int(value) > 0
