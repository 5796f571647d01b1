"""Theorem H: a bound of the global optimum of separable penalties, from constrained group lassos.

With v(r) = min {L(w) : sum_g ||w_g|| <= r} and q nondecreasing, subadditive, q(0) = 0 (no inverse, no strictness: MCP,
SCAD, capped and l0 are allowed),

    min_w L(w) + lam sum_g q(||w_g||)  >=  min_{r >= 0} v(r) + lam q(r),

with equality if the constrained minimiser at the best r has one active group. v lies above the lines D_j - lam_j r of
dual values D_j of the group lasso at lam_j. Between neighbours of a grid of r such lines are largest on the right and a
nondecreasing q is smallest on the left, so the bound is rigorous for any q of the theorem.

Global optima: for orthonormal designs group by group, by the prox of q; in the plane by grids. v by CVXPY.
"""

from __future__ import annotations

import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparseopt import L0, MCP, SCAD, Capped, LambertW, LogSum, Power, Problem, TransformedL1
from sparseopt.certificates import Report, duality_gap, separable_bound
from sparseopt.certificates.verify import verify
from sparseopt.proofs_checks.evidence import Evidence, Finding, Statement, Verdict, control, holds, verified
from sparseopt.proofs_checks.figures import COLOURS, INK, axes, legend
from sparseopt.proofs_checks.instances import (
    lowest,
    plane_optimum,
    plane_squares,
    random_squares,
    separable,
    solved,
    squares,
    traced,
)
from sparseopt.proofs_checks.scalar_facts import decrease, is_admissible, subadditivity_defect

__all__ = ["STATEMENT"]

_COUNTS = {"small": 4, "medium": 80, "large": 800}
_STRENGTHS = 40
_TOLERANCE = 1e-9
Array = NDArray[np.float64]


def check(rng: np.random.Generator, size: str, regularizer: Any = None) -> Evidence:
    """The bound against optima in orthonormal designs and in the plane, certificates, v(r), and the controls."""
    findings: list[Finding] = []
    series: dict[str, Array] = {}
    easy = [_orthonormal(rng) for _ in range(_COUNTS[size])]
    planes = [plane_squares(rng) for _ in range(_COUNTS[size])]
    lines = {id(problem): _lines(problem) for problem in (*easy, *planes)}
    several: tuple[Any, ...] = (Power(0.5), LogSum(0.3), MCP(8.0), Capped(4.0), L0())
    several += (SCAD(3.0, 3.7), TransformedL1(1.0)) if size != "small" else ()
    for q in several if regularizer is None else (regularizer,):
        if not is_admissible(q):
            findings.append(_outside(q))
            continue
        rows = []
        for problem in easy:
            rows.append((_bound(q, problem.lam, *lines[id(problem)][:2]), _by_prox(problem, q), problem))
        for problem in planes:
            best = plane_optimum(problem, q, "separable")
            rows.append((_bound(q, problem.lam, *lines[id(problem)][:2]), best, problem))
        null = np.array([problem.value(np.zeros(problem.groups.n_features)) for *_, problem in rows])
        low, high = (np.array([row[i] for row in rows]) for i in (0, 1))
        series[repr(q)] = np.array([high / null, low / null])
        closed = int(np.count_nonzero(high - low <= 2e-3 * null))
        findings.append(holds(f"the bound lies below the optimum, {q!r}", (low - high) / null, _TOLERANCE,
                              f"Over L(0). It comes within 0.2% in {closed} of {len(rows)} instances."))  # fmt: skip
        findings += [_prox(q, easy[:2]), _equality(q, rng, 3 * _COUNTS[size])]
        if q.concave():
            findings += _certificates(q, rows[::2], lines)
    findings.append(_constrained(planes[:3], lines))
    if regularizer is None:
        findings += [_larger(rng, _COUNTS[size]), _weak(), *_lambertw()]
    return Evidence("separable_bound", tuple(findings), series)


