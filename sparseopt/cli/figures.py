"""Figures in files: what a path chooses and, beside it, what the choice on it was made by."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any

from sparseopt.plotting import plot_choices, plot_cross_validation, plot_path, plot_sizes
from sparseopt.selection import SubsetPath
from sparseopt.solution import Path
from sparseopt.validation import CrossValidation

__all__ = ["can_draw", "check_figure_file", "draw", "draw_sizes"]


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def check_figure_file(file: str | FilePath) -> None:
    """ValueError unless a figure can be written under this name."""
    if not can_draw():
        raise ValueError("matplotlib, which draws, is not installed: pip install matplotlib, or leave out --plot.")
    if FilePath(file).suffix not in (".png", ".pdf", ".svg", ".jpg"):
        raise ValueError(f"A figure is saved as .png, .pdf, .svg or .jpg, not as {str(file)!r}: change the ending.")
    if not FilePath(file).parent.is_dir():
        raise ValueError(f"The folder of {str(file)!r} does not exist: create it first.")


def draw(found: Path | CrossValidation, file: str | FilePath, mark: Mapping[str, float], title: str) -> None:
    """Write a figure of a path, with cross-validation beside it if that was done."""
    from matplotlib.figure import Figure  # without pyplot: no window, whatever the backend

    validated = isinstance(found, CrossValidation)
    figure: Any = Figure(figsize=(13.0 if validated else 7.5, 4.8), layout="constrained")
    axes = figure.subplots(1, 2 if validated else 1, squeeze=False)[0]
    plot_path(found.path if isinstance(found, CrossValidation) else found, axes[0], mark=mark)
    if isinstance(found, CrossValidation):
        plot_cross_validation(found, axes[1])
    figure.suptitle(title, fontsize=12)
    figure.savefig(file, dpi=130)


def draw_sizes(found: SubsetPath | CrossValidation, file: str | FilePath, rule: str, k: int, title: str) -> None:
    """Write a figure of the groups chosen for every k, with what the rule compares beside it."""
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(13.0, 4.8), layout="constrained")
    axes = figure.subplots(1, 2)
    path: Any = found.path if isinstance(found, CrossValidation) else found
    plot_choices(path, axes[0], mark=k)
    plot_sizes(found, axes[1], rule=rule, mark=k)
    figure.suptitle(title, fontsize=12)
    figure.savefig(file, dpi=130)
