"""What the pictures share: colours, the lam axis, marks on it, names at the ends of lines.

The colours are those of Okabe and Ito, which colour-blind readers can tell apart, without their yellow, which white
paper swallows. Nothing here changes a global setting.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "COLOURS",
    "GREY",
    "SMALL",
    "STYLES",
    "as_marks",
    "finish",
    "given_or_new_axes",
    "label_ends",
    "label_height",
    "lam_axis",
    "mark_lams",
    "new_axes",
    "require",
    "short",
]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
STYLES = ("-", "--", ":")
GREY = "#B8B8B8"
SMALL = 9.0  # points

Array = NDArray[np.float64]


def require(value: Any, kind: Any, name: str) -> None:
    if not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        raise TypeError(
            f"{name} is a {type(value).__name__}: pass a {' or a '.join(k.__name__ for k in kinds)} of sparseopt."
        )


def given_or_new_axes(ax: Any, size: tuple[float, float]) -> Any:
    return new_axes(size, 1)[0] if ax is None else ax


def new_axes(size: tuple[float, float], n: int) -> Any:
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError("matplotlib, which draws, is not installed: pip install matplotlib.") from error
    return plt.subplots(1, n, figsize=size, layout="constrained", squeeze=False)[1][0]


def lam_axis(ax: Any, lams: Array) -> None:
    ax.set_xscale("log")
    high, low = float(lams.max()), float(lams.min())
    ax.set_xlim((high, low) if high > low else (2.0 * high, 0.5 * low))
    ax.set_xlabel("lam, strength of the penalty")
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    ax.xaxis.set_minor_formatter(NullFormatter())
    if high < 100.0 * low:  # powers of ten alone would be too few
        ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))


def finish(ax: Any) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=SMALL)


def as_marks(mark: Any, lams: Array) -> dict[str, float]:
    """Label -> lam; ValueError for a lam outside of the path."""
    if mark is None:
        return {}
    if isinstance(mark, Mapping):
        marks = {str(label): float(lam) for label, lam in mark.items()}
    else:
        marks = {f"lam = {lam:.3g}": float(lam) for lam in np.atleast_1d(np.asarray(mark, dtype=np.float64))}
    low, high = float(lams.min()), float(lams.max())
    for label, lam in marks.items():
        if not (1.0 - 1e-9) * low <= lam <= (1.0 + 1e-9) * high:
            raise ValueError(f"mark {label!r} is {lam:g}: the path runs from lam {high:g} to {low:g}.")
    return marks


def mark_lams(ax: Any, marks: Mapping[str, float]) -> None:
    """Vertical lines, labelled on their left where there is room; labels of close lines stand one below another."""
    labels: dict[float, str] = {}
    for label, lam in marks.items():
        labels[lam] = f"{labels[lam]}, {label}" if lam in labels else label
    high, low = np.log(ax.get_xlim())
    before, below = -1.0, 0.0
    for lam, label in sorted(labels.items(), reverse=True):
        ax.axvline(lam, color="#444444", linewidth=1.0, linestyle=(0, (4, 3)), zorder=2)
        place = (high - np.log(lam)) / (high - low)
        below = below if place - before < 0.05 else 0.0
        ax.annotate(
            label,
            (lam, 0.98),
            xycoords=("data", "axes fraction"),
            xytext=(-3.0 if place > 0.05 else 3.0, -below),
            textcoords="offset points",
            rotation=90,
            ha="right" if place > 0.05 else "left",
            va="top",
            fontsize=SMALL,
            color="#444444",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5},
            zorder=5,
        )
        before, below = place, below + 0.62 * SMALL * len(label) + 8.0


def label_ends(ax: Any, ends: list[tuple[float, str, str]]) -> None:
    """Names to the right of the lines' ends, (height, name, colour), moved apart so that none overlap."""
    if not ends:
        return
    apart = label_height(ax)
    low, high = ax.get_ylim()
    wanted = np.array([(value - low) / (high - low) for value, _, _ in ends])
    for (value, name, colour), place in zip(ends, _spread(wanted, apart), strict=True):
        ax.annotate(
            short(name),
            (1.0, (value - low) / (high - low)),
            xycoords="axes fraction",
            xytext=(1.05, place),
            textcoords="axes fraction",
            va="center",
            fontsize=SMALL,
            color="#222222",
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linewidth": 1.2,
                "shrinkA": 1.0,
                "shrinkB": 0.0,
                "relpos": (0.0, 0.5),
            },
            annotation_clip=False,
        )


def label_height(ax: Any) -> float:
    """Height of a line of small text as a part of the axes' height.

    The layout may shrink the axes later, by a fifth or so, for ticks and titles.
    """
    return float(1.25 * SMALL / (0.82 * ax.get_window_extent().height / ax.figure.dpi * 72.0))


def short(name: str, longest: int = 24) -> str:
    """A long name without its middle: names often differ at the end."""
    return name if len(name) <= longest else f"{name[: longest - 10]}…{name[-9:]}"


def _spread(wanted: Array, apart: float) -> Array:
    """Heights in [0, 1] at least `apart` from each other, least squares near those wanted.

    Subtracting k * apart from the k-th in order turns distances into order: isotonic regression, by pooling.
    """
    order = np.argsort(wanted, kind="stable")
    room = max(1.0 - apart * (len(wanted) - 1), 0.0)
    blocks: list[list[float]] = []  # [sum, count]
    for k, value in enumerate(wanted[order]):
        blocks.append([float(value) - k * apart, 1.0])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] >= blocks[-1][0] / blocks[-1][1]:
            total, count = blocks.pop()
            blocks[-1][0] += total
            blocks[-1][1] += count
    level = np.concatenate([np.full(int(count), total / count) for total, count in blocks])
    out = np.empty(len(wanted))
    out[order] = np.clip(level, 0.0, room) + apart * np.arange(len(wanted))
    return out
