"""Race this project against other packages on the same problems, in one run, to the same accuracy.

    python -m sparseopt.experiments.bench_solvers                        all problems, tasks and two sizes: hours
    python -m sparseopt.experiments.bench_solvers --quick                a tenth of the samples and groups: minutes
    python -m sparseopt.experiments.bench_solvers --problems dense tall --peers sparseopt adelie --tasks path
    python -m sparseopt.experiments.bench_solvers --threads 1 2 --json results.json --page results
    python -m sparseopt.experiments.bench_solvers --from results.json --growth growth.json --page results

Tasks:

    path        100 lams, each solved from where the one before ended (warm starts)
    single      one lam from zero (cold start): lambda_max/10 and lambda_max/20
    mcp, scad   paths of group MCP and SCAD, beside this project's group-lasso path on the same lams

What counts as an answer, and how time is taken, is said in `race`; first calls and memory in `serving`, what is made of
the numbers in `solver_report`. Every competitor runs with every number of threads, and its best one counts. Packages
that are not installed are listed as such; `make bench` installs them in an environment of their own, because adelie
needs NumPy 1. The file of --json is written anew after every problem, so that nothing is lost if a run is ended.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from sparseopt.experiments.judging import judge_of, lam_max
from sparseopt.experiments.peers import COMPETITORS
from sparseopt.experiments.problems import PROBLEMS, SIZES, Instance, make
from sparseopt.experiments.processes import Process
from sparseopt.experiments.race import Entrant, Row, race, refreshed
from sparseopt.experiments.solver_report import CONCAVE, read_rows, summary, table

__all__ = ["environment", "main"]

TASKS = ("path", "single", *CONCAVE)


def environment(names: Sequence[str], threads: int | Sequence[int]) -> dict[str, Any]:
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


def together(environments: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One environment for the numbers of several runs: all numbers of threads, and the versions of all packages.

    Examples
    --------
    >>> together([{"cpus": 2, "threads": [2], "versions": {"numpy": "2"}}, {"cpus": 2, "threads": 1, "versions": {}}])
    {'cpus': 2, 'threads': [1, 2], 'versions': {'numpy': '2'}}
    """
    threads: set[int] = set()
    versions: dict[str, str] = {}
    for each in environments:
        threads |= {each["threads"]} if isinstance(each["threads"], int) else set(each["threads"])
        for package, number in each["versions"].items():
            known = versions.setdefault(package, number)
            versions[package] = known if number in known.split(", ") else f"{known}, {number}"
    return {**environments[-1], "threads": sorted(threads), "versions": versions}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; see `--help`."""
    options = _parser().parse_args(arguments)
    if options.stored:
        parts = [json.loads(file.read_text(encoding="utf-8")) for file in options.stored]
        rows = read_rows(row for part in parts for row in part["rows"])
        about = together([part["environment"] for part in parts])
    else:
        rows, about = [], environment(options.peers, options.threads)
        print(json.dumps(about))
        for size in ["quick"] if options.quick else options.sizes:
            for problem in options.problems:
                for raced in _compare(problem, size, options):
                    print(table(raced), flush=True)
                    rows += raced
                _write(options.json, rows, about)
    print(f"\ntime of sparseopt over that of the fastest peer\n{summary(rows)}")
    _write(options.json, rows, about)
    if options.page is not None:
        from sparseopt.experiments.solver_page import write_page  # needs matplotlib

        growth, selection = (
            None if file is None else json.loads(file.read_text(encoding="utf-8"))
            for file in (options.growth, options.selection)
        )
        notes = "" if options.notes is None else options.notes.read_text(encoding="utf-8")
        print(f"wrote {write_page(options.page, rows, about, growth, selection, notes)}")
    return 0


def _write(file: Path | None, rows: Sequence[Row], about: dict[str, Any]) -> None:
    if file is not None:
        text = json.dumps({"environment": about, "rows": [asdict(row) for row in rows]}, indent=1)
        file.write_text(text + "\n", encoding="utf-8")


def _compare(problem: str, size: str, options: argparse.Namespace) -> Iterator[list[Row]]:
    """The rows of every task on one problem."""
    instance = make(problem, size)
    tasks = dict(_tasks(instance, options.tasks))
    names = [name for name in options.peers if problem in COMPETITORS[name].problems]
    missing = {name for name in names if find_spec(COMPETITORS[name].package) is None}
    refusals = {name: COMPETITORS[name].refusal(instance) for name in names}
    refusals |= dict.fromkeys(missing, "not installed")
    with tempfile.TemporaryDirectory() as folder:
        instance.save(Path(folder) / "full")
        make(problem, "quick", seed=1).save(Path(folder) / "warm")
        able = [name for name in names if not refusals[name]]
        processes = {(name, n): Process(name, Path(folder), n) for name in able for n in options.threads}
        try:
            for task, lams in tasks.items():
                (n, p), groups = instance.X.shape, len(instance.sizes)
                print(f"\n{problem} {size} {task}: X {n} x {p}, {groups} groups", flush=True)
                entrants = _entrants(instance, task, lams, processes, options.budget)
                rows = race(task, lams, entrants, options.repeats)
                if options.fresh:
                    rows = refreshed(rows, lams, entrants)
                out = {name: why for name, why in refusals.items() if why}
                yield rows + [Row(problem, task, name, why, size=size) for name, why in out.items()]
        finally:
            for process in processes.values():
                process.stop(patience=5.0)


def _tasks(instance: Instance, wanted: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Names of tasks and their lams."""
    top = lam_max(instance)
    for task in wanted:
        if task == "single":
            yield from ((f"lambda_max/{share}", np.array([top / share])) for share in (10, 20))
        elif task == "path" or instance.name in COMPETITORS["sparseopt"].concave:
            shorter = PROBLEMS[instance.name].concave if task in CONCAVE else None
            yield task, top * np.geomspace(1.0, shorter or instance.ratio, 100)


