"""Raw clicks read in plain loops, and what they should become. Imported by tests."""

from __future__ import annotations

import collections
import gzip
import hashlib
import math
from pathlib import Path

from sparseopt.experiments.clicks.lines import CATEGORIES, FIELDS
from sparseopt.experiments.clicks.synthetic import write_raw


def write_rows(folder: Path) -> Path:
    """3000 training rows and 400 others of the same model, a few lines between them malformed."""
    write_raw(folder / "train.tsv.gz", 3000, seed=3, malformed=12)
    write_raw(folder / "valid.tsv", 400, seed=3, part=1, malformed=3)
    return folder


def lines(path: Path) -> list[bytes]:
    data = path.read_bytes()
    return (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).split(b"\n")[:-1]


def cells(path: Path) -> list[list[str]]:
    """The rows of a file, by the definition in words rather than the expression in `raw`."""
    found = []
    for line in lines(path):
        try:
            row = line.decode().split("\t")
        except UnicodeDecodeError:
            continue
        if len(row) == 40 and row[0] in ("0", "1") and all(map(number, row[1:14])) and all(map(word, row[14:])):
            found.append(row)
    return found


def number(cell: str) -> bool:
    digits = cell.removeprefix("-")
    return not cell or (0 < len(digits) <= 18 and all(digit in "0123456789" for digit in digits))


def word(cell: str) -> bool:
    return not cell or (len(cell) == 8 and all(digit in "0123456789abcdef" for digit in cell))


def value(field: str, cell: str) -> int:
    """What a cell counts as."""
    if field in CATEGORIES:
        return int(cell, 16)
    v = int(cell)
    return math.floor(math.log(v) ** 2) if v > 2 else v


def expected_ids(train: list[list[str]], rows: list[list[str]], min_count: int) -> dict[str, list[int]]:
    found = {}
    for place, field in enumerate(FIELDS, start=1):
        counts = collections.Counter(value(field, row[place]) for row in train if row[place])
        kept = sorted((v for v in counts if counts[v] >= min_count), key=lambda v: (-counts[v], v))
        ids = {v: i for i, v in enumerate(kept, start=2)}
        found[field] = [ids.get(value(field, row[place]), 0) if row[place] else 1 for row in rows]
    return found


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder and its digest."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
