"""Pictures of paths, of cross-validation, of regularizers and of the groups they choose (needs matplotlib).

    plot_path               ||w_g|| against lam; the largest groups labelled at the ends of their lines, the others grey
    plot_cross_validation   mean held-out loss against lam, with its standard error and the two usual choices
    plot_regularizers       q and its prox side by side; a jump is a gap between a full and an empty dot
    plot_groups             norms as a heat map: groups by lam for a path, groups by outputs for a solution

lam falls from left to right, so that models grow in reading direction. Every function draws on the axes given, or on
new ones, and returns them; none shows a window or changes a global setting. The colours are those of Okabe and Ito,
which colour-blind readers can tell apart, without their yellow, which white paper swallows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparseopt.paths import CrossValidation
from sparseopt.regularizers import REGULARIZERS, get_regularizer
from sparseopt.solution import Path, Solution

__all__ = ["plot_cross_validation", "plot_groups", "plot_path", "plot_regularizers"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
STYLES = ("-", "--", ":")
GREY = "#B8B8B8"
SMALL = 9.0  # points

Array = NDArray[np.float64]


def plot_path(path: Path, ax: Any = None, *, top: int = 10, mark: Any = None) -> Any:
    """Norm of every group against lam, which falls from left to right on a log axis.

    Parameters
    ----------
    path : Path
    ax : matplotlib Axes, optional
        Default: those of a new figure.
    top : int >= 0
        Number of groups, those with the largest norm anywhere on the path, drawn in colour and labelled at the end of
        their line; fewer labels are written where the axes are too low for them. The others are grey.
    mark : lam, sequence of lam, or dict from label to lam, optional
        Values to mark by a vertical line.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    TypeError, ValueError
        If an argument is not as described.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt import Problem, path
    >>> X = np.random.default_rng(0).normal(size=(60, 12))
    >>> solutions = path(Problem.build(X, X[:, 0] - X[:, 4], groups=3), n_lams=20)
    >>> ax = plot_path(solutions, mark={"BIC": solutions.best("bic").problem.lam})
    >>> ax.get_xlabel(), len(ax.get_lines())
    ('lam, strength of the penalty', 5)
    """
    _require(path, Path, "path")
    if isinstance(top, bool) or not isinstance(top, (int, np.integer)) or top < 0:
        raise ValueError(f"top is {top!r}: pass the number of groups to label, an integer >= 0.")
    marks = _marks(mark)
    ax = _axes(ax, (7.5, 4.8))
    norms, names = path.group_norms, path.problem.groups.names
    order = np.argsort(-norms.max(axis=0), kind="stable")
    chosen = [int(g) for g in order[:top] if norms[:, g].any()]
    dot = "o" if len(path) == 1 else ""
    for g in order[::-1]:
        if g not in chosen:
            ax.plot(path.lams, norms[:, g], color=GREY, linewidth=0.8, marker=dot, zorder=1)
    ends = []
    for k, g in reversed(list(enumerate(chosen))):
        colour, style = COLOURS[k % len(COLOURS)], STYLES[k // len(COLOURS) % len(STYLES)]
        ax.plot(path.lams, norms[:, g], style, color=colour, linewidth=1.6, marker=dot, zorder=3, label=names[g])
        ends.append((k, float(norms[-1, g]), names[g], colour))
    _lam_axis(ax, path.lams)
    ax.set_ylim(0.0, 1.06 * max(float(norms.max()), 1e-300) if norms.any() else 1.0)
    ax.set_ylabel("norm of the group's coefficients")
    _finish(ax)
    _mark_lams(ax, marks)
    _label_ends(ax, sorted(ends))
    return ax


def plot_cross_validation(cv: CrossValidation, ax: Any = None) -> Any:
    """Mean held-out loss against lam with a band of one standard error; the two choices; active groups along the top.

    Parameters
    ----------
    cv : CrossValidation
    ax : matplotlib Axes, optional
        Default: those of a new figure.

    Returns
    -------
    matplotlib Axes
    """
    _require(cv, CrossValidation, "cv")
    ax = _axes(ax, (7.0, 4.8))
    mean, error = cv.mean, cv.standard_error
    ax.fill_between(cv.lams, mean - error, mean + error, color=COLOURS[4], alpha=0.35, linewidth=0.0)
    ax.plot(cv.lams, mean, color=COLOURS[0], linewidth=1.6, marker="o" if len(mean) == 1 else "")
    _lam_axis(ax, cv.lams)
    ax.set_ylabel(f"held-out loss ({cv.path.problem.loss.name}), mean ± standard error")
    best, simple = cv.best_index, cv.one_se_index
    for k, colour in ((simple, COLOURS[1]), (best, COLOURS[0])):
        ax.plot(cv.lams[k], mean[k], "o", color=colour, markersize=6, zorder=4)
    _finish(ax)
    if best == simple:
        _mark_lams(ax, {"smallest, one s.e.": float(cv.lams[best])})
    else:
        _mark_lams(ax, {"one s.e.": float(cv.lams[simple]), "smallest": float(cv.lams[best])})
    above = ax.secondary_xaxis("top")
    ticks = np.unique(np.linspace(0, len(cv.lams) - 1, 9).round().astype(int))
    above.set_xticks(cv.lams[ticks], [str(count) for count in cv.path.n_active[ticks]], fontsize=SMALL)
    above.minorticks_off()
    above.set_xlabel("active groups")
    return ax


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
    for name, value in (("t", t), ("high", high)):
        if not isinstance(value, Real) or not 0.0 < value < np.inf:
            raise ValueError(f"{name} is {value!r}: pass a positive number.")
    given = list(REGULARIZERS) if regularizers is None else regularizers
    if isinstance(given, str) or not isinstance(given, Sequence) or hasattr(given, "_fields"):
        given = [given]
    if not given:
        raise ValueError("regularizers is empty: pass names or instances, or None for the whole table.")
    named = [(q if isinstance(q, str) else str(q), get_regularizer(q)) for q in given]
    if axes is None:
        axes = _new_axes((10.5, 4.4), 2)
    left, right = axes
    for k, (name, q) in enumerate(named):
        look = {"color": COLOURS[k % len(COLOURS)], "linestyle": STYLES[k // len(COLOURS) % len(STYLES)]}
        _draw_with_gaps(left, q.value, high, name, look)
        _draw_with_gaps(right, lambda u, q=q: q.prox(u, t), high, name, look)
    right.plot([0.0, high], [0.0, high], color=GREY, linewidth=0.8, zorder=0)
    for ax, label in ((left, "q(u)"), (right, f"prox(u, t) with t = {t:g}")):
        ax.set_xlabel("u, norm of a block")
        ax.set_ylabel(label)
        ax.set_xlim(0.0, high)
        ax.margins(y=0.04)
        _finish(ax)
    right.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), fontsize=SMALL, frameon=False, handlelength=2.6)
    return axes


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
        Rows at most: the groups with the largest norms. How many are left out is said below.
    outputs : names of the outputs of a solution, optional

    Returns
    -------
    matplotlib Axes
    """
    _require(found, (Path, Solution), "found")
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
    ax = _axes(ax, (7.5, 1.6 + 0.17 * max(len(rows), 8)))
    shown = np.ma.masked_equal(table[rows], 0.0)
    if isinstance(found, Solution) and table.shape[1] == 1:
        ax.barh(np.arange(len(rows)), shown[:, 0].filled(0.0), color=COLOURS[0], height=0.7)
        ax.set_xlabel("norm of the group's coefficients")
        ax.invert_yaxis()
    else:
        _heat_map(ax, found, shown, outputs)
    left_out = len(groups) - len(rows)
    zero = int(np.count_nonzero(size == 0.0))
    note = f"{left_out} of {len(groups)} groups not shown" + (f", {min(zero, left_out)} of them zero" if zero else "")
    ax.set_ylabel("group" + (f"  ({note})" if left_out else ""))
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
    # A reversed map: faint is small, dark is large, and white is left for exact zeros.
    image = ax.pcolormesh(edges, np.arange(n_rows + 1) - 0.5, shown, cmap="viridis_r", vmin=0.0, vmax=top)
    ax.invert_yaxis()
    bar = ax.figure.colorbar(image, ax=ax, pad=0.02, aspect=30)
    bar.set_label("norm of the group's coefficients (white: zero)")
    if isinstance(found, Path):
        _lam_axis(ax, edges)
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
    ax.set_yticks(np.arange(len(names))[::step], [_short(name) for name in names[::step]], fontsize=size)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.tick_params(axis="y", length=2)


