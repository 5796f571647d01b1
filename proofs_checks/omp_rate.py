"""Group OMP: every step shrinks the excess over the best k groups by a factor that the design determines.

With w_s the fit on the s groups chosen so far, L_1 the smoothness of L on one group, mu_{k+s} its strong convexity on
k + s groups, and any comparator v with at most k groups,

    L(w_{s+1}) - L(v)  <=  (1 - mu_{k+s} / (k L_1)) (L(w_s) - L(v))         as long as L(w_s) > L(v)

since a step in one group gains ||g_i||^2 / (2 L_1), and the at most k groups of v outside S carry sum ||g_j||^2 >= 2 mu
times the excess. So k (L_1 / mu_{k+k'}) ln(1/eps) steps leave at most eps of it. The comparator is the best choice of k
groups, found by enumeration; mu and L_1 are enumerated, and compared with those of `certificates.approximation`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparseopt import Problem, select
from sparseopt.certificates import approximation
from sparseopt.proofs_checks.evidence import Evidence, Finding, Statement, control, holds
from sparseopt.proofs_checks.figures import COLOURS, axes, legend
from sparseopt.proofs_checks.instances import THREE_ATOMS, design, gram, restricted, squares

__all__ = ["STATEMENT"]

_COUNTS = {"small": 24, "medium": 400, "large": 4000}
_GROUPS, _STEPS, _ACCURACY = 9, 5, 0.2
Array = NDArray[np.float64]


def check(rng: np.random.Generator, size: str) -> Evidence:
    """The contraction of every step, its consequence, the constants, and what happens with a better constant."""
    slower, constants = [], []
    courses: list[Array] = []
    steps = 0
    for at in range(_COUNTS[size]):
        problem, k = _instance(rng, at)
        best = select(problem, k, "exact").objective
        fits = [select(problem, s, "omp").objective for s in range(_STEPS + k + 1)]
        excess = np.array(fits) - best
        L1 = restricted(problem, 1)[1]
        factors = np.array([1.0 - restricted(problem, k + s)[0] / (k * L1) for s in range(len(fits) - 1)])
        running = excess[:-1] > 1e-12 * excess[0]
        steps += int(running.sum())
        slower.append(_largest((excess[1:] - factors * excess[:-1])[running] / excess[0]))
        numbers = approximation(problem, k=k, accuracy=_ACCURACY).numbers
        constants += [abs(numbers["L1"] / L1 - 1.0), abs(numbers["mu"] / restricted(problem, numbers["s"])[0] - 1.0)]
        if k >= 2 and len(courses) < 6:
            courses.append(np.array([np.maximum(excess / excess[0], 1e-17), np.append(1.0, np.cumprod(factors))]))
    findings = [
        holds("every step of group OMP shrinks the excess by 1 - mu_{k+s} / (k L_1) or more", slower, 1e-12,
              f"Over the initial excess, against the best of all choices of k groups, {_GROUPS} groups, k = 1 to 4; "
              f"{steps} steps with an excess."),
        _enough(rng, _COUNTS[size]),
        holds("L_1 and mu of certificates.approximation are those of enumeration", constants, 1e-9, "Relatively."),
        _any_comparator(rng, _COUNTS[size]),
        _perfect(),
    ]  # fmt: skip
    return Evidence("omp_rate", tuple(findings), {f"course {i}": course for i, course in enumerate(courses)})


def figure(evidence: Evidence) -> Any:
    """The excess of a few instances step by step, and what the theorem allows."""
    drawing, (ax,) = axes(1)
    for colour, course in zip(COLOURS, evidence.series.values(), strict=False):
        steps = np.arange(course.shape[1])
        shown = course[0] > 1e-13
        ax.plot(steps[shown], course[0, shown], "o-", markersize=4, color=colour)
        ax.plot(steps, course[1], "--", linewidth=1.0, color=colour)
    ax.plot([], [], "o-", color="#888888", markersize=4, label="excess over the best k groups")
    ax.plot([], [], "--", color="#888888", label="bound")
    ax.set_yscale("log")
    ax.set_ylim(3e-3, 1.6)
    ax.set_xlabel("groups chosen by OMP")
    ax.set_ylabel("share of the initial excess")
    legend(ax, loc="lower left")
    return drawing


def _instance(rng: np.random.Generator, at: int) -> tuple[Problem, int]:
    """Gaussian groups of two, k of them planted, in half of the cases the others are partly mixtures of these; k."""
    k = 1 + at // 2 % 4
    X = design(rng, int(rng.integers(40, 800)), 2 * _GROUPS, float(rng.choice([0.0, 0.3])))
    share = at % 2 * rng.uniform(0.2, 0.8)  # of each other column that lies in the span of the planted ones
    X[:, 2 * k :] = (1.0 - share) * X[:, 2 * k :] + share * X[:, : 2 * k] @ rng.normal(size=(2 * k, 2 * (_GROUPS - k)))
    w = np.where(np.arange(2 * _GROUPS) < 2 * k, rng.normal(size=2 * _GROUPS), 0.0)
    return squares(X, X @ w + 0.1 * rng.normal(size=len(X)) / np.sqrt(len(X)), 2), k


def _any_comparator(rng: np.random.Generator, count: int) -> Finding:
    """The same against comparators with any k groups and any coefficients that are better than where OMP is."""
    slower = []
    for at in range(count):
        problem, k = _instance(rng, at)
        s = int(rng.integers(0, 3))
        before, after = (select(problem, size, "omp").objective for size in (s, s + 1))
        factor = 1.0 - restricted(problem, k + s)[0] / (k * restricted(problem, 1)[1])
        groups = rng.permutation(_GROUPS)[:k]
        best = select(problem, k, "omp", groups.tolist())
        for _ in range(5):
            v = best.w + best.w * rng.normal(size=best.w.size) * rng.uniform(0.0, 0.5)
            excess = before - problem.loss.value(problem.predictor(v))
            if excess > 0.0:
                slower.append((after - before + (1.0 - factor) * excess) / before)
    return holds("the same against any comparator with k groups", slower, 1e-12, "Random groups and coefficients.")


def _enough(rng: np.random.Generator, count: int) -> Finding:
    """Nearly orthonormal groups, on which a k' within the number of groups exists."""
    left = []
    for at in range(count):
        k = 1 + at % 2
        X = np.linalg.qr(rng.normal(size=(40, 2 * _GROUPS)))[0] + 0.05 * design(rng, 40, 2 * _GROUPS)
        problem = squares(X, X @ rng.normal(size=2 * _GROUPS), 2)
        kept = approximation(problem, k=k, accuracy=_ACCURACY).numbers["k_prime_omp"]
        if kept != "none":
            null, best = (select(problem, size, "exact").objective for size in (0, k))
            left.append((select(problem, int(kept), "omp").objective - best) / (null - best) - _ACCURACY)
    return holds(f"k' = k (L_1 / mu) ln(1 / eps) groups leave eps of the excess, eps = {_ACCURACY}", left, 1e-12,
                 f"{len(left)} of {count} nearly orthonormal designs have such a k' <= {_GROUPS}.")  # fmt: skip


