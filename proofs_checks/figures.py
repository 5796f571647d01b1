"""Figures as SVG that take the colours of the page they stand on.

Text and axes are drawn in one colour of their own, which becomes `currentColor` in the SVG, so a figure is legible on
light and on dark pages. Data use colours that stand out on both.
"""

from __future__ import annotations

import io
import re
from typing import Any

__all__ = ["COLOURS", "INK", "axes", "legend", "svg"]

COLOURS = ("#2f8fd0", "#e0692b", "#16a37a", "#cc79a7", "#8a7fd6", "#d99a00")  # legible on white and on near-black
INK = "#010203"  # stands for the colour of the page's text
_WIDTH = 7.2  # inches


def axes(n: int = 1, height: float = 3.2, **options: Any) -> tuple[Any, list[Any]]:
    """A figure with n axes side by side, without a background."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    figure.patch.set_alpha(0.0)
    made = figure.subplots(1, n, squeeze=False, **options)[0]
    for ax in made:
        ax.patch.set_alpha(0.0)
        ax.spines[["top", "right"]].set_visible(False)
        ax.spines[["left", "bottom"]].set_color(INK)
        ax.tick_params(colors=INK, which="both", labelsize=9)
        for text in (ax.xaxis.label, ax.yaxis.label, ax.title):
            text.set_color(INK)
            text.set_fontsize(10)
    return figure, list(made)


def legend(ax: Any, **options: Any) -> None:
    """A legend without a frame, in the colour of the text."""
    ax.legend(frameon=False, fontsize=9, labelcolor=INK, **options)


def svg(figure: Any, name: str) -> str:
    """The figure as an <svg> element that scales with the page; `name` keeps its ids apart from those of others."""
    import matplotlib

    out = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):
        figure.savefig(out, format="svg", metadata={"Date": None}, transparent=True)
    text = out.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    for size in ("width", "height"):  # of the element: the page sets them
        text = re.sub(rf'(<svg[^>]*?) {size}="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<image[^>]*?) id="[^"]*"', r"\1", text)  # by content, so that two may share it; nobody asks for it
    # Glyphs and clips are named by number: several figures on one page need names of their own.
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r'(xlink:href="|url\()#', rf"\1#{name}-", text)
    return text.strip()
