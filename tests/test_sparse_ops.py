"""Laws of products with block-sparse weights: the operator keeps them, with and without autograd, wrong ones do not.

The oracle is torch's dense layer in float64 on the weight with its zeros.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="block-sparse products are torch operators")

import sparse_cases as cases  # noqa: E402
from sparse_cases import BLOCKS, KINDS, Problem, Product, block_sparse, dense, error, problem, recorded  # noqa: E402
from torch import Tensor  # noqa: E402

from sparseopt.nn.sparse import products  # noqa: E402
from sparseopt.nn.sparse.format import BlockSparse  # noqa: E402

CLOSE = 1e-5
RIGHT = (block_sparse, recorded)


# The product itself.


def equals_dense(product: Product, *problems: Problem) -> None:
    for p, activation in itertools.product(problems, ("none", "relu")):
        y = p.of(product, activation)
        assert y.dtype == p.x.dtype
        assert error(y, p.wanted(activation)) < CLOSE


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_block_and_geometry_is_the_dense_product(block: tuple[int, int], kind: str) -> None:
    for product in RIGHT:
        equals_dense(product, problem(kind, block))


@pytest.mark.parametrize("block", [(8, 8), (5, 3), (16, 16), (1, 16), (20, 4)], ids=str)
def test_edges_of_any_length_are_the_dense_product(block: tuple[int, int]) -> None:
    out = range(block[0], 2 * block[0] + 1)
    inputs = range(block[1], 2 * block[1] + 1)
    longest = max(len(out), len(inputs))
    for _, rows, cols in zip(range(longest), itertools.cycle(out), itertools.cycle(inputs)):
        equals_dense(block_sparse, problem(shape=(rows, cols), block=block, kept=1, seed=rows + cols))


@pytest.mark.parametrize("block", [(8, 8), (1, 16), (16, 16), (5, 3), (64, 64)], ids=str)
def test_any_number_of_rows_is_the_dense_product(block: tuple[int, int]) -> None:
    whole = problem(block=block, batch=40)
    for n in range(41):
        p = replace(whole, x=whole.x[:n])
        assert p.of(block_sparse).shape == p.wanted().shape
        equals_dense(block_sparse, p)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [0, 1, 2])
def test_few_images_and_none_are_the_dense_product(kind: str, batch: int) -> None:
    for product in RIGHT:
        equals_dense(product, problem(kind, batch=batch))


@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (2, 0), (2, 3, 4, 5)], ids=str)
def test_any_number_of_dimensions_before_the_inputs(shape: tuple[int, ...]) -> None:
    p = problem()
    x = torch.randn(*shape, p.weight.shape[1], generator=torch.Generator().manual_seed(1))
    for product in RIGHT:
        equals_dense(product, replace(p, x=x))


@pytest.mark.parametrize("shape", [(6, 12, 3, 3), (7, 6, 1, 1), (5, 9, 3)], ids=str)
def test_blocks_that_do_not_divide_the_channels_are_the_dense_product(shape: tuple[int, ...]) -> None:
    kind = {(3, 3): "conv3x3", (1, 1): "conv1x1", (3,): "conv1d"}[shape[2:]]
    for block in ((4, 8), (5, 5), (99, 99)):
        equals_dense(block_sparse, problem(kind, block, shape))


@settings(max_examples=60)
@given(
    st.sampled_from(sorted(KINDS)),
    st.sampled_from([(1, 1), (5, 3), (8, 8), (16, 16), (1, 16), (20, 4)]),
    st.tuples(st.integers(0, 24), st.integers(0, 24)),
    st.integers(0, 9),
    st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    st.booleans(),
    st.integers(0, 10**6),
)
def test_any_problem_is_the_dense_product(
    kind: str, block: tuple[int, int], more: tuple[int, int], batch: int, kept: float, bias: bool, seed: int
) -> None:
    kernel = KINDS[kind][0]
    inputs = block[1] * (1 + more[1] % 3) if kernel else block[1] + more[1]
    p = problem(kind, block, (block[0] + more[0], inputs, *kernel), batch, kept, bias=bias, seed=seed)
    for product in RIGHT:
        equals_dense(product, p)


SQUARE, RAGGED = problem(block=(4, 4)), problem(block=(5, 3))
WRONG_PRODUCTS: list[tuple[Product, Problem]] = [
    (cases.transposed_blocks, SQUARE),
    (cases.last_block_lost, RAGGED),
    (cases.last_block_lost, problem("conv3x3")),
    (cases.empty_row_filled, RAGGED),
    (cases.bias_twice, RAGGED),
    (cases.last_input_lost, RAGGED),
    (cases.last_output_lost, RAGGED),
    (cases.last_row_lost, problem(batch=5)),
    (cases.relu_before_bias, RAGGED),
    (cases.relu_before_bias, problem("conv1d")),
    (cases.mirrored_kernel, problem("conv1d")),
    (cases.mirrored_kernel, problem("conv3x3 stride 2")),
    (cases.axes_exchanged, problem("conv2x3 uneven")),
]


@pytest.mark.parametrize(("wrong", "p"), WRONG_PRODUCTS, ids=lambda each: getattr(each, "__name__", "on"))
def test_wrong_products_are_rejected(wrong: Product, p: Problem) -> None:
    with pytest.raises(AssertionError):
        equals_dense(wrong, p)


# Laws: each is a function of the product.


def nothing_kept(product: Product) -> None:
    """What remains is the bias, to the bit."""
    for kind, batch in itertools.product(("linear", "conv3x3 stride 2", "conv1d"), (0, 1, 5)):
        p = problem(kind, kept=0, batch=batch)
        assert torch.equal(p.of(product), p.wanted().float())
        assert torch.equal(p.of(product, "relu"), p.wanted("relu").float())
        p = replace(p, bias=None)
        assert p.of(product).count_nonzero() == 0


def varied() -> list[Problem]:
    """A layer of each kind, and a Linear layer of whole blocks."""
    kinds = ("linear", "conv1x1", "conv3x3", "conv2x3 uneven", "conv1d")
    return [problem(shape=(10, 9), batch=4), *(problem(kind, (4, 3), batch=4) for kind in kinds)]


def bad_numbers_stay(product: Product) -> None:
    """NaN and inf reach the outputs that a stored block connects them to, and no others."""
    for whole, bad in itertools.product(varied(), (torch.nan, torch.inf)):
        reach = cases.scattered(whole.packed, torch.ones_like(whole.packed.values))
        for row, channel, place in ((1, 0, 0), (2, -1, -1), (3, 1, 2)):
            x = whole.x.clone()
            x[(row, channel, *[place] * (x.ndim - 2))] = bad
            y = replace(whole, x=x).of(product)
            reached = dense((~x.isfinite()).double(), reach, **whole.geometry) > 0
            assert torch.equal(~y.isfinite(), reached)
            assert error(y.where(~reached, 0), whole.wanted().where(~reached, 0)) < CLOSE


def relu_keeps_nan(product: Product) -> None:
    for kind in ("linear", "conv3x3"):
        p = problem(kind)
        p.x[1] = torch.nan
        y = p.of(product, "relu")
        assert torch.equal(y.isnan(), p.of(block_sparse).isnan())
        assert y.isnan().any()
        assert (y.nan_to_num() >= 0).all()


def surrounded(tensor: Tensor, gaps: int) -> Tensor:
    """A copy with NaN before and behind it in memory, and `gaps` of them behind each row."""
    rows = tensor.reshape(-1, tensor.shape[-1])
    held = torch.full((len(rows) + 2, rows.shape[1] + gaps), torch.nan, dtype=tensor.dtype)
    inside = held[1:-1, : rows.shape[1]]
    inside.copy_(rows)
    return inside.unflatten(0, tensor.shape[:-1])


def neighbours_in_memory_are_not_read(product: Product) -> None:
    """Only the entries of a tensor count, not what surrounds them in memory, and not what blocks are filled up with."""
    for p, gaps in itertools.product(varied(), (0, 5)):
        if p.x.ndim == 2:
            x = surrounded(p.x, gaps)
        else:  # the pixels of a channels-last image
            x = surrounded(p.x.movedim(1, -1).contiguous(), gaps).movedim(-1, 1)
        values = surrounded(p.packed.values, gaps)
        assert p.bias is not None
        bias = surrounded(p.bias.unsqueeze(0), gaps)[0]
        inside = cases.blocks_of(torch.ones(p.packed.shape), p.packed) != 0
        for packed in (replace(p.packed, values=values), replace(p.packed, values=values.where(inside, 7))):
            assert error(replace(p, x=x, packed=packed, bias=bias).of(product), p.wanted()) < CLOSE


def every_layout_is_read(product: Product) -> None:
    for p, layout in itertools.product(varied(), LAYOUTS):
        x = LAYOUTS[layout](p.x)
        before = x.clone()
        assert error(replace(p, x=x).of(product), dense(before, p.weight, p.bias, **p.geometry)) < CLOSE
        assert torch.equal(x, before)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "plain": lambda x: x,
    "turned": lambda x: x.permute(*reversed(range(x.ndim))).contiguous().permute(*reversed(range(x.ndim))),
    "channels last": lambda x: x.movedim(1, -1).contiguous().movedim(-1, 1),
    "every second row": lambda x: x.repeat_interleave(2, 0)[::2],
    "every second channel": lambda x: x.repeat_interleave(2, 1)[:, ::2],
    "every second pixel": lambda x: x.repeat_interleave(2, -1)[..., ::2],
    "one row for all": lambda x: x[:1].expand_as(x),
    "one channel for all": lambda x: x[:, :1].expand_as(x),
    "one pixel for all": lambda x: x[..., :1].expand_as(x),
    "one number for all": lambda x: torch.ones(1).expand_as(x),
    "misaligned": lambda x: torch.cat([x[..., :1], x], -1)[..., 1:],
    "misaligned channels": lambda x: torch.cat([x[:, :1], x], 1)[:, 1:],
    "deep in its storage": lambda x: torch.cat([x.new_zeros(7), x.flatten()])[7:].reshape(x.shape),
    "windows": lambda x: torch.arange(float(x.numel())).as_strided(x.shape, [1] * x.ndim),
    "negative bit": lambda x: torch._neg_view(x.clone()),
    "imaginary part": lambda x: torch.complex(torch.zeros_like(x), x).conj().imag,
    "parameter": lambda x: torch.nn.Parameter(x),
    "of inference mode": lambda x: inferred(x),
}


def inferred(x: Tensor) -> Tensor:
    with torch.inference_mode():
        return x.clone()


def every_layout_of_a_weight_is_read(product: Product) -> None:
    for kind in ("linear", "conv3x3", "conv1d"):
        p = problem(kind, (4, 3))
        packed, bias = p.packed, p.bias
        assert bias is not None
        for values in (
            packed.values.mT.contiguous().mT,
            torch.stack([packed.values, packed.values], 3)[..., 0],
            torch.cat([packed.values[:, :, :1], packed.values], 2)[..., 1:],
            inferred(packed.values),
        ):
            equals_dense(product, replace(p, packed=replace(packed, values=values)))
        crow, col = (torch.stack([index, index], 1)[:, 0] for index in (packed.crow, packed.col))
        equals_dense(product, replace(p, packed=replace(packed, crow=crow, col=col)))
        for other in (
            torch.stack([bias, bias], 1)[:, 0],
            torch.ones(1).expand_as(bias),
            bias.double(),
            bias.bfloat16(),
        ):
            equals_dense(product, replace(p, bias=other))


LARGE = [
    problem("linear", (16, 16), (200, 333), batch=37, kept=0.6),
    problem("conv3x3", (8, 16), (40, 64, 3, 3), batch=9),
]


def threads_agree_to_the_bit(product: Product) -> None:
    threads = torch.get_num_threads()
    try:
        for p, n in itertools.product(LARGE, (1, 7, None)):
            p = replace(p, x=p.x[:n])
            results = []
            for number in (1, 2, 4, 2, 1):
                torch.set_num_threads(number)
                results.append(p.of(product))
            assert all(torch.equal(results[0], each) for each in results)
            assert error(results[0], p.wanted()) < CLOSE
    finally:
        torch.set_num_threads(threads)


def calls_at_once_do_not_mix(product: Product) -> None:
    for p in (problem("linear", (8, 8), (33, 50), batch=6), problem("conv3x3", (8, 4), batch=2), *LARGE):
        inputs = [p.x + i for i in range(24)]
        alone = [replace(p, x=x).of(block_sparse) for x in inputs]
        with ThreadPoolExecutor(6) as pool:
            together = list(pool.map(lambda x, p=p: replace(p, x=x).of(product), inputs))
        assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def changes_are_seen(product: Product) -> None:
    """Whatever way a tensor of the weight is written through, the next product is one with what it now holds."""
    for change, make in itertools.product(CHANGES.values(), (torch.clone, torch.nn.Parameter, inferred)):
        p = problem("linear", (4, 3), seed=1)
        packed, bias = replace(p.packed, values=make(p.packed.values.clone())), p.bias
        assert bias is not None
        for factor in (1, 2, 4):
            held = cases.scattered(packed)
            y = product(p.x, packed, bias * factor)
            assert error(y, dense(p.x, held, bias * factor)) < CLOSE
            with torch.inference_mode(make is inferred), torch.no_grad():
                change(packed.values)


def through_numpy(values: Tensor) -> None:
    values.detach().numpy()[:] *= 2


def replaced(values: Tensor) -> None:
    values.data = values.data * 2


CHANGES: dict[str, Callable[[Tensor], Any]] = {
    "in place": lambda values: values.mul_(2),
    "one number": lambda values: values[0, 1].fill_(9),
    "through data": lambda values: values.data.mul_(2),
    "through a view": lambda values: values.detach().flatten()[:5].mul_(-1),
    "through NumPy": through_numpy,
    "other data": replaced,
    "copied": lambda values: values.copy_(values * 3),
}


def memory_used_again_holds_another_weight(product: Product) -> None:
    """New tensors may begin where others have lain, and count their changes from the start as those did."""
    first = problem("linear", (8, 8), (64, 64), kept=1)
    held = first.packed.values.numpy().copy()
    for seed in range(4):
        p = problem("linear", (8, 8), (64, 64), kept=1, seed=seed)
        held[:] = p.packed.values.numpy()
        again = BlockSparse(torch.from_numpy(held), p.packed.crow.clone(), p.packed.col.clone(), p.packed.shape)
        assert error(replace(p, packed=again).of(product), p.wanted()) < CLOSE
        del again


def structure_loaded_in_place_is_seen(product: Product) -> None:
    p = problem("linear", (4, 3), (16, 12), kept=1)
    half = BlockSparse(
        p.packed.values[:4], *(torch.tensor(n, dtype=torch.int32) for n in ([0, 1, 2, 3, 4], [0] * 4)), (16, 12)
    )
    for columns in ([0, 0, 0, 0], [3, 1, 2, 0], [1, 1, 1, 1]):
        half.col.copy_(torch.tensor(columns))
        assert error(product(p.x, half), dense(p.x, cases.scattered(half))) < CLOSE
    half.crow.copy_(torch.tensor([0, 0, 0, 0, 4]))
    half.col.copy_(torch.tensor([0, 1, 2, 3]))
    assert error(product(p.x, half), dense(p.x, cases.scattered(half))) < CLOSE


def one_rounding(product: Product) -> None:
    """Products are added up in float32 whatever the dtypes; the result is rounded once, to the dtype of x."""
    for kind, weights, activations in itertools.product(("linear", "conv3x3"), DTYPES, DTYPES):
        p = problem(kind, (16, 16), (24, 160, *KINDS[kind][0]), dtype=weights, x_dtype=activations)
        y = p.of(product)
        wanted = p.wanted()
        unit = torch.finfo(activations).eps / 2 if activations.itemsize == 2 else 0.0
        assert y.dtype == activations
        assert y.shape == wanted.shape
        close = 1e-12 if weights == activations == torch.float64 else 4e-6
        excess = (y.double() - wanted).abs() - unit * wanted.abs() - close * wanted.abs().max()
        assert excess.max() <= 0


DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def all_of_y_is_written(product: Product) -> None:
    """Of memory that is allocated uninitialized, each entry of y is written, and nothing around it is."""
    allocated, guards, empty = [], 64, torch.empty

    def guarded(*size: Any, **options: Any) -> Tensor:
        shape = torch.Size(size[0] if len(size) == 1 and not isinstance(size[0], int) else size)
        if options.get("dtype", torch.float32) != torch.float32:
            return empty(*size, **options)
        held = torch.full((shape.numel() + 2 * guards,), torch.nan)
        allocated.append(held)
        return held[guards : guards + shape.numel()].view(shape)

    for kind, batch in itertools.product(("linear", "conv1x1", "conv3x3 stride 2", "conv1d"), (1, 2, 7, 17)):
        for block in ((4, 3), (8, 8), (16, 16), (1, 16), (67, 3)):
            p = problem(kind, block, batch=batch)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(torch, "empty", guarded)
                y = p.of(product)
            assert error(y, p.wanted()) < CLOSE
            while allocated:
                held = allocated.pop()
                assert held[:guards].isnan().all()
                assert held[-guards:].isnan().all()


def last_entry_forgotten(x: Tensor, weight: BlockSparse, *rest: Any, **geometry: Any) -> Tensor:
    """Wrong: one number of y is not written."""
    y = block_sparse(x, weight, *rest, **geometry)
    into = torch.empty(y.numel())
    into[:-1] = y.flatten()[:-1]
    return into.view(y.shape)


def one_entry_too_many(x: Tensor, weight: BlockSparse, *rest: Any, **geometry: Any) -> Tensor:
    """Wrong: one number behind y is written."""
    y = block_sparse(x, weight, *rest, **geometry)
    into = torch.empty(y.numel())
    into.copy_(y.flatten())
    if into.storage_offset():
        into.as_strided((1,), (1,), into.storage_offset() + y.numel()).zero_()
    return into.view(y.shape)


def remembered(key: Callable[[BlockSparse], Any]) -> Product:
    """Wrong: a copy of the weight is made once, and used until `key` changes."""
    copies: dict[Any, BlockSparse] = {}

    def product(x: Tensor, weight: BlockSparse, *rest: Any, **geometry: Any) -> Tensor:
        parts = (weight.values.detach().clone(), weight.crow.clone(), weight.col.clone())
        copied = copies.setdefault(key(weight), BlockSparse(*parts, weight.shape))
        return block_sparse(x, copied, *rest, **geometry)

    return product


def by_version(weight: BlockSparse) -> Any:
    counted = 0 if weight.values.is_inference() else weight.values._version
    return id(weight.values), weight.values.data_ptr(), counted


def by_place(weight: BlockSparse) -> Any:
    return weight.values.data_ptr(), weight.values.shape


Law = Callable[[Product], None]
LAWS: dict[Law, list[Product]] = {
    nothing_kept: [cases.bias_twice, cases.relu_before_bias],
    bad_numbers_stay: [cases.zeros_multiplied, cases.rows_mixed],
    relu_keeps_nan: [cases.relu_without_nan],
    neighbours_in_memory_are_not_read: [cases.whole_blocks_of_x, cases.weight_in_memory],
    every_layout_is_read: [cases.packed_in_memory, cases.input_overwritten],
    every_layout_of_a_weight_is_read: [cases.weight_in_memory],
    threads_agree_to_the_bit: [cases.sum_per_thread],
    calls_at_once_do_not_mix: [cases.shared_scratch],
    changes_are_seen: [remembered(by_version), remembered(by_place)],
    memory_used_again_holds_another_weight: [remembered(by_place)],
    structure_loaded_in_place_is_seen: [remembered(by_version)],
    one_rounding: [cases.sums_in_half],
    all_of_y_is_written: [last_entry_forgotten, one_entry_too_many],
}


def named(each: Any) -> str:
    return each.__name__


@pytest.mark.parametrize("product", RIGHT, ids=named)
@pytest.mark.parametrize("law", LAWS, ids=named)
def test_the_law_holds(law: Law, product: Product) -> None:
    law(product)


@pytest.mark.parametrize(("law", "wrong"), [(law, wrong) for law in LAWS for wrong in LAWS[law]], ids=named)
def test_the_law_rejects(law: Law, wrong: Product) -> None:
    with pytest.raises(AssertionError):
        law(wrong)


# The operators called by hand.


def operands(**changed: Any) -> tuple[Any, ...]:
    """A call of `block_product`: x with channels last, blocks of 4 x 3, a kernel of 3 x 3; parts exchanged."""
    p = problem("conv3x3", (4, 3), (18, 9, 3, 3))
    parts: dict[str, Any] = {
        "x": p.x.permute(0, 2, 3, 1),
        "values": p.packed.values,
        "crow": p.packed.crow,
        "col": p.packed.col,
        "bias": p.bias,
        "out": 18,
        "kernel": [3, 3],
        "stride": [1, 1],
        "padding": [1, 1],
        "dilation": [1, 1],
        "relu": False,
    }
    changed = {name: change(parts[name]) if callable(change) else change for name, change in changed.items()}
    return tuple((parts | changed).values())


UNFIT: dict[str, dict[str, Any]] = {
    "fewer channels": {"x": lambda x: x[..., :6]},
    "an image too few dimensions": {"x": lambda x: x[0]},
    "values of two dimensions": {"values": lambda values: values[0]},
    "fewer values": {"values": lambda values: values[:-1]},
    "taller blocks": {"values": lambda values: values.repeat(1, 1, 5)},
    "short crow": {"crow": lambda crow: crow[:-1]},
    "no crow": {"crow": lambda crow: crow[:0]},
    "long crow": {"crow": lambda crow: torch.cat([crow, crow[-1:]])},
    "crow in 64 bits": {"crow": lambda crow: crow.long()},
    "short col": {"col": lambda col: col[:-1]},
    "columns beyond": {"col": lambda col: col + 27},
    "columns below": {"col": lambda col: col - 27},
    "short bias": {"bias": lambda bias: bias[:1]},
    "long bias": {"bias": lambda bias: torch.cat([bias, bias])},
    "fewer outputs": {"out": 16},
    "more outputs": {"out": 21},
    "no outputs": {"out": 0},
    "negative outputs": {"out": -18},
    "a smaller kernel": {"kernel": [1, 3]},
    "a kernel of nothing": {"kernel": [0, 3]},
    "a kernel of one number": {"kernel": [3]},
    "stride 0": {"stride": [0, 1]},
    "negative stride": {"stride": [-1, 1]},
    "negative padding": {"padding": [-1, 0]},
    "negative dilation": {"dilation": [1, -1]},
    "an image that is too small": {"dilation": [9, 1]},
}


@pytest.mark.parametrize("name", UNFIT)
def test_operands_that_do_not_fit_are_refused(name: str) -> None:
    """Kernels trust sizes with addresses."""
    wanted = products.block_product(*operands())
    assert wanted.isfinite().all()
    with pytest.raises((ValueError, TypeError, RuntimeError, IndexError)):
        products.block_product(*operands(**UNFIT[name]))


@pytest.mark.parametrize("name", ["stride", "padding", "grad", "col", "crow"])
def test_operands_of_the_gradient_that_do_not_fit_are_refused(name: str) -> None:
    x, values, crow, col, _, _, kernel, stride, padding, dilation, _ = operands()
    grad = torch.ones(3, 6, 5, 18)
    parts = {"grad": grad, "crow": crow, "col": col, "block": (4, 3), "stride": stride, "padding": padding}

    def call(grad, crow, col, block, stride, padding):
        return products.block_product_grad(x, grad, crow, col, block, kernel, stride, padding, dilation)

    wrong = {
        "grad": grad[:, :5],
        "crow": crow + 1,
        "col": col + 27,
        "stride": [2, 2],
        "padding": [0, 0],
    }
    assert call(**parts).shape == values.shape
    with pytest.raises((ValueError, TypeError, RuntimeError, IndexError)):
        call(**parts | {name: wrong[name]})
