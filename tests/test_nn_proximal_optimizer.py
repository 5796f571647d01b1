"""Proximal optimizers: the step of the inner one and then the prox, with its groups, its state and its hooks."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="proximal steps on networks need torch")

from proximal_cases import OPTIMIZERS, X, loss_of, proximal, small, small_plan, train  # noqa: E402
from torch import nn  # noqa: E402

from sparseopt.nn import Sparsifier  # noqa: E402
from sparseopt.nn.penalty import BlockPenalty, shrink  # noqa: E402
from sparseopt.nn.proximal import Proximal  # noqa: E402
from sparseopt.regularizers import L2  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


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
