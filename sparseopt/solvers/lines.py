"""Line searches between the sweeps of block coordinate descent, in compiled code.

After a sweep that moved by s, F is searched along s, then along the whole move of the sweep before, as in conjugate
gradients. A search doubles its step while F falls and its slope is negative; then it tries the secant of the last two
slopes, the minimiser if F is quadratic. Near a saddle, where sweeps go the same small way many times, one search does
what a hundred of them would.

Rows and sigma are affine in the coefficients, and the norm of a block along a line needs three numbers, so a search
makes no product with X: it costs (n + features) K and some groups per trial, a sweep n features K.

Reference: Elad, Matalon, Zibulevsky (2007), "Coordinate and subspace optimization methods for linear least squares with
non-quadratic regularization", Appl. Comput. Harmon. Anal. 23.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from sparseopt.jit import lean_kernel, vectorized_kernel
from sparseopt.vectors import add, dot

__all__ = ["FAINT", "LOST", "Line", "combine", "keep", "leave", "search"]

FURTHEST = 2.0**40  # times the direction, at most
ROUNDING = 1e-14  # of the penalty: a rise of F that says nothing
FAINT = 1e-12  # of the squared rows: a way that short has lost the digits that its slope needs
LOST = 1e-28  # of the squared rows: a way that short is rounding, and a search along it would keep sweeps from an end


class Line(NamedTuple):
    """A point, or a direction: coefficients of some blocks one after the other, (features, K), rows and sigma."""

    W: Any
    rows: Any  # (K, n)
    sigma: Any  # (K,)


@lean_kernel
def keep(groups, order, W, rows, sigma, point):
    """Keep the present point."""
    # Loops, because a slice that is assigned to brings along the code that words its error.
    for k in range(len(rows)):
        point.sigma[k] = sigma[k]
        for i in range(rows.shape[1]):
            point.rows[k, i] = rows[k, i]
    at = 0
    for g in order:
        for j in range(groups.indptr[g], groups.indptr[g + 1]):
            for k in range(W.shape[1]):
                point.W[at, k] = W[groups.indices[j], k]
            at += 1


@lean_kernel
def leave(design, groups, model, order, W, rows, sigma, point, work):
    """Turn a point that was kept into the way from there to the present one; returns its square over that of rows.

    The difference of two rows is good to the rounding of rows. A slope needs more where the way is FAINT: there its
    rows are computed from its coefficients, which takes half as long as a sweep.
    """
    at = 0
    for g in order:
        for j in range(groups.indptr[g], groups.indptr[g + 1]):
            for k in range(W.shape[1]):
                point.W[at, k] = W[groups.indices[j], k] - point.W[at, k]
            at += 1
    way = 0.0
    size = 0.0
    for k in range(len(rows)):
        point.sigma[k] = sigma[k] - point.sigma[k]
        for i in range(rows.shape[1]):
            point.rows[k, i] = rows[k, i] - point.rows[k, i]
        way += dot(point.rows[k], point.rows[k])
        size += dot(rows[k], rows[k])
    share = way / size if size > 0.0 else 0.0
    if share > FAINT or share <= LOST:
        return share
    for k in range(len(rows)):
        point.sigma[k] = 0.0
        for i in range(rows.shape[1]):
            point.rows[k, i] = 0.0
    at = 0
    for g in order:
        lo, hi = groups.indptr[g], groups.indptr[g + 1]
        moves = False
        for j in range(hi - lo):
            for k in range(W.shape[1]):
                step = point.W[at, k]
                moves = moves or step != 0.0
                work.columns[j, k] = step
                if model.total > 0.0:
                    point.sigma[k] += model.means[groups.indices[lo + j]] * step
            at += 1
        if moves:
            design.block_add(groups.indices, lo, hi, work.columns, model.c, point.rows)
    return share


@lean_kernel
def combine(s, line, t, other):
    """line = s line + t other."""
    for k in range(len(line.rows)):
        line.sigma[k] = s * line.sigma[k] + t * other.sigma[k]
        for i in range(line.rows.shape[1]):
            line.rows[k, i] = s * line.rows[k, i] + t * other.rows[k, i]
    for j in range(line.W.shape[0]):
        for k in range(line.W.shape[1]):
            line.W[j, k] = s * line.W[j, k] + t * other.W[j, k]


@lean_kernel
def search(shape, groups, terms, model, order, W, rows, sigma, total, line, norms):
    """Move to the lowest point found on a line; returns how many times the direction it lies away, perhaps negative.

    `norms` is scratch, (3, groups of the set). A line on which a penalised group would leave zero is not followed.
    """
    if not _norms_along(groups, order, W, line, norms):
        return 0.0
    slope = 0.0
    curvature = 0.0
    for k in range(len(rows)):
        b, c = _square_along(rows[k], sigma[k], line.rows[k], line.sigma[k], model.full, model.reciprocal)
        slope += b
        curvature += c
    rest = total
    for i in range(len(order)):
        if groups.omega[order[i]] > 0.0:
            rest -= shape.cost(np.sqrt(norms[0, i]), groups.omega[order[i]])
    rest = max(rest, 0.0)
    sign = 1.0
    low = 0.0
    value, low_slope = _fall(shape, groups, terms, order, W, line, norms, rest, slope, curvature, low, sign)
    if not low_slope < 0.0:
        sign = -1.0
        value, low_slope = _fall(shape, groups, terms, order, W, line, norms, rest, -slope, curvature, low, sign)
        if not low_slope < 0.0:
            return 0.0
    slope *= sign
    slack = ROUNDING * abs(value)
    high = 1.0
    high_slope = 0.0
    while high < FURTHEST:
        there, high_slope = _fall(shape, groups, terms, order, W, line, norms, rest, slope, curvature, high, sign)
        if not (high_slope < 0.0 and there <= value + slack):
            break
        low, low_slope, value = high, high_slope, there
        high *= 2.0
    if high_slope > 0.0:
        middle = low + (high - low) * low_slope / (low_slope - high_slope)
        there, _ = _fall(shape, groups, terms, order, W, line, norms, rest, slope, curvature, middle, sign)
        if there <= value + slack:
            low = middle
    if low > 0.0:
        low *= sign
        for k in range(len(rows)):
            sigma[k] += low * line.sigma[k]
            add(line.rows[k], low, rows[k])
        at = 0
        for g in order:
            for j in range(groups.indptr[g], groups.indptr[g + 1]):
                for k in range(W.shape[1]):
                    W[groups.indices[j], k] += low * line.W[at, k]
                at += 1
    return low


@lean_kernel
def _norms_along(groups, order, W, line, norms):
    """Fill ||w_g||^2, <w_g, d_g> and ||d_g||^2; whether no penalised group leaves zero."""
    at = 0
    for i in range(len(order)):
        g = order[i]
        a = 0.0
        b = 0.0
        c = 0.0
        for j in range(groups.indptr[g], groups.indptr[g + 1]):
            for k in range(W.shape[1]):
                w, d = W[groups.indices[j], k], line.W[at, k]
                a += w * w
                b += w * d
                c += d * d
            at += 1
        norms[0, i], norms[1, i], norms[2, i] = a, b, c
        if a == 0.0 and c > 0.0 and groups.omega[g] > 0.0:
            return False
    return True


@vectorized_kernel
def _square_along(row, shift, step, turn, full, inverse):
    """Slope and curvature of sum of r^2 / (2 c) along a line, for one output."""
    slope = 0.0
    curvature = 0.0
    for i in range(row.shape[0]):
        d = step[i] - turn * full[i]
        slope += (row[i] - shift * full[i]) * d * inverse[i]
        curvature += d * d * inverse[i]
    return slope, curvature


@lean_kernel
def _fall(shape, groups, terms, order, W, line, norms, rest, slope, curvature, t, sign):
    """The model of F at W + t sign d up to a constant, and its slope in t from the right."""
    value = t * (slope + 0.5 * t * curvature)
    slope += t * curvature
    parts = 0.0
    costs = 0.0
    for i in range(len(order)):
        omega = groups.omega[order[i]]
        if omega > 0.0 and norms[0, i] > 0.0:
            square, along = _square_at(norms, i, t, sign)
            u = np.sqrt(square)
            parts += shape.part(u, omega)
            costs += shape.cost(u, omega)
            value += 0.5 * terms.ridge * square
            slope += terms.ridge * along
    if terms.block > 0.0:
        value += terms.block * shape.whole(rest + parts)
        for i in range(len(order)):
            omega = groups.omega[order[i]]
            if omega > 0.0 and norms[0, i] > 0.0:
                square, along = _square_at(norms, i, t, sign)
                u = np.sqrt(square)
                if u > 0.0 and along != 0.0:
                    others = max(rest + costs - shape.cost(u, omega), 0.0)
                    slope += terms.block * shape.tangent(u, omega, others) * along / u
    if terms.entry > 0.0:
        at = 0
        for g in order:
            for j in range(groups.indptr[g], groups.indptr[g + 1]):
                if groups.omega[g] > 0.0:
                    for k in range(W.shape[1]):
                        d = sign * line.W[at, k]
                        w = W[groups.indices[j], k] + t * d
                        value += terms.entry * abs(w)
                        slope += terms.entry * (d if w > 0.0 else -d if w < 0.0 else abs(d))
                at += 1
    return value, slope


@lean_kernel
def _square_at(norms, i, t, sign):
    """||w_g + t sign d_g||^2, and half its derivative."""
    along = sign * norms[1, i] + t * norms[2, i]
    return max(norms[0, i] + t * (sign * norms[1, i] + along), 0.0), along
