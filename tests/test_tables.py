"""Tables of finished runs: every cell shows exactly the runs that belong to it, and nothing else is there.

Oracles: cells by comparing names, sparsities and settings by hand, means and standard errors of the standard library,
the paper's figures from its file. Runs are made up, see `made_up_runs`.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_runs import click_run, click_runs, image_run, printed

from sparseopt.experiments.tables import Collection, Run, as_text, document
from sparseopt.experiments.tables.cells import DENSE, KINDS, OURS, WITHOUT, Cell, grouped
from sparseopt.experiments.tables.estimates import Estimate, chance_beyond, estimate, paired
from sparseopt.experiments.tables.published import paper
from sparseopt.experiments.tables.text import Grid, Part
from sparseopt.proofs_checks import paper_tables

METHODS = ("magnitude", "power-propagation", "ac/dc", OURS)
SHORT = {"magnitude": "magnitude", "powerpropagation": METHODS[1], "acdc": METHODS[2], "sequential_attention_pp": OURS}
GIVEN = json.loads(Path(paper_tables.__file__).with_name("paper_tables.json").read_text(encoding="utf-8"))
Make = Callable[[Collection, str], Sequence[Part]]


# -- the law of cells --------------------------------------------------------------------------------------------------


def cell_by_hand(runs: Sequence[Run], digits: int = 4, error_digits: int = 5, scale: float = 1.0) -> str:
    """What a cell with these runs says."""
    if not runs:
        return "not run"
    by_settings: dict[str, list[Run]] = {}
    for run in runs:
        by_settings.setdefault(repr(sorted(run.settings.items())), []).append(run)
    if len(by_settings) > 1:
        return f"{len(by_settings)} settings"
    metric = "valid_loss" if runs[0].settings["task"] == "clicks" else "valid_accuracy"
    by_seed: dict[int, list[float]] = {}
    for run in runs:
        by_seed.setdefault(run.seed, []).extend([] if run.diverged else [scale * run.metrics[metric]])
    values = [statistics.mean(each) for each in by_seed.values() if each]
    lost = sum(not each for each in by_seed.values())
    if not values:
        return f"diverged ({lost})"
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    text = f"{statistics.mean(values):.{digits}f}" + ("" if error is None else f" ± {error:.{error_digits}f}")
    return f"{text} ({len(values)})" + (f", {lost} diverged" if lost else "")


def require_right_table_2(make: Make, runs: Sequence[Run]) -> None:
    """The law: every cell of the paper's Table 2, and every other that was run, shows its runs and the paper's."""
    found = printed(make(Collection(tuple(runs)), "criteo"))
    pruned = [run for run in runs if run.settings.get("pruning.method")]
    blocks = {5, 10, 20} | {run.settings["pruning.block"] for run in pruned}
    shares = {90, 95, 97, 98, 99} | {round(100 * run.settings["pruning.sparsity"]) for run in pruned}
    given = {(row["block"], row["sparsity"]): row for row in GIVEN["table2"]["rows"]}
    rows = [*METHODS, *sorted({run.settings["pruning.method"] for run in pruned} - set(METHODS))]
    expected = {}
    for method in rows:
        for block in blocks:
            for share in shares:
                mine = [
                    run
                    for run in pruned
                    if run.settings["pruning.method"] == method
                    and run.settings["pruning.block"] == block
                    and round(100 * run.settings["pruning.sparsity"]) == share
                ]
                section, column = f"{share} % dropped", f"{block} x {block}"
                expected[section, method, "ours", column] = cell_by_hand(mine)
                key = next((key for key, name in SHORT.items() if name == method), None)
                known = key is not None and (block, share) in given
                value = f"{given[block, share][key]:.4f}" if known else "-"
                expected[section, method, "paper", column] = value
    dense = [run for run in runs if run.settings.get("pruning.method") is None]
    assert {key: text for key, text in found.items() if key[1] != "dense network"} == expected
    assert [text for key, text in found.items() if key[1] == "dense network"] == ["0.4489", cell_by_hand(dense)]


@settings(max_examples=60, deadline=None)
@given(click_runs())
def test_every_cell_shows_its_runs(runs: list[Run]) -> None:
    require_right_table_2(document, runs)


CROWDED = [
    *(click_run(OURS, 5, 0.9, seed, 7.0 + 0.01 * seed) for seed in range(3)),
    click_run(OURS, 5, 0.9, 2, 7.5, "again"),
    *(click_run("ac/dc", 5, 0.9, seed, 7.2 + 0.1 * seed, training__epochs=4.0 + seed) for seed in range(2)),
    *(click_run("magnitude", 20, 0.97, seed, None if seed else 7.7) for seed in range(3)),
    *(click_run(DENSE, 0, 0.0, seed, 6.9 + 0.02 * seed) for seed in range(2)),
]


def _mapped(change: Callable[[tuple[str, ...], tuple[str, ...]], tuple[str, ...]]) -> Make:
    """Tables whose rows are changed: (heading row, row) -> row."""

    def make(collection: Collection, kind: str) -> list[Part]:
        parts = []
        for part in document(collection, kind):
            if isinstance(part, Grid):
                tables = tuple((head, *(change(head, row) for row in rows)) for head, *rows in part.tables)
                part = part._replace(tables=tables)
            parts.append(part)
        return parts

    return make


def _of_changed_runs(change: Callable[[int, Run], Run | None]) -> Make:
    """Tables of runs that were changed before, or left out."""

    def make(collection: Collection, kind: str) -> list[Part]:
        runs = [change(number, run) for number, run in enumerate(collection.runs)]
        return document(Collection(tuple(run for run in runs if run is not None)), kind)

    return make


def _swapped(head: tuple[str, ...], row: tuple[str, ...]) -> tuple[str, ...]:
    return (*row[:2], row[3], row[2], *row[4:]) if row[1] == "paper" and row[3] else row


WRONG_TABLES: dict[str, Make] = {
    "fills in what was not run": _mapped(
        lambda head, row: tuple("7.1234 (3)" if cell == "not run" else cell for cell in row)
    ),
    "averages different settings": _of_changed_runs(
        lambda i, run: replace(run, settings={**run.settings, "training.epochs": 4.0})
    ),
    "counts a repeated seed twice": _of_changed_runs(lambda i, run: replace(run, seed=i)),
    "forgets what diverged": _of_changed_runs(lambda i, run: None if run.diverged else run),
    "takes the training loss": _of_changed_runs(
        lambda i, run: replace(run, metrics={**run.metrics, "valid_loss": 7.5})
    ),
    "swaps columns of the paper": _mapped(_swapped),
    "shows ours as the paper's": _mapped(lambda head, row: (row[0], {"ours": "paper"}.get(row[1], "ours"), *row[2:])),
    "knows no standard errors": _mapped(lambda head, row: tuple(cell.replace("± 0.0", "± 0.1") for cell in row)),
}


@pytest.mark.parametrize("make", WRONG_TABLES.values(), ids=WRONG_TABLES)
def test_a_wrong_table_is_rejected(make: Make) -> None:
    require_right_table_2(document, CROWDED)
    with pytest.raises((AssertionError, KeyError)):
        require_right_table_2(make, CROWDED)


def test_groups_hold_every_run_once() -> None:
    data = grouped(Collection(tuple(CROWDED)), "criteo")
    assert sorted(run.name for run in data.runs) == sorted(run.name for run in CROWDED)
    assert data.left == ()


# -- means -------------------------------------------------------------------------------------------------------------

NUMBERS = st.lists(st.floats(-100.0, 100.0), min_size=1, max_size=8)
SEEDED = st.dictionaries(st.integers(0, 6), st.floats(-100.0, 100.0), max_size=7)


def require_right_estimate(make: Callable[[Sequence[float]], Estimate], values: Sequence[float]) -> None:
    """The law: NumPy's mean and standard error, with n - 1."""
    found = make(values)
    assert found.n == len(values)
    scale = 1.0 + max(map(abs, values))
    assert abs(found.mean - np.mean(values)) <= 1e-13 * scale
    if len(values) == 1:
        assert math.isnan(found.error)
    else:
        assert abs(found.error - np.std(values, ddof=1) / np.sqrt(len(values))) <= 1e-13 * scale
        assert abs(found.error - statistics.stdev(values) / len(values) ** 0.5) <= 1e-13 * scale


