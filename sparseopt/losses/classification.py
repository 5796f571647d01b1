"""Losses of labels.

    Logistic      f = log(1 + e^z) - y z,  y in {0, 1}                 f* = p log p + (1 - p) log(1 - p),   p = v + y
    Multinomial   f = log sum_k e^(z_k) - <y, z>,  y one-hot           f* = sum_k p_k log p_k,              p = v + y

p runs over [0, 1] and over the simplex. Both are written in the margins, m = (1 - 2y) z and d_k = z_k - z_label, so
that nothing cancels: a sample predicted right with z = 700 has the loss e^(-700), not a difference of large numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from sparseopt.losses.inputs import Array, as_offset, as_targets, as_weights, require_variety
from sparseopt.losses.loss import Loss
from sparseopt.losses.roots import increasing_root

__all__ = ["Logistic", "Multinomial"]

_EPS, _TINY = float(np.finfo(np.float64).eps), float(np.finfo(np.float64).tiny)


@dataclass(frozen=True, eq=False)
class Logistic(Loss):
    """Logistic regression: L(z) = sum_i s_i [log(1 + e^z_i) - y_i z_i], y in {0, 1}, P(y = 1) = 1 / (1 + e^-z).

    Several outputs are several yes-no questions at once (a sample may answer yes to any number of them), unlike
    `Multinomial`. If a hyperplane separates the classes, the unpenalised minimum lies at infinity.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt.losses import Logistic
    >>> loss = Logistic.of([True, True, True, False])
    >>> np.allclose(loss.null_intercept(), np.log(3.0))
    True
    >>> loss.value(np.array([[1e4], [1e4], [1e4], [-1e4]]))
    0.0
    """

    name: ClassVar[str] = "logistic"
    smoothness: ClassVar[float | None] = 0.25

    @classmethod
    def of(cls, y: ArrayLike, weights: ArrayLike | None = None, offset: ArrayLike | None = None) -> Logistic:
        """Build the loss; see `Loss.of`. y holds 0 and 1, or -1 and 1, or booleans, both of them in every output."""
        targets = as_targets(y)
        labels = np.unique(targets)
        if not (np.isin(labels, (0.0, 1.0)).all() or np.isin(labels, (-1.0, 1.0)).all()):
            odd = labels[~np.isin(labels, (0.0, 1.0))][0]
            raise ValueError(
                f"y contains {odd:g}: pass 0 and 1, as y == positive_label, or the loss 'multinomial' for classes."
            )
        targets = (targets > 0.0).astype(np.float64)
        s = as_weights(weights, len(targets))
        for column in targets.T:
            require_variety(np.column_stack([1.0 - column, column]), s, "two classes are needed to tell apart")
        return cls(targets, s, as_offset(offset, targets.shape))

    def sample_value(self, z: Array) -> Array:
        m = (1.0 - 2.0 * self.y) * z
        return np.maximum(m, 0.0) + np.log1p(np.exp(-np.abs(m)))

    def sample_derivative(self, z: Array) -> Array:
        sign = 1.0 - 2.0 * self.y
        return sign * self.response(sign * z)

    def sample_curvature(self, z: Array) -> Array:
        e = np.exp(-np.abs(z))
        return (e / (1.0 + e) ** 2).max(axis=1)

    def sample_conjugate(self, v: Array) -> Array:
        p = np.clip((1.0 - 2.0 * self.y) * v, 0.0, 1.0)  # the entropy is the same for p and 1 - p
        return p * np.log(np.maximum(p, _TINY)) + (1.0 - p) * np.log1p(-np.minimum(p, 1.0 - 0.5 * _EPS))

    def domain(self) -> tuple[Array | float, Array | float]:
        return -self.y, 1.0 - self.y

    @staticmethod
    def response(z: Array) -> Array:
        with np.errstate(under="ignore"):
            e = np.exp(-np.abs(z))
        return np.where(z >= 0.0, 1.0, e) / (1.0 + e)

    def null_intercept(self) -> Array:
        """log(share of ones / share of zeros), without an offset; with one, the root of the derivative."""
        total = self.s.sum()
        ones, zeros = self.s @ self.y / total, self.s @ (1.0 - self.y) / total
        logit = np.log(np.where(ones > 0.0, ones, _EPS)) - np.log(np.where(zeros > 0.0, zeros, _EPS))
        if self.offset is None:
            return logit
        kept = self.s > 0.0
        s = self.s[kept] / total
        b = np.empty(self.n_outputs)
        for k, o in enumerate(self.offset[kept].T):
            share = self.response(logit[k])

            def excess(at: float, o: Array = o, share: Array = share) -> tuple[float, float]:
                p = self.response(at + o)
                return float(s @ (p - share)), float(s @ (p * (1.0 - p)))

            b[k] = increasing_root(excess, float(logit[k] - o.max()), float(logit[k] - o.min()))
        return b


@dataclass(frozen=True, eq=False)
class Multinomial(Loss):
    """Multinomial (softmax) regression: L(z) = sum_i s_i [log sum_k e^z_ik - z_i,label], P(class k) = softmax(z)_k.

    One output per class, none left out as a reference: adding a constant to a row of z changes nothing, and a
    penalty on w makes the answer unique. y is one-hot (n, K) inside.

    The curvature is min(max_k 2 p_k (1 - p_k), max_k p_k) <= 1/2: Gershgorin's discs of diag(p) - pp', and its
    largest diagonal entry without the term subtracted.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt.losses import Multinomial
    >>> loss = Multinomial.of([0, 1, 2, 2])
    >>> np.allclose(loss.value(np.zeros((4, 3))), np.log(3.0))
    True
    >>> loss.mean(np.tile(loss.null_intercept(), (4, 1)))[0].round(12)
    array([0.25, 0.25, 0.5 ])
    """

    name: ClassVar[str] = "multinomial"
    smoothness: ClassVar[float | None] = 0.5
    sums_to_zero: ClassVar[bool] = True

    @classmethod
    def of(cls, y: ArrayLike, weights: ArrayLike | None = None, offset: ArrayLike | None = None) -> Multinomial:
        """Build the loss; see `Loss.of`.

        y holds the labels 0, ..., K - 1, each at least once, or is one-hot of shape (n, K). The offset must be (n, K):
        one that all classes share has no effect.
        """
        targets = as_targets(y)
        if targets.shape[1] == 1:
            targets = _one_hot(targets[:, 0])
        elif not (np.isin(targets, (0.0, 1.0)).all() and (targets.sum(axis=1) == 1.0).all()):
            raise ValueError(
                f"y of shape {targets.shape} is not one-hot: pass labels, or one 1 per row and 0 elsewhere."
            )
        s = as_weights(weights, len(targets))
        require_variety(targets, s, "drop that class and number the others from 0")
        if offset is not None and np.shape(offset) != targets.shape:
            raise ValueError(
                f"offset has shape {np.shape(offset)}: pass {targets.shape}, one number per sample and class."
            )
        return cls(targets, s, as_offset(offset, targets.shape))

    def sample_value(self, z: Array) -> Array:
        d = z - (self.y * z).sum(axis=1, keepdims=True)
        top = d.max(axis=1, keepdims=True)
        others = (np.exp(d - top) * (1.0 - self.y)).sum(axis=1, keepdims=True)
        return top + np.log1p(others + np.expm1(-top))  # the label's own term is e^(-top)

    def sample_derivative(self, z: Array) -> Array:
        p = self.response(z) * (1.0 - self.y)
        return p - self.y * p.sum(axis=1, keepdims=True)

    def sample_curvature(self, z: Array) -> Array:
        p = self.response(z)
        rest = p.sum(axis=1, keepdims=True) - p
        return np.minimum((2.0 * p * rest).max(axis=1), p.max(axis=1))

    def sample_conjugate(self, v: Array) -> Array:
        p = np.clip(v + self.y, 0.0, 1.0)
        return (p * np.log(np.where(p > 0.0, p, 1.0))).sum(axis=1, keepdims=True)

    def domain(self) -> tuple[Array | float, Array | float]:
        return -self.y, 1.0 - self.y

    def project(self, A: Array, z: Array, U: Array) -> Array:
        """With the Hessian diag(p) - pp' itself: its bound c I would push tiny p_k below zero, out of the domain."""
        p, root = self.mean(z), np.sqrt(self.s)[:, None]
        n, m = U.shape
        n_outputs = p.shape[1]
        joint = (p[:, :, None] * (root * U)[:, None, :]).reshape(n, n_outputs * m)
        hessian = -joint.T @ joint
        for k in range(n_outputs):
            own = slice(k * m, (k + 1) * m)
            hessian[own, own] += (U * (self.s * p[:, k])[:, None]).T @ U
        for _ in range(2):
            beta = np.linalg.lstsq(hessian, (A.T @ U).ravel(), rcond=None)[0].reshape(n_outputs, m)
            shift = U @ beta.T
            A = A - self.s[:, None] * p * (shift - (p * shift).sum(axis=1, keepdims=True))
        return A

    @staticmethod
    def response(z: Array) -> Array:
        with np.errstate(under="ignore"):
            e = np.exp(z - z.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    def null_intercept(self) -> Array:
        """The logarithms of the class shares, without an offset; with one, by Newton's method. They sum to zero."""
        total = self.s.sum()
        share = self.s @ self.y / total
        share = np.where(share > 0.0, share, _EPS)
        share /= share.sum()
        b = np.log(share)
        b -= b.mean()
        return b if self.offset is None else self._fit_shares(b, share, self.s / total, self.offset)

    @staticmethod
    def _fit_shares(b: Array, share: Array, s: Array, o: Array) -> Array:
        """Minimise F(b) = sum_i s_i log sum_k e^(b + o_i)_k - <share, b>, sum(s) = 1: mean predicted shares = share.

        Generalised iterative scaling, b += log(share / predicted), never raises F; a damped Newton step replaces it
        wherever that lowers F at least as much, and is damped more where it does not. Newton's system is scaled by
        sqrt(share), which makes it the identity without an offset, and has the direction of the ones, along which F is
        flat, filled in. Offsets of any size are met: some 5 steps at size 1, 50 to 100 at size 1000.
        """

        def objective(b: Array) -> tuple[float, Array]:
            z = b + o
            top = z.max(axis=1, keepdims=True)
            e = np.exp(z - top)
            total = e.sum(axis=1, keepdims=True)
            return float(s @ (top + np.log(total))[:, 0] - share @ b), e / total

        root = np.sqrt(share)
        damping = 0.0
        with np.errstate(under="ignore"):
            f, p = objective(b)
            for _ in range(300):
                predicted = s @ p
                if np.abs(predicted - share).max() <= 4.0 * _EPS and np.allclose(
                    predicted, share, rtol=1e-12, atol=0.0
                ):
                    break
                scaling = b + np.log(share / np.maximum(predicted, np.finfo(np.float64).tiny))
                hessian = (np.diag(predicted) - (p.T * s) @ p) / np.outer(root, root) + np.outer(root, root)
                damped = hessian + damping * np.eye(len(b))
                newton = b + np.linalg.lstsq(damped, (share - predicted) / root, rcond=None)[0] / root
                (f_scaling, p_scaling), (f_newton, p_newton) = objective(scaling), objective(newton)
                if f_newton <= min(f, f_scaling) + 8.0 * _EPS * abs(f):
                    b, f, p = newton, f_newton, p_newton
                    damping = 0.1 * damping if damping > 1e-10 else 0.0
                else:
                    b, f, p = scaling, f_scaling, p_scaling
                    damping = max(10.0 * damping, 1e-8)
        return b - b.mean()


def _one_hot(labels: Array) -> Array:
    classes = np.unique(labels)
    if (classes != np.arange(len(classes))).any():
        odd = classes[classes != np.arange(len(classes))][0]
        raise ValueError(
            f"y contains the label {odd:g}, but the {len(classes)} classes must be 0, 1, ..., {len(classes) - 1}: "
            "pass np.unique(y, return_inverse=True)[1]."
        )
    if len(classes) < 2:
        raise ValueError("y contains the label 0 only: two classes or more are needed to tell apart.")
    return (labels[:, None] == classes).astype(np.float64)
