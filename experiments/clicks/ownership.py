"""The staging folder of a conversion: whose it is, who works in it, and how it goes.

Nothing is emptied or removed that no conversion made: the file `MARK` tells, which is written first and removed last.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sparseopt.experiments.clicks.layout import META, UNFINISHED
from sparseopt.nn.wholefile import replacing

if sys.platform != "win32":
    import fcntl

__all__ = ["MARK", "flush", "keep_if_same", "owned", "remove", "require_room", "tidy"]

MARK = "sources.json"


def keep_if_same(record: Path, content: Any, folder: Path) -> None:
    """Empty `folder` unless `record` in it says that it is about `content`; then make it say so."""
    text = json.dumps(content, indent=1) + "\n"
    if record.is_file() and record.read_text(encoding="utf-8") == text:
        return
    for path in sorted(folder.iterdir(), key=lambda path: path == record):
        if path.name != "lock":
            _delete(path)
    with replacing(record) as file:
        file.write(text.encode())


@contextlib.contextmanager
def owned(staging: Path) -> Iterator[None]:
    """Make the staging folder and keep other processes out; the lock of a killed process is gone with it."""
    while True:
        staging.mkdir(parents=True, exist_ok=True)
        if not _is_ours(staging):
            raise ValueError(f"{staging} holds other files: remove it, or choose another folder.")
        try:
            lock = open(staging / "lock", "ab")
        except FileNotFoundError:  # removed meanwhile, by a process that has finished
            continue
        with lock:
            if sys.platform != "win32":
                with contextlib.suppress(OSError):
                    fcntl.flock(lock, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock.fileno()), os.stat(staging / "lock")):
                    yield
                    return


def _is_ours(staging: Path) -> bool:
    """Whether a conversion has made this folder: nothing else may be emptied."""
    names = {path.name for path in staging.iterdir()}
    return names <= {"lock", f"{MARK}.tmp"} or MARK in names


def remove(staging: Path) -> None:
    """Remove the staging folder, the file that tells what it is last."""
    if not staging.is_dir() or not _is_ours(staging):
        return
    with contextlib.suppress(FileNotFoundError):  # another process is at it, too
        for path in sorted(staging.iterdir(), key=lambda path: path.name == MARK):
            _delete(path)
        staging.rmdir()


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def require_room(folder: Path) -> None:
    """Refuse to take the place of anything."""
    taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    if taken and not (folder / META).is_file():  # asked last: another process may just have finished
        raise ValueError(f"{folder} is there already, and is no converted data set: choose another folder.")


def tidy(folder: Path) -> None:
    """Remove what writers that were killed have left."""
    for path in [*folder.rglob("*.new"), *folder.rglob("*.tmp"), folder / UNFINISHED]:
        if path.name != UNFINISHED or (folder / META).is_file():
            path.unlink(missing_ok=True)


def flush(folder: Path) -> None:
    """Wait until every file is on the disk: a power failure then leaves no folder of holes under its final name."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
