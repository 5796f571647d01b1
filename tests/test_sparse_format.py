"""The format against its definition, entry by entry; what it refuses; and the way to BSR and SciPy and back."""

from __future__ import annotations

import copy
import re
from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="block-sparse weights are tensors")

from sparse_cases import blocks_of, matrix, scattered  # noqa: E402
from torch import Tensor  # noqa: E402

from sparseopt.nn import BlockGrid  # noqa: E402
from sparseopt.nn.sparse.format import BlockSparse  # noqa: E402

SHAPES = ((12, 8), (13, 11), (1, 9), (9, 1), (7, 6, 3), (10, 4, 2, 3), (6, 12, 1, 1))
SIDES = ((1, 1), (4, 4), (3, 2), (5, 4), (99, 99))


def random(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def masked(shape: tuple[int, ...], block: tuple[int, int], segments: int = 1, seed: int = 0) -> tuple[Any, ...]:
    """A grid, about half of its blocks, and a weight that is zero outside those."""
    grid = BlockGrid(shape, block, segments)
    mask = torch.rand(grid.counts, generator=torch.Generator().manual_seed(seed)) < 0.5
    return grid, mask, random(shape, seed=seed) * grid.expand(mask.float())


# The definition.


def departure(packed: BlockSparse, weight: Tensor) -> str:
    """The first way in which `packed` is not `weight` by the definition of the format."""
    if not torch.equal(scattered(packed), weight):
        return "read block by block"
    if not torch.equal(blocks_of(weight, packed), packed.values):
        return "zeros beyond the edges"
    if not torch.equal(packed.to_dense(), weight):
        return "to_dense"
    if not packed.values.is_contiguous():
        return "memory"
    return ""


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_a_weight_is_stored_as_defined(dtype: torch.dtype) -> None:
    weights = {(shape, block): masked(shape, block)[2].to(dtype) for shape in SHAPES for block in SIDES}
    departures = {key: departure(BlockSparse.from_dense(w, key[1]), w) for key, w in weights.items()}
    assert departures == dict.fromkeys(departures, "")
    assert len(departures) == len(SHAPES) * len(SIDES)


@settings(max_examples=100)
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=3),
    st.tuples(st.integers(1, 7), st.integers(1, 14)),
    st.integers(1, 3),
    st.integers(1, 6),
    st.integers(0, 10**6),
)
def test_any_weight_under_any_mask_is_stored_as_defined(
    rest: list[int], block: tuple[int, int], segments: int, rows: int, seed: int
) -> None:
    grid, mask, weight = masked((segments * rows, *rest), block, segments, seed)
    assert departure(BlockSparse.from_dense(weight, grid, mask), weight) == ""


def wrong_order(packed: BlockSparse) -> BlockSparse:
    """Wrong: blocks as they lie in the weight, outputs slowest."""
    return replace(packed, values=packed.values.mT.reshape(packed.values.shape))


def wrong_edge(packed: BlockSparse) -> BlockSparse:
    """Wrong: something is left beyond the edges."""
    inside = blocks_of(torch.ones(packed.shape), packed) != 0
    return replace(packed, values=torch.where(inside, packed.values, 1))


def wrong_column(packed: BlockSparse) -> BlockSparse:
    """Wrong: the grid of kernel positions is taken from the right."""
    last = packed.grid.counts[1] - 1
    return BlockSparse.from_dense(scattered(replace(packed, col=(last - packed.col).sort().values)), packed.block)


def wrong_memory(packed: BlockSparse) -> BlockSparse:
    """Wrong: a view of the untransposed blocks, which a kernel cannot read."""
    return replace(packed, values=packed.values.mT.contiguous().mT)


@pytest.mark.parametrize("wrong", [wrong_order, wrong_edge, wrong_column, wrong_memory])
def test_other_orders_are_rejected(wrong: Any) -> None:
    weight = random((13, 11))
    weight[4:8, 4:8] = 0
    packed = BlockSparse.from_dense(weight, 4)
    assert departure(packed, weight) == ""
    if wrong is wrong_column:
        weight[:, :4] = 0
        packed = BlockSparse.from_dense(weight, (13, 4))
    assert departure(wrong(packed), weight) != ""


