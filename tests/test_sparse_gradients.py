"""Derivatives of products with block-sparse weights, against autograd through the dense layer in float64."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="block-sparse products are torch operators")

import sparse_cases as cases  # noqa: E402
from sparse_cases import KINDS, Problem, Product, block_sparse, dense, error, problem  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.autograd.gradcheck import GradcheckError, gradcheck, gradgradcheck  # noqa: E402

from sparseopt.nn.sparse import products  # noqa: E402

ACTIVATIONS = ("none", "relu")


def leaves(p: Problem) -> tuple[Tensor, ...]:
    given = (p.x, p.packed.values, *([] if p.bias is None else [p.bias]))
    return tuple(each.detach().clone().requires_grad_() for each in given)


def through(p: Problem, product: Product, activation: str) -> Callable[..., Tensor]:
    def function(x: Tensor, values: Tensor, bias: Tensor | None = None) -> Tensor:
        return product(x, replace(p.packed, values=values), bias, activation, **p.geometry)

    return function


def gradients(p: Problem, product: Product, activation: str, seed: Tensor) -> tuple[Tensor, ...]:
    inputs = leaves(p)
    y = through(p, product, activation)(*inputs)
    return torch.autograd.grad(y, inputs, seed.to(y.dtype), allow_unused=True, materialize_grads=True)


def wanted_gradients(p: Problem, activation: str, seed: Tensor) -> list[Tensor]:
    """Those of the dense layer; of its weight, what belongs to a stored block, and zero beyond the edges."""
    x, weight = p.x.double().requires_grad_(), p.weight.clone().requires_grad_()
    bias = [] if p.bias is None else [p.bias.double().requires_grad_()]
    y = dense(x, weight, *(bias or [None]), activation, **p.geometry)
    of_x, of_weight, *of_bias = torch.autograd.grad(y, (x, weight, *bias), seed.double())
    return [of_x, cases.blocks_of(of_weight, p.packed), *of_bias]


def gradients_are_those_of_the_dense_layer(product: Product, *problems: Problem) -> None:
    for p, activation in itertools.product(problems, ACTIVATIONS):
        seed = torch.randn(p.wanted().shape, generator=torch.Generator().manual_seed(3))
        for got, wanted, leaf in zip(
            gradients(p, product, activation, seed), wanted_gradients(p, activation, seed), leaves(p), strict=True
        ):
            assert got.dtype == leaf.dtype
            assert error(got, wanted) < 1e-5
            assert got[wanted == 0].count_nonzero() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_every_geometry(kind: str) -> None:
    shape = (10, 12, *KINDS[kind][0])
    gradients_are_those_of_the_dense_layer(
        block_sparse,
        *(problem(kind, block) for block in ((4, 3), (16, 16), (1, 1), (1, 16), (20, 4))),
        *(problem(kind, (4, 8), shape, batch=n, bias=n > 1) for n in (0, 1, 2, 9)),
        problem(kind, kept=0),
    )


# The others are products of the same loops, compiled for each.
COMPILED = ((1, 1), (5, 5), (8, 8), (16, 16), (32, 32), (8, 32), (1, 16), (67, 3))


@pytest.mark.parametrize(
    "block", [pytest.param(b, marks=[] if b in COMPILED else [pytest.mark.slow]) for b in cases.BLOCKS], ids=str
)
def test_gradients_of_every_block(block: tuple[int, int]) -> None:
    gradients_are_those_of_the_dense_layer(block_sparse, problem("linear", block), problem("conv1d", block, batch=1))


def test_gradients_where_pixels_are_skipped_or_fall_outside() -> None:
    """A stride that leaves pixels over, padding wider than the kernel reaches, and padding of a single position."""
    geometries = (
        ("conv3x3", {"stride": (4, 3), "padding": (0, 0), "dilation": (1, 1)}),
        ("conv3x3", {"stride": (1, 1), "padding": (4, 5), "dilation": (1, 1)}),
        ("conv3x3", {"stride": (3, 2), "padding": (5, 3), "dilation": (3, 2)}),
        ("conv1x1", {"stride": (5, 2), "padding": (0, 0), "dilation": (1, 1)}),
        ("conv1x1", {"stride": (3, 4), "padding": (2, 3), "dilation": (2, 2)}),
        ("conv1d", {"stride": (5,), "padding": (3,), "dilation": (3,)}),
    )
    problems = [replace(problem(kind), geometry=geometry) for kind, geometry in geometries]
    gradients_are_those_of_the_dense_layer(block_sparse, *problems)


@pytest.mark.parametrize(
    "wrong",
    [cases.gradient_halved, cases.bias_without_gradient, cases.straight_through, cases.last_input_lost],
    ids=lambda each: each.__name__,
)
def test_wrong_gradients_are_rejected(wrong: Product) -> None:
    with pytest.raises(AssertionError):
        gradients_are_those_of_the_dense_layer(wrong, problem())


def test_only_what_is_asked_for_is_differentiated() -> None:
    p = problem("conv3x3")
    seed = torch.ones(p.wanted().shape)
    wanted = wanted_gradients(p, "none", seed)
    for asked in itertools.product((False, True), repeat=3):
        inputs = [leaf.requires_grad_(needed) for leaf, needed in zip(leaves(p), asked, strict=True)]
        y = through(p, block_sparse, "none")(*inputs)
        assert y.requires_grad == any(asked)
        if any(asked):
            y.backward(seed)
        assert [leaf.grad is not None for leaf in inputs] == list(asked)
        assert all(error(leaf.grad, w) < 1e-5 for leaf, w in zip(inputs, wanted, strict=True) if leaf.requires_grad)


# Finite differences.


def small(kind: str) -> Problem:
    shape = (5, 4, *KINDS[kind][0]) if KINDS[kind][0] else (5, 7)
    return problem(kind, (2, 2), shape, batch=1, dtype=torch.float64)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(
    "kind", ["linear", "conv1x1 stride 2 padding 1", "conv3x3 stride 2", "conv1d stride 2 dilation 2"]
)
def test_first_and_second_derivatives_in_float64(kind: str, activation: str) -> None:
    p = small(kind)
    function = through(p, block_sparse, activation)
    assert gradcheck(function, leaves(p), fast_mode=True)
    assert gradgradcheck(function, leaves(p), fast_mode=True)


@pytest.mark.parametrize("wrong", [cases.gradient_halved, cases.bias_without_gradient], ids=lambda each: each.__name__)
def test_finite_differences_reject_wrong_gradients(wrong: Product) -> None:
    p = small("linear")
    with pytest.raises((GradcheckError, RuntimeError), match=r"Jacobian|not require grad"):
        gradcheck(through(p, wrong, "none"), leaves(p))


def differences_agree(product: Product, p: Problem) -> None:
    """The product is linear in each of its three inputs, so a step of 1 makes no error but that of rounding."""
    seed = torch.randn(p.wanted().shape, generator=torch.Generator().manual_seed(5))
    function, inputs = through(p, product, "none"), [leaf.detach() for leaf in leaves(p)]
    size = (function(*inputs) * seed).abs().sum()
    for i, gradient in enumerate(gradients(p, product, "none", seed)):
        direction = torch.randn(inputs[i].shape, generator=torch.Generator().manual_seed(i))
        ahead, behind = ([*inputs[:i], inputs[i] + sign * direction, *inputs[i + 1 :]] for sign in (1, -1))
        slope = ((function(*ahead) - function(*behind)) * seed).sum() / 2
        assert abs(slope - (gradient * direction).sum()) < 1e-5 * size


@pytest.mark.parametrize("kind", KINDS)
def test_finite_differences_in_float32(kind: str) -> None:
    differences_agree(block_sparse, problem(kind, (8, 8)))
    with pytest.raises(AssertionError):
        differences_agree(cases.gradient_halved, problem(kind, (8, 8)))


# Dtypes, bad numbers, threads.


def one_rounding_of_gradients(product: Product) -> None:
    """Gradients are added up in float32 and rounded once, to the dtype of what they belong to."""
    for kind, weights, activations in itertools.product(("linear", "conv3x3"), DTYPES, DTYPES):
        p = problem(kind, (16, 16), (24, 48, *KINDS[kind][0]), batch=32, dtype=weights, x_dtype=activations)
        seed = torch.randn(p.wanted().shape, generator=torch.Generator().manual_seed(3)).to(activations)
        for got, wanted, leaf in zip(
            gradients(p, product, "none", seed), wanted_gradients(p, "none", seed), leaves(p), strict=True
        ):
            # where y has another dtype than the leaf, a gradient may be rounded to both
            unit = sum(torch.finfo(each).eps / 2 for each in {leaf.dtype, activations} if each.itemsize == 2)
            assert got.dtype == leaf.dtype
            excess = (got.double() - wanted).abs() - unit * wanted.abs() - 1e-5 * wanted.abs().max()
            assert excess.max() <= 0


DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def gradients_in_half(x: Tensor, weight: Any, bias: Tensor | None = None, *rest: Any, **geometry: Any) -> Tensor:
    """Wrong: the gradients of images are added up in bfloat16."""
    values = weight.values
    y = [block_sparse(image[None], replace(weight, values=values.bfloat16().to(values.dtype)), bias, *rest, **geometry)
         for image in x]  # fmt: skip
    return torch.cat(y)


def test_gradients_are_rounded_once() -> None:
    one_rounding_of_gradients(block_sparse)
    with pytest.raises(AssertionError):
        one_rounding_of_gradients(gradients_in_half)


def relu_passes_what_torch_passes(product: Product) -> None:
    """Where y is 0 even an infinite gradient ends, and where y is NaN it passes."""
    p = problem(batch=4)
    p.x[1] = torch.nan
    seed = torch.ones(p.wanted().shape)
    seed[2:] = torch.where(p.wanted("relu")[2:] == 0, torch.inf, 1.0)
    y = p.of(block_sparse)
    wanted = torch.ops.aten.threshold_backward(seed, y.relu(), 0).sum(0)
    assert torch.equal(gradients(p, product, "relu", seed)[2], wanted)


def mask_multiplied(
    x: Tensor, weight: Any, bias: Tensor | None = None, activation: str = "none", **geometry: Any
) -> Tensor:
    """Wrong: the gradient is multiplied by zeros instead of left out."""
    y = block_sparse(x, weight, bias, "none", **geometry)
    return y * (y > 0) if activation == "relu" else y


def test_bad_gradients_pass_the_relu_as_in_torch() -> None:
    relu_passes_what_torch_passes(block_sparse)
    with pytest.raises(AssertionError):
        relu_passes_what_torch_passes(mask_multiplied)


def threads_agree_on_gradients(product: Product) -> None:
    threads = torch.get_num_threads()
    try:
        for p in (
            problem("linear", (16, 16), (120, 150), batch=160, kept=0.6),
            problem("conv3x3", (8, 16), (40, 48, 3, 3), batch=7),
        ):
            seed = torch.randn(p.wanted().shape, generator=torch.Generator().manual_seed(3))
            results = []
            for number in (1, 2, 4, 1):
                torch.set_num_threads(number)
                results.append(gradients(p, product, "relu", seed)[:2])
            for same in zip(*results, strict=True):
                assert all(torch.equal(same[0], each) for each in same)
    finally:
        torch.set_num_threads(threads)


def test_threads_agree_on_gradients_to_the_bit() -> None:
    threads_agree_on_gradients(block_sparse)
    with pytest.raises(AssertionError):
        threads_agree_on_gradients(cases.sum_per_thread)


def test_bad_numbers_in_a_gradient_stay_in_their_rows() -> None:
    p = problem(shape=(10, 9), batch=5)
    seed = torch.ones(p.wanted().shape)
    seed[2] = torch.nan
    of_x = gradients(p, block_sparse, "none", seed)[0]
    assert of_x[[0, 1, 3, 4]].isfinite().all()
    assert of_x[2].isnan().any()


def test_gradients_given_in_any_layout() -> None:
    for kind in ("linear", "conv3x3", "conv1d"):
        p = problem(kind, batch=4)
        plain = torch.randn(p.wanted().shape, generator=torch.Generator().manual_seed(3))
        layouts = {
            "expanded": plain.flatten()[0].expand_as(plain),
            "turned": plain.permute(*reversed(range(plain.ndim))).contiguous().permute(*reversed(range(plain.ndim))),
            "every second": plain.repeat_interleave(2, 1)[:, ::2],
            "misaligned": torch.cat([plain[..., :1], plain], -1)[..., 1:],
        }
        for seed in layouts.values():
            got, wanted = gradients(p, block_sparse, "none", seed), wanted_gradients(p, "none", seed)
            assert all(error(g, w) < 1e-5 for g, w in zip(got, wanted, strict=True))


# The operators as torch sees them.


def operands(p: Problem, relu: bool) -> tuple[Any, ...]:
    """What `block_product` is called with: images with channels last, two spatial dimensions."""
    x, values, bias = leaves(p)
    if p.x.ndim == 2:
        x, kernel, geometry = x.detach()[:, None, None], (1, 1), {}
    else:
        x, kernel, geometry = x.detach().permute(0, 2, 3, 1), p.packed.shape[2:], p.geometry
    moves = (geometry.get("stride", (1, 1)), geometry.get("padding", (0, 0)), geometry.get("dilation", (1, 1)))
    return x.requires_grad_(), values, p.packed.crow, p.packed.col, bias, p.packed.shape[0], kernel, *moves, relu


@pytest.mark.parametrize(
    "dtypes", [(torch.float32,) * 2, (torch.float64,) * 2, (torch.bfloat16, torch.float32)], ids=str
)
@pytest.mark.parametrize("kind", ["linear", "conv3x3 stride 2"])
def test_torch_finds_the_operators_well_formed(kind: str, dtypes: tuple[torch.dtype, torch.dtype]) -> None:
    """Schema, fake tensors, registration of autograd, ahead-of-time dispatch with symbolic sizes."""
    p = problem(kind, dtype=dtypes[1], x_dtype=dtypes[0])
    for relu in (False, True):
        product = operands(p, relu)
        done = torch.library.opcheck(products.block_product, product)
        assert set(done.values()) == {"SUCCESS"}
    x, values, crow, col, *_ = product
    y = products.block_product(*product).detach()
    block = (values.shape[2], values.shape[1])
    gradient = (x, torch.ones_like(y).requires_grad_(), crow, col, block, *product[6:10])
    assert set(torch.library.opcheck(products.block_product_grad, gradient).values()) == {"SUCCESS"}


def test_a_wrong_operator_is_not_well_formed() -> None:
    @torch.library.custom_op("sparseopt_tests::rounded", mutates_args=())
    def rounded(x: Tensor) -> Tensor:
        return x.double()

    @rounded.register_fake
    def _(x):  # wrong: the dtype is not that of the result
        return torch.empty_like(x)

    with pytest.raises(Exception, match="test_faketensor failed"):
        torch.library.opcheck(rounded, (torch.ones(3),))


# Transforms and forward mode.


def transforms_agree(product: Product, p: Problem) -> None:
    """Each of torch's ways to a derivative gives that of the dense layer."""
    seed = torch.randn(p.wanted().shape, generator=torch.Generator().manual_seed(3))
    ahead = torch.randn(p.x.shape, generator=torch.Generator().manual_seed(4))
    of_x, of_values, *_ = wanted_gradients(p, "relu", seed)

    def through_values(values: Tensor) -> Tensor:
        return product(p.x, replace(p.packed, values=values), p.bias, "relu", **p.geometry)

    def through_x(x: Tensor) -> Tensor:
        return product(x, p.packed, p.bias, "relu", **p.geometry)

    def as_dense(x: Tensor) -> Tensor:
        return dense(x, p.weight, p.bias, "relu", **p.geometry)

    assert error(torch.func.grad(lambda x: (through_x(x) * seed).sum())(p.x), of_x) < 1e-5
    assert (
        error(torch.func.grad(lambda values: (through_values(values) * seed).sum())(p.packed.values), of_values) < 1e-5
    )
    slope = torch.func.jvp(as_dense, (p.x.double(),), (ahead.double(),))[1]
    assert error(torch.func.jvp(through_x, (p.x,), (ahead,))[1], slope) < 1e-5
    with torch.autograd.forward_ad.dual_level():
        y = through_x(torch.autograd.forward_ad.make_dual(p.x, ahead))
        assert error(torch.autograd.forward_ad.unpack_dual(y).tangent, slope) < 1e-5
    stacked = torch.stack([p.x, 2 * p.x, -p.x])
    each = torch.stack([as_dense(x) for x in stacked])
    assert error(torch.func.vmap(through_x)(stacked), each) < 1e-5
    singly = torch.func.vmap(torch.func.grad(lambda x: (through_x(x) * seed).sum()))(stacked)
    assert error(singly[0], of_x) < 1e-5
    jacobian = torch.func.jacrev(as_dense)(p.x.double())
    assert error(torch.func.jacrev(through_x)(p.x), jacobian) < 1e-5
    assert error(torch.func.jacfwd(through_x)(p.x), jacobian) < 1e-5


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's own use of it
@pytest.mark.parametrize("kind", ["linear", "conv3x3 stride 2", "conv1d"])
def test_transforms_of_the_product_are_those_of_the_dense_layer(kind: str) -> None:
    p = problem(kind, (4, 3), batch=2)
    transforms_agree(block_sparse, p)
    for wrong in (cases.gradient_halved, cases.relu_before_bias):
        with pytest.raises(AssertionError):
            transforms_agree(wrong, p)
