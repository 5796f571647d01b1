"""What an optimizer knows of some parameters: their groups, learning rates and accumulated state.

Momentum and second moments of a dense phase describe another function than the sparse phase trains, so they are cleared
when a phase changes. Cleared means: as before the parameter's first step, the step count included. Zeroing the moments
of Adam but not its count t would leave the bias correction of a long run, and the next update would be

    (1 - beta_1) / (1 - beta_1^t) * sqrt(1 - beta_2^t) / sqrt(1 - beta_2)

times as large as it should be: 2.94 times for the usual betas after t = 2000 steps.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import LBFGS, SGD, Adagrad, Optimizer

from sparseopt.nn.sharding import full, is_sharded

__all__ = ["clear_state", "drop_parameters", "group_of", "innermost", "join", "missing_from", "nested", "skipped"]

_TORCH = Optimizer.profile_hook_step.__code__.co_filename
# State that starts as 0; `_first` knows the rest of what torch's optimizers keep.
_FROM_ZERO = {
    *("step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_inf", "momentum_buffer", "square_avg", "grad_avg"),
    *("acc_delta", "ax", "prev"),
}


@torch.no_grad()
def clear_state(optimizer: Optimizer, parameters: Iterable[Tensor]) -> None:
    """Make the optimizer forget the past of `parameters`: their next update is that of an optimizer built now.

    The entries are removed, and the optimizer starts them again at the next step. Those of `capturable` groups may
    belong to a captured CUDA graph, which would go on with the old tensors: they get their first values in place. So do
    those of sharded parameters: `torch.distributed.checkpoint` cannot load what has a state for some parameters only.
    Adagrad makes its state when it is built, in older versions of torch only then, so it is written anew. Fused SGD
    fails where only some parameters of a group have momentum: theirs becomes 0, which is the same without dampening.
    LBFGS has one state for all parameters together, and forgets all of it.
    """
    inner = innermost(optimizer)
    if isinstance(inner, LBFGS):
        optimizer.state.clear()
        return
    kept = {
        id(p) for g in optimizer.param_groups for p in g["params"] if g.get("capturable", False) or _is_listed(g, p)
    }
    for parameter in parameters:
        group = group_of(optimizer, parameter)
        if group is None:
            continue
        state = optimizer.state.get(parameter)
        if isinstance(inner, Adagrad):
            optimizer.state[parameter] = _adagrad(optimizer, group, parameter)
        elif isinstance(inner, SGD) and group.get("fused") and _moves(optimizer, group):
            optimizer.state[parameter] = {"momentum_buffer": torch.zeros_like(parameter)}
        elif state and id(parameter) in kept and all(_known(key, value, group) for key, value in state.items()):
            for key, value in state.items():
                value.fill_(_first(key, group))
        elif state:
            del optimizer.state[parameter]


def _is_listed(group: dict[str, Any], parameter: Tensor) -> bool:
    """Whether a checkpoint must have a state for the parameter. Momentum with dampening has no 0 to start from."""
    return is_sharded(parameter) and not group.get("dampening", 0.0)


def _moves(optimizer: Optimizer, group: dict[str, Any]) -> bool:
    states = [optimizer.state.get(parameter, {}) for parameter in group["params"]]
    return any(state.get("momentum_buffer") is not None for state in states)


def _first(key: str, group: dict[str, Any]) -> Any:
    """What an entry of the state is before the first step; None where only the optimizer knows."""
    if key in _FROM_ZERO:
        return 0.0
    if key in ("mu", "mu_product"):  # ASGD, NAdam
        return 1.0
    return group["lr"] if key in ("eta", "step_size") else None  # ASGD, Rprop


def _known(key: str, value: Any, group: dict[str, Any]) -> bool:
    return isinstance(value, Tensor) and _first(key, group) is not None


def _adagrad(optimizer: Optimizer, group: dict[str, Any], parameter: Tensor) -> dict[str, Tensor]:
    first = optimizer.defaults["initial_accumulator_value"]
    device = parameter.device if group.get("fused") else None
    return {
        "step": torch.zeros((), dtype=torch.float32, device=device),
        "sum": torch.full_like(parameter, first, memory_format=torch.preserve_format),
    }


def group_of(optimizer: Optimizer, parameter: Tensor) -> dict[str, Any] | None:
    """The parameter group that holds `parameter`, or None."""
    for group in optimizer.param_groups:
        if any(each is parameter for each in group["params"]):
            return group
    return None


def missing_from(optimizer: Optimizer, parameters: Iterable[tuple[str, Tensor]]) -> list[str]:
    """The names of the parameters that the optimizer does not train."""
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    return [name for name, parameter in parameters if id(parameter) not in held]


def join(
    optimizer: Optimizer,
    named: Iterable[tuple[str, Tensor, Tensor]],
    lr: float = 1.0,
    weight_decay: float | None = None,
) -> None:
    """Let the optimizer train new parameters, each beside one that it has.

    Parameters
    ----------
    named : iterable of (name, parameter, neighbour)
        The parameter gets the settings of its neighbour's group; those of the first group if the optimizer does not
        hold the neighbour.
    lr : float
        Learning rate as a multiple of the neighbour's.
    weight_decay : float, optional
        Weight decay; the neighbour's by default.
    """
    own = lr != 1.0 or weight_decay is not None
    beside: dict[int, list[tuple[str, Tensor]]] = {}
    for name, parameter, neighbour in named:
        beside.setdefault(id(group_of(optimizer, neighbour) or optimizer.param_groups[0]), []).append((name, parameter))
    for group in list(optimizer.param_groups):
        new = beside.get(id(group), [])
        if own and new:
            settings = {k: v for k, v in group.items() if k not in ("params", "param_names", "initial_lr")}
            settings |= {"lr": group["lr"] * lr}
            settings |= {} if weight_decay is None else {"weight_decay": weight_decay}
            settings["params"] = new if "param_names" in group else [parameter for _, parameter in new]
            optimizer.add_param_group(settings)
        else:
            group["params"].extend(parameter for _, parameter in new)
            if "param_names" in group:
                group["param_names"].extend(name for name, _ in new)
        _resized(optimizer)
        clear_state(optimizer, [parameter for _, parameter in new])


def drop_parameters(optimizer: Optimizer, parameters: Iterable[Tensor]) -> None:
    """Take parameters out of the optimizer, their state included; a group that becomes empty stays."""
    gone = {id(parameter) for parameter in parameters}
    for group in optimizer.param_groups:
        stay = [i for i, p in enumerate(group["params"]) if id(p) not in gone]
        for parameter in group["params"]:
            if id(parameter) in gone:
                optimizer.state.pop(parameter, None)
        # In place: LBFGS holds on to the list.
        for key in ("params", "param_names"):
            if key in group:
                group[key][:] = [group[key][i] for i in stay]
    _resized(optimizer)


def _resized(optimizer: Optimizer) -> None:
    """LBFGS remembers how many numbers it trains, and directions of that length."""
    inner = innermost(optimizer)
    if isinstance(inner, LBFGS):
        inner._numel_cache = None
        inner.state.clear()


def innermost(optimizer: Optimizer) -> Optimizer:
    """What a wrapper such as `Proximal` is built around."""
    while isinstance(getattr(optimizer, "optimizer", None), Optimizer):
        optimizer = optimizer.optimizer  # type: ignore[attr-defined]
    return optimizer


def nested(optimizer: Optimizer) -> bool:
    """Whether the step that is running was called by another step of the same optimizer; for step hooks.

    A subclass whose `step` calls `super().step()` runs its hooks twice: once for either.
    """
    frame, found = sys._getframe(), 0
    while frame.f_back is not None:
        frame = frame.f_back
        code = frame.f_code
        if code.co_name == "wrapper" and code.co_filename == _TORCH:  # what torch puts around every `step`
            found += frame.f_locals.get("self") is optimizer
    return found > 1


def skipped(optimizer: Optimizer) -> bool:
    """Whether the step that just ran changed nothing on purpose.

    A GradScaler that finds infinite gradients does not call most optimizers at all; a fused one is called with the
    finding, and skips inside its kernel. `torch.distributed.checkpoint` lets a new optimizer make its state by a step
    with learning rates and gradients of 0.
    """
    found = getattr(optimizer, "found_inf", None)
    return (isinstance(found, torch.Tensor) and bool(found.item())) or _blank(optimizer)


def _blank(optimizer: Optimizer) -> bool:
    rates = [group.get("lr") for group in optimizer.param_groups]
    # A rate on a device is no such 0, and would have to be waited for.
    if any(rate is None or (isinstance(rate, Tensor) and rate.device.type != "cpu") or rate != 0.0 for rate in rates):
        return False
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    # Gathered: all processes must come to the same answer, also those whose shards are empty.
    return len(gradients) > 0 and not any(bool(full(gradient).any()) for gradient in gradients)
