"""Lemmas 2.1 to 2.3: weight decay on a mask and on the masked block is a penalty of the product.

    min over w, beta with f(w) beta = u  of  decay(w) + ||beta||^2  =  q(||u||)

so that training a masked model with decay is group-sparse optimization with that q. The minimum over the mask is found
from values alone and compared with the q of the package over six decades; whole problems are minimised on both sides,
the masked one over (w, beta) by scipy and the penalised one over u by the package.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
from scipy.optimize import minimize

from sparseopt import L2, LambertW, Power, Problem, solve
from sparseopt.proofs_checks.evidence import Evidence, Finding, Statement, control, holds
from sparseopt.proofs_checks.figures import COLOURS, axes, legend
from sparseopt.proofs_checks.mask_facts import MASKS, least, mask_minimum

__all__ = ["STATEMENT"]

Factor = Callable[[Any], tuple[Any, Any]]  # w -> f(w), f'(w)

_COUNTS = {"small": 200, "medium": 2000, "large": 20_000}
_PROBLEMS = {"small": 2, "medium": 20, "large": 100}
_LEMMA = {"exp": "Lemma 2.1", "l1": "Lemma 2.2", "identity": "Hoff's identity"}


def check(rng: np.random.Generator, size: str) -> Evidence:
    """The pointwise identities for every mask, and the identities of whole problems."""
    a = np.sort(10.0 ** rng.uniform(-3.0, 3.0, _COUNTS[size]))
    findings, series = [], {}
    for key, mask in MASKS.items():
        found = mask_minimum(mask, a)
        series[mask.name] = np.array([a, mask.value(a), found])[:, :: max(a.size // 200, 1)]
        lemma = f" ({_LEMMA[key]})" if key in _LEMMA else ""
        findings.append(_agrees(f"The minimum over the mask {mask.name} is q(a){lemma}", found, mask.value(a), a))
    findings += [*_unequal(rng, a), *_depths(rng, a[:: max(a.size // 40, 1)]), *_powers(a)]
    findings += _problems(rng, _PROBLEMS[size])
    return Evidence("variational_masks", tuple(findings), series)


def _agrees(claim: str, found: Any, q: Any, a: Any, tolerance: float = 1e-12) -> Finding:
    error = np.abs(found / q - 1.0)
    where = lambda i: f"a = {a[i]!r}: minimum {found[i]!r}, q(a) = {q[i]!r}"  # noqa: E731
    return holds(claim, error, tolerance, "Relative difference, a from 1e-3 to 1e3.", where=where)


def _unequal(rng: np.random.Generator, a: Any) -> list[Finding]:
    """Decay c w^2 + d ||beta||^2 with the mask e^w: c q(sqrt(d / c) a)."""
    c, d = 10.0 ** rng.uniform(-1.0, 1.0, (2, a.size))
    low, high = np.full_like(a, -1.0), np.full_like(a, 50.0)
    found = least(lambda w: c * w * w + d * (a * np.exp(-w)) ** 2, low, high)[1]
    claim = "Unequal decays c w² + d ‖β‖² on the mask eʷ leave c q(√(d/c) a)"
    return [_agrees(claim, found, c * LambertW().value(np.sqrt(d / c) * a), a)]


def _depths(rng: np.random.Generator, a: Any) -> list[Finding]:
    """D masks with square decay: (D + 1) a^(2 / (D + 1)), minimised over the logarithms of all masks."""
    findings = []
    for depth in (2, 3):

        def log_cost(s: Any, x: float) -> tuple[float, Any]:
            terms = np.append(2.0 * s, 2.0 * np.log(x) - 2.0 * s.sum())
            share = np.exp(terms - terms.max())
            value = float(np.log(share.sum()) + terms.max())
            share /= share.sum()
            return value, 2.0 * share[:-1] - 2.0 * share[-1]

        starts = rng.normal(size=(a.size, depth))
        options = {"jac": True, "method": "BFGS", "options": {"gtol": 1e-9}}
        found = np.exp([minimize(log_cost, start, (x,), **options).fun for start, x in zip(starts, a, strict=True)])
        claim = f"{depth} masks in a row, all with square decay, leave {depth + 1} a^({Fraction(2, depth + 1)})"
        findings.append(_agrees(claim, found, (depth + 1) * Power(2.0 / (depth + 1)).value(a), a))
    return findings


def _powers(a: Any) -> list[Finding]:
    """u = ||beta||^(alpha - 1) beta: the norm of beta is the root of r^alpha = a."""
    findings = []
    for alpha, q, text in ((2, L2(), "‖β‖ β leaves a (Lemma 2.3)"), (3, Power(2.0 / 3.0), "‖β‖² β leaves a^(2/3)")):
        low, high = np.zeros_like(a), 1.0 + a
        for _ in range(120):
            middle = 0.5 * (low + high)
            below = middle**alpha < a
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        findings.append(_agrees(f"Decay ‖β‖² of u = {text}", low**2, q.value(a), a))
    gain = 2.0 ** (2.0 / 1.5) - 2.0  # (a + a)^(2 / alpha) - 2 a^(2 / alpha) at a = 1, alpha = 1.5
    findings.append(
        control(
            "Lemma 2.3 for every exponent: u = ‖β‖^(1/2) β is sparsity-inducing",
            gain,
            1e-3,
            f"The penalty is a^(4/3), and two groups of norm 1 cost {gain:.4f} less than one of norm 2: from exponents "
            "above 2 on q is strictly subadditive, at 2 it is the group lasso, below 2 it spreads.",
        )
    )
    return findings


def _problems(rng: np.random.Generator, count: int) -> list[Finding]:
    """Both sides of Lemmas 2.1, 2.3 and Hoff's identity, on least squares with three groups of two."""
    kinds: tuple[tuple[str, Any, float, Factor | None], ...] = (
        ("Lemma 2.1: L(eʷ β) + λ(‖w‖² + ‖β‖²)", LambertW(), 1.0, lambda w: (np.exp(w), np.exp(w))),
        ("Hoff: L(w β) + λ/2 (‖w‖² + ‖β‖²)", L2(), 0.5, lambda w: (w, np.ones(3))),
        ("Lemma 2.3: L(‖β‖ β) + λ‖β‖²", L2(), 1.0, None),
    )
    findings = []
    for name, q, share, factor in kinds:
        apart = []
        for _ in range(count):
            X, y, lam = rng.normal(size=(12, 6)), 2.0 * rng.normal(size=12), float(rng.uniform(0.05, 0.4))
            problem = Problem.build(X, y, groups=2, penalty=q, lam=lam, intercept=False, weights="ones")
            best = solve(problem, tol=1e-12).objective
            value = _masked(X, y, lam * share, factor)
            options = {"jac": True, "method": "BFGS", "options": {"gtol": 1e-9}}
            with np.errstate(over="ignore", invalid="ignore"):  # a step of the line search may leave for infinity
                masked = np.nanmin([minimize(value, rng.normal(size=9), **options).fun for _ in range(4)])
            apart.append(abs(masked / best - 1.0))
        findings.append(
            holds(
                f"The least value over the masks is that over u. {name}",
                apart,
                1e-8,
                "Relative difference of the two minima; four starts for the masked side.",
            )
        )
    return findings


