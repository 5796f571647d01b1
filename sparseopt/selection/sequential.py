"""Which group enters next, asked of a regularized problem instead of the gradient.

With the chosen groups S free and all others penalised, the threshold is tau_S = max_{g not in S} ||grad_g L|| / omega_g
at the fit on S. Just below it,

    lasso      the group lasso has exactly one active group outside S, for lam in [tau_S - delta mu / (mu + M), tau_S)
    q          so has problem (1), L(w) + lam q^-1(sum_g q(omega_g ||w_g||)), for every increasing subadditive q
    softmax    L(A o w) + decay / 2 ||w||^2 with A = m softmax(l) on the m groups outside S, A = 1 on S: minimised over
               l, too, this is decay m^-2 (sum_g ||u_g||^(2/3))^3 / 2 in u = A o w, whose minimiser has one group
               outside S for large decay

and in the window it is the group that OMP takes. So Sequential LASSO, sequential selection by problem (1) and
Sequential Attention are OMP, reached by regularization; `lam_share` = lam / tau_S says how far below the threshold they
look. A smaller share looks further and may choose another group: only the window guarantees the choice.

References: Luo, Chen (2014), "Sequential Lasso cum EBIC for feature selection with ultra-high dimensional feature
space", JASA 109; Yasuda et al. (2023), "Sequential attention for feature selection", ICLR; arXiv 2402.17902.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparseopt.designs import block_curvature, take_columns
from sparseopt.groups import Groups
from sparseopt.penalty import Composite, Penalty
from sparseopt.problem import Problem
from sparseopt.regularizers import L2, LogSum, get_regularizer
from sparseopt.selection.fit import Fit
from sparseopt.selection.greedy import grow
from sparseopt.solution import ConvergenceWarning, Status
from sparseopt.solvers import bcd

__all__ = ["next_by_mask", "next_by_penalty", "sequential"]

Array = NDArray[np.float64]


def sequential(
    problem: Problem,
    k: int,
    start: Fit | None = None,
    *,
    by: str = "lasso",
    penalty: Any = None,
    lam_share: float = 0.99,
    decay: float | None = None,
) -> tuple[Fit, Status, int]:
    """Sequential LASSO, Sequential Attention, or the same by problem (1).

    Parameters
    ----------
    by : str
        "lasso", "q" or "softmax".
    penalty : regularizer, name or class, optional
        q for by="q"; default LogSum with eps = 1.
    lam_share : float in (0, 1)
        lam over the threshold tau_S, for "lasso" and "q".
    decay : float > 0, optional
        Strength of the squared norm for "softmax"; default 10 m^2 times the largest curvature of a group outside, so
        that a single group's coefficients stay a tenth of its Newton step.
    """
    choices: dict[str, Callable[[Fit], int]] = {
        "lasso": lambda fit: next_by_penalty(fit, L2(), lam_share),
        "q": lambda fit: next_by_penalty(fit, LogSum(1.0) if penalty is None else get_regularizer(penalty), lam_share),
        "softmax": lambda fit: next_by_mask(fit, decay),
    }
    if by not in choices:
        raise ValueError(f"by is {by!r}, which is unknown: choose 'lasso', 'q' or 'softmax'.")
    if not 0.0 < lam_share < 1.0:
        raise ValueError(f"lam_share is {lam_share}: pass a share of the threshold between 0 and 1.")
    return grow(problem, k, start, choices[by])


def next_by_penalty(fit: Fit, q: Any, lam_share: float) -> int:
    """The group outside with the largest omega_g ||w_g|| in the penalised problem at lam_share times the threshold.

    Solved by block descent from the fit. Problem (1) is not convex, but zero is stationary there only up to tau_S, and
    block descent from the fit leads to the group lasso's minimiser, which is its own by Theorem 1.1.
    """
    problem, groups = fit.problem, fit.problem.groups
    weights = groups.weights.copy()
    # `Penalty` spares groups of weight 0 the ridge, too; a weight of next to nothing keeps it on the chosen ones.
    weights[fit.chosen] = 1e-10 * weights.max() if problem.penalty.ridge else 0.0
    free = Groups(groups.indices, groups.indptr, weights, groups.names)
    tau = float(fit.scores[fit.outside].max())
    kind = Penalty if isinstance(q, L2) else Composite
    penalised = replace(problem, penalty=kind(q, free, lam_share * tau, 0.0, problem.penalty.ridge))
    one = fit.W.shape[1] == 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # which group is largest shows long before 1e-8
        w = bcd(penalised, (fit.W[:, 0] if one else fit.W, float(fit.b[0]) if one else fit.b), tol=1e-8).w
    size = groups.weights * groups.norms(w)
    outside = fit.outside
    # Nothing is active if lam_share is so close to 1 that the solver's accuracy leaves nothing: the gradient decides.
    decides = size if size[outside].max() > 0.0 else fit.scores
    return int(outside[np.argmax(decides[outside])])


def next_by_mask(fit: Fit, decay: float | None) -> int:
    """The group outside with the largest masked norm ||A_g w_g||, mask and coefficients minimised together.

    By L-BFGS from w = the fit and equal logits: with large decay the loss is linear as far as coefficients reach, and
    the mask moves to the group of steepest descent. Columns are divided by omega_g, so that weights count as elsewhere.
    """
    from scipy.optimize import minimize

    problem, groups, loss = fit.problem, fit.problem.groups, fit.problem.loss
    outside = fit.outside
    m, K = len(outside), loss.n_outputs
    design = take_columns(problem.design, groups.features(outside))
    owner = np.repeat(np.arange(m), groups.sizes[outside])
    omega = groups.weights[outside]
    z = problem.predictor(fit.W, fit.b)
    if decay is None:
        L = block_curvature(problem.design, groups, loss.curvature(z), outside) + problem.penalty.ridge
        decay = 10.0 * m**2 * float((L / omega**2).max())
    elif not decay > 0.0:
        raise ValueError(f"decay is {decay}: pass a number > 0.")
    unit = float(fit.scores[outside].max()) * m / decay  # the size of coefficients; logits are of size 1

    def objective(x: Array) -> tuple[float, Array]:
        v, logits = unit * x[:-m].reshape(-1, K), x[-m:]
        e = np.exp(logits - logits.max())
        mask = m * e / e.sum()
        factor = (mask / omega)[owner][:, None]
        at = z + design.matvec(factor * v)
        pull = design.rmatvec(loss.derivative(at))
        slope = np.bincount(owner, (pull * v / omega[owner][:, None]).sum(axis=1), m)
        gradient = np.concatenate(
            [unit * (factor * pull + decay * v).ravel(), mask * (slope - float(mask @ slope) / m)]
        )
        value = loss.value(at) + 0.5 * decay * float(np.vdot(v, v))
        return scale * value, scale * gradient

    scale = 1.0 / max(decay * unit**2, np.finfo(np.float64).tiny)

    def decided(x: Array) -> None:
        e = np.exp(x[-m:] - x[-m:].max())
        if e.max() > 0.95 * e.sum():
            raise StopIteration

    first = np.zeros(len(owner) * K + m)
    x = minimize(objective, first, jac=True, method="L-BFGS-B", callback=decided, options={"maxiter": 500}).x
    size = np.sqrt(np.bincount(owner, (x[:-m].reshape(-1, K) ** 2).sum(axis=1), m)) * np.exp(x[-m:] - x[-m:].max())
    return int(outside[np.argmax(size)])
