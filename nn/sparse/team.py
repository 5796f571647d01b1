"""Threads for the kernels: the team that torch itself computes with.

After an operator, the threads of torch's OpenMP pool wait for the next one in a busy loop. A second pool would share
the cores with them, so a kernel asks OpenMP for the same team by its C entry point, `GOMP_parallel`, found among the
libraries that torch has loaded. The number of threads is `torch.get_num_threads()`. Where torch has no such library
(Windows, some builds for macOS), a pool of Python threads does the work: kernels do not hold the interpreter's lock.

A kernel is a C function of one argument, the address of its job; its threads share the job and take tasks off it until
none is left, so it does not matter how many come.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

__all__ = ["n_threads", "run"]

_forked = False


def n_threads() -> int:
    """Threads that a kernel may use: torch's number, or one in a forked process, whose OpenMP pool did not survive."""
    return 1 if _forked else torch.get_num_threads()


def run(function: Any, job: int, threads: int) -> None:
    """Call `function(job)`, a ctypes function, from `threads` threads at once, and return when all have."""
    if threads > 1:
        _team(function, job, threads)
    else:
        function(job)


def _openmp() -> Callable[[Any, int, int], None] | None:
    folder = Path(torch.__file__).parent / "lib"
    for name in ("libtorch_cpu.so", "libtorch_cpu.dylib"):
        try:
            parallel = ctypes.CDLL(str(folder / name)).GOMP_parallel  # looked up in the library and in what it links
        except (OSError, AttributeError):
            continue
        parallel.restype = None
        parallel.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
        return lambda function, job, threads: parallel(function, job, threads, 0)
    return None


def _python_threads() -> Callable[[Any, int, int], None]:
    pool = functools.cache(ThreadPoolExecutor)

    def team(function: Any, job: int, threads: int) -> None:
        others = [pool(threads - 1).submit(function, job) for _ in range(threads - 1)]
        function(job)
        for other in others:
            other.result()

    return team


def _after_fork() -> None:
    global _forked
    _forked = True


_team = _openmp() or _python_threads()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
