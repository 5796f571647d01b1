"""The window below tau in which one group is active, verified: the theory is in the maker's file `onegroup`.

Groups are scaled by 1 / omega_g. At the best fit without penalised groups group i has the largest gradient, tau, the
others at most `second`. If over ||w_i|| <= r all secants of the gradient are at least mu in group i and at most M from
group i to another, the minimiser over group i alone has ||w_i|| <= (tau - lam) / mu <= r, and the others stay below lam
where

    lam (mu + M) > second mu + M tau    and    lam >= tau - mu r.

The free columns U are minimised out: secants are C - CU (U'CU)^-1 U'C for C = diag(c), l <= c <= h bounds of s f'' over
the range that z can move in (by ||x_i|| r, plus the largest of these with an intercept). With c = (l + h) / 2 +- e,
columns X centred so that U'CX = 0,

    mu <= lambda_min(X_i' L X_i),   M >= ||X_j' C X_i|| + (1 + sum e / sum l) sqrt(||X_j' E X_j|| ||X_i' E X_i||)

or M >= the geometric mean of the largest secants of i and j. The mu and M of the claim are tested, not recomputed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sparseopt.certificates.balance import balanced
from sparseopt.certificates.balls import Refusal, arb, arb_mat, definite, norm, root, sample_slope
from sparseopt.certificates.exact import Dual, Exact

__all__ = ["largest", "one_group_window"]

Ball = Any
Matrix = Any


def largest(G: Matrix, enough: Ball) -> Ball:
    """An upper bound of lambda_max of a positive semidefinite G, below `enough` if that can be seen.

    trace(G^m)^(1/m) >= lambda_max for m = 1, 2, 4, ..., and within a factor d^(1/m) of it.
    """
    bound, m = arb(0), 1
    for _ in range(41):
        trace = sum((G[i, i] for i in range(G.nrows())), arb(0)).upper()
        if not trace.is_finite():
            return arb("inf")
        if not trace > 0:
            return arb(0)
        bound = (trace.log() / m).exp().upper()
        if bound < enough:
            break
        G, m = G * G, 2 * m
    return bound


def one_group_window(case: Exact, claim: Any) -> str:
    """Refuse, or say what was verified; `claim` has number(name) and numbers."""
    if not (case.is_lasso or (case.kind == "composite" and case.q.strict and case.q.concave)) or not case.mu == 0:
        raise Refusal("the window is one of the group lasso without l1 term, or of problem (1) for an admissible q")
    counted = [int(g) for g in np.flatnonzero(case.penalised)]
    if case.loss == "multinomial" or (case.loss != "squares" and len(counted) < len(case.groups)):
        raise Refusal("no window is known for this loss with unpenalised groups, or for multinomial loss")
    found = [g for g in counted if case.names[g] == str(claim.numbers.get("group"))]
    if len(found) != 1:
        raise Refusal(f"{claim.numbers.get('group')!r} is not the name of a penalised group")
    i = found[0]
    tau, delta, low, mu, M, r = (arb(claim.number(x)) for x in ("tau", "delta", "lam_low", "mu", "M", "radius"))
    z, point = _without_groups(case)
    pulls = {g: u / case.omega[g] for g, u in enumerate(case.norms(point.V)) if case.penalised[g]}
    second = arb(0)
    for g in counted:
        second = second if g == i else second.max(pulls[g].upper())
    if not pulls[i] >= tau or not pulls[i] - second >= delta or not delta > 0:
        raise Refusal(f"tau and delta are {float(pulls[i].mid()):.12g} and {float((pulls[i] - second).mid()):.6g}, "
                      "or less than claimed")  # fmt: skip
    alone = len(counted) == 1
    rim = low >= pulls[i] - mu * r if r.is_finite() else case.loss == "squares"
    inside = low >= 0 if alone else low * (mu + M) > second * mu + M * pulls[i]
    if not (mu > 0 and M >= 0 and rim and inside and low < tau):
        raise Refusal("lam_low lies below what tau, delta, mu, M and the radius give")
    _moduli(case, i, [g for g in counted if g != i], z, mu, M, r)
    return (
        f"for every lam in [{float(low):.8g}, {float(tau):.8g}) the group lasso has exactly one active penalised "
        f"group, {case.names[i]}, and unique penalised coefficients, which are those of problem (1) for every strictly "
        "increasing subadditive q with q(0) = 0"
    )


def _without_groups(case: Exact) -> tuple[list[list[Ball]], Dual]:
    """z (offset included) and the gradient at the best fit without penalised groups."""
    z = case.offset
    if case.loss == "squares":
        v = [[o - y for o, y in zip(*rows, strict=True)] for rows in zip(z, case.y, strict=True)]
        U = case.free()
        return z, Dual(case, balanced(case, v, np.ones((case.n, case.K)), U, True) if U.shape[1] else v)
    if case.intercept:
        b = [_best_intercept(case, k) for k in range(case.K)]
        z = [[o + x for o, x in zip(row, b, strict=True)] for row in z]
    return z, Dual(case, [sample_slope(case.loss, case.delta, y, x) for y, x in zip(case.y, z, strict=True)])


def _best_intercept(case: Exact, k: int) -> Ball:
    """A ball around the zeros of the derivative in the intercept of output k."""
    data = [(s, y[k], o[k]) for s, y, o in zip(case.s, case.y, case.offset, strict=True) if s > 0]

    def slope(b: Ball) -> Ball:
        return sum((s * sample_slope(case.loss, case.delta, [y], [o + b])[0] for s, y, o in data), arb(0))

    shift = arb(1)
    while not slope(-shift) < 0:
        shift = 2 * shift
        if shift > 1e9:
            raise Refusal("the best intercept was not found")
    return root(lambda x: slope(x - shift), arb(0), 160) - shift


def _moduli(case: Exact, i: int, others: list[int], z: list[list[Ball]], mu: Ball, M: Ball, r: Ball) -> None:
    """Refuse unless mu and M are bounds of the secants over ||w_i|| <= r."""
    U = case.free() if case.loss == "squares" else np.ones((case.n, 1 if case.intercept else 0))
    basis = arb_mat(case.n, U.shape[1], U.ravel().tolist()) if U.shape[1] else None
    X = {g: case.columns(case.groups[g]) * (1 / case.omega[g]) for g in [i, *others]}
    ridge = case.ridge / case.omega[i] ** 2
    reach: list[Ball] = [r * norm(row) for row in X[i].tolist()] if case.loss != "squares" else [arb(0)] * case.n
    if case.intercept and case.loss != "squares":
        far = arb(0)
        for s, x in zip(case.s, reach, strict=True):
            far = far.max(x.upper()) if s > 0 else far
        reach = [x + far for x in reach]
    for k in range(1 if case.loss == "squares" else case.K):
        ranges = [_slopes(case, row[k], y[k], m) for row, y, m in zip(z, case.y, reach, strict=True)]
        low, high = ([s * x[side] for s, x in zip(case.s, ranges, strict=True)] for side in (0, 1))
        mid = [(a + b) / 2 for a, b in zip(low, high, strict=True)]
        half = [(b - a) / 2 for a, b in zip(low, high, strict=True)]
        if basis is not None and not sum(low, arb(0)) > 0:
            raise Refusal("the curvature in the intercept may vanish")
        first = _centred(X[i], low, basis)
        H = _gram(first, low, first).tolist()
        if not definite([[x - (mu - ridge if a == b else 0) for b, x in enumerate(row)] for a, row in enumerate(H)]):
            raise Refusal(f"mu is less than the claimed {float(mu):.6g}")
        factor = 1 + (sum(half, arb(0)) / sum(low, arb(0)) if basis is not None else 0)
        mine, exact = _centred(X[i], mid, basis), all(x == 0 for x in half)
        top = arb(0) if exact else largest(_gram(mine, half, mine), arb(0))
        for j in others:
            theirs = _centred(X[j], mid, basis)
            B = _gram(theirs, mid, mine)
            if largest(B.transpose() * B, M * M) <= M * M and exact:
                continue
            spread = arb(0) if exact else factor * (top * largest(_gram(theirs, half, theirs), arb(0))).sqrt()
            room = M - spread
            if room > 0 and largest(B.transpose() * B, room * room) <= room * room:
                continue
            both = [_centred(X[g], high, basis) for g in (i, j)]
            tops = [largest(_gram(x, high, x), arb(0)) for x in both]
            if exact or not tops[0] * tops[1] <= M * M:
                raise Refusal(f"M is more than the claimed {float(M):.6g} from {case.names[i]} to {case.names[j]}")


def _slopes(case: Exact, z: Ball, y: Ball, reach: Ball) -> tuple[Ball, Ball]:
    """Bounds of f'' within `reach` of z."""
    if case.loss == "logistic":
        near, far = (abs(z) - reach).nonnegative_part(), abs(z) + reach
        return _bell(far), _bell(near)
    if case.loss == "poisson":
        return (z - reach).exp(), (z + reach).exp()
    if case.loss == "huber":
        d = abs(z - y)
        return arb(1 if d + reach <= case.delta else 0), arb(0 if d - reach >= case.delta else 1)
    return arb(1), arb(1)


def _bell(u: Ball) -> Ball:
    e = (-u).exp()
    return e / (1 + e) ** 2


def _centred(X: Matrix, c: list[Ball], basis: Matrix | None) -> Matrix:
    """X - U (U'CU)^-1 U'CX."""
    if basis is None:
        return X
    try:
        return X - basis * _gram(basis, c, basis).solve(_gram(basis, c, X))
    except ZeroDivisionError:
        raise Refusal("the unpenalised columns are linearly dependent") from None


def _gram(X: Matrix, c: list[Ball], Y: Matrix) -> Matrix:
    """X' diag(c) Y."""
    return X.transpose() * arb_mat([[s * y for y in row] for s, row in zip(c, Y.tolist(), strict=True)])