# -- jumps -------------------------------------------------------------------------------------------------------------


def _draw_with_gaps(ax: Any, f: Callable[[Array], Array], high: float, name: str, look: dict[str, str]) -> None:
    u = np.linspace(0.0, high, 801)
    v = np.asarray(f(u), dtype=np.float64)
    xs, ys = [u[:1]], [v[:1]]
    for a, b in _jumps(f, u, v):
        inside = (u > xs[-1][-1]) & (u < a)
        xs += [u[inside], np.array([a, np.nan, b])]
        at = np.asarray(f(np.array([a, b])), dtype=np.float64)
        ys += [v[inside], np.array([at[0], np.nan, at[1]])]
        ax.plot([a], at[:1], "o", color=look["color"], markersize=5, zorder=4, clip_on=False)
        ax.plot([b], at[1:], "o", color=look["color"], markerfacecolor="white", markersize=5, zorder=4, clip_on=False)
    rest = u > xs[-1][-1]
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


# -- axes --------------------------------------------------------------------------------------------------------------


def _require(value: Any, kind: Any, name: str) -> None:
    if not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        raise TypeError(
            f"{name} is a {type(value).__name__}: pass a {' or a '.join(k.__name__ for k in kinds)} of sparseopt."
        )


def _axes(ax: Any, size: tuple[float, float]) -> Any:
    return _new_axes(size, 1)[0] if ax is None else ax


