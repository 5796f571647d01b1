"""Norms and held-out losses against lam."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparseopt.plotting.axes import (
    COLOURS,
    GREY,
    SMALL,
    STYLES,
    as_marks,
    finish,
    given_or_new_axes,
    label_ends,
    label_height,
    lam_axis,
    mark_lams,
    require,
)
from sparseopt.solution import Path
from sparseopt.validation import CrossValidation

__all__ = ["plot_cross_validation", "plot_path"]


def plot_path(path: Path, ax: Any = None, *, top: int = 10, mark: Any = None) -> Any:
    """Norm of every group against lam, which falls from left to right on a log axis.

    Parameters
    ----------
    path : Path
    ax : matplotlib Axes, optional
        Default: those of a new figure.
    top : int >= 0
        Number of groups, those with the largest norm anywhere on the path, drawn in colour and labelled at the end of
        their line, but no more than the axes have room for. The others are grey.
    mark : lam, sequence of lam, or dict from label to lam, optional
        Values within the path to mark by a vertical line.

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
    require(path, Path, "path")
    if isinstance(top, bool) or not isinstance(top, (int, np.integer)) or top < 0:
        raise ValueError(f"top is {top!r}: pass the number of groups to label, an integer >= 0.")
    marks = as_marks(mark, path.lams)
    ax = given_or_new_axes(ax, (7.5, 4.8))
    norms, names = path.group_norms, path.problem.groups.names
    order = np.argsort(-norms.max(axis=0), kind="stable")
    chosen = [int(g) for g in order[: min(top, int(1.0 / label_height(ax)))] if norms[:, g].any()]
    dot = "o" if len(path) == 1 else ""
    for g in order[::-1]:
        if g not in chosen:
            ax.plot(path.lams, norms[:, g], color=GREY, linewidth=0.8, marker=dot, zorder=1)
    ends = []
    for k, g in reversed(list(enumerate(chosen))):
        colour, style = COLOURS[k % len(COLOURS)], STYLES[k // len(COLOURS) % len(STYLES)]
        ax.plot(path.lams, norms[:, g], style, color=colour, linewidth=1.6, marker=dot, zorder=3, label=names[g])
        ends.append((float(norms[-1, g]), names[g], colour))
    lam_axis(ax, path.lams)
    ax.set_ylim(0.0, 1.06 * max(float(norms.max()), 1e-300) if norms.any() else 1.0)
    ax.set_ylabel("norm of the group's coefficients")
    finish(ax)
    mark_lams(ax, marks)
    label_ends(ax, ends)
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
    require(cv, CrossValidation, "cv")
    ax = given_or_new_axes(ax, (7.0, 4.8))
    mean, error = cv.mean, cv.standard_error
    ax.fill_between(cv.lams, mean - error, mean + error, color=COLOURS[4], alpha=0.35, linewidth=0.0)
    ax.plot(cv.lams, mean, color=COLOURS[0], linewidth=1.6, marker="o" if len(mean) == 1 else "")
    lam_axis(ax, cv.lams)
    ax.set_ylabel(f"held-out loss ({cv.path.problem.loss.name}), mean ± standard error")
    best, simple = cv.best_index, cv.one_se_index
    for k, colour in ((simple, COLOURS[1]), (best, COLOURS[0])):
        ax.plot(cv.lams[k], mean[k], "o", color=colour, markersize=6, zorder=4)
    finish(ax)
    mark_lams(ax, {"one s.e.": float(cv.lams[simple]), "smallest": float(cv.lams[best])})
    above = ax.secondary_xaxis("top")
    ticks = np.unique(np.linspace(0, len(cv.lams) - 1, 9).round().astype(int))
    above.set_xticks(cv.lams[ticks], [str(count) for count in cv.path.n_active[ticks]], fontsize=SMALL)
    above.minorticks_off()
    above.set_xlabel("active groups")
    return ax
