"""Small networks, and what a plan takes and leaves out. Imported by tests of plans."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from sparseopt.nn import Plan

__all__ = ["Deep", "mlp", "names", "reasons"]


def mlp(*sizes: int) -> nn.Sequential:
    return nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(sizes)))


def names(made: Plan) -> list[str]:
    return [layer.name for layer in made.layers]


def reasons(made: Plan) -> dict[str, str]:
    return {entry.name: entry.reason for entry in made.skipped}


class Deep(nn.Module):
    """Weights at several depths, one of them in the model itself."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(8, 8, 3)
        self.layer1 = nn.Sequential(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)), nn.Linear(8, 8))
        self.layer10 = nn.Sequential(nn.Linear(8, 8))
        self.words = nn.Embedding(8, 8)