@given(NUMBERS)
def test_estimates_are_those_of_the_standard_library(values: list[float]) -> None:
    require_right_estimate(estimate, values)


WRONG_ESTIMATES: dict[str, Callable[[Sequence[float]], Estimate]] = {
    "population": lambda x: Estimate(float(np.mean(x)), float(np.std(x) / len(x) ** 0.5), len(x)),
    "deviation": lambda x: Estimate(float(np.mean(x)), statistics.stdev(x), len(x)),
    "median": lambda x: estimate(x)._replace(mean=statistics.median(x)),
    "count": lambda x: estimate(x)._replace(n=len(set(x))),
}


@pytest.mark.parametrize("make", WRONG_ESTIMATES.values(), ids=WRONG_ESTIMATES)
def test_a_wrong_estimate_is_rejected(make: Callable[[Sequence[float]], Estimate]) -> None:
    values = [1.0, 1.0, 2.0, 7.0]
    require_right_estimate(estimate, values)
    with pytest.raises(AssertionError):
        require_right_estimate(make, values)


def require_right_pairs(make: Callable[[Any, Any], Estimate], a: dict[int, float], b: dict[int, float]) -> None:
    """The law: the estimate of a - b over the seeds that both have, and no others."""
    both = [seed for seed in a if seed in b]
    found = make(a, b)
    assert found.n == len(both)
    if both:
        require_right_estimate(lambda _: found, [a[seed] - b[seed] for seed in both])