def figure(evidence: Evidence) -> Any:
    """The bound against the global optimum."""
    drawing, (ax,) = axes(1, height=3.6)
    marks = ("o", "s", "^", "D", "v", "P", "X")
    colours = (*COLOURS, "#7f7f7f")
    for colour, mark, (name, values) in zip(colours, marks, evidence.series.items(), strict=False):
        ax.plot(values[0], values[1], mark, markersize=4, alpha=0.7, color=colour, label=name)
    ax.plot([0.0, 1.0], [0.0, 1.0], color=INK, linewidth=0.8)
    ax.set_xlabel("global optimum / L(0)")
    ax.set_ylabel("bound / L(0)")
    legend(ax, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return drawing


def _orthonormal(rng: np.random.Generator) -> Problem:
    """Five groups of two with orthonormal columns, and a lam."""
    X = np.linalg.qr(rng.normal(size=(14, 10)))[0]
    y = X @ (rng.normal(size=10) * rng.choice([0.3, 1.0, 3.0])) + 0.1 * rng.normal(size=14)
    return squares(X, y, 2, float(rng.uniform(0.1, 1.1) * np.abs(X.T @ y).max()))


def _lines(problem: Problem) -> tuple[Array, Array, Array]:
    """Strengths, dual values of the group lasso and dual points; strength 0 says that L >= 0."""
    along = traced(problem, n_lams=_STRENGTHS, ratio=1e-3, tol=1e-7)
    duals = [float(duality_gap(s.problem, s.w).numbers["dual"]) for s in along]
    points = np.stack([s.problem.loss.derivative(s.problem.predictor(s.w)) for s in along])
    return np.append(along.lams, 0.0), np.append(duals, 0.0), points


def _bound(q: Any, lam: float, strengths: Array, duals: Array) -> float:
    """min over r of the largest line plus lam q(r), from below: see the top of this file."""
    # Beyond the last breakpoint the sum does not fall any more.
    last = float(np.max((duals[:-1] - duals[-1]) / strengths[:-1]))
    r = np.concatenate([[0.0], np.geomspace(1e-8 * last, last, 1500), np.linspace(0.0, last, 6000)[1:-1]])
    r.sort()
    high = np.max(duals[:, None] - strengths[:, None] * r[None, 1:], axis=0)
    return float(min((high + lam * q.value(r[:-1])).min(), lam * float(q.value(last))))


def _by_prox(problem: Problem, q: Any) -> float:
    """The optimum for orthonormal columns: every group on its own, at prox_{lam q}(||X_g'y||)."""
    pulls = problem.groups.norms(problem.gradient(np.zeros(problem.groups.n_features))[0])
    a = np.asarray(q.prox(pulls, np.full_like(pulls, problem.lam)))
    null = problem.value(np.zeros(problem.groups.n_features))
    return null + float((0.5 * a**2 - a * pulls + problem.lam * q.value(a)).sum())


def _prox(q: Any, problems: list[Problem]) -> Finding:
    """The objective at the prox of every group against that of a grid."""
    above = []
    for problem in problems:
        pulls = problem.groups.norms(problem.gradient(np.zeros(problem.groups.n_features))[0])
        for pull, a in zip(pulls, np.asarray(q.prox(pulls, np.full_like(pulls, problem.lam))), strict=True):

            def F(a: Any, b: Any = 0.0, pull: float = float(pull), lam: float = problem.lam) -> Any:
                return 0.5 * (a - pull) ** 2 + lam * q.value(a) + b

            above.append(float(F(a)) / float(pull) ** 2 - lowest(F, 1.1 * float(pull))[0] / float(pull) ** 2)
    return holds(
        f"the prox, which gives the optimum for orthonormal columns, is that of a grid, {q!r}", above, _TOLERANCE
    )


def _equality(q: Any, rng: np.random.Generator, count: int) -> Finding:
    """L = ||w - c||^2 / 2 in the plane, where v(r) is known: equality where the best r has one active group."""
    apart = []
    for _ in range(count):
        low, high = np.sort(10.0 ** rng.uniform(-1.0, 1.0, 2))
        lam = float(rng.uniform(0.1, 1.0) * high)

        def bound(r: Any, b: Any, low: float = low, high: float = high, lam: float = lam) -> Any:
            one = 0.5 * (high - r) ** 2 + 0.5 * low**2
            both = 0.25 * np.maximum(low + high - r, 0.0) ** 2
            return np.where(r <= high - low, one, both) + lam * q.value(r) + 0.0 * b

        value, r, _ = lowest(bound, 1.1 * (low + high))
        if r < (high - low) * (1.0 - 1e-6):
            a = np.asarray(q.prox(np.array([low, high]), np.array([lam, lam])))
            best = float((0.5 * (a - [low, high]) ** 2 + lam * q.value(a)).sum())
            apart.append(abs(best - value) / (0.5 * (low**2 + high**2)))
    expected = Verdict.HOLDS if apart else Verdict.NOT_APPLICABLE
    return holds(f"it is attained if the constrained minimiser at the best r has one active group, {q!r}", apart, 1e-8,
                 f"Two features, v(r) in closed form; {len(apart)} of {count} random c and lam.",
                 expected=expected)  # fmt: skip


def _certificates(q: Any, rows: list[Any], lines: dict[int, Any]) -> list[Finding]:
    """What the certificate claims from the same dual points, and its file."""
    above, apart, refused = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for at, (low, best, problem) in enumerate(rows):
            w, null = np.zeros(problem.groups.n_features), problem.value(np.zeros(problem.groups.n_features))
            strengths, _, points = lines[id(problem)]
            certificate = separable_bound(separable(problem, q), w, strengths=strengths[:-1], A=points)
            claimed = float(certificate.numbers["dual"])
            above.append((claimed - best) / null)
            apart.append((low - claimed) / null)
            if at < 2:
                file = Path(folder) / "bound.json"
                Report(separable(problem, q), w, 0.0, (certificate,)).save(file)
                verification = verify(file)
                refused += [] if verification else [verification.claims[0].sentence]
    return [
        holds(f"certificates.separable_bound lies below the optimum, and not below this bound, {q!r}",
              np.maximum(above, apart), _TOLERANCE, "Over L(0)."),
        verified(f"its claims are verified in ball arithmetic, {q!r}", refused, min(2, len(rows))),
    ]  # fmt: skip


def _constrained(problems: list[Problem], lines: dict[int, Any]) -> Finding:
    """v(r) by CVXPY, against the lines."""
    cp: Any = import_module("cvxpy")

    above = []
    for problem in problems:
        strengths, duals, _ = lines[id(problem)]
        X, y, null = problem.design.matvec(np.eye(2)), problem.loss.y[:, 0], problem.value(np.zeros(2))
        top = float(np.abs(np.linalg.lstsq(X, y, rcond=None)[0]).sum())
        w = cp.Variable(2)
        radius = cp.Parameter(nonneg=True)
        program = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(X @ w - y)), [cp.norm1(w) <= radius])
        for share in (0.2, 0.7):
            radius.value = share * top
            v = program.solve(solver="CLARABEL", tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12)
            above.append((float(np.max(duals - strengths * radius.value)) - float(v)) / null)
    return holds("the lines D_j - lam_j r lie below v(r), by CVXPY", above, _TOLERANCE,
                 f"Over L(0); they come within {-min(above):.1g} of it.")  # fmt: skip


