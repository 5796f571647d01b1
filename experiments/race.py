"""A race of solvers to one accuracy.

Every answer is judged by `judging`, from no competitor. Convex: it passes if (P - D*) / D* <= 1e-6 at every lam, with P
its objective and D* the best lower bound that any answer of the run gave. Group MCP and SCAD: it passes if no group is
further than 0.005 lam omega_g from stationary. Then

    tolerance   the loosest power of ten that passes, since every package means something else by its tolerance
    time        the median of several runs at that tolerance, kernels compiled and called before; runs alternate
                (A B C A B C), so that a slow minute of the machine slows all
    cold        from the start of the process to the first answer to a small problem

Every competitor has a process of its own for each number of threads, which is killed when its budget is spent.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparseopt.experiments.judging import Gaps, Judge, Judged
from sparseopt.experiments.peers import COMPETITORS
from sparseopt.experiments.processes import Answer, Failure, OverBudget

__all__ = ["Entrant", "Row", "race", "refreshed"]

Array = NDArray[np.float64]
LOOSEST = 1  # tolerances above 10^-1 mean nothing to a user


class Run(NamedTuple):
    """What one tolerance gave: seconds and epochs of the call, and what the judge keeps of it."""

    seconds: float
    epochs: int | None
    judged: Judged


@dataclass
class Entrant:
    """A competitor in one race: what it may spend, what it has tried, and how that ended.

    `like` is the same competitor with another number of threads: it has found the tolerance for both, if it passes.
    """

    name: str
    process: Any
    budget: float
    judge: Judge
    penalty: str = "l2"
    like: Entrant | None = None
    runs: dict[int, Run] = field(default_factory=dict)  # by power of ten of the tolerance
    times: list[float] = field(default_factory=list)
    spent: float = 0.0
    trouble: str = ""

    def next_decade(self) -> int | None:
        """Which tolerance 10^-k to try next, None if the loosest that passes is known or out of reach."""
        first, tightest = COMPETITORS[self.name].first, COMPETITORS[self.name].tightest
        known = self.like.chosen() if self.like is not None else None
        chosen = self.chosen()
        if self.trouble or (known is None and self.like is not None and not self.like.trouble):
            return None
        if not self.runs:
            return first if known is None else known
        if chosen is not None and known is not None:
            return None
        k = max(self.runs) + 1 if chosen is None else chosen - 1
        return k if LOOSEST <= k <= tightest and k not in self.runs else None

    def chosen(self) -> int | None:
        """The loosest tolerance tried that passes."""
        target, accuracy = self.judge.target, self.judge.accuracy
        return min((k for k, run in self.runs.items() if accuracy(run.judged) <= target), default=None)

    def ask(self, lams: Array, k: int, limit: float) -> Answer | None:
        """An answer, None if there was trouble."""
        try:
            answer: Answer = self.process.ask(lams, 10.0**-k, limit, self.penalty)
        except OverBudget:
            self.trouble = "over budget"
            return None
        except Failure as failure:
            self.trouble = f"failed: {failure}"
            return None
        self.spent += answer.seconds
        return answer


@dataclass(frozen=True)
class Row:
    """The outcome of one competitor: status is "passed", or says why it did not; the rest None where unknown.

    objective is the sum over lams; the last six are those of `serving.Fresh`.
    """

    problem: str
    task: str
    name: str
    status: str
    seconds: float | None = None
    repeats: int = 0
    accuracy: float | None = None
    tol: float | None = None
    epochs: int | None = None
    cold: float | None = None
    size: str = "full"
    threads: int = 1
    penalty: str = "l2"
    objective: float | None = None
    first: float | None = None
    second: float | None = None
    peak: float | None = None
    extra: float | None = None
    gap: float | None = None
    check: float | None = None


def race(task: str, lams: Array, entrants: Sequence[Entrant], repeats: int) -> list[Row]:
    """Find the tolerance of every entrant, then time all of them in turn.

    The search of an entrant and its timed runs share the budget; if nothing is left, the run of the search counts. A
    first run at a sharp tolerance of the first entrant that a judge has is free: it makes D* good from the start.
    """
    judges = {id(entrant.judge): entrant for entrant in reversed(entrants)}
    for entrant in judges.values():
        if not isinstance(entrant.judge, Gaps):
            continue
        sharp = entrant.ask(lams, COMPETITORS[entrant.name].sharp, entrant.budget)
        if sharp is not None:
            entrant.judge.see(sharp.W)
        entrant.spent, entrant.trouble = 0.0, ""
    busy = True
    while busy:  # a better bound from one entrant can let another one pass, so go round until nobody moves
        busy = False
        for entrant in entrants:
            while (k := entrant.next_decade()) is not None:
                busy = True
                answer = entrant.ask(lams, k, entrant.budget - entrant.spent)
                if answer is not None:
                    entrant.runs[k] = Run(answer.seconds, answer.epochs, entrant.judge.see(answer.W))
                    who = f"{entrant.name} {entrant.penalty}, {entrant.process.threads} threads"
                    _log(f"{who}, tol=1e-{k}: {answer.seconds:.3g} s")
    for entrant in judges.values():
        _log(entrant.judge.remark())
    for _ in range(repeats):
        for entrant in entrants:
            chosen = entrant.chosen()
            left = entrant.budget - entrant.spent
            if chosen is not None and entrant.runs[chosen].seconds <= left:
                answer = entrant.ask(lams, chosen, left)
                entrant.times += [] if answer is None else [answer.seconds]
    return [_row(task, entrant) for entrant in entrants]


def refreshed(rows: Sequence[Row], lams: Array, entrants: Sequence[Entrant]) -> list[Row]:
    """The rows of these entrants, those that passed with what a fresh process costs at their best number of threads."""
    best: dict[tuple[str, str], int] = {}
    for at, row in enumerate(rows):
        other = best.get((row.name, row.penalty))
        if row.status == "passed" and (other is None or (row.seconds or 0.0) < (rows[other].seconds or 0.0)):
            best[row.name, row.penalty] = at
    out = list(rows)
    for at in best.values():
        row, entrant = rows[at], entrants[at]
        try:
            costs = entrant.process.fresh(lams, row.tol, 4.0 * entrant.budget, row.penalty)
            out[at] = replace(row, **costs._asdict())
        except (OverBudget, Failure) as trouble:
            _log(f"{row.name} in a fresh process: {str(trouble) or 'over budget'}")
    return out


def _row(task: str, entrant: Entrant) -> Row:
    instance, k, accuracy = entrant.judge.instance, entrant.chosen(), entrant.judge.accuracy
    row = Row(
        instance.name, task, entrant.name, entrant.trouble or "not accurate", cold=entrant.process.cold,
        size=instance.size, threads=entrant.process.threads, penalty=entrant.penalty,
    )  # fmt: skip
    reached = {j: accuracy(run.judged) for j, run in entrant.runs.items()}
    if k is None:
        if not reached:
            return row
        k = min(reached, key=lambda j: reached[j])
    else:
        row = replace(row, status="passed")
    run, times = entrant.runs[k], entrant.times or [entrant.runs[k].seconds]
    return replace(
        row,
        seconds=float(np.median(times)),
        repeats=len(times),
        accuracy=reached[k],
        tol=10.0**-k,
        epochs=run.epochs,
        objective=float(run.judged.primal.sum()),
    )


def _log(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)
