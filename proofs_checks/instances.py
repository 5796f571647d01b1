"""The instances that checks try: least squares with groups, and minimisers in the plane that no solver takes part in.

    squares(X, y)     1/2 ||y - Xw||^2 + Omega(w), no intercept, groups of equal size, weights 1
    lowest(F, box)    min of F(a, b) over 0 <= a, b <= box, by grids that zoom in on the best point, axes included
    composite(q, a, b) q^-1(q(a) + q(b)), the penalty of problem (1) for two groups, from value and inverse alone

`INSTANCE_H` is the least-squares problem with two features in which the group that is alone at medium lam is not the
one with the largest gradient at zero; in `THREE_ATOMS` greedy choices of two features go wrong. `broken` looks for a
plane instance on which Theorem 1.1 fails for a given q.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations, pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq

from sparseopt import L2, Composite, Path, Penalty, Problem, Solution, path, solve
from sparseopt.convex import as_cvxpy
from sparseopt.proofs_checks.scalar_facts import decrease, subadditivity_defect
from sparseopt.solution import ConvergenceWarning

__all__ = [
    "INSTANCE_H",
    "THREE_ATOMS",
    "Broken",
    "breakpoint_below",
    "broken",
    "composite",
    "convex_optimum",
    "design",
    "failing_hypothesis",
    "gram",
    "lowest",
    "one_group",
    "penalised",
    "plane_optimum",
    "plane_squares",
    "random_squares",
    "restricted",
    "separable",
    "solved",
    "squares",
    "traced",
    "with_q",
]

Array = NDArray[np.float64]
Broken = tuple[float, str]  # by how much, and where

# X'X = [[1, .45], [.45, .25]] and X'y = (1, .95).
_SECOND = float(np.sqrt(0.25 - 0.45**2))
THREE_ATOMS = (np.column_stack([np.eye(3)[:, :2], np.full(3, 1.0 / np.sqrt(3.0))]), np.array([1.0, 1.0, 0.0]))
INSTANCE_H = (np.array([[1.0, 0.45], [0.0, _SECOND]]), np.array([1.0, 0.5 / _SECOND]))


def squares(X: ArrayLike, y: ArrayLike, size: int = 1, lam: float = 1.0) -> Problem:
    """The group lasso 1/2 ||y - Xw||^2 + lam sum_g ||w_g|| for groups of `size` columns."""
    X = np.asarray(X, dtype=np.float64)
    ones = np.ones(len(X))
    return Problem.build(X, y, groups=size, lam=lam, intercept=False, sample_weight=ones, weights="ones")


def solved(problem: Problem, start: tuple[ArrayLike, ArrayLike] | None = None, tol: float = 1e-13) -> Solution:
    """`solve`, silent where rounding ends it before `tol`: a check measures what was reached."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return solve(problem, start, tol=tol)


def traced(problem: Problem, lams: ArrayLike | None = None, **options: Any) -> Path:
    """`path`, silent in the same way."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return path(problem, lams, progress=False, **options)


def with_q(problem: Problem, q: Any, lam: float | None = None) -> Problem:
    """Problem (1) with this q, on the data and groups of a problem."""
    old = problem.penalty
    return replace(problem, penalty=Composite(q, old.groups, old.lam if lam is None else lam, 0.0, old.ridge))


def separable(problem: Problem, q: Any, lam: float | None = None) -> Problem:
    """The same with the separable penalty lam sum_g q(||w_g||)."""
    old = problem.penalty
    return replace(problem, penalty=Penalty(q, old.groups, old.lam if lam is None else lam, 0.0, old.ridge))


def penalised(problem: Problem, free: ArrayLike, q: Any = None, lam: float = 1.0) -> Problem:
    """Problem (1), or the group lasso if q is None, with the groups `free` not penalised."""
    weights = problem.groups.weights.copy()
    weights[np.asarray(free, dtype=np.int64)] = 0.0
    groups = replace(problem.groups, weights=weights)
    return replace(problem, penalty=Penalty(L2(), groups, lam) if q is None else Composite(q, groups, lam))


def design(rng: np.random.Generator, n: int, p: int, correlation: float = 0.0) -> Array:
    """Gaussian columns of length about 1 with this correlation between any two."""
    common = rng.normal(size=(n, 1))
    return (np.sqrt(1.0 - correlation) * rng.normal(size=(n, p)) + np.sqrt(correlation) * common) / np.sqrt(n)


def random_squares(rng: np.random.Generator, correlations: tuple[float, ...] = (0.0, 0.5, 0.9)) -> Problem:
    """A group lasso with 4 to 8 groups of 1 to 3 features, more samples than features, two or three groups planted."""
    size, n_groups = int(rng.integers(1, 4)), int(rng.integers(4, 9))
    p = size * n_groups
    X = design(rng, int(rng.integers(p + 4, 3 * p + 8)), p, float(rng.choice(correlations)))
    w = np.zeros(p)
    w[: size * int(rng.integers(2, 4))] = 1.0
    y = X @ (w * rng.normal(size=p)) + 0.1 * rng.normal(size=len(X))
    return squares(X, y, size)


def gram(problem: Problem) -> Array:
    """X'X."""
    X = problem.design.matvec(np.eye(problem.groups.n_features))
    return X.T @ X


