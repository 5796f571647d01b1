"""Growth: few blocks at first, then those with the largest gradient, until the budget is used.

    event j of J     blocks in use: the share f_j = start + (1 - start) share(j / J) of the budget
                     those that are in use stay, and the others with the largest ||dL/dW_hat_T|| come

With one block per event and training to convergence in between, this is group orthogonal matching pursuit:
`sparseopt.select(problem, k, method="omp")`. Between events all blocks in use are trained further, so a network grows
in one run. A layer is never empty: it begins with at least one block.

Reference: Lozano, Swirszcz, Abe (2009), "Group orthogonal matching pursuit for variable selection and prediction".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from sparseopt.nn.budget import Share, choose
from sparseopt.nn.layers import Layer
from sparseopt.nn.methods.gradients import GradientMethod
from sparseopt.nn.planning import Plan
from sparseopt.nn.schedule import Linear, Phase

__all__ = ["OMP"]

_LINEAR = Linear()


@dataclass(frozen=True)
class OMP(GradientMethod):
    """OMP-like growth: one dense step, whose gradient chooses the first blocks, and then one sparse phase.

    Parameters
    ----------
    start : float in [0, 1]
        The share of the budget in use from the beginning; at least one block per layer.
    share : callable
        How the rest comes, as a function of j / J in [0, 1].

    Examples
    --------
    >>> from sparseopt.nn.schedule import Phase
    >>> [round(OMP(start=0.2, updates=4).filled(Phase("sparse", 0, 100), step), 2) for step in (0, 18, 36, 54, 72, 99)]
    [0.2, 0.4, 0.6, 0.8, 1.0, 1.0]
    """

    share: Callable[[float], float] = _LINEAR
    first: str = "gradient"
    start: float = 0.1

    name: ClassVar[str] = "omp"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.start <= 1.0:
            raise ValueError(f"start must be in [0, 1], got {self.start}: the share of the budget in use at first.")

    def filled(self, phase: Phase, step: int) -> float:
        """f: the share of the budget that is in use after `step` steps in all."""
        every, events = self.spacing(phase)
        if events == 0:
            return 1.0
        done = min((step - phase.start) // every / events, 1.0)
        return self.start + (1.0 - self.start) * self.share(done)

    def shares(self, layers: Sequence[Layer], phase: Phase, step: int) -> list[Share]:
        filled = self.filled(phase, step) if phase.kind == "sparse" else self.start
        whole = super().shares(layers, phase, step)
        return [replace(share, sparsity=1.0 - filled * (1.0 - share.sparsity)) for share in whole]

    def event(self, layers: Sequence[Layer], plan: Plan, phase: Phase, step: int) -> list[Tensor]:
        kept = [layer.kept.cpu() for layer in layers]
        scores = [self.pulls(layer).masked_fill(mask, torch.inf) for layer, mask in zip(layers, kept, strict=True)]
        masks = choose(plan.budget, self.shares(layers, phase, step), scores)
        # A layer's one block may cost more than a joint budget gives it at first.
        return [mask | before for mask, before in zip(masks, kept, strict=True)]
