"""Block coordinate descent over working sets.

Repeat until the answer is as accurate as asked:

    1. choose a working set of groups: those that are nonzero or unpenalised, and those whose gradient norm passes the
       strong rule, ||grad_g|| >= q'(0) omega_g (2 lam - lam_previous), or ranks highest;
    2. sweep over it on a quadratic model of the loss (exact for squares), with Anderson extrapolation of the nonzero
       groups; for other losses renew the model until it stops changing, and raise its curvature where F rose;
    3. compute the gradient of all groups. Convex: stop if the duality gap of the whole problem is small. Otherwise: stop
       if no block, inside or outside, moves under a prox step. Groups that violate optimality join the set.

Step 3 sees every group, so no choice in step 1 can make an answer wrong.

References: Tibshirani et al. (2012), "Strong rules for discarding predictors in lasso-type problems", JRSS B 74.
Bertrand, Massias (2021), "Anderson acceleration of coordinate descent", AISTATS.
Yang, Zou (2015), Stat. Comput. 25, and Qin, Scheinberg, Goldfarb (2013), Math. Prog. Comp. 5, for exact block steps.
"""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparseopt.designs import block_curvature
from sparseopt.jit import kernel
from sparseopt.optimality import dual_bound, dual_candidate, gradient_scale
from sparseopt.problem import Lifted, Penalty, Problem
from sparseopt.regularizers import L2
from sparseopt.solution import ConvergenceWarning, Solution, Status
from sparseopt.solvers.curvature import Curvature
from sparseopt.solvers.gradients import Gradients, dual_norms
from sparseopt.solvers.steps import Partition, Terms, sweeps

__all__ = ["BlockDescent", "bcd"]

Array = NDArray[np.float64]
MEMORY = 5  # sweeps between two extrapolations
FIRST_GUESS = 20  # groups taken into the first working set where no rule applies


def bcd(
    problem: Problem, start: Solution | tuple[ArrayLike, ArrayLike] | None = None, *, tol: float = 1e-6, max_epochs: int = 10_000
) -> Solution:
    """Solve a group-sparse problem by block coordinate descent over working sets.

    Parameters
    ----------
    problem : Problem
        Any loss, design and penalty, `Composite` included.
    start : Solution or (w, b), optional
        Where to start; default zero, and for `Composite` the group lasso with the same lam.
    tol : float
        Convex with q = L2: relative duality gap. Otherwise: stationarity, see `sparseopt.optimality.stationarity`.
    max_epochs : int
        Limit of sweeps over working sets.

    Returns
    -------
    Solution
        With a status that says whether `tol` was reached; a ConvergenceWarning is given if it was not.

    Notes
    -----
    For nonconvex q the answer is stationary in every block, with jumps to and from zero, but it need not be a global
    minimiser, and it depends on the start.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt import Problem
    >>> X = np.random.default_rng(0).normal(size=(50, 200))
    >>> solution = bcd(Problem.build(X, X[:, :2].sum(axis=1), groups=2, lam=0.1), tol=1e-10)
    >>> solution.gap < 1e-10, solution.support[0]
    (True, np.int64(0))
    """
    descent = BlockDescent(problem, start)
    solution = descent.solve(problem.penalty, tol, max_epochs)
    if not solution.status.ok:
        warnings.warn(solution.status.value, ConvergenceWarning, stacklevel=2)
    return solution


