"""Kernels for one choice of groups, least squares on Gram matrices: its fit, and exchanges of one group.

    F(w) = yy/2 - <C, w> + <w, H w>/2 + rho/2 ||w||^2,     H = X'SX, C = X'Sy, yy = y'Sy

The fit on a choice is one Cholesky factorisation; its gain <C, (H + rho)^-1 C> is twice what the choice lowers F by.
"""

from __future__ import annotations

import numpy as np

from sparseopt.jit import kernel

__all__ = ["improve", "solve_subset", "subset_value"]


@kernel
def solve_subset(H, C, rho, rows, m, A, B):
    """Solve (H + rho) b = C on `rows[:m]` by Cholesky, b in B; <C, b>, or -1 if a pivot vanishes."""
    for i in range(m):
        for j in range(i + 1):
            A[i, j] = H[rows[i], rows[j]]
        A[i, i] += rho
        for k in range(C.shape[1]):
            B[i, k] = C[rows[i], k]
    gain = 0.0
    for i in range(m):
        scale = A[i, i]
        for j in range(i):
            total = A[i, j]
            for q in range(j):
                total -= A[i, q] * A[j, q]
            A[i, j] = total / A[j, j]
        total = A[i, i]
        for q in range(i):
            total -= A[i, q] * A[i, q]
        if total <= 1e-13 * scale:
            return -1.0
        A[i, i] = np.sqrt(total)
        for k in range(C.shape[1]):
            b = B[i, k]
            for q in range(i):
                b -= A[i, q] * B[q, k]
            B[i, k] = b / A[i, i]
            gain += B[i, k] * B[i, k]
    return gain


@kernel
def subset_value(H, C, yy, rho, starts, chosen, W):
    """min F over the groups with chosen > 0; the minimiser in W. inf if the columns depend on each other."""
    rows = np.empty(H.shape[0], np.int64)
    m = 0
    for g in range(chosen.shape[0]):
        if chosen[g] > 0:
            for j in range(starts[g], starts[g + 1]):
                rows[m] = j
                m += 1
    A = np.empty((m, m))
    B = np.empty((m, C.shape[1]))
    gain = solve_subset(H, C, rho, rows, m, A, B)
    if gain < 0.0:
        return np.inf
    for j in range(W.shape[0]):
        for k in range(W.shape[1]):
            W[j, k] = 0.0
    for k in range(C.shape[1]):
        for i in range(m - 1, -1, -1):
            b = B[i, k]
            for q in range(i + 1, m):
                b -= A[q, i] * B[q, k]
            B[i, k] = b / A[i, i]
            W[rows[i], k] = B[i, k]
    return 0.5 * (yy - gain)


@kernel
def _gain(H, C, rho, starts, chosen, rows, A, B):
    m = 0
    for g in range(chosen.shape[0]):
        if chosen[g] > 0:
            for j in range(starts[g], starts[g + 1]):
                rows[m] = j
                m += 1
    return solve_subset(H, C, rho, rows, m, A, B)


@kernel
def improve(H, C, yy, rho, starts, k, chosen):
    """Fill `chosen` up to k groups greedily, then swap one for one while that lowers F. Returns F."""
    G = chosen.shape[0]
    rows = np.empty(H.shape[0], np.int64)
    A = np.empty((H.shape[0], H.shape[0]))
    B = np.empty((H.shape[0], C.shape[1]))
    m = 0
    for g in range(G):
        m += chosen[g] > 0
    gain = _gain(H, C, rho, starts, chosen, rows, A, B)
    while m < k:
        best, at = -1.0, -1
        for g in range(G):
            if chosen[g] == 0:
                chosen[g] = 1
                trial = _gain(H, C, rho, starts, chosen, rows, A, B)
                chosen[g] = 0
                if trial > best:
                    best, at = trial, g
        if at < 0:
            break
        chosen[at] = 1
        gain = best
        m += 1
    while True:
        best, out, into = gain * (1.0 + 1e-12), -1, -1
        for g in range(G):
            if chosen[g] > 0:
                chosen[g] = 0
                for j in range(G):
                    if chosen[j] == 0 and j != g:
                        chosen[j] = 1
                        trial = _gain(H, C, rho, starts, chosen, rows, A, B)
                        chosen[j] = 0
                        if trial > best:
                            best, out, into = trial, g, j
                chosen[g] = 1
        if out < 0:
            return 0.5 * (yy - gain)
        chosen[out] = 0
        chosen[into] = 1
        gain = best
