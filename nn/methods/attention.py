"""SequentialAttention++: the blocks compete for attention, and the least attended leave.

    W_hat = W * expand(A * mask),      A = clip(n softmax(logits), density, 1 / density)

dense phase      all blocks are used, weights and logits train
sparsify phase   blocks leave by attention until (1 - s(t)) n are left, s(t) = s (1 - e^(-c t)) / (1 - e^(-c))
sparse phase     the mask is fixed

Reference: Yasuda, Axiotis, Fu, Bateni, Mirrokni (2024), arXiv 2402.17902. What the text leaves open is an option, with
these defaults: blocks dropped in a sparsify phase stay out of it; all blocks stay in the softmax; the cycle's three
parts are equal; the weights of dropped blocks stay as they are, under the mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sparseopt.nn.layers import Layer, full
from sparseopt.nn.masks import BlockMask, SoftmaxMask
from sparseopt.nn.methods.method import Method, numbers
from sparseopt.nn.planning import LayerPlan, Plan
from sparseopt.nn.schedule import Phase, PhaseSchedule

__all__ = ["SequentialAttention"]


@dataclass(frozen=True)
class SequentialAttention(Method):
    """SequentialAttention++.

    Parameters
    ----------
    clip : bool
        Keep the attention within [density, 1 / density] of each layer.
    over : {"all", "alive"}
        Blocks that share the attention.
    rank : {"attention", "norm"}
        What ranks blocks: their attention, or the norm of the block that the layer computes with.
    zero : bool
        Set the weights of dropped blocks to 0, as AC/DC does.
    """

    clip: bool = True
    over: str = "all"
    rank: str = "attention"
    zero: bool = False

    name: ClassVar[str] = "sequential-attention++"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank not in ("attention", "norm"):
            raise ValueError(f"rank must be 'attention' or 'norm', got {self.rank!r}.")

    def schedule(self, total: int) -> PhaseSchedule:
        return PhaseSchedule.imagenet(total)

    def mask(self, layer: LayerPlan, weight: Tensor) -> BlockMask:
        density = layer.kept / layer.grid.n_blocks
        clip = (density, 1.0 / density) if self.clip else None
        return SoftmaxMask(layer.grid, weight.device, weight.dtype, clip, self.over)

    def choose(self, layers: Sequence[Layer], plan: Plan, phase: Phase, step: int) -> list[Tensor]:
        if step == 0 and self.rank == "attention":
            raise ValueError(
                "before the first step all blocks have the same attention, which ranks none of them: "
                "begin the schedule with a dense phase, or prune at once with method='magnitude'."
            )
        return super().choose(layers, plan, phase, step)

    def scores(self, layer: Layer) -> Tensor:
        if self.rank == "norm":
            return layer.norms() * layer.factors()
        assert layer.logits is not None
        # Not clipped, which would make the largest equal; and finer than float32, in which attentions of different
        # logits can be equal.
        logits = numbers(full(layer.logits))
        return torch.softmax(logits.flatten(), 0).view(logits.shape) * logits.numel()

    def selected(self, layer: Layer) -> None:
        if self.zero:
            layer.clear(~layer.kept)
