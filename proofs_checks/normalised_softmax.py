"""The mask of Sequential Attention, a softmax that is normalised to mean 1: the square of a 2/3 quasi-norm.

    inf over logits of  sum_i ||u_i||^2 / A_i^2,  A = n softmax(logits)   =   n^-2 (sum_i ||u_i||^(2/3))^3

which is h(R_q) with q = a^(2/3) and h(r) = (r / n)^2. R_q >= sum of norms, so the convex L + lam (G / n)^2 is a lower
bound; its minimiser is a group-lasso solution at mu = 2 lam G / n^2, which rises to tau as lam grows. Below tau there
is a window of mu with one active group, hence a lam_0 from which on the global minimum has one group: the one with the
largest gradient at zero.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import brentq, minimize

from sparseopt import Composite, Groups, LambertW, Power, Problem, Solution, solve
from sparseopt.certificates import duality_gap, one_group_window
from sparseopt.proofs_checks.evidence import Evidence, Finding, Statement, control, holds
from sparseopt.proofs_checks.figures import COLOURS, axes, legend
from sparseopt.solution import ConvergenceWarning

__all__ = ["STATEMENT"]

_COUNTS = {"small": 25, "medium": 250, "large": 2000}
_PROBLEMS = {"small": 5, "medium": 40, "large": 300}
_GROUPS, _SIZE = 6, 2
_MULTIPLES = (1.001, 10.0, 1000.0)
Array = Any


def check(rng: np.random.Generator, size: str) -> Evidence:
    """The pointwise identity, then one active group with a certified gap, then the controls."""
    findings = [*_identity(rng, _COUNTS[size])]
    cases = [_case(rng) for _ in range(_PROBLEMS[size])]
    findings += _one_sparse(rng, cases)
    findings += [_clipped(), _not_lambert()]
    return Evidence("normalised_softmax", tuple(findings), {"path": _path(rng, cases[0])})


def _cost(a: Array) -> float:
    """lam = 1: n^-2 (sum a^(2/3))^3, by the composite penalty of the package."""
    groups = Groups.equal(a.size, 1, weights="ones")
    return (Composite(Power(2.0 / 3.0), groups, lam=1.0).value(a) / a.size) ** 2


def _identity(rng: np.random.Generator, count: int) -> list[Finding]:
    """The least decay over logits, by BFGS on its logarithm, which is convex in the logits."""
    apart, at_map = [], []
    for _ in range(count):
        n = int(rng.integers(2, 9))
        a = 10.0 ** rng.uniform(-2.0, 1.0, n)

        def log_cost(logits: Array, a: Array = a) -> tuple[float, Array]:
            inverse, direct = 2.0 * (np.log(a) - logits), logits
            p, s = (np.exp(x - x.max()) for x in (inverse, direct))
            value = np.log(p.sum()) + inverse.max() + 2.0 * (np.log(s.sum()) + direct.max()) - 2.0 * np.log(a.size)
            return float(value), -2.0 * p / p.sum() + 2.0 * s / s.sum()

        found = minimize(log_cost, rng.normal(size=n), jac=True, method="BFGS", options={"gtol": 1e-10}).fun
        apart.append(abs(np.exp(found) / _cost(a) - 1.0))
        masks = n * a ** (2.0 / 3.0) / (a ** (2.0 / 3.0)).sum()
        at_map.append(abs(((a / masks) ** 2).sum() / _cost(a) - 1.0) + abs(masks.mean() - 1.0))
    return [
        holds("The least decay over the logits is n⁻² (Σ a^(2/3))³", apart, 1e-8,
              "Relative difference; norms from 0.01 to 10, the composite penalty with q = a^(2/3)."),
        holds("It is reached by masks A proportional to a^(2/3), with mean 1", at_map, 1e-12, "Relative difference."),
    ]  # fmt: skip


class _Case(NamedTuple):
    """1/2 ||y - Xw||^2, six groups of two."""

    X: Array
    y: Array
    problem: Problem

    def loss(self, w: Array) -> float:
        r = self.X @ w - self.y
        return 0.5 * float(r @ r)


def _case(rng: np.random.Generator) -> _Case:
    X = rng.normal(size=(24, _GROUPS * _SIZE)) / np.sqrt(24)
    y = X @ rng.normal(size=X.shape[1]) + 0.1 * rng.normal(size=24)
    ones = np.ones(24)
    return _Case(X, y, Problem.build(X, y, groups=_SIZE, intercept=False, sample_weight=ones, weights="ones"))


def _solved(problem: Problem, mu: float) -> Solution:
    """The group lasso at mu, as well as rounding allows: what it is worth is certified afterwards."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return solve(replace(problem, penalty=problem.penalty.at(mu)), tol=1e-13)


