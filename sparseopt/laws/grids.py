"""Where the laws of regularizers look, and how they say what they found."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["fail", "first", "norms", "steps"]


def norms() -> NDArray:
    """Norms from 1e-6 to 1e4, dense around 1."""
    return np.unique(np.concatenate([np.geomspace(1e-6, 1e4, 161), np.linspace(0.03, 8.0, 160)]))


def steps(q: Any) -> Iterator[float]:
    """Steps over six decades, and on both sides of 1 / rho, where the prox begins to jump."""
    yield from (1e-3, 1e-2, 0.1, 0.5, 1.0, 4.0, 15.0, 100.0, 1e3)
    rho = q.weak_convexity()
    if 0.0 < rho < math.inf:
        yield from (factor / rho for factor in (0.5, 0.9, 1.0, 1.02, 1.1, 1.5, 5.0))


def fail(q: Any, law: str, **numbers: Any) -> None:
    """Raise the AssertionError of a broken law, with the numbers that break it."""
    listed = ", ".join(f"{name} = {float(number)!r}" for name, number in numbers.items())
    raise AssertionError(f"{q} breaks: {law}; {listed}.")


def first(broken: NDArray) -> int | None:
    """Where `broken` holds first, None if nowhere."""
    found = np.flatnonzero(broken)
    return int(found[0]) if found.size else None
