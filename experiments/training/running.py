"""From a recipe to a finished run folder.

    recipe -> examples -> network, masks, optimizer -> steps -> folded and compressed network, result.json, pictures

The same call starts a run, goes on with one that was interrupted, and returns the result of one that is finished.
"""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sparseopt
from sparseopt.experiments.training.engine import Diverged, Trainer
from sparseopt.experiments.training.finishing import finish
from sparseopt.experiments.training.launching import make_fabric
from sparseopt.experiments.training.recipes import Recipe, read_recipe
from sparseopt.experiments.training.resuming import restore
from sparseopt.experiments.training.run_folder import RunFolder
from sparseopt.experiments.training.tasks import make_task

__all__ = ["run_recipe"]

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
    """
    if name is None:
        cell = recipe.single()
        name, recipe = cell.name, cell.recipe
    if recipe.hardware.threads is not None:
        torch.set_num_threads(recipe.hardware.threads)
    folder = RunFolder(Path(recipe.output.folder) / name)
    fabric = make_fabric(recipe.hardware)
    fabric.launch()
    first = fabric.is_global_zero
    with folder.owned() if first else contextlib.nullcontext():
        return _run(recipe, resume, progress, say if first else lambda sentence: None, folder, fabric)


def _run(
    recipe: Recipe, resume: str, progress: bool, say: Any, folder: RunFolder, fabric: Any
) -> dict[str, Any] | None:
    known = folder.read_json("result.json")
    if resume == "auto":
        _require_same(recipe, folder)
        if known is not None:
            say(f"{folder.path} is finished.")
            return dict(known) if fabric.is_global_zero else None
    fabric.barrier()  # all have looked before the first changes anything
    if fabric.is_global_zero:
        if resume == "never":
            folder.clear()
        folder.write("recipe.yaml", recipe.to_yaml())
        folder.write_json("environment.json", _environment(fabric))
    if recipe.training.deterministic:
        torch.use_deterministic_algorithms(True, warn_only=True)
    with fabric.rank_zero_first():
        task = make_task(recipe, Path(recipe.output.folder) / "data")
    run = Trainer(recipe, task, fabric, folder)
    path = restore(run)
    if path is not None:
        say(f"goes on from {path}, after {run.step} of {run.total} steps.")
    elif fabric.is_global_zero:
        folder.rewind(0)
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
    if fabric.is_global_zero:
        result["curve"] = [
            {key: float(value) if key != "phase" else value for key, value in row.items()}
            for row in folder.table("epochs.csv")
        ]
        if result["metrics"] is not None:
            result["metrics"]["train_loss"] = result["curve"][-1]["train_loss"]
        folder.write_json("result.json", result)
        folder.forget_old_checkpoints(0 if result["metrics"] is not None else 1)
    fabric.barrier()
    return result if fabric.is_global_zero else None


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
