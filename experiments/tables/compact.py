"""All runs in one small JSON file, from which the same tables and pictures can be made again.

    {"format": ..., "shared": settings of all runs, "left": what is no run, "runs": [a line each], "lists": [...]}

Settings that all runs have in common are there once, and so is every distinct list of numbers: runs of a method differ
in their losses, and hardly in steps, phases and sparsities.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sparseopt.experiments.tables.runs import Collection, Left, Run, read_folder

__all__ = ["collect", "write"]

FORMAT = "sparseopt runs 1"


def collect(source: str | os.PathLike[str]) -> Collection:
    """Read a folder of runs, or the JSON file that `write` made of one: both give the same.

    Parameters
    ----------
    source : str or Path
        The folder, or the file.

    Returns
    -------
    Collection
        Finished runs, and the names of all folders that are none.

    Raises
    ------
    FileNotFoundError
        When there is nothing at `source`.
    ValueError
        When a file is not one of `write`, or nothing in a folder looks like a run.
    """
    path = Path(source)
    if path.is_file():
        return _read(path)
    if not path.is_dir():
        raise FileNotFoundError(2, "No such folder of runs, nor a JSON file made of one", str(path))
    return read_folder(path)


def write(collection: Collection, file: str | os.PathLike[str]) -> None:
    """All records as one JSON file.

    Parameters
    ----------
    collection : Collection
        Its metrics are written to the last digit, its curves as they are, thinned.
    file : str or Path
        Replaced if it is there.
    """
    shared = _shared([run.settings for run in collection.runs])
    lists: dict[str, int] = {}

    def number(value: Any) -> int:
        return lists.setdefault(json.dumps(value, separators=(",", ":")), len(lists))

    records = [
        {
            "name": run.name,
            "settings": {key: value for key, value in run.settings.items() if key not in shared},
            "seed": run.seed,
            "diverged": run.diverged,
            "metrics": run.metrics,
            "curves": {
                kind: {name: number(column) for name, column in curve.items()} for kind, curve in run.curves.items()
            },
            "phases": number(run.phases),
        }
        for run in collection.runs
    ]
    left = [{"name": each.name, "why": each.why} for each in collection.left]
    head = {"format": FORMAT, "shared": shared, "left": left}
    # A line for each record and list: small, and what a new run changes can be seen.
    text = [json.dumps(head)[:-1], ', "runs": [\n', ",\n".join(map(json.dumps, records))]
    text += ['\n], "lists": [\n', ",\n".join(lists), "\n]}\n"]
    Path(file).write_text("".join(text), encoding="utf-8")


def _shared(settings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first = dict(settings[0]) if settings else {}
    return {key: value for key, value in first.items() if all(key in s and s[key] == value for s in settings)}


def _read(file: Path) -> Collection:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        content = None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{file} was not written by sparseopt table --json: give such a file, or a folder of runs.")
    try:
        lists = content["lists"]
        runs = [
            Run(
                record["name"],
                dict(sorted((content["shared"] | record["settings"]).items())),
                record["seed"],
                record["metrics"],
                record["diverged"],
                {kind: {name: lists[i] for name, i in curve.items()} for kind, curve in record["curves"].items()},
                lists[record["phases"]],
            )
            for record in content["runs"]
        ]
        left = [Left(each["name"], each["why"]) for each in content["left"]]
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is damaged ({type(error).__name__}: {error}): write it again by --json.") from None
    return Collection(tuple(runs), tuple(left))
