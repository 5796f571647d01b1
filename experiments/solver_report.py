"""What the rows of `bench_solvers` say: tables of one race, ratios of all, geometric means.

    time        the fastest row of this project (either input type, any number of threads) over the fastest peer
                (likewise; covariance modes and float32 count)
    mcp, scad   the fastest row of this project over its own fastest group-lasso path, on the same problem and lams
    memory      peak of that row over that of the leanest peer that passed

Means are geometric and over `problems.CLASSES`; sgl, for which there is hardly a peer, is shown beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import exp, log
from typing import Any, NamedTuple

from sparseopt.console import columns
from sparseopt.experiments.peers import COMPETITORS
from sparseopt.experiments.problems import CLASSES
from sparseopt.experiments.race import Row

__all__ = ["CONCAVE", "GOALS", "Goal", "Ratio", "goals", "mean_ratio", "ratios", "read_rows", "summary", "table"]

CONCAVE = ("mcp", "scad")


def read_rows(stored: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Rows from JSON; of several for the same run the last counts."""
    rows = [Row(**each) for each in stored]
    known = {(row.problem, row.size, row.task, row.name, row.penalty, row.threads): row for row in rows}
    return list(known.values())


# -- one race ----------------------------------------------------------------------------------------------------------


def table(rows: Sequence[Row]) -> str:
    """One line per competitor and number of threads, fastest first; those that did not pass, and why, at the end."""
    passed = sorted((row for row in rows if row.status == "passed"), key=lambda row: row.seconds or 0.0)
    best = passed[0].seconds if passed else None
    heads = ("seconds", "ratio", "accuracy", "tol", "epochs", "cold s", "runs", "objective")
    lines: list[tuple[str, ...]] = [("", "thr", *heads, "1st-2nd s", "peak MB", "extra MB", "gap %", "check %")]
    remarks = [""]
    for row in [*passed, *(row for row in rows if row.status != "passed")]:
        ratio = row.seconds / best if row.status == "passed" and row.seconds and best else None
        extra = None if row.first is None or row.second is None else row.first - row.second
        cells = [_number(row.seconds, ".3g"), _number(ratio, ".2f"), _number(row.accuracy, ".0e")]
        cells += [_number(row.tol, ".0e"), _number(row.epochs, "d"), _number(row.cold, ".1f"), str(row.repeats or "-")]
        cells += [_number(row.objective, ".7g"), _number(extra, ".2f"), _number(row.peak, ".0f")]
        shares = (None if share is None else 100.0 * share for share in (row.gap, row.check))
        cells += [_number(row.extra, ".0f"), *(_number(share, ".1f") for share in shares)]
        lines.append((_label(row), str(row.threads), *cells))
        remarks.append("" if row.status == "passed" else row.status)
    aligned = columns(lines, indent="", left=1)
    return "\n".join(f"{line}  {remark}".rstrip() for line, remark in zip(aligned, remarks, strict=True))


def _label(row: Row) -> str:
    return row.name if row.penalty == row.task or row.task not in CONCAVE else f"{row.name} ({row.penalty})"


def _number(value: float | None, how: str) -> str:
    return "-" if value is None else format(value, how)


# -- ratios ------------------------------------------------------------------------------------------------------------


class Ratio(NamedTuple):
    """This project's fastest row of one task over what it is compared with; both None where there is none."""

    problem: str
    size: str
    task: str
    own: Row | None
    rival: Row | None
    time: float | None
    memory: float | None


def ratios(rows: Sequence[Row]) -> list[Ratio]:
    """One per problem, size and task, in the order of the rows."""
    found = []
    for problem, size, task in dict.fromkeys((row.problem, row.size, row.task) for row in rows):
        mine = [row for row in rows if (row.problem, row.size, row.task, row.status) == (problem, size, task, "passed")]
        own = _fastest(row for row in mine if _is_own(row) and row.penalty == _penalty(task))
        peers = [row for row in mine if not _is_own(row)]
        rival = _fastest(peers)
        if task in CONCAVE:
            rival = _fastest(row for row in mine if _is_own(row) and row.penalty == "l2")
        time = own.seconds / rival.seconds if own and rival and own.seconds and rival.seconds else None
        leanest = min((row.peak for row in peers if row.peak is not None), default=None)
        memory = own.peak / leanest if own and own.peak is not None and leanest else None
        found.append(Ratio(problem, size, task, own, rival, time, memory))
    return found


