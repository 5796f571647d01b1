"""The same number of settings tried for every method, judged on held-out training examples.

    python -m sparseopt.experiments.tuning criteo-laptop data=DIR --jobs 2 --json tuning.json

The recipe is for one training; the candidates lie beside it in recipes/tuning, or in the file that --candidates names:
the conditions of tuning, settings that all methods try, and for each method settings of its own,

    at: {pruning.block: 10, pruning.sparsity: 0.95, data.holdout: 0.1}
    seeds: [100, 101]
    common: [{training.lr: 0.02}, {training.lr: 0.003}]
    own: {magnitude: [{...}, {...}], ac/dc: [{...}, {...}]}

A candidate is one of the common settings with one of the method's own. Every candidate is trained with every seed; the
best mean wins, the first of equals. All methods must have equally many candidates. The validation examples are never
read: with `data.holdout` a share of the training examples takes their place, and seeds are not used again. Finished
trainings are not repeated.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from statistics import mean
from typing import Any

import yaml

from sparseopt.console import columns
from sparseopt.experiments.training.overrides import parsed
from sparseopt.experiments.training.recipes import Cell, Recipe, read_recipe
from sparseopt.experiments.training.sweeping import run_sweep

__all__ = ["best", "candidates", "main", "read_candidates", "trials"]


def read_candidates(file: str) -> dict[str, Any]:
    """The contents of a file of candidates.

    Raises
    ------
    ValueError
        When methods have different numbers of candidates, or nothing is held out.
    """
    found = parsed(Path(file).read_text(encoding="utf-8"), file)
    if not isinstance(found, dict) or set(found) != {"at", "seeds", "common", "own"}:
        raise ValueError(f"{file} is no file of candidates: it has the keys at, seeds, common and own, and no others.")
    counts = {method: len(each) for method, each in found["own"].items()}
    if len(set(counts.values())) != 1:
        raise ValueError(f"{file} has different numbers of candidates ({counts}): give every method as many.")
    if not found["at"].get("data.holdout"):
        raise ValueError(f"{file} holds nothing out: set data.holdout, so that the validation examples stay unseen.")
    return found


def candidates(asked: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The settings that are tried for each method.

    >>> candidates({"common": [{"a": 1}, {"a": 2}], "own": {"m": [{"b": 3}]}})
    {'m': [{'a': 1, 'b': 3}, {'a': 2, 'b': 3}]}
    """
    return {
        method: [{**shared, **settings} for settings in own for shared in asked["common"]]
        for method, own in asked["own"].items()
    }


def trials(recipe: Recipe, asked: Mapping[str, Any]) -> Iterator[tuple[str, int, Cell]]:
    """(method, number of the candidate, training) of everything that is to be run."""
    for method, tried in candidates(asked).items():
        for number, candidate in enumerate(tried):
            for seed in asked["seeds"]:
                values = {**asked["at"], "pruning.method": method, "training.seed": seed, **candidate}
                changes = [f"{key}={yaml.safe_dump(value, default_flow_style=True)}" for key, value in values.items()]
                one = recipe.override([change.removesuffix("\n").removesuffix("\n...") for change in changes]).single()
                yield method, number, Cell(f"{_word(method)}_{number}_seed{seed}", one.recipe, one.values)


def best(scores: Mapping[int, Sequence[float]], smaller: bool) -> int:
    """The candidate with the best mean; of equals the first. One that failed with any seed is out.

    >>> best({0: [0.52, 0.50], 1: [0.49, 0.51], 2: [0.40, float("nan")]}, smaller=True)
    1
    """
    means = {number: mean(each) for number, each in scores.items() if each and all(x == x for x in each)}
    if not means:
        raise ValueError("no candidate was trained to the end with all seeds: try smaller learning rates.")
    return (min if smaller else max)(means, key=means.__getitem__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, print the table, write the file."""
    options = _parser().parse_args(arguments)
    shipped = files("sparseopt.experiments").joinpath("recipes", "tuning", f"{Path(options.recipe).stem}.yaml")
    asked = read_candidates(options.candidates or str(shipped))
    recipe = read_recipe(options.recipe, [*options.overrides, "output.compress=false", "output.plots=false"])
    metric, smaller = ("valid_loss", True) if recipe.task == "clicks" else ("valid_accuracy", False)
    runs = {cell.name: (method, number, cell) for method, number, cell in trials(recipe, asked)}
    scores: dict[str, dict[int, list[float]]] = {
        method: {number: [] for number in range(len(each))} for method, each in candidates(asked).items()
    }
    for outcome in run_sweep([cell for _, _, cell in runs.values()], options.jobs):
        method, number, _ = runs[outcome.name]
        metrics = (outcome.result or {}).get("metrics")
        scores[method][number].append(float("nan") if metrics is None else metrics[metric])
        print(f"{outcome.name}: {outcome.failure or scores[method][number][-1]}", file=sys.stderr, flush=True)
    result = _result(asked, scores, metric, smaller)
    print("\n".join(_table(result)))
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


def _result(
    asked: Mapping[str, Any], scores: Mapping[str, Mapping[int, Sequence[float]]], metric: str, smaller: bool
) -> dict[str, Any]:
    methods = {}
    for method, found in scores.items():
        tried = [
            {"settings": settings, "scores": [round(x, 5) if x == x else None for x in sorted(found[number])]}
            for number, settings in enumerate(candidates(asked)[method])
        ]
        methods[method] = {"best": best(found, smaller), "tried": tried}
    return {"metric": metric, "at": asked["at"], "seeds": asked["seeds"], "methods": methods}


def _table(result: Mapping[str, Any]) -> list[str]:
    rows = [("method", "settings", "mean", "")]
    for method, found in result["methods"].items():
        for number, trial in enumerate(found["tried"]):
            known = [score for score in trial["scores"] if score is not None]
            shown = f"{mean(known):.4f}" if len(known) == len(trial["scores"]) else "failed"
            settings = ", ".join(f"{key.split('.')[-1]}={value}" for key, value in trial["settings"].items())
            rows.append((method, settings, shown, "best" if number == found["best"] else ""))
    return columns(rows, indent="", left=2)


def _word(method: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in method)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sparseopt.experiments.tuning",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", metavar="RECIPE")
    parser.add_argument("overrides", metavar="key=value", nargs="*")
    parser.add_argument("--candidates", metavar="FILE", help="default: those shipped for the recipe")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="trainings at a time (1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all scores and the choices there")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
