"""Proximal steps: the core's prox on the blocks of a network, and the penalty that they belong to."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="proximal steps on networks need torch")

from proximal_cases import Half, small, small_plan  # noqa: E402
from torch import nn  # noqa: E402

from sparseopt import Groups, Penalty  # noqa: E402
from sparseopt.nn import BlockGrid  # noqa: E402
from sparseopt.nn import penalty as penalty_module  # noqa: E402
from sparseopt.nn.correspondence import groups_of  # noqa: E402
from sparseopt.nn.methods.proximal import GroupLasso, ProximalMethod  # noqa: E402
from sparseopt.nn.penalty import BlockPenalty, block_weights, shrink  # noqa: E402
from sparseopt.nn.planning import LayerPlan  # noqa: E402
from sparseopt.regularizers import L0, L2, MCP, REGULARIZERS, Expm1Mask, LogSum, Power, Scaled  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

QS = [*REGULARIZERS.values(), Power(0.3), Power(2.0 / 3.0), MCP(0.05), Scaled(MCP(3.0), 0.5), Half()]
GRIDS = [
    BlockGrid((6, 8), (2, 4)),
    BlockGrid((7, 10), (3, 4)),  # ragged both ways
    BlockGrid((6, 4, 3, 3), (4, 8)),
    BlockGrid((9, 5), (2, 2), segments=3),
]


def weight_of(grid: BlockGrid, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    """Blocks of norms from 1e-3 to 10, and one block of zeros."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(grid.shape, generator=generator, dtype=torch.float64)
    scale = 10.0 ** (4.0 * torch.rand(grid.counts, generator=generator, dtype=torch.float64) - 3.0)
    scale[0, 0] = 0.0
    return grid.scale(weight, scale / grid.norms(weight)).to(dtype)


# -- one step ----------------------------------------------------------------------------------------------------------


