"""Sequential selection by the group lasso, or by problem (1), takes the groups that OMP takes, in its window.

With the groups S chosen so far free, L_S(w) = min over w_S of L, the gradient of L_S at 0 is that of L at the fit on S,
and L_S is as strongly convex as L (its Hessian is a Schur complement). So with tau_S = max_{g outside S} ||grad_g L||,
the facts about tau apply to every step: for lam in [tau_S - delta mu / (mu + M), tau_S) the group lasso with S free has
exactly one active group outside S, the one of the largest gradient, which is the choice of OMP; and by Theorem 1.1 so
has problem (1) for every q.

At each step lam is drawn inside the window that `one_group_window` proves for the problem with S free. Outside it,
instance H is the control.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sparseopt import LogSum, Power, Problem, select
from sparseopt.certificates import one_group_window
from sparseopt.evidence import certify
from sparseopt.proofs_checks.evidence import Evidence, Finding, Statement, control, holds
from sparseopt.proofs_checks.figures import COLOURS, INK, axes
from sparseopt.proofs_checks.instances import INSTANCE_H, design, gram, penalised, solved, squares

__all__ = ["STATEMENT"]

_COUNTS = {"small": 60, "medium": 600, "large": 6000}
_STEPS = 4
_WAYS: dict[str, dict[str, Any]] = {"group lasso": {"by": "lasso"}, "log": {"by": "q", "penalty": LogSum(1.0)},
         "root": {"by": "q", "penalty": Power(0.5)}}  # fmt: skip


def check(rng: np.random.Generator, size: str) -> Evidence:
    """The order of all ways, step by step; whether the steps' minima are global; and the control."""
    orders = {name: np.full((_COUNTS[size], _STEPS), -1) for name in ("OMP", *_WAYS)}
    wrong: dict[str, list[float]] = {name: [] for name in _WAYS}
    predicted, softer, widths = [], [], []
    problems = [_instance(rng) for _ in range(_COUNTS[size])]
    for at, problem in enumerate(problems):
        least = float(np.linalg.eigvalsh(gram(problem))[0])
        chosen: list[int] = []
        for step in range(_STEPS):
            orders["OMP"][at, step] = next_group = _next(problem, chosen, "omp")
            window = one_group_window(penalised(problem, chosen)).numbers
            predicted.append(float(window["group"] != str(next_group)))
            tau, low = float(window["tau"]), float(window["lam_low"])
            widths.append(1.0 - low / tau)
            share = (low + rng.uniform(0.05, 0.95) * (tau - low)) / tau
            for name, options in _WAYS.items():
                orders[name][at, step] = found = _next(problem, chosen, "sequential", lam_share=share, **options)
                wrong[name].append(float(found != next_group))
            chosen.append(next_group)
            softer.append((least - _schur(problem, chosen)) / least)
    findings = [
        holds("the window names the group that OMP takes", predicted, 0.0,
              f"Windows of {min(widths):.1g} to {max(widths):.2g} of tau_S, {np.median(widths):.2g} in the median."),
        *(holds(f"sequential selection by the {name if name == 'group lasso' else f'composite of the {name}'} takes "
                "the groups of OMP, in the window", wrong[name], 0.0) for name in _WAYS),
        holds("L with S free is at least as strongly convex as L", softer, 1e-9, "Shortfall of mu, relatively."),
        _global(rng, problems[: _COUNTS["small"] // 5]),
        _control(),
    ]  # fmt: skip
    return Evidence("sequential_selection", tuple(findings), dict(orders))


def figure(evidence: Evidence) -> Any:
    """Which group each way takes at each step, in the first forty instances."""
    from matplotlib.colors import ListedColormap

    drawing, panels = axes(len(evidence.series), sharey=True)
    colours = ListedColormap([*COLOURS, "#7f7f7f", "#b5543c"])
    for ax, (name, order) in zip(panels, evidence.series.items(), strict=True):
        ax.imshow(order[:40], aspect="auto", cmap=colours, vmin=0, vmax=7, interpolation="nearest")
        ax.set_title(name if name in ("OMP", "group lasso") else f"problem (1), {name}", color=INK, fontsize=10)
        ax.set_xticks(range(_STEPS), [str(step + 1) for step in range(_STEPS)])
        ax.set_xlabel("step")
    panels[0].set_ylabel("instance")
    return drawing


def _instance(rng: np.random.Generator) -> Problem:
    """8 groups of two, correlated, three of them planted in noise."""
    X = design(rng, 48, 16, float(rng.choice([0.0, 0.3, 0.6])))
    w = np.zeros(16)
    w[rng.permutation(16)[:6]] = rng.normal(size=6)
    return squares(X, X @ w + 0.1 * rng.normal(size=48), 2)


def _next(problem: Problem, chosen: list[int], method: str, **options: Any) -> int:
    """The group that a method adds to those chosen."""
    support = select(problem, len(chosen) + 1, method, chosen, **options).support
    new = set(support.tolist()) - set(chosen)
    return new.pop() if len(new) == 1 else -1


def _schur(problem: Problem, chosen: list[int]) -> float:
    """The smallest eigenvalue of the Hessian with the chosen groups minimised out."""
    H = gram(problem)
    inside = problem.groups.features(np.array(chosen))
    outside = np.setdiff1d(np.arange(len(H)), inside)
    S = H[np.ix_(outside, inside)] @ np.linalg.solve(H[np.ix_(inside, inside)], H[np.ix_(inside, outside)])
    return float(np.linalg.eigvalsh(H[np.ix_(outside, outside)] - S)[0])


def _global(rng: np.random.Generator, problems: list[Problem]) -> Finding:
    """Problem (1) with S free, at the point that block descent finds: the bound of the group lasso is met."""
    gaps = []
    for problem in problems:
        chosen = [int(g) for g in select(problem, 2, "omp").support]
        numbers = one_group_window(penalised(problem, chosen)).numbers
        lam = float(numbers["tau"]) - 0.5 * (float(numbers["tau"]) - float(numbers["lam_low"]))
        solution = solved(penalised(problem, chosen, LogSum(1.0), lam), tol=1e-11)
        gaps.append(float(certify(solution, kinds=["optimality_gap"])[0].numbers.get("relative_gap", np.inf)))
    return holds("what problem (1) with S free is solved to is its global minimum", gaps, 1e-8,
                 "Relative gap of certificates.optimality_gap, two groups free.")  # fmt: skip


def _control() -> Finding:
    problem = squares(*INSTANCE_H)
    greedy, far = _next(problem, [], "omp"), _next(problem, [], "sequential", by="lasso", lam_share=0.5)
    return control(
        "the same at any lam below tau_S at which one group is active",
        float((greedy, far) == (0, 1)),
        1.0,
        f"Instance H at lam = tau / 2: the group lasso takes feature {far + 1}, OMP feature {greedy + 1}.",
    )


STATEMENT = Statement(
    name="sequential_selection",
    number="Section 1.1",
    title="sequential selection by a penalty is orthogonal matching pursuit",
    source="arXiv 2402.17902 v1, after Axiotis, Yasuda (2023), arXiv 2307.07405; proof and window of this package",
    text="""
Let S be the groups chosen so far, L_S(w) = min_{w_S} L, and τ_S = max_{g ∉ S} ‖∇_g L‖ at the fit on S. For λ in
    [ τ_S − δ_S μ / (μ + M),  τ_S )
the group lasso with S unpenalised, and problem (1) for every admissible q, have exactly one active group outside S:
the one of the largest gradient, which group OMP takes as well. So the sequential forms of both are group OMP.
""",
    hypotheses={
        "L is strongly convex": lambda problem: float(np.linalg.eigvalsh(gram(problem))[0]) > 0.0,
        "no two groups tie": lambda problem: float(one_group_window(problem).numbers["delta"]) > 1e-8,
        "λ lies in the window": lambda problem: problem.lam >= float(one_group_window(problem).numbers["lam_low"]),
    },
    check=check,
    figure=figure,
    caption="Colour is the group taken: one row per instance, one column per step. The four pictures are the same.",
)