def _entrants(
    instance: Instance, task: str, lams: Any, processes: dict[tuple[str, int], Process], budget: float
) -> list[Entrant]:
    """Who takes part; in the tasks of MCP and SCAD this project's group lasso as well."""
    out: list[Entrant] = []
    for penalty in ("l2", task) if task in CONCAVE else ("l2",):
        under = replace(instance, penalty=penalty)
        judge = judge_of(under, lams)
        siblings: dict[str, Entrant] = {}
        for (name, _), process in processes.items():
            wanted = penalty != "l2" or task not in CONCAVE or COMPETITORS[name].package == "sparseopt"
            if wanted and not COMPETITORS[name].refusal(under):
                out.append(Entrant(name, process, budget, judge, penalty, siblings.get(name)))
                siblings.setdefault(name, out[-1])
    return out


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sparseopt.experiments.bench_solvers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for option, known, default in (
        ("--problems", tuple(PROBLEMS), tuple(PROBLEMS)),
        ("--peers", tuple(COMPETITORS), tuple(COMPETITORS)),
        ("--tasks", TASKS, TASKS),
        ("--sizes", SIZES, SIZES[1:]),
    ):
        words = ", ".join(known)
        parser.add_argument(option, nargs="+", choices=known, default=default, metavar="NAME", help=words)
    parser.add_argument("--quick", action="store_true", help="the quick size alone")
    parser.add_argument("--threads", type=int, nargs="+", default=[1], metavar="N", help="threads, one or more (1)")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="timed runs (3)")
    parser.add_argument(
        "--budget", type=float, default=60.0, metavar="S", help="seconds of solving per competitor and table (60)"
    )
    parser.add_argument(
        "--no-fresh", dest="fresh", action="store_false", help="leave out first calls, memory and certificates"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers to this file")
    parser.add_argument("--page", type=Path, metavar="FOLDER", help="write index.md and its pictures to this folder")
    parser.add_argument(
        "--from", dest="stored", type=Path, nargs="+", metavar="FILE", help="take the numbers of --json, race nobody"
    )
    parser.add_argument("--growth", type=Path, metavar="FILE", help="for the page: the file of bench_growth --json")
    parser.add_argument("--selection", type=Path, metavar="FILE", help="for the page: that of bench_selection --json")
    parser.add_argument("--notes", type=Path, metavar="FILE", help="for the page: Markdown that explains the numbers")
    return parser


if __name__ == "__main__":
    sys.exit(main())
