"""What the tests of pruning share: a small network, a training step, and tables of optimizers and phases."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sparseopt.nn import PhaseSchedule, Sparsifier, prune
from sparseopt.nn import plan as make_plan

__all__ = [
    "ALL_PHASES",
    "OPTIMIZERS",
    "PRUNED",
    "STATELESS",
    "TWO_PHASES",
    "data",
    "make_plan",
    "network",
    "prune",
    "rebuilt",
    "start",
    "step",
    "train",
]

Factory = Callable[[Iterable[Any]], Optimizer]
PRUNED = "0.weight"
ALL_PHASES = PhaseSchedule.from_list([("dense", 3), ("sparsify", 4), ("sparse", 3), ("dense", 3), ("sparse", 3)])
TWO_PHASES = PhaseSchedule.from_list([("dense", 3), ("sparse", 3)])

optim = torch.optim
OPTIMIZERS: dict[str, Factory] = {
    "sgd": lambda p: optim.SGD(p, lr=0.05),
    "sgd-momentum": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01),
    "sgd-nesterov": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "sgd-dampening": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, dampening=0.5),
    "sgd-foreach": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, foreach=True),
    "sgd-fused": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, fused=True),
    "adam": lambda p: optim.Adam(p, lr=0.01),
    "adam-amsgrad": lambda p: optim.Adam(p, lr=0.01, amsgrad=True),
    "adam-foreach": lambda p: optim.Adam(p, lr=0.01, foreach=True),
    "adam-fused": lambda p: optim.Adam(p, lr=0.01, fused=True),
    "adam-tensor-lr": lambda p: optim.Adam(p, lr=torch.tensor(0.01)),
    "adamw": lambda p: optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "adamw-foreach": lambda p: optim.AdamW(p, lr=0.01, weight_decay=0.1, foreach=True),
    "adamw-fused": lambda p: optim.AdamW(p, lr=0.01, weight_decay=0.1, fused=True),
    "rmsprop": lambda p: optim.RMSprop(p, lr=0.01, centered=True, momentum=0.9),
    "nadam": lambda p: optim.NAdam(p, lr=0.01),
    "adagrad": lambda p: optim.Adagrad(p, lr=0.01, lr_decay=0.1, initial_accumulator_value=0.1),
    "adagrad-fused": lambda p: optim.Adagrad(p, lr=0.01, fused=True),
    "adadelta": lambda p: optim.Adadelta(p, lr=0.5),
    "adamax": lambda p: optim.Adamax(p, lr=0.01),
    "radam": lambda p: optim.RAdam(p, lr=0.01),
    "asgd": lambda p: optim.ASGD(p, lr=0.05, t0=1.0, lambd=0.1),
    "rprop": lambda p: optim.Rprop(p, lr=0.01),
    "lbfgs": lambda p: optim.LBFGS(p, lr=0.1, max_iter=2),
}
if hasattr(optim, "Adafactor"):
    OPTIMIZERS["adafactor"] = lambda p: optim.Adafactor(p, lr=0.01)
if hasattr(optim, "Muon"):  # it takes matrices only
    OPTIMIZERS["muon"] = lambda p: optim.Muon([each for each in p if each.ndim == 2], lr=0.01)
STATELESS = {"sgd"}


def network(seed: int = 0, bias: bool = True) -> nn.Sequential:
    """16 blocks of 2 x 2 in the first layer, 8 in the second."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 8, bias=bias), nn.Tanh(), nn.Linear(8, 4, bias=bias))


def data(seed: int) -> tuple[Tensor, Tensor]:
    """A batch of its own for every seed."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(16, 8, generator=generator), torch.randn(16, 4, generator=generator)


def step(model: nn.Module, optimizer: Optimizer, seed: int) -> None:
    """One step on one batch, in the way that every optimizer understands."""
    x, y = data(seed)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        return loss

    optimizer.step(closure)


def train(model: nn.Module, optimizer: Optimizer, steps: int, start: int = 0) -> None:
    """Steps `start`, `start` + 1, ..."""
    for seed in range(start, start + steps):
        step(model, optimizer, seed)


def start(
    optimizer: str | Factory = "sgd-momentum", method: str = "sequential-attention++", seed: int = 0, **settings: Any
) -> tuple[nn.Module, Optimizer, Sparsifier]:
    """The network with its first layer under masks, its optimizer, and the sparsifier that follows it."""
    model = network(seed, bias=optimizer != "muon")
    factory = OPTIMIZERS[optimizer] if isinstance(optimizer, str) else optimizer
    made = factory(model.parameters())
    settings = {"schedule": TWO_PHASES, "sparsity": 0.75, "block": 2, "min_blocks": 4, "exclude": ["2"]} | settings
    return model, made, prune(model, made, method, **settings)


def rebuilt(optimizer: Optimizer, factory: Factory, model: nn.Module) -> tuple[nn.Module, Optimizer]:
    """A copy of the model, and an optimizer for it that knows nothing of the past: same class, settings and order."""
    twin = copy.deepcopy(model)
    names = {id(p): name for name, p in model.named_parameters()}
    copies = dict(twin.named_parameters())
    assert len(optimizer.param_groups) == 1
    return twin, factory([copies[names[id(p)]] for p in optimizer.param_groups[0]["params"]])
