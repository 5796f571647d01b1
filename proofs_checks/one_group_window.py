"""Facts A and B: no group at lam >= tau, exactly one just below, in a window that can be written down.

With g_i(w) the gradient of L in group i, tau = ||g_i*(0)|| the largest, delta > 0 its lead over the next, mu the strong
convexity of L in group i* and M the largest ||H_ji*||:

    A    lam >= tau                                    w = 0 is the only minimiser of the group lasso, L strictly convex
    B    lam in [tau - delta mu / (mu + M), tau)       exactly one active group, i*

for b, the minimiser over group i* alone, has ||b|| <= (tau - lam) / mu, so ||g_j(b)|| <= tau - delta + M ||b|| <= lam.
The same bound, applied again and again from where one stands, marches to the breakpoint lam_c at which a second group
enters and never passes it. Ties and losses that are not strictly convex are the controls.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparseopt import LogSum, Power, Problem, lam_max
from sparseopt.certificates import Report, one_group_window, theorem_1_1
from sparseopt.certificates.verify import verify
from sparseopt.proofs_checks.evidence import Evidence, Finding, Statement, control, holds, proved
from sparseopt.proofs_checks.figures import COLOURS, INK, axes, legend
from sparseopt.proofs_checks.instances import (
    breakpoint_below,
    composite,
    convex_optimum,
    design,
    gram,
    lowest,
    one_group,
    random_squares,
    solved,
    squares,
    traced,
)

__all__ = ["STATEMENT"]

_COUNTS = {"small": 16, "medium": 300, "large": 3000}
_STEPS = 1000  # of a march at most
_WITHIN = (0.02, 0.5, 0.98)  # places in the window, from its lower end
Array = NDArray[np.float64]


def check(rng: np.random.Generator, size: str) -> Evidence:
    """Both facts on least squares and logistic loss with ridge, the march, ties and the controls."""
    count = _COUNTS[size]
    problems = [random_squares(rng) for _ in range(count)] + [_logistic(rng) for _ in range(max(count // 8, 2))]
    certificates = [one_group_window(problem).numbers for problem in problems]
    marches = np.array([_march(problem, numbers) for problem, numbers in zip(problems, certificates, strict=True)
                        if problem.loss.is_quadratic])  # fmt: skip
    findings = [
        _above(problems),
        *_inside(problems, certificates),
        _verified(problems[: min(count, 60)] + problems[-2:]),
        _formula(problems, certificates),
        *_marching(marches),
        _tied(rng, max(count // 4, 4)),
        *_ties_and_huber(),
    ]
    return Evidence("one_group_window", tuple(findings), {"marches": marches} | _drawn())


def figure(evidence: Evidence) -> Any:
    """Norms along the path of one instance, and the guaranteed against the true window of all."""
    drawing, (left, right) = axes(2)
    lams, norms = evidence.series["lams"], evidence.series["norms"]
    tau, low, turn = evidence.series["window"]
    left.axvspan(low / tau, 1.0, color=COLOURS[2], alpha=0.25, linewidth=0, label="guaranteed")
    left.axvline(turn / tau, color=COLOURS[2], linestyle="--", linewidth=1.2, label=r"true $\lambda_c$")
    for g in np.argsort(-norms.max(axis=0))[:4]:
        left.plot(lams / tau, norms[:, g], color=COLOURS[0] if g == norms.max(axis=0).argmax() else COLOURS[1])
    left.set_xlabel("λ / τ")
    left.set_ylabel("norm of each group")
    legend(left, loc="upper right")
    march = evidence.series["marches"]
    true, sure = 1.0 - march[:, 1] / march[:, 0], 1.0 - march[:, 2] / march[:, 0]
    right.loglog(true, sure, ".", color=COLOURS[0], markersize=6)
    ends = np.array([0.7 * min(true.min(), sure.min()), 1.4])
    right.loglog(ends, ends, color=INK, linewidth=0.8)
    right.set_xlabel(r"true window, $1 - \lambda_c / \tau$")
    right.set_ylabel(r"guaranteed, $1 - \lambda_{low} / \tau$")
    return drawing


def _logistic(rng: np.random.Generator) -> Problem:
    """Logistic loss with a ridge, without intercept."""
    X = design(rng, 40, 8, float(rng.choice([0.0, 0.5]))) * np.sqrt(40.0)
    y = (X[:, 0] + X[:, 1] + 0.5 * rng.normal(size=40) > 0.0).astype(float)
    return Problem.build(X, y, groups=2, loss="logistic", ridge=0.1, intercept=False, weights="ones")


def _above(problems: list[Problem]) -> Finding:
    """Fact A at tau, a little above, and far above."""
    norms, optima = [], []
    for at, problem in enumerate(problems):
        tau = lam_max(problem)
        scale = problem.value(np.zeros(problem.groups.n_features)) / tau
        norms += [float(np.abs(solved(problem.at(share * tau), tol=1e-13).w).max()) / scale for share in (1.0, 1.01, 2)]
        if at < 6:
            zero = problem.value(np.zeros(problem.groups.n_features))
            optima.append(abs(convex_optimum(problem.at(tau)) - zero) / zero)
    detail = (
        f"Largest coefficient over L(0) / tau at lam = tau, 1.01 tau, 2 tau; CVXPY finds L(0) to {max(optima):.1g}."
    )
    return holds("Fact A: w = 0 at lam >= tau", norms + optima, 1e-9, detail)


def _inside(problems: list[Problem], certificates: list[Any]) -> list[Finding]:
    """Fact B at three places of each window: who is active, and the certificate of Theorem 1.1 there."""
    wrong, unproved, where = [], [], []
    for problem, numbers in zip(problems, certificates, strict=True):
        names = problem.groups.names
        for share in _WITHIN:
            lam = float(numbers["lam_low"] + share * (numbers["tau"] - numbers["lam_low"]))
            solution = solved(problem.at(lam), tol=1e-14)
            active = [names[g] for g in solution.support]
            wrong.append(float(active != [numbers["group"]]))
            shown = theorem_1_1(problem.at(lam), solution.w, solution.intercept)
            unproved.append(float(not shown.verdict.ok or shown.numbers["active"] != numbers["group"]))
            where.append(f"{active} active at lam = {lam:.12g}, predicted {numbers['group']}")
    return [
        holds("Fact B: exactly the group of the largest gradient is active in the window", wrong, 0.0,
              where=where.__getitem__),
        holds("and all other groups are proved zero there, gap-safe", unproved, 0.0, where=where.__getitem__),
    ]  # fmt: skip


def _verified(problems: list[Problem]) -> Finding:
    """The window claims through their files, in ball arithmetic."""
    refused = []
    with tempfile.TemporaryDirectory() as folder:
        for problem in problems:
            file = Path(folder) / "window.json"
            w = np.zeros(problem.groups.n_features)
            Report(problem, w, 0.0, (one_group_window(problem),)).save(file)
            verification = verify(file)
            refused += [] if verification else [verification.claims[0].sentence]
    said = f"Refused: {refused[0]}" if refused else "tau, delta, mu, M and the lower end, from the data."
    return proved("the windows are verified in ball arithmetic", not refused, said, len(problems))


def _formula(problems: list[Problem], certificates: list[Any]) -> Finding:
    """tau - delta mu / (mu + M) from the blocks of X'X, for least squares."""
    apart = []
    for problem, numbers in zip(problems, certificates, strict=True):
        if problem.loss.is_quadratic:
            tau, low, _ = _window(problem)
            apart.append(abs(low - float(numbers["lam_low"])) / tau)
    return holds("the lower end is tau - delta mu / (mu + M), with mu, M from X'X", apart, 1e-8, "Difference over tau.")


