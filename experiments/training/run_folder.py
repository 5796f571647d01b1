"""The folder of a run: what was asked, where it was run, how it went, and what came out.

    recipe.yaml          the recipe, complete                     steps.csv    losses every few steps
    environment.json     machine, versions, processes             epochs.csv   metrics on the validation examples
    checkpoint-*.pt      where to go on after a crash             result.json  only of finished runs

Files with one content are replaced whole or not at all. Tables grow line by line; a run that continues at step n drops
the lines after n first, so that at the end they are those of an uninterrupted run. `settle` puts the lines on the disk:
they are needed from the moment on when a checkpoint says that the steps before it are done.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from sparseopt.nn.wholefile import replacing

if sys.platform != "win32":
    import fcntl

__all__ = ["RunFolder"]

_CHECKPOINT = re.compile(r"checkpoint-(\d+)\.pt")
_KEPT = 2  # checkpoints: should the last one turn out damaged, the one before it is there


class RunFolder:
    """A folder that one run owns.

    Examples
    --------
    >>> folder = RunFolder(Path("runs/first"))
    >>> for step in (10, 20, 30):
    ...     folder.add("steps.csv", {"step": step, "loss": 1.0 / step})
    >>> folder.rewind(20)
    >>> [row["step"] for row in folder.table("steps.csv")]
    ['10', '20']
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def owned(self) -> Iterator[None]:
        """Keep others out while the block runs; the lock of a killed process is gone with it.

        Raises
        ------
        ValueError
            When another process has it.
        """
        file: IO[str] = open(self.path / "lock", "w")
        with file:
            if sys.platform != "win32":
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise ValueError(
                        f"another process is training in {self.path}: wait for it, or choose another output.folder."
                    ) from error
            yield

    # -- whole files ---------------------------------------------------------------------------------------------------

    def write(self, name: str, text: str) -> None:
        """Put `text` in the place of the file in one step."""
        with self.writing(), replacing(self.path / name) as file:
            file.write(text.encode("utf-8"))

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """A full disk becomes a sentence.

        Raises
        ------
        OSError
            With the folder and the remedy.
        """
        try:
            yield
        except OSError as error:
            if error.errno is None:  # it is a sentence already
                raise
            raise OSError(
                f"{self.path} cannot be written to ({os.strerror(error.errno)}): make room; the same command then goes "
                "on from the last checkpoint."
            ) from error

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """The same with JSON; NaN and infinity become null, which JSON has no words for."""
        self.write(name, json.dumps(_finite(content), indent=1) + "\n")

    def read_json(self, name: str) -> Any:
        """What `write_json` wrote, None if there is no such file."""
        file = self.path / name
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None

    # -- tables --------------------------------------------------------------------------------------------------------

    def add(self, name: str, row: Mapping[str, Any]) -> None:
        """One more line of a table; the first one decides the columns."""
        file = self.path / name
        first = not file.is_file() or file.stat().st_size == 0
        text = _lines([row], list(row) if first else self._columns(name), header=first)
        with self.writing(), file.open("a", encoding="utf-8", newline="") as out:
            out.write(text)

    def settle(self) -> None:
        """Wait until the lines of all tables are on the disk."""
        for file in self.path.glob("*.csv"):
            with self.writing(), file.open("rb") as table:
                os.fsync(table.fileno())

    def table(self, name: str) -> list[dict[str, str]]:
        """The lines of a table; the half line that a killed process left is dropped."""
        file = self.path / name
        if not file.is_file():
            return []
        text = file.read_text(encoding="utf-8")
        return list(csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1])))

    def rewind(self, step: int) -> None:
        """Drop the lines after step `step` from all tables; all lines for step 0."""
        for file in sorted(self.path.glob("*.csv")):
            rows = [row for row in self.table(file.name) if 0 < int(row["step"]) <= step]
            if rows:
                self.write(file.name, _lines(rows, list(rows[0]), header=True))
            else:
                file.unlink()

    def _columns(self, name: str) -> list[str]:
        with (self.path / name).open(encoding="utf-8", newline="") as file:
            return next(csv.reader(file))

    def clear(self) -> None:
        """Remove what a run writes; files that are not a run's stay."""
        for pattern in (
            "checkpoint-*.pt*",
            "*.csv",
            "*.jsonl",
            "result.json",
            "*.safetensors",
            "*.png",
            "compression.txt",
        ):
            for file in self.path.glob(pattern):
                file.unlink()
        shutil.rmtree(self.path / "tensorboard", ignore_errors=True)

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    def checkpoint(self, step: int) -> Path:
        """The file for a step."""
        return self.path / f"checkpoint-{step:09d}.pt"

    def checkpoints(self) -> list[Path]:
        """All of them, the newest first."""
        return sorted((file for file in self.path.iterdir() if _CHECKPOINT.fullmatch(file.name)), reverse=True)

    def forget_old_checkpoints(self, keep: int = _KEPT) -> None:
        """Remove all but the newest."""
        for file in self.checkpoints()[keep:]:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(file)


def _lines(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], header: bool) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and value - value != 0.0 else value
