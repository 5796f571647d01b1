"""Block PowerPropagation: the rich get richer.

    W_hat_T = W_T ||W_T||^(alpha - 1),       ||W_hat_T|| = ||W_T||^alpha

The gradient of a block is multiplied by its own size, so large blocks move and small ones stay small. With weight decay
on W the penalty on the blocks that the layer computes with is ||W_hat_T||^(2 / alpha): the group lasso for alpha = 2. A
block that reaches 0 stays 0. Otherwise the method is one-shot magnitude pruning, which it equals for alpha = 1.

References: Schwarz, Jayakumar, Pascanu, Latham, Teh (2021), "Powerpropagation: a sparsity inducing weight
reparameterisation", NeurIPS, for single weights; arXiv 2402.17902, Lemma 2.3, for blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from sparseopt.nn.layers import Layer
from sparseopt.nn.masks import BlockMask, PowerMask
from sparseopt.nn.methods.magnitude import Magnitude
from sparseopt.nn.planning import LayerPlan

__all__ = ["PowerPropagation"]


@dataclass(frozen=True)
class PowerPropagation(Magnitude):
    """Block PowerPropagation: half of the steps dense, half sparse, unless a schedule says otherwise.

    Parameters
    ----------
    alpha : float >= 1
        2 gives the group lasso; larger ones penalise less the larger a block is.

    Examples
    --------
    >>> PowerPropagation(alpha=3).alpha
    3.0
    """

    alpha: float = 2.0

    name: ClassVar[str] = "power-propagation"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1.0 <= self.alpha < float("inf"):
            raise ValueError(f"alpha must be at least 1 and finite, got {self.alpha}: 2 gives the group lasso.")

    def mask(self, layer: LayerPlan, weight: Tensor) -> BlockMask:
        return PowerMask(layer.grid, weight.device, self.alpha)

    def scores(self, layer: Layer) -> Tensor:
        # Of the blocks that the layer computes with: budgets that divide scores by costs see the difference.
        return layer.norms() ** self.alpha
