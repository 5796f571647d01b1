"""The pictures of `group_recovery`, from its rows alone.

    group-recovery.png               exact recovery against n: a row per rule, a column per family of methods
    group-recovery-map.png           exact recovery by n and the number of true groups, with the line where it is 50 %
    group-recovery-correlation.png   methods by correlations of the columns

Colours are those of `sparseopt.plotting`, and cividis, which colour-blind readers can read.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparseopt.experiments.group_recovery_report import Row, ceiling, wilson
from sparseopt.plotting.axes import COLOURS, GREY, SMALL, finish

__all__ = ["draw", "draw_correlation", "draw_curves", "draw_map"]

RULES = {
    "first": "k known: first k groups",
    "best": "k known: best k groups of the path",
    "ebic": "k unknown: EBIC",
}
FAMILIES = {"penalty": "separable penalties", "composite": "problem (1) of the paper", "selector": "selectors"}
REFERENCES = {"l2": "group lasso", "splicing": "splicing"}
MAP = "cividis"


def draw(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Write every picture that the rows allow; the files."""
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for panel, ending, make in (("n", "", draw_curves), ("map", "-map", draw_map)):
        if any(row.panel == panel for row in rows):
            figure: Any = Figure(layout="constrained")
            make([row for row in rows if row.panel == panel], figure)
            files.append((figure, folder / f"group-recovery{ending}.png"))
    if any(row.panel == "correlation" for row in rows):
        figure = Figure(layout="constrained")
        draw_correlation(rows, figure)
        files.append((figure, folder / "group-recovery-correlation.png"))
    for figure, file in files:
        figure.savefig(file, dpi=110)
    return [file for _, file in files]


# -- curves ------------------------------------------------------------------------------------------------------------


def draw_curves(rows: Sequence[Row], figure: Any) -> None:
    """Recovery against n; in every panel, to compare, group lasso (black) and splicing (grey, with a 95 % interval)."""
    families = [name for name in FAMILIES if any(row.family == name for row in rows)]
    figure.set_size_inches(1.0 + 4.6 * len(families), 11.5)
    axes = figure.subplots(len(RULES), len(families), squeeze=False, sharey=True, sharex=True)
    setting = rows[0].setting
    unit = setting["active"] * log(setting["n_groups"])
    for j, family in enumerate(families):
        names = list(dict.fromkeys(row.method for row in rows if row.family == family))
        looks = _looks([name for name in names if name not in REFERENCES])
        for i, rule in enumerate(RULES):
            ax = axes[i, j]
            shown = [row for row in rows if row.rule == rule]
            _reference(ax, [row for row in shown if row.method == "splicing"], GREY, 6.0)
            _reference(ax, [row for row in shown if row.method == "l2"], "black", 2.2)
            if rule != "ebic":
                n = list(dict.fromkeys(row.setting["n"] for row in rows))
                bounds = [ceiling([row for row in rows if row.setting["n"] == value]) for value in n]
                ax.plot(n, bounds, color="black", linewidth=1.0, linestyle=(0, (1, 2)))
            for name, look in looks.items():
                mine = [row for row in shown if row.method == name]
                ax.plot(*_xy(mine), label=name, markersize=4.0, linewidth=1.4, **look)
            finish(ax)
            ax.axhline(0.5, color=GREY, linewidth=0.8, linestyle=(0, (2, 3)), zorder=0)
            ax.set_ylim(-0.03, 1.03)
            if j == 0:
                ax.set_ylabel(f"{RULES[rule]}\nexact recovery", fontsize=SMALL + 1.0)
        top = axes[0, j].secondary_xaxis("top", functions=(lambda n: n / unit, lambda share: share * unit))
        top.tick_params(labelsize=SMALL)
        top.set_xlabel(f"{FAMILIES[family]}\nn / (k log p)", fontsize=SMALL + 2.0)
        axes[-1, j].set_xlabel("n, samples")
        axes[-1, j].legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2, fontsize=SMALL, frameon=False, handlelength=2.6
        )
    figure.suptitle(
        f"{setting['active']} of {setting['n_groups']} groups of {setting['size']} matter, independent columns, "
        f"signal-to-noise ratio {setting['snr']:g}, {rows[0].seeds} problems per point\n"
        "grey band: 95 % interval of splicing; dotted: no exact search for the least loss can do better",
        fontsize=SMALL + 3.0,
    )


