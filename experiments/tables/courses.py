"""Pictures of the course of trainings: the schedule, and the training accuracy or loss over it.

Both look at one cell, the one with curves of the most methods; among equals the paper's (90 %, for images blocks of
32 x 32), then the one with the most seeds, the highest sparsity, the largest blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sparseopt.experiments.tables.cells import OURS, Cell, Group, Grouped, Metric
from sparseopt.experiments.tables.published import Table
from sparseopt.experiments.tables.runs import Run
from sparseopt.experiments.tables.styles import INK, SMALL, legend_above, look, no_numbers, not_run, plain_axes
from sparseopt.experiments.tables.wording import block_text

__all__ = ["schedule", "training"]

PHASES = {"dense": "#B5D5EE", "sparsify": "#EBAE4B", "sparse": "#EEEEEE"}  # as in sparseopt.nn.plot_schedule
_PAPER_PLACE = {"criteo": (None, 90.0), "imagenet": ((32, 32), 90.0), "cifar": ((32, 32), 90.0)}
_TWO = ("ac/dc", OURS)
Place = tuple[tuple[int, int], float]


class Span(NamedTuple):
    """A phase, from and to a share of the training."""

    kind: str
    start: float
    stop: float


def shown_place(data: Grouped, rows: Sequence[str]) -> Place | None:
    """Block and sparsity of the cell that is looked at, None without curves."""
    found: dict[Place, list[Group]] = {}
    for cell, groups in data.cells.items():
        if cell.row in rows and cell.block is not None and cell.sparsity is not None and len(groups) == 1:
            if _curves(groups[0]):
                found.setdefault((cell.block, cell.sparsity), []).append(groups[0])
    block, share = _PAPER_PLACE[data.kind]

    def rank(place: Place) -> Any:
        fits = place[1] == share and block in (None, place[0])
        return (len(found[place]), fits, sum(len(group.runs) for group in found[place]), place[1], place[0])

    return max(found, key=rank, default=None)


def _curves(group: Group) -> list[Run]:
    return [run for run in group.runs if run.curves.get("steps", {}).get("loss")]


# -- schedule ----------------------------------------------------------------------------------------------------------


def schedule(figure: Any, data: Grouped, table: Table, metric: Metric) -> None:
    """Sparsity over the training with its phases, of AC/DC and SequentialAttention++: the paper's and ours."""
    place = shown_place(data, _TWO)
    share = 90.0 if place is None else place[1]
    figure.set_size_inches(9.0, 4.9)
    panels = figure.subplots(2, 2, sharex=True, sharey=True)
    for column, row in enumerate(_TWO):
        top, bottom = panels[:, column]
        spans, line = _asked(data.kind, row == OURS, share)
        _draw_schedule(top, spans, *line)
        whose = "ImageNet" if data.kind != "criteo" else "Criteo"
        top.set_title(row, fontsize=10)
        groups = () if place is None else data.cells.get(Cell(row, *place), ())
        run = next((run for group in groups for run in _curves(group) if run.phases), None)
        if run is None:
            plain_axes(bottom)
            not_run(bottom)
            continue
        total = sum(length for _, length in run.phases)
        chosen = run.curves["pruning"]
        at = [100.0 * step / total for step in chosen["step"]] + [100.0]
        sparsity = [100.0 * each for each in chosen["sparsity"]]
        _draw_schedule(bottom, _spans(run.phases), at, [*sparsity, sparsity[-1]])
    whose = "Criteo" if data.kind == "criteo" else "ImageNet"
    panels[0, 0].set_ylabel(f"the paper's for {whose}:\nsparsity, %", fontsize=SMALL)
    panels[1, 0].set_ylabel(f"ours{f' at {_where(place)}' if place else ''}:\nsparsity, %", fontsize=SMALL)
    for ax in panels[1]:
        ax.set_xlabel("training, % of all steps", fontsize=SMALL)
    panels[0, 0].set_xlim(0.0, 100.0)
    panels[0, 0].set_ylim(0.0, 103.0)
    _phase_legend(figure)


def _asked(kind: str, sparsify: bool, share: float) -> tuple[list[Span], tuple[list[float], list[float]]]:
    """The paper's phases, and the sparsity that they ask for, over percent of the training."""
    from sparseopt.nn import PhaseSchedule

    total = 6000
    make = PhaseSchedule.criteo if kind == "criteo" else PhaseSchedule.imagenet
    phases = make(total, sparsify)
    every = phases.targets()
    line = ([100.0 * n / total for n in range(total)], [share * each for each in every])
    return [Span(p.kind, 100.0 * p.start / total, 100.0 * p.stop / total) for p in phases.phases], line


def _spans(phases: Sequence[Sequence[Any]]) -> list[Span]:
    total, at, spans = sum(length for _, length in phases), 0, []
    for kind, length in phases:
        spans.append(Span(kind, 100.0 * at / total, 100.0 * (at + length) / total))
        at += length
    return spans


def _draw_schedule(ax: Any, spans: Sequence[Span], at: Sequence[float], sparsity: Sequence[float]) -> None:
    plain_axes(ax)
    ax.grid(visible=False)
    for span in spans:
        ax.axvspan(span.start, span.stop, color=PHASES[span.kind], linewidth=0, zorder=0)
    ax.plot(at, sparsity, color="black", linewidth=1.3, drawstyle="steps-post", zorder=3)


