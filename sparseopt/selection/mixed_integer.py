"""The choice of groups as a mixed-integer conic program, for SCIP through CVXPY.

    minimise    L(XW + 1 b') + rho/2 sum_g t_g         ||W_g||^2 <= t_g z_g,  z in {0, 1}^G,  sum z <= k        rho > 0
    minimise    L(XW + 1 b')                                                                                    rho = 0

both with |W_jk| <= M_g z_g (with a ridge only because SCIP squares a cone, and its tolerance then lets W leak), for
squares and Huber's loss. M is derived, never guessed: all w that are as good as the best choice known satisfy it, by
rho/2 ||w||^2 <= F or by the ellipsoid of `SubsetParts.level_radius`; where there is none the problem is refused. SCIP
works to tolerances, so its bound is trusted less a margin, and it proves nothing by dual points.
"""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparseopt.losses import Huber
from sparseopt.selection.branching import Found
from sparseopt.selection.exact_bounds import SubsetParts, blocks
from sparseopt.selection.fit import refit

__all__ = ["mixed_integer"]

Array = NDArray[np.float64]

_FEASIBILITY = 1e-8
_MARGIN = 1e-7  # of F without groups: what SCIP's tolerances may hide


def mixed_integer(
    parts: SubsetParts, start: NDArray[np.int64], tol: float, deadline: float, radius: Array | None = None
) -> Found:
    """Solve the program with SCIP.

    Parameters
    ----------
    parts : SubsetParts
        With the loss squares or huber.
    start : (m,) integers
        A choice of counted groups, whose value bounds the optimum.
    tol, deadline
        Relative gap, and time.perf_counter() at which to stop.
    radius : (G,) array, optional
        M_g for rho = 0, if derived elsewhere.

    Raises
    ------
    ImportError
        If CVXPY or PySCIPOpt is not installed.
    ValueError
        If the loss has no form of second order, or without a ridge no M can be derived.
    RuntimeError
        If SCIP contradicts the choice that was given: its bound is above it.
    """
    cp = _cvxpy()
    problem, loss = parts.problem, parts.problem.loss
    rho, k = float(problem.penalty.ridge), parts.k
    if loss.name not in ("squares", "huber"):
        raise ValueError(f"loss is {loss.name!r}, which has no form of second order: choose the engine 'branching'.")
    known = refit(problem, parts.ids[start])
    base = refit(problem, []).value
    if rho > 0.0:
        radius = np.full(len(parts.ids), np.sqrt(2.0 * known.value / rho) * (1.0 + 1e-9))
    elif radius is None:
        radius = parts.level_radius(known.value)
        if not np.isfinite(radius).all():
            raise ValueError(
                "ridge is 0 and columns of X depend on each other, so no bound of the coefficients can be derived: "
                "pass a ridge > 0, or choose the engine 'branching'."
            )
    value, constant, z, links = _program(cp, parts, base, radius)
    program = cp.Problem(cp.Minimize(value), [cp.sum(z) <= k, *links])
    limit = min(max(deadline - time.perf_counter(), 0.1), 1e9)
    enough = 0.5 * tol * known.value / base  # SCIP sees the objective without its constant part
    settings = {"limits/time": limit, "limits/absgap": enough, "numerics/feastol": _FEASIBILITY}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore")  # the status and the bound say how it ended
            program.solve(solver="SCIP", scip_params=settings)
        model = program.solver_stats.extra_stats["model"]
        bound, nodes = model.getDualbound() * base + constant, int(model.getNTotalNodes())
        chosen = np.flatnonzero(np.asarray(z.value) > 0.5) if z.value is not None else start
    except cp.error.SolverError:  # time ran out before SCIP had a choice of its own
        bound, nodes, chosen = 0.0, 0, start
    bound -= _MARGIN * base
    if bound > known.value + 10.0 * _MARGIN * base:
        raise RuntimeError(f"SCIP claims the bound {bound:.6g}, above the value {known.value:.6g} of a known choice.")
    if refit(problem, parts.ids[chosen[:k]]).value > known.value:
        chosen = start
    return Found(np.sort(chosen[:k]), max(float(bound), 0.0), None, nodes)


def _program(cp: Any, parts: SubsetParts, base: float, radius: Array) -> tuple[Any, float, Any, list[Any]]:
    """Objective over `base`, less a constant; that constant; the binary variables; what links them to coefficients."""
    problem, loss = parts.problem, parts.problem.loss
    rho, G, K = float(problem.penalty.ridge), len(parts.ids), loss.n_outputs
    z = cp.Variable(G, boolean=True)
    y = loss.y if loss.offset is None else loss.y - loss.offset
    c = loss.s
    root = np.sqrt(c)[:, None]
    Z, sizes, starts = blocks(parts.X, parts.U, c, parts.starts, orthonormal=rho == 0.0)
    W = cp.Variable((Z.shape[1], K))
    if loss.name == "squares":  # free columns are gone, and n rows become at most p + 1
        Y = root * y
        if parts.U.shape[1]:
            Q, s, _ = np.linalg.svd(root * parts.U, full_matrices=False)
            Q = Q[:, s > 1e-12 * s.max(initial=0.0)]
            Y = Y - Q @ (Q.T @ Y)
        Q, R = np.linalg.qr(Z)
        target = Q.T @ Y
        rest = max(float((Y**2).sum() - (target**2).sum()), 0.0)
        scale = np.sqrt(0.5 / base)
        value, constant = cp.sum_squares(scale * R @ W - scale * target), 0.5 * rest
    else:
        assert isinstance(loss, Huber)
        rows = np.flatnonzero(c)
        free = cp.Variable((parts.U.shape[1], K)) if parts.U.shape[1] else None
        fit = (Z[rows] / root[rows]) @ W + (parts.U[rows] @ free if free is not None else 0.0)
        constant = 0.0
        value = cp.sum(cp.multiply(0.5 * c[rows, None] / base, cp.huber(fit - y[rows], loss.delta)))
    links = []
    for g in range(G):
        own = slice(int(starts[g]), int(starts[g + 1]))
        if own.start == own.stop:
            continue
        if rho > 0.0:
            t = cp.Variable(nonneg=True)
            links.append(cp.quad_over_lin(np.sqrt(0.5 * rho / base) * W[own], z[g]) <= t)
            value = value + t
        M = radius[g] * sizes[g]  # in the coordinates of Z
        links += [W[own] <= M * z[g], W[own] >= -M * z[g]]
    return value, constant, z, links


def _cvxpy() -> Any:
    try:
        import cvxpy
        import pyscipopt  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"{error.name} is missing, which engine 'scip' needs: pip install 'sparseopt[verify]'."
        ) from error
    return cvxpy
