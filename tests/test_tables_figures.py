"""Pictures of finished runs: lines and bars are the means of the runs that belong to them, gaps stay gaps.

Oracles: means and standard errors of NumPy over runs picked by hand, the paper's figures from its tables, phases as
they were made up. Numbers are read off the artists of matplotlib, places off the finished layout. Runs are made up,
see `made_up_runs`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import made_up_runs as made_up
import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="pictures need matplotlib")
pytest.importorskip("torch", reason="the paper's schedule is that of sparseopt.nn")

from drawn_tables import OTHER, Change, Maker, drawn, renamed, texts
from matplotlib.colors import to_hex
from matplotlib.container import BarContainer, ErrorbarContainer

from sparseopt.experiments.tables import Collection, collect, write
from sparseopt.experiments.tables.cells import DENSE, OURS, Cell, Grouped
from sparseopt.experiments.tables.courses import schedule, training
from sparseopt.experiments.tables.exponents import exponent
from sparseopt.experiments.tables.pictures import draw
from sparseopt.experiments.tables.published import paper
from sparseopt.experiments.tables.styles import look
from sparseopt.experiments.tables.tradeoffs import tradeoff

BLOCKS, SHARES = (5, 10, 20), (90, 95, 97, 98, 99)


@pytest.fixture(scope="module")
def clicks(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """Table 2 without blocks of 10, one method and one cell; one cell diverged, one has two settings."""
    folder = made_up.criteo(tmp_path_factory.mktemp("clicks"))
    made_up.write(folder / "longer", made_up.recipe(OURS, 5, 0.99, 0, training__epochs=8.0), 7.9)
    return collect(folder)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    return collect(made_up.imagenet(tmp_path_factory.mktemp("images")))


def by_hand(collection: Collection, method: str, block: int, share: int) -> tuple[float, float]:
    """Mean and standard error of a cell of clicks, nan where it is empty, diverged or has several settings."""
    runs = [
        run
        for run in collection.runs
        if (run.settings.get("pruning.method"), run.settings.get("pruning.block")) == (method, block)
        and round(100 * run.settings["pruning.sparsity"]) == share
    ]
    if len({run.settings["training.epochs"] for run in runs}) != 1 or all(run.diverged for run in runs):
        return np.nan, np.nan
    values = [run.metrics["valid_loss"] for run in runs]
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))


# -- trade-off ---------------------------------------------------------------------------------------------------------


def lines_of(ax: Any) -> dict[str, tuple[Any, Any, Any]]:
    """Colour -> shares, heights and lengths of the bars, of the lines that are no single dots."""
    found = {}
    for container in ax.containers:
        assert isinstance(container, ErrorbarContainer)
        line, _, bars = container.lines
        if line.get_linestyle() == "None":
            continue
        x, y = (np.asarray(each, dtype=float) for each in line.get_data())
        errors = np.zeros(len(x))
        for segments in bars:
            for segment in segments.get_segments():
                if len(segment):
                    errors[np.flatnonzero(np.isclose(x, segment[0][0]))] = 0.5 * abs(segment[1][1] - segment[0][1])
        found[to_hex(line.get_color())] = (100.0 - x, y, errors)
    return found


def require_right_lines(change: Change, clicks: Collection) -> None:
    """The law: a line per method that was run, through the means of its cells and no others, with their errors."""
    axes = drawn(tradeoff, clicks, "criteo", change=change).axes
    for ax, block in zip(axes[:3], BLOCKS, strict=True):
        expected = {}
        for method in made_up.CRITEO:
            points = np.array([by_hand(clicks, method, block, share) for share in SHARES])
            if not np.isnan(points).all():
                expected[to_hex(look(method)["color"])] = points
        found = lines_of(ax)
        assert found.keys() == expected.keys()
        for colour, points in expected.items():
            shares, heights, errors = found[colour]
            np.testing.assert_allclose(shares, SHARES)
            np.testing.assert_allclose(heights, points[:, 0])
            there = ~np.isnan(points[:, 0])
            np.testing.assert_allclose(errors[there], points[there, 1], atol=1e-12)
    figures = paper("criteo")[0].figures
    for ax, block in zip(axes[3:], BLOCKS, strict=True):
        found = lines_of(ax)
        assert len(found) == 4
        for method in made_up.CRITEO:
            values = [figures[Cell(method, (block, block), float(share))] for share in SHARES]
            np.testing.assert_allclose(found[to_hex(look(method)["color"])][1], values)


def test_lines_go_through_the_means(clicks: Collection) -> None:
    require_right_lines(lambda data: data, clicks)


def _filled(data: Grouped) -> Grouped:
    """Empty cells as their neighbours."""
    cells = dict(data.cells)
    for method in made_up.CRITEO:
        for block in ((5, 5), (20, 20)):
            for share, before in ((97.0, 95.0), (99.0, 98.0)):
                if Cell(method, block, before) in cells:
                    cells.setdefault(Cell(method, block, share), cells[Cell(method, block, before)])
    return replace(data, cells=cells)


def _merged(data: Grouped) -> Grouped:
    """Groups of one cell as one group."""

    def one(groups: Any) -> Any:
        values = {seed: value for group in groups for seed, value in group.values.items()}
        return (replace(groups[0], values=values),)

    return replace(data, cells={cell: one(groups) for cell, groups in data.cells.items()})


REVERSED = {float(share): float(other) for share, other in zip(SHARES, SHARES[::-1], strict=True)}
WRONG_DATA: dict[str, Change] = {
    "fills gaps": _filled,
    "averages settings": _merged,
    "swaps methods": renamed(lambda cell: cell._replace(row=OTHER.get(cell.row, cell.row))),
    "swaps panels": renamed(lambda cell: cell._replace(block=cell.block and {5: (20, 20), 20: (5, 5)}[cell.block[0]])),
    "reverses sparsities": renamed(lambda cell: cell._replace(sparsity=cell.sparsity and REVERSED[cell.sparsity])),
    "forgets a method": lambda data: replace(
        data, cells={cell: groups for cell, groups in data.cells.items() if cell.row != "magnitude"}
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", WRONG_DATA.values(), ids=WRONG_DATA)
def test_wrong_lines_are_rejected(change: Change, clicks: Collection) -> None:
    with pytest.raises(AssertionError):
        require_right_lines(change, clicks)


def test_what_was_not_run_diverged_or_has_several_settings_is_told(clicks: Collection) -> None:
    figure = drawn(tradeoff, clicks, "criteo")
    assert [texts(ax) for ax in figure.axes] == [[], ["not run"], [], [], [], []]
    assert [ax.get_title() for ax in figure.axes] == [*(f"blocks of {b} x {b}" for b in BLOCKS), "", "", ""]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "magnitude", "power-propagation (ours: not run)", "ac/dc", OURS, "dense network", "diverged",
        "one of several settings",
    ]  # fmt: skip
    crosses = [line for line in figure.axes[2].lines if line.get_marker() == "x"]
    assert [(line.get_color(), list(line.get_xdata())) for line in crosses] == [(look("ac/dc")["color"], [1.0])]
    dots = [c.lines[0] for c in figure.axes[0].containers if c.lines[0].get_linestyle() == "None"]
    assert {line.get_markerfacecolor() for line in dots} == {"white"}
    assert sorted(float(line.get_ydata()[0]) for line in dots) == [
        pytest.approx(np.mean([made_up.made_up_loss(OURS, 5, 0.99, seed) for seed in range(3)])), 7.9,
    ]  # fmt: skip


def test_dense_networks_are_horizontal_lines(clicks: Collection) -> None:
    axes = drawn(tradeoff, clicks, "criteo").axes
    dense = [run.metrics["valid_loss"] for run in clicks.runs if "pruning.method" not in run.settings]
    heights = [
        [
            line.get_ydata()[0]
            for line in ax.lines
            if len(set(line.get_ydata())) == 1 and list(line.get_xdata()) == [0, 1]
        ]
        for ax in axes
    ]
    assert heights == [[pytest.approx(np.mean(dense))]] * 3 + [[0.4489]] * 3


def test_crosses_have_room_at_the_bad_end(images: Collection) -> None:
    axes = drawn(tradeoff, images, "imagenet").axes
    for ax, values in (
        (axes[0], [run.metrics["valid_accuracy"] for run in images.runs if not run.diverged]),
        (axes[4], [0.6142]),
    ):
        crosses = [line for line in ax.lines if line.get_marker() == "x"]
        assert len(crosses) == 2
        tops = [ax.get_ylim()[0] + float(line.get_ydata()[0]) * np.ptp(ax.get_ylim()) for line in crosses]
        assert max(tops) < 100.0 * min(values)


# -- exponent ----------------------------------------------------------------------------------------------------------


def bars_of(ax: Any) -> list[tuple[float, float]]:
    """Place and height of the bars."""
    bars = [patch for container in ax.containers if isinstance(container, BarContainer) for patch in container.patches]
    return sorted((round(bar.get_x() + 0.5 * bar.get_width(), 6), bar.get_height()) for bar in bars)


def exponents_by_hand(images: Collection) -> list[tuple[float, float]]:
    expected = []
    for place, block in enumerate((8, 16, 32, 64)):
        for number, c in enumerate((2, 4, 8)):
            values = [
                100.0 * run.metrics["valid_accuracy"]
                for run in images.runs
                if run.settings.get("pruning.method") == OURS
                and (run.settings["pruning.block"], run.settings["pruning.sparsity"]) == (block, 0.9)
                and run.settings.get("pruning.settings.c", 4) == c
                and run.settings.get("pruning.sparsify") is not False
            ]
            if values:
                expected.append((round(place + (number - 1) * 0.8 / 3.0, 6), float(np.mean(values))))
    return expected


def require_right_bars(change: Change, images: Collection) -> None:
    """The law: a bar for each exponent and size of blocks that was run, as high as its mean; the paper's beside."""
    ours, theirs = drawn(exponent, images, "imagenet", 2, change).axes
    expected = exponents_by_hand(images)
    np.testing.assert_allclose(bars_of(ours), expected)
    assert texts(ours).count("not run") == 12 - len(expected) == 6
    assert len(bars_of(theirs)) == 12
    assert bars_of(theirs)[0][1] == pytest.approx(69.403)
    assert bars_of(theirs)[-1][1] == pytest.approx(72.614)
    assert all(ax.get_ylim()[0] < min(height for _, height in bars_of(ax)) for ax in (ours, theirs))
    assert f"axis begins at {ours.get_ylim()[0]:.1f}" in ours.get_ylabel()


