"""Checkpoints of a run: written between two steps, and found again by the next call.

A run keeps its two newest checkpoints. A file that is damaged is noticed by its checksum and passed over with a
warning; the run then repeats the steps since the one before it, to the same end.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sparseopt.nn import load_checkpoint, save_checkpoint

if TYPE_CHECKING:
    from sparseopt.experiments.training.engine import Trainer

__all__ = ["restore", "save"]

logger = logging.getLogger("sparseopt.experiments")


def save(run: Trainer) -> None:
    """Write the checkpoint of the current step.

    Raises
    ------
    OSError
        When it cannot be written, in every process; the older checkpoints are whole.
    """
    fabric, path = run.fabric, run.folder.checkpoint(run.step)
    extra = {
        "step": run.step,
        "seconds": run.seconds,
        "sums": fabric.all_reduce(run.sums.clone(), reduce_op="mean").cpu(),
        "counts": run.counts,
        "average": None if run.average is None else dict(run.average.state_dict()),
    }
    failure: OSError | None = None
    sharded = run.recipe.hardware.strategy == "fsdp"
    if fabric.is_global_zero or sharded:
        try:
            save_checkpoint(path, run.plain, run.inner, run.sparsifier, run.rates, run.scaler, extra)
        except OSError as error:
            failure = error
    if fabric.world_size > 1:
        # A process that failed alone would leave the others waiting for it in the next step.
        said = fabric.broadcast(None if failure is None else str(failure))
        if said is not None and failure is None:
            failure = OSError(said)
    if failure is not None:
        raise OSError(
            f"no checkpoint could be written to {path.parent} after step {run.step} ({failure}): make room; the same "
            "command then goes on from the last one."
        ) from failure
    if fabric.is_global_zero:
        run.folder.forget_old_checkpoints()


def restore(run: Trainer) -> Path | None:
    """Continue from the newest whole checkpoint of the folder; None if there is none.

    Raises
    ------
    ValueError
        When there are checkpoints and all of them are damaged.
    """
    problems = []
    for path in run.folder.checkpoints():
        try:
            extra = load_checkpoint(path, run.plain, run.inner, run.sparsifier, run.rates, run.scaler)
        except ValueError as error:
            problems.append(str(error))
            logger.warning("%s Trying the checkpoint before it.", error)
            continue
        _take(run, extra)
        return path
    if problems:
        raise ValueError(
            f"no checkpoint in {run.folder.path} can be used ({problems[0]}): start anew with --resume never."
        )
    return None


def _take(run: Trainer, extra: dict[str, Any]) -> None:
    run.step, run.seconds, run.counts = extra["step"], extra["seconds"], list(extra["counts"])
    run.sums = extra["sums"].to(run.fabric.device)
    if run.average is not None:
        run.average.load_state_dict(extra["average"])
    run.fabric.barrier()
    if run.fabric.is_global_zero:
        run.folder.rewind(run.step)
        for path in run.folder.checkpoints():
            if path.name > run.folder.checkpoint(run.step).name:
                path.unlink()
    torch.manual_seed(run.recipe.training.seed)
