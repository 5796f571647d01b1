"""What a regularizer is, seen on a grid: its flags may claim nothing, and a check must know what to expect.

Points over eight orders of magnitude, all pairs of them. A grid refutes, it does not prove: for proofs in ball
arithmetic see `sparseopt.certificates.regularizers`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["GRID", "concavity_defect", "decrease", "is_admissible", "subadditivity_defect"]

Array = NDArray[np.float64]

GRID: Array = np.geomspace(1e-5, 1e3, 241)
_ROUNDING = 1e-10


def decrease(q: Any) -> tuple[float, float]:
    """The largest fall of q between neighbours of the grid, relative to its size there, and where; > 0 refutes."""
    values = np.concatenate([[0.0], np.asarray(q.value(GRID), dtype=np.float64)])
    fall = -np.diff(values) / np.maximum(np.abs(values[1:]), 1e-300)
    return float(fall.max()), float(GRID[int(np.argmax(fall))])


def subadditivity_defect(q: Any) -> tuple[float, float, float]:
    """The largest (q(a + b) - q(a) - q(b)) / q(a + b), and its a and b; > 0 refutes subadditivity."""
    a, b = np.meshgrid(GRID, GRID, indexing="ij")
    whole = np.asarray(q.value(a + b), dtype=np.float64)
    defect = (whole - q.value(a) - q.value(b)) / np.maximum(np.abs(whole), 1e-300)
    at = np.unravel_index(int(np.argmax(defect)), defect.shape)
    return float(defect[at]), float(a[at]), float(b[at])


def concavity_defect(q: Any) -> tuple[float, float, float]:
    """The largest ((q(a) + q(b)) / 2 - q((a + b) / 2)) / q(b) over neighbours a < b, and both; > 0 refutes."""
    best = (-np.inf, 0.0, 0.0)
    for step in (1, 2, 4, 8, 16, 32):
        a, b = GRID[:-step], GRID[step:]
        high = np.asarray(q.value(b), dtype=np.float64)
        defect = (0.5 * (q.value(a) + high) - q.value(0.5 * (a + b))) / np.maximum(np.abs(high), 1e-300)
        i = int(np.argmax(defect))
        if defect[i] > best[0]:
            best = (float(defect[i]), float(a[i]), float(b[i]))
    return best


def is_admissible(q: Any) -> bool:
    """Whether nothing on the grid denies that q is increasing and subadditive with q(0) = 0."""
    zero = float(q.value(np.zeros(1))[0])
    return zero == 0.0 and decrease(q)[0] <= _ROUNDING and subadditivity_defect(q)[0] <= _ROUNDING
