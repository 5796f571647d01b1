"""Losses of real responses and of counts, per sample and output, with r = z - y.

    Squares   f = r^2 / 2                                        f* = v y + v^2 / 2
    Huber     f = r^2 / 2 if |r| <= delta,                       f* = v y + v^2 / 2,           |v| <= delta
                  delta |r| - delta^2 / 2 otherwise
    Poisson   f = e^z - y z + y log y - y                        f* = p log p - y log y - v,    p = v + y >= 0

f >= 0 with minimum 0 in all three. Several outputs add up: Squares with K > 1 is multi-response regression.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from sparseopt.losses.inputs import Array, as_offset, as_targets, as_weights
from sparseopt.losses.loss import Loss
from sparseopt.losses.roots import increasing_root

__all__ = ["Huber", "Poisson", "Squares"]

_EPS = float(np.finfo(np.float64).eps)


def _is_number(value: object) -> bool:
    return isinstance(value, Real)


@dataclass(frozen=True, eq=False)
class Squares(Loss):
    """Least squares: L(z) = sum_i s_i ||z_i + o_i - y_i||^2 / 2, y real, one output or several.

    The half makes the Hessian s_i I, and the gradient in w for default weights X'(Xw - y) / n.
    One outlier can move the fit arbitrarily far; see `Huber`.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt.losses import Squares
    >>> loss = Squares.of([1.0, 3.0])
    >>> loss.value(np.zeros((2, 1)))
    2.5
    >>> loss.null_intercept()
    array([2.])
    """

    name: ClassVar[str] = "squares"
    smoothness: ClassVar[float | None] = 1.0
    is_quadratic: ClassVar[bool] = True

    def sample_value(self, z: Array) -> Array:
        r = z - self.y
        return 0.5 * r * r

    def sample_derivative(self, z: Array) -> Array:
        return z - self.y

    def sample_curvature(self, z: Array) -> Array:
        return np.ones(len(z))

    def sample_conjugate(self, v: Array) -> Array:
        return v * (self.y + 0.5 * v)

    def domain(self) -> tuple[Array | float, Array | float]:
        return -np.inf, np.inf

    @staticmethod
    def response(z: Array) -> Array:
        return z

    def null_intercept(self) -> Array:
        """The weighted mean of y - o."""
        return self.s @ (self.y if self.offset is None else self.y - self.offset) / self.s.sum()


@dataclass(frozen=True, eq=False)
class Huber(Loss):
    """Huber's loss of r = z + o - y: r^2 / 2 up to |r| = delta, delta |r| - delta^2 / 2 beyond; y real.

    A residual beyond delta pulls with the force delta only, so outliers in y do little (outliers in X still do). delta
    is in the units of y: the default suits noise of variance about one, at which it keeps 95 % of the efficiency of
    least squares. Scale y first, or pass delta = 1.345 times a robust scale of the residuals.

    Parameters
    ----------
    delta : the knot, > 0.

    References
    ----------
    P. J. Huber, Robust estimation of a location parameter, Ann. Math. Statist. 35 (1964).

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt.losses import Huber
    >>> loss = Huber.of([0.0, 0.0, 1000.0], delta=1.0)
    >>> loss.derivative(np.zeros((3, 1))).ravel().round(3) + 0.0
    array([ 0.   ,  0.   , -0.333])
    >>> loss.null_intercept().round(6)
    array([0.5])
    """

    delta: float = 1.345

    name: ClassVar[str] = "huber"
    smoothness: ClassVar[float | None] = 1.0
    canonical: ClassVar[bool] = False

    @classmethod
    def of(
        cls, y: ArrayLike, weights: ArrayLike | None = None, offset: ArrayLike | None = None, delta: float = 1.345
    ) -> Huber:
        """Build the loss; see `Loss.of`. delta > 0, in the units of y."""
        if not _is_number(delta) or not 0.0 < delta < np.inf:
            raise ValueError(f"delta is {delta}: pass a positive finite knot, in the units of y.")
        targets = as_targets(y)
        return cls(targets, as_weights(weights, len(targets)), as_offset(offset, targets.shape), float(delta))

    def sample_value(self, z: Array) -> Array:
        r = np.abs(z - self.y)
        near = np.minimum(r, self.delta)
        return near * (r - 0.5 * near)

    def sample_derivative(self, z: Array) -> Array:
        return np.clip(z - self.y, -self.delta, self.delta)

    def sample_curvature(self, z: Array) -> Array:
        # Beyond the knot the Hessian is 0, which no step length can be taken from: 1 holds on both sides.
        return np.ones(len(z))

    def sample_conjugate(self, v: Array) -> Array:
        return v * (self.y + 0.5 * v)

    def domain(self) -> tuple[Array | float, Array | float]:
        return -self.delta, self.delta

    @staticmethod
    def response(z: Array) -> Array:
        return z

    def null_intercept(self) -> Array:
        """The Huber M-estimate of location of y - o, per output; any of them where it is not unique."""
        centre = self.y if self.offset is None else self.y - self.offset
        kept = self.s > 0.0
        s = self.s[kept]
        b = np.empty(self.n_outputs)
        for k, column in enumerate(centre[kept].T):

            def pull(at: float, column: Array = column) -> tuple[float, float]:
                r = at - column
                return float(s @ np.clip(r, -self.delta, self.delta)), float(s @ (np.abs(r) <= self.delta))

            b[k] = increasing_root(pull, float(column.min()), float(column.max()))
        return b


@dataclass(frozen=True, eq=False)
class Poisson(Loss):
    """Poisson regression with the log link: rate e^(z + o), counts y >= 0 (any nonnegative numbers are allowed).

    f = e^z - y z + y log y - y is half the unit deviance. The curvature e^z has no bound: a solver needs a
    line search or the local curvature. Pass the logarithm of an exposure as the offset.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt.losses import Poisson
    >>> loss = Poisson.of([0, 1, 5], offset=np.log([1.0, 1.0, 2.0]))
    >>> np.exp(loss.null_intercept())
    array([1.5])
    >>> loss.value(np.full((3, 1), 1000.0))
    inf
    """

    name: ClassVar[str] = "poisson"
    smoothness: ClassVar[float | None] = None

    @classmethod
    def of(cls, y: ArrayLike, weights: ArrayLike | None = None, offset: ArrayLike | None = None) -> Poisson:
        """Build the loss; see `Loss.of`. y >= 0, with a positive count in every output."""
        targets = as_targets(y)
        if targets.min() < 0.0:
            raise ValueError(f"y contains {targets.min():g} but the Poisson loss needs counts: pass y >= 0.")
        s = as_weights(weights, len(targets))
        if not (s @ targets).all():
            raise ValueError(
                "y is 0 wherever the weight is positive, so the best log rate is -inf: pass positive counts."
            )
        return cls(targets, s, as_offset(offset, targets.shape))

    def sample_value(self, z: Array) -> Array:
        # With d = z - log y, f = y (e^d - 1 - d): no cancellation between terms of size y log y near the minimum.
        d = z - self._log_y
        near = (np.abs(d) < 1.0) & (self.y > 0.0)
        inner = np.where(near, d, 0.0)
        return np.where(near, np.maximum(self.y * (np.expm1(inner) - inner), 0.0), np.exp(z) - self.y * (1.0 + d))

    def sample_derivative(self, z: Array) -> Array:
        return np.exp(z) - self.y

    def sample_curvature(self, z: Array) -> Array:
        return np.exp(z).max(axis=1)

    def sample_conjugate(self, v: Array) -> Array:
        # With t = v / y, f* = y [(1 + t) log(1 + t) - t] + v log y: again no cancellation while v is small.
        p = v + self.y
        near = (np.abs(v) < 0.5 * self.y) & (self.y > 0.0)
        t = np.where(near, v, 0.0) / np.where(near, self.y, 1.0)
        bent = self.y * ((1.0 + t) * np.log1p(t) - t) + v * self._log_y
        return np.where(near, bent, p * np.log(np.where(p > 0.0, p, 1.0)) - self.y * self._log_y - v)

    def domain(self) -> tuple[Array | float, Array | float]:
        return -self.y, np.inf

    @staticmethod
    def response(z: Array) -> Array:
        with np.errstate(over="ignore", under="ignore"):
            return np.exp(z)

    def null_intercept(self) -> Array:
        """log(sum_i s_i y_i / sum_i s_i e^(o_i))."""
        o = np.zeros_like(self.y) if self.offset is None else self.offset
        shift = o[self.s > 0.0].max(axis=0)
        exposure = self.s @ np.exp(np.minimum(o - shift, 0.0))
        count = self.s @ self.y
        return np.log(np.where(count > 0.0, count, _EPS * self.s.sum())) - np.log(exposure) - shift

    @cached_property
    def _log_y(self) -> Array:
        return np.log(np.where(self.y > 0.0, self.y, 1.0))
