"""What happened in a pruning: an event for every choice of blocks and every change of phase.

An event keeps numbers only, so that the history of a long training stays small and goes into a checkpoint as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

import torch

from sparseopt.nn.layers import Layer

__all__ = ["Event", "observe"]

BINS = 40
RANGE = (-3.0, 3.0)  # of log10 of the attention


@dataclass(frozen=True)
class Event:
    """After `step` steps, blocks were chosen ("choose") or the phase became `phase` ("enter").

    Attributes
    ----------
    sparsity : float
        Share of the plan's weights that the model multiplies by 0 from now on.
    kept : list of int
        Blocks of every layer that are in use.
    attention : list of int
        How many blocks have log10 of their factor in each of 40 bins of [-3, 3]; empty without logits.
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
        return list(astuple(self))

    @classmethod
    def from_list(cls, entry: Sequence[Any]) -> Event:
        """The event that `to_list` wrote."""
        return cls(*entry)


@torch.no_grad()
def observe(layers: Sequence[Layer], step: int, phase: str, what: str, sparsity: float) -> Event:
    """The event of this moment."""
    kept = [int(layer.mask.alive().sum()) for layer in layers]
    attention: list[int] = []
    if what == "enter" and any(layer.logits is not None for layer in layers):
        factors = torch.cat([layer.factors().flatten().float().cpu() for layer in layers if layer.logits is not None])
        powers = factors[factors > 0].log10().clamp(*RANGE)
        attention = [int(n) for n in torch.histc(powers, BINS, *RANGE)]
    return Event(step, what, phase, sparsity, kept, attention)
