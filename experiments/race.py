"""A race of solvers to one accuracy.

An answer passes if (P - D*) / D* <= 1e-6 at every lam, with P its objective and D* the best lower bound that any answer
of the run gave. Both come from `problems.evaluate`, from no competitor. Then

    tolerance   the loosest power of ten that passes, since every package means something else by its tolerance
    time        the median of several runs at that tolerance, kernels compiled and called before; runs alternate
                (A B C A B C), so that a slow minute of the machine slows all
    cold        from the start of the process to the first answer to a small problem

Every competitor has a process of its own, which is killed when its budget of seconds is spent.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparseopt.experiments.peers import COMPETITORS, serve
from sparseopt.experiments.problems import Instance, evaluate

__all__ = ["Answer", "Entrant", "Failure", "OverBudget", "Process", "Row", "accuracy", "race"]

Array = NDArray[np.float64]

TARGET = 1e-6  # the accuracy that passes
LOOSEST = 1  # tolerances above 10^-1 mean nothing to a user
STARTUP = 300.0  # seconds for import, compilation and loading
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
        try:
            self._pipe.send((lams, tol, str(file)))
        except OSError:  # it died since its last answer
            self.stop()
            raise Failure("the process died") from None
        seconds, epochs = self._receive(limit)
        return Answer(seconds, epochs, np.load(file))

    def stop(self, patience: float = 0.0) -> None:
        """End the process, by force if it has not ended by itself after `patience` seconds."""
        if self._process is not None:
            if patience > 0.0:
                with suppress(OSError):
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
        return k if LOOSEST <= k <= tightest and k not in self.runs else None

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

    The search of an entrant and its timed runs share the budget; if nothing is left, the run of the search counts. A
    first run of the first entrant at its sharp tolerance is free: it makes D* good from the start.
    """
    bound = np.zeros(len(lams))

    known = np.full(len(lams), np.inf)

    def judge(answer: Answer) -> Array:
        primal, dual = evaluate(instance, lams, answer.W)
        np.maximum(bound, dual, out=bound)
        np.minimum(known, primal, out=known)
        return primal

    for entrant in entrants[:1]:
        sharp = entrant.ask(lams, COMPETITORS[entrant.name].sharp, entrant.budget)
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
        status = entrant.trouble or "not accurate"
        if not reached:
            return Row(problem, task, entrant.name, status, cold=cold)
        k = min(reached, key=lambda j: reached[j])
    else:
        status = "passed"
    run, times = entrant.runs[k], entrant.times or [entrant.runs[k].seconds]
    return Row(
        problem, task, entrant.name, status, float(np.median(times)), len(times), reached[k], 10.0**-k, run.epochs, cold
    )


def _log(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)
