"""Kernels of the branch and bound for least squares: all that happens to a node, on Gram matrices.

    F(w) = yy/2 - <C, w> + <w, H w>/2 + rho/2 ||w||^2,     at most k groups nonzero,    H = X'SX, C = X'Sy, yy = y'Sy

after intercept and always-in columns have been projected out. A node has groups in (I), out (O) and open. Bounds:

    refit      v = yy/2 - <C, P C>/2 with P = (H + rho)^-1 on all groups that are not out; without one more group g
               it is v + ||P_gg^(-1/2) w_g||^2 / 2, and P loses P_.g P_gg^-1 P_g.  (leaps and bounds)
    dual       yy/2 - <w, H'w>/2 - (sum over I and the k - |I| largest others of ||C_g - (H'w)_g||^2) / (2 r), any w,
               with H' = H - delta >= 0 and r = rho + delta: the perspective relaxation, by accelerated proximal steps.

A node is split along a chain g_1, g_2, ..., the most valuable open group first:  O + g_1  |  I + g_1, O + g_2  |  ...
|  I + g_1 ... g_(k - |I|), so that one P serves all its children.
"""

from __future__ import annotations

import numpy as np

from sparseopt.jit import kernel
from sparseopt.selection.relaxation import dual_value, relax
from sparseopt.selection.subset_kernels import improve, subset_value

__all__ = ["dive"]


@kernel
def _downdate(P, W, starts, state, g, out, Wout):
    """P and W = P C without group g, in `out` and `Wout` (which may be P and W); the rise of F that this costs.

    Rows and columns of P that belong to groups that are out hold anything finite. With an empty `out` only the rise.
    """
    lo, d = starts[g], starts[g + 1] - starts[g]
    p, K = W.shape
    T = np.empty((d, d))
    e = np.empty((d, K))
    for i in range(d):  # T T' = P_gg, e = T^-1 w_g
        for j in range(i + 1):
            total = P[lo + i, lo + j]
            for q in range(j):
                total -= T[i, q] * T[j, q]
            T[i, j] = np.sqrt(max(total, 1e-300)) if i == j else total / T[j, j]
        for k in range(K):
            total = W[lo + i, k]
            for q in range(i):
                total -= T[i, q] * e[q, k]
            e[i, k] = total / T[i, i]
    rise = 0.0
    for i in range(d):
        for k in range(K):
            rise += e[i, k] * e[i, k]
    if out.shape[0] == 0:
        return 0.5 * rise
    R = np.zeros((d, p))
    for h in range(state.shape[0]):
        if state[h] >= 0 and h != g:
            for j in range(starts[h], starts[h + 1]):
                for i in range(d):
                    total = P[j, lo + i]
                    for q in range(i):
                        total -= T[i, q] * R[q, j]
                    R[i, j] = total / T[i, i]
    for h in range(state.shape[0]):
        for j in range(starts[h], starts[h + 1]):
            inside = state[h] >= 0 and h != g
            if inside:
                source, row = P[j], out[j]
                for b in range(p):
                    row[b] = source[b]
                for q in range(d):
                    factor, other = R[q, j], R[q]
                    for b in range(p):
                        row[b] -= factor * other[b]
            for k in range(K):
                total = W[j, k] if inside else 0.0
                for q in range(d):
                    total -= R[q, j] * e[q, k]
                Wout[j, k] = total
    return 0.5 * rise


@kernel
def _copy(source, target):
    for i in range(source.shape[0]):
        for j in range(source.shape[1]):
            target[i, j] = source[i, j]


@kernel
def _put(states, points, bounds, count, state, point, bound):
    """Append a part of the choices with its point and bound."""
    for g in range(state.shape[0]):
        states[count, g] = state[g]
    if points.shape[0] > 0:
        for j in range(point.shape[0]):
            for q in range(point.shape[1]):
                points[count, j, q] = point[j, q]
    bounds[count] = bound
    return count + 1


