"""The curvature of a problem by blocks of groups, and how much it bends over sets of s of them.

    L_s = max over |S| = s of lambda_max(H_SS),    mu_s = min over |S| = s of lambda_min(H_SS)

for H = x' diag(c) x with x_g = X_g / omega_g, free columns projected out, plus ridge / omega_g^2 on the diagonal. Sets
are enumerated where they are few; otherwise L_2 is bounded from above, mu_s from below.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, islice

import numpy as np
from numpy.typing import NDArray

from sparseopt.designs import dense_columns
from sparseopt.optimality import free_columns
from sparseopt.problem import Problem

__all__ = ["BlockGram"]

Array = NDArray[np.float64]

_SETS = 200_000  # enumerated at most
_WORK = 2e9  # multiplications of their eigenvalues at most


@dataclass(frozen=True, eq=False)
class BlockGram:
    """H by blocks, padded with zeros to the size d of the largest group.

    Parameters
    ----------
    blocks : (t, t, d, d) array
        H_ij.
    sizes : (t,) integers
        Sizes of the groups.
    ridge : (t,) array
        What the ridge adds to the eigenvalues of H_ii.
    curved : bool
        Whether H is the curvature itself (squares) and not only an upper bound of it, so that mu_s is the ridge alone.
    """

    blocks: Array
    sizes: NDArray[np.int64]
    ridge: Array
    curved: bool

    @classmethod
    def of(cls, problem: Problem) -> BlockGram:
        """H of a problem: squares, or the bound of the curvature of another loss."""
        groups, loss = problem.groups, problem.loss
        counted = np.flatnonzero(problem.penalty.penalised)
        c = loss.curvature_bound()
        if c is None:
            raise ValueError(f"loss {loss.name} has no bounded curvature: no smoothness constant exists.")
        root = np.sqrt(c)[:, None]
        X = (
            root
            * dense_columns(problem.design, groups.features(counted))
            / np.repeat(groups.weights[counted], groups.sizes[counted])
        )
        U = free_columns(problem)
        if U is not None:
            Q, weight, _ = np.linalg.svd(root * U, full_matrices=False)
            Q = Q[:, weight > 1e-12 * weight.max()]
            for _ in range(2):
                X = X - Q @ (Q.T @ X)
        sizes = groups.sizes[counted]
        t, d = len(sizes), int(sizes.max())
        padded = np.zeros((len(X), t * d))
        padded[:, np.flatnonzero(np.arange(d) < sizes[:, None])] = X
        H = (padded.T @ padded).reshape(t, d, t, d).transpose(0, 2, 1, 3)
        ridge = problem.penalty.ridge / groups.weights[counted] ** 2
        return cls(np.ascontiguousarray(H), sizes, ridge, loss.is_quadratic)

    @property
    def n_groups(self) -> int:
        """t."""
        return len(self.sizes)

    @cached_property
    def cross(self) -> Array:
        """||H_ij||, (t, t), 0 on the diagonal."""
        squared = np.einsum("ijab,ijac->ijbc", self.blocks, self.blocks)
        norms = np.sqrt(np.maximum(np.linalg.eigvalsh(squared)[..., -1], 0.0))
        np.fill_diagonal(norms, 0.0)
        return norms

    @cached_property
    def least(self) -> Array:
        """lambda_min(H_ii), (t,)."""
        return np.array([self._extreme(np.array([[i]]), False)[0] for i in range(self.n_groups)])

    @cached_property
    def most(self) -> Array:
        """lambda_max(H_ii), (t,)."""
        return np.array([self._extreme(np.array([[i]]), True)[0] for i in range(self.n_groups)])

    def largest(self, s: int) -> float:
        """L_s for s = 1 or 2, exact where the pairs can be enumerated, else an upper bound."""
        s = min(s, self.n_groups)
        if self._can_enumerate(s):
            return max(float(self._extreme(sets, True).max()) for sets in self._sets(s))
        return min(float((self.most + self._top(s)).max()), float(np.linalg.eigvalsh(self._whole())[-1]))

    def smallest(self, s: int) -> tuple[float, str]:
        """mu_s and how it was found: exactly, or as the better of two lower bounds."""
        if not self.curved:
            return float(self.ridge.min()), "ridge"
        if self._can_enumerate(s):
            return min(float(self._extreme(sets, False).min()) for sets in self._sets(s)), "enumeration"
        discs = float((self.least - self._top(s)).min())
        return (discs, "gershgorin") if discs > self._bottom else (self._bottom, "eigenvalue")

    @cached_property
    def _bottom(self) -> float:
        return float(np.linalg.eigvalsh(self._whole())[0])

    def _whole(self) -> Array:
        kept = np.flatnonzero(np.arange(self.blocks.shape[2]) < self.sizes[:, None])
        t, d = self.blocks.shape[0], self.blocks.shape[2]
        H = self.blocks.transpose(0, 2, 1, 3).reshape(t * d, t * d)[np.ix_(kept, kept)]
        return H + np.diag(np.repeat(self.ridge, self.sizes))

    def _top(self, s: int) -> Array:
        """Sum of the s - 1 largest ||H_ij|| of each row."""
        if s <= 1:
            return np.zeros(self.n_groups)
        return np.partition(self.cross, -(s - 1), axis=1)[:, -(s - 1) :].sum(axis=1)

    def _can_enumerate(self, s: int) -> bool:
        count = math.comb(self.n_groups, s)
        return count <= _SETS and count * (s * self.blocks.shape[2]) ** 3 <= _WORK

    def _sets(self, s: int) -> Iterator[NDArray[np.int64]]:
        sets = combinations(range(self.n_groups), s)
        while True:
            chunk = list(islice(sets, 5000))
            if not chunk:
                return
            yield np.array(chunk)

    def _extreme(self, sets: NDArray[np.int64], largest: bool) -> Array:
        """lambda_max or lambda_min of H_SS for the rows S of `sets`."""
        m, s = sets.shape
        d = self.blocks.shape[2]
        H = self.blocks[sets[:, :, None], sets[:, None, :]].transpose(0, 1, 3, 2, 4).reshape(m, s * d, s * d)
        outside = (np.arange(d) >= self.sizes[sets][:, :, None]).reshape(m, s * d)
        # Coordinates that only pad must not be the extreme ones.
        pad = 0.0 if largest else 2.0 * (s * d * float(self.blocks.max(initial=0.0)) + float(self.ridge.max()))
        diagonal = np.arange(s * d)
        H[:, diagonal, diagonal] += np.where(outside, pad, np.repeat(self.ridge[sets], d, axis=1))
        values = np.linalg.eigvalsh(H)
        return np.maximum(values[:, -1], 0.0) if largest else np.maximum(values[:, 0], 0.0)
