"""The pictures of one run: losses over phases, sparsity over steps, the blocks that were kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparseopt.nn import plot_history, plot_masks

if TYPE_CHECKING:
    from sparseopt.experiments.training.engine import Trainer

__all__ = ["draw_run"]


def draw_run(run: Trainer, network: Any) -> list[Path]:
    """Write training.png, and for a pruned network blocks.png, into the folder of the run."""
    from matplotlib.figure import Figure

    s, folder = run.sparsifier, run.folder
    steps, epochs = folder.table("steps.csv"), folder.table("epochs.csv")
    picture = Figure(figsize=(8.0, 6.0 if s is not None else 3.4), layout="constrained")
    axes = picture.subplots(1 if s is None else 2, 1, sharex=True, squeeze=False)[:, 0]
    top = axes[0]
    top.plot(_column(steps, "step"), _column(steps, "loss"), color="#999999", linewidth=0.8, label="training loss")
    metric = f"valid_{run.task.metric}"
    twin = top if run.task.metric == "loss" else top.twinx()
    twin.plot(
        _column(epochs, "step"),
        _column(epochs, metric),
        "o-",
        color="#D55E00",
        markersize=4,
        label=metric.replace("_", " "),
    )
    top.set_ylabel("loss")
    if twin is not top:
        twin.set_ylabel(metric.replace("_", " "))
    if s is not None:
        plot_history(s, ax=axes[1])
    else:
        top.set_xlabel("step")
    handles = [each for ax in dict.fromkeys((top, twin)) for each in ax.get_legend_handles_labels()[0]]
    picture.legend(handles=handles, loc="outside upper center", ncols=2, frameon=False)
    picture.savefig(folder.path / "training.png", dpi=150)
    files = [folder.path / "training.png"]
    if s is not None:
        blocks = Figure(layout="constrained")
        plot_masks(network, plan=s.plan, figure=blocks)
        blocks.savefig(folder.path / "blocks.png", dpi=150)
        files.append(folder.path / "blocks.png")
    return files


def _column(rows: list[dict[str, str]], name: str) -> list[float]:
    return [float(row[name]) for row in rows]
