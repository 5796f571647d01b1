"""Which cell a run belongs to.

    cell    row (a method, or a variant of it), size of the blocks, share of the blocks that is dropped
    group   the runs of a cell that differ in nothing but the seed

Runs of one cell with different settings (data, epochs, batch, rates, ...) are different groups, and are never averaged.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sparseopt.experiments.tables.estimates import Estimate, estimate
from sparseopt.experiments.tables.runs import Collection, Left, Run

__all__ = [
    "DENSE",
    "EXPONENT",
    "KINDS",
    "OURS",
    "WITHOUT",
    "Cell",
    "Group",
    "Grouped",
    "Metric",
    "cell_of",
    "family_of",
    "grouped",
    "kind_of",
    "metric_of",
    "percent",
    "row_of",
]

KINDS = ("criteo", "imagenet", "cifar")
OURS = "sequential-attention++"
DENSE = "dense"
WITHOUT = f"{OURS} without sparsification"
EXPONENT = 4.0  # of the paper's tables, but Table 4


class Cell(NamedTuple):
    """A place in the tables. A side of 0 is the whole of a layer. Dense networks have neither blocks nor sparsity."""

    row: str
    block: tuple[int, int] | None
    sparsity: float | None  # percent


@dataclass(frozen=True)
class Group:
    """Runs with the same settings, by seed.

    Attributes
    ----------
    settings : dict
    values : dict
        seed -> the metric as it is printed; the mean, where a seed was run several times.
    diverged : tuple of int
        Seeds of which no run has come to an end.
    runs : tuple of Run
    repeated : tuple of int
        Seeds with several runs.
    """

    settings: Mapping[str, Any]
    values: Mapping[int, float]
    diverged: tuple[int, ...]
    runs: tuple[Run, ...]
    repeated: tuple[int, ...] = ()

    @property
    def estimate(self) -> Estimate:
        """Over the seeds that did not diverge."""
        return estimate(self.values.values())


@dataclass(frozen=True)
class Grouped:
    """All runs of one kind, by cell."""

    kind: str
    cells: Mapping[Cell, tuple[Group, ...]]
    left: tuple[Left, ...]

    @property
    def runs(self) -> list[Run]:
        """Those that are in a cell."""
        return [run for groups in self.cells.values() for group in groups for run in group.runs]


class Metric(NamedTuple):
    """What a table shows: a metric of the runs, whether less is better, its unit as printed, and digits."""

    name: str
    smaller: bool
    scale: float
    digits: int
    error_digits: int
    words: str


def metric_of(kind: str) -> Metric:
    """The metric of the paper's table."""
    if kind == "criteo":
        return Metric("valid_loss", True, 1.0, 4, 5, "validation loss")
    return Metric("valid_accuracy", False, 100.0, 2, 2, "validation accuracy, %")


def family_of(row: str) -> str:
    """What a row is about: a method as it is, or a variant that the paper looks at by itself."""
    return WITHOUT if row.startswith(WITHOUT) else "exponent" if row.startswith(f"{OURS}, c = ") else "method"


# -- runs --------------------------------------------------------------------------------------------------------------


def kind_of(settings: Mapping[str, Any]) -> str:
    """The table that a run belongs into: by its task, and for images by the layout of its data.

    >>> kind_of({"task": "images", "data.kind": "cifar"})
    'cifar'
    """
    if settings.get("task") == "clicks":
        return "criteo"
    if settings.get("task") == "images":
        return "cifar" if settings.get("data.kind") == "cifar" else "imagenet"
    return f"the task {settings.get('task')!r}"


def row_of(settings: Mapping[str, Any]) -> str:
    """The method, with what the paper varies in ablations.

    >>> row_of({"pruning.method": "sequential-attention++", "pruning.settings.c": 2, "pruning.sparsify": True})
    'sequential-attention++, c = 2'
    """
    method = settings.get("pruning.method", DENSE)
    if not isinstance(method, str):
        raise ValueError(f"pruning.method is {method!r}")
    if method != OURS:
        return method
    row = OURS if _sparsifies(settings) else WITHOUT
    c = float(settings.get("pruning.settings.c", EXPONENT))
    return row if c == EXPONENT else f"{row}, c = {c:g}"


