"""SequentialAttention++ against the other methods, cell by cell, on the same seeds.

    d_i = metric of SequentialAttention++ - metric of the other,  seed i;      mean of d, its standard error s, mean / s

Only runs with the same examples, network, budget of training and layers are compared; what each method may choose for
itself (rates, decay, schedule, settings of its own) may differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from sparseopt.experiments.tables.cells import OURS, Cell, Group, Grouped
from sparseopt.experiments.tables.estimates import Estimate, paired

__all__ = ["Comparison", "Verdict", "comparisons", "differing", "unfair", "verdict"]

# What both methods must have had the same.
_SAME = (
    "task",
    "facts",
    "data",
    "model",
    "hardware.precision",
    "training.epochs",
    "training.steps",
    "training.batch",
    "training.accumulate",
    "training.label_smoothing",
    "training.ema",
    "training.recalibrate",
    "pruning.include",
    "pruning.exclude",
    "pruning.min_blocks",
    "pruning.budget",
)
ENOUGH = 2.0  # standard errors


class Comparison(NamedTuple):
    """One group of SequentialAttention++ and one of another row, at the same blocks and sparsity.

    `why` says what forbids the comparison; the difference then has no runs.
    """

    cell: Cell
    other: str
    difference: Estimate
    alone: int  # seeds that only one of them has finished
    why: str


def differing(settings: Iterable[Mapping[str, Any]]) -> list[str]:
    """The keys on which some of several settings differ.

    >>> differing([{"a": 1, "b": 2}, {"a": 1, "b": 3}, {"a": 1}])
    ['b']
    """
    given = list(settings)
    keys = sorted({key for each in given for key in each})
    return [key for key in keys if any(each.get(key) != given[0].get(key) for each in given)]


def unfair(a: Group, b: Group) -> list[str]:
    """The settings on which two groups would have to agree, and do not."""
    keys = differing([a.settings, b.settings])
    return [key for key in keys if any(key == same or key.startswith(same + ".") for same in _SAME)]


def comparisons(data: Grouped, others: Iterable[str], ours: str = OURS) -> list[Comparison]:
    """All pairs of groups of `ours` and of one of `others` that share a cell but for the row."""
    found = []
    for cell, groups in sorted(data.cells.items(), key=_place):
        if cell.row != ours:
            continue
        for other in others:
            for a in groups:
                for b in data.cells.get(cell._replace(row=other), ()):
                    found.append(_compare(cell, other, a, b))
    return found


def _compare(cell: Cell, other: str, a: Group, b: Group) -> Comparison:
    keys = unfair(a, b)
    why = "; ".join(f"{key} {a.settings.get(key, '-')} against {b.settings.get(key, '-')}" for key in keys)
    difference = paired({} if keys else a.values, b.values)
    every = len({*a.values, *b.values, *a.diverged, *b.diverged})
    if not why and not difference.n:
        why = "no seed that both have finished"
    return Comparison(cell, other, difference, every - difference.n, why)


def _place(item: tuple[Cell, Any]) -> Any:
    cell = item[0]
    return (cell.sparsity or 0.0, cell.block or (0, 0), cell.row)


class Verdict(NamedTuple):
    """Counts of cells.

    Attributes
    ----------
    cells : where there is a comparison.
    whole : of these, with one for every method that was asked for.
    best : with the best mean of all.
    beyond : better than each of the others by more than two standard errors.
    worse : worse than one of the others by more than two.
    unclear : where a method has several groups; these are in no other count.
    """

    cells: int
    whole: int
    best: int
    beyond: int
    worse: int
    unclear: int


def verdict(found: Iterable[Comparison], smaller: bool, every: Iterable[str] = ()) -> Verdict:
    """Whether SequentialAttention++ is best, cell by cell; `every` names the methods to be compared with."""
    asked = set(every)
    by_cell: dict[Cell, list[Comparison]] = {}
    for each in found:
        by_cell.setdefault(each.cell, []).append(each)
    counts = dict.fromkeys(Verdict._fields, 0)
    for mine in by_cell.values():
        if len({each.other for each in mine}) < len(mine):
            counts["unclear"] += 1
            continue
        done = [each for each in mine if each.difference.n]
        if done:
            sign = -1.0 if smaller else 1.0
            counts["cells"] += 1
            counts["whole"] += asked <= {each.other for each in done}
            counts["best"] += all(sign * each.difference.mean > 0.0 for each in done)
            counts["beyond"] += all(sign * each.difference.ratio > ENOUGH for each in done)
            counts["worse"] += any(sign * each.difference.ratio < -ENOUGH for each in done)
    return Verdict(**counts)
