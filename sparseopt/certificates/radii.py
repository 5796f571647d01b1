"""Why coefficients outside given radii need not be assumed away, in the bound of a choice without a ridge.

    level_radii    squares, independent columns Z: with H = Z'SZ and the minimiser w^, every w with F(w) <= level obeys

                       ||w_g - w^_g||^2 <= 2 (level - min F) lambda_max([H^-1]_gg)

    orthogonal     any loss: dual points made orthogonal to all columns that their leaf allows, so that no term with
                   a radius is left; done where it moves them by rounding only, and by the small probabilities of
                   separable samples, which become 0

Dependent columns are allowed in the second case if exact arithmetic confirms the dependence: coefficients that are
small fractions, as of one-hot columns beside an intercept. Columns that are dependent up to rounding are, exactly,
independent, and let coefficients of 1e16 fit the rounding; then nothing is claimed.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import qr

from sparseopt.cardinality import AtMost
from sparseopt.certificates.duals import orthogonal_to, rounded_down
from sparseopt.designs import dense_columns
from sparseopt.problem import Problem

__all__ = ["level_radii", "orthogonal"]

Array = NDArray[np.float64]

_LIMIT = 60.0  # seconds of the verifier
_WIDE = 800  # columns whose Gram matrix it inverts in 12 s
_COND = 1e-8  # of columns of length one, below which they count as dependent
_MOVE = 1e-6  # of the length of a dual point
_CUTS = (1e-12, 1e-10, 1e-8)  # probabilities and rates that count as 0
_SORTED = 60  # dependent columns that the verifier sorts out


def level_radii(problem: Problem, level: float) -> Array | None:
    """A bound of ||w_g|| over all w with F(w) <= level, (n_groups,), of squares without ridge; None where unknown.

    Examples
    --------
    >>> from sparseopt import AtMost, Groups
    >>> from sparseopt.designs import as_design
    >>> from sparseopt.losses import Squares
    >>> loss = Squares.of([2.0, 0.0], weights=[1.0, 1.0])
    >>> level_radii(Problem(as_design(np.eye(2)), loss, AtMost(Groups.equal(2), 1), False), 0.5).round(3)
    array([3., 1.])
    """
    loss, groups = problem.loss, problem.groups
    if loss.name != "squares" or problem.penalty.ridge > 0.0 or groups.n_features >= min(_WIDE, loss.n_samples + 1):
        return None
    root = np.sqrt(loss.s)[:, None]
    Z = root * _columns(problem, np.arange(len(groups)))
    lengths = np.linalg.norm(Z, axis=0)
    if len(Z) < Z.shape[1] or not lengths.all():
        return None
    y = root * (loss.y if loss.offset is None else loss.y - loss.offset)
    Q, s, Vt = np.linalg.svd(Z / lengths, full_matrices=False)
    if s[-1] <= _COND * s[0]:
        return None
    fit = Q.T @ y
    least = 0.5 * float(((y - Q @ fit) ** 2).sum())
    rounding = 1e-14 * (abs(level) + np.sqrt(max(level, 0.0)) * float(np.linalg.norm(y)))
    reach = np.sqrt(2.0 * (max(level - least, 0.0) + rounding))
    half = (Vt.T / s) / lengths[:, None]  # H^-1 = half half'
    out = np.empty(len(groups))
    for g, start in enumerate(groups.indptr[:-1] + int(problem.intercept)):
        own = half[start : start + groups.sizes[g]]
        out[g] = np.linalg.norm(own @ fit) + reach * np.linalg.norm(own, 2)
    return out * (1.0 + 1e-7)


def orthogonal(problem: Problem, points: Array, states: NDArray[np.int64]) -> tuple[Array, Array] | str:
    """Bounds of leaves that need no radius, (m,), and the dual points, (m, n, K); or why there are none.

    `states` (m, n_groups) hold 1 in, -1 out, 0 open, as in `sparseopt.certificates.subset`.
    """
    penalty = problem.penalty
    assert isinstance(penalty, AtMost)
    states = np.where(penalty.penalised, states, 1)  # always in
    inside = np.count_nonzero((states > 0) & penalty.penalised, axis=1)
    allowed = np.where((inside == penalty.k)[:, None], states > 0, states >= 0)
    if _seconds(problem, allowed[inside <= penalty.k]) > _LIMIT:
        return f"{len(points)} dual points are too many to be made orthogonal to the groups that their leaves allow"
    bounds, kept = np.full(len(points), np.inf), points.copy()
    for m in np.flatnonzero(inside <= penalty.k):
        if points[m].any():
            found = _aligned(problem, points[m], _columns(problem, np.flatnonzero(allowed[m])))
            if isinstance(found, str):
                return found
            kept[m] = found
        bounds[m] = rounded_down(problem, kept[m], 0.0)
    return bounds, kept


def _aligned(problem: Problem, A: Array, U: Array) -> Array | str:
    """A point near A that can be made orthogonal to the columns U exactly; or why there is none."""
    loss = problem.loss
    basis = _spanning(U)
    if basis is None:
        return "columns of the groups that a leaf allows are linearly dependent"
    low, high = (np.broadcast_to(end, A.shape) for end in loss.domain())
    touching = (low == 0.0) | (high == 0.0)
    bound = 1e-12 * np.linalg.norm(U, axis=0)[:, None] * np.linalg.norm(A)
    for cut in _CUTS:
        point = orthogonal_to(problem, A, basis, cut)
        v = point / np.where(loss.s > 0.0, loss.s, 1.0)[:, None]
        near = np.linalg.norm(point - A) <= _MOVE * np.linalg.norm(A) and (np.abs(U.T @ point) <= bound).all()
        inside = (v >= low).all() and (v <= high).all() and not ((v != 0.0) & touching & (np.abs(v) < 0.1 * cut)).any()
        if near and inside and all(_kept(basis, column) for column in v.T):
            return point
    return "a dual point is not orthogonal to the groups that its leaf allows"


def _kept(U: Array, v: Array) -> bool:
    """Whether columns stay independent, or are exactly dependent, without the samples where v = 0."""
    return bool(v.all()) or _spanning(U[v != 0.0]) is not None


def _columns(problem: Problem, chosen: NDArray[np.int64]) -> Array:
    """The constant column, if b is free, and those of some groups, on the samples that count."""
    X = dense_columns(problem.design, problem.groups.features(chosen))
    return (np.column_stack([np.ones(len(X)), X]) if problem.intercept else X) * (problem.loss.s > 0.0)[:, None]


def _seconds(problem: Problem, allowed: NDArray[np.bool_]) -> float:
    """About what the verifier takes: one system in balls for each leaf."""
    n, K = problem.loss.y.shape
    L = K - int(problem.loss.sums_to_zero)
    m = int(problem.intercept) + allowed @ problem.groups.sizes.astype(np.float64)
    return float((5e-8 * (L * m) ** 3 + L * L * n * m * (1e-8 * m + 2e-6) + 5e-5 * n * K).sum())


def _spanning(U: Array) -> Array | None:
    """Independent ones of the columns U that span all of them exactly; None if that is not certain."""
    lengths = np.linalg.norm(U, axis=0)
    U, lengths = U[:, lengths > 0.0], lengths[lengths > 0.0]
    n, m = U.shape
    s = np.linalg.svd(U / lengths, compute_uv=False)
    if m <= n and s.min(initial=1.0) > _COND * s.max(initial=1.0):
        return U
    if m > _SORTED:
        return None
    R, order = qr(U / lengths, mode="r", pivoting=True)
    rank = int(np.count_nonzero(np.abs(np.diag(R)) > _COND * abs(R[0, 0])))
    basis = U[:, np.sort(order[:rank])]
    for j in order[rank:]:
        share = [Fraction(x).limit_denominator(1000) for x in np.linalg.lstsq(basis, U[:, j], rcond=None)[0].tolist()]
        used = [k for k, x in enumerate(share) if x]
        rows = zip(U[:, j].tolist(), basis[:, used].tolist(), strict=True)
        if any(Fraction(x) != sum(share[k] * Fraction(u) for k, u in zip(used, row, strict=True)) for x, row in rows):
            return None
    return basis
