"""What the pictures share: a look for every method, axes without a frame, the words for what was not run.

Methods of the paper have a colour of their own; the others share three, and differ in their markers. The colours are
those of Okabe and Ito without their yellow, which white paper swallows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["FAINT", "INK", "SMALL", "legend_above", "look", "no_numbers", "not_run", "plain_axes"]

INK = "#333333"
FAINT = "#DDDDDD"
SMALL = 9.0  # points

_LOOKS = {
    "sequential-attention++": ("#D55E00", "o", "-"),
    "ac/dc": ("#0072B2", "s", "-"),
    "power-propagation": ("#CC79A7", "^", "--"),
    "magnitude": ("#009E73", "D", "--"),
    "dense": (INK, "", "-"),
    "gradual-magnitude": ("#56B4E9", "v", ":"),
    "masked-l1": ("#E69F00", "P", ":"),
    "expm1": ("#000000", "X", ":"),
    "group-lasso": ("#56B4E9", "<", ":"),
    "proximal": ("#E69F00", ">", ":"),
    "omp": ("#000000", "p", ":"),
    "ompr": ("#56B4E9", "h", ":"),
    "rigl": ("#E69F00", "d", ":"),
    "sequential-attention++ without sparsification": ("#8C3D00", "8", "-."),
}


def look(row: str) -> dict[str, Any]:
    """Colour, marker and dashes of a method: always the same, whatever else is drawn; one look for all unknown ones."""
    colour, marker, line = _LOOKS.get(row, ("#777777", "*", ":"))
    return {"color": colour, "marker": marker, "linestyle": line, "markersize": 5.0, "linewidth": 1.5}


def plain_axes(ax: Any) -> None:
    """No frame on top and right, small numbers, a faint grid."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=SMALL)
    ax.grid(color=FAINT, linewidth=0.6, zorder=0)
    ax.set_axisbelow(True)


def not_run(ax: Any, words: str = "not run") -> None:
    """Say in the middle of empty axes that there is nothing to show."""
    ax.text(0.5, 0.5, words, transform=ax.transAxes, ha="center", va="center", fontsize=11, color="#777777")


def no_numbers(axes: Iterable[Any]) -> None:
    """Leave out the numbers of axes that show nothing."""
    for ax in axes:
        ax.set_xticks([])
        ax.set_yticks([])


def legend_above(figure: Any, handles: Sequence[Any]) -> None:
    """A legend over all axes, in as few rows as the width of the figure allows. The figure has its size by now."""
    for columns in range(len(handles), 0, -1):
        place = {"loc": "outside upper center", "ncols": columns}
        legend = figure.legend(handles=handles, frameon=False, fontsize=SMALL, **place)
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()