@given(SEEDED, SEEDED)
def test_differences_are_taken_seed_by_seed(a: dict[int, float], b: dict[int, float]) -> None:
    require_right_pairs(paired, a, b)


WRONG_PAIRS: dict[str, Callable[[Any, Any], Estimate]] = {
    "backwards": lambda a, b: paired(b, a),
    "by place": lambda a, b: estimate(x - y for x, y in zip(a.values(), b.values(), strict=False)),
    "unpaired": lambda a, b: Estimate(
        paired(a, b).mean, math.hypot(estimate(a.values()).error, estimate(b.values()).error), paired(a, b).n
    ),
    "missing is 0": lambda a, b: estimate(a[seed] - b.get(seed, 0.0) for seed in a),
}


@pytest.mark.parametrize("make", WRONG_PAIRS.values(), ids=WRONG_PAIRS)
def test_a_wrong_difference_is_rejected(make: Callable[[Any, Any], Estimate]) -> None:
    a, b = {0: 1.0, 1: 3.0, 2: 2.5, 3: 9.0}, {1: 2.0, 2: 2.0, 0: 0.5, 5: 1.0}
    require_right_pairs(paired, a, b)
    with pytest.raises(AssertionError):
        require_right_pairs(make, a, b)


def test_ratios_without_spread() -> None:
    assert estimate([2.0, 2.0]).ratio == math.inf
    assert estimate([-2.0, -2.0]).ratio == -math.inf
    assert math.isnan(estimate([0.0, 0.0]).ratio)
    assert math.isnan(estimate([2.0]).ratio)
    assert estimate([1.0, 3.0]).ratio == 2.0
    assert math.isnan(estimate([]).mean)


def test_chance_agrees_with_simulation() -> None:
    draws = np.random.default_rng(0).normal(size=(200_000, 3))
    ratio = draws.mean(1) / (draws.std(1, ddof=1) / np.sqrt(3.0))
    assert abs(np.mean(np.abs(ratio) > 2.0) - chance_beyond(2.0, 3)) < 5.0 * np.sqrt(0.25 / 200_000)


# -- the paper ---------------------------------------------------------------------------------------------------------


def paper_by_hand() -> dict[str, dict[tuple[str, int, int], float | None]]:
    """Figures by (row, block, sparsity), from the file."""
    one, two, three, four = (GIVEN[f"table{n}"]["rows"] for n in (1, 2, 3, 4))
    accuracy = {
        (row["remapped_block"], row["remapped_sparsity"]): row["accuracy"] and 100.0 * row["accuracy"] for row in three
    }
    # Its columns go by sparsity, 95 % first, and then by blocks, whatever is printed above them.
    order = [(block, share) for share in (95, 90, 80, 70) for block in (8, 16, 32, 64)]
    assert list(accuracy) == order
    names = {2: f"{OURS}, c = 2", 4: OURS, 8: f"{OURS}, c = 8"}
    figures: dict[str, dict[tuple[str, int, int], float | None]] = {f"Table {n}": {} for n in (1, 2, 3, 4)}
    for row in one:
        for key in ("acdc", "sequential_attention_pp"):
            figures["Table 1"][SHORT[key], row["block"], row["nominal_sparsity"]] = row[key]
    for row in two:
        for key, name in SHORT.items():
            figures["Table 2"][name, row["block"], row["sparsity"]] = row[key]
    for (block, share), value in accuracy.items():
        figures["Table 3"][WITHOUT, block, share] = value
    for row in four:
        figures["Table 4"][names[row["c"]], row["block"], 90] = 100.0 * row["accuracy"]
    return figures


