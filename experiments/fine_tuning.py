"""Pruning and fine-tuning the CIFAR network: one budget for all, and what is tried for each method.

    Budget        steps, batch, learning rate and its course, weight decay: the same for every method
    Candidate     phases, the learning rate of logits, settings: four for each method in CANDIDATES
    fine_tune     one run

The learning rate rises over 5 % of the steps and falls like a cosine to 0. The optimizer is SGD with Nesterov momentum.
Runs with the same seed see the same images, augmented in the same way. All 3 x 3 convolutions of the three stages are
pruned (36 blocks of 8 x 8 or more); conv1 and the linear layer, with 8 and 16 blocks, are not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparseopt.experiments.cifar import Images, augmented, normalised
from sparseopt.experiments.networks import ResNet20, resnet20
from sparseopt.nn import PhaseSchedule, prune

__all__ = [
    "CANDIDATES",
    "Budget",
    "Candidate",
    "accuracy",
    "candidates",
    "dropped",
    "fine_tune",
    "pretrained",
]

WEIGHTS = "pretrained/resnet20-12fca82f.th"
BLOCK = 8
MIN_BLOCKS = 30


@dataclass(frozen=True)
class Budget:
    """What every run may spend, and how it learns."""

    steps: int = 320
    batch: int = 64
    lr: float = 0.02
    momentum: float = 0.9
    weight_decay: float = 1e-4
    warmup: float = 0.05
    bfloat16: bool = False

    def rate(self, step: int) -> float:
        """The learning rate of a step, as a share of the largest.

        >>> budget = Budget(steps=100)
        >>> [round(budget.rate(step), 3) for step in (0, 4, 5, 52, 99)]
        [0.2, 1.0, 1.0, 0.508, 0.0]
        """
        rising = max(1, round(self.warmup * self.steps))
        if step < rising:
            return (step + 1) / rising
        return 0.5 * (1.0 + math.cos(math.pi * (step - rising) / max(1, self.steps - rising)))


@dataclass(frozen=True)
class Candidate:
    """Phases by their name in `PHASES`; learning rate and weight decay of the logits; settings of the method."""

    phases: str = "own"
    logit_lr: float = 1.0
    logit_weight_decay: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = [f"{self.phases} phases"]
        parts += [f"logit_lr={self.logit_lr:g}"] if self.logit_lr != 1.0 else []
        return ", ".join([*parts, *(f"{name}={value}" for name, value in self.settings.items())])

    def schedule(self, steps: int) -> PhaseSchedule | None:
        """The phases of a run, None for those of the method."""
        return PhaseSchedule.from_list(PHASES[self.phases], steps) if self.phases != "own" else None


def _cycles(n: int, *kinds: str) -> list[tuple[str, float]]:
    """10 % dense, n cycles in equal parts, the last one without its dense part, and 40 % sparse."""
    parts = [*kinds * n][:-1]
    return [("dense", 0.1), *((kind, 0.5 / len(parts)) for kind in parts), ("sparse", 0.4)]


PHASES: dict[str, list[tuple[str, float]]] = {
    **{f"dense {s} %": [("dense", s / 100), ("sparse", 1.0 - s / 100)] for s in (5, 10, 20, 50)},
    **{f"sparsify {s} %": [("dense", 0.1), ("sparsify", s / 100), ("sparse", 0.9 - s / 100)] for s in (20, 40, 60, 80)},
    **{f"{n} AC/DC cycles": _cycles(n, "sparse", "dense") for n in (2, 4)},
    "2 SA++ cycles": _cycles(2, "sparsify", "sparse", "dense"),
}
_GROWN = {"first": "magnitude", "until": 0.5}
_SLOW = {"updates": 8}
CANDIDATES: dict[str, tuple[Candidate, ...]] = {
    "dense": (Candidate(),),
    "magnitude": tuple(Candidate(f"dense {share} %") for share in (5, 10, 20, 50)),
    "gradual-magnitude": tuple(Candidate(f"sparsify {share} %") for share in (20, 40, 60, 80)),
    "ac/dc": (
        Candidate(),
        Candidate("2 AC/DC cycles"),
        Candidate("4 AC/DC cycles"),
        Candidate("2 AC/DC cycles", settings={"zero": False}),
    ),
    "sequential-attention++": (
        *(Candidate("sparsify 40 %", logit_lr) for logit_lr in (1.0, 10.0, 30.0)),
        Candidate("2 SA++ cycles", 10.0),
    ),
    "power-propagation": tuple(
        Candidate(f"dense {share} %", settings={"alpha": alpha}) for share in (20, 50) for alpha in (1.5, 2.0)
    ),
    "masked-l1": tuple(
        Candidate(f"dense {share} %", 10.0, 0.0, {"lam": lam}) for share in (20, 50) for lam in (0.01, 0.05)
    ),
    "expm1": (
        *(Candidate("sparsify 40 %", logit_lr) for logit_lr in (1.0, 10.0, 30.0)),
        Candidate("2 SA++ cycles", 10.0),
    ),
    "group-lasso": tuple(
        Candidate(f"dense {share} %", settings={"lam": lam}) for share in (20, 50) for lam in (0.005, 0.02)
    ),
    "proximal": tuple(
        Candidate(f"dense {share} %", settings={"q": "power", "lam": lam})
        for share in (20, 50)
        for lam in (0.005, 0.02)
    ),
    "omp": tuple(Candidate(settings={**_GROWN, **_SLOW, "start": start}) for start in (0.3, 0.5, 0.7, 0.9)),
    "ompr": tuple(Candidate(settings={**_GROWN, "updates": n, "count": 1}) for n in (4, 8, 16, 32)),
    "rigl": tuple(
        Candidate(settings={**_GROWN, "updates": n, "fraction": share}) for n in (4, 8) for share in (0.1, 0.3)
    ),
}


def candidates(method: str) -> tuple[Candidate, ...]:
    """What is tried for a method: its own settings for one that is not in the table."""
    return CANDIDATES.get(method, (Candidate(),))


# -- one run -----------------------------------------------------------------------------------------------------------


def pretrained(folder: Path) -> ResNet20:
    """The pretrained network, from `pretrained` in the data folder."""
    state = torch.load(folder / WEIGHTS, map_location="cpu", weights_only=True)["state_dict"]
    model = resnet20()
    model.load_state_dict({name.removeprefix("module."): tensor for name, tensor in state.items()})
    return model


@torch.no_grad()
def accuracy(model: nn.Module, images: Images, bfloat16: bool = False, batch: int = 500) -> float:
    """The share of images that the network, in evaluation mode, names rightly."""
    model.eval()
    right = 0
    for start in range(0, len(images.labels), batch):
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            logits = model(_read(images.pixels[start : start + batch]))
        right += int((logits.argmax(1).numpy() == images.labels[start : start + batch]).sum())
    return right / len(images.labels)


def fine_tune(
    model: nn.Module, images: Images, method: str, candidate: Candidate, sparsity: float, seed: int, budget: Budget
) -> nn.Module:
    """The plain network after pruning and fine-tuning, changed in place; method "dense" only fine-tunes.

    Raises
    ------
    FloatingPointError
        When the loss is not finite.
    """
    model.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
    optimizer = torch.optim.SGD(
        model.parameters(), budget.lr, budget.momentum, weight_decay=budget.weight_decay, nesterov=True
    )
    sparsifier = None
    if method != "dense":
        sparsifier = prune(
            model,
            optimizer,
            method,
            sparsity,
            BLOCK,
            budget.steps,
            min_blocks=MIN_BLOCKS,
            schedule=candidate.schedule(budget.steps),
            logit_lr=candidate.logit_lr,
            logit_weight_decay=candidate.logit_weight_decay,
            **candidate.settings,
        )
    rates = torch.optim.lr_scheduler.LambdaLR(optimizer, budget.rate)
    generator = torch.Generator().manual_seed(seed)
    for rows in _batches(len(images.labels), budget, generator):
        x = augmented(_read(images.pixels[rows]), generator).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=budget.bfloat16):
            loss = nn.functional.cross_entropy(model(x), torch.from_numpy(images.labels[rows]))
        if not torch.isfinite(loss):
            raise FloatingPointError(f"{method} ({candidate}): the loss is {loss.item()}.")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rates.step()
    return model if sparsifier is None else sparsifier.fold()


def _batches(n: int, budget: Budget, generator: torch.Generator) -> Iterator[Any]:
    """Row numbers of every batch: all images in a random order, again and again."""
    order: Tensor = torch.randperm(n, generator=generator)
    at = 0
    for _ in range(budget.steps):
        if at + budget.batch > n:
            order, at = torch.randperm(n, generator=generator), 0
        yield order[at : at + budget.batch].numpy()
        at += budget.batch


def _read(pixels: Any) -> Tensor:
    return normalised(pixels).contiguous(memory_format=torch.channels_last)


def dropped(model: nn.Module) -> float:
    """The share of exact zeros among the weights of the pruned convolutions."""
    weights = [module.weight for name, module in model.named_modules() if name.startswith("layer") and _is_conv(module)]
    return sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)


def _is_conv(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d)