def _looks(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """A colour, a line and a mark for each name; black is taken."""
    colours = [colour for colour in COLOURS if colour != "#000000"]
    styles, marks = ("-", (0, (4, 2)), (0, (1, 1.2))), ("o", "s", "^")
    return {
        name: {
            "color": colours[at % len(colours)],
            "linestyle": styles[at // len(colours) % 3],
            "marker": marks[at // len(colours) % 3],
        }
        for at, name in enumerate(names)
    }


def _xy(rows: Sequence[Row]) -> tuple[list[int], list[float]]:
    return [row.setting["n"] for row in rows], [row.rate for row in rows]


def _reference(ax: Any, rows: Sequence[Row], colour: str, width: float) -> None:
    if rows:
        x, y = _xy(rows)
        if colour == GREY:
            ends = np.array([wilson(row.exact.count("1"), row.seeds) for row in rows])
            ax.fill_between(x, ends[:, 0], ends[:, 1], color=GREY, alpha=0.25, linewidth=0.0, zorder=0.5)
        ax.plot(x, y, color=colour, linewidth=width, label=REFERENCES[rows[0].method], zorder=1.0)


# -- map ---------------------------------------------------------------------------------------------------------------


def draw_map(rows: Sequence[Row], figure: Any) -> None:
    """Recovery by n and k, rule best; each panel with its own line of 50 % and, dashed, that of splicing."""
    from matplotlib.patheffects import withStroke

    rows = [row for row in rows if row.rule == "best"]
    names = list(dict.fromkeys(row.method for row in rows))
    across = min(3, len(names))
    down = -(-len(names) // across)
    figure.set_size_inches(1.5 + 4.0 * across, 0.9 + 3.5 * down)
    axes = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True).ravel()
    short = {(row.method, row.setting["active"], row.setting["n"]): row.short for row in rows}
    n, k, shares = _grid([row for row in rows if row.method == "splicing"] or rows[: len(rows) // len(names)])
    for ax, name in zip(axes, names, strict=False):
        _, _, mine = _grid([row for row in rows if row.method == name])
        image = ax.pcolormesh(np.arange(len(n)), np.arange(len(k)), mine, cmap=MAP, vmin=0.0, vmax=1.0)
        for values, style in ((shares, (0, (3, 2))), (mine, "-")):
            if min(mine.shape) > 1 and values.min() < 0.5 < values.max():
                ax.contour(values, levels=[0.5], colors="white", linewidths=5.0, alpha=0.55, linestyles="-")
                ax.contour(values, levels=[0.5], colors="#D55E00" if style == "-" else "black", linestyles=[style])
        for (i, j), share in np.ndenumerate(mine):
            text = f"{100 * share:.0f}" + "*" * bool(short[name, k[i], n[j]])
            outline = [withStroke(linewidth=2.0, foreground="black" if _ink(share) == "white" else "white")]
            ax.text(j, i - 0.38, text, ha="center", fontsize=7.0, color=_ink(share), path_effects=outline, zorder=5)
        ax.set_title(name, fontsize=SMALL + 2.0)
        ax.set_xticks(range(len(n)), [str(value) for value in n], fontsize=SMALL)
        ax.set_yticks(range(len(k)), [str(value) for value in k], fontsize=SMALL)
    for ax in axes[len(names) :]:
        ax.set_visible(False)
    for ax in axes[: len(names)][-across:]:
        ax.set_xlabel("n, samples")
    for ax in axes[::across]:
        ax.set_ylabel("k, true groups")
    bar = figure.colorbar(image, ax=list(axes), shrink=0.7, label="exact recovery, k known (best)")
    bar.ax.tick_params(labelsize=SMALL)
    setting = rows[0].setting
    figure.suptitle(
        f"k of {setting['n_groups']} groups of {setting['size']}, signal-to-noise ratio {setting['snr']:g}, "
        f"{rows[0].seeds} problems per cell; per cent in cells\n"
        "50 % line: orange of this method, black dashes of splicing"
        + ("; * some paths have no solution with k groups" if any(short.values()) else ""),
        fontsize=SMALL + 2.0,
    )


def _grid(rows: Sequence[Row]) -> tuple[list[int], list[int], NDArray[np.float64]]:
    """The n, the k, and the rates by k and n."""
    n = sorted({row.setting["n"] for row in rows})
    k = sorted({row.setting["active"] for row in rows})
    rates = {(row.setting["active"], row.setting["n"]): row.rate for row in rows}
    return n, k, np.array([[rates[i, j] for j in n] for i in k])


def _ink(share: float) -> str:
    return "white" if share < 0.55 else "black"


# -- correlation -------------------------------------------------------------------------------------------------------


def draw_correlation(rows: Sequence[Row], figure: Any) -> None:
    """Methods by correlations, a panel per rule; methods in the order of their mean by the rule best."""
    correlated = [row for row in rows if row.panel == "correlation"]
    n = correlated[0].setting["n"]
    plain = [row for row in rows if row.panel == "n" and row.setting["n"] == n]
    methods = list(dict.fromkeys(row.method for row in correlated))
    columns = {"0": plain}
    for kind, word in (("within", "in"), ("between", "next")):
        for rho in sorted({row.setting[kind] for row in correlated} - {0.0}):
            columns[f"{word}\n{rho:g}"] = [row for row in correlated if row.setting[kind] == rho]
    rates = {(row.method, row.rule, label): row.rate for label, column in columns.items() for row in column}

    def values(rule: str) -> NDArray[np.float64]:
        return np.array([[rates.get((name, rule, label), np.nan) for label in columns] for name in methods])

    order = np.argsort(-np.nanmean(values("best"), axis=1), kind="stable")
    figure.set_size_inches(4.2 + 3.0 * len(RULES), 1.9 + 0.27 * len(methods))
    axes = figure.subplots(1, len(RULES), sharey=True)
    for ax, rule in zip(axes, RULES, strict=True):
        shown = values(rule)[order]
        image = ax.imshow(shown, cmap=MAP, vmin=0.0, vmax=1.0, aspect="auto")
        for (i, j), share in np.ndenumerate(shown):
            if not np.isnan(share):
                ax.text(j, i, f"{100 * share:.0f}", ha="center", va="center", fontsize=8.0, color=_ink(share))
        ax.set_title(RULES[rule], fontsize=SMALL + 1.0)
        ax.set_xticks(range(len(columns)), list(columns), fontsize=SMALL)
        ax.set_yticks(range(len(methods)), [methods[at] for at in order], fontsize=SMALL)
        ax.tick_params(length=0.0)
        for edge in (0.5, 0.5 + sum(label.startswith("in") for label in columns)):
            ax.axvline(edge, color="white", linewidth=3.0)
    figure.colorbar(image, ax=list(axes), shrink=0.6, label="exact recovery")
    setting = correlated[0].setting
    figure.suptitle(
        f"Exact recovery in per cent, n = {n}, {setting['active']} of {setting['n_groups']} groups "
        f"of {setting['size']}, signal-to-noise ratio {setting['snr']:g}\n"
        f"columns: independent (0); correlation of columns in a group; correlation of neighbouring (next) groups",
        fontsize=SMALL + 2.0,
    )
