"""Orthogonal matching pursuit with replacement: keep k groups, and replace one of them at each step.

    x = argmin on S          i = the group outside S that pulls most          j = argmin_{g in S} omega_g ||x_g||
    S <- S - {j} + {i}

Algorithm 2 of arXiv 2402.17902 asks problem (1) for i, just below the threshold tau_S of lam with S free (not at "lam
sufficiently large", where nothing is active); by="q" does, by="score" takes the gradient, which is the same choice in
that window. If k >= k* kappa^2, with kappa = L2 / mu_{k + k*} the restricted condition number, every step shrinks the
excess over the best k* groups by 1 - 1 / (k* kappa): `certificates.approximation` computes whether an instance has such
constants.

Without them the steps need not lower the objective, and may come back to a set made before. So a step that raises the
objective is not taken, steps that keep it are taken until a set returns, and the best set is what counts.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sparseopt.problem import Problem
from sparseopt.regularizers import LogSum, get_regularizer
from sparseopt.selection.fit import Fit, refit
from sparseopt.selection.greedy import omp
from sparseopt.selection.sequential import next_by_penalty
from sparseopt.solution import Status

__all__ = ["ompr"]

_EQUAL = 1e-12  # objectives closer than this share of that without groups are equal up to rounding


def ompr(
    problem: Problem,
    k: int,
    start: Fit | None = None,
    *,
    by: str = "score",
    penalty: Any = None,
    lam_share: float = 0.999,
    max_steps: int = 1000,
) -> tuple[Fit, Status, int]:
    """Group OMP with replacement, from `start` grown by OMP to k groups.

    Parameters
    ----------
    by : str
        "score", or "q": which group enters, see the top of this file.
    penalty : regularizer, name or class, optional
        q for by="q"; default LogSum with eps = 1.
    lam_share : float in (0, 1)
        lam over tau_S for by="q".
    max_steps : int
        Limit of replacements.

    Notes
    -----
    Ends as CONVERGED if nothing outside pulls (a minimum over all groups), LOCAL if the replacement would raise the
    objective, CYCLING if replacements that keep it led back to a set.
    """
    if by not in ("score", "q"):
        raise ValueError(f"by is {by!r}, which is unknown: choose 'score' or 'q'.")
    if not 0.0 < lam_share < 1.0:
        raise ValueError(f"lam_share is {lam_share}: pass a share of the threshold between 0 and 1.")
    q = LogSum(1.0) if penalty is None else get_regularizer(penalty)
    null = refit(problem, [])
    least, equal = null.at_rest, max(_EQUAL * abs(null.value), null.rounding)
    fit, _, steps = omp(problem, k, start)
    seen = {fit.chosen.tobytes()}
    for _ in range(max_steps):
        if not fit.outside.size or fit.scores[fit.outside].max() <= least:
            return fit, Status.CONVERGED, steps
        if not fit.chosen.size:
            return fit, Status.LOCAL, steps
        if by == "score":
            i = int(fit.outside[np.argmax(fit.scores[fit.outside])])
        else:
            i = next_by_penalty(fit, q, lam_share)
        sizes = (problem.groups.weights * problem.groups.norms(fit.W))[fit.chosen]
        j = int(fit.chosen[np.argmin(sizes)])
        trial = refit(problem, np.append(fit.chosen[fit.chosen != j], i), fit)
        steps += 1
        if trial.value > fit.value + equal:
            return fit, Status.LOCAL, steps
        fit = trial if trial.value < fit.value - equal or trial.chosen.tobytes() not in seen else fit
        if trial.chosen.tobytes() in seen:
            return fit, Status.CYCLING, steps
        seen.add(trial.chosen.tobytes())
    return fit, Status.MAX_EPOCHS, steps
