"""Iterative hard thresholding: gradient steps, projected on the sets of at most k groups.

    v = w - t grad L(w)          w <- the k groups of v that are worth most, refitted

`AtMost.prox` is the projection. The step is adaptive: first ||g_S||^2 / (g_S' H g_S), the exact one on the current
groups (normalised IHT), then halved until the objective falls. Refitting on the new groups instead of taking v itself
(hard thresholding pursuit) removes the bias and makes the iteration one over sets: it ends when a set returns.

References: Blumensath, Davies (2010), "Normalized iterative hard thresholding", IEEE J-STSP 4; Foucart (2011), "Hard
thresholding pursuit", SIAM J. Numer. Anal. 49.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sparseopt.cardinality import AtMost
from sparseopt.problem import Problem
from sparseopt.selection.fit import Fit, refit
from sparseopt.solution import Status

__all__ = ["iht"]

Array = NDArray[np.float64]


def iht(
    problem: Problem, k: int, start: Fit | None = None, *, debias: bool = True, max_steps: int = 1000, tol: float = 1e-8
) -> tuple[Fit, Status, int]:
    """Group IHT with adaptive step; `debias=True` refits at every step (HTP), otherwise only at the end.

    Parameters
    ----------
    debias : bool
        Refit on the groups of every step.
    max_steps : int
        Limit of steps.
    tol : float
        Without debiasing: end when the objective falls by less than this share.
    """
    penalty = AtMost(problem.groups, k, problem.penalty.ridge)
    fit = refit(problem, []) if start is None else start
    best = fit
    W, b, value = fit.W, fit.b, fit.value
    ridged = problem.groups.expand(penalty.penalised)[:, None] * penalty.ridge
    seen = {fit.chosen.tobytes()} if start is not None else set()
    if k == 0:
        return refit(problem, []), Status.LOCAL, 0
    for step in range(1, max_steps + 1):
        z = problem.predictor(W, b)
        A = problem.loss.derivative(z)
        gradient = problem.design.rmatvec(A) + ridged * W
        pull = A.sum(axis=0) if problem.intercept else np.zeros_like(b)
        t = _exact_step(problem, penalty, W, gradient, pull, problem.loss.curvature(z))
        falls = False
        for _ in range(60):
            V = _kept(penalty, W - t * gradient, t)
            at = b - t * pull
            new = problem.loss.value(problem.predictor(V, at)) + penalty.value(V)
            moved = float(((V - W) ** 2).sum() + ((at - b) ** 2).sum())
            if new <= value - 1e-4 * moved / t:
                falls = moved > 0.0
                break
            t *= 0.5
        if not falls:
            break
        if debias:
            fit = refit(problem, _active(problem, V), fit)
            best = fit if fit.value < best.value or not best.chosen.size else best
            W, b, value = fit.W, fit.b, fit.value
            if fit.chosen.tobytes() in seen:
                return best, Status.LOCAL, step
            seen.add(fit.chosen.tobytes())
        else:
            small = value - new <= tol * abs(value)
            W, b, value = V, at, new
            if small:
                break
    else:
        return refit(problem, _active(problem, W), best), Status.MAX_EPOCHS, max_steps
    return (best if debias else refit(problem, _active(problem, W), fit)), Status.LOCAL, step


def _exact_step(problem: Problem, penalty: AtMost, W: Array, gradient: Array, pull: Array, c: Array) -> float:
    """||g_S||^2 / (g_S' H g_S) on the current groups, or, before there are any, on the k that pull most."""
    groups = problem.groups
    members = (groups.norms(W) > 0.0) | ~penalty.penalised
    if not members[penalty.penalised].any():
        order = np.argsort(-np.where(penalty.penalised, groups.norms(gradient), -1.0), kind="stable")
        members[order[: penalty.k]] = True
    g = gradient * groups.expand(members)[:, None]
    along = problem.predictor(g, pull)
    bend = float(c @ (along**2).sum(axis=1)) + penalty.ridge * float(np.vdot(g, g))
    size = float(np.vdot(g, g) + pull @ pull)
    return size / bend if bend > 0.0 and size > 0.0 else 1.0 / max(float(c.sum()), 1e-300)


def _kept(penalty: AtMost, V: Array, t: float) -> Array:
    """The k groups of V of largest norm: the ridge is in the gradient already."""
    return AtMost(penalty.groups, penalty.k).prox(V, t)


def _active(problem: Problem, W: Array) -> NDArray[np.int64]:
    return np.flatnonzero((problem.groups.norms(W) > 0.0) & problem.penalty.penalised)
