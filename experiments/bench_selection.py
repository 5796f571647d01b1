"""Which groups selectors find, and how long they take: this project and others on the same simulated problems.

    python -m sparseopt.experiments.bench_selection                      all cases, 20 seeds: the better part of an hour
    python -m sparseopt.experiments.bench_selection --quick              smaller problems, 3 seeds: minutes
    python -m sparseopt.experiments.bench_selection --cases corr9 --selectors splicing abess --json results.json
    python -m sparseopt.experiments.bench_selection --tasks range        paths of k = 1, ..., 30

The number of groups is given, or chosen by a criterion of the package: from 0, 1, ..., twice the true one ("chosen"),
or from 1, ..., 30 ("range", the time of a path of sizes). Every selector has a process of its own, with one thread:

    exact, true, false    share of seeds with the true groups; right and wrong groups among the chosen, on average
    best, < and >         size given: seeds in which nobody has a smaller loss once refitted on its groups, and in which
                          the loss is smaller, and larger, than that of the first selector; refits are by NumPy alone
    seconds               median over seeds of the median over repeats, kernels warm; repeats go round (A B C A B C)
    ratio                 seconds over those of the fastest package that is not this one
    first s               the first call of the process: import, compilation, answer

A selector that spent its budget skips the repeats that are left, and the seeds if it has to.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sparseopt.experiments.bench_solvers import environment
from sparseopt.experiments.contenders import CASES, SELECTORS, Case, Choice, Contender
from sparseopt.experiments.problems import Instance
from sparseopt.experiments.processes import THREAD_VARIABLES

__all__ = ["Row", "compare", "main", "refitted_loss", "rows_of", "table"]

TASKS = ("given", "chosen", "range")
EQUAL = 1e-9  # losses closer than this share of the loss without groups are equal
JAX = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"}


@dataclass(frozen=True)
class Row:
    """What a selector reached on one case: see the top of this file; None where unknown."""

    case: str
    task: str
    name: str
    status: str
    seeds: int = 0
    exact: float | None = None
    true: float | None = None
    false: float | None = None
    best: int | None = None
    smaller: int | None = None
    larger: int | None = None
    seconds: float | None = None
    ratio: float | None = None
    first: float | None = None


# -- the judge ---------------------------------------------------------------------------------------------------------


def refitted_loss(instance: Instance, chosen: Choice) -> float:
    """The smallest mean loss on the chosen groups; for separable classes what Newton's method comes down to.

    Examples
    --------
    >>> instance = Instance("one", np.eye(2), np.array([[3.0], [4.0]]), np.array([1, 1]))
    >>> refitted_loss(instance, np.array([1])), refitted_loss(instance, np.array([0, 1]))
    (2.25, 0.0)
    """
    labels, y = np.repeat(np.arange(len(instance.sizes)), instance.sizes), instance.y
    X = np.ascontiguousarray(instance.X[:, np.isin(labels, chosen)])
    if instance.loss == "squares":
        return float(np.mean((X @ np.linalg.lstsq(X, y, rcond=None)[0] - y) ** 2)) / 2

    def loss(v: NDArray[np.float64]) -> float:
        return float(np.mean(np.logaddexp(0.0, X @ v) - y * (X @ v)))

    v = np.zeros(X.shape[1])
    for _ in range(100):
        mean = 0.5 * (1.0 + np.tanh(0.5 * (X @ v)))
        gradient = X.T @ (mean - y)
        step = np.linalg.lstsq((X * (mean * (1.0 - mean))[:, None]).T @ X, -gradient, rcond=1e-12)[0]
        t = 1.0
        while t > 1e-6 and not loss(v + t * step) <= loss(v):
            t *= 0.5
        if t <= 1e-6 or -gradient @ step < 1e-14 * len(y):
            break
        v = v + t * step
    return loss(v)


def rows_of(
    name: str, task: str, contenders: Sequence[Contender], problems: dict[int, tuple[Instance, Choice]]
) -> list[Row]:
    """The rows of one table: `problems` holds instance and true groups by seed."""
    losses: dict[str, dict[int, float]] = {each.name: {} for each in contenders}
    equal = {}
    for seed, (instance, _) in problems.items():
        equal[seed] = EQUAL * refitted_loss(instance, np.zeros(0, np.int64))
        for each in contenders:
            if seed in each.choices and task == "given":
                losses[each.name][seed] = refitted_loss(instance, each.choices[seed])
    least = {seed: min((known[seed] for known in losses.values() if seed in known), default=0.0) for seed in problems}
    rows = []
    for each in contenders:
        row = Row(name, task, each.name, each.trouble or "passed", len(each.choices), first=each.first)
        if each.choices:
            found = [np.isin(chosen, problems[seed][1]) for seed, chosen in each.choices.items()]
            truths = [problems[seed][1] for seed in each.choices]
            right = [bool(hits.all()) and len(hits) == len(truth) for hits, truth in zip(found, truths, strict=True)]
            row = replace(
                row,
                exact=float(np.mean(right)),
                true=float(np.mean([hits.sum() for hits in found])),
                false=float(np.mean([(~hits).sum() for hits in found])),
                seconds=float(np.median([np.median(times) for times in each.times.values()])),
            )
        if losses[each.name]:
            own, others = losses[each.name], losses[contenders[0].name]
            both = own.keys() & others.keys()
            row = replace(
                row,
                best=sum(own[seed] <= least[seed] + equal[seed] for seed in own),
                smaller=sum(own[seed] < others[seed] - equal[seed] for seed in both),
                larger=sum(own[seed] > others[seed] + equal[seed] for seed in both),
            )
        rows.append(row)
    peers = [row.seconds for row in rows if SELECTORS[row.name].package != "sparseopt" and row.seconds]
    return [replace(row, ratio=row.seconds / min(peers)) if peers and row.seconds else row for row in rows]


# -- the run -----------------------------------------------------------------------------------------------------------


def compare(
    name: str, case: Case, task: str, names: Sequence[str], seeds: int, repeats: int, budget: float
) -> list[Row]:
    """All selectors on all seeds of one case."""
    problems = {seed: case.make(seed) for seed in range(seeds)}
    with _one_thread():
        contenders = [Contender(each, case, task, budget) for each in names]
        try:
            for again in range(repeats):
                for seed in problems:
                    for each in contenders:
                        if each.left > 0.0 and (again == 0 or seed in each.times):
                            each.ask(seed)
        finally:
            for each in contenders:
                each.stop()
    return rows_of(name, task, contenders, problems)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Processes started inside use one thread: libraries read these variables when they load."""
    wanted = dict.fromkeys(THREAD_VARIABLES, "1") | JAX
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def table(rows: Sequence[Row]) -> str:
    """One line per selector in the order given; what did not pass says why."""
    lines: list[tuple[str, ...]] = [
        ("", "seeds", "exact", "true", "false", "best", "<", ">", "seconds", "ratio", "first s", "")
    ]
    for row in rows:
        cells = [_cell(row.exact, ".2f"), _cell(row.true, ".2f"), _cell(row.false, ".2f")]
        cells += [_cell(count, "d") for count in (row.best, row.smaller, row.larger)]
        cells += [_cell(row.seconds, ".3g"), _cell(row.ratio, ".2f"), _cell(row.first, ".2g")]
        lines.append((row.name, str(row.seeds), *cells, "" if row.status == "passed" else row.status))
    widths = [max(len(line[i]) for line in lines) for i in range(11)]
    text = []
    for first, *cells, remark in lines:
        aligned = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        text.append("  ".join([first.ljust(widths[0]), *aligned, remark]).rstrip())
    return "\n".join(text)