def require_papers_figures(tables: Sequence[Any]) -> None:
    """The law: each figure in its cell, and no other cells."""
    by_hand = paper_by_hand()
    for table in tables:
        expected = by_hand[table.title[:7]]
        found = {(cell.row, cell.block[0], round(cell.sparsity)): value for cell, value in table.figures.items()}
        assert found.keys() == expected.keys()
        for place, value in expected.items():
            assert found[place] == (None if value is None else pytest.approx(value, abs=1e-9)), (table.title, place)


def test_the_papers_figures_are_in_their_cells() -> None:
    require_papers_figures([*paper("criteo"), *paper("imagenet")])
    assert [table.dense for table in (*paper("criteo"), *paper("imagenet"))] == [0.4489, 76.9, None, None]
    assert paper("cifar")[0].figures == {}
    real = {(cell.block[0], cell.sparsity): share for cell, share in paper("imagenet")[0].real.items()}
    assert [real[32, share] for share in (70, 80, 90, 95)] == [68, 78, 88, 92]
    assert [real[64, share] for share in (70, 80, 90, 95)] == [58, 66, 74, 79]


def test_differences_of_table_3_lead_back_to_table_1() -> None:
    one, three, _ = paper("imagenet")
    for cell, difference in three.differences.items():
        before = one.figures[cell._replace(row=OURS)]
        if difference is None:
            assert before is None
        else:
            assert abs(three.figures[cell] - difference - before) < 0.0051


def _moved(table: Any, change: Callable[[Cell], Cell]) -> Any:
    return replace(table, figures={change(cell): value for cell, value in table.figures.items()})


@pytest.mark.parametrize("number", range(4))
def test_swapped_columns_are_rejected(number: int) -> None:
    tables = [*paper("criteo"), *paper("imagenet")]
    blocks = {5: 10, 10: 5, 8: 16, 16: 8}
    tables[number] = _moved(tables[number], lambda cell: cell._replace(block=(blocks.get(cell.block[0], 20),) * 2))
    with pytest.raises(AssertionError):
        require_papers_figures(tables)


def test_swapped_methods_are_rejected() -> None:
    names = {OURS: "ac/dc", "ac/dc": OURS}
    tables = [_moved(table, lambda cell: cell._replace(row=names.get(cell.row, cell.row))) for table in paper("criteo")]
    with pytest.raises(AssertionError):
        require_papers_figures(tables)


def test_columns_of_table_3_as_printed_are_rejected() -> None:
    rows = GIVEN["table3"]["rows"]
    place = {(row["remapped_block"], row["remapped_sparsity"]): row for row in rows}

    def as_printed(cell: Cell) -> Cell:
        row = place[cell.block[0], round(cell.sparsity)]
        return Cell(WITHOUT, (row["printed_block"],) * 2, row["printed_sparsity"])

    with pytest.raises(AssertionError):
        require_papers_figures([_moved(paper("imagenet")[1], as_printed)])


# -- Tables 1, 3 and 4 -------------------------------------------------------------------------------------------------

ABLATION = [
    *(image_run(OURS, 32, 0.9, seed, 0.05 + 0.001 * seed) for seed in range(3)),
    *(image_run(OURS, 32, 0.9, seed, 0.04 + 0.002 * seed, pruning__sparsify=False) for seed in range(2)),
    *(image_run(OURS, 32, 0.9, seed, 0.045, pruning__settings__c=2) for seed in range(3)),
    image_run(OURS, 32, 0.8, 0, 0.06, pruning__settings__c=8),
    image_run("ac/dc", 8, 0.95, 0, None),
    image_run("rigl", 4, 0.5, 0, 0.07),
    image_run(OURS, 16, 0.7, 0, 0.08, pruning__schedule=[["dense", 0.5], ["sparse", 0.5]]),
]


