"""Growth and swaps: a block comes in at zero and without momentum, and those that stay notice nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="networks need torch")

from swap_cases import BLOCK, NAMES, SIDE, batches, network, phases, run, sparsifier  # noqa: E402
from torch import nn  # noqa: E402

from sparseopt.nn import OMP, OMPR, RigL, Sparsifier, probing  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.01),
    "amsgrad": lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True),
    "foreach": lambda p: torch.optim.AdamW(p, lr=0.01, foreach=True),
    "fused": lambda p: torch.optim.AdamW(p, lr=0.01, fused=True),
    "radam": lambda p: torch.optim.RAdam(p, lr=0.01),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.01),
    "adamax": lambda p: torch.optim.Adamax(p, lr=0.01),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.01, initial_accumulator_value=0.1),
    "adadelta": lambda p: torch.optim.Adadelta(p, lr=0.5),
    "rprop": lambda p: torch.optim.Rprop(p, lr=0.01),
}
_REMEMBERED = ("momentum_buffer", "exp_avg", "grad_avg", "exp_inf", "acc_delta", "sum", "prev")


SWAPS = RigL(every=5, until=0.9, fraction=0.8, regrow=False)


def check_arrivals(make: Callable[[Any], Any], method: Any = SWAPS) -> None:
    """Blocks that come in: weight 0, momentum 0. Blocks that stay: nothing of theirs changes at the event."""
    model = network()
    s = sparsifier(model, method, phases(("dense", 1), ("sparse", 44)), 0.5)
    optimizer = make(model.parameters())
    s.attach(optimizer)
    before: list[dict[str, Any]] = []
    arrived = 0
    # Runs between the optimizer's own update and the sparsifier: its hook was there first.
    optimizer._optimizer_step_post_hooks.move_to_end(
        optimizer.register_step_post_hook(lambda *_: before.append(snapshot(s, optimizer))).id, last=False
    )
    old = [layer.kept.clone() for layer in s.layers]
    for batch in batches(45):
        run(s, optimizer, [batch])
        for i, layer in enumerate(s.layers):
            came, stayed = layer.kept & ~old[i], layer.kept & old[i]
            arrived += int(came.sum())
            state = {key: value for key, value in snapshot(s, optimizer).items() if key.startswith(f"{i} ")}
            for key, value in state.items() if s.step_count > 1 and bool(came.any()) else ():
                entries = layer.grid.expand(stayed)
                assert torch.equal(value[entries], before[-1][key][entries]), key
                if key.split()[1] in ("weight", *_REMEMBERED):
                    first = 0.1 if key.endswith("sum") else 0.0
                    assert bool((value[layer.grid.expand(~stayed)] == first).all()), key
            old[i] = layer.kept.clone()
    assert arrived >= 8, arrived


def snapshot(s: Sparsifier, optimizer: Any) -> dict[str, Any]:
    found = {}
    for i, layer in enumerate(s.layers):
        found[f"{i} weight"] = layer.stored.detach().clone()
        for key, value in optimizer.state[layer.stored].items():
            if isinstance(value, torch.Tensor) and value.shape == layer.stored.shape:
                found[f"{i} {key}"] = value.clone()
    return found


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_blocks_come_in_at_zero_and_without_momentum(kind: str) -> None:
    check_arrivals(OPTIMIZERS[kind])


@pytest.mark.parametrize("method", [OMP(every=5, until=0.9), OMPR(every=5, until=0.9)], ids=repr)
def test_blocks_come_in_at_zero_in_every_method(method: Any) -> None:
    check_arrivals(OPTIMIZERS["sgd"], method)


def test_blocks_that_bring_their_weights_or_momentum_along_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(RigL, "chosen", lambda *_: None)
        with pytest.raises(AssertionError, match="0 weight"):
            check_arrivals(OPTIMIZERS["sgd"])
    monkeypatch.setattr(RigL, "chosen", lambda self, layer, before, _: layer.clear(~(before & layer.kept)))
    with pytest.raises(AssertionError, match="0 momentum_buffer"):
        check_arrivals(OPTIMIZERS["sgd"])


def check_first_updates() -> None:
    """After 2000 steps of Adam, a block that comes in moves by no more than the learning rate per step, on average.

    The gradient is the same number in every step, so a fresh Adam would move every entry by exactly the learning rate.
    """
    model = nn.Sequential(nn.Linear(SIDE, SIDE, bias=False)).double()
    s = sparsifier(model, OMPR(every=6, until=0.15), phases(("sparse", 46)))
    lr, layer = 1e-3, s.layers[0]
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    s.attach(optimizer)
    slopes = torch.full((SIDE, SIDE), 0.3, dtype=torch.float64)
    old = layer.kept.clone()
    for step in range(1, 47):
        optimizer.zero_grad()
        (model[0].weight * slopes).sum().backward()
        optimizer.step()
        if step == 1:
            optimizer.state[layer.stored]["step"].fill_(1995)
        if step > 6:
            moved = layer.stored.detach()[layer.grid.expand(layer.kept & ~old)].abs()
            assert len(moved) == BLOCK**2
            most = float(moved.max()) / lr
            assert most <= (step - 6) * (1.0 + 1e-7), f"{most:.2f} in {step - 6}"
    assert most > 20.0


def test_adam_moves_a_block_that_comes_in_by_no_more_than_the_learning_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    check_first_updates()
    # With second moments at 0 the first update would be three times as large, as in libraries for sparse training.
    monkeypatch.setattr(probing, "_MOMENTA", probing._MOMENTA | {"exp_avg_sq"})
    monkeypatch.setattr(probing, "_SQUARES", set())
    with pytest.raises(AssertionError, match=r"2\.94 in 1"):
        check_first_updates()


@pytest.mark.parametrize("name", NAMES)
def test_neither_momentum_nor_decay_moves_a_dropped_block(name: str) -> None:
    s = sparsifier(network(), name, phases(("dense", 3), ("sparse", 40)), every=5, first="magnitude")
    optimizer = torch.optim.AdamW(s.model.parameters(), lr=0.01, weight_decay=0.1)
    s.attach(optimizer)

    def watch() -> None:
        if s.phase.kind == "sparse":
            for layer in s.layers:
                stored = layer.stored.detach()[layer.grid.expand(~layer.kept)]
                assert bool((stored == 0.0).all())

    run(s, optimizer, batches(43), watch)
