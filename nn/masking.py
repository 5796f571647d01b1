"""Putting masks on a model and taking them off again.

`attach_mask` hides a parameter behind its mask; `fold` writes the weight that the layer computes with, zeros included,
into that same parameter and gives it back its name and its place. Between the two, `load_state_dict` also takes
checkpoints of the plain model, and `dense_state_dict` writes them.

`torch.nn.utils.parametrize.remove_parametrizations` deletes the weight's property from the module's class. Copies made
by `deepcopy` share that class, so removing the mask of a copy would break the original; `fold` leaves the class alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from sparseopt.nn.layers import effective, write
from sparseopt.nn.masks import BlockMask

__all__ = ["attach_mask", "dense_state_dict", "fold", "masks_of", "sync_masks"]


def attach_mask(module: nn.Module, attribute: str, mask: BlockMask) -> None:
    """Put `mask` between the parameter `module.attribute` and whoever reads it."""
    mask.place = list(module._parameters).index(attribute)
    parametrize.register_parametrization(module, attribute, mask, unsafe=True)
    module.register_load_state_dict_pre_hook(_rename)


def masks_of(model: nn.Module) -> Iterator[tuple[str, Any, str, BlockMask]]:
    """(name of the weight in the plain model, module, attribute, mask) of every masked weight."""
    for owner, module in model.named_modules():
        if parametrize.is_parametrized(module):
            for attribute, chain in module.parametrizations.items():  # type: ignore[operator, union-attr]
                for each in chain:
                    if isinstance(each, BlockMask):
                        yield (f"{owner}.{attribute}" if owner else attribute), module, attribute, each


@torch.no_grad()
def fold(model: nn.Module) -> nn.Module:
    """Remove all masks from `model`, in place, leaving exact zeros; works on copies and on averaged models as well.

    Returns
    -------
    nn.Module
        `model` itself: the original types, names and parameter objects.
    """
    for _, module, attribute, mask in list(masks_of(model)):
        stored = module.parametrizations[attribute].original
        write(stored, effective(mask, stored))
        del module.parametrizations[attribute]
        kind = type(module)
        if len(module.parametrizations) == 0:
            del module.parametrizations
            module.__class__ = kind.__bases__[0]
        else:
            rest = {
                key: value for key, value in kind.__dict__.items() if key not in (attribute, "__dict__", "__weakref__")
            }
            module.__class__ = type(kind.__name__, kind.__bases__, rest)
        later = list(module._parameters.items())[mask.place :]
        module._parameters[attribute] = stored
        for name, parameter in later:
            del module._parameters[name]
            module._parameters[name] = parameter
        hooks = module._load_state_dict_pre_hooks
        for key in [key for key, hook in hooks.items() if getattr(hook, "hook", None) is _rename]:
            if not any(True for _ in masks_of(module)):
                del hooks[key]
    return model


def _rename(module: Any, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    """Put the weights of a plain checkpoint where the masked module keeps them."""
    for attribute, chain in getattr(module, "parametrizations", {}).items():
        stored = f"{prefix}parametrizations.{attribute}.original"
        if prefix + attribute in state and stored not in state:
            weight = state.pop(prefix + attribute)
            for each in chain:
                if isinstance(each, BlockMask):
                    weight = each.right_inverse(weight)
            state[stored] = weight


@torch.no_grad()
def dense_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The state dict that the folded model would have, under the plain names; the model is not changed."""
    state = dict(model.state_dict())
    names = list(state)
    for name, module, attribute, mask in masks_of(model):
        owner = name.removesuffix(attribute)
        inside = [key for key in names if key.startswith(f"{owner}parametrizations.{attribute}.")]
        state[name] = effective(mask, module.parametrizations[attribute].original)
        siblings = [key for key in names if key.startswith(owner) and "." not in key.removeprefix(owner)]
        names.insert(names.index((*siblings[mask.place :], *inside)[0]), name)
        names = [key for key in names if key not in inside]
    return {name: state[name] for name in names}


@torch.no_grad()
def sync_masks(source: nn.Module, target: nn.Module) -> None:
    """Copy masks and phases from `source` to `target`, a copy of it such as an averaged model.

    `AveragedModel(use_buffers=True)` averages buffers, and an average of masks is no mask.
    """
    theirs = {name.removeprefix("module."): mask for name, _, _, mask in masks_of(target)}
    for name, _, _, mask in masks_of(source):
        other = theirs.get(name.removeprefix("module."))
        if other is None:
            raise ValueError(f"the target has no mask on {name}: copy the model after pruning starts.")
        for buffer, value in mask.named_buffers():
            other.get_buffer(buffer).copy_(value)
