"""Run by test_rows.py: solve on a mapped matrix with a limit on the memory that the process may add.

    python row_blocks_process.py X.npy LOSS ORDER MEGABYTES [copy]

The limit is on private memory (RLIMIT_DATA), which files that are mapped read-only do not count towards. Everything is
compiled on a small problem first. `copy` reads X into memory, as it must not be.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np

from sparseopt import Problem, path


def solved(X: Any, loss: str) -> Any:
    signal = X[:, :4].sum(axis=1) + np.sin(np.arange(len(X)))
    problem = Problem.build(X, signal if loss == "squares" else signal > 0.0, 2, loss=loss)
    return path(problem, n_lams=8, ratio=0.2)


def main(file: str, loss: str, megabytes: str, copy: str = "") -> None:
    X = np.load(file, mmap_mode="r")
    small = Path(file).with_name("small.npy")
    np.save(small, X[:3000])
    solved(np.load(small, mmap_mode="r"), loss)
    used = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData"))
    limit = 1024 * used + int(megabytes) * 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    found = solved(np.array(X) if copy else X, loss)
    print(all(status.ok for status in found.statuses), found.n_active[-1] >= 2)


if __name__ == "__main__":
    main(*sys.argv[1:])
