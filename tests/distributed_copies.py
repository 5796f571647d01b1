"""Checks of copies: DistributedDataParallel. distributed_worker.py runs them."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed as dist
from distributed_cases import (
    ALL_METHODS,
    MOMENTS,
    STEPS,
    WORLD,
    Drifting,
    Trace,
    adam,
    alone,
    batch,
    check,
    copied,
    fails,
    flip_mask,
    folder,
    gathered,
    loss,
    network,
    nothing,
    pruned,
    raises,
    rank,
    replaced,
    require_close,
    require_same,
    require_same_trace,
    require_trace,
    train,
)
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel as DDP

import sparseopt.nn.agreement as agreement
import sparseopt.nn.sparsifier as engine
from sparseopt.nn import Sparsifier, prune
from sparseopt.nn.agreement import require_agreement, require_replicas


@check(**ALL_METHODS)
def copies_train_as_one_process(method: Any) -> None:
    model, optimizer, s = copied(method)
    trace = train(model, optimizer, s, range(STEPS), rank())
    require_same_trace(trace)
    for name, tensor in s.model.state_dict().items():
        require_same(tensor, name)
    reference, expected = alone(method)
    require_trace(trace, expected)
    require_close(s.model, reference.model)
    assert {event.phase for event in s.history} == {phase.kind for phase in s.schedule.phases}
    assert any(not bool(mask.all()) for masks in trace for mask in masks)


@check()
def masks_of_ones_own_are_rejected() -> None:
    def drifting() -> None:
        model, optimizer, s = copied(Drifting())
        require_same_trace(train(model, optimizer, s, range(STEPS), rank()))

    with raises(RuntimeError, "processes chose different blocks of"):
        drifting()
    with replaced(engine, "require_agreement", nothing), replaced(engine, "require_replicas", nothing):
        # The wrapper copies buffers in the forward pass, but not into the optimizer's step that follows a choice.
        fails(drifting)


@check()
def averages_are_needed() -> None:
    def unaveraged() -> None:
        s = pruned("ac/dc")
        optimizer = adam(s.model)
        s.attach(optimizer)
        require_same_trace(train(s.model, optimizer, s, range(STEPS), rank()))

    with raises(RuntimeError, "differ in the weights of conv.weight", "averaged"):
        unaveraged()
    with replaced(engine, "require_agreement", nothing), replaced(engine, "require_replicas", nothing):
        fails(unaveraged)


def _enter(s: Sparsifier) -> None:
    s.layers[1].enter("dense")


def _move_weight(s: Sparsifier) -> None:
    s.layers[1].stored[2, 50] += 0.01


def _swap_rows(s: Sparsifier) -> None:
    s.layers[1].stored.copy_(s.layers[1].stored.flip(0))


def _move_logit(s: Sparsifier) -> None:
    s.layers[1].logits[0, 7] += 0.01


def _spoil_weight(s: Sparsifier) -> None:
    s.layers[1].stored[2, 50] = torch.nan


def _spoil_logit(s: Sparsifier) -> None:
    s.layers[1].logits[0, 7] = -torch.inf


SPOILED = {
    "mask": {"change": flip_mask, "error": RuntimeError, "words": "differ in the mask of head.weight after 4 steps"},
    "phase": {"change": _enter, "error": RuntimeError, "words": "differ in the phase of head.weight"},
    "weight": {"change": _move_weight, "error": RuntimeError, "words": "differ in the weights of head.weight"},
    "rows": {"change": _swap_rows, "error": RuntimeError, "words": "differ in the weights of head.weight"},
    "logit": {"change": _move_logit, "error": RuntimeError, "words": "differ in the logits of head.weight"},
    "nan": {"change": _spoil_weight, "error": FloatingPointError, "words": "weights of head.weight are not finite"},
    "infinity": {"change": _spoil_logit, "error": FloatingPointError, "words": "logits of head.weight are not finite"},
}


@check(**{f"{name}-{who}": {**case, "who": who} for name, case in SPOILED.items() for who in range(WORLD)})
def one_process_at_fault_is_noticed_by_all(change: Any, error: Any, words: str, who: int) -> None:
    def spoiled() -> None:
        model, optimizer, s = copied("sequential-attention++")
        train(model, optimizer, s, range(3), rank())
        optimizer.zero_grad()
        loss(model, 3, rank()).backward()
        if rank() == who:
            with torch.no_grad():
                change(s)
        optimizer.step()

    with raises(error, words):
        spoiled()
    with replaced(engine, "require_replicas", nothing), replaced(engine, "require_agreement", nothing):
        spoiled()  # nobody else notices


@check()
def rounding_is_no_fault() -> None:
    s = pruned("sequential-attention++")
    with torch.no_grad():
        for layer in s.layers:
            for parameter in layer.parameters:
                parameter.mul_(1.0 + 1e-13 * rank()).add_(1e-13 * rank())
    require_replicas(s.layers, 0)


@check()
def schedules_and_layers_must_be_the_same() -> None:
    s = pruned("ac/dc")
    with raises(RuntimeError, "chooses blocks after", "same schedule"):
        require_replicas(s.layers, 5 + rank())
    with raises(RuntimeError, "prunes other layers"):
        require_replicas(s.layers[: 1 + rank()], 5)
    with raises(RuntimeError, "prunes other layers"):
        require_replicas(s.layers[rank() : 1 + rank()], 5)


@check()
def every_flipped_or_moved_block_is_noticed() -> None:
    mask = torch.rand(4, 7, generator=torch.Generator().manual_seed(3)) < 0.5

    def noticed(other: Tensor) -> None:
        mine = mask if rank() == 0 else other
        with raises(RuntimeError, "different blocks of b"):
            require_agreement(["a", "b"], [mask, mine])

    def all_noticed() -> None:
        for i in range(mask.numel()):
            other = mask.clone()
            other.view(-1)[i] ^= True
            noticed(other)
        for other in (mask.flip(0), mask.flip(1), mask.roll(1), ~mask):
            assert not torch.equal(other, mask)
            noticed(other)

    all_noticed()
    require_agreement(["a", "b"], [mask, mask.clone()])
    with replaced(agreement, "_noise", lambda n, device: torch.ones(n, dtype=torch.int64)):  # a mere count
        fails(all_noticed)


@check()
def a_group_of_ones_own_needs_nobody() -> None:
    groups = [dist.new_group([each]) for each in range(WORLD)]
    s = pruned("sequential-attention++", seed=rank())
    s.process_group = groups[rank()]
    optimizer = adam(s.model)
    s.attach(optimizer)
    train(s.model, optimizer, s, range(STEPS), rank())
    first, second = gathered(s.layers[0].stored)
    assert not torch.equal(first, second)


@check()
def wrapped_models_are_refused() -> None:
    model = DDP(network())
    with raises(ValueError, "wrapped in DistributedDataParallel", "prune it first"):
        prune(model, None, "ac/dc", 0.5, 3, STEPS, min_blocks=2)


@check(**{name: {"method": name} for name in ("sequential-attention++", "rigl")})
def accumulated_gradients_are_one_step(method: str) -> None:
    model, optimizer, s = copied(method)
    trace: Trace = []
    for step in range(STEPS):
        optimizer.zero_grad()
        x, y = batch(step, rank())
        for part in range(3):
            rows = slice(2 * part, 2 * part + 2)
            with model.no_sync() if part < 2 else nullcontext():
                ((model(x[rows]) - y[rows]).square().mean() / 3).backward()
        optimizer.step()
        trace.append([layer.mask.alive().clone() for layer in s.layers])
    assert s.step_count == STEPS
    reference, expected = alone(method)
    require_trace(trace, expected)
    require_close(s.model, reference.model)


@check(**{f"{name} {n}": {"method": name, "n": n} for name in ("sequential-attention++", "ac/dc") for n in MOMENTS})
def a_resumed_run_ends_as_the_uninterrupted_one(method: str, n: int) -> None:
    model, optimizer, s = copied(method)
    assert (n in {phase.start for phase in s.schedule.phases}) == (n == MOMENTS[1])
    file = folder() / "resume.pt"
    train(model, optimizer, s, range(n), rank())
    if rank() == 0:  # alone: the other process need not help
        states = (s.model.state_dict(), optimizer.state_dict(), s.state_dict())
        torch.save(dict(zip(("model", "optimizer", "sparsifier"), states, strict=True)), file)
    dist.barrier()
    train(model, optimizer, s, range(n, STEPS), rank())

    again, its_optimizer, t = copied(method, seed=1)
    saved = torch.load(file, weights_only=True)
    t.model.load_state_dict(saved["model"])
    its_optimizer.load_state_dict(saved["optimizer"])
    t.load_state_dict(saved["sparsifier"])
    train(again, its_optimizer, t, range(n, STEPS), rank())
    for name, tensor in s.model.state_dict().items():
        assert torch.equal(tensor, t.model.state_dict()[name]), name
        require_same(tensor, name)
    assert t.history == s.history


@check()
def folded_copies_are_equal_and_sparse() -> None:
    model, optimizer, s = copied("sequential-attention++")
    train(model, optimizer, s, range(STEPS), rank())
    x, _ = batch(0)
    before = s.model(x).detach()
    plain = s.fold()
    assert type(plain.conv) is nn.Conv1d
    assert torch.equal(plain(x), before)
    require_same(plain.conv.weight, "the folded weight")
    assert (plain.conv.weight == 0).double().mean() == 0.5
