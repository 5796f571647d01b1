"""The Lambert-W regularizer of Lemma 2.1, q(a) = w^2 + w with a = sqrt(w) e^w: where it is subadditive and where not.

    q'(a) = 2 sqrt(w) e^-w                   q''(a) = 2 e^-2w (1 - 2w) / (1 + 2w)

It starts as a ridge, is convex up to a_c = sqrt(e/2) and grows like (log a)^2. q(a)/a rises up to a = e, so norms that
add up to at most e cost less apart than together: Lemma 2.4 is reversed there. Its constants are enclosed in ball
arithmetic to 30 digits; what is said of all norms is tried on random ones.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sparseopt import Composite, Groups, LambertW
from sparseopt.certificates.regularizers import examine
from sparseopt.proofs_checks.evidence import Evidence, Finding, Statement, control, holds, proved
from sparseopt.proofs_checks.figures import COLOURS, INK, axes, legend
from sparseopt.proofs_checks.mask_facts import MASKS

__all__ = ["STATEMENT", "crossing", "diagonal_threshold", "exact_value"]

_COUNTS = {"small": 2000, "medium": 20_000, "large": 200_000}
_BITS = 256
_DIGITS = 30


def check(rng: np.random.Generator, size: str) -> Evidence:
    """Constants in ball arithmetic, thresholds on random norms, and the controls."""
    from sparseopt.certificates.balls import bits

    q, count = LambertW(), _COUNTS[size]
    with bits(_BITS):
        findings = [*_constants(q), *_defects(q, rng, count), _curvature(q)]
        a0 = float(diagonal_threshold())
    findings += _random(q, rng, count, a0)
    findings += [_growth(q), *_theorem(q)]
    a = np.geomspace(0.02, 20.0, 400)
    envelope = np.where(a <= math.e, 2.0 * a / math.e, q.value(a))
    series = {"curves": np.array([a, q.value(a), q.slope(a), envelope]), "marks": np.array([np.sqrt(math.e / 2), a0])}
    return Evidence("lambertw_thresholds", tuple(findings), series)


def exact_value(a: Any) -> Any:
    """q on balls, w = W(2 a^2) / 2: by a Lambert function that is not the package's."""
    w = (2 * a * a).lambertw() / 2
    return w * w + w


def crossing(f: Any, low: float, high: float) -> Any:
    """The ball of the place in [low, high] where f, a map of balls, changes its sign from - to +."""
    from sparseopt.certificates.balls import arb

    a, b = arb(low), arb(high)
    if not (f(a) < 0 < f(b)):
        raise ValueError(f"no change of sign is shown between {low} and {high}: choose ends on both sides of it.")
    while 2 * b.mid() - 2 * a.mid() > arb(10) ** (-_DIGITS - 3):
        middle = ((a + b) / 2).mid()
        side = f(middle)
        if side < 0:
            a = middle
        elif side > 0:
            b = middle
        else:
            break
    return a.union(b)


def diagonal_threshold(m: int = 2) -> Any:
    """The ball of a_m: m equal terms have q(m a) > m q(a) for a below it, and not for a little above."""
    mask, low, high = MASKS["exp"], 0.05, 2.7
    while high - low > 1e-9:  # in floats first: the balls only confirm
        middle = 0.5 * (low + high)
        sides = np.array([middle, m * middle])
        one, together = mask.cost(mask.best(sides), sides)
        low, high = (middle, high) if m * one < together else (low, middle)
    return crossing(lambda a: m * exact_value(a) - exact_value(m * a), low - 1e-9, high + 1e-9)


def _constants(q: Any) -> list[Finding]:
    from sparseopt.certificates.balls import arb

    e = arb(1).exp()
    a_c, value = (e / 2).sqrt(), exact_value
    a0, found = diagonal_threshold(), examine(q, 1e-3, 1e3)
    places = [arb(x) for name in ("convex_up_to", "diagonal", "ratio_peak") for x in found[name]]
    between = all(places[2 * i] < c < places[2 * i + 1] for i, c in enumerate((a_c, a0, e)))
    text = ", ".join(f"a_{m} = {_digits(diagonal_threshold(m), 7)}" for m in (3, 4, 5, 10, 100))
    return [
        proved(
            "The bend a_c = √(e/2), the diagonal threshold a₀ and the peak e of q(a)/a lie where the package encloses "
            "them",
            between,
            f"a_c = {_digits(a_c)}, a₀ = {_digits(a0)}; the package gives neighbouring floats around each.",
            tried=3,
        ),
        proved("q(e) = 2", bool(abs(value(e) - 2) < arb(10) ** -_DIGITS), f"q(e) - 2 = {(value(e) - 2).str(3)}."),
        proved(
            "a₀ is enclosed to 30 digits: q(2a) > 2 q(a) just below it and q(2a) < 2 q(a) just above",
            bool(2 * a0.rad() < arb(10) ** -_DIGITS),
            f"a₀ = {_digits(a0)}. For m equal terms the threshold is {text}.",
        ),
    ]