def _masked(X: Any, y: Any, lam: float, factor: Factor | None) -> Callable[[Any], tuple[float, Any]]:
    """1/(2n) ||X u - y||^2 + lam (||w||^2 + ||beta||^2) with u = f(w) beta, or with u = ||beta|| beta and no w."""

    def value(x: Any) -> tuple[float, Any]:
        w, blocks = x[:3], x[3:].reshape(3, 2)
        norms = np.linalg.norm(blocks, axis=1)
        mask, rise = (norms, 0.0) if factor is None else factor(w)
        r = X @ (mask[:, None] * blocks).ravel() - y
        slope = (X.T @ r / len(r)).reshape(3, 2)
        along = (slope * blocks).sum(axis=1)
        by_block = mask[:, None] * slope + 2.0 * lam * blocks
        if factor is None:
            by_block = by_block + (along / norms)[:, None] * blocks
        by_w = rise * along + (0.0 if factor is None else 2.0 * lam * w)
        decay = (blocks**2).sum() + (0.0 if factor is None else (w**2).sum())
        return float(0.5 * np.mean(r * r) + lam * decay), np.concatenate([by_w, by_block.ravel()])

    return value


def figure(evidence: Evidence) -> Any:
    """q as a line, the minimum over the mask as dots."""
    drawing, (ax,) = axes(1)
    for colour, (name, (a, q, found)) in zip(COLOURS, evidence.series.items(), strict=False):
        ax.plot(a, q, color=colour, linewidth=1.2, label=f"mask {name}")
        ax.plot(a[::8], found[::8], ".", color=colour, markersize=5)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("norm a of the block")
    ax.set_ylabel("q(a)")
    legend(ax, loc="upper left")
    return drawing


STATEMENT = Statement(
    name="variational_masks",
    number="Lemmas 2.1, 2.2 and 2.3",
    title="weight decay on a mask is a penalty of the masked block",
    source="arXiv 2402.17902 v1, Lemmas 2.1 to 2.3; Hoff (2017) for the identity mask",
    text="""
For a mask m = f(w) in front of a block, the least weight decay with which a block u of norm a can be written is
    q(a) = min over w of  d(w) + a^2 / f(w)^2,
and training with the mask is the penalised problem with that q: no convexity of the loss is needed.

    e^w, w^2:   q(a) = ω^2 + ω with ω = W(2 a^2) / 2   (Lemma 2.1)
    w, |w|:   q(a) = (3/2) 2^{1/3} a^{2/3}   (Lemma 2.2)
    w, w^2:   q(a) = 2 a, the group lasso   (Hoff)
    u = ‖β‖ β:   q(a) = a, the group lasso   (Lemma 2.3)
    w, |w|^s:   q(a) = (1 + s/2) (2/s)^{s/(s+2)} a^{2s/(s+2)}
    e^w − 1, w^2:   the concave q of Expm1Mask
""",
    hypotheses={},
    check=check,
    figure=figure,
    caption="Lines: q as the package computes it. Dots: the least decay over the mask, found from values alone.",
)
