"""Files as columns with names, or as arrays.

    text      CSV, TSV or another delimiter; the first row is a header unless it holds numbers only
    Parquet   columns of numbers, booleans or text (needs pyarrow)
    NPZ       arrays, nothing pickled
    svmlight  lines `label index:value ...`

The content of a file tells which of these it is; text may be compressed by gzip. A column is an array of float64, NaN
where a value is missing, or of str.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import zipfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["MISSING", "listed", "read_arrays", "read_file", "read_rows"]

MISSING = {"", "na", "n/a", "nan", "null", "none", "?"}
_TRUTH = {"true": 1.0, "false": 0.0}
_SVMLIGHT = re.compile(r"\s*[-+.\d][-+.\deE,]*(\s+qid:\d+)?(\s+\d+:\S+)+\s*(#.*)?")

Columns = dict[str, NDArray[Any]]


def read_file(file: str | Path, drop: Collection[str] = ()) -> tuple[str, Any]:
    """The kind of a file, and what it holds.

    "text", "text without header" or "parquet" with a dict of columns, "npz" with a dict of arrays, "svmlight" with
    (X, y). Columns in `drop` are there but need not be readable.

    Raises
    ------
    ValueError
        If the content is none of these, or damaged.
    OSError
        If the file cannot be opened.
    """
    raw, name = _read_bytes(file), str(file)
    if raw[:4] == b"PAR1":
        return "parquet", _parquet_columns(raw, name, drop)
    if raw[:4] == b"PK\x03\x04":
        return "npz", read_arrays(raw, name)
    text = _decode(raw, name)
    lines = [line for line in text[:1_000_000].splitlines()[:20] if line.strip() and not line.startswith("#")]
    if name.removesuffix(".gz").endswith((".svm", ".svmlight", ".libsvm")) or any(map(_SVMLIGHT.fullmatch, lines)):
        return "svmlight", _svmlight_matrix(raw, name)
    return _text_columns(_split(text, name), name)


def read_rows(file: str | Path) -> list[list[str]]:
    """The rows of a delimited text file, header included; empty lines are left out."""
    return _split(_decode(_read_bytes(file), str(file)), str(file))


def read_arrays(raw: bytes, name: str) -> dict[str, NDArray[Any]]:
    """The arrays of an NPZ file; ValueError if it is damaged or pickled."""
    try:
        with np.load(io.BytesIO(raw), allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{name} cannot be read as NPZ without pickles ({error}): save plain arrays.") from error


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _read_bytes(file: str | Path) -> bytes:
    raw = Path(file).read_bytes()
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = gzip.decompress(raw)
        except (EOFError, OSError) as error:
            raise ValueError(f"{file} is a damaged gzip file ({error}): get it again.") from error
    if not raw.strip():
        raise ValueError(f"{file} is empty: pass a file with data.")
    return raw


def _decode(raw: bytes, name: str) -> str:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is neither Parquet, NPZ nor UTF-8 text ({error.reason}): convert it.") from error
    if "\0" in text[:10_000]:
        raise ValueError(f"{name} is binary, but neither Parquet nor NPZ: convert it.")
    return text


def _split(text: str, name: str) -> list[list[str]]:
    first = next(line for line in text.splitlines() if line.strip())
    counts = {mark: first.count(mark) for mark in ("\t", ",", ";", "|")}
    delimiter = max(counts, key=lambda mark: counts[mark])
    if not counts[delimiter] and re.search(r"\S +\S", first):
        delimiter = " "
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=delimiter != "\t")
    try:
        return [[entry.strip() for entry in row] for row in reader if any(entry.strip() for entry in row)]
    except csv.Error as error:
        raise ValueError(f"{name} cannot be split into columns ({error}, line {reader.line_num}): fix it.") from error


def _text_columns(rows: list[list[str]], name: str) -> tuple[str, Columns]:
    headed = any(_number(entry) is None and entry.lower() not in MISSING for entry in rows[0])
    header = rows.pop(0) if headed else [f"x{j + 1}" for j in range(len(rows[0]))]
    if not rows:
        raise ValueError(f"{name} has a header and no rows: pass a file with data.")
    for i, row in enumerate(rows):
        if len(row) != len(header):
            raise ValueError(
                f"{name} has {len(row)} entries in data row {i + 1} but {len(header)} columns: every row needs as many."
            )
    repeated = [column for column in header if header.count(column) > 1]
    if repeated:
        raise ValueError(f"{name} has several columns called {repeated[0]!r}: give each a name of its own.")
    columns = {column: _as_column(entries) for column, entries in zip(header, zip(*rows, strict=True), strict=True)}
    return "text" if headed else "text without header", columns


def _number(entry: str) -> float | None:
    try:
        return None if "_" in entry else float(entry)  # Python reads 1_000 as a number
    except ValueError:
        return _TRUTH.get(entry.lower())


def _as_column(entries: Sequence[str]) -> NDArray[Any]:
    """Numbers if every entry that is not missing is one, else text."""
    missing = [entry.lower() in MISSING for entry in entries]
    numbers = [np.nan if gone else _number(entry) for entry, gone in zip(entries, missing, strict=True)]
    if all(missing) or None in numbers:
        return np.array(entries, dtype=object)
    return np.array(numbers, dtype=np.float64)


def _parquet_columns(raw: bytes, name: str, drop: Collection[str]) -> Columns:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError(f"{name} is a Parquet file, which pyarrow reads: pip install pyarrow, or use CSV.") from error
    try:
        table = parquet.read_table(pa.BufferReader(raw))
    except pa.ArrowException as error:
        raise ValueError(f"{name} is a damaged Parquet file ({str(error).splitlines()[0]}): get it again.") from error
    if table.num_rows == 0:
        raise ValueError(f"{name} has columns and no rows: pass a file with data.")
    found = {}
    for field in table.schema:
        values, kind = table.column(field.name), field.type
        if pa.types.is_dictionary(kind):
            values, kind = values.cast(kind.value_type), kind.value_type
        if field.name in drop:
            found[field.name] = np.zeros(len(values))
        elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
            found[field.name] = np.array(["" if v is None else v for v in values.to_pylist()], dtype=object)
        elif pa.types.is_boolean(kind) or pa.types.is_decimal(kind) or pa.types.is_integer(kind):
            found[field.name] = np.array([np.nan if v is None else float(v) for v in values.to_pylist()])
        elif pa.types.is_floating(kind):
            found[field.name] = values.to_numpy().astype(np.float64)
        else:
            raise ValueError(f"Column {field.name!r} of {name} holds {kind}, neither numbers nor text: --drop it.")
    return found


def _svmlight_matrix(raw: bytes, name: str) -> tuple[Any, NDArray[np.float64]]:
    from sklearn.datasets import load_svmlight_file

    try:
        X, y = load_svmlight_file(io.BytesIO(raw), zero_based="auto")
    except (ValueError, IndexError) as error:
        raise ValueError(f"{name} is no svmlight file ({error}): write lines `label index:value ...`.") from error
    if 0 in X.shape:
        raise ValueError(f"{name} holds {X.shape[0]} samples of {X.shape[1]} features: pass a file with data.")
    return X.tocsc(), y
