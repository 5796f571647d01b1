"""Regularizers and what they do to a norm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparseopt.plotting.axes import COLOURS, GREY, SMALL, STYLES, finish, new_axes
from sparseopt.regularizers import REGULARIZERS, get_regularizer

__all__ = ["plot_regularizers"]

Array = NDArray[np.float64]


def plot_regularizers(
    regularizers: Sequence[Any] | None = None, axes: Any = None, *, t: float = 1.0, high: float = 4.0
) -> Any:
    """q(u) and prox(u, t) side by side, on 0 <= u <= high.

    Where a function jumps, the line has a gap: a full dot at the value, an empty one at the limit from the other side.

    Parameters
    ----------
    regularizers : sequence of names or instances, optional
        See `get_regularizer`; default all of the table `REGULARIZERS`.
    axes : two matplotlib Axes, optional
        Default: those of a new figure.
    t : float > 0
        Step of the prox.
    high : float > 0
        End of the u axis.

    Returns
    -------
    array of two matplotlib Axes

    Examples
    --------
    >>> left, right = plot_regularizers(["l2", "mcp"])
    >>> left.get_ylabel(), right.get_ylabel()
    ('q(u)', 'prox(u, t) with t = 1')
    """
    values: tuple[tuple[str, Any], ...] = (("t", t), ("high", high))
    for name, value in values:
        if not isinstance(value, (int, float)) or not 0.0 < value < np.inf:
            raise ValueError(f"{name} is {value!r}: pass a positive number.")
    given = list(REGULARIZERS) if regularizers is None else regularizers
    if isinstance(given, str) or not isinstance(given, Sequence) or hasattr(given, "_fields"):
        given = [given]
    if not given:
        raise ValueError("regularizers is empty: pass names or instances, or None for the whole table.")
    named = [(q if isinstance(q, str) else str(q), get_regularizer(q)) for q in given]
    if axes is None:
        axes = new_axes((10.5, 4.4), 2)
    left, right = axes
    for k, (name, q) in enumerate(named):
        look = {"color": COLOURS[k % len(COLOURS)], "linestyle": STYLES[k // len(COLOURS) % len(STYLES)]}
        _draw_with_gaps(left, q.value, high, name, look)
        _draw_with_gaps(right, partial(_prox, q, t), high, name, look)
    right.plot([0.0, high], [0.0, high], color=GREY, linewidth=0.8, zorder=0)
    for ax, label in ((left, "q(u)"), (right, f"prox(u, t) with t = {t:g}")):
        ax.set_xlabel("u, norm of a block")
        ax.set_ylabel(label)
        ax.set_xlim(0.0, high)
        ax.margins(y=0.04)
        finish(ax)
    right.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), fontsize=SMALL, frameon=False, handlelength=2.6)
    return axes


def _prox(q: Any, t: float, u: Array) -> Array:
    return np.asarray(q.prox(u, t), dtype=np.float64)


def _draw_with_gaps(ax: Any, f: Callable[[Array], Array], high: float, name: str, look: dict[str, str]) -> None:
    u = np.linspace(0.0, high, 801)
    v = np.asarray(f(u), dtype=np.float64)
    xs: list[Array] = []
    ys: list[Array] = []
    last = -1.0
    for a, b in _jumps(f, u, v):
        inside = (u > last) & (u < a)
        before, after = np.asarray(f(np.array([a, b])), dtype=np.float64)
        xs += [u[inside], np.array([a, np.nan, b])]
        ys += [v[inside], np.array([before, np.nan, after])]
        ax.plot([a], [before], "o", color=look["color"], markersize=5, zorder=4, clip_on=False)
        ax.plot([b], [after], "o", color=look["color"], markerfacecolor="white", markersize=5, zorder=4, clip_on=False)
        last = b
    rest = u > last
    ax.plot(np.concatenate([*xs, u[rest]]), np.concatenate([*ys, v[rest]]), label=name, linewidth=1.6, **look)


def _jumps(f: Callable[[Array], Array], u: Array, v: Array) -> list[tuple[float, float]]:
    """Pairs of neighbouring numbers between which f jumps, by bisection of every steep interval.

    At the left one f has its lower value, which is the one it takes at the jump: q is lower semicontinuous, and where
    two minimisers tie, the prox is the smaller.
    """
    spread = max(float(np.ptp(v)), 1e-300)
    found = []
    for k in np.flatnonzero(np.abs(np.diff(v)) > 3.0 * np.diff(u)):
        a, b, fa, fb = float(u[k]), float(u[k + 1]), float(v[k]), float(v[k + 1])
        for _ in range(60):
            m = 0.5 * (a + b)
            fm = float(f(np.array([m]))[0])
            a, b, fa, fb = (a, m, fa, fm) if abs(fm - fa) > abs(fb - fm) else (m, b, fm, fb)
        if abs(fb - fa) > 1e-3 * spread:
            found.append((a, b))
    return found
