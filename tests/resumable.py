"""A small training with everything in it that a resumed run must continue: masks, batch norm, dropout, momentum, a
learning-rate schedule, and random numbers of torch, NumPy and Python. Imported by tests of checkpoints."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sparseopt.nn import PhaseSchedule, prune
from sparseopt.nn.checkpoint import load_checkpoint, save_checkpoint
from sparseopt.nn.randomness import random_state

# Every kind of phase and every change from one to another, sparsify phases of several choices each.
PHASES = [("dense", 4), ("sparsify", 6), ("sparse", 4), ("dense", 4), ("sparse", 4), ("dense", 3), ("dense", 2)]
PHASES += [("sparsify", 6), ("dense", 2), ("sparse", 5)]
SCHEDULE = PhaseSchedule.from_list(PHASES)

OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=1e-3),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.01, foreach=True),
    "fused adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.01, fused=True),
}


class Run:
    """A training that knows how many steps it has taken."""

    def __init__(
        self, seed: int, method: str, optimizer: str = "sgd", schedule: PhaseSchedule = SCHEDULE, **settings: Any
    ):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002  the global generator is what is to be saved
        random.seed(seed)
        self.model = nn.Sequential(
            nn.Conv2d(2, 8, 3, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(32, 12),
        )
        self.optimizer = OPTIMIZERS[optimizer](self.model.parameters())
        settings = {"sparsity": 0.7, "block": (2, 4), "updates": 3, **settings}
        self.sparsifier = prune(
            self.model, self.optimizer, method, min_blocks=8, schedule=schedule, logit_lr=2.0, **settings
        )
        self.scheduler = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, [group["lr"] for group in self.optimizer.param_groups], total_steps=schedule.total + 1
        )
        self.data = torch.randn(64, 2, 4, 4, generator=torch.Generator().manual_seed(5))
        self.done = 0

    @property
    def parts(self) -> tuple[Any, ...]:
        return self.model, self.optimizer, self.sparsifier, self.scheduler

    def step(self) -> None:
        batch = self.data[8 * (self.done % 8) :][:8]
        if random.random() < 0.5:
            batch = batch.flip(3)
        batch = batch + torch.from_numpy(np.random.normal(0.0, 0.1, batch.shape)).float()  # noqa: NPY002
        self.optimizer.zero_grad()
        (self.model(batch) - batch.flatten(1)[:, :12]).square().mean().backward()
        self.optimizer.step()
        self.scheduler.step()
        self.done += 1

    def finish(self) -> None:
        while self.done < self.sparsifier.schedule.total:
            self.step()

    def save(self, path: Any) -> None:
        save_checkpoint(path, *self.parts, extra={"done": self.done})

    def load(self, path: Any) -> None:
        self.done = load_checkpoint(path, *self.parts)["done"]

    def state(self) -> dict[str, Any]:
        """Everything that the rest of the training depends on, and what it reports: name -> bytes or plain value."""
        whole = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "sparsifier": self.sparsifier.state_dict(),
            "random": random_state(),
            "done": self.done,
        }
        return leaves(whole)


def leaves(whole: Any) -> dict[str, Any]:
    """The tensors (as bytes) and plain values of nested lists and dicts, by their place."""
    return dict(_leaves(whole, ""))


def _leaves(value: Any, name: str) -> Any:
    if isinstance(value, Tensor):
        raw = value.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        yield name, (value.dtype, tuple(value.shape), raw)
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _leaves(each, f"{name}/{key}")
    elif isinstance(value, (list, tuple)):
        for i, each in enumerate(value):
            yield from _leaves(each, f"{name}/{i}")
    else:
        yield name, repr(value)  # of a float, all of its digits


def unequal(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """The names under which two states differ."""
    return sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key))


def trained(steps: int = 6, method: str = "sequential-attention++", optimizer: str = "sgd", **settings: Any) -> Run:
    run = Run(0, method, optimizer, **settings)
    for _ in range(steps):
        run.step()
    return run