def mean_ratio(found: Sequence[Ratio], what: str = "time") -> float | None:
    """The geometric mean over `CLASSES` of "time" or "memory"; None if there is none.

    Examples
    --------
    >>> round(mean_ratio([Ratio("wide", "full", "path", None, None, x, None) for x in (0.5, 2.0)]), 12)
    1.0
    """
    known = [getattr(ratio, what) for ratio in found if ratio.problem in CLASSES]
    logs = [log(value) for value in known if value]
    return exp(sum(logs) / len(logs)) if logs else None


def _penalty(task: str) -> str:
    return task if task in CONCAVE else "l2"


def _is_own(row: Row) -> bool:
    return COMPETITORS[row.name].package == "sparseopt"


def _fastest(rows: Iterable[Row]) -> Row | None:
    return min((row for row in rows if row.seconds), key=lambda row: row.seconds or 0.0, default=None)


# -- goals -------------------------------------------------------------------------------------------------------------


class Goal(NamedTuple):
    """A bound of a figure: over all problems in question, what is to be at most `bound`, and `figure` of the rows."""

    words: str
    bound: float
    figure: Callable[[Sequence[Ratio]], float | None]


def _worst(task: str, what: Callable[[Ratio], float | None]) -> Callable[[Sequence[Ratio]], float | None]:
    def figure(found: Sequence[Ratio]) -> float | None:
        values = [what(each) for each in found if _kind(each.task) == task]
        return max((value for value in values if value is not None), default=None)

    return figure


def _mean(task: str) -> Callable[[Sequence[Ratio]], float | None]:
    return lambda found: mean_ratio([each for each in found if _kind(each.task) == task])


def _kind(task: str) -> str:
    return "single" if task.startswith("lambda_max/") else task


def _share(ratio: Ratio) -> float | None:
    return None if ratio.own is None else ratio.own.gap


def _later(ratio: Ratio) -> float | None:
    own = ratio.own
    return None if own is None or own.first is None or own.second is None else own.first - own.second


GOALS = (
    Goal("path: time over the fastest peer, worst class and size", 1.0, _worst("path", lambda each: each.time)),
    Goal("path: time over the fastest peer, geometric mean", 0.7, _mean("path")),
    Goal("one lam from zero: time over the fastest peer, geometric mean", 0.7, _mean("single")),
    Goal("path: share of the time for certified gaps, worst", 0.05, _worst("path", _share)),
    Goal("MCP: time over our own group-lasso path, worst", 1.3, _worst("mcp", lambda each: each.time)),
    Goal("SCAD: time over our own group-lasso path, worst", 1.3, _worst("scad", lambda each: each.time)),
    Goal("path: peak memory over the leanest peer, worst", 1.1, _worst("path", lambda each: each.memory)),
    Goal("path: first call in a second process minus second call, seconds, worst", 1.0, _worst("path", _later)),
)  # fmt: skip


def goals(rows: Sequence[Row]) -> list[tuple[str, float, float | None]]:
    """Words, bound and figure of every goal; the figure is None where nothing was measured."""
    found = ratios(rows)
    return [(goal.words, goal.bound, goal.figure(found)) for goal in GOALS]


def summary(rows: Sequence[Row]) -> str:
    """A line per problem, size and task, geometric means, and the goals.

    Examples
    --------
    >>> rows = [Row("dense", "path", "sparseopt", "passed", 2.0), Row("dense", "path", "adelie", "passed", 4.0)]
    >>> print(summary(rows).splitlines()[0])
    dense full path: sparseopt 0.50 x adelie (1 threads, 1 threads)
    """
    found = ratios(rows)
    lines = []
    for each in found:
        head = f"{each.problem} {each.size} {each.task}"
        if each.own is None or each.rival is None or each.time is None:
            lines.append(f"{head}: {'no peer passed' if each.own is not None else 'sparseopt did not pass'}")
            continue
        rival = f"{each.rival.name}{' (l2)' if each.task in CONCAVE else ''}"
        threads = f"({each.own.threads} threads, {each.rival.threads} threads)"
        memory = "" if each.memory is None else f", memory {each.memory:.2f}"
        lines.append(f"{head}: {each.own.name} {each.time:.2f} x {rival} {threads}{memory}")
    for size, task in dict.fromkeys((each.size, each.task) for each in found):
        mean = mean_ratio([each for each in found if (each.size, each.task) == (size, task)])
        lines += [] if mean is None else [f"geometric mean, {size} {task}: {mean:.2f}"]
    for words, bound, figure in goals(rows):
        state = "not measured" if figure is None else f"{figure:.2f}, {'reached' if figure <= bound else 'NOT reached'}"
        lines.append(f"{words} (at most {bound:g}): {state}")
    return "\n".join(lines)
