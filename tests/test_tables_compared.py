"""SequentialAttention++ against the others: only equals are compared, seed by seed, and the counts are right.

Oracles: pairs found by comparing settings by hand, differences and standard errors by NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from made_up_runs import CRITEO, click_run, click_runs

from sparseopt.experiments.tables import Collection, Run, as_text, document
from sparseopt.experiments.tables.cells import OURS, grouped
from sparseopt.experiments.tables.comparing import comparisons, verdict
from sparseopt.experiments.tables.text import Grid

Line = tuple[int, int, str, float, float, float]
Make = Callable[[Sequence[Run]], list[Line]]

# -- the law of comparisons --------------------------------------------------------------------------------------------


def compared(runs: Sequence[Run]) -> list[Line]:
    """Block, percent, other method, mean difference, its error (-1 for none) and number of seeds."""
    found = comparisons(grouped(Collection(tuple(runs)), "criteo"), CRITEO[:3])
    return [
        (each.cell.block[0], round(each.cell.sparsity), each.other, *np.nan_to_num(each.difference, nan=-1.0))
        for each in found
        if each.difference.n
    ]


def compared_by_hand(runs: Sequence[Run]) -> list[Line]:
    """The same: for all pairs of groups with equal epochs, the differences on common seeds."""
    groups: dict[tuple[int, int, float, str], dict[int, list[float]]] = {}
    for run in runs:
        asked = run.settings
        if "pruning.method" in asked and not run.diverged:
            key = (asked["pruning.block"], round(100 * asked["pruning.sparsity"]), asked["training.epochs"])
            seeds = groups.setdefault((*key, asked["pruning.method"]), {})
            seeds.setdefault(run.seed, []).append(run.metrics["valid_loss"])
    lines = []
    for (block, share, epochs, method), ours in groups.items():
        for other in CRITEO[:3] if method == OURS else ():
            theirs = groups.get((block, share, epochs, other), {})
            gaps = [np.mean(ours[seed]) - np.mean(theirs[seed]) for seed in ours if seed in theirs]
            if gaps:
                error = np.std(gaps, ddof=1) / np.sqrt(len(gaps)) if len(gaps) > 1 else -1.0
                lines.append((block, share, other, float(np.mean(gaps)), float(error), float(len(gaps))))
    return lines


def require_right_comparisons(make: Make, runs: Sequence[Run]) -> None:
    """The law: the pairs that can be compared, and no others, with differences seed by seed."""
    found, expected = sorted(make(runs)), sorted(compared_by_hand(runs))
    assert [line[:3] for line in found] == [line[:3] for line in expected]
    np.testing.assert_allclose([line[3:] for line in found], [line[3:] for line in expected], atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(click_runs())
def test_equals_are_compared_seed_by_seed(runs: list[Run]) -> None:
    require_right_comparisons(compared, runs)


PAIRED = [
    *(click_run(OURS, 5, 0.9, seed, 7.0 + 0.1 * seed) for seed in range(4)),
    *(click_run("ac/dc", 5, 0.9, seed, 7.3 + 0.11 * seed) for seed in (3, 2, 0)),
    *(click_run("magnitude", 5, 0.9, seed, 7.2, training__epochs=8.0) for seed in range(2)),
]
WRONG_COMPARISONS: dict[str, Make] = {
    "compares unequal trainings": lambda runs: compared(
        [replace(run, settings={**run.settings, "training.epochs": 4.0}) for run in runs]
    ),
    "backwards": lambda runs: [(*line[:3], -line[3], *line[4:]) for line in compared(runs)],
    "forgets an error": lambda runs: [(*line[:4], 0.0, line[5]) for line in compared(runs)],
    "by place": lambda runs: compared([replace(run, seed=number % 4) for number, run in enumerate(runs)]),
    "counts all seeds": lambda runs: [(*line[:5], 4.0) for line in compared(runs)],
    "nothing": lambda runs: [],
}


@pytest.mark.parametrize("make", WRONG_COMPARISONS.values(), ids=WRONG_COMPARISONS)
def test_wrong_comparisons_are_rejected(make: Make) -> None:
    require_right_comparisons(compared, PAIRED)
    with pytest.raises(AssertionError):
        require_right_comparisons(make, PAIRED)


# -- examples ----------------------------------------------------------------------------------------------------------


def test_other_methods_get_a_sentence_of_their_own() -> None:
    runs = [*three(OURS, (7.0, 7.1)), *three("ac/dc", (7.5, 7.61)), *three("expm1", (6.5, 6.61))]
    text = as_text(document(Collection(tuple(runs)), "criteo"))
    assert (
        f"Against {', '.join(CRITEO[:3])}: compared in 1 cell (0 with all of these); its mean is the lowest in 1"
        in text
    )
    assert "Against all that were run: compared in 1 cell; its mean is the lowest in 0" in text


def three(method: str, values: Sequence[float], block: int = 5, **more: Any) -> list[Run]:
    return [click_run(method, block, 0.9, seed, value, **more) for seed, value in enumerate(values)]


def test_comparisons_and_the_verdict() -> None:
    runs = [
        *three(OURS, (7.00, 7.10, 7.20)), *three("ac/dc", (7.50, 7.61, 7.69)), *three("magnitude", (6.9, 7.2, 7.1)),
        *three(OURS, (7.00, 7.10, 7.20), 10), *three("ac/dc", (7.50, 7.61, 7.69), 10),
        *three(OURS, (7.60, 7.70, 7.81), 20), *three("ac/dc", (7.50, 7.61, 7.69), 20),
    ]  # fmt: skip
    data = grouped(Collection(tuple(runs)), "criteo")
    found = comparisons(data, ["magnitude", "ac/dc"])
    assert [(each.cell.block, each.other) for each in found] == [
        ((5, 5), "magnitude"), ((5, 5), "ac/dc"), ((10, 10), "ac/dc"), ((20, 20), "ac/dc"),
    ]  # fmt: skip
    assert found[1].difference.mean == pytest.approx(-0.5)
    # At 5 x 5 magnitude is a little lower; at 10 x 10 ours is lowest beyond two errors; at 20 x 20 it is worse.
    assert verdict(found, smaller=True, every=["ac/dc"]) == (3, 3, 1, 1, 1, 0)
    assert verdict(found, smaller=True, every=["ac/dc", "magnitude"]) == (3, 1, 1, 1, 1, 0)
    assert verdict(found, smaller=False) == (3, 3, 1, 1, 2, 0)
    text = as_text(document(Collection(tuple(runs)), "criteo"))
    assert (
        f"Against {', '.join(CRITEO[:3])}: compared in 3 cells (0 with all of these); its mean is the lowest in 1, "
        "lower than each of the others by more than two standard errors in 1, higher than one of them by more "
        "than two in 1."
    ) in text
    assert "Against all that were run" not in text
    assert "by chance in 18 % with 3 seeds" in text
    assert "n - 1 in the denominator" in text
    assert "do not cover data and split" in text


UNFAIR = {
    "training__epochs": 8.0,
    "training__steps": 99,
    "training__batch": 128,
    "data__path": "elsewhere",
    "data__holdout": 0.1,
    "facts__train_rows": 5,
    "model__hidden": [8],
    "pruning__min_blocks": 5,
    "hardware__precision": "16-mixed",
}


@pytest.mark.parametrize("key", UNFAIR)
def test_unequal_budgets_are_not_compared(key: str) -> None:
    runs = [*three(OURS, (7.0, 7.1)), *three("ac/dc", (7.5, 7.6), **{key: UNFAIR[key]})]
    (found,) = comparisons(grouped(Collection(tuple(runs)), "criteo"), ["ac/dc"])
    assert found.difference.n == 0
    assert key.replace("__", ".") in found.why
    text = as_text(document(Collection(tuple(runs)), "criteo"))
    assert f"90 %, 5 x 5, {OURS} and ac/dc: not compared, {key.replace('__', '.')} " in text
    assert "nothing to compare" in text


@pytest.mark.parametrize("key", ["training__lr", "pruning__logit_lr", "pruning__schedule", "training__weight_decay"])
def test_what_is_tuned_may_differ_and_is_told(key: str) -> None:
    runs = [*three(OURS, (7.0, 7.1)), *three("ac/dc", (7.5, 7.6), **{key: 0.25})]
    data = grouped(Collection(tuple(runs)), "criteo")
    assert [each.difference.n for each in comparisons(data, ["ac/dc"])] == [2]
    assert f"{key.replace('__', '.')}: - ({OURS}); 0.25 (ac/dc)" in as_text(document(Collection(tuple(runs)), "criteo"))


def test_seeds_without_a_partner_are_counted() -> None:
    runs = [*three(OURS, (7.0, 7.1, 7.3)), *three("ac/dc", (7.5, 7.6)), click_run("ac/dc", 5, 0.9, 2, None)]
    (found,) = comparisons(grouped(Collection(tuple(runs)), "criteo"), ["ac/dc"])
    assert (found.difference.n, found.alone) == (2, 1)
    assert "2 (left out: 1)" in as_text(document(Collection(tuple(runs)), "criteo"))
    lost = [*three(OURS, (7.0,)), click_run("ac/dc", 5, 0.9, 0, None)]
    (found,) = comparisons(grouped(Collection(tuple(lost)), "criteo"), ["ac/dc"])
    assert found.why == "no seed that both have finished"


def test_variants_of_ours_are_no_other_methods() -> None:
    runs = [*three(OURS, (7.0, 7.1)), *three("ac/dc", (7.5, 7.6)), *three(OURS, (6.0, 6.1), pruning__settings__c=2)]
    parts = document(Collection(tuple(runs)), "criteo")
    grid = [part for part in parts if isinstance(part, Grid)][-1]
    assert [row[1] for row in grid.tables[0]] == ["minus", "ac/dc"]


def test_several_settings_are_no_verdict() -> None:
    runs = [*three(OURS, (7.0, 7.1)), *three("ac/dc", (7.5, 7.6)), *three("ac/dc", (7.7, 7.8), training__lr=0.5)]
    found = comparisons(grouped(Collection(tuple(runs)), "criteo"), ["ac/dc"])
    assert len(found) == 2
    assert verdict(found, smaller=True) == (0, 0, 0, 0, 0, 1)
    assert "Not counted, for several settings: 1." in as_text(document(Collection(tuple(runs)), "criteo"))
