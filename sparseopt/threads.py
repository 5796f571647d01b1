"""Threads for the few loops that are long enough: compiled kernels release the interpreter's lock.

As many as Numba may use: NUMBA_NUM_THREADS, which joblib sets in its workers, or all cores. A part is worth a thread if
it reads some megabytes, which takes ten times as long as handing it over.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext
from functools import cache
from itertools import pairwise
from threading import Event, Lock, local
from typing import Any, TypeAlias, TypeVar

import numba

__all__ = ["at_once", "available", "in_parts", "one_blas_thread"]

_Result = TypeVar("_Result")

_Work: TypeAlias = Callable[[Callable[[], bool]], _Result]
_here = local()

WORTH = 2**21  # bytes that a part must read


def in_parts(work: Callable[[int, int], None], size: int, nbytes: int, blas: bool = False) -> None:
    """work(0, size), or work(lo, hi) over as many parts as there are threads, if all of them read `nbytes` together.

    Parameters
    ----------
    work : callable
        Takes a range; ranges must not depend on each other. What it raises is raised here.
    size : int
        The end of the whole range.
    nbytes : int
        What `work` reads for all of it.
    blas : bool
        Whether it calls BLAS, which is kept to one thread for each part then.

    Examples
    --------
    >>> done = []
    >>> in_parts(lambda lo, hi: done.append((lo, hi)), 10, nbytes=0)
    >>> done
    [(0, 10)]
    """
    n = 1 if getattr(_here, "is_one_of_two", False) else max(1, min(available(), nbytes // WORTH, size))
    if n == 1:
        work(0, size)
        return
    ends = [size * k // n for k in range(n + 1)]
    with one_blas_thread() if blas else nullcontext():
        others = [_pool().submit(work, lo, hi) for lo, hi in pairwise(ends[1:])]
        try:
            work(0, ends[1])
        finally:
            wait(others)
    for each in others:
        each.result()


def at_once(first: _Work[_Result], second: _Work[_Result]) -> tuple[_Result, _Result]:
    """Both results; the second is computed in a thread of its own, the first in this one. Neither is split further.

    Parameters
    ----------
    first, second : callable
        Take `stopped()`, which says that the other has failed or was interrupted: then they should return. What they
        raise is raised here.

    Examples
    --------
    >>> at_once(lambda stopped: 1, lambda stopped: 2)
    (1, 2)
    """
    failed = Event()

    def guarded(work: _Work[_Result]) -> _Result:
        outer = getattr(_here, "is_one_of_two", False)
        _here.is_one_of_two = True
        try:
            return work(failed.is_set)
        except BaseException:
            failed.set()
            raise
        finally:
            _here.is_one_of_two = outer

    # A thread of its own, not of the pool, which others may wait for; and BLAS would take all cores for each.
    with one_blas_thread(), ThreadPoolExecutor(1, "sparseopt") as beside:
        later = beside.submit(guarded, second)
        return guarded(first), later.result()


def available() -> int:
    """The number of threads that may be used."""
    return int(numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]  # set when numba is imported


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Keep BLAS to one thread inside. Its others wait for more work by spinning, which takes a core from ours.

    Several threads may be inside: the first limits BLAS, for the whole process, and the last gives it back its threads.

    Examples
    --------
    >>> import numpy as np
    >>> with one_blas_thread():
    ...     inverse = np.linalg.inv(2.0 * np.eye(500))
    """
    if available() == 1:
        yield
        return
    limit = _limit
    limit.enter()
    try:
        yield
    finally:
        limit.leave()


class _Limit:
    """How many are inside `one_blas_thread`, and what BLAS had before."""

    def __init__(self) -> None:
        self.lock, self.inside = Lock(), 0
        self.limiter: Any = None

    def enter(self) -> None:
        with self.lock:
            if self.inside == 0:
                self.limiter = _blas().limit(limits=1, user_api="blas")
            self.inside += 1

    def leave(self) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0:
                self.limiter.restore_original_limits()


_limit = _Limit()


@cache
def _blas() -> Any:
    import scipy.linalg.cython_blas  # noqa: F401  # the BLAS of compiled code, which must be loaded to be found
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, available() - 1), "sparseopt")


def _begin_anew() -> None:
    """In the child of a fork, which has the pool and the lock, but none of the threads."""
    global _limit
    _pool.cache_clear()
    _limit = _Limit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
