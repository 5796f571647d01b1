"""Block-sparse weights as plain tensors.

The weight (out, in, *kernel) is read as the matrix M of `BlockGrid`: one row per output, one column per kernel position
and input channel, channels fastest. Its kept blocks of b_out x b_in are stored transposed, row of blocks after row:

    values[t, i, j] = M[r b_out + j, col[t] b_in + i],     crow[r] <= t < crow[r + 1],

so the b_out outputs that one input feeds lie side by side. Blocks that stick out over the right or lower edge are
filled up with zeros; nothing outside the matrix is ever read or returned.

A stored block lies at one kernel position, and in one of the parts that the rows are cut into. Where the pruning block
would lie across a border, its side is replaced by the greatest common divisor: more, smaller blocks, the same entries.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import gcd, prod
from typing import Any

import scipy.sparse
import torch
from torch import Tensor

from sparseopt.nn.blocks import BlockGrid

__all__ = ["BlockSparse"]


@dataclass(frozen=True, eq=False)
class BlockSparse:
    """A block-sparse weight.

    Parameters
    ----------
    values : Tensor, (blocks, b_in, b_out), floating point
        The kept blocks, transposed.
    crow : Tensor, (R + 1,), int32
        Where each row of blocks begins in `values`, and the number of blocks at the end.
    col : Tensor, (blocks,), int32
        Column of each block, increasing within a row of blocks.
    shape : tuple of int
        Shape of the weight: (out, in, *kernel).

    Raises
    ------
    ValueError, TypeError
        When the four do not describe a weight; see `validate`.

    Examples
    --------
    >>> weight = torch.zeros(4, 6)
    >>> weight[2:, :3] = 1.0
    >>> packed = BlockSparse.from_dense(weight, (2, 3))
    >>> packed.crow.tolist(), packed.col.tolist(), packed.density
    ([0, 0, 1], [0], 0.25)
    >>> torch.equal(packed.to_dense(), weight)
    True
    """

    values: Tensor
    crow: Tensor
    col: Tensor
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        validate(self.values, self.crow, self.col, self.shape)

    @property
    def block(self) -> tuple[int, int]:
        """(b_out, b_in)."""
        return self.values.shape[2], self.values.shape[1]

    @property
    def grid(self) -> BlockGrid:
        """The grid of stored blocks."""
        return BlockGrid(self.shape, self.block)

    @property
    def density(self) -> float:
        """Share of the grid's blocks that are stored."""
        return len(self.col) / self.grid.n_blocks

    @property
    def nbytes(self) -> int:
        """Bytes of the three tensors."""
        return sum(t.numel() * t.element_size() for t in (self.values, self.crow, self.col))

    @classmethod
    def from_dense(cls, weight: Tensor, block: BlockGrid | tuple[int, int] | int, mask: Tensor | None = None) -> Any:
        """Store the blocks of `weight` that are not entirely zero, or those that `mask` keeps.

        Parameters
        ----------
        weight : Tensor, (out, in, *kernel)
        block : BlockGrid, (outputs, inputs), or one number for both
        mask : Tensor, optional
            (R, C) of bool over `block`: the blocks to store, zero or not.
        """
        if isinstance(block, int):
            block = (block, block)
        grid = block if isinstance(block, BlockGrid) else BlockGrid(tuple(weight.shape), block)
        if grid.shape != tuple(weight.shape):
            raise ValueError(f"the grid is one of a weight {grid.shape}, the weight is {tuple(weight.shape)}.")
        stored = _stored(grid)
        weight = weight.detach()
        if mask is None:
            kept = stored.norms(weight) != 0  # NaN counts as kept
            kept |= stored.pool((weight != 0).to(torch.float32)) != 0  # squares of tiny numbers are zero
        else:
            if tuple(mask.shape) != grid.counts:
                raise ValueError(f"the mask is {tuple(mask.shape)}, it must be {grid.counts}, one entry per block.")
            kept = stored.pool(grid.expand(mask.to(weight.device, torch.float32))) != 0
        blocks = _blocks(weight, stored)
        rows, cols = kept.nonzero(as_tuple=True)
        crow = torch.zeros(len(kept) + 1, dtype=torch.int32, device=weight.device)
        crow[1:] = kept.sum(1).cumsum(0)
        return cls(blocks[rows, cols].contiguous(), crow, cols.to(torch.int32), grid.shape)

    def to_dense(self) -> Tensor:
        """The weight, (out, in, *kernel), with zeros where no block is stored."""
        rows, cols = self.grid.matrix_shape
        (height, width), counts = self.block, self.grid.counts
        blocks = self.values.new_zeros(*counts, width, height)
        matrix = blocks.index_put((self.rows, self.col.long()), self.values)
        matrix = matrix.permute(0, 3, 1, 2).reshape(counts[0] * height, counts[1] * width)[:rows, :cols]
        return _as_weight(matrix, self.shape)

    @property
    def rows(self) -> Tensor:
        """The row of blocks of each block, int64."""
        return rows_of(self.crow, self.col)

    def to(self, *args: Any, **kwargs: Any) -> BlockSparse:
        """`values` moved or cast as by `Tensor.to`; `crow` and `col` follow to the same device."""
        values = self.values.to(*args, **kwargs)
        return replace(self, values=values, crow=self.crow.to(values.device), col=self.col.to(values.device))

    def to_bsr(self) -> Tensor:
        """The matrix M as `torch.sparse_bsr_tensor`, its sides rounded up to whole blocks."""
        (height, width), counts = self.block, self.grid.counts
        values, size = self.values.transpose(1, 2).contiguous(), (counts[0] * height, counts[1] * width)
        return torch.sparse_bsr_tensor(self.crow, self.col, values, size, check_invariants=True)

    @classmethod
    def from_bsr(cls, matrix: Tensor, shape: tuple[int, ...] | None = None) -> BlockSparse:
        """From a `torch.sparse_bsr_tensor` of a matrix M, cut to `shape` if that is smaller than the whole blocks."""
        if matrix.layout != torch.sparse_bsr or matrix.ndim != 2 or matrix.values().ndim != 3:
            raise ValueError(f"from_bsr takes a two-dimensional BSR tensor, got {matrix.layout}.")
        crow, col = matrix.crow_indices().to(torch.int32), matrix.col_indices().to(torch.int32)
        return cls(matrix.values().transpose(1, 2).contiguous(), crow, col, shape or tuple(matrix.shape))

    def to_scipy(self) -> scipy.sparse.bsr_array:
        """The matrix M as `scipy.sparse.bsr_array`, its sides rounded up to whole blocks."""
        (height, width), counts = self.block, self.grid.counts
        data = self.values.detach().cpu().transpose(1, 2).numpy()
        parts = (data, self.col.cpu().numpy(), self.crow.cpu().numpy())
        # a copy: SciPy sorts, adds up and drops blocks in place
        return scipy.sparse.bsr_array(parts, shape=(counts[0] * height, counts[1] * width), copy=True)

    @classmethod
    def from_scipy(cls, matrix: Any, shape: tuple[int, ...] | None = None) -> BlockSparse:
        """From a SciPy BSR matrix or array M, cut to `shape` if that is smaller than the whole blocks."""
        if getattr(matrix, "format", None) != "bsr":
            raise TypeError(f"from_scipy takes a SciPy BSR array, got {type(matrix).__name__}: call `.tobsr(...)`.")
        matrix = matrix.copy()
        matrix.sum_duplicates()
        values = torch.from_numpy(matrix.data).transpose(1, 2).contiguous()
        crow, col = torch.from_numpy(matrix.indptr).to(torch.int32), torch.from_numpy(matrix.indices).to(torch.int32)
        return cls(values, crow, col, shape or tuple(matrix.shape))


