"""Solutions as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparseopt.cardinality import AtMost
from sparseopt.console import columns
from sparseopt.regularizers import REGULARIZERS
from sparseopt.selection import SubsetPath
from sparseopt.solution import Solution
from sparseopt.validation import CrossValidation

__all__ = [
    "describe_coefficients",
    "describe_regularizers",
    "describe_sizes",
    "describe_solution",
    "size_of",
]

_SHOWN = 40
_CHANGES = 6


def describe_solution(solution: Solution, chosen: str, units: str = "") -> list[str]:
    """What was chosen and how good it is, then the nonzero groups, largest first.

    Parameters
    ----------
    solution : Solution
    chosen : how lam, or k, was chosen, such as "BIC".
    units : what the norms are measured in, such as "standardised columns".
    """
    problem, groups = solution.problem, solution.problem.groups
    entries = np.count_nonzero(solution.w)
    gap = solution.gap
    null = problem.loss.null_intercept() if problem.intercept else np.zeros(problem.n_outputs)
    worst = problem.loss.value(np.tile(null, (problem.loss.n_samples, 1)))
    explained = f" ({1.0 - solution.loss / worst:.1%} of the deviance explained)" if worst > 0.0 else ""
    free = np.count_nonzero(problem.penalty.penalised[solution.support] == 0)
    subset = isinstance(problem.penalty, AtMost)
    accuracy = f"stationarity {solution.stationarity:.1e}"
    if gap is not None:
        accuracy = f"relative {'gap to the bound' if subset else 'duality gap'} {gap:.1e}"
    lines = [
        f"k {size_of(solution)}: {chosen}" if subset else f"lam {problem.lam:.6g}: {chosen}",
        f"{len(solution.support)} of {len(groups)} groups{f' ({free} always in)' if subset and free else ''}, "
        f"{entries} of {solution.w.size} coefficients",
        f"objective {solution.objective:.8g}, loss {solution.loss:.8g}{explained}",
        f"{accuracy} after {solution.epochs} {'steps' if subset else 'epochs'}. {solution.status.value}",
    ]
    order = solution.support[np.argsort(-solution.group_norms[solution.support], kind="stable")]
    if order.size:
        rows = [("group", "size", "nonzero", f"norm{units and f' ({units})'}")]
        for g in order[:_SHOWN]:
            nonzero = np.count_nonzero(solution.w[groups[int(g)]])
            rows.append((groups.names[g], str(groups.sizes[g]), str(nonzero), f"{solution.group_norms[g]:.5g}"))
        lines += ["", *columns(rows)]
        if order.size > _SHOWN:
            lines.append(f"  ... and {order.size - _SHOWN} more")
    return lines


def size_of(solution: Solution) -> int:
    """k of a solution with at most k groups."""
    penalty = solution.problem.penalty
    assert isinstance(penalty, AtMost)
    return penalty.k


def describe_sizes(found: SubsetPath | CrossValidation, rule: str, chosen: int) -> list[str]:
    """A table over k: the loss, what the rule compares, the gap if one is proved, and the groups that come and go."""
    path: Any = found.path if isinstance(found, CrossValidation) else found
    compared = found.mean if isinstance(found, CrossValidation) and rule in ("min", "1se") else path.criterion(rule)
    heading = ["k", "loss", {"min": "held-out loss", "1se": "held-out loss", "gap": "break"}.get(rule, rule.upper())]
    proved = not np.isnan(path.accuracy).all()
    names, counted = path.problem.groups.names, path.problem.penalty.penalised
    rows = [[*heading, "gap"] if proved else heading]
    changes = ["groups that come and go"]
    before: set[int] = set()
    for solution, value, gap in zip(path, compared, path.accuracy, strict=True):
        k = size_of(solution)
        row = [f"{k}{' *' if k == chosen else ''}", f"{solution.loss:.6g}", f"{value:.6g}" if value < np.inf else "-"]
        rows.append([*row, "-" if np.isnan(gap) else f"{gap:.1e}"] if proved else row)
        now = {int(g) for g in solution.support if counted[g]}
        moves = [f"+{names[g]}" for g in sorted(now - before)] + [f"-{names[g]}" for g in sorted(before - now)]
        more = f" and {len(moves) - _CHANGES} more" if len(moves) > _CHANGES else ""
        changes.append(" ".join(moves[:_CHANGES]) + more)
        before = now
    return [f"{line}  {change}".rstrip() for line, change in zip(columns(rows), changes, strict=True)]


def describe_coefficients(
    w: NDArray[np.float64], intercept: NDArray[np.float64], features: Sequence[str], outputs: Sequence[str]
) -> list[str]:
    """Intercepts and nonzero rows of w (p, K), one column per output."""
    kept = np.flatnonzero(w.any(axis=1))
    rows: list[tuple[str, ...]] = [("feature", *(outputs if len(outputs) > 1 else ["coefficient"]))]
    rows.append(("(intercept)", *(f"{b:.6g}" for b in intercept)))
    rows += [(features[int(j)], *(f"{v:.6g}" for v in w[j])) for j in kept]
    return columns(rows)


def describe_regularizers() -> list[str]:
    """The table of regularizers: formula, shape, and the hypotheses of the theorems."""
    rows: list[tuple[str, ...]] = [
        ("name", "default", "q'(0+)", "concavity", "ceiling", "increasing", "concave", "subadditive")
    ]
    for name, q in REGULARIZERS.items():
        answers = (q.increasing(), q.concave(), q.subadditive())
        numbers = (q.slope_at_zero(), q.weak_convexity(), q.ceiling())
        rows.append((name, str(q), *(f"{x:.4g}" for x in numbers), *("yes" if a else "no" for a in answers)))
    return columns(rows, indent="")
