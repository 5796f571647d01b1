"""Kernels of `Sweep`: a group enters or leaves a swept Gram matrix, and the best exchange of two groups.

With S the chosen features, kept are, for all features of the pool,

    P = (X_S'DX_S + ridge)^-1,    A = P X_S'DX,    w = P X_S'Dy
    c = X'D(y - X_S w),           S_j = X_j'DX_j + ridge - X_j'DX_S A_j

A change of one group of d features is a change of rank d in each, |S| x p x d multiplications. Exchanges need no more:
with L L' = P_ii, E = L^-1 A_i and e = L^-1 w_i are what i brings to every other group, see `sparseopt.selection.span`.

Most exchanges are ruled out by a bound. As E_j'E_j >= v v' / |e|^2 for v = E_j'e, in the order of matrices,

    (c_j + v)' (S_j + E_j'E_j)^-1 (c_j + v)  <=  |a|^2 - (a'b)^2 / (|e|^2 + |b|^2),   a = R^-1 (c_j + v),  b = R^-1 v

with R R' = S_j, which is the same for all i: equality for groups of one feature, and close to it where one direction of
group i does most of the work. Several outputs add up, each with its own e. What the bound leaves is evaluated exactly.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparseopt.jit import kernel, vectorized_kernel

__all__ = ["Table", "begin", "best_exchange", "enter_group", "factor", "leave_group", "member_losses"]

_KEPT = 1e-12  # what is left of a column whose square norm lost twelve digits is rounding
_INFLATED = 1e7  # the largest factor by which other members may inflate the variance of a coefficient


class Table(NamedTuple):
    """The arrays of a `Sweep`; positions number the groups of the pool, rows the features that have entered."""

    starts: NDArray[np.int64]  # features of a position, from starts[g] to starts[g + 1]
    offsets: NDArray[np.int64]  # of its block in `blocks`
    scales: NDArray[np.float64]  # diagonal of X'DX + ridge
    units: NDArray[np.float64]  # the same without what free directions explain: the diagonal of S before any member
    blocks: NDArray[np.float64]  # S, of which the lower triangles count
    pulls: NDArray[np.float64]  # c, (K, p)
    swept: NDArray[np.float64]  # A
    coefs: NDArray[np.float64]  # w
    spread: NDArray[np.float64]  # P
    columns: NDArray[np.int64]  # the feature of each row
    members: NDArray[np.int64]  # positions
    firsts: NDArray[np.int64]  # the first row of each member, and the number of rows
    inside: NDArray[np.int64]  # 1 for members, per position
    count: NDArray[np.int64]  # (1,) how many members
    roots: NDArray[np.float64]  # R of every block, with the reciprocal of its diagonal; 0 where a direction is dropped
    sound: NDArray[np.int64]  # 1 where nothing is dropped, per position
    reach: NDArray[np.float64]  # |R^-1 c|, per position
    stretch: NDArray[np.float64]  # |R^-1|^2, per position, the sum of its squared entries


@vectorized_kernel
def _add(y, sign, a, X):
    """y += sign sum_i a_i X_i, several rows at a time: y is read and written less often."""
    i, n = 0, len(a)
    while i + 3 <= n:
        p, q, r = sign * a[i], sign * a[i + 1], sign * a[i + 2]
        P, Q, R = X[i], X[i + 1], X[i + 2]
        for j in range(len(y)):
            y[j] += p * P[j] + q * Q[j] + r * R[j]
        i += 3
    if i + 2 <= n:
        p, q = sign * a[i], sign * a[i + 1]
        P, Q = X[i], X[i + 1]
        for j in range(len(y)):
            y[j] += p * P[j] + q * Q[j]
        i += 2
    if i < n:
        p, P = sign * a[i], X[i]
        for j in range(len(y)):
            y[j] += p * P[j]


@kernel
def _cholesky(M, d, scales, lo):
    """The factor in place, reciprocals on its diagonal, 0 for dependent directions; whether there are none."""
    full = True
    for j in range(d):
        pivot = M[j, j]
        for m in range(j):
            pivot -= M[j, m] * M[j, m]
        if pivot > _KEPT * scales[lo + j]:
            M[j, j] = 1.0 / np.sqrt(pivot)
        else:
            M[j, j] = 0.0
            full = False
        for i in range(j + 1, d):
            value = M[i, j]
            for m in range(j):
                value -= M[i, m] * M[j, m]
            M[i, j] = value * M[j, j]
    return full


@kernel
def begin(table, free, ridge):
    """Make X_g'DX_g in `blocks` the S_g of no members: with the ridge, and without the rows Q'D^(1/2) X in `free`."""
    _shift(table, free, np.zeros((free.shape[0], table.pulls.shape[0])), -1.0)
    for g in range(len(table.starts) - 1):
        lo, d = table.starts[g], table.starts[g + 1] - table.starts[g]
        for i in range(d):
            table.blocks[table.offsets[g] + i * d + i] += ridge
            table.units[lo + i] = table.blocks[table.offsets[g] + i * d + i]


@kernel
def factor(table, gains):
    """`roots` and `sound` of all groups outside, and what each would bring; -inf for members."""
    starts, blocks, roots = table.starts, table.blocks, table.roots
    n_outputs = table.pulls.shape[0]
    widest = 0
    for g in range(len(starts) - 1):
        widest = max(widest, starts[g + 1] - starts[g])
    v = np.empty(widest)
    for g in range(len(starts) - 1):
        gains[g] = -np.inf
        if table.inside[g]:
            continue
        lo, d, at = starts[g], starts[g + 1] - starts[g], table.offsets[g]
        M = roots[at : at + d * d].reshape(d, d)
        for i in range(d * d):
            roots[at + i] = blocks[at + i]
        table.sound[g] = _cholesky(M, d, table.scales, lo)
        total = 0.0
        for k in range(n_outputs):
            for i in range(d):
                value = table.pulls[k, lo + i]
                for m in range(i):
                    value -= M[i, m] * v[m]
                v[i] = value * M[i, i]
                total += v[i] * v[i]
        gains[g] = 0.5 * total
        table.reach[g] = np.sqrt(total)
        table.stretch[g] = 0.0
        for j in range(d):  # column j of R^-1
            for i in range(j, d):
                v[i] = 1.0 if i == j else 0.0
                for m in range(j, i):
                    v[i] -= M[i, m] * v[m]
                v[i] *= M[i, i]
                table.stretch[g] += v[i] * v[i]


@kernel
def _member_root(table, m, L):
    """L with L L' = P_ii for member m, reciprocals on its diagonal. Returns its size."""
    first, d = table.firsts[m], table.firsts[m + 1] - table.firsts[m]
    for i in range(d):
        for j in range(i + 1):
            L[i, j] = table.spread[first + i, first + j]
    for j in range(d):
        for q in range(j):
            L[j, j] -= L[j, q] * L[j, q]
        L[j, j] = 1.0 / np.sqrt(L[j, j])
        for i in range(j + 1, d):
            for q in range(j):
                L[i, j] -= L[i, q] * L[j, q]
            L[i, j] *= L[j, j]
    return d


