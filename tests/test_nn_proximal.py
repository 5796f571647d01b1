"""Proximal steps: the core's prox on the blocks of a network, around any optimizer."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="proximal steps on networks need torch")

from torch import nn  # noqa: E402

from sparseopt import Groups, Penalty  # noqa: E402
from sparseopt.nn import BlockGrid, PhaseSchedule, Sparsifier, plan, prune  # noqa: E402
from sparseopt.nn import penalty as penalty_module  # noqa: E402
from sparseopt.nn.correspondence import groups_of  # noqa: E402
from sparseopt.nn.methods.proximal import GroupLasso, ProximalMethod  # noqa: E402
from sparseopt.nn.penalty import BlockPenalty, block_weights, shrink  # noqa: E402
from sparseopt.nn.planning import LayerPlan  # noqa: E402
from sparseopt.nn.proximal import Proximal  # noqa: E402
from sparseopt.regularizers import (  # noqa: E402
    L0,
    L2,
    MCP,
    REGULARIZERS,
    Expm1Mask,
    LogSum,
    Power,
    Scaled,
    get_regularizer,
    regularizer,
)
from sparseopt.scalar import maximum  # noqa: E402


@regularizer
class Half(NamedTuple):
    """A regularizer of one's own: half of the norm."""

    def value(self, u: Any) -> Any:
        return 0.5 * u

    def slope(self, u: Any) -> Any:
        return 0.5 + 0.0 * u

    def prox(self, u: Any, t: Any) -> Any:
        return maximum(u - 0.5 * t, 0.0)

    def slope_at_zero(self) -> float:
        return 0.5


QS = [*REGULARIZERS.values(), Power(0.3), Power(2.0 / 3.0), MCP(0.05), Scaled(MCP(3.0), 0.5), Half()]
GRIDS = [
    BlockGrid((6, 8), (2, 4)),
    BlockGrid((7, 10), (3, 4)),  # ragged both ways
    BlockGrid((6, 4, 3, 3), (4, 8)),
    BlockGrid((9, 5), (2, 2), segments=3),
]


@pytest.fixture(autouse=True)
def _quiet() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)


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


def small(seed: int = 0, **kwargs: Any) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(12, 10, **kwargs), nn.Tanh(), nn.Linear(10, 3, **kwargs)).double()


def small_plan(model: nn.Module) -> Any:
    return plan(model, 0.5, block=(2, 4), min_blocks=2)


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


# -- the optimizer -----------------------------------------------------------------------------------------------------

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": lambda p: torch.optim.Adam(p, lr=0.02),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.02, foreach=True),
    "fused": lambda p: torch.optim.AdamW(p, lr=0.02, fused=True),
    "tensor lr": lambda p: torch.optim.Adam(p, lr=torch.tensor(0.02), foreach=False),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.01),
}
X = torch.randn(20, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def loss_of(model: nn.Module) -> torch.Tensor:
    return (model(X.to(next(model.parameters()).dtype)) - 1.0).square().mean()


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()


def proximal(
    model: nn.Module, make: Callable[[Any], torch.optim.Optimizer], q: Any = "l2", lam: float = 0.3
) -> Proximal:
    return Proximal(make(model.parameters()), BlockPenalty(small_plan(model), q, lam), model)


def check_optimizer(wrap: Callable[..., torch.optim.Optimizer], make: Callable[[Any], Any]) -> None:
    """`wrap` steps as the inner optimizer does and then as `shrink`, bit by bit, for some steps and two rates."""
    model, other = small(), small()
    optimizer, plain = wrap(model, make), make(other.parameters())
    for step in range(6):
        if step == 3:
            for group in (*optimizer.param_groups, *plain.param_groups):
                group["lr"] = group["lr"] * 0.5
        train(model, optimizer, 1)
        train(other, plain, 1)
        for layer in small_plan(other).layers:
            shrink(other.get_parameter(layer.name), layer.grid, L2(), plain.param_groups[0]["lr"], 0.3)
    for (name, p), expected in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(p, expected), name


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_is_that_of_the_optimizer_and_then_the_prox(name: str) -> None:
    check_optimizer(proximal, OPTIMIZERS[name])


def test_a_wrong_optimizer_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError):
        check_optimizer(lambda model, make: make(model.parameters()), OPTIMIZERS["adam"])
    frozen = Proximal._prox

    def before(self: Proximal) -> None:  # the rates of the first step, for ever
        self.__dict__.setdefault("_rates", [group["lr"] for group in self.param_groups])
        now = [group["lr"] for group in self.param_groups]
        for group, rate in zip(self.param_groups, self.__dict__["_rates"], strict=True):
            group["lr"] = rate
        frozen(self)
        for group, rate in zip(self.param_groups, now, strict=True):
            group["lr"] = rate

    monkeypatch.setattr(Proximal, "_prox", before)
    with pytest.raises(AssertionError):
        check_optimizer(proximal, OPTIMIZERS["sgd"])


