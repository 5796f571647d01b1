"""The laws of a loss reject losses that break them, each for its own reason, and accept a right one of a user's own."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from sparseopt.laws.losses import check_loss
from sparseopt.losses import Huber, Logistic, Loss, Multinomial, Poisson, Squares

COUNTS = [0, 1, 9, 12, 2, 0, 10]
LABELS = [0, 1, 1, 0, 1, 0, 0]
CLASSES = [0, 1, 2, 2, 1, 0, 2]
REALS = [0.0, 1.5, -2.0, 8.0, 0.3, -0.7, 1.0]


class DerivativeWithoutHalf(Squares):
    def sample_derivative(self, z):
        return 2.0 * (z - self.y)


class DerivativeOffByOneInAMillion(Logistic):
    def sample_derivative(self, z):
        return (1.0 + 1e-6) * super().sample_derivative(z)


class NegativeLogLikelihood(Poisson):
    """Without the constant y log y - y: a fine loss, but negative."""

    def sample_value(self, z):
        return np.exp(z) - self.y * z


class OverflowingLogistic(Logistic):
    def sample_value(self, z):
        return np.log(np.exp(z) + 1.0) - self.y * z


class UnshiftedSoftmax(Multinomial):
    @staticmethod
    def response(z):
        e = np.exp(z)
        return e / e.sum(axis=1, keepdims=True)


class NanPoisson(Poisson):
    def sample_value(self, z):
        return np.exp(z) / (1.0 + 0.0 * np.exp(z)) - self.y * z + 100.0


class CurvatureOfLogisticHalved(Logistic):
    def sample_curvature(self, z):
        return 0.5 * super().sample_curvature(z)


class CurvatureOfMultinomialIsTheDiagonal(Multinomial):
    """max p (1 - p) is the largest diagonal entry of the Hessian, not its largest eigenvalue."""

    def sample_curvature(self, z):
        p = self.response(z)
        return (p * (1.0 - p)).max(axis=1)


class BoundTooSmall(Logistic):
    smoothness: ClassVar[float | None] = 0.2


class BoundOfPoisson(Poisson):
    smoothness: ClassVar[float | None] = 1.0


class NotReallyQuadratic(Huber):
    is_quadratic: ClassVar[bool] = True


class ConjugateWithoutY(Squares):
    def sample_conjugate(self, v):
        return 0.5 * v * v


class ConjugateTooLarge(Squares):
    def sample_conjugate(self, v):
        return super().sample_conjugate(v) + 0.1


class ConjugateOfHuberEverywhere(Huber):
    def domain(self):
        return -np.inf, np.inf


class DomainTooNarrow(Logistic):
    def domain(self):
        return -0.5 * self.y, 0.5 * (1.0 - self.y)


class DomainWithoutTheSimplex(Multinomial):
    sums_to_zero: ClassVar[bool] = False


class DualScaleForgetsTheDomain(Logistic):
    def dual_scale(self, a):
        return 1.0


class DualScaleTooCautious(Logistic):
    def dual_scale(self, a):
        return 0.5 * super().dual_scale(a)


class ConjugateForgetsTheOffset(Logistic):
    def conjugate(self, a):
        return super().conjugate(a) + (0.0 if self.offset is None else (a * self.offset).sum())


class ConjugateForgetsZeroWeights(Squares):
    def conjugate(self, a):
        return super().conjugate(np.where(self.s[:, None] > 0.0, a, 0.0))


class MeanOfWeights(Squares):
    """Weights normalised behind the user's back."""

    def value(self, z):
        return super().value(z) / self.s.sum()

    def derivative(self, z):
        return super().derivative(z) / self.s.sum()

    def curvature(self, z):
        return super().curvature(z) / self.s.sum()

    def curvature_bound(self):
        return self.s / self.s.sum()

    def conjugate(self, a):
        return super().conjugate(a * self.s.sum()) / self.s.sum()

    def dual_scale(self, a):
        return super().dual_scale(a * self.s.sum())

    def deviance(self, z):
        return super().deviance(z)


class NullInterceptIgnoresZeroWeights(Squares):
    def null_intercept(self):
        return self.y.mean(axis=0)


class MedianIntercept(Squares):
    def null_intercept(self):
        return np.median(self.y, axis=0)


class OffsetWithTheWrongSign(Poisson):
    def _shifted(self, z):
        return z if self.offset is None else z - self.offset


class MeanIgnoresTheOffset(Squares):
    def mean(self, z):
        return z.copy()


class MeanIsTheLinearPredictor(Logistic):
    @staticmethod
    def response(z):
        return 1.0 / (2.0 + np.abs(z))

    def sample_derivative(self, z):
        return np.where(z >= 0.0, 1.0, np.exp(-np.abs(z))) / (1.0 + np.exp(-np.abs(z))) - self.y


class SaysItIsCanonical(Huber):
    canonical: ClassVar[bool] = True


class AlwaysC(Squares):
    def derivative(self, z):
        return np.ascontiguousarray(super().derivative(z))


class MeanIsAView(Squares):
    def mean(self, z):
        return self.response(self._shifted(z))


class WritesToZ(Squares):
    def sample_derivative(self, z):
        z -= self.y
        return z


class TakeForgetsTheWeights(Squares):
    def take(self, rows):
        rows = np.asarray(rows)
        return dataclasses.replace(self, y=self.y[rows], s=self.s[rows])


