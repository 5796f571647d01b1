"""Iterative hard thresholding: gradient steps, projected on the sets of at most k groups.

    v = w - t grad L(w)          w <- the k groups of v that are worth most, refitted

`AtMost.prox` is the projection. The step is adaptive: first ||g_S||^2 / (g_S' H g_S), the exact one on the current
groups (normalised IHT), then halved until the objective falls. Refitting on the new groups instead of taking v itself
(hard thresholding pursuit) removes the bias and makes the iteration one over sets: it ends when a set returns.

References: Blumensath, Davies (2010), "Normalized iterative hard thresholding", IEEE J-STSP 4; Foucart (2011), "Hard
thresholding pursuit", SIAM J. Numer. Anal. 49.
"""

from __future__ import annotations

from dataclasses import replace

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
    if k == 0:
        return refit(problem, []), Status.LOCAL, 0
    fit = refit(problem, []) if start is None else start
    seen = set() if start is None else {fit.chosen.tobytes()}
    best = fit
    ridged = problem.groups.expand(penalty.penalised)[:, None] * penalty.ridge
    for step in range(1, max_steps + 1):
        W, value = fit.W, fit.value
        gradient = problem.design.rmatvec(fit.A) + ridged * W
        t = _exact_step(problem, penalty, gradient, W, debias)
        for _ in range(60):
            V = AtMost(problem.groups, k).prox(W - t * gradient, t)  # the ridge is in the gradient
            trial = _with_free_part(problem, V)
            moved = float(((V - W) ** 2).sum())
            if trial.value <= value - 1e-4 * moved / t:
                break
            t *= 0.5
        else:
            return refit(problem, best.chosen, best), Status.LOCAL, step
        fit = refit(problem, trial.chosen, best) if debias else trial
        best = fit if fit.value < best.value or not best.chosen.size else best
        if (debias and fit.chosen.tobytes() in seen) or value - fit.value <= tol * abs(value):
            return refit(problem, best.chosen, best), Status.LOCAL, step
        seen.add(fit.chosen.tobytes())
    return refit(problem, best.chosen, best), Status.MAX_EPOCHS, max_steps


def _exact_step(problem: Problem, penalty: AtMost, gradient: Array, W: Array, debias: bool) -> float:
    """||g_S||^2 / (g_S' H g_S), S the current groups; the k that pull most if these are at rest, or there are none."""
    groups = problem.groups
    members = (groups.norms(W) > 0.0) & penalty.penalised
    if debias or not members.any():
        order = np.argsort(-np.where(penalty.penalised, groups.norms(gradient), -1.0), kind="stable")
        members = np.zeros(len(groups), dtype=np.bool_)
        members[order[: penalty.k]] = True
    g = gradient * groups.expand(members & penalty.penalised)[:, None]
    c = problem.loss.curvature(problem.predictor(W))
    size = float(np.vdot(g, g))
    bend = float(c @ (problem.predictor(g) ** 2).sum(axis=1)) + penalty.ridge * size
    return size / bend if bend > 0.0 and size > 0.0 else 1.0 / max(float(c.sum()), 1e-300)


def _with_free_part(problem: Problem, V: Array) -> Fit:
    """V with the best intercept and the best coefficients of always-in groups, which no threshold touches."""
    counted = problem.groups.expand(problem.penalty.penalised)[:, None]
    V = V * counted
    shift = problem.predictor(V)
    loss = problem.loss
    moved = replace(problem, loss=replace(loss, offset=shift if loss.offset is None else shift + loss.offset))
    free = refit(moved, [])
    chosen = np.flatnonzero((problem.groups.norms(V) > 0.0) & problem.penalty.penalised)
    value = free.value + 0.5 * problem.penalty.ridge * float(np.vdot(V, V))
    return Fit(problem, chosen, V + free.W, free.b, free.A, value)
