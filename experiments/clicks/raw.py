r"""Criteo's raw rows: what a well-formed line is, and a file of them as blocks of whole lines.

    label \t I1 ... I13 \t C1 ... C26 \n        0 or 1; whole numbers; words of eight hexadecimal digits, lower case

A number or a word may be missing: then its field is empty. `LINE` is the only definition of a well-formed line. RE2
matches it against all lines of a block, and `parsed` turns those that match into columns without asking again, so what
it does with other lines does not matter. Lines that do not match are kept, with the reason in words.

The files of Criteo_x4 that BARS publishes have the same fields with commas between them, below a line of names: such a
first line says that commas separate. Those of Criteo_x1 hold normalised numbers and other ids, and are not read.

A file is read once from beginning to end, in memory that does not depend on its length: plain or gzip (told by its
first bytes, several members allowed), with a SHA-256 of the bytes on disk.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sparseopt.jit import kernel
from sparseopt.progress import shown

__all__ = ["CATEGORIES", "FIELDS", "LINE", "NUMBERS", "Block", "Damage", "Rows", "Source", "explained", "parsed"]

NUMBERS = tuple(f"I{i}" for i in range(1, 14))
CATEGORIES = tuple(f"C{i}" for i in range(1, 27))
FIELDS = NUMBERS + CATEGORIES

LINE = r"[01](?:\t(?:-?[0-9]{1,18})?){13}(?:\t(?:[0-9a-f]{8})?){26}\r?\n"
LONGEST = 1 << 16  # bytes of a line; a longer one is malformed, and its beginning is kept
BLOCK = 8 << 20  # bytes that are parsed together
_READ = 1 << 20  # bytes of the file at a time
_HEADER = ("label", *(name.lower() for name in FIELDS))
_GZIP = b"\x1f\x8b"
_OTHERS = {
    b"PK\x03\x04": "a zip archive",
    b"\xfd7zXZ": "compressed by xz",
    b"BZh": "compressed by bzip2",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"PAR1": "a Parquet file",
}


class Damage(ValueError):
    """A file that is not what it was when it was made; the message lacks its subject."""


class Block(NamedTuple):
    """Whole lines, each with its newline, and how far into the text of the file they reach."""

    data: bytes
    end: int


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


class Source:
    """One file of rows; iterating over `blocks` reads it.

    Attributes
    ----------
    separator : bytes
        A tab, or a comma; known from the first block on.
    header : int
        Lines of names at the beginning: 0 or 1.
    sha256 : str
        Of the file; known at its end.
    """

    def __init__(self, path: Path, progress: bool | None = False) -> None:
        self.path = path
        self.separator = b"\t"
        self.header = 0
        self.sha256 = ""
        self._progress = progress

    def blocks(self, size: int = BLOCK, skip: int = 0) -> Iterator[Block]:
        """Blocks of about `size` bytes; with `skip`, those after the first `skip` bytes of text.

        Raises
        ------
        Damage
            After the blocks before it.
        ValueError
            When the file is no text.
        """
        pieces: list[bytes] = []
        held = read = 0  # bytes in `pieces`; bytes of text so far
        cutting = False  # within a line that is too long
        texts, damage = self._named(self._text()), None
        while True:
            try:
                text = next(texts, None)
            except Damage as error:  # first the lines that were read before it
                text, damage = None, error
            if text is None:
                break
            start, read = read, read + len(text)
            if read <= skip:
                continue
            text = text[max(0, skip - start) :]
            if cutting:
                end = text.find(b"\n")
                if end < 0:
                    continue
                text, cutting = text[end:], False
            pieces.append(text)
            held += len(text)
            if held < size:
                continue
            whole = b"".join(pieces)
            begin = 0
            while len(whole) - begin >= size:
                end = whole.rfind(b"\n", begin, begin + size) + 1 or whole.find(b"\n", begin) + 1
                if not end:
                    break
                yield Block(whole[begin:end], read - len(whole) + end)
                begin = end
            rest = whole[begin:]
            tail = len(rest) - 1 - rest.rfind(b"\n")
            if tail > LONGEST:  # the lines before it go first: what is in memory is then one stretch of the file
                if tail < len(rest):
                    yield Block(rest[:-tail], read - tail)
                rest, cutting = rest[-tail:][:LONGEST], True  # its newline begins the next piece
            pieces, held = [rest], len(rest)
        whole = b"".join(pieces)
        if damage:
            whole = whole[: whole.rfind(b"\n") + 1]
        if whole:
            yield Block(whole if whole.endswith(b"\n") else whole + b"\n", read)
        if damage:
            raise damage

    def _named(self, texts: Iterator[bytes]) -> Iterator[bytes]:
        """The text below a line of names, if there is one."""
        start = b""
        for text in texts:
            start += text
            if len(start) >= 512:  # more than a line of names has
                break
        yield self._without_header(start)
        yield from texts

    def _without_header(self, text: bytes) -> bytes:
        for mark, what in _OTHERS.items():
            if text.startswith(mark):
                raise ValueError(f"{self.path} is {what}: unpack it, and give the text or a gzip file of it.")
        if text[257:262] == b"ustar":
            raise ValueError(f"{self.path} is a tar archive: unpack it, and give its train.txt.")
        text = text.removeprefix(b"\xef\xbb\xbf")
        line = text[:LONGEST].split(b"\n", 1)[0]
        for separator in (b"\t", b","):
            if tuple(line.decode("latin-1").strip().lower().split(separator.decode())) == _HEADER:
                self.separator, self.header = separator, 1
                return text[len(line) + 1 :]
        return text

    def _text(self) -> Iterator[bytes]:
        """The text, unpacked."""
        digest = hashlib.sha256()
        size = self.path.stat().st_size
        with self.path.open("rb") as file:
            steps = iter(lambda: file.read(_READ), b"")
            parts = _digested(shown(steps, self._progress, max(1, -(-size // _READ))), digest)
            start = next(parts, b"")
            if not start:
                raise ValueError(f"{self.path} is empty: give a file of rows.")
            if start.startswith(_GZIP):
                yield from _unpacked(start, parts)
            else:
                yield start
                yield from parts
        self.sha256 = digest.hexdigest()


def _digested(parts: Iterator[bytes] | Any, digest: Any) -> Iterator[bytes]:
    for part in parts:
        digest.update(part)
        yield part


def _unpacked(start: bytes, parts: Iterator[bytes]) -> Iterator[bytes]:
    """The text of a gzip file."""
    stream = zlib.decompressobj(31)
    data = start
    while True:
        try:
            text = stream.decompress(data, BLOCK)  # no more at once: a file may unpack to a thousand times its size
        except zlib.error as error:
            raise Damage(f"is damaged ({_plain(error)})") from None
        if text:
            yield text
        data = stream.unconsumed_tail
        if stream.eof:
            data = stream.unused_data or next(parts, b"")
            while data and not data.lstrip(b"\0"):
                data = next(parts, b"")  # zeros may fill the last sector of a tape
            if not data:
                return
            if not data.startswith(_GZIP[: len(data)]):
                raise Damage("is damaged (something that is not gzip follows the text)")
            stream = zlib.decompressobj(31)
        elif not data:
            data = next(parts, b"")
            if not data:
                raise Damage("is truncated (the gzip file ends before its checksum)")


def _plain(error: zlib.error) -> str:
    text = str(error)
    return "its checksum does not match" if "incorrect data check" in text else text.partition(": ")[2] or text


# -- lines -------------------------------------------------------------------------------------------------------------


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
