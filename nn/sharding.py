"""Sharded parameters: pruning models that `fully_shard` has spread over processes.

`fully_shard` replaces every parameter by a DTensor of which each process holds some rows. Blocks do not care where rows
are cut: a rank needs all norms, so `full` gathers a weight, one layer at a time, and `write` puts a whole tensor back
into the shards. `full` is collective: all processes call it together. `local` is what this process holds, and `like`
spreads a whole tensor as another one is spread.

Whoever fails alone before something collective leaves the others waiting. `Processes.together` tells all of them.

Between a forward pass without a backward pass and the next one, such a module may hold gathered copies in place of its
parameters. Whoever reads or writes parameters outside of training steps calls `reshard` first, else it would change
copies that are thrown away.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

__all__ = ["Processes", "full", "is_sharded", "like", "local", "relocate", "reshard", "write"]

T = TypeVar("T")


class Processes:
    """The processes that hold the shards of one model; this process alone if the model is not sharded.

    Parameters
    ----------
    model : nn.Module
        Parameters in shards, or not.
    group : ProcessGroup, optional
        The processes that train it together; all by default.

    Attributes
    ----------
    sharded : bool
        Whether a parameter is spread over processes.
    size, rank : int
        How many processes there are, and which of them this is.

    >>> alone = Processes(nn.Linear(2, 2))
    >>> alone.size, alone.rank, alone.exchange("x"), alone.together(lambda: 3)
    (1, 0, ['x'], 3)
    """

    def __init__(self, model: nn.Module, group: Any = None) -> None:
        self.group = group
        self.sharded = any(is_sharded(parameter) for parameter in model.parameters())
        self.size = dist.get_world_size(group) if self.sharded else 1
        self.rank = dist.get_rank(group) if self.sharded else 0

    def exchange(self, value: T) -> list[T]:
        """The values of all processes; small ones, which can be pickled."""
        values = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value, group=self.group)
        return values

    def together(self, work: Callable[[], T]) -> T:
        """`work()`, which must not be collective. If it fails in one process, all raise that error.

        Whoever returns knows that all are done.
        """
        if self.size == 1:
            return work()
        result: list[T] = []
        failure: BaseException | None = None
        try:
            result.append(work())
        except BaseException as error:
            failure = error
        try:
            for rank, told in enumerate(self.exchange(_portable(failure))):
                if told is not None:
                    raise failure if failure is not None and rank == self.rank else told
        finally:
            failure = None  # else the error and this frame would hold each other, and whole tensors with them
        return result[0]


def _portable(error: BaseException | None) -> BaseException | None:
    """An error with the same sentence that can be sent to any process."""
    if isinstance(error, OSError) and error.errno is not None:
        return OSError(error.errno, error.strerror, error.filename)  # Python picks FileNotFoundError and its like
    for kind in (OSError, FloatingPointError, ValueError, RuntimeError):
        if isinstance(error, kind):
            return kind(str(error))
    return None if error is None else RuntimeError(f"{type(error).__name__} in another process: {error}")


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


@torch.no_grad()
def like(target: Tensor, value: Tensor) -> Tensor:
    """A whole tensor, spread over processes as `target` is. Every process brings the same value, and keeps its part."""
    shards = torch.empty_like(target, dtype=value.dtype, requires_grad=False)
    write(shards, value)
    return shards


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