def _larger(rng: np.random.Generator, count: int) -> Finding:
    """4 to 8 correlated groups: block descent from random starts, against the bound."""
    above = []
    for _ in range(count):
        problem = random_squares(rng)
        strengths, duals, _ = _lines(problem)
        problem = problem.at(float(rng.uniform(0.1, 0.9)) * float(strengths[0]))
        scale = problem.value(np.zeros(problem.groups.n_features))
        for q in (Power(0.5), LogSum(0.3), MCP(2.0)):
            at = separable(problem, q)
            starts = [np.zeros(problem.groups.n_features), *rng.normal(size=(4, problem.groups.n_features))]
            best = min(at.value(solved(at, (start, 0.0), tol=1e-8).w) for start in starts)
            above.append((_bound(q, problem.lam, strengths, duals) - best) / scale)
    return holds("no start of block descent ends below the bound, 4 to 8 groups", above, _TOLERANCE,
                 f"Over L(0), five starts, three q; the bound comes within {-max(above):.1g}.")  # fmt: skip


def _weak() -> Finding:
    """c = (3, 1/2), MCP(2), lam = 1: the minimiser has one group, and the bound does not reach it."""
    problem = squares(np.eye(2), [3.0, 0.5])
    best, low = _by_prox(problem, MCP(2.0)), _bound(MCP(2.0), 1.0, *_lines(problem)[:2])
    return control(
        "the bound is attained wherever the minimiser of the separable problem has one active group",
        best - low,
        0.125 - 1e-6,
        f"c = (3, 1/2), q = MCP(2), lam = 1: the optimum is {best:.6g} at (3, 0), the bound {low:.4f}. The constrained "
        "group lasso at the best r has to have one active group, not the minimiser.",
    )


