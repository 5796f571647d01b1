"""Pictures of the ratios of `solver_report`: a panel for each task, a line for each problem, a mark for each size.

Left of 1 this project is faster, or leaner; the dashed line is what is aimed at. The axis is logarithmic, so that twice
and half are equally far from 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparseopt.experiments.solver_report import CONCAVE, Ratio, mean_ratio
from sparseopt.experiments.tables.styles import INK, SMALL, legend_above, plain_axes

__all__ = ["draw_ratios"]

LOOKS = {"quick": ("#009E73", "^"), "full": ("#0072B2", "o"), "large": ("#D55E00", "s")}


def draw_ratios(found: Sequence[Ratio], what: str, file: Path) -> bool:
    """Write a picture of "time" or "memory"; whether there was anything to draw."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    known = [each for each in found if getattr(each, what) is not None]
    if not known:
        return False
    tasks = list(dict.fromkeys(each.task for each in known))
    problems = list(dict.fromkeys(each.problem for each in known))
    sizes = [size for size in LOOKS if any(each.size == size for each in known)]
    figure = Figure(figsize=(2.6 + 1.9 * len(tasks), 1.7 + 0.3 * len(problems)), layout="constrained")
    grid = figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
    values = [getattr(each, what) for each in known]
    ends = min(0.6, *values) / 1.15, max(1.4, *values) * 1.15
    for ax, task in zip(grid, tasks, strict=True):
        mine = [each for each in known if each.task == task]
        _panel(ax, mine, what, problems, sizes)
        _axis(ax, *ends)
        goal = 1.1 if what == "memory" else 1.3 if task in CONCAVE else 0.7
        ax.axvline(1.0, color=INK, linewidth=1.0, zorder=1)
        ax.axvline(goal, color=INK, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)
        ax.set_title(f"{task}\naim {goal:g}", fontsize=10, color=INK)
    against = "the leanest peer" if what == "memory" else "the fastest peer (mcp, scad: our own group-lasso path)"
    figure.supxlabel(f"{what} over that of {against}", fontsize=10, color=INK)
    handles = [
        Line2D([], [], color=LOOKS[size][0], marker=LOOKS[size][1], linestyle="none", markersize=6.0, label=size)
        for size in sizes
    ]
    legend_above(figure, handles)
    figure.savefig(file, dpi=130)
    return True


def _panel(ax: Any, mine: Sequence[Ratio], what: str, problems: Sequence[str], sizes: Sequence[str]) -> None:
    rows = [*problems, "geometric mean"]
    plain_axes(ax)
    for shift, size in enumerate(sizes):
        colour, marker = LOOKS[size]
        here = [each for each in mine if each.size == size]
        at = {each.problem: getattr(each, what) for each in here}
        mean = mean_ratio(here, what)
        if mean is not None:
            at["geometric mean"] = mean
        heights = [rows.index(name) + 0.24 * (shift - 0.5 * (len(sizes) - 1)) for name in at]
        ax.plot(list(at.values()), heights, marker, color=colour, markersize=6.0, linestyle="none", zorder=3)
    ax.set_yticks(range(len(rows)), rows, fontsize=SMALL)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.axhline(len(problems) - 0.5, color="#999999", linewidth=0.8)


def _axis(ax: Any, low: float, high: float) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    steps: tuple[float, ...] = (1.0, 2.0, 3.0, 5.0, 7.0)
    if high < 3.0 * low:
        steps = (1.0, 1.2, 1.5, 2.0, 3.0, 5.0, 7.0)
    elif high > 9.0 * low:
        steps = (1.0, 2.0, 5.0)
    ticks = [step * 10.0**power for power in range(-3, 4) for step in steps]
    ax.set_xscale("log")
    ax.set_xlim(low, high)
    ax.xaxis.set_major_locator(FixedLocator([x for x in ticks if low <= x <= high]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
