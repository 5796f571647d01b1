"""The laws of `prox` and `lifted_prox`: a minimiser is at least as good as every rival.

    prox         (v - u)^2 / 2 + t q(v)
    lifted_prox  (v - u)^2 / 2 + t q^-1(q(v) + rest)

Rivals are a dense grid of [0, u] with all knots. Steps lie on both sides of 1 / rho, and norms on both sides of every
jump: a formula that is right for small steps only, or that takes the wrong one of two minima, is worse than some
rival.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparseopt.laws.grids import fail, first, norms, steps

__all__ = ["lifted_prox_law", "prox_law"]


def prox_law(q: Any) -> None:
    """`prox` rises with u, lies in [0, u], beats a dense grid with all knots, and is stationary; also around jumps."""
    for t in steps(q):
        u = _around_jumps(q, t)
        v = q.prox(u, t)
        k = first(~((v >= 0.0) & (v <= u * (1.0 + 1e-14))))
        if k is not None:
            fail(q, "0 <= prox(u, t) <= u", u=u[k], t=t, prox=v[k])
        k = first(np.diff(v) < -1e-9 * u[1:])
        if k is not None:
            fail(q, "prox is monotone in u", u=u[k], then=u[k + 1], t=t, prox=v[k], prox_then=v[k + 1])
        rivals = _rivals(q, u)
        # Objective at v minus objective at the rival, without u^2 - u^2.
        excess = 0.5 * (v[:, None] - rivals) * (v[:, None] + rivals - 2.0 * u[:, None])
        excess += t * (q.value(v)[:, None] - q.value(rivals))
        row, column = np.unravel_index(int(np.argmax(excess - 1e-12 * u[:, None] ** 2)), excess.shape)
        if excess[row, column] > 1e-12 * u[row] ** 2:
            numbers = {"u": u[row], "t": t, "prox": v[row], "better": rivals[row, column]}
            fail(q, "prox minimises (v - u)^2 / 2 + t q(v)", **numbers, by=excess[row, column])
        positive = v > 0.0
        inside = np.where(positive, v, 1.0)
        left = v - u + t * q.slope(inside * (1.0 - 1e-9))
        right = v - u + t * q.slope(inside * (1.0 + 1e-9))
        k = first(positive & ~((np.minimum(left, right) <= 1e-8 * u) & (np.maximum(left, right) >= -1e-8 * u)))
        if k is not None:
            fail(q, "a positive prox is stationary", u=u[k], t=t, prox=v[k], derivative=right[k])


def _around_jumps(q: Any, t: float) -> NDArray:
    """Norms, 0 among them, and more on both sides of the largest jump of the prox and of where it leaves 0."""
    u = np.concatenate([[0.0], norms()])
    v = q.prox(u, t)
    more = [u]
    jump = int(np.argmax(np.diff(v) / u[1:]))
    leaves = max(int(np.argmax(v > 0.0)) - 1, 0)
    for k, level in ((jump, 0.5 * (v[jump] + v[jump + 1])), (leaves, 0.0)):
        low, high = u[k], u[k + 1]
        for _ in range(40):
            middle = 0.5 * (low + high)
            low, high = (low, middle) if q.prox(middle, t) > level else (middle, high)
        more.append(low * np.array([0.9, 0.99, 0.999, 1 - 1e-5, 1 - 1e-8, 1 + 1e-8, 1 + 1e-5, 1.001, 1.01, 1.1]))
    return np.unique(np.concatenate(more))


def _rivals(q: Any, u: NDArray) -> NDArray:
    """For each norm u a dense grid of [0, u], ends included, and the products of up to three parameters: the knots."""
    grid = np.unique(np.concatenate([np.linspace(0.0, 1.0, 501), np.geomspace(1e-6, 1.0, 60)]))
    numbers = [1.0, *_parameters(q)]
    knots = np.unique([a * b * c for a in numbers for b in numbers for c in numbers])
    return np.concatenate([u[:, None] * grid, np.minimum(u[:, None], knots)], axis=1)


def _parameters(q: Any) -> Iterator[float]:
    for parameter in q:
        if isinstance(parameter, tuple):
            yield from _parameters(parameter)
        else:
            yield float(parameter)


def lifted_prox_law(q: Any) -> None:
    """`lifted_prox` beats a dense grid of the domain of phi; for rest = 0 it is the soft threshold up to the knot."""
    ceiling = q.ceiling()
    knot = q.inverse(ceiling) if ceiling < math.inf and not q.increasing() else math.inf
    share = min(ceiling, q.value(3.0))
    for u in (0.0, 0.05, 0.6, 1.7, 4.0, 30.0):
        for t in (0.01, 0.3, 1.0, 6.0):
            soft = min(max(u - t, 0.0), knot)
            found = q.lifted_prox(u, t, 0.0)
            if not abs(found - soft) <= 1e-12 * u:
                fail(q, "lifted_prox with rest = 0 is the soft threshold", u=u, t=t, lifted_prox=found, soft=soft)
            for rest in (1e-6 * share, 0.1 * share, 0.45 * share, 0.99 * share, 3.0 * share):
                _lifted_prox_case(q, u, t, float(rest), knot)


def _lifted_prox_case(q: Any, u: float, t: float, rest: float, knot: float) -> None:
    found = float(q.lifted_prox(u, t, rest))
    if not 0.0 <= found <= u:
        fail(q, "0 <= lifted_prox(u, t, rest) <= u", u=u, t=t, rest=rest, lifted_prox=found)
    end = min(u, knot)
    v = np.concatenate([[0.0, found], end * np.linspace(0.0, 1.0, 401), end * np.geomspace(1e-6, 1.0, 60)])
    lifted = q.inverse(q.value(v) + rest)
    if not lifted[0] < math.inf:
        if found != 0.0:
            fail(q, "lifted_prox is 0 where phi is inf", u=u, t=t, rest=rest, lifted_prox=found)
        return
    # The search may end one rounding beyond the domain of phi, where phi of the definition is already inf.
    slightly_less = q.inverse(q.value(found * (1.0 - 1e-12)) + rest)
    objective = 0.5 * (v - u) ** 2 + t * np.minimum(lifted, 1e300)
    mine = 0.5 * (found - u) ** 2 + t * min(float(slightly_less), 1e300)
    best = int(np.argmin(objective))
    if mine > objective[best] + 1e-10 * (objective[best] + u * u):
        fail(
            q,
            "lifted_prox minimises",
            u=u,
            t=t,
            rest=rest,
            lifted_prox=found,
            better=v[best],
            by=mine - objective[best],
        )
