"""Which weights of a model become grids of blocks, and how they are cut: what the arguments of `plan` mean.

A pattern matches a weight when it is, wildcards included, the weight's name, its module's, or the name of something
that the module lies in: "layer4" matches "layer4.0.conv1.weight", and so does "*.conv1". A type matches likewise.

Everything that a user can get wrong ends in one sentence: a name without a match, a number outside its range, a block
that covers the whole layer it was chosen for.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from math import prod
from numbers import Integral
from typing import Any, NamedTuple

from torch import nn

from sparseopt.nn.blocks import BlockGrid
from sparseopt.nn.weights import CONVOLUTIONS, Weight

__all__ = [
    "INCLUDED",
    "Block",
    "Rule",
    "as_min_blocks",
    "as_sparsity",
    "as_types",
    "is_excluded",
    "is_included",
    "make_grid",
    "require_matches",
    "rule_for",
]

Block = int | tuple[int | None, int | None]
INCLUDED = (nn.Linear, *CONVOLUTIONS, nn.MultiheadAttention)
_KNOWN = (*INCLUDED, nn.Embedding)
_KEYS = ("sparsity", "block", "min_blocks", "segments")


class Rule(NamedTuple):
    """How a layer is cut. `named` and `fixed`: its block, its sparsity was chosen for it by an override."""

    sparsity: float
    block: Block
    min_blocks: int
    segments: int = 0
    named: bool = False
    fixed: bool = False


def as_sparsity(value: Any, name: str) -> float:
    """A sparsity, checked."""
    try:
        number = value if isinstance(value, (str, bytes)) else float(value)
    except (TypeError, ValueError):
        number = value
    if not isinstance(number, float):
        raise TypeError(f"{name} must be a number in [0, 1), got {value!r}: it is the share of the blocks to drop.")
    if not 0.0 <= number < 1.0:
        raise ValueError(f"{name} must be in [0, 1), got {number}: it is the share of the blocks to drop.")
    return number


def as_min_blocks(value: Any, name: str) -> int:
    """A number of blocks, checked."""
    if not isinstance(value, Integral) or value < 0:
        raise ValueError(
            f"{name} must be a whole number, 0 or more, got {value!r}: layers with fewer blocks stay dense."
        )
    return int(value)


def as_types(include: Any) -> tuple[type[nn.Module], ...]:
    """The types to include, checked: each has weights that can be cut."""
    types = tuple(include) if isinstance(include, Iterable) else (include,)
    for kind in types:
        if not isinstance(kind, type):
            raise TypeError(f"include takes module types such as nn.Linear, got {kind!r}.")
        if not issubclass(kind, _KNOWN) and not any(issubclass(known, kind) for known in _KNOWN):
            known = ", ".join(each.__name__ for each in _KNOWN)
            raise ValueError(f"include: {kind.__name__} has no weight that can be cut into blocks: use {known}.")
    return types


def is_included(weight: Weight, include: tuple[type[nn.Module], ...], model: nn.Module) -> bool:
    """Whether the weight's type is in `include`; the output projection of attention belongs to it."""
    if isinstance(weight.module, include):
        return True
    parent = model.get_submodule(weight.owner.rpartition(".")[0])
    return isinstance(parent, nn.MultiheadAttention) and isinstance(parent, include)


def is_excluded(weight: Weight, exclude: Iterable[str | type[nn.Module]], model: nn.Module) -> bool:
    """Whether the weight, or something that it lies in, is in `exclude`."""
    for entry in exclude:
        if isinstance(entry, str):
            if _matches(entry, weight):
                return True
        elif isinstance(entry, type):
            if any(isinstance(model.get_submodule(name), entry) for name in _around(weight.owner)):
                return True
        else:
            raise TypeError(f"exclude takes names and module types, got {entry!r}.")
    return False


