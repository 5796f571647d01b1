"""Columns that lie far from zero, measured from where they lie.

    X w + 1 b = (X - 1 m') w + 1 (b + m'w)

With an intercept both sides are the same model, but products of columns are not: of columns that spread over s at a
distance m from zero they lose (m / s)^2 of their 16 digits. Curvatures of blocks, X'cX less its means, are noise from
m / s = 1e7 on, and choices of groups wrong from 1e6. Solvers and selectors work on the right-hand side.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparseopt.designs import Dense
from sparseopt.problem import Problem
from sparseopt.solution import Path, Solution

__all__ = ["Centred", "centred"]

Array = NDArray[np.float64]
AnyPath = TypeVar("AnyPath", bound=Path)
Start: TypeAlias = "Solution | tuple[ArrayLike, ArrayLike] | None"
FAR = 1e4  # times its spread: a column so far from zero is moved
ENDS = 8  # samples at both ends of a column that must agree before all of it is measured
AGREE = 20.0 / FAR  # of their size
CHUNK = 2**21  # numbers that are measured at once


class Centred(NamedTuple):
    """A problem, and the same one with columns that were moved towards zero by `shift`, (p,), or None if none was."""

    whole: Problem
    problem: Problem
    shift: Array | None

    def start(
        self, start: Solution | tuple[ArrayLike, ArrayLike] | None
    ) -> Solution | tuple[ArrayLike, ArrayLike] | None:
        """A point of the whole problem as one of the other."""
        if start is None or self.shift is None:
            return start
        w, b = (start.w, start.intercept) if isinstance(start, Solution) else start
        return w, np.asarray(b, dtype=np.float64) + self.shift @ self.whole.matrix(w)

    def intercept(self, features: NDArray[np.int64], values: Array, b: Array) -> Array:
        """The intercept of the whole problem, (K,), for nonzero coefficients (k, K) of some features."""
        return b if self.shift is None else b - self.shift[features] @ values

    def solution(self, found: Solution) -> Solution:
        """A solution of the other problem as one of the whole."""
        if self.shift is None:
            return found
        b = found.intercept - self.shift @ found.w
        return replace(found, problem=replace(self.whole, penalty=found.problem.penalty), intercept=b)

    def path(self, found: AnyPath) -> AnyPath:
        """A path of the other problem as one of the whole."""
        if self.shift is None:
            return found
        moved = np.array([self.shift[features] @ values for features, values in found.rows])
        b = found.intercepts - moved.reshape(found.intercepts.shape)
        return replace(found, problem=replace(self.whole, penalty=found.problem.penalty), intercepts=b)


def centred(problem: Problem) -> Centred:
    """The problem with columns of a dense design moved that lie far from zero, if there is an intercept to make up for.

    Notes
    -----
    X is copied if a column is far; looking for one takes two numbers of every other column. Sparse designs and those
    read in passes are left as they are.

    Examples
    --------
    >>> seconds = 1.8e9 + np.arange(6.0)
    >>> problem = Problem.build(np.column_stack([seconds, seconds % 2]), seconds % 3)
    >>> found = centred(problem)
    >>> found.shift, found.problem.design.columns[0]
    (array([1.8e+09, 0.0e+00]), array([0., 1., 2., 3., 4., 5.]))
    """
    design = problem.design
    if not (problem.intercept and isinstance(design, Dense)):
        return Centred(problem, problem, None)
    far = _far(design.columns)
    if not far.size:
        return Centred(problem, problem, None)
    columns = design.columns.copy()
    first = columns[far, 0]
    columns[far] -= first[:, None]
    shift = np.zeros(len(columns))
    shift[far] = first
    return Centred(problem, replace(problem, design=Dense(columns)), shift)


def _far(columns: NDArray[np.floating]) -> NDArray[np.int64]:
    """The columns that are not constant, and lie more than FAR times their spread from zero."""
    with np.errstate(over="ignore", invalid="ignore"):  # values that are not finite are refused elsewhere
        first, last = columns[:, 0], columns[:, -1]
        near = np.flatnonzero(np.abs(last - first) < AGREE * np.abs(first))
        ends = np.concatenate([columns[near, :ENDS], columns[near, -ENDS:]], axis=1)
        near = near[np.ptp(ends, axis=1) < AGREE * np.abs(ends[:, 0])]
        far = [near[:0]]
        step = max(1, CHUNK // columns.shape[1])
        for part in (near[at : at + step] for at in range(0, len(near), step)):
            values = columns[part].astype(np.float64)
            values -= columns[part, :1]
            spread = np.sqrt((values**2).mean(axis=1))
            far.append(part[(spread > 0.0) & (np.abs(first[part]) > FAR * spread)])
    return np.concatenate(far)
