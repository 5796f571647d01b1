"""Files that are either whole or not there.

`write_whole` writes under another name, flushes to the disk, and puts the new file in the place of the old one by one
system call: at every moment, the path holds the old contents or the new ones. A file ends with a SHA-256 of its
contents, so `read_whole` notices damage before anyone relies on it:

    zip archive of torch.save | "sparseopt checkpoint 0001 " | SHA-256 of all before, in hex | newline

Readers of zip archives skip the last line, so `torch.load(path, weights_only=True)` reads these files as well.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch

if sys.platform != "win32":
    import fcntl

__all__ = ["read_whole", "replacing", "write_whole"]

VERSION = 1
_MARK = b"sparseopt checkpoint %04d "
_END = re.compile(rb"(sparseopt checkpoint (\d{4}) )([0-9a-f]{64})\n")
_LENGTH = len(_MARK % VERSION) + 64 + 1


def write_whole(path: str | os.PathLike[str], content: Any) -> None:
    """Put `content`, tensors and plain data, in the place of the file `path` in one step.

    Meanwhile `path` + ".tmp" is used. What a killed process leaves there is overwritten by the next call; several
    writers of one path wait for each other. A failure (a full disk) removes it, and leaves `path` as it was.

    >>> write_whole("numbers.pt", {"a": torch.arange(3), "b": 1.5})
    >>> read_whole("numbers.pt")
    {'a': tensor([0, 1, 2]), 'b': 1.5}
    """
    with replacing(path) as file:
        out = _Digesting(file)
        torch.save(content, out)  # type: ignore[arg-type]
        out.finish()


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A file that takes the place of `path` in one step when the block ends, and is gone if the block fails.

    >>> with replacing("numbers.txt") as file:
    ...     _ = file.write(b"1 2 3")
    >>> Path("numbers.txt").read_text()
    '1 2 3'
    """
    path = Path(os.path.realpath(path))
    temporary = path.with_name(path.name + ".tmp")
    file = _claim(temporary)
    try:
        yield file
        file.flush()
        # Without this, a power failure could leave the new name on contents that never reached the disk.
        os.fsync(file.fileno())
        if os.name != "posix":
            file.close()
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    finally:
        file.close()
    if os.name == "posix":
        # The new name is on the disk when the folder is. Some network file systems cannot; the file is whole anyway.
        with contextlib.suppress(OSError):
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def read_whole(path: str | os.PathLike[str]) -> Any:
    """What `write_whole` wrote, on the CPU.

    Raises
    ------
    ValueError
        When the file is truncated or damaged, or something else wrote it.
    """
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _LENGTH))
        end = _END.fullmatch(file.read())
        if end is None:
            raise ValueError(
                f"{path} is no whole checkpoint: it is truncated, or something else than sparseopt wrote it; "
                "give another file."
            )
        file.seek(0)
        digest, left = hashlib.sha256(), size - _LENGTH
        while left > 0 and (part := file.read(min(left, 1 << 20))):
            digest.update(part)
            left -= len(part)
        digest.update(end[1])
        if digest.hexdigest().encode() != end[3]:
            raise ValueError(f"{path} is damaged, its contents do not match its checksum: go back to an older file.")
        if int(end[2]) != VERSION:
            raise ValueError(
                f"{path} has format {int(end[2])}, and this sparseopt reads format {VERSION}: "
                "use the version of sparseopt that wrote it."
            )
        file.seek(0)
        return torch.load(file, map_location="cpu", weights_only=True)


class _Digesting:
    """A file that computes the SHA-256 of what is written to it.

    torch would turn an exception that it meets here, a full disk or an interruption from the keyboard, into a
    RuntimeError about positions in the archive. So it is kept, what follows is dropped, and `finish` raises it.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.sum = hashlib.sha256()
        self.failure: BaseException | None = None

    def write(self, data: Any) -> int:
        if self.failure is None:
            try:
                self.put(data)
            except BaseException as error:
                self.failure = error
        return len(data)

    def put(self, data: Any) -> None:
        self.sum.update(data)
        self.file.write(data)

    def flush(self) -> None:
        """torch calls this at the end; `write_whole` flushes."""

    def finish(self) -> None:
        """Write the last line."""
        if self.failure is None:
            self.put(_MARK % VERSION)
            self.file.write(self.sum.hexdigest().encode() + b"\n")
            self.file.flush()
        else:
            raise self.failure


def _claim(temporary: Path) -> IO[bytes]:
    """The temporary file, empty, and locked until it is closed; the lock of a killed process is gone with it."""
    while True:
        file = open(temporary, "ab")
        if sys.platform != "win32":
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
        # Whoever held the lock has given the file its final name by now: then the next one is wanted.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(temporary)):
                file.truncate(0)
                return file
        file.close()
