"""The metric of all methods against the share of dropped blocks, ours above the paper's.

Lines end where a sparsity was not run. Runs of a cell with different settings are open dots, on no line; what diverged
is a cross at the bad end of the axis.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sparseopt.experiments.tables.cells import DENSE, Cell, Grouped, Metric
from sparseopt.experiments.tables.points import Point, points_of, printed
from sparseopt.experiments.tables.published import Table
from sparseopt.experiments.tables.styles import INK, SMALL, legend_above, look, no_numbers, not_run, plain_axes
from sparseopt.experiments.tables.wording import block_text

__all__ = ["tradeoff"]

_ROOM = 0.15
Block = tuple[int, int]


def tradeoff(figure: Any, data: Grouped, table: Table, metric: Metric) -> None:
    """The metric of all methods against the share of dropped blocks, ours above the paper's."""
    rows = table.methods(data)
    places = table.places(data, rows)
    blocks, shares = sorted({block for block, _ in places}), sorted({share for _, share in places})
    kinds = ["ours", "the paper's"] if table.figures else ["ours"]
    columns = max(1, len(blocks))
    figure.set_size_inches(max(6.5, 1.4 + 2.7 * columns), 1.1 + 2.6 * len(kinds))
    panels = figure.subplots(len(kinds), columns, sharey="row", squeeze=False)
    for line, kind in zip(panels, kinds, strict=True):
        lost = False
        for number, ax in enumerate(line):
            plain_axes(ax)
            if not blocks:
                not_run(ax)
                no_numbers([ax])
                continue
            lost |= _panel(ax, rows, blocks[number], shares, data, table, metric, ours=kind == "ours")
            if kind == "ours":
                ax.set_title(f"blocks of {block_text(blocks[number])}", fontsize=10)
        line[0].set_ylabel(f"{kind}: {metric.words}", fontsize=SMALL)
        if not any(ax.lines for ax in line):
            line[0].set_yticks([])
        if lost:  # room for the crosses beyond what the others reach
            low, high = line[0].get_ylim()
            more = _ROOM * (high - low)
            line[0].set_ylim((low, high + more) if metric.smaller else (low - more, high))
    figure.supxlabel("blocks dropped, %        (bars: standard error over seeds)", fontsize=SMALL)
    _tradeoff_legend(figure, rows, data, table)


def _panel(
    ax: Any,
    rows: Sequence[str],
    block: Block,
    shares: Sequence[float],
    data: Grouped,
    table: Table,
    metric: Metric,
    ours: bool,
) -> bool:
    """One size of blocks; whether something diverged."""
    drawn = False
    lost: dict[float, int] = {}
    for row in rows:
        style = look(row)
        on_line = []
        for share in shares:
            cell = Cell(row, block, share)
            here = points_of(data.cells.get(cell, ())) if ours else printed(table.figures, cell)
            drawn = drawn or bool(here)
            if any(point.lost for point in here):
                _cross(ax, _place(share), style["color"], lost.get(share, 0), metric.smaller)
                lost[share] = lost.get(share, 0) + 1
            for point in here:
                if point.several and point.drawn:
                    _draw(ax, [share], [point], {**style, "markerfacecolor": "white", "linestyle": "none"})
            on_line.append(here[0] if len(here) == 1 else Point(math.nan, math.nan))
        if any(point.drawn for point in on_line):
            _draw(ax, shares, on_line, style)
    height = _dense_height(data, table, ours)
    if height is not None:
        ax.axhline(height, color=INK, linewidth=1.0, linestyle=(0, (6, 2)), zorder=1)
        drawn = drawn or not ours
    if not drawn:
        not_run(ax)
    ax.set_xscale("log")
    ax.set_xlim(1.25 * _place(min(shares)), 0.8 * _place(max(shares)))
    ax.set_xticks([_place(share) for share in shares], [f"{share:g}" for share in shares])
    ax.minorticks_off()
    return bool(lost)


def _place(share: float) -> float:
    """Percent of the blocks that are left: on a log scale, which grows to the left."""
    return 100.0 - share


def _draw(ax: Any, shares: Sequence[float], points: Sequence[Point], style: Mapping[str, Any]) -> None:
    heights, bars = [point.height for point in points], [point.bar for point in points]
    errors = {"yerr": bars, "capsize": 2.5, "elinewidth": 1.0} if any(bars) else {}
    ax.errorbar([_place(share) for share in shares], heights, **errors, **style)


def _cross(ax: Any, x: float, colour: str, number: int, smaller: bool) -> None:
    """At the bad end of the axis; several of them one above the other."""
    height = 0.97 - 0.06 * number if smaller else 0.03 + 0.06 * number
    ax.plot([x], [height], "x", color=colour, markersize=6, transform=ax.get_xaxis_transform(), clip_on=False)


def _dense_height(data: Grouped, table: Table, ours: bool) -> float | None:
    if not ours:
        return table.dense
    groups = data.cells.get(Cell(DENSE, None, None), ())
    return groups[0].estimate.mean if len(groups) == 1 and groups[0].estimate.n else None


def _tradeoff_legend(figure: Any, rows: Sequence[str], data: Grouped, table: Table) -> None:
    from matplotlib.lines import Line2D

    run = {cell.row for cell in data.cells}
    handles = [Line2D([], [], label=row + ("" if row in run else " (ours: not run)"), **look(row)) for row in rows]
    missing = "" if _dense_height(data, table, ours=True) is not None else " (ours: not run)"
    handles.append(Line2D([], [], color=INK, linewidth=1.0, linestyle=(0, (6, 2)), label=f"dense network{missing}"))
    lost = any(group.diverged for groups in data.cells.values() for group in groups) or None in table.figures.values()
    if lost:
        handles.append(Line2D([], [], color=INK, marker="x", linestyle="none", label="diverged"))
    if any(len(groups) > 1 for groups in data.cells.values()):
        dot = Line2D([], [], color=INK, marker="o", linestyle="none", markerfacecolor="white")
        dot.set_label("one of several settings")
        handles.append(dot)
    legend_above(figure, handles)
