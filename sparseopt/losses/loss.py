"""What all losses share: weights, offset, duality.

    L(z) = sum_i s_i f(y_i, z_i + o_i),    z = Xw of shape (n, K),  s_i = 1/n unless given,  o_i = 0 unless given

A loss states f for one sample: value, derivative, curvature, and the conjugate with its domain, a box

    f*(v) = sup_z <v, z> - f(z),           low <= v <= high   (and sum_k v_k = 0 where f ignores a common shift of z).

Weights and offset enter here, once:

    grad L(z)_i = s_i f'(z_i + o_i),       L*(a) = sum_i s_i f*(a_i / s_i) - <a, o>.

A sample of weight zero drops out of everything, whatever its z; then L*(a) is finite only if a_i = 0.
The domain of f* is judged up to `ROUNDING`, because a dual point comes out of floating-point arithmetic.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparseopt.losses.inputs import Array, as_offset, as_targets, as_weights

__all__ = ["ROUNDING", "Loss"]

ROUNDING = 1e-12  # relative to max(1, |bound|)

_Self = TypeVar("_Self", bound="Loss")


@dataclass(frozen=True, eq=False)
class Loss(ABC):
    """A sum over samples, L(z) = sum_i s_i f(y_i, z_i + o_i). Build one with `of`, or by name with `get_loss`.

    A loss of your own is a frozen dataclass that states f: `sample_value`, `sample_derivative`, `sample_curvature`,
    `sample_conjugate`, `domain`, `response`, `null_intercept`. `sparseopt.laws.losses.check_loss` examines it.

    Conventions
    -----------
    All arrays are float64. z, a and everything of their shape are (n, K), K = 1 included, in C or Fortran order, which
    `derivative` and `mean` keep. Numbers that overflow become inf, without a warning; NaN in, NaN out.

    Parameters
    ----------
    y : targets, shape (n, K).
    s : weights >= 0, not all zero, shape (n,).
    offset : o, known part of the linear predictor, shape (n, K), or None.

    Notes
    -----
    The constructor trusts its arguments; `of` checks them.
    """

    y: Array
    s: Array
    offset: Array | None = None

    name: ClassVar[str]
    smoothness: ClassVar[float | None]  # sup of the largest eigenvalue of f'', None if unbounded
    is_quadratic: ClassVar[bool] = False
    canonical: ClassVar[bool] = True  # f'(z) = mean - y
    sums_to_zero: ClassVar[bool] = False  # f(z + c) = f(z), so v must sum to zero over the outputs

    @classmethod
    def of(cls: type[_Self], y: ArrayLike, weights: ArrayLike | None = None, offset: ArrayLike | None = None) -> _Self:
        """Build the loss from what a user has.

        Parameters
        ----------
        y : targets, shape (n,) or (n, K); the class says which values are allowed.
        weights : shape (n,), used as they are (not normalised), >= 0, not all zero. Default 1/n each: a mean.
        offset : shape (n,), or (n, K) for one per output. Default none.

        Raises
        ------
        ValueError
            If a shape, a sign or a value is wrong, or nothing can be learned from y.
        TypeError
            If an argument does not hold real numbers.
        """
        targets = as_targets(y)
        return cls(targets, as_weights(weights, len(targets)), as_offset(offset, targets.shape))

    @property
    def n_samples(self) -> int:
        """n."""
        return self.y.shape[0]

    @property
    def n_outputs(self) -> int:
        """K, the columns of z."""
        return self.y.shape[1]

    def value(self, z: Array) -> float:
        """L(z) >= 0; inf where it overflows."""
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            f = self.sample_value(self._shifted(z))
            f[self._dropped] = 0.0
            return float((self.s @ f).sum())

    def derivative(self, z: Array) -> Array:
        """dL/dz, shape (n, K), weights included: the gradient in w is X' times it."""
        out = np.empty_like(z)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            np.multiply(self.s[:, None], self.sample_derivative(self._shifted(z)), out=out)
        out[self._dropped] = 0.0
        return out

    def curvature(self, z: Array) -> Array:
        """c, shape (n,): the Hessian of L in z_i is at most c_i times the identity, at this z (weights included)."""
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            c = self.s * self.sample_curvature(self._shifted(z))
        c[self._dropped] = 0.0
        return c

    def curvature_bound(self) -> Array | None:
        """c, shape (n,), that majorises the curvature at every z (weights included); None if there is none."""
        return None if self.smoothness is None else self.smoothness * self.s

    def conjugate(self, a: Array) -> float:
        """L*(a) = sup_z <a, z> - L(z), a in units of dL/dz (weights and offset included); inf outside the domain.

        L(z) + L*(a) >= <a, z>, with equality at a = derivative(z).
        """
        v, kept = self._per_sample(a)
        if np.isnan(v).any():
            return float("nan")
        least, most = self._tolerated
        if not kept or (v > most).any() or (v < least).any() or self._tilts(v):
            return float("inf")
        return self.inner_conjugate(a)

    def inner_conjugate(self, a: Array) -> float:
        """`conjugate` for an a known to lie in the domain, as `dual_scale(a)` times a does: nothing is checked."""
        low, high = self.domain()
        with np.errstate(over="ignore", under="ignore"):
            v = a / self._divisor
            f = self.sample_conjugate(v if _is_infinite(low) and _is_infinite(high) else np.clip(v, low, high))
            f[self._dropped] = 0.0
            total = float((self.s @ f).sum())
        return total if self.offset is None else total - float(np.vdot(a, self.offset))

    def project(self, A: Array, z: Array, U: Array) -> Array:
        """A - D(U beta) with U'(A - D(U beta)) = 0, for D the curvature at z: a derivative freed of some directions.

        A dual point must be orthogonal to the columns of U, (n, m), that nothing penalises. Subtracted in the metric
        of the curvature, the correction is what a Newton step in these directions would remove, and it vanishes where
        f'' does: next to the bounds of the domain.
        """
        c = self.curvature(z)
        D = c[:, None]
        for _ in range(2):  # the second removes what rounding leaves of the first
            if U.shape[1] == 1 and (below := float(c @ (U[:, 0] * U[:, 0]))) > 0.0:
                A = A - D * (U * ((U[:, 0] @ A) / below))
            else:
                A = A - D * (U @ np.linalg.lstsq(U.T @ (D * U), U.T @ A, rcond=None)[0])
        return A

    def dual_scale(self, a: Array) -> float:
        """The largest c in [0, 1] with c * a in the domain of L*; 0 is always inside."""
        low, high = self.domain()
        least, most = self._tolerated
        everywhere = _is_infinite(low) and _is_infinite(high) and not (self.sums_to_zero or self._dropped.size)
        if everywhere and a.shape == self.y.shape:
            return float("nan") if np.isnan(a).any() else 1.0
        v, kept = self._per_sample(a)
        if np.isnan(v).any():
            return float("nan")
        if not kept or self._tilts(v):
            return 0.0
        c = 1.0
        for beyond, bound in ((v > most, high), (v < least, low)):
            if beyond.any():
                c = min(c, float((np.broadcast_to(bound, v.shape)[beyond] / v[beyond]).min()))
        return max(c, 0.0)

    def mean(self, z: Array) -> Array:
        """The expected response at linear predictor z of these samples (offset included), shape (n, K)."""
        out = np.empty_like(z)
        with np.errstate(over="ignore", under="ignore"):
            out[...] = self.response(self._shifted(z))
        return out

    def deviance(self, z: Array) -> float:
        """2 n_eff L(z) / sum(s), with n_eff the number of samples of positive weight.

        That is twice the log-likelihood ratio against the saturated model, whose L is 0, with the weights scaled to
        mean one (weights that count repetitions lose their total that way). For squares it is the weighted sum of
        squared residuals, in the units of y: the noise variance is not divided out.
        """
        return 2.0 * np.count_nonzero(self.s) / float(self.s.sum()) * self.value(z)

    def take(self: _Self, rows: ArrayLike) -> _Self:
        """The same loss on some of the samples: integers (repeats allowed) or a boolean mask.

        The weights are rescaled to the same total, so a default mean stays a mean and lam means the same. A class
        that none of the rows has stays an output.

        Raises
        ------
        ValueError
            If no row of positive weight is left.
        """
        chosen = np.asarray(rows)
        s = self.s[chosen]
        if not s.any():
            raise ValueError(f"rows selects {s.size} samples, none of positive weight: pass at least one that counts.")
        offset = None if self.offset is None else self.offset[chosen]
        return replace(self, y=self.y[chosen], s=s * (self.s.sum() / s.sum()), offset=offset)

    @abstractmethod
    def sample_value(self, z: Array) -> Array:
        """f(y_i, z_i) >= 0, offset already in z: shape (n, K) if f is a sum over outputs, else (n, 1); a new array."""

    @abstractmethod
    def sample_derivative(self, z: Array) -> Array:
        """f'(y_i, z_i), shape (n, K), offset already in z."""

    @abstractmethod
    def sample_curvature(self, z: Array) -> Array:
        """A bound of the largest eigenvalue of f''(y_i, z_i), shape (n,), offset already in z."""

    @abstractmethod
    def sample_conjugate(self, v: Array) -> Array:
        """f*(y_i, v_i) for v inside the domain, shaped like `sample_value`; a new array."""

    @abstractmethod
    def domain(self) -> tuple[Array | float, Array | float]:
        """(low, high), numbers or (n, K): the box on which f* is finite; it contains 0."""

    @staticmethod
    @abstractmethod
    def response(z: Array) -> Array:
        """The expected response at linear predictor z: any number of rows, offset already in z. For new samples."""

    @abstractmethod
    def null_intercept(self) -> Array:
        """b, shape (K,), that minimises L(1 b'): the best predictor without features.

        Where the infimum lies at infinity (a subset without one of the classes, or without a single count), the
        intercept of a probability or rate 2^-52 is returned: stationary up to rounding, and finite.
        """

    @cached_property
    def _dropped(self) -> NDArray[np.intp]:
        return np.flatnonzero(self.s == 0.0)

    def _shifted(self, z: Array) -> Array:
        # A vector z would broadcast against a column y to an (n, n) matrix, silently.
        if z.shape != self.y.shape:
            raise ValueError(f"z has shape {z.shape} but y has shape {self.y.shape}: pass one row per sample, (n, K).")
        return z if self.offset is None else z + self.offset

    def _per_sample(self, a: Array) -> tuple[Array, bool]:
        """v = a / s, and whether a is zero where the weight is."""
        if a.shape != self.y.shape:
            raise ValueError(f"a has shape {a.shape} but y has shape {self.y.shape}: pass one row per sample, (n, K).")
        with np.errstate(over="ignore", under="ignore"):
            v = a / self._divisor
        return v, not a[self._dropped].any()

    @cached_property
    def _divisor(self) -> Array:
        return np.where(self.s > 0.0, self.s, 1.0)[:, None]

    @cached_property
    def _tolerated(self) -> tuple[Array | float, Array | float]:
        """The domain of f*, wider by rounding."""
        low, high = self.domain()
        return (
            low - ROUNDING * np.maximum(1.0, np.abs(low)),
            high + ROUNDING * np.maximum(1.0, np.abs(high)),
        )

    def _tilts(self, v: Array) -> bool:
        return self.sums_to_zero and bool(np.any(np.abs(v.sum(axis=1)) > ROUNDING))


def _is_infinite(bound: Array | float) -> bool:
    """Whether a bound of the domain is no bound at all."""
    return isinstance(bound, float) and abs(bound) == np.inf
