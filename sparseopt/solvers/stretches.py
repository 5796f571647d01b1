"""Solutions along a decreasing sequence of lam, each started from the one before.

Every start leads to the same optimum of a convex problem, so a second thread may take the end of the sequence: it pays
one cold start, and both take about as long, because solutions with few groups are found much faster. Where the
sequence is cut depends on its length only, so that a path is the same whenever it is computed again. Nonconvex paths
stay in one piece: where they end depends on where they started.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparseopt.designs import Csc, Dense
from sparseopt.progress import shown
from sparseopt.solvers.descent import BlockDescent, Progress
from sparseopt.threads import at_once, available, one_blas_thread

__all__ = ["Point", "follow"]

Array = NDArray[np.float64]
CUT = 0.8  # share of the first thread, measured on eight classes of problems
LONG = 20  # values of lam from which on it pays
LARGE = 7 * 10**6  # bytes of X times outputs from which on it pays: code between kernels runs in one thread at a time


class Point(NamedTuple):
    """What was found for one lam: how, the features with nonzero coefficients and these, (k, K), and the intercept."""

    progress: Progress
    rows: tuple[NDArray[np.int64], Array]
    b: Array


def follow(descent: BlockDescent, lams: Array, tol: float, max_epochs: int, progress: bool | None) -> list[Point]:
    """The solutions for decreasing values of lam, by `descent` and perhaps another one beside it."""

    def walk(descent: BlockDescent, lams: Iterable[float], stopped: Callable[[], bool]) -> list[Point]:
        found = []
        for lam in lams:
            if stopped():
                break
            done = descent.advance(penalty.at(float(lam)), tol, max_epochs)
            found.append(Point(done, descent.point.nonzero(), descent.point.b))
        return found

    problem, penalty = descent.problem, descent.problem.shrinkage
    design = problem.design
    large = isinstance(design, (Dense, Csc)) and design.nbytes * problem.n_outputs >= LARGE
    if not (large and penalty.is_group_lasso and len(lams) >= LONG and available() > 1):
        with nullcontext() if large else one_blas_thread():
            return walk(descent, shown(lams, progress), lambda: False)
    cut = int(CUT * len(lams))
    other = BlockDescent(problem, n_lams=len(lams) - cut)
    first, last = at_once(
        lambda stopped: walk(descent, shown(lams[:cut], progress), stopped),
        lambda stopped: walk(other, lams[cut:], stopped),
    )
    return first + last
