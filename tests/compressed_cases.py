"""Networks with blocks of zeros, a clock that a test sets, and what compression made. Imported by tests of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from sparseopt.experiments.networks import click_model, resnet20
from sparseopt.nn import BlockGrid
from sparseopt.nn.sparse.calls import difference, run
from sparseopt.nn.sparse.choices import Compression
from sparseopt.nn.sparse.layers import BlockSparseLayer

CLOSE = 1e-5


def drop_blocks(model: nn.Module, block: tuple[int, int] = (8, 8), density: float = 0.3, seed: int = 0) -> nn.Module:
    """Blocks of every layer set to zero at random, and BatchNorms that do something, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d)):
            grid = BlockGrid(tuple(module.weight.shape), block)
            kept = torch.rand(grid.counts, generator=generator) < density
            for i in range(max(kept.shape)):  # every output is computed from something, every input is read
                kept[i % len(kept), i % kept.shape[1]] = True
            module.weight.data.mul_(grid.expand(kept.to(module.weight.dtype)))
        elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
            module.bias.data.normal_(generator=generator)
    return model.eval()


def batch(*shape: int) -> Any:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5))


def clock(**seconds: float) -> Any:
    """A timer that knows what everything takes by the first word of its name: dense, sparse, shrunk, compressed."""
    defaults = {"dense": 1.0, "sparse": 0.25, "shrunk": 9.0, "compressed": 0.5}

    def timer(calls: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
        for call in calls.values():
            call()
        return {name: {**defaults, **seconds}[name.split()[0]] for name in calls}

    return timer


def mlp() -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    layers = [nn.Linear(48, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 16)]
    return drop_blocks(nn.Sequential(*layers)), batch(6, 48)


def convolutions() -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(16, 32, 3, padding="same"), nn.BatchNorm1d(32), nn.ReLU(), nn.Conv1d(32, 16, 2, 2))
    return drop_blocks(model), batch(3, 16, 20)


def residual() -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    return drop_blocks(resnet20()), batch(2, 3, 32, 32)


def clicks() -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    rows = torch.randint(0, 5, (6, 39), generator=torch.Generator().manual_seed(1))
    return drop_blocks(click_model([5] * 39), (20, 10)), rows


def encoder() -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    return drop_blocks(nn.TransformerEncoder(layer, 2)), {"src": batch(2, 7, 32)}


MODELS = {"mlp": mlp, "convolutions": convolutions, "resnet": residual, "clicks": clicks, "transformer": encoder}


def sparse_layers(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, BlockSparseLayer)]


def chosen(model: nn.Module) -> dict[str, str]:
    return {layer.name: layer.chosen for layer in report_of(model).layers}


def report_of(model: Any) -> Compression:
    assert isinstance(model.compression, Compression)
    return model.compression


def state_of(model: nn.Module) -> dict[str, Any]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def law_equal(model: nn.Module, x: Any, way: Callable[..., nn.Module]) -> nn.Module:
    """The compressed model computes the same, and the given one is as it was."""
    before, modules = state_of(model), [(name, type(module)) for name, module in model.named_modules()]
    fast = way(model, example_input=x)
    assert difference(run(model, x), run(fast, x)) < CLOSE
    assert [(name, type(module)) for name, module in model.named_modules()] == modules
    after = state_of(model)
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert not {each.data_ptr() for each in model.parameters()} & {each.data_ptr() for each in fast.parameters()}
    return fast
