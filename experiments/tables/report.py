"""What is said of a collection of runs: where they come from, the tables, the comparisons, what was left out.

    ours    0.4567 ± 0.00031 (3)     mean over seeds ± standard error (number of seeds)
            0.4567 (1)               one seed has no standard error
            diverged (2)             the loss of all seeds became infinite
            2 settings               runs that differ in more than the seed: listed below the table, one line each
            not run                  no run
    paper   diverged                 where the paper has a dash
            -                        where the paper has no such cell

Nothing is filled in, and nothing is left out without its name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sparseopt.experiments.tables.cells import (
    DENSE,
    OURS,
    Cell,
    Group,
    Grouped,
    Metric,
    family_of,
    grouped,
    metric_of,
)
from sparseopt.experiments.tables.comparing import Comparison, Verdict, comparisons, differing, verdict
from sparseopt.experiments.tables.estimates import chance_beyond
from sparseopt.experiments.tables.provenance import about, left_out, tuned
from sparseopt.experiments.tables.published import Table, paper
from sparseopt.experiments.tables.runs import Collection
from sparseopt.experiments.tables.text import Grid, Heading, Items, Part
from sparseopt.experiments.tables.wording import NOT_RUN, block_text, group_text, paper_text, place_text, signed

__all__ = ["document", "grid"]

_LEGEND = "Our cells: mean over seeds ± its standard error (number of seeds)."


def document(collection: Collection, kind: str) -> list[Part]:
    """Everything about the runs of one kind.

    Parameters
    ----------
    collection : Collection
        See `sparseopt.experiments.tables.collect`.
    kind : {"criteo", "imagenet", "cifar"}
        Which of the runs, and which of the paper's tables.

    Returns
    -------
    list of str, Heading, Items and Grid
        For `as_text` or `as_markdown`.
    """
    data = grouped(collection, kind)
    metric = metric_of(kind)
    parts: list[Part] = [*about(data), _LEGEND]
    for table in paper(kind):
        parts += [Heading(table.title), grid(table, data, metric), *_several(table, data, metric)]
    parts += _compared(paper(kind)[0], data, metric)
    return [*parts, *_repeated(data), *tuned(data), *left_out(data)]


# -- tables ------------------------------------------------------------------------------------------------------------


def grid(table: Table, data: Grouped, metric: Metric) -> Grid:
    """The paper's values and ours, a section for each sparsity or size of blocks."""
    by_block = table.section == "block"
    places = table.places(data)
    blocks, shares = sorted({block for block, _ in places}), sorted({share for _, share in places})
    sections = [[(block, share) for share in shares] for block in blocks]
    if not by_block:
        sections = [[(block, share) for block in blocks] for share in shares]
    found = []
    for spots in sections:
        block, share = spots[0]
        title = f"{block_text(block)} blocks" if by_block else f"{share:g} % dropped"
        rows: list[tuple[str, ...]] = [(title, "", *(_column(table, *spot, by_block) for spot in spots))]
        for row, label in table.rows(data).items():
            rows += _lines(label, [Cell(row, *spot) for spot in spots], table, data, metric)
        found.append(tuple(rows))
    if table.dense is not None or ("method" in table.family and Cell(DENSE, None, None) in data.cells):
        found.append(tuple(_dense(table, data, metric, len(shares) if by_block else len(blocks))))
    if not found:
        found = [(("", "", ""), ("every method", "ours", NOT_RUN))]
    return Grid(tuple(found))


def _column(table: Table, block: tuple[int, int], share: float, by_block: bool) -> str:
    if not by_block:
        return block_text(block)
    real = next((real for cell, real in (table.real or {}).items() if cell[1:] == (block, share)), share)
    return f"{share:g} %" + (f" (of all: {real:g} %)" if real != share else "")


def _lines(label: str, cells: Sequence[Cell], table: Table, data: Grouped, metric: Metric) -> list[tuple[str, ...]]:
    ours = tuple(_ours(data.cells.get(cell, ()), metric) for cell in cells)
    lines = [("", "ours", *ours)]
    if table.figures:
        lines.insert(0, ("", "paper", *(paper_text(table.figures, cell, table.digits) for cell in cells)))
    if table.differences is not None:
        lines.append(
            ("minus Table 1", "paper", *(paper_text(table.differences, cell, table.digits, True) for cell in cells))
        )
        lines.append(("", "ours", *(_difference(cell, data, metric) for cell in cells)))
    return [(label, *lines[0][1:]), *lines[1:]]


def _ours(groups: Sequence[Group], metric: Metric) -> str:
    if len(groups) > 1:
        return f"{len(groups)} settings"
    return group_text(groups[0], metric) if groups else NOT_RUN


def _difference(cell: Cell, data: Grouped, metric: Metric) -> str:
    """Of a cell of Table 3 from the same cell of Table 1, on the same seeds."""
    with_it = cell._replace(row=OURS)
    only = Grouped(data.kind, {key: data.cells[key] for key in (cell, with_it) if key in data.cells}, ())
    found = comparisons(only, [OURS], ours=cell.row)
    if not found:
        return NOT_RUN
    if len(found) > 1:
        return f"{len(found)} settings"
    return signed(found[0].difference, metric) if not found[0].why else "not comparable"