@kernel
def _forward(L, d, B):
    """B <- L^-1 B for d rows."""
    for i in range(d):
        _add(B[i], -1.0, L[i, :i], B)
        for k in range(B.shape[1]):
            B[i, k] *= L[i, i]


@kernel
def member_losses(table):
    """By how much the objective would rise without each member."""
    count = table.count[0]
    out = np.zeros(count)
    widest = 0
    for m in range(count):
        widest = max(widest, table.firsts[m + 1] - table.firsts[m])
    L = np.empty((widest, widest))
    for m in range(count):
        d = _member_root(table, m, L)
        e = table.coefs[table.firsts[m] : table.firsts[m + 1]].copy()
        _forward(L, d, e)
        out[m] = 0.5 * (e * e).sum()
    return out


@kernel
def enter_group(table, g, row):
    """Let the group at position g enter, row = X_g'DX; by how much the objective falls, -1 if it depends on members.

    It depends where a coefficient, of the group or of a member, would have its variance inflated by more than 1e7:
    then nothing has changed.
    """
    starts, count = table.starts, table.count[0]
    lo, d, rank = starts[g], starts[g + 1] - starts[g], table.firsts[count]
    n_outputs = table.pulls.shape[0]
    A, P, w = table.swept, table.spread, table.coefs
    chosen = np.empty((d, rank))
    for i in range(d):
        for a in range(rank):
            chosen[i, a] = row[i, table.columns[a]]
    R = row - chosen @ A[:rank]  # X_g'D(X - X_S A), then L^-1 of it
    L = np.empty((d, d))
    for i in range(d):
        for j in range(d):
            L[i, j] = table.blocks[table.offsets[g] + i * d + j]
    if not _cholesky(L, d, table.scales, lo):
        return -1.0
    _forward(L, d, R)
    back = np.zeros((d, d))  # L^-1
    for i in range(d):
        back[i, i] = 1.0
    _forward(L, d, back)
    cross = np.zeros((rank, d))  # A_Sg L'^-1
    for a in range(rank):
        for i in range(d):
            for j in range(i + 1):
                cross[a, i] += A[a, lo + j] * back[i, j]
        inflated = P[a, a]
        for i in range(d):
            inflated += cross[a, i] * cross[a, i]
        if inflated * table.units[table.columns[a]] > _INFLATED:
            return -1.0
    for j in range(d):
        inflated = 0.0
        for i in range(j, d):
            inflated += back[i, j] * back[i, j]
        if inflated * table.units[lo + j] > _INFLATED:
            return -1.0
    e = np.empty((d, n_outputs))
    for k in range(n_outputs):
        for i in range(d):
            e[i, k] = table.pulls[k, lo + i]
    _forward(L, d, e)
    across = cross.T.copy()
    for a in range(rank):
        _add(A[a], -1.0, cross[a], R)
        _add(w[a], -1.0, cross[a], e)
        _add(P[a, :rank], 1.0, cross[a], across)
    for j in range(d):
        at = rank + j
        table.columns[at] = lo + j
        A[at] = 0.0
        w[at] = 0.0
        _add(A[at], 1.0, back[:, j], R)
        _add(w[at], 1.0, back[:, j], e)
        for b in range(d):
            P[at, rank + b] = 0.0
            for i in range(max(j, b), d):
                P[at, rank + b] += back[i, j] * back[i, b]
        for a in range(rank):
            value = 0.0
            for i in range(j, d):
                value -= cross[a, i] * back[i, j]
            P[at, a] = P[a, at] = value
    _shift(table, R, e, -1.0)
    table.members[count] = g
    table.firsts[count + 1] = rank + d
    table.inside[g] = 1
    table.count[0] = count + 1
    return 0.5 * (e * e).sum()


