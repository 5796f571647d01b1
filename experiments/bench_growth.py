"""How the time of a path grows with the size of a problem.

    python -m sparseopt.experiments.bench_growth                                   every direction: some minutes
    python -m sparseopt.experiments.bench_growth --directions n groups --json growth.json --figure growth.png
    python -m sparseopt.experiments.bench_growth --quick                           a tenth of the sizes: seconds
    python -m sparseopt.experiments.bench_growth --work                            counts of work instead of times

Group-lasso paths of `simulated` problems, ten active groups of one norm, signal-to-noise ratio 5, from lam_max to a
fifth of it, where those groups are most of the support. In each direction one thing grows and the others stay; for p
the paths end at half of lam_max, because beyond it the support grows as well, by groups whose many features fit noise:

    n         samples: 1,000 to 16,000, with 400 groups of 5
    p         features: 800 to 25,600 in 400 groups, which grow with them, with 1,000 samples
    groups    groups of 5, and so features: 300 to 10,000, with 1,000 samples
    size      features per group: 2 to 64, with 6,400 features and 500 samples
    density   share of nonzero entries of a sparse X: 0.2 to 10 %, with 5,000 samples and 2,000 groups of 5
    lams      values of lam: 10 to 1,000, on one problem

Time is the median of several paths, kernels compiled; epochs are sweeps over working sets. The exponent is the slope of
log time over log size, by least squares, and the last step the one between the two largest sizes alone. With --work it
counts what small paths of every class cost, see `work`: the same numbers on every machine.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from sparseopt import Groups, Problem, lam_max, path
from sparseopt.datasets import simulated
from sparseopt.experiments import work
from sparseopt.experiments.bench_solvers import environment
from sparseopt.experiments.growth_report import Row, draw, table

__all__ = ["DIRECTIONS", "main", "measured"]


@dataclass(frozen=True)
class Direction:
    """What grows: sizes, those of --quick, a problem and the number of its lams for each, the last lam over lam_max."""

    sizes: tuple[float, ...]
    quick: tuple[float, ...]
    make: Callable[[float], tuple[dict[str, Any], int]]
    end: float = 0.2


DIRECTIONS = {
    "n": Direction(
        (1000, 2000, 4000, 8000, 16000), (100, 200, 400), lambda x: ({"n": int(x), "n_groups": 400, "size": 5}, 50)
    ),
    "p": Direction(
        (800, 1600, 3200, 6400, 12800, 25600),
        (400, 800),
        lambda x: ({"n": 1000, "n_groups": 400, "size": int(x) // 400}, 50),
        end=0.5,
    ),
    "groups": Direction(
        (300, 1000, 3000, 10000), (30, 100, 300), lambda x: ({"n": 1000, "n_groups": int(x), "size": 5}, 50)
    ),
    "size": Direction(
        (2, 4, 8, 16, 32, 64), (2, 4, 8), lambda x: ({"n": 500, "n_groups": 6400 // int(x), "size": int(x)}, 50)
    ),
    "density": Direction(
        (0.002, 0.006, 0.02, 0.06, 0.1),
        (0.02, 0.06),
        lambda x: ({"n": 5000, "n_groups": 2000, "size": 5, "density": x}, 50),
    ),
    "lams": Direction((10, 30, 100, 300, 1000), (10, 30), lambda x: ({"n": 1000, "n_groups": 400, "size": 5}, int(x))),
}


def measured(direction: str, size: float, repeats: int, tol: float) -> Row:
    """The median time of a path in one direction at one size."""
    how, n_lams = DIRECTIONS[direction].make(size)
    made = simulated(active=10, snr=5.0, equal_norms=True, **how)
    problem = Problem.build(made.X, made.y, Groups.from_labels(made.groups), intercept=False)
    lams = lam_max(problem) * np.geomspace(1.0, DIRECTIONS[direction].end, n_lams)
    path(problem, lams, tol=tol, progress=False)  # compiled, and the data near
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        found = path(problem, lams, tol=tol, progress=False)
        seconds.append(time.perf_counter() - began)
    return Row(direction, size, median(seconds), int(found.epochs.sum()), int(found.n_active[-1]))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, write what was asked for."""
    options = _parser().parse_args(arguments)
    if options.work:
        print("\n".join(work.table({name: work.counted(make()) for name, make in work.CASES.items()})))
        return 0
    rows = []
    for direction in options.directions:
        chosen = DIRECTIONS[direction]
        rows += [
            measured(direction, x, options.repeats, options.tol)
            for x in (chosen.quick if options.quick else chosen.sizes)
        ]
    print("\n".join(table(rows)))
    if options.json is not None:
        result = {"environment": environment([], 1), "tol": options.tol, "rows": [asdict(row) for row in rows]}
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if options.figure is not None:
        draw(rows, options.figure)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sparseopt.experiments.bench_growth",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--directions", nargs="+", choices=DIRECTIONS, default=list(DIRECTIONS), metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="smaller sizes")
    parser.add_argument("--work", action="store_true", help="count work on small problems of every class instead")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="paths per size (3)")
    parser.add_argument("--tol", type=float, default=1e-4, metavar="GAP", help="relative gap at every lam (1e-4)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--figure", type=Path, metavar="FILE")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
