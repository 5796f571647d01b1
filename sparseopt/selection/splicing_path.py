"""Splicing along a path of sizes, for least squares: one `Sweep` walks up and down, nothing starts afresh.

Upwards each size starts from the choice before it, grown by the best groups. Downwards it starts from the choice after
it without the weakest members; where that is a choice at which a search of this size has ended before, there is nothing
to look for. The better of both is kept, and a size that is worse than the one before it starts again from there.
"""

from __future__ import annotations

import time
from typing import Any, TypeAlias

import numpy as np

from sparseopt.problem import Problem
from sparseopt.progress import shown
from sparseopt.selection.fit import Fit, refit
from sparseopt.selection.splicing import drop, improved, least_fall, splicing_limits, whole_pool
from sparseopt.selection.sweep import Dependent, Sweep
from sparseopt.solution import Status

__all__ = ["splicing_path"]

Choice: TypeAlias = frozenset[int]


def splicing_path(
    problem: Problem, sizes: list[int], both_ways: bool, progress: bool | None, exchange: int = 1, max_steps: int = 1000
) -> tuple[list[Fit], list[tuple[Status, int, float]]] | None:
    """The fits of increasing sizes, and of each status, steps and seconds.

    None where no sweep serves: for other losses, groups that need too much memory, and dependent columns.
    """
    exchange, max_steps = splicing_limits(exchange, max_steps)
    pool = whole_pool(problem, sizes[-1])
    if not problem.loss.is_quadratic or pool is None:
        return None
    null = refit(problem, [])
    try:
        sweep = Sweep(problem, pool, min(sizes[-1] + 1, len(pool)))
        walk = _Walk(problem, sweep, least_fall(null), exchange, max_steps)
        return walk.along(sizes, both_ways, progress)
    except Dependent:
        return None


class _Walk:
    """The sweep, and the choices at which searches of a size have ended."""

    def __init__(self, problem: Problem, sweep: Sweep, least: float, exchange: int, max_steps: int) -> None:
        self.problem, self.sweep, self.least = problem, sweep, least
        self.limits = exchange, max_steps
        self.ended: set[tuple[int, Choice | None]] = set()
        self.weaker: dict[Choice, Choice] = {}  # the choice without its weakest member

    def along(
        self, sizes: list[int], both_ways: bool, progress: Any
    ) -> tuple[list[Fit], list[tuple[Status, int, float]]]:
        fits, ends = [], []
        for k in shown(sizes, progress, len(sizes)):
            end = self.search(k)
            fits.append(self.sweep.fit())
            ends.append(end)
        if not both_ways:
            return fits, ends
        for at in range(len(fits) - 2, -1, -1):
            k, above = sizes[at], fits[at + 1].chosen
            if len(above) == k + 1 and (k, self.weaker.get(frozenset(above.tolist()))) in self.ended:
                continue
            self.sweep.move(above)
            drop(self.sweep, max(len(above) - k, 0))
            if (k, frozenset(self.sweep.members)) in self.ended:
                continue
            end = self.search(k)
            if self.sweep.value < fits[at].value + self.least:  # close by, the fits decide
                fit = self.sweep.fit()
                if fit.value < fits[at].value:
                    fits[at], ends[at] = fit, end
        for at in range(len(fits) - 1):
            if fits[at + 1].value > fits[at].value:
                self.sweep.move(fits[at].chosen)
                ends[at + 1] = self.search(sizes[at + 1])
                fits[at + 1] = self.sweep.fit()
        return fits, ends

    def search(self, k: int) -> tuple[Status, int, float]:
        """Exchanges among k groups, from where the sweep is: status, steps and seconds."""
        began = time.perf_counter()
        self.sweep, steps, done = improved(self.sweep, k, self.least, *self.limits)
        if done and self.sweep.members:
            choice = frozenset(self.sweep.members)
            self.ended.add((k, choice))  # of fewer than k groups, if more do not help
            self.weaker[choice] = choice - {self.sweep.members[int(np.argmin(self.sweep.losses()))]}
        return Status.LOCAL if done else Status.MAX_EPOCHS, steps, time.perf_counter() - began
