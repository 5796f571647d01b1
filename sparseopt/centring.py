"""Columns that lie far from zero, measured from where they lie.

    X w + 1 b = (X - 1 m') w + 1 (b + m'w)

With an intercept both sides are the same model, but products of columns are not: of columns that spread over s at a
distance m from zero they lose (m / s)^2 of their 16 digits. Curvatures of blocks, X'cX less its means, are noise from
m / s = 1e7 on, and choices of groups wrong from 1e6. Solvers and selectors work on the right-hand side.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from sparseopt.designs import Csc, Dense
from sparseopt.problem import Problem
from sparseopt.solution import Path, Solution, Start, given_point

__all__ = ["Centred", "centred"]

Array = NDArray[np.float64]
AnyPath = TypeVar("AnyPath", bound=Path)
FAR = 1e4  # times its spread: a column so far from zero is moved
ENDS = 8  # samples at both ends of a column that must agree before all of it is measured
AGREE = 20.0 / FAR  # of their size
CHUNK = 2**21  # numbers that are measured at once


class Centred(NamedTuple):
    """A problem, and the same one with columns that were moved towards zero by `shift`, (p,), or None if none was."""

    whole: Problem
    problem: Problem
    shift: Array | None

    def start(self, start: Start) -> Start:
        """A point of the whole problem as one of the other."""
        if start is None or self.shift is None:
            return start
        w, b = given_point(start)
        return w, np.asarray(b, dtype=np.float64) + self.shift @ self.whole.matrix(w)

    def intercept(self, features: NDArray[np.int64], values: Array, b: Array) -> Array:
        """The intercept of the whole problem, (K,), for nonzero coefficients (k, K) of some features."""
        return b if self.shift is None else b - self.shift[features] @ values

    def solution(self, found: Solution) -> Solution:
        """A solution of the other problem as one of the whole."""
        if self.shift is None:
            return found
        b = found.intercept - self.shift @ found.w
        b = b if np.ndim(b) else float(b)
        return replace(found, problem=replace(self.whole, penalty=found.problem.penalty), intercept=b)

    def path(self, found: AnyPath) -> AnyPath:
        """A path of the other problem as one of the whole."""
        if self.shift is None:
            return found
        moved = np.array([self.shift[features] @ values for features, values in found.rows])
        b = found.intercepts - moved.reshape(found.intercepts.shape)
        return replace(found, problem=replace(self.whole, penalty=found.problem.penalty), intercepts=b)


def centred(problem: Problem) -> Centred:
    """The problem with columns moved that lie far from zero, if there is an intercept to make up for it.

    Notes
    -----
    X is copied if a column is far; looking for one takes two numbers of every other column. A column of a sparse design
    is far only where it has no zeros, so that it stays as it is but for the values. Designs that are read in passes are
    left alone.

    Examples
    --------
    >>> seconds = 1.8e9 + np.arange(6.0)
    >>> problem = Problem.build(np.column_stack([seconds, seconds % 2]), seconds % 3)
    >>> found = centred(problem)
    >>> found.shift, found.problem.design.columns[0]
    (array([1.8e+09, 0.0e+00]), array([0., 1., 2., 3., 4., 5.]))
    """
    design = problem.design
    if not (problem.intercept and isinstance(design, (Dense, Csc))):
        return Centred(problem, problem, None)
    n, p = design.shape
    if isinstance(design, Dense):
        values, full = design.columns.reshape(-1), np.arange(p)
        starts = n * full
    else:
        values, full = design.data, np.flatnonzero(np.diff(design.indptr) == n)
        starts = design.indptr[full].astype(np.int64)
    far = _far(values, starts, n)
    if not far.size:
        return Centred(problem, problem, None)
    moved, shift = values.copy(), np.zeros(p)
    for at, start in zip(full[far].tolist(), starts[far].tolist(), strict=True):
        shift[at] = values[start]
        moved[start : start + n] -= values[start]
    near: Dense | Csc = Dense(moved.reshape(p, n)) if isinstance(design, Dense) else design._replace(data=moved)
    return Centred(problem, replace(problem, design=near), shift)


def _far(values: NDArray[np.floating], starts: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Which of the columns that start there are not constant, and lie more than FAR times their spread from zero."""
    with np.errstate(over="ignore", invalid="ignore"):  # values that are not finite are refused elsewhere
        first, last = values[starts], values[starts + (n - 1)]
        near = np.flatnonzero(np.abs(last - first) < AGREE * np.abs(first))
        ends = values[starts[near, None] + np.r_[: min(ENDS, n), max(n - ENDS, 0) : n]]
        near = near[np.ptp(ends, axis=1) < AGREE * np.abs(ends[:, 0])]
        far = [near[:0]]
        step = max(1, CHUNK // n)
        for part in (near[at : at + step] for at in range(0, len(near), step)):
            columns = values[starts[part, None] + np.arange(n)].astype(np.float64)
            spread = np.sqrt(((columns - columns[:, :1]) ** 2).mean(axis=1))
            far.append(part[(spread > 0.0) & (np.abs(columns[:, 0]) > FAR * spread)])
    return np.concatenate(far)
