"""X'SX by parts of the samples, against the definition."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from sparseopt.designs import as_design, gram
from sparseopt.designs.products import combine

Array = np.ndarray
SHAPES = {"one feature": (40, 1), "few samples": (50, 30), "two parts": (30_000, 40), "chunks": (8_000, 300)}


def close(found: Callable[..., Array], n: int, p: int, dtype: str, even: bool, centred: bool, single: bool) -> bool:
    """Whether the upper half is that of sum_i s_i (x_i - m)(x_i - m)', and the other half zero."""
    rng = np.random.default_rng(n + p)
    columns = (rng.normal(size=(p, n)) + 0.5).astype(dtype)
    s = np.full(n, 0.3) if even else rng.uniform(0.5, 2.0, n)
    mean = columns.mean(axis=1, dtype=np.float64) if centred else None
    G = found(columns, s, mean, single)
    shifted = columns.astype(np.float64) - (0.0 if mean is None else mean[:, None])
    expected = (shifted * s) @ shifted.T
    norms = np.sqrt(expected.diagonal())
    error = np.abs(np.triu(G - expected)) / np.outer(norms, norms)
    return bool(error.max() < (3e-6 if single else 1e-13)) and not np.tril(G, -1).any()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_is_the_sum_over_samples(shape: str, dtype: str, n_threads: int, use_threads: Callable[[int], None]) -> None:
    use_threads(n_threads)
    for case in range(8):
        assert close(gram, *SHAPES[shape], dtype, bool(case & 1), bool(case & 2), bool(case & 4))


def _without_mean(columns: Array, s: Array, mean: Array | None, single: bool) -> Array:
    return gram(columns, s, None, single)


def _without_weights(columns: Array, s: Array, mean: Array | None, single: bool) -> Array:
    return gram(columns, np.ones_like(s), mean, single)


def _always_single(columns: Array, s: Array, mean: Array | None, single: bool) -> Array:
    return gram(columns, s, mean, True)


def _first_part(columns: Array, s: Array, mean: Array | None, single: bool) -> Array:
    half = columns.shape[1] // 2
    return gram(np.ascontiguousarray(columns[:, :half]), s[:half], mean, single)


def _whole(columns: Array, s: Array, mean: Array | None, single: bool) -> Array:
    G = gram(columns, s, mean, single)
    return np.triu(G) + np.triu(G, 1).T


@pytest.mark.parametrize("wrong", [_without_mean, _without_weights, _always_single, _first_part, _whole])
def test_the_law_rejects(wrong: Callable[..., Array]) -> None:
    assert not close(wrong, 300, 20, "f8", even=False, centred=True, single=False)


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_products_are_the_same_with_any_number_of_threads(n_outputs: int, use_threads: Callable[[int], None]) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(8_000, 600)).astype(np.float32)
    W = rng.normal(size=(600, n_outputs))
    design = as_design(X)
    found = []
    for n_threads in (1, 2, 3):
        use_threads(n_threads)
        found.append(combine(design, W))
    np.testing.assert_allclose(found[0], W.T @ X.T.astype(np.float64), atol=1e-11)
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])