def _new_axes(size: tuple[float, float], n: int) -> Any:
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError("matplotlib, which draws, is not installed: pip install matplotlib.") from error
    return plt.subplots(1, n, figsize=size, layout="constrained", squeeze=False)[1][0]


def _lam_axis(ax: Any, lams: Array) -> None:
    ax.set_xscale("log")
    high, low = float(lams.max()), float(lams.min())
    ax.set_xlim((high, low) if high > low else (2.0 * high, 0.5 * low))
    ax.set_xlabel("lam, strength of the penalty")


def _finish(ax: Any) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=SMALL)


def _marks(mark: Any) -> dict[str, float]:
    if mark is None:
        return {}
    if isinstance(mark, Mapping):
        marks = {str(label): float(lam) for label, lam in mark.items()}
    else:
        marks = {f"lam = {lam:.3g}": float(lam) for lam in np.atleast_1d(np.asarray(mark, dtype=np.float64))}
    for label, lam in marks.items():
        if not 0.0 < lam < np.inf:
            raise ValueError(f"mark {label!r} is {lam}: pass lam > 0, which a log axis can show.")
    return marks


def _mark_lams(ax: Any, marks: Mapping[str, float]) -> None:
    """Vertical lines with labels along them; of two lines close together, the left one has its label on the left."""
    order = sorted(marks.items(), key=lambda item: -item[1])
    for k, (label, lam) in enumerate(order):
        crowded = k + 1 < len(order)
        ax.axvline(lam, color="#444444", linewidth=1.0, linestyle=(0, (4, 3)), zorder=2)
        ax.annotate(
            label,
            (lam, 0.98),
            xycoords=("data", "axes fraction"),
            xytext=(-3.0 if crowded else 3.0, 0.0),
            textcoords="offset points",
            rotation=90,
            ha="right" if crowded else "left",
            va="top",
            fontsize=SMALL,
            color="#444444",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5},
            zorder=5,
        )


def _label_ends(ax: Any, ends: list[tuple[int, float, str, str]]) -> None:
    """Names to the right of the lines' ends, (rank, height, name, colour), moved apart so that none overlap."""
    if not ends:
        return
    # Heights are counted as parts of the axes' height. The layout may shrink the axes later, for ticks and titles.
    height = 0.82 * ax.get_window_extent().height / ax.figure.dpi * 72.0
    apart = 1.25 * SMALL / height
    ends = ends[: max(1, int(1.0 / apart))]
    low, high = ax.get_ylim()
    wanted = np.array([(end[1] - low) / (high - low) for end in ends])
    for (_, value, name, colour), place in zip(ends, _spread(wanted, apart), strict=True):
        ax.annotate(
            _short(name),
            (1.0, (value - low) / (high - low)),
            xycoords="axes fraction",
            xytext=(1.05, place),
            textcoords="axes fraction",
            va="center",
            fontsize=SMALL,
            color="#222222",
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linewidth": 1.2,
                "shrinkA": 1.0,
                "shrinkB": 0.0,
                "relpos": (0.0, 0.5),
            },
            annotation_clip=False,
        )


def _short(name: str, longest: int = 24) -> str:
    return name if len(name) <= longest else name[: longest - 1] + "…"


def _spread(wanted: Array, apart: float) -> Array:
    """Heights in [0, 1] at least `apart` from each other, least squares near those wanted.

    Subtracting k * apart from the k-th in order turns distances into order: isotonic regression, by pooling.
    """
    order = np.argsort(wanted, kind="stable")
    room = max(1.0 - apart * (len(wanted) - 1), 0.0)
    blocks: list[list[float]] = []  # [sum, count]
    for k, value in enumerate(wanted[order]):
        blocks.append([float(value) - k * apart, 1.0])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] >= blocks[-1][0] / blocks[-1][1]:
            total, count = blocks.pop()
            blocks[-1][0] += total
            blocks[-1][1] += count
    level = np.concatenate([np.full(int(count), total / count) for total, count in blocks])
    out = np.empty(len(wanted))
    out[order] = np.clip(level, 0.0, room) + apart * np.arange(len(wanted))
    return out
