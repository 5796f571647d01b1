"""Designs: products with matrices and of blocks are those of their definitions, and wrong ones are rejected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from design_cases import (
    N,
    P,
    check_all_blocks,
    check_blocks,
    check_whole,
    csc,
    dense,
    designs,
    in_a_kernel,
    matrix,
    small,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sparseopt.designs import Csc, Dense, Design, as_design


@pytest.mark.parametrize("K", [1, 3, 4, 5, 9])
@designs
def test_products(build: Callable[[np.ndarray], Design], dtype: type, K: int) -> None:
    X = matrix(dtype)
    rng = np.random.default_rng(1)
    W, R = rng.standard_normal((P, K)), rng.standard_normal((N, K))
    for used in (P, 7, 2, 0):  # with few rows that are not zero, matvec leaves the other columns alone
        W[used:] = 0.0
        check_whole(build(X), X, W, R)
    check_whole(build(X), X, np.asfortranarray(W), np.asfortranarray(R))
    check_all_blocks(build(X), X, K)


@designs
def test_other_number_types_of_the_factor(build: Callable[[np.ndarray], Design], dtype: type) -> None:
    X = matrix(dtype)
    W, R = np.arange(P)[:, None] - 5, np.arange(N)[:, None] % 7
    check_whole(build(X), X, W, R)
    check_whole(build(X), X, W.astype(np.float32), R.astype(np.float32))


integers = st.integers(-3, 3).map(float)


@settings(max_examples=60)
@given(st.data(), small, small, small)
def test_products_of_any_shape(data: st.DataObject, n: int, p: int, K: int) -> None:
    """Sums of small integers are exact, so that dense and sparse agree to the last bit."""
    X = data.draw(hnp.arrays(np.float64, (n, p), elements=integers, fill=st.just(0.0)))
    W = data.draw(hnp.arrays(np.float64, (p, K), elements=integers))
    R = data.draw(hnp.arrays(np.float64, (n, K), elements=integers))
    order = np.array(data.draw(st.permutations(range(p))))
    lo = data.draw(st.integers(0, p - 1))
    hi = data.draw(st.integers(lo + 1, p))
    c = data.draw(hnp.arrays(np.float64, st.sampled_from([1, n]), elements=st.integers(0, 3).map(float)))
    for design in (as_design(X), as_design(sp.csr_array(X))):
        np.testing.assert_array_equal(design.matvec(W), X @ W)
        np.testing.assert_array_equal(design.rmatvec(R), X.T @ R)
        check_blocks(design, X, order, lo, hi, c, np.ascontiguousarray(R.T), in_a_kernel)


class ForgetsCurvature(Dense):
    def block_add(self, features, lo, hi, delta, c, rows):
        super().block_add(features, lo, hi, delta, np.ones(1), rows)


class CurvatureOfTheFirstSample(Dense):
    def block_add(self, features, lo, hi, delta, c, rows):
        super().block_add(features, lo, hi, delta, c[:1], rows)


class DropsTheRemainder(Dense):
    def block_dot(self, features, lo, hi, rows, out):
        out[:] = 0.0
        super().block_dot(features, lo, hi - (hi - lo) % 4, rows, out)


class IgnoresTheOffset(Dense):
    def block_dot(self, features, lo, hi, rows, out):
        super().block_dot(features, 0, hi - lo, rows, out)


class SinglePrecision(Dense):
    def block_dot(self, features, lo, hi, rows, out):
        out[:] = self.columns[features[lo:hi]].astype(np.float32) @ rows.T.astype(np.float32)


class LowerTriangle(Dense):
    def block_gram(self, features, lo, hi, c, scratch, out):
        super().block_gram(features, lo, hi, c, scratch, out)
        out[:] = np.tril(out)


class TrustsTheScratch(Csc):
    def block_gram(self, features, lo, hi, c, scratch, out):
        full = sp.csc_array((self.data, self.indices, self.indptr), shape=self.shape).toarray()
        block, used = full[:, features[lo:hi]], full[:, features[lo:hi]] != 0
        out[:] = (np.where(used, block, scratch[:, None]).T * c) @ block


class LastRowOnly(Csc):
    def block_dot(self, features, lo, hi, rows, out):
        out[:] = 0.0
        super().block_dot(features, lo, hi, rows[-1:], out[:, -1:])


@pytest.mark.parametrize(
    "wrong", [ForgetsCurvature, CurvatureOfTheFirstSample, DropsTheRemainder, IgnoresTheOffset, SinglePrecision,
              LowerTriangle, TrustsTheScratch, LastRowOnly],
)  # fmt: skip
def test_wrong_blocks_are_rejected(wrong: Any) -> None:
    X = matrix(np.float64)
    right = csc(X) if issubclass(wrong, Csc) else dense(X)
    check_all_blocks(right, X, 3, in_a_kernel.py_func)
    with pytest.raises(AssertionError):
        check_all_blocks(wrong(*right), X, 3, in_a_kernel.py_func)


class RoundsW(Dense):
    def matvec(self, W):
        return super().matvec(W.astype(np.float32))


class KeepsSingle(Dense):
    def rmatvec(self, R):
        return super().rmatvec(R).astype(np.float32)


class SkipsTheLast(Dense):
    def matvec(self, W):
        return Dense(self.columns[:-1]).matvec(W[:-1])


@pytest.mark.parametrize("wrong", [RoundsW, KeepsSingle, SkipsTheLast])
def test_wrong_products_are_rejected(wrong: Any) -> None:
    X = matrix(np.float32)
    rng = np.random.default_rng(2)
    W, R = rng.standard_normal((P, 2)), rng.standard_normal((N, 2))
    check_whole(dense(X), X, W, R)
    with pytest.raises(AssertionError):
        check_whole(wrong(dense(X).columns), X, W, R)
