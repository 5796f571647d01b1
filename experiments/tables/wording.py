"""Cells and numbers in words.

group        0.4567 ± 0.00031 (3), 1 diverged
difference   -0.0123 ± 0.00045 (3)
place        90 %, 5 x 5, ac/dc
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from sparseopt.experiments.tables.cells import DENSE, Cell, Group, Metric
from sparseopt.experiments.tables.estimates import Estimate

__all__ = ["DIVERGED", "NOT_RUN", "block_text", "group_text", "paper_text", "place_text", "signed"]

NOT_RUN = "not run"
DIVERGED = "diverged"


def block_text(block: tuple[int, int]) -> str:
    """The sides of a block.

    >>> block_text((5, 5)), block_text((8, 0))
    ('5 x 5', '8 x all')
    """
    return " x ".join(str(side) if side else "all" for side in block)


def place_text(cell: Cell) -> str:
    """A cell, for sentences.

    >>> place_text(Cell("ac/dc", (5, 5), 90.0))
    '90 %, 5 x 5, ac/dc'
    """
    if cell.block is None or cell.sparsity is None:
        return f"the {DENSE} network"
    return f"{cell.sparsity:g} %, {block_text(cell.block)}" + (f", {cell.row}" if cell.row else "")


def group_text(group: Group, metric: Metric) -> str:
    """Mean, standard error and number of seeds; how many diverged."""
    lost, found = len(group.diverged), group.estimate
    if not found.n:
        return f"{DIVERGED} ({lost})"
    error = "" if math.isnan(found.error) else f" ± {found.error:.{metric.error_digits}f}"
    return f"{found.mean:.{metric.digits}f}{error} ({found.n})" + (f", {lost} {DIVERGED}" if lost else "")


def paper_text(figures: Mapping[Cell, float | None], cell: Cell, digits: int, sign: bool = False) -> str:
    """What the paper has in a cell."""
    if cell not in figures:
        return "-"
    value = figures[cell]
    return DIVERGED if value is None else f"{value:{'+' if sign else ''}.{digits}f}"


def signed(difference: Estimate, metric: Metric, count: bool = True) -> str:
    """A difference with its standard error."""
    error = "" if math.isnan(difference.error) else f" ± {difference.error:.{metric.error_digits}f}"
    return f"{difference.mean:+.{metric.digits}f}{error}" + (f" ({difference.n})" if count else "")
