"""Pictures of benchmarks (needs matplotlib).

    plot_speed_up    how many times faster sparse is than the fastest dense form, against the batch size

One panel for every sparsity, one line for every block size and way to run it. The dashed line is 1 / density, where
only multiplications count; at the grey one, sparse and dense take the same time. Both axes are logarithmic: to be twice
as fast is the same distance everywhere. No global setting is changed and no window shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sparseopt.nn.sparse.benchmark import Result

__all__ = ["plot_speed_up"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")  # those of Okabe and Ito
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY, DARK = "#999999", "#444444"
SMALL = 9.0  # points


def plot_speed_up(results: Sequence[Result], figure: Any = None) -> Any:
    """Speed-up against batch size, with the line at 1 / density.

    Parameters
    ----------
    results : sequence of Result
        Of one network or one layer.
    figure : matplotlib Figure or SubFigure, optional
        Default: a new one.

    Returns
    -------
    list of matplotlib Axes
        One for every sparsity, in the order of the results.

    Raises
    ------
    ValueError
        When there are no results, or several cases among them.

    Examples
    --------
    >>> times = [Result("mlp", (16, 16), 0.9, 0.1, n, {"torch": 8.0}, {"auto": 1.0}) for n in (1, 4, 16)]
    >>> [ax.get_title() for ax in plot_speed_up(times)]
    ['mlp, 90 % of the blocks dropped']
    """
    cases = list(dict.fromkeys(result.case for result in results))
    if len(cases) != 1:
        raise ValueError(f"a picture shows the results of one case, got {len(cases)}: draw each on its own.")
    sparsities = list(dict.fromkeys(result.sparsity for result in results))
    lines = list(dict.fromkeys((result.block, name) for result in results for name in result.sparse))
    if figure is None:
        figure = _figure((1.2 + 4.4 * len(sparsities), 4.2))
    panels = list(figure.subplots(1, len(sparsities), squeeze=False, sharey=True)[0])
    for ax, sparsity in zip(panels, sparsities, strict=True):
        shown = [result for result in results if result.sparsity == sparsity]
        _panel(ax, shown, lines)
        ax.set_title(f"{cases[0]}, {100 * sparsity:g} % of the blocks dropped", fontsize=SMALL + 1.0)
    heights = [
        1.0,
        *(each.limit for each in results),
        *(each.speed_up(name) for each in results for name in each.sparse),
    ]
    panels[0].set_ylim(min(heights) / 1.3, max(heights) * 1.4)
    panels[0].set_ylabel("times faster than the fastest dense form", fontsize=SMALL)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6), fontsize=SMALL, frameon=False)
    return panels


def _panel(ax: Any, results: Sequence[Result], lines: Sequence[tuple[tuple[int, int] | None, str]]) -> None:
    names, blocks = {name for _, name in lines}, {block for block, _ in lines}
    batches = sorted({result.batch for result in results})
    ax.axhline(1.0, color=GREY, linewidth=1.0, zorder=1)
    limits = sorted({result.limit for result in results})
    for limit in limits if limits[-1] > 1.1 * limits[0] else limits[-1:]:
        ax.axhline(limit, color=DARK, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)
    for number, (block, name) in enumerate(lines):
        points = [(each.batch, each.speed_up(name)) for each in results if each.block == block and name in each.sparse]
        sizes = "" if block is None or len(blocks) == 1 else f"blocks of {block[0]} x {block[1]}"
        label = ", ".join(part for part in (name if len(names) > 1 or not sizes else "", sizes) if part)
        look = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
        ax.plot(*zip(*sorted(points), strict=True), label=label, linewidth=1.6, markersize=4.5, zorder=3, **look)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log", base=2)
    ax.set_xticks(batches, [f"{batch:,}" for batch in batches])
    ax.set_xlim(batches[0] / 1.3, batches[-1] * 1.3)
    ax.minorticks_off()
    ax.yaxis.set_major_formatter("{x:g}")
    ax.set_xlabel("batch size", fontsize=SMALL)
    ax.tick_params(labelsize=SMALL)
    ax.spines[["top", "right"]].set_visible(False)
    place = {"xycoords": ax.get_yaxis_transform(), "textcoords": "offset points", "fontsize": SMALL - 1.0}
    ax.annotate(f"1 / density = {limits[-1]:.3g}", (0.01, limits[-1]), (0, 3), color=DARK, va="bottom", **place)
    ax.annotate("dense", (0.99, 1.0), (0, -3), color=GREY, va="top", ha="right", **place)


def _figure(size: tuple[float, float]) -> Any:
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError("matplotlib, which draws, is not installed: pip install matplotlib.") from error
    return plt.figure(figsize=size, layout="constrained")
