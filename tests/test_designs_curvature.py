"""Designs: the curvature and the Gram matrix of every block, against eigenvalues of the matrix itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from design_cases import assert_rounded, check_curvature, designs, matrix, small
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sparseopt.designs import Design, as_design, block_curvature, block_grams
from sparseopt.groups import Groups

SIZES = [1, 2, 16, 17, 1, 40, 512, 513]


def mixed(dtype: type) -> tuple[np.ndarray, Groups]:
    """Blocks on both sides of every threshold, their columns scattered."""
    X = matrix(dtype, n=60, p=sum(SIZES), density=0.3, seed=3)
    order = np.random.default_rng(4).permutation(sum(SIZES))
    return X, Groups(order, np.concatenate([[0], np.cumsum(SIZES)]))


@designs
def test_curvature(build: Callable[[np.ndarray], Design], dtype: type) -> None:
    X, groups = mixed(dtype)
    design = build(X)
    for c in (np.array([0.25]), np.random.default_rng(5).random(len(X)), np.zeros(len(X))):
        check_curvature(block_curvature, design, X, groups, c)
    c = np.ones(1)
    L = block_curvature(design, groups, c)
    np.testing.assert_allclose(block_curvature(design, groups, c, np.array([7, 5, 0, 2])), L[[7, 5, 0, 2]], rtol=1e-13)
    assert block_curvature(design, groups, c, []).shape == (0,)


@designs
def test_grams(build: Callable[[np.ndarray], Design], dtype: type) -> None:
    X, groups = mixed(dtype)
    c = np.random.default_rng(6).random(len(X))
    ids = [5, 0, 3, 1, 0]
    grams = block_grams(build(X), groups, ids, c)
    assert len(grams) == len(ids)
    for g, H in zip(ids, grams, strict=True):
        block = X[:, groups[g]].astype(np.longdouble)
        assert_rounded(H, (block.T * c) @ block, np.abs(block).T @ (c[:, None] * np.abs(block)), len(X))


def one_hot(n: int, levels: int) -> np.ndarray:
    return np.eye(levels)[np.arange(n) % levels]


BLOCKS = {  # of more than 512 features, where Lanczos could go astray
    "zero": np.zeros((20, 600)),
    "rank one": np.outer(np.arange(1.0, 21.0), np.arange(600.0) - 300.0),
    "orthonormal": np.eye(600),
    "indicators": one_hot(700, 600),
    "centred indicators": one_hot(1200, 600) - one_hot(1200, 600).mean(axis=1, keepdims=True),
    "opposite columns": np.kron(np.round(3 * matrix(np.float64, 30, 300, seed=7)), [1.0, -1.0]),
    "equal columns": np.ones((30, 600)),
    "one column matters": np.hstack([matrix(np.float64, 30, 599, seed=8), np.full((30, 1), 1e3)]),
    "one sample": np.arange(1.0, 601.0)[None],
    "tiny": 1e-100 * matrix(np.float64, 30, 600, seed=9),
    "huge": 1e100 * matrix(np.float64, 30, 600, seed=9),
}


@pytest.mark.parametrize("X", BLOCKS.values(), ids=BLOCKS)
def test_curvature_of_a_large_block(X: np.ndarray) -> None:
    check_curvature(block_curvature, as_design(X), X, Groups.equal(600, 600), np.ones(1))
    check_curvature(block_curvature, as_design(sp.csr_array(X)), X, Groups.equal(600, 600), np.ones(len(X)))


@settings(max_examples=40)
@given(hnp.arrays(np.float64, st.tuples(small, small), elements=st.floats(-1e3, 1e3)), st.integers(0, 2**32 - 1))
def test_curvature_bounds_every_direction(X: np.ndarray, seed: int) -> None:
    """d' H d <= L ||d||^2, up to the rounding of both sides."""
    rng = np.random.default_rng(seed)
    c, d = rng.random(len(X)), rng.standard_normal(X.shape[1])
    (L,) = block_curvature(as_design(X), Groups.equal(X.shape[1], X.shape[1]), c)
    assert (c * (X @ d) ** 2).sum() <= L * (d @ d) * (1 + 1e-12)


def from_ones(design: Design, groups: Groups, c: np.ndarray) -> np.ndarray:
    """A power method that starts at the vector of ones, for a single group of all features."""
    v, L = np.ones((groups.n_features, 1)), 0.0
    for _ in range(200):
        v = design.rmatvec(c[:, None] * design.matvec(v))
        L = float(np.linalg.norm(v))
        if L == 0.0:
            break
        v /= L
    return np.array([1.01 * L])


WRONG_CURVATURES: dict[str, Any] = {
    "forgets c": lambda design, groups, c: block_curvature(design, groups, np.ones(1)),
    "below": lambda design, groups, c: block_curvature(design, groups, c) / 1.011,
    "sloppy": lambda design, groups, c: block_curvature(design, groups, c) * 1.02,
    "trace": lambda design, groups, c: np.array([np.trace(H) for H in block_grams(design, groups, range(8), c)]),
}


@pytest.mark.parametrize("wrong", WRONG_CURVATURES.values(), ids=WRONG_CURVATURES)
def test_wrong_curvatures_are_rejected(wrong: Any) -> None:
    X, groups = mixed(np.float64)
    with pytest.raises(AssertionError):
        check_curvature(wrong, as_design(X), X, groups, np.full(1, 0.5))


def test_a_regular_start_is_rejected() -> None:
    groups = Groups.equal(600, 600)
    X = BLOCKS["equal columns"]
    check_curvature(from_ones, as_design(X), X, groups, np.ones(1))
    X = BLOCKS["opposite columns"]
    with pytest.raises(AssertionError):
        check_curvature(from_ones, as_design(X), X, groups, np.ones(1))
