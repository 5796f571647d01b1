"""What happened in a pruning: an event for every choice of blocks and every change of phase.

An event keeps numbers and strings only, so that the history of a long training stays small and goes into a checkpoint
as it is. The history is what sparsity and phase over time are drawn from: between two events no mask changes, so
both are step functions of the number of optimizer steps. `observe` tells how things are now, after the last event.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparseopt.nn.layers import Layer

__all__ = ["BINS", "RANGE", "Event", "observe"]

# Of log10 of the attention: every bin is a factor 1.26, and 1, where all attention begins, is in the middle of one.
BINS = 61
RANGE = (-3.05, 3.05)


@dataclass(frozen=True)
class Event:
    """After `step` steps, blocks were chosen ("choose") or the phase became `phase` ("enter").

    Attributes
    ----------
    step : int
        Steps that the optimizer had taken.
    what : {"choose", "enter"}
        What happened.
    phase : {"dense", "sparsify", "sparse"}
        The phase of the next step.
    sparsity : float
        Share of the entries of the plan's weights that the model multiplies by 0 from now on.
    kept : list of int
        Blocks of every layer that are in use, in the plan's order.
    attention : list of int
        When a phase begins: the blocks that the layers with logits use, counted by log10 |factor| in `BINS` equal bins
        of `RANGE`; the outer bins hold what lies beyond, factors that are 0 are left out. Empty for masks without
        logits, and for choices.

    Examples
    --------
    >>> event = Event(10, "enter", "sparse", 0.9, [25], [])
    >>> print(event)
    step 10: enters a sparse phase, sparsity 0.900
    >>> Event.from_list(event.to_list()) == event
    True
    """

    step: int
    what: str
    phase: str
    sparsity: float
    kept: list[int]
    attention: list[int]

    def __str__(self) -> str:
        verb = "enters a" if self.what == "enter" else "has chosen blocks in its"
        return f"step {self.step}: {verb} {self.phase} phase, sparsity {self.sparsity:.3f}"

    def to_list(self) -> list[Any]:
        """Numbers and strings, for a checkpoint."""
        return [self.step, self.what, self.phase, self.sparsity, list(self.kept), list(self.attention)]

    @classmethod
    def from_list(cls, entry: Sequence[Any]) -> Event:
        """The event that `to_list` wrote."""
        step, what, phase, sparsity, kept, attention = entry
        return cls(step, what, phase, sparsity, list(kept), list(attention))


@torch.no_grad()
def observe(layers: Sequence[Layer], step: int, phase: str, what: str, sparsity: float) -> Event:
    """The event of this moment; see `Event`."""
    kept = [int(layer.mask.alive().sum()) for layer in layers]
    attention: list[int] = []
    if what == "enter" and any(layer.logits is not None for layer in layers):
        attention = [int(n) for n in _histogram([layer.factors() for layer in layers if layer.logits is not None])]
    return Event(step, what, phase, sparsity, kept, attention)


def _histogram(factors: Sequence[Tensor]) -> Tensor:
    sizes = torch.cat([each.flatten().double().cpu() for each in factors]).abs()
    return torch.histc(sizes[sizes.isfinite() & (sizes > 0)].log10().clamp(*RANGE), BINS, *RANGE)