def _defects(q: Any, rng: np.random.Generator, count: int) -> list[Finding]:
    """sup of q(sum) - sum q over m norms is m (log m)^2 / (4 (m - 1)), at equal norms with w = log m / (2 (m - 1))."""
    from sparseopt.certificates.balls import arb

    value, exact, excess = exact_value, [], []
    listed = (2, 3, 4, 5, 10, 100)
    for m in listed:
        w = arb(m).log() / (2 * (m - 1))
        a, bound = w.sqrt() * w.exp(), arb(m) * arb(m).log() ** 2 / (4 * (m - 1))
        exact.append(bool(abs(value(m * a) - m * value(a) - bound) < arb(10) ** -_DIGITS))
        terms = float(a) * 10.0 ** rng.uniform(-1.5, 1.5, (count, m))
        near = float(a) * rng.uniform(0.9, 1.1, (count, m))
        for norms in (terms, near):
            excess.append(float((q.value(norms.sum(axis=1)) - q.value(norms).sum(axis=1)).max()) - float(bound))
    delta = arb(2).log() ** 2 / 2
    return [
        proved(
            "q(Σa) − Σq(a) reaches δ_m = m (log m)² / (4 (m − 1)) at m equal norms √w eʷ, w = log m / (2 (m − 1))",
            all(exact),
            f"To 30 digits; δ_2 = {_digits(delta)}.",
            tried=len(listed),
        ),
        holds("q(Σa) − Σq(a) is never above δ_m", excess, 1e-12, f"Best of {count} random norms for each of 12 kinds."),
    ]


def _curvature(q: Any) -> Finding:
    """-q'' is largest at w = sqrt(3)/2, in balls: the weak convexity of the package."""
    from sparseopt.certificates import balls
    from sparseopt.certificates.balls import arb

    rho = 2 * (2 - arb(3).sqrt()) * (-arb(3).sqrt()).exp()

    def below(w: Any) -> bool:
        return bool(2 * (-2 * w).exp() * (2 * w - 1) / (2 * w + 1) <= rho * (1 + arb(10) ** -6))

    peak = 2 * (-arb(3).sqrt()).exp() * (arb(3).sqrt() - 1) / (arb(3).sqrt() + 1)
    same = bool(abs(peak - rho) < arb(10) ** -_DIGITS) and abs(q.weak_convexity() - float(rho)) < 1e-16
    return proved(
        "The weak convexity is 2 (2 − √3) exp(−√3), reached at w = √3/2",
        balls.proved(below, arb(0), arb(60)) and same,
        f"ρ = {_digits(rho)}; −q'' is shown to exceed it nowhere by more than 1e-6 of it for w up to 60, a up to 1e27.",
    )


def _random(q: Any, rng: np.random.Generator, count: int, a0: float) -> list[Finding]:
    """Lemma 2.4 reversed for sums up to e, valid from a0 on; q as a function of a^2 is subadditive."""
    reverse, direct, euclid = [], [], []
    for m in (2, 3, 8):
        small = rng.dirichlet(np.ones(m), count) * (math.e * rng.uniform(0.05, 1.0, (count, 1)))
        reverse.append(1.0 - q.value(small.sum(axis=1)) / q.value(small).sum(axis=1))
        large = a0 * 10.0 ** (rng.exponential(0.3, (count, m)))
        direct.append(q.value(large.sum(axis=1)) / q.value(large).sum(axis=1) - 1.0)
        any_norms = 10.0 ** rng.uniform(-2.0, 2.0, (count, m))
        lifted = q.inverse(q.value(any_norms).sum(axis=1))
        euclid.append(1.0 - lifted / np.linalg.norm(any_norms, axis=1))
    a = 10.0 ** rng.uniform(-1.0, 4.0, count)
    b = 0.5 * q.slope(a)
    apart = q.value(a + b) - q.value(a) - q.value(b)
    return [
        holds("Σq(a) < q(Σa) for at least two norms with sum at most e: Lemma 2.4 reversed", reverse, 0.0,
              "Every instance; relative excess of Σq(a) over q(Σa), below 0 throughout."),
        holds("Σq(a) ≥ q(Σa) as soon as every norm is at least a₀", direct, 1e-12, "Relative shortfall."),
        holds("R_q(w) ≥ ‖w‖₂ always: q is concave as a function of a²", euclid, 1e-12, "Relative shortfall."),
        holds("The violation never stops: q(a + b) > q(a) + q(b) for every a and b = q'(a)/2", -apart / b**2, 0.0,
              "a from 0.1 to 1e4; the difference is about b q'(a) − b², here b²."),
    ]  # fmt: skip


