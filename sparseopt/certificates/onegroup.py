"""Certificates that one group at most is active, after which Theorem 1.1 of arXiv 2402.17902 covers every q at once.

    theorem_1_1        gap-safe: all penalised groups but one vanish in every minimiser of the group lasso at this lam
    one_group_kkt      at this w: stationary in its one group, ||grad_j|| < lam omega_j in the others
    one_group_window   for every lam in [lam_low, tau) exactly one group is active, and which

The theorem: q strictly increasing and subadditive with q(0) = 0 has q^-1(sum_g q(a_g)) >= sum_g a_g, with equality for
one a_g > 0, so a unique one-group minimiser of the group lasso is that of problem (1). Uniqueness: the gradient A* is
the same at all minimisers; with ||X_j'A*|| < lam_j for j != i they lie on one ray of group i, and the penalty, equal
where the loss is equal, fixes the place on it whenever f is strictly convex up to a common shift of the outputs.

The window: let groups be scaled by 1 / omega_g and the free directions be minimised out. With tau = max_g ||g_g(0)||
at group i, the next one delta below, and over ||w_i|| <= r every secant of the gradient at least mu in group i and at
most M from group i to another: ||w_i|| <= (tau - lam) / mu at the minimum over group i alone, so that
||g_j|| <= tau - delta + M (tau - lam) / mu, and this is < lam for lam > tau - delta mu / (mu + M), lam >= tau - mu r.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparseopt.cardinality import AtMost
from sparseopt.certificates.bounds import not_admissible
from sparseopt.certificates.certificate import Certificate, Verdict, not_applicable
from sparseopt.certificates.duals import group_lasso
from sparseopt.certificates.optimal import bracket, gap_safe
from sparseopt.certificates.secants import Secants, secants
from sparseopt.penalty import Composite
from sparseopt.problem import Problem

__all__ = ["one_group_kkt", "one_group_window", "theorem_1_1"]

Array = NDArray[np.float64]

_EVERY_Q = "the unique global minimiser of problem (1) for every q strictly increasing and subadditive with q(0) = 0"


def theorem_1_1(
    problem: Problem,
    w: ArrayLike,
    b: ArrayLike = 0.0,
    *,
    A: ArrayLike | None = None,
    zero: ArrayLike | None = None,
) -> Certificate:
    """That the group lasso at this lam has at most one active group, so that its minimiser is that of problem (1).

    Parameters
    ----------
    problem : Problem
        With q = L2, or a `Composite` with a q that the theorem covers; a loss of bounded curvature.
    w, b : arrays
        Coefficients and intercept, near the group-lasso minimiser.
    A : (n, K) array, optional
        A dual point of the group lasso; by default dL/dz at (w, b).
    zero : (m,) integers, optional
        Groups to prove zero; by default all for which the proof succeeds.

    Notes
    -----
    Proves the minimiser unique and global, not that w is it: how close the objective is says `optimality_gap`.

    References
    ----------
    Axiotis, Yasuda et al. (2024), arXiv 2402.17902, Theorem 1.1; Ndiaye et al. (2017) for the ball of the dual optimum.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt import Problem
    >>> problem = Problem.build(np.eye(3), [2.0, 0.1, 0.0], lam=0.1, intercept=False)
    >>> theorem_1_1(problem, [1.7, 0.0, 0.0]).numbers["active"]
    '0'
    """
    kind = "theorem_1_1"
    reason = _outside(problem) or _unbounded(problem) or ("" if problem.lam > 0.0 else "The theorem needs lam > 0.")
    if reason:
        return not_applicable(kind, reason)
    convex = group_lasso(problem)
    primal, dual, point = bracket(convex, w, b, A)
    proved, radius = gap_safe(convex, point, primal - dual)
    if zero is not None:
        claimed = np.zeros_like(proved)
        claimed[np.asarray(zero, np.int64)] = True
        proved = proved & claimed
    left = np.flatnonzero(convex.penalty.penalised & ~proved)
    names = problem.groups.names
    active = names[left[0]] if len(left) == 1 else "none"
    numbers = {"lam": problem.lam, "active": active, "n_left": len(left)}
    numbers |= {"primal": primal, "dual": dual, "radius": radius}
    if len(left) > 1:
        statement = f"{len(left)} groups may be active at lam = {problem.lam:.6g}: not proved zero by this gap."
        return Certificate(kind, statement, Verdict.FAILED, numbers)
    only = f"no active group but possibly {active}" if len(left) else "no active group"
    unique = not len(left) or _strictly_convex(problem)
    numbers["unique"] = "yes" if unique else "no"
    what = f"has {only}; it is unique in its penalised coefficients, and {_EVERY_Q}."
    if not unique:
        what = f"has {only}, and is a global minimiser of problem (1) for every q as in Theorem 1.1."
    caveats = [f"That {active} is nonzero."] if len(left) else []
    if not unique:
        caveats.append(f"That the minimiser is unique: the loss {problem.loss.name} is not strictly convex.")
    caveats += _free_caveats(problem)
    caveats.append("That the given w is this minimiser: its objective is within the gap of the optimum.")
    evidence = {"A": point.A, "zero": np.flatnonzero(proved)}
    statement = f"The group-lasso minimiser at lam = {problem.lam:.6g} {what}"
    return Certificate(kind, statement, Verdict.PROVED, numbers, 0.0, tuple(caveats), evidence)


def one_group_kkt(problem: Problem, w: ArrayLike, b: ArrayLike = 0.0, *, tol: float = 1e-6) -> Certificate:
    """That w, with at most one active penalised group, meets the optimality conditions of the group lasso.

    Needs no solution of the whole problem: a candidate from one group is enough.

    Parameters
    ----------
    problem : Problem
        With q = L2 or an admissible `Composite`, without l1 term.
    w, b : arrays
        The candidate.
    tol : float
        The largest residual that passes, relative to lam times the largest weight.

    Notes
    -----
    slack = min_j 1 - ||grad_j|| / (lam omega_j) over the inactive groups; residual is the largest gradient of the
    objective in the active group, the unpenalised groups and the intercept.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt import Problem
    >>> problem = Problem.build(np.eye(2), [2.0, 0.1], lam=0.1, intercept=False)
    >>> round(one_group_kkt(problem, [1.8, 0.0]).numbers["slack"], 12)
    0.5
    """
    kind = "one_group_kkt"
    reason = _outside(problem) or ("" if problem.lam > 0.0 else "The theorem needs lam > 0.")
    if not reason and problem.penalty.l1_ratio > 0.0:
        reason = "The conditions are stated without an l1 term."
    if reason:
        return not_applicable(kind, reason)
    penalty, groups = problem.penalty, problem.groups
    W = problem.matrix(w)
    norms = groups.norms(W)
    active = np.flatnonzero((norms > 0.0) & penalty.penalised)
    if len(active) > 1:
        statement = f"w has {len(active)} active penalised groups."
        return Certificate(kind, statement, Verdict.FAILED, {"n_active": len(active)}, tol)
    A = problem.loss.derivative(problem.predictor(W, b))
    V = problem.design.rmatvec(A)
    strength = problem.lam * groups.weights
    pulls = [float(np.linalg.norm(A.sum(axis=0)))] if problem.intercept else []
    pulls += [float(x) for x in groups.norms(V)[~penalty.penalised]]
    for g in active:
        rows = groups[int(g)]
        pulls.append(float(np.linalg.norm(V[rows] + (strength[g] / norms[g] + penalty.ridge) * W[rows])))
    others = penalty.penalised.copy()
    others[active] = False
    slack = float((1.0 - groups.norms(V)[others] / strength[others]).min(initial=1.0))
    scale = float(strength.max())
    residual = max(pulls, default=0.0) / scale
    name = groups.names[active[0]] if len(active) else "none"
    numbers = {"lam": problem.lam, "group": name, "slack": slack, "residual": residual, "scale": scale}
    verdict = Verdict.HOLDS if residual <= tol and slack > tol else Verdict.FAILED
    if slack < -tol and residual <= tol:
        verdict = Verdict.REFUTED
    room = f"leaves every other group at least {slack:.3g} of lam omega_g below its threshold"
    if slack <= 0.0:
        room = f"exceeds lam omega_g in another group by {-slack:.3g} of it"
    statement = f"With {name if len(active) else 'no group'} active the gradient is met to {residual:.1e} and {room}."
    caveats = ("That the exact minimiser has the same active group: that is theorem_1_1, from a dual point.",)
    return Certificate(kind, statement, verdict, numbers, tol, caveats)


def one_group_window(problem: Problem, w: ArrayLike | None = None, b: ArrayLike = 0.0) -> Certificate:
    """The window of lam below tau in which exactly one group is active, and which.

    Parameters
    ----------
    problem : Problem
        With q = L2 or an admissible `Composite`, without l1 term; its lam does not matter. Squares with any intercept
        and unpenalised groups; huber, logistic and poisson with or without intercept.
    w, b : arrays, optional
        Not used: the claim is about the problem.

    Notes
    -----
    tau, delta and mu are rounded down, M and lam_low up. radius is the ball ||omega w_i|| <= r for which mu and M
    hold; inf for squares. Sufficient, not necessary: below lam_low one group may stay active, this one or another.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt import Problem
    >>> X = np.array([[1.0, 0.45], [0.0, 0.2179449471770337]])
    >>> problem = Problem.build(X, [1.0, 2.2941573], sample_weight=[1.0, 1.0], intercept=False)
    >>> numbers = one_group_window(problem).numbers
    >>> numbers["group"], round(numbers["lam_low"], 5), round(numbers["tau"], 5)
    ('0', 0.96552, 1.0)
    """
    kind = "one_group_window"
    penalty, groups = problem.penalty, problem.groups
    reason = _outside(problem)
    if not reason and penalty.l1_ratio > 0.0:
        reason = "The window is stated without an l1 term, whose share of lam would move with it."
    if not reason and problem.loss.name == "multinomial":
        reason = "The outputs of the multinomial loss move together, for which no bound is made."
    if not reason and problem.loss.name not in ("squares", "huber", "logistic", "poisson"):
        reason = f"No bound of the curvature of the loss {problem.loss.name} on a ball is known."
    if not reason and not penalty.penalised.all() and problem.loss.name != "squares":
        reason = "Unpenalised groups move the best fit of a loss other than squares by an unknown amount."
    if not reason and not penalty.penalised.any():
        reason = "No group is penalised."
    if reason:
        return not_applicable(kind, reason)
    at = secants(problem)
    pulls = at.pulls
    order = np.argsort(-pulls, kind="stable")
    i = int(order[0])
    counted = np.flatnonzero(penalty.penalised)
    name = groups.names[counted[i]]
    tau = float(pulls[i]) * (1.0 - 1e-11)
    delta = tau - (float(pulls[order[1]]) * (1.0 + 1e-11) if len(order) > 1 else 0.0)
    numbers: dict[str, float | str] = {"tau": tau, "delta": delta, "group": name}
    if tau <= 0.0 or delta <= 1e-9 * tau:
        rival = groups.names[counted[int(order[1])]] if len(order) > 1 else name
        tie = f"Groups {name} and {rival} tie at tau = {tau:.6g}: no window is known."
        statement = tie if tau > 0.0 else "All gradients vanish without groups: tau = 0."
        return Certificate(kind, statement, Verdict.FAILED, numbers)
    best = _widest(at, i, tau, delta, penalty.ridge / groups.weights[counted[i]] ** 2)
    if best is None:
        statement = f"The loss is not shown to be strongly convex along group {name}, where the gradient is largest."
        return Certificate(kind, statement, Verdict.FAILED, numbers)
    lam_low, mu, M, radius = best
    numbers |= {"mu": mu, "M": M, "lam_low": lam_low, "radius": radius}
    statement = (
        f"For every lam in [{lam_low:.8g}, {tau:.8g}) the group lasso has a unique minimiser with exactly one "
        f"active group, {name}, which is {_EVERY_Q}."
    )
    caveats = ("What happens below lam_low: the window is sufficient, the same or another group may stay alone there.",)
    return Certificate(kind, statement, Verdict.PROVED, numbers, 0.0, caveats + tuple(_free_caveats(problem)))


def _widest(at: Secants, i: int, tau: float, delta: float, ridge: float) -> tuple[float, float, float, float] | None:
    """lam_low, mu, M and r of the radius that gives the smallest lam_low, or None if mu = 0 for all."""
    top = tau * (1.0 + 2e-11)
    found: list[tuple[float, float, float, float]] = []

    def attempt(r: float) -> None:
        mu, M = at.moduli(i, r)
        mu = float(mu + ridge) * (1.0 - 1e-9)
        M *= 1.0 + 1e-9
        if mu > 1e-12 * at.scale(i):
            low = max(top - delta * mu / (mu + M), top - mu * r, 0.0)
            low = float(low) * (1.0 + 1e-10)
            if low < tau:
                found.append((low, mu, M, r))

    if at.exact:
        attempt(float("inf"))
    else:
        start = tau / (at.scale(i) + ridge)
        for r in start * 2.0 ** np.arange(-12.0, 7.0):
            attempt(float(r))
        for factor in (0.6, 0.8, 1.25, 1.6) if found else ():
            attempt(min(found)[3] * factor)
    return min(found, default=None)


def _outside(problem: Problem) -> str:
    """Why Theorem 1.1 says nothing of this problem, or nothing."""
    penalty = problem.penalty
    if isinstance(penalty, AtMost):
        return "The theorem is about penalties, not about a number of groups."
    if isinstance(penalty, Composite):
        return not_admissible(penalty)
    if not penalty.is_group_lasso:
        return f"The theorem is about problem (1), and the penalty with q = {penalty.q} is separable."
    return ""


def _unbounded(problem: Problem) -> str:
    if problem.loss.curvature_bound() is None:
        return f"The curvature of the loss {problem.loss.name} has no bound, so no ball holds the dual optimum."
    return ""


def _strictly_convex(problem: Problem) -> bool:
    """Whether equal losses and one dual point fix z, up to a shift common to the outputs of a sample."""
    strict = problem.loss.name in ("squares", "logistic", "poisson", "multinomial")
    return strict or problem.penalty.ridge > 0.0


def _free_caveats(problem: Problem) -> list[str]:
    out = []
    if not problem.penalty.penalised.all():
        out.append("That a minimiser exists, and that the unpenalised coefficients are unique: their columns decide.")
    if problem.loss.sums_to_zero and problem.intercept:
        out.append("That the intercepts are unique: a constant added to all of them changes nothing.")
    return out
