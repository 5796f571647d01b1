"""Bounds of how the gradient of a loss moves with one group, the intercept and other free directions minimised out.

Groups are scaled by their weights, x_g = X_g / omega_g. From 0 to w in group i with ||w|| <= r the linear predictor of
sample j moves by at most m_j = ||x_j,i|| r, and by 2 max_j m_j with an intercept, whose best value moves by at most
max_j m_j. So f'(z) - f'(z_0) = c~ (z - z_0) with l <= c~ <= h: bounds l, h of f'' over that range, times the sample
weights. Without intercept

    g(w) - g(0) = x' diag(c~) x_i w       mu = lambda_min(x_i' diag(l) x_i)
                                          M  = ||x_j' diag(c) x_i|| + sqrt(||x_j' diag(e) x_j|| ||x_i' diag(e) x_i||)

with c = (l + h) / 2, e = (h - l) / 2. With intercept diag(c~) becomes B(c~) = diag(c~) - c~ c~' / sum(c~), increasing
in c~ as a quadratic form: mu = lambda_min(x_i' B(l) x_i), and since B(c~) 1 = 0 all columns can be centred by c, which
leaves M as above times (1 + sum(e) / sum(l)) in its second term. sqrt(||x_j' B(h) x_j|| ||x_i' B(h) x_i||) bounds M
too; the smaller counts. For squares c~ = s, any free columns are projected out, and mu, M are exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparseopt.designs import dense_columns
from sparseopt.optimality import free_columns
from sparseopt.problem import Problem

__all__ = ["Secants", "secants"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Secants:
    """The penalised groups of a problem at the best fit without them.

    Parameters
    ----------
    problem : Problem
        The problem.
    blocks : list of (n, d) arrays
        x_g, for squares sqrt(s) o x_g with the free columns projected out.
    pulls : (m,) array
        ||g_g(0)||, the gradient in the scaled groups.
    z : (n, K) array
        The best fit without penalised groups, offset included.
    """

    problem: Problem
    blocks: list[Array]
    pulls: Array
    z: Array

    @property
    def exact(self) -> bool:
        """Whether mu and M hold for every radius."""
        return self.problem.loss.is_quadratic

    def scale(self, i: int) -> float:
        """The curvature of group i at the best fit, the unit in which radii are tried."""
        if self.exact:
            return float(np.linalg.norm(self.blocks[i], 2) ** 2)
        c = self.problem.loss.s * self.problem.loss.sample_curvature(self.z)
        return float(np.linalg.norm(np.sqrt(c)[:, None] * self.blocks[i], 2) ** 2)

    def moduli(self, i: int, r: float) -> tuple[float, float]:
        """mu and M of group i over ||w_i|| <= r, the ridge not counted."""
        x = self.blocks[i]
        others = [block for j, block in enumerate(self.blocks) if j != i]
        if self.exact:
            mu = float(np.linalg.eigvalsh(x.T @ x)[0])
            return mu, max((float(np.linalg.norm(other.T @ x, 2)) for other in others), default=0.0)
        low, high = self._slopes(i, r)
        found = [self._of_output(x, others, low[:, k], high[:, k]) for k in range(low.shape[1])]
        return min(mu for mu, _ in found), max(M for _, M in found)

    def _slopes(self, i: int, r: float) -> tuple[Array, Array]:
        """l and h, (n, K), weights included."""
        reach = np.linalg.norm(self.blocks[i], axis=1)[:, None] * r
        if self.problem.intercept:
            seen = self.problem.loss.s > 0.0
            reach = reach + float(reach[seen].max())
        low, high = curvature_range(self.problem, self.z, reach * (1.0 + 1e-12) + 1e-14 * np.abs(self.z))
        s = self.problem.loss.s[:, None]
        return s * low, s * high

    def _of_output(self, x: Array, others: list[Array], low: Array, high: Array) -> tuple[float, float]:
        if not np.isfinite(high).all() or (self.problem.intercept and low.sum() <= 0.0):
            return 0.0, float("inf")
        mid, half, factor = 0.5 * (low + high), 0.5 * (high - low), 1.0
        if self.problem.intercept:
            mu = _least(_centred(x, low), low)
            coarse = [_largest(_centred(block, high), high) for block in (x, *others)]
            x, others = _centred(x, mid), [_centred(block, mid) for block in others]
            factor += float(half.sum() / low.sum())
        else:
            mu = _least(x, low)
            coarse = [_largest(block, high) for block in (x, *others)]
        spread = _largest(x, half)
        M = 0.0
        for top, other in zip(coarse[1:], others, strict=True):
            fine = float(np.linalg.norm(other.T @ (mid[:, None] * x), 2))
            fine += factor * float(np.sqrt(spread * _largest(other, half)))
            M = max(M, min(fine, float(np.sqrt(coarse[0] * top))))
        return mu, M


def secants(problem: Problem) -> Secants:
    """The penalised groups, scaled, and the best fit without them."""
    loss, groups = problem.loss, problem.groups
    counted = np.flatnonzero(problem.penalty.penalised)
    blocks = [dense_columns(problem.design, groups[int(g)]) / groups.weights[g] for g in counted]
    zero = np.zeros(loss.y.shape)
    if loss.is_quadratic:
        root = np.sqrt(loss.s)[:, None]
        blocks = [root * block for block in blocks]
        residual = -loss.derivative(zero) / np.where(root > 0.0, root, 1.0)
        U = free_columns(problem.at(1.0))  # the claim is about every lam; at lam = 0 all columns would be free
        if U is not None:
            Q, R = np.linalg.qr(root * U)
            Q = Q[:, np.abs(np.diag(R)) > 1e-10 * np.abs(np.diag(R)).max()]
            for _ in range(2):
                blocks = [block - Q @ (Q.T @ block) for block in blocks]
                residual = residual - Q @ (Q.T @ residual)
        pulls = np.array([float(np.linalg.norm(block.T @ residual)) for block in blocks])
        return Secants(problem, blocks, pulls, zero)
    z = zero + (loss.null_intercept() if problem.intercept else 0.0)
    A = loss.derivative(z)
    pulls = np.array([float(np.linalg.norm(block.T @ A)) for block in blocks])
    return Secants(problem, blocks, pulls, z if loss.offset is None else z + loss.offset)


def curvature_range(problem: Problem, z: Array, reach: Array) -> tuple[Array, Array]:
    """The least and largest slope of secants of f' between points within `reach` of z, (n, K) each."""
    name = problem.loss.name
    if name == "logistic":
        near, far = np.maximum(np.abs(z) - reach, 0.0), np.abs(z) + reach
        return _bell(far), _bell(near)
    if name == "poisson":
        with np.errstate(over="ignore", under="ignore"):
            return np.exp(z - reach), np.exp(z + reach)
    if name == "huber":
        r, delta = np.abs(z - problem.loss.y), problem.loss.domain()[1]
        return (r + reach <= delta).astype(float), (r - reach < delta).astype(float)
    return np.ones_like(z), np.ones_like(z)


def _bell(u: Array) -> Array:
    """p (1 - p) of the logistic function, u >= 0."""
    with np.errstate(under="ignore"):
        e = np.exp(-u)
    return e / (1.0 + e) ** 2


def _centred(x: Array, c: Array) -> Array:
    return x - (c @ x) / c.sum()


def _least(x: Array, c: Array) -> float:
    return float(np.linalg.eigvalsh(x.T @ (c[:, None] * x))[0])


def _largest(x: Array, c: Array) -> float:
    return max(float(np.linalg.eigvalsh(x.T @ (c[:, None] * x))[-1]), 0.0)
