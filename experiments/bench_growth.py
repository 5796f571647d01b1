"""How the time of a path grows with the size of a problem.

    python -m sparseopt.experiments.bench_growth                                   every direction: some minutes
    python -m sparseopt.experiments.bench_growth --directions n groups --json growth.json --figure growth.png
    python -m sparseopt.experiments.bench_growth --quick                           a tenth of the sizes: seconds

Group-lasso paths of `simulated` problems, ten active groups of one norm, signal-to-noise ratio 5, from lam_max to a
fifth of it, where those groups are most of the support. In each direction one thing grows and the others stay:

    n         samples: 1,000 to 16,000, with 400 groups of 5
    groups    groups of 5, and so features: 300 to 10,000, with 1,000 samples
    size      features per group: 2 to 64, with 6,400 features and 500 samples
    density   share of nonzero entries of a sparse X: 0.2 to 10 %, with 5,000 samples and 2,000 groups of 5
    lams      values of lam: 10 to 1,000, on one problem

Time is the median of several paths, kernels compiled; epochs are sweeps over working sets. The exponent is the slope of
log time over log size, by least squares, and the last step the one between the two largest sizes alone.
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
from numpy.typing import ArrayLike, NDArray

from sparseopt import Groups, Problem, lam_max, path
from sparseopt.console import columns
from sparseopt.datasets import simulated
from sparseopt.experiments.bench_solvers import environment

__all__ = ["DIRECTIONS", "Row", "exponent", "main", "measured", "table"]

END = 0.2  # the last lam over lam_max


@dataclass(frozen=True)
class Row:
    """One size in one direction: seconds of a path, its epochs, and the groups of its last solution."""

    direction: str
    size: float
    seconds: float
    epochs: int
    active: int


@dataclass(frozen=True)
class Direction:
    """What grows: sizes, those of --quick, and a problem with the number of its lams for each."""

    sizes: tuple[float, ...]
    quick: tuple[float, ...]
    make: Callable[[float], tuple[dict[str, Any], int]]


DIRECTIONS = {
    "n": Direction(
        (1000, 2000, 4000, 8000, 16000), (100, 200, 400), lambda x: ({"n": int(x), "n_groups": 400, "size": 5}, 50)
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


def exponent(sizes: ArrayLike, seconds: ArrayLike) -> float:
    """The slope of log seconds over log sizes.

    >>> round(exponent([1.0, 10.0, 100.0], [0.5, 5.0, 50.0]), 12)
    1.0
    """
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def measured(direction: str, size: float, repeats: int, tol: float) -> Row:
    """The median time of a path in one direction at one size."""
    how, n_lams = DIRECTIONS[direction].make(size)
    made = simulated(active=10, snr=5.0, equal_norms=True, **how)
    problem = Problem.build(made.X, made.y, Groups.from_labels(made.groups), intercept=False)
    lams = lam_max(problem) * np.geomspace(1.0, END, n_lams)
    path(problem, lams, tol=tol, progress=False)  # compiled, and the data near
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        found = path(problem, lams, tol=tol, progress=False)
        seconds.append(time.perf_counter() - began)
    return Row(direction, size, median(seconds), int(found.epochs.sum()), int(found.n_active[-1]))


def table(rows: Sequence[Row]) -> list[str]:
    """All sizes, and the exponent of every direction."""
    cells = [("direction", "size", "seconds", "epochs", "groups", "exponent", "last step")]
    for direction in dict.fromkeys(row.direction for row in rows):
        mine = [row for row in rows if row.direction == direction]
        sizes, seconds = [row.size for row in mine], [row.seconds for row in mine]
        for k, row in enumerate(mine):
            slopes = ("", "")
            if len(mine) > 1 and k == len(mine) - 1:
                slopes = f"{exponent(sizes, seconds):.2f}", f"{exponent(sizes[-2:], seconds[-2:]):.2f}"
            cells.append((direction, f"{row.size:g}", f"{row.seconds:.4f}", str(row.epochs), str(row.active), *slopes))
    return columns(cells, indent="", left=1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, write what was asked for."""
    options = _parser().parse_args(arguments)
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
        _draw(rows, options.figure)
    return 0


def _draw(rows: Sequence[Row], file: Path) -> None:
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row.direction for row in rows))
    figure = Figure(figsize=(3.0 * len(names), 3.0), layout="constrained")
    for place, name in enumerate(names):
        axes: Any = figure.add_subplot(1, len(names), place + 1)
        sizes = np.array([row.size for row in rows if row.direction == name])
        seconds: NDArray[np.float64] = np.array([row.seconds for row in rows if row.direction == name])
        axes.loglog(sizes, seconds, "o-", label="path")
        axes.loglog(sizes, seconds[0] * sizes / sizes[0], ":", color="grey", label="linear")
        axes.set_xlabel(name)
        axes.set_title(f"exponent {exponent(sizes, seconds):.2f}" if len(sizes) > 1 else name, fontsize=10)
        if not place:
            axes.set_ylabel("seconds")
            axes.legend(frameon=False)
    figure.savefig(file, dpi=130)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sparseopt.experiments.bench_growth",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--directions", nargs="+", choices=DIRECTIONS, default=list(DIRECTIONS), metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="smaller sizes")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="paths per size (3)")
    parser.add_argument("--tol", type=float, default=1e-4, metavar="GAP", help="relative gap at every lam (1e-4)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--figure", type=Path, metavar="FILE")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