def test_blocks_are_kept_by_what_stands_in_them() -> None:
    weight = torch.zeros(8, 12)
    weight[0, 0], weight[0, 4], weight[7, 11] = torch.nan, 1e-30, torch.inf  # the square of 1e-30 is 0 in float32
    weight[4, 4] = -0.0
    packed = BlockSparse.from_dense(weight, 4)
    assert packed.crow.tolist() == [0, 2, 3]
    assert packed.col.tolist() == [0, 1, 2]
    torch.testing.assert_close(packed.to_dense(), weight, rtol=0, atol=0, equal_nan=True)


def test_a_mask_keeps_zeros_and_drops_numbers() -> None:
    weight, mask = torch.ones(4, 6), torch.tensor([[True, False, True], [False, False, True]])
    weight[:2, :2] = 0
    packed = BlockSparse.from_dense(weight, 2, mask)
    assert (packed.crow.tolist(), packed.col.tolist()) == ([0, 2, 3], [0, 2, 2])
    assert torch.equal(packed.to_dense(), weight * mask.repeat_interleave(2, 0).repeat_interleave(2, 1))


def test_blocks_across_a_border_become_smaller() -> None:
    """8 inputs per block over 12 channels, 4 outputs over parts of 6: neither lies in one part."""
    grid, mask, weight = masked((12, 12, 2, 1), (4, 8), 2)
    packed = BlockSparse.from_dense(weight, grid, mask)
    assert packed.block == (2, 4)
    assert departure(packed, weight) == ""
    assert packed.values.numel() == grid.expand(mask.float()).count_nonzero()


def test_the_numbers_that_describe_a_weight() -> None:
    grid, mask, weight = masked((13, 11), (4, 3))
    packed = BlockSparse.from_dense(weight, grid, mask)
    rows, cols = mask.nonzero(as_tuple=True)
    assert (packed.rows.tolist(), packed.col.tolist()) == (rows.tolist(), cols.tolist())
    assert packed.block == (4, 3)
    assert packed.grid == grid
    assert packed.density == mask.float().mean().item()
    assert packed.nbytes == 4 * (int(mask.sum()) * 13 + 5)  # 12 numbers and a column each; five beginnings of rows


def test_nothing_kept_and_everything_kept() -> None:
    empty, full = BlockSparse.from_dense(torch.zeros(5, 7), 2), BlockSparse.from_dense(torch.ones(5, 7), 2)
    assert empty.values.shape == (0, 2, 2)
    assert empty.crow.tolist() == [0, 0, 0, 0]
    assert (empty.density, full.density) == (0.0, 1.0)
    assert torch.equal(empty.to_dense(), torch.zeros(5, 7))
    assert torch.equal(full.to_dense(), torch.ones(5, 7))


def test_any_layout_of_a_weight_is_read() -> None:
    weight = random((6, 4, 3, 3))
    wanted = BlockSparse.from_dense(weight, (3, 2)).values
    layouts = {
        "channels last": weight.contiguous(memory_format=torch.channels_last),
        "a slice": torch.cat([weight, weight], 1)[:, :4],
        "turned": weight.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
        "a parameter": torch.nn.Parameter(weight),
    }
    packed = {name: BlockSparse.from_dense(each, (3, 2)) for name, each in layouts.items()}
    assert [name for name, each in packed.items() if not torch.equal(each.values, wanted)] == []
    assert [name for name, each in packed.items() if each.values.requires_grad] == []


def test_the_stored_blocks_are_a_copy() -> None:
    weight = torch.ones(4, 4)
    packed = BlockSparse.from_dense(weight, 4)
    weight.zero_()
    assert torch.equal(packed.to_dense(), torch.ones(4, 4))


def test_a_gradient_passes_through_to_dense() -> None:
    packed = BlockSparse.from_dense(masked((13, 11), (4, 3))[2], (4, 3))
    values = packed.values.clone().requires_grad_()
    seed = random((13, 11), seed=1)
    replace(packed, values=values).to_dense().backward(seed)
    assert torch.equal(values.grad, blocks_of(seed, packed))


def test_to_casts_the_values_and_moves_all() -> None:
    packed = BlockSparse.from_dense(random((6, 4)), 2)
    half, away = packed.to(torch.bfloat16), packed.to("meta")
    assert torch.equal(half.values, packed.values.bfloat16())
    assert (half.crow.dtype, half.col.dtype) == (torch.int32, torch.int32)
    assert {away.values.device.type, away.crow.device.type, away.col.device.type} == {"meta"}
    assert away.values.shape == packed.values.shape


