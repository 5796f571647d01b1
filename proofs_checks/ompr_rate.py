"""Group OMP with replacement (Algorithm 2, Theorem B.3): when it converges, how fast, and when it cycles.

S holds k' groups, x is the fit on S, i = argmax_{g not in S} ||g_g(x)||, j = argmin_{g in S} ||x_g||; S becomes
S - j + i. With kappa = L_2 / mu_{k+k'} and any comparator of k groups,

    k' >= k kappa^2    =>    excess_new <= (1 - 1 / (k kappa)) excess,    R = ceil(k kappa ln(1 / eps)) replacements

which asks less than the printed k' >= k (kappa^2 + 1). Constants are those that `certificates.approximation` finds on
the instance; where there is no such k', nothing is claimed. Algorithm 2 finds i by problem (1) with S free at "lambda
sufficiently large": there nothing is active outside S. Just below tau_S it is the group of the largest gradient.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparseopt import LogSum, Problem, Status, select
from sparseopt.certificates import approximation, one_group_window
from sparseopt.proofs_checks.evidence import Evidence, Finding, Statement, control, holds
from sparseopt.proofs_checks.figures import COLOURS, axes, legend
from sparseopt.proofs_checks.instances import (
    INSTANCE_H,
    THREE_ATOMS,
    design,
    gram,
    penalised,
    restricted,
    solved,
    squares,
)

__all__ = ["STATEMENT"]

_COUNTS = {"small": 16, "medium": 300, "large": 3000}
_GROUPS, _ACCURACY = 10, 1e-4
Array = NDArray[np.float64]


def check(rng: np.random.Generator, size: str) -> Evidence:
    """Rate and bound on replacements, the choice by problem (1), and the controls."""
    slower, beyond, same, kept_groups, steps = [], [], [], [], 0
    courses: list[Array] = []
    for at in range(_COUNTS[size]):
        problem, k = _instance(rng, at)
        numbers = approximation(problem, k=k, accuracy=_ACCURACY).numbers
        if numbers["k_prime"] == "none":
            continue
        kept, kappa, R = int(numbers["k_prime"]), float(numbers["kappa"]), int(numbers["R"])
        best = select(problem, k, "exact").objective
        start = list(range(_GROUPS - kept, _GROUPS))  # none of the planted groups, if k + k' of them exist
        excess = _course(problem, start, R) - best
        running = excess[:-1] > 1e-12 * excess[0]
        steps += int(running.sum())
        slower.append(_largest((excess[1:] - (1.0 - 1.0 / (k * kappa)) * excess[:-1])[running] / abs(excess[0])))
        beyond.append(float(excess[-1] / abs(excess[0])) - _ACCURACY)
        same.append(_differs(problem, start))
        kept_groups.append(kept)
        if len(courses) < 6 and k >= 2:
            courses.append(np.array([np.maximum(excess / excess[0], 0.0), (1 - 1 / (k * kappa)) ** np.arange(R + 1)]))
    tried = (
        f"{len(slower)} of {_COUNTS[size]} instances have k' with k' >= k kappa^2 among {_GROUPS} groups, k = 1 to 4"
    )
    findings = [
        holds("every replacement shrinks the excess by 1 - 1 / (k kappa) or more, if k' >= k kappa^2", slower, 1e-12,
              f"Over the initial excess. {tried}; k' = {min(kept_groups)} to {max(kept_groups)}; {steps} "
              "replacements had an excess to shrink."),
        holds(f"after R = ceil(k kappa ln(1 / eps)) replacements at most eps = {_ACCURACY:g} of it is left", beyond,
              1e-12),
        holds("problem (1) just below tau_S, S free, names the group of the largest gradient", same, 0.0,
              "One replacement by q and one by the gradient, lam in the proven window."),
        _large_lam(rng),
        _leaving(_COUNTS[size] * 3),
        _cycling(),
        _instance_h(),
        _stuck(rng, _COUNTS[size] * 3),
    ]  # fmt: skip
    return Evidence("ompr_rate", tuple(findings), {f"course {i}": course for i, course in enumerate(courses)})


def figure(evidence: Evidence) -> Any:
    """The excess replacement by replacement, and what the theorem allows."""
    drawing, (ax,) = axes(1)
    for colour, course in zip(COLOURS, evidence.series.values(), strict=False):
        steps = np.arange(course.shape[1])
        shown = course[0] > 0.0
        ax.plot(steps[shown], course[0, shown], "o-", markersize=4, color=colour)
        ax.plot(steps, course[1], "--", linewidth=1.0, color=colour)
    ax.plot([], [], "o-", color="#888888", markersize=4, label="excess over the best k groups")
    ax.plot([], [], "--", color="#888888", label="bound")
    ax.set_yscale("log")
    ax.set_ylim(1e-5, 1.6)
    ax.set_xlim(-0.3, 12.3)
    ax.set_xlabel("replacements")
    ax.set_ylabel("share of the initial excess")
    legend(ax, loc="upper right")
    return drawing


def _instance(rng: np.random.Generator, at: int) -> tuple[Problem, int]:
    """Groups of two, orthonormal up to Gaussian noise, k of them planted; k."""
    k = 1 + at % 4
    X = np.linalg.qr(rng.normal(size=(60, 2 * _GROUPS)))[0] + rng.uniform(0.01, 0.15) * design(rng, 60, 2 * _GROUPS)
    w = np.where(np.arange(2 * _GROUPS) < 2 * k, rng.normal(size=2 * _GROUPS), 0.02 * rng.normal(size=2 * _GROUPS))
    return squares(X, X @ w, 2), k


def _course(problem: Problem, start: list[int], steps: int) -> Array:
    """Objectives from one replacement to the next; a step that is refused leaves them where they are."""
    values, chosen = [select(problem, len(start), "omp", start).objective], start
    for _ in range(steps):
        solution = select(problem, len(start), "ompr", chosen, max_steps=1)
        values.append(solution.objective)
        if solution.support.tolist() == chosen:
            break
        chosen = solution.support.tolist()
    return np.array(values + [values[-1]] * (steps + 1 - len(values)))


def _differs(problem: Problem, chosen: list[int]) -> float:
    """1 if one replacement by problem (1), lam in the window, is not the one by the gradient."""
    numbers = one_group_window(penalised(problem, chosen)).numbers
    share = 0.5 * (1.0 + float(numbers["lam_low"]) / float(numbers["tau"]))
    first, second = (
        select(problem, len(chosen), "ompr", chosen, max_steps=1, **options).support.tolist()
        for options in ({"by": "score"}, {"by": "q", "penalty": LogSum(1.0), "lam_share": share})
    )
    return float(first != second)


def _large_lam(rng: np.random.Generator) -> Finding:
    """Problem (1) with S free at and above tau_S, and in the window."""
    problem, _ = _instance(rng, 0)
    chosen = [0, 1, 2]
    numbers = one_group_window(penalised(problem, chosen)).numbers
    tau, low = float(numbers["tau"]), float(numbers["lam_low"])
    outside = np.setdiff1d(np.arange(_GROUPS), chosen)
    counts = []
    for lam in (1e3 * tau, 2.0 * tau, 1.000001 * tau, 0.5 * (low + tau)):
        w = solved(penalised(problem, chosen, LogSum(1.0), lam), tol=1e-10).w
        counts.append(int(np.count_nonzero(problem.groups.norms(w)[outside])))
    return control(
        "for lam sufficiently large, problem (1) with S free has a largest group outside S",
        float(counts[:3] == [0, 0, 0] and counts[3] == 1),
        1.0,
        f"{counts} active groups outside S at lam = 1000, 2, 1.000001 tau_S and in the window, "
        f"[{low / tau:.4f}, 1) tau_S.",
        printed="Algorithm 2: let beta minimise problem (1) with S unpenalised for lambda sufficiently large, take the "
        "group outside S that maximises beta.",
        corrected="Take lam in [tau_S - delta_S mu / (mu + M), tau_S), computed anew in every iteration: there exactly "
        "one group outside S is active, the one of the largest gradient. From tau_S on none is. The group that leaves "
        "is the one of smallest norm in the fit on S, and the result is the fit on the final S, of k' groups.",
    )


def _leaving(count: int) -> Finding:
    """Which member leaves: by the fit on S, or by the solution of problem (1) with S free, close to tau_S and far."""
    rng = np.random.default_rng(0)  # a counterexample is wanted, whatever the seed
    others = {0.999: 0, 0.5: 0}
    for _ in range(count):
        X = design(rng, 40, 12, 0.4)
        problem = squares(X, X @ rng.normal(size=12) + 0.1 * rng.normal(size=40), 2)
        fit = select(problem, 3, "omp", [0, 1, 2])
        tau = float(problem.groups.norms(problem.gradient(fit.w)[0])[3:].max())
        for share in others:
            w = solved(penalised(problem, [0, 1, 2], LogSum(1.0), share * tau), (fit.w, 0.0), tol=1e-9).w
            others[share] += int(np.argmin(problem.groups.norms(w)[:3]) != np.argmin(fit.group_norms[:3]))
    return control(
        "the member that leaves is the smallest in the solution of problem (1), at any lam below tau_S",
        others[0.5] / count,
        1.0 / count,
        f"At 0.5 tau_S it is another one than in the fit on S in {others[0.5]} of {count} instances, at 0.999 tau_S in "
        f"{others[0.999]}.",
    )


def _cycling() -> Finding:
    """Three features, k = k' = 2: the replacements go round at 1/4, the best choice has 0."""
    problem = squares(*THREE_ATOMS)
    sets, values = _printed(problem, [0, 2], 8)
    solution = select(problem, 2, "ompr", [0, 2])
    best = select(problem, 2, "exact").objective
    period = sets[0] == sets[2] == sets[4] != sets[1] and max(abs(v - 0.25) for v in values) < 1e-12
    numbers = approximation(problem, k=1).numbers
    seen = period and solution.status is Status.CYCLING and best < 1e-12
    return control(
        "group OMPR converges without a condition on k'",
        float(seen) * (min(values) - best),
        0.25 - 1e-9,
        f"Columns e1, e2, (1, 1, 1) / sqrt(3), y = (1, 1, 0), k = k' = 2: it goes round {sets[0]}, {sets[1]} at "
        f"{values[0]:g}, the optimum is {max(best, 0.0):.0f}; kappa = {_kappa(problem):.2f}. sparseopt ends with the "
        f"status {solution.status.name} (k' for k = 1: {numbers['k_prime']}).",
    )