def _where(place: Place) -> str:
    return f"{place[1]:g} %, {block_text(place[0])}"


def _course(run: Run, name: str, scale: float) -> tuple[list[float], list[float]]:
    """Steps and numbers of a column, without the lines that have none."""
    curve = run.curves["steps"]
    good = [(step, scale * value) for step, value in zip(curve["step"], curve[name], strict=True) if value is not None]
    return [step for step, _ in good], [value for _, value in good]


def _phase_legend(figure: Any, further: Sequence[Any] = ()) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles = [
        Patch(facecolor=colour, edgecolor="#999999", linewidth=0.5, label=f"{kind} phase")
        for kind, colour in PHASES.items()
    ]
    handles += further or [Line2D([], [], color="black", linewidth=1.3, label="sparsity")]
    legend_above(figure, handles)


# -- training ----------------------------------------------------------------------------------------------------------


def training(figure: Any, data: Grouped, table: Table, metric: Metric) -> None:
    """The course of every method over its own phases, the others' in grey behind it.

    The training accuracy, if all runs that are shown have recorded it; else the training loss.
    """
    from matplotlib.lines import Line2D

    rows = table.methods(data)
    place = shown_place(data, rows)
    shown = {row: data.cells.get(Cell(row, *place), ()) for row in rows} if place else {}
    drawn = [run for groups in shown.values() if len(groups) == 1 for run in _curves(groups[0])]
    exact = bool(drawn) and all("accuracy" in run.curves["steps"] for run in drawn)
    name, scale = ("accuracy", 100.0) if exact else ("loss", 1.0)
    every = {row: _mean_curve(groups, name, scale) for row, groups in shown.items()}
    curves = {row: curve for row, curve in every.items() if curve is not None}
    columns = min(2, max(1, len(rows)))
    lines = max(1, -(-len(rows) // columns))
    figure.set_size_inches(5.0 * columns, 0.9 + 2.3 * lines)
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for ax, row in zip(panels, rows, strict=False):
        plain_axes(ax)
        ax.set_title(row, fontsize=10)
        groups = shown.get(row, ())
        if row not in curves:
            not_run(ax, "several settings: see the table" if len(groups) > 1 else "no curve" if groups else "not run")
            continue
        _phases_behind(ax, groups[0])
        for other, curve in curves.items():
            if other != row:
                ax.plot(*curve, color="#777777", linewidth=1.1, linestyle=":", zorder=2)
        for run in _curves(groups[0]):
            ax.plot(*_course(run, name, scale), color=look(row)["color"], linewidth=0.5, alpha=0.4, zorder=3)
        ax.plot(*curves[row], color=look(row)["color"], linewidth=1.6, zorder=4)
    for ax in panels[len(rows) :]:
        ax.set_visible(not rows)
        not_run(ax)
    for ax in panels[max(0, len(rows) - columns) : len(rows)]:
        ax.tick_params(labelbottom=True)  # also where no axes stand below
    if not curves:
        no_numbers(panels)
    else:
        points = [point for curve in curves.values() for point in zip(*curve, strict=True)]
        last = max(step for step, _ in points)
        late = [value for step, value in points if step > 0.05 * last]  # the steep beginning would flatten the rest
        low, high = min(late), max(late)
        panels[0].set_ylim(low - 0.05 * (high - low or 1.0), high + 0.05 * (high - low or 1.0))
        panels[0].set_xlim(0.0, last)
    figure.supxlabel(
        "step of the optimizer"
        + (f", {place[1]:g} % of the blocks of {block_text(place[0])} dropped" if place else ""),
        fontsize=SMALL,
    )
    figure.supylabel("training accuracy, %" if exact else "training loss", fontsize=SMALL)
    further = [
        Line2D([], [], color=INK, linewidth=1.6, label="mean over seeds"),
        Line2D([], [], color=INK, linewidth=0.5, alpha=0.5, label="a seed"),
        Line2D([], [], color="#777777", linewidth=1.1, linestyle=":", label="the others"),
    ]
    _phase_legend(figure, further)


def _phases_behind(ax: Any, group: Group) -> None:
    phases = next((run.phases for run in group.runs if run.phases), [])
    at = 0
    for kind, length in phases:
        ax.axvspan(at, at + length, color=PHASES[kind], linewidth=0, zorder=0)
        at += length
    ax.grid(visible=not phases)


def _mean_curve(groups: Sequence[Group], name: str, scale: float) -> tuple[list[float], list[float]] | None:
    """Steps and means over the seeds, where all of them have a number; diverged runs only if there are no others."""
    runs = _curves(groups[0]) if len(groups) == 1 else []
    runs = [run for run in runs if not run.diverged] or runs
    curves = [dict(zip(*_course(run, name, scale), strict=True)) for run in runs]
    if not curves:
        return None
    common = sorted(set.intersection(*(set(curve) for curve in curves)))
    return (common, [sum(curve[step] for curve in curves) / len(curves) for step in common]) if common else None
