"""What the pictures share: a look for every method, axes without a frame, the words for what was not run."""

from __future__ import annotations

from typing import Any

__all__ = ["FAINT", "INK", "SMALL", "look", "not_run", "plain_axes"]

INK = "#333333"
FAINT = "#DDDDDD"
SMALL = 9.0  # points

_LOOKS = {
    "sequential-attention++": ("#D55E00", "o", "-"),
    "ac/dc": ("#0072B2", "s", "-"),
    "power-propagation": ("#CC79A7", "^", "--"),
    "magnitude": ("#009E73", "D", "--"),
    "dense": (INK, "", "-"),
}
_MORE = ("#56B4E9", "#E69F00", "#000000")
_MARKERS = "vP*Xph"


def look(row: str) -> dict[str, Any]:
    """Colour, marker and dashes of a method: always the same, whatever else is drawn."""
    if row in _LOOKS:
        colour, marker, line = _LOOKS[row]
    else:
        number = sum(row.encode())
        colour, marker, line = _MORE[number % len(_MORE)], _MARKERS[number % len(_MARKERS)], ":"
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
