"""Pictures of a pruning (needs matplotlib).

    plot_masks       every layer's blocks as a small image: which are kept, how large they are, or how much attention
                     they get
    plot_history     sparsity against steps, with the phases behind it
    plot_schedule    the same before training: what a schedule is going to do
    plot_attention   histograms of the attention weights at the start of every phase, side by side

Rows of an image are blocks of outputs, columns blocks of inputs. Every function draws on the axes or the figure given,
or on new ones, and returns the axes; none shows a window or changes a global setting. Blue, orange and grey differ in
lightness too, so phases can be told apart without colours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sparseopt.nn.events import BINS, RANGE
from sparseopt.nn.layers import Layer
from sparseopt.nn.masks import LogitMask
from sparseopt.nn.planning import LayerPlan, Plan
from sparseopt.nn.reporting import Blocks, blocks_of, plain
from sparseopt.nn.schedule import EXPONENTIAL, KINDS, PhaseSchedule
from sparseopt.nn.sparsifier import Sparsifier

__all__ = ["draw_masks", "plot_attention", "plot_history", "plot_masks", "plot_schedule"]

PHASE_COLOURS = {"dense": "#B5D5EE", "sparsify": "#EBAE4B", "sparse": "#EEEEEE"}
KEPT, DROPPED = "#0072B2", "#EFEFEF"
SMALL = 9.0  # points


def plot_masks(
    model: nn.Module, colour: str = "kept", *, plan: Plan | None = None, block: Any = None, figure: Any = None
) -> Any:
    """The blocks of every layer, as one small image per layer.

    Images are stretched to one size; the number of blocks kept stands above each.

    Parameters
    ----------
    model : nn.Module
        With masks; or plain, with a plan or a block size. Layers without blocks are not drawn.
    colour : {"kept", "norm", "attention"}
        Colour of kept blocks: one for all, or by the norm of the block or its attention, as a multiple of the layer's
        mean over kept blocks.
    plan, block
        See `sparseopt.nn.report`.
    figure : matplotlib Figure or SubFigure, optional
        Default: a new one, as large as the number of layers needs.

    Returns
    -------
    list of matplotlib Axes
        One per layer, in the model's order.

    Raises
    ------
    ValueError
        When no layer has blocks, or `colour` is "attention" and no mask has any.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> [ax.get_title() for ax in plot_masks(model, block=4)]
    ['0\\n4 of 4', '2\\n2 of 2']
    """
    if colour not in ("kept", "norm", "attention"):
        raise ValueError(f"colour must be 'kept', 'norm' or 'attention', got {colour!r}.")
    model = plain(model)
    masks: dict[str, Tensor] = {}
    values: dict[str, Tensor] = {}
    for entry in blocks_of(model, plan, block):
        mask = entry.kept()
        if mask is not None and (colour != "attention" or isinstance(entry.mask, LogitMask)):
            masks[entry.names[0]] = mask
            if colour != "kept":
                values[entry.names[0]] = _relative(_values(model, entry, colour), mask)
    if colour == "attention" and not masks:
        raise ValueError("no mask of the model has attention: use colour='norm', or method='sequential-attention++'.")
    return draw_masks(masks, figure, values or None, f"{colour} / mean of the layer")


def plot_history(s: Sparsifier, ax: Any = None) -> Any:
    """Sparsity after every step so far, with the phases of the whole schedule behind it.

    Parameters
    ----------
    s : Sparsifier
        Its history is drawn up to its last step.
    ax : matplotlib Axes, optional
        Default: those of a new figure.

    Returns
    -------
    matplotlib Axes
    """
    steps = [event.step for event in s.history] + [s.step_count]
    # Nothing changes between events; and after `s.fold()` there is no mask left to ask.
    sparsity = [event.sparsity for event in (*s.history, s.history[-1])]
    ax = _phases(s.schedule, ax)
    (line,) = ax.plot(steps, sparsity, color="black", linewidth=1.4, drawstyle="steps-post", zorder=3)
    _finish(ax, s.schedule, line, "sparsity of the pruned layers")
    return ax


def plot_schedule(
    schedule: PhaseSchedule, sparsity: float = 1.0, share: Callable[[float], float] = EXPONENTIAL, ax: Any = None
) -> Any:
    """The sparsity that a schedule asks for at every step.

    Parameters
    ----------
    schedule : PhaseSchedule
        The phases.
    sparsity : float
        The target, reached in sparse phases.
    share : callable
        Share of the pruning that is done at progress t in [0, 1] of a sparsify phase.
    ax : matplotlib Axes, optional
        Default: those of a new figure.

    Returns
    -------
    matplotlib Axes

    Examples
    --------
    >>> plot_schedule(PhaseSchedule.imagenet(1000), sparsity=0.9).get_ylabel()
    'sparsity'
    """
    if not 0.0 <= sparsity <= 1.0:
        raise ValueError(f"sparsity must be in [0, 1], got {sparsity}: it is the share of the blocks to drop.")
    steps: list[float] = []
    targets: list[float] = []
    for phase in schedule.phases:
        parts = 60 if phase.kind == "sparsify" else 1
        for part in range(parts + 1):
            t = part / parts
            steps.append(phase.start + t * (phase.stop - phase.start))
            targets.append(sparsity * {"dense": 0.0, "sparsify": share(t), "sparse": 1.0}[phase.kind])
    ax = _phases(schedule, ax)
    (line,) = ax.plot(steps, targets, color="black", linewidth=1.4, zorder=3)
    _finish(ax, schedule, line, "sparsity")
    return ax


def plot_attention(s: Sparsifier, ax: Any = None) -> Any:
    """How attention is spread over the blocks in use, at the start of every phase so far.

    One column per phase; the darker a cell, the more blocks of all layers have about this attention. 1 is the mean of
    a layer over all its blocks. The strip below tells what kind of phase starts.

    Parameters
    ----------
    s : Sparsifier
        A method with attention: masks with one trainable number per block.
    ax : matplotlib Axes, optional
        Default: those of a new figure.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ValueError
        When the method has no attention.
    """
    events = [event for event in s.history if event.attention]
    if not events:
        raise ValueError(f"the method {s.method.name!r} has no attention to draw: use 'sequential-attention++'.")
    counts = torch.tensor([event.attention for event in events], dtype=torch.float64)
    shares = (counts / counts.sum(1, keepdim=True).clamp(min=1.0)).T
    ax = _given_or_new(ax, (7.5, 4.2))
    from matplotlib.colors import LogNorm
    from matplotlib.patches import Patch
    from matplotlib.ticker import LogLocator, NullFormatter

    powers = torch.linspace(*RANGE, BINS + 1, dtype=torch.float64)
    used = shares.sum(1).nonzero().flatten()
    low, high = max(0, int(used[0]) - 1), min(BINS, int(used[-1]) + 2)
    shown = shares.masked_fill(shares == 0.0, math.nan).numpy()
    edges = [number - 0.5 for number in range(len(events) + 1)]
    image = ax.pcolormesh(edges, 10.0 ** powers.numpy(), shown, cmap="viridis_r", norm=LogNorm(1e-3, 1.0))
    ax.set_yscale("log")
    ax.set_ylim(10.0 ** float(powers[low]), 10.0 ** float(powers[high]))
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set_ylabel("attention of a block in use")
    every = -(-len(events) // 12)
    ax.set_xticks(range(0, len(events), every), [f"{event.step:,}" for event in events[::every]])
    ax.set_xlabel("step at which a phase starts")
    strip = ax.inset_axes((0.0, -0.05, 1.0, 0.035), sharex=ax)
    strip.set_axis_off()
    for number, event in enumerate(events):
        strip.axvspan(number - 0.5, number + 0.5, color=PHASE_COLOURS[event.phase], linewidth=0)
    ax.tick_params(axis="x", pad=14, length=0, labelsize=SMALL)
    ax.tick_params(axis="y", labelsize=SMALL)
    kinds = [kind for kind in KINDS if any(event.phase == kind for event in events)]
    _legend(ax, [Patch(color=PHASE_COLOURS[kind], label=kind) for kind in kinds])
    bar = ax.figure.colorbar(image, ax=ax, pad=0.02, aspect=30, extend="min")
    bar.set_label("share of the blocks in use (white: none)")
    return ax


def draw_masks(
    masks: Mapping[str, Tensor], figure: Any = None, values: Mapping[str, Tensor] | None = None, label: str = ""
) -> Any:
    """Masks by name of the weight, bool (R, C); with `values` for kept blocks, coloured on a log scale around 1."""
    if not masks:
        raise ValueError("no layer has blocks to draw: prune the model first, or pass plan= or block=.")
    n_columns = _columns(len(masks))
    n_rows = -(-len(masks) // n_columns)
    side = 3.0 if len(masks) <= 2 else 2.0 if len(masks) <= 12 else 1.55
    if figure is None:
        figure = _pyplot().figure(figsize=(1.0 + side * n_columns, 0.8 + 0.93 * side * n_rows), layout="constrained")
    from matplotlib.colors import LinearSegmentedColormap, LogNorm
    from matplotlib.patches import Patch

    grid = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    two = LinearSegmentedColormap.from_list("kept", [DROPPED, KEPT])
    widest = _widest(masks, values or {})
    image: Any = None
    for ax, (name, mask) in zip(grid, masks.items(), strict=False):
        # Blocks smaller than a pixel would vanish by chance: there a mixed colour tells how many are kept.
        fine = mask.shape[0] > 65.0 * side or mask.shape[1] > 95.0 * side
        look: dict[str, Any] = {"aspect": "auto", "interpolation": "auto" if fine else "nearest"}
        if values is None:
            image = ax.imshow(mask.numpy(), cmap=two, vmin=0, vmax=1, **look)
        else:
            shown = values[name].masked_fill(~mask, math.nan).numpy()
            image = ax.imshow(shown, cmap="viridis_r", norm=LogNorm(1.0 / widest, widest, clip=True), **look)
            ax.set_facecolor(DROPPED)
        title = f"{name.removesuffix('.weight')}\n{int(mask.sum()):,} of {mask.numel():,}"
        ax.set_title(title, fontsize=7.0 if side < 2.0 else SMALL, pad=2.0)
        ax.set_xticks([])
        ax.set_yticks([])
        for spine in ax.spines.values():
            spine.set(color="#999999", linewidth=0.6)
    for ax in grid[len(masks) :]:
        ax.set_axis_off()
    figure.supxlabel("blocks of inputs", fontsize=SMALL)
    figure.supylabel("blocks of outputs", fontsize=SMALL)
    patches = [Patch(color=KEPT, label="kept"), Patch(facecolor=DROPPED, edgecolor="#999999", label="dropped")]
    if values is not None:
        bar = figure.colorbar(image, ax=list(grid), pad=0.01, aspect=40)
        bar.set_label(label, fontsize=SMALL)
        marks = [1.0 / widest, widest**-0.5, 1.0, widest**0.5, widest]
        bar.set_ticks(marks, labels=[f"{mark:.2g}" for mark in marks], fontsize=SMALL)
        bar.ax.minorticks_off()
    needed = patches if values is None else patches[1:]
    figure.legend(handles=needed, loc="outside upper right", ncols=2, fontsize=SMALL, frameon=False)
    return list(grid[: len(masks)])


def _values(model: nn.Module, entry: Blocks, colour: str) -> Tensor:
    assert entry.grid is not None
    if colour == "norm":
        return entry.grid.norms(entry.weight.float()).cpu()
    return Layer(LayerPlan(entry.names[0], entry.grid, 0.0), model).factors().abs().float().cpu()


def _columns(n: int) -> int:
    """Columns of a grid that is a little wider than high, with few empty places."""
    best = round(math.sqrt(1.6 * n))
    return min(range(max(1, best - 1), best + 2), key=lambda k: (-n % k, -k))


def _widest(masks: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> float:
    """The r of a colour scale from 1 / r to r that holds all values of kept blocks, in [1.5, 100]."""
    used = [values[name][mask] for name, mask in masks.items() if name in values and bool(mask.any())]
    logs = [each.abs().clamp(1e-2, 1e2).log().abs().max() for each in used]
    return max(1.5, math.exp(float(max(logs)))) if logs else 1.5


def _relative(values: Tensor, mask: Tensor) -> Tensor:
    mean = values[mask].mean() if bool(mask.any()) else values.new_tensor(1.0)
    return values / mean


def _phases(schedule: PhaseSchedule, ax: Any) -> Any:
    """Axes with a span of colour for every phase."""
    ax = _given_or_new(ax, (7.5, 3.6))
    for phase in schedule.phases:
        ax.axvspan(phase.start, phase.stop, color=PHASE_COLOURS[phase.kind], linewidth=0, zorder=0)
    return ax


def _finish(ax: Any, schedule: PhaseSchedule, line: Any, label: str) -> None:
    from matplotlib.patches import Patch

    ax.set_xlim(0, schedule.total)
    ax.set_ylim(0.0, 1.02)
    ax.set_xlabel("step of the optimizer")
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.set_ylabel(label)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=SMALL)
    line.set_label("sparsity")
    kinds = [kind for kind in KINDS if any(phase.kind == kind for phase in schedule.phases)]
    _legend(ax, [line, *(Patch(color=PHASE_COLOURS[kind], label=kind) for kind in kinds)])


def _legend(ax: Any, handles: Sequence[Any]) -> None:
    place = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "borderaxespad": 0.2}
    compact = {"handlelength": 1.4, "handletextpad": 0.5, "columnspacing": 1.2, "fontsize": SMALL, "frameon": False}
    ax.legend(handles=handles, ncols=4, **place, **compact)


def _given_or_new(ax: Any, size: tuple[float, float]) -> Any:
    return _pyplot().subplots(figsize=size, layout="constrained")[1] if ax is None else ax


def _pyplot() -> Any:
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError("matplotlib, which draws, is not installed: pip install matplotlib.") from error
    return plt
