"""Checks of shards: fully_shard. distributed_worker.py runs them."""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch.distributed as dist
from distributed_cases import (
    ALL_METHODS,
    MOMENTS,
    SCHEDULE,
    STEPS,
    WORLD,
    Trace,
    adam,
    alone,
    batch,
    check,
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
    require_same_trace,
    require_trace,
    shard,
    sharded,
    train,
)
from torch import Tensor

import sparseopt.nn.layers as layers
import sparseopt.nn.masking as masking
import sparseopt.nn.sparsifier as engine
from sparseopt.nn import Magnitude, PhaseSchedule, Sparsifier, dense_state_dict, prune
from sparseopt.nn.agreement import require_replicas
from sparseopt.nn.layers import Layer, full


@check(**ALL_METHODS)
def shards_train_as_one_process(method: Any) -> None:
    model, optimizer, s = sharded(method)
    trace = train(model, optimizer, s, range(STEPS), rank())
    require_same_trace(trace)
    reference, expected = alone(method)
    require_trace(trace, expected)
    require_close(model, reference.model)
    assert all(hasattr(parameter, "full_tensor") for parameter in model.parameters())


@check()
def one_unit_trains_as_well() -> None:
    model, optimizer, s = sharded("sequential-attention++", parts=False)
    trace = []
    for step in range(STEPS):
        train(model, optimizer, s, range(step, step + 1), rank(), trace)
        with torch.no_grad():
            model(batch(0)[0])  # leaves gathered copies behind
    reference, expected = alone("sequential-attention++")
    require_trace(trace, expected)
    require_close(model, reference.model)


@check()
def shards_of_ones_own_are_rejected() -> None:
    """A ranking by what a process holds itself, instead of by whole weights."""

    class Rows(Magnitude):
        def scores(self, layer: Layer) -> Tensor:
            own = layer.stored.to_local() if hasattr(layer.stored, "to_local") else layer.stored
            padded = torch.zeros(layer.grid.shape, dtype=own.dtype)
            padded[: len(own)] = own
            return layer.grid.norms(padded)

    def ranked_alone() -> None:
        model, optimizer, s = sharded(Rows())
        require_same_trace(train(model, optimizer, s, range(STEPS), rank()))

    with raises(RuntimeError, "processes chose different blocks of"):
        ranked_alone()
    with replaced(engine, "require_agreement", nothing), replaced(engine, "require_replicas", nothing):
        fails(ranked_alone)


@check()
def logits_are_sharded_even_in_one_row() -> None:
    _, _, s = sharded("sequential-attention++")
    rows = [[int(n) for n in gathered(torch.tensor(len(layer.logits.to_local())))] for layer in s.layers]
    assert rows == [[3, 2], [1, 0]]


@check()
def dropped_blocks_become_zero_in_the_shards() -> None:
    def zeroed() -> None:
        model, optimizer, s = sharded("ac/dc", schedule=PhaseSchedule.from_list([("dense", 3), ("sparse", 2)]))
        train(model, optimizer, s, range(3), rank())
        assert s.phase.kind == "sparse"
        for layer in s.layers:
            whole = full(layer.stored)
            assert torch.equal(whole != 0, layer.grid.expand(layer.kept.double()) != 0)
            assert bool((layer.stored.to_local() == 0).any()) or layer.stored.to_local().numel() == 0
        for _, value in model.named_parameters():
            moments = [full(each) for each in optimizer.state[value].values()]
            cleared = not any(bool(each.any()) for each in moments)
            assert cleared == any(value is layer.stored for layer in s.layers), "the state of other layers"

    zeroed()
    with replaced(layers, "write", nothing):
        fails(zeroed)
    with replaced(engine, "clear_state", nothing):
        fails(zeroed)


@check(**{"parts": {"parts": True}, "root": {"parts": False}})
def folded_shards_compute_and_train(parts: bool) -> None:
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    model, optimizer, s = sharded("sequential-attention++", parts)
    train(model, optimizer, s, range(STEPS), rank())
    x, _ = batch(0)
    with torch.no_grad():
        before = model(x)
    dense = dense_state_dict(model)
    plain = s.fold()
    assert plain is model
    with torch.no_grad():
        assert torch.equal(model(x), before)

    state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
    single = network(1)
    single.load_state_dict(state if rank() == 0 else dense)
    assert list(dense) == list(single.state_dict())
    assert all(not hasattr(value, "full_tensor") for value in dense.values())
    with torch.no_grad():
        assert torch.allclose(single(x), before, rtol=0.0, atol=1e-12)
    assert (single.conv.weight == 0).double().mean() == 0.5

    # The folded model is an ordinary sharded one.
    its = adam(single)
    fresh = adam(model)
    for step in range(3):
        for each, using, who in ((model, fresh, rank()), (single, its, None)):
            using.zero_grad()
            loss(each, step, who).backward()
            using.step()
    require_close(model, single)
    with torch.no_grad():
        model(x)
    model.load_state_dict(model.state_dict())
    require_close(model, single)

    with replaced(masking, "relocate", nothing):
        other, _, t = sharded("sequential-attention++", parts)
        t.step_count = STEPS
        t.fold()
        fails(lambda: other(x))


