"""The pictures: what is drawn, that names stay apart, that a jump is a gap, and that nothing else happens."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from sparseopt import L0, L2, MCP, Problem, bcd
from sparseopt.paths import path
from sparseopt.plotting import axes as shared
from sparseopt.plotting import plot_cross_validation, plot_groups, plot_path, plot_regularizers
from sparseopt.solution import Path
from sparseopt.validation import CrossValidation, cross_validate

plt = pytest.importorskip("matplotlib.pyplot", reason="pictures need matplotlib")


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    yield
    plt.close("all")


def a_path(n_groups: int, n_lams: int = 12, seed: int = 0) -> Path:
    """A path on which many groups are active, with norms close together, and names of different lengths."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(120, 2 * n_groups))
    y = X @ np.repeat(rng.choice([0.9, 1.0, 1.1], n_groups) * (np.arange(n_groups) < 25), 2)
    names = [f"group {'with a long name ' * (g % 3)}{g}" for g in range(n_groups)]
    return path(Problem.build(X, y, list(np.repeat(names, 2))), n_lams=n_lams, ratio=0.05, tol=1e-3)


@pytest.fixture(scope="module", params=[5, 30, 100])
def solutions(request: pytest.FixtureRequest) -> Path:
    return a_path(request.param)


@pytest.fixture(scope="module")
def validated() -> CrossValidation:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(60, 12))
    problem = Problem.build(X, X[:, :3].sum(axis=1) + rng.normal(size=60), 3)
    return cross_validate(problem, n_lams=15, tol=1e-3, cv=3)


@pytest.fixture(scope="module")
def classified() -> Any:
    """A solution with four outputs."""
    rng = np.random.default_rng(2)
    X = rng.normal(size=(80, 6))
    y = (X[:, :4] + 0.3 * rng.normal(size=(80, 4))).argmax(axis=1)
    return bcd(Problem.build(X, y, [0, 0, 1, 1, 2, 2], loss="multinomial", lam=0.03), tol=1e-3)


def written(ax: Any) -> list[Any]:
    """The annotations that hold text, at their final places."""
    ax.figure.canvas.draw()
    return [text for text in ax.texts if text.get_text()]


def box_of(text: Any) -> Any:
    """Where the letters are, without the line that leads to them."""
    return plt.Text.get_window_extent(text)


def overlaps(ax: Any) -> list[tuple[str, str]]:
    texts = written(ax)
    boxes = [box_of(text) for text in texts]
    pairs = [(i, j) for i in range(len(texts)) for j in range(i)]
    return [(texts[i].get_text(), texts[j].get_text()) for i, j in pairs if boxes[i].overlaps(boxes[j])]


def inside(ax: Any) -> bool:
    """Whether all text lies on the figure."""
    whole = ax.figure.bbox
    boxes = [box_of(text) for text in written(ax)]
    return all(whole.x0 <= b.x0 and b.x1 <= whole.x1 and whole.y0 <= b.y0 and b.y1 <= whole.y1 for b in boxes)


# -- paths -------------------------------------------------------------------------------------------------------------


def test_path_draws_every_group_and_names_the_largest(solutions: Path) -> None:
    ax = plot_path(solutions)
    norms, names = solutions.group_norms, solutions.problem.groups.names
    assert len(ax.get_lines()) == len(names)
    named = {text.get_text() for text in written(ax)}
    largest = np.argsort(-norms.max(axis=0), kind="stable")[:10]
    assert named == {shared.short(names[g]) for g in largest}
    grey = [line for line in ax.get_lines() if line.get_color() == shared.GREY]
    assert len(grey) == max(len(names) - 10, 0)


def test_lines_hold_the_norms(solutions: Path) -> None:
    ax = plot_path(solutions)
    drawn = np.array([line.get_ydata() for line in ax.get_lines()])
    expected = solutions.group_norms.T
    assert np.array_equal(drawn[np.lexsort(drawn.T)], expected[np.lexsort(expected.T)])
    assert all(np.array_equal(line.get_xdata(), solutions.lams) for line in ax.get_lines())


def test_coloured_lines_can_be_told_apart(solutions: Path) -> None:
    lines = [line for line in plot_path(solutions, top=10).get_lines() if line.get_color() != shared.GREY]
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == len(lines)