def convex_optimum(problem: Problem) -> float:
    """The optimum of a convex problem by CVXPY, tighter than its default."""
    twin = as_cvxpy(problem)
    twin.solve(tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12)
    return float(twin.problem.value)


def composite(q: Any, a: ArrayLike, b: ArrayLike) -> Any:
    """q^-1(q(a) + q(b)), elementwise."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        return q.inverse(q.value(np.asarray(a, dtype=np.float64)) + q.value(np.asarray(b, dtype=np.float64)))


def lowest(F: Callable[[Any, Any], Any], box: float, points: int = 121) -> tuple[float, float, float]:
    """min F(a, b) over 0 <= a, b <= box, and where; F is elementwise."""
    a = b = np.linspace(0.0, box, points)
    best = (np.inf, 0.0, 0.0)
    width = box
    for _ in range(9):
        values = np.where(np.isnan(found := F(a[:, None], b[None, :])), np.inf, found)
        i, j = np.unravel_index(int(np.argmin(values)), values.shape)
        if values[i, j] < best[0]:
            best = (float(values[i, j]), float(a[i]), float(b[j]))
        width *= 0.08
        a, b = (np.clip(np.linspace(x - width, x + width, points), 0.0, box) for x in best[1:])
    return best


def one_group(H: ArrayLike, h: ArrayLike, lam: float) -> Array:
    """argmin b'Hb / 2 - h'b + lam ||b||: r = ||b|| solves sum_k u_k^2 / (d_k r + lam)^2 = 1 in the eigenbasis of H."""
    d, V = np.linalg.eigh(np.asarray(H, dtype=np.float64))
    u = V.T @ np.asarray(h, dtype=np.float64)
    if float(u @ u) <= lam**2:
        return np.zeros(len(d))

    def secular(r: float) -> float:
        return float(((u / (d * r + lam)) ** 2).sum()) - 1.0

    top = float(np.linalg.norm(u)) / float(d[0])
    r = float(brentq(secular, 0.0, top, xtol=1e-16, rtol=1e-15))
    out: Array = V @ (u * r / (d * r + lam))
    return out


def breakpoint_below(
    H: Array, h: Array, blocks: list[NDArray[np.int64]], i: int, tau: float, points: int = 200
) -> float:
    """The largest lam < tau at which a group other than i enters: where ||h_j - H_ji b(lam)|| reaches lam; else 0."""

    def room(lam: float) -> float:
        b = one_group(H[np.ix_(blocks[i], blocks[i])], h[blocks[i]], lam)
        left = h - H[:, blocks[i]] @ b
        return lam - max(float(np.linalg.norm(left[g])) for j, g in enumerate(blocks) if j != i)

    grid = tau * np.linspace(1.0 - 1e-9, 1e-6, points)
    for high, low in pairwise(grid):
        if room(float(low)) < 0.0:
            return float(brentq(room, float(low), float(high), xtol=1e-15)) if room(float(high)) > 0.0 else float(high)
    return 0.0


def restricted(problem: Problem, s: int) -> tuple[float, float]:
    """mu_s and L_s of least squares: the extreme eigenvalues of X'X over all sets of s groups, by enumeration."""
    H, blocks = gram(problem), [np.asarray(problem.groups[g]) for g in range(len(problem.groups))]
    chosen = np.array([np.concatenate(some) for some in combinations(blocks, min(s, len(blocks)))])
    e = np.linalg.eigvalsh(H[chosen[:, :, None], chosen[:, None, :]])
    return float(e[:, 0].min()), float(e[:, -1].max())


