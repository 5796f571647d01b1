"""Budgets: how many blocks every layer keeps at a given sparsity.

    uniform   floor((1 - s) n_l) of the n_l blocks of layer l, at least 1
    erk       densities proportional to (out + in + sum kernel) / (out in prod kernel), scaled so that all layers
              together keep (1 - s) of their entries; layers that would exceed 1 stay dense (Evci et al. 2020)
    global    one ranking of the blocks of all layers; every layer keeps at least 1
    flops     one ranking by score per multiplication, down to the first block that (1 - s) of all multiplications do
              not pay for; every layer keeps at least 1

`uniform` and `erk` fix the numbers in advance. The other two compare scores between layers, so they know the numbers
only when the blocks are ranked; layers with a sparsity of their own (`Share.fixed`) stay out of that ranking. On the
way to the target, `progress` in [0, 1] says what share of the pruning is done: the sparsity asked for is progress * s.
Rankings are exact: equal scores go to the block that comes first, so the number of blocks never depends on ties, and
for the same scores, the blocks kept at more progress are among those kept at less.
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
_WHOLE = 1e-13  # products this close to a whole number, relative to their largest value, are that number


@dataclass(frozen=True)
class Share:
    """What one layer brings to a budget: its grid, sparsity, and multiplications per entry of the weight.

    `fixed` layers keep their own number of blocks under every budget.
    """

    grid: BlockGrid
    sparsity: float
    uses: float = 1.0
    fixed: bool = False


def kept_blocks(n_blocks: int, sparsity: float) -> int:
    """floor((1 - sparsity) n_blocks), at least 1; a product that is whole up to rounding counts as whole.

    >>> kept_blocks(100, 0.9), kept_blocks(109, 0.9), kept_blocks(5, 0.9)
    (10, 10, 1)
    """
    return max(1, math.floor((1.0 - sparsity) * n_blocks + _WHOLE * n_blocks))


def allot(grids: Sequence[BlockGrid], sparsity: float) -> list[float]:
    """The sparsity of every layer under `erk`.

    >>> [round(s, 3) for s in allot([BlockGrid((64, 64), (8, 8)), BlockGrid((256, 256), (8, 8))], 0.8)]
    [0.32, 0.83]
    """
    wanted = (1.0 - sparsity) * sum(grid.numel for grid in grids)
    ease = [sum(grid.shape) / grid.numel for grid in grids]
    dense: set[int] = set()
    # A layer that becomes dense takes less than its part was, so the factor of the others only grows: none returns.
    while True:
        free = [i for i in range(len(grids)) if i not in dense]
        left = max(0.0, wanted - sum(grids[i].numel for i in dense))
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
        (R, C) per layer, larger is better; -inf for a block that must not be kept. Such a block is kept only where a
        layer has no others for its number, or for its one block under `global` and `flops`.
    progress : float in [0, 1]
        Share of the pruning to do.

    Raises
    ------
    ValueError
        When the budget is unknown, or `flops` gets negative scores: divided by a cost, the cheap ones would come last.

    Examples
    --------
    >>> scores = [torch.tensor([[4.0, 3.0], [2.0, 1.0]]), torch.tensor([[9.0, 8.0], [7.0, 0.5]])]
    >>> shares = [Share(BlockGrid((4, 4), (2, 2)), 0.5), Share(BlockGrid((4, 4), (2, 2)), 0.5)]
    >>> [int(mask.sum()) for mask in choose("uniform", shares, scores)]
    [2, 2]
    >>> [int(mask.sum()) for mask in choose("global", shares, scores)]
    [1, 3]
    """
    if budget not in BUDGETS:
        raise ValueError(f"budget must be one of {', '.join(BUDGETS)}, got {budget!r}.")
    alone = [budget in ("uniform", "erk") or share.fixed for share in shares]
    masks = [
        keep_best(values, kept_blocks(share.grid.n_blocks, progress * share.sparsity)) if own else None
        for share, values, own in zip(shares, scores, alone, strict=True)
    ]
    ranked = [i for i, own in enumerate(alone) if not own]
    # On the CPU: sums along a ranking differ from run to run on a GPU, and some devices have no float64.
    values = [scores[i].detach().cpu().double() for i in ranked]
    if budget == "flops" and any(bool(((each < 0.0) & (each > -math.inf)).any()) for each in values):
        raise ValueError("budget='flops' divides scores by costs, and got negative scores: use scores of 0 or more.")
    sizes = [shares[i].grid.sizes().double() for i in ranked]
    costs = [
        torch.ones_like(size) if budget == "global" else size * shares[i].uses
        for i, size in zip(ranked, sizes, strict=True)
    ]
    limit = sum(
        (1.0 - progress * shares[i].sparsity) * float(cost.sum()) for i, cost in zip(ranked, costs, strict=True)
    )
    for i, mask in zip(ranked, _rank_together(values, costs, limit), strict=True):
        masks[i] = mask.to(scores[i].device)
    return [mask for mask in masks if mask is not None]


def _rank_together(scores: list[Tensor], costs: list[Tensor], limit: float) -> list[Tensor]:
    """The blocks with the best score per cost, as many as cost no more than `limit`; each layer's best comes first."""
    if not scores:
        return []
    masks = [keep_best(values, 1) for values in scores]
    taken = torch.cat([mask.flatten() for mask in masks])
    score = torch.cat([values.flatten() for values in scores])
    cost = torch.cat([each.flatten() for each in costs])
    barred = score == -math.inf
    # An embedding costs no multiplications: whatever it scores, it is worth keeping.
    worth = torch.where((cost == 0.0) & ~barred, math.inf, score / torch.where(cost == 0.0, 1.0, cost))
    worth[taken] = math.inf
    order = torch.sort(worth, descending=True, stable=True).indices
    spent = torch.cumsum(cost[order], 0)
    keep = (spent <= limit + _WHOLE * float(spent[-1])) & ~barred[order] | taken[order]
    together = torch.zeros_like(taken)
    together[order] = keep
    pieces = together.split([mask.numel() for mask in masks])
    return [piece.view(mask.shape) for piece, mask in zip(pieces, masks, strict=True)]