@check(**{f"{n}": {"n": n} for n in MOMENTS})
def a_resumed_sharded_run_ends_as_the_uninterrupted_one(n: int) -> None:
    from torch.distributed.checkpoint import state_dict as dcp

    options = dcp.StateDictOptions(full_state_dict=True)
    model, optimizer, s = sharded("sequential-attention++")
    train(model, optimizer, s, range(n), rank())
    weights, moments = dcp.get_state_dict(model, optimizer, options=options)
    if rank() == 0:
        torch.save({"model": weights, "optimizer": moments, "sparsifier": s.state_dict()}, folder() / "sharded.pt")
    dist.barrier()
    train(model, optimizer, s, range(n, STEPS), rank())

    def resume() -> Sparsifier:
        saved = torch.load(folder() / "sharded.pt", weights_only=True)
        again, its_optimizer, t = sharded("sequential-attention++", seed=1)
        t.load_state_dict(saved["sparsifier"])
        # The optimizer makes its state by a step that changes nothing, and must not count.
        dcp.set_state_dict(
            again, its_optimizer, model_state_dict=saved["model"], optim_state_dict=saved["optimizer"], options=options
        )
        assert t.step_count == n
        train(again, its_optimizer, t, range(n, STEPS), rank())
        return t

    t = resume()
    for (name, mine), other in zip(model.named_parameters(), t.model.parameters(), strict=True):
        assert torch.equal(full(mine), full(other)), name
    assert t.history == s.history
    with replaced(engine, "skipped", lambda optimizer: False):
        # The step counts twice, or is taken in a phase that the masks are not in.
        fails(resume)


@check()
def copies_of_shards_train_as_one_process() -> None:
    s = pruned("sequential-attention++")
    shard(s.model, mesh=(WORLD, 1))
    optimizer = adam(s.model)
    s.attach(optimizer)
    trace = train(s.model, optimizer, s, range(STEPS), rank())
    require_same_trace(trace)
    reference, expected = alone("sequential-attention++")
    require_trace(trace, expected)
    require_close(s.model, reference.model)
    require_replicas(s.layers, STEPS)
    if rank() == 1:
        s.layers[1].stored.detach().to_local()[2, 50] += 0.01
    with raises(RuntimeError, "differ in the weights of head.weight"):
        require_replicas(s.layers, STEPS)


@check()
def accumulated_gradients_of_shards_are_one_step() -> None:
    model, optimizer, _ = sharded("rigl")
    for step in range(STEPS):
        optimizer.zero_grad()
        x, y = batch(step, rank())
        for part in range(3):
            rows = slice(2 * part, 2 * part + 2)
            model.set_requires_gradient_sync(part == 2)
            ((model(x[rows]) - y[rows]).square().mean() / 3).backward()
        optimizer.step()
    reference, _ = alone("rigl")
    require_close(model, reference.model)


@check(**{who: {"who": int(who)} for who in "01"})
def one_spoiled_shard_is_noticed_by_all(who: int) -> None:
    model, optimizer, s = sharded("sequential-attention++")
    train(model, optimizer, s, range(3), rank())
    optimizer.zero_grad()
    loss(model, 3, rank()).backward()
    if rank() == who:
        with torch.no_grad():
            s.layers[0].stored.to_local()[0, 0, 0] = torch.nan
    with raises(FloatingPointError, "weights of conv.weight are not finite after 4 steps on one process"):
        optimizer.step()
    with raises(FloatingPointError, "on one process"):
        s.fold()


@check()
def half_precision_in_between_changes_nothing_of_the_masks() -> None:
    from torch.distributed.fsdp import MixedPrecisionPolicy

    s = pruned("sequential-attention++")
    model = s.model.float()
    shard(model, policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32))
    optimizer = adam(model)
    s.attach(optimizer)
    trace: Trace = []
    for step in range(STEPS):
        optimizer.zero_grad()
        x, y = batch(step, rank())
        (model(x.float()) - y).square().mean().backward()
        optimizer.step()
        trace.append([layer.mask.alive().clone() for layer in s.layers])
    require_same_trace(trace)
    assert all(parameter.dtype == torch.float32 for layer in s.layers for parameter in layer.parameters)
    weight = full(s.fold().conv.weight)
    assert (weight == 0).double().mean() == 0.5


@check(**{who: {"who": int(who)} for who in "01"})
def another_mask_beside_shards_is_noticed_by_all(who: int) -> None:
    model, optimizer, s = sharded("ac/dc")
    train(model, optimizer, s, range(SCHEDULE.phases[3].stop - 1), rank())
    optimizer.zero_grad()
    loss(model, 0, rank()).backward()
    if rank() == who:
        flip_mask(s)
    with raises(RuntimeError, "differ in the mask of head.weight"):
        optimizer.step()


@check()
def sharded_models_are_refused() -> None:
    from torch.distributed.fsdp import FullyShardedDataParallel

    model = network()
    shard(model)
    with raises(ValueError, "sharded", "prune it first"):
        prune(model, None, "ac/dc", 0.5, 3, STEPS, min_blocks=2)
    for whole in (True, False):
        s = pruned("ac/dc")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is deprecated, and says so
            flat = FullyShardedDataParallel(s.model, use_orig_params=whole, device_id=torch.device("cpu"))
        with raises(ValueError, "fully_shard"):
            s.attach(adam(flat))