def test_a_weight_is_frozen_and_copies_apart() -> None:
    packed = BlockSparse.from_dense(random((6, 4)), 2)
    twin = copy.deepcopy(packed)
    twin.values.zero_()
    assert packed.values.abs().sum() > 0
    with pytest.raises(FrozenInstanceError):
        packed.values = twin.values  # type: ignore[misc]


# What is refused.


def parts(**changed: Any) -> dict[str, Any]:
    """Three blocks of 2 outputs x 3 inputs in a weight of 5 x 7, one part exchanged."""
    crow, col = torch.tensor([0, 2, 2, 3], dtype=torch.int32), torch.tensor([0, 2, 1], dtype=torch.int32)
    return {"values": torch.ones(3, 3, 2), "crow": crow, "col": col, "shape": (5, 7)} | changed


def int32(*numbers: int) -> Tensor:
    return torch.tensor(numbers, dtype=torch.int32)


REFUSED: dict[str, tuple[type[Exception], str, dict[str, Any]]] = {
    "whole numbers": (TypeError, "values must be floating point", {"values": torch.ones(3, 3, 2, dtype=torch.int32)}),
    "complex": (TypeError, "values must be floating point", {"values": torch.ones(3, 3, 2, dtype=torch.complex64)}),
    "long crow": (TypeError, "crow must be int32", {"crow": torch.tensor([0, 2, 2, 3])}),
    "long col": (TypeError, "col must be int32", {"col": torch.tensor([0, 2, 1])}),
    "crow of two dimensions": (ValueError, "crow must have one dimension", {"crow": int32(0, 2, 2, 3).reshape(2, 2)}),
    "col of two dimensions": (ValueError, "col must have one dimension", {"col": int32(0, 2, 1).reshape(3, 1)}),
    "flat values": (ValueError, "values must be", {"values": torch.ones(18)}),
    "blocks without rows": (ValueError, "values must be", {"values": torch.ones(3, 0, 2)}),
    "one dimension": (ValueError, "two dimensions or more", {"shape": (5,)}),
    "no outputs": (ValueError, "two dimensions or more", {"shape": (0, 7)}),
    "negative": (ValueError, "two dimensions or more", {"shape": (5, -7)}),
    "huge": (ValueError, "too large", {"shape": (5, 2**31)}),
    "channels": (ValueError, "do not divide the 7 channels", {"shape": (5, 7, 1)}),
    "tall blocks": (ValueError, "larger than the weight", {"shape": (1, 7)}),
    "wide blocks": (ValueError, "larger than the weight", {"shape": (5, 2)}),
    "short crow": (ValueError, "crow has 3 entries", {"crow": int32(0, 2, 3)}),
    "long shape": (ValueError, "crow has 4 entries", {"shape": (7, 7)}),
    "short col": (ValueError, "col has 2 entries for 3 blocks", {"col": int32(0, 2)}),
    "long end": (ValueError, "crow must increase from 0 to the 3 blocks", {"crow": int32(0, 2, 2, 4)}),
    "short end": (ValueError, "crow must increase from 0 to the 3 blocks", {"crow": int32(0, 2, 2, 2)}),
    "late start": (ValueError, "crow must increase from 0 to the 3 blocks", {"crow": int32(1, 2, 2, 3)}),
    "falling": (ValueError, "crow must increase from 0 to the 3 blocks", {"crow": int32(0, 2, 1, 3)}),
    "beyond and back": (ValueError, "crow must increase from 0 to the 3 blocks", {"crow": int32(0, 9, 9, 3)}),
    "negative column": (ValueError, "columns of blocks run from 0 to 2", {"col": int32(-1, 2, 1)}),
    "column outside": (ValueError, "columns of blocks run from 0 to 2", {"col": int32(0, 3, 1)}),
    "repeated column": (ValueError, "must increase, and one is repeated", {"col": int32(2, 2, 1)}),
    "falling columns": (ValueError, "must increase, and one is repeated", {"col": int32(2, 0, 1)}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_weight_is_refused_in_one_sentence(name: str) -> None:
    kind, message, changed = REFUSED[name]
    with pytest.raises(kind, match=re.escape(message)) as caught:
        BlockSparse(**parts(**changed))
    assert re.fullmatch(r"[^\n]+\.", str(caught.value))


def test_the_parts_themselves_are_a_weight() -> None:
    """So each refusal is of what was changed."""
    assert BlockSparse(**parts()).density == 3 / 9


@pytest.mark.parametrize(
    ("crow", "col", "rows"),
    [
        ((0, 1, 2, 3), (2, 1, 0), [0, 1, 2]),
        ((0, 0, 1, 3), (2, 0, 1), [1, 2, 2]),
        ((0, 1, 1, 3), (2, 0, 1), [0, 2, 2]),
        ((0, 3, 3, 3), (0, 1, 2), [0, 0, 0]),
        ((0, 0, 0, 3), (0, 1, 2), [2, 2, 2]),
    ],
)
def test_columns_may_fall_from_one_row_to_the_next(crow: tuple[int], col: tuple[int], rows: list[int]) -> None:
    assert BlockSparse(**parts(crow=int32(*crow), col=int32(*col))).rows.tolist() == rows


def test_grids_and_masks_of_other_weights_are_refused() -> None:
    weight = torch.ones(4, 6)
    with pytest.raises(ValueError, match=r"the grid is one of a weight \(4, 4\)"):
        BlockSparse.from_dense(weight, BlockGrid((4, 4), (2, 2)))
    with pytest.raises(ValueError, match=r"the mask is \(2, 2\), it must be \(2, 3\)"):
        BlockSparse.from_dense(weight, 2, torch.ones(2, 2, dtype=torch.bool))


# BSR and SciPy.

CONVERTED = ((12, 8), (13, 11), (1, 9), (10, 4, 2, 3))


@pytest.mark.filterwarnings("ignore:Sparse BSR tensor support is in beta")
@pytest.mark.parametrize("shape", CONVERTED, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_bsr_and_scipy_hold_the_same_matrix(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    weight = masked(shape, (5, 2))[2].to(dtype)
    packed = BlockSparse.from_dense(weight, (5, 2))
    rows, cols = packed.grid.matrix_shape
    for dense in (packed.to_bsr().to_dense(), torch.from_numpy(packed.to_scipy().toarray())):
        assert torch.equal(dense[:rows, :cols], matrix(weight))
        assert dense[rows:].count_nonzero() == 0
        assert dense[:, cols:].count_nonzero() == 0
    for back in (BlockSparse.from_bsr(packed.to_bsr(), shape), BlockSparse.from_scipy(packed.to_scipy(), shape)):
        assert back.shape == packed.shape
        for name in ("values", "crow", "col"):
            assert torch.equal(getattr(back, name), getattr(packed, name))
            assert getattr(back, name).is_contiguous()


def test_blocks_of_scipy_in_any_order_are_sorted_and_added() -> None:
    data = np.arange(1.0, 13.0).reshape(3, 2, 2)
    made = scipy.sparse.bsr_array((data, [1, 0, 1], [0, 3]), shape=(2, 4))
    packed = BlockSparse.from_scipy(made)
    assert packed.col.tolist() == [0, 1]
    assert np.array_equal(packed.to_dense().numpy(), made.toarray())
    assert made.indices.tolist() == [1, 0, 1]  # the array itself is as it was


@pytest.mark.parametrize("block", [1, (1, 3), (3, 1), 2])
def test_what_happens_to_the_scipy_array_does_not_reach_the_weight(block: Any) -> None:
    weight = random((6, 6))
    packed = BlockSparse.from_dense(weight, block)
    made = packed.to_scipy()
    made.data[:] = 0
    made.eliminate_zeros()
    assert torch.equal(packed.to_dense(), weight)
    BlockSparse(packed.values, packed.crow, packed.col, packed.shape)
    back = BlockSparse.from_scipy(array := scipy.sparse.bsr_array(weight.numpy(), blocksize=packed.block))
    array.data[:] = 0
    assert torch.equal(back.to_dense(), weight)


@pytest.mark.filterwarnings("ignore:Sparse BSR tensor support is in beta")
def test_other_formats_are_refused() -> None:
    with pytest.raises(TypeError, match=r"takes a SciPy BSR array, got csr_array"):
        BlockSparse.from_scipy(scipy.sparse.csr_array(np.eye(4)))
    with pytest.raises(TypeError, match="values must be floating point"):
        BlockSparse.from_scipy(scipy.sparse.bsr_array(np.eye(4, dtype=int), blocksize=(2, 2)))
    with pytest.raises(ValueError, match=r"takes a two-dimensional BSR tensor, got torch\.strided"):
        BlockSparse.from_bsr(torch.eye(4))
    with pytest.raises(ValueError, match="crow has 3 entries"):
        BlockSparse.from_bsr(BlockSparse.from_dense(torch.eye(4), 2).to_bsr(), (6, 4))