def _instance_h() -> Finding:
    """k = k' = 1 on instance H: as printed it alternates for ever and R decides; here the best counts."""
    problem = squares(*INSTANCE_H)
    _, values = _printed(problem, [0], 6)
    ends = [select(problem, 1, "ompr", [g]).objective - min(values) for g in (0, 1)]
    return control(
        "the last iterate is the one to return",
        float(max(ends) <= 1e-12) * (max(values) - min(values)),
        1.0,
        f"Instance H, k = k' = 1: {', '.join(f'{v:.4f}' for v in values[:4])}, ... sparseopt refuses a replacement "
        f"that raises the objective, and returns {min(values):.4f} from both starts.",
    )


def _stuck(rng: np.random.Generator, count: int) -> Finding:
    """12 by 6 correlated designs, k' = k = 2: how often it ends more than 5% above the best choice."""
    above = []
    for _ in range(count):
        X = design(rng, 12, 6, 0.5)
        problem = squares(X, X @ rng.normal(size=6) + 0.2 * rng.normal(size=12))
        best = select(problem, 2, "exact").objective
        above.append(select(problem, 2, "ompr").objective / best - 1.0)
    share = float(np.mean(np.array(above) > 0.05))
    return control(
        "k' = k groups are enough on any design",
        max(above),
        0.05,
        f"{share:.0%} of {count} correlated designs of 12 by 6 end more than 5% above the best pair, at worst "
        f"{max(above):.0%}.",
    )


