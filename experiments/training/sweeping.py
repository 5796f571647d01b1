"""All runs of a recipe's grid, several at a time; what is finished is not repeated.

Runs with one process each share a pool of workers, which import everything once. Runs that start processes of their
own follow each other, each by a command of its own. A run that fails is told and leaves the others alone; when a worker
is killed, so are the runs of the others. SIGTERM goes on to the workers, which save what they are training.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch

from sparseopt.experiments.training.engine import Preempted
from sparseopt.experiments.training.recipes import Cell
from sparseopt.experiments.training.running import finished, run_recipe
from sparseopt.experiments.training.tasks import make_task

__all__ = ["Outcome", "run_sweep"]


class Outcome(NamedTuple):
    """A run of a sweep: its result, or the sentence about what went wrong."""

    name: str
    result: dict[str, Any] | None
    failure: str | None


def run_sweep(cells: Sequence[Cell], jobs: int = 1) -> Iterator[Outcome]:
    """Run the cells of a grid, `jobs` at a time, and say of each what came out, in the order in which they finish.

    SIGTERM ends it with Preempted.

    Parameters
    ----------
    cells : sequence of Cell
        `Recipe.cells()`.
    jobs : int
        Runs at a time; each gets an equal share of the processors unless its recipe has `hardware.threads`.
    """
    waiting = []
    for cell in cells:
        outcome = _finished(cell)
        if outcome is None:
            waiting.append(cell)
        else:
            yield outcome
    _prepare(waiting)
    if any(cell.recipe.hardware.devices != 1 or cell.recipe.hardware.nodes != 1 for cell in waiting):
        yield from map(_command, waiting)
    elif waiting:
        yield from _pooled(waiting, jobs)


def _pooled(cells: Sequence[Cell], jobs: int) -> Iterator[Outcome]:
    threads = max(1, (os.cpu_count() or 1) // jobs)
    # A forked worker would inherit locks of OpenMP's threads.
    with _listening(), ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _begin, (threads,)) as pool:
        futures = {pool.submit(_run, cell): cell for cell in cells}
        try:
            for future in as_completed(futures):
                try:
                    yield future.result()
                except BrokenProcessPool:
                    told = "a worker was killed (out of memory?), and the runs of all ended: the same command goes on"
                    yield Outcome(futures[future].name, None, told)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def _listening() -> Iterator[None]:
    """Hand SIGTERM on to the workers, and end."""

    def stop(*_: Any) -> NoReturn:
        for worker in multiprocessing.active_children():
            worker.terminate()
        raise Preempted("told to stop, and so are the runs, which save what they are at: the same command goes on.")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _begin(threads: int) -> None:
    """What a worker does first: when the sweep itself is killed, nobody would tell the worker to end."""
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        while True:  # a training takes the first one as a request to save; nobody takes the next one
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(2.0)


def _prepare(cells: Sequence[Cell]) -> None:
    """Convert raw data once, before several runs want it at the same time."""
    seen = []
    for cell in cells:
        if cell.recipe.data not in seen:
            seen.append(cell.recipe.data)
            make_task(cell.recipe)


def _finished(cell: Cell) -> Outcome | None:
    try:
        result = finished(cell.recipe, cell.name)
    except ValueError as error:
        return Outcome(cell.name, None, str(error))
    return None if result is None else Outcome(cell.name, result, None)


def _run(cell: Cell) -> Outcome:
    try:
        return Outcome(cell.name, run_recipe(cell.recipe, cell.name, progress=False, say=lambda sentence: None), None)
    except Exception as error:  # whatever it is, the other runs of a long sweep should go on
        kind = "" if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: "
        return Outcome(cell.name, None, f"{kind}{error}")


def _command(cell: Cell) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "recipe.yaml")
        file.write_text(cell.recipe.to_yaml(), encoding="utf-8")
        prune = [sys.executable, "-m", "sparseopt", "prune", str(file), "--name", cell.name, "--quiet"]
        done = subprocess.run(prune, check=False)
    ended = Outcome(cell.name, None, f"the command ended with status {done.returncode}")
    return ended if done.returncode else _finished(cell) or ended
