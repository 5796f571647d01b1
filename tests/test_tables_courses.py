"""Pictures of the course of trainings: the phases of the paper and of our runs, means over seeds, every method its own.

Oracles: the formula of the paper's schedule, phases and losses as they were made up, see `made_up_runs`. Numbers are
read off the artists of matplotlib.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import made_up_runs as made_up
import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="pictures need matplotlib")
pytest.importorskip("torch", reason="the paper's schedule is that of sparseopt.nn")

from drawn_tables import OTHER, Maker, drawn, renamed, texts
from matplotlib.colors import to_hex

from sparseopt.experiments.tables import Collection, collect
from sparseopt.experiments.tables.cells import OURS, Grouped, grouped
from sparseopt.experiments.tables.courses import PHASES, schedule, shown_place, training
from sparseopt.experiments.tables.styles import look
from sparseopt.nn import PhaseSchedule


@pytest.fixture(scope="module")
def clicks(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    return collect(made_up.criteo(tmp_path_factory.mktemp("clicks")))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    return collect(made_up.imagenet(tmp_path_factory.mktemp("images")))


# -- schedule ----------------------------------------------------------------------------------------------------------


def spans_of(ax: Any) -> list[tuple[str, float, float]]:
    """Kind, start and end of the coloured spans."""
    kinds = {to_hex(colour): kind for kind, colour in PHASES.items()}
    boxes = [
        (to_hex(patch.get_facecolor()), patch.get_extents().transformed(ax.transData.inverted()))
        for patch in ax.patches
    ]
    return [(kinds[colour], box.x0, box.x1) for colour, box in boxes]


def asked_for(spans: list[tuple[str, float, float]], at: float) -> float:
    """90 % in sparse phases, 0 in dense ones, and between them 90 % (1 - e^(-4 t)) / (1 - e^(-4))."""
    kind, start, stop = next(span for span in spans if span[1] - 1e-9 <= at < span[2] - 1e-9)
    t = (at - start) / (stop - start)
    return {"dense": 0.0, "sparse": 90.0, "sparsify": 90.0 * np.expm1(-4.0 * t) / np.expm1(-4.0)}[kind]


def require_right_schedule(make: Maker, clicks: Collection) -> None:
    """The law: above the paper's phases and sparsities, below those that were recorded."""
    axes = drawn(make, clicks, "criteo").axes
    place = shown_place(grouped(clicks, "criteo"), ("ac/dc", OURS))
    assert place == ((20, 20), 90.0)
    for column, (row, sparsify) in enumerate((("ac/dc", False), (OURS, True))):
        theirs = PhaseSchedule.criteo(1000, sparsify)
        expected = [(phase.kind, phase.start / 10.0, phase.stop / 10.0) for phase in theirs.phases]
        assert [kind for kind, *_ in spans_of(axes[column])] == [kind for kind, *_ in expected]
        np.testing.assert_allclose(
            [ends for _, *ends in spans_of(axes[column])], [ends for _, *ends in expected], atol=1e-9
        )
        x, y = axes[column].lines[0].get_data()
        np.testing.assert_allclose(y, [asked_for(expected, step) for step in x], atol=1e-9)
        asked = made_up.recipe(row, 20, 0.9, 0)
        assert axes[column].get_title() == row
        ours = axes[2 + column]
        at = np.cumsum([0, *(length for _, length in made_up.phases(asked, 400))]) / 4.0
        assert [kind for kind, *_ in spans_of(ours)] == [kind for kind, _ in made_up.phases(asked, 400)]
        np.testing.assert_allclose([ends for _, *ends in spans_of(ours)], np.stack([at[:-1], at[1:]], 1), atol=1e-9)
        x, y = ours.lines[0].get_data()
        events = {event["step"]: event["sparsity"] for event in made_up.happened(asked, 400)}
        np.testing.assert_allclose(y[:-1], [100.0 * events[round(4.0 * step)] for step in x[:-1]], rtol=1e-4)
        assert (x[-1], y[-1]) == (100.0, 90.0)


def test_schedules_are_the_papers_and_the_recorded_ones(clicks: Collection) -> None:
    require_right_schedule(schedule, clicks)


def _for_imagenet(figure: Any, data: Grouped, *rest: Any) -> None:
    schedule(figure, replace(data, kind="imagenet"), *rest)


def _methods_swapped(figure: Any, data: Grouped, *rest: Any) -> None:
    schedule(figure, renamed(lambda cell: cell._replace(row=OTHER.get(cell.row, cell.row)))(data), *rest)


