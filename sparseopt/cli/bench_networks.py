"""The networks that `nn bench` times: with random blocks dropped, or from a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sparseopt.experiments.networks import click_model, resnet20, resnet50
from sparseopt.nn.reporting import report
from sparseopt.nn.sparse.benchmark import Result, Way, bench_network, compressed, drop_random_blocks
from sparseopt.nn.sparse.densify import densified
from sparseopt.nn.sparse.files import load
from sparseopt.nn.sparse.layers import BlockSparseLayer

__all__ = ["Network", "dropped", "saved"]

Example = Callable[[int], Tensor]


class Network(NamedTuple):
    """A dense network with zeros, and the ways to run it that are timed against dense."""

    model: nn.Module
    ways: Mapping[str, Way]
    example: Example
    block: tuple[int, int] | None
    sparsity: float
    what: str

    @property
    def about(self) -> str:
        """What was dropped, and what that leaves to multiply."""
        counted = report(self.model, self.example(1))
        left = (counted.macs_kept or 0) / max(counted.macs or 0, 1)
        return f"{self.what}: {100 * left:.1f} % of the multiplications are left"

    def bench(self, case: str, batches: Sequence[int], seconds: float) -> Iterator[Result]:
        """Times for every batch size."""
        return bench_network(self.model, self.ways, self.example, batches, case, self.block, self.sparsity, seconds)


def dropped(name: str, sparsities: Sequence[float], blocks: Sequence[int], min_blocks: int) -> Iterator[Network]:
    """The network `name`, once for every sparsity and block, with that share of its blocks dropped at random."""
    if name not in _NETWORKS:
        raise ValueError(f"--model {name!r} is unknown: use {', '.join(_NETWORKS)}, or a file named *.safetensors.")
    make, example = _NETWORKS[name]
    for sparsity in sparsities:
        for block in blocks:
            torch.manual_seed(0)
            model = make().eval()
            plan = drop_random_blocks(model, sparsity, block, min_blocks)
            weights = f"{len(plan.layers)} of {len(plan.layers) + len(plan.skipped)} weights"
            what = f"{100 * sparsity:g} % of the blocks of {block} x {block} dropped in {weights}"
            yield Network(model, compressed(model, (block, block)), example, (block, block), sparsity, what)


def saved(file: str, shape: Sequence[int] | None) -> Iterator[Network]:
    """The compressed network in a file, and its dense twin."""
    if not Path(file).is_file():
        raise FileNotFoundError(2, "No such file", file)
    if shape is None:
        raise ValueError(f"{file} does not say what its network reads: give it, such as --input 3x224x224.")
    model = load(file).eval()
    blocks = sorted({module.block for module in model.modules() if isinstance(module, BlockSparseLayer)})
    if not blocks:
        raise ValueError(f"{file} holds no block-sparse layer: give a file of a compressed network.")
    dense = densified(model)
    sizes = f"blocks of {', '.join(f'{high} x {wide}' for high, wide in blocks)}"
    block = blocks[0] if len(blocks) == 1 else None

    def example(n: int) -> Tensor:
        return torch.randn(n, *shape)

    try:
        model(example(1))
    except Exception as error:  # whatever the network's own layers say to an input of another size
        told = " ".join(str(error).split()).rstrip(".")
        size = "x".join(map(str, shape))
        raise ValueError(f"{file} cannot run on --input {size} ({told}): give the shape of one item.") from error
    yield Network(dense, {"saved": lambda inputs: model}, example, block, report(dense).sparsity, sizes)


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(1024, 2048), nn.ReLU(), nn.Linear(2048, 2048), nn.ReLU(), nn.Linear(2048, 1000))


def _vocabulary() -> Sequence[int]:
    from sparseopt.experiments.bench_nn_overhead import VOCABULARY  # a module that Windows cannot import

    return VOCABULARY


def _rows(n: int) -> Tensor:
    return torch.stack([torch.randint(0, size, (n,)) for size in _vocabulary()], 1)


_NETWORKS: dict[str, tuple[Callable[[], Any], Example]] = {
    "resnet50": (resnet50, lambda n: torch.randn(n, 3, 224, 224)),
    "resnet20": (resnet20, lambda n: torch.randn(n, 3, 32, 32)),
    "mlp": (_mlp, lambda n: torch.randn(n, 1024)),
    "click": (lambda: click_model(_vocabulary()), _rows),
}
