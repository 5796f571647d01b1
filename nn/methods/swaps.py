"""Swaps: the budget is in use all the time, and blocks inside and outside change places.

    out     the r blocks in use of smallest norm
    in      as many of the others, those of largest ||dL/dW_hat_T||

    OMPR    r = count: orthogonal matching pursuit with replacement
    RigL    r = floor(f_t k), f_t = a / 2 (1 + cos(pi t / T)): t steps into the phase, T where the events end

With training to convergence between events, OMPR replaces the blocks that `sparseopt.select(problem, k, method="ompr")`
does; that one also refuses a replacement that raises the objective, which minibatches cannot tell. Every layer keeps
its number of blocks. The norm of a block that has just come in says little: leave it steps to grow before the next
event.

References: Jain, Tewari, Dhillon (2011), "Orthogonal matching pursuit with replacement", NeurIPS; Evci, Gale, Menick,
Castro, Elsen (2020), "Rigging the lottery: making all tickets winners", ICML.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sparseopt.nn.budget import keep_best
from sparseopt.nn.layers import Layer
from sparseopt.nn.methods.gradients import GradientMethod
from sparseopt.nn.methods.method import numbers
from sparseopt.nn.planning import Plan
from sparseopt.nn.schedule import Phase

__all__ = ["OMPR", "RigL"]


@dataclass(frozen=True)
class OMPR(GradientMethod):
    """OMPR-like swaps in one sparse phase, unless a schedule says otherwise.

    Parameters
    ----------
    updates : int
        Events in a sparse phase. Few, because the block that came in last is the smallest for a while: at the next
        event it would be the one to go out.
    count : int
        Blocks to swap in every layer at an event, at most those outside and those inside.
    fraction : float in (0, 1], optional
        a: swap a share of the blocks of a layer, rounded down, instead of `count`.
    decay : {"none", "cosine"}
        Whether the share falls to 0 until the events end.
    regrow : bool
        Whether a block that goes out at an event may come in again at the same event, with its weights.

    Examples
    --------
    >>> phase = Phase("sparse", 0, 1000)
    >>> [round(RigL(until=0.8).share_swapped(phase, step), 3) for step in (0, 200, 400, 800)]
    [0.3, 0.256, 0.15, 0.0]
    """

    updates: int = 25
    count: int = 1
    fraction: float | None = None
    decay: str = "none"
    regrow: bool = False

    name: ClassVar[str] = "ompr"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.count < 1:
            raise ValueError(f"count must be at least 1, got {self.count}: it is the blocks that a layer swaps.")
        if self.fraction is not None:
            object.__setattr__(self, "fraction", float(self.fraction))
            if not 0.0 < self.fraction <= 1.0:
                raise ValueError(f"fraction must be in (0, 1], or None to swap count blocks, got {self.fraction}.")
        if self.decay not in ("none", "cosine"):
            raise ValueError(f"decay must be 'none' or 'cosine', got {self.decay!r}.")
        if self.decay != "none" and self.fraction is None:
            raise ValueError(f"decay={self.decay!r} lowers a fraction, and fraction is None: give fraction=0.3.")

    def share_swapped(self, phase: Phase, step: int) -> float:
        """f_t, the share of the blocks in use that are swapped after `step` steps in all."""
        if self.fraction is None:
            raise ValueError("fraction is None: count blocks are swapped at every event, not a share of them.")
        if self.decay == "none":
            return self.fraction
        return 0.5 * self.fraction * (1.0 + math.cos(math.pi * (step - phase.start) / self.window(phase)))

    def swapped(self, phase: Phase, step: int, n_kept: int) -> int:
        """r: how many of `n_kept` blocks are swapped after `step` steps in all."""
        if self.fraction is None:
            return min(self.count, n_kept)
        # A share that is whole up to rounding counts as whole.
        return math.floor(self.share_swapped(phase, step) * n_kept + 1e-9 * n_kept)

    def event(self, layers: Sequence[Layer], plan: Plan, phase: Phase, step: int) -> list[Tensor]:
        masks = []
        for layer in layers:
            kept = layer.kept.cpu()
            n_kept = int(kept.sum())
            r = min(self.swapped(phase, step, n_kept), layer.grid.n_blocks - n_kept)
            stay = keep_best(numbers(self.scores(layer)).masked_fill(~kept, -torch.inf), n_kept - r)
            taken = stay if self.regrow else kept
            masks.append(stay | keep_best(self.pulls(layer).masked_fill(taken, -torch.inf), r))
        return masks


@dataclass(frozen=True)
class RigL(OMPR):
    """RigL on blocks: random first blocks, and swaps of a share that falls from 0.3 to 0 over 75 % of the training.

    Evci et al. swap every 100 of 32,000 steps (`every=100`) and spread the sparsity by ERK (`budget="erk"` of the
    plan). A network that is trained already should start with first="magnitude".
    """

    updates: int = 100
    first: str = "random"
    fraction: float | None = 0.3
    decay: str = "cosine"
    regrow: bool = True

    name: ClassVar[str] = "rigl"
