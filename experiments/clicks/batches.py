"""Batches from columns: every row once per epoch, in an order that (seed, epoch) fixes, read ahead by a thread.

The rows of a file are too many for one permutation to be read quickly, so they are shuffled in two steps:

    blocks    the file is cut into blocks of `block` neighbouring rows, and the blocks are permuted;
    windows   the row of blocks is cut into windows of `window` rows, and the rows of each are permuted.

Blocks are read as they lie in the file; only a window is permuted in memory. Global batch g holds rows g * batch, ...,
(g + 1) * batch - 1 of the resulting order, and process r of `world` gets the r-th share of it. The order does not
depend on the batch, the processes or where an epoch is taken up: each window draws from a generator of its own.

A window is cast into one (rows, fields) array of int32, and each batch is one `take` of rows from it. On two cores this
gives several million rows of 39 fields a second, so nothing is compiled for it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sparseopt.experiments.clicks.columns import Part

__all__ = ["Batch", "Batches", "Readable", "ahead"]

_AHEAD = 64  # batches at most that wait to be taken
_TILE = 1 << 13  # rows that are read at a time: they are copied while they are in the cache
T = TypeVar("T")


class Batch(NamedTuple):
    """ids: (n, fields) of int32; values: (n, columns of values) of float32, or None; labels: (n,) of float32, 0 or 1.

    Its memory is its own: it stays as it is when later batches are drawn.
    """

    ids: Tensor
    values: Tensor | None
    labels: Tensor


class Readable(Protocol):
    """Rows that `read(start, stop)` hands out as ids, values or None, and labels: a `Part`, or a stretch of one."""

    @property
    def rows(self) -> int:
        """How many there are."""

    def read(self, start: int, stop: int) -> tuple[NDArray[Any], NDArray[Any] | None, NDArray[Any]]:
        """Rows start, ..., stop - 1."""


class Batches:
    """The batches of every epoch.

    Parameters
    ----------
    part : Part
        Or anything with `rows` and `read`.
    batch : int
        Rows of a batch, over all processes together: a multiple of `world`.
    seed : int
        Of the order.
    shuffle : bool
        If false, every epoch has the rows in the order of the file.
    rank, world : int
        Which of how many processes this is.
    drop_last : bool
        Leave out the last batch of an epoch where it would be smaller. If it stays, its parts may differ by one row,
        and with fewer rows than processes some are empty.
    window, block : int
        How the order is shuffled, see above: in memory are about two windows of 4 bytes per row and column.

    Attributes
    ----------
    rows : int
        Of an epoch, over all processes, with those that `drop_last` leaves out.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from sparseopt.experiments.clicks.synthetic import make_columns
    >>> columns = make_columns(Path(tempfile.mkdtemp(), "rows"), 1000, [3, 70_000])
    >>> batches = Batches(columns.part("train"), 300)
    >>> len(batches), [tuple(batch.ids.shape) for batch in batches.epoch(0)]
    (3, [(300, 2), (300, 2), (300, 2)])
    >>> resumed = list(batches.epoch(0, start=2))
    >>> len(resumed), torch.equal(resumed[0].ids, list(batches.epoch(0))[2].ids)
    (1, True)
    """

    def __init__(
        self,
        part: Part | Readable,
        batch: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        world: int = 1,
        drop_last: bool = True,
        window: int = 1 << 18,
        block: int = 1 << 13,
    ) -> None:
        least = {
            "batch": (batch, 1),
            "seed": (seed, 0),
            "world": (world, 1),
            "window": (window, 1),
            "block": (block, 1),
        }
        for name, (value, low) in least.items():
            if value < low:
                raise ValueError(f"{name} is {value}: give at least {low}.")
        if not 0 <= rank < world:
            raise ValueError(f"rank is {rank} of {world} processes: give 0 to {world - 1}.")
        if batch % world:
            raise ValueError(f"batch is {batch} for {world} processes: give a multiple of {world}.")
        if drop_last and part.rows < batch:
            raise ValueError(
                f"batch is {batch}, there are {part.rows} rows, and drop_last leaves none of them: "
                f"give a smaller batch, or drop_last=False."
            )
        self.part, self.rows, self.batch, self.seed, self.shuffle = part, part.rows, batch, seed, shuffle
        self.rank, self.world, self.drop_last = rank, world, drop_last
        self.window, self.block = window, block

    def __len__(self) -> int:
        """Batches of an epoch, whatever the process."""
        full, rest = divmod(self.rows, self.batch)
        return full + (rest > 0 and not self.drop_last)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The batches start, start + 1, ... of an epoch, or this process's shares of them.

        They are read by a thread, which ends with the iterator: when it is exhausted, closed or let go.
        """
        if number < 0:
            raise ValueError(f"epoch is {number}: give at least 0.")
        if not 0 <= start <= len(self):
            raise ValueError(f"start is {start}, and an epoch has {len(self)} batches: give 0 to {len(self)}.")
        return ahead(lambda: self._read(number, start), min(_AHEAD, max(1, self.window // self.batch)))

    def _read(self, epoch: int, start: int) -> Iterator[Batch]:
        blocks = self._blocks(epoch)
        window, order = -1, np.empty(0, np.int64)
        staged = self._room()  # ids, labels and, if there are any, values of the window
        for g in range(start, len(self)):
            first, last = self._share(g)
            taken = [np.empty((last - first, *whole.shape[1:]), whole.dtype) for whole in staged]
            at = first
            while at < last:
                if at // self.window != window:
                    window = at // self.window
                    order = self._order(epoch, window)
                    self._stage(blocks, window * self.window, staged)
                within = at - window * self.window
                rows = order[within : within + last - at]
                for whole, mine in zip(staged, taken, strict=True):
                    # clip: with the check of indices, which are right, the result would be copied once more
                    np.take(whole, rows, 0, mine[at - first : at - first + len(rows)], mode="clip")
                at += len(rows)
            ids, labels, *values = (torch.from_numpy(each) for each in taken)
            yield Batch(ids, values[0] if values else None, labels)

    def _share(self, g: int) -> tuple[int, int]:
        """Where this process's share of batch g begins and ends in the order."""
        begin = g * self.batch
        rows = min(self.batch, self.rows - begin)
        return begin + self.rank * rows // self.world, begin + (self.rank + 1) * rows // self.world

    def _blocks(self, epoch: int) -> list[tuple[int, int]]:
        """Where each block begins and ends in the file, in the order of the epoch."""
        number = -(-self.rows // self.block)
        order = self._generator(epoch, 0).permutation(number) if self.shuffle else np.arange(number)
        return [(k * self.block, min((k + 1) * self.block, self.rows)) for k in order.tolist()]

    def _order(self, epoch: int, window: int) -> NDArray[np.int64]:
        """The rows of a window, by their places in it, in the order of the epoch."""
        rows = min(self.window, self.rows - window * self.window)
        return self._generator(epoch, 1 + window).permutation(rows) if self.shuffle else np.arange(rows)

    def _generator(self, epoch: int, key: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(epoch, key)))

    def _room(self) -> list[NDArray]:
        """Memory for a window."""
        ids, values, labels = self.part.read(0, 0)
        rows = min(self.window, self.rows)
        return [np.empty((rows, *each.shape[1:]), each.dtype) for each in (ids, labels, values) if each is not None]

    def _stage(self, blocks: list[tuple[int, int]], begin: int, staged: list[NDArray]) -> None:
        """Read the window that begins at place `begin` of the row of blocks."""
        end = min(begin + self.window, self.rows)
        at = 0  # place of the block
        for start, stop in blocks:
            low, high = max(at, begin), min(at + stop - start, end)  # places that the window has of it
            for place in range(low, high, _TILE):
                until = min(place + _TILE, high)
                ids, values, labels = self.part.read(start + place - at, start + until - at)
                arrays = (each for each in (ids, labels, values) if each is not None)
                for whole, each in zip(staged, arrays, strict=True):
                    whole[place - begin : until - begin] = each
            at += stop - start
            if at >= end:
                return


def ahead(make: Callable[[], Iterator[T]], room: int) -> Iterator[T]:
    """The items of `make()`, drawn by a thread that is at most `room` of them ahead.

    An exception comes out here, after the items that were drawn before it. The thread starts with the first item and
    has ended when this iterator is exhausted, raises, is closed, or is let go before its end.

    >>> list(ahead(lambda: iter("abc"), 1))
    ['a', 'b', 'c']
    """
    if room < 1:
        raise ValueError(f"room is {room}: give at least 1.")
    return _drawn(make, room)


def _drawn(make: Callable[[], Iterator[T]], room: int) -> Iterator[T]:
    ready: deque[T] = deque()
    changed = threading.Condition()
    left = ended = False
    failure: list[BaseException] = []

    def draw() -> None:
        nonlocal ended
        try:
            for item in make():
                with changed:
                    changed.wait_for(lambda: left or len(ready) < room)
                    if left:
                        return
                    ready.append(item)
                    changed.notify()
        except BaseException as error:  # the consumer raises it
            failure.append(error)
        finally:
            with changed:
                ended = True
                changed.notify()

    thread = threading.Thread(target=draw, name="batches", daemon=True)  # daemon: it does not hold up a process's end
    thread.start()
    try:
        while True:
            with changed:
                changed.wait_for(lambda: ready or ended)
                if not ready:
                    break
                item = ready.popleft()
                changed.notify()
            yield item
            del item  # not held here while the next one is waited for
        if failure:
            raise failure.pop()
    finally:
        with changed:
            left = True
            changed.notify()
        thread.join()
