"""Block coordinate descent over working sets.

Repeat until the answer is as accurate as asked:

    1. choose a working set of groups: those that are nonzero or unpenalised, and those whose gradient norm passes the
       strong rule, ||grad_g|| >= q'(0) omega_g (2 lam - lam_previous), or ranks highest;
    2. sweep over it on a quadratic model of the loss (exact for squares), searching F along the last sweep and the one
       before; for other losses renew the model until it stops changing, and raise its curvature where F rose;
    3. compute the gradient of all groups. Convex: stop if the duality gap of the whole problem is small. Otherwise:
       stop if no block, inside or outside, moves under a prox step. Groups that violate optimality join the set.

Step 3 sees every group, so no choice in step 1 can make an answer wrong.

References: Tibshirani et al. (2012), "Strong rules for discarding predictors in lasso-type problems", JRSS B 74.
Yang, Zou (2015), Stat. Comput. 25, and Qin, Scheinberg, Goldfarb (2013), Math. Prog. Comp. 5, for exact block steps.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparseopt.centring import centred
from sparseopt.designs import Csc, Dense
from sparseopt.optimality import dual_bound, free_columns, gradient_scale, prox_moves
from sparseopt.penalty import Lifted, Penalty
from sparseopt.problem import Problem
from sparseopt.regularizers import L2
from sparseopt.solution import ConvergenceWarning, Solution, Start, Status
from sparseopt.solvers.blocks import TIE
from sparseopt.solvers.bounds import StepBounds
from sparseopt.solvers.gradients import PATIENCE, Gradients
from sparseopt.solvers.iterate import Iterate
from sparseopt.solvers.looks import cross, judge, prox_move, stand, wake, weighted_square
from sparseopt.solvers.starts import starting_point

__all__ = ["BlockDescent", "Progress", "bcd"]

Array = NDArray[np.float64]
CARE = 0.004  # beyond it, failed checks cost more than the sweeps that were saved
MANY, IMPATIENCE = 10, 3  # from so many lams on, bounds of gradients pay after so few products
AHEAD = 0.2  # of the present accuracy is aimed at while the working set grows
GROWTH = 2  # times as many groups may join a working set that is full
FIRST_GUESS = 20  # groups taken into the first working set where no rule applies
_NONE = np.zeros(0, dtype=np.int64)


def bcd(
    problem: Problem,
    start: Start = None,
    *,
    tol: float = 1e-6,
    max_epochs: int = 10_000,
) -> Solution:
    """Solve a group-sparse problem by block coordinate descent over working sets.

    Parameters
    ----------
    problem : Problem
        Any loss, design and penalty, `Composite` included.
    start : Solution or (w, b), optional
        Where to start; default zero, also where a convex F is larger at the start, and for `Composite` the group lasso
        with the same lam.
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
    from sparseopt.solvers.streamed import descent_for

    near = centred(problem)
    descent = descent_for(near.problem, near.start(start))
    solution = near.solution(descent.solve(problem.shrinkage, tol, max_epochs))
    if not solution.status.ok:
        warnings.warn(solution.status.value, ConvergenceWarning, stacklevel=2)
    return solution


class Progress(NamedTuple):
    """How a solver got to a solution: see `Solution`."""

    status: Status
    epochs: int
    seconds: float
    history: tuple[tuple[float, float, float], ...]


