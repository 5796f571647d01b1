"""Means over seeds, and differences on the same seeds.

    mean   m = sum x_i / n          standard error   s = sqrt(sum (x_i - m)^2 / (n - 1)) / sqrt(n),     n >= 2

For two methods on the same seeds, x_i is the difference of seed i: what a seed does to both alike cancels.

The seeds differ in initial weights, in the order of the batches and in what dropout draws. Data and split are the same
in all runs, so s does not say how far another sample, another split or a later week of clicks would be.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

__all__ = ["Estimate", "chance_beyond", "estimate", "paired"]


class Estimate(NamedTuple):
    """A mean, its standard error (nan for fewer than two numbers) and the count."""

    mean: float
    error: float
    n: int

    @property
    def ratio(self) -> float:
        """The mean in standard errors; nan without an error, and where mean and error are both 0."""
        if self.error == 0.0:
            return math.copysign(math.inf, self.mean) if self.mean else math.nan
        return self.mean / self.error


def estimate(values: Iterable[float]) -> Estimate:
    """Mean and standard error.

    >>> estimate([1.0, 3.0])
    Estimate(mean=2.0, error=1.0, n=2)
    >>> estimate([1.0])
    Estimate(mean=1.0, error=nan, n=1)
    """
    given = list(values)
    n = len(given)
    if n == 0:
        return Estimate(math.nan, math.nan, 0)
    mean = math.fsum(given) / n
    if n == 1:
        return Estimate(mean, math.nan, 1)
    return Estimate(mean, math.sqrt(math.fsum((x - mean) ** 2 for x in given) / (n - 1) / n), n)


def paired(a: Mapping[int, float], b: Mapping[int, float]) -> Estimate:
    """a - b over the seeds that both have.

    >>> paired({0: 1.0, 1: 2.0, 2: 9.0}, {0: 0.5, 1: 1.0})
    Estimate(mean=0.75, error=0.25, n=2)
    """
    return estimate(a[seed] - b[seed] for seed in sorted(a.keys() & b.keys()))


def chance_beyond(errors: float, n: int) -> float:
    """How often n seeds show a difference of more than `errors` standard errors where there is none.

    Student's t with n - 1 degrees of freedom, both sides: exact for normal differences.

    >>> round(chance_beyond(2.0, 3), 2), round(chance_beyond(2.0, 10), 2)
    (0.18, 0.08)
    """
    from scipy.stats import t

    return float(2.0 * t.sf(errors, n - 1))
