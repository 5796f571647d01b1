"""What a pruning method decides. The engine in `sparseopt.nn.sparsifier` does everything else.

    schedule     which phases, unless the user gives one
    mask         what stands between the stored weight and the layer
    scores       the rank of every block of a layer, larger is better
    share        how the pruning rises in a sparsify phase
    due          after which steps the blocks are chosen anew within a phase
    choose       the masks; by default the best scores within the plan's budget
    selected     what happens to a layer when a dense or sparsify phase ends with a new mask
    stepped      what happens to a layer after every optimizer step (proximal steps, projections)

A method is a frozen dataclass of its settings: it holds no state, so nothing of it needs a checkpoint but the settings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sparseopt.nn.budget import choose
from sparseopt.nn.layers import Layer
from sparseopt.nn.masks import BlockMask
from sparseopt.nn.planning import LayerPlan, Plan
from sparseopt.nn.schedule import EXPONENTIAL, Phase, PhaseSchedule

__all__ = ["Method"]


@dataclass(frozen=True)
class Method:
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
        if self.reset not in ("layers", "all", "none"):
            raise ValueError(f"reset must be 'layers', 'all' or 'none', got {self.reset!r}.")
        if self.updates < 1:
            raise ValueError(f"updates must be at least 1, got {self.updates}.")

    def schedule(self, total: int) -> PhaseSchedule:
        """The phases of a training of `total` steps."""
        raise NotImplementedError

    def mask(self, layer: LayerPlan, weight: Tensor) -> BlockMask:
        """A fresh mask for a layer."""
        return BlockMask(layer.grid, weight.device)

    def scores(self, layer: Layer) -> Tensor:
        """The rank of every block, (R, C), larger is better."""
        raise NotImplementedError

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
        scores = []
        for layer in layers:
            values = self.scores(layer).double()
            if phase.kind == "sparsify":
                values = values.masked_fill(~layer.kept, -math.inf)
            scores.append(values)
        return choose(plan.budget, [layer.plan.share for layer in layers], scores, self.share(min(done, 1.0)))

    def selected(self, layer: Layer) -> None:
        """The phase that ends here has chosen the layer's mask."""

    def stepped(self, layer: Layer, lr: float) -> None:
        """After a step of the optimizer with learning rate `lr`."""
