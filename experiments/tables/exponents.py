"""The metric by the exponent c of the sparsify phase, as bars: ours at each sparsity beside the paper's.

Bars that began at 0 would all look the same: the axis begins below the lowest, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sparseopt.experiments.tables.cells import EXPONENT, OURS, Cell, Grouped, Metric, family_of
from sparseopt.experiments.tables.points import Point, points_of, printed
from sparseopt.experiments.tables.published import Table
from sparseopt.experiments.tables.styles import INK, SMALL, legend_above, not_run, plain_axes
from sparseopt.experiments.tables.wording import block_text

__all__ = ["exponent"]

_SHADES = ("#C6DBEF", "#6BAED6", "#2171B5", "#08306B")  # lighter to darker: c is ordered
Block = tuple[int, int]


def exponent(figure: Any, data: Grouped, table: Table, metric: Metric) -> None:
    """Bars by size of blocks and exponent, with standard errors."""
    from matplotlib.patches import Patch

    rows = {OURS: EXPONENT}
    rows |= {row: float(row.rpartition("= ")[2]) for row in table.rows(data) if family_of(row) == "exponent"}
    rows = dict(sorted(rows.items(), key=lambda item: item[1]))
    theirs = _places(table.figures, rows)
    mine = {*_places(data.cells, [row for row in rows if row != OURS]), *theirs}
    kinds = [("ours", share, mine) for share in sorted({share for _, share in mine})]
    kinds += [("the paper's", share, theirs) for share in sorted({share for _, share in theirs})]
    figure.set_size_inches(max(7.0, 4.6 * len(kinds)), 3.8)
    for ax, (whose, share, places) in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
        plain_axes(ax)
        ax.grid(visible=False, axis="x")
        ax.set_title(f"{whose}, {share:g} % dropped", fontsize=10)
        blocks = sorted(block for block, each in places if each == share)
        points = {
            (row, block): points_of(data.cells.get(Cell(row, block, share), ()))
            if whose == "ours"
            else printed(table.figures, Cell(row, block, share))
            for row in rows
            for block in blocks
        }
        _bars(ax, list(rows), blocks, points, metric)
    handles = [
        Patch(facecolor=_shade(number), edgecolor=INK, linewidth=0.6, label=f"c = {c:g}")
        for number, c in enumerate(rows.values())
    ]
    legend_above(figure, handles)


def _places(cells: Mapping[Cell, Any], rows: Any) -> set[tuple[Block, float]]:
    return {
        (cell.block, cell.sparsity) for cell in cells if cell.row in rows and cell.block and cell.sparsity is not None
    }


def _shade(number: int) -> str:
    return _SHADES[number % len(_SHADES)]


def _bars(
    ax: Any,
    rows: Sequence[str],
    blocks: Sequence[Block],
    points: Mapping[tuple[str, Block], list[Point]],
    metric: Metric,
) -> None:
    known = [each[0] for each in points.values() if len(each) == 1 and each[0].drawn]
    ax.set_xticks(range(len(blocks)), [block_text(block) for block in blocks])
    ax.set_xlim(-0.55, len(blocks) - 0.45)
    ax.set_xlabel("blocks", fontsize=SMALL)
    if not any(points.values()):
        ax.set_yticks([])
        not_run(ax)
        return
    low = min((point.height - point.bar for point in known), default=0.0)
    high = max((point.height + point.bar for point in known), default=1.0)
    floor = max(0.0, low - 0.6 * max(high - low, 0.02 * high))
    ax.set_ylim(floor, high + 0.12 * (high - floor))
    digits = metric.digits - 1
    begins = f" (axis begins at {floor:.{digits}f})" if floor else ""
    ax.set_ylabel(metric.words + begins, fontsize=SMALL)
    width = 0.8 / len(rows)
    for number, row in enumerate(rows):
        for place, block in enumerate(blocks):
            x = place + (number - 0.5 * (len(rows) - 1)) * width
            here = points[row, block]
            if len(here) != 1 or not here[0].drawn:
                word = "not run" if not here else "several" if len(here) > 1 else "diverged"
                look = {"rotation": 90, "ha": "center", "va": "bottom", "fontsize": 7.5, "color": "#555555"}
                ax.annotate(word, (x, 0.02), xycoords=("data", "axes fraction"), **look)
                continue
            point = here[0]
            ax.bar(x, point.height, width, color=_shade(number), edgecolor=INK, linewidth=0.6, zorder=2)
            if point.bar:
                ax.errorbar(x, point.height, yerr=point.bar, color=INK, capsize=2.0, linewidth=1.0, zorder=3)
            spot = {"xytext": (0, 2), "textcoords": "offset points", "ha": "center", "fontsize": 7, "color": INK}
            ax.annotate(f"{point.height:.{digits}f}", (x, point.height + point.bar), **spot, zorder=4)
