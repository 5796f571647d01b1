"""Norms of groups as a heat map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparseopt.plotting.axes import COLOURS, SMALL, given_or_new_axes, lam_axis, require, short
from sparseopt.solution import Path, Solution

__all__ = ["plot_groups"]

Array = NDArray[np.float64]


def plot_groups(found: Solution | Path, ax: Any = None, *, top: int = 50, outputs: Sequence[str] | None = None) -> Any:
    """Norms of the groups as a heat map; white is exactly zero.

    Parameters
    ----------
    found : Path or Solution
        Path: groups by lam, in the order in which they enter. Solution: groups by outputs, largest first; with one
        output, a bar per group.
    ax : matplotlib Axes, optional
        Default: those of a new figure, as high as its rows need.
    top : int >= 1
        Rows at most: the groups with the largest norms. How many are left out is said above.
    outputs : names of the outputs of a solution, optional

    Returns
    -------
    matplotlib Axes
    """
    require(found, (Path, Solution), "found")
    if isinstance(top, bool) or not isinstance(top, (int, np.integer)) or top < 1:
        raise ValueError(f"top is {top!r}: pass the largest number of rows, an integer >= 1.")
    groups = found.problem.groups
    table = found.group_norms.T if isinstance(found, Path) else _norms_by_output(found)
    size = table.max(axis=1)
    order = np.argsort(-size, kind="stable")
    rows = order[: max(min(top, int(np.count_nonzero(size))), 1)]
    if isinstance(found, Path):  # the last index of column 0, ..., entry leaves a zero
        entry = np.where(table[rows].any(axis=1), (table[rows] > 0.0).argmax(axis=1), table.shape[1])
        rows = rows[np.lexsort((-size[rows], entry))]
    ax = given_or_new_axes(ax, (7.5, 1.6 + 0.17 * max(len(rows), 8)))
    shown = np.ma.masked_equal(table[rows], 0.0)
    if isinstance(found, Solution) and table.shape[1] == 1:
        ax.barh(np.arange(len(rows)), shown[:, 0].filled(0.0), color=COLOURS[0], height=0.7)
        ax.set_xlabel("norm of the group's coefficients")
        ax.invert_yaxis()
    else:
        _heat_map(ax, found, shown, outputs)
    left_out = len(groups) - len(rows)
    zero = int(np.count_nonzero(size == 0.0))
    note = f"{left_out} of {len(groups)} groups not shown" + (
        f", {min(zero, left_out)} of which are zero" if zero else ""
    )
    ax.set_ylabel("group")
    if left_out:
        ax.set_title(note, fontsize=SMALL, loc="left")
    _name_rows(ax, [groups.names[int(g)] for g in rows])
    return ax


def _norms_by_output(solution: Solution) -> Array:
    W = solution.problem.matrix(solution.w)
    return np.column_stack([solution.problem.groups.norms(column) for column in W.T])


def _heat_map(ax: Any, found: Path | Solution, shown: Any, outputs: Sequence[str] | None) -> None:
    n_rows, n_columns = shown.shape
    edges = np.arange(n_columns + 1) - 0.5
    if isinstance(found, Path):
        logs = np.log(found.lams)
        middle = 0.5 * (logs[1:] + logs[:-1])
        width = middle[0] - logs[0] if n_columns > 1 else -0.1
        end = logs[-1] - middle[-1] if n_columns > 1 else -0.1
        edges = np.exp(np.concatenate([[logs[0] - width], middle, [logs[-1] + end]]))
    top = float(shown.max()) if shown.count() else 1.0
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    blues = ListedColormap(colormaps["Blues"](np.linspace(0.18, 1.0, 256)))  # white is left for exact zeros
    image = ax.pcolormesh(edges, np.arange(n_rows + 1) - 0.5, shown, cmap=blues, vmin=0.0, vmax=top)
    ax.invert_yaxis()
    bar = ax.figure.colorbar(image, ax=ax, pad=0.02, aspect=30)
    bar.set_label("norm (white: zero)")
    if isinstance(found, Path):
        lam_axis(ax, edges)
        return
    if outputs is not None and len(outputs) != n_columns:
        raise ValueError(f"outputs has {len(outputs)} names for {n_columns} outputs: pass one for each.")
    step = -(-n_columns // 30)
    names = [str(k) for k in range(n_columns)] if outputs is None else [str(name) for name in outputs]
    turned = 90 if max(map(len, names)) > 4 else 0
    ax.set_xticks(np.arange(n_columns)[::step], names[::step], rotation=turned)
    ax.set_xlabel("output")


def _name_rows(ax: Any, names: list[str]) -> None:
    """Names beside the rows, every second or third one only where the axes are too low for all."""
    height = ax.get_window_extent().height / ax.figure.dpi * 72.0
    size = float(np.clip(0.8 * height / len(names), 6.5, SMALL))
    step = max(1, int(np.ceil(len(names) * 1.1 * size / height)))
    ax.set_yticks(np.arange(len(names))[::step], [short(name) for name in names[::step]], fontsize=size)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.tick_params(axis="y", length=2)
