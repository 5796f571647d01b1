"""Blocks that are not in use, seen once: their gradient, and a clean start for those that come into use.

    forward      W_hat = W * expand(alive)
    backward     dL/dW = dL/dW_hat * expand(alive or probe)

The gradient of the weight that the layer computes with does not depend on what lies under the mask, so dL/dW of a
dropped block is how much the loss would gain from it. `probe` (bool) is a buffer: it changes no code, and gradients of
dropped blocks pass in the one step before they are needed. In that step the optimizer moves the dropped blocks, and
gradient clipping counts them. Nobody sees them: `restart_blocks` sets them and their momentum to 0.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import Optimizer

from sparseopt.nn.blocks import BlockGrid
from sparseopt.nn.layers import Layer, full, write
from sparseopt.nn.masks import BlockMask
from sparseopt.nn.optstate import group_of

__all__ = ["ProbedMask", "restart_blocks"]

# What optimizers remember of past gradients; step sizes and slow weights are left alone.
_MOMENTA = {"momentum_buffer", "exp_avg", "grad_avg", "exp_inf", "acc_delta", "sum", "prev"}
_SQUARES = {"exp_avg_sq", "max_exp_avg_sq", "square_avg"}


class ProbedMask(BlockMask):
    """A `BlockMask` that lets gradients of dropped blocks pass while `probe` is set.

    Examples
    --------
    >>> mask = ProbedMask(BlockGrid((2, 4), (2, 2)))
    >>> mask.mask[0, 1] = False
    >>> _ = mask.phase.fill_(2), mask.probe.fill_(True)
    >>> weight = torch.ones(2, 4, requires_grad=True)
    >>> mask(weight).sum().item()
    4.0
    >>> mask(weight).sum().backward()
    >>> weight.grad
    tensor([[1., 1., 1., 1.],
            [1., 1., 1., 1.]])
    """

    probe: Tensor

    def __init__(self, grid: BlockGrid, device: torch.device | None = None) -> None:
        super().__init__(grid, device)
        self.register_buffer("probe", torch.zeros((), dtype=torch.bool, device=device))

    def forward(self, weight: Tensor) -> Tensor:
        alive = self.alive()
        seen = alive | self.probe
        # x - x is 0, but only the first of them has a gradient.
        shown = self.grid.scale(weight, seen)
        return shown - self.grid.scale(weight.detach(), seen & ~alive)


@torch.no_grad()
def restart_blocks(layer: Layer, blocks: Tensor, optimizer: Optimizer | None) -> None:
    """Set the stored weight of some blocks to 0, and what the optimizer remembers of them to a start.

    Momentum becomes 0. The step count belongs to the whole weight and stays, so Adam's second moments must not become
    0: what is divided by a long run's bias correction would make the first update (1 - beta1) / sqrt(1 - beta2) times
    the learning rate, 3.2 with the usual numbers, and later ones up to 6.6 times. They become the mean squared gradient
    of the block: then a gradient of that size moves it by no more than the learning rate.

    Parameters
    ----------
    layer : Layer
        A pruned layer.
    blocks : Tensor
        Bool, (R, C).
    optimizer : Optimizer, optional
        Trains the layer's weight.
    """
    layer.clear(blocks)
    grid, gradient = layer.grid, layer.gradient_norms()
    group = None if optimizer is None else group_of(optimizer, layer.stored)
    if optimizer is None or group is None:
        return
    state = optimizer.state.get(layer.stored, {})
    corrected = 1.0 - group.get("betas", (0.0, 0.0))[1] ** float(state.get("step", 1))
    start = torch.zeros_like(blocks, dtype=torch.float32)
    if gradient is not None:
        start = corrected * gradient.square() / grid.sizes().to(gradient.device)
    for key, value in state.items():
        if isinstance(value, Tensor) and value.shape == layer.stored.shape and key in _MOMENTA | _SQUARES:
            first = group.get("initial_accumulator_value", 0.0) if key == "sum" else 0.0
            fresh = start if key in _SQUARES else torch.full_like(start, first)
            write(value, torch.where(grid.expand(blocks), grid.expand(fresh.to(value.dtype)), full(value)))
