"""Checks of files: save_checkpoint and load_checkpoint with shards and copies. distributed_worker.py runs them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from distributed_cases import (
    MOMENTS,
    STEPS,
    WORLD,
    adam,
    batch,
    check,
    copied,
    fails,
    folder,
    gathered,
    nothing,
    pruned,
    raises,
    rank,
    replaced,
    shard,
    train,
)
from resumable import leaves, unequal

import sparseopt.nn.checkpoint as checkpoint
import sparseopt.nn.plaindata as plaindata
from sparseopt.nn.checkpoint import load_checkpoint, save_checkpoint
from sparseopt.nn.layers import full
from sparseopt.nn.randomness import random_state
from sparseopt.nn.sharding import Processes, is_sharded, local
from sparseopt.nn.wholefile import read_whole

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "adamw": partial(torch.optim.AdamW, lr=0.01),
    "amsgrad": partial(torch.optim.Adam, lr=0.01, amsgrad=True, foreach=True),
    "fused": partial(torch.optim.Adam, lr=0.01, fused=True),
    "momentum": partial(torch.optim.SGD, lr=0.05, momentum=0.9, nesterov=True),
}
RESUMED = {
    f"{optimizer} {method} {n}": {"optimizer": optimizer, "method": method, "n": n}
    for optimizer, method, n in (
        *(("adamw", "sequential-attention++", n) for n in MOMENTS),
        *(("momentum", "ac/dc", n) for n in MOMENTS),
        ("amsgrad", "ac/dc", 4),
        ("fused", "sequential-attention++", 8),
    )
}


class Run:
    """A training in shards or in one process; one with `noise` draws numbers of its process's own in every step."""

    def __init__(
        self, optimizer: str, method: str, seed: int = 0, parts: bool | None = True, noise: bool = True
    ) -> None:
        self.sparsifier = pruned(method, seed)
        self.model = self.sparsifier.model
        if parts is not None:
            shard(self.model, parts)
        self.optimizer = OPTIMIZERS[optimizer](self.model.parameters())
        self.sparsifier.attach(self.optimizer)
        self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 3, 0.8)
        self.noise = noise
        self.told: list[Any] = []
        torch.manual_seed(100 * seed + rank())

    @property
    def all(self) -> tuple[Any, ...]:
        return self.model, self.optimizer, self.sparsifier, self.scheduler

    def train(self, until: int) -> None:
        while self.sparsifier.step_count < until:
            x, y = batch(self.sparsifier.step_count, rank() if self.noise else 0)
            x = x + 0.1 * torch.randn_like(x) if self.noise else x
            self.optimizer.zero_grad()
            error = (self.model(x) - y).square().mean()
            error.backward()
            self.optimizer.step()
            self.scheduler.step()
            self.told.append([error.item(), [layer.mask.alive().tolist() for layer in self.sparsifier.layers]])

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, as this process holds it."""
        parts = [part.state_dict() for part in self.all]
        return leaves(plaindata.mapped([*parts, random_state()], "", lambda v, _: local(v) if is_sharded(v) else v))


def file_contents(path: Path) -> dict[str, Any]:
    """What a file says of the model and its training."""
    content = read_whole(path)
    return leaves({key: value for key, value in content.items() if not key.startswith("random")})


@check(**RESUMED, one_unit={"optimizer": "adamw", "method": "rigl", "n": 4, "parts": False})
def files_of_shards_continue_as_the_uninterrupted_run(optimizer: str, method: str, n: int, parts: bool = True) -> None:
    file = folder() / "shards.pt"
    run = Run(optimizer, method, parts=parts)
    run.train(n)
    with torch.no_grad():
        run.model(batch(0)[0])  # leaves gathered copies behind
    save_checkpoint(file, *run.all, extra={"done": n, "weight": run.model.state_dict()["head.bias"]})
    saved = run.state()
    run.train(STEPS)

    def resume() -> None:
        again = Run(optimizer, method, seed=1, parts=parts)
        again.train(2)
        again.sparsifier.history.clear()
        again.told.clear()
        extra = load_checkpoint(file, *again.all)
        assert extra["done"] == n
        assert extra["weight"].shape == (3,)
        # Everywhere before anyone goes on: who leaves early would let the other wait.
        assert not sum(gathered(torch.tensor(len(unequal(again.state(), saved))))), unequal(again.state(), saved)
        again.train(STEPS)
        assert unequal(again.state(), run.state()) == []
        assert again.told == run.told[n:]
        assert again.sparsifier.history == run.sparsifier.history

    resume()
    assert any(key.startswith("/optimizer/state/0/") for key in file_contents(file))
    with replaced(torch.optim.Optimizer, "load_state_dict", nothing):
        fails(resume)  # the optimizer's state is forgotten
    with replaced(checkpoint, "_random_here", lambda content, *_: content["random"]):
        fails(resume)  # everyone draws the numbers of process 0
    with replaced(plaindata, "full", local):
        run = Run(optimizer, method, parts=parts)
        run.train(n)
        save_checkpoint(file, *run.all)
    with raises(ValueError, "has the shape"):
        resume()  # a file of the rows that process 0 has


@check(**RESUMED)
def files_go_from_one_process_to_two_and_back(optimizer: str, method: str, n: int) -> None:
    """With the same examples in both processes, averages are exact, and so is everything else."""
    one, two, back = (folder() / f"{name}.pt" for name in ("one", "two", "back"))
    mine = one if rank() == 0 else folder() / "of the other process.pt"
    later = n + 1

    single = Run(optimizer, method, parts=None, noise=False)
    single.train(n)
    save_checkpoint(mine, *single.all)
    dist.barrier()

    shards = Run(optimizer, method, seed=1, noise=False)
    with warned("random states of 1 processes, and this model is spread over 2"):
        load_checkpoint(one, *shards.all)
    save_checkpoint(two, *shards.all)
    assert unequal(file_contents(one), file_contents(two)) == []
    shards.train(later)
    save_checkpoint(back, *shards.all)
    shards.train(STEPS)

    again = Run(optimizer, method, seed=2, parts=None, noise=False)
    with warned("random states of 2 processes, and this model is spread over 1"):
        load_checkpoint(back, *again.all)
    again.train(STEPS)
    single.train(STEPS)
    assert shards.told == single.told[n:]
    assert again.told == single.told[later:]
    for (name, a), b, c in zip(
        single.model.named_parameters(), shards.model.parameters(), again.model.parameters(), strict=True
    ):
        assert torch.equal(a, full(b)), name
        assert torch.equal(a, c), name
    assert again.sparsifier.history == shards.sparsifier.history == single.sparsifier.history


@contextmanager
def warned(words: str) -> Iterator[None]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    assert [words in str(each.message) for each in caught] == [True]
    assert caught[0].filename == __file__


@check()
def a_failure_in_one_process_is_raised_by_all_and_leaves_the_old_file() -> None:
    file = folder() / "failing.pt"
    run = Run("adamw", "sequential-attention++")
    run.train(3)
    save_checkpoint(file, *run.all)
    old = file.read_bytes()

    def full_disk(path: Any, content: Any) -> None:
        assert rank() == 0, "only the first process writes"
        raise OSError(28, "No space left on device", str(path))

    def unwritten() -> None:
        with raises(OSError, "[Errno 28] No space left on device: ", "failing.pt"):
            save_checkpoint(file, *run.all)

    with replaced(checkpoint, "write_whole", full_disk):
        unwritten()
        with replaced(Processes, "together", lambda self, work: work()):
            fails(unwritten)  # process 1 believes in a checkpoint

    with raises(ValueError, "extra is a function, which a checkpoint cannot hold"):
        save_checkpoint(file, *run.all, extra=nothing if rank() == 1 else None)
    with torch.no_grad():
        run.model(batch(0)[0])
        run.model.conv.unshard()
    with raises(ValueError, "extra['weight'] is a copy that fully_shard has freed: take it from"):
        save_checkpoint(file, *run.all, extra={"weight": run.model.conv.bias})
    run.sparsifier.step_count += rank()
    with raises(RuntimeError, "process 1 has other sharded tensors after 4 steps than process 0 after 3"):
        save_checkpoint(file, *run.all)
    run.sparsifier.step_count -= rank()
    weight = run.model.head.parametrizations.weight.original
    state = run.optimizer.state[weight]
    state["rows"] = state["exp_avg"].detach().sum(1)
    with raises(ValueError, "shards of rows in another shape than the parameter's"):
        save_checkpoint(file, *run.all)
    del state["rows"]
    for part in (run.model.head.bias, run.model.conv.bias):  # that of a layer beside the pruned weights
        keep = part.detach().to_local().clone()
        if rank() == 1:
            part.detach().to_local().fill_(torch.nan)
        with raises(FloatingPointError, "bias is not finite after 3 steps"):
            save_checkpoint(file, *run.all)
        part.detach().to_local().copy_(keep)
    assert file.read_bytes() == old
    assert not list(folder().glob("failing.pt.tmp"))
    save_checkpoint(file, *run.all)


@check()
def files_that_one_process_cannot_use_are_refused_by_all() -> None:
    file = folder() / "sound.pt"
    run = Run("adamw", "sequential-attention++")
    run.train(3)
    save_checkpoint(file, *run.all)
    run.train(4)
    save_checkpoint(folder() / "later.pt", *run.all)
    other = Run("adamw", "ac/dc")
    before = run.state()
    if rank() == 0:
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        (folder() / "damaged.pt").write_bytes(data)
    dist.barrier()
    for name, kind, words in (
        ("missing", FileNotFoundError, "No such file or directory"),
        ("damaged", ValueError, "damaged.pt is damaged"),
        ("later", ValueError, "was written after [3, 4] steps"),
    ):
        with raises(kind, words):
            load_checkpoint(folder() / f"{name}.pt" if rank() == 1 else file, *run.all)
    with raises(ValueError, "sound.pt was made otherwise: the method is"):
        load_checkpoint(file, *other.all)
    assert unequal(run.state(), before) == []
    load_checkpoint(file, *run.all)
    assert run.sparsifier.step_count == 3


@check()
def whole_tensors_are_kept_by_the_first_process_only() -> None:
    run = Run("adamw", "sequential-attention++")
    run.train(1)
    held = [run.model.state_dict(), run.optimizer.state_dict()]
    shapes = plaindata.shards(held)
    assert len(shapes) == 3 * 6  # weights, biases and logits, with two moments each
    kept = plaindata.whole(held, rank() == 0)
    found: list[tuple[str, Any]] = []
    plaindata.mapped(kept, "", lambda v, where: found.append((where, None if v is None else getattr(v, "shape", ""))))
    for where, shape in shapes:
        assert (where, shape if rank() == 0 else None) in found
    assert plaindata.shards(kept) == []


@check()
def the_file_of_one_copy_is_enough_and_nobody_waits() -> None:
    file = folder() / "copy.pt"
    model, optimizer, s = copied("sequential-attention++")
    train(model, optimizer, s, range(5), rank())
    if rank() == 0:
        save_checkpoint(file, model, optimizer, s)
    dist.barrier()
    train(model, optimizer, s, range(5, STEPS), rank())
    again = copied("sequential-attention++", seed=1)
    load_checkpoint(file, *again)
    train(*again, range(5, STEPS), rank())
    for mine, other in zip(model.parameters(), again[0].parameters(), strict=True):
        assert torch.equal(mine, other)


@check()
def copies_of_shards_are_saved_once() -> None:
    def hybrid(seed: int) -> tuple[Any, ...]:
        s = pruned("sequential-attention++", seed)
        shard(s.model, mesh=(WORLD, 1))
        optimizer = adam(s.model)
        s.attach(optimizer)
        return s.model, optimizer, s

    first, second = hybrid(0), hybrid(1)
    train(first[0], first[1], first[2], range(5), rank())
    save_checkpoint(folder() / "hybrid.pt", *first)
    load_checkpoint(folder() / "hybrid.pt", *second)
    for each in (first, second):
        train(each[0], each[1], each[2], range(5, STEPS), rank())
    for mine, other in zip(first[0].parameters(), second[0].parameters(), strict=True):
        assert torch.equal(full(mine), full(other))
