"""The plan: which weights become grids of blocks, and how many blocks each will keep.

`plan` looks at a model and changes nothing. A layer is taken when its type is included, its name is not excluded, and
its grid has at least `min_blocks` blocks: in a layer of few blocks, a block is too large a part to lose. Every weight
that is left out is listed with its reason. The sparsity that a network reaches is then less than the one asked for:

    real sparsity = entries of dropped blocks / entries of all weights of convolutions and linear layers
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import prod
from typing import Any, NamedTuple

from torch import nn

from sparseopt.nn.blocks import BlockGrid
from sparseopt.nn.budget import BUDGETS, Share, allot, kept_blocks
from sparseopt.nn.weights import CONVOLUTIONS, Weight, count_uses, is_pruned, weights_of

__all__ = ["LayerPlan", "Plan", "plan"]

Size = int | None
INCLUDED = (nn.Linear, *CONVOLUTIONS, nn.MultiheadAttention)


@dataclass(frozen=True)
class LayerPlan:
    """One weight: its name in the model, its grid, its sparsity, and multiplications per entry and example."""

    name: str
    grid: BlockGrid
    sparsity: float
    uses: float = 1.0

    @property
    def kept(self) -> int:
        """Blocks to keep; a forecast where the budget ranks the blocks of all layers together."""
        return kept_blocks(self.grid.n_blocks, self.sparsity)

    @property
    def share(self) -> Share:
        """What the budget needs to know of this layer."""
        return Share(self.grid, self.sparsity, self.uses)


class Skipped(NamedTuple):
    """A weight that stays dense, and why."""

    name: str
    shape: tuple[int, ...]
    reason: str


@dataclass(frozen=True)
class Plan:
    """The layers to prune, those left out and why, and the budget. `print(plan)` shows a table.

    Attributes
    ----------
    layers : tuple of LayerPlan
        Weights that become grids of blocks, in the model's order.
    skipped : tuple of Skipped
        Weights of convolutions, linear layers, embeddings and attention that stay dense.
    sparsity : float
        The share of blocks to drop.
    budget : str
        "uniform", "global", "erk" or "flops".
    """

    layers: tuple[LayerPlan, ...]
    skipped: tuple[Skipped, ...]
    sparsity: float
    budget: str = "uniform"

    @property
    def weights(self) -> int:
        """Entries of all listed weights, pruned or not; embeddings only if they are pruned."""
        return sum(layer.grid.numel for layer in self.layers) + sum(
            prod(entry.shape) for entry in self.skipped if entry.reason != _NOT_INCLUDED
        )

    @property
    def real_sparsity(self) -> float:
        """Share of the entries of all listed weights that will be 0, all blocks counted as equally large."""
        dropped = sum(layer.grid.numel * (1.0 - layer.kept / layer.grid.n_blocks) for layer in self.layers)
        return dropped / self.weights

    def to_dict(self) -> dict[str, Any]:
        """Numbers, strings and lists only: for checkpoints and JSON."""
        rows = [
            {
                "name": layer.name,
                "shape": list(layer.grid.shape),
                "block": list(layer.grid.block),
                "segments": layer.grid.segments,
                "sparsity": layer.sparsity,
                "uses": layer.uses,
            }
            for layer in self.layers
        ]
        return {"budget": self.budget, "sparsity": self.sparsity, "layers": rows}

    def differences(self, other: Mapping[str, Any]) -> list[str]:
        """What a plan written by `to_dict` has otherwise, one phrase each; empty if nothing."""
        mine = self.to_dict()
        found = [f"{k} is {other[k]} there, {mine[k]} here" for k in ("budget", "sparsity") if other[k] != mine[k]]
        theirs, ours = ({row["name"]: row for row in each["layers"]} for each in (other, mine))
        found += [f"{name} is pruned there, not here" for name in theirs if name not in ours]
        found += [f"{name} is pruned here, not there" for name in ours if name not in theirs]
        for name in (name for name in ours if name in theirs):
            for key in ("shape", "block", "segments", "sparsity", "uses"):
                if theirs[name][key] != ours[name][key]:
                    found.append(f"{key} of {name} is {theirs[name][key]} there, {ours[name][key]} here")
        return found

    def __str__(self) -> str:
        header = ("layer", "shape", "blocks", "kept", "sparsity")
        rows = [
            (
                layer.name,
                _size(layer.grid.matrix_shape),
                _size(layer.grid.counts),
                str(layer.kept),
                f"{1.0 - layer.kept / layer.grid.n_blocks:.3f}",
            )
            for layer in self.layers
        ]
        rows += [
            (name, _size((shape[0], prod(shape[1:]))), "-", "-", f"dense: {why}") for name, shape, why in self.skipped
        ]
        widths = [max(len(row[i]) for row in (header, *rows)) for i in range(4)]
        lines = [
            "  ".join((*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[4]))
            for row in (header, *rows)
        ]
        total = f"real sparsity {self.real_sparsity:.3f} of {self.weights:,} weights, budget {self.budget}"
        return "\n".join((*lines, total))


_NOT_INCLUDED = "its type is not in include"


class _Rule(NamedTuple):
    """How a layer is cut, and whether it was asked for by name."""

    sparsity: float
    block: int | tuple[Size, Size]
    min_blocks: int
    segments: int = 0
    named: bool = False


def plan(
    model: nn.Module,
    sparsity: float,
    block: int | tuple[Size, Size] = 16,
    min_blocks: int = 100,
    include: Sequence[type[nn.Module]] = INCLUDED,
    exclude: Sequence[str | type[nn.Module]] = (),
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    budget: str = "uniform",
    example_input: Any = None,
) -> Plan:
    """Which weights of `model` become block grids, and how many blocks they keep: a dry run.

    Parameters
    ----------
    model : nn.Module
        Not changed.
    sparsity : float in [0, 1)
        Share of the blocks to drop. A layer of n blocks keeps floor((1 - sparsity) n), at least 1.
    block : int or (outputs, inputs)
        Size of a block; None stands for the whole dimension: (1, None) prunes single outputs. Inputs of a convolution
        are kernel positions times input channels, channels fastest.
    min_blocks : int
        Layers with fewer blocks stay dense.
    include : sequence of module types
        Linear, Conv1d/2d/3d and MultiheadAttention by default; add `nn.Embedding` to prune embeddings.
    exclude : sequence of names or types
        Layers to leave out. A name may have wildcards, and covers what lies inside: "layer4" excludes "layer4.0.conv1".
    overrides : {name: {"sparsity", "block", "min_blocks", "segments"}}
        Other settings for the layers that match a name; the last match counts.
    budget : {"uniform", "global", "erk", "flops"}
        How the sparsity is spread over the layers, see `sparseopt.nn.budget`.
    example_input : tensor, or tuple or dict of arguments
        Run once through the model in evaluation mode to count multiplications; needed for "flops" in models with
        convolutions.

    Returns
    -------
    Plan
        Print it to see the table.

    Raises
    ------
    ValueError
        When no layer matches (with the reason for each), a name matches nothing, the sparsity is outside [0, 1), or a
        block covers a whole layer that was asked for by name.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
    >>> print(plan(model, sparsity=0.9, block=16))
    layer     shape      blocks   kept  sparsity
    0.weight  256 x 256  16 x 16  25    0.902
    2.weight  10 x 256   -        -     dense: 16 blocks, fewer than 100
    real sparsity 0.868 of 68,096 weights, budget uniform
    """
    _check_sparsity(sparsity, "sparsity")
    if budget not in BUDGETS:
        raise ValueError(f"budget must be one of {', '.join(BUDGETS)}, got {budget!r}.")
    found = weights_of(model)
    pruned = [weight.name for weight in found if is_pruned(weight.module, weight.attribute)]
    if pruned:
        raise ValueError(f"{pruned[0]} is already being pruned: fold() the model before planning again.")
    overrides = overrides or {}
    for argument, names in (("exclude", [e for e in exclude if isinstance(e, str)]), ("overrides", list(overrides))):
        for pattern in names:
            _require_match(argument, pattern, found)
    uses = count_uses(model, example_input)
    layers: list[LayerPlan] = []
    skipped: list[Skipped] = []
    for weight in found:
        rule = _rule(_Rule(sparsity, block, min_blocks), overrides, weight)
        reason = weight.obstacle or _unwanted(weight, include, exclude)
        if not reason:
            grid = _grid(weight, rule)
            if grid.n_blocks >= max(rule.min_blocks, 2):
                layers.append(LayerPlan(weight.name, grid, rule.sparsity, uses.get(weight.name, 1.0)))
                continue
            reason = f"{_blocks(grid.n_blocks)}, fewer than {max(rule.min_blocks, 2)}"
        if not reason.startswith("tied to") or weight.owner in overrides:
            skipped.append(Skipped(weight.name, _shape(weight), reason))
    if not layers:
        listed = [f"{entry.name}: {entry.reason}" for entry in skipped] or ["it has no linear or convolution layer"]
        more = f"; and {len(listed) - 6} more" if len(listed) > 6 else ""
        raise ValueError(
            f"no layer of the model matches ({'; '.join(listed[:6])}{more}): "
            f"choose a smaller block than {block}, or a lower min_blocks than {min_blocks}."
        )
    if budget == "flops" and example_input is None and any(len(layer.grid.shape) > 2 for layer in layers):
        raise ValueError("budget='flops' needs example_input in a model with convolutions: pass one batch.")
    if budget == "erk":
        shares = allot([layer.grid for layer in layers], sparsity)
        layers = [LayerPlan(a.name, a.grid, s, a.uses) for a, s in zip(layers, shares, strict=True)]
    return Plan(tuple(layers), tuple(skipped), sparsity, budget)


def _check_sparsity(value: float, name: str) -> None:
    if not 0.0 <= value < 1.0:
        raise ValueError(f"{name} must be in [0, 1), got {value}: it is the share of the blocks to drop.")


def _blocks(n: int) -> str:
    return f"{n} block" if n == 1 else f"{n} blocks"


def _size(numbers: Sequence[int]) -> str:
    return " x ".join(str(number) for number in numbers)


def _shape(weight: Weight) -> tuple[int, ...]:
    unknown = isinstance(weight.tensor, nn.parameter.UninitializedParameter)
    return (0, 0) if unknown else tuple(weight.tensor.shape)


def _matches(pattern: str, weight: Weight) -> bool:
    """Whether the pattern is the weight, its module, or something that the module lies in."""
    parts = weight.name.split(".")
    return any(fnmatchcase(".".join(parts[: i + 1]), pattern) for i in range(len(parts)))


def _require_match(argument: str, pattern: str, found: list[Weight]) -> None:
    if not any(_matches(pattern, weight) for weight in found):
        close = difflib.get_close_matches(pattern, [weight.owner for weight in found], n=1)
        hint = f"did you mean {close[0]!r}?" if close else "print(plan(model, ...)) lists the names."
        raise ValueError(f"{argument}: {pattern!r} matches no layer: {hint}")


def _rule(default: _Rule, overrides: Mapping[str, Mapping[str, Any]], weight: Weight) -> _Rule:
    rule = default
    for pattern, values in overrides.items():
        if _matches(pattern, weight):
            unknown = set(values) - {"sparsity", "block", "min_blocks", "segments"}
            if unknown:
                raise ValueError(
                    f"overrides[{pattern!r}] has the key {sorted(unknown)[0]!r}: "
                    "use sparsity, block, min_blocks or segments."
                )
            rule = default._replace(**values, named="block" in values)
            _check_sparsity(rule.sparsity, f"overrides[{pattern!r}]['sparsity']")
    return rule


def _unwanted(weight: Weight, include: Sequence[type[nn.Module]], exclude: Sequence[str | type[nn.Module]]) -> str:
    in_attention = nn.MultiheadAttention in include and weight.name.endswith("out_proj.weight")
    if not isinstance(weight.module, tuple(include)) and not in_attention:
        return _NOT_INCLUDED
    for entry in exclude:
        if _matches(entry, weight) if isinstance(entry, str) else isinstance(weight.module, entry):
            return "excluded"
    return ""


def _grid(weight: Weight, rule: _Rule) -> BlockGrid:
    """The grid of a layer.

    Stacked projections of attention are three segments. A block that covers a whole layer is an error where it was
    asked for: by a name in `overrides`, or by a `min_blocks` that takes every layer.
    """
    shape = tuple(weight.tensor.shape)
    segments = rule.segments or (3 if weight.attribute == "in_proj_weight" else 1)
    rows, cols = shape[0] // segments, prod(shape[1:])
    given = (rule.block, rule.block) if isinstance(rule.block, int) else tuple(rule.block)
    if len(given) != 2 or any(side is not None and (not isinstance(side, int) or side < 1) for side in given):
        raise ValueError(f"block must be a positive integer, or two: (outputs, inputs), got {rule.block!r}.")
    sides = (rows if given[0] is None else given[0], cols if given[1] is None else given[1])
    grid = BlockGrid(shape, sides, segments)
    if grid.n_blocks == 1 and (rule.named or rule.min_blocks <= 1):
        raise ValueError(
            f"a block of {_size(sides)} covers all of {weight.name} ({_size((rows, cols))}): "
            "choose a smaller block for it, or exclude it."
        )
    return grid
