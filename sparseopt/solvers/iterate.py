"""A point that moves: coefficients, and everything that moves with them.

    W (p, K), b (K,)      coefficients and intercept
    z (n, K)              Xw + 1 b'
    rows (K, n), sigma    the model's gradient in z, see `steps`

`minimise` lowers F over some of the groups: sweeps on the model of the loss, with line searches in between, until one
changes little. The model is exact for squares. For other losses it is renewed until it stops changing; where a model
brought little more than the one before, F itself is searched along the last two ways. Where F rises, the curvature is
raised and the step done again, which ends because a curvature above the bound of the loss makes the model a majoriser
(and for a loss without bound, because the step shrinks).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparseopt.jit import brief_kernel
from sparseopt.penalty import Penalty, Separable
from sparseopt.problem import Problem
from sparseopt.solvers.blocks import Terms, block_norm, work_for
from sparseopt.solvers.curvature import Curvature
from sparseopt.solvers.kinds import Concave, Exact, Proximal
from sparseopt.solvers.lines import FAINT
from sparseopt.solvers.looks import weighted_square, worth
from sparseopt.solvers.starts import starting_point
from sparseopt.solvers.steps import Partition, descend
from sparseopt.solvers.ways import Way, lowest, penalty_slope

__all__ = ["Iterate"]

Array = NDArray[np.float64]
REFRESH = 25  # sweeps and searches after which z is computed anew
ROUNDING = 1e-13  # rise of F, over F, that is no rise
EVEN = 1e-3  # least curvature over the largest from which on z is taken from the rows of the model
SLOW = 0.1  # of the change that the model before began with; from there on F is searched between models
INEXACT = 0.05  # the first model of a loss is minimised until sweeps change this share of what the first one did


class Snapshot(NamedTuple):
    """A point reached for some lam: coefficients of the features that may be nonzero, b, and rows (squares) or z."""

    lam: float
    features: NDArray[np.int64]
    W: Array
    b: Array
    image: Array
    exact: bool  # image is that of W and b, not moved along with them


class Iterate:
    """Coefficients of a problem under a penalty that may be exchanged.

    Parameters
    ----------
    problem : Problem
        Gives design, loss, groups and intercept.
    point : (W, b), optional
        Coefficients (p, K) and intercepts (K,); default zero, and the best intercept for it.
    """

    def __init__(self, problem: Problem, point: tuple[Array, Array] | None = None) -> None:
        self.loss, self.design, self.groups = problem.loss, problem.design, problem.groups
        self.predictor, self.intercept = problem.predictor, problem.intercept
        self.partition = Partition(self.groups.indices, self.groups.indptr, self.groups.weights)
        self.penalised = self.groups.weights > 0.0
        self._some_free = not self.penalised.all()
        n_outputs = problem.n_outputs
        W, b = starting_point(problem, None) if point is None else point
        self.W, self.b = W.copy(), b.copy()
        self.is_touched = np.zeros(len(self.groups), dtype=np.bool_)  # the only groups that may be nonzero
        self._is_touched_feature = np.zeros(problem.design.shape[1], dtype=np.bool_)
        self._touch(np.flatnonzero(self.groups.norms(self.W)))
        self._z: Array | None = None
        self._known_loss: float | None = None  # at z, of losses other than squares; the next as well
        self._known_curvature: Array | None = None
        self._known_derivative: Array | None = None
        self.curvature = Curvature(problem)
        if self.loss.is_quadratic:
            self.curvature.at(self.loss.s)
            y, offset = self.loss.y, self.loss.offset
            self.target = np.ascontiguousarray((y if offset is None else y - offset).T)
        self.work = work_for(n_outputs, int(self.groups.sizes.max()))
        self.rows: Array = np.empty((n_outputs, 0))
        self.sigma = np.zeros(n_outputs)
        self.drift = 0  # sweeps and searches since z was computed from W and b
        self.last: Snapshot | None = None
        self.take(problem.shrinkage)
        self.linearise()

    def take(self, penalty: Penalty) -> None:
        """Exchange the penalty."""
        self.penalty, self.shape = penalty, penalty.shape
        self.convex = penalty.is_group_lasso
        nothing = penalty.lam == 0.0 and penalty.ridge == 0.0
        self.has_free = self.intercept or nothing or self._some_free  # directions that no penalty sees
        self.terms = Terms(penalty.block_strength, penalty.entry_strength, penalty.ridge)
        groupwise = penalty.entry_strength == 0.0
        self.plain = groupwise and self.convex and penalty.ridge == 0.0
        self.kind: Exact | Concave | Proximal = Proximal()
        if groupwise and self.convex:
            self.kind = Exact()
        elif groupwise and isinstance(penalty.shape, Separable) and penalty.q.concave():
            self.kind = Concave()

    # -- what is asked of it -------------------------------------------------------------------------------------------

    def value(self, norms: Array | None = None) -> float:
        """F(W, b); `norms` are those of the groups, if they are known."""
        return self.loss_value() + self.omega(norms)

    @property
    def z(self) -> Array:
        """Xw + 1 b'. For squares it is computed when it is asked for, because all that moves is linear in rows."""
        if self._z is None:
            self._z = self.predictor(self.W, self.b)
        return self._z

    @z.setter
    def z(self, value: Array) -> None:
        self._z, self._known_loss, self._known_curvature, self._known_derivative = value, None, None, None

    def loss_value(self) -> float:
        """L(z)."""
        if self.loss.is_quadratic:  # its rows are s (z + o - y)
            return weighted_square(self.rows, self.curvature.inverse)
        if self._known_loss is None:
            self._known_loss = self.loss.value(self.z)
        return self._known_loss

    def derivative(self) -> Array:
        """dL/dz, (n, K), of losses other than squares."""
        if self._known_derivative is None:
            self._known_derivative = self.loss.derivative(self.z)
        return self._known_derivative

    def loss_curvature(self) -> Array:
        """Curvature of the loss here, (n,)."""
        if self.loss.is_quadratic:
            return self.curvature.full
        if self._known_curvature is None:
            self._known_curvature = self.loss.curvature(self.z)
        return self._known_curvature

    def omega(self, norms: Array | None = None) -> float:
        """Omega(W)."""
        penalty, terms = self.penalty, self.terms
        if self.convex or isinstance(self.shape, Separable):
            return worth(self.shape, self.partition, terms, self.touched, self.W)
        total = 0.0
        if terms.block:
            total = terms.block * penalty.group_term(self.norms() if norms is None else norms)
        if terms.entry or terms.ridge:
            seen = self.W[self.groups.expand(self.penalised)]
            total += terms.entry * np.abs(seen).sum() + 0.5 * terms.ridge * np.vdot(seen, seen)
        return float(total)

    def dual_rows(self, free: Array | None) -> Array:
        """A', (K, n), with A = dL/dz freed of the columns `free`, (n, m), see `optimality.dual_candidate`."""
        if free is None:
            return self.rows
        A = self.rows.T if self.loss.is_quadratic else self.derivative()
        z = A if self.loss.is_quadratic else self.z  # the curvature of squares is the same everywhere
        return np.ascontiguousarray(self.loss.project(A, z, free).T)

    def norms(self) -> Array:
        """||w_g|| for every group."""
        out = np.zeros(len(self.groups))
        _norms(self.partition, self.touched, self.W, out)
        return out

    def nonzero(self) -> tuple[NDArray[np.int64], Array]:
        """The features with nonzero coefficients, ascending, and those coefficients, (k, K)."""
        values = self.W.take(self.features, axis=0)
        seen = values[:, 0] != 0.0
        for k in range(1, values.shape[1]):
            seen |= values[:, k] != 0.0
        return self.features[seen], values.compress(seen, axis=0)

    # -- how it moves --------------------------------------------------------------------------------------------------

    def predict(self, lam: float) -> None:
        """Extrapolate this point, reached at `lam`, and the previous one to the penalty's lam; kept if F falls.

        Needs no product with X: z is extrapolated with the coefficients.
        """
        features, quadratic = self.features, self.loss.is_quadratic
        image = self.rows if quadratic else self.z
        here = Snapshot(lam, features, self.W.take(features, axis=0), self.b, image, exact=self.drift == 0)
        last, self.last = self.last, here
        if last is None or not last.lam > lam > self.penalty.lam:
            return
        t = min((lam - self.penalty.lam) / (last.lam - lam), 2.0)
        value = self.value()
        self.W[features] = (1.0 + t) * here.W
        self.W[last.features] -= t * last.W  # every feature of `last` is one of `here`
        self.b = here.b + t * (here.b - last.b)
        self._show(here.image + t * (here.image - last.image))
        if not self.value() < value:
            self.W[features], self.b = here.W, here.b
            self._show(here.image)
        elif not quadratic:
            self.linearise()

    def _show(self, image: Array) -> None:
        """Take over what moves linearly with the coefficients: rows for squares, z for other losses."""
        if self.loss.is_quadratic:
            self.rows, self._z, self._known_derivative = image, None, None
        else:
            self.z = image

    def linearise(self, boost: float = 1.0) -> None:
        """Renew the model at this point; its curvature raised by `boost`."""
        self.rows = self.derivative().T.copy()  # sweeps change it
        if not self.loss.is_quadratic:
            c, bound = boost * self.loss_curvature(), self.loss.curvature_bound()
            # Jumps of a nonconvex prox depend on the step, so there every block needs its own curvature, unraised.
            self.curvature.at(c if bound is None else np.minimum(c, bound), reuse=self.convex)
        self._optimise_intercept()

    def minimise(self, ids: NDArray[np.int64], goal: float, budget: int) -> int:
        """Lower F over the groups `ids` until a sweep changes at most `goal`; returns the number of sweeps.

        The change is the sum of d' H d over the steps of a sweep for q = L2, else the largest scaled prox move. All
        other groups must be zero or stay as they are.
        """
        new = ids[~self.is_touched[ids]]
        if new.size:
            self._touch(new)
        if self.loss.is_quadratic:
            self.curvature.include(ids)
            self._show(self.rows.copy())  # others may hold what was there before
            spent, _ = self._descend(ids, goal, budget, 0.0)
            self.drift += spent
            if self.drift > REFRESH:
                self.refresh()
            return spent
        spent, boost, value, before_first = 0, 1.0, self.value(), np.inf
        last: Way | None = None
        while spent < budget:
            self.curvature.include(ids)
            before_W, before_b, before_z, before_rows = self.W.copy(), self.b, self.z, self.rows.copy()
            count, first = self._descend(ids, goal, budget - spent, INEXACT)
            spent += count
            drifted, self.drift = self.drift > 0, self.drift + count
            if self.drift <= REFRESH and self.curvature.least > EVEN * self.curvature.largest:
                self.z = before_z + ((self.rows - before_rows) * self.curvature.inverse).T  # rows move by c dz
            else:
                self.z = self.predictor(self.W, self.b)
                self._settle()
            now = self.value()
            if now > value + ROUNDING * abs(value) and (drifted or self.drift):
                before_z, value = self._afresh(before_W, before_b)
                self.z, now = self._afresh(self.W, self.b)
                self._settle()
            if now <= value + ROUNDING * abs(value):
                boost = max(1.0, boost / 4.0)
                last = self._search(before_W, before_b, before_z, last) if first > SLOW * before_first else None
                value = self.value()
            else:
                self.W, self.b, self.z = before_W, before_b, before_z
                boost *= 4.0
                last = None
            before_first = first
            self.linearise(boost)
            if boost > 1e12 or (first <= goal and boost == 1.0):
                break
        return spent

    def _touch(self, ids: NDArray[np.int64]) -> None:
        self.is_touched[ids] = True
        self.touched = np.flatnonzero(self.is_touched)
        self._is_touched_feature[self.groups.features(ids)] = True
        self.features = np.flatnonzero(self._is_touched_feature)

    def refresh(self) -> None:
        """Compute z and rows anew: moved along for many sweeps, they collect rounding errors."""
        self.z = self.predictor(self.W, self.b)
        self.linearise()
        self._settle()

    def _settle(self) -> None:
        """Say that what moves with W is exact. `last` is made so as well: extrapolation would multiply its errors."""
        self.drift = 0
        if self.last is not None and not self.last.exact:
            W = np.zeros_like(self.W)
            W[self.last.features] = self.last.W
            z = self.predictor(W, self.last.b)
            image = np.ascontiguousarray(self.loss.derivative(z).T) if self.loss.is_quadratic else z
            self.last = self.last._replace(image=image, exact=True)

    # -- the model -----------------------------------------------------------------------------------------------------

    def _descend(self, ids: NDArray[np.int64], goal: float, budget: int, inexact: float) -> tuple[int, float]:
        """Sweeps on the model; returns their number and the change made by the first."""
        spent, first = descend(
            self.design, self.kind, self.shape, self.partition, self.terms, self.curvature.model,
            self.curvature.blocks, ids, self.W, self.rows, self.sigma, self.work, goal, inexact, budget,
            not self.convex,
        )  # fmt: skip
        if self.intercept:
            self._optimise_intercept()
            self.rows -= np.outer(self.sigma, self.curvature.full)
            self.b = self.b - self.sigma
            self.sigma = np.zeros_like(self.sigma)
        return spent, first

    def _optimise_intercept(self) -> None:
        """The sigma for which the true rows, r - sigma c, sum to zero."""
        total = self.curvature.total
        self.sigma = self.rows.sum(axis=1) / total if total > 0.0 else np.zeros(len(self.rows))

    def _afresh(self, W: Array, b: Array) -> tuple[Array, float]:
        """z of some coefficients without drift, and F there."""
        here = self.W, self.b, self.z
        self.W, self.b, self.z = W, b, self.predictor(W, b)
        found = self.z, self.value()
        self.W, self.b, self.z = here
        return found

    def _search(self, before_W: Array, before_b: Array, before_z: Array, last: Way | None) -> Way:
        """Search F along the way from a point to this one, and along `last`; returns the way from there in all."""
        way = Way(self.W - before_W, self.b - before_b, self.z - before_z)
        if np.vdot(way.z, way.z) <= FAINT * np.vdot(self.z, self.z):
            way = way._replace(z=self.predictor(way.W, way.b))
        ahead = self._follow(way)
        again = 0.0 if last is None else self._follow(last)
        return way.plus(1.0 + ahead, last or way, again)

    def _follow(self, way: Way) -> float:
        """Move to the lowest point found on a line, if F is no larger there; returns how many times `way` away."""
        W, b, z, value = self.W, self.b, self.z, self.value()

        def slope(t: float, sign: float = 1.0) -> float:
            A = self.loss.derivative(z + t * sign * way.z) if t else self.derivative()
            penalty = penalty_slope(self.shape, self.partition, self.terms, self.touched, W, way.W, t, sign)
            return sign * float(np.vdot(A, way.z)) + penalty

        t = lowest(slope) or -lowest(lambda t: slope(t, -1.0))
        if t == 0.0:
            return t
        self.W, self.b, self.z = W + t * way.W, b + t * way.b, z + t * way.z
        self.drift += 1
        if self.value() <= value + ROUNDING * abs(value):
            return t
        self.W, self.b, self.z = W, b, z
        return 0.0


@brief_kernel
def _norms(groups, ids, W, out):
    for g in ids:
        out[g] = block_norm(groups, g, W)
