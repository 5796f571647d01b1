r"""What a row of Criteo's competition is, and rows as columns.

    label \t I1 ... I13 \t C1 ... C26 \n        0 or 1; whole numbers; words of eight hexadecimal digits, lower case

A number or a word may be missing: then its field is empty. `LINE` is the only definition of a well-formed line. RE2
matches it against all lines of a block, and `parsed` turns those that match into columns without asking again, so what
it does with other lines does not matter. Lines that do not match are kept, and `explained` says why in words.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sparseopt.jit import kernel

__all__ = ["CATEGORIES", "FIELDS", "LINE", "LONGEST", "NUMBERS", "Rows", "explained", "parsed"]

NUMBERS = tuple(f"I{i}" for i in range(1, 14))
CATEGORIES = tuple(f"C{i}" for i in range(1, 27))
FIELDS = NUMBERS + CATEGORIES

LINE = r"[01](?:\t(?:-?[0-9]{1,18})?){13}(?:\t(?:[0-9a-f]{8})?){26}\r?\n"
LONGEST = 1 << 16  # bytes of a line; a longer one is malformed, and its beginning is kept


class Rows(NamedTuple):
    """The lines of a block.

    label: (n,) of uint8. numbers: (13, n) of int64. words: (26, n) of uint32. missing: (n,) of uint64, bit j is set if
    field j of `FIELDS` is empty, and the value is 0 then. bad: lines that are no rows, as (line from 1, its bytes).
    """

    label: NDArray[np.uint8]
    numbers: NDArray[np.int64]
    words: NDArray[np.uint32]
    missing: NDArray[np.uint64]
    lines: int
    bad: tuple[tuple[int, bytes], ...]


def parsed(data: bytes, separator: bytes = b"\t") -> Rows:
    r"""The rows of whole lines.

    >>> rows = parsed(b"1\t5\t-2" + b"\t" * 11 + b"\t68fd1e64" + b"\t" * 25 + b"\n" + b"1\t2\n")
    >>> rows.numbers[:3, 0].tolist(), [f"{word:08x}" for word in rows.words[:2, 0]], rows.lines
    ([5, -2, 0], ['68fd1e64', '00000000'], 2)
    >>> rows.bad
    ((2, b'1\t2\n'),)
    """
    text = np.frombuffer(data, np.uint8)
    ends = np.empty(data.count(b"\n") + 1, np.int32)
    _line_ends(text, text[: len(text) // 8 * 8].view(np.uint64), ends)
    n = len(ends) - 1
    # Binary, not text: RE2 then takes bytes as they are, and nobody has to make sure that they are UTF-8.
    lines = pa.Array.from_buffers(pa.binary(), n, [None, pa.py_buffer(ends), pa.py_buffer(data)])
    pattern = LINE.replace(r"\t", separator.decode())
    fits = pc.match_substring_regex(lines, rf"\A(?:{pattern})\z").to_numpy(zero_copy_only=False)
    good = np.flatnonzero(fits)
    rows = Rows(
        np.empty(len(good), np.uint8),
        np.empty((len(NUMBERS), len(good)), np.int64),
        np.empty((len(CATEGORIES), len(good)), np.uint32),
        np.empty(len(good), np.uint64),
        n,
        tuple((int(i) + 1, data[ends[i] : ends[i + 1]]) for i in np.flatnonzero(~fits)),
    )
    _fill(text, ends, good, rows.label, rows.numbers, rows.words, rows.missing)
    return rows


@kernel
def _line_ends(text, words, ends):
    """Where lines end. Eight bytes at a time: x - 0x01...01 borrows from the top bit of a byte if it is 0."""
    newlines, ones, tops = np.uint64(0x0A0A0A0A0A0A0A0A), np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)
    ends[0] = 0
    found = 1
    for i in range(len(words)):
        x = words[i] ^ newlines
        if (x - ones) & ~x & tops:
            for at in range(8 * i, 8 * i + 8):
                if text[at] == 10:
                    ends[found] = at + 1
                    found += 1
    for at in range(8 * len(words), len(text)):
        if text[at] == 10:
            ends[found] = at + 1
            found += 1


@kernel
def _fill(text, ends, good, label, numbers, words, missing):
    """Columns from lines that are well-formed. What is below the digit 0 separates: tab, comma, carriage return."""
    n_numbers, n_words = len(numbers), len(words)
    for row in range(len(good)):
        at = ends[good[row]]
        label[row] = text[at] - 48
        at += 2
        gone = np.uint64(0)
        for field in range(n_numbers):
            negative = text[at] == 45
            at += negative
            value = np.int64(0)
            first = at
            while text[at] >= 48:
                value = value * 10 + np.int64(text[at] - 48)
                at += 1
            if at == first:
                gone |= np.uint64(1) << np.uint64(field)
            numbers[field, row] = -value if negative else value
            at += 1
        for field in range(n_words):
            word = np.uint32(0)
            if text[at] >= 48:
                for _ in range(8):
                    digit = text[at]
                    word = (word << np.uint32(4)) | np.uint32(digit - 48 if digit < 58 else digit - 87)
                    at += 1
            else:
                gone |= np.uint64(1) << np.uint64(n_numbers + field)
            words[field, row] = word
            at += 1
        missing[row] = gone


_LINE = re.compile(LINE.encode())


def explained(line: bytes, separator: bytes = b"\t") -> str:
    r"""Why a line is not well-formed, in words.

    >>> explained(b"2" + b"\t" * 39 + b"\n"), explained(b"\n"), explained(b"0\t1\n")
    ("the label is '2', neither 0 nor 1", 'an empty line', '2 fields instead of 40')
    """
    text = line.removesuffix(b"\n").removesuffix(b"\r")
    if len(text) >= LONGEST:
        return f"longer than {LONGEST} bytes; the rest is not kept"
    if not text:
        return "an empty line"
    try:
        text.decode()
    except UnicodeDecodeError:
        return "bytes that are not UTF-8"
    cells = text.split(separator)
    if len(cells) == len(FIELDS) and _LINE.fullmatch(b"\t".join([b"0", *cells, b""])[:-1] + b"\n"):
        return "39 fields, no label: a row of the competition's test set"
    if len(cells) != len(FIELDS) + 1:
        return f"{len(cells)} field{'s' * (len(cells) > 1)} instead of 40"
    if cells[0] not in (b"0", b"1"):
        return f"the label is {_cut(cells[0])}, neither 0 nor 1"
    for name, cell in zip(FIELDS, cells[1:], strict=True):
        if name in NUMBERS and not re.fullmatch(rb"(-?[0-9]{1,18})?", cell):
            return f"{name} is {_cut(cell)}, no whole number of at most 18 digits"
        if name in CATEGORIES and not re.fullmatch(rb"([0-9a-f]{8})?", cell):
            return f"{name} is {_cut(cell)}, not eight hexadecimal digits"
    raise ValueError(f"{line!r} is well-formed: explain lines that are not.")


def _cut(cell: bytes) -> str:
    text = cell.decode()
    return repr(text if len(text) <= 40 else text[:37] + "...")