@kernel
def dive(
    H, C, yy, starts, k, rho, delta, bend, tol, floor, upper, best, root, P, W, X, start_steps, steps, budget,
    leaf_states, leaf_points, leaf_bounds, open_states, open_points, open_bounds,
):  # fmt: skip
    """Depth first from the node `root`, for at most `budget` nodes.

    P (levels, p, p), W and X (levels, p, K): inverse, refit and relaxed point; level 0 comes filled for `root`. `best`
    (G,) and `upper` are the best choice so far. What is finished and what is left open goes to the arrays.

    Returns
    -------
    upper, number of leaves, number of open nodes, number of nodes looked at
    """
    G, p, K = root.shape[0], H.shape[0], C.shape[1]
    levels = P.shape[0]
    room = min(leaf_bounds.shape[0], open_bounds.shape[0]) - levels * (k + 2) - 2 * G - 4
    state = np.zeros((levels, G), np.int8)
    order = np.zeros((levels, G), np.int64)
    lower = np.full((levels, G), -np.inf)
    left = np.full(levels, -1, np.int64)
    for g in range(G):
        state[0, g] = root[g]
    now = np.zeros(G, np.int8)
    trial = np.zeros(G, np.int8)
    worth = np.zeros(G)
    v2 = np.zeros(G)
    none, no_point = np.zeros((0, 0)), np.zeros((0, 0))
    point = np.zeros((p, K))
    other = np.zeros((p, p))
    other_W = np.zeros((p, K))
    r = rho + delta
    leaves = opened = nodes = 0
    level, fresh = 0, True
    while level >= 0:
        if fresh:  # bounds of the node, then its chain of children
            fresh = False
            nodes += 1
            target = upper - max(tol * upper, floor)
            value = 0.5 * yy
            for j in range(p):
                for q in range(K):
                    value -= 0.5 * C[j, q] * W[level, j, q]
            m = f = 0
            for g in range(G):
                now[g] = state[level, g]
                m += now[g] > 0
                f += now[g] == 0
            left[level] = -1
            if m >= k or m + f <= k:
                for g in range(G):
                    trial[g] = 1 if (now[g] > 0 or (now[g] == 0 and m < k)) else 0
                exact = subset_value(H, C, yy, rho, starts, trial, point)
                if exact < upper:
                    upper = exact
                    for g in range(G):
                        best[g] = trial[g]
                leaves = _put(leaf_states, leaf_points, leaf_bounds, leaves, now, point, exact)
                level -= 1
                continue
            if value >= target:
                leaves = _put(leaf_states, leaf_points, leaf_bounds, leaves, now, W[level], value)
                level -= 1
                continue
            for g in range(G):
                worth[g] = -1.0
                if now[g] == 0:
                    worth[g] = _downdate(P[level], W[level], starts, now, g, none, no_point)
            rank = np.argsort(-worth)
            base = 0.0
            if r > 0.0:
                relaxed, base = relax(
                    H, C, yy, starts, k, rho, delta, bend, now, X[level], v2, target,
                    start_steps if level == 0 else steps,
                )  # fmt: skip
                if relaxed >= target:
                    leaves = _put(leaf_states, leaf_points, leaf_bounds, leaves, now, X[level], relaxed)
                    level -= 1
                    continue
                keys = np.full(G, -1.0)
                for g in range(G):
                    if now[g] == 0:
                        keys[g] = v2[g]
                rank = np.argsort(-keys)
            for g in range(G):  # a choice of k groups to compare with
                trial[g] = 1 if now[g] > 0 else 0
            for i in range(k - m):
                trial[rank[i]] = 1
            exact = subset_value(H, C, yy, rho, starts, trial, point)
            if exact < upper:
                exact = improve(H, C, yy, rho, starts, k, trial)
                upper = exact
                for g in range(G):
                    best[g] = trial[g]
                target = upper - max(tol * upper, floor)
            dropped = 0
            if r > 0.0:  # open groups that no choice below the target has
                for i in range(f - 1, k - m - 1, -1):
                    g = rank[i]
                    now[g] = 1
                    bound = dual_value(base, v2, now, k, r)
                    now[g] = 0
                    if bound < target:
                        break
                    now[g] = 1
                    leaves = _put(leaf_states, leaf_points, leaf_bounds, leaves, now, X[level], bound)
                    now[g] = 0
                    _downdate(P[level], W[level], starts, now, g, P[level], W[level])
                    now[g] = -1
                    state[level, g] = -1
                    dropped += 1
                if dropped > 0:
                    fresh = True
                    nodes -= 1
                    if leaves < room and opened < room:
                        continue
                    fresh = False
                    opened = _put(open_states, open_points, open_bounds, opened, now, X[level], value)
                    level -= 1
                    continue
            for i in range(k - m):
                g = rank[i]
                order[level, i] = g
                now[g] = -1
                lower[level, i] = value + worth[g]
                bound = dual_value(base, v2, now, k, r) if r > 0.0 else -np.inf
                if lower[level, i] >= target:
                    _downdate(P[level], W[level], starts, now, g, other, other_W)
                    leaves = _put(leaf_states, leaf_points, leaf_bounds, leaves, now, other_W, lower[level, i])
                    lower[level, i] = np.inf
                elif bound >= target:
                    leaves = _put(leaf_states, leaf_points, leaf_bounds, leaves, now, X[level], bound)
                    lower[level, i] = np.inf
                else:
                    lower[level, i] = max(lower[level, i], bound)
                now[g] = 1
            for g in range(G):
                trial[g] = 1 if now[g] > 0 else 0
            exact = subset_value(H, C, yy, rho, starts, trial, point)
            leaves = _put(leaf_states, leaf_points, leaf_bounds, leaves, now, point, exact)
            left[level] = k - m - 1
            continue
        # the next child of this level that is still open
        i = left[level]
        if i < 0:
            level -= 1
            continue
        left[level] = i - 1
        if lower[level, i] == np.inf:
            continue
        for g in range(G):
            now[g] = state[level, g]
        for h in range(i):
            now[order[level, h]] = 1
        g = order[level, i]
        now[g] = -1
        if level + 1 < levels and nodes < budget and leaves < room and opened < room:
            now[g] = 0
            _downdate(P[level], W[level], starts, now, g, P[level + 1], W[level + 1])
            _copy(X[level], X[level + 1])
            now[g] = -1
            level += 1
            for h in range(G):
                state[level, h] = now[h]
            fresh = True
        else:
            opened = _put(open_states, open_points, open_bounds, opened, now, X[level], lower[level, i])
    return upper, leaves, opened, nodes
