"""Every stationary point of problem (1) with q = a^p is sparse.

From sum_{g in A} (lam / ||grad_g L||)^(p / (1 - p)) = 1 at a stationary point with active groups A,

    |A| <= (Gamma / lam)^(p / (1 - p)),       Gamma >= ||grad_g L|| for all g,

and if Gamma < lam 2^((1 - p) / p), at most one group is active. For least squares ||grad_g L|| <= ||X_g|| ||residual||,
so Gamma = max_g ||X_g|| sqrt(2 F1(start)) holds wherever a descent method can end. For q = log(1 + a/eps) there is no
such bound, which is the control. Sparse does not mean best: every one-group stationary point may be a local minimum.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparseopt import LogSum, Power, Problem, lam_max
from sparseopt.proofs_checks.evidence import Evidence, Finding, Statement, control, holds
from sparseopt.proofs_checks.figures import COLOURS, INK, axes, legend
from sparseopt.proofs_checks.instances import design, gram, random_squares, solved, squares, with_q

__all__ = ["STATEMENT"]

_COUNTS = {"small": 24, "medium": 500, "large": 5000}
_STARTS = 4
_POWERS = (0.3, 0.5, 0.8)
Array = NDArray[np.float64]


def check(rng: np.random.Generator, size: str) -> Evidence:
    """The number of active groups at stationary points against both bounds, one-sparsity, traps and the control."""
    findings = []
    series: dict[str, Array] = {}
    for p in _POWERS:
        at_point, at_level, counts = [], [], []
        for _ in range(_COUNTS[size]):
            problem = random_squares(rng)
            problem = with_q(problem, Power(p), 10.0 ** rng.uniform(-2.0, -0.1) * lam_max(problem))
            for end, level in _ends(rng, problem):
                active = int(np.count_nonzero(problem.groups.norms(end)))
                pull = float(problem.groups.norms(problem.gradient(end)[0]).max())
                bounds = [(g / problem.lam) ** (p / (1.0 - p)) for g in (pull, level)]
                at_point.append(active / max(bounds[0], 1e-300) - 1.0 if active else -1.0)
                at_level.append(active / bounds[1] - 1.0)
                counts.append((bounds[0], active))
        series[f"p = {p}"] = np.array(counts).T
        most = max(active for _, active in counts)
        findings += [
            holds(f"|A| <= (max ||grad_g L|| / lam)^(p / (1 - p)), p = {p}", at_point, 1e-7,
                  f"|A| over the bound, less 1; up to {most} active groups."),
            holds(f"and with the bound of the gradient on the level set of the start, p = {p}", at_level, 1e-7),
        ]  # fmt: skip
    findings += [_one_sparse(rng, _COUNTS[size]), _traps(), _logarithm()]
    return Evidence("sparse_stationary_points", tuple(findings), series)


def figure(evidence: Evidence) -> Any:
    """Active groups against the bound at that point."""
    drawing, (ax,) = axes(1)
    for at, (colour, (name, values)) in enumerate(zip(COLOURS, evidence.series.items(), strict=False)):
        ax.semilogx(values[0], values[1] + 0.12 * (at - 1), ".", markersize=5, alpha=0.6, color=colour, label=name)
    x = np.geomspace(0.7, 12.0, 50)
    ax.semilogx(x, x, color=INK, linewidth=0.8)
    ax.set_ylim(-0.5, 9.0)
    ax.set_xlabel(r"$(\max_g \Vert\nabla_g L\Vert / \lambda)^{p/(1-p)}$")
    ax.set_ylabel("active groups")
    legend(ax, loc="upper right")
    return drawing


def _ends(rng: np.random.Generator, problem: Problem) -> list[tuple[Array, float]]:
    """Where block descent ends from random starts, and the bound of the gradient on the level set of each start."""
    size, n_features = len(problem.groups[0]), problem.groups.n_features
    H = gram(problem)
    blocks = [H[np.ix_(problem.groups[g], problem.groups[g])] for g in range(n_features // size)]
    length = np.sqrt(max(float(np.linalg.eigvalsh(block)[-1]) for block in blocks))
    out = []
    for _ in range(_STARTS):
        start = rng.normal(size=n_features) * 10.0 ** rng.uniform(-1.0, 0.5)
        end = solved(problem, (start, 0.0), tol=1e-10).w
        out.append((end, length * float(np.sqrt(2.0 * problem.value(start)))))
    return out


def _one_sparse(rng: np.random.Generator, count: int) -> Finding:
    """lam so large that the level-set bound allows one group: whatever the start, one at most is active."""
    active = []
    for at in range(count):
        p = _POWERS[at % 3]
        X = design(rng, 40, 12, 0.3)
        problem = squares(X, X @ (rng.normal(size=12) * (np.arange(12) < 2)) + 0.01 * rng.normal(size=40), 2)
        length = max(float(np.linalg.norm(X[:, g : g + 2], 2)) for g in range(0, 12, 2))
        start = rng.normal(size=12) * 0.01
        lam = 0.0
        for _ in range(60):  # F1(start) grows with lam, more slowly than its square
            level = with_q(problem, Power(p), lam).value(start)
            lam = 1.001 * length * float(np.sqrt(2.0 * level)) / 2.0 ** ((1.0 - p) / p)
        f1 = with_q(problem, Power(p), lam)
        if length * np.sqrt(2.0 * f1.value(start)) < lam * 2.0 ** ((1.0 - p) / p):
            w = solved(f1, (start, 0.0), tol=1e-10).w
            active.append(float(np.count_nonzero(f1.groups.norms(w)) - 1))
    return holds("if Gamma < lam 2^((1 - p) / p), at most one group is active", active, 0.0,
                 f"{active.count(0.0)} of {len(active)} ends have one active group, the others none.")  # fmt: skip


def _traps() -> Finding:
    """c = (1, 0.9, 0.5), lam = 0.3, q = sqrt(a): three local minima, one per group."""
    problem = with_q(squares(np.eye(3), [1.0, 0.9, 0.5], lam=0.3), Power(0.5))
    directions = np.random.default_rng(0).normal(size=(500, 3))
    violations, values, ends = [], [], []
    for g, expected in enumerate((0.785, 0.85, 1.01)):
        w = np.zeros(3)
        w[g] = (1.0, 0.9, 0.5)[g] - 0.3
        values.append(problem.value(w))
        near = [problem.value(w + radius * d) for d in directions for radius in (1e-2, 1e-4, 1e-6)]
        violations += [abs(values[-1] - expected), values[-1] - min(near)]
        ends.append(int(np.flatnonzero(solved(problem, (w, 0.0), tol=1e-12).w)[0]) + 1)
    return holds("sparse is not best: three one-group local minima at c = (1, 0.9, 0.5), lam = 0.3", violations, 1e-12,
                 f"q = sqrt(a): {', '.join(f'{value:.6g}' for value in values)}, the lowest of 1500 points nearby. "
                 f"Block descent, whose steps are global in a block, goes from them to groups {ends}.")  # fmt: skip


def _logarithm() -> Finding:
    problem = with_q(squares(np.eye(2), [1.0, 0.8], lam=0.3), LogSum(1.0))
    w = solved(problem, (np.array([0.7, 0.5]), 0.0), tol=1e-12).w
    pull = float(np.abs(problem.gradient(w)[0]).max())
    active = int(np.count_nonzero(w))
    return control(
        "|A| <= Gamma / lam for q = log(1 + a)",
        active - pull / 0.3,
        0.3,
        f"c = (1, 0.8), lam = 0.3: ({w[0]:.6f}, {w[1]:.6f}) is stationary with {active} active groups, Gamma / lam is "
        f"{pull / 0.3:.4f}.",
    )


STATEMENT = Statement(
    name="sparse_stationary_points",
    number="extension",
    title="every stationary point for q = a^p is sparse",
    source="this package",
    text="""
Let q(a) = a^p with 0 < p < 1, and w a stationary point of problem (1) at which Γ ≥ ‖∇_g L‖ for all g. The number of its
active groups is at most
    (Γ / λ)^{p/(1−p)},
so with Γ < λ 2^{(1−p)/p} at most one group is active. For least squares Γ = max_g ‖X_g‖ √(2 F₁(w⁰)) holds at whatever a
descent method can reach from w⁰. In particular p = 1/2: at most Γ/λ groups.
""",
    hypotheses={
        "q(a) = a^p with 0 < p < 1": lambda q: isinstance(q, Power),
        "w is stationary": lambda solution: bool(solution.stationarity <= 1e-8),
    },
    check=check,
    figure=figure,
    caption="Ends of block descent from random starts: the number of active groups never exceeds the bound (the line).",
)
