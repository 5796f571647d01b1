"""Which images make which batch: an order for every epoch, cut into global batches, each shared out in one piece each.

    order of epoch e       a permutation of 0, ..., rows - 1 that (seed, e) fixes, or the identity
    global batch g         entries g * batch, ..., (g + 1) * batch - 1 of it
    share of process r     entries floor(r m / world), ..., floor((r + 1) m / world) - 1 of the m in the global batch

The global batches depend neither on the number of processes nor on where an epoch is taken up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Order", "held_out"]

Entries = TypeVar("Entries", NDArray[np.int64], Tensor)


@dataclass(frozen=True)
class Order:
    """The global batches of every epoch, and one process's share of them.

    Parameters
    ----------
    rows : int
        Images, at least 1.
    batch : int
        Images of a global batch: a multiple of `world`.
    seed : int
        Of the permutations, at least 0.
    shuffle : bool
        If false, every epoch has the images as they are numbered.
    drop_last : bool
        Leave out the last batch of an epoch where it would be smaller. If it stays, shares of it may differ by one
        image, and some are empty if it has fewer images than there are processes.
    rank, world : int
        Which of how many processes this is.

    >>> order = Order(rows=7, batch=4, shuffle=False, drop_last=False, rank=1, world=2)
    >>> [(number, order.share(rows).tolist()) for number, rows in order.batches(epoch=0)]
    [(0, [2, 3]), (1, [5, 6])]
    """

    rows: int
    batch: int
    seed: int = 0
    shuffle: bool = True
    drop_last: bool = True
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        for name, value, least in (("batch", self.batch, 1), ("seed", self.seed, 0), ("world", self.world, 1)):
            if value < least:
                raise ValueError(f"{name} is {value}: give at least {least}.")
        if not 0 <= self.rank < self.world:
            raise ValueError(f"rank is {self.rank} of {self.world} processes: expected 0 to {self.world - 1}.")
        if self.batch % self.world:
            raise ValueError(f"batch is {self.batch} for {self.world} processes: give a multiple of {self.world}.")
        if self.drop_last and self.rows < self.batch:
            raise ValueError(
                f"batch is {self.batch}, there are {self.rows} images, and drop_last leaves nothing: "
                f"give a batch of at most {self.rows}, or drop_last=False."
            )

    def __len__(self) -> int:
        """Global batches of an epoch."""
        full, rest = divmod(self.rows, self.batch)
        return full + (rest > 0 and not self.drop_last)

    def expect(self, rows: int) -> None:
        """Raise a ValueError if there are not so many images as this is an order of."""
        if rows != self.rows:
            raise ValueError(f"there are {rows} images, and their order has {self.rows}: give Order(rows={rows}, ...).")

    def check(self, epoch: int, start: int) -> None:
        """Raise a ValueError for an epoch or a first batch that does not exist; `start` may be the end."""
        if epoch < 0:
            raise ValueError(f"epoch is {epoch}: give at least 0.")
        if not 0 <= start <= len(self):
            raise ValueError(f"start is {start}, and an epoch has {len(self)} batches: expected 0 to {len(self)}.")

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """The global batches start, start + 1, ... of an epoch: their numbers and their images."""
        self.check(epoch, start)
        rows = np.arange(self.rows)
        if self.shuffle:
            rows = np.random.default_rng((self.seed, epoch)).permutation(rows)
        for number in range(start, len(self)):
            yield number, rows[number * self.batch : (number + 1) * self.batch]

    def share(self, rows: Entries) -> Entries:
        """What this process has of a global batch, given as its images or as anything with one entry for each."""
        m = len(rows)
        return rows[self.rank * m // self.world : (self.rank + 1) * m // self.world]


def held_out(labels: NDArray[np.int64], share: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to train on and rows to hold out, both ascending: of every class the share, rounded, always the same.

    >>> kept, held = held_out(np.repeat([0, 1], 10), 0.2)
    >>> len(kept), np.bincount(held // 10).tolist()
    (16, [2, 2])
    """
    generator = np.random.default_rng(len(labels))
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = generator.permutation(np.flatnonzero(labels == label))
        held[rows[: round(share * len(rows))]] = True
    if held.all() or not held.any():
        raise ValueError(
            f"a share of {share:g} holds out {int(held.sum())} of {len(labels)} images: expected some, not all."
        )
    return np.flatnonzero(~held), np.flatnonzero(held)
