"""Masks under an l1 penalty: one number per block, some of them exactly 0.

    W_hat_T = m_T W_T,      m <- sign(m) max(|m| - lr lam, 0)  after every step of the optimizer

The step on m is the proximal step of lam |m|. With weight decay wd on W, that is wd / 2 ||W||^2 in the loss, a block
that the layer computes with costs, at the best split into m and W (Lemma 2.2 of arXiv 2402.17902),

    min_m lam m + wd / 2 u^2 / m^2 = 3/2 lam^(2/3) wd^(1/3) u^(2/3),       u = ||W_hat_T||,   lam |m_T| = wd ||W_T||^2

A block at m = 0 comes back when |<W_T, gradient_T>| exceeds lam; its W only decays in the meantime. Without weight
decay there is nothing to split: W grows and m shrinks, at no cost. The penalty chooses the blocks, so it ends where the
choice does: in sparse phases m trains freely. Like decoupled weight decay, the threshold is lr lam under Adam as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sparseopt.nn.layers import Layer
from sparseopt.nn.masks import PHASES, BlockMask, LinearMask
from sparseopt.nn.methods.method import Method
from sparseopt.nn.planning import LayerPlan
from sparseopt.nn.schedule import PhaseSchedule

__all__ = ["MaskedL1"]


@dataclass(frozen=True)
class MaskedL1(Method):
    """l1-regularised masks: half of the steps dense, half sparse, unless a schedule says otherwise.

    At the end of the dense phase the blocks of largest norm stay, as many as the budget says: blocks at exactly 0 rank
    last. Fewer than that may be nonzero if lam is large.

    Parameters
    ----------
    lam : float >= 0
        The penalty. Weight decay on the weights is the optimizer's; that on the logits should be 0
        (`logit_weight_decay=0.0`), since decay on both is another penalty.
    """

    lam: float = 1e-4

    name: ClassVar[str] = "masked-l1"
    steps: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.lam < float("inf"):
            raise ValueError(f"lam must be 0 or a positive number, got {self.lam}.")

    def schedule(self, total: int) -> PhaseSchedule:
        return PhaseSchedule.one_shot(total)

    def mask(self, layer: LayerPlan, weight: Tensor) -> BlockMask:
        return LinearMask(layer.grid, weight.device, weight.dtype)

    def scores(self, layer: Layer) -> Tensor:
        return layer.norms() * layer.factors().abs()

    @torch.no_grad()
    def stepped(self, layer: Layer, lr: float) -> None:
        assert layer.logits is not None
        # A factor and not an `if`: reading the phase would make the host wait for the device.
        threshold = lr * self.lam * (layer.mask.phase != PHASES["sparse"])
        logits = layer.logits.detach()
        logits.copy_(logits.sign() * (logits.abs() - threshold).clamp(min=0.0))
