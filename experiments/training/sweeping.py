"""All runs of a recipe's grid, several at a time; what is finished is not repeated.

Runs with one process each share a pool of workers, which import everything once. Runs that start processes of their
own follow each other, each by a command of its own. A run that fails is told and leaves the others alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import torch

from sparseopt.experiments.training.recipes import Cell
from sparseopt.experiments.training.running import run_recipe
from sparseopt.experiments.training.tasks import make_task

__all__ = ["Outcome", "run_sweep"]


class Outcome(NamedTuple):
    """A run of a sweep: its result, or the sentence about what went wrong."""

    name: str
    result: dict[str, Any] | None
    failure: str | None


def run_sweep(cells: Sequence[Cell], jobs: int = 1) -> Iterator[Outcome]:
    """Run the cells of a grid, `jobs` at a time, and say of each what came out, in the order in which they finish.

    Parameters
    ----------
    cells : sequence of Cell
        `Recipe.cells()`.
    jobs : int
        Runs at a time; each gets an equal share of the processors unless its recipe has `hardware.threads`.
    """
    _prepare(cells)
    if any(cell.recipe.hardware.devices != 1 or cell.recipe.hardware.nodes != 1 for cell in cells):
        yield from map(_command, cells)
        return
    threads = max(1, (os.cpu_count() or 1) // jobs)
    # A forked worker would inherit locks of OpenMP's threads.
    with ProcessPoolExecutor(jobs, get_context("spawn"), torch.set_num_threads, (threads,)) as pool:
        try:
            for future in as_completed([pool.submit(_run, cell) for cell in cells]):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _prepare(cells: Sequence[Cell]) -> None:
    """Convert raw data once, before several runs want it at the same time."""
    seen = []
    for cell in cells:
        if cell.recipe.data not in seen:
            seen.append(cell.recipe.data)
            make_task(cell.recipe, Path(cell.recipe.output.folder) / "data")


def _run(cell: Cell) -> Outcome:
    try:
        return Outcome(cell.name, run_recipe(cell.recipe, cell.name, progress=False, say=lambda sentence: None), None)
    except Exception as error:  # whatever it is, the other runs of a long sweep should go on
        return Outcome(cell.name, None, f"{type(error).__name__}: {error}")


def _command(cell: Cell) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "recipe.yaml")
        file.write_text(cell.recipe.to_yaml(), encoding="utf-8")
        done = subprocess.run([sys.executable, "-m", "sparseopt", "prune", str(file), "--quiet"], check=False)
    if done.returncode:
        return Outcome(cell.name, None, f"the command ended with status {done.returncode}")
    return _run(cell)  # finished: this reads its result