def check_step(step: Callable[..., None], q: Any, grid: BlockGrid, t: float, lam: float, weights: str) -> None:
    """`step` is the prox of the core's penalty on the same blocks.

    Tensor and array run the same text: what differs is how a norm is summed, by about 1e-15, and near a jump or for
    large t the prox may multiply that by about 1e3.
    """
    weight = weight_of(grid)
    groups = groups_of(grid, "sqrt" if weights == "sqrt" else "ones")
    expected = Penalty(q, groups, lam).prox(weight.flatten().numpy(), t)
    step(weight, grid, q, t, lam, weights)
    np.testing.assert_allclose(weight.flatten().numpy(), expected, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("q", QS, ids=repr)
def test_a_step_is_the_prox_of_the_core(q: Any) -> None:
    for grid in GRIDS:
        for t, lam in ((1e-3, 0.2), (0.3, 0.7), (4.0, 1.3)):
            for weights in ("sqrt", "one"):
                check_step(shrink, q, grid, t, lam, weights)


def _entrywise(weight: torch.Tensor, grid: BlockGrid, q: Any, t: float, lam: float, weights: str) -> None:
    omega = grid.expand(block_weights(grid, weights, weight))
    weight.copy_(weight.sign() * q.prox(weight.abs(), t * lam * omega))


WRONG_STEPS: dict[str, Callable[..., None]] = {
    "entries instead of blocks": _entrywise,
    "without omega": lambda weight, grid, q, t, lam, weights: shrink(weight, grid, q, t, lam, "one"),
    "without lr": lambda weight, grid, q, t, lam, weights: shrink(weight, grid, q, 1.0, lam, weights),
    "lam twice": lambda weight, grid, q, t, lam, weights: shrink(weight, grid, q, t, lam * lam, weights),
    "always soft": lambda weight, grid, q, t, lam, weights: shrink(weight, grid, L2(), t, lam, weights),
}


@pytest.mark.parametrize("name", WRONG_STEPS)
def test_a_wrong_step_is_rejected(name: str) -> None:
    with pytest.raises(AssertionError):
        check_step(WRONG_STEPS[name], LogSum(0.5), GRIDS[1], 0.3, 0.7, "sqrt")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("q", [L2(), L0(), MCP(0.05), Power(), Expm1Mask(), Half()], ids=repr)
def test_narrow_weights_are_shrunk_in_float32(q: Any, dtype: torch.dtype) -> None:
    """The result is that of float32, rounded once; zeros are the same blocks."""
    grid = GRIDS[1]
    weight = weight_of(grid, dtype)
    wide = weight.float()
    shrink(weight, grid, q, 0.3, 0.7)
    shrink(wide, grid, q, 0.3, 0.7)
    assert weight.dtype == dtype
    assert torch.equal(weight, wide.to(dtype))
    assert 0 < int((weight == 0).sum()) < grid.numel


def test_mcp_with_steps_beyond_its_knot_thresholds_hard() -> None:
    """t > gamma: blocks stay as they are or vanish, where the formula for small steps would let them grow or flip."""
    grid = BlockGrid((1, 6), (1, 2))
    weight = torch.tensor([[0.3, 0.4, 0.6, 0.8, 3.0, 4.0]], dtype=torch.float64)
    before = weight.clone()
    shrink(weight, grid, MCP(0.2), 1.0, 2.0, "one")  # sqrt(gamma t) = 0.632
    assert torch.equal(weight, before * (before > 0.5))


@pytest.mark.parametrize("q", QS, ids=repr)
def test_a_learning_rate_of_zero_changes_nothing(q: Any) -> None:
    weight = weight_of(GRIDS[1])
    before = weight.clone()
    for lr in (0.0, torch.tensor(0.0), torch.tensor([0.0])):
        shrink(weight, GRIDS[1], q, lr, 0.7)
        assert torch.equal(weight, before)


def test_not_a_number_is_not_hidden() -> None:
    weight = torch.ones(4, 4)
    weight[0, 0] = math.nan
    shrink(weight, BlockGrid((4, 4), (2, 2)), L2(), 0.1, 0.1)
    assert bool(weight[:2, :2].isnan().all())
    assert not bool(weight[2:].isnan().any())


# -- the penalty -------------------------------------------------------------------------------------------------------


def test_the_value_is_the_sum_of_the_core_penalties() -> None:
    model = small()
    for q in (L2(), MCP(0.7), Half()):
        for weights, omega in (("sqrt", "sqrt"), ("one", "ones")):
            expected = sum(
                Penalty(q, groups_of(layer.grid, omega), 0.3).value(model.get_parameter(layer.name).detach().flatten())
                for layer in small_plan(model).layers
            )
            found = BlockPenalty(small_plan(model), q, 0.3, weights).value(model)
            assert math.isclose(found, expected, rel_tol=1e-13)


def test_ragged_edges_are_as_hard_to_lose() -> None:
    """Blocks of noise of one variance: with omega = sqrt(entries) the threshold is the same multiple of all norms."""
    grid = BlockGrid((5, 5), (4, 4))
    weight = torch.full((5, 5), 0.5, dtype=torch.float64)
    shrink(weight, grid, L2(), 1.0, 0.3)
    torch.testing.assert_close(weight, torch.full((5, 5), 0.2, dtype=torch.float64), rtol=1e-14, atol=0.0)
    shrink(weight, grid, L2(), 1.0, 0.3, "one")
    assert weight[0, 0] > 0.1
    assert weight[4, 4] == 0.0


def test_names_mean_what_they_mean_in_problems() -> None:
    layers = [LayerPlan("weight", BlockGrid((2, 2), (1, 2)), 0.5)]
    assert BlockPenalty(layers, "mcp", 0.3).regularizer == Scaled(MCP(), 0.3)
    assert replace(BlockPenalty(layers, "mcp", 0.3), lam=0.1).regularizer == Scaled(MCP(), 0.1)
    assert BlockPenalty(layers, "log", 0.3).regularizer == LogSum()


BAD: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "lam": (lambda: BlockPenalty([LayerPlan("w", GRIDS[0], 0.5)], "l2", -1.0), ValueError, "lam is -1.0"),
    "q": (lambda: BlockPenalty([LayerPlan("w", GRIDS[0], 0.5)], "l3", 1.0), ValueError, "'l3'"),
    "q class": (lambda: BlockPenalty([LayerPlan("w", GRIDS[0], 0.5)], 3.0, 1.0), TypeError, "not a regularizer"),
    "weights": (lambda: BlockPenalty([LayerPlan("w", GRIDS[0], 0.5)], "l2", 1.0, "ones"), ValueError, "'ones'"),
    "layers": (lambda: BlockPenalty(["fc.weight"], "l2", 1.0), TypeError, "got str"),  # type: ignore[list-item]
    "no layers": (lambda: BlockPenalty([], "l2", 1.0), TypeError, "an empty sequence"),
    "no model": (
        lambda: BlockPenalty([LayerPlan("w", GRIDS[0], 0.5)], "l2", 1.0).value(),
        ValueError,
        "model is missing",
    ),
    "other model": (
        lambda: BlockPenalty([LayerPlan("weight", GRIDS[0], 0.5)], "l2", 1.0).value(nn.Linear(3, 3)),
        ValueError,
        r"\(6, 8\) in the plan, and in this model the shape \(3, 3\)",
    ),
    "no such weight": (
        lambda: BlockPenalty([LayerPlan("fc.weight", GRIDS[0], 0.5)], "l2", 1.0).value(nn.Linear(3, 3)),
        ValueError,
        "no such weight",
    ),
    "method": (lambda: ProximalMethod(lam=math.nan), ValueError, "lam is nan"),
    "method weights": (lambda: GroupLasso(weights="two"), ValueError, "'two'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_a_sentence(name: str) -> None:
    call, kind, text = BAD[name]
    with pytest.raises(kind, match=text) as caught:
        call()
    assert str(caught.value).count("\n") == 0
    assert str(caught.value).endswith((".", "?"))


def test_the_weights_omega_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = BlockGrid((12, 18), (5, 7))
    calls: list[int] = []
    sizes = BlockGrid.sizes
    monkeypatch.setattr(BlockGrid, "sizes", lambda self: calls.append(1) or sizes(self))
    penalty_module._block_weights.cache_clear()
    weight = torch.ones(12, 18)
    for _ in range(3):
        shrink(weight, grid, L2(), 0.1, 0.1)
    assert len(calls) == 1
    assert Groups.from_sizes(grid.sizes().flatten().tolist()).weights == pytest.approx(
        block_weights(grid, "sqrt", weight.double()).flatten().numpy()
    )