def test_bars_are_the_means(images: Collection) -> None:
    require_right_bars(lambda data: data, images)


NAMES = {f"{OURS}, c = 2": f"{OURS}, c = 8", f"{OURS}, c = 8": f"{OURS}, c = 2"}


@pytest.mark.parametrize(
    "change",
    [
        renamed(lambda cell: cell._replace(row=NAMES.get(cell.row, cell.row))),
        renamed(lambda cell: cell._replace(block=cell.block and {8: (16, 16), 32: (64, 64)}[cell.block[0]])),
    ],
    ids=["swaps exponents", "moves blocks"],
)
def test_wrong_bars_are_rejected(change: Change, images: Collection) -> None:
    with pytest.raises((AssertionError, ValueError)):
        require_right_bars(change, images)


# -- all of them -------------------------------------------------------------------------------------------------------

ALL: Mapping[str, tuple[Maker, str, int]] = {
    "clicks trade-off": (tradeoff, "criteo", 0),
    "clicks schedule": (schedule, "criteo", 0),
    "clicks training": (training, "criteo", 0),
    "images trade-off": (tradeoff, "imagenet", 0),
    "images schedule": (schedule, "imagenet", 0),
    "images training": (training, "imagenet", 0),
    "images exponent": (exponent, "imagenet", 2),
    "cifar trade-off": (tradeoff, "cifar", 0),
    "cifar training": (training, "cifar", 0),
    "cifar schedule": (schedule, "cifar", 0),
}


