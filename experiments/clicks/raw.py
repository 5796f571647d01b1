"""Criteo's raw files as blocks of whole lines.

A file is read once from beginning to end, in memory that does not depend on its length: plain or gzip (told by its
first bytes, several members allowed), with a SHA-256 of the bytes on disk.

The files of Criteo_x4 that BARS publishes have the fields of the competition's with commas between them, below a line
of names: such a first line says that commas separate. Those of Criteo_x1 hold normalised numbers and other ids, and are
not read.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sparseopt.experiments.clicks.lines import FIELDS, LONGEST
from sparseopt.progress import shown

__all__ = ["BLOCK", "Block", "Damage", "Source"]


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