def _printed(problem: Problem, start: list[int], steps: int) -> tuple[list[list[int]], list[float]]:
    """The replacements of Algorithm 2 without any stopping rule."""
    H, h = gram(problem), problem.loss.y[:, 0]
    b = -problem.gradient(np.zeros(len(H)))[0]
    sets, values, chosen = [], [], list(start)
    for _ in range(steps):
        x = np.zeros(len(H))
        x[chosen] = np.linalg.solve(H[np.ix_(chosen, chosen)], b[chosen])
        sets.append(sorted(chosen))
        values.append(0.5 * float(h @ h) + float(0.5 * x @ H @ x - b @ x))
        pulls = np.abs(b - H @ x)
        pulls[chosen] = -1.0
        chosen = [g for g in chosen if g != min(chosen, key=lambda g: abs(x[g]))] + [int(np.argmax(pulls))]
    return sets, values


def _kappa(problem: Problem) -> float:
    """L_2 / mu of all three features, which is mu_{k+k'}."""
    return restricted(problem, 2)[1] / restricted(problem, 4)[0]


def _largest(values: Array) -> float:
    return float(values.max(initial=-1.0))


STATEMENT = Statement(
    name="ompr_rate",
    number="Theorem B.3, Algorithm 2",
    title="the rate of group OMP with replacement",
    source="arXiv 2402.17902 v1, Algorithm 2 and Theorem B.3; constants and proof of this package",
    text="""
S holds k' groups and x is the fit on S. Replace the group of S with the smallest ‖x_j‖ by the group outside S with the
largest ‖∇_i L(x)‖. Let κ = L₂ / μ_{k+k'}, and v any point with at most k groups. If
    k' ≥ k κ²
then every replacement shrinks L(x) − L(v) to at most 1 − 1/(k κ) of itself, and R = ⌈k κ ln(1/ε)⌉ of them leave at most
the share ε. The paper asks k' ≥ k (κ² + 1). Without a condition the replacements may go round for ever.
""",
    hypotheses={
        "k' ≥ k κ² for a k' ≤ number of groups − k": lambda problem: (
            approximation(problem, k=1).numbers["k_prime"] != "none"
        ),
    },
    check=check,
    figure=figure,
    caption="The excess over the best k groups, replacement by replacement from groups that have nothing to do with "
    "the target, and its dashed bound; where the line ends, k' groups do better than the best k.",
)
