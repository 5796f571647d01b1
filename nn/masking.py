"""Putting masks on a model and taking them off again.

`attach_mask` hides a parameter behind its mask; `fold` writes the weight that the layer computes with, zeros included,
into that same parameter and gives it back its name and its place. Between the two, `load_state_dict` also takes
checkpoints of the plain model, and `dense_state_dict` writes them.

`torch.nn.utils.parametrize.remove_parametrizations` deletes the weight's property from the module's class. Copies made
by `deepcopy` share that class, so removing the mask of a copy would break the original; `fold` leaves the class alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from sparseopt.nn.layers import effective, write
from sparseopt.nn.masks import BlockMask
from sparseopt.nn.sharding import full, is_sharded, relocate, reshard

__all__ = ["attach_mask", "dense_state_dict", "fold", "masks_of", "sync_masks"]


def attach_mask(module: nn.Module, attribute: str, mask: BlockMask) -> None:
    """Put `mask` between the parameter `module.attribute` and whoever reads it."""
    names = list(module._parameters)
    mask.followers = tuple(names[names.index(attribute) + 1 :])
    parametrize.register_parametrization(module, attribute, mask, unsafe=True)
    if not any(_is_ours(hook) for hook in module._load_state_dict_pre_hooks.values()):
        module.register_load_state_dict_pre_hook(_rename)


def masks_of(model: nn.Module) -> Iterator[tuple[str, Any, str, BlockMask]]:
    """(name of the weight in the plain model, module, attribute, mask) of every masked weight."""
    for owner, module in model.named_modules():
        for attribute, chain in _chains(module):
            for each in chain:
                if isinstance(each, BlockMask):
                    yield (f"{owner}.{attribute}" if owner else attribute), module, attribute, each


@torch.no_grad()
def fold(model: nn.Module) -> nn.Module:
    """Remove all masks from `model`, in place, leaving exact zeros; works on copies and on averaged models as well.

    Returns
    -------
    nn.Module
        `model` itself: the original types, names and parameter objects; a sharded model stays sharded, and all
        processes call this together. Gradients are left as they are, and belong to
        the weights before their masks: clear them before training goes on.

    Raises
    ------
    ValueError
        When a masked weight got another parametrization afterwards; nothing is folded then.
    """
    masked = list(masks_of(model))
    for name, module, attribute, _ in masked:
        _require_alone(name, module, attribute)
    reshard(model)
    for _, module, attribute, mask in masked:
        chain = module.parametrizations[attribute]
        stored = chain.original
        write(stored, _folded(mask, stored))
        del module.parametrizations[attribute]
        module.__class__ = _without(type(module), attribute, len(module.parametrizations) == 0)
        if len(module.parametrizations) == 0:
            del module.parametrizations
        names = list(module._parameters)
        later = names[_place(names, mask.followers) :]
        module._parameters[attribute] = stored
        for name in later:
            module._parameters[name] = module._parameters.pop(name)
        if is_sharded(stored):
            relocate(model, chain, "original", module, attribute)
        if not any(isinstance(each, BlockMask) for _, chain in _chains(module) for each in chain):
            hooks = module._load_state_dict_pre_hooks
            for key in [key for key, hook in hooks.items() if _is_ours(hook)]:
                del hooks[key]
    return model


def _without(kind: type, attribute: str, last: bool) -> type:
    """A module's class without the property for `attribute`: what it was before parametrization, if that was the last.

    The class that was made for the module may have got another one on top of it, as from `fully_shard`.
    """
    rest = {key: value for key, value in kind.__dict__.items() if key not in (attribute, "__dict__", "__weakref__")}
    if attribute in kind.__dict__:
        return kind.__bases__[0] if last else type(kind.__name__, kind.__bases__, rest)
    bases = tuple(_without(base, attribute, last) if hasattr(base, attribute) else base for base in kind.__bases__)
    name = kind.__name__.replace("Parametrized", "") if last else kind.__name__
    return kind if bases == kind.__bases__ else type(name, bases, rest)


@torch.no_grad()
def dense_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The state dict that the folded model would have, under the plain names; the model is not changed.

    That of a sharded model has whole tensors: all processes call this together, and one of them saves it.
    """
    reshard(model)
    state = {key: full(value) if is_sharded(value) else value for key, value in model.state_dict().items()}
    names = list(state)
    for name, module, attribute, mask in masks_of(model):
        _require_alone(name, module, attribute)
        owner = name.removesuffix(attribute)
        first = next(i for i, key in enumerate(names) if key.startswith(owner))
        hidden = f"{owner}parametrizations.{attribute}."
        names = [key for key in names if not key.startswith(hidden)]
        own = [key.removeprefix(owner) for key in names[first:] if key.startswith(owner)]
        known = {*module._parameters, *(each for each, _ in _chains(module))}
        plain = [key for key in own if key in known]
        state[name] = _folded(mask, module.parametrizations[attribute].original)
        names.insert(first + _place(plain, mask.followers), name)
    return {name: state[name] for name in names}


@torch.no_grad()
def sync_masks(source: nn.Module, target: nn.Module) -> None:
    """Copy masks and phases from `source` to `target`, a copy of it such as an averaged model.

    `AveragedModel(use_buffers=True)` averages buffers, and an average of masks is no mask.

    Raises
    ------
    ValueError
        When the target lacks a mask; nothing is copied then.
    """
    theirs = {name.removeprefix("module."): mask for name, _, _, mask in masks_of(target)}
    pairs = []
    for name, _, _, mask in masks_of(source):
        other = theirs.get(name.removeprefix("module."))
        if other is None:
            raise ValueError(f"the target has no mask on {name}: copy the model after pruning starts.")
        pairs.append((mask, other))
    reshard(source)
    reshard(target)
    for mask, other in pairs:
        for buffer, value in mask.named_buffers():
            other.get_buffer(buffer).copy_(value)


def _chains(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """(attribute, parametrizations) of the parametrized tensors of one module."""
    if parametrize.is_parametrized(module):
        yield from module.parametrizations.items()  # type: ignore[operator, union-attr]


def _folded(mask: BlockMask, stored: Tensor) -> Tensor:
    """The weight that the layer computes with; -0 becomes 0, so that dropped blocks are zero bytes."""
    return effective(mask, stored) + 0.0


def _place(names: Sequence[str], followers: Sequence[str]) -> int:
    """Where a name belongs among those of its module: before the first of those that followed it."""
    return next((i for i, name in enumerate(names) if name in followers), len(names))


def _require_alone(name: str, module: Any, attribute: str) -> None:
    if len(module.parametrizations[attribute]) > 1:
        others = [type(each).__name__ for each in module.parametrizations[attribute] if not isinstance(each, BlockMask)]
        raise ValueError(
            f"{name} got another parametrization ({', '.join(others)}) besides its mask: remove it before folding."
        )


def _is_ours(hook: Any) -> bool:
    return getattr(hook, "hook", hook) is _rename


@torch.no_grad()
def _rename(module: Any, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    """Give a plain checkpoint what the masked module expects: its weight as stored, and a fresh mask."""
    for attribute, chain in _chains(module):
        inside = f"{prefix}parametrizations.{attribute}."
        if prefix + attribute not in state or f"{inside}original" in state:
            continue
        if not any(isinstance(each, BlockMask) for each in chain):
            continue
        weight = state.pop(prefix + attribute)
        for number, each in reversed(list(enumerate(chain))):
            if hasattr(each, "right_inverse"):
                weight = each.right_inverse(weight)
            if isinstance(each, BlockMask):
                state.update({f"{inside}{number}.{key}": value for key, value in each.fresh().items()})
        state[f"{inside}original"] = weight
