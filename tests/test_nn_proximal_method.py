"""The proximal method: a proximal step after every step, and the budget at the end."""

from __future__ import annotations

import copy
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="proximal steps on networks need torch")

from proximal_cases import Half, small, small_plan, train  # noqa: E402
from torch import nn  # noqa: E402

from sparseopt.nn import PhaseSchedule, Sparsifier, prune  # noqa: E402
from sparseopt.nn.methods.proximal import GroupLasso, ProximalMethod  # noqa: E402
from sparseopt.nn.penalty import BlockPenalty, shrink  # noqa: E402
from sparseopt.nn.proximal import Proximal  # noqa: E402
from sparseopt.regularizers import L0, MCP, get_regularizer  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


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