def _sparsifies(settings: Mapping[str, Any]) -> bool:
    """Whether the schedule has sparsify phases; that of the method itself has."""
    schedule = settings.get("pruning.schedule", "own")
    if isinstance(schedule, str):
        return schedule == "own" or settings.get("pruning.sparsify") is not False
    return any(kind == "sparsify" for kind, _ in schedule)


def cell_of(settings: Mapping[str, Any]) -> Cell:
    """The cell of a run; ValueError for settings that no run can have had.

    >>> cell_of({"pruning.method": "ac/dc", "pruning.block": [5, None], "pruning.sparsity": 0.9})
    Cell(row='ac/dc', block=(5, 0), sparsity=90.0)
    """
    row = row_of(settings)
    if row == DENSE:
        return Cell(DENSE, None, None)
    block: Any = settings.get("pruning.block")
    share: Any = settings.get("pruning.sparsity")
    sides = tuple(0 if side is None else side for side in block) if isinstance(block, (list, tuple)) else (block,) * 2
    if len(sides) != 2 or not all(type(side) is int and side >= 0 for side in sides) or not any(sides):
        raise ValueError(f"pruning.block is {block!r}")
    if type(share) not in (int, float) or not 0.0 <= share < 1.0:
        raise ValueError(f"pruning.sparsity is {share!r}")
    return Cell(row, (sides[0], sides[1]), percent(100.0 * share))


def percent(value: float) -> float:
    return float(f"{value:.8g}")  # 100 * 0.97 and 97 are the same column


def grouped(collection: Collection, kind: str) -> Grouped:
    """The runs of a kind by cell and settings; runs of other kinds are left out by name."""
    metric = metric_of(kind)
    left = list(collection.left)
    found: dict[Cell, dict[str, list[Run]]] = {}
    for run in collection.runs:
        try:
            cell, its = cell_of(run.settings), kind_of(run.settings)
        except (ValueError, TypeError) as error:
            left.append(Left(run.name, f"damaged: its {error}"))
            continue
        if its != kind:
            left.append(Left(run.name, f"foreign: a run of {its}"))
        elif not run.diverged and metric.name not in run.metrics:
            left.append(Left(run.name, f"damaged: its result.json has no {metric.name}"))
        else:
            text = json.dumps(_relevant(run.settings), sort_keys=True)
            found.setdefault(cell, {}).setdefault(text, []).append(run)
    cells = {cell: tuple(_group(runs, metric) for _, runs in sorted(groups.items())) for cell, groups in found.items()}
    return Grouped(kind, cells, tuple(left))


def _relevant(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Without what says the same as its absence: c = 4, sparsify phases, and on dense networks all words on pruning."""
    if row_of(settings) == DENSE:
        return {key: value for key, value in settings.items() if not key.startswith("pruning.")}
    usual = {"pruning.settings.c": EXPONENT, "pruning.sparsify": True} if settings["pruning.method"] == OURS else {}
    return {key: value for key, value in settings.items() if key not in usual or value != usual[key]}


def _group(runs: Sequence[Run], metric: Metric) -> Group:
    by_seed: dict[int, list[Run]] = {}
    for run in runs:
        by_seed.setdefault(run.seed, []).append(run)
    values, diverged = {}, []
    for seed, mine in sorted(by_seed.items()):
        done = [metric.scale * run.metrics[metric.name] for run in mine if not run.diverged]
        if done:
            values[seed] = math.fsum(done) / len(done)
        else:
            diverged.append(seed)
    repeated = tuple(seed for seed, mine in sorted(by_seed.items()) if len(mine) > 1)
    return Group(_relevant(runs[0].settings), values, tuple(diverged), tuple(runs), repeated)