def _perfect() -> Finding:
    """The rate of an orthonormal design, on one that is not."""
    problem = squares(*THREE_ATOMS)
    values = [select(problem, s, "omp").objective for s in range(3)]
    best = select(problem, 2, "exact").objective
    short = (values[2] - best) - 0.5 * (values[1] - best)
    return control(
        "every step shrinks the excess by 1 - 1/k, as if mu were L_1",
        short / (values[0] - best),
        0.08,
        f"Columns e1, e2, (1, 1, 1) / sqrt(3), y = (1, 1, 0), k = 2: the excess goes {values[0] - best:.4g}, "
        f"{values[1] - best:.4g}, {values[2] - best:.4g}. The condition number cannot be left out.",
    )


def _largest(values: Array) -> float:
    return float(values.max(initial=-1.0))


STATEMENT = Statement(
    name="omp_rate",
    number="extension",
    title="the rate of group OMP",
    source="of the type of Axiotis, Yasuda (2023), arXiv 2307.07405, Corollary A.7; constants and proof: this package",
    text="""
Let w_s be the fit on the s groups that group OMP has chosen, and v any point with at most k groups. Then
    L(w_{s+1}) − L(v)  ≤  ( 1 − μ_{k+s} / (k L₁) ) · ( L(w_s) − L(v) )
as long as the excess is positive: L₁ is the smoothness of L on single groups, μ_s its strong convexity on any s groups.
After k (L₁ / μ_{k+k'}) ln(1/ε) steps at most the share ε of the initial excess is left.
""",
    hypotheses={
        "L is strongly convex on any k + s groups": lambda problem: float(np.linalg.eigvalsh(gram(problem))[0]) > 0.0,
    },
    check=check,
    figure=figure,
    caption="The excess over the best k groups (k = 2 to 4), step by step, stays below its dashed bound; "
    "below zero, where OMP with more groups beats the best k, it is not drawn.",
)