def test_ablations_are_in_their_tables() -> None:
    parts = document(Collection(tuple(ABLATION)), "imagenet")
    one, three, four = (printed(parts, number) for number in range(3))
    mine = [run for run in ABLATION if run.settings["pruning.block"] == 32 and run.settings["pruning.sparsity"] == 0.9]
    full, without, two = mine[:3], mine[3:5], mine[5:]
    column = "90 % (of all: 88 %)"

    def hand(runs: list[Run]) -> str:
        return cell_by_hand(runs, 2, 2, 100.0)

    assert one["32 x 32 blocks", OURS, "ours", column] == hand(full) == "5.10 ± 0.06 (3)"
    assert one["32 x 32 blocks", OURS, "paper", column] == "70.82"
    assert one["8 x 8 blocks", "ac/dc", "ours", "95 %"] == "diverged (1)"
    assert one["8 x 8 blocks", "ac/dc", "paper", "95 %"] == "diverged"
    assert one["4 x 4 blocks", "rigl", "ours", "50 %"] == "7.00 (1)"
    assert one["4 x 4 blocks", "rigl", "paper", "50 %"] == "-"
    assert three["32 x 32 blocks", "without", "ours", "90 %"] == hand(without) == "4.10 ± 0.10 (2)"
    assert three["32 x 32 blocks", "without", "paper", "90 %"] == "70.079"
    assert three["32 x 32 blocks", "minus Table 1", "paper", "90 %"] == "-0.738"
    assert three["32 x 32 blocks", "minus Table 1", "ours", "90 %"] == "-0.95 ± 0.05 (2)"
    assert three["16 x 16 blocks", "without", "ours", "70 %"] == "8.00 (1)"
    assert three["16 x 16 blocks", "minus Table 1", "ours", "70 %"] == "not run"
    assert four["90 % dropped", "c = 2", "ours", "32 x 32"] == hand(two) == "4.50 ± 0.00 (3)"
    assert four["90 % dropped", "c = 4", "ours", "32 x 32"] == hand(full)
    assert four["90 % dropped", "c = 8", "ours", "32 x 32"] == "not run"
    assert four["80 % dropped", "c = 8", "ours", "32 x 32"] == "6.00 (1)"
    shown = [
        text
        for table in (one, three, four)
        for key, text in table.items()
        if key[2] == "ours" and "minus" not in key[1]
    ]
    assert sum(text != "not run" for text in shown) == 8  # seven groups, one of them in two tables


def test_cifar_has_no_figures_of_the_paper() -> None:
    runs = [image_run(method, 8, 0.8, 0, 0.07, data__kind="cifar") for method in ("ac/dc", OURS, "rigl")]
    runs.append(image_run(OURS, 8, 0.8, 0, 0.06, data__kind="cifar", pruning__settings__c=2))
    parts = document(Collection(tuple(runs)), "cifar")
    assert {key[1:3] for key in printed(parts)} == {
        (name, "ours") for name in ("ac/dc", OURS, "rigl", f"{OURS}, c = 2")
    }
    assert "The paper has no figures for CIFAR-10." in as_text(parts)


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_of_nothing_says_so(kind: str) -> None:
    parts = document(Collection(()), kind)
    text = as_text(parts)
    assert f"No finished run of {kind} was found" in text
    ours = [value for key, value in printed(parts).items() if key[2] == "ours"]
    assert set(ours) == {"not run"}


# -- several settings, repeated seeds ----------------------------------------------------------------------------------


def test_several_settings_stand_on_lines_of_their_own() -> None:
    text = as_text(document(Collection(tuple(CROWDED)), "criteo"))
    assert "90 %, 5 x 5, ac/dc has runs of 2 settings, which are not averaged with each other:" in text
    assert "* 7.2000 (1): training.epochs 4.0" in text
    assert "* 7.3000 (1): training.epochs 5.0" in text
    assert "training.epochs: 4.0 (ac/dc, dense, magnitude, sequential-attention++); 5.0 (ac/dc)" in text


def test_a_repeated_seed_counts_once_and_is_named() -> None:
    text = as_text(document(Collection(tuple(CROWDED)), "criteo"))
    assert f"90 %, 5 x 5, {OURS}: seed 2 was run 2 times with the same settings ({OURS}-5-0.9-2, again)" in text
    assert "7.0900 ± 0.08505 (3)" in text


def test_the_settings_of_pruning_do_not_split_dense_networks() -> None:
    asked = {"task": "clicks", "pruning.method": DENSE}
    runs = [
        replace(click_run(DENSE, 0, 0.0, seed, 7.0), settings={**asked, "pruning.block": 5 + seed}) for seed in range(2)
    ]
    (groups,) = grouped(Collection(tuple(runs)), "criteo").cells.values()
    assert len(groups) == 1


def test_what_is_said_and_what_goes_without_saying_are_the_same_settings() -> None:
    runs = [
        image_run(OURS, 32, 0.9, 0, 0.05),
        image_run(OURS, 32, 0.9, 1, 0.06, pruning__settings__c=4),
        image_run(OURS, 32, 0.9, 2, 0.07, pruning__sparsify=True),
    ]
    (groups,) = grouped(Collection(tuple(runs)), "imagenet").cells.values()
    assert [each.values.keys() for each in groups] == [{0, 1, 2}]
