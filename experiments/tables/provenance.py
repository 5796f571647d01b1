"""Where runs come from, and where they did not go.

about      examples, epochs, batches and seeds, beside the paper's: levels compare only if these are the same
tuned      the settings in which runs differ, with the methods that have each value
left_out   every folder that is in no table, and why
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sparseopt.experiments.tables.cells import DENSE, Grouped
from sparseopt.experiments.tables.comparing import differing
from sparseopt.experiments.tables.runs import Run
from sparseopt.experiments.tables.text import Heading, Items, Part

__all__ = ["about", "left_out", "tuned"]

# Examples, epochs and batch of the paper's training, and how it says so.
_PAPER: Mapping[str, tuple[int, float, int, str]] = {
    "criteo": (33_000_000, 25, 32768, "33 million training rows, 25 epochs, batches of 32768; means of three runs"),
    "imagenet": (1_281_167, 90, 2048, "1.28 million training images, 90 epochs, batches of 2048"),
}
_CELL = ("pruning.method", "pruning.block", "pruning.sparsity", "pruning.settings.c", "pruning.sparsify")


def about(data: Grouped) -> list[Part]:
    """What ours were trained on and for how long, beside the paper's, and whether levels can be compared."""
    if not data.runs:
        return [f"No finished run of {data.kind} was found: every cell says so."]
    lines: dict[str, list[Run]] = {}
    for run in data.runs:
        lines.setdefault(_training(run.settings), []).append(run)
    told = []
    for line, runs in lines.items():
        seeds = ", ".join(map(str, sorted({run.seed for run in runs})))
        told.append(f"Ours: {line}; {len(runs)} {'run' if len(runs) == 1 else 'runs'}, seeds {seeds}.")
    if data.kind not in _PAPER:
        return [Items((*told, "The paper has no figures for CIFAR-10."))]
    told.append(f"The paper: {_PAPER[data.kind][3]}.")
    if all(_as_in_the_paper(run.settings, data.kind) for run in data.runs):
        told.append("Examples, epochs and batches are the paper's, so levels can be compared.")
    else:
        told.append("Levels are therefore not comparable with the paper's: the order of the methods is.")
    return [Items(tuple(told))]


def _count(settings: Mapping[str, Any], part: str) -> Any:
    return settings.get(f"facts.{part}_rows", settings.get(f"facts.{part}_images"))


def _training(settings: Mapping[str, Any]) -> str:
    noun = "rows" if settings.get("task") == "clicks" else "images"
    train, valid = _count(settings, "train"), _count(settings, "valid")
    sizes = ", ".join(
        f"{n:,} {noun} for {what}" if isinstance(n, int) else f"an unknown number of {noun} for {what}"
        for n, what in ((train, "training"), (valid, "validation"))
    )
    held = settings.get("data.holdout")
    if held:
        sizes += f" (held out of the training {noun}: {100.0 * held:g} %)"
    units = [unit for unit in ("epochs", "steps") if f"training.{unit}" in settings]
    length = [f"{settings[f'training.{unit}']:g} {unit}" for unit in units]
    where = settings.get("data.path", "unknown data")
    return f"{where}, {sizes}; {' '.join(length) or 'unknown length'}, batches of {settings.get('training.batch', '?')}"


def _as_in_the_paper(settings: Mapping[str, Any], kind: str) -> bool:
    examples, epochs, batch, _ = _PAPER[kind]
    train = _count(settings, "train")
    close = isinstance(train, int) and abs(train / examples - 1.0) < 0.02
    asked = (settings.get("training.epochs"), settings.get("training.batch"))
    return close and asked == (epochs, batch) and not settings.get("data.holdout")


def tuned(data: Grouped) -> list[Part]:
    """The settings that differ between runs besides the cell and the seed: value, and the rows that have it."""
    rows: dict[str, dict[str, list[str]]] = {}
    settings = [(cell.row, group.settings) for cell, groups in data.cells.items() for group in groups]
    pruned = [each for row, each in settings if row != DENSE]
    keys = dict.fromkeys(key for each in (pruned, [s for _, s in settings]) for key in differing(each or [{}]))
    for key in keys:
        if key in _CELL:
            continue
        for row, each in settings:
            if row == DENSE and key.startswith("pruning."):
                continue
            value = json.dumps(each.get(key)) if key in each else "-"
            names = rows.setdefault(key, {}).setdefault(value, [])
            if row not in names:
                names.append(row)
    lines = [
        f"{key}: " + "; ".join(f"{value} ({', '.join(sorted(names))})" for value, names in values.items())
        for key, values in sorted(rows.items())
        if len(values) > 1
    ]
    heading = Heading("Settings that differ, besides method, blocks, sparsity and seed")
    return [heading, Items(tuple(lines))] if lines else []


def left_out(data: Grouped) -> list[Part]:
    """Every folder that is in no table."""
    if not data.left:
        return []
    lines = tuple(f"{each.name}: {each.why}" for each in sorted(data.left, key=lambda each: each.name))
    n = len(lines)
    return [Heading(f"In no table: {n} {'folder' if n == 1 else 'folders'}"), Items(lines)]
