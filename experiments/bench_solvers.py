"""Race this project against other packages on the same problems, in one run, to the same accuracy.

    python -m sparseopt.experiments.bench_solvers                        all problems, full size: about half an hour
    python -m sparseopt.experiments.bench_solvers --quick                a tenth of the samples and groups: minutes
    python -m sparseopt.experiments.bench_solvers --problems dense tall --peers sparseopt adelie --json results.json
    python -m sparseopt.experiments.bench_solvers --task single          one lam from zero instead of a path of 100

An answer passes if (P - D*) / D* <= 1e-6 at every lam, with P its objective and D* the best lower bound that any answer
of the run gave, both computed by `problems.evaluate` and by no competitor. A competitor is timed at the loosest power
of ten of its own tolerance that passes, since tolerances mean different things. The median of several runs counts;
runs alternate (A B C A B C), so a slow minute of the machine slows all. Every competitor has a process of its own with
one thread, its kernels compiled and called before. `cold` is the time from the start of the process to the first answer
to a small problem. Packages that are not installed are listed; `make bench` installs them in an environment of their own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparseopt.experiments.peers import COMPETITORS, serve
from sparseopt.experiments.problems import PROBLEMS, Instance, evaluate, lam_max, make

__all__ = ["Entrant", "Process", "Row", "accuracy", "main", "race", "summary", "table"]

Array = NDArray[np.float64]

TARGET = 1e-6  # the accuracy that passes
STARTUP = 600.0  # seconds for import, compilation and loading
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


class OverBudget(Exception):
    """A competitor did not answer in the time it had."""


class Failure(Exception):
    """A competitor raised, or its process died."""


class Answer(NamedTuple):
    """seconds: the time of the call; epochs: as the package counts them, or None; W: (m, p, K)."""

    seconds: float
    epochs: int | None
    W: Array


class Process:
    """A competitor in a process of its own, started when it is first asked and again after it was stopped."""

    def __init__(self, name: str, folder: Path, threads: int = 1) -> None:
        self.name, self.folder, self.threads = name, folder, threads
        self.cold: float | None = None
        self._pipe: Any = None
        self._process: Any = None

    def ask(self, lams: Array, tol: float, limit: float) -> Answer:
        """The answer for all lams; OverBudget after `limit` seconds, Failure if there is none."""
        if self._process is None:
            self._start()
        file = self.folder / f"{self.name}.npy"
        self._pipe.send((lams, tol, str(file)))
        seconds, epochs = self._receive(limit)
        return Answer(seconds, epochs, np.load(file))

    def stop(self, patience: float = 0.0) -> None:
        """End the process, by force if it has not ended by itself after `patience` seconds."""
        if self._process is not None:
            if patience > 0.0:
                self._pipe.send(None)
                self._process.join(patience)
            self._process.kill()
            self._process.join()
            self._pipe.close()
            self._process = None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
        os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(self.threads)))  # libraries read them when they load
        try:
            began = time.perf_counter()
            self._process = context.Process(
                target=serve, args=(theirs, str(self.folder), self.name, self.threads), daemon=True
            )
            self._process.start()
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})
        theirs.close()
        self._receive(STARTUP)
        self.cold = self.cold or time.perf_counter() - began
        self._receive(STARTUP)

    def _receive(self, limit: float) -> Any:
        try:
            message = self._pipe.recv() if self._pipe.poll(max(limit, 0.0)) else None
        except EOFError:
            message = "the process died"
        if isinstance(message, tuple) or message in ("warm", "ready"):
            return message
        self.stop()
        raise OverBudget if message is None else Failure(message)


class Run(NamedTuple):
    """What one tolerance gave: seconds and epochs of the call, P at every lam."""

    seconds: float
    epochs: int | None
    primal: Array


@dataclass
class Entrant:
    """A competitor in one race: what it may spend, what it has tried, and how that ended."""

    name: str
    process: Any
    budget: float
    runs: dict[int, Run] = field(default_factory=dict)  # by power of ten of the tolerance
    times: list[float] = field(default_factory=list)
    spent: float = 0.0
    trouble: str = ""

    def next_decade(self, bound: Array) -> int | None:
        """Which tolerance 10^-k to try next, None if the loosest that passes is known or out of reach."""
        first, tightest = COMPETITORS[self.name].first, COMPETITORS[self.name].tightest
        chosen = self.chosen(bound)
        if self.trouble:
            return None
        if not self.runs:
            return first
        k = max(self.runs) + 1 if chosen is None else chosen - 1
        return k if 0 <= k <= tightest and k not in self.runs else None

    def chosen(self, bound: Array) -> int | None:
        """The loosest tolerance tried that passes."""
        return min((k for k, run in self.runs.items() if accuracy(run.primal, bound) <= TARGET), default=None)

    def ask(self, lams: Array, k: int, limit: float) -> Answer | None:
        """An answer, None if there was trouble."""
        try:
            answer: Answer = self.process.ask(lams, 10.0**-k, limit)
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
    """The outcome of one competitor: status is "passed", or says why it did not; the rest None where unknown."""

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


def accuracy(primal: Array, bound: Array) -> float:
    """max over lam of (P - D*) / D*; inf where no bound is known.

    Examples
    --------
    >>> round(accuracy(np.array([2.0, 1.5]), np.array([2.0, 1.0])), 12)
    0.5
    """
    return float(np.max(np.where(bound > 0.0, (primal - bound) / np.where(bound > 0.0, bound, 1.0), np.inf)))


def race(instance: Instance, task: str, lams: Array, entrants: Sequence[Entrant], repeats: int) -> list[Row]:
    """Find the tolerance of every entrant, then time all of them in turn.

    The search of an entrant and its timed runs share the budget; if nothing is left, the run of the search counts. One
    more run of the first entrant, two decades tighter than usual, sharpens D* and is free.
    """
    bound = np.zeros(len(lams))

    known = np.full(len(lams), np.inf)

    def judge(answer: Answer) -> Array:
        primal, dual = evaluate(instance, lams, answer.W)
        np.maximum(bound, dual, out=bound)
        np.minimum(known, primal, out=known)
        return primal

    for entrant in entrants[:1]:
        sharp = entrant.ask(lams, COMPETITORS[entrant.name].first + 2, entrant.budget)
        if sharp is not None:
            judge(sharp)
        entrant.spent, entrant.trouble = 0.0, ""
    busy = True
    while busy:  # a better bound from one entrant can let another one pass, so go round until nobody moves
        busy = False
        for entrant in entrants:
            while (k := entrant.next_decade(bound)) is not None:
                busy = True
                answer = entrant.ask(lams, k, entrant.budget - entrant.spent)
                if answer is not None:
                    entrant.runs[k] = Run(answer.seconds, answer.epochs, judge(answer))
                    _log(f"{entrant.name} tol=1e-{k}: {answer.seconds:.3g} s")
    _log(f"the optimum is known to {accuracy(known, bound):.0e}")
    for _ in range(repeats):
        for entrant in entrants:
            k = entrant.chosen(bound)
            left = entrant.budget - entrant.spent
            if k is not None and entrant.runs[k].seconds <= left:
                answer = entrant.ask(lams, k, left)
                entrant.times += [] if answer is None else [answer.seconds]
    return [_row(instance.name, task, entrant, bound) for entrant in entrants]


def _row(problem: str, task: str, entrant: Entrant, bound: Array) -> Row:
    k, cold = entrant.chosen(bound), entrant.process.cold
    reached = {j: accuracy(run.primal, bound) for j, run in entrant.runs.items()}
    if k is None:
        best = min(reached, key=lambda j: reached[j], default=None)
        status = entrant.trouble or "not accurate"
        if best is None:
            return Row(problem, task, entrant.name, status, cold=cold)
        run = entrant.runs[best]
        return Row(
            problem, task, entrant.name, status, run.seconds, 0, reached[best], 10.0**-best, run.epochs, cold
        )  # fmt: skip
    run = entrant.runs[k]
    seconds = float(np.median(entrant.times or [run.seconds]))
    return Row(
        problem, task, entrant.name, "passed", seconds, max(len(entrant.times), 1), reached[k], 10.0**-k, run.epochs, cold
    )  # fmt: skip


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
    text = [
        "  ".join([line[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(line[1:8], widths[1:], strict=True)), line[8]])
        for line in lines
    ]  # fmt: skip
    return "\n".join(line.rstrip() for line in text)


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
            lines.append(f"{problem} {task}: {'no peer' if peer is None else 'sparseopt did not'} pass")
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


def _log(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)


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
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS), metavar="NAME", help=", ".join(PROBLEMS))
    parser.add_argument("--peers", nargs="+", choices=COMPETITORS, default=list(COMPETITORS), metavar="NAME", help=", ".join(COMPETITORS))
    parser.add_argument("--task", choices=["path", "single"], default="path", help="100 lams, or lambda_max/10 and /20")
    parser.add_argument("--quick", action="store_true", help="a tenth of the samples and groups")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="timed runs (default 3)")
    parser.add_argument("--budget", type=float, default=60.0, metavar="S", help="seconds per competitor and table")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads per competitor (default 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers to this file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
