"""What runs in the process of a competitor: answers to requests, or what one answer costs a fresh process.

`serve` answers until it is told to stop, with kernels warm: that is where times come from. `fresh` is for a process
that has done nothing yet. It loads the problem, and then

    first     seconds from there to the first answer: import, compilation or kernels from disk, the solve
    second    seconds of the same call again
    peak      MB of memory at its fullest by the end of the first call, beyond what the process had with the data loaded
    extra     MB that the second call needs at its fullest, beyond what the process had before it

and for this project the shares of a third call that go into the certificate, see `certificate`.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import wraps
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparseopt.experiments.judging import lam_max
from sparseopt.experiments.peers import COMPETITORS, Solve
from sparseopt.experiments.problems import Instance

__all__ = ["Fresh", "Request", "certificate", "fresh", "peak_memory", "restart_peak", "serve"]

Array = NDArray[np.float64]
MB = 2.0**20


class Request(NamedTuple):
    """What is asked: solutions for all lams under a penalty, to a file of coefficients."""

    lams: Array
    tol: float
    penalty: str
    file: str


class Fresh(NamedTuple):
    """What one answer costs a fresh process, see the top of this file; shares None where they do not apply."""

    first: float
    second: float
    peak: float
    extra: float
    gap: float | None = None
    check: float | None = None


def serve(pipe: Connection, folder: str, name: str, threads: int) -> None:
    """Answer requests with (seconds, epochs) until None comes; the coefficients go to the file.

    Before the first request it says "warm" when a small problem is solved, import and compilation included, and "ready"
    when the problem of the race is in memory. An exception ends the process with its text for an answer.
    """
    with _telling(pipe):
        competitor = COMPETITORS[name]
        small = Instance.load(Path(folder) / "warm", competitor.dtype)
        grid = lam_max(small) * np.geomspace(1.0, small.ratio, 5)
        solve = competitor.prepare(small, threads)
        solve(grid, 10.0**-competitor.first)()
        pipe.send("warm")
        solve(grid[3:4], 10.0**-competitor.first)()
        instance = Instance.load(Path(folder) / "full", competitor.dtype)
        ready: dict[str, Solve] = {}
        pipe.send("ready")
        while (request := pipe.recv()) is not None:
            if request.penalty not in ready:
                if request.penalty != "l2":  # kernels of this penalty
                    competitor.prepare(replace(small, penalty=request.penalty), threads)(grid, request.tol)()
                ready[request.penalty] = competitor.prepare(replace(instance, penalty=request.penalty), threads)
            seconds, read = _timed(ready[request.penalty], request)
            W, epochs = read()
            np.save(request.file, W)
            pipe.send((seconds, epochs))


def fresh(pipe: Connection, folder: str, name: str, threads: int, request: Request) -> None:
    """Say "warm" and "ready", then send what `Fresh` has for one request."""
    with _telling(pipe):
        competitor = COMPETITORS[name]
        pipe.send("warm")
        instance = replace(Instance.load(Path(folder) / "full", competitor.dtype), penalty=request.penalty)
        pipe.send("ready")
        gc.collect()
        restart_peak()
        data = peak_memory()
        began = time.perf_counter()
        solve = competitor.prepare(instance, threads)
        del instance
        preparing = time.perf_counter() - began
        first, read = _timed(solve, request)
        peak = peak_memory() - data
        del read
        gc.collect()
        restart_peak()
        before = peak_memory()
        second, read = _timed(solve, request)
        extra = peak_memory() - before
        del read
        shares = certificate(lambda: _timed(solve, request)) if competitor.package == "sparseopt" else (None, None)
        pipe.send(Fresh(preparing + first, second, peak, extra, *shares))


def _timed(solve: Solve, request: Request) -> tuple[float, Any]:
    gc.collect()
    began = time.perf_counter()
    read = solve(request.lams, request.tol)
    return time.perf_counter() - began, read


@contextmanager
def _telling(pipe: Connection) -> Iterator[None]:
    """Keep the process silent, and send what is raised: whatever a package raises is a result of the benchmark."""
    silence = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # some packages print from C
        os.dup2(silence, stream)
    warnings.simplefilter("ignore")
    try:
        yield
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}".splitlines()[0])


# -- memory ------------------------------------------------------------------------------------------------------------


def peak_memory() -> float:
    """MB of resident memory at its fullest since `restart_peak`, or since the process began where Linux is not."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return float(line.split()[1]) * 1024.0 / MB
    import resource  # Windows has neither

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1.0 if sys.platform == "darwin" else 1024.0) / MB


def restart_peak() -> None:
    """Count the peak from what is resident now."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


# -- the certificate ---------------------------------------------------------------------------------------------------


class _Clock(threading.local):
    """Seconds of processor time inside some functions.

    Every thread has its own, and adds what it measured to `spent`: waiting for the other is no work.
    """

    def __init__(self, spent: list[float]) -> None:
        self.spent, self.depth = spent, 0

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def timed(*args: Any, **how: Any) -> Any:
            if self.depth:
                return function(*args, **how)
            self.depth = 1
            began = time.thread_time()
            try:
                return function(*args, **how)
            finally:
                self.spent.append(time.thread_time() - began)
                self.depth = 0

        return timed


def certificate(call: Callable[[], object]) -> tuple[float | None, float | None]:
    """Which shares of a call's processor time go into certified gaps; None, None if it never bounds the optimum.

    gap      the dual point, how far it may be stretched, its bound, and the primal value beside it
    check    the whole check of an iterate, which also computes the gradients that decide what joins the working set;
             a solver without gaps needs most of that as well. None where the solver has no such part
    """
    descent, iterate = import_module("sparseopt.solvers.descent"), import_module("sparseopt.solvers.iterate")
    checks: list[float] = []
    bounds: list[float] = []
    check, bound = _Clock(checks), _Clock(bounds)
    spots = (
        (getattr(iterate, "Iterate", None), "dual_rows", bound),
        (descent, "judge", bound),
        (getattr(descent, "BlockDescent", None), "_gap", bound),
        (getattr(descent, "BlockDescent", None), "_check", check),
    )
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in spots if hasattr(owner, name)]
    try:
        for owner, name, clock in spots:
            if hasattr(owner, name):
                setattr(owner, name, clock.wrap(getattr(owner, name)))
        began = time.process_time()
        call()
        total = time.process_time() - began
    finally:
        for owner, name, function in before:
            setattr(owner, name, function)
    if not bounds:
        return None, None
    return sum(bounds) / total, sum(checks) / total if checks else None
