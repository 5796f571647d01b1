"""Finished runs that nobody ran, for the tests of tables and their figures: folders as training leaves them.

Numbers are made up from names, so that all differ, and are far from anything that a network could reach: losses above
7, accuracies below 9 %.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from sparseopt.experiments.tables import Run
from sparseopt.experiments.tables.text import Grid, Heading, Part

OURS = "sequential-attention++"
DENSE = "dense"
CRITEO = ("magnitude", "power-propagation", "ac/dc", OURS)
FACTS = {"train_rows": 4321, "valid_rows": 765, "fields": 39, "ids": 99}


def recipe(method: Any, block: Any, sparsity: float, seed: Any, **changes: Any) -> dict[str, Any]:
    """A complete recipe of clicks; `changes` are dotted keys with __ for the dots."""
    asked: dict[str, Any] = {
        "name": "made-up",
        "task": "clicks",
        "data": {"path": "made-up/rows", "min_count": 10, "holdout": 0.0, "cache": None},
        "model": {"name": "click", "embedding": 10, "hidden": [400, 400, 400]},
        "pruning": None,
        "training": {"epochs": 4.0, "steps": None, "batch": 64, "lr": 0.01, "seed": seed},
        "hardware": {"precision": "32-true", "threads": None},
        "output": {"folder": "runs", "log_steps": 10},
    }
    if method is not None:
        schedule = {"schedule": "criteo", "sparsify": None, "settings": {}}
        asked["pruning"] = {"method": method, "block": block, "sparsity": sparsity, **schedule}
    for key, value in changes.items():
        *path, last = key.split("__")
        place = asked
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    return asked


def images(method: str | None, block: Any, sparsity: float, seed: int, **changes: Any) -> dict[str, Any]:
    """The same of images in folders."""
    data = {"path": "made-up/images", "kind": changes.pop("kind", "folder"), "workers": 4, "holdout": 0.0}
    asked = recipe(method, block, sparsity, seed, **changes)
    if asked["pruning"] is not None:
        asked["pruning"]["schedule"] = "imagenet"
    return {**asked, "task": "images", "data": data, "model": {"name": "resnet50"}}


def chance(*words: Any) -> float:
    """A number in [0, 1) that follows from words."""
    return zlib.crc32(repr(words).encode()) / 2**32


def write(
    folder: Path, asked: Mapping[str, Any], value: float | None, steps: int = 400, curves: bool = True, **more: Any
) -> Path:
    """A finished run in `folder`, with the loss or share `value`; None diverged."""
    folder.mkdir(parents=True)
    metric = "valid_loss" if asked["task"] == "clicks" else "valid_accuracy"
    metrics = None if value is None else {"valid_loss": 7.0, metric: value, "train_loss": 7.25}
    facts = FACTS if asked["task"] == "clicks" else {"train_images": 987, "valid_images": 123}
    result = {"version": 1, "name": folder.name, "finished": True, "recipe": asked, "facts": facts, "metrics": metrics}
    result |= {"diverged": "the training loss is nan"} if value is None else {"dropped": 0.5}
    lines = course(asked, steps, value) if curves else []
    result["curve"] = [{**line, metric: line["loss"]} for line in lines[9::10]]
    (folder / "result.json").write_text(json.dumps({**result, **more}), encoding="utf-8")
    (folder / "recipe.yaml").write_text("made: up\n", encoding="utf-8")
    if lines:
        names = list(lines[0])
        rows = [",".join(names), *(",".join(str(line[name]) for name in names) for line in lines)]
        (folder / "steps.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
        events = happened(asked, steps)
        (folder / "pruning.jsonl").write_text("".join(json.dumps(each) + "\n" for each in events), encoding="utf-8")
    return folder


def phases(asked: Mapping[str, Any], steps: int) -> Sequence[tuple[str, int]]:
    """(kind, steps) of a run: one dense phase without pruning; two thirds of the steps dense for magnitude."""
    pruning = asked["pruning"]
    if pruning is None:
        return [("dense", steps)]
    if pruning["method"] in ("magnitude", "power-propagation"):
        return [("dense", steps * 2 // 3), ("sparse", steps - steps * 2 // 3)]
    kinds = ("sparsify", "sparse", "dense") if pruning["method"] == OURS else ("sparse", "dense")
    each = steps * 6 // 10 // 5 // len(kinds)
    cycles = [(kind, each) for _ in range(5) for kind in kinds]
    start = steps // 5
    return [("dense", start), *cycles, ("sparse", steps - start - 5 * each * len(kinds))]


def course(asked: Mapping[str, Any], steps: int, value: float | None) -> list[dict[str, Any]]:
    """A line every ten steps: a loss that falls, and is higher where blocks are missing."""
    target = 0.0 if asked["pruning"] is None else asked["pruning"]["sparsity"]
    lines, end = [], value if value is not None else 7.9
    for kind, start, stop in _spans(asked, steps):
        for step in range(start - start % 10 + 10, stop + 1, 10):
            t = (step - start) / max(1, stop - start)
            share = {"dense": 0.0, "sparsify": math.expm1(-4.0 * t) / math.expm1(-4.0), "sparse": 1.0}[kind]
            noise = 0.05 * (chance(json.dumps(asked), step) - 0.5)
            loss = end + 2.0 * math.exp(-4.0 * step / steps) + 0.3 * share * math.exp(-2.0 * t) + noise
            line = {"step": step, "epoch": step / 100, "phase": kind, "sparsity": target * share}
            lines.append({**line, "lr": 0.01, "loss": loss, "seconds": step / 7})
    return lines


def happened(asked: Mapping[str, Any], steps: int) -> list[dict[str, Any]]:
    """The events of a run: each phase begins, and in a sparsify phase blocks leave at every step."""
    target = 0.0 if asked["pruning"] is None else asked["pruning"]["sparsity"]
    events = []
    for number, (kind, start, stop) in enumerate(_spans(asked, steps)):
        told = {"phase": kind, "number": number}
        begins = target if kind == "sparse" else 0.0
        events.append({"step": start, "what": "enter", **told, "sparsity": begins})
        for step in range(start + 1, stop) if kind == "sparsify" else ():
            share = target * math.expm1(-4.0 * (step - start) / (stop - start)) / math.expm1(-4.0)
            events.append({"step": step, "what": "choose", **told, "sparsity": share})
    return events


def _spans(asked: Mapping[str, Any], steps: int) -> list[tuple[str, int, int]]:
    spans, at = [], 0
    for kind, length in phases(asked, steps):
        spans.append((kind, at, at + length))
        at += length
    return spans


def made_up_loss(method: str | None, block: Any, sparsity: float, seed: int) -> float:
    """Falls with the sparsity, grows with the blocks; SequentialAttention++ a little lower."""
    rank = (*CRITEO, None).index(method)
    height = 0.0 if method is None else 0.4 * sparsity**8 * (5 - rank) / 5 + 0.01 * block * sparsity
    return 7.0 + height + 0.02 * chance(method, block, sparsity, seed)


def criteo(folder: Path, seeds: int = 3) -> Path:
    """Runs of all methods but one at most cells of Table 2, a diverged run, and the dense network."""
    for seed in range(seeds):
        write(folder / f"dense_{seed}", recipe(None, 0, 0.0, seed), made_up_loss(None, 0, 0.0, seed))
        for method in ("magnitude", "ac/dc", OURS):
            for block in (5, 20):
                for sparsity in (0.9, 0.95, 0.97, 0.98, 0.99):
                    if (method, block, sparsity) == ("magnitude", 20, 0.97):
                        continue
                    asked = recipe(method, block, sparsity, seed)
                    lost = (method, block, sparsity) == ("ac/dc", 20, 0.99)
                    value = None if lost else made_up_loss(method, block, sparsity, seed)
                    name = f"{method.replace('/', '')}_{block}_{sparsity:g}_{seed}"
                    write(folder / name, asked, value)
    return folder


def imagenet(folder: Path, seeds: int = 2) -> Path:
    """A few runs for Tables 1, 3 and 4."""
    for seed in range(seeds):
        write(folder / f"dense_{seed}", images(None, 0, 0.0, seed), 0.089 + 0.001 * seed)
        for block in (8, 32):
            for sparsity in (0.7, 0.9, 0.95):
                for method in ("ac/dc", OURS):
                    value = 0.08 - 0.05 * sparsity**4 + 0.004 * (method == OURS) + 0.002 * chance(method, block, seed)
                    lost = block == 8 and sparsity == 0.95
                    name = f"{method.replace('/', '')}_{block}_{sparsity:g}_{seed}"
                    write(folder / name, images(method, block, sparsity, seed), None if lost else value)
            for c in (2, 8):
                asked = images(OURS, block, 0.9, seed, pruning__settings__c=c)
                write(folder / f"c{c}_{block}_{seed}", asked, 0.045 + 0.001 * chance(c, block, seed))
        asked = images(OURS, 8, 0.9, seed, pruning__sparsify=False)
        write(folder / f"without_{seed}", asked, 0.04 + 0.001 * seed)
    return folder


# -- in memory ---------------------------------------------------------------------------------------------------------


def click_run(
    method: str, block: Any, share: float, seed: int, value: float | None, name: str = "", **more: Any
) -> Run:
    """A run in memory; `more` are settings by dotted key, with __ for the dots."""
    asked: dict[str, Any] = {"task": "clicks", "training.epochs": 4.0, "training.batch": 64}
    if method != DENSE:
        asked |= {"pruning.method": method, "pruning.block": block, "pruning.sparsity": share}
    asked |= {key.replace("__", "."): each for key, each in more.items()}
    metrics = {} if value is None else {"valid_loss": value, "train_loss": 7.5}
    return Run(name or f"{method}-{block}-{share}-{seed}", asked, seed, metrics, value is None)


def image_run(method: str, block: Any, share: float, seed: int, value: float | None, **more: Any) -> Run:
    """The same of images; `value` is a share."""
    run = click_run(method, block, share, seed, 7.0, **{"pruning__schedule": "imagenet", **more})
    asked = {**run.settings, "task": "images", "data.kind": more.get("data__kind", "folder")}
    metrics = {} if value is None else {"valid_loss": 7.0, "valid_accuracy": value}
    return replace(run, settings=asked, metrics=metrics, diverged=value is None)


@st.composite
def click_runs(draw: Any) -> list[Run]:
    """Runs of few methods, blocks, sparsities, epochs and seeds, so that they meet in cells; some diverged."""
    made = []
    for number in range(draw(st.integers(0, 25))):
        method = draw(st.sampled_from((*CRITEO, "rigl", DENSE)))
        block, share = draw(st.sampled_from((5, 20, 7))), draw(st.sampled_from((0.9, 0.97, 0.5)))
        value = draw(st.one_of(st.none(), st.floats(6.0, 9.0)))
        more = {"training__epochs": draw(st.sampled_from((4.0, 4.0, 4.0, 8.0)))}
        made.append(click_run(method, block, share, draw(st.integers(0, 3)), value, f"run-{number}", **more))
    return made


def printed(parts: Sequence[Part], number: int = 0) -> dict[tuple[str, str, str, str], str]:
    """(section, row, source, column) -> text, of the grid below the heading of a table."""
    titles = [i for i, part in enumerate(parts) if isinstance(part, Heading) and " on the same seeds" not in part.words]
    grid = next(part for part in parts[titles[number] :] if isinstance(part, Grid))
    found = {}
    for head, *rows in grid.tables:
        label = ""
        for row in rows:
            label = row[0] or label
            for column, text in zip(head[2:], row[2:], strict=True):
                assert (head[0], label, row[1], column) not in found or not text
                if text:
                    found[head[0], label, row[1], column] = text
    return found