@pytest.fixture(scope="module")
def everything(clicks: Collection, images: Collection, tmp_path_factory: pytest.TempPathFactory) -> Collection:
    folder = tmp_path_factory.mktemp("cifar")
    for method in ("ac/dc", OURS, "rigl", "group-lasso", "gradual-magnitude"):
        for share in (0.8, 0.95):
            asked = made_up.images(method, 8, share, 0, kind="cifar")
            made_up.write(
                folder / f"{method.replace('/', '')}_{share}", asked, 0.05 + 0.03 * made_up.chance(method, share)
            )
    return Collection((*clicks.runs, *images.runs, *collect(folder).runs))


def overlaps(a: Any, b: Any) -> bool:
    """Whether two boxes share more than a pixel."""
    return min(a.x1, b.x1) - max(a.x0, b.x0) > 1.0 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1.0


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("empty", [False, True], ids=["runs", "no runs"])
def test_nothing_covers_anything(name: str, empty: bool, everything: Collection) -> None:
    make, kind, number = ALL[name]
    figure = drawn(make, Collection(()) if empty else everything, kind, number)
    renderer = figure.canvas.get_renderer()
    axes = [ax for ax in figure.axes if ax.get_visible()]
    boxes = [ax.get_tightbbox(renderer) for ax in axes]
    legends = [legend.get_window_extent(renderer) for legend in figure.legends]
    assert legends
    for legend in legends:
        assert not any(overlaps(legend, box) for box in boxes)
        assert legend.x0 >= 0.0
        assert legend.x1 <= figure.bbox.x1
    for i, box in enumerate(boxes):
        assert not any(overlaps(box, other) for other in boxes[:i])
        assert box.x0 >= -1.0
        assert box.x1 <= figure.bbox.x1 + 1.0
    for ax in axes:
        ticks = [tick.get_window_extent(renderer) for tick in ax.get_xticklabels() if tick.get_text()]
        assert not any(overlaps(a, b) for i, a in enumerate(ticks) for b in ticks[:i])