def require_matches(argument: str, patterns: Iterable[str], found: Sequence[Weight]) -> None:
    """Raise for a pattern that matches no weight, with the name that it was meant to be."""
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(f"{argument}: {pattern!r} is no name of a layer: use a string.")
        if not any(_matches(pattern, weight) for weight in found):
            names = [name for weight in found for name in (weight.name, *_around(weight.owner)) if name]
            close = difflib.get_close_matches(pattern, dict.fromkeys(names), n=1)
            hint = f"did you mean {close[0]!r}?" if close else "print(plan(model, ...)) lists the names."
            raise ValueError(f"{argument}: {pattern!r} matches no layer with a weight to prune: {hint}")


def rule_for(weight: Weight, default: Rule, overrides: Mapping[str, Mapping[str, Any]]) -> Rule:
    """The rule of a weight: that of the last override that matches it, or the default."""
    rule = default
    for pattern, values in overrides.items():
        if not _matches(pattern, weight):
            continue
        here = f"overrides[{pattern!r}]"
        if not isinstance(values, Mapping):
            raise TypeError(f"{here} must be a dict such as {{'block': 8}}, got {values!r}.")
        unknown = [key for key in values if key not in _KEYS]
        if unknown:
            raise ValueError(f"{here} has the key {unknown[0]!r}: use {', '.join(_KEYS[:-1])} or {_KEYS[-1]}.")
        rule = default._replace(**values, named="block" in values, fixed="sparsity" in values)
        segments = values.get("segments", 1)
        if not isinstance(segments, Integral) or segments < 1:
            raise ValueError(f"{here}['segments'] must be a positive whole number, got {segments!r}: 1 does not cut.")
        rule = rule._replace(
            sparsity=as_sparsity(rule.sparsity, f"{here}['sparsity']"),
            min_blocks=as_min_blocks(rule.min_blocks, f"{here}['min_blocks']"),
        )
    return rule


def make_grid(weight: Weight, rule: Rule) -> BlockGrid:
    """The grid of a layer.

    Stacked projections of attention are three segments. A block that covers a whole layer is an error where it was
    asked for: by a name in `overrides`, or by a `min_blocks` that takes every layer.
    """
    shape = tuple(weight.tensor.shape)
    segments = rule.segments or (3 if weight.attribute == "in_proj_weight" else 1)
    if shape[0] % segments:
        raise ValueError(
            f"segments={segments} does not divide the {shape[0]} outputs of {weight.name}: choose a divisor, or 1."
        )
    rows, cols = shape[0] // segments, prod(shape[1:])
    given = as_block(rule.block)
    sides = (rows if given[0] is None else given[0], cols if given[1] is None else given[1])
    grid = BlockGrid(shape, sides, segments)
    if grid.n_blocks == 1 and (rule.named or rule.min_blocks <= 1):
        raise ValueError(
            f"a block of {sides[0]} x {sides[1]} covers all of {weight.name} ({rows} x {cols}): "
            "choose a smaller block for it, or exclude it."
        )
    return grid


def as_block(block: Any) -> tuple[int | None, int | None]:
    """(outputs, inputs), checked; None stands for the whole dimension."""
    sides = (block, block) if isinstance(block, Integral) else tuple(block) if isinstance(block, (tuple, list)) else ()
    if len(sides) != 2 or any(side is not None and (not isinstance(side, Integral) or side < 1) for side in sides):
        raise ValueError(f"block must be a positive whole number, or two: (outputs, inputs), got {block!r}.")
    outputs, inputs = (None if side is None else int(side) for side in sides)
    return outputs, inputs


def _around(owner: str) -> list[str]:
    """The names of a module and of all that it lies in, the model ("") last."""
    parts = owner.split(".") if owner else []
    return [".".join(parts[:i]) for i in range(len(parts), -1, -1)]


def _matches(pattern: str, weight: Weight) -> bool:
    return any(name and fnmatchcase(name, pattern) for name in (weight.name, *_around(weight.owner)))
