"""Solvers: coefficients for a problem.

    bcd      block coordinate descent over working sets; every loss, design and penalty, and the default
    fista    accelerated proximal gradient; every separable penalty

Both return a `Solution` whose status says whether the accuracy asked for was reached. `solve` chooses one by its name.
`BlockDescent` is bcd with a state that persists from one lam to the next, and `compress` replaces a least-squares
problem with many samples by one with few. `descent_for` chooses the descent that fits a design: one that is read in
passes (`RowBlocks`) needs `StreamedDescent`.
"""

from __future__ import annotations

import difflib

from sparseopt.problem import Problem
from sparseopt.solution import Solution, Start
from sparseopt.solvers.compress import compress
from sparseopt.solvers.descent import BlockDescent, bcd
from sparseopt.solvers.proximal_gradient import fista
from sparseopt.solvers.streamed import StreamedDescent, descent_for

__all__ = ["BlockDescent", "StreamedDescent", "bcd", "compress", "descent_for", "fista", "solve"]

METHODS = ("bcd", "fista")


def solve(
    problem: Problem,
    start: Start = None,
    *,
    method: str = "bcd",
    tol: float = 1e-6,
    max_epochs: int = 10_000,
) -> Solution:
    """Solve a group-sparse problem.

    Parameters
    ----------
    problem : Problem
        See `Problem.build`.
    start : Solution or (w, b), optional
        Where to start; default zero.
    method : str
        "bcd" or "fista".
    tol : float
        Convex with q = L2: relative duality gap. Otherwise: stationarity, see `sparseopt.optimality.stationarity`.
    max_epochs : int
        Limit of sweeps over working sets (bcd) or of iterations (fista).

    Returns
    -------
    Solution
        With a status that says whether `tol` was reached; a ConvergenceWarning is given if it was not.

    Raises
    ------
    ValueError
        If the method is unknown.
    TypeError
        If the method cannot solve a problem with this penalty.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt import Problem
    >>> problem = Problem.build(np.eye(4), [3.0, 4.0, 0.1, 0.0], groups=2, lam=0.5, intercept=False)
    >>> solve(problem).w.round(3)
    array([1.303, 1.737, 0.   , 0.   ])
    """
    if method == "bcd":
        return bcd(problem, start, tol=tol, max_epochs=max_epochs)
    if method == "fista":
        return fista(problem, start, tol=tol, max_iter=max_epochs)
    near = difflib.get_close_matches(str(method).lower(), METHODS, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else "choose 'bcd' or 'fista'."
    raise ValueError(f"method is {method!r}, which is unknown: {hint}")