class BlockDescent:
    """Block coordinate descent with a state that persists: `advance(penalty)` for one penalty after the other.

    Parameters
    ----------
    problem : Problem
        Gives design, loss, groups and intercept; its penalty may be replaced by others on the same groups.
    start : Solution or (w, b), optional
        Where to start.
    n_lams : int
        For how many penalties it will be asked; preparations that pay for many only are put off otherwise.
    """

    def __init__(self, problem: Problem, start: Start = None, n_lams: int = 1) -> None:
        self.problem = problem
        self.point = Iterate(problem, starting_point(problem, start))
        patience = PATIENCE if n_lams < MANY else IMPATIENCE
        self.gradients = Gradients(problem.design, problem.groups, patience)  # where the point was last checked
        if start is None and isinstance(problem.design, (Dense, Csc)):  # not some columns of a larger design
            self.gradients.learn(self.point.rows, problem.null_gradient)
        self.lam = np.inf  # for which the point was last solved
        self.objective = self.point.value()
        self.floor = 1e-15 * self.objective  # a gap below it is rounding
        self.care = CARE  # change allowed at the end of `minimise`, as a share of the tolerance
        self.warm = start is not None
        self.step_bounds = StepBounds(problem)

    def solve(self, penalty: Penalty, tol: float = 1e-6, max_epochs: int = 10_000) -> Solution:
        """The solution for one penalty, from where the last one ended."""
        done = self.advance(penalty, tol, max_epochs)
        W, b = self.point.W, self.point.b
        w, intercept = (W[:, 0].copy(), float(b[0])) if len(b) == 1 else (W.copy(), b.copy())
        return Solution(w, intercept, self._current, done.status, done.epochs, done.seconds, done.history)

    def advance(self, penalty: Penalty, tol: float = 1e-6, max_epochs: int = 10_000) -> Progress:
        """Move `point` to the solution for one penalty, from where the last one ended."""
        if not 0.0 < tol < np.inf:
            raise ValueError(f"tol is {tol}: pass a positive number, such as 1e-6.")
        if max_epochs < 1:
            raise ValueError(f"max_epochs is {max_epochs}: pass at least 1.")
        began = time.perf_counter()
        if isinstance(penalty.shape, Lifted) and not self.warm:
            self.advance(Penalty(L2(), penalty.groups, penalty.lam, penalty.l1_ratio, penalty.ridge), 1e-4, max_epochs)
        self.warm = True
        self.point.take(penalty)
        self.point.predict(self.lam)
        chosen = self._first_set()
        history = []
        epochs, failures, best, status = 0, 0, np.inf, None
        aim = tol if self.lam < np.inf else 1.0
        while status is None:
            epochs += self.point.minimise(np.flatnonzero(chosen), self._goal(aim), max_epochs - epochs)
            accuracy, violators = self._check(chosen)
            aim = max(tol, AHEAD * accuracy) if violators.size else tol
            history.append((time.perf_counter() - began, self.objective, accuracy))
            if accuracy <= tol and (self.point.convex or not violators.size):
                status = Status.CONVERGED
                if accuracy < 0.2 * tol:
                    self.care = min(CARE, 2.0 * self.care)
            elif epochs >= max_epochs:
                status = Status.MAX_EPOCHS
            elif not violators.size and not self._jump(tol):
                self.care *= 0.1
                failures = 0 if accuracy < 0.9 * best else failures + 1
                best = min(best, accuracy)
                status = Status.STALLED if failures > 12 else None
            chosen[violators] = True
        self.care = max(self.care, 0.01 * CARE)
        self.lam = penalty.lam
        return Progress(status, epochs, time.perf_counter() - began, tuple(history))

    def zero_threshold(self, penalty: Penalty) -> float:
        """`sparseopt.lam_max` for this penalty at any lam."""
        if not penalty.penalised.any():
            return 0.0
        self.advance(Penalty(L2(), penalty.groups, 1e100), 1e-9)
        seen, omega = penalty.penalised, self.point.partition.omega
        self.gradients.ensure(seen)
        top = float((self.gradients.norms(0.0)[seen] / omega[seen]).max())
        plain = penalty.is_group_lasso and penalty.l1_ratio == 0.0
        if plain or top == 0.0 or penalty.q.slope_at_zero() == 0.0:
            return top

        def quiet(lam: float) -> bool:
            self.point.take(penalty.at(lam))
            return not self._wakes(seen).size

        low, high = 0.0, top
        while not quiet(high):
            low, high = high, 4.0 * high
        while high - low > 1e-15 * high:
            middle = 0.5 * (low + high)
            low, high = (low, middle) if quiet(middle) else (middle, high)
        return high

    def _goal(self, tol: float) -> float:
        if self.point.convex:
            return self.care * max(tol * abs(self.objective), self.floor)
        return 125.0 * self.care * tol * self._scale  # a first-order measure; the change of F is its square

    @property
    def _current(self) -> Problem:
        """The problem that is being solved: with the penalty of the point."""
        penalty = self.point.penalty
        return self.problem if penalty is self.problem.penalty else replace(self.problem, penalty=penalty)

    @cached_property
    def _scale(self) -> float:
        return gradient_scale(self.problem) or 1.0

    # -- working sets --------------------------------------------------------------------------------------------------

    def _first_set(self) -> NDArray[np.bool_]:
        """Groups to start with."""
        point, penalty = self.point, self.point.penalty
        kept = (point.norms() > 0.0) | ~point.penalised
        if not self.gradients.rows.size:
            self._check(np.zeros_like(kept))
        threshold = (2.0 * penalty.lam - self.lam) * penalty.q.slope_at_zero() * (1.0 - penalty.l1_ratio)
        strong = 0.0 < threshold < np.inf
        if strong:
            kept |= self._exceeding(threshold * point.partition.omega, ~kept)
        if not (strong and penalty.lam <= self.lam):  # else hardly a group passes lam and fails the rule
            kept[self._best(self._wakes(~kept), max(FIRST_GUESS, 2 * int(kept.sum())))] = True
        return kept

    def _exceeding(self, threshold: Array, among: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The groups of `among` whose gradient norm exceeds the threshold; undecided ones are computed."""
        return self.gradients.above(np.where(among, threshold, np.inf), self.point.terms.entry)

    def _best(self, candidates: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
        """The candidates with the largest gradient norm per weight."""
        if len(candidates) <= limit:
            return candidates
        score = self._gradient_norms()[candidates] / self.point.partition.omega[candidates]
        return candidates[np.argpartition(-score, limit)[:limit]]

    def _gradient_norms(self) -> Array:
        return self.gradients.norms(self.point.terms.entry)

    # -- the check of all groups ---------------------------------------------------------------------------------------

    def _check(self, chosen: NDArray[np.bool_]) -> tuple[float, NDArray[np.int64]]:
        """Relative gap or stationarity, and the groups not chosen that optimality wants nonzero."""
        if not self.point.convex:
            return self._check_moves(chosen)
        point = self.point
        rows = point.dual_rows(free_columns(self._current) if point.has_free else None)
        self.gradients.at(rows)
        u, threshold = np.empty(len(chosen)), np.empty(len(chosen))
        omega = stand(point.shape, point.partition, point.terms, point.touched, point.W, u, threshold)
        # One look: exact for the blocks that limit the dual point, and for sleeping ones that may wake.
        above = self.gradients.above(threshold, point.terms.entry)
        norms = self._gradient_norms()
        c, wakes, size, full = judge(point.partition, point.terms, u, norms, above, chosen)
        accuracy = self._gap(rows, c, omega, norms)
        if not wakes:
            return accuracy, _NONE
        return accuracy, self._violators(np.flatnonzero(above & (threshold >= 0.0) & ~chosen), size, full)

    def _gap(self, rows: Array, c: float, omega: float, norms: Array) -> float:
        """Objective and relative duality gap, from the dual point c A and from Omega."""
        point = self.point
        if point.plain and self.problem.loss.is_quadratic:
            half = weighted_square(rows, point.curvature.inverse)
            dual = -c * (c * half + cross(rows, point.target))  # L*(A) = sum_i ||a_i||^2 / (2 s_i) + <A, y - o>
            loss = half if rows is point.rows else point.loss_value()
        elif point.plain:
            A = rows.T
            inside = rows is point.rows  # a derivative lies where the conjugate is finite
            scale = c if inside else min(c, self.problem.loss.dual_scale(A))
            dual = -self.problem.loss.inner_conjugate(scale * A)
            loss = point.loss_value()
        else:
            dual = dual_bound(self._current, rows.T, self.gradients.V, norms)
            loss = point.loss_value()
        self.objective = omega + loss
        gap = self.objective - dual
        return gap / max(abs(self.objective), abs(dual)) if gap > self.floor else 0.0

    def _check_moves(self, chosen: NDArray[np.bool_]) -> tuple[float, NDArray[np.int64]]:
        """`_check` where no dual is known."""
        point = self.point
        rows = point.rows
        self.gradients.at(rows)
        norms = point.norms()
        self.objective = point.value(norms)
        self.gradients.ensure(chosen)
        move = self._largest_move(np.flatnonzero(chosen), rows.T, self._lifted_total(norms))
        wakes = self._wakes((norms == 0.0) & point.penalised)
        return move, self._violators(wakes[~chosen[wakes]], int(chosen.sum()), int(np.count_nonzero(norms[chosen])))

    def _violators(self, wakes: NDArray[np.int64], size: int, full: int) -> NDArray[np.int64]:
        """The groups that join a set of `size` groups, `full` of them nonzero."""
        much_too_small = full > 0.9 * size
        return self._best(wakes, max(FIRST_GUESS, (GROWTH if much_too_small else 1) * size))

    def _waking(self) -> Array:
        """The gradient norms above which q = L2 wants a zero group nonzero."""
        return self.point.terms.block * self.point.partition.omega * TIE

    def _wakes(self, among: NDArray[np.bool_]) -> NDArray[np.int64]:
        """The groups of `among`, all zero, that optimality wants nonzero."""
        point = self.point
        if point.convex:
            return np.flatnonzero(self._exceeding(self._waking(), among))
        rest = self._lifted_total(point.norms())
        while True:  # an upper bound of its gradient and a lower one of its curvature let a group wake too easily
            ids = np.flatnonzero(among)
            out = np.zeros(len(ids), dtype=np.bool_)
            wake(point.shape, point.terms, point.partition, self._curvatures(), self._gradient_norms(), ids, rest, out)
            among = np.zeros_like(among)
            among[ids[out]] = True
            if not (self.gradients.ensure(among) or self._sharpen(among)):
                return ids[out]

    def _largest_move(self, ids: NDArray[np.int64], A: Array, rest: float) -> float:
        """`stationarity` of the groups in the working set; those outside are zero, and `_wakes` has judged them."""
        point = self.point
        chosen = np.zeros(len(self.problem.groups), dtype=np.bool_)
        chosen[ids] = True
        self._sharpen(chosen)
        move = prox_move(
            point.shape, point.terms, point.partition, self._curvatures(), point.W, self.gradients.V, ids, rest
        )
        if self.problem.intercept:
            move = max(move, float(np.linalg.norm(A.sum(axis=0))))
        return move / self._scale

    def _lifted_total(self, norms: Array) -> float:
        """sum_g q(omega_g u_g) in problem (1), 0 for separable penalties."""
        if not isinstance(self.point.shape, Lifted):
            return 0.0
        seen = self.point.penalised
        return float(self.point.penalty.q.value(self.point.partition.omega[seen] * norms[seen]).sum())

    def _jump(self, tol: float) -> bool:
        """Move one block by its own prox step, the largest such move that makes F fall; whether there is one.

        Where the prox jumps, a sweep whose model had to be raised may rest at a point that a single block would leave.
        """
        point = self.point
        if point.convex or point.loss.is_quadratic:
            return False
        self._sharpen(point.is_touched)
        target, moves = prox_moves(self._current, point.W, self.gradients.V, self._curvatures())
        value = point.value()
        here = point.W, point.b, point.z
        moves[~point.is_touched] = 0.0  # the gradient of others may be an estimate
        for g in np.argsort(-moves)[: np.count_nonzero(moves > tol * self._scale)]:
            rows = self.problem.groups[int(g)]
            point.W = here[0].copy()
            point.W[rows] = target[rows]
            point.z = point.predictor(point.W, point.b)
            if point.value() < value - 1e-13 * abs(value):
                point.linearise()
                return True
            point.W, point.b, point.z = here
        return False

    def _curvatures(self) -> Array:
        """L_g of all groups at this point, with the loss's own curvature; a lower bound where it was not sharpened."""
        return self.step_bounds.at(self.point.loss_curvature())

    def _sharpen(self, among: NDArray[np.bool_]) -> bool:
        """Make L_g exact for the groups `among`; whether any was not."""
        return self.step_bounds.sharpen(self.point.loss_curvature(), among)