def test_every_group_has_its_own_rate() -> None:
    model = small(bias=False)
    groups = [{"params": [model[0].weight], "lr": 0.5}, {"params": [model[2].weight], "lr": torch.tensor(0.0)}]
    optimizer = Proximal(torch.optim.SGD(groups, foreach=False), BlockPenalty(small_plan(model), "l2", 1e6), model)
    before = model[2].weight.clone()
    train(model, optimizer, 1)
    assert not bool(model[0].weight.any())
    assert torch.equal(model[2].weight, before)


def test_groups_and_state_are_those_of_the_inner_optimizer() -> None:
    model = small()
    inner = torch.optim.Adam(model.parameters(), lr=0.02)
    optimizer = Proximal(inner, BlockPenalty(small_plan(model)), model)
    assert isinstance(optimizer, torch.optim.Optimizer)
    assert optimizer.param_groups is inner.param_groups
    train(model, optimizer, 3)
    assert optimizer.state is inner.state
    assert optimizer.defaults is inner.defaults
    extra = nn.Parameter(torch.zeros(2))
    optimizer.add_param_group({"params": [extra], "lr": 0.7})
    assert inner.param_groups[1]["params"] == [extra]
    assert "Adam" in repr(optimizer)
    assert "l2" in repr(optimizer)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_state_dict_is_the_inner_one_and_resumes_exactly(name: str) -> None:
    model = small().float()  # torch rounds the state of some optimizers when it loads it for other types
    optimizer = proximal(model, OPTIMIZERS[name])
    train(model, optimizer, 4)
    state, weights = copy.deepcopy(optimizer.state_dict()), copy.deepcopy(model.state_dict())
    assert state.keys() == OPTIMIZERS[name](small().parameters()).state_dict().keys()
    train(model, optimizer, 4)
    other = small(seed=1).float()
    resumed = proximal(other, OPTIMIZERS[name])
    other.load_state_dict(weights)
    resumed.load_state_dict(state)
    train(other, resumed, 4)
    for p, expected in zip(other.parameters(), model.parameters(), strict=True):
        assert torch.equal(p, expected)


def test_schedules_of_the_learning_rate_drive_the_prox() -> None:
    model, lam = small(bias=False), 0.3
    optimizer = proximal(model, OPTIMIZERS["sgd"], lam=lam)
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=3),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5),
        ],
        [3],
    )
    other = small(bias=False)
    for _ in range(8):
        lr = optimizer.param_groups[0]["lr"]
        train(model, optimizer, 1)
        train(other, torch.optim.SGD(other.parameters(), lr=lr), 1)
        for layer in small_plan(other).layers:
            shrink(other.get_parameter(layer.name), layer.grid, L2(), lr, lam)
        schedule.step()
    assert torch.equal(model[0].weight, other[0].weight)
    torch.optim.lr_scheduler.OneCycleLR(proximal(small(), OPTIMIZERS["adam"]), 0.1, total_steps=5)
    torch.optim.lr_scheduler.ReduceLROnPlateau(proximal(small(), OPTIMIZERS["momentum"])).step(1.0)


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_a_grad_scaler_skips_has_no_prox(fused: bool) -> None:
    model = small().float()
    inner = torch.optim.Adam(model.parameters(), lr=0.02, fused=fused)
    optimizer = Proximal(inner, BlockPenalty(small_plan(model), "l2", 0.3), model)
    calls: list[int] = []
    optimizer.register_step_post_hook(lambda *_: calls.append(1))
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    skipping = copy.deepcopy(model.state_dict())
    scaler.scale(loss_of(model) * math.inf).backward()
    scaler.step(optimizer)
    scaler.update()
    for name, p in model.state_dict().items():
        assert torch.equal(p, skipping[name])
    assert len(calls) == fused  # a fused step is called, and finds out by itself
    assert not hasattr(inner, "found_inf")
    assert scaler.get_scale() == 4.0

    other = small().float()
    plain = torch.optim.Adam(other.parameters(), lr=0.02, fused=fused)
    optimizer.zero_grad()
    scaler.scale(loss_of(model)).backward()
    scaler.step(optimizer)
    scaler.update()
    loss_of(other).backward()
    plain.step()
    for layer in small_plan(other).layers:
        shrink(other.get_parameter(layer.name), layer.grid, L2(), 0.02, 0.3)
    for p, expected in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, expected, rtol=1e-6, atol=1e-7)