@pytest.mark.parametrize("make", [_for_imagenet, _methods_swapped])
def test_wrong_schedules_are_rejected(make: Maker, clicks: Collection) -> None:
    with pytest.raises((AssertionError, KeyError)):
        require_right_schedule(make, clicks)


# -- training ----------------------------------------------------------------------------------------------------------


def require_right_courses(make: Maker, clicks: Collection) -> None:
    """The law: a panel per method with its own phases, the mean loss of its seeds, and the others' behind it."""
    axes = drawn(make, clicks, "criteo").axes
    assert [ax.get_title() for ax in axes] == list(made_up.CRITEO)
    means = {}
    for method in ("magnitude", "ac/dc", OURS):
        asked = [made_up.recipe(method, 20, 0.9, seed) for seed in range(3)]
        values = [made_up.made_up_loss(method, 20, 0.9, seed) for seed in range(3)]
        courses = [made_up.course(each, 400, value) for each, value in zip(asked, values, strict=True)]
        means[method] = np.mean([[line["loss"] for line in course] for course in courses], 0)
    for ax, method in zip(axes, made_up.CRITEO, strict=True):
        if method not in means:
            assert texts(ax) == ["not run"]
            continue
        assert [kind for kind, *_ in spans_of(ax)] == [
            kind for kind, _ in made_up.phases(made_up.recipe(method, 20, 0.9, 0), 400)
        ]
        mine = [line for line in ax.lines if to_hex(line.get_color()) == to_hex(look(method)["color"])]
        assert len(mine) == 4
        thick = max(mine, key=lambda line: line.get_linewidth())
        np.testing.assert_allclose(thick.get_ydata(), means[method], rtol=1e-4)
        np.testing.assert_allclose(
            np.mean([line.get_ydata() for line in mine if line is not thick], 0), means[method], rtol=1e-4
        )
        others = [line.get_ydata() for line in ax.lines if line not in mine]
        expected = [mean for name, mean in means.items() if name != method]
        np.testing.assert_allclose(others, expected, rtol=1e-4)


def test_courses_are_the_means_of_the_seeds(clicks: Collection) -> None:
    require_right_courses(training, clicks)


def _one_seed(figure: Any, data: Grouped, *rest: Any) -> None:
    cells = {
        cell: tuple(replace(group, runs=group.runs[:1]) for group in groups) for cell, groups in data.cells.items()
    }
    training(figure, replace(data, cells=cells), *rest)


def _courses_swapped(figure: Any, data: Grouped, *rest: Any) -> None:
    training(figure, renamed(lambda cell: cell._replace(row=OTHER.get(cell.row, cell.row)))(data), *rest)


@pytest.mark.parametrize("make", [_one_seed, _courses_swapped])
def test_wrong_courses_are_rejected(make: Maker, clicks: Collection) -> None:
    with pytest.raises(AssertionError):
        require_right_courses(make, clicks)


def test_runs_of_different_length_have_a_mean_where_both_are(tmp_path: Path) -> None:
    for seed, steps in ((0, 400), (1, 200)):
        made_up.write(tmp_path / str(seed), made_up.recipe(OURS, 5, 0.9, seed), 7.5, steps=steps)
    (ax,) = (ax for ax in drawn(training, collect(tmp_path), "criteo").axes if ax.get_title() == OURS)
    thick = max(ax.lines, key=lambda line: line.get_linewidth())
    assert list(thick.get_xdata()) == list(range(10, 201, 10))


def test_training_accuracy_is_shown_where_all_have_it(images: Collection) -> None:
    def with_accuracy(run: Any) -> Any:
        steps = run.curves["steps"]
        return replace(
            run, curves={**run.curves, "steps": {**steps, "accuracy": [0.01 * loss for loss in steps["loss"]]}}
        )

    half = [with_accuracy(run) if run.seed else run for run in images.runs]
    assert drawn(training, Collection(tuple(half)), "imagenet").get_supylabel() == "training loss"
    figure = drawn(training, Collection(tuple(map(with_accuracy, images.runs))), "imagenet")
    assert figure.get_supylabel() == "training accuracy, %"
    losses, percent = (each.axes[0].lines[-1].get_ydata() for each in (drawn(training, images, "imagenet"), figure))
    np.testing.assert_allclose(losses, percent)


def test_the_place_that_is_shown(clicks: Collection, images: Collection) -> None:
    assert shown_place(grouped(images, "imagenet"), ("ac/dc", OURS)) == ((32, 32), 90.0)  # the paper's
    assert shown_place(grouped(clicks, "criteo"), (OURS,)) == ((20, 20), 90.0)
    assert shown_place(grouped(clicks, "criteo"), ("rigl",)) is None
