"""Grids of blocks against a loop over the blocks of the permuted and flattened weight."""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import prod
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="grids of blocks need torch")

from torch import Tensor, nn  # noqa: E402
from torch.autograd.gradcheck import GradcheckError, gradcheck  # noqa: E402

from sparseopt.nn import BlockGrid  # noqa: E402


def matrix(weight: Tensor) -> Tensor:
    """(out) x (kernel positions, input channels), channels fastest."""
    return weight.permute(0, *range(2, weight.ndim), 1).reshape(len(weight), -1)


def unmatrix(flat: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The weight that `matrix` makes `flat` of."""
    split = flat.reshape(shape[0], *shape[2:], shape[1])
    return split.permute(0, split.ndim - 1, *range(1, split.ndim - 1))


def pieces(grid: BlockGrid) -> Iterator[tuple[int, int, slice, slice]]:
    """(row of the grid, column, rows of the matrix, columns) of every block."""
    rows, cols = grid.shape[0] // grid.segments, prod(grid.shape[1:])
    r = 0
    for segment in range(grid.segments):
        for top in range(0, rows, grid.block[0]):
            bottom = min(top + grid.block[0], rows)
            for c, left in enumerate(range(0, cols, grid.block[1])):
                right = min(left + grid.block[1], cols)
                yield r, c, slice(segment * rows + top, segment * rows + bottom), slice(left, right)
            r += 1


def disagreement(grid: BlockGrid, weight: Tensor, values: Tensor) -> str:
    """The first map of the grid that differs from the loop; all numbers here are whole and small, so sums are exact."""
    flat, repeated = matrix(weight), torch.zeros_like(matrix(weight))
    sums = torch.zeros(values.shape, dtype=weight.dtype)
    wide = torch.promote_types(weight.dtype, torch.float32)
    squares, sizes = torch.zeros(values.shape, dtype=wide), torch.zeros(values.shape, dtype=torch.int64)
    for r, c, rows, cols in pieces(grid):
        repeated[rows, cols] = values[r, c]
        sums[r, c] = flat[rows, cols].sum()
        squares[r, c] = (flat[rows, cols].to(wide) ** 2).sum()
        sizes[r, c] = flat[rows, cols].numel()
    expanded = unmatrix(repeated, grid.shape)
    for name, got, wanted in (
        ("sizes", grid.sizes(), sizes),
        ("expand", grid.expand(values), expanded),
        ("scale", grid.scale(weight, values), weight * expanded),
        ("pool", grid.pool(weight), sums),
        ("norms", grid.norms(weight), squares.sqrt()),
    ):
        if got.shape != wanted.shape or got.dtype != wanted.dtype or not torch.equal(got, wanted):
            return name
    if not torch.equal((grid.expand(values) * weight).double().sum(), (values * grid.pool(weight)).double().sum()):
        return "adjointness"
    return ""


def small_numbers(shape: tuple[int, ...], dtype: torch.dtype, high: int) -> Tensor:
    """Whole numbers of at most `high` in size: with blocks of at most 256 entries, bfloat16 adds those of 1 exactly."""
    return torch.randint(-high, high + 1, shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def check(grid: BlockGrid, dtype: torch.dtype = torch.float64, layout: Any = torch.contiguous_format) -> str:
    values = small_numbers(grid.counts, dtype, 3)
    return disagreement(grid, small_numbers(grid.shape, dtype, 1).contiguous(memory_format=layout), values)


MODULES = {
    "linear": nn.Linear(10, 12),
    "conv1d": nn.Conv1d(5, 6, 3),
    "conv2d": nn.Conv2d(6, 8, 3),
    "conv2d uneven kernel": nn.Conv2d(3, 7, (2, 3)),
    "conv3d": nn.Conv3d(2, 5, (2, 3, 2)),
    "grouped": nn.Conv2d(8, 12, 3, groups=4),
    "depthwise": nn.Conv2d(6, 6, 3, groups=6),
    "1 x 1": nn.Conv2d(9, 7, 1),
    "embedding": nn.Embedding(11, 6),
    "one output": nn.Linear(9, 1),
    "one input": nn.Linear(1, 9),
}
BLOCKS = {"single": (1, 1), "rows": (1, 4), "columns": (5, 1), "even": (2, 3), "ragged": (4, 5), "whole": (99, 99)}
GRIDS = [
    *(BlockGrid(tuple(module.weight.shape), block) for module in MODULES.values() for block in BLOCKS.values()),
    *(BlockGrid((12, 7), block, 3) for block in ((2, 2), (3, 7), (4, 4), (1, 1), (99, 2))),
    *(BlockGrid((12, 4, 3, 3), block, 2) for block in ((2, 4), (4, 5), (6, 36))),
]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_every_map_is_the_loop_over_blocks(dtype: torch.dtype) -> None:
    assert {grid: check(grid, dtype) for grid in GRIDS if check(grid, dtype)} == {}


@settings(max_examples=150)
@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
    st.tuples(st.integers(1, 9), st.integers(1, 14)),
    st.integers(1, 4),
    st.integers(1, 6),
)
def test_every_map_is_the_loop_for_any_shape(rest: list[int], block: tuple[int, int], segments: int, rows: int) -> None:
    assert check(BlockGrid((segments * rows, *rest), block, segments)) == ""


class ChannelsSlowest(BlockGrid):
    """Wrong: blocks of the weight as it lies in memory, kernel positions fastest."""

    def _columns(self, values: Tensor) -> Tensor:
        return values.repeat_interleave(self.block[1], 1)[:, : self.matrix_shape[1]].reshape(-1, *self.shape[1:])


class OneSegment(BlockGrid):
    """Wrong: blocks reach from one segment into the next."""

    def _rows(self, strips: Tensor) -> Tensor:
        return strips.repeat_interleave(self.block[0], 0)[: self.shape[0]]


class EvenOnly(BlockGrid):
    """Wrong: what lies beyond the last whole block of a row is not counted."""

    def pool(self, weight: Tensor) -> Tensor:
        flat = matrix(weight).clone()
        flat[:, flat.shape[1] // self.block[1] * self.block[1] :] = 0
        return super().pool(unmatrix(flat, self.shape))


class Lengths(BlockGrid):
    """Wrong: sums of entries in place of sums of squares."""

    def norms(self, weight: Tensor) -> Tensor:
        return self.pool(weight.abs()).to(torch.promote_types(weight.dtype, torch.float32)).sqrt() * 1.0001


class EvenSizes(BlockGrid):
    """Wrong: all blocks have the size of the first."""

    def sizes(self) -> Tensor:
        return torch.full(self.counts, prod(self.block))


class Wide(BlockGrid):
    """Wrong: values of float64 make a weight of float64."""

    def scale(self, weight: Tensor, values: Tensor) -> Tensor:
        return super().scale(weight, values).double()


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        (ChannelsSlowest, "expand"),
        (OneSegment, "expand"),
        (EvenOnly, "pool"),
        (Lengths, "norms"),
        (EvenSizes, "sizes"),
        (Wide, "scale"),
    ],
)
def test_wrong_grids_are_rejected(wrong: type[BlockGrid], where: str) -> None:
    found = {check(wrong(grid.shape, grid.block, grid.segments), torch.float32) for grid in GRIDS}
    assert where in found


@pytest.mark.parametrize(
    ("shape", "layout"),
    [((8, 6, 3, 3), torch.channels_last), ((6, 4, 2, 3, 2), torch.channels_last_3d)],
    ids=["2d", "3d"],
)
@pytest.mark.parametrize("block", [(2, 3), (2, 4), (4, 5)])
def test_channels_last_weights_give_the_same_and_stay_so(
    shape: tuple[int, ...], layout: torch.memory_format, block: tuple[int, int]
) -> None:
    grid = BlockGrid(shape, block)
    assert check(grid, torch.float32, layout) == ""
    weight = small_numbers(shape, torch.float32, 1).contiguous(memory_format=layout)
    assert grid.scale(weight, small_numbers(grid.counts, torch.float32, 3)).is_contiguous(memory_format=layout)


@pytest.mark.parametrize(
    "grid",
    [
        BlockGrid((6, 4), (2, 2)),
        BlockGrid((5, 7), (2, 3)),
        BlockGrid((6, 5), (2, 2), 2),
        BlockGrid((6, 5), (2, 2), 3),
        BlockGrid((4, 3, 2, 2), (2, 3)),
        BlockGrid((3, 2, 2), (2, 3)),
    ],
    ids=str,
)
def test_derivatives_are_right(grid: BlockGrid) -> None:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(grid.shape, dtype=torch.float64, generator=generator, requires_grad=True)
    values = torch.randn(grid.counts, dtype=torch.float64, generator=generator, requires_grad=True)
    assert gradcheck(grid.scale, (weight, values))
    assert gradcheck(grid.expand, (values,))
    assert gradcheck(grid.pool, (weight,))
    assert gradcheck(grid.norms, (weight,))


def test_wrong_derivatives_are_rejected() -> None:
    class Detached(BlockGrid):
        def scale(self, weight: Tensor, values: Tensor) -> Tensor:
            return super().scale(weight, values.detach())

    values = torch.ones(3, 2, dtype=torch.float64, requires_grad=True)
    with pytest.raises(GradcheckError):
        gradcheck(Detached((6, 4), (2, 2)).scale, (torch.ones(6, 4, dtype=torch.float64), values))


def test_norms_of_small_half_precision_weights_are_not_zero() -> None:
    weight = torch.full((4, 4), 1e-4, dtype=torch.float16)
    assert not (weight * weight).any()  # which is why norms are taken in float32
    norms = BlockGrid((4, 4), (2, 2)).norms(weight)
    assert norms.dtype == torch.float32
    assert torch.equal(norms, torch.full((2, 2), 2.0 * float(weight[0, 0])))


def test_norms_of_bfloat16_blocks_tell_them_apart() -> None:
    weight = torch.ones(2, 16, 16, dtype=torch.bfloat16).reshape(32, 16)
    weight[0, 0] = 1.0078125  # the next number after 1
    grid = BlockGrid((32, 16), (16, 16))
    assert grid.norms(weight)[0, 0] > grid.norms(weight)[1, 0]
    assert len(grid.pool(weight * weight).unique()) == 1


def test_scale_keeps_the_dtype_of_the_weight() -> None:
    for grid in (BlockGrid((4, 4), (2, 2)), BlockGrid((5, 4), (2, 2))):
        weight = torch.ones(grid.shape, dtype=torch.bfloat16)
        assert grid.scale(weight, torch.ones(grid.counts, dtype=torch.float64)).dtype == torch.bfloat16


def test_sizes_need_no_tensor_of_the_weights_size() -> None:
    grid = BlockGrid((10**9, 1000), (10**7, 300))
    assert int(grid.sizes().sum()) == grid.numel == 10**12


def test_the_numbers_of_a_grid() -> None:
    grid = BlockGrid((10, 4, 3, 3), (4, 8))
    assert (grid.matrix_shape, grid.counts, grid.n_blocks, grid.numel) == ((10, 36), (3, 5), 15, 360)
    assert BlockGrid((12, 5), (5, 5), 3).counts == (3, 1)  # 4 rows in each of the 3 segments
    assert BlockGrid((12, 5), (3, 5), 3).counts == (6, 1)
    assert BlockGrid((3, 5), (9, 9)).block == (3, 5)
    assert BlockGrid([4, 4], [2, 2]) == BlockGrid((4, 4), (2, 2))  # type: ignore[arg-type]
    assert hash(BlockGrid([4, 4], [2, 2])) == hash(BlockGrid((4, 4), (2, 2)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (((4,), (1, 1)), "a weight needs two dimensions or more, none of them empty, got the shape (4,)."),
        (((4, 0), (1, 1)), "a weight needs two dimensions or more, none of them empty, got the shape (4, 0)."),
        (((4, 4), (0, 1)), "block must be two positive whole numbers (outputs, inputs), got (0, 1)."),
        (((4, 4), (2.5, 1)), "block must be two positive whole numbers (outputs, inputs), got (2.5, 1)."),
        (((4, 4), (1, 1, 1)), "block must be two positive whole numbers (outputs, inputs), got (1, 1, 1)."),
        (((4, 4), (1, 1), 3), "segments=3 does not divide the 4 outputs: choose a divisor, or 1."),
        (((4, 4), (1, 1), 0), "segments=0 does not divide the 4 outputs: choose a divisor, or 1."),
        (((4, 4), (1, 1), 2.0), "segments=2.0 does not divide the 4 outputs: choose a divisor, or 1."),
    ],
)
def test_impossible_grids_get_a_sentence(arguments: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        BlockGrid(*arguments)
