"""What a recipe trains on: a task knows its network, its examples and what is good.

    Recipe -> Task -> network, feeds of batches, loss, metrics

A feed gives this process's share of every global batch, so that the same global batches are seen whatever the number
of processes. Metrics are computed over all examples of all processes: sums in float64, and for the area under the
curve all outputs, gathered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sparseopt.experiments.training.recipes import Recipe

__all__ = ["Feed", "Gather", "Task", "make_task"]

# All processes' tensors (n_r, ...) of one kind, joined along the first axis in the order of the processes.
Gather = Callable[[Tensor], Tensor]


class Feed(Protocol):
    """Batches of one process, epoch by epoch."""

    rows: int

    def __len__(self) -> int:
        """Global batches of an epoch."""

    def epoch(self, number: int, start: int = 0) -> Iterator[Any]:
        """This process's share of the global batches start, start + 1, ... of an epoch."""


class Task(Protocol):
    """A kind of problem. `metric` is what decides, smaller is better if it is a loss."""

    metric: str
    units: str

    def network(self) -> nn.Module:
        """A fresh network, initialised from torch's global generator, or the one that the recipe starts from."""

    def feed(self, part: str, batch: int, rank: int, world: int) -> Feed:
        """Batches of "train", shuffled, or "valid", in order and to the last example."""

    def split(self, batch: Any, parts: int) -> list[Any]:
        """A batch as `parts` batches, for accumulated gradients."""

    def inputs(self, batch: Any) -> tuple[Any, ...]:
        """The positional arguments of the network."""

    def size(self, batch: Any) -> int:
        """Examples in a batch."""

    def loss(self, output: Tensor, batch: Any) -> Tensor:
        """The mean training loss of a batch."""

    def right(self, output: Tensor, batch: Any) -> Tensor:
        """The share of the examples that are named rightly."""

    def metrics(self, outputs: Iterator[tuple[Tensor, Any]], gather: Gather) -> dict[str, float]:
        """What the outputs for all batches of a feed are worth."""

    def facts(self) -> dict[str, Any]:
        """What a reader of results should know of the examples: numbers and names, none of the data."""


def make_task(recipe: Recipe) -> Task:
    """The task of a recipe.

    What is read faster in another form is kept in the folder `data.cache`, or `output.folder` / "data".
    """
    cache = Path(recipe.data.cache or Path(recipe.output.folder, "data"))
    if recipe.task == "clicks":
        from sparseopt.experiments.training.click_task import ClickTask

        return ClickTask(recipe, cache)
    from sparseopt.experiments.training.image_task import ImageTask

    return ImageTask(recipe, cache)


def mean_loss(total: Tensor, count: Tensor, gather: Gather) -> float:
    """The mean over the examples of all processes."""
    sums = gather(torch.stack([total.double(), count.double()])[None]).sum(0)
    return float(sums[0] / sums[1]) if float(sums[1]) > 0.0 else float("nan")


def at_least_float(output: Tensor) -> Tensor:
    """What a network of half precision says, in float32, in which losses are computed."""
    return output if output.dtype == torch.float64 else output.float()