def _lambertw() -> list[Finding]:
    """A superadditive q: the formula exceeds the optimum; the certificate says that it does not apply."""
    q, problem = LambertW(), squares(np.eye(2), [1.0, 1.0])
    best, low = _by_prox(problem, q), _bound(q, 1.0, *_lines(problem)[:2])
    verdict = separable_bound(separable(problem, q), np.zeros(2)).verdict
    return [
        control("the same bound for the q of Lemma 2.1 (Lambert-W)", low - best, 1e-2,
                f"c = (1, 1), lam = 1: the optimum is {best:.6f}, the formula gives {low:.6f}."),
        holds("certificates.separable_bound does not apply to it", float(verdict.name != "NOT_APPLICABLE"), 0.0),
    ]  # fmt: skip


def _outside(q: Any) -> Finding:
    """A q that decreases or is not subadditive: an instance with c = s (1, 1) that breaks the bound, or none."""
    fall, at = decrease(q)
    excess, a, b = subadditivity_defect(q)
    reason = f"q decreases near a = {at:.4g}" if fall > 1e-10 else (
        f"q(a + b) > q(a) + q(b) at a = {a:.4g}, b = {b:.4g}" if excess > 1e-10 else "q(0) is not 0")  # fmt: skip
    claim, worst = f"the bound lies below the optimum, {q!r}", (0.0, "")
    for scale in np.geomspace(1e-3, 1e3, 25):
        for share in (0.3, 1.0):
            lam, c = share * float(scale), float(scale)

            def F(a: Any, b: Any, c: float = c, lam: float = lam) -> Any:
                return 0.5 * (a - c) ** 2 + lam * q.value(a) + 0.0 * b

            best = 2.0 * lowest(F, 1.2 * c, 61)[0]
            r = np.linspace(0.0, 2.0 * c, 4001)
            low = float(((c - 0.5 * r) ** 2 + lam * q.value(r)).min())
            if (low - best) / c**2 > worst[0]:
                worst = ((low - best) / c**2, f"c = {c:.4g} (1, 1), lam = {lam:.4g}: {low:.8g} is above {best:.8g}")
    if worst[0] <= 1e-6:
        return Finding(claim, Verdict.NOT_APPLICABLE, Verdict.NOT_APPLICABLE, 0, detail=f"Not applicable: {reason}.")
    return control(claim, worst[0], 1e-6, f"It does not apply: {reason}. Counterexample: {worst[1]}.")


STATEMENT = Statement(
    name="separable_bound",
    number="extension",
    title="a bound of the global optimum of separable penalties",
    source="this package",
    text="""
Let q be nondecreasing and subadditive with q(0) = 0, and v(r) = min { L(w) : Σ_g ‖w_g‖ ≤ r }. Then
    min_w L(w) + λ Σ_g q(‖w_g‖)  ≥  min_{r ≥ 0} v(r) + λ q(r),
with equality if a constrained minimiser with sum of norms r° has at most one active group, r° the best r; it is then a
global minimiser of the separable problem. The right side needs convex problems only.
""",
    hypotheses={
        "q is nondecreasing and q(0) = 0": lambda q: decrease(q)[0] <= 1e-10 and float(q.value(0.0)) == 0.0,
        "q is subadditive": lambda q: subadditivity_defect(q)[0] <= 1e-10,
    },
    check=check,
    figure=figure,
    caption="The bound is never above the global optimum (the diagonal), and often meets it.",
    takes_regularizer=True,
)