def test_a_legend_on_data_would_be_seen(clicks: Collection) -> None:
    figure = drawn(tradeoff, clicks, "criteo")
    legend = figure.legend(handles=figure.legends[0].legend_handles, loc="center")
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    boxes = [ax.get_tightbbox(renderer) for ax in figure.axes]
    assert any(overlaps(legend.get_window_extent(renderer), box) for box in boxes)


@pytest.mark.parametrize(
    "kind", ["imagenet", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("criteo", "cifar"))]
)
def test_files_are_the_same_from_the_compact_form(kind: str, everything: Collection, tmp_path: Path) -> None:
    write(everything, tmp_path / "results.json")
    first = draw(everything, kind, tmp_path / "first")
    second = draw(collect(tmp_path / "results.json"), kind, tmp_path / "second")
    names = ["tradeoff.png", "schedule.png", "training.png"] + (["exponent.png"] if kind == "imagenet" else [])
    assert [file.name for file in first] == names
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]


def test_pictures_of_nothing_say_so(tmp_path: Path) -> None:
    for kind, empty in (("criteo", 3), ("imagenet", 4), ("cifar", 1)):
        figure = drawn(tradeoff, Collection(()), kind)
        assert sum(texts(ax) == ["not run"] for ax in figure.axes) == empty
        assert [texts(ax) for ax in drawn(schedule, Collection(()), kind).axes] == [[], [], ["not run"], ["not run"]]
        assert all(texts(ax) == ["not run"] for ax in drawn(training, Collection(()), kind).axes)
    ours, theirs = drawn(exponent, Collection(()), "imagenet", 2).axes
    assert texts(ours) == ["not run"]
    assert "not run" not in texts(theirs)


def test_methods_look_the_same_in_every_picture() -> None:
    names = (*made_up.CRITEO, DENSE)
    assert len({look(name)["color"] for name in names}) == len(names)
    assert len({look(name)["marker"] for name in names}) == len(names)
    assert look("rigl") == look("rigl")


def test_no_window_and_no_global_state(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from sparseopt.experiments.tables import Collection\n"
        "from sparseopt.experiments.tables.pictures import draw\n"
        f"draw(Collection(()), 'criteo', Path({str(tmp_path / 'figures')!r}))\n"
        "print('matplotlib.pyplot' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
