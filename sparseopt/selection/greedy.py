"""Greedy selection: one group after another, and one back where that costs little.

    omp                 add argmax_g score_g = ||grad_g L|| / omega_g, refit, repeat         orthogonal matching pursuit
    omp, by="gain"      add the group that lowers the objective most once all members adapt  (orthogonal least squares)
    forward_backward    as omp; after each step drop the member whose loss is below `share` of what the step gained

For a loss that is mu-strongly convex on k + s groups and L1-smooth on single groups, and any w of k groups, s steps of
omp shrink the excess F(w_s) - F(w) by 1 - mu / (k L1) each (omega = 1): constants in `certificates.approximation`.

References: Lozano, Swirszcz, Abe (2009), "Group orthogonal matching pursuit for variable selection and prediction";
Zhang (2011), "Adaptive forward-backward greedy algorithm for learning sparse representations", IEEE Trans. IT 57.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sparseopt.problem import Problem
from sparseopt.selection.fit import Fit, model, refit
from sparseopt.solution import Status

__all__ = ["best_gain", "forward_backward", "grow", "omp"]


def omp(problem: Problem, k: int, start: Fit | None = None, *, by: str = "score") -> tuple[Fit, Status, int]:
    """Group orthogonal matching pursuit; grows `start` to k groups, never shrinks it.

    Parameters
    ----------
    by : str
        "score": gradient norm over weight. "gain": the decrease of the objective itself, for losses other than squares
        that of the quadratic that touches the loss.

    Notes
    -----
    Ends with fewer than k groups if no group outside pulls any more: then the fit is a minimum over all groups.
    """
    if by not in ("score", "gain"):
        raise ValueError(f"by is {by!r}, which is unknown: choose 'score' or 'gain'.")
    choose = best_gain if by == "gain" else lambda fit: int(fit.outside[np.argmax(fit.scores[fit.outside])])
    return grow(problem, k, start, choose)


def grow(problem: Problem, k: int, start: Fit | None, choose: Callable[[Fit], int]) -> tuple[Fit, Status, int]:
    """Add the group that `choose` names until there are k, or no group outside pulls any more."""
    null = refit(problem, [])
    fit = null if start is None else start
    steps = 0
    while len(fit.chosen) < k and fit.outside.size and fit.scores[fit.outside].max() > null.at_rest:
        fit = refit(problem, np.append(fit.chosen, choose(fit)), fit)
        steps += 1
    return fit, Status.LOCAL, steps


def forward_backward(
    problem: Problem, k: int, start: Fit | None = None, *, share: float = 0.5
) -> tuple[Fit, Status, int]:
    """Forward steps as in `omp`, backward steps while they cost less than `share` of the last forward gain.

    Parameters
    ----------
    share : float in (0, 1)
        Below 1, so that the objective falls from one forward step to the next at equal size, and the method ends.
    """
    if not 0.0 < share < 1.0:
        raise ValueError(f"share is {share}: pass a number between 0 and 1.")
    null = refit(problem, [])
    least = null.at_rest
    fit = null if start is None else start
    gained: dict[int, float] = {}  # by the step that led to this number of groups
    steps = 0
    while len(fit.chosen) < k and fit.outside.size and fit.scores[fit.outside].max() > least:
        g = int(fit.outside[np.argmax(fit.scores[fit.outside])])
        grown = refit(problem, np.append(fit.chosen, g), fit)
        gained[len(grown.chosen)] = fit.value - grown.value
        fit = grown
        steps += 1
        while len(fit.chosen) > 1:
            cheapest, fewer = _cheapest(fit)
            if cheapest == g or fewer.value - fit.value > share * gained.get(len(fit.chosen), 0.0):
                break
            fit = fewer
            steps += 1
    return fit, Status.LOCAL, steps


def best_gain(fit: Fit, pool: NDArray[np.int64] | None = None) -> int:
    """The group that would lower the objective most; see `Span.gains`."""
    span = model(fit, pool)
    return int(span.pool[int(np.argmax(span.gains()))])


def _cheapest(fit: Fit) -> tuple[int, Fit]:
    """The member whose removal costs least, by the model of the loss, and the fit without it."""
    span = model(fit, fit.chosen)
    g = span.members[int(np.argmin(span.losses()))]
    return g, refit(fit.problem, fit.chosen[fit.chosen != g], fit)