def test_a_scaler_that_is_not_passed_on_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the finding kept from the fused step, infinite gradients would reach the weights."""

    def deaf(self: Proximal, closure: Any = None) -> Any:
        return self.optimizer.step()

    monkeypatch.setattr(Proximal, "step", deaf)
    with pytest.raises(AssertionError):
        test_a_step_that_a_grad_scaler_skips_has_no_prox(True)


def test_a_closure_is_passed_on_and_its_loss_returned() -> None:
    model, other = small(), small()
    optimizer = proximal(model, OPTIMIZERS["sgd"])

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        return loss

    first = float(loss_of(model).detach())
    assert float(optimizer.step(closure).detach()) == first
    train(other, proximal(other, OPTIMIZERS["sgd"]), 1)
    assert torch.equal(model[0].weight, other[0].weight)


def test_step_hooks_see_the_shrunk_weights() -> None:
    model = small(bias=False)
    optimizer = proximal(model, OPTIMIZERS["sgd"], lam=1e6)
    seen: list[float] = []
    optimizer.register_step_pre_hook(lambda *_: seen.append(float(model[0].weight.detach().abs().sum())))
    optimizer.register_step_post_hook(lambda *_: seen.append(float(model[0].weight.detach().abs().sum())))
    train(model, optimizer, 1)
    assert seen[0] > 0.0
    assert seen[1] == 0.0
    saved: list[Any] = []
    optimizer.register_state_dict_post_hook(lambda _, state: saved.append(state))
    optimizer.state_dict()
    assert len(saved) == 1


def test_weights_without_a_gradient_are_left_alone_as_by_the_optimizer() -> None:
    model = small(bias=False)
    optimizer = proximal(model, OPTIMIZERS["adamw"], lam=1e3)
    before = model[2].weight.clone()
    optimizer.zero_grad()
    model[0](X).square().mean().backward()  # the second layer takes no part
    optimizer.step()
    assert torch.equal(model[2].weight, before)
    assert not bool(model[0].weight.any())


def test_weights_under_masks_are_shrunk_as_they_are_stored() -> None:
    model = small()
    s = Sparsifier(model, small_plan(model), "magnitude", total_steps=4)
    for penalty, given in ((BlockPenalty(s.layers, "l2", 0.3), None), (BlockPenalty(s.plan, "l2", 0.3), model)):
        optimizer = Proximal(torch.optim.SGD(model.parameters(), lr=0.1), penalty, given)
        layer = s.layers[0]
        layer.keep(torch.arange(layer.grid.n_blocks).view(layer.grid.counts) % 2 == 0)
        layer.enter("sparse")
        before = layer.stored.detach().clone()
        value = penalty.value(given)
        train(model, optimizer, 1)
        expected = before
        shrink(expected, layer.grid, L2(), 0.1, 0.3)
        dropped = layer.grid.expand(~layer.kept)
        assert torch.equal(layer.stored[dropped], expected[dropped])  # no gradient, but the prox
        assert penalty.value(given) < value


def test_wrapped_and_compiled_models_are_looked_through() -> None:
    model = small()
    penalty = BlockPenalty(small_plan(model), "l2", 0.3)
    assert penalty.value(torch.compile(model, backend="eager")) == penalty.value(model)
    assert penalty.value(nn.DataParallel(model)) == penalty.value(model)


def test_copies_shrink_their_own_weights() -> None:
    model = small()
    optimizer = proximal(model, OPTIMIZERS["adam"])
    train(model, optimizer, 2)
    other, copied = copy.deepcopy((model, optimizer))
    train(model, optimizer, 2)
    unchanged = copy.deepcopy(model.state_dict())
    train(other, copied, 2)
    assert all(torch.equal(unchanged[name], p) for name, p in model.state_dict().items())
    assert all(torch.equal(unchanged[name], p) for name, p in other.state_dict().items())
    assert copied.optimizer is not optimizer.optimizer


def test_two_penalties_nest() -> None:
    model = small(bias=False)
    first, second = ([layer] for layer in small_plan(model).layers)
    inner = Proximal(torch.optim.SGD(model.parameters(), lr=0.1), BlockPenalty(first, "l2", 1e6), model)
    outer = Proximal(inner, BlockPenalty(second, "l2", 0.0), model)
    train(model, outer, 1)
    assert not bool(model[0].weight.any())
    assert bool(model[2].weight.all())


def test_what_cannot_work_is_refused() -> None:
    model, other = small(), small()
    penalty = BlockPenalty(small_plan(model))
    with pytest.raises(ValueError, match=r"does not train 0\.weight: build it from the parameters of this model"):
        Proximal(torch.optim.SGD(other.parameters(), lr=0.1), penalty, model)
    with pytest.raises(ValueError, match="model is missing"):
        Proximal(torch.optim.SGD(model.parameters(), lr=0.1), penalty)
    with pytest.raises(TypeError, match="LBFGS"):
        Proximal(torch.optim.LBFGS(model.parameters()), penalty, model)
    optimizer = Proximal(torch.optim.SGD(model.parameters(), lr=0.1), penalty, model)
    model[0].weight = nn.Parameter(torch.ones(10, 12, dtype=torch.float64))
    with pytest.raises(RuntimeError, match="no longer the parameter"):
        train(model, optimizer, 1)


def test_accelerate_takes_it() -> None:
    accelerate = pytest.importorskip("accelerate", reason="Accelerate is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        accelerator = accelerate.Accelerator(cpu=True)
        model, other = small(), small()
        optimizer = proximal(model, OPTIMIZERS["adam"])
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2)
        prepared, wrapped, stepping = accelerator.prepare(model, optimizer, schedule)
        for _ in range(4):
            wrapped.zero_grad()
            accelerator.backward(loss_of(prepared))
            wrapped.step()
            stepping.step()
        reference = proximal(other, OPTIMIZERS["adam"])
        steps = torch.optim.lr_scheduler.StepLR(reference, 2)
        for _ in range(4):
            train(other, reference, 1)
            steps.step()
    assert torch.equal(model[0].weight, other[0].weight)


# -- what lam is weighed against ---------------------------------------------------------------------------------------


def rest(make: Callable[[Any], torch.optim.Optimizer], lam: float, steps: int) -> torch.Tensor:
    """Where full-batch training of a linear model comes to rest."""
    model = nn.Linear(12, 1, bias=False).double()
    nn.init.zeros_(model.weight)
    y = X[:, :4].sum(1) + 0.3 * X[:, 4:8].sum(1)
    layers = [LayerPlan("weight", BlockGrid((1, 12), (1, 4)), 0.5)]
    optimizer = Proximal(make(model.parameters()), BlockPenalty(layers, "l2", lam), model)
    for _ in range(steps):
        optimizer.zero_grad()
        (0.5 * (model(X)[:, 0] - y).square().mean()).backward()
        optimizer.step()
    return model.weight.detach()


@pytest.mark.parametrize("dampening", [0.0, 0.5])
def test_momentum_makes_lam_weaker(dampening: float) -> None:
    """(1 - mu) / (1 - d) lam without momentum: both converge linearly, far below the tolerance."""
    mu = 0.8
    heavy = rest(lambda p: torch.optim.SGD(p, lr=0.05, momentum=mu, dampening=dampening), 0.2, 900)
    plain = rest(lambda p: torch.optim.SGD(p, lr=0.2), (1.0 - mu) / (1.0 - dampening) * 0.2, 900)
    same = rest(lambda p: torch.optim.SGD(p, lr=0.2), 0.2, 900)
    torch.testing.assert_close(heavy, plain, rtol=1e-10, atol=1e-12)
    assert float((heavy - same).abs().max()) > 0.02


def test_with_adam_lam_is_weighed_against_its_normalised_step() -> None:
    """lam = 1 stops everything whatever the loss is multiplied by, and lam = 0.5 does not."""
    stopped = rest(lambda p: torch.optim.Adam(p, lr=0.01, eps=1e-12), 1.0 + 1e-6, 100)
    assert not bool(stopped.any())
    moving = rest(lambda p: torch.optim.Adam(p, lr=0.01, eps=1e-12), 0.5, 100)
    assert bool(moving[:, :4].all())


# -- the method --------------------------------------------------------------------------------------------------------


def pruned(
    method: Any, schedule: PhaseSchedule, steps: int, **settings: Any
) -> tuple[nn.Module, Sparsifier, list[Any]]:
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    s = prune(model, optimizer, method, plan=small_plan(model), schedule=schedule, **settings)
    seen = [[layer.stored.detach().clone() for layer in s.layers]]
    for _ in range(steps):
        train(model, optimizer, 1)
        seen.append([layer.stored.detach().clone() for layer in s.layers])
    return model, s, seen


SCHEDULE = PhaseSchedule.from_list([("dense", 3), ("sparsify", 3), ("sparse", 3)])


@pytest.mark.parametrize("q", ["l2", MCP(0.3), L0(), Half()], ids=repr)
@pytest.mark.parametrize("fine_tune", [True, False])
def test_the_method_takes_a_proximal_step_after_every_step(q: Any, fine_tune: bool) -> None:
    """The same run by hand: SGD on a copy under the same masks, and `shrink` after steps of dense and sparsify."""
    model, s, _ = pruned(ProximalMethod(q=q, lam=0.05, fine_tune=fine_tune), SCHEDULE, 0)
    optimizer = s.optimizer
    assert optimizer is not None
    for step in range(9):
        other = copy.deepcopy(model)
        masked = [each for each in other.modules() if hasattr(each, "parametrizations")]
        train(other, torch.optim.SGD(other.parameters(), lr=0.1), 1)
        train(model, optimizer, 1)
        for layer, module in zip(s.layers, masked, strict=True):
            expected = module.parametrizations["weight"].original.detach()
            if step < 6 or not fine_tune:
                shrink(expected, layer.grid, get_regularizer(q), 0.1, 0.05)
            assert torch.equal(layer.stored, expected), (step, layer.name)


def test_blocks_vanish_before_any_choice_and_the_budget_holds_at_the_end() -> None:
    schedule = PhaseSchedule.from_list([("dense", 30), ("sparse", 5)])
    _, s, seen = pruned(GroupLasso(lam=0.1), schedule, 30)
    zero = s.layers[0].grid.norms(seen[29][0]) == 0.0
    assert 0 < int(zero.sum())
    assert all(int(layer.kept.sum()) == layer.plan.kept for layer in s.layers)
    order = s.layers[0].grid.norms(seen[30][0])
    kept = s.layers[0].kept
    assert float(order[kept].min()) >= float(order[~kept].max())


def test_a_method_that_shrinks_in_sparse_phases_is_told_apart() -> None:
    _, _, fine = pruned(ProximalMethod(lam=0.05), SCHEDULE, 9)
    _, _, shrunk = pruned(ProximalMethod(lam=0.05, fine_tune=False), SCHEDULE, 9)
    assert torch.equal(fine[6][0], shrunk[6][0])
    assert not torch.equal(fine[7][0], shrunk[7][0])


def test_lam_zero_is_magnitude_pruning() -> None:
    _, s, ours = pruned(GroupLasso(lam=0.0), SCHEDULE, 9)
    _, other, theirs = pruned("magnitude", SCHEDULE, 9)
    assert all(torch.equal(a, b) for a, b in zip(ours[-1], theirs[-1], strict=True))
    assert all(torch.equal(a.kept, b.kept) for a, b in zip(s.layers, other.layers, strict=True))


def test_frozen_layers_are_not_shrunk() -> None:
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    s = prune(model, optimizer, GroupLasso(lam=1e3), plan=small_plan(model), schedule=SCHEDULE)
    s.layers[0].stored.requires_grad_(False)
    before = s.layers[0].stored.detach().clone()
    train(model, optimizer, 2)
    assert torch.equal(s.layers[0].stored, before)
    assert not bool(s.layers[1].stored.any())


def test_the_sparsifier_follows_a_proximal_optimizer() -> None:
    """Attached to the outer optimizer, phases change after the prox, and the inner optimizer's state is cleared."""
    model = small()
    layers = small_plan(model)
    optimizer = Proximal(torch.optim.Adam(model.parameters(), lr=0.02), BlockPenalty(layers, "l2", 0.2), model)
    s = prune(model, optimizer, "ac/dc", plan=layers, schedule=SCHEDULE)
    train(model, optimizer, 3)
    assert s.layers[0].stored not in optimizer.optimizer.state
    train(model, optimizer, 6)
    assert all(int(layer.kept.sum()) == layer.plan.kept for layer in s.layers)
    assert type(s.fold()[0]) is nn.Linear
    train(model, optimizer, 1)  # folded, it goes on with the plain weights


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
