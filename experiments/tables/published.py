"""The paper's tables, as cells.

The figures are those of `sparseopt.proofs_checks.paper_tables`, which also tells how the columns of Table 3 are to be
read; None there is a run that diverged.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sparseopt.experiments.tables.cells import DENSE, EXPONENT, OURS, WITHOUT, Cell, Grouped, family_of, percent
from sparseopt.proofs_checks.paper_tables import tables

__all__ = ["Table", "paper"]

_ALL = ("method", WITHOUT, "exponent")
_METHODS = {
    "magnitude": "magnitude",
    "powerpropagation": "power-propagation",
    "acdc": "ac/dc",
    "sequential_attention_pp": OURS,
}


@dataclass(frozen=True)
class Table:
    """A table of the paper, or one of ours without a counterpart.

    `figures` has the paper's value of every cell, None where it diverged. `labels` names the paper's rows; others that
    there are runs of follow, those that `family` picks: all, or those that begin with it and are in no other table. A
    section has one size of blocks, or one sparsity.
    """

    title: str
    section: str
    family: tuple[str, ...]
    labels: Mapping[str, str]
    figures: Mapping[Cell, float | None]
    digits: int
    dense: float | None = None
    real: Mapping[Cell, float] | None = None
    differences: Mapping[Cell, float | None] | None = None

    def rows(self, data: Grouped) -> dict[str, str]:
        """Names of the rows, with what they are called here."""
        mine = {cell.row for cell in data.cells if family_of(cell.row) in self.family and cell.row != DENSE}
        return {**self.labels, **{row: row for row in sorted(mine) if row not in self.labels}}

    def methods(self, data: Grouped) -> list[str]:
        """The rows that are methods of their own: all but exponents, and dense networks."""
        return [row for row in self.rows(data) if family_of(row) != "exponent"]

    def places(self, data: Grouped, rows: Collection[str] | None = None) -> list[tuple[tuple[int, int], float]]:
        """(block, sparsity) of the paper's cells and of those that there are runs of; in all rows, or in some."""
        asked = self.rows(data) if rows is None else rows
        mine = [cell for cell in data.cells if family_of(cell.row) in self.family]
        known = {(cell.block, cell.sparsity) for cell in (*self.figures, *mine) if cell.row in asked}
        return sorted((block, share) for block, share in known if block is not None and share is not None)


def paper(kind: str) -> list[Table]:
    """The paper's tables of one kind; for "cifar" one with no figures, since the paper has none."""
    given = tables()
    if kind == "criteo":
        rows = given["table2"]["rows"]
        figures = {
            Cell(name, (row["block"],) * 2, percent(row["sparsity"])): row[key]
            for row in rows
            for key, name in _METHODS.items()
        }
        title = "Table 2: Criteo, validation loss, smaller is better"
        return [Table(title, "sparsity", _ALL, _named(_METHODS.values()), figures, 4, _dense(given["table2"]["what"]))]
    if kind == "cifar":
        return [Table("CIFAR-10, validation accuracy in %, larger is better", "block", _ALL, {}, {}, 2)]
    return [_table1(given["table1"]), _table3(given["table3"]["rows"]), _table4(given["table4"]["rows"])]


def _named(names: Iterable[str]) -> dict[str, str]:
    return {name: name for name in names}


def _dense(what: str) -> float:
    found = re.search(r"\bdense (\d+\.\d+)", what)
    assert found is not None, what
    return float(found[1])


def _table1(given: Any) -> Table:
    names = {key: name for key, name in _METHODS.items() if key in given["rows"][0]}
    at = {
        Cell(name, (row["block"],) * 2, percent(row["nominal_sparsity"])): (row[key], row["real_sparsity"])
        for row in given["rows"]
        for key, name in names.items()
    }
    title = "Table 1: ResNet-50 on ImageNet, validation accuracy in %, larger is better"
    figures = {cell: value for cell, (value, _) in at.items()}
    real = {cell: share for cell, (_, share) in at.items()}
    return Table(title, "block", ("method",), _named(names.values()), figures, 2, _dense(given["what"]), real)


def _table3(rows: Any) -> Table:
    at = {Cell(WITHOUT, (row["remapped_block"],) * 2, percent(row["remapped_sparsity"])): row for row in rows}
    shares = {
        key: {cell: None if row[key] is None else percent(100.0 * row[key]) for cell, row in at.items()}
        for key in ("accuracy", "difference")
    }
    title = "Table 3: SequentialAttention++ without the sparsification phase, validation accuracy in %"
    return Table(
        title, "block", (WITHOUT,), {WITHOUT: "without"}, shares["accuracy"], 3, differences=shares["difference"]
    )


def _table4(rows: Any) -> Table:
    def name(c: float) -> str:
        return OURS if c == EXPONENT else f"{OURS}, c = {c:g}"

    figures = {Cell(name(row["c"]), (row["block"],) * 2, 90.0): percent(100.0 * row["accuracy"]) for row in rows}
    title = "Table 4: the exponent c of the sparsification phase, validation accuracy in %"
    labels = {name(c): f"c = {c:g}" for c in sorted({row["c"] for row in rows})}
    return Table(title, "sparsity", ("exponent",), labels, figures, 3)