def test_axes_of_a_path_say_what_they_show(solutions: Path) -> None:
    ax = plot_path(solutions)
    assert ax.get_xlabel() == "lam, strength of the penalty"
    assert ax.get_ylabel() == "norm of the group's coefficients"
    assert ax.get_xscale() == "log"
    left, right = ax.get_xlim()
    assert left > right  # models grow in reading direction


@pytest.mark.parametrize("size", [(7.5, 4.8), (5.0, 2.5), (4.0, 8.0)])
def test_names_never_overlap(solutions: Path, size: tuple[float, float]) -> None:
    _, ax = plt.subplots(figsize=size, layout="constrained")
    plot_path(solutions, ax, top=40)
    assert overlaps(ax) == []
    assert inside(ax)


def test_names_that_are_not_moved_apart_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "_spread", lambda wanted, apart: wanted)
    assert overlaps(plot_path(a_path(30)))


@pytest.mark.parametrize("seed", range(5))
def test_places_keep_order_and_distance(seed: int) -> None:
    rng = np.random.default_rng(seed)
    wanted = rng.choice([0.0, 0.3, 0.31, 0.99, 1.0], 9) + 1e-3 * rng.random(9)
    places = shared._spread(wanted, 0.1)
    order = np.argsort(wanted)
    assert (np.diff(places[order]) >= 0.1 - 1e-12).all()
    assert places.min() >= 0.0
    assert places.max() <= 1.0 + 1e-12
    alone = np.array([0.2, 0.5, 0.9])
    assert np.allclose(shared._spread(alone, 0.1), alone)  # nothing moves without need


def test_marks_stand_at_their_lam_and_do_not_overlap() -> None:
    solutions = a_path(5)
    lams = solutions.lams
    marks = {"first": lams[0], "a": lams[5], "b": 0.99 * lams[5], "same": lams[5], "last": lams[-1]}
    ax = plot_path(solutions, mark=marks, top=0)
    vertical = [line.get_xdata()[0] for line in ax.get_lines() if len(set(line.get_xdata())) == 1]
    assert sorted(vertical) == sorted({*marks.values()})
    assert {text.get_text() for text in written(ax)} == {"first", "a, same", "b", "last"}
    assert overlaps(ax) == []
    assert inside(ax)


@pytest.mark.parametrize("mark", [0.1, [0.1], (0.1, 0.2), np.array([0.3]), {"x": 0.1}, None])
def test_marks_in_every_form(mark: Any) -> None:
    expected = 0 if mark is None else len(mark) if isinstance(mark, dict) else np.size(mark)
    solutions = a_path(5)
    assert len(plot_path(solutions, mark=mark).get_lines()) == 5 + expected


def test_path_of_one_lam_shows_dots() -> None:
    lines = plot_path(path(a_path(5).problem, [0.1])).get_lines()
    assert {line.get_marker() for line in lines} == {"o"}


def test_path_without_active_groups() -> None:
    problem = a_path(5).problem
    ax = plot_path(path(problem, [1e4, 1e3]))
    assert written(ax) == []
    assert len(plot_groups(path(problem, [1e4, 1e3])).get_yticks()) == 1


# -- cross-validation --------------------------------------------------------------------------------------------------


def test_cross_validation_shows_mean_band_choices_and_counts(validated: CrossValidation) -> None:
    ax = plot_cross_validation(validated)
    lines = ax.get_lines()
    assert np.array_equal(lines[0].get_ydata(), validated.mean)
    vertices = ax.collections[0].get_paths()[0].vertices
    assert np.isclose(vertices[:, 1].max(), (validated.mean + validated.standard_error).max())
    marked = {line.get_xdata()[0] for line in lines[1:]}
    assert marked == {validated.lams[validated.best_index], validated.lams[validated.one_se_index]}
    (above,) = ax.child_axes
    ax.figure.canvas.draw()
    assert above.get_xlabel() == "active groups"
    where = {float(lam): int(count) for lam, count in zip(validated.lams, validated.path.n_active, strict=True)}
    for at, label in zip(above.get_xticks(), above.get_xticklabels(), strict=True):
        assert where[float(at)] == int(label.get_text())
    assert "squares" in ax.get_ylabel()
    assert overlaps(ax) == []


