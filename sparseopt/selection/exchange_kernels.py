"""Kernels of `Sweep`: what every group would bring, what members are worth, and the best exchange of two groups.

With the arrays of a `Table` and L L' = P_ii, member i brings E = L^-1 A_i and e = L^-1 w_i to every other group,
and the gains after it has left are those of `sparseopt.selection.span`:

    (c_j + v)' (S_j + E_j'E_j)^-1 (c_j + v) / 2,    v = E_j'e

Most exchanges are ruled out by a bound. As E_j'E_j >= v v' / |e|^2 in the order of matrices, twice the gain is at most

    |a|^2 - (a'b)^2 / (|e|^2 + |b|^2),    a = R^-1 (c_j + v),    b = R^-1 v,    R R' = S_j

with R the same for all i: equality for groups of one feature, and close to it where one direction of group i does most
of the work. Several outputs add up, each with its own e. Before that, |a| <= |R^-1 c_j| + |R^-1| |v| rules out as many
for less. What is left is evaluated exactly, so the answer is that of trying everything.
"""

from __future__ import annotations

import numpy as np

from sparseopt.jit import kernel
from sparseopt.selection.sweep_kernels import add_rows, cholesky, forward, member_root

__all__ = ["best_exchange", "factor", "member_losses"]


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
        table.sound[g] = cholesky(M, d, table.scales, lo)
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
def member_losses(table):
    """By how much the objective would rise without each member."""
    count = table.n_members[0]
    out = np.zeros(count)
    widest = 0
    for m in range(count):
        widest = max(widest, table.firsts[m + 1] - table.firsts[m])
    L = np.empty((widest, widest))
    for m in range(count):
        d = member_root(table, m, L)
        e = table.coefs[table.firsts[m] : table.firsts[m + 1]].copy()
        forward(L, d, e)
        out[m] = 0.5 * (e * e).sum()
    return out


@kernel
def best_exchange(table, least):
    """The best exchange that lowers the objective by more than `least`, asked after `factor`.

    By how much it does, the member that leaves (-1 if there is none), the position that enters, how many exchanges were
    evaluated exactly, and what the members are worth.
    """
    starts, count = table.starts, table.n_members[0]
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
        d = member_root(table, m, L)
        q = table.coefs[first:end].copy()
        forward(L, d, q)
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
            add_rows(v[k], 1.0, q[:, k], table.swept[first:end])
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
        return best, out, into, tried, losses
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
    return best, out, into, tried, losses


@kernel
def _exchange(table, m, g):
    """What the group at position g brings after member m has left."""
    first, end = table.firsts[m], table.firsts[m + 1]
    lo, width, at = table.starts[g], table.starts[g + 1] - table.starts[g], table.offsets[g]
    n_outputs, d = table.pulls.shape[0], end - first
    L = np.empty((d, d))
    member_root(table, m, L)
    E, e = table.swept[first:end, lo : lo + width].copy(), table.coefs[first:end].copy()
    forward(L, d, E)
    forward(L, d, e)
    M = table.blocks[at : at + width * width].copy().reshape(width, width)
    for r in range(d):
        for i in range(width):
            for j in range(i + 1):
                M[i, j] += E[r, i] * E[r, j]
    cholesky(M, width, table.scales, lo)
    x = np.empty((width, n_outputs))
    for k in range(n_outputs):
        for i in range(width):
            x[i, k] = table.pulls[k, lo + i]
            for r in range(d):
                x[i, k] += E[r, i] * e[r, k]
    forward(M, width, x)
    return 0.5 * (x * x).sum()
