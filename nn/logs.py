"""Logs of a pruning: what the history holds, written where training is watched.

    logging          the logger "sparseopt.nn" tells every event at level INFO, without any setting here:
                     logging.basicConfig(level=logging.INFO) shows them
    TensorBoardLog   sparsity, phase, blocks of every layer, and histograms of attention, for TensorBoard
    JsonLinesLog     one line of JSON per event, for anything else

A log is a callback: `s.callbacks.append(TensorBoardLog(s, "runs/first"))`. Its first call writes the whole history, so
it starts at step 0 wherever it is appended, and a resumed run continues with what its checkpoint knows. In distributed
training only the first process writes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from sparseopt.nn.events import BINS, RANGE, Event
from sparseopt.nn.sparsifier import Sparsifier

__all__ = ["JsonLinesLog", "TensorBoardLog"]


class TensorBoardLog:
    """Writes every event of a pruning for TensorBoard, against steps of the optimizer.

        pruning/sparsity        share of the entries of the pruned weights that are multiplied by 0
        pruning/phase           number of the phase in the schedule
        pruning kept/<weight>   blocks in use
        pruning/attention       log10 of the attention of the blocks in use, when a phase starts; masks with logits only

    Parameters
    ----------
    s : Sparsifier
        The pruning to follow.
    writer : SummaryWriter, str or Path
        Where to: a writer of the training loop, or a folder for a new one.

    Raises
    ------
    ImportError
        When a folder is given and TensorBoard is not installed.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> from sparseopt.nn import prune
    >>> show = SimpleNamespace(add_scalar=lambda tag, value, step: print(tag, value))
    >>> s = prune(torch.nn.Linear(32, 32), method="magnitude", sparsity=0.75, block=2, total_steps=2)
    >>> s.callbacks.append(TensorBoardLog(s, show))
    >>> s.step()
    pruning/sparsity 0.0
    pruning/phase 0
    pruning kept/weight 256
    pruning/sparsity 0.75
    pruning/phase 1
    pruning kept/weight 64
    """

    def __init__(self, s: Sparsifier, writer: Any) -> None:
        self.s = s
        self.writer = _writer(writer) if isinstance(writer, (str, os.PathLike)) else writer
        self._tell = _from_the_beginning(s, self._write)

    def __call__(self, event: Event) -> None:
        self._tell(event)

    def close(self) -> None:
        """Close the writer."""
        self.writer.close()

    def _write(self, event: Event, first: bool) -> None:
        self.writer.add_scalar("pruning/sparsity", event.sparsity, event.step)
        self.writer.add_scalar("pruning/phase", self.s.schedule.index(event.step), event.step)
        for layer, kept in zip(self.s.layers, event.kept, strict=True):
            self.writer.add_scalar(f"pruning kept/{layer.name}", kept, event.step)
        if event.attention:
            counts = torch.tensor(event.attention, dtype=torch.float64)
            edges = torch.linspace(*RANGE, BINS + 1, dtype=torch.float64)
            middle = 0.5 * (edges[1:] + edges[:-1])
            self.writer.add_histogram_raw(
                "pruning/attention",
                min=RANGE[0],
                max=RANGE[1],
                num=int(counts.sum()),
                sum=float((counts * middle).sum()),
                sum_squares=float((counts * middle**2).sum()),
                bucket_limits=edges[1:].tolist(),
                bucket_counts=event.attention,
                global_step=event.step,
            )


class JsonLinesLog:
    """One line of JSON per event: step, what, phase, number of the phase, sparsity, and blocks in use by weight.

    The file is written anew at the first event, with the whole history, so that a resumed run leaves no line twice.

    Parameters
    ----------
    s : Sparsifier
        The pruning to follow.
    path : str or Path
        The file; its folder must exist.

    Raises
    ------
    FileNotFoundError
        When the folder does not exist.

    Examples
    --------
    >>> from sparseopt.nn import prune
    >>> s = prune(torch.nn.Linear(32, 32), method="magnitude", sparsity=0.75, block=2, total_steps=2)
    >>> s.callbacks.append(JsonLinesLog(s, "pruning.jsonl"))
    >>> s.step()
    >>> print(Path("pruning.jsonl").read_text().splitlines()[-1])
    {"step": 1, "what": "enter", "phase": "sparse", "number": 1, "sparsity": 0.75, "kept": {"weight": 64}}
    """

    def __init__(self, s: Sparsifier, path: str | os.PathLike[str]) -> None:
        self.s = s
        self.path = Path(path)
        if not self.path.parent.is_dir():
            raise FileNotFoundError(f"the folder {self.path.parent} does not exist: create it before the training.")
        self._tell = _from_the_beginning(s, self._write)

    def __call__(self, event: Event) -> None:
        self._tell(event)

    def _write(self, event: Event, first: bool) -> None:
        names = [layer.name for layer in self.s.layers]
        line = {
            "step": event.step,
            "what": event.what,
            "phase": event.phase,
            "number": self.s.schedule.index(event.step),
            "sparsity": event.sparsity,
            "kept": dict(zip(names, event.kept, strict=True)),
        }
        # Opened for each event, and closed: a killed process loses no line.
        with self.path.open("w" if first else "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def _from_the_beginning(s: Sparsifier, write: Callable[[Event, bool], None]) -> Callable[[Event], None]:
    """A callback that writes the history at its first call, single events later, and nothing in other processes."""
    begun = False

    def tell(event: Event) -> None:
        nonlocal begun
        if dist.is_available() and dist.is_initialized() and dist.get_rank() > 0:
            return
        for number, each in enumerate((event,) if begun else s.history):
            write(each, not begun and number == 0)
        begun = True

    return tell


def _writer(folder: str | os.PathLike[str]) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError("tensorboard, which shows this log, is not installed: pip install tensorboard.") from error
    return SummaryWriter(os.fspath(folder))
