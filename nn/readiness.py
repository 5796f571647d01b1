"""What must hold before pruning starts, of the model, the plan and the optimizer.

Everything is checked before the model gets its first mask, so that an error leaves it as it was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.optim import LBFGS, Optimizer

from sparseopt.nn.layers import Layer
from sparseopt.nn.methods import Method
from sparseopt.nn.optstate import innermost, missing_from
from sparseopt.nn.planning import Plan
from sparseopt.nn.weights import is_pruned

__all__ = ["planned_weights", "require_optimizer", "require_plain", "require_ready", "require_whole"]


def planned_weights(model: nn.Module, plan: Plan) -> list[tuple[str, nn.Parameter]]:
    """Names and parameters that the plan is about.

    Raises
    ------
    ValueError
        When the model lacks one, has it in another shape, or prunes it already.
    FloatingPointError
        When one holds NaN or infinite numbers.
    """
    found = []
    modules = dict(model.named_modules())
    for entry in plan.layers:
        owner, _, attribute = entry.name.rpartition(".")
        module = modules.get(owner)
        if module is not None and is_pruned(module, attribute):
            raise ValueError(f"{entry.name} is being pruned already: fold() the model before pruning it again.")
        weight = None if module is None else module._parameters.get(attribute)
        if weight is None:
            raise ValueError(f"the model has no parameter {entry.name}: make the plan from this model.")
        if tuple(weight.shape) != entry.grid.shape:
            raise ValueError(
                f"{entry.name} has the shape {tuple(weight.shape)}, in the plan {entry.grid.shape}: "
                "make the plan from this model."
            )
        if not bool(torch.isfinite(weight.detach()).all()):
            raise FloatingPointError(f"the weights of {entry.name} are not finite: start from a sound checkpoint.")
        found.append((entry.name, weight))
    return found


def require_optimizer(optimizer: object) -> None:
    """Raise unless it is an optimizer."""
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}.")


def require_ready(
    optimizer: Optimizer,
    method: Method,
    weights: Sequence[tuple[str, nn.Parameter]],
    logit_lr: float = 1.0,
    logit_weight_decay: float | None = None,
) -> None:
    """Raise unless the optimizer trains the weights, and logits can join it; see `Sparsifier.add_to`."""
    require_optimizer(optimizer)
    if method.steps and isinstance(innermost(optimizer), LBFGS):
        raise ValueError(f"{method.name} needs steps in proportion to the learning rate, LBFGS has none: use SGD.")
    missing = missing_from(optimizer, [(name, weight) for name, weight in weights if weight.requires_grad])
    if missing:
        raise ValueError(f"the optimizer does not train {missing[0]}: exclude it from the plan, or add it.")
    for name, value in (("logit_lr", logit_lr), ("logit_weight_decay", logit_weight_decay)):
        if value is not None and not 0.0 <= value < math.inf:
            raise ValueError(f"{name} must be a finite number of at least 0, got {value}.")
    if logit_weight_decay is not None and any("weight_decay" not in group for group in optimizer.param_groups):
        raise ValueError(f"{type(optimizer).__name__} has no weight decay: leave logit_weight_decay out.")
    if logit_lr == 1.0 and logit_weight_decay is None:
        return
    if isinstance(innermost(optimizer), LBFGS):
        raise ValueError(
            "LBFGS has one group for all parameters: leave out the learning rate and weight decay of logits."
        )
    scheduled = any("initial_lr" in group for group in optimizer.param_groups)
    if scheduled or hasattr(optimizer.step, "_wrapped_by_lr_sched"):
        raise ValueError(
            "a learning-rate schedule was built before the logits got their own learning rate or weight decay: "
            "call prune(...) first and build the schedule after it."
        )


def require_plain(model: nn.Module) -> None:
    """Raise when the model is wrapped, compiled or sharded: names and parameters are then not those of the plan."""
    kind = type(model).__name__
    if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)) or kind == "FullyShardedDataParallel":
        raise ValueError(f"the model is wrapped in {kind}: prune it first, then wrap it.")
    if hasattr(model, "_orig_mod"):
        raise ValueError("the model is compiled: prune it first, then compile it.")
    if any(hasattr(parameter, "full_tensor") for parameter in model.parameters()):
        raise ValueError("the model's parameters are sharded: prune it first, then shard it.")


def require_whole(layer: Layer) -> None:
    """Raise when sharding has replaced the weight by a piece that is no matrix any more."""
    _ = layer.mask  # there is none on a folded model, which it says
    stored = getattr(layer.chain, "original", None)
    if not isinstance(stored, nn.Parameter) or tuple(stored.shape) != layer.grid.shape:
        now = tuple(stored.shape) if isinstance(stored, nn.Parameter) else "no parameter"
        raise ValueError(
            f"{layer.name} had the shape {layer.grid.shape} and is {now} now: "
            "blocks need whole rows, so shard with fully_shard, not with FullyShardedDataParallel or ZeRO-3."
        )