# -- regularizers ------------------------------------------------------------------------------------------------------


def curve(ax: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    (line,) = [line for line in ax.get_lines() if line.get_label() == name]
    return np.asarray(line.get_xdata()), np.asarray(line.get_ydata())


JUMPS = {  # name, t -> where the prox jumps, from, to
    "l0": (L0(), 2.0, 2.0, 0.0, 2.0),
    "hard mcp": (MCP(2.0), 8.0, 4.0, 0.0, 4.0),
    "no jump": (L2(), 1.0, None, None, None),
    "firm mcp is steep, but no jump": (MCP(3.0), 2.9, None, None, None),
}


@pytest.mark.parametrize(("q", "t", "at", "low", "high"), JUMPS.values(), ids=JUMPS)
def test_a_jump_of_the_prox_is_a_gap_with_dots(q: Any, t: float, at: Any, low: Any, high: Any) -> None:
    _, right = plot_regularizers([q], t=t, high=6.0)
    u, v = curve(right, str(q))
    gaps = np.flatnonzero(np.isnan(v))
    dots = [line for line in right.get_lines() if line.get_marker() == "o"]
    assert len(gaps) == len(dots) / 2 == (0 if at is None else 1)
    kept = ~np.isnan(v)
    assert np.allclose(v[kept], [q.prox(float(x), t) for x in u[kept]], atol=1e-9)
    if at is not None:
        k = gaps[0]
        assert np.allclose([u[k - 1], u[k + 1], v[k - 1], v[k + 1]], [at, at, low, high], atol=1e-6)
        full, empty = dots
        assert full.get_ydata()[0] == v[k - 1]  # where two minimisers tie, the prox is the smaller
        assert empty.get_ydata()[0] == v[k + 1]
        assert empty.get_markerfacecolor() == "white"
        assert np.abs(np.diff(v[:k])).max(initial=0.0) < 0.1  # no vertical stroke on either side
        assert np.abs(np.diff(v[k + 1 :])).max() < 0.1


def test_the_jump_of_l0_at_zero() -> None:
    left, _ = plot_regularizers(["l0"])
    u, v = curve(left, "l0")
    assert (u[0], v[0]) == (0.0, 0.0)
    assert np.isnan(v[1])
    assert (v[2:] == 1.0).all()


def test_the_whole_table_is_drawn_with_a_legend() -> None:
    from sparseopt import REGULARIZERS

    left, right = plot_regularizers()
    assert [text.get_text() for text in right.get_legend().get_texts()] == list(REGULARIZERS)
    looks = {
        (line.get_color(), line.get_linestyle()) for line in left.get_lines() if not line.get_label().startswith("_")
    }
    assert len(looks) == len(REGULARIZERS)
    assert left.get_xlabel() == "u, norm of a block"


def test_own_axes_are_used() -> None:
    _, pair = plt.subplots(1, 2)
    assert plot_regularizers("l2", pair) is pair
    assert plot_regularizers(MCP(2.0), pair)[0].get_ylabel() == "q(u)"


# -- heat maps ---------------------------------------------------------------------------------------------------------


def test_heat_map_of_a_path(solutions: Path) -> None:
    ax = plot_groups(solutions, top=100)
    (mesh,) = ax.collections
    shown = mesh.get_array()
    norms = solutions.group_norms
    assert np.isclose(shown.sum(), norms.sum())
    assert np.array_equal(shown.mask.sum(axis=1) == shown.shape[1], np.zeros(len(shown), dtype=bool))
    first = (~np.ma.getmaskarray(shown)).argmax(axis=1)
    assert (np.diff(first) >= 0).all()  # in the order of entry
    names = [label.get_text() for label in ax.get_yticklabels()]
    for row, name in zip(ax.get_yticks(), names, strict=True):
        g = [shared.short(n) for n in solutions.problem.groups.names].index(name)
        assert np.allclose(shown[int(row)].filled(0.0), norms[:, g])


@pytest.mark.parametrize("size", [(7.0, 3.0), (7.0, 9.0)])
def test_row_names_never_overlap(solutions: Path, size: tuple[float, float]) -> None:
    figure, ax = plt.subplots(figsize=size, layout="constrained")
    plot_groups(solutions, ax, top=100)
    figure.canvas.draw()
    boxes = sorted((label.get_window_extent() for label in ax.get_yticklabels()), key=lambda box: box.y0)
    assert all(low.y1 <= high.y0 + 1.0 for low, high in itertools.pairwise(boxes))


def test_rows_left_out_are_counted() -> None:
    solutions = a_path(100)
    ax = plot_groups(solutions, top=20)
    assert len(ax.get_yticks()) == 20
    assert ax.get_title(loc="left").startswith("80 of 100 groups not shown")
    silent = int((solutions.group_norms == 0.0).all(axis=0).sum())
    assert (f"{silent} of which are zero" in ax.get_title(loc="left")) == (silent > 0)


def test_heat_map_of_a_solution_with_outputs(classified: Any) -> None:
    ax = plot_groups(classified, outputs=["red", "green", "blue", "grey"])
    (mesh,) = ax.collections
    assert np.isclose((mesh.get_array() ** 2).sum(), (classified.w**2).sum())
    assert [label.get_text() for label in ax.get_xticklabels()] == ["red", "green", "blue", "grey"]
    with pytest.raises(ValueError, match="outputs has 1 names for 4 outputs"):
        plot_groups(classified, outputs=["red"])


def test_one_output_gives_bars() -> None:
    solution = a_path(30)[-1]
    ax = plot_groups(solution)
    lengths = [bar.get_width() for bar in ax.patches]
    assert np.allclose(lengths, np.sort(solution.group_norms[solution.support])[::-1])


# -- all of them -------------------------------------------------------------------------------------------------------


def test_axes_given_are_used_and_returned(validated: CrossValidation) -> None:
    calls: tuple[tuple[Any, Any], ...] = (
        (plot_path, validated.path),
        (plot_cross_validation, validated),
        (plot_groups, validated.best),
    )
    for draw, what in calls:
        figure, ax = plt.subplots()
        assert draw(what, ax) is ax
        assert plt.get_fignums() == [figure.number]  # and no other figure
        plt.close(figure)


def test_inputs_and_settings_stay_as_they_are(validated: CrossValidation) -> None:
    before = dict(plt.rcParams)
    kept = [validated.path.group_norms.copy(), validated.lams.copy(), validated.fold_losses.copy()]
    plot_path(validated.path, mark={"x": 0.1})
    plot_cross_validation(validated)
    plot_groups(validated.path)
    plot_regularizers(["l2", "l0"])
    after = [validated.path.group_norms, validated.lams, validated.fold_losses]
    assert all(np.array_equal(a, b) for a, b in zip(kept, after, strict=True))
    assert dict(plt.rcParams) == before


REFUSED = {
    "a solution for a path": (lambda p: plot_path(p[0]), TypeError, "path is a Solution: pass a Path"),
    "a path for its validation": (lambda p: plot_cross_validation(p), TypeError, "cv is a Path"),
    "norms for a path": (lambda p: plot_groups(p.group_norms), TypeError, "pass a Path or a Solution"),
    "top": (lambda p: plot_path(p, top=-1), ValueError, "top is -1"),
    "top rows": (lambda p: plot_groups(p, top=0), ValueError, "top is 0"),
    "a mark at zero": (lambda p: plot_path(p, mark={"x": 0.0}), ValueError, "mark 'x' is 0: the path runs from"),
    "a mark beside the path": (lambda p: plot_path(p, mark=2.0 * p.lams[0]), ValueError, "the path runs from"),
    "an unknown name": (lambda p: plot_regularizers(["mpc"]), ValueError, "did you mean 'mcp'"),
    "no names": (lambda p: plot_regularizers([]), ValueError, "regularizers is empty"),
    "t": (lambda p: plot_regularizers(["l2"], t=0.0), ValueError, "t is 0.0"),
    "high": (lambda p: plot_regularizers(["l2"], high=np.inf), ValueError, "high is inf"),
}


@pytest.mark.parametrize(("call", "kind", "words"), REFUSED.values(), ids=REFUSED)
def test_wrong_arguments_are_refused(call: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        call(a_path(5))


def test_importing_the_module_does_not_import_matplotlib() -> None:
    code = "import sys, sparseopt.plotting; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_missing_matplotlib_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        plot_regularizers(["l2"])
