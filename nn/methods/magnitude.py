"""Magnitude: the blocks of largest norm stay.

    scores       u_T = ||W_T||
    one shot     dense, then the k blocks of largest norm, then sparse
    gradual      the share 1 - (1 - t)^3 of the pruning is done at progress t of a sparsify phase

A network that is trained already is pruned before the first step by a schedule without a dense phase,
`PhaseSchedule.from_list([("sparse", 1.0)], total)`: load its weights first.

Reference: Zhu, Gupta (2017), "To prune, or not to prune: exploring the efficacy of pruning for model compression".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from sparseopt.nn.layers import Layer
from sparseopt.nn.methods.method import Method
from sparseopt.nn.schedule import CUBIC, PhaseSchedule

__all__ = ["GradualMagnitude", "Magnitude"]


@dataclass(frozen=True)
class Magnitude(Method):
    """One-shot magnitude pruning: half of the steps dense, half sparse, unless a schedule says otherwise."""

    name: ClassVar[str] = "magnitude"

    def schedule(self, total: int) -> PhaseSchedule:
        return PhaseSchedule.one_shot(total)

    def scores(self, layer: Layer) -> Tensor:
        return layer.norms()


@dataclass(frozen=True)
class GradualMagnitude(Magnitude):
    """Gradual magnitude pruning: 10 % dense, 60 % sparsify, 30 % sparse, unless a schedule says otherwise."""

    share: Callable[[float], float] = CUBIC

    name: ClassVar[str] = "gradual-magnitude"

    def schedule(self, total: int) -> PhaseSchedule:
        return PhaseSchedule.gradual(total)
