"""Pruning in one call: plan, masks, optimizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from sparseopt.nn.methods import Method, get_method
from sparseopt.nn.planning import INCLUDED, Plan
from sparseopt.nn.planning import plan as make_plan
from sparseopt.nn.readiness import planned_weights, require_plain, require_ready
from sparseopt.nn.schedule import PhaseSchedule
from sparseopt.nn.sparsifier import Sparsifier

__all__ = ["prune"]


def prune(
    model: nn.Module,
    optimizer: Optimizer | None = None,
    method: str | Method = "sequential-attention++",
    sparsity: float | None = None,
    block: int | tuple[int | None, int | None] = 16,
    total_steps: int | None = None,
    *,
    schedule: PhaseSchedule | None = None,
    plan: Plan | None = None,
    min_blocks: int = 100,
    include: Sequence[type[nn.Module]] = INCLUDED,
    exclude: Sequence[str | type[nn.Module]] = (),
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    budget: str = "uniform",
    example_input: Any = None,
    logit_lr: float = 1.0,
    logit_weight_decay: float | None = None,
    **settings: Any,
) -> Sparsifier:
    """Train `model` to block sparsity with the loop and the optimizer that are there.

    Parameters
    ----------
    model : nn.Module
        Gets masks in place: before it is compiled, or wrapped for distributed training.
    optimizer : Optimizer, optional
        Built before; it also gets the masks' logits, and drives everything from then on. Without it, call `add_to`
        and `attach` of the result later.
    method : str or Method
        "sequential-attention++", "ac/dc", "magnitude", ...: the names in `sparseopt.nn.METHODS`.
    sparsity, block, min_blocks, include, exclude, overrides, budget, example_input
        See `sparseopt.nn.plan`; or give a finished `plan` instead.
    total_steps : int
        Steps of the optimizer in the whole training (batches divided by accumulation).
    schedule : PhaseSchedule, optional
        Other phases than the method's own; then `total_steps` is not needed.
    logit_lr, logit_weight_decay : float
        Learning rate of the logits as a multiple of the weights', and their weight decay (None: the weights').
    **settings
        Settings of the method.

    Returns
    -------
    Sparsifier
        Call its `fold()` after training.

    Examples
    --------
    >>> import torch
    >>> model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 1))
    >>> optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    >>> s = prune(model, optimizer, sparsity=0.9, block=4, total_steps=60)
    >>> for _ in range(60):
    ...     optimizer.zero_grad()
    ...     model(torch.randn(8, 32)).square().mean().backward()
    ...     optimizer.step()
    >>> model = s.fold()
    >>> float((model[0].weight == 0).float().mean())
    0.90625
    """
    require_plain(model)
    if plan is None:
        if sparsity is None:
            raise ValueError("sparsity is missing: give the share of the blocks to drop, or a plan.")
        plan = make_plan(model, sparsity, block, min_blocks, include, exclude, overrides, budget, example_input)
    elif sparsity is not None and sparsity != plan.sparsity:
        raise ValueError(f"sparsity is {sparsity} and the plan has {plan.sparsity}: leave sparsity out.")
    method = get_method(method, **settings)
    if optimizer is not None:  # before the model gets masks: an error leaves it as it was
        require_ready(optimizer, method, planned_weights(model, plan), logit_lr, logit_weight_decay)
    sparsifier = Sparsifier(model, plan, method, total_steps, schedule)
    if optimizer is not None:
        sparsifier.add_to(optimizer, logit_lr, logit_weight_decay)
        sparsifier.attach(optimizer)
    return sparsifier
