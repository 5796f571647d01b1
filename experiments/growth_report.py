"""What the rows of `bench_growth` say: the exponent of every direction, as a table and as curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparseopt.console import columns
from sparseopt.experiments.tables.styles import INK, plain_axes

__all__ = ["Row", "draw", "exponent", "table"]


@dataclass(frozen=True)
class Row:
    """One size in one direction: seconds of a path, its epochs, and the groups of its last solution."""

    direction: str
    size: float
    seconds: float
    epochs: int
    active: int


def exponent(sizes: ArrayLike, seconds: ArrayLike) -> float:
    """The slope of log seconds over log sizes.

    >>> round(exponent([1.0, 10.0, 100.0], [0.5, 5.0, 50.0]), 12)
    1.0
    """
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def table(rows: Sequence[Row]) -> list[str]:
    """All sizes, and the exponent of every direction."""
    cells = [("direction", "size", "seconds", "epochs", "groups", "exponent", "last step")]
    for direction in dict.fromkeys(row.direction for row in rows):
        mine = [row for row in rows if row.direction == direction]
        sizes, seconds = [row.size for row in mine], [row.seconds for row in mine]
        for k, row in enumerate(mine):
            slopes = ("", "")
            if len(mine) > 1 and k == len(mine) - 1:
                slopes = f"{exponent(sizes, seconds):.2f}", f"{exponent(sizes[-2:], seconds[-2:]):.2f}"
            cells.append((direction, f"{row.size:g}", f"{row.seconds:.4f}", str(row.epochs), str(row.active), *slopes))
    return columns(cells, indent="", left=1)


def draw(rows: Sequence[Row], file: Path) -> None:
    """Seconds over size in every direction, and a line of exponent 1 through the first point."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row.direction for row in rows))
    across = min(len(names), 3)
    down = -(-len(names) // across)
    figure = Figure(figsize=(3.2 * across, 2.9 * down), layout="constrained")
    for place, name in enumerate(names):
        axes: Any = figure.add_subplot(down, across, place + 1)
        plain_axes(axes)
        sizes = np.array([row.size for row in rows if row.direction == name])
        seconds: NDArray[np.float64] = np.array([row.seconds for row in rows if row.direction == name])
        axes.loglog(sizes, seconds[0] * sizes / sizes[0], ":", color="#777777", label="exponent 1")
        axes.loglog(sizes, seconds, "o-", color="#0072B2", label="a path", markersize=5.0)
        _ticks(axes, sizes)
        axes.set_xlabel(name)
        axes.set_title(f"exponent {exponent(sizes, seconds):.2f}" if len(sizes) > 1 else name, fontsize=10, color=INK)
        if place % across == 0:
            axes.set_ylabel("seconds")
        if not place:
            axes.legend(frameon=False, fontsize=9)
    figure.savefig(file, dpi=130)


def _ticks(axes: Any, sizes: NDArray[np.float64]) -> None:
    """The sizes below, and 1, 2 and 5 times powers of ten beside."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(sizes, [f"{x / 1000.0:g}k" if x >= 1000.0 else f"{x:g}" for x in sizes])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
