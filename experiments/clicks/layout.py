"""The files of a data set of clicks: a field's type on disk, .npy files of known length, and meta.json.

An .npy file has a header of 128 bytes whatever its length, so it is checked by comparing bytes: what does not begin as
this module would write it, or has another length, is not read.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FORMAT", "HEADER", "LABEL", "META", "UNFINISHED", "UNWRITTEN", "VERSION", "Field", "as_text", "begin", "digest",
    "fault", "header", "kinds", "mapped", "read_meta", "replace_text",
]  # fmt: skip

FORMAT = "sparseopt clicks"
VERSION = 1
META = "meta.json"
UNFINISHED = "unfinished.json"
LABEL = "label"
UNWRITTEN = 255  # the label of a row that is not there yet
HEADER = 128  # bytes before the numbers of a file
LARGEST = 2**31 - 1  # ids reach the network as int32
_READ = 1 << 22  # bytes at a time
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}")


class Field(NamedTuple):
    """A field: its name, and how many ids it has; one without ids has values.

    >>> fields = Field("C1", 256), Field("C2", 257), Field("C3", 65537), Field("I1")
    >>> [(field.kind, str(field.dtype)) for field in fields]
    [('ids', 'uint8'), ('ids', 'uint16'), ('ids', 'int32'), ('values', 'float32')]
    """

    name: str
    ids: int = 0

    @property
    def kind(self) -> str:
        """ "ids" or "values"."""
        return "ids" if self.ids else "values"

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type on disk."""
        if not self.ids:
            return np.dtype("<f4")
        return np.dtype("|u1" if self.ids <= 1 << 8 else "<u2" if self.ids <= 1 << 16 else "<i4")


def kinds(fields: Sequence[Field]) -> dict[str, np.dtype[Any]]:
    """Every column of a part and its type on disk."""
    return {LABEL: np.dtype("|u1"), **{field.name: field.dtype for field in fields}}


def header(kind: np.dtype[Any], rows: int) -> bytes:
    """The beginning of an .npy file, always of `HEADER` bytes."""
    text = f"{{'descr': '{kind.str}', 'fortran_order': False, 'shape': ({rows},), }}"
    return b"\x93NUMPY\x01\x00" + (HEADER - 10).to_bytes(2, "little") + text.ljust(HEADER - 11).encode() + b"\n"


def begin(file: Path, kind: np.dtype[Any], rows: int, byte: int) -> None:
    """Make a file of full length, every byte of its numbers equal to `byte`: zeros take no room on most disks."""
    with file.open("wb") as stream:
        stream.write(header(kind, rows))
        left = rows * kind.itemsize if byte else 0
        while left:
            left -= stream.write(bytes([byte]) * min(_READ, left))
        stream.truncate(HEADER + rows * kind.itemsize)


def mapped(file: Path, kind: np.dtype[Any], rows: int) -> NDArray:
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: convert the rows again.")
    length, expected = file.stat().st_size, HEADER + rows * kind.itemsize
    if length != expected:
        raise ValueError(
            f"{file} has {length} bytes, and {rows} rows of {kind} take {expected}: convert the rows again."
        )
    with file.open("rb") as stream:
        if stream.read(HEADER) != header(kind, rows):
            raise ValueError(f"{file} does not begin like {rows} rows of {kind}: convert the rows again.")
    # a plain array over the mapping: slices of np.memmap cost several times as much
    return np.asarray(np.memmap(file, kind, "r", HEADER, (rows,)))


def digest(column: NDArray) -> str:
    hashed = hashlib.sha256()
    rows = _READ // column.itemsize
    for start in range(0, len(column), rows):
        hashed.update(column[start : start + rows].data)
    return hashed.hexdigest()


def as_text(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=1) + "\n"


def replace_text(file: Path, text: str) -> None:
    """Write a file in one move: nobody finds half of it."""
    new = file.with_name(f"{file.name}.{os.getpid()}.new")
    new.write_text(text, encoding="utf-8")
    new.replace(file)


def read_meta(file: Path) -> dict[str, Any]:
    """meta.json, with everything in it of the type that the rest relies on."""
    if not file.is_file():
        unfinished = file.with_name(UNFINISHED).exists()
        what = "its conversion was not finished: run it again" if unfinished else "give a folder of converted rows"
        raise FileNotFoundError(f"{file} is missing: {what}.")
    try:
        meta = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not JSON ({error}): convert the rows again.") from error
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise ValueError(f"{file} does not describe rows of clicks: give a folder of converted rows.")
    if meta.get("version") != VERSION:
        raise ValueError(
            f"{file} has version {meta.get('version')!r}, and this release reads {VERSION}: convert the rows again."
        )
    wrong = fault(meta.get("parts"), meta.get("fields"))
    if wrong:
        raise ValueError(f"{file}: {wrong}")
    digests = meta.get("sha256")
    if not isinstance(digests, dict) or not all(isinstance(each, dict) for each in digests.values()):
        raise ValueError(f"{file} lacks the SHA-256 of its columns: convert the rows again.")
    if not isinstance(meta.get("meta"), dict):
        raise ValueError(f"{file} lacks the key meta: convert the rows again.")
    return meta


def fault(parts: Any, fields: Any) -> str:
    """What is wrong with parts and fields, as a sentence, or nothing."""
    if not isinstance(parts, dict) or not parts or not all(type(n) is int and n >= 1 for n in parts.values()):
        return f"parts are {parts!r}: expected one or more names, each with its number of rows, at least 1."
    listed: list[Any] = fields if isinstance(fields, list) else [None]
    for field in listed:
        whole = isinstance(field, (list, tuple)) and len(field) == 2 and type(field[1]) is int
        if not whole or not 0 <= field[1] <= LARGEST:
            return f"a field is {field!r}: expected a name and its number of ids, 0 to {LARGEST}."
    if not listed:
        return "there are no fields: give at least one."
    names = [LABEL, *(field[0] for field in listed)]
    for name in (*parts, *names):
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            return f"a part or field is called {name!r}: expected letters, digits, _ and -, at most 100."
    for group in (list(parts), names):
        folded = [name.casefold() for name in group]  # as files, C1 and c1 may be one
        if len(set(folded)) < len(folded):
            twice = next(name for name in reversed(group) if folded.count(name.casefold()) > 1)
            return f"the name {twice!r} is taken twice: give every part and field a name of its own, not {LABEL!r}."
    return ""
