"""What a pruning method decides. The engine in `sparseopt.nn.sparsifier` does everything else.

    schedule     which phases, unless the user gives one
    mask         what stands between the stored weight and the layer
    scores       the rank of every block of a layer, larger is better
    share        how the pruning rises in a sparsify phase
    due          after which steps the blocks are chosen anew within a phase
    choose       the masks; by default the best scores within the plan's budget
    chosen       what happens to a layer, and to the optimizer, when it gets a new mask
    selected     what happens to a layer when a dense or sparsify phase ends with a new mask
    stepped      what happens to a layer after every optimizer step (proximal steps, projections)

A method is a frozen dataclass of its settings: it holds no state, so nothing of it needs a checkpoint but the settings.
These are compared by their text when a training goes on from a checkpoint, so that 2 and 2.0 are made to read the same.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from sparseopt.nn.budget import choose
from sparseopt.nn.layers import Layer
from sparseopt.nn.masks import BlockMask
from sparseopt.nn.planning import LayerPlan, Plan
from sparseopt.nn.schedule import EXPONENTIAL, Phase, PhaseSchedule

__all__ = ["Method", "numbers"]


@dataclass(frozen=True)
class Method(ABC):
    """Settings that all methods have.

    Parameters
    ----------
    reset : {"layers", "all", "none"}
        Whose optimizer state is cleared when the phase changes: that of the pruned layers, of all parameters, or none.
    updates : int
        How often the blocks are chosen anew in one sparsify phase.
    share : callable
        Share of the pruning that is done at progress t in [0, 1] of a sparsify phase.
    """

    reset: str = "layers"
    updates: int = 100
    share: Callable[[float], float] = EXPONENTIAL

    name: ClassVar[str] = ""
    steps: ClassVar[bool] = False  # whether `stepped` does anything
    probes: ClassVar[bool] = False  # whether `choose` needs gradients of dropped blocks

    def __post_init__(self) -> None:
        for each in fields(self):
            value, usual = getattr(self, each.name), each.default
            object.__setattr__(self, each.name, _plain(each.name, value, usual))
        if self.reset not in ("layers", "all", "none"):
            raise ValueError(f"reset must be 'layers', 'all' or 'none', got {self.reset!r}.")
        if self.updates < 1:
            raise ValueError(f"updates must be at least 1, got {self.updates}.")
        if not math.isclose(end := self.share(1.0), 1.0):
            raise ValueError(f"share(1) must be 1, got {end}: at the end of a phase all of the pruning is done.")

    @abstractmethod
    def schedule(self, total: int) -> PhaseSchedule:
        """The phases of a training of `total` steps."""

    def mask(self, layer: LayerPlan, weight: Tensor) -> BlockMask:
        """A fresh mask for a layer."""
        return BlockMask(layer.grid, weight.device)

    @abstractmethod
    def scores(self, layer: Layer) -> Tensor:
        """The rank of every block, (R, C), larger is better."""

    def due(self, phase: Phase, step: int) -> bool:
        """Whether the blocks are chosen anew after `step` steps in all, inside `phase`."""
        every = max(1, round((phase.stop - phase.start) / self.updates))
        return phase.kind == "sparsify" and (step - phase.start) % every == 0

    @torch.no_grad()
    def choose(self, layers: Sequence[Layer], plan: Plan, phase: Phase, step: int) -> list[Tensor]:
        """The masks after `step` steps in all: the best blocks within the budget.

        In a sparsify phase, blocks that were dropped stay dropped: their scores say nothing, they are not trained.
        """
        done = 1.0 if phase.kind != "sparsify" else (step - phase.start) / (phase.stop - phase.start)
        scores = [numbers(self.scores(layer)) for layer in layers]
        if phase.kind == "sparsify":
            scores = [
                values.masked_fill(~layer.kept.cpu(), -math.inf) for values, layer in zip(scores, layers, strict=True)
            ]
        masks = choose(plan.budget, [layer.plan.share for layer in layers], scores, self.share(min(done, 1.0)))
        if phase.kind == "sparsify":  # a share that falls would call for more blocks than there are
            masks = [mask & layer.kept.cpu() for mask, layer in zip(masks, layers, strict=True)]
        return [mask.to(layer.kept.device) for mask, layer in zip(masks, layers, strict=True)]

    def chosen(self, layer: Layer, before: Tensor, optimizer: Optimizer | None) -> None:  # noqa: B027  a hook
        """The layer has a new mask; `before` are the blocks that were in use until now, bool (R, C)."""

    def selected(self, layer: Layer) -> None:  # noqa: B027  a hook
        """The phase that ends here has chosen the layer's mask."""

    def stepped(self, layer: Layer, lr: float) -> None:  # noqa: B027  a hook
        """After a step of the optimizer with learning rate `lr`."""


def numbers(scores: Tensor) -> Tensor:
    """Scores as they are compared: in float64, on the CPU, since some devices have no float64."""
    return scores.detach().cpu().double()


def _plain(name: str, value: Any, usual: Any) -> Any:
    """`value` as it is written in a checkpoint, where `usual` is the default of the setting."""
    if isinstance(usual, bool):
        if value not in (True, False):
            raise ValueError(f"{name} must be True or False, got {value!r}.")
        return bool(value)
    if isinstance(usual, (int, float)):
        try:
            number = type(usual)(value)
        except (TypeError, ValueError, OverflowError):
            number = None
        if isinstance(value, (bool, str)) or number is None or (number != value and value == value):
            kind = "a whole number" if isinstance(usual, int) else "a number"
            raise ValueError(f"{name} must be {kind}, got {value!r}.")
        return number
    return value