def _cell(value: float | None, how: str) -> str:
    return "-" if value is None else format(value, how)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; see `--help`."""
    options = _parser().parse_args(arguments)
    packages = dict.fromkeys(SELECTORS[name].package for name in options.selectors)
    about = environment([], 1)
    for package in packages:
        with suppress(PackageNotFoundError):
            about["versions"][package] = version(package)
    print(json.dumps(about))
    missing = [package for package in packages if find_spec(package) is None]
    for package in missing:
        print(f"{package} is not installed: left out")
    rows: list[Row] = []
    for name in options.cases:
        case = CASES[name].quick() if options.quick else CASES[name]
        for task in options.tasks:
            able = [each for each in options.selectors if task in SELECTORS[each].tasks]
            able = [each for each in able if SELECTORS[each].package not in missing]
            if able:
                count = f"{case.active} of {case.n_groups} groups of 5, {case.n} samples, {case.loss}"
                print(f"\n{name}, size {task}: {count}, correlation {case.rho}, SNR {case.snr}", flush=True)
                seeds = options.seeds or (3 if options.quick else 20)
                rows += compare(name, case, task, able, seeds, options.repeat, options.budget)
                print(table([row for row in rows if (row.case, row.task) == (name, task)]), flush=True)
    if options.json is not None:
        result = {"environment": about, "rows": [asdict(row) for row in rows]}
        options.json.write_text(json.dumps(result, indent=1), encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sparseopt.experiments.bench_selection",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for option, known in (("--cases", CASES), ("--selectors", SELECTORS), ("--tasks", TASKS)):
        names = list(known)
        parser.add_argument(option, nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--seeds", type=int, metavar="N", help="problems per case (default 20, quick 3)")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="timed calls per problem (default 3)")
    parser.add_argument(
        "--budget", type=float, default=60.0, metavar="S", help="seconds per selector and table (default 60)"
    )
    parser.add_argument("--quick", action="store_true", help="half of the samples, a quarter of the groups, 3 seeds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers to this file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
