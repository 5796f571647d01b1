"""Choices of at most k groups: which groups are in for every k, and what k is chosen by."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparseopt.plotting.axes import COLOURS, SMALL, finish, given_or_new_axes, require, short
from sparseopt.selection import SubsetPath
from sparseopt.validation import CrossValidation

__all__ = ["plot_choices", "plot_sizes"]


def plot_choices(path: SubsetPath, ax: Any = None, *, top: int = 30, mark: int | None = None) -> Any:
    """A dot for every group that is chosen for every k; its area is the norm of the group's coefficients.

    Parameters
    ----------
    path : SubsetPath
    ax : matplotlib Axes, optional
        Default: those of a new figure.
    top : int >= 1
        Rows at most: the groups that are chosen for most k, in the order in which they enter.
    mark : int, optional
        A size to mark by a vertical line.

    Returns
    -------
    matplotlib Axes

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt import Problem, select_path
    >>> X = np.random.default_rng(0).normal(size=(60, 12))
    >>> path = select_path(Problem.build(X, X[:, 0] - X[:, 4], groups=3))
    >>> [tick.get_text() for tick in plot_choices(path).get_yticklabels()]
    ['0', '1']
    """
    require(path, SubsetPath, "path")
    if isinstance(top, bool) or not isinstance(top, (int, np.integer)) or top < 1:
        raise ValueError(f"top is {top!r}: pass the largest number of rows, an integer >= 1.")
    ax = given_or_new_axes(ax, (7.0, 4.8))
    norms = path.group_norms
    chosen = norms > 0.0
    often = np.argsort(-chosen.sum(axis=0), kind="stable")[:top]
    rows = [int(g) for g in often if chosen[:, g].any()]
    rows.sort(key=lambda g: (int(chosen[:, g].argmax()), -int(chosen[:, g].sum())))
    largest = max(float(norms.max(initial=0.0)), 1e-300)
    for row, g in enumerate(rows):
        within = np.flatnonzero(chosen[:, g])
        ax.scatter(
            path.sizes[within], np.full(within.size, row), s=8.0 + 92.0 * norms[within, g] / largest, c=COLOURS[0]
        )
    left_out = int(np.count_nonzero(chosen.any(axis=0))) - len(rows)
    if left_out:
        ax.set_title(f"{left_out} more groups are chosen for some k", fontsize=SMALL, loc="left")
    ax.set_yticks(range(len(rows)), [short(path.problem.groups.names[g]) for g in rows], fontsize=SMALL)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_ylabel("group (area of the dot: norm)")
    _size_axis(ax, path, mark)
    return ax


def plot_sizes(
    found: SubsetPath | CrossValidation, ax: Any = None, *, rule: str = "bic", mark: int | None = None
) -> Any:
    """What a rule compares, for every k: a criterion, or the held-out loss with its standard error.

    Parameters
    ----------
    found : SubsetPath or CrossValidation
        Of `select_path` or `cross_validate_subsets`.
    ax : matplotlib Axes, optional
        Default: those of a new figure.
    rule : {"aic", "bic", "ebic", "bonferroni", "gap", "min", "1se"}
        The last two need a CrossValidation, and show the same.
    mark : int, optional
        A size to mark by a vertical line.

    Returns
    -------
    matplotlib Axes
    """
    require(found, (SubsetPath, CrossValidation), "found")
    path: Any = found.path if isinstance(found, CrossValidation) else found
    require(path, SubsetPath, "found.path")
    ax = given_or_new_axes(ax, (7.0, 4.8))
    sizes = path.sizes
    if rule in ("min", "1se"):
        if not isinstance(found, CrossValidation):
            raise ValueError(f"rule {rule!r} shows held-out losses: pass a CrossValidation.")
        mean, error = found.mean, found.standard_error
        ax.fill_between(sizes, mean - error, mean + error, color=COLOURS[4], alpha=0.35, linewidth=0.0)
        ax.set_ylabel(f"held-out loss ({path.problem.loss.name}), mean ± standard error")
    else:
        mean = path.criterion(rule)
        ax.set_ylabel(rule.upper() if rule != "gap" else "log of (next fall of the fit / this fall)")
    shown = np.isfinite(mean)
    ax.plot(sizes[shown], mean[shown], "o-", color=COLOURS[0], linewidth=1.6, markersize=4)
    _size_axis(ax, path, mark)
    return ax


def _size_axis(ax: Any, path: SubsetPath, mark: int | None) -> None:
    from matplotlib.ticker import MaxNLocator

    if mark is not None:
        if mark not in path.sizes:
            raise ValueError(f"mark is {mark}: pass one of the sizes {path.sizes.tolist()}.")
        ax.axvline(mark, color="#444444", linewidth=1.0, linestyle=(0, (4, 3)), zorder=0)
    ax.set_xlim(path.sizes[0] - 0.5, path.sizes[-1] + 0.5)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("k, groups allowed")
    finish(ax)
