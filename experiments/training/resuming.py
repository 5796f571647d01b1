"""Checkpoints of a run: written between two steps, and found again by the next call.

Nothing in the folder is changed by looking for them; `rewind` does that, when all processes have found the same one.

A run keeps its two newest checkpoints. A file that is damaged is noticed by its checksum and passed over with a
warning; the run then repeats the steps since the one before it, to the same end.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparseopt.experiments.training.launching import agree
from sparseopt.nn import load_checkpoint, save_checkpoint

if TYPE_CHECKING:
    from sparseopt.experiments.training.engine import Trainer

__all__ = ["restore", "rewind", "save"]

logger = logging.getLogger("sparseopt.experiments")


def save(run: Trainer) -> None:
    """Write the checkpoint of the current step.

    Raises
    ------
    OSError
        When it cannot be written; the older checkpoints are whole. All processes end, see `launching.agree`.
    FloatingPointError
        When a number in it is not finite, in all processes.
    """
    fabric, path = run.fabric, run.folder.checkpoint(run.step)
    extra = {
        "step": run.step,
        "seconds": run.seconds,
        "sums": fabric.all_reduce(run.sums.clone(), reduce_op="mean").cpu(),
        "counts": run.counts,
        "average": None if run.average is None else dict(run.average.state_dict()),
    }
    first, sharded = fabric.is_global_zero, run.recipe.hardware.strategy == "fsdp"

    def write() -> None:
        with run.folder.writing():
            save_checkpoint(path, run.plain, run.inner, run.sparsifier, run.rates, run.scaler, extra)

    # A process that failed alone would leave the others waiting for it in what they do next.
    agree(fabric, _failure(run.folder.settle) if first else None)
    agree(fabric, _failure(write) if first or sharded else None)
    if first:
        run.folder.forget_old_checkpoints()


def restore(run: Trainer) -> Path | None:
    """Take the state of the newest whole checkpoint of the folder; None if there is none.

    Raises
    ------
    ValueError
        When there are checkpoints and all of them are damaged.
    """
    problems = []
    for path in run.folder.checkpoints():
        try:
            extra = load_checkpoint(path, run.plain, run.inner, run.sparsifier, run.rates, run.scaler)
        except (ValueError, OSError) as error:
            problems.append(str(error).rstrip("."))
            if run.fabric.is_global_zero:
                logger.warning("%s. Trying the checkpoint before it.", problems[-1])
            continue
        _take(run, extra)
        return path
    if problems:
        raise ValueError(
            f"no checkpoint in {run.folder.path} can be used ({problems[0]}): start anew with --resume never."
        )
    return None


def rewind(run: Trainer) -> None:
    """Let the folder be as it was after the current step: without later lines in tables, and later checkpoints."""
    run.folder.rewind(run.step)
    for path in run.folder.checkpoints():
        if path.name > run.folder.checkpoint(run.step).name:
            path.unlink()


def _failure(action: Callable[[], None]) -> Exception | None:
    try:
        action()
    except (OSError, FloatingPointError) as error:
        return error
    return None


def _take(run: Trainer, extra: dict[str, Any]) -> None:
    run.step, run.seconds, run.counts = extra["step"], extra["seconds"], list(extra["counts"])
    run.sums = extra["sums"].to(run.fabric.device)
    if run.average is not None:
        run.average.load_state_dict(extra["average"])
