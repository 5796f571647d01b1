"""Masks: their formulas, gradients, first values, dtypes, and the exact number of blocks that a choice keeps."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="masks need torch")

import pruning_cases as cases  # noqa: E402
from torch import nn  # noqa: E402
from torch.autograd.gradcheck import GradcheckError  # noqa: E402

from sparseopt.nn import BlockGrid, PhaseSchedule, masks  # noqa: E402
from sparseopt.nn.budget import kept_blocks  # noqa: E402
from sparseopt.nn.masking import attach_mask  # noqa: E402
from sparseopt.nn.masks import PHASES  # noqa: E402

# Even and ragged grids, a convolution, rows of one output, and three segments.
GRIDS = {
    "even": BlockGrid((6, 8), (2, 4)),
    "ragged": BlockGrid((7, 10), (3, 4)),
    "convolution": BlockGrid((6, 4, 3, 3), (4, 5)),
    "rows": BlockGrid((5, 6), (1, 6)),
    "stacked": BlockGrid((9, 4), (2, 4), segments=3),
    "41 blocks": BlockGrid((41, 2), (1, 2)),
}
MASKS = {
    "block": lambda grid: masks.BlockMask(grid),
    "softmax": lambda grid: masks.SoftmaxMask(grid),
    "clipped": lambda grid: masks.SoftmaxMask(grid, clip=(0.25, 4.0)),
    "alive": lambda grid: masks.SoftmaxMask(grid, over="alive"),
    "exp": lambda grid: masks.ExpMask(grid),
    "expm1": lambda grid: masks.Expm1Mask(grid),
    "linear": lambda grid: masks.LinearMask(grid),
    "power 1": lambda grid: masks.PowerMask(grid, alpha=1.0),
    "power 1.5": lambda grid: masks.PowerMask(grid, alpha=1.5),
    "power 2": lambda grid: masks.PowerMask(grid, alpha=2.0),
}
EXACT = [name for name in MASKS if name not in ("power 1.5", "power 2")]
WITH_LOGITS = ["softmax", "clipped", "alive", "exp", "expm1", "linear"]


def weight_of(grid: BlockGrid, seed: int = 0, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(grid.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def shaken(name: str, grid: BlockGrid, phase: str = "sparse", seed: int = 1) -> masks.BlockMask:
    """A mask in float64 with some blocks dropped and logits that differ."""
    mask = MASKS[name](grid).double()
    generator = torch.Generator().manual_seed(seed)
    mask.mask.copy_(torch.rand(grid.counts, generator=generator) < 0.6)
    mask.mask[0, 0] = True
    mask.phase.fill_(PHASES[phase])
    if mask.logits is not None:
        noise = torch.randn(grid.counts, generator=generator, dtype=torch.float64)
        mask.logits.data.copy_(noise.abs() if name == "expm1" else noise)
    return mask


def block_of_entry(grid: BlockGrid) -> np.ndarray:
    """The number of the block of every entry, by walking over the matrix; (rows, columns) as arrays of the weight."""
    out = np.zeros(grid.shape, dtype=int)
    rows = grid.shape[0] // grid.segments
    per_segment = -(-rows // grid.block[0])
    for index in np.ndindex(*grid.shape):
        o, i, *place = index
        p = 0
        for k, size in zip(place, grid.shape[2:], strict=True):
            p = p * size + k
        row = (o // rows) * per_segment + (o % rows) // grid.block[0]
        out[index] = row * grid.counts[1] + (p * grid.shape[1] + i) // grid.block[1]
    return out


def by_hand(name: str, mask: masks.BlockMask, weight: np.ndarray, grid: BlockGrid) -> np.ndarray:
    """The masked weight from the definition, entry by entry."""
    blocks, n = block_of_entry(grid), grid.n_blocks
    alive = mask.mask.flatten().numpy() | (int(mask.phase) == PHASES["dense"])
    logits = None if mask.logits is None else mask.logits.detach().flatten().numpy()
    if name == "block":
        f = np.ones(n)
    elif name in ("softmax", "clipped"):
        f = n * np.exp(logits) / np.exp(logits).sum()
        f = np.clip(f, 0.25, 4.0) if name == "clipped" else f
    elif name == "alive":
        f = alive.sum() * np.exp(logits) / np.exp(logits[alive]).sum()
    elif name == "exp":
        f = np.exp(logits)
    elif name == "expm1":
        f = np.exp(np.maximum(logits, 0.0)) - 1.0
    elif name == "linear":
        f = logits
    else:
        alpha = float(name.split()[1])
        f = np.array([np.linalg.norm(weight[blocks == b]) ** (alpha - 1.0) for b in range(n)])
    return weight * (f * alive)[blocks]


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("name", MASKS)
def test_the_masked_weight_is_the_formula(name, grid, phase) -> None:
    mask, weight = shaken(name, grid, phase), weight_of(grid)
    found = mask(weight).detach().numpy()
    # A handful of roundings, in sums of at most 100 terms.
    np.testing.assert_allclose(found, by_hand(name, mask, weight.numpy(), grid), rtol=1e-13, atol=0.0)
    dropped = ~mask.mask.flatten().numpy()[block_of_entry(grid)]
    if phase != "dense":
        assert dropped.any() or mask.mask.all()
        assert not found[dropped].any()


def test_a_mask_that_forgets_the_clip_or_the_mean_is_rejected() -> None:
    grid = GRIDS["ragged"]
    mask, weight = shaken("softmax", grid), weight_of(grid)
    mask.logits.data[0, 0] = 6.0
    found = mask(weight).detach().numpy()
    assert not np.allclose(found, by_hand("clipped", mask, weight.numpy(), grid), rtol=1e-13)
    assert not np.allclose(found * grid.n_blocks, by_hand("softmax", mask, weight.numpy(), grid), rtol=1e-13)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("phase", PHASES)
def test_attention_has_mean_one(grid, phase) -> None:
    for name in ("softmax", "alive"):
        mask = shaken(name, grid, phase)
        chosen = mask.alive() if name == "alive" else torch.ones_like(mask.mask)
        assert mask.attention()[chosen].mean().item() == pytest.approx(1.0, rel=1e-14)
    # Dropped blocks have no influence on the others: only so with "alive".
    for name, moves in (("softmax", True), ("alive", False)):
        mask = shaken(name, grid, "sparse")
        mask.mask[-1, -1] = False
        before = mask.attention().detach().clone()
        mask.logits.data[-1, -1] += 5.0
        changed = not torch.equal(before[mask.mask], mask.attention().detach()[mask.mask])
        assert changed == moves


def test_attention_stays_within_density_and_its_inverse() -> None:
    _, _, s = cases.start(sparsity=0.75)
    layer = s.layers[0]
    density = layer.plan.kept / layer.grid.n_blocks
    assert layer.mask.clip == (density, 1.0 / density) == (0.25, 4.0)
    layer.logits.data[0, 0], layer.logits.data[1, 1] = 30.0, -30.0
    attention = layer.mask.attention()
    assert attention.max().item() == 4.0
    assert attention.min().item() == 0.25
    attention.sum().backward()
    assert layer.logits.grad.abs().max() == 0.0  # every block is beyond the clip
    assert cases.start(sparsity=0.75, clip=False)[2].layers[0].mask.clip is None


@pytest.mark.parametrize("clip", [(0.5, 0.9), (1.1, 2.0), (-0.1, 2.0)])
def test_a_clip_that_excludes_the_mean_gets_a_sentence(clip) -> None:
    with pytest.raises(ValueError, match=r"clip must be \(low, high\) with low <= 1 <= high"):
        masks.SoftmaxMask(GRIDS["even"], clip=clip)
    with pytest.raises(ValueError, match="over must be 'all' or 'alive', got 'none'"):
        masks.SoftmaxMask(GRIDS["even"], over="none")
    with pytest.raises(ValueError, match=r"alpha must be at least 1, got 0\.5"):
        masks.PowerMask(GRIDS["even"], alpha=0.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("name", MASKS)
def test_every_mask_starts_as_the_identity(name, grid, dtype) -> None:
    mask, weight = MASKS[name](grid), weight_of(grid, dtype=dtype)
    stored = mask.right_inverse(weight)
    assert stored.dtype == dtype
    found = mask(stored)
    assert found.dtype == dtype
    if name in EXACT:
        assert stored is weight or torch.equal(stored, weight)
        assert torch.equal(found, weight)
    else:
        # W u^(1/alpha - 1), rounded, times the norm of that: one rounding each to `dtype`, the norm and its powers
        # within a few roundings of float32 at least (sums of at most 36 terms).
        wide = torch.finfo(torch.promote_types(dtype, torch.float32)).eps
        bound = 3.0 * torch.finfo(dtype).eps + 60.0 * wide
        assert ((found - weight).abs() / weight.abs()).max().item() <= bound


def test_softmax_times_n_would_not_start_as_the_identity() -> None:
    logits = torch.zeros(41)
    assert not torch.equal(torch.softmax(logits, 0) * 41, torch.ones(41))


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("shape", [(5, 4), (3, 2, 2, 2)], ids=["ragged", "convolution"])
@pytest.mark.parametrize("name", MASKS)
def test_gradients_are_derivatives(name, shape, phase) -> None:
    grid = BlockGrid(shape, (2, 3))
    mask, weight = shaken(name, grid, phase), weight_of(grid).requires_grad_()
    if mask.logits is None:
        assert torch.autograd.gradcheck(mask, (weight,))
        return

    def masked(weight, logits):
        mask.logits = logits
        return mask(weight)

    logits = mask.logits.detach().clone().requires_grad_()
    del mask._parameters["logits"]
    assert torch.autograd.gradcheck(masked, (weight, logits))
    # A mask whose gradient stops at the attention is another one.
    with pytest.raises(GradcheckError):
        torch.autograd.gradcheck(lambda w, v: masked(w, v.detach()) + 0.0 * v.sum(), (weight, logits))


@pytest.mark.parametrize("alpha", [1.0, 1.01, 1.5, 2.0, 3.0])
def test_a_block_of_zeros_has_finite_gradients(alpha) -> None:
    grid = GRIDS["ragged"]
    mask, weight = masks.PowerMask(grid, alpha=alpha), weight_of(grid, dtype=torch.float32)
    zero = torch.zeros(grid.counts, dtype=torch.bool)
    zero[1, 1] = zero[0, 2] = True
    weight[grid.expand(zero)] = 0.0
    weight.requires_grad_()
    (mask(weight) * weight_of(grid, 5, torch.float32)).sum().backward()
    inside = weight.grad[grid.expand(zero)]
    assert torch.isfinite(weight.grad).all()
    assert weight.grad[~grid.expand(zero)].abs().min() > 0.0
    if alpha > 1.0:
        assert not inside.any()
    else:
        assert torch.equal(weight.grad, weight_of(grid, 5, torch.float32))


def test_power_one_is_the_plain_mask() -> None:
    grid = GRIDS["ragged"]
    for phase in PHASES:
        power, plain = shaken("power 1", grid, phase), shaken("block", grid, phase)
        a, b = (weight_of(grid).requires_grad_() for _ in range(2))
        assert torch.equal(power(a), plain(b))
        power(a).square().sum().backward()
        plain(b).square().sum().backward()
        assert torch.equal(a.grad, b.grad)


def test_small_weights_in_half_precision_are_no_zero_blocks() -> None:
    grid = GRIDS["even"]
    mask, weight = masks.PowerMask(grid), torch.full(grid.shape, 1e-4, dtype=torch.float16)
    assert not (weight * weight).any()  # squares do underflow
    assert mask.factors(weight).all()
    # Two roundings to float16.
    torch.testing.assert_close(mask(mask.right_inverse(weight)), weight, rtol=2.0 * 2.0**-10, atol=0.0)


def test_a_logit_at_zero_can_come_back_and_one_below_stays() -> None:
    mask = masks.Expm1Mask(GRIDS["even"])
    mask.logits.data.fill_(0.0)
    mask.logits.data[0, 0] = -1.0
    attention = mask.attention()
    assert not attention.any()
    attention.sum().backward()
    assert mask.logits.grad[0, 0] == 0.0
    assert mask.logits.grad[0, 1] == 1.0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("method", ["sequential-attention++", "masked-l1", "expm1"])
def test_logits_have_two_dimensions_and_float32_at_least(method, dtype) -> None:
    wide = torch.promote_types(dtype, torch.float32)

    def check(model: nn.Module) -> None:
        (mask,) = (each for each in model.modules() if isinstance(each, masks.BlockMask))
        assert mask.logits.dtype == wide
        assert tuple(mask.logits.shape) == (4, 4)
        assert mask.mask.dtype == torch.bool
        assert model[0].weight.dtype == dtype
        model(torch.randn(3, 8, dtype=dtype)).sum().backward()
        assert mask.logits.grad.dtype == wide

    def pruned(model: nn.Module) -> nn.Module:
        cases.prune(model, None, method, 0.75, 2, 60, min_blocks=4, exclude=["2"])
        return model

    check(pruned(cases.network().to(dtype)))  # converted before
    model = pruned(cases.network())
    values = torch.rand(4, 4) + 1.0 / 3.0
    mask = model[0].parametrizations["weight"][0]
    mask.logits.data.copy_(values)
    model(torch.randn(3, 8)).sum().backward()
    gradient = mask.logits.grad.clone()
    logits = mask.logits
    model.to(dtype)  # converted after: logits lose nothing
    assert mask.logits is logits
    assert torch.equal(logits.detach(), values.to(wide))
    assert torch.equal(logits.grad, gradient.to(wide))
    check(model)


@pytest.mark.parametrize("n", [64, 41 * 4, 100])
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.75, 0.9, 0.99])
def test_equal_logits_keep_exactly_k_blocks(n, sparsity) -> None:
    model = nn.Sequential(nn.Linear(4, n // 2, bias=False))
    s = cases.prune(model, None, sparsity=sparsity, block=(2, 1), min_blocks=4, schedule=PhaseSchedule.one_shot(2))
    s.step()
    blocks = s.layers[0].grid.n_blocks
    expected = max(1, math.floor(round((1.0 - sparsity) * blocks, 9)))
    assert int(s.layers[0].kept.sum()) == expected == kept_blocks(blocks, sparsity)
    # A threshold keeps all of them, or none.
    logits = s.layers[0].logits.detach().flatten()
    threshold = logits.sort(descending=True).values[expected - 1]
    assert int((logits >= threshold).sum()) == blocks
    assert int((logits > threshold).sum()) == 0


def test_a_copy_of_a_mask_shares_nothing() -> None:
    mask = shaken("softmax", GRIDS["even"])
    other = copy.deepcopy(mask)
    other.mask.fill_(True)
    other.logits.data.fill_(0.0)
    assert not mask.mask.all()
    assert mask.logits.abs().min() > 0.0


def test_attaching_a_power_mask_keeps_the_parameter_and_the_function() -> None:
    linear = nn.Linear(8, 8)
    parameter, before = linear.weight, linear.weight.detach().clone()
    attach_mask(linear, "weight", masks.PowerMask(BlockGrid((8, 8), (2, 2)), alpha=2.0))
    assert linear.parametrizations["weight"].original is parameter
    assert not torch.equal(parameter, before)
    torch.testing.assert_close(linear.weight.detach(), before, rtol=1e-5, atol=0.0)
