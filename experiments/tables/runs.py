"""What a folder of runs holds: a record for every finished run, and the name of everything that is none.

    FOLDER/*/result.json      what was asked, what came out, and the course of the metrics
    FOLDER/*/recipe.yaml      what was asked; without a result.json the run is not finished
    FOLDER/*/steps.csv        training loss, phase and sparsity every few steps
    FOLDER/*/pruning.jsonl    phases, and the sparsity after every choice of blocks

A record keeps what can change the result (`settings`), and of the curves at most `POINTS` lines.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["POINTS", "Collection", "Left", "Run", "flat", "read_folder", "thinned"]

POINTS = 120  # lines of a curve that are kept

# Where results go, and how fast they come: nothing that changes them.
_WITHOUT_EFFECT = ("name", "about", "output", "sweep", "variants", "data.workers", "data.cache", "hardware.threads")
_SEED = "training.seed"
_UNUSED = ("epoch", "phase", "sparsity", "lr", "seconds")  # columns of tables that follow from others, or are not drawn

Column = list[Any]


@dataclass(frozen=True)
class Run:
    """One finished run.

    Attributes
    ----------
    name : str
        Its folder, below the one that was read.
    settings : dict
        Everything that can change the result but the seed, by dotted key; what is None is left out.
    seed : int
    metrics : dict of float
        At the end, such as "valid_loss", and "dropped", the share of zeros; empty if the run diverged.
    diverged : bool
    curves : dict
        "steps", "epochs" and "pruning", the sparsity after every choice of blocks: columns by name, thinned.
    phases : list of [kind, steps]
        What the training went through; empty if that is not known.
    """

    name: str
    settings: dict[str, Any]
    seed: int
    metrics: dict[str, float]
    diverged: bool = False
    curves: dict[str, dict[str, Column]] = field(default_factory=dict)
    phases: list[list[Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Left:
    """A run that is in no table, and why."""

    name: str
    why: str


@dataclass(frozen=True)
class Collection:
    """All runs of a folder or file, and what was left out."""

    runs: tuple[Run, ...]
    left: tuple[Left, ...] = ()


def read_folder(path: Path) -> Collection:
    """All runs below a folder.

    Raises
    ------
    ValueError
        When nothing in it looks like a run.
    """
    folders = sorted({file.parent for name in ("result.json", "recipe.yaml") for file in path.rglob(name)})
    if not folders:
        raise ValueError(f"{path} holds no run, that is no folder with a result.json: give the folder of the runs.")
    runs, left = [], []
    for folder in folders:
        name = folder.relative_to(path).as_posix()
        try:
            runs.append(_read(folder, path.name if name == "." else name))
        except _Left as why:
            left.append(Left(name, str(why)))
        except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
            left.append(Left(name, f"damaged: {type(error).__name__}: {' '.join(str(error).split())}"))
    return Collection(tuple(runs), tuple(left))


class _Left(ValueError):
    """Why a folder is no finished run."""


def _read(folder: Path, name: str) -> Run:
    file = folder / "result.json"
    if not file.is_file():
        raise _Left("not finished: no result.json")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _Left(f"damaged: result.json is no JSON ({error})") from None
    if not isinstance(content, dict) or not isinstance(content.get("recipe"), dict):
        raise _Left("foreign: its result.json has no recipe, so that training by a recipe has not written it")
    if content.get("finished") is False:
        raise _Left("not finished: its result.json says so")
    steps, epochs = _table(folder / "steps.csv"), _columns(content.get("curve"))
    settings, seed = _settings(content["recipe"], content.get("facts"))
    metrics, diverged = _outcome(content)
    events = _events(folder / "pruning.jsonl")
    curves = {"steps": thinned(steps), "epochs": thinned(epochs), "pruning": _chosen(events)}
    return Run(name, settings, seed, metrics, diverged, curves, _phases(events, steps))


def _settings(recipe: Mapping[str, Any], facts: Any) -> tuple[dict[str, Any], int]:
    every = flat(recipe)
    seed = every.pop(_SEED, None)
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise _Left(f"damaged: its {_SEED} is {seed!r}, not a whole number")
    if isinstance(facts, Mapping):  # the same path may hold other rows
        every |= flat({"facts": facts})
    return {key: value for key, value in sorted(every.items()) if value is not None and not _without_effect(key)}, seed


def _without_effect(key: str) -> bool:
    return any(key == each or key.startswith(each + ".") for each in _WITHOUT_EFFECT)


def _outcome(content: Mapping[str, Any]) -> tuple[dict[str, float], bool]:
    """Metrics, and whether there are none since the loss was not finite any more."""
    metrics = content.get("metrics")
    if content.get("diverged"):
        return {}, True
    if not isinstance(metrics, Mapping) or "valid_loss" not in metrics:
        raise _Left("damaged: its result.json has no metrics with a valid_loss")
    if metrics["valid_loss"] is None:  # JSON has no word for infinity or not-a-number
        return {}, True
    every = {**metrics, "dropped": content.get("dropped")}
    return {str(key): float(value) for key, value in every.items() if _is_number(value)}, False


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def flat(nested: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys.

    >>> flat({"training": {"lr": 0.1, "seed": 0}, "task": "clicks"})
    {'training.lr': 0.1, 'training.seed': 0, 'task': 'clicks'}
    """
    found: dict[str, Any] = {}
    for key, value in nested.items():
        found |= flat(value, f"{before}{key}.") if isinstance(value, Mapping) else {f"{before}{key}": value}
    return found


