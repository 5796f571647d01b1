"""What a path costs in work instead of time: the same counts on every machine, up to rounding.

    epochs     sweeps over working sets, as the path reports them
    passes     products X'A with all of X
    columns    columns multiplied one group at a time, where the bounds of `solvers.gradients` decide too little
    screened   columns of the working sets that were swept over, summed over the sets
    flops      2 v (p passes + columns) + 4 v (screened + nonzero columns of every further sweep), v = K n or the K
               nonzero entries that an average column has: a sweep reads a column for its gradient and for its step

They are counted from outside, by wrapping `rmatvec` of the designs, `Gradients._above` and `Iterate.minimise`: the
library has no counters. A path that takes many more of them than it did is a regression, whatever the machine's speed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from sparseopt import Groups, Problem, lam_max, path
from sparseopt.console import columns
from sparseopt.designs import Csc, Dense
from sparseopt.experiments.problems import PROBLEMS, make
from sparseopt.solvers.gradients import Gradients
from sparseopt.solvers.iterate import Iterate

__all__ = ["CASES", "Work", "counted", "counting", "table"]

LAMS = 30


class Work(NamedTuple):
    """See the top of this file; flops in millions."""

    epochs: int
    passes: int
    columns: int
    screened: int
    flops: float

    def beyond(self, bound: Work, headroom: float) -> list[str]:
        """The counts that exceed those of `bound` by more than a share `headroom`; the first two also by more than two.

        >>> Work(100, 10, 0, 0, 1.0).beyond(Work(80, 9, 0, 0, 1.0), 0.15)
        ['epochs 100 > 80']
        """
        both = zip(self._fields, self, bound, strict=True)
        few = ("epochs", "passes")  # small numbers, of which one more is a large share
        return [f"{name} {x:g} > {y:g}" for name, x, y in both if x > max((1.0 + headroom) * y, y + 2 * (name in few))]


def counted(problem: Problem, ratio: float = 0.05, tol: float = 1e-4) -> Work:
    """The work of a path of 30 lams."""
    lams = lam_max(problem) * np.geomspace(1.0, ratio, LAMS)
    with counting() as counts:
        found = path(problem, lams, tol=tol, progress=False)
    rest = counts["passes"], counts["columns"], counts["screened"], float(counts["flops"]) / 1e6
    return Work(int(found.epochs.sum()), *rest)


@contextmanager
def counting() -> Iterator[dict[str, Any]]:
    """Inside, all paths of the process are counted: passes, columns, screened and flops, see the top of this file."""
    counts: dict[str, Any] = {"passes": 0, "columns": 0, "screened": 0, "flops": 0.0}
    before = (Dense.rmatvec, Csc.rmatvec, Gradients._above, Iterate.minimise)

    def product(rmatvec: Any) -> Callable[..., Any]:
        def rmatvec_(design: Any, R: Any) -> Any:
            counts["passes"] += 1
            counts["flops"] += 2.0 * np.shape(R)[1] * _values(design) * design.shape[1]
            return rmatvec(design, R)

        return rmatvec_

    def above(self: Gradients, threshold: Any, mu: float) -> Any:
        undecided = self.slack > 0.0
        out = before[2](self, threshold, mu)
        touched = int(self.groups.sizes[undecided & (self.slack == 0.0)].sum())
        counts["columns"] += touched
        counts["flops"] += 2.0 * len(self.rows) * _values(self.design) * touched
        return out

    def minimise(self: Iterate, ids: Any, goal: float, budget: int) -> int:
        swept = int(self.groups.sizes[ids].sum())
        spent = before[3](self, ids, goal, budget)
        nonzero = np.count_nonzero(self.W.any(axis=1))
        counts["screened"] += swept
        counts["flops"] += 4.0 * self.W.shape[1] * _values(self.design) * (swept + (spent - 1) * nonzero)
        return spent

    Dense.rmatvec, Csc.rmatvec = product(before[0]), product(before[1])  # type: ignore[method-assign]
    Gradients._above, Iterate.minimise = above, minimise  # type: ignore[method-assign]
    try:
        yield counts
    finally:
        Dense.rmatvec, Csc.rmatvec, Gradients._above, Iterate.minimise = before  # type: ignore[method-assign]


def _values(design: Any) -> float:
    """Values of an average column."""
    return design.shape[0] if isinstance(design, Dense) else len(design.data) / design.shape[1]


def _case(name: str, penalty: str = "l2", **how: Any) -> Callable[[], Problem]:
    def build() -> Problem:
        made = make(name, "quick")
        groups = Groups.from_sizes(made.sizes)
        options: dict[str, Any] = {"loss": made.loss, "l1_ratio": made.l1_ratio, "penalty": penalty} | how
        return Problem.build(made.X, made.y, groups, **options)

    return build


CASES: dict[str, Callable[[], Problem]] = {
    **{name: _case(name, intercept=False) for name in PROBLEMS},
    "dense, intercept": _case("dense"),
    "logistic, intercept": _case("logistic"),
    "dense, mcp": _case("dense", "mcp", intercept=False),
    "dense, scad": _case("dense", "scad", intercept=False),
    "multitask, mcp": _case("multitask", "mcp", intercept=False),
}


def table(found: Mapping[str, Work]) -> list[str]:
    """A line per case."""
    rows = [(name, *(f"{x:d}" for x in work[:4]), f"{work.flops:.4g}") for name, work in found.items()]
    return columns([("", *Work._fields[:4], "Mflops"), *rows], indent="", left=1)
