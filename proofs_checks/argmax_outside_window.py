"""Fact C outside its window: one group is active, and it is not the one with the largest gradient at zero.

Instance H has two features, X'X = [[1, .45], [.45, .25]] and X'y = (1, .95), so that tau = 1 belongs to feature 1. As
lam falls, the group lasso passes through

    {1}   lam in [10/11, 1)        {1, 2}   (.8875, 10/11)        {2}   [.71/2.8, .8875]        {1, 2}   below

so "one active group" does not say that it is the group that OMP would take. Theorem 1.1 holds all the same: in the
third range the global minimum of problem (1) is on feature 2, and (1 - lam, 0) is a trap for block descent if
||g_2|| <= lam (1 + r / eps) at norm r. Two features of equal length cannot do this.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparseopt import LogSum, Power, Problem, select
from sparseopt.certificates import one_group_window, theorem_1_1
from sparseopt.proofs_checks.evidence import Evidence, Finding, Statement, control, holds
from sparseopt.proofs_checks.figures import COLOURS, axes, legend
from sparseopt.proofs_checks.instances import (
    INSTANCE_H,
    composite,
    convex_optimum,
    lowest,
    solved,
    squares,
    traced,
    with_q,
)

__all__ = ["STATEMENT"]

_COUNTS = {"small": 400, "medium": 20_000, "large": 400_000}
_TURNS = (10.0 / 11.0, 0.8875, 0.71 / 2.8)
_RANGES = {(0,): (0.92, 0.95, 0.99), (0, 1): (0.89, 0.9, 0.2, 0.1), (1,): (0.26, 0.5, 0.88)}


def check(rng: np.random.Generator, size: str) -> Evidence:
    """The ranges of instance H, its traps, and that columns of unit length exclude it in the plane."""
    problem = squares(*INSTANCE_H)
    along = traced(problem, np.linspace(1.02, 0.1, 120), tol=1e-9)
    findings = (
        _ranges(problem),
        _turns(problem),
        _proved(problem),
        _wrong_group(problem),
        _window(problem),
        _global(problem),
        _traps(problem),
        _unit_columns(rng, _COUNTS[size]),
    )
    return Evidence("argmax_outside_window", findings, {"lams": along.lams, "norms": along.group_norms})


def figure(evidence: Evidence) -> Any:
    """Both coefficients along the path."""
    drawing, (ax,) = axes(1)
    lams, norms = evidence.series["lams"], evidence.series["norms"]
    for g, label in ((0, "feature 1, the largest gradient at 0"), (1, "feature 2")):
        ax.plot(lams, norms[:, g], color=COLOURS[g], linewidth=2.0, label=label)
    for turn in _TURNS:
        ax.axvline(turn, color="#888888", linewidth=0.8, linestyle="--")
    top = 1.02 * float(norms.max())
    for x, words in ((0.953, "{1}"), (0.57, "only {2}"), (0.18, "{1, 2}")):
        ax.annotate(words, (x, top), ha="center", fontsize=9, color="#888888")
    ax.set_ylim(-0.05, 1.12 * float(norms.max()))
    ax.set_xlabel("λ (τ = 1)")
    ax.set_ylabel("coefficient")
    legend(ax, loc="center", bbox_to_anchor=(0.62, 0.62))
    return drawing


def _ranges(problem: Problem) -> Finding:
    """Who is active at places of each range, and the optimum there by CVXPY."""
    wrong, said = [], []
    for expected, lams in _RANGES.items():
        for lam in lams:
            solution = solved(problem.at(lam), tol=1e-13)
            found = tuple(int(g) for g in solution.support)
            gap = abs(convex_optimum(problem.at(lam)) - solution.objective)
            wrong.append(max(float(found != expected), gap))
            said.append(f"{found} active at lam = {lam}, or {gap:.1g} from the optimum of CVXPY")
    return holds(
        "the active features of the group lasso in all four ranges of lam", wrong, 1e-9, where=said.__getitem__
    )


def _turns(problem: Problem) -> Finding:
    """The ends of the ranges, by bisection on the active set."""
    apart = []
    for turn, before in zip(_TURNS, ((0,), (0, 1), (1,)), strict=True):
        high, low = turn + 0.01, turn - 0.01
        while high - low > 1e-9:
            middle = 0.5 * (high + low)
            same = tuple(int(g) for g in solved(problem.at(middle), tol=1e-13).support) == before
            high, low = (middle, low) if same else (high, middle)
        apart.append(abs(high - turn))
    return holds("they end at 10/11, 0.8875 and 0.71/2.8", apart, 1e-6, "By bisection.")


def _proved(problem: Problem) -> Finding:
    """The certificate of Theorem 1.1 in the third range names feature 2."""
    wrong = []
    for lam in _RANGES[(1,)]:
        certificate = theorem_1_1(problem.at(lam), solved(problem.at(lam), tol=1e-14).w)
        wrong.append(float(not certificate.verdict.ok or certificate.numbers["active"] != "1"))
    return holds("feature 1 is proved zero at lam = 0.26, 0.5 and 0.88", wrong, 0.0, "Gap-safe, by theorem_1_1.")


def _wrong_group(problem: Problem) -> Finding:
    pulls = np.abs(problem.gradient(np.zeros(2))[0])
    active = solved(problem.at(0.5), tol=1e-13).support.tolist()
    greedy = select(problem, 1, "omp").support.tolist()
    return control(
        "if one group is active, it is the one with the largest gradient at 0",
        float(active == [1] and int(np.argmax(pulls)) == 0 and greedy == [0]),
        1.0,
        f"Instance H: the gradients are {pulls[0]:g} and {pulls[1]:g}, OMP takes feature 1; at lam = 0.5 the group "
        "lasso has feature 2 alone.",
        printed="Where the solution has one active group, it is one that maximises the norm of the gradient at 0 "
        "(quoted there from Axiotis, Yasuda 2023), and so the choice of group OMP.",
        corrected="So it is for lam between the first breakpoint lam_c and tau; lam >= tau - delta mu / (mu + M) is "
        "sufficient, and marching from there finds lam_c. Below, one group may be active and be another.",
    )


def _window(problem: Problem) -> Finding:
    """Inside the guaranteed window it is feature 1."""
    numbers = one_group_window(problem).numbers
    low = float(numbers["lam_low"])
    wrong = [
        float(solved(problem.at(lam), tol=1e-13).support.tolist() != [0]) for lam in np.linspace(low, 1.0 - 1e-6, 9)
    ]
    wrong += [_TURNS[0] - low, float(numbers["group"] != "0")]
    return holds("inside the guaranteed window it is", wrong, 0.0, f"From lam = {low:.6g} to 1.")


def _global(problem: Problem) -> Finding:
    """The global minimum of problem (1) at lam = 0.5, by grids in the plane."""
    H, h = INSTANCE_H[0].T @ INSTANCE_H[0], INSTANCE_H[0].T @ INSTANCE_H[1]
    found = []
    for q in (Power(0.5), LogSum(1.0), LogSum(2.0)):

        def F(a: Any, b: Any, q: Any = q) -> Any:
            fit = 0.5 * (H[0, 0] * a * a + 2 * H[0, 1] * a * b + H[1, 1] * b * b) - h[0] * a - h[1] * b
            return fit + 0.5 * composite(q, a, b)

        least, a, b = lowest(F, 4.0)
        found += [abs(least + 0.405), a, abs(b - 1.8)]
    return holds(
        "Theorem 1.1 at lam = 0.5: the minimum of problem (1) is (0, 1.8)",
        found,
        1e-6,
        "For q = sqrt(a), log(1 + a) and log(1 + a/2), -0.405 up to ||y||^2 / 2.",
    )


def _traps(problem: Problem) -> Finding:
    """Block descent from (0.5, 0): it stays where theory says so, which is no contradiction to the theorem."""
    wrong, said = [], []
    for q, stays in ((Power(0.5), True), (LogSum(1.0), True), (LogSum(2.0), False)):
        end = solved(with_q(problem, q, 0.5), (np.array([0.5, 0.0]), 0.0), tol=1e-10).w
        expected = (0.5, 0.0) if stays else (0.0, 1.8)
        wrong.append(float(np.abs(end - expected).max()))
        said.append(f"{q!r} ends at ({end[0]:.6g}, {end[1]:.6g})")
    return holds(
        "(0.5, 0) is a local minimum for sqrt(a) and log(1 + a), not for log(1 + a/2)",
        wrong,
        1e-6,
        f"Block descent from there: {'; '.join(said)}. Global does not mean found.",
    )


def _unit_columns(rng: np.random.Generator, count: int) -> Finding:
    """Two features of unit length: the feature with the smaller correlation is never alone."""
    h, g = rng.uniform(-1.0, 1.0, count), np.sort(rng.uniform(0.0, 1.0, (count, 2)), axis=1)
    lam = rng.uniform(0.0, 1.0, count) * g[:, 0]
    left = np.abs(g[:, 1] - h * (g[:, 0] - lam))  # gradient of the other feature at the one-feature minimiser
    room: NDArray[np.float64] = lam - left
    return holds(
        "with two columns of equal length it cannot happen",
        room,
        0.0,
        "Random correlations and lam: at the minimiser over the smaller one, the larger exceeds lam.",
    )


STATEMENT = Statement(
    name="argmax_outside_window",
    number="After Theorem 1.1",
    title="a group that is alone need not have the largest gradient",
    source="arXiv 2402.17902 v1, the facts that follow Theorem 1.1; counterexample of this package",
    text="""
Just below τ the only active group of the group lasso is the one with the largest gradient at 0, which is also the one
that group OMP takes. Further below, a single active group may be another one: with
    X'X = [ 1  0.45 ; 0.45  0.25 ],   X'y = (1, 0.95)
the group lasso has only feature 2 for 0.2536 ≤ λ ≤ 0.8875, although feature 1 has the larger gradient. Before equality
with OMP is claimed, λ has to be compared with the end λ_c of the first window.
""",
    hypotheses={"λ lies in the first window below τ": lambda problem: (
        problem.lam >= float(one_group_window(problem).numbers["lam_low"])
    )},
    check=check,
    figure=figure,
    caption="Instance H: between 0.2536 and 0.8875 only the feature with the smaller gradient at zero is active.",
)  # fmt: skip
