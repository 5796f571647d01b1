"""A click training that takes half a second, and the command line in a forked process. Imported by tests of training.

Importing torch and Lightning takes far longer than such a training. So scripts that need many processes import
everything once, train nothing themselves, and fork.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

STEPS, CHECKPOINT, EVALUATE, LOG = 24, 5, 8, 3

# Dropout, so that random numbers matter; an epoch ends inside of the training, and a phase inside of an epoch.
RECIPE: dict[str, Any] = {
    "task": "clicks",
    "data": {"path": "columns"},
    "model": {"name": "click", "embedding": 4, "hidden": [32, 16], "dropout": 0.1},
    "pruning": {
        "method": "sequential-attention++",
        "sparsity": 0.5,
        "block": 8,
        "min_blocks": 1,
        "include": ["dense.0"],
        "schedule": [["dense", 0.25], ["sparsify", 0.5], ["sparse", 0.25]],
        "logit_lr": 10,
    },
    "training": {
        "steps": STEPS,
        "batch": 128,
        "lr": 0.01,
        "final_lr": 0.001,
        "decay": "exponential",
        "warmup": 0.2,
        "weight_decay": 1e-4,
    },
    "hardware": {"accelerator": "cpu", "threads": 1},
    "output": {
        "folder": "runs",
        "checkpoint_steps": CHECKPOINT,
        "evaluate_steps": EVALUATE,
        "log_steps": LOG,
        "compress": False,
        "plots": False,
        "tensorboard": False,
    },
}
NAME = "sequential-attention-pp_b8_s50_seed0"


def recipe(**sections: dict[str, Any]) -> dict[str, Any]:
    """`RECIPE` with other values in its sections."""
    return {
        key: {**value, **sections.get(key, {})} if isinstance(value, dict) else value for key, value in RECIPE.items()
    }


def write_recipe(file: Path, **sections: dict[str, Any]) -> Path:
    file.write_text(yaml.safe_dump(recipe(**sections), sort_keys=False), encoding="utf-8")
    return file


def write_rows(folder: Path, rows: int = 2000) -> Path:
    """Raw rows in a folder: 15 batches of 128, and 400 for validation."""
    from sparseopt.experiments.clicks.synthetic import write_raw

    folder.mkdir(parents=True, exist_ok=True)
    write_raw(folder / "train.tsv.gz", rows, seed=1)
    write_raw(folder / "valid.tsv.gz", 400, seed=1, part=1)
    return folder


def table(folder: Path, name: str) -> list[dict[str, str]]:
    """The lines of a table of a run, without the time they took."""
    from sparseopt.experiments.training.run_folder import RunFolder

    rows = RunFolder(folder).table(name)
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def outcome(folder: Path) -> dict[str, Any]:
    """All that a run leaves behind, as it must be whatever happened on the way."""
    result = json.loads((folder / "result.json").read_text())
    return {
        "files": sorted(file.name for file in folder.iterdir()),
        "steps.csv": table(folder, "steps.csv"),
        "epochs.csv": table(folder, "epochs.csv"),
        "pruning.jsonl": (folder / "pruning.jsonl").read_text(),
        "model.safetensors": (folder / "model.safetensors").read_bytes(),
        **{key: result[key] for key in ("metrics", "dropped", "steps", "curve")},
    }


def different(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The keys whose values differ."""
    return sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))


class Forked:
    """A process that runs `sparseopt` with some arguments.

    Parameters
    ----------
    arguments : list
    prepare : callable, optional
        Called in the new process first.
    environment : dict of str to str, optional
        What is added to that of this process.
    """

    def __init__(
        self, arguments: list[Any], prepare: Callable[[], None] | None = None, environment: dict[str, str] | None = None
    ) -> None:
        self._read, write = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            status = 99
            try:
                os.close(self._read)
                os.dup2(write, 1)
                os.dup2(write, 2)
                # The old ones remember what their parent's output was: a file in which one can seek, for example.
                sys.stdout, sys.stderr = (open(fd, "w", encoding="utf-8", closefd=False) for fd in (1, 2))
                os.environ.update(environment or {})
                status = _run(arguments, prepare)
            finally:  # whatever happens, this process must not go on with what its parent does
                os._exit(status)
        os.close(write)

    def wait(self) -> tuple[int, str]:
        """How it ended, negative for a signal and 99 for an exception, and what it said."""
        with open(self._read, encoding="utf-8", errors="replace") as said:
            words = said.read()  # until its end, and that of processes that it started
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]), words


def _run(arguments: list[Any], prepare: Callable[[], None] | None) -> int:
    try:
        if prepare:
            prepare()
        from sparseopt.cli import main

        status = main([str(argument) for argument in arguments])
        sys.stdout.flush()
        sys.stderr.flush()
        return status
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        return 99