def _threshold(problem: Problem) -> tuple[float, float, int]:
    """lam_0 = mu n^2 / (2 G(mu)) at the lower end mu of the certified window, tau, and the group."""
    window = one_group_window(problem).numbers
    mu, tau = float(window["lam_low"]), float(window["tau"])
    group = list(problem.groups.names).index(window["group"])
    norm = float(problem.groups.norms(_solved(problem, mu).w).sum())
    return mu * _GROUPS**2 / (2.0 * norm), tau, group


def _matching(problem: Problem, lam: float, tau: float) -> float:
    """The mu with mu = 2 lam G(mu) / n^2: at it the group lasso is the comparator L + lam (G / n)^2."""

    def excess(mu: float) -> float:
        norms = problem.groups.norms(_solved(problem, mu).w)
        return mu - 2.0 * lam * float(norms.sum()) / _GROUPS**2

    low = 0.1 * tau
    while excess(low) > 0.0:
        low *= 0.1
    return float(brentq(excess, low, tau, xtol=1e-15, rtol=1e-14))


def _one_sparse(rng: np.random.Generator, cases: list[_Case]) -> list[Finding]:
    gaps, wrong, below = [], [], []
    for case in cases:
        problem = case.problem
        lam0, tau, group = _threshold(problem)
        for factor in _MULTIPLES:
            lam = factor * lam0
            mu = _matching(problem, lam, tau)
            solution = _solved(problem, mu)
            active = np.flatnonzero(problem.groups.norms(solution.w)).tolist()
            wrong.append(0.0 if active == [group] else 1.0)
            # min over r of [dual(mu) - mu r + lam r^2 / n^2] bounds the comparator, hence the masked problem.
            dual = float(duality_gap(solution.problem, solution.w).numbers["dual"])
            bound = dual - mu**2 * _GROUPS**2 / (4.0 * lam)
            value = case.loss(solution.w) + lam * _cost(problem.groups.norms(solution.w))
            gaps.append((value - bound) / value)
            below.append((value - _masked(rng, case, lam, 3)[0]) / value)
    many = len(cases)
    return [
        holds(f"For λ ≥ λ₀ the one group with the largest gradient at zero is active, {many} problems", wrong, 0.0,
              "λ₀ = μ n² / (2 G(μ)) at the lower end μ of the certified window; λ = 1.001, 10, 1000 times λ₀."),
        holds("The value there meets the lower bound from the group-lasso dual at μ = 2λG/n²", gaps, 1e-9,
              "Certified relative gap to the global minimum of the masked problem."),
        holds("No start of the masked problem over logits and kernel falls below", below, 1e-9,
              "Three starts each; relative."),
    ]  # fmt: skip


def _masked(rng: np.random.Generator, case: _Case, lam: float, starts: int, near: Any = None) -> tuple[float, Array]:
    """min over logits and kernels of L(A beta) + lam ||beta||^2, best of random starts and `near`, and the norms."""
    best: tuple[float, Array] = (np.inf, np.zeros(_GROUPS))

    def value(x: Array) -> tuple[float, Array]:
        logits, kernel = x[:_GROUPS], x[_GROUPS:].reshape(_GROUPS, _SIZE)
        share = np.exp(logits - logits.max())
        share /= share.sum()
        masks = _GROUPS * share
        w = (masks[:, None] * kernel).ravel()
        slope = (case.X.T @ (case.X @ w - case.y)).reshape(_GROUPS, _SIZE)
        by_mask = (slope * kernel).sum(axis=1)
        out = np.concatenate(
            [masks * (by_mask - share @ by_mask), (masks[:, None] * slope + 2.0 * lam * kernel).ravel()]
        )
        return case.loss(w) + lam * float((kernel**2).sum()), out

    first = [rng.normal(size=_GROUPS * (1 + _SIZE)) for _ in range(starts)]
    if near is not None:
        norms = np.maximum(case.problem.groups.norms(near), 1e-6 * np.abs(near).max())
        masks = _GROUPS * norms ** (2.0 / 3.0) / (norms ** (2.0 / 3.0)).sum()
        first.append(np.concatenate([np.log(masks), near / np.repeat(masks, _SIZE)]))
    for start in first:
        found = minimize(value, start, jac=True, method="BFGS",
                         options={"gtol": 1e-9, "maxiter": 2000})  # fmt: skip
        if found.fun < best[0]:
            share = np.exp(found.x[:_GROUPS] - found.x[:_GROUPS].max())
            kernel = np.linalg.norm(found.x[_GROUPS:].reshape(_GROUPS, _SIZE), axis=1)
            best = (float(found.fun), _GROUPS * share / share.sum() * kernel)
    return best


