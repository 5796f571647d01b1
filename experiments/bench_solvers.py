"""Race this project against other packages on the same problems, in one run, to the same accuracy.

    python -m sparseopt.experiments.bench_solvers                        all problems, full size: about half an hour
    python -m sparseopt.experiments.bench_solvers --quick                a tenth of the samples and groups: minutes
    python -m sparseopt.experiments.bench_solvers --problems dense tall --peers sparseopt adelie --json results.json
    python -m sparseopt.experiments.bench_solvers --task single          one lam from zero instead of a path of 100

What counts as an answer, and how time is taken, is said in `race`. Packages that are not installed are listed as such;
`make bench` installs them in an environment of their own, because adelie needs NumPy 1.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from sparseopt.experiments.peers import COMPETITORS
from sparseopt.experiments.problems import PROBLEMS, lam_max, make
from sparseopt.experiments.race import Entrant, Process, Row, race

__all__ = ["environment", "main", "summary", "table"]

# -- what is printed ---------------------------------------------------------------------------------------------------


def table(rows: Sequence[Row]) -> str:
    """One line per competitor, fastest first; those that did not pass, and why, at the end."""
    passed = sorted((row for row in rows if row.status == "passed"), key=lambda row: row.seconds or 0.0)
    best = passed[0].seconds if passed else None
    lines = [("", "seconds", "ratio", "accuracy", "tol", "epochs", "cold s", "runs", "")]
    for row in [*passed, *(row for row in rows if row.status != "passed")]:
        ratio = f"{row.seconds / best:.2f}" if row.status == "passed" and row.seconds and best else "-"
        numbers = (_number(row.seconds, ".3g"), ratio, _number(row.accuracy, ".0e"), _number(row.tol, ".0e"))
        rest = (_number(row.epochs, "d"), _number(row.cold, ".1f"), str(row.repeats or "-"))
        lines.append((row.name, *numbers, *rest, "" if row.status == "passed" else row.status))
    widths = [max(len(line[i]) for line in lines) for i in range(8)]
    text = []
    for name, *cells, remark in lines:
        aligned = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        text.append("  ".join([name.ljust(widths[0]), *aligned, remark]).rstrip())
    return "\n".join(text)


def summary(rows: Sequence[Row]) -> str:
    """Per problem: the time of this project, with the faster of its two input types, over that of the fastest peer.

    Examples
    --------
    >>> rows = [Row("dense", "path", "sparseopt", "passed", 2.0), Row("dense", "path", "adelie", "passed", 4.0)]
    >>> print(summary(rows))
    dense path: sparseopt 0.50 x adelie (float64 0.50, float32 -)
    """
    lines = []
    for problem, task in dict.fromkeys((row.problem, row.task) for row in rows):
        times = {
            row.name: row.seconds
            for row in rows
            if (row.problem, row.task, row.status) == (problem, task, "passed") and row.seconds
        }
        own = [times.pop(name, None) for name in ("sparseopt", "sparseopt_f32")]
        peer = min(times, key=lambda name: times[name] or 0.0, default=None)
        if peer is None or own == [None, None]:
            lines.append(f"{problem} {task}: {'no peer passed' if peer is None else 'sparseopt did not pass'}")
            continue
        ratios = [None if seconds is None else seconds / times[peer] for seconds in own]
        best = min(ratio for ratio in ratios if ratio is not None)
        wide, short = (_number(ratio, ".2f") for ratio in ratios)
        lines.append(f"{problem} {task}: sparseopt {best:.2f} x {peer} (float64 {wide}, float32 {short})")
    return "\n".join(lines)


def environment(names: Sequence[str], threads: int) -> dict[str, Any]:
    """Versions and machine, for whoever reads the numbers later."""
    versions = {}
    for package in ("numpy", "scipy", "numba", *dict.fromkeys(COMPETITORS[name].package for name in names)):
        distribution = {"sklearn": "scikit-learn", "group_lasso": "group-lasso"}.get(package, package)
        try:
            versions[distribution] = version(distribution)
        except PackageNotFoundError:
            versions[distribution] = "not installed"
    system = {"python": platform.python_version(), "machine": platform.machine(), "cpus": os.cpu_count()}
    return {**system, "threads": threads, "versions": versions}


def _number(value: float | None, how: str) -> str:
    return "-" if value is None else format(value, how)


# -- the script --------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; see `--help`."""
    options = _parser().parse_args(arguments)
    print(json.dumps(environment(options.peers, options.threads)))
    rows: list[Row] = []
    for problem in options.problems:
        rows += _compare(problem, options)
    print(f"\ntime of sparseopt over that of the fastest peer\n{summary(rows)}")
    if options.json is not None:
        result = {"environment": environment(options.peers, options.threads), "rows": [asdict(row) for row in rows]}
        options.json.write_text(json.dumps(result, indent=1), encoding="utf-8")
    return 0


def _compare(problem: str, options: argparse.Namespace) -> list[Row]:
    """All tasks on one problem, printed and returned."""
    instance = make(problem, 1 if options.quick else 10)
    top, ratio = lam_max(instance), instance.ratio
    tasks = {"path": top * np.geomspace(1.0, ratio, 100)}
    if options.task == "single":
        tasks = {f"lambda_max/{share}": np.array([top / share]) for share in (10, 20)}
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        instance.save(Path(folder) / "full")
        make(problem, 1, seed=1).save(Path(folder) / "warm")
        able = [name for name in options.peers if problem in COMPETITORS[name].problems]
        able = [name for name in able if options.quick or name != "group-lasso"]  # minutes per lam at full size
        missing = [name for name in able if find_spec(COMPETITORS[name].package) is None]
        processes = [Process(name, Path(folder), options.threads) for name in able if name not in missing]
        try:
            for task, lams in tasks.items():
                X = instance.X
                print(f"\n{problem} {task}: X {X.shape[0]} x {X.shape[1]}, {len(instance.sizes)} groups", flush=True)
                entrants = [Entrant(process.name, process, options.budget) for process in processes]
                raced = race(instance, task, lams, entrants, options.repeats)
                raced += [Row(problem, task, name, "not installed") for name in missing]
                print(table(raced), flush=True)
                rows += raced
        finally:
            for process in processes:
                process.stop(patience=5.0)
    return rows


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sparseopt.experiments.bench_solvers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS), metavar="NAME", help=", ".join(PROBLEMS)
    )
    parser.add_argument(
        "--peers",
        nargs="+",
        choices=COMPETITORS,
        default=list(COMPETITORS),
        metavar="NAME",
        help=", ".join(COMPETITORS),
    )
    parser.add_argument("--task", choices=["path", "single"], default="path", help="100 lams, or lambda_max/10 and /20")
    parser.add_argument("--quick", action="store_true", help="a tenth of the samples and groups")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="timed runs (default 3)")
    parser.add_argument(
        "--budget",
        type=float,
        default=60.0,
        metavar="S",
        help="seconds of solving per competitor and table (default 60)",
    )
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads per competitor (default 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers to this file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
