"""Clicks that nobody made: rows in the format of Criteo's data, and columns, from a model that is known.

The model is logistic over values. Value v of field j has popularity proportional to about 1 / (v + 1) and an effect
e_j(v) ~ N(0, s_j^2); fields of numbers act through s_j (sin(log(1 + x)) - 0.5). A label is 1 with probability

    p = 1 / (1 + exp(-b - sum_j e_j)),

where a value that is missing has an effect of its own. Some fields matter more than others (s_j falls geometrically),
so a network that is pruned has something to keep and something to drop; b makes about a quarter of the labels 1.

Criteo's own rows may not be handed on, and tests and examples use these instead.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparseopt.experiments.clicks.columns import LABEL, Columns, ColumnsWriter, Field

__all__ = ["KINDS", "Malformed", "RawRows", "make_columns", "write_raw"]

INTEGERS, CATEGORIES = 13, 26
_CHUNK = 1 << 16  # rows that are drawn together: rows depend on it, so it is no argument
# How many values each category has and how often it is missing, in proportions like those of the real data.
_SIZES = (
    1_400, 550, 50_000, 25_000, 300, 20, 12_000, 600, 3, 40_000, 5_000, 45_000, 3_000,
    26, 10_000, 38_000, 10, 4_500, 2_000, 4, 42_000, 15, 16, 25_000, 80, 20_000,
)  # fmt: skip
_NO_CATEGORY = {2: 0.035, 3: 0.035, 5: 0.12, 11: 0.035, 15: 0.035, 18: 0.44, 19: 0.44, 20: 0.035, 21: 0.76, 23: 0.035,
                24: 0.44, 25: 0.44}  # fmt: skip
_NO_INTEGER = (0.45, 0.0, 0.21, 0.21, 0.03, 0.22, 0.04, 0.0, 0.04, 0.45, 0.04, 0.77, 0.21)
_BIAS = -1.2
_ROWS, _EFFECTS, _WORDS = range(3)  # what a generator is for

# Lines that no reader should take for a row, by what is wrong with them.
KINDS: tuple[str, ...] = (
    "too few fields",
    "too many fields",
    "label not 0 or 1",
    "label missing",
    "integer with letters",
    "integer too large",
    "category not hexadecimal",
    "category too long",
    "not UTF-8",
    "empty line",
)


class Malformed(NamedTuple):
    """A line that is wrong on purpose: its number in the file, from 1, and which of `KINDS` it is."""

    line: int
    kind: str


class RawRows(NamedTuple):
    """What `write_raw` wrote: `rows` right lines, `clicks` of them with label 1, and malformed ones between them."""

    path: Path
    rows: int
    clicks: int
    malformed: tuple[Malformed, ...]


def write_raw(path: Path, rows: int, seed: int = 0, part: int = 0, malformed: int = 0) -> RawRows:
    """Write rows as Criteo does: label, 13 whole numbers, 26 categories of 8 hexadecimal digits, tabs, no header.

    Numbers and categories may be missing; I2 is -1 or more, and the others 0 or more. With a
    name that ends in `.gz` the file is compressed.

    Parameters
    ----------
    path : Path
    rows : int
        Right lines. The first rows of a longer file are those of a shorter one.
    seed, part : int
        `seed` draws the model and `part` the rows: training and validation rows have one seed and different parts.
    malformed : int
        How many lines to put between them that no reader should take for rows; the answer tells where they are. The
        kinds take turns.

    >>> import tempfile
    >>> made = write_raw(Path(tempfile.mkdtemp(), "train.tsv"), 8, malformed=2)
    >>> made.rows, made.malformed
    (8, (Malformed(line=3, kind='too few fields'), Malformed(line=7, kind='too many fields')))
    >>> len(made.path.read_text().splitlines())
    10
    """
    if rows < 1 or malformed < 0:
        raise ValueError(f"rows is {rows} and malformed is {malformed}: give at least 1 and at least 0.")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    words, effects = _words(seed), _effects(seed, _SIZES)
    places = [(k + 1) * rows // (malformed + 1) for k in range(malformed)]  # right rows before each
    planted = [Malformed(place + k + 1, KINDS[k % len(KINDS)]) for k, place in enumerate(places)]
    clicks = done = k = 0
    with _opened(path) as file:
        for number, start in enumerate(range(0, rows, _CHUNK)):
            frame = _frame(_draw(seed, _ROWS, part, number), words, effects)
            frame = frame.head(rows - start)
            clicks += int(frame["label"].sum())
            while k < malformed and places[k] <= start + len(frame):
                _csv(frame.slice(done - start, places[k] - done), file)
                file.write(_wrong(planted[k].kind))
                done, k = places[k], k + 1
            _csv(frame.slice(done - start), file)
            done = start + len(frame)
    return RawRows(path, rows, clicks, tuple(planted))


def make_columns(
    folder: Path,
    rows: int | Mapping[str, int],
    sizes: Sequence[int] = (10, 1_000, 100_000) * 13,
    values: int = 0,
    seed: int = 0,
) -> Columns:
    """Write a data set without the way over text, by the million rows: fields C1, ... of ids and I1, ... of values.

    Parameters
    ----------
    folder : Path
    rows : int or mapping of str to int
        Of the part "train", or of each part. Parts share the model, not the rows.
    sizes : sequence of int
        How many ids each field has.
    values : int
        How many fields of values, normally distributed.
    seed : int

    >>> import tempfile
    >>> columns = make_columns(Path(tempfile.mkdtemp(), "rows"), {"train": 1000, "valid": 10}, [3, 70_000], values=1)
    >>> columns.vocabulary, columns.part("valid").rows
    ((3, 70000), 10)
    """
    parts = {"train": rows} if isinstance(rows, int) else rows
    ids = [Field(f"C{j + 1}", size) for j, size in enumerate(sizes)]
    numbers = [Field(f"I{j + 1}") for j in range(values)]
    effects = _effects(seed, sizes)
    writer = ColumnsWriter(folder, parts, [*ids, *numbers])
    for place, (part, total) in enumerate(parts.items()):
        for number, start in enumerate(range(0, total, _CHUNK)):
            draw = _draw(seed, _ROWS, place, number)
            logit = np.full(_CHUNK, _BIAS, np.float32)
            columns: dict[str, NDArray] = {}
            for j, field in enumerate(ids):
                columns[field.name] = _zipf(draw, field.ids)
                logit += effects[j].take(columns[field.name], mode="clip")
            for j, field in enumerate(numbers):
                columns[field.name] = draw.standard_normal(_CHUNK, np.float32)
                logit += np.float32(_strength(j)) * np.sin(columns[field.name])
            columns[LABEL] = _clicked(draw, logit)
            kept = min(_CHUNK, total - start)
            writer.write(part, start, {name: column[:kept] for name, column in columns.items()})
    return writer.finish({"synthetic": {"seed": seed}})


def _draw(seed: int, *key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def _strength(j: int) -> float:
    """s_j: every third field is strong, and they grow weaker."""
    return 0.8 * 0.95**j * (1.0 if j % 3 == 0 else 0.3)


def _effects(seed: int, sizes: Sequence[int]) -> list[NDArray[np.float32]]:
    """e_j(v) for every value of every field, and at the end for a missing one: its own draw per field."""
    return [
        np.float32(_strength(j)) * _draw(seed, _EFFECTS, j).standard_normal(size + 1, np.float32)
        for j, size in enumerate(sizes)
    ]


def _zipf(draw: np.random.Generator, size: int) -> NDArray[np.int32]:
    """Values 0, 1, ... with probability about 1 / ((v + 1) log(size + 1)): floor((size + 1)^U) - 1, U uniform."""
    exponent = draw.random(_CHUNK, np.float32) * np.float32(np.log(size + 1))
    return np.minimum(np.exp(exponent) - 1, size - 1).astype(np.int32)


def _clicked(draw: np.random.Generator, logit: NDArray[np.float32]) -> NDArray[np.uint8]:
    return (draw.random(len(logit), np.float32) * (1 + np.exp(-logit)) < 1).astype(np.uint8)


@lru_cache(2)
def _words(seed: int) -> list:
    """Per category its values as 8 hexadecimal digits, all different within it."""
    import polars

    words = []
    for j, size in enumerate(_SIZES):
        start, step = _draw(seed, _WORDS, j).integers(0, 1 << 32, 2, np.uint64)
        values = (start + np.arange(size, dtype=np.uint64) * (step | np.uint64(1))) % np.uint64(1 << 32)
        words.append(polars.Series(f"C{j + 1}", [f"{v:08x}" for v in values.tolist()], polars.String))
    return words


def _frame(draw: np.random.Generator, words: list, effects: list[NDArray[np.float32]]):  # type: ignore[no-untyped-def]
    """A chunk of rows as a frame of polars, and always the whole chunk: a shorter file has the first of them."""
    import polars

    logit = np.full(_CHUNK, _BIAS, np.float32)
    columns = []
    for j, missing in enumerate(_NO_INTEGER):
        spread = 1.0 + 0.25 * (j % 5)
        size = np.floor(np.exp(spread * draw.standard_normal(_CHUNK, np.float32) + 0.5 * (j % 4)))
        absent = draw.random(_CHUNK, np.float32) < missing
        effect = np.where(absent, np.float32(-0.3), np.sin(np.log1p(size)) - np.float32(0.5))
        logit += np.float32(_strength(j)) * effect
        values = size.astype(np.int32) - (1 if j == 1 else 0)
        columns.append(_series(f"I{j + 1}", values, absent))
    for j, series in enumerate(words):
        values = _zipf(draw, _SIZES[j])
        absent = draw.random(_CHUNK, np.float32) < _NO_CATEGORY.get(j, 0.0)
        values = np.where(absent, np.int32(_SIZES[j]), values)
        logit += effects[j].take(values, mode="clip")  # which copies faster than an index, and all are in range
        places = _series("place", values, absent)
        columns.append(series.gather(places))
    return polars.DataFrame([polars.Series("label", _clicked(draw, logit)), *columns])


def _series(name: str, values: NDArray, absent: NDArray[np.bool_]):  # type: ignore[no-untyped-def]
    import polars

    return polars.select(
        polars.when(polars.lit(polars.Series(~absent))).then(polars.lit(polars.Series(values))).alias(name)
    ).to_series()


def _csv(frame, file: IO[bytes]) -> None:  # type: ignore[no-untyped-def]
    if len(frame):
        frame.write_csv(file, separator="\t", include_header=False, quote_style="never")


def _wrong(kind: str) -> bytes:
    """One line of that kind, with its end."""
    fields = [b"0", *(b"%d" % j for j in range(INTEGERS)), *(b"%08x" % (j + 10) for j in range(CATEGORIES))]
    if kind == "too few fields":
        del fields[-1]
    elif kind == "too many fields":
        fields.append(b"0000000a")
    elif kind == "empty line":
        fields = []
    else:
        place, text = {
            "label not 0 or 1": (0, b"2"),
            "label missing": (0, b""),
            "integer with letters": (3, b"12x"),
            "integer too large": (4, b"9" * 30),
            "category not hexadecimal": (20, b"0123zz89"),
            "category too long": (21, b"0123456789"),
            "not UTF-8": (22, b"0123\xff\xfe89"),
        }[kind]
        fields[place] = text
    return b"\t".join(fields) + b"\n"


def _opened(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return gzip.GzipFile(path, "wb", compresslevel=1, mtime=0)  # type: ignore[return-value]
    return path.open("wb")
