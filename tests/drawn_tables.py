"""Finished figures of tables, and wrong data for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sparseopt.experiments.tables import Collection
from sparseopt.experiments.tables.cells import OURS, Cell, Grouped, grouped, metric_of
from sparseopt.experiments.tables.published import paper

Change = Callable[[Grouped], Grouped]
Maker = Callable[..., None]
OTHER = {OURS: "ac/dc", "ac/dc": OURS}


def drawn(make: Maker, collection: Collection, kind: str, number: int = 0, change: Change = lambda data: data) -> Any:
    """The finished figure."""
    figure = Figure(layout="constrained")
    FigureCanvasAgg(figure)
    make(figure, change(grouped(collection, kind)), paper(kind)[number], metric_of(kind))
    figure.draw_without_rendering()
    return figure


def texts(ax: Any) -> list[str]:
    return [text.get_text() for text in ax.texts]


def renamed(change: Callable[[Cell], Cell]) -> Change:
    return lambda data: replace(data, cells={change(cell): groups for cell, groups in data.cells.items()})
