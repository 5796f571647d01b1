"""Pictures of prunings: what is drawn is what was pruned, text stays readable, and nothing else happens."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="pictures of networks need torch")
plt = pytest.importorskip("matplotlib.pyplot", reason="pictures need matplotlib")

from matplotlib.colors import to_hex  # noqa: E402
from torch import nn  # noqa: E402

from sparseopt.experiments.networks import resnet20, resnet50  # noqa: E402
from sparseopt.nn import (  # noqa: E402
    PhaseSchedule,
    Sparsifier,
    pictures,
    plan,
    plot_attention,
    plot_history,
    plot_masks,
    plot_schedule,
    prune,
    report,
)
from sparseopt.nn.events import BINS, RANGE, Event  # noqa: E402
from sparseopt.nn.schedule import CUBIC, EXPONENTIAL, Linear  # noqa: E402

torch.set_num_threads(1)

MANY = [("dense", 3), *[("sparsify", 2), ("sparse", 1), ("dense", 1)] * 11, ("sparsify", 5), ("sparse", 4)]
SCHEDULES = {
    "imagenet": PhaseSchedule.imagenet(300),
    "criteo": PhaseSchedule.criteo(300),
    "ac/dc": PhaseSchedule.criteo(300, sparsify=False),
    "36 phases": PhaseSchedule.from_list(MANY),
    "one phase": PhaseSchedule.from_list([("dense", 7)]),
}


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    yield
    plt.close("all")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(24, 32), nn.ReLU(), nn.Linear(32, 20), nn.ReLU(), nn.Linear(20, 8))


def sparse(model: nn.Module, block: int, method: str = "magnitude", min_blocks: int = 2) -> Sparsifier:
    """The model right after its blocks were chosen."""
    schedule = PhaseSchedule.from_list([("dense", 1), ("sparse", 9)])
    s = prune(model, None, method, sparsity=0.8, block=block, min_blocks=min_blocks, schedule=schedule)
    if method == "sequential-attention++":
        for layer in s.layers:
            assert layer.logits is not None
            nn.init.normal_(layer.logits)
    s.step()
    return s


def trained(method: str, schedule: PhaseSchedule, steps: int) -> Sparsifier:
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    s = prune(model, optimizer, method, sparsity=0.8, block=4, min_blocks=2, schedule=schedule)
    for _ in range(steps):
        optimizer.zero_grad()
        x = torch.randn(16, 24)
        (model(x) - x[:, :8]).square().mean().backward()
        optimizer.step()
    return s


def texts(axes: Any) -> list[Any]:
    """The titles, axis labels and tick labels that hold text and are seen."""
    found = []
    for ax in axes:
        found += [ax.title, ax.xaxis.label, ax.yaxis.label]
        for axis in (ax.xaxis, ax.yaxis) if ax.axison else ():
            low, high = sorted(axis.get_view_interval())
            found += [
                label
                for at, label in zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
                if low <= at <= high  # ticks beyond are not drawn
            ]
        if ax.get_legend():
            found += ax.get_legend().get_texts()
    figure = axes[0].figure
    found += [text for legend in figure.legends for text in legend.get_texts()]
    found += [text for text in (figure._supxlabel, figure._supylabel) if text is not None]
    return [text for text in found if text.get_text() and text.get_visible()]


def collisions(figure: Any) -> list[str]:
    """Text that overlaps other text, or reaches out of the figure."""
    figure.canvas.draw()
    labels = texts(figure.axes)
    boxes = [label.get_window_extent() for label in labels]
    whole = figure.bbox.padded(0.5)
    found = [
        f"{label.get_text()!r} is cut off"
        for label, box in zip(labels, boxes, strict=True)
        if not (whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0 and box.y1 <= whole.y1)
    ]
    for (one, a), (other, b) in itertools.combinations(zip(labels, boxes, strict=True), 2):
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 0.5 and min(a.y1, b.y1) - max(a.y0, b.y0) > 0.5:
            found.append(f"{one.get_text()!r} covers {other.get_text()!r}")
    return found


# -- masks -------------------------------------------------------------------------------------------------------------


def wrong_images(axes: Any, s: Sparsifier) -> list[str]:
    """The layers whose image is not their mask."""
    assert len(axes) == len(s.layers)
    return [
        layer.name
        for ax, layer in zip(axes, s.layers, strict=True)
        if not np.array_equal(np.asarray(ax.images[0].get_array()), layer.kept.numpy().astype(float))
        or ax.get_title()
        != f"{layer.name.removesuffix('.weight')}\n{int(layer.kept.sum()):,} of {layer.grid.n_blocks:,}"
    ]


def test_images_are_the_masks() -> None:
    s = sparse(network(), 4)
    assert wrong_images(plot_masks(s.model), s) == []


def test_transposed_images_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    s = sparse(network(), 4)
    draw = pictures.draw_masks
    monkeypatch.setattr(pictures, "draw_masks", lambda masks, *rest: draw({k: m.T for k, m in masks.items()}, *rest))
    assert wrong_images(plot_masks(s.model), s) == [layer.name for layer in s.layers]


def test_the_folded_model_and_the_report_give_the_same_images() -> None:
    s = sparse(network(), 4)
    expected = [np.asarray(ax.images[0].get_array()) for ax in plot_masks(s.model)]
    found = report(s.model)
    model = s.fold()
    for axes in (found.plot(), plot_masks(model, plan=s.plan), plot_masks(model, block=4)):
        for image, ax in zip(expected, axes, strict=True):
            assert np.array_equal(image, np.asarray(ax.images[0].get_array()))


def test_kept_blocks_are_dark_and_dropped_ones_light() -> None:
    s = sparse(network(), 4)
    image = plot_masks(s.model)[0].images[0]
    colours = [to_hex(colour).upper() for colour in image.cmap(image.norm([1.0, 0.0]))]
    assert colours == [pictures.KEPT, pictures.DROPPED]


@pytest.mark.parametrize("colour", ["norm", "attention"])
def test_colours_are_relative_to_the_mean_of_the_layer(colour: str) -> None:
    s = sparse(network(), 4, "sequential-attention++")
    for ax, layer in zip(plot_masks(s.model, colour), s.layers, strict=True):
        shown = np.ma.masked_invalid(ax.images[0].get_array())
        assert np.array_equal(~np.ma.getmaskarray(shown), layer.kept.numpy())
        values = layer.factors() if colour == "attention" else layer.grid.norms(layer.weight())
        expected = (values / values[layer.kept].mean())[layer.kept].numpy()
        assert np.allclose(shown[layer.kept.numpy()], expected, rtol=1e-5)
        low, high = ax.images[0].norm.vmin, ax.images[0].norm.vmax
        assert low * high == pytest.approx(1.0)
        assert low <= expected.min() * (1.0 + 1e-5)
        assert expected.max() <= high * (1.0 + 1e-5)


def test_only_masks_with_attention_are_coloured_by_it() -> None:
    s = sparse(network(), 4)
    with pytest.raises(ValueError, match="no mask of the model has attention: use colour='norm'"):
        plot_masks(s.model, "attention")


def many_layers(model: nn.Module, block: int) -> Sparsifier:
    """Random masks with a tenth of the blocks on every layer that has 4 blocks or more."""
    s = Sparsifier(model, plan(model, 0.9, block, 2), "magnitude", schedule=PhaseSchedule.from_list([("sparse", 1)]))
    for layer in s.layers:
        layer.keep(torch.rand(layer.grid.counts) < 0.1)
    return s


NETWORKS: dict[str, Callable[[], Sparsifier]] = {
    "1 layer": lambda: sparse(nn.Linear(64, 64), 4),
    "2 layers": lambda: sparse(nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 10)), 4),
    "3 layers": lambda: sparse(network(), 4),
    "resnet20": lambda: many_layers(resnet20(), 8),
    "resnet50": lambda: many_layers(resnet50(), 32),
}


@pytest.mark.parametrize(
    ("name", "colour"), [*((name, "kept") for name in NETWORKS), ("3 layers", "norm"), ("resnet20", "norm")]
)
def test_names_are_readable_for_one_layer_and_for_many(name: str, colour: str) -> None:
    s = NETWORKS[name]()
    axes = plot_masks(s.model, colour)
    if name == "resnet50":
        assert len(axes) == 54
    assert collisions(axes[0].figure) == []
    assert colour == "norm" or wrong_images(axes, s) == []


def test_text_that_collides_is_noticed() -> None:
    axes = plot_masks(NETWORKS["3 layers"]().model)
    axes[0].set_title("a name that reaches into the next picture, whatever its size")
    assert any("covers" in found for found in collisions(axes[0].figure))
    axes[0].set_title("")
    axes[0].figure.suptitle("x")
    axes[-1].set_title("y", x=3.0)
    assert any("cut off" in found for found in collisions(axes[0].figure))


@pytest.mark.parametrize("n", range(1, 80))
def test_the_grid_has_few_empty_places_and_is_wider_than_high(n: int) -> None:
    columns = pictures._columns(n)
    rows = -(-n // columns)
    assert rows <= columns + 1
    assert columns * rows - n < min(columns, 1 + n // 3 + 2)


def test_a_given_figure_is_used() -> None:
    figure = plt.figure(layout="constrained")
    left, right = figure.subfigures(1, 2)
    s = sparse(network(), 4)
    assert {ax.figure for ax in plot_masks(s.model, figure=left)} == {left}
    assert {ax.figure for ax in plot_masks(s.model, "norm", figure=right)} == {right}
    figure.canvas.draw()
    assert plt.get_fignums() == [figure.number]


# -- phases ------------------------------------------------------------------------------------------------------------


def wrong_spans(ax: Any, schedule: PhaseSchedule) -> list[int]:
    """The numbers of the phases whose span begins, ends or is coloured otherwise."""
    spans = [(patch.get_x(), patch.get_x() + patch.get_width(), to_hex(patch.get_facecolor())) for patch in ax.patches]
    assert len(spans) == len(schedule.phases)
    expected = [(p.start, p.stop, pictures.PHASE_COLOURS[p.kind].lower()) for p in schedule.phases]
    return [number for number, (one, other) in enumerate(zip(spans, expected, strict=True)) if one != other]


def named(ax: Any) -> set[str]:
    return {text.get_text() for text in ax.get_legend().get_texts()}


@pytest.mark.parametrize("name", SCHEDULES)
def test_spans_are_the_phases(name: str) -> None:
    schedule = SCHEDULES[name]
    ax = plot_schedule(schedule, 0.9)
    assert wrong_spans(ax, schedule) == []
    assert named(ax) == {"sparsity", *(phase.kind for phase in schedule.phases)}
    assert ax.get_xlim() == (0, schedule.total)
    assert collisions(ax.figure) == []


def test_a_narrow_picture_has_room_for_its_legend() -> None:
    figure, ax = plt.subplots(figsize=(4.2, 2.6), layout="constrained")
    plot_schedule(PhaseSchedule.imagenet(9000), ax=ax)
    assert collisions(figure) == []


def test_wrong_spans_are_rejected() -> None:
    ax = plot_schedule(PhaseSchedule.from_list([("dense", 5), ("sparse", 5)]))
    assert wrong_spans(ax, PhaseSchedule.from_list([("dense", 4), ("sparse", 6)])) == [0, 1]
    assert wrong_spans(ax, PhaseSchedule.from_list([("sparsify", 5), ("sparse", 5)])) == [0]


@pytest.mark.parametrize("share", [EXPONENTIAL, CUBIC, Linear()], ids=repr)
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_line_of_a_schedule_goes_through_its_targets(name: str, share: Any) -> None:
    schedule = SCHEDULES[name]
    (line,) = plot_schedule(schedule, 0.8, share).get_lines()
    x, y = line.get_data()
    middle = np.arange(schedule.total) + 1e-9  # right of the jumps, which are at whole steps
    # 60 pieces per phase: the error of a chord is at most |share''| / (8 * 60^2), and |share''| <= 17 for c = 4.
    assert np.allclose(np.interp(middle, x, y), 0.8 * np.array(schedule.targets(share)), atol=17.0 / (8 * 60**2) + 1e-6)


def test_a_schedule_plots_itself() -> None:
    _, ax = plt.subplots()
    schedule = SCHEDULES["criteo"]
    assert schedule.plot(0.9, CUBIC, ax) is ax
    expected = plot_schedule(schedule, 0.9, CUBIC).get_lines()[0].get_data()
    assert np.array_equal(ax.get_lines()[0].get_data(), expected)


def line_of(s: Sparsifier) -> Callable[[float], float]:
    """The drawn sparsity at a step, read off the line as it is drawn: constant to the right of every point."""
    (line,) = plot_history(s).get_lines()
    assert line.get_drawstyle() == "steps-post"
    x, y = (np.asarray(each) for each in line.get_data())
    return lambda step: float(y[np.searchsorted(x, step, side="right") - 1])


@pytest.mark.parametrize("method", ["sequential-attention++", "ac/dc", "magnitude"])
def test_the_history_is_what_the_model_went_through(method: str) -> None:
    model = network()
    schedule = PhaseSchedule.from_list(MANY)
    s = prune(model, None, method, sparsity=0.8, block=4, min_blocks=2, schedule=schedule)
    went = [s.sparsity]
    for _ in range(schedule.total - 1):
        s.step()
        went.append(s.sparsity)
    drawn = line_of(s)
    assert [drawn(step + 0.5) for step in range(schedule.total - 1)] == went[:-1]
    assert wrong_spans(plot_history(s), schedule) == []


def test_a_history_with_a_missing_event_is_rejected() -> None:
    s = trained("ac/dc", PhaseSchedule.from_list([("dense", 2), ("sparse", 2), ("dense", 3)]), 4)
    assert [line_of(s)(step) for step in (1.5, 2.5, 3.5)] == pytest.approx([0.0, 0.8, 0.8], abs=0.05)
    s.history = [event for event in s.history if event.phase != "sparse"]
    assert line_of(s)(2.5) == 0.0


def test_the_history_ends_at_the_last_step_and_outlives_the_masks() -> None:
    s = trained("sequential-attention++", PhaseSchedule.imagenet(60), 60)
    before = plot_history(s).get_lines()[0].get_data()
    s.fold()
    ax = plot_history(s)
    assert np.array_equal(ax.get_lines()[0].get_data(), before)
    assert before[0][-1] == 60
    assert collisions(ax.figure) == []
    half = trained("ac/dc", PhaseSchedule.imagenet(60, sparsify=False), 20)
    ax = plot_history(half)
    assert max(ax.get_lines()[0].get_xdata()) == 20
    assert ax.get_xlim() == (0, 60)


# -- attention ---------------------------------------------------------------------------------------------------------


def wrong_columns(ax: Any, events: list[Event]) -> list[int]:
    """The numbers of the events whose column is not the histogram of their attention."""
    shown = np.ma.filled(np.ma.masked_invalid(ax.collections[0].get_array()), 0.0)
    assert shown.shape == (BINS, len(events))
    counts = np.array([event.attention for event in events], dtype=float)
    expected = counts / counts.sum(axis=1, keepdims=True)
    return [number for number in range(len(events)) if not np.allclose(shown[:, number], expected[number], rtol=1e-12)]


@pytest.mark.parametrize(("name", "steps"), [("imagenet", 300), ("36 phases", 44), ("one phase", 2)])
def test_columns_are_the_histograms(name: str, steps: int) -> None:
    s = trained("sequential-attention++", SCHEDULES[name], steps)
    ax = plot_attention(s)
    events = [event for event in s.history if event.what == "enter"]
    assert wrong_columns(ax, events) == []
    edges = np.asarray(ax.collections[0].get_coordinates())[:, 0, 1]
    assert np.allclose(np.log10(edges), np.linspace(*RANGE, BINS + 1))
    (strip,) = ax.child_axes
    assert [to_hex(patch.get_facecolor()) for patch in strip.patches] == [
        pictures.PHASE_COLOURS[event.phase].lower() for event in events
    ]
    ticks = {int(at): label.get_text() for at, label in zip(ax.get_xticks(), ax.get_xticklabels(), strict=True)}
    assert all(text == f"{events[number].step:,}" for number, text in ticks.items())
    assert named(ax) == {event.phase for event in events}
    assert collisions(ax.figure) == []
    used = np.array([event.attention for event in events]).sum(axis=0).nonzero()[0]
    low, high = np.log10(ax.get_ylim())
    powers = np.linspace(*RANGE, BINS + 1)
    assert low <= powers[used[0]] + 1e-9
    assert powers[used[-1] + 1] - 1e-9 <= high


def test_columns_of_another_phase_are_rejected() -> None:
    s = trained("sequential-attention++", SCHEDULES["imagenet"], 300)
    ax = plot_attention(s)
    events = [event for event in s.history if event.what == "enter"]
    assert len(wrong_columns(ax, [*events[1:], events[0]])) > len(events) // 2


def test_a_method_without_attention_says_so() -> None:
    s = trained("ac/dc", SCHEDULES["ac/dc"], 2)
    with pytest.raises(ValueError, match="the method 'ac/dc' has no attention to draw"):
        plot_attention(s)


# -- all of them -------------------------------------------------------------------------------------------------------


def test_axes_given_are_used_and_returned() -> None:
    s = trained("sequential-attention++", SCHEDULES["imagenet"], 40)
    calls: list[Callable[[Any], Any]] = [
        lambda ax: plot_history(s, ax),
        lambda ax: plot_attention(s, ax),
        lambda ax: plot_schedule(s.schedule, ax=ax),
    ]
    for draw in calls:
        figure, ax = plt.subplots()
        assert draw(ax) is ax
        assert plt.get_fignums() == [figure.number]  # and no other figure
        plt.close(figure)


def test_models_and_settings_stay_as_they_are() -> None:
    s = trained("sequential-attention++", SCHEDULES["imagenet"], 40)
    settings = dict(plt.rcParams)
    before = {key: value.clone() for key, value in s.model.state_dict().items()}
    history = list(s.history)
    plot_history(s)
    plot_attention(s)
    plot_schedule(s.schedule)
    for colour in ("kept", "norm", "attention"):
        plot_masks(s.model, colour)
    assert dict(plt.rcParams) == settings
    assert all(torch.equal(before[key], value) for key, value in s.model.state_dict().items())
    assert s.history == history


def in_grey(colour: str) -> float:
    """Lightness as a black and white printer sees it."""
    return float(np.dot([0.2126, 0.7152, 0.0722], [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]))


# Machado, Oliveira, Fernandes (2009): what protanopes, deuteranopes and tritanopes see of (R, G, B).
BLIND = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


# Colours that other readers tell apart easily.
CONFUSED = {
    "protanopia": ("#C00000", "#001C00"),
    "deuteranopia": ("#C00000", "#005200"),
    "tritanopia": ("#808080", "#8D6BE6"),
}


def told_apart(one: str, other: str, eyes: str) -> bool:
    seen = [np.array(BLIND[eyes]) @ [int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in (one, other)]
    return bool(np.linalg.norm(seen[0] - seen[1]) > 0.12)


@pytest.mark.parametrize("eyes", BLIND)
def test_colour_blind_readers_tell_phases_and_blocks_apart(eyes: str) -> None:
    pairs = [*itertools.combinations(pictures.PHASE_COLOURS.values(), 2), (pictures.KEPT, pictures.DROPPED)]
    assert all(told_apart(one, other, eyes) for one, other in pairs)
    assert all(abs(in_grey(one) - in_grey(other)) > 0.1 for one, other in pairs)
    assert not told_apart(*CONFUSED[eyes], eyes)


REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "colour": (lambda: plot_masks(network(), "size"), ValueError, "colour must be 'kept', 'norm' or 'attention'"),
    "no blocks": (lambda: plot_masks(network()), ValueError, "no layer has blocks to draw"),
    "no blocks in a report": (lambda: report(network()).plot(), ValueError, "no layer has blocks to draw"),
    "sparsity": (lambda: plot_schedule(SCHEDULES["criteo"], 90.0), ValueError, r"sparsity must be in \[0, 1\], got 90"),
    "a sparsifier": (lambda: plot_masks(sparse(network(), 4)), TypeError, "model is a Sparsifier"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize(("call", "kind", "words"), REFUSED.values(), ids=REFUSED)
def test_wrong_arguments_are_refused(call: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        call()
    assert plt.get_fignums() == []


def test_importing_the_package_does_not_import_matplotlib() -> None:
    code = "import sys, sparseopt.nn; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_missing_matplotlib_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    s = sparse(network(), 4, "sequential-attention++")
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    calls: list[Callable[[], Any]] = [
        lambda: plot_masks(s.model),
        lambda: plot_history(s),
        lambda: plot_attention(s),
        lambda: s.schedule.plot(),
    ]
    for draw in calls:
        with pytest.raises(ImportError, match="matplotlib, which draws, is not installed: pip install matplotlib"):
            draw()
