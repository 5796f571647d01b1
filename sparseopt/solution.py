"""Answers: coefficients with the problem they belong to, one of them or a path of them.

A `Solution` recomputes what it says of itself (objective, gap, stationarity) from the problem and the coefficients, so
its figures do not depend on the solver that found it. A `Path` stores the nonzero rows of every solution only, and the
objective and accuracy that the solver reported for each.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparseopt.designs import as_design, block_grams, nearby
from sparseopt.optimality import DualityGap, duality_gap, stationarity
from sparseopt.penalty import Penalty
from sparseopt.problem import Problem

__all__ = ["BoundProof", "ConvergenceWarning", "Path", "Solution", "Start", "Status", "given_point"]

Array = NDArray[np.float64]
Start: TypeAlias = "Solution | tuple[ArrayLike, ArrayLike] | None"  # where solvers begin: a solution, or (w, b)


class ConvergenceWarning(UserWarning):
    """The requested accuracy was not reached."""


class Status(Enum):
    """How a solver ended; the value is a sentence."""

    CONVERGED = "The requested accuracy was reached."
    MAX_EPOCHS = "The limit was reached first: raise max_epochs (max_iter of fista, max_steps of selectors)."
    OPTIMAL = "Proved optimal: the lower bound meets the objective."
    LOCAL = "No move of the method lowers the objective: a local optimum, not proved to be the best choice."
    CYCLING = "The replacements came back to a choice made before: the best choice seen is returned."
    TIME_LIMIT = "Time ran out first: the lower bound says how far from the optimum this can be."
    STALLED = "The objective stopped falling before the requested accuracy: rounding allows no more, loosen tol."

    @property
    def ok(self) -> bool:
        """Whether the method ended as it should: accuracy reached, optimality proved, or no move left."""
        return self in (Status.CONVERGED, Status.OPTIMAL, Status.LOCAL)


@dataclass(frozen=True, eq=False)
class BoundProof:
    """What proves a lower bound of the best choice of at most k groups; see `sparseopt.certificates.best_subset`.

    The choices are split into leaves, each with some groups forced in and some forced out; one dual point per leaf
    bounds the objective there, and the smallest of these bounds holds for all choices.

    Parameters
    ----------
    dual : (m, n, K) array
        A dual point for each leaf, in units of dL/dz.
    leaf_in, leaf_out : m tuples of group numbers
        Groups forced in and out. The leaves arise from splitting on one group at a time and cover all choices.
    radius : (n_groups,) array
        M_g: the bound is for all w with ||w_g|| <= M_g; inf for all w, allowed with a ridge, and where each dual point
        is orthogonal to the groups that its leaf allows.
    """

    dual: Array
    leaf_in: tuple[tuple[int, ...], ...]
    leaf_out: tuple[tuple[int, ...], ...]
    radius: Array


@dataclass(frozen=True, eq=False)
class Solution:
    """Coefficients and intercept for a problem.

    Parameters
    ----------
    w : (p,) array, or (p, K) for K > 1 outputs
        Coefficients; zeros are exact.
    intercept : float, or (K,) array
        b; 0 if the problem has none.
    problem : Problem
        What was solved.
    status : Status
        How the solver ended.
    epochs : int
        Sweeps over blocks, or iterations.
    seconds : float
        Wall time spent.
    history : tuple of (seconds, objective, accuracy)
        What the solver saw when it checked: relative duality gap if it is known, else stationarity.
    bound : float, optional
        A lower bound of the optimum that the solver proved, where it has no other dual (exact selection).
    proof : BoundProof, optional
        What proves `bound`.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt import Problem, solve
    >>> X = np.eye(6)
    >>> solution = solve(Problem.build(X, [3.0, 4.0, 0.0, 0.1, 0.0, 0.0], groups=2, lam=0.1, intercept=False))
    >>> solution.w.round(3), solution.support
    (array([2.491, 3.321, 0.   , 0.   , 0.   , 0.   ]), array([0]))
    """

    w: Array
    intercept: Any
    problem: Problem
    status: Status
    epochs: int = 0
    seconds: float = 0.0
    history: tuple[tuple[float, float, float], ...] = field(default=(), repr=False)
    bound: float | None = None
    proof: BoundProof | None = field(default=None, repr=False)

    @cached_property
    def objective(self) -> float:
        """F(w, b)."""
        return self.loss + self.problem.penalty.value(self.w)

    @cached_property
    def loss(self) -> float:
        """L(Xw + b)."""
        return self.problem.loss.value(self.problem.predictor(self.w, self.intercept))

    @cached_property
    def gap(self) -> float | None:
        """Relative gap to a lower bound of the optimum; None where none is known (q other than L2 and no `bound`)."""
        if self.bound is not None:
            return DualityGap(self.objective, self.bound).relative
        if not self.problem.penalty.is_group_lasso:
            return None
        return duality_gap(self.problem, self.w, self.intercept).relative

    @cached_property
    def stationarity(self) -> float:
        """Largest scaled prox-gradient move, see `sparseopt.optimality`."""
        return stationarity(self.problem, self.w, self.intercept)

    @cached_property
    def group_norms(self) -> Array:
        """||w_g||, (n_groups,)."""
        return self.problem.groups.norms(self.w)

    @property
    def support(self) -> NDArray[np.int64]:
        """Numbers of the groups with w_g != 0."""
        return np.flatnonzero(self.group_norms)

    @property
    def support_names(self) -> tuple[str, ...]:
        """Names of the groups with w_g != 0."""
        return tuple(self.problem.groups.names[g] for g in self.support)

    def certify(self, **options: Any) -> Any:
        """What can be proved about this solution, as a `Report`; see `sparseopt.certify`."""
        from sparseopt.evidence import certify

        return certify(self, **options)

    def linear_predictor(self, X: Any, offset: ArrayLike | None = None) -> Array:
        """X w + b + offset for new samples: (m,), or (m, K)."""
        W = self.problem.matrix(self.w)
        design = as_design(X)
        if design.shape[1] != len(W):
            raise ValueError(f"X has {design.shape[1]} columns but w has {len(W)} rows: pass the features of the fit.")
        z = design.matvec(W) + np.reshape(self.intercept, (1, -1))
        if offset is not None:
            z = z + np.asarray(offset, dtype=np.float64).reshape(len(z), -1)
        return z[:, 0] if self.w.ndim == 1 else z

    def predict(self, X: Any, offset: ArrayLike | None = None) -> Array:
        """The expected response of new samples: mean, rate or probabilities, (m,) or (m, K)."""
        z = self.linear_predictor(X, offset)
        return self.problem.loss.response(z.reshape(len(z), -1)).reshape(z.shape)

    def __str__(self) -> str:
        groups, norms = self.problem.groups, self.group_norms
        order = sorted(self.support, key=lambda g: -norms[g])
        width = max((len(groups.names[g]) for g in order[:20]), default=5)
        lines = [
            f"{len(order)} of {len(groups)} groups, objective {self.objective:.8g}, loss {self.loss:.8g}, "
            + (f"relative gap {self.gap:.1e}" if self.gap is not None else f"stationarity {self.stationarity:.1e}")
            + f", {self.epochs} epochs, {self.seconds:.3g} s",
            self.status.value,
        ]
        lines += [f"  {groups.names[g]:<{width}}  {norms[g]:.5g}" for g in order[:20]]
        if len(order) > 20:
            lines.append(f"  ... and {len(order) - 20} more")
        return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class Path(Sequence[Solution]):
    """Solutions of one problem for a sequence of lam, each as a `Solution`: `path[k]`, `for solution in path`.

    Parameters
    ----------
    problem : Problem
        The problem at any lam.
    lams : (m,) array
        The values of lam, decreasing.
    rows : tuple of (features, values)
        Per lam the numbers of the features with nonzero coefficients and those coefficients, (k, K).
    intercepts : (m,) array, or (m, K)
        Intercepts.
    objective : (m,) array
        F at each solution, as the solver reported it.
    accuracy : (m,) array
        Relative duality gap, or stationarity where no dual is known, as the solver reported it.
    statuses : tuple of Status
        How the solver ended at each lam.
    epochs, seconds : (m,) arrays
        Work per lam.
    """

    problem: Problem
    lams: Array
    rows: tuple[tuple[NDArray[np.int64], Array], ...]
    intercepts: Array
    objective: Array
    accuracy: Array
    statuses: tuple[Status, ...]
    epochs: NDArray[np.int64]
    seconds: Array

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(len(self)))]
        k = range(len(self))[index]
        problem = self.problem.at(float(self.lams[k]))
        intercept = self.intercepts[k] if self.intercepts.ndim > 1 else float(self.intercepts[k])
        return Solution(
            self._coefficients(k), intercept, problem, self.statuses[k], int(self.epochs[k]), float(self.seconds[k])
        )

    def __iter__(self) -> Iterator[Solution]:
        return (self[k] for k in range(len(self)))

    @property
    def coefs(self) -> Array:
        """All coefficients, (m, p) or (m, p, K); dense, m p K numbers."""
        return np.stack([self._coefficients(k) for k in range(len(self))])

    @cached_property
    def group_norms(self) -> Array:
        """||w_g|| for every lam, (m, n_groups)."""
        out = np.zeros((len(self), len(self.problem.groups)))
        owner = self.problem.groups.group_of
        for norms, (features, values) in zip(out, self.rows, strict=True):
            np.add.at(norms, owner[features], (values**2).sum(axis=1))
        return np.sqrt(out)

    @property
    def n_active(self) -> NDArray[np.int64]:
        """Number of nonzero groups for every lam, (m,)."""
        return np.count_nonzero(self.group_norms, axis=1)

    @cached_property
    def deviance(self) -> Array:
        """Deviance of every solution, (m,); see `Loss.deviance`."""
        problem = self._at_hand()
        return np.array([problem.loss.deviance(self._predictor(k, problem)) for k in range(len(self))])

    @cached_property
    def degrees_of_freedom(self) -> Array:
        """Effective number of parameters of every solution, (m,).

        sum_g tr[(H_g + B_g)^-1 H_g] over the active groups, plus one per intercept: H_g is the curvature of the loss
        and B_g = Omega' / u (I - w_g w_g' / u^2) + ridge I that of the penalty, Omega' its derivative in u = ||w_g||;
        its second derivative, negative where q is concave, is left out. Exact for the group lasso with orthogonal
        groups (Yuan, Lin 2006; Vaiter et al. 2012), an approximation otherwise.
        """
        problem = self._at_hand()
        known = self._settled(problem)
        return np.array([self._degrees_of_freedom(k, problem, known) for k in range(len(self))])

    def criterion(self, name: str = "bic", gamma: float = 1.0) -> Array:
        """AIC, BIC or EBIC of every solution, (m,): smaller is better.

        fit + k df, with k = 2 for "aic" and log n for "bic"; "ebic" adds 2 gamma log of the number of sets of that many
        groups. fit is the deviance, for squares and huber n log(deviance / n): the variance is unknown.

        Raises
        ------
        ValueError
            If the name is unknown.

        References
        ----------
        Chen, Chen (2008), "Extended Bayesian information criteria for model selection with large model spaces".
        """
        if name not in ("aic", "bic", "ebic"):
            raise ValueError(f"criterion is {name!r}, which is unknown: choose 'aic', 'bic' or 'ebic'.")
        loss = self.problem.loss
        n = float(np.count_nonzero(loss.s) * (loss.n_outputs if loss.name in ("squares", "huber") else 1))
        if loss.name in ("squares", "huber"):
            fit = n * np.log(np.maximum(self.deviance, 1e-300) / n)
        else:
            fit = self.deviance
        out = fit + (2.0 if name == "aic" else math.log(n)) * self.degrees_of_freedom
        if name == "ebic":
            seen = self.problem.penalty.penalised  # the others are in any model, so they are no choice
            chosen = np.count_nonzero(self.group_norms[:, seen], axis=1)
            out += 2.0 * gamma * np.array([_log_binomial(int(np.count_nonzero(seen)), int(k)) for k in chosen])
        return out

    def best(self, criterion: str = "bic", gamma: float = 1.0) -> Solution:
        """The solution with the smallest `criterion`."""
        solution: Solution = self[int(np.argmin(self.criterion(criterion, gamma)))]
        return solution

    def _coefficients(self, k: int) -> Array:
        features, values = self.rows[k]
        W = np.zeros((self.problem.design.shape[1], self.problem.n_outputs))
        W[features] = values
        return W[:, 0] if W.shape[1] == 1 else W

    def _predictor(self, k: int, problem: Problem) -> Array:
        return problem.predictor(self._coefficients(k), self.intercepts[k])

    def _at_hand(self) -> Problem:
        """The problem, its design in memory where it has the columns of all solutions."""
        groups = self.problem.groups
        features = groups.features(np.unique(np.concatenate([groups.group_of[features] for features, _ in self.rows])))
        design = nearby(self.problem.design, features)
        return self.problem if design is self.problem.design else replace(self.problem, design=design)

    def _settled(self, problem: Problem) -> Array:
        """tr[(H_g + ridge I)^-1 H_g] where that is the same in all solutions that have the whole group, else nan."""
        penalty, groups, loss = problem.penalty, problem.groups, problem.loss
        out = np.full(len(groups), np.nan)
        if not loss.is_quadratic or penalty.block_strength:
            return out
        active = np.flatnonzero(self.group_norms.any(axis=0))
        grams = block_grams(problem.design, groups, active, loss.s)
        for d in np.unique(groups.sizes[active]):
            alike = active[groups.sizes[active] == d]
            e = np.maximum(np.linalg.eigvalsh([H for H in grams if len(H) == d]), 0.0)
            bend = np.where(groups.weights[alike] > 0.0, penalty.ridge, 0.0)[:, None]
            out[alike] = problem.n_outputs * (e / np.where(e + bend > 0.0, e + bend, 1.0)).sum(axis=1)
        return out

    def _degrees_of_freedom(self, k: int, problem: Problem, settled: Array) -> float:
        groups = problem.groups
        df = float(problem.n_outputs if problem.intercept else 0)
        used = np.bincount(groups.group_of[self.rows[k][0]], minlength=len(groups))
        active = np.flatnonzero(self.group_norms[k])
        known = (used[active] == groups.sizes[active]) & ~np.isnan(settled[active])
        df += float(settled[active[known]].sum())
        if known.all():
            return df
        active, penalty = active[~known], problem.penalty.at(float(self.lams[k]))
        W = problem.matrix(self._coefficients(k))
        c = problem.loss.curvature(self._predictor(k, problem))
        pulls = _pulls(penalty, self.group_norms[k])
        for g, H in zip(active.tolist(), block_grams(problem.design, groups, active, c), strict=True):
            kept = np.flatnonzero(W[groups[g]].any(axis=1))  # l1 zeros inside the group are no parameters
            e, V = np.linalg.eigh(H[np.ix_(kept, kept)])
            e = np.maximum(e, 0.0)
            norm = self.group_norms[k, g]
            direction = V.T @ (W[groups[g]][kept] / norm)
            bend = penalty.ridge if groups.weights[g] > 0.0 else 0.0
            pull = pulls[g]
            stiff = np.where(e + bend + pull > 0.0, e + bend + pull, 1.0)
            df += problem.n_outputs * float((e / stiff).sum())
            weight = (direction**2).sum(axis=1)
            left = 1.0 - pull * float((weight / stiff).sum())
            if left > 0.0:
                df += pull * float((weight * e / stiff**2).sum()) / left
        return df


def given_point(start: Solution | tuple[ArrayLike, ArrayLike]) -> tuple[ArrayLike, ArrayLike]:
    """w and b of a `Start`, as they were given."""
    return (start.w, start.intercept) if isinstance(start, Solution) else start


def _pulls(penalty: Any, u: Array) -> Array:
    """Omega' / u, (n_groups,): the derivative of the penalty in the norm u of every nonzero group, over that norm."""
    out = np.zeros(len(u))
    if not isinstance(penalty, Penalty) or penalty.block_strength == 0.0:  # at most k groups: nothing is shrunk
        return out
    shape, seen = penalty.shape, np.flatnonzero((u > 0.0) & penalty.penalised)
    norms, weights = u[seen].tolist(), penalty.groups.weights[seen].tolist()
    costs = [float(shape.cost(norm, omega)) for norm, omega in zip(norms, weights, strict=True)]
    total = sum(costs)
    for g, norm, omega, cost in zip(seen, norms, weights, costs, strict=True):
        out[g] = penalty.block_strength * shape.tangent(norm, omega, max(total - cost, 0.0)) / norm
    return out


def _log_binomial(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