def _window(problem: Problem) -> tuple[float, float, int]:
    """tau, lower end and group, from X'X and X'y alone."""
    H, blocks = gram(problem), [np.asarray(problem.groups[g]) for g in range(len(problem.groups))]
    h = -problem.gradient(np.zeros(len(H)))[0]
    pulls = np.array([np.linalg.norm(h[g]) for g in blocks])
    i = int(np.argmax(pulls))
    mu = float(np.linalg.eigvalsh(H[np.ix_(blocks[i], blocks[i])])[0])
    M = max(float(np.linalg.norm(H[np.ix_(g, blocks[i])], 2)) for j, g in enumerate(blocks) if j != i)
    delta = float(pulls[i] - np.delete(pulls, i).max())
    return float(pulls[i]), float(pulls[i]) - delta * mu / (mu + M), i


def _march(problem: Problem, numbers: Any) -> tuple[float, float, float, float, float, float]:
    """tau, lam_c by a scan, the lower end, and of the march: where it ends, its deepest overshoot, its steps."""
    H, blocks = gram(problem), [np.asarray(problem.groups[g]) for g in range(len(problem.groups))]
    h = -problem.gradient(np.zeros(len(H)))[0]
    tau, low, i = _window(problem)
    turn = breakpoint_below(H, h, blocks, i, tau)
    factor, lam, steps = float(numbers["mu"] / (numbers["mu"] + numbers["M"])), tau, 0
    while steps < _STEPS and lam > 1e-6 * tau:
        left = h - H[:, blocks[i]] @ one_group(H[np.ix_(blocks[i], blocks[i])], h[blocks[i]], lam)
        room = lam - max(float(np.linalg.norm(left[g])) for j, g in enumerate(blocks) if j != i)
        if room <= 1e-10 * tau:
            break
        lam, steps = lam - room * factor, steps + 1
    return tau, turn, low, lam, max(turn - lam, 0.0) if turn > 0.0 else 0.0, float(steps)


