"""Every choice of k groups, one refit each: exact for any convex loss, for small numbers of choices.

The choices are the leaves of a tree that decides on group 0, 1, 2, ... in turn. A leaf is reached when k groups are in,
or when no more are left than may come in; its refit is the best of all its choices, and proves that.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from math import comb

import numpy as np
from numpy.typing import NDArray

from sparseopt.selection.branching import Found
from sparseopt.selection.exact_bounds import MAX_LEAVES, MAX_NUMBERS, Leaf, State, SubsetParts
from sparseopt.selection.fit import Fit, refit

__all__ = ["choices", "enumeration"]


def choices(parts: SubsetParts) -> int:
    """How many there are: G over k."""
    return comb(len(parts.ids), parts.k)


def enumeration(parts: SubsetParts, deadline: float) -> Found:
    """Try all choices; after `deadline` (time.perf_counter) the bound is that of the refit on all groups."""
    everything = refit(parts.problem, parts.ids)
    numbers = parts.problem.loss.y.size * choices(parts)
    keep = choices(parts) <= MAX_LEAVES and numbers <= MAX_NUMBERS
    best, upper, lowest = np.zeros(0, np.int64), np.inf, np.inf
    leaves: list[Leaf] = []
    last: Fit | None = None
    for state in _leaves(len(parts.ids), parts.k):
        if last is not None and time.perf_counter() > deadline:
            root = np.zeros(len(parts.ids), np.int8)
            A, bound = _proved(parts, everything, np.arange(len(parts.ids)), root)
            return Found(best, min(max(bound, 0.0), upper), [Leaf(root, A)], len(leaves))
        groups = parts.allowed(state)
        last = refit(parts.problem, parts.ids[groups], last)
        if last.value < upper:
            best, upper = groups, last.value
        A, bound = _proved(parts, last, groups, state)
        if keep:
            leaves.append(Leaf(state, A))
        lowest = min(lowest, bound)
    return Found(best, lowest, leaves if keep else None, choices(parts))


def _proved(parts: SubsetParts, fit: Fit, groups: NDArray[np.int64], state: State) -> tuple[NDArray[np.float64], float]:
    """Dual point and bound of a leaf, from its refit: a refit that did not end at its minimum proves less."""
    z = parts.problem.predictor(fit.W, fit.b)
    if parts.problem.penalty.ridge > 0.0:
        A = parts.feasible(fit.A, z)
        return A, parts.bound(A, state, np.full(len(state), np.inf))
    A = parts.feasible(fit.A, z, groups)
    return A, -parts.problem.loss.conjugate(A)


def _leaves(G: int, k: int) -> Iterator[State]:
    """The leaves of the tree, as states."""
    stack = [(np.zeros(G, np.int8), 0, 0)]
    while stack:
        state, at, m = stack.pop()
        if m == k or G - at <= k - m:
            yield state
            continue
        for side in (-1, 1):
            child = state.copy()
            child[at] = side
            stack.append((child, at + 1, m + (side > 0)))
