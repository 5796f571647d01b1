"""What blocks save: networks and single layers, dense against sparse, in one process and in turns.

For every batch size all contestants compute the same outputs from the same example, and are first compared; a fast
wrong product is no result. Then they are timed in turns, see `race`.

    dense       the fastest of `rivals`: memory orders, libraries, packed weights; BatchNorm is folded for all
    sparse      `compress(model, backend=...)`, for every batch size anew: "auto" may leave layers dense
    throughput  batch / time
    speed-up    time of the fastest dense network / time
    limit       1 / density: multiplications by all weights of linear layers and convolutions, over those that are left

What is no such multiplication is not counted, as adding, max-pooling or writing activations: it keeps whole networks
from 1 / density.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from sparseopt.nn.blocks import BlockGrid
from sparseopt.nn.budget import kept_blocks
from sparseopt.nn.planning import Plan, plan
from sparseopt.nn.reporting import report
from sparseopt.nn.sparse.compression import compress
from sparseopt.nn.sparse.fusing import fold_batch_norms
from sparseopt.nn.sparse.layers import BlockSparseLinear
from sparseopt.nn.sparse.rivals import Contestant, channels_last, contestant, rivals
from sparseopt.nn.sparse.timing import race
from sparseopt.nn.sparse.wiring import Wiring

__all__ = ["Result", "Way", "bench_linear", "bench_network", "compressed", "drop_random_blocks", "environment"]

Way = Callable[[Any], nn.Module]
TOLERANCE = 1e-3  # of the largest output; sums of thousands of float32 numbers in different orders


@dataclass(frozen=True)
class Result:
    """Times at one batch size, in milliseconds.

    Attributes
    ----------
    case : str
        The network, or the size of the layer: outputs x inputs.
    block : tuple of int, or None
        (outputs, inputs) of a block, if all have the same.
    sparsity : float
        Share of the blocks that was dropped in the layers that have blocks.
    density : float
        Share of the multiplications that is left.
    batch : int
    dense, sparse : dict from str to float
        Median times of the dense forms and of the sparse ones, by name.

    Examples
    --------
    >>> result = Result("mlp", (16, 16), 0.9, 0.1, 4, {"torch": 3.0, "oneDNN": 2.0}, {"auto": 0.5})
    >>> result.rival, result.speed_up("auto"), result.throughput("auto"), result.limit
    ('oneDNN', 4.0, 8000.0, 10.0)
    """

    case: str
    block: tuple[int, int] | None
    sparsity: float
    density: float
    batch: int
    dense: Mapping[str, float]
    sparse: Mapping[str, float]

    @property
    def rival(self) -> str:
        """The name of the fastest dense form."""
        return min(self.dense, key=lambda name: self.dense[name])

    @property
    def limit(self) -> float:
        """1 / density."""
        return 1.0 / self.density

    def speed_up(self, name: str) -> float:
        """Time of the fastest dense form over that of a sparse one."""
        return self.dense[self.rival] / self.sparse[name]

    def throughput(self, name: str) -> float:
        """Items per second of a dense or sparse form."""
        return 1e3 * self.batch / {**self.dense, **self.sparse}[name]

    def to_dict(self) -> dict[str, Any]:
        """Numbers, strings, lists and dicts only: for JSON."""
        derived = {"rival": self.rival, "speed_up": {name: self.speed_up(name) for name in self.sparse}}
        names = (*self.dense, *self.sparse)
        return {
            **asdict(self),
            "block": None if self.block is None else list(self.block),
            **derived,
            "throughput": {name: self.throughput(name) for name in names},
        }


def bench_network(
    model: nn.Module,
    ways: Mapping[str, Way],
    example: Callable[[int], Any],
    batches: Sequence[int],
    case: str,
    block: tuple[int, int] | None,
    sparsity: float,
    seconds: float = 10.0,
) -> Iterator[Result]:
    """Time a network with zeros in its blocks, dense and in other ways.

    Parameters
    ----------
    model : nn.Module
        Dense; not changed, and run in evaluation mode.
    ways : dict from str to callable
        From an input to the network that is timed on it; see `compressed`.
    example : callable
        From the number of items to an input.
    batches : sequence of int
    case, block, sparsity
        What was done to the network, for the results.
    seconds : float
        Time for each batch size; slow networks take more, three rounds at least.

    Yields
    ------
    Result
        One for every batch size.

    Raises
    ------
    RuntimeError
        When two contestants do not agree.
    """
    model = deepcopy(model).eval()
    counted = report(model, example(1))
    if not counted.macs or not counted.macs_kept:
        raise ValueError(f"{case} multiplies by no weight that is left: there is nothing to time.")
    fold_batch_norms(Wiring(model))
    for batch in batches:
        inputs = example(batch)
        dense = rivals(model, inputs)
        sparse = {name: channels_last(contestant(way(inputs), inputs)) for name, way in ways.items()}
        contestants = {**dense, **sparse}
        _require_equal(contestants)
        times = race(contestants, seconds, least=3)
        found = [{name: 1e3 * times[name] for name in group} for group in (dense, sparse)]
        yield Result(case, block, sparsity, counted.macs_kept / counted.macs, batch, *found)


def compressed(model: nn.Module, block: tuple[int, int]) -> dict[str, Way]:
    """`compress(model, backend=...)` for both backends; the model is not changed."""

    def way(backend: str, inputs: Any) -> nn.Module:
        entry = channels_last(contestant(deepcopy(model), inputs))
        return compress(entry.model, backend=backend, example_input=entry.example, block=block)

    return {backend: partial(way, backend) for backend in ("auto", "sparse")}


def bench_linear(
    outputs: int,
    inputs: int,
    blocks: Sequence[int],
    sparsities: Sequence[float],
    batches: Sequence[int],
    seconds: float = 5.0,
    seed: int = 0,
) -> Iterator[Result]:
    """Time a linear layer with bias: the dense forms, and every block size at every sparsity, in the same turns.

    Parameters
    ----------
    outputs, inputs : int
        Size of the layer.
    blocks, sparsities, batches : sequences of numbers
        Blocks are square; floor((1 - sparsity) n) of n blocks, at least 1, are kept, at random places.
    seconds : float
        Time for each batch size.
    seed : int

    Yields
    ------
    Result
        One for every batch size, block and sparsity; `sparse` has the one entry "sparse".

    Raises
    ------
    ValueError
        When a block is larger than the layer.
    """
    for block in blocks:
        if block > min(outputs, inputs):
            raise ValueError(f"a block of {block} x {block} is larger than the layer, {outputs} x {inputs}.")
    chance = torch.Generator().manual_seed(seed)
    linear = nn.Linear(inputs, outputs)
    layers = {}
    for block in blocks:
        for sparsity in sparsities:
            mask = _random_mask(BlockGrid((outputs, inputs), (block, block)), sparsity, chance)
            layers[block, sparsity] = BlockSparseLinear.from_dense(linear, block, mask)
    for batch in batches:
        x = torch.randn(batch, inputs, generator=chance)
        for layer in layers.values():
            _require_equal({"dense": Contestant(layer.to_dense(), (x,)), "sparse": Contestant(layer, (x,))})
        dense = rivals(linear, x)
        _require_equal(dense)
        sparse = {f"{block} {sparsity}": Contestant(layer, (x,)) for (block, sparsity), layer in layers.items()}
        contestants = {**dense, **sparse}
        times = race(contestants, seconds)
        shared = {name: 1e3 * times[name] for name in dense}
        for (block, sparsity), layer in layers.items():
            found = {"sparse": 1e3 * times[f"{block} {sparsity}"]}
            yield Result(f"{outputs}x{inputs}", (block, block), sparsity, layer.density, batch, shared, found)


@torch.no_grad()
def drop_random_blocks(
    model: nn.Module, sparsity: float, block: int | tuple[int, int], min_blocks: int = 100, seed: int = 0
) -> Plan:
    """Zero random blocks of `model`, in place: in every layer of the plan exactly as many as it asks for.

    Returns
    -------
    Plan
        `plan(model, sparsity, block, min_blocks)`.

    Examples
    --------
    >>> linear = nn.Linear(64, 64)
    >>> dropped = drop_random_blocks(linear, 0.75, block=8, min_blocks=64)
    >>> int((BlockGrid((64, 64), (8, 8)).pool(linear.weight != 0) > 0).sum())
    16
    """
    chance = torch.Generator().manual_seed(seed)
    chosen = plan(model, sparsity, block, min_blocks)
    for layer in chosen.layers:
        weight = model.get_parameter(layer.name)
        weight.mul_(layer.grid.expand(_random_mask(layer.grid, layer.sparsity, chance).to(weight)))
    return chosen


def environment() -> dict[str, Any]:
    """Versions and machine, for whoever reads the numbers later."""
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpu": _cpu_model(),
        "cpus": os.cpu_count(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,  # others' work would be in the times
        "versions": {"torch": torch.__version__, **{name: version(name) for name in ("numpy", "numba")}},
    }


def _random_mask(grid: BlockGrid, sparsity: float, chance: torch.Generator) -> Tensor:
    """(R, C) of bool: as many kept blocks as a plan would keep."""
    mask = torch.zeros(grid.n_blocks, dtype=torch.bool)
    mask[torch.randperm(grid.n_blocks, generator=chance)[: kept_blocks(grid.n_blocks, sparsity)]] = True
    return mask.view(grid.counts)


def _require_equal(contestants: Mapping[str, Contestant]) -> None:
    first, *others = contestants
    expected = pytree.tree_leaves(contestants[first]())
    for name in others:
        for ours, theirs in zip(expected, pytree.tree_leaves(contestants[name]()), strict=True):
            worst = float((ours - theirs).abs().max()) if ours.numel() else 0.0
            scale = float(ours.abs().max()) if ours.numel() else 0.0
            if not worst <= TOLERANCE * scale:
                raise RuntimeError(f"{name} computes something else than {first}: they differ by {worst / scale:.1e}.")


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