def _growth(q: Any) -> Finding:
    a = np.array([1e8, 1e30, 1e80, 1e150])
    per_log, per_square = q.value(a) / np.log(a), q.value(a) / np.log(a) ** 2
    rising = bool(np.all(np.diff(per_square) > 0.0) and per_square[-1] < 1.0)
    numbers = ", ".join(f"{x:.3f}" for x in per_square)
    return control(
        "The q of Lemma 2.1 is a log-sum regularizer: q(a) / log a stays bounded",
        float(per_log[-1] / per_log[0]) if rising else 0.0,
        5.0,
        f"From a = 1e8 to 1e150 q(a)/log a grows from {per_log[0]:.1f} to {per_log[-1]:.1f}; q(a)/(log a)² is "
        f"{numbers}.",
        printed="The mask eʷ gives a log-sum type of regularization (Lemma 2.1).",
        corrected="A ridge near 0, q(a) = a² − a⁴ + …, with a tail like (log a)²; there is no dead zone at 0.",
    )


def _theorem(q: Any) -> list[Finding]:
    """Theorem 1.1 for this q: L = ||b - c||^2 / 2, c = (2, 1), lam = 1.2, where the group lasso is (0.8, 0)."""
    c, lam = np.array([2.0, 1.0]), 1.2
    penalty = Composite(q, Groups.equal(2, 1, weights="ones"), lam=lam)
    value = lambda b: 0.5 * float(((b - c) ** 2).sum()) + penalty.value(b)  # noqa: E731
    best, step = np.array([1.0, 0.5]), 0.5
    while step > 1e-9:  # pattern search: values only
        tries = [best + step * np.array(d) for d in ((1, 0), (-1, 0), (0, 1), (0, -1))]
        least = min((x for x in tries if x.min() >= 0.0), key=value)
        best, step = (least, step) if value(least) < value(best) else (best, 0.5 * step)
    claimed = value(np.array([0.8, 0.0]))
    return [
        control(
            "Theorem 1.1 with the q of Lemma 2.1: the unique group-lasso minimiser (0.8, 0) minimises (1)",
            claimed - value(best),
            0.1,
            f"L(b) = ‖b − (2, 1)‖²/2, λ = 1.2: F(0.8, 0) = {claimed:.6f}, but F({best[0]:.6f}, {best[1]:.6f}) = "
            f"{value(best):.6f}.",
            printed="Theorem 1.1 covers the regularizers of Section 2, that of Lemma 2.1 among them.",
            corrected="That q is not subadditive: q(1) + q(1) < q(2). The theorem holds for q strictly increasing and "
            "subadditive with q(0) = 0, so for the mask eʷ − 1 and for the q of Lemmas 2.2 and 2.3.",
        )
    ]


def _digits(ball: Any, digits: int = _DIGITS) -> str:
    return str(ball.str(digits, radius=False))


def figure(evidence: Evidence) -> Any:
    """q with its concave envelope, and q' with its maximum."""
    a, q, slope, envelope = evidence.series["curves"]
    a_c, a0 = evidence.series["marks"]
    drawing, (left, right) = axes(2)
    left.plot(a, envelope, color=COLOURS[1], linewidth=1.2, linestyle="--", label="concave envelope")
    left.plot(a, q, color=COLOURS[0], label="q")
    right.plot(a, slope, color=COLOURS[0], label="q'")
    for ax in (left, right):
        ax.set_xlim(0.0, 6.0)
        ax.set_ylim(0.0, 4.2 if ax is left else 1.05)
        ax.set_xlabel("norm a")
        for x, name in ((a_c, "$a_c$"), (a0, "$a_0$"), (math.e, "e")):
            ax.axvline(x, color="#888888", linewidth=0.8, linestyle=":")
            ax.text(x + 0.05, (4.2 if ax is left else 1.05) * 0.94, name, color=INK, fontsize=9)
        legend(ax, loc="lower right")
    return drawing


STATEMENT = Statement(
    name="lambertw_thresholds",
    number="Lemma 2.1",
    title="where the regularizer of the mask eʷ is subadditive",
    source="arXiv 2402.17902 v1, Lemma 2.1 and Theorem 1.1; the thresholds are an extension",
    text="""
For q(a) = w^2 + w with a = √w e^w:
    q is convex up to a_c = √(e/2) and concave beyond; q(a)/a is largest at a = e, where q(e) = 2.
    Σ q(a_i) < q(Σ a_i) whenever Σ a_i ≤ e and two a_i are positive.
    Σ q(a_i) ≥ q(Σ a_i) if all a_i ≥ a_0 = 1.9392…, the root of q(2a) = 2 q(a), and a_0 is the best such bound.
    sup [q(Σ a_i) − Σ q(a_i)] over m norms is m (log m)^2 / (4 (m − 1)).
So the hypothesis of Theorem 1.1 fails for this q, and so does its conclusion.
""",
    hypotheses={},
    check=check,
    figure=figure,
    caption="q is convex up to the first dotted line and meets its concave envelope at the last, e; q' is 0 at "
    "0, so no block becomes exactly zero.",
)
