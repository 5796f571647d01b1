"""Dual points made orthogonal to columns U, exactly, without leaving the domain of the conjugate.

    A_k = s (v_k - sum_j H_kj U beta_j)      with U'A = 0

for a metric H that vanishes where v is at the border of the domain (multinomial: H = diag(p) - pp' with the
probabilities p, which keeps the rows of A at sum zero). The system for beta is solved in balls.

It is singular where columns depend on each other, or do so without the samples at the border. Samples there with v = 0
do not matter to U'A. On the others v is in the range of H, so the system has a solution, and one that is zero where
columns are superfluous: the columns, or those of the map from beta to H U beta, are sorted out in rational numbers.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparseopt.certificates.balls import Refusal, arb, arb_mat, balls

__all__ = ["balanced"]

Array = NDArray[Any]
Ball = Any
_Metric = list[list[dict[int, Ball]]]


def balanced(case: Any, exact: list[list[Ball]], v: Array, U: Array, flat: bool) -> list[list[Ball]]:
    """v - H (U beta) with U' diag(s) of it 0; `exact` holds v in balls, and a `flat` metric is one in all samples.

    `case` is an `Exact`.
    """
    H = _metric(case, v, flat)
    L = case.K - (case.loss == "multinomial")
    n, m = U.shape
    unknown = _unknown(case, exact, U, H, L)
    left = arb_mat(m, n, U.T.ravel().tolist())
    rhs = left * arb_mat([[s * x for x in row[:L]] for s, row in zip(case.s, exact, strict=True)])
    columns = balls(U)
    system = [[arb(0)] * len(unknown) for _ in unknown]
    for k in range(L):
        for j in [k] if case.loss != "multinomial" else range(L):
            scaled = [[s * h[k][j] * x for x in row] for s, h, row in zip(case.s, H, columns, strict=True)]
            part = left * arb_mat(scaled)
            outer, inner = ([(i, a) for i, (output, a) in enumerate(unknown) if output == at] for at in (k, j))
            for i, a in outer:
                for i2, a2 in inner:
                    system[i][i2] = part[a, a2]
    beta = [[arb(0)] * L for _ in range(m)]
    try:
        solved = arb_mat(system).solve(arb_mat([[rhs[a, k]] for k, a in unknown])).entries() if unknown else []
    except ZeroDivisionError:
        raise Refusal("no dual point orthogonal to the columns that are free was found near the evidence") from None
    for (k, a), x in zip(unknown, solved, strict=True):
        beta[a][k] = x
    shift = (left.transpose() * arb_mat(beta)).tolist()
    every = range(case.K)
    return [[row[k] - sum((h[k][j] * push[j] for j in range(L) if j in h[k]), arb(0)) for k in every]
            for row, h, push in zip(exact, H, shift, strict=True)]  # fmt: skip


def _metric(case: Any, v: Array, flat: bool) -> _Metric:
    """H_kj of every sample, without the zeros."""
    y = case.arrays["y"]
    if case.loss == "multinomial":
        out = []
        p = np.ones_like(v) if flat else np.clip(v + y - y * v.sum(axis=1, keepdims=True), 0.0, 1.0)
        for row in balls(p):
            total = sum(row, arb(0))
            out.append([{j: (p if k == j else 0) - p * q / total for j, q in enumerate(row)}
                        for k, p in enumerate(row)])  # fmt: skip
        return out
    bend = {"squares": v**0, "huber": (np.abs(v) < case.delta) * 1.0, "poisson": v + y}
    D = balls(v**0 if flat else bend.get(case.loss, np.abs(v) * (1.0 - np.abs(v))))
    return [[{k: x} for k, x in enumerate(row)] for row in D]


def _unknown(case: Any, exact: list[list[Ball]], U: Array, H: _Metric, L: int) -> list[tuple[int, int]]:
    """The (k, a) for which beta_ak is solved for; the other ones may be 0."""
    m = U.shape[1]
    at_border = np.array([[bool(h[k][k] == 0) for k in range(case.K)] for h in H])
    at_zero = np.array([[bool(x == 0) for x in row] for row in exact])
    if not at_border.any() or not at_zero[at_border].all():
        kept = _independent(U)
        return [(k, a) for k in range(L) for a in kept]
    if case.loss != "multinomial":
        return [(k, a) for k in range(L) for a in _independent(U * ~at_border[:, [k]])]
    visible = []  # H U beta = 0 says that (U beta)_k is the same for all k with p_k > 0
    for row, border in zip(U, at_border, strict=True):
        inside = np.flatnonzero(~border)
        for k, j in pairwise(inside):
            line = np.zeros((case.K, m))
            line[k], line[j] = row, -row
            visible.append(line[:L].ravel())
    return [divmod(i, m) for i in _independent(np.array(visible).reshape(-1, L * m))]


def _independent(U: Array) -> list[int]:
    """Columns that span all of them, exactly: pivots of U'U in rational numbers, if U may be short of rank."""
    n, m = U.shape
    if n and np.linalg.matrix_rank(U) == m:
        return list(range(m))
    if m > 60:  # fractions grow with every step of the elimination
        raise Refusal(f"the {m} columns that are free are linearly dependent, and too many to be sorted out exactly")
    from flint import fmpq, fmpq_mat

    exact = fmpq_mat(n, m, [fmpq(*x.as_integer_ratio()) for x in U.ravel().tolist()])
    reduced, rank = (exact.transpose() * exact).rref()
    return [next(j for j in range(m) if reduced[i, j] != 0) for i in range(rank)]
