"""Kernels of the perspective relaxation: a lower bound for a node of the branch and bound, least squares with a ridge.

    dual    yy/2 - <w, H'w>/2 - (sum over I and the k - |I| largest others of ||C_g - (H'w)_g||^2) / (2 r),   any w,

with H' = H - delta >= 0 and r = rho + delta. Every w gives a bound; accelerated proximal steps on

    <w, H'w>/2 - <C, w> + r/2 sum_g ||w_g||^2 / z_g,    z_g = 1 on I,  sum of z over the open groups = k - |I|,  z <= 1

raise it until it reaches a target, or no longer rises.
"""

from __future__ import annotations

import numpy as np

from sparseopt.jit import kernel

__all__ = ["dual_value", "relax"]


@kernel
def dual_value(base, v2, state, k, r):
    """base - (sum of v2 over I and its k - |I| largest open values) / (2 r)."""
    G = state.shape[0]
    open_ = np.empty(G)
    m = f = 0
    total = 0.0
    for g in range(G):
        if state[g] > 0:
            total += v2[g]
            m += 1
        elif state[g] == 0:
            open_[f] = v2[g]
            f += 1
    if m > k:
        return np.inf
    if f > k - m:
        largest = np.sort(open_[:f])
        for i in range(f - (k - m), f):
            total += largest[i]
    else:
        for i in range(f):
            total += open_[i]
    return base - 0.5 * total / r


@kernel
def _shares(v, state, left, tau, z):
    """z minimises sum v_g^2 / (z_g + tau) over the open groups, sum z = left, 0 <= z <= 1; z = 1 in I."""
    G = v.shape[0]
    top = 0.0
    positive = 0
    for g in range(G):
        z[g] = 1.0 if state[g] > 0 else 0.0
        if state[g] == 0 and v[g] > 0.0:
            positive += 1
            top = max(top, v[g])
    if positive <= left:
        for g in range(G):
            if state[g] == 0 and v[g] > 0.0:
                z[g] = 1.0
        return
    if left == 0:
        return
    low, high = 0.0, top / tau
    for _ in range(60):
        nu = 0.5 * (low + high)
        total = 0.0
        for g in range(G):
            if state[g] == 0:
                total += min(max(v[g] / nu - tau, 0.0), 1.0)
        if total > left:
            low = nu
        else:
            high = nu
    for g in range(G):
        if state[g] == 0:
            z[g] = min(max(v[g] / high - tau, 0.0), 1.0)


@kernel
def _times(H, delta, X, out):
    """out = (H - delta) X; rows of X that are zero cost nothing."""
    p, K = X.shape
    total = np.empty(p)
    for k in range(K):
        for i in range(p):
            total[i] = -delta * X[i, k]
        for j in range(p):
            x = X[j, k]
            if x != 0.0:
                row = H[j]
                for i in range(p):
                    total[i] += row[i] * x
        for i in range(p):
            out[i, k] = total[i]


@kernel
def relax(H, C, yy, starts, k, rho, delta, bend, state, X, best_v2, target, steps):
    """Proximal steps on the perspective relaxation from X, which ends as the point of the best dual value.

    Returns that value and the dual value's constant part; `best_v2` gets ||C_g - (H'w)_g||^2 there.
    """
    p, K = X.shape
    G = state.shape[0]
    r = rho + delta
    tau = r / bend
    m = 0
    for g in range(G):
        m += state[g] > 0
    for g in range(G):
        if state[g] < 0:
            for j in range(starts[g], starts[g + 1]):
                for q in range(K):
                    X[j, q] = 0.0
    x, before = X.copy(), X.copy()
    Hx = np.zeros((p, K))
    _times(H, delta, x, Hx)
    Hbefore = Hx.copy()
    y, a, new = np.zeros((p, K)), np.zeros((p, K)), np.zeros((p, K))
    Hnew = np.zeros((p, K))
    v2, norms, z = np.zeros(G), np.zeros(G), np.zeros(G)
    best, best_base, t = -np.inf, 0.0, 1.0
    for _ in range(steps):
        t_new = 0.5 * (1.0 + np.sqrt(1.0 + 4.0 * t * t))
        beta = (t - 1.0) / t_new
        t = t_new
        base = 0.5 * yy
        for g in range(G):
            v2[g] = norms[g] = 0.0
            if state[g] >= 0:
                for j in range(starts[g], starts[g + 1]):
                    for q in range(K):
                        y[j, q] = x[j, q] + beta * (x[j, q] - before[j, q])
                        Hy = Hx[j, q] + beta * (Hx[j, q] - Hbefore[j, q])
                        slope = C[j, q] - Hy
                        base -= 0.5 * y[j, q] * Hy
                        v2[g] += slope * slope
                        a[j, q] = y[j, q] + slope / bend
                        norms[g] += a[j, q] * a[j, q]
                norms[g] = np.sqrt(norms[g])
        value = dual_value(base, v2, state, k, r)
        if value > best:
            best, best_base = value, base
            for j in range(p):
                for q in range(K):
                    X[j, q] = y[j, q]
            for g in range(G):
                best_v2[g] = v2[g]
            if best >= target:
                break
        _shares(norms, state, k - m, tau, z)
        primal = 0.5 * yy
        turn = 0.0
        for g in range(G):
            if state[g] >= 0:
                shrink = z[g] / (z[g] + tau)
                for j in range(starts[g], starts[g + 1]):
                    for q in range(K):
                        new[j, q] = shrink * a[j, q]
                        turn += (y[j, q] - new[j, q]) * (new[j, q] - x[j, q])
                if z[g] > 0.0:
                    primal += 0.5 * r * (shrink * norms[g]) ** 2 / z[g]
        _times(H, delta, new, Hnew)
        for g in range(G):
            if state[g] >= 0:
                for j in range(starts[g], starts[g + 1]):
                    for q in range(K):
                        primal += (0.5 * Hnew[j, q] - C[j, q]) * new[j, q]
                        before[j, q] = x[j, q]
                        x[j, q] = new[j, q]
                        Hbefore[j, q] = Hx[j, q]
                        Hx[j, q] = Hnew[j, q]
        if turn > 0.0:
            t = 1.0
        if primal < target and primal - best < 0.3 * (target - best):
            break
    return best, best_base
