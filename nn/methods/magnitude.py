"""Magnitude: the blocks of largest norm stay.

One shot: train dense, keep the best blocks, fine-tune. Gradual: drop them little by little, with the cubic curve of Zhu
and Gupta (2017), "To prune, or not to prune".
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
