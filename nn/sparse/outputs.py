"""Memory for large results, used again.

C libraries hand blocks of 32 MB and more back to the system as soon as they are free, and the next one is new: the
processor stops at every page of 4 KB that is first written. For a sparse product that takes longer than the arithmetic.
So memory of that size is kept when the last tensor that lies in it is gone, and given to the next result of about its
size; never more than `IDLE` bytes wait for that. Smaller results are torch's own.
"""

from __future__ import annotations

import mmap
import weakref
from collections.abc import Sequence
from math import prod

import numpy as np
import torch
from torch import Tensor

__all__ = ["IDLE", "LARGE", "empty"]

LARGE = 32 * 2**20  # bytes; glibc never keeps more
IDLE = 256 * 2**20

_waiting: list[mmap.mmap] = []


def empty(shape: Sequence[int]) -> Tensor:
    """A float32 tensor of any contents on the CPU."""
    size = 4 * prod(shape)
    if size < LARGE:
        return torch.empty(shape, dtype=torch.float32)
    memory = _taken(size)
    numbers = np.frombuffer(memory, np.float32, size // 4)
    weakref.finalize(numbers, _given_back, memory).atexit = False  # torch holds the array as long as the storage lives
    return torch.from_numpy(numbers).view(*shape)


def _taken(size: int) -> mmap.mmap:
    for memory in list(_waiting):
        if size <= len(memory) <= 2 * size:
            try:
                _waiting.remove(memory)
            except ValueError:  # another thread was faster
                continue
            return memory
    if not hasattr(mmap, "MAP_PRIVATE"):
        return mmap.mmap(-1, size)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # not shared with forked processes
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def _given_back(memory: mmap.mmap) -> None:
    if sum(map(len, _waiting)) + len(memory) <= IDLE:
        _waiting.append(memory)
