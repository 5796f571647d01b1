"""What checks of distributed pruning share: a small network, its training in copies or shards, and a register."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel as DDP

from sparseopt.nn import METHODS, Magnitude, PhaseSchedule, Sparsifier, prune
from sparseopt.nn.layers import Layer, full

WORLD = 2
SCHEDULE = PhaseSchedule.from_list([("dense", 2), ("sparsify", 4), ("sparse", 2), ("dense", 3), ("sparse", 3)])
STEPS = SCHEDULE.total
MOMENTS = (4, 8)  # inside of a phase, and right after a change of phase, when the optimizer's state is cleared
# Sums in another order differ by 1e-16, which Adam divides by eps = 1e-8 and multiplies by lr = 0.01, in every step.
CLOSE = STEPS * 0.01 * 1e-16 / 1e-8 * 10

CHECKS: dict[str, Callable[[], None]] = {}


def folder() -> Path:
    """Where the processes meet and leave their files."""
    return Path(sys.argv[2])


def check(**cases: dict[str, Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a check, once per case."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        for case, arguments in (cases or {"": {}}).items():
            CHECKS[function.__name__ + (f"[{case}]" if case else "")] = partial(function, **arguments)
        return function

    return register


ALL_METHODS = {name: {"method": name} for name in METHODS}


# What the checks share


def network(seed: int = 0) -> nn.Sequential:
    """15 x 12 weights that two processes share unevenly, and 3 x 90 in one row of blocks: logits for one of the two."""
    torch.manual_seed(seed)
    parts = [("conv", nn.Conv1d(4, 15, 3, padding=1)), ("act", nn.Tanh()), ("flat", nn.Flatten())]
    return nn.Sequential(OrderedDict([*parts, ("head", nn.Linear(90, 3))])).double()


def pruned(method: Any = "ac/dc", seed: int = 0, schedule: PhaseSchedule = SCHEDULE) -> Sparsifier:
    return prune(network(seed), None, method, 0.5, 3, schedule=schedule, min_blocks=2)


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=0.01)


def batch(step: int, rank: int | None = None) -> tuple[Tensor, Tensor]:
    """The examples of one process, or of all."""
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(WORLD, 6, 4, 6, generator=generator, dtype=torch.float64)
    y = x.cumsum(2).sin().mean(3)[..., :3]
    return (x[rank], y[rank]) if rank is not None else (x.flatten(0, 1), y.flatten(0, 1))


def loss(model: nn.Module, step: int, rank: int | None) -> Tensor:
    x, y = batch(step, rank)
    return (model(x) - y).square().mean()


Trace = list[list[Tensor]]


def train(
    model: nn.Module, optimizer: Any, s: Sparsifier, steps: range, rank: int | None, trace: Trace | None = None
) -> Trace:
    """Train, and return the masks in use after every step."""
    trace = [] if trace is None else trace
    for step in steps:
        optimizer.zero_grad()
        loss(model, step, rank).backward()
        optimizer.step()
        trace.append([layer.mask.alive().clone() for layer in s.layers])
    return trace


@cache
def alone(method: str) -> tuple[Sparsifier, Trace]:
    """The same training in one process, on the examples of all."""
    s = pruned(method)
    optimizer = adam(s.model)
    s.attach(optimizer)
    return s, train(s.model, optimizer, s, range(STEPS), None)


def gathered(tensor: Tensor) -> list[Tensor]:
    tensor = tensor.detach().contiguous()
    tensor = tensor.to(torch.uint8) if tensor.dtype == torch.bool else tensor
    out = [torch.empty_like(tensor) for _ in range(WORLD)]
    dist.all_gather(out, tensor)
    return out


def require_same(tensor: Tensor, what: str) -> None:
    first, second = gathered(tensor)
    assert torch.equal(first, second), f"{what} differs between the processes"


def require_same_trace(trace: Trace) -> None:
    require_same(torch.cat([mask.flatten() for masks in trace for mask in masks]), "a mask of some step")


def require_trace(trace: Trace, expected: Trace) -> None:
    for step, (masks, others) in enumerate(zip(trace, expected, strict=True)):
        for mask, other in zip(masks, others, strict=True):
            assert torch.equal(mask, other), f"a mask after step {step} is not that of one process"


def require_close(model: nn.Module, other: nn.Module) -> None:
    """Equal parameters up to rounding, and some that are not trivial."""
    theirs = dict(other.named_parameters())
    for name, parameter in model.named_parameters():
        gap = (full(parameter) - theirs[name]).abs().max()
        assert gap <= CLOSE, f"{name} is off by {gap:.2e}"
        assert full(parameter).abs().max() > 1e-3


@contextmanager
def raises(kind: type[Exception], *words: str) -> Iterator[None]:
    """Every process must get the error: a helper that does not depend on who was at fault."""
    problem = ""
    try:
        yield
        problem = "nothing was raised"
    except kind as error:
        message = str(error)
        missing = [word for word in words if word not in message]
        problem = f"{missing} not in {message!r}" if missing or message.count(". ") else ""
    problems = gathered(torch.tensor([len(problem)]))
    assert not any(problems), problem or "only the other process failed"


@contextmanager
def replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def fails(function: Callable[[], None]) -> None:
    """The check must fail, in all processes."""
    try:
        function()
    except (AssertionError, RuntimeError):
        failed = True
    else:
        failed = False
    assert all(gathered(torch.tensor([failed]))), "a wrong implementation passed"


def rank() -> int:
    return dist.get_rank()


def nothing(*_: Any, **__: Any) -> None:
    """A check that checks nothing."""


def flip_mask(s: Sparsifier) -> None:
    s.layers[1].kept[0, 4] ^= True


class Drifting(Magnitude):
    """Ranks blocks by numbers that every process draws for itself."""

    def scores(self, layer: Layer) -> Tensor:
        return torch.randn(layer.grid.counts, generator=torch.Generator().manual_seed(rank()))


def copied(method: Any, **settings: Any) -> tuple[nn.Module, torch.optim.Optimizer, Sparsifier]:
    s = pruned(method, **settings)
    model = DDP(s.model)
    optimizer = adam(model)
    s.attach(optimizer)
    return model, optimizer, s


def shard(model: nn.Sequential, parts: bool = True, mesh: tuple[int, ...] = (WORLD,), policy: Any = None) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    among = init_device_mesh("cpu", mesh, mesh_dim_names=("copies", "shards")[-len(mesh) :])
    settings = {"mp_policy": policy} if policy else {}
    for module in (model.conv, model.head) if parts else ():
        fully_shard(module, mesh=among, **settings)
    fully_shard(model, mesh=among, **settings)


def sharded(
    method: Any, parts: bool = True, **settings: Any
) -> tuple[nn.Sequential, torch.optim.Optimizer, Sparsifier]:
    s = pruned(method, **settings)
    shard(s.model, parts)
    optimizer = adam(s.model)
    s.attach(optimizer)
    return s.model, optimizer, s
