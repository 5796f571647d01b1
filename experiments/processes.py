"""Competitors in processes of their own, which are killed when their time is up.

A `Process` answers requests as long as it lives; its method `fresh` starts another one for a single request, to see
what that costs a process that has done nothing before.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparseopt.experiments.serving import Fresh, Request, fresh, serve

__all__ = ["STARTUP", "THREAD_VARIABLES", "Answer", "Failure", "OverBudget", "Process"]

Array = NDArray[np.float64]

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

    def ask(self, lams: Array, tol: float, limit: float, penalty: str = "l2") -> Answer:
        """The answer for all lams; OverBudget after `limit` seconds, Failure if there is none."""
        if self._process is None:
            self._start(serve)
        file = self.folder / f"{self.name}.npy"
        try:
            self._pipe.send(Request(lams, tol, penalty, str(file)))
        except OSError:  # it died since its last answer
            self.stop()
            raise Failure("the process died") from None
        seconds, epochs = self._receive(limit)
        return Answer(seconds, epochs, np.load(file))

    def fresh(self, lams: Array, tol: float, limit: float, penalty: str = "l2") -> Fresh:
        """What one answer costs a process that has done nothing before; OverBudget and Failure as in `ask`."""
        other = Process(self.name, self.folder, self.threads)
        try:
            other._start(fresh, Request(lams, tol, penalty, ""))
            return Fresh(*other._receive(limit))
        finally:
            other.stop(patience=5.0)

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

    def _start(self, target: Callable[..., None], *extra: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
        os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(self.threads)))  # libraries read them when they load
        try:
            began = time.perf_counter()
            arguments = (theirs, str(self.folder), self.name, self.threads, *extra)
            self._process = context.Process(target=target, args=arguments, daemon=True)
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
        except (EOFError, OSError):
            message = "the process died"
        if isinstance(message, tuple) or message in ("warm", "ready"):
            return message
        self.stop()
        raise OverBudget if message is None else Failure(message)
