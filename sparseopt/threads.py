"""Threads for the few loops that are long enough: compiled kernels release the interpreter's lock.

As many as Numba may use: NUMBA_NUM_THREADS, which joblib sets in its workers, or all cores. A part is worth a thread if
it reads some megabytes, which takes ten times as long as handing it over.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from itertools import pairwise

import numba

__all__ = ["in_parts"]

WORTH = 2**21  # bytes that a part must read


def in_parts(work: Callable[[int, int], None], size: int, nbytes: int) -> None:
    """work(0, size), or work(lo, hi) over as many parts as there are threads, if all of them read `nbytes` together.

    Parameters
    ----------
    work : callable
        Takes a range; ranges must not depend on each other. What it raises is raised here.
    size : int
        The end of the whole range.
    nbytes : int
        What `work` reads for all of it.

    Examples
    --------
    >>> done = []
    >>> in_parts(lambda lo, hi: done.append((lo, hi)), 10, nbytes=0)
    >>> done
    [(0, 10)]
    """
    n = max(1, min(_available(), nbytes // WORTH, size))
    if n == 1:
        work(0, size)
        return
    ends = [size * k // n for k in range(n + 1)]
    others = [_pool().submit(work, lo, hi) for lo, hi in pairwise(ends[1:])]
    try:
        work(0, ends[1])
    finally:
        wait(others)
    for each in others:
        each.result()


def _available() -> int:
    return int(numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]  # set when numba is imported


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, _available() - 1), "sparseopt")


if hasattr(os, "register_at_fork"):  # a child has the pool, but none of its threads
    os.register_at_fork(after_in_child=_pool.cache_clear)
