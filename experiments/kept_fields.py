"""What pruned click models still look at: how many of their fields, and how many hidden units.

    python -m sparseopt.experiments.kept_fields RUNS [--json FILE]

RUNS is a folder of runs by the recipes for clicks. In the first dense layer, hidden x (fields * width), field
j is in use if a weight in its columns j * width, ..., (j + 1) * width - 1 is not 0, unit i if one in row i is not. Two
methods that keep equally many blocks can put them all on few fields, or on many. Means over seeds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from safetensors.torch import load_file
from torch import Tensor

from sparseopt.console import columns

__all__ = ["Use", "in_use", "main", "uses"]

LAYER = "dense.0.weight"


class Use(NamedTuple):
    """Runs that differ in the seed only: means of the fields and units in use, and of the validation loss."""

    method: str
    block: int
    sparsity: float
    seeds: int
    fields: float
    units: float
    loss: float


def in_use(weight: Tensor, width: int) -> tuple[int, int]:
    """Fields and units with a nonzero weight.

    >>> import torch
    >>> weight = torch.zeros(4, 6)
    >>> weight[1, 2] = weight[1, 5] = 1.0
    >>> in_use(weight, width=2)
    (2, 1)
    """
    nonzero = weight != 0
    return int(nonzero.any(0).unflatten(0, (-1, width)).any(1).sum()), int(nonzero.any(1).sum())


def uses(folder: Path) -> list[Use]:
    """One entry per method, block size and sparsity.

    Raises
    ------
    ValueError
        When no finished run in the folder is of a pruned click model.
    """
    found: dict[tuple[str, int, float], list[tuple[int, int, float]]] = {}
    for settings, weight, loss in _runs(folder):
        pruning = settings["pruning"]
        key = pruning["method"], pruning["block"], pruning["sparsity"]
        found.setdefault(key, []).append((*in_use(weight, settings["model"]["embedding"]), loss))
    if not found:
        raise ValueError(f"{folder} has no finished run of a pruned click model: give the folder of the runs.")
    return [
        Use(*key, len(each), *(round(mean(values), 5) for values in zip(*each, strict=True)))
        for key, each in sorted(found.items(), key=lambda item: (item[0][1:], item[0][0]))
    ]


def _runs(folder: Path) -> Iterator[tuple[Mapping[str, Any], Tensor, float]]:
    for file in sorted(folder.glob("*/result.json")):
        result = json.loads(file.read_text(encoding="utf-8"))
        settings = result["recipe"]
        if settings["task"] == "clicks" and settings["pruning"] and result["metrics"]:
            weights = load_file(file.parent / "model.safetensors")
            yield settings, weights[LAYER], result["metrics"]["valid_loss"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; see `--help`."""
    parser = argparse.ArgumentParser(
        prog="python -m sparseopt.experiments.kept_fields",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", type=Path, metavar="RUNS")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there")
    options = parser.parse_args(arguments)
    found = uses(options.runs)
    rows = [("method", "block", "dropped", "seeds", "fields in use", "units in use", "loss")]
    for use in found:
        counts = f"{use.fields:.1f}", f"{use.units:.1f}", f"{use.loss:.4f}"
        rows.append((use.method, str(use.block), f"{100 * use.sparsity:g} %", str(use.seeds), *counts))
    print("\n".join(columns(rows, indent="")))
    if options.json is not None:
        options.json.write_text(json.dumps([use._asdict() for use in found], indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