class Coupled(Squares):
    """Half the squared sum of residuals: not a sum over samples."""

    def value(self, z):
        return super().value(z) + 0.5 * float((self.s[:, None] * (z - self.y)).sum()) ** 2

    def derivative(self, z):
        return super().derivative(z) + self.s[:, None] * (self.s[:, None] * (z - self.y)).sum()


class DevianceWithoutTheTwo(Squares):
    def deviance(self, z):
        return 0.5 * super().deviance(z)


class ArrayValue(Squares):
    def value(self, z):
        return np.float32(super().value(z))


WRONG = [
    (DerivativeWithoutHalf, REALS, "but value has slope"),
    (DerivativeOffByOneInAMillion, LABELS, "but value has slope"),
    (NegativeLogLikelihood, COUNTS, "not >= 0"),
    (OverflowingLogistic, LABELS, "but curvature is bounded"),
    (UnshiftedSoftmax, CLASSES, "value is tame. It warns: invalid value|NaN"),
    (NanPoisson, COUNTS, "value is nan"),
    (CurvatureOfLogisticHalved, LABELS, "its Hessian"),
    (CurvatureOfMultinomialIsTheDiagonal, CLASSES, "its Hessian"),
    (BoundTooSmall, LABELS, "above"),
    (BoundOfPoisson, COUNTS, "value is inf at .* curvature is bounded"),
    (NotReallyQuadratic, REALS, "quadratic loss half-way"),
    (ConjugateWithoutY, REALS, "Fenchel's inequality"),
    (ConjugateTooLarge, REALS, "conjugate is 0.1"),
    (ConjugateOfHuberEverywhere, REALS, "Fenchel's inequality fails.* far out"),
    (DomainTooNarrow, LABELS, "conjugate is inf"),
    (DomainWithoutTheSimplex, CLASSES, "Fenchel's inequality fails.* far out"),
    (DualScaleForgetsTheDomain, LABELS, "conjugate is inf"),
    (DualScaleTooCautious, LABELS, "dual_scale is 0.5 at a derivative"),
    (ConjugateForgetsTheOffset, LABELS, "conjugate with offset"),
    (MeanOfWeights, REALS, "weight 2"),
    (NullInterceptIgnoresZeroWeights, REALS, "null_intercept at weight 0"),
    (MedianIntercept, REALS, "null_intercept"),
    (OffsetWithTheWrongSign, COUNTS, "value with offset"),
    (MeanIgnoresTheOffset, REALS, "mean with offset"),
    (MeanIsTheLinearPredictor, LABELS, r"s \(mean - y\)"),
    (SaysItIsCanonical, REALS, r"s \(mean - y\)"),
    (AlwaysC, [[1.0, 2.0], [0.5, 3.0], [-1.0, 2.0]], "order comes out in another"),
    (MeanIsAView, REALS, "view of z"),
    (WritesToZ, REALS, "derivative|value"),
    (TakeForgetsTheWeights, REALS, r"take\(rows\)"),
    (Coupled, REALS, "derivative of others"),
    (DevianceWithoutTheTwo, REALS, "deviance"),
    (ArrayValue, REALS, "not a float"),
]


@pytest.mark.parametrize(("cls", "y", "message"), WRONG, ids=[case[0].__name__ for case in WRONG])
def test_wrong_losses_are_rejected(cls, y, message):
    loss = cls.of(y)
    with pytest.raises(AssertionError, match=message):
        check_loss(loss)
    check_loss(cls.__base__.of(y))


def test_a_dual_point_at_weight_zero_is_rejected():
    with pytest.raises(AssertionError, match="though a is not 0 at a sample of weight 0"):
        check_loss(ConjugateForgetsZeroWeights.of([1.0, 2.0, 3.0], [1.0, 0.0, 1.0]))


@dataclass(frozen=True, eq=False)
class LogCosh(Loss):
    """f = log cosh(z - y), with f' = tanh and f* = ((1 + v) log(1 + v) + (1 - v) log(1 - v)) / 2 + v y."""

    name: ClassVar[str] = "logcosh"
    smoothness: ClassVar[float | None] = 1.0
    canonical: ClassVar[bool] = False

    def sample_value(self, z):
        r = np.abs(z - self.y)
        return r + np.log1p(np.expm1(-2.0 * r) / 2.0)

    def sample_derivative(self, z):
        return np.tanh(z - self.y)

    def sample_curvature(self, z):
        return (1.0 - np.tanh(z - self.y) ** 2).max(axis=1)

    def sample_conjugate(self, v):
        inside = np.clip(v, -1.0 + 1e-16, 1.0 - 1e-16)
        return v * self.y + 0.5 * ((1.0 + v) * np.log1p(inside) + (1.0 - v) * np.log1p(-inside))

    def domain(self):
        return -1.0, 1.0

    @staticmethod
    def response(z):
        return z

    def null_intercept(self):
        centre = self.y if self.offset is None else self.y - self.offset
        b = self.s @ centre / self.s.sum()
        for _ in range(500):
            b = b - self.s @ np.tanh(b - centre) / self.s.sum()
        return b


def test_a_loss_of_ones_own_passes():
    rng = np.random.default_rng(0)
    y = rng.standard_normal((9, 2))
    check_loss(LogCosh.of(y))
    check_loss(LogCosh.of(y, rng.integers(1, 3, 9), rng.standard_normal(9)))
