"""Sharded parameters: pruning models that `fully_shard` has spread over processes.

`fully_shard` replaces every parameter by a DTensor of which each process holds some rows. Blocks do not care where rows
are cut: a rank needs all norms, so `full` gathers a weight, one layer at a time, and `write` puts a whole tensor back
into the shards. Both are collective: all processes call them together. `local` is what this process holds.

Between a forward pass without a backward pass and the next one, such a module may hold gathered copies in place of its
parameters. Whoever reads or writes parameters outside of training steps calls `reshard` first, else it would change
copies that are thrown away.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["full", "is_sharded", "local", "relocate", "reshard", "write"]


def is_sharded(tensor: Tensor) -> bool:
    """Whether the tensor is spread over processes."""
    return hasattr(tensor, "full_tensor")


def full(tensor: Tensor) -> Tensor:
    """The whole tensor, detached: gathered from all processes if it is sharded."""
    tensor = tensor.detach()
    if not is_sharded(tensor):
        return tensor
    # Shards may wait in main memory; the processes talk through the device.
    return tensor.to(tensor.device_mesh.device_type).full_tensor()  # type: ignore[attr-defined]


def local(tensor: Tensor) -> Tensor:
    """The part of the tensor that this process holds, detached; all of it if it is not sharded."""
    tensor = tensor.detach()
    return tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


@torch.no_grad()
def write(target: Tensor, value: Tensor) -> None:
    """Copy a whole tensor into `target`, which may be sharded. Every process brings the same value."""
    if is_sharded(target):
        from torch.distributed.tensor import distribute_tensor

        mesh, placements = target.device_mesh, target.placements  # type: ignore[attr-defined]
        value = distribute_tensor(value.to(mesh.device_type), mesh, placements, src_data_rank=None)
    local(target).copy_(local(value))


def reshard(model: nn.Module) -> None:
    """Let every sharded module of `model` hold its shards again; does nothing to other models."""
    for module in model.modules():
        if hasattr(module, "_get_fsdp_state"):
            module.reshard()  # type: ignore[operator]


def relocate(model: nn.Module, source: nn.Module, name: str, target: nn.Module, attribute: str) -> None:
    """Tell `fully_shard` that the parameter `source.name` is now `target.attribute`.

    It swaps shards and gathered tensors by names of its own, and the folded weight would stay a shard in the forward
    pass. There is no public way to rename a parameter.
    """
    for module in model.modules():
        state = module._get_fsdp_state() if hasattr(module, "_get_fsdp_state") else None  # type: ignore[operator]
        for group in _groups(state):
            for parameter in group.fsdp_params:
                place = parameter._module_info
                if place.module is source and place.param_name == name:
                    place.module, place.param_name = target, attribute
    # They reshard before saving and loading.
    for hooks in ("_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks"):
        getattr(target, hooks).update(getattr(source, hooks))


def _groups(state: Any) -> list[Any]:
    one = getattr(state, "_fsdp_param_groups", None) or [getattr(state, "_fsdp_param_group", None)]
    return [group for group in one if group is not None]
