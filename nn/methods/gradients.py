"""What growth and swaps share: blocks come into use by the norm of their gradient.

    score of a block outside     ||dL/dW_hat_T||: how fast the loss falls when the block leaves 0

A sparse phase holds the events, evenly spaced over its first part. In the step before an event the gradients of dropped
blocks pass the mask (`sparseopt.nn.probing`), and are read from the parameters' `grad` when the optimizer has stepped:
the loop must not clear gradients before that, and zero_grad() ahead of the backward pass, or after the step, does not.
Blocks that come into use start from 0, without momentum; blocks that stay are not touched.

At the start of a sparse phase the first blocks are chosen by norm, at random, or by the gradient that the last step of
a dense phase leaves behind. A schedule with dense phases begins anew after each.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from sparseopt.nn.budget import Share, choose
from sparseopt.nn.layers import Layer
from sparseopt.nn.masks import BlockMask
from sparseopt.nn.methods.method import Method, numbers
from sparseopt.nn.planning import LayerPlan, Plan
from sparseopt.nn.probing import ProbedMask, restart_blocks
from sparseopt.nn.schedule import Phase, PhaseSchedule

__all__ = ["GradientMethod"]


@dataclass(frozen=True)
class GradientMethod(Method):
    """Settings of growth and swaps.

    Parameters
    ----------
    first : {"magnitude", "random", "gradient"}
        What ranks the blocks that a sparse phase starts with. "gradient" needs a step of a dense phase before it.
    until : float in (0, 1]
        The share of the sparse phase that holds the events.
    every : int, optional
        Steps between two events; by default, `updates` events are spread over that share.
    seed : int
        Of the random first blocks: the same on all processes.
    """

    first: str = "magnitude"
    until: float = 0.75
    every: int | None = None
    seed: int = 0

    probes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.first not in ("magnitude", "random", "gradient"):
            raise ValueError(f"first must be 'magnitude', 'random' or 'gradient', got {self.first!r}.")
        if not 0.0 < self.until <= 1.0:
            raise ValueError(f"until must be in (0, 1], got {self.until}: the share of the phase that holds events.")
        if self.every is not None and (type(self.every) is not int or self.every < 1):
            raise ValueError(f"every must be a positive number of steps, or None, got {self.every!r}.")

    def schedule(self, total: int) -> PhaseSchedule:
        """One sparse phase; one dense step before it if that step's gradient is needed."""
        if self.first == "gradient" and total > 1:
            return PhaseSchedule.from_list([("dense", 1), ("sparse", total - 1)])
        return PhaseSchedule.from_list([("sparse", total)])

    def mask(self, layer: LayerPlan, weight: Tensor) -> BlockMask:
        return ProbedMask(layer.grid, weight.device)

    def scores(self, layer: Layer) -> Tensor:
        return layer.norms()

    def spacing(self, phase: Phase) -> tuple[int, int]:
        """Steps between two events of a sparse phase, and how many events it has."""
        last = self.window(phase)
        every = min(self.every or max(1, last // self.updates), max(1, last))
        return every, last // every if self.every else min(last // every, self.updates)

    def window(self, phase: Phase) -> int:
        """Steps of a sparse phase that may hold events: at least one, but not the last, where nothing follows."""
        length = phase.stop - phase.start
        return min(max(1, math.floor(self.until * length + 1e-9)), length - 1)

    def due(self, phase: Phase, step: int) -> bool:
        if phase.kind != "sparse":
            return super().due(phase, step)
        every, events = self.spacing(phase)
        return (step - phase.start) % every == 0 and 0 < step - phase.start <= every * events

    @torch.no_grad()
    def choose(self, layers: Sequence[Layer], plan: Plan, phase: Phase, step: int) -> list[Tensor]:
        if phase.kind == "sparsify":
            return super().choose(layers, plan, phase, step)
        if phase.kind == "sparse" and step > phase.start:
            masks = self.event(layers, plan, phase, step)
        else:
            masks = choose(plan.budget, self.shares(layers, phase, step), self._first_scores(layers, phase, step))
        return [mask.to(layer.kept.device) for mask, layer in zip(masks, layers, strict=True)]

    @abstractmethod
    def event(self, layers: Sequence[Layer], plan: Plan, phase: Phase, step: int) -> list[Tensor]:
        """The masks of an event inside a sparse phase, on the CPU."""

    def shares(self, layers: Sequence[Layer], phase: Phase, step: int) -> list[Share]:
        """The budget that is in use."""
        return [layer.plan.share for layer in layers]

    def chosen(self, layer: Layer, before: Tensor, optimizer: Optimizer | None) -> None:
        restart_blocks(layer, ~(before & layer.kept), optimizer)

    def pulls(self, layer: Layer) -> Tensor:
        """||gradient|| of every block, (R, C), as it is compared."""
        norms = layer.gradient_norms()
        if norms is None:
            raise RuntimeError(
                f"{layer.name} has no gradient when {self.name} chooses its blocks: every step of the optimizer needs "
                "a backward pass through the layer, and gradients must not be cleared before step() returns."
            )
        return numbers(norms)

    def _first_scores(self, layers: Sequence[Layer], phase: Phase, step: int) -> list[Tensor]:
        if self.first == "magnitude":
            return [numbers(layer.norms()) for layer in layers]
        if self.first == "gradient":
            if phase.kind != "dense":
                raise ValueError(
                    "first='gradient' needs a dense phase before the sparse one, if only of one step: "
                    "begin the schedule with it, or choose first='magnitude'."
                )
            return [self.pulls(layer) for layer in layers]
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + step)
        return [torch.rand(layer.grid.counts, generator=generator, dtype=torch.float64) for layer in layers]
