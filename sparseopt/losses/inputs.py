"""Targets, weights and offsets as a user gives them, turned into the arrays of a loss or refused in one sentence."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["as_offset", "as_targets", "as_weights", "require_variety"]

Array = NDArray[np.float64]


def as_targets(y: ArrayLike) -> Array:
    """`y` as a new (n, K) array of finite numbers; a vector becomes one column."""
    targets = _finite_numbers(y, "y")
    if targets.ndim not in (1, 2):
        raise ValueError(f"y has {targets.ndim} dimensions: pass one row per sample, shape (n,) or (n, K).")
    if targets.size == 0:
        raise ValueError(f"y has shape {targets.shape} and so no samples: pass at least one.")
    return targets.reshape(len(targets), -1)


def as_weights(weights: ArrayLike | None, n: int) -> Array:
    """The weights s: 1/n each, or the given ones as they are."""
    if weights is None:
        return np.full(n, 1.0 / n)
    s = _finite_numbers(weights, "weights")
    if s.shape != (n,):
        raise ValueError(f"weights has shape {s.shape} but y has {n} samples: pass one weight per sample, ({n},).")
    if s.min() < 0.0:
        row = int(s.argmin())
        raise ValueError(f"weights[{row}] is {s[row]:g}: pass weights >= 0, with 0 for a sample to leave out.")
    if not s.any():
        raise ValueError(f"weights has {n} zeros and nothing else: give at least one sample a positive weight.")
    return s


def as_offset(offset: ArrayLike | None, shape: tuple[int, ...]) -> Array | None:
    """The offset as an (n, K) array; one column serves all outputs."""
    if offset is None:
        return None
    given = _finite_numbers(offset, "offset")
    n, n_outputs = shape
    if given.shape not in {(n,), (n, 1), (n, n_outputs)}:
        raise ValueError(f"offset has shape {given.shape} but y has shape {shape}: pass shape ({n},) or {shape}.")
    return np.array(np.broadcast_to(given.reshape(n, -1), shape))


def require_variety(indicator: Array, s: Array, remedy: str) -> None:
    """Refuse a class without samples; `indicator` (n, C) holds 1 where a sample belongs to class c, whose name is c."""
    empty = np.flatnonzero(s @ indicator == 0.0)
    if empty.size:
        raise ValueError(f"y has no sample of class {empty[0]} with a positive weight: {remedy}.")


def _finite_numbers(values: ArrayLike, name: str) -> Array:
    raw = np.asarray(values)
    if raw.dtype.kind not in "biufO" or (raw.dtype.kind == "O" and any(isinstance(v, str) for v in raw.flat)):
        remedy = "np.unique(y, return_inverse=True)[1]" if name == "y" else "np.asarray(values, dtype=float)"
        raise TypeError(f"{name} has dtype {raw.dtype}: pass real numbers, for example {remedy}.")
    try:
        numbers = np.array(raw, dtype=np.float64, order="C")
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} of dtype {raw.dtype} is not numeric ({error}): pass real numbers.") from error
    bad = np.argwhere(~np.isfinite(numbers))
    if len(bad):
        place = ", ".join(map(str, bad[0]))
        raise ValueError(f"{name}[{place}] is {numbers[tuple(bad[0])]}: remove or impute samples that are not finite.")
    return numbers
