"""What an optimizer knows of some parameters: their groups, learning rates and accumulated state.

Momentum and second moments of a dense phase describe another function than the sparse phase trains, so they are cleared
when a phase changes. Cleared means: as before the parameter's first step, the step count included. Zeroing the moments
of Adam but not its count would leave the bias correction of a long run, and the next update would be about three times
as large as it should be.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer

__all__ = ["clear_state", "group_of", "missing_from", "skipped"]

# State that starts as 0. Others start elsewhere (NAdam's mu_product at 1), and only the optimizer knows where.
_FROM_ZERO = {
    *("step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_inf"),
    *("momentum_buffer", "square_avg", "grad_avg", "acc_delta"),
}


def clear_state(optimizer: Optimizer, parameters: Iterable[Tensor]) -> None:
    """Make the optimizer forget the past of `parameters`.

    The entries are removed, and the optimizer starts them again at the next step. Those of `capturable` groups may
    belong to a captured CUDA graph: they are set to 0 in place where that is how they start (Adam, RMSprop, ...).
    """
    capturable = {id(p) for group in optimizer.param_groups if group.get("capturable", False) for p in group["params"]}
    for parameter in parameters:
        state = optimizer.state.get(parameter)
        if not state:
            continue
        if id(parameter) in capturable and set(state) <= _FROM_ZERO:
            for value in state.values():
                if isinstance(value, Tensor):
                    value.zero_()
        else:
            del optimizer.state[parameter]


def group_of(optimizer: Optimizer, parameter: Tensor) -> dict | None:
    """The parameter group that holds `parameter`, or None."""
    for group in optimizer.param_groups:
        if any(each is parameter for each in group["params"]):
            return group
    return None


def missing_from(optimizer: Optimizer, parameters: Iterable[tuple[str, Tensor]]) -> list[str]:
    """The names of the parameters that the optimizer does not train."""
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    return [name for name, parameter in parameters if id(parameter) not in held]


def skipped(optimizer: Optimizer) -> bool:
    """Whether the step that just ran changed nothing, because a GradScaler found infinite gradients.

    Most optimizers are not called at all then. A fused one is called with the finding, and skips inside its kernel.
    """
    found = getattr(optimizer, "found_inf", None)
    return isinstance(found, torch.Tensor) and bool(found.item())
