"""Raw files as a folder of parts: what is read once, so that later passes need not read text again.

    staging/train-00000.arrow    rows: label, I1 ... I13, C1 ... C26, missing (see `raw.Rows`), LZ4
    staging/train-00000.json     written after it: rows, clicks, lines, malformed, and where the text goes on
    staging/train-00000.tsv      its malformed lines, if there are any
    staging/train.json           the file was read to its end: its SHA-256, and the sums of its parts

A part counts once its .json is there. After a kill, the parts up to the first one that does not count are kept, and the
file is read again from the beginning, without parsing, to where they end: a gzip file cannot be entered in the middle,
and its digest needs all bytes anyhow. The rows of the parts, one after the other, do not depend on where parts end.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sparseopt.experiments.clicks.lines import CATEGORIES, LONGEST, NUMBERS, Rows, explained, parsed
from sparseopt.experiments.clicks.raw import BLOCK, Damage, Source
from sparseopt.nn.wholefile import replacing

__all__ = ["Part", "Staged", "escaped", "put_json", "read_part", "stage", "staged_parts"]

ROWS = 500_000  # of a part, about
WORKERS = 2
_LABEL, _MISSING = "label", "missing"
_SCHEMA = pa.schema(
    [(_LABEL, pa.uint8())]
    + [(name, pa.int64()) for name in NUMBERS]
    + [(name, pa.uint32()) for name in CATEGORIES]
    + [(_MISSING, pa.uint64())]
)


class Part(NamedTuple):
    """A part that counts. `end` is how far into the text of its file it reaches."""

    path: Path
    rows: int
    clicks: int
    lines: int
    malformed: int
    end: int


class Staged(NamedTuple):
    """A file that was read to its end."""

    parts: tuple[Part, ...]
    sha256: str

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)

    @property
    def about(self) -> dict[str, Any]:
        """What is worth keeping of it."""
        return {"sha256": self.sha256, "rows": self.rows, "malformed": sum(part.malformed for part in self.parts)}


def stage(source: Path, name: str, folder: Path, progress: bool | None = False, rows: int = ROWS) -> Staged:
    """Read `source` into parts called `name` in `folder`, from where an earlier call was killed.

    Raises
    ------
    ValueError
        When the file is damaged or truncated, has no row, or more than half of the lines of its first part are
        malformed.
    """
    done = staged_parts(folder, name)
    end = folder / f"{name}.json"
    if end.is_file():
        return Staged(tuple(done), json.loads(end.read_text(encoding="utf-8"))["sha256"])
    reader = Source(source, progress)
    writer = _Writer(source, name, folder, done, rows)
    try:
        with ThreadPoolExecutor(WORKERS) as pool:
            for rows_of_block, position in _ahead(reader, pool, min(BLOCK, 64 * rows), done[-1].end if done else 0):
                writer.add(rows_of_block, position, reader)
            writer.finish()
    except Damage as error:
        raise ValueError(
            f"{source} {error}, after {writer.rows} well-formed rows: fetch the file again, and convert it anew."
        ) from None
    if not writer.rows:
        raise ValueError(f"{source} holds no well-formed row in {writer.lines} lines: give a file of rows.")
    put_json(end, {"sha256": reader.sha256, "rows": writer.rows, "malformed": writer.malformed})
    return Staged(tuple(staged_parts(folder, name)), reader.sha256)


def _ahead(reader: Source, pool: ThreadPoolExecutor, size: int, skip: int) -> Iterator[tuple[Rows, int]]:
    """The parsed blocks in their order; while one is used, the next are parsed and the file is read on."""
    waiting: deque[tuple[Future[Rows], int]] = deque()
    error: Damage | None = None
    blocks = reader.blocks(size, skip)
    while True:
        try:
            block = next(blocks, None)
        except Damage as damage:  # the blocks before it count
            block, error = None, damage
        if block is not None:
            waiting.append((pool.submit(parsed, block.data, reader.separator), block.end))
        while waiting and (block is None or len(waiting) > WORKERS + 1):
            future, end = waiting.popleft()
            yield future.result(), end
        if error is not None:
            raise error
        if block is None:
            return


class _Writer:
    """Collects the rows of blocks and writes them as parts."""

    def __init__(self, source: Path, name: str, folder: Path, done: list[Part], rows: int) -> None:
        self.source, self.name, self.folder, self.size = source, name, folder, rows
        self.number = len(done)
        self.rows = sum(part.rows for part in done)
        self.lines = sum(part.lines for part in done)
        self.malformed = sum(part.malformed for part in done)
        self._blocks: list[Rows] = []
        self._bad: list[tuple[int, str, bytes]] = []
        self._start, self._end = self.lines, 0

    def add(self, rows: Rows, end: int, reader: Source) -> None:
        for number, line in rows.bad:
            line = line[:LONGEST]
            why = explained(line, reader.separator)
            self._bad.append((self.lines + reader.header + number, why, line))
        self.lines += rows.lines
        self.rows += len(rows.label)
        self.malformed += len(rows.bad)
        self._blocks.append(rows)
        self._end = end
        if sum(block.lines for block in self._blocks) >= self.size:
            self._put()

    def finish(self) -> None:
        if self._blocks:
            self._put()

    def _put(self) -> None:
        """Write the part, and what says that it counts last."""
        rows = sum(len(block.label) for block in self._blocks)
        if self.number == 0 and len(self._bad) > rows:
            number, why, line = self._bad[0]
            raise ValueError(
                f"{self.source} does not look like rows of Criteo's data, {len(self._bad)} of its first "
                f"{len(self._bad) + rows} lines are malformed: line {number} is {escaped(line[:60])!r} ({why}); "
                f"give a file of label, 13 numbers and 26 words."
            )
        stem = self.folder / f"{self.name}-{self.number:05d}"
        with replacing(stem.with_suffix(".arrow")) as file:
            options = pa.ipc.IpcWriteOptions(compression="lz4")
            with pa.ipc.new_file(file, _SCHEMA, options=options) as out:
                for block in self._blocks:
                    out.write_batch(_batch(block))
        if self._bad:
            with replacing(stem.with_suffix(".tsv")) as file:
                for number, why, line in self._bad:
                    file.write(f"{self.source.name}\t{number}\t{why}\t{escaped(line)}\n".encode())
        else:  # of a part that was killed before it counted
            stem.with_suffix(".tsv").unlink(missing_ok=True)
        clicks = sum(int(block.label.sum()) for block in self._blocks)
        record = {"rows": rows, "clicks": clicks, "lines": self.lines - self._start, "malformed": len(self._bad)}
        put_json(stem.with_suffix(".json"), {**record, "end": self._end})
        self.number += 1
        self._start, self._blocks, self._bad = self.lines, [], []


def _batch(rows: Rows) -> pa.RecordBatch:
    arrays = [pa.array(each) for each in (rows.label, *rows.numbers, *rows.words, rows.missing)]
    return pa.RecordBatch.from_arrays(arrays, schema=_SCHEMA)


def staged_parts(folder: Path, name: str) -> list[Part]:
    """The parts that count."""
    found: list[Part] = []
    for number in count():
        path = folder / f"{name}-{number:05d}.arrow"
        record = path.with_suffix(".json")
        if not record.is_file():
            return found
        found.append(Part(path=path, **json.loads(record.read_text(encoding="utf-8"))))
    raise AssertionError


def read_part(part: Part, columns: tuple[str, ...]) -> Mapping[str, NDArray[Any]]:
    """Some columns of a part, each as one array."""
    with pa.OSFile(str(part.path)) as file:
        names = [_SCHEMA.get_field_index(name) for name in columns]
        options = pa.ipc.IpcReadOptions(included_fields=names)
        table = pa.ipc.open_file(file, options=options).read_all()
    return {name: np.concatenate([chunk.to_numpy() for chunk in table[name].chunks]) for name in columns}


def put_json(path: Path, content: Any) -> None:
    """Write `path` whole or not at all."""
    with replacing(path) as file:
        file.write((json.dumps(content, indent=1) + "\n").encode())


def escaped(line: bytes) -> str:
    r"""A line as ASCII text without tabs and line ends: what is not printable as \t, \r, \xff.

    >>> print(escaped(b"1\t\xff\r\n"))
    1\t\xff\r
    """
    return repr(line.removesuffix(b"\n"))[2:-1]
