"""A pruned layer as methods see it: stored weight, logits, mask, and what is computed from them.

Everything is looked up at each access: `fully_shard` replaces parameters by sharded ones, and a checkpoint may replace
tensors. Numbers of whole layers are gathered from the shards, so that every process ranks the same ones: all processes
ask for them together.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from sparseopt.nn.blocks import BlockGrid
from sparseopt.nn.masks import PHASES, BlockMask
from sparseopt.nn.planning import LayerPlan
from sparseopt.nn.sharding import full, is_sharded, write

__all__ = ["Layer", "effective", "full", "write"]


def _wide(tensor: Tensor) -> Tensor:
    """Dense, and in float32 at least: squares of small numbers in half precision are 0."""
    tensor = tensor.to_dense() if tensor.is_sparse else tensor
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


@torch.no_grad()
def _factors(mask: BlockMask, weight: Tensor) -> Tensor:
    """`mask.factors` of a whole weight, with whole logits."""
    logits = mask.logits
    if logits is None or not is_sharded(logits):
        return mask.factors(weight)
    mask._parameters["logits"] = nn.Parameter(full(logits))
    try:
        return mask.factors(weight)
    finally:
        mask._parameters["logits"] = logits


@torch.no_grad()
def effective(mask: BlockMask, stored: Tensor) -> Tensor:
    """The whole weight that a layer computes with."""
    weight = full(stored)
    return mask.grid.scale(weight, _factors(mask, weight))


class Layer:
    """One weight of the plan, in one model.

    Attributes
    ----------
    plan : LayerPlan
        Its name, grid and sparsity.
    module, attribute
        The weight is `module.attribute`.
    """

    def __init__(self, plan: LayerPlan, model: nn.Module) -> None:
        owner, _, self.attribute = plan.name.rpartition(".")
        self.plan = plan
        self.module: Any = model.get_submodule(owner)

    @property
    def name(self) -> str:
        """The weight's name in the plain model."""
        return self.plan.name

    @property
    def grid(self) -> BlockGrid:
        """The blocks."""
        return self.plan.grid

    @property
    def chain(self) -> Any:
        """The parametrizations of the weight."""
        if not is_parametrized(self.module, self.attribute):
            raise ValueError(f"{self.name} has no mask any more: the model was folded, and pruning has ended.")
        return self.module.parametrizations[self.attribute]

    @property
    def mask(self) -> BlockMask:
        """The parametrization."""
        return next(each for each in self.chain if isinstance(each, BlockMask))

    @property
    def stored(self) -> nn.Parameter:
        """The trained parameter: the weight before the mask is applied."""
        return self.chain.original

    @property
    def logits(self) -> nn.Parameter | None:
        """The mask's trainable numbers, (R, C), or None."""
        return self.mask.logits

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Stored weight and logits."""
        return [self.stored] if self.logits is None else [self.stored, self.logits]

    def factors(self) -> Tensor:
        """What each block of the stored weight is multiplied by, (R, C)."""
        return _factors(self.mask, full(self.stored))

    def weight(self) -> Tensor:
        """The weight that the layer computes with."""
        return effective(self.mask, self.stored)

    @torch.no_grad()
    def norms(self) -> Tensor:
        """u of the stored weight, (R, C)."""
        return self.grid.norms(_wide(full(self.stored)))

    @torch.no_grad()
    def gradient_norms(self) -> Tensor | None:
        """||gradient|| of every block of the stored weight, (R, C); None before the first backward pass."""
        gradient = self.stored.grad
        return None if gradient is None else self.grid.norms(_wide(full(gradient)))

    @property
    def kept(self) -> Tensor:
        """The mask, bool (R, C): the blocks in use in sparse phases."""
        return self.mask.mask

    @torch.no_grad()
    def keep(self, mask: Tensor) -> None:
        """Set the mask."""
        self.mask.mask.copy_(mask)

    @torch.no_grad()
    def enter(self, kind: str) -> None:
        """Set the phase."""
        self.mask.phase.fill_(PHASES[kind])

    @torch.no_grad()
    def clear(self, blocks: Tensor) -> None:
        """Set the stored weight to 0 on the blocks where `blocks` (bool, (R, C)) holds."""
        stored = full(self.stored)
        write(self.stored, self.grid.scale(stored, (~blocks).to(stored.dtype)))
