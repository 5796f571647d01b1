"""The mask e^w - 1, w >= 0: a mask whose penalty is sparse.

    W_hat_T = (e^(w_T) - 1) W_T,       w <- max(w, 0)  after every step of the optimizer

With the same weight decay on W and on the logits w, the penalty on the blocks that the layer computes with is

    q(u) = min_(w >= 0) w^2 + u^2 / (e^w - 1)^2,       at the minimum ||W_T||^2 = w (1 - e^(-w)),

concave with slope 2 at 0 and a tail of (ln u)^2: `sparseopt.regularizers.Expm1Mask`. It repairs Lemma 2.1 of arXiv
2402.17902, whose mask e^w costs nothing at w = 0, where it is 1: blocks are never pushed to 0 by it.

Blocks that the penalty does not want shrink by a constant factor per step, w and W together; w = 0 is reached where the
gradient pushes beyond it. Such a block is 0, and its W gets no gradient and only decays. Its logit does get one,
<W_T, gradient_T>: where that is negative the block comes back, in dense phases and in every other as long as it is not
dropped. Once W_T has decayed to 0 too, it stays out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sparseopt.nn.layers import Layer, full
from sparseopt.nn.masks import BlockMask, Expm1Mask
from sparseopt.nn.methods.method import Method
from sparseopt.nn.planning import LayerPlan
from sparseopt.nn.schedule import PhaseSchedule

__all__ = ["Expm1"]


@dataclass(frozen=True)
class Expm1(Method):
    """The expm1 mask, in the phases of SequentialAttention++ unless a schedule says otherwise.

    Parameters
    ----------
    rank : {"norm", "logit"}
        What ranks blocks: the norm of the block that the layer computes with, or its logit.

    Examples
    --------
    >>> Expm1(rank="logits")
    Traceback (most recent call last):
    ValueError: rank must be 'norm' or 'logit', got 'logits'.
    """

    rank: str = "norm"

    name: ClassVar[str] = "expm1"
    steps: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank not in ("norm", "logit"):
            raise ValueError(f"rank must be 'norm' or 'logit', got {self.rank!r}.")

    def schedule(self, total: int) -> PhaseSchedule:
        return PhaseSchedule.imagenet(total)

    def mask(self, layer: LayerPlan, weight: Tensor) -> BlockMask:
        return Expm1Mask(layer.grid, weight.device, weight.dtype)

    def scores(self, layer: Layer) -> Tensor:
        assert layer.logits is not None
        return full(layer.logits) if self.rank == "logit" else layer.norms() * layer.factors()

    @torch.no_grad()
    def stepped(self, layer: Layer, lr: float) -> None:
        assert layer.logits is not None
        layer.logits.detach().clamp_(min=0.0)
