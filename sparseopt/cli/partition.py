"""Groups as described on the command line.

    5   5,8,3   prefix   prefix:SEP   labels.json   labels.json#KEY   groups.csv   labels.txt

All of these speak of the columns of the file. The features get their groups through the column they came from, so the
0/1 columns of a text are never torn apart.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from sparseopt.cli.data import Data
from sparseopt.cli.formats import listed, read_rows
from sparseopt.groups import Groups, as_groups

__all__ = ["partition"]


def partition(data: Data, spec: str | None, weights: str) -> Groups:
    """The groups of the features.

    `spec` speaks of the columns of the file: a size, sizes "5,8,3", "prefix", "prefix:SEP", or a file. A JSON file
    holds a list of labels, a dict from group to columns, or {"group": labels or positions, "group_names": names};
    FILE#KEY takes an entry of a larger one. A CSV file has rows `column,group`, a text file one label per line. None:
    the groups of the file, or else one per column.
    """
    described: Any = data.labels
    if spec is not None:
        described = _described(spec, data)
    groups = as_groups(described, len(data.columns), data.columns)
    names = np.array(groups.names, dtype=object)
    return Groups.from_labels(names[groups.group_of[data.owner]], weights=weights)


def _described(spec: str, data: Data) -> Any:
    if spec.partition(":")[0] == "prefix":
        return spec
    if spec.replace(",", "").replace(" ", "").lstrip("-").isdigit():
        sizes = [int(size) for size in spec.split(",") if size.strip()]
        if len(sizes) == 1:
            return sizes[0]
        if sum(sizes) != len(data.columns):
            raise ValueError(
                f"groups are sizes that add up to {sum(sizes)} but there are {len(data.columns)} columns: mend one."
            )
        return Groups.from_sizes(sizes)
    file, _, key = spec.partition("#")
    if not Path(file).is_file():
        raise ValueError(
            f"groups={spec!r} is neither a size, a list of sizes, 'prefix', 'prefix:SEP' nor a file: pass one of these."
        )
    if Path(file).suffix == ".json":
        return _from_json(file, key)
    rows = read_rows(file)
    if all(len(row) == 1 for row in rows):
        return [row[0] for row in rows]
    return _from_pairs(rows, file, data)


def _from_json(file: str, key: str) -> Any:
    try:
        content = json.loads(Path(file).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is no JSON file ({error}): write a list of labels or a dict.") from error
    if key:
        if not isinstance(content, dict) or key not in content:
            has = listed([*content]) if isinstance(content, dict) else "a list"
            raise ValueError(f"{file} has no entry {key!r}: it holds {has}.")
        content = content[key]
    if isinstance(content, dict) and isinstance(content.get("group"), list):
        labels, names = content["group"], content.get("group_names", content.get("names"))
        if not names:
            return labels
        if not all(isinstance(g, int) and 0 <= g < len(names) for g in labels):
            raise ValueError(f"group in {file} must hold positions in group_names, 0, ..., {len(names) - 1}.")
        return [names[g] for g in labels]
    if isinstance(content, (list, dict)):
        return content
    raise ValueError(f"{file} holds {content!r}: write a list of labels or a dict from group to columns.")


def _from_pairs(rows: list[list[str]], file: str, data: Data) -> list[str]:
    known = set(data.columns)
    if rows[0][0] not in known:  # a header
        rows = rows[1:]
    group_of: dict[str, str] = {}
    for row in rows:
        if len(row) != 2 or row[0] not in known:
            odd = f"{row[0]!r}, which is no column of the data" if len(row) == 2 else f"a row of {len(row)} entries"
            raise ValueError(f"{file} has {odd}: write rows `column,group`.")
        if group_of.setdefault(row[0], row[1]) != row[1]:
            raise ValueError(f"{file} puts {row[0]!r} into two groups: groups must not overlap.")
    left = [column for column in data.columns if column not in group_of]
    if left:
        raise ValueError(f"{file} leaves out {listed(left)}: give every column a group.")
    return [group_of[column] for column in data.columns]
