"""From a recipe to a finished run folder.

    recipe -> examples -> network, masks, optimizer -> steps -> folded and compressed network, result.json, pictures

The same call starts a run, goes on with one that was interrupted, and returns the result of one that is finished.
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sparseopt
from sparseopt.experiments.training.engine import Diverged, Trainer
from sparseopt.experiments.training.finishing import finish
from sparseopt.experiments.training.launching import Elsewhere, agree, is_lost, launch, make_fabric
from sparseopt.experiments.training.recipes import Recipe, read_recipe
from sparseopt.experiments.training.resuming import restore, rewind
from sparseopt.experiments.training.run_folder import RunFolder
from sparseopt.experiments.training.tasks import make_task

__all__ = ["finished", "run_recipe"]

VERSION = 1


def run_recipe(
    recipe: Recipe,
    name: str | None = None,
    resume: str = "auto",
    progress: bool = True,
    say: Callable[[str], None] = print,
) -> dict[str, Any] | None:
    """Train by a recipe, in the folder `output.folder` / `name`.

    Parameters
    ----------
    recipe : Recipe
        For one training.
    name : str, optional
        Of the run; default that of the recipe.
    resume : {"auto", "never"}
        "auto" goes on from the newest whole checkpoint of the folder, if there is one.
    progress : bool
        Show a bar.
    say : callable
        Gets sentences about what happens; of the first process only.

    Returns
    -------
    dict
        The contents of result.json; None in processes that the first one started.

    Raises
    ------
    ValueError
        When the folder has a run by another recipe, or all its checkpoints are damaged.
    OSError
        When the disk is full; the last checkpoint is whole.
    Preempted
        When SIGTERM came, and a checkpoint is written.
    Elsewhere
        In processes after the first, when one of them failed: the first raises what there is to say.
    """
    if name is None:
        cell = recipe.single()
        name, recipe = cell.name, cell.recipe
    fabric = make_fabric(recipe.hardware)
    folder = RunFolder(Path(recipe.output.folder) / name)
    launch(fabric)
    first = fabric.is_global_zero
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(_settings(recipe))
            agree(fabric, _failure(lambda: stack.enter_context(folder.owned())) if first else None)
            return _run(recipe, resume, progress, say if first else lambda sentence: None, folder, fabric)
        except RuntimeError as error:
            if fabric.world_size == 1 or not is_lost(error):
                raise
            # Whichever process failed tells why; those that notice have nothing to add but for the first.
            sentence = "another process of this training has ended: the same command goes on from the last checkpoint."
            raise OSError(sentence) if first else Elsewhere(sentence) from error


def finished(recipe: Recipe, name: str) -> dict[str, Any] | None:
    """The contents of result.json if this run is finished, without starting anything.

    Raises
    ------
    ValueError
        When the folder has a run by another recipe.
    """
    path = Path(recipe.output.folder) / name
    if not (path / "result.json").is_file():
        return None
    folder = RunFolder(path)
    _require_same(recipe, folder)
    return dict(folder.read_json("result.json"))


def _run(
    recipe: Recipe, resume: str, progress: bool, say: Any, folder: RunFolder, fabric: Any
) -> dict[str, Any] | None:
    first, anew = fabric.is_global_zero, resume == "never"
    if not anew:
        agree(fabric, _failure(lambda: _require_same(recipe, folder)))
        known = fabric.broadcast(folder.read_json("result.json") if first else None)
        if known is not None:
            if first and known["metrics"] is not None:
                folder.forget_old_checkpoints(0)  # it was killed just before
            say(f"{folder.path} is finished.")
            return dict(known) if first else None
    made: list[Any] = []
    with fabric.rank_zero_first():  # others wait while it converts data, however long that takes
        failure = _failure(lambda: made.append(make_task(recipe)))
    agree(fabric, failure)
    agree(fabric, _failure(lambda: made.append(Trainer(recipe, made[0], fabric, folder))))
    task, run = made
    agree(fabric, _failure(run.set_up))
    # Nothing in the folder has changed so far, so a recipe that cannot be run leaves no trace.
    path = None
    if not anew:
        agree(fabric, _failure(lambda: made.append(restore(run))))
        path = made[2]
        agree(fabric, _failure(lambda: _require_step(run, fabric.broadcast(run.step))))
    agree(fabric, _failure(lambda: _begin(run, anew)) if first else None)
    if path is not None:
        say(f"goes on from {path}, after {run.step} of {run.total} steps.")
    result: dict[str, Any] = {
        "version": VERSION,
        "name": folder.path.name,
        "finished": True,
        "recipe": recipe.to_mapping(),
        "facts": task.facts(),
        "processes": fabric.world_size,
        "versions": _versions(),
    }
    try:
        run.fit(progress)
    except (Diverged, FloatingPointError) as error:
        result |= {"diverged": str(error), "steps": run.step, "seconds": round(run.seconds, 1), "metrics": None}
    else:
        result |= finish(run)
    agree(fabric, _failure(lambda: _end(folder, result)) if first else None)
    return result if first else None


def _begin(run: Trainer, anew: bool) -> None:
    """What the first process changes in the folder before the next step."""
    if anew:
        run.folder.clear()
    rewind(run)
    run.folder.write("recipe.yaml", run.recipe.to_yaml())
    run.folder.write_json("environment.json", _environment(run.fabric))


def _end(folder: RunFolder, result: dict[str, Any]) -> None:
    """What the first process writes last."""
    result["curve"] = [
        {key: float(value) if key != "phase" else value for key, value in row.items()}
        for row in folder.table("epochs.csv")
    ]
    if result["metrics"] is not None:
        result["metrics"]["train_loss"] = result["curve"][-1]["train_loss"]
    folder.write_json("result.json", result)
    folder.forget_old_checkpoints(0 if result["metrics"] is not None else 1)


def _require_step(run: Trainer, step: int) -> None:
    if run.step != step:
        raise ValueError(
            f"{run.folder.path} has a checkpoint after step {run.step} for one process, and after step {step} for the "
            "first: all need to see the same folder."
        )


@contextlib.contextmanager
def _settings(recipe: Recipe) -> Iterator[None]:
    """Threads, determinism and the type of new tensors as the recipe wants them, for a while."""
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    exact, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        if recipe.hardware.threads is not None:
            torch.set_num_threads(recipe.hardware.threads)
        if recipe.hardware.precision == "64-true":
            torch.set_default_dtype(torch.float64)  # what a network says would be rounded to it
        if recipe.training.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else cuBLAS may add in any order
            torch.use_deterministic_algorithms(True, warn_only=True)
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)
        torch.use_deterministic_algorithms(exact, warn_only=warns)


def _failure(action: Callable[[], Any]) -> Exception | None:
    try:
        action()
    except Exception as error:
        return error
    return None


def _require_same(recipe: Recipe, folder: RunFolder) -> None:
    """What decides the result must be what the folder was begun with; where and on what it runs may change."""
    file = folder.path / "recipe.yaml"
    if not file.is_file():
        return
    there, here = (_decisive(each.to_mapping()) for each in (read_recipe(file), recipe))
    different = [key for key in here if here[key] != there.get(key)]
    if different:
        key = different[0]
        raise ValueError(
            f"{folder.path} was begun with another recipe ({key} was {there.get(key)!r} and is {here[key]!r} now): "
            "choose another output.folder, or --resume never to start anew."
        )


def _decisive(recipe: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys and values, without those that do not change the numbers, or only by rounding."""
    found: dict[str, Any] = {}
    for key, value in recipe.items():
        name = f"{prefix}{key}"
        if name in ("about", "output", "hardware", "data.path", "data.cache", "data.workers"):
            continue
        if isinstance(value, Mapping):
            found |= _decisive(value, f"{name}.")
        else:
            found[name] = value
    return found


def _environment(fabric: Any) -> dict[str, Any]:
    device = fabric.device
    return {
        "machine": platform.machine(),
        "processor": platform.processor(),
        "system": platform.platform(terse=True),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processes": fabric.world_size,
        "threads": torch.get_num_threads(),
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    return {
        "sparseopt": sparseopt.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": version("lightning"),
        "numpy": np.__version__,
    }
