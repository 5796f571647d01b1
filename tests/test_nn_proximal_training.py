"""Proximal optimizers in training: schedules, gradient scalers, Accelerate, and what lam is weighed against."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="proximal steps on networks need torch")

from proximal_cases import OPTIMIZERS, X, loss_of, proximal, small, small_plan, train  # noqa: E402
from torch import nn  # noqa: E402

from sparseopt.nn import BlockGrid  # noqa: E402
from sparseopt.nn.penalty import BlockPenalty, shrink  # noqa: E402
from sparseopt.nn.planning import LayerPlan  # noqa: E402
from sparseopt.nn.proximal import Proximal  # noqa: E402
from sparseopt.regularizers import L2  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


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