def validate(values: Tensor, crow: Tensor, col: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse tensors that no weight of `shape` is stored in, before anything reads through them.

    Raises
    ------
    TypeError
        When a tensor has another dtype than the format's.
    ValueError
        When sizes do not fit each other or `shape`, `crow` is not an increasing run from 0 to the number of blocks, or
        a column lies outside, is repeated or out of order.
    """
    if not values.is_floating_point():
        raise TypeError(f"values must be floating point, got {values.dtype}.")
    for name, index in (("crow", crow), ("col", col)):
        if index.dtype != torch.int32:
            raise TypeError(f"{name} must be int32, got {index.dtype}.")
        if index.ndim != 1:
            raise ValueError(f"{name} must have one dimension, got the shape {tuple(index.shape)}.")
    if values.ndim != 3 or min(values.shape[1:]) < 1:
        raise ValueError(f"values must be (blocks, inputs, outputs) of a block, got the shape {tuple(values.shape)}.")
    if len(shape) < 2 or min(shape) < 1:
        raise ValueError(f"a weight needs two dimensions or more, none of them empty, got the shape {shape}.")
    rows, cols = shape[0], prod(shape[1:])
    if max(rows, cols) >= 2**31:
        raise ValueError(f"a weight of {rows} x {cols} is too large: a side must stay below 2**31.")
    width, height = values.shape[1:]
    if len(shape) > 2 and shape[1] % width:
        raise ValueError(f"blocks of {width} inputs do not divide the {shape[1]} channels of a convolution.")
    if height > rows or width > cols:
        raise ValueError(f"a block of {height} x {width} is larger than the weight, {rows} x {cols}.")
    counts = -(-rows // height), -(-cols // width)
    if len(crow) != counts[0] + 1:
        raise ValueError(f"crow has {len(crow)} entries, {counts[0]} rows of blocks need {counts[0] + 1}.")
    if len(col) != len(values):
        raise ValueError(f"col has {len(col)} entries for {len(values)} blocks: each block needs one.")
    if values.device.type == "meta" or _is_fake(values):
        return
    check_structure(crow, col, len(col), counts[1])


def rows_of(crow: Tensor, col: Tensor) -> Tensor:
    """The row of blocks of each block, int64; a `crow` that describes none cannot make it write outside its memory."""
    numbers = torch.arange(col.shape[0], dtype=crow.dtype, device=crow.device)
    return torch.searchsorted(crow[1:].contiguous(), numbers, right=True)


def check_structure(crow: Tensor, col: Tensor, n_blocks: int, columns: int) -> None:
    """Refuse rows that do not share out `n_blocks` blocks, and columns that are out of order or not below `columns`."""
    if crow.dtype != torch.int32 or col.dtype != torch.int32:
        raise TypeError(f"crow and col must be int32, got {crow.dtype} and {col.dtype}.")
    if crow.ndim != 1 or len(crow) < 1 or tuple(col.shape) != (n_blocks,):
        raise ValueError(f"crow {tuple(crow.shape)} and col {tuple(col.shape)} do not describe {n_blocks} blocks.")
    first, last = int(crow[0]), int(crow[-1])
    if first != 0 or last != n_blocks or bool((crow[1:] < crow[:-1]).any()):
        raise ValueError(f"crow must increase from 0 to the {n_blocks} blocks, it goes from {first} to {last}.")
    if n_blocks and (int(col.min()) < 0 or int(col.max()) >= columns):
        raise ValueError(f"columns of blocks run from 0 to {columns - 1}, got {int(col.min())} to {int(col.max())}.")
    inside = torch.ones(n_blocks, dtype=torch.bool, device=col.device)
    inside[crow[:-1].long()[crow[:-1] < crow[1:]]] = False  # the first block of a row has none before it
    if bool((inside[1:] & (col[1:] <= col[:-1])).any()):
        raise ValueError("the columns of a row of blocks must increase, and one is repeated or out of order.")


def _is_fake(tensor: Tensor) -> bool:
    return isinstance(tensor, torch._subclasses.FakeTensor)


def _stored(grid: BlockGrid) -> BlockGrid:
    """The grid of the blocks that are stored: `grid`, or finer where its blocks lie across a border."""
    height, width = grid.block
    part = grid.shape[0] // grid.segments
    if grid.segments > 1 and part % height:
        height = gcd(height, part)
    if len(grid.shape) > 2 and grid.shape[1] % width:
        width = gcd(width, grid.shape[1])
    return BlockGrid(grid.shape, (height, width))


def _blocks(weight: Tensor, grid: BlockGrid) -> Tensor:
    """(R, C, b_in, b_out): every block, transposed, filled up with zeros at the edges."""
    (height, width), (rows, cols) = grid.block, grid.counts
    matrix = weight.flatten(2).transpose(1, 2).flatten(1) if weight.ndim > 2 else weight
    missing = (0, cols * width - matrix.shape[1], 0, rows * height - matrix.shape[0])
    matrix = torch.nn.functional.pad(matrix, missing)
    return matrix.unflatten(0, (rows, height)).unflatten(2, (cols, width)).permute(0, 2, 3, 1)


def _as_weight(matrix: Tensor, shape: tuple[int, ...]) -> Tensor:
    if len(shape) == 2:
        return matrix.contiguous()
    return matrix.unflatten(1, (-1, shape[1])).transpose(1, 2).reshape(shape)
