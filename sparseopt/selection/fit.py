"""The fit on chosen groups, and what the other groups are worth there: the two things that every selector asks.

    refit    F_S = min { L(Xw + b) + ridge / 2 ||w||^2 :  w_g = 0 outside S }         S, intercept and always-in groups
    score    ||grad_g L|| / omega_g at the fit                                        how hard group g pulls
    model    the quadratic that touches L at the fit, as a `Span`                     what g would bring

Least squares: `refit` lets groups enter and leave the last basis. Other losses: `newton` on the chosen columns, from
the last fit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparseopt.cardinality import AtMost
from sparseopt.designs import dense_columns
from sparseopt.losses import Loss
from sparseopt.problem import Problem
from sparseopt.selection.basis import Basis
from sparseopt.selection.newton import newton
from sparseopt.selection.span import Span
from sparseopt.solution import Solution, Status

__all__ = ["Fit", "as_subset_problem", "fit_of", "model", "refit", "score", "solution_of"]

Array = NDArray[np.float64]

_PERFECT = 1e-28  # of the loss at z = 0


@dataclass(frozen=True, eq=False)
class Fit:
    """The minimiser on a set of groups.

    Parameters
    ----------
    problem : Problem
        With any penalty; its groups, weights, ridge and intercept count.
    chosen : (m,) integers
        The groups that were free, sorted; always-in groups are not among them.
    W, b : (p, K) and (K,) arrays
        Coefficients and intercept.
    A : (n, K) array
        dL/dz at the fit.
    value : float
        Loss plus ridge term.
    basis : Basis, optional
        For least squares: where the next fit starts.
    """

    problem: Problem
    chosen: NDArray[np.int64]
    W: Array
    b: Array
    A: Array
    value: float
    basis: Basis | None = None

    @cached_property
    def scores(self) -> Array:
        """`score` at this fit."""
        return score(self.problem, self.A)

    @cached_property
    def rounding(self) -> float:
        """Differences of the objective that are rounding.

        Predictors carry an error of eps |y|, so a sum of squares F one of eps |y| sqrt(F), and one of eps^2 |y|^2 where
        the fit is perfect; |y|^2 is measured by the loss at z = 0.
        """
        return 1e-15 * float(np.sqrt(self._unfitted * max(self.value, 0.0))) + _PERFECT * self._unfitted

    @property
    def at_rest(self) -> float:
        """Scores up to this one are rounding, where this is the fit without groups; inf if that fit is perfect."""
        return 1e-12 * float(self.scores.max(initial=0.0)) if self.value > _PERFECT * self._unfitted else np.inf

    @cached_property
    def _unfitted(self) -> float:
        return self.problem.loss.value(np.zeros_like(self.problem.loss.y))

    @property
    def outside(self) -> NDArray[np.int64]:
        """Groups that were not free, (G - m,)."""
        left = self.problem.penalty.penalised.copy()
        left[self.chosen] = False
        return np.flatnonzero(left)


def as_subset_problem(problem: Problem, k: int) -> Problem:
    """The problem with its penalty replaced by `AtMost` k groups and the same ridge."""
    penalty = problem.penalty
    return replace(problem, penalty=AtMost(penalty.groups, k, penalty.ridge))


def solution_of(fit: Fit, k: int, status: Status, steps: int, seconds: float) -> Solution:
    """A fit as the solution of the problem of at most k groups."""
    one = fit.W.shape[1] == 1
    return Solution(
        fit.W[:, 0] if one else fit.W,
        float(fit.b[0]) if one else fit.b,
        as_subset_problem(fit.problem, k),
        status,
        steps,
        seconds,
    )


def score(problem: Problem, A: Array) -> Array:
    """||X_g'A|| / omega_g, (n_groups,), the pull of each group per unit of weight; -inf for always-in groups.

    The group of largest score is the first to enter the group lasso, and every problem (1), as lam falls below it.
    """
    seen = problem.penalty.penalised
    norms = problem.groups.norms(problem.design.rmatvec(A))
    return np.where(seen, norms / np.where(seen, problem.groups.weights, 1.0), -np.inf)


def refit(problem: Problem, chosen: ArrayLike, last: Fit | None = None, below: float = np.inf) -> Fit:
    """The minimiser on the groups `chosen`, started from another fit of the same problem.

    With `below`, a fit whose minimum is not below that number may be left unfinished, with a larger value.

    Least squares are solved to rounding, other losses until a Newton step promises less than 1e-16 of the objective
    without features. Where the infimum is not attained (separable classes), the coefficients are those at which the
    objective is that close to it.
    """
    chosen = np.unique(np.asarray(chosen, np.int64))
    loss = problem.loss
    if loss.is_quadratic:
        if last is not None and last.basis is not None:
            basis = last.basis.copy()
        else:
            basis = Basis(problem, loss.s, _response(loss))
        basis.move(chosen)
        return fit_of(basis)
    groups, penalised = problem.groups, problem.penalty.penalised
    member = ~penalised
    member[chosen] = True
    features = groups.features(np.flatnonzero(member))
    columns = dense_columns(problem.design, features)
    ridge: Array = problem.penalty.ridge * penalised[groups.group_of[features]].astype(np.float64)
    cold = np.zeros((len(features), loss.n_outputs))
    starts = [cold] if last is None else [last.W[features], cold]
    if problem.intercept:
        columns, ridge = np.column_stack([columns, np.ones(len(columns))]), np.append(ridge, 0.0)
        intercepts = [loss.null_intercept()] if last is None else [last.b, loss.null_intercept()]
        starts = [np.vstack([v, b]) for v, b in zip(starts, intercepts, strict=True)]
    v = newton(loss, columns, ridge, starts, below)
    W = np.zeros((problem.design.shape[1], loss.n_outputs))
    W[features] = v[: len(features)]
    b = v[-1] if problem.intercept else np.zeros(loss.n_outputs)
    z = columns @ v
    return Fit(problem, chosen, W, b, loss.derivative(z), loss.value(z) + 0.5 * float((ridge[:, None] * v**2).sum()))


def fit_of(basis: Basis) -> Fit:
    """The fit of a basis, for least squares."""
    W, b = basis.coefficients()
    A = -basis.root[:, None] * basis.residual
    return Fit(basis.problem, basis.chosen, W, b, A, basis.value, basis)


def model(fit: Fit, pool: ArrayLike | None = None) -> Span:
    """The quadratic that touches the loss at a fit, on the groups of a pool; its members are the chosen groups.

    For least squares the loss itself. Otherwise the curvature at the fit, kept above a tenth of its bound so that
    samples that are fitted perfectly do not promise gains of any size.
    """
    problem, loss = fit.problem, fit.problem.loss
    if loss.is_quadratic:
        known = fit.basis
        if isinstance(known, Span) and (pool is None or np.array_equal(pool, known.pool)):
            span = known.copy()
        else:
            span = Span(problem, loss.s, _response(loss), pool)
    else:
        z = problem.predictor(fit.W, fit.b)
        c, bound = loss.curvature(z), loss.curvature_bound()
        least = 0.1 * bound if bound is not None else np.full(len(c), 1e-3 * c.mean())
        c = np.where(loss.s > 0.0, np.maximum(c, least), 0.0)
        span = Span(problem, c, z - fit.A / np.where(c > 0.0, c, 1.0)[:, None], pool)
    span.move(fit.chosen)
    return span


def _response(loss: Loss) -> Array:
    return loss.y if loss.offset is None else loss.y - loss.offset