def _marching(marches: Array) -> list[Finding]:
    tau, turn, low, end, over, steps = marches.T
    ratio = (tau - low) / (tau - turn)
    there = (steps < _STEPS) & (turn > 1e-5 * tau)
    return [
        holds("the window lies above the breakpoint lam_c of a scan", (turn - low) / tau, 1e-9,
              f"It is {ratio.min():.2g} to {ratio.max():.2g} of the true one, {np.median(ratio):.2g} in the median."),
        holds("marching never passes lam_c", over / tau, 1e-9, "By how much, over tau."),
        holds("marching ends at lam_c", ((end - turn) / tau)[there], 1e-6,
              f"Distance over tau, after {int(np.median(steps))} steps in the median; the steps shrink with "
              f"mu / (mu + M), and {int((steps >= _STEPS).sum())} of {len(steps)} were not there after {_STEPS}."),
    ]  # fmt: skip


def _tied(rng: np.random.Generator, count: int) -> Finding:
    """Two groups tie: the support stays among them for tau - lam <= delta mu_E / (mu_E + M sqrt 2)."""
    wrong = []
    for _ in range(count):
        problem = random_squares(rng, (0.0, 0.5))
        X = problem.design.matvec(np.eye(problem.groups.n_features))
        blocks = [np.asarray(problem.groups[g]) for g in range(len(problem.groups))]
        h = X.T @ problem.loss.y[:, 0]
        pulls = np.array([np.linalg.norm(h[g]) for g in blocks])
        first, second = np.argsort(-pulls)[:2]
        X[:, blocks[second]] *= pulls[first] / pulls[second]
        problem = squares(X, problem.loss.y[:, 0], len(blocks[0]))
        tied = np.concatenate([blocks[first], blocks[second]])
        H = X.T @ X
        rest = [g for j, g in enumerate(blocks) if j not in (first, second)]
        mu = float(np.linalg.eigvalsh(H[np.ix_(tied, tied)])[0])
        M = max(float(np.linalg.norm(H[np.ix_(g, blocks[e])], 2)) for g in rest for e in (first, second))
        tau = float(pulls[first])
        depth = (tau - np.sort(pulls)[-3]) * mu / (mu + M * np.sqrt(2.0))
        for share in (0.1, 0.9):
            support = solved(problem.at(tau - share * float(depth)), tol=1e-13).support
            wrong.append(float(not set(support.tolist()) <= {int(first), int(second)}))
    return holds("with two groups tied, the support stays among them in the wider window", wrong, 0.0)


