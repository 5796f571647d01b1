"""Matrices in blocks of rows, and problems on them, for test_rows.py and test_streamed.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np

N, P = 61, 23


def matrix(dtype: Any = np.float64, n: int = N, p: int = P, density: float = 0.6, seed: int = 0) -> np.ndarray:
    """Few nonzeros, of a size that integers keep."""
    rng = np.random.default_rng(seed)
    X = (4.0 * rng.standard_normal((n, p)) + 1.0) * (rng.random((n, p)) < density)
    return X.astype(dtype)


def mapped(X: np.ndarray, folder: Path, order: str = "C") -> np.ndarray:
    """The same in a file, as np.load maps it."""
    np.save(folder / "X.npy", np.asarray(X, order=order))
    return np.load(folder / "X.npy", mmap_mode="r")


def chunked(X: np.ndarray, sizes: Any, convert: Callable = np.asarray) -> da.Array:
    """A Dask array of row blocks; `convert` makes the blocks."""
    return da.from_array(X, chunks=(sizes, X.shape[1])).map_blocks(
        convert, dtype=X.dtype, meta=np.empty((0, 0), X.dtype)
    )


def tall(n: int = 300, p: int = 120, seed: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """X, and targets for several losses that depend on its first nine features."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p)) + 1.0
    signal = X[:, :9] @ rng.standard_normal(9)
    signal = (signal - signal.mean()) / signal.std()
    noise = rng.standard_normal(n)
    return X, {
        "squares": signal + noise,
        "responses": np.column_stack([signal, -signal]) + rng.standard_normal((n, 2)),
        "logistic": (signal + noise > 0.0).astype(float),
        "poisson": rng.poisson(np.exp(0.5 * signal)).astype(float),
    }