def plane_optimum(problem: Problem, q: Any, kind: str = "composite") -> float:
    """The optimum of problem (1), or of the "separable" penalty, in two features: all four quadrants, by grids."""
    H, h, null = gram(problem), -problem.gradient(np.zeros(2))[0], problem.loss.value(problem.predictor(np.zeros(2)))
    box = 2.0 * float(np.sqrt(2.0 * null / np.linalg.eigvalsh(H)[0]))  # outside, the loss is above that at 0

    def quadrant(s: float, t: float) -> float:
        def F(a: Any, b: Any) -> Any:
            fit = 0.5 * (H[0, 0] * a * a + H[1, 1] * b * b) + s * t * H[0, 1] * a * b - s * h[0] * a - t * h[1] * b
            cost = composite(q, a, b) if kind == "composite" else q.value(a) + q.value(b)
            return null + fit + problem.lam * cost

        return lowest(F, box)[0]

    return min(quadrant(s, t) for s in (1.0, -1.0) for t in (1.0, -1.0))


def plane_squares(rng: np.random.Generator) -> Problem:
    """Least squares in two correlated features, with a lam between next to nothing and above the threshold."""
    X = design(rng, 12, 2, float(rng.choice([0.0, 0.5, 0.9])))
    y = X @ (rng.normal(size=2) * rng.choice([0.3, 1.0, 3.0])) + 0.1 * rng.normal(size=12)
    return squares(X, y, lam=float(rng.uniform(0.05, 1.1) * np.abs(X.T @ y).max()))


def broken(q: Any) -> Broken | None:
    """Where problem (1) on 1/2 ||w - c||^2 goes below a group lasso with one active group, relatively; None if nowhere.

    c = s (2, 1), s (1, 1) and s (3, 1/2) for scales s over six orders of magnitude, lam such that one group at most is
    active: Theorem 1.1 would make the one-group minimiser that of problem (1).
    """
    worst: Broken = (0.0, "")
    for scale in np.geomspace(1e-3, 1e3, 25):
        for first, second, lam in ((2.0, 1.0, 1.2), (1.0, 1.0, 1.1), (3.0, 0.5, 1.0)):
            c, strength = scale * np.array([first, second]), scale * lam
            alone = max(c[0] - strength, 0.0)
            least = 0.5 * ((c[0] - alone) ** 2 + c[1] ** 2) + strength * alone

            def F(a: Any, b: Any, c: Any = c, strength: float = strength) -> Any:
                return 0.5 * ((a - c[0]) ** 2 + (b - c[1]) ** 2) + strength * composite(q, a, b)

            value, a, b = lowest(F, 1.1 * float(c[0]), 41)
            below = float((least - value) / least)
            if below > worst[0]:
                where = f"F = ||w - ({c[0]:.4g}, {c[1]:.4g})||^2 / 2 + {strength:.4g} R_q(w) is {value:.8g} at "
                worst = below, f"{where}({a:.6g}, {b:.6g}), below {least:.8g}, the minimum of the group lasso"
    return worst if worst[0] > 1e-8 else None


def failing_hypothesis(q: Any) -> str:
    """Which hypothesis of Theorem 1.1 fails for q, in words; nothing if all hold as far as a grid can tell."""
    zero = float(np.asarray(q.value(np.zeros(1)))[0])
    if zero != 0.0:
        return f"q(0) = {zero:g} is not 0"
    fall, at = decrease(q)
    # A q that its class calls increasing may reach its ceiling in floating point.
    if fall > 0.0 or (fall >= 0.0 and not q.increasing()):
        return f"q is not strictly increasing, near a = {at:.4g}"
    excess, a, b = subadditivity_defect(q)
    if excess > 1e-10:
        return f"q is not subadditive: q(a + b) > q(a) + q(b) at a = {a:.4g}, b = {b:.4g}"
    return ""
