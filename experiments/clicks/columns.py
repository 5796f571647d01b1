"""Rows of clicks as one file per column: written once, mapped into memory afterwards.

    folder/meta.json            fields, parts, rows, digests and what the writer was told to keep: written last
    folder/train/label.npy      (rows,) of uint8, 0 or 1; and valid/, test/ alike
    folder/train/C1.npy ...     (rows,) of uint8, uint16 or int32: ids below the field's number of them
    folder/train/I1.npy ...     (rows,) of float32: values that are used as they are

A field of n ids holds 0, ..., n - 1 in the smallest of the three types that can. The rows of all parts are counted
before the first is written, so files have their full length at once and rows may come in any order, and again: a
conversion that was stopped goes on where it likes. Labels are 255 until their row is written, which tells at the end
whether one was forgotten. Without meta.json a folder is not a data set.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparseopt.experiments.clicks.layout import (
    FORMAT,
    HEADER,
    LABEL,
    META,
    UNFINISHED,
    UNWRITTEN,
    VERSION,
    Field,
    as_text,
    begin,
    digest,
    fault,
    kinds,
    mapped,
    read_meta,
    replace_text,
)

__all__ = ["LABEL", "Columns", "ColumnsWriter", "Field", "Part"]

_TILE = 1 << 13  # rows that are put side by side at a time: what is written stays in the cache


@dataclass(frozen=True)
class Part:
    """The rows of one part, mapped into memory: nothing is read before it is used.

    Attributes
    ----------
    folder : Path
    rows : int
    fields : tuple of Field
    labels : (rows,) array of uint8
    columns : mapping of str to (rows,) arrays
        By the name of the field, in the type on disk; they cannot be written to.
    """

    folder: Path
    rows: int
    fields: tuple[Field, ...]
    labels: NDArray[np.uint8]
    columns: Mapping[str, NDArray]

    def read(self, start: int, stop: int) -> tuple[NDArray[np.int32], NDArray[np.float32] | None, NDArray[np.float32]]:
        """Rows start, ..., stop - 1: ids (n, fields of ids), values (n, fields of values) or None, labels (n,).

        Raises
        ------
        ValueError
            For an id that the network would have no embedding for: the file was changed after it was written.
        """
        if not 0 <= start <= stop <= self.rows:
            raise ValueError(f"rows {start} to {stop} of {self.folder} are not there: it has {self.rows}.")
        labels = np.asarray(self._sound(LABEL, self.labels, 2, start, stop), np.float32)
        ids = np.empty((stop - start, len(self._ids)), np.int32)
        values = np.empty((stop - start, len(self._values)), np.float32) if self._values else None
        for low in range(start, stop, _TILE):
            high = min(low + _TILE, stop)
            into = slice(low - start, high - start)
            for j, (name, size, column) in enumerate(self._ids):
                ids[into, j] = self._sound(name, column, size, low, high)
            if values is not None:
                for j, column in enumerate(self._values):
                    values[into, j] = column[low:high]
        return ids, values, labels

    @cached_property
    def _ids(self) -> list[tuple[str, int, NDArray]]:
        return [(field.name, field.ids, self.columns[field.name]) for field in self.fields if field.ids]

    @cached_property
    def _values(self) -> list[NDArray]:
        return [self.columns[field.name] for field in self.fields if not field.ids]

    def _sound(self, name: str, column: NDArray, size: int, start: int, stop: int) -> NDArray:
        ids = column[start:stop]
        wrong = _out_of_range(ids, size)
        if wrong is None:
            return ids
        raise ValueError(
            f"column {name} of {self.folder} has {ids[wrong]} in row {start + wrong}, where 0 to {size - 1} are right: "
            f"the file was changed, so convert the rows again."
        )


@dataclass(frozen=True)
class Columns:
    """A data set: its fields, and its parts by name. `Columns.open` makes one.

    Attributes
    ----------
    folder : Path
    fields : tuple of Field
    parts : mapping of str to Part
    meta : mapping
        What the writer was told to keep.
    """

    folder: Path
    fields: tuple[Field, ...]
    parts: Mapping[str, Part]
    meta: Mapping[str, Any]

    @property
    def vocabulary(self) -> tuple[int, ...]:
        """How many ids each field of ids has."""
        return tuple(field.ids for field in self.fields if field.ids)

    def part(self, name: str) -> Part:
        """One part."""
        if name not in self.parts:
            raise ValueError(f"{self.folder} has no part {name!r}: it has {', '.join(self.parts)}.")
        return self.parts[name]

    @classmethod
    def open(cls, folder: Path, check: bool = False) -> Columns:
        """Map a data set into memory.

        Missing files and files of a wrong length or type are always found; `check` reads everything once and compares
        the digests, which finds every other change as well.
        """
        folder = Path(folder)
        meta = read_meta(folder / META)
        fields = tuple(Field(*field) for field in meta["fields"])
        parts = {}
        for name, rows in meta["parts"].items():
            kind_of = kinds(fields)
            arrays = {column: mapped(folder / name / f"{column}.npy", kind_of[column], rows) for column in kind_of}
            for column, array in arrays.items() if check else ():
                if digest(array) != meta["sha256"].get(name, {}).get(column):
                    raise ValueError(
                        f"{folder / name / column}.npy is not what was written (its SHA-256 differs): "
                        f"convert the rows again."
                    )
            labels = arrays.pop(LABEL)
            parts[name] = Part(folder / name, rows, fields, labels, MappingProxyType(arrays))
        return cls(folder, fields, MappingProxyType(parts), MappingProxyType(meta["meta"]))


class ColumnsWriter:
    """Writes a data set; what was begun and not finished can be taken up by another writer.

    Parameters
    ----------
    folder : Path
        Where to; other files in it stay. Rows that a writer with the same parts and fields has begun there stay as
        well, until they are written again; anything else unfinished is begun anew.
    parts : mapping of str to int
        How many rows each part has.
    fields : sequence of Field
        Names of letters, digits, `_` and `-`.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp(), "rows")
    >>> writer = ColumnsWriter(folder, {"train": 3}, [Field("C1", 3), Field("C2", 300), Field("I1")])
    >>> writer.write("train", 1, {"label": [0, 1], "C1": [0, 2], "C2": [299, 0], "I1": [0.5, -1.0]})
    >>> writer.write("train", 0, {"label": [1], "C1": [1], "C2": [7], "I1": [2.0]})
    >>> columns = writer.finish({"source": "by hand"})
    >>> columns.vocabulary, columns.meta["source"], columns.part("train").rows
    ((3, 300), 'by hand', 3)
    >>> ids, values, labels = columns.part("train").read(0, 2)
    >>> ids.tolist(), values.tolist(), labels.tolist()
    ([[1, 7], [0, 299]], [[2.0], [0.5]], [1.0, 0.0])
    """

    def __init__(self, folder: Path, parts: Mapping[str, int], fields: Sequence[Field]) -> None:
        self.folder = Path(folder)
        self.parts, self.fields = dict(parts), tuple(fields)
        self._content = {"version": VERSION, "parts": self.parts, "fields": [list(field) for field in self.fields]}
        wrong = fault(self.parts, self._content["fields"])
        if wrong:
            raise ValueError(wrong)
        self._kinds = kinds(self.fields)
        if (self.folder / META).exists():
            raise FileExistsError(f"{self.folder} is a finished data set: remove it, or give another folder.")
        mark, text = self.folder / UNFINISHED, as_text(self._content)
        if mark.exists() and mark.read_text(encoding="utf-8") != text:
            mark.unlink()  # from here on nobody takes its files for rows of this data set
        known = mark.exists()
        for part, rows in self.parts.items():
            (self.folder / part).mkdir(parents=True, exist_ok=True)
            for name, kind in self._kinds.items():
                file = self._file(part, name)
                if known:
                    mapped(file, kind, rows)
                else:
                    begin(file, kind, rows, UNWRITTEN if name == LABEL else 0)
        if not known:  # last: with the mark, all files are there and of this data set
            replace_text(mark, text)

    def write(self, part: str, start: int, columns: Mapping[str, ArrayLike]) -> None:
        """Write rows start, start + 1, ... of a part: an array for every field by its name, and labels as `LABEL`.

        All is looked at before any of it is written. Writing rows again replaces them.
        """
        if (self.folder / META).exists():
            raise ValueError(f"{self.folder} is finished: write before finish.")
        if part not in self.parts:
            raise ValueError(f"{self.folder} has no part {part!r}: it has {', '.join(self.parts)}.")
        if columns.keys() != self._kinds.keys():
            odd = sorted(columns.keys() ^ self._kinds.keys())
            raise ValueError(f"the columns {', '.join(odd)} are missing or unknown: give labels and all fields.")
        arrays = {name: np.asarray(values) for name, values in columns.items()}
        labels = arrays[LABEL].shape
        for name, array in arrays.items():
            if array.ndim != 1 or array.shape != labels:
                raise ValueError(f"column {name} has shape {array.shape}, and labels {labels}: give one value per row.")
        if not 0 <= start <= start + labels[0] <= self.parts[part]:
            raise ValueError(f"rows {start} to {start + labels[0]} of part {part!r} exceed its {self.parts[part]}.")
        sizes = {**{field.name: field.ids for field in self.fields}, LABEL: 2}  # the label goes last: see `finish`
        fitting = {
            name: _fitting(arrays[name], name, size, self._kinds[name], part, start) for name, size in sizes.items()
        }
        for name, array in fitting.items():
            with self._file(part, name).open("r+b") as file:
                file.seek(HEADER + start * array.itemsize)
                file.write(array.data)

    def finish(self, meta: Mapping[str, Any] | None = None) -> Columns:
        """Make the folder a data set: every row must have been written. `meta` is kept with it, as JSON can hold it."""
        kept = json.loads(json.dumps(dict(meta or {})))
        digests: dict[str, dict[str, str]] = {}
        for part, rows in self.parts.items():
            unwritten = mapped(self._file(part, LABEL), self._kinds[LABEL], rows) == UNWRITTEN
            if unwritten.any():
                raise ValueError(
                    f"{np.count_nonzero(unwritten)} rows of part {part!r} were not written, row {np.argmax(unwritten)} "
                    f"first: write them before finish."
                )
            # One after the other: pages of a mapped file count as memory until it is let go.
            digests[part] = {
                name: digest(mapped(self._file(part, name), kind, rows)) for name, kind in self._kinds.items()
            }
        replace_text(self.folder / META, as_text({"format": FORMAT, **self._content, "sha256": digests, "meta": kept}))
        (self.folder / UNFINISHED).unlink(missing_ok=True)
        return Columns.open(self.folder)

    def _file(self, part: str, name: str) -> Path:
        return self.folder / part / f"{name}.npy"


def _out_of_range(ids: NDArray, size: int) -> int | None:
    """The first place of an id that is not in 0, ..., size - 1, or None."""
    if len(ids) == 0 or (ids.max() < size and (ids.dtype.kind in "ub" or ids.min() >= 0)):
        return None
    return int(np.argmax((ids < 0) | (ids >= size)))


def _fitting(values: NDArray, name: str, size: int, kind: np.dtype[Any], part: str, start: int) -> NDArray:
    """The values as they go to disk, or a sentence about the first that does not fit."""
    if kind.kind == "f":
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is told of below
            stored = np.ascontiguousarray(values, kind)
        finite = np.isfinite(stored)
        if not finite.all():
            i = int(np.argmin(finite))
            raise ValueError(f"column {name} has {values[i]} in row {start + i} of part {part!r}: give finite numbers.")
        return stored
    if values.dtype.kind not in "iub" and len(values):
        raise ValueError(f"column {name} has values of type {values.dtype}: give whole numbers.")
    wrong = _out_of_range(values, size)
    if wrong is not None:
        raise ValueError(
            f"column {name} has {values[wrong]} in row {start + wrong} of part {part!r}: give 0 to {size - 1}."
        )
    return np.ascontiguousarray(values, kind)