@kernel
def leave_group(table, m):
    """Let member m leave; by how much the objective rises."""
    count = table.count[0]
    first, end, rank = table.firsts[m], table.firsts[m + 1], table.firsts[count]
    d = end - first
    A, P, w = table.swept, table.spread, table.coefs
    L = np.empty((d, d))
    _member_root(table, m, L)
    E, e, cross = A[first:end].copy(), w[first:end].copy(), P[first:end, :rank].copy()
    _forward(L, d, E)
    _forward(L, d, e)
    _forward(L, d, cross)
    for a in range(rank):
        if first <= a < end:
            continue
        to = a if a < first else a - d
        if to != a:
            A[to] = A[a]
            w[to] = w[a]
            table.columns[to] = table.columns[a]
        _add(A[to], -1.0, cross[:, a], E)
        _add(w[to], -1.0, cross[:, a], e)
        _add(P[a, :rank], -1.0, cross[:, a], cross)
        for b in range(first):
            P[to, b] = P[a, b]
        for b in range(end, rank):
            P[to, b - d] = P[a, b]
    _shift(table, E, e, 1.0)
    table.inside[table.members[m]] = 0
    for q in range(m, count - 1):
        table.members[q] = table.members[q + 1]
        table.firsts[q + 1] = table.firsts[q + 2] - d
    table.count[0] = count - 1
    return 0.5 * (e * e).sum()


@kernel
def _shift(table, E, e, sign):
    """c += sign E'e, and S_g += sign E_g'E_g for every group, in its lower triangle."""
    starts, blocks = table.starts, table.blocks
    for k in range(e.shape[1]):
        _add(table.pulls[k], sign, e[:, k], E)
    for g in range(len(starts) - 1):
        lo, d, at = starts[g], starts[g + 1] - starts[g], table.offsets[g]
        for i in range(d):
            for j in range(i + 1):
                total = 0.0
                for r in range(E.shape[0]):
                    total += E[r, lo + i] * E[r, lo + j]
                blocks[at + i * d + j] += sign * total


