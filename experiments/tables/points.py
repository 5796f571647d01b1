"""What a picture shows of a cell.

no run                  nothing, and the picture says so
runs of one setting     their mean with its standard error, on the line of the method
of several              a mean each, on no line
diverged                a mark of its own
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sparseopt.experiments.tables.cells import Cell, Group

__all__ = ["Point", "points_of", "printed"]


class Point(NamedTuple):
    """The mean of a group of runs.

    Attributes
    ----------
    height, error : nan if no run has finished, or if there is no standard error.
    several : whether the cell has groups with other settings.
    lost : whether some of the runs diverged.
    """

    height: float
    error: float
    several: bool = False
    lost: bool = False

    @property
    def drawn(self) -> bool:
        """Whether there is a height."""
        return not math.isnan(self.height)

    @property
    def bar(self) -> float:
        """The error, 0 where there is none."""
        return 0.0 if math.isnan(self.error) else self.error


def points_of(groups: Sequence[Group]) -> list[Point]:
    """One for every group."""
    several = len(groups) > 1
    return [Point(each.estimate.mean, each.estimate.error, several, bool(each.diverged)) for each in groups]


def printed(figures: Mapping[Cell, float | None], cell: Cell) -> list[Point]:
    """The paper's, if it has the cell."""
    if cell not in figures:
        return []
    value = figures[cell]
    return [Point(math.nan if value is None else value, math.nan, lost=value is None)]