def _ties_and_huber() -> list[Finding]:
    """The controls: c = (1, 1), and Huber's loss at its threshold."""
    counts = [len(solved(squares(np.eye(2), [1.0, 1.0], lam=lam), tol=1e-13).support) for lam in (0.999, 0.9, 0.5)]

    def F(q: Any) -> Any:
        return lambda a, b: 0.5 * ((a - 1.0) ** 2 + (b - 1.0) ** 2) + 0.9 * composite(q, a, b)

    root, log = lowest(F(Power(0.5)), 1.2), lowest(F(LogSum(1.0)), 1.2)
    huber = Problem.build([[1.0]], [5.0], loss="huber", delta=1.0, lam=1.0, intercept=False, sample_weight=[1.0],
                          weights="ones")  # fmt: skip
    values = [huber.value([b]) for b in (0.0, 1.0, 2.5, 4.0)]
    flat = 4.0 if max(values) - min(values) <= 1e-12 else 0.0
    return [
        control("one group is active just below tau, although two tie", float(min(counts) - 1), 1.0,
                f"c = (1, 1): {counts} active groups of the group lasso at lam = 0.999, 0.9, 0.5. At 0.9 problem (1) "
                f"has two global minima of {root[0]:.6f} for q = sqrt(a), (0.1, 0) and (0, 0.1), and a 2-sparse one "
                f"for log(1 + a), ({log[1]:.6f}, {log[2]:.6f}) with {log[0]:.6f}.",
                printed="For lam slightly below tau, problem (1) has exactly one active group.",
                corrected="The group lasso has, if one group alone has the largest gradient at 0; then problem (1) has "
                "the same minimiser by Theorem 1.1. With ties the support lies among the tied groups."),
        control("w = 0 is the only minimiser at lam = tau, although L is convex only", flat, 4.0,
                f"Huber's loss of b - 5, lam = tau = 1: the objective is {values[0]:g} on all of [0, 4]."),
    ]  # fmt: skip


def _drawn() -> dict[str, Array]:
    """The path of one fixed instance."""
    rng = np.random.default_rng(4)
    X = design(rng, 60, 12, 0.2)
    problem = squares(X, X @ np.array([1.0, 0.5, 0.8, 0.2, -0.6, 0.3, 0, 0, 0, 0, 0, 0]), 2)
    tau, low, i = _window(problem)
    blocks = [np.asarray(problem.groups[g]) for g in range(len(problem.groups))]
    H, h = gram(problem), -problem.gradient(np.zeros(12))[0]
    along = traced(problem, tau * np.linspace(0.15, 1.05, 100), tol=1e-7)
    window = np.array([tau, low, breakpoint_below(H, h, blocks, i, tau)])
    return {"lams": along.lams, "norms": along.group_norms, "window": window}


STATEMENT = Statement(
    name="one_group_window",
    number="After Theorem 1.1",
    title="no group at λ ≥ τ, exactly one just below",
    source="arXiv 2402.17902 v1, the facts that follow Theorem 1.1 (after Axiotis, Yasuda 2023); window: this package",
    text="""
Let τ = max_i ‖∇_i L(0)‖, attained by group i* alone with a lead δ > 0. For λ ≥ τ and L strictly convex, w = 0 is the
only minimiser of the group lasso. For
    τ − δ μ / (μ + M)  ≤  λ  <  τ
it has exactly one active group, i*; here μ is the strong convexity of L in group i*, and M bounds ‖∇²_{j i*} L‖ for
j ≠ i*. The paper says "λ slightly less than τ", names problem (1) where it means the group lasso, and does not mention
ties.
""",
    hypotheses={
        "L is strictly convex": lambda problem: float(np.linalg.eigvalsh(gram(problem))[0]) > 0.0,
        "one group alone has the largest gradient at 0": lambda problem: one_group_window(problem).numbers["delta"] > 0,
    },
    check=check,
    figure=figure,
    caption="Left: norms along a group-lasso path; one group is active in the shaded window, and on to the dashed line."
    " Right: the guaranteed window against the true one, for all instances; none lies above the diagonal.",
)
