"""Newton's method for a loss on a few columns.

    minimise over v (m, K)    L(C v) + sum_j rho_j ||v_j||^2 / 2

with the Hessian of the loss, damped by halving; where that is no descent, with a bound of the Hessian. Losses that add
up over outputs are solved output by output, multinomial with one Hessian for all of them. Huber's loss is flat in the
second order beyond its knots: there the curvature of its majoriser, next to nothing of it, keeps the Hessian definite.

Ends when a step promises less than 2e-16 of the objective without features. Where the infimum is not attained
(separable classes), steps grow the coefficients until the objective is that close to it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dpotrf, dpotrs

from sparseopt.losses import Huber, Loss, Multinomial
from sparseopt.solution import ConvergenceWarning

__all__ = ["newton"]

Array = NDArray[np.float64]

_STEPS = 500
_FLAT = 1e-6


def newton(loss: Loss, columns: Array, ridge: Array, starts: Sequence[Array], below: float = np.inf) -> Array:
    """argmin_v L(columns v) + sum_j ridge_j ||v_j||^2 / 2, v of shape (m, K), from the best of the starts.

    Ends early, somewhere above `below`, when a Newton step promises too little to get below it.
    """
    if not columns.shape[1]:
        return starts[0]
    if loss.n_outputs > 1 and not isinstance(loss, Multinomial):
        parts = []
        for k in range(loss.n_outputs):
            one = slice(k, k + 1)
            offset = None if loss.offset is None else loss.offset[:, one]
            alone = replace(loss, y=loss.y[:, one], offset=offset)
            parts.append(newton(alone, columns, ridge, [v[:, one] for v in starts]))
        return np.hstack(parts)
    null = loss.value(np.zeros((len(columns), loss.n_outputs)) + loss.null_intercept())

    def objective(v: Array) -> float:
        with np.errstate(over="ignore", invalid="ignore"):  # a step too far is halved, whatever it gives
            return loss.value(columns @ v) + 0.5 * float(ridge @ (v**2).sum(axis=1))

    values = [objective(v) for v in starts]
    first = int(np.nanargmin(values))
    v, value = starts[first], values[first]
    for _ in range(_STEPS):
        z = columns @ v
        gradient = columns.T @ loss.derivative(z) + ridge[:, None] * v
        best, refined = (value, v), None
        for hessian in (_hessian, _bound):
            step = _solve(hessian(loss, columns, z), ridge, gradient)
            promised = -float((gradient * step).sum())
            if promised <= 2e-16 * null:
                # The bound lies above the Hessian and promises less; if not, rounding has taken a direction from it.
                refined = v + step if refined is None else refined
                continue
            # Far from the minimum a step may promise much less than there is to gain; close to it, about twice as much.
            if promised < 0.1 * value and value - 2.0 * promised > below and hessian is _hessian:
                return v
            t, trial = 1.0, value
            for _ in range(40):
                trial = objective(v + t * step)
                if trial <= value - 1e-4 * t * promised:
                    break
                t *= 0.5
            if trial < best[0]:
                best = trial, v + t * step
            if t > 0.01:  # a shorter Newton step says that the Hessian misleads: the bound may do better
                break
        else:
            if refined is not None and best[0] >= value - 1e-15 * abs(null):
                # Next to the minimum rounding decides which value is smaller; the step promises a smaller gradient.
                return refined if objective(refined) <= value + 1e-14 * abs(null) else v
        if best[0] >= value:
            return v
        value, v = best
    warnings.warn(
        f"The fit of {len(v)} features by the loss {loss.name} is not a minimum after {_STEPS} Newton steps: "
        "scale the columns, or add a ridge.",
        ConvergenceWarning,
        stacklevel=2,
    )
    return v


def _hessian(loss: Loss, columns: Array, z: Array) -> Array:
    """Hessian in v, (m, m), or (mK, mK) with the outputs of a feature side by side for multinomial."""
    if not isinstance(loss, Multinomial):
        c = loss.curvature(z)
        if isinstance(loss, Huber):
            c = np.where(np.abs(loss.derivative(z))[:, 0] < loss.s * loss.delta, loss.s, _FLAT * _majoriser(loss, z))
        return (columns * c[:, None]).T @ columns
    p = loss.mean(z)
    m, K = columns.shape[1], p.shape[1]
    rest = np.stack([np.delete(p, k, axis=1).sum(axis=1) for k in range(K)], axis=1)  # 1 - p without cancellation
    H = np.empty((m, K, m, K))
    for k in range(K):
        H[:, k, :, k] = (columns * (loss.s * p[:, k] * rest[:, k])[:, None]).T @ columns
        for other in range(k):
            H[:, k, :, other] = -(columns * (loss.s * p[:, k] * p[:, other])[:, None]).T @ columns
            H[:, other, :, k] = H[:, k, :, other]
    return H.reshape(m * K, m * K)


def _bound(loss: Loss, columns: Array, z: Array) -> Array:
    bound = _majoriser(loss, z) if isinstance(loss, Huber) else loss.curvature_bound()
    return (columns * (loss.curvature(z) if bound is None else bound)[:, None]).T @ columns


def _majoriser(loss: Huber, z: Array) -> Array:
    """s min(1, delta / |r|): the parabola with this curvature that touches Huber's loss at z lies above it."""
    shift = 0.0 if loss.offset is None else loss.offset
    r = np.abs(z + shift - loss.y)[:, 0]
    return loss.s * loss.delta / np.maximum(r, loss.delta)


def _solve(hessian: Array, ridge: Array, gradient: Array) -> Array:
    """-(hessian + ridge)^+ gradient, in the scale in which the diagonal is one."""
    m, K = gradient.shape
    H = hessian + np.diag(np.repeat(ridge, len(hessian) // m))
    scale = 1.0 / np.sqrt(np.where(H.diagonal() > 0.0, H.diagonal(), 1.0))
    H, right = scale[:, None] * H * scale, scale[:, None] * gradient.reshape(len(H), -1)
    factor, failed = dpotrf(H, lower=1)
    if not failed and factor.diagonal().min() > 1e-6:
        step = dpotrs(factor, right, lower=1)[0]
    else:  # columns depend on each other
        step = np.linalg.lstsq(H, right, rcond=1e-13)[0]
    return -(scale[:, None] * step).reshape(m, K)
