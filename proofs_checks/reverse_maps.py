"""From a group-sparse solution back to a masked network: u = f(w) beta with the least decay.

    e^w              w = W(2 ||u||^2) / 2                     beta = e^-w u
    w, decay |w|     w = 2^(1/3) ||u||^(2/3)                  beta = u / w
    w, decay w^2     w = sqrt(||u||)                          beta = u / w
    ||beta|| beta                                             beta = u / sqrt(||u||)
    e^w - 1          w (e^w - 1)^3 e^-w = ||u||^2             beta = u / (e^w - 1)
    n softmax        A proportional to ||u||^(2/3), mean 1    beta = u / A

The product must give u back, the decay must be q(||u||), and no step away from the pair may cost less. What the masks
do to zero groups differs: some revive them, some cannot.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sparseopt import L2, Composite, Groups, Power
from sparseopt.proofs_checks.evidence import Evidence, Finding, Statement, control, holds
from sparseopt.proofs_checks.figures import COLOURS, axes, legend
from sparseopt.proofs_checks.mask_facts import MASKS, Mask

__all__ = ["STATEMENT"]

_COUNTS = {"small": 500, "medium": 5000, "large": 50_000}


def check(rng: np.random.Generator, size: str) -> Evidence:
    """There and back for every mask, then zero groups."""
    count = _COUNTS[size]
    a = 10.0 ** rng.uniform(-3.0, 3.0, count)
    findings = []
    for mask in MASKS.values():
        findings += _there_and_back(rng, mask, a)
    findings += [*_norm_times_block(rng, a), *_softmax(rng, count), *_zero_groups(rng, count)]
    grid = np.geomspace(1e-4, 1e2, 200)
    series = {mask.name: np.array([grid, mask.factor(mask.best(grid))]) for mask in MASKS.values()}
    return Evidence("reverse_maps", tuple(findings), series)


def _there_and_back(rng: np.random.Generator, mask: Mask, a: Any) -> list[Finding]:
    """u = m beta is 3-dimensional; the decay of (w, beta) against q, and against neighbours of w."""
    direction = rng.normal(size=(a.size, 3))
    u = a[:, None] * direction / np.linalg.norm(direction, axis=1)[:, None]
    w = mask.best(np.linalg.norm(u, axis=1))
    beta = u / mask.factor(w)[:, None]
    back = np.linalg.norm(mask.factor(w)[:, None] * beta - u, axis=1) / a
    decay = mask.decay(w) + (beta**2).sum(axis=1)
    value = mask.value(a)
    steps = w[:, None] * (1.0 + 10.0 ** rng.uniform(-6.0, 0.0, (a.size, 8)) * rng.choice([-1.0, 1.0], (a.size, 8)))
    with np.errstate(over="ignore", divide="ignore"):
        other = np.where(steps > 0.0, mask.cost(np.maximum(steps, 1e-300), a[:, None]), np.inf)
    where = lambda i: f"‖u‖ = {a[i]:.9g}: decay {decay[i]:.15g}, q {value[i]:.15g}"  # noqa: E731
    return [
        holds(f"Mask {mask.name}: the pair multiplies to u and costs q(‖u‖)", np.maximum(
              back, np.abs(decay / value - 1.0)), 1e-12, "Relative, norms from 1e-3 to 1e3.", where=where),
        holds(f"Mask {mask.name}: no other w costs less", (decay - other.min(axis=1)) / decay, 1e-13,
              "Eight other w for each pair, relative steps from 1e-6 to 1."),
    ]  # fmt: skip


def _norm_times_block(rng: np.random.Generator, a: Any) -> list[Finding]:
    direction = rng.normal(size=(a.size, 3))
    u = a[:, None] * direction / np.linalg.norm(direction, axis=1)[:, None]
    beta = u / np.sqrt(np.linalg.norm(u, axis=1))[:, None]
    norm = np.linalg.norm(beta, axis=1)
    back = np.linalg.norm(norm[:, None] * beta - u, axis=1) / a
    claim = "‖β‖ β with β = u/√‖u‖ is u and costs ‖u‖, the group lasso"
    return [holds(claim, np.maximum(back, np.abs(norm**2 / L2().value(a) - 1.0)), 1e-12, "Relative.")]


def _softmax(rng: np.random.Generator, count: int) -> list[Finding]:
    """Six groups at a time: logits (2/3) log ||u||, and neighbours of them."""
    n, times = 6, max(count // 20, 20)
    errors, excess = [], []
    for _ in range(times):
        a = 10.0 ** rng.uniform(-2.0, 2.0, n)
        logits = (2.0 / 3.0) * np.log(a) + rng.normal()
        value = (Composite(Power(2.0 / 3.0), Groups.equal(n, 1, weights="ones"), lam=1.0).value(a) / n) ** 2
        others = logits + 10.0 ** rng.uniform(-4.0, 0.0, (8, 1)) * rng.normal(size=(8, n))
        decays = [float(((a / _softmax_masks(each)) ** 2).sum()) for each in (logits, *others)]
        errors.append(max(abs(decays[0] / value - 1.0), abs(_softmax_masks(logits).mean() - 1.0)))
        excess.append((decays[0] - min(decays[1:])) / decays[0])
    return [
        holds("Logits (2/3) log ‖u‖ plus any constant: masks of mean 1, decay n⁻² (Σ‖u‖^(2/3))³", errors, 1e-12,
              "Relative; six groups."),
        holds("No other logits cost less", excess, 1e-13, "Eight others for each; relative."),
    ]  # fmt: skip


def _softmax_masks(logits: Any) -> Any:
    e = np.exp(logits - logits.max())
    return e.size * e / e.sum()


def _zero_groups(rng: np.random.Generator, count: int) -> list[Finding]:
    """The objective around w = 0, beta = 0 for a loss with gradient g there: g'(m beta) to first order in the product.

    Hoff's mask: lam/2 (w^2 + ||beta||^2) + w g'beta has the second derivative [[lam, g'], [g, lam I]], with least
    eigenvalue lam - ||g||. With decay lam (|w| + ||beta||^2) the linear term wins at any ||g||. With e^w the block is
    stationary at beta = 0 only if g = 0.
    """
    eigen, grows, moves = [], [], []
    for _ in range(max(count // 10, 30)):
        lam, g = float(rng.uniform(0.1, 2.0)), rng.normal(size=3)
        hessian = lam * np.eye(4)
        hessian[0, 1:] = hessian[1:, 0] = g
        eigen.append(abs(float(np.linalg.eigvalsh(hessian)[0]) - (lam - np.linalg.norm(g))))
        w, beta = 1e-3 * rng.normal(), 1e-3 * rng.normal(size=3)
        grows.append(-(lam * (abs(w) + beta @ beta) + w * (g @ beta)) / (abs(w) + beta @ beta))
        moves.append(float(lam * 1e-6 * (g @ g) - 1e-3 * (g @ g)))  # a step -1e-3 g of beta at w = 0
    return [
        holds("Hoff's mask at a zero group: the least curvature is λ − ‖g‖, so it revives exactly if ‖g‖ > λ", eigen,
              1e-12, "The group-lasso condition: with a convex loss no second-order point is spurious."),
        holds("Mask w with decay |w|: (0, 0) is a local minimum for every gradient, dead groups stay dead", grows, 0.0,
              "Change of the objective over |w| + ‖β‖², of the opposite sign; steps of 1e-3."),
        control("Mask eʷ: a zero group is stationary", -max(moves), 1e-9,
                "The step −1e-3 g of β lowers the objective for every gradient g ≠ 0: nothing is ever exactly zero."),
    ]  # fmt: skip


def figure(evidence: Evidence) -> Any:
    """The mask of the least decay over the norm."""
    drawing, (ax,) = axes(1)
    for colour, (name, (a, mask)) in zip(COLOURS, evidence.series.items(), strict=False):
        ax.plot(a, mask, color=colour, label=f"mask {name}")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("norm of the block, ‖u‖")
    ax.set_ylabel("mask")
    legend(ax, loc="upper left")
    return drawing


STATEMENT = Statement(
    name="reverse_maps",
    number="Extension of Lemmas 2.1 to 2.3",
    title="from a solution back to mask and kernel",
    source="extension of arXiv 2402.17902",
    text="""
Every block u ≠ 0 has one pair (up to a sign) of mask and kernel with the least decay:
    e^w:   w = W(2‖u‖^2)/2        w, |w|:   w = 2^{1/3} ‖u‖^{2/3}        w, w^2:   w = √‖u‖
    ‖β‖ β:   β = u/√‖u‖        e^w − 1:   w (e^w − 1)^3 e^{−w} = ‖u‖^2
    A = n softmax(ℓ):   ℓ_i = (2/3) log ‖u_i‖ + constant
so that a solution can initialise a masked network. At u = 0 the masks differ: e^w never reaches zero, w with decay w^2
revives a group exactly if its gradient exceeds λ, and w with decay |w| never revives one.
""",
    hypotheses={},
    check=check,
    figure=figure,
    caption="The mask of least decay: that of eʷ tends to 1 for small blocks, the others to 0.",
)
