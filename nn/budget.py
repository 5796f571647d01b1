"""Budgets: how many blocks every layer keeps at a given sparsity.

    uniform   floor((1 - s) n_l) of the n_l blocks of layer l, at least 1
    erk       densities proportional to (out + in + sum kernel) / (out in prod kernel), scaled so that all layers
              together keep (1 - s) of their entries; layers that would exceed 1 stay dense (Evci et al. 2020)
    global    one ranking of the blocks of all layers; every layer keeps at least 1
    flops     one ranking by score per multiplication, until (1 - s) of all multiplications are spent

`uniform` and `erk` fix the numbers in advance. The other two compare scores between layers, so they know the numbers
only when the blocks are ranked. On the way to the target, `progress` in [0, 1] says what share of the pruning is done:
the sparsity asked for is progress * s. Rankings are exact: equal scores go to the block that comes first, so the
number of blocks never depends on ties.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparseopt.nn.blocks import BlockGrid

__all__ = ["BUDGETS", "Share", "allot", "choose", "keep_best", "kept_blocks"]

BUDGETS = ("uniform", "global", "erk", "flops")


@dataclass(frozen=True)
class Share:
    """What one layer brings to a budget: its grid, sparsity, and multiplications per entry of the weight."""

    grid: BlockGrid
    sparsity: float
    uses: float = 1.0


def kept_blocks(n_blocks: int, sparsity: float) -> int:
    """floor((1 - sparsity) n_blocks), at least 1; a product that is whole up to rounding counts as whole.

    >>> kept_blocks(100, 0.9), kept_blocks(109, 0.9), kept_blocks(5, 0.9)
    (10, 10, 1)
    """
    return max(1, math.floor((1.0 - sparsity) * n_blocks + 1e-9 * n_blocks))


def allot(grids: Sequence[BlockGrid], sparsity: float) -> list[float]:
    """The sparsity of every layer under `erk`.

    >>> [round(s, 3) for s in allot([BlockGrid((64, 64), (8, 8)), BlockGrid((256, 256), (8, 8))], 0.75)]
    [0.15, 0.788]
    """
    wanted = (1.0 - sparsity) * sum(grid.numel for grid in grids)
    ease = [(sum(grid.shape)) / grid.numel for grid in grids]
    dense: set[int] = set()
    while True:
        free = [i for i in range(len(grids)) if i not in dense]
        left = wanted - sum(grids[i].numel for i in dense)
        factor = left / sum(ease[i] * grids[i].numel for i in free) if free else 0.0
        over = {i for i in free if factor * ease[i] > 1.0}
        if not over:
            break
        dense |= over
    return [0.0 if i in dense else 1.0 - factor * ease[i] for i in range(len(grids))]


def keep_best(scores: Tensor, k: int) -> Tensor:
    """The mask of the k largest scores, bool of the same shape; among equals, those that come first."""
    order = torch.sort(scores.flatten(), descending=True, stable=True).indices
    mask = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    mask[order[:k]] = True
    return mask.view(scores.shape)


def choose(budget: str, shares: Sequence[Share], scores: Sequence[Tensor], progress: float = 1.0) -> list[Tensor]:
    """The masks of the blocks to keep, one per layer.

    Parameters
    ----------
    budget : {"uniform", "global", "erk", "flops"}
        `erk` expects the layers' sparsities from `allot`.
    shares : sequence of Share
        One per layer.
    scores : sequence of Tensor
        (R, C) per layer, larger is better; -inf for a block that must not be kept.
    progress : float in [0, 1]
        Share of the pruning to do.
    """
    if budget in ("uniform", "erk"):
        return [
            keep_best(values, kept_blocks(share.grid.n_blocks, progress * share.sparsity))
            for share, values in zip(shares, scores, strict=True)
        ]
    sizes = [share.grid.sizes().to(values.device) for share, values in zip(shares, scores, strict=True)]
    costs = [
        (torch.ones_like(size) if budget == "global" else size * share.uses).double()
        for share, size in zip(shares, sizes, strict=True)
    ]
    budgets = [(1.0 - progress * share.sparsity) * cost.sum() for share, cost in zip(shares, costs, strict=True)]
    return _rank_together([values.double() for values in scores], costs, torch.stack(budgets).sum())


def _rank_together(scores: list[Tensor], costs: list[Tensor], limit: Tensor) -> list[Tensor]:
    """The blocks with the best score per cost, as many as cost no more than `limit`; each layer's best comes first."""
    masks = [keep_best(values, 1) for values in scores]
    taken = torch.cat([mask.flatten() for mask in masks])
    # An embedding costs no multiplications: whatever it scores, it is worth keeping.
    worth = torch.cat([(values / cost.clamp(min=1e-300)).flatten() for values, cost in zip(scores, costs, strict=True)])
    worth[taken] = math.inf
    cost = torch.cat([each.flatten() for each in costs])
    order = torch.sort(worth, descending=True, stable=True).indices
    spent = torch.cumsum(cost[order], 0)
    keep = (spent <= limit * (1.0 + 1e-12)) & (worth[order] > -math.inf) | taken[order]
    together = torch.zeros_like(taken)
    together[order] = keep
    pieces = together.split([mask.numel() for mask in masks])
    return [piece.view(mask.shape) for piece, mask in zip(pieces, masks, strict=True)]