def _path(rng: np.random.Generator, case: _Case) -> Array:
    """lam / lam_0 and the norms of the blocks at the best point found, relative to the largest."""
    lam0, tau, _ = _threshold(case.problem)
    rows = []
    for factor in np.geomspace(1e-3, 1e2, 21):
        lower = _solved(case.problem, _matching(case.problem, factor * lam0, tau)).w
        norms = _masked(rng, case, factor * lam0, 3, lower)[1]
        rows.append([factor, *(norms / norms.max())])
    return np.array(rows).T


def _clipped() -> Finding:
    """A >= 0.2 restores a ridge: ||b - c||^2 / 2, c = (1, 0.9), two masks with sum 2."""
    c, lam = np.array([1.0, 0.9]), 1e3
    masks = np.stack([A := np.linspace(0.2, 1.8, 2001), 2.0 - A])
    ridge = 2.0 * lam / masks**2
    value = 0.5 * (c[:, None] ** 2 * ridge / (1.0 + ridge)).sum(axis=0)
    b = (c[:, None] / (1.0 + ridge))[:, int(np.argmin(value))]
    ratio = float(b.min() / b.max())
    return control(
        "Masks clipped from below keep the exact zeros",
        ratio,
        1e-3,
        f"‖b − (1, 0.9)‖²/2, λ = 1000, A ≥ 0.2: the minimum has b = ({b[0]:.3g}, {b[1]:.3g}), and no λ sets the "
        "smaller to zero, because its cost is b²/A² ≤ 25 b². Pruning is then left to the choice of the largest masks.",
    )


def _not_lambert() -> Finding:
    q = LambertW()
    softmax = _cost(np.array([2.0, 2.0])) / _cost(np.array([1.0, 1.0]))
    lambert = float(q.value(2.0) / q.value(1.0))
    return control(
        "Lemma 2.1 describes the normalised softmax mask",
        abs(softmax - lambert),
        0.5,
        f"Twice the norms cost {softmax:.6g} times as much with the softmax, {lambert:.4f} times by Lemma 2.1.",
        printed="Sequential Attention's masks are modelled by eʷ with decay on w and on the kernel (Lemma 2.1).",
        corrected="A softmax with mean 1 and decay on the kernel only is n⁻² (Σ a^(2/3))³: it is in the class of "
        "Theorem 1.1, and one-sparse for all large λ.",
    )


def figure(evidence: Evidence) -> Any:
    """Norms of the blocks over lam, relative to the largest."""
    factor, *norms = evidence.series["path"]
    drawing, (ax,) = axes(1)
    for i, (colour, values) in enumerate(zip(COLOURS, norms, strict=True)):
        ax.plot(factor, values, "o-", color=colour, markersize=3.5, linewidth=1.1, label=f"group {i}")
    ax.axvline(1.0, color="#888888", linewidth=1.0, linestyle="--")
    ax.set_xscale("log")
    ax.set_xlabel("λ / λ₀")
    ax.set_ylabel("norm of the block / largest")
    legend(ax, loc="center right", ncols=1)
    return drawing


STATEMENT = Statement(
    name="normalised_softmax",
    number="Extension",
    title="the normalised softmax mask is one-sparse for all large λ",
    source="extension of arXiv 2402.17902, for the masks of its Algorithm 1",
    text="""
With A = n softmax(ℓ), so that the masks have mean 1, and decay λ‖β‖^2 on the kernel only,
    inf over ℓ of  λ Σ ‖u_i‖^2 / A_i^2  =  (λ / n^2) (Σ ‖u_i‖^{2/3})^3  =  λ (R_q(u) / n)^2,   q(a) = a^{2/3}.
If L is strictly convex, bounded below, and the largest of the gradient norms at zero is attained once, there is a λ_0
such that for all λ ≥ λ_0 the global minimum has exactly this one group.
""",
    hypotheses={"the arg-max of the gradient norms at zero is unique": lambda problem: (
        one_group_window(problem).verdict.name == "PROVED"
    )},
    check=check,
    figure=figure,
    caption="Norms of the blocks at the best of four starts, one of them the minimiser of the lower bound: beyond λ₀ "
    "(dashed line) that is the global minimum, with one group.",
)  # fmt: skip