# -- curves ------------------------------------------------------------------------------------------------------------


def thinned(columns: Mapping[str, Sequence[Any]], points: int = POINTS) -> dict[str, Column]:
    """At most `points` lines, evenly spaced, the first and the last among them; numbers to five digits.

    >>> thinned({"step": [1, 2, 3, 4, 5], "loss": [0.123456, 0.2, 0.3, 0.4, 0.5]}, points=3)
    {'step': [1, 3, 5], 'loss': [0.12346, 0.3, 0.5]}
    """
    n = min((len(column) for column in columns.values()), default=0)
    chosen = range(n) if n <= points else [round(i * (n - 1) / (points - 1)) for i in range(points)]
    return {name: [_short(column[i]) for i in chosen] for name, column in columns.items()}


def _short(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _table(file: Path) -> dict[str, Column]:
    if not file.is_file():
        return {}
    text = file.read_text(encoding="utf-8")
    return _columns(list(csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]))))  # without half a last line


def _columns(rows: Any) -> dict[str, Column]:
    """Columns by name; what is no number is None."""
    if not isinstance(rows, list) or not rows:
        return {}
    names = [name for name in rows[0] if name not in _UNUSED]
    return {name: [_number(row.get(name)) for row in rows] for name in names}


def _number(value: Any) -> float | int | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    if not math.isfinite(number):
        return None
    return int(number) if number.is_integer() else number


def _events(file: Path) -> list[dict[str, Any]]:
    """The lines of a log of events, up to one that a killed process left half written."""
    found: list[dict[str, Any]] = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found


def _phases(events: Sequence[Mapping[str, Any]], steps: Mapping[str, Sequence[Any]]) -> list[list[Any]]:
    """[kind, steps] in turn, from the first step of every phase to that of the next, or to the last step."""
    starts = [(event["step"], event["phase"]) for event in events if event["what"] == "enter"]
    if not starts or not steps.get("step"):
        return []
    ends = [step for step, _ in starts[1:]] + [max(steps["step"])]
    return [[kind, end - start] for (start, kind), end in zip(starts, ends, strict=True) if end > start]


def _chosen(events: Sequence[Mapping[str, Any]], most: int = 8) -> dict[str, Column]:
    """Steps and sparsities of the events: all that begin a phase, and at most `most` within each."""
    kept: list[Mapping[str, Any]] = []
    within: list[Mapping[str, Any]] = []
    for event in (*events, None):
        if event is None or event["what"] == "enter":
            inner = thinned({"i": list(range(len(within)))}, most)["i"]
            kept += [within[i] for i in inner]
            kept += [event] if event is not None else []
            within = []
        else:
            within.append(event)
    return {name: [_short(event[name]) for event in kept] for name in ("step", "sparsity")}