def _dense(table: Table, data: Grouped, metric: Metric, columns: int) -> list[tuple[str, ...]]:
    groups = data.cells.get(Cell(DENSE, None, None), ())
    blank = ("",) * (columns - 1)
    lines = [("", "ours", _ours(groups, metric), *blank)]
    if table.dense is not None:
        lines.insert(0, ("", "paper", f"{table.dense:.{table.digits}f}", *blank))
    return [("nothing dropped", "", "", *blank), ("dense network", *lines[0][1:]), *lines[1:]]


def _several(table: Table, data: Grouped, metric: Metric) -> list[Part]:
    """A sentence and a line for each group, wherever a cell has several."""
    parts: list[Part] = []
    mine = {Cell(row, *place) for row in table.rows(data) for place in table.places(data)}
    mine |= {Cell(DENSE, None, None)} if "method" in table.family else set()
    for cell, groups in data.cells.items():
        if cell in mine and len(groups) > 1:
            keys = differing([group.settings for group in groups])
            parts.append(
                f"{place_text(cell)} has runs of {len(groups)} settings, which are not averaged with each other:"
            )
            lines = (f"{group_text(group, metric)}: {_told(group.settings, keys)}" for group in groups)
            parts.append(Items(tuple(lines)))
    return parts


def _told(settings: Mapping[str, Any], keys: Sequence[str]) -> str:
    return ", ".join(f"{key} {settings.get(key, '-')}" for key in keys)


# -- comparisons -------------------------------------------------------------------------------------------------------


def _compared(table: Table, data: Grouped, metric: Metric) -> list[Part]:
    """SequentialAttention++ minus every other method, on the same seeds, and what follows from it."""
    parts: list[Part] = [Heading(f"{OURS} minus the others, on the same seeds")]
    others = [row for row in table.rows(data) if row not in (OURS, DENSE) and family_of(row) == "method"]
    found = comparisons(data, others)
    done = [each for each in found if each.difference.n]
    if not done:
        parts.append("No other method was run at the same blocks and sparsity with the same seeds: nothing to compare.")
    else:
        rows = [("", "minus", f"difference of {metric.words}", "in its standard errors", "seeds")]
        before = None
        for each in done:
            place = place_text(each.cell._replace(row=""))
            ratio = each.difference.ratio
            times = "-" if math.isnan(ratio) else f"{ratio:+.1f}" if abs(ratio) < 1000.0 else f"{ratio:+.0e}"
            seeds = str(each.difference.n) + (f" (left out: {each.alone})" if each.alone else "")
            text = signed(each.difference, metric, count=False)
            rows.append((place if place != before else "", each.other, text, times, seeds))
            before = place
        known = [row for row in others if row in table.labels]
        parts += [Grid((tuple(rows),)), *_verdict(found, metric, known), _errors(found)]
    refused = [f"{place_text(each.cell)} and {each.other}: not compared, {each.why}." for each in found if each.why]
    return parts + ([Items(tuple(refused))] if refused else [])


def _verdict(found: Sequence[Comparison], metric: Metric, known: Sequence[str]) -> list[Part]:
    """What the comparisons add up to: against the paper's methods, and against all where others were run too."""
    theirs = [each for each in found if each.other in known]
    parts: list[Part] = []
    if theirs:
        parts.append(f"Against {', '.join(known)}: {_counted(verdict(theirs, metric.smaller, known), metric)}")
    if len(theirs) < len(found):
        parts.append(f"Against all that were run: {_counted(verdict(found, metric.smaller), metric)}")
    return parts


def _counted(counts: Verdict, metric: Metric) -> str:
    best, good, bad = ("lowest", "lower", "higher") if metric.smaller else ("highest", "higher", "lower")
    whole = f" ({counts.whole} with all of these)" if counts.whole != counts.cells else ""
    cells = "cell" if counts.cells == 1 else "cells"
    text = (
        f"compared in {counts.cells} {cells}{whole}; its mean is the {best} in {counts.best}, {good} than each of "
        f"the others by more than two standard errors in {counts.beyond}, {bad} than one of them by more than two in "
        f"{counts.worse}."
    )
    return text + (f" Not counted, for several settings: {counts.unclear}." if counts.unclear else "")


def _errors(found: Sequence[Comparison]) -> str:
    """How standard errors are computed, what they leave out, and how much two of them are worth."""
    seeds = sorted({each.difference.n for each in found if each.difference.n > 1})
    text = (
        "Standard errors are standard deviations over seeds (n - 1 in the denominator) divided by √n; those of "
        "differences, of the differences seed by seed. They cover initial weights, the order of the batches and "
        "dropout. They do not cover data and split, which are the same in all runs, nor the choice of settings."
    )
    chances = [f"{100.0 * chance_beyond(2.0, n):.0f} % with {n} seeds" for n in seeds]
    if chances:
        text += (
            " Where there is no difference, more than two standard errors come about by chance in "
            f"{', '.join(chances)} (Student's t)."
        )
    return text


def _repeated(data: Grouped) -> list[Part]:
    """Seeds that were run several times with the same settings."""
    told = []
    for cell, groups in data.cells.items():
        for group in groups:
            for seed in group.repeated:
                names = [run.name for run in group.runs if run.seed == seed]
                told.append(
                    f"{place_text(cell)}: seed {seed} was run {len(names)} times with the same settings "
                    f"({', '.join(names)}); it counts once, with the mean of what finished."
                )
    return [Items(tuple(told))] if told else []
