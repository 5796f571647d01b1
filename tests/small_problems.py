"""Small problems with everything in them: uneven groups, weights, offsets, free groups and intercepts."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparseopt import Groups, Problem

LOSSES = ("squares", "huber", "logistic", "poisson", "multinomial")


def small_problem(
    loss: str, lam: float = 0.05, intercept: bool = True, weight: float = 1.0, drop: int | None = None, **terms: Any
) -> Problem:
    """25 samples, 4 groups of different sizes, the last of weight `weight`; sample `drop` counts nothing."""
    rng = np.random.default_rng(LOSSES.index(loss))
    n, labels = 25, [0, 1, 2, 0, 3, 3, 1, 2, 0, 2]
    X = rng.standard_normal((n, len(labels)))
    X[:, 1::2] += 1.0
    signal = X[:, 0] + X[:, 3] - X[:, 4]
    y = {
        "squares": signal + rng.standard_normal(n),
        "huber": signal + rng.standard_t(2, n),
        "logistic": (signal + 2.0 * rng.standard_normal(n) > 0.0).astype(float),
        "poisson": rng.poisson(np.exp(0.4 * signal)).astype(float),
        "multinomial": rng.permutation(np.arange(n) % 3),
    }[loss]
    groups = Groups.from_labels(labels, weights={"3": weight})
    offset = 0.3 * rng.standard_normal((n, 3) if loss == "multinomial" else n)
    s = rng.uniform(0.2, 1.8, n) / n
    if drop is not None:
        s[drop] = 0.0
    return Problem.build(X, y, groups, loss=loss, lam=lam, intercept=intercept, offset=offset, sample_weight=s, **terms)
