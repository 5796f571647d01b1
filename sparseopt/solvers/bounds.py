"""L_g, the largest eigenvalue of X_g'cX_g, of the groups for which it matters; of the others a lower bound.

A group at zero wakes if L u^2 / 2 - v u + Omega_g(u) < 0 at some norm u, which is the easier the smaller L is: a group
that does not wake under a lower bound of L_g does not wake. The bound is the curvature of its first column.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sparseopt.designs import block_curvature, first_curvature
from sparseopt.optimality import positive
from sparseopt.problem import Problem

__all__ = ["StepBounds"]

Array = NDArray[np.float64]


class StepBounds:
    """Curvatures of the blocks of a problem, (G,), for the curvature c of its loss last given to `at`."""

    def __init__(self, problem: Problem) -> None:
        self.design, self.groups = problem.design, problem.groups
        self.c = self.L = np.empty(0)
        self.is_exact = np.empty(0, dtype=np.bool_)

    def at(self, c: Array) -> Array:
        """L_g where `sharpen` was asked for it at this c, (n,), a lower bound elsewhere. Do not write into it."""
        if not (self.c is c or np.array_equal(self.c, c)):
            self.c, self.L = c, positive(first_curvature(self.design, self.groups, c))
            self.is_exact = np.zeros(len(self.groups), dtype=np.bool_)
        return self.L

    def sharpen(self, c: Array, among: NDArray[np.bool_]) -> bool:
        """Make L_g exact at c for the groups `among`; whether any was not."""
        self.at(c)
        ids = np.flatnonzero(among & ~self.is_exact)
        if not ids.size:
            return False
        self.L[ids] = np.maximum(block_curvature(self.design, self.groups, c, ids), self.L[ids])
        self.is_exact[ids] = True
        return True