class BlockDescent:
    """Block coordinate descent with a state that persists: `solve(penalty)` for one penalty after the other.

    Parameters
    ----------
    problem : Problem
        Gives design, loss, groups and intercept; its penalty may be replaced by others on the same groups.
    start : Solution or (w, b), optional
        Where to start.
    """

    def __init__(self, problem: Problem, start: Solution | tuple[ArrayLike, ArrayLike] | None = None) -> None:
        self.problem = problem
        self.penalty = problem.penalty
        groups, (n, p), n_outputs = problem.groups, problem.design.shape, problem.n_outputs
        self.partition = Partition(groups.indices, groups.indptr, groups.weights)
        self.curvature = Curvature(problem)
        self.W = np.zeros((p, n_outputs))
        self.b = problem.loss.null_intercept() if problem.intercept else np.zeros(n_outputs)
        self.fresh = start is None
        if start is not None:
            w, b = (start.w, start.intercept) if isinstance(start, Solution) else start
            self.W[:] = problem.matrix(w)
            if problem.intercept:
                self.b = np.broadcast_to(np.asarray(b, dtype=np.float64), (n_outputs,)).copy()
        self.sigma = np.zeros(n_outputs)
        self.work = np.empty((5, int(groups.sizes.max()), n_outputs))
        self.scale = 0.0
        self.z = problem.predictor(self.W, self.b)
        if problem.loss.is_quadratic:
            self.curvature.at(problem.loss.s)
        self.gradients = Gradients(problem.design, groups)  # X'A where the state was last checked
        self.lam_checked = np.inf
        self.care = 0.3  # change allowed at the end of an inner solve, as a share of the tolerance
        self._linearise()

    def solve(self, penalty: Penalty, tol: float = 1e-6, max_epochs: int = 10_000) -> Solution:
        """The solution for one penalty, from where the last one ended."""
        began = time.perf_counter()
        self._take(penalty)
        history = []
        epochs, status = 0, None
        ids = self._first_set()
        self._predict()
        stuck = 0
        while True:
            epochs += self._minimise(ids, tol, max_epochs - epochs)
            objective, accuracy, violators = self._check(ids)
            history.append((time.perf_counter() - began, objective, accuracy))
            if accuracy <= tol and (self.convex or not violators.size):
                status = Status.CONVERGED
                self.care = min(1.0, 2.0 * self.care) if accuracy < 0.2 * tol else self.care
            elif epochs >= max_epochs:
                status = Status.MAX_EPOCHS
            elif not violators.size:
                stuck += 1
                self.care *= 0.1
                if stuck > 12:
                    status = Status.STALLED
            if status is not None:
                break
            ids = np.union1d(ids, violators)
        self.care = max(self.care, 1e-3)
        w = self.W[:, 0].copy() if self.W.shape[1] == 1 else self.W.copy()
        b = self.b.copy() if self.W.shape[1] > 1 else float(self.b[0])
        problem = self.problem if penalty is self.problem.penalty else self._problem
        return Solution(w, b, problem, status, epochs, time.perf_counter() - began, tuple(history))

    def zero_threshold(self, penalty: Penalty) -> float:
        """The smallest lam at which no penalised group wants to leave zero."""
        self._take(Penalty(L2(), penalty.groups, 1e100))
        self.solve(self.penalty, 1e-9)
        seen, omega = penalty.penalised, self.partition.omega
        if not seen.any():
            return 0.0
        self.gradients.ensure(np.arange(len(omega)))
        norms = self.gradients.norms(0.0)
        top = float((norms[seen] / omega[seen]).max()) * max(1.0, 1.0 / max(1.0 - penalty.l1_ratio, 1e-3))
        slope = penalty.q.slope_at_zero()
        if slope == 0.0 or top == 0.0:
            return top

        def quiet(lam: float) -> bool:
            self._take(penalty.at(lam))
            return not self._wakes(seen).size

        low, high = 0.0, top
        while not quiet(high):
            low, high = high, 4.0 * high
        for _ in range(200):
            middle = 0.5 * (low + high)
            low, high = (low, middle) if quiet(middle) else (middle, high)
            if high - low <= 1e-15 * high:
                break
        return high

    # -- the penalty ---------------------------------------------------------------------------------------------------

    def _take(self, penalty: Penalty) -> None:
        self.penalty = penalty
        self._problem = Problem(self.problem.design, self.problem.loss, penalty, self.problem.intercept)
        self.shape = penalty.shape
        exact = penalty.is_group_lasso and penalty.entry_strength == 0.0
        self.terms = Terms(penalty.block_strength, penalty.entry_strength, penalty.ridge, exact)
        self.convex = penalty.is_group_lasso
        if isinstance(self.shape, Lifted) and self.fresh:
            self.fresh = False
            self.solve(Penalty(L2(), penalty.groups, penalty.lam, penalty.l1_ratio, penalty.ridge), 1e-4)
            self._take(penalty)
        self.fresh = False

    # -- step 1: working sets ------------------------------------------------------------------------------------------

    def _first_set(self) -> NDArray[np.int64]:
        """Groups to start with, for the current penalty."""
        penalty = self.penalty
        if self.lam_checked == np.inf:
            self._check(np.zeros(0, dtype=np.int64))
        kept = (self._block_norms() > 0.0) | ~penalty.penalised
        threshold = (2.0 * penalty.lam - self.lam_checked) * penalty.q.slope_at_zero() * (1.0 - penalty.l1_ratio)
        if np.isfinite(threshold) and threshold > 0.0:
            kept |= self._exceeding(threshold * self.partition.omega, ~kept)
        wakes = self._wakes(~kept)
        return np.union1d(np.flatnonzero(kept), self._best(wakes, max(FIRST_GUESS, 2 * int(kept.sum()))))

    def _exceeding(self, threshold: Array, among: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The groups of `among` whose gradient norm exceeds the threshold; undecided ones are computed."""
        over = among & (self.gradients.norms(self.terms.entry) > threshold)
        if self.gradients.ensure(np.flatnonzero(over)):
            over &= self.gradients.norms(self.terms.entry) > threshold
        return over

    def _best(self, candidates: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
        """The candidates with the largest gradient norm per weight."""
        if len(candidates) <= limit:
            return candidates
        score = self.gradients.norms(self.terms.entry)[candidates] / self.partition.omega[candidates]
        return candidates[np.argpartition(-score, limit)[:limit]]

    def _wakes(self, among: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Zero groups that optimality wants nonzero."""
        if self.convex:
            strength = self.terms.block * self.partition.omega * (1.0 + 1e-12)
            return np.flatnonzero(self._exceeding(strength, among))
        L = self._all_curvatures()
        rest = 0.0
        if isinstance(self.shape, Lifted):
            u = self._block_norms()
            rest = float(self.penalty.q.value(self.partition.omega * u)[self.penalty.penalised].sum())
        ids = np.flatnonzero(among)
        while True:  # a group that does not wake under an upper bound of its gradient does not wake
            out = np.zeros(len(ids), dtype=np.bool_)
            norms = self.gradients.norms(self.terms.entry)
            _wake(self.shape, self.terms, self.partition, L, norms, ids, rest, out)
            ids = ids[out]
            if not self.gradients.ensure(ids):
                return ids

    def _all_curvatures(self) -> Array:
        c = self.curvature.full
        if self._L is None or self._L[0] is not c:
            L = block_curvature(self.problem.design, self.problem.groups, c)
            self._L = c, np.maximum(L, 1e-12 * L.max(initial=0.0) + 1e-300)
        return self._L[1]

    _L: tuple[Array, Array] | None = None
    _last: tuple[float, Array, Array, Array] | None = None

    def _predict(self) -> None:
        """Extrapolate the last two solutions linearly in lam; kept if F falls. Needs no product with X."""
        here = self.lam_checked, self.W.copy(), self.b, self.z
        last, self._last = self._last, here
        if last is None or not last[0] > here[0] > self.penalty.lam:
            return
        t = min((here[0] - self.penalty.lam) / (last[0] - here[0]), 2.0)
        W, b, z = (now + t * (now - before) for now, before in zip(here[1:], last[1:], strict=True))
        loss = self.problem.loss
        if loss.value(z) + self._omega(W) < loss.value(self.z) + self._omega(self.W):
            self.W[:], self.b, self.z = W, b, z
            self._linearise()

    # -- step 2: minimise over a working set ---------------------------------------------------------------------------

    def _linearise(self, boost: float = 1.0) -> None:
        """Model of the loss at z, the predictor of W and b; its curvature raised by `boost`."""
        loss = self.problem.loss
        self.rows = np.ascontiguousarray(loss.derivative(self.z).T)
        if not loss.is_quadratic:
            c, bound = boost * loss.curvature(self.z), loss.curvature_bound()
            self.curvature.at(c if bound is None else np.minimum(c, bound))
        self._centre()

    def _centre(self) -> None:
        """Add what sigma has collected, and keep 1'r = 0."""
        total = self.curvature.total
        if total > 0.0:
            self.sigma += self.rows.sum(axis=1) / total - self.sigma
            self.rows -= np.outer(self.sigma, self.curvature.full)
            self.b = self.b - self.sigma
            self.sigma = np.zeros_like(self.sigma)

    def _minimise(self, ids: NDArray[np.int64], tol: float, budget: int) -> int:
        """Minimise over the groups `ids`; returns the number of sweeps."""
        goal = self._goal(tol)
        if self.problem.loss.is_quadratic:
            self.curvature.include(ids)
            before = self.rows.copy()
            spent = self._descend(ids, goal, budget)[0]
            s = self.problem.loss.s
            self.z = self.z + np.divide(self.rows - before, s, out=np.zeros_like(before), where=s > 0.0).T
            return spent
        spent, boost = 0, 1.0
        value = self.problem.loss.value(self.z) + self._omega(self.W)
        while spent < budget:
            self.curvature.include(ids)
            before = self.W.copy(), self.b, self.z
            count, first = self._descend(ids, goal, budget - spent, loose=0.05)
            spent += count
            self.z = self.problem.predictor(self.W, self.b)
            self._linearise(boost)
            now = self.problem.loss.value(self.z) + self._omega(self.W)
            if not now <= value + 1e-13 * abs(value):
                if boost > 1e12:
                    break
                boost *= 4.0
                self.W, self.b, self.z = before
                self._linearise(boost)
                continue
            value = now
            if boost > 1.0:
                boost = max(1.0, boost / 4.0)
                self._linearise(boost)
            if first <= goal:
                break
        return spent

    def _goal(self, tol: float) -> float:
        if self.convex:
            return self.care * tol * max(abs(self.objective), 1e-300)
        return min(self.care, 0.5) * tol * self._scale()

    def _descend(self, ids: NDArray[np.int64], goal: float, budget: int, loose: float = 0.0) -> tuple[int, float]:
        """Sweeps on the model until the change is at most `goal`, or `loose` times that of the first sweep.

        Returns the number of sweeps and the change of the first.
        """
        nothing = np.empty((1, 0, 0)), np.empty((1, 0, 0)), np.empty((1, 0))
        spent, first = 0, np.inf
        while spent < budget:
            count, change = self._sweeps(ids, goal, nothing)
            spent += count
            if spent == 1:
                first = change
                goal = max(goal, loose * first)
            if change <= goal:
                break
            active = ids[self._block_norms()[ids] > 0.0]
            spent += self._accelerate(active, goal, budget - spent)
        self._centre()
        return spent, first

    def _accelerate(self, active: NDArray[np.int64], goal: float, budget: int) -> int:
        """Sweeps over the nonzero groups with Anderson extrapolation, until the change is well below `goal`."""
        if not active.size:
            return 0
        features, n_outputs = self.problem.groups.features(active), self.W.shape[1]
        past = (
            np.empty((MEMORY + 1, len(features), n_outputs)),
            np.empty((MEMORY + 1, *self.rows.shape)),
            np.empty((MEMORY + 1, n_outputs)),
        )
        spent = 0
        for _ in range(20):
            if spent >= budget:
                break
            count, change = self._sweeps(active, 0.3 * goal, past)
            spent += count
            if change <= 0.3 * goal:
                break
            self._extrapolate(features, past)
        return spent

    def _sweeps(self, ids: NDArray[np.int64], goal: float, past: tuple[Array, Array, Array]) -> tuple[int, float]:
        count, change = sweeps(
            self.problem.design, self.shape, self.partition, self.terms, self.curvature.model, self.curvature.blocks, ids,
            self.W, self.rows, self.sigma, self.work, goal, not self.convex, past,
        )  # fmt: skip
        return count, change

    def _extrapolate(self, features: NDArray[np.int64], past: tuple[Array, Array, Array]) -> None:
        """Replace the state by the affine combination of past ones that would stop a linear iteration, if F falls."""
        past_W, past_rows, past_sigma = past
        steps = np.diff(past_W, axis=0).reshape(MEMORY, -1)
        gram = steps @ steps.T
        size = np.trace(gram)
        if not size > 0.0:
            return
        gram[np.diag_indices(MEMORY)] += 1e-12 * size
        weights = np.linalg.solve(gram, np.ones(MEMORY))
        if not np.isfinite(weights).all() or weights.sum() == 0.0:
            return
        weights /= weights.sum()
        here = self._model_value(self.rows, self.sigma, self.W)
        W = self.W.copy()
        W[features] = np.tensordot(weights, past_W[1:], axes=1)
        rows = np.tensordot(weights, past_rows[1:], axes=1)
        sigma = weights @ past_sigma[1:]
        if self._model_value(rows, sigma, W) < here:
            self.W[:], self.rows, self.sigma = W, rows, sigma

    def _model_value(self, rows: Array, sigma: Array, W: Array) -> float:
        """The model of F up to a constant: sum r^2 / (2 c) + Omega."""
        c = self.curvature.full
        true = rows - np.outer(sigma, c) if self.curvature.total > 0.0 else rows
        inverse = np.divide(1.0, c, out=np.zeros_like(c), where=c > 0.0)
        return 0.5 * float(((true * true) @ inverse).sum()) + self._omega(W)

    # -- step 3: all groups --------------------------------------------------------------------------------------------

    def _check(self, ids: NDArray[np.int64]) -> tuple[float, float, NDArray[np.int64]]:
        """Objective, relative gap or stationarity, and the groups outside `ids` that violate optimality."""
        problem = self._problem
        A = dual_candidate(problem, self.z) if self.convex else problem.loss.derivative(self.z)
        self.gradients.at(A)
        self.gradients.ensure(ids)
        self.lam_checked = self.penalty.lam
        outside = np.ones(len(self.partition.omega), dtype=np.bool_)
        outside[ids] = False
        self.objective = problem.loss.value(self.z) + self._omega(self.W)
        violators = self._wakes(outside)
        if self.convex:
            dual = dual_bound(problem, A, self.gradients.V)
            scale = max(abs(self.objective), abs(dual))
            accuracy = max(self.objective - dual, 0.0) / scale if scale > 0.0 else 0.0
        else:
            accuracy = self._largest_move(ids, A)
        return self.objective, accuracy, self._best(violators, max(FIRST_GUESS, len(ids)))

    def _largest_move(self, ids: NDArray[np.int64], A: Array) -> float:
        """`stationarity` of the groups in the working set; those outside are zero, and `_wakes` has judged them."""
        L = self._all_curvatures()
        V = np.zeros_like(self.gradients.V)
        features = self.problem.groups.features(ids)
        V[features] = self.gradients.V[features]
        by_feature = self.problem.groups.expand(L)[:, None]
        moved = by_feature * (self.W - self.penalty.block_prox(self.W - V / by_feature, 1.0 / L, self.W))
        move = float(self._block_norms(moved).max())
        if self.problem.intercept:
            move = max(move, float(np.linalg.norm(A.sum(axis=0))))
        return move / self._scale()

    def _scale(self) -> float:
        if self.scale == 0.0:
            self.scale = gradient_scale(self.problem) or 1.0
        return self.scale

    def _omega(self, W: Array) -> float:
        """Omega(W), by the compiled norms."""
        penalty, terms = self.penalty, self.terms
        total = terms.block * penalty.group_term(self._block_norms(W)) if terms.block else 0.0
        if terms.entry or terms.ridge:
            seen = W[penalty.groups.expand(penalty.penalised)]
            total += terms.entry * np.abs(seen).sum() + 0.5 * terms.ridge * np.vdot(seen, seen)
        return float(total)

    def _block_norms(self, W: Array | None = None) -> Array:
        out = np.empty(len(self.partition.omega))
        dual_norms(self.W if W is None else W, self.partition.indices, self.partition.indptr, 0.0, out)
        return out


@kernel
def _wake(shape, terms, groups, L, norms, ids, rest, out):
    """Whether a prox step from zero leaves zero."""
    for k in range(len(ids)):
        g = ids[k]
        below = L[g] + terms.ridge
        u = norms[g] / below
        out[k] = terms.block == 0.0 and u > 0.0
        if terms.block > 0.0 and u > 0.0:
            out[k] = shape.shrink(u, terms.block / below, groups.omega[g], rest) > 0.0