@kernel
def best_exchange(table, least):
    """The best exchange that lowers the objective by more than `least`, asked after `factor`.

    By how much it does, the member that leaves (-1 if there is none), the position that enters, and how many exchanges
    were evaluated exactly.
    """
    starts, count = table.starts, table.count[0]
    G, (n_outputs, p) = len(starts) - 1, table.pulls.shape
    widest = 0
    for g in range(G):
        widest = max(widest, starts[g + 1] - starts[g])
    L, a, b = np.empty((widest, widest)), np.empty(widest), np.empty(widest)
    bounds = np.full((count, G), -np.inf)
    losses = np.empty(count)
    v = np.empty((n_outputs, p))
    top, at, to = -np.inf, -1, -1
    for m in range(count):
        first, end = table.firsts[m], table.firsts[m + 1]
        d = _member_root(table, m, L)
        q = table.coefs[first:end].copy()
        _forward(L, d, q)
        sizes = np.zeros(n_outputs)  # |e|^2
        for k in range(n_outputs):
            for i in range(d):
                sizes[k] += q[i, k] * q[i, k]
        losses[m] = 0.5 * sizes.sum()
        for i in range(d - 1, -1, -1):  # P_ii^-1 w_i
            q[i] *= L[i, i]
            for j in range(i):
                q[j] -= L[i, j] * q[i]
        for k in range(n_outputs):
            v[k] = 0.0
            _add(v[k], 1.0, q[:, k], table.swept[first:end])
        needed = np.sqrt(2.0 * (losses[m] + least))
        for g in range(G):
            if table.inside[g]:
                continue
            if not table.sound[g]:
                bounds[m, g] = np.inf
            else:
                lo, width, start = starts[g], starts[g + 1] - starts[g], table.offsets[g]
                missing = needed - table.reach[g]
                if missing > 0.0:
                    total = 0.0
                    for k in range(n_outputs):
                        for i in range(lo, lo + width):
                            total += v[k, i] * v[k, i]
                    if total * table.stretch[g] <= missing * missing:
                        continue  # |a| <= |R^-1 c| + |R^-1| |v| is too short
                total = 0.0
                for k in range(n_outputs):
                    aa, ab, bb = 0.0, 0.0, sizes[k]
                    for i in range(width):
                        y = v[k, lo + i]
                        x = table.pulls[k, lo + i] + y
                        for j in range(i):
                            value = table.roots[start + i * width + j]
                            x -= value * a[j]
                            y -= value * b[j]
                        value = table.roots[start + i * width + i]
                        x *= value
                        y *= value
                        a[i], b[i] = x, y
                        aa += x * x
                        ab += x * y
                        bb += y * y
                    total += aa - ab * ab / bb if bb > 0.0 else aa
                bounds[m, g] = 0.5 * total - losses[m]
            if bounds[m, g] > top:
                top, at, to = bounds[m, g], m, g
    best, out, into, tried = least, -1, -1, 0
    if at < 0 or not top > least:
        return best, out, into, tried
    value = _exchange(table, at, to) - losses[at]
    tried += 1
    if value > best:
        best, out, into = value, at, to
    for m in range(count):
        for g in range(G):
            if bounds[m, g] > best and not (m == at and g == to):
                value = _exchange(table, m, g) - losses[m]
                tried += 1
                if value > best:
                    best, out, into = value, m, g
    return best, out, into, tried


@kernel
def _exchange(table, m, g):
    """What the group at position g brings after member m has left."""
    first, end = table.firsts[m], table.firsts[m + 1]
    lo, width, at = table.starts[g], table.starts[g + 1] - table.starts[g], table.offsets[g]
    n_outputs, d = table.pulls.shape[0], end - first
    L = np.empty((d, d))
    _member_root(table, m, L)
    E, e = table.swept[first:end, lo : lo + width].copy(), table.coefs[first:end].copy()
    _forward(L, d, E)
    _forward(L, d, e)
    M = table.blocks[at : at + width * width].copy().reshape(width, width)
    for r in range(d):
        for i in range(width):
            for j in range(i + 1):
                M[i, j] += E[r, i] * E[r, j]
    _cholesky(M, width, table.scales, lo)
    x = np.empty((width, n_outputs))
    for k in range(n_outputs):
        for i in range(width):
            x[i, k] = table.pulls[k, lo + i]
            for r in range(d):
                x[i, k] += E[r, i] * e[r, k]
    _forward(M, width, x)
    return 0.5 * (x * x).sum()
