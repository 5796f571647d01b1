"""The plan: which weights become grids of blocks, and how many blocks each will keep.

`plan` looks at a model and changes nothing. A layer is taken when its type is included, its name is not excluded, and
its grid has at least `min_blocks` blocks: in a layer of few blocks, a block is too large a part to lose. Every weight
that is left out is listed with its reason. The sparsity that a network reaches is then less than the one asked for:

    real sparsity = entries of dropped blocks / entries of all weights of convolutions and linear layers

ResNet-50 at 70, 80, 90 and 95 % comes to 68, 78, 88 and 92 % with blocks of 32 x 32, and to 58, 66, 74 and 79 % with
64 x 64, rounded to whole percents: the eight numbers of arXiv 2402.17902.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, NamedTuple

from torch import nn
from torch.nn.parameter import is_lazy

from sparseopt.nn.blocks import BlockGrid
from sparseopt.nn.budget import BUDGETS, Share, allot, kept_blocks
from sparseopt.nn.rules import (
    INCLUDED,
    Block,
    Rule,
    as_block,
    as_min_blocks,
    as_sparsity,
    as_types,
    is_excluded,
    is_included,
    make_grid,
    require_matches,
    rule_for,
)
from sparseopt.nn.weights import Weight, count_uses, is_pruned, weights_of

__all__ = ["INCLUDED", "LayerPlan", "Plan", "Skipped", "plan"]


@dataclass(frozen=True)
class LayerPlan:
    """One weight of a plan.

    Attributes
    ----------
    name : str
        Of the weight in the model.
    grid : BlockGrid
        Its blocks.
    sparsity : float
        The share of its blocks to drop.
    uses : float
        Multiplications per entry and example.
    fixed : bool
        Whether the sparsity was chosen for this layer: then no budget changes it.
    """

    name: str
    grid: BlockGrid
    sparsity: float
    uses: float = 1.0
    fixed: bool = False

    @property
    def kept(self) -> int:
        """Blocks to keep; a forecast where the budget ranks the blocks of several layers together."""
        return kept_blocks(self.grid.n_blocks, self.sparsity)

    @property
    def share(self) -> Share:
        """What the budget needs to know of this layer."""
        return Share(self.grid, self.sparsity, self.uses, self.fixed)


class Skipped(NamedTuple):
    """A weight that stays dense, and why; the shape is () where it is not known yet.

    `counted`: whether its entries belong to the weights of which the real sparsity is a share.
    """

    name: str
    shape: tuple[int, ...]
    reason: str
    counted: bool = True


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
        The share of blocks to drop; of multiplications under "flops".
    budget : str
        "uniform", "global", "erk" or "flops".
    """

    layers: tuple[LayerPlan, ...]
    skipped: tuple[Skipped, ...]
    sparsity: float
    budget: str = "uniform"

    @property
    def weights(self) -> int:
        """Entries of all listed weights, pruned or not: once where they are tied, embeddings only if included."""
        return sum(layer.grid.numel for layer in self.layers) + sum(
            prod(entry.shape) for entry in self.skipped if entry.counted
        )

    @property
    def real_sparsity(self) -> float:
        """Share of the entries of all listed weights that will be 0, all blocks counted as equally large."""
        dropped = sum(layer.grid.numel * (1.0 - layer.kept / layer.grid.n_blocks) for layer in self.layers)
        return dropped / max(1, self.weights)

    def to_dict(self) -> dict[str, Any]:
        """Numbers, strings and lists only: for checkpoints and JSON."""
        rows = [
            {
                "name": layer.name,
                "shape": list(layer.grid.shape),
                "block": list(layer.grid.block),
                "segments": layer.grid.segments,
                "sparsity": float(layer.sparsity),
                "uses": float(layer.uses),
                "fixed": bool(layer.fixed),
            }
            for layer in self.layers
        ]
        return {"budget": self.budget, "sparsity": float(self.sparsity), "layers": rows}

    def differences(self, other: Mapping[str, Any]) -> list[str]:
        """What a plan written by `to_dict` has otherwise, one phrase each; empty if nothing that matters.

        Multiplication counts matter under "flops" only, and the order of the layers does not.
        """
        mine = self.to_dict()
        found = [f"{k} is {other[k]} there, {mine[k]} here" for k in ("budget", "sparsity") if other[k] != mine[k]]
        theirs, ours = ({row["name"]: row for row in each["layers"]} for each in (other, mine))
        found += [f"{name} is pruned there, not here" for name in theirs if name not in ours]
        found += [f"{name} is pruned here, not there" for name in ours if name not in theirs]
        keys = ("shape", "block", "segments", "sparsity", "fixed", *(("uses",) if self.budget == "flops" else ()))
        for name in (name for name in ours if name in theirs):
            for key in keys:
                if theirs[name][key] != ours[name][key]:
                    found.append(f"{key} of {name} is {theirs[name][key]} there, {ours[name][key]} here")
        return found

    def __str__(self) -> str:
        header = ("layer", "matrix", "block", "grid", "blocks", "kept", "sparsity")
        rows = [header]
        forecast = False
        for layer in self.layers:
            grid = layer.grid
            ranked = self.budget in ("global", "flops") and not layer.fixed
            forecast |= ranked
            sign = "~" if ranked else ""
            sizes = (_size(grid.matrix_shape), _size(grid.block), _size(grid.counts))
            dropped = 1.0 - layer.kept / grid.n_blocks
            rows.append((layer.name, *sizes, str(grid.n_blocks), f"{sign}{layer.kept}", f"{sign}{dropped:.3f}"))
        left, right = (0, 1, 2, 3), (4, 5, 6)
        dense = [(entry.name, _size(_matrix(entry.shape)) if entry.shape else "?") for entry in self.skipped]
        width = {i: max(len(row[i]) for row in rows) for i in (*left, *right)}
        width |= {i: max([width[i], *(len(row[i]) for row in dense)]) for i in (0, 1)}
        lines = [
            "  ".join([*(row[i].ljust(width[i]) for i in left), *(row[i].rjust(width[i]) for i in right)])
            for row in rows
        ]
        lines += [
            f"{name.ljust(width[0])}  {size.ljust(width[1])}  dense: {entry.reason}"
            for (name, size), entry in zip(dense, self.skipped, strict=True)
        ]
        blocks, kept = sum(layer.grid.n_blocks for layer in self.layers), sum(layer.kept for layer in self.layers)
        about = "about " if forecast else ""
        lines.append(f"{len(self.layers)} of {len(rows) - 1 + len(dense)} weights are cut into {blocks:,} blocks")
        lines.append(
            f"{about}{kept:,} blocks stay: real sparsity {self.real_sparsity:.3f} of {self.weights:,} weights, "
            f"budget {self.budget}"
        )
        if forecast:
            lines.append("~ marks forecasts: these layers' blocks are ranked together when they are chosen")
        return "\n".join(lines)


def plan(
    model: nn.Module,
    sparsity: float,
    block: Block = 16,
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
        Share of the blocks to drop (under "flops", of the multiplications). A layer of n blocks keeps
        floor((1 - sparsity) n), at least 1.
    block : int or (outputs, inputs)
        Size of a block; None stands for the whole dimension: (1, None) prunes single outputs. Inputs of a convolution
        are kernel positions times input channels, channels fastest.
    min_blocks : int
        Layers with fewer blocks stay dense, and so does a layer of one block.
    include : sequence of module types
        Linear, Conv1d/2d/3d and MultiheadAttention by default; add `nn.Embedding` to prune embeddings.
    exclude : sequence of names or types
        Layers to leave out. A name may have wildcards. Names and types cover what lies inside: "layer4" excludes
        "layer4.0.conv1", nn.TransformerEncoderLayer the attention and the linear layers in it.
    overrides : {name: {"sparsity", "block", "min_blocks", "segments"}}
        Other settings for the layers that match a name; of several names that match, the last counts alone. A sparsity
        set here holds under every budget, which then spreads `sparsity` over the other layers.
    budget : {"uniform", "global", "erk", "flops"}
        How the sparsity is spread over the layers, see `sparseopt.nn.budget`.
    example_input : tensor, or tuple or dict of arguments
        Run once through the model in evaluation mode to count multiplications; needed for "flops" in models with
        convolutions. Its first dimension is the number of examples. Without it, all weights but embeddings are taken
        to be used equally often.

    Returns
    -------
    Plan
        Print it to see the table.

    Raises
    ------
    ValueError
        When no layer matches (with the reason for each), a name matches nothing, a number is outside its range, a block
        covers a whole layer that was asked for by name, the model is being pruned already, or the multiplications that
        "flops" needs are not known.
    TypeError
        When an argument is of another kind: a sparsity that is no number, a type that is no module.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
    >>> print(plan(model, sparsity=0.9, block=16))
    layer     matrix     block    grid     blocks  kept  sparsity
    0.weight  256 x 256  16 x 16  16 x 16     256    25     0.902
    2.weight  10 x 256   dense: 16 blocks, fewer than 100
    1 of 2 weights are cut into 256 blocks
    25 blocks stay: real sparsity 0.868 of 68,096 weights, budget uniform
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}.")
    if budget not in BUDGETS:
        raise ValueError(f"budget must be one of {', '.join(BUDGETS)}, got {budget!r}.")
    as_block(block)
    default = Rule(as_sparsity(sparsity, "sparsity"), block, as_min_blocks(min_blocks, "min_blocks"))
    types = as_types(include)
    exclude = [exclude] if isinstance(exclude, (str, type)) else list(exclude)
    overrides = overrides or {}
    found = weights_of(model)
    pruned = [weight.name for weight in found if is_pruned(weight.module, weight.attribute)]
    if pruned:
        raise ValueError(f"{pruned[0]} is already being pruned: fold() the model before planning again.")
    require_matches("exclude", [entry for entry in exclude if not isinstance(entry, type)], found)
    require_matches("overrides", overrides, found)
    uses = count_uses(model, example_input)
    wanted = {id(weight.tensor) for weight in found if is_included(weight, types, model)}
    layers: list[LayerPlan] = []
    skipped: list[Skipped] = []
    for weight in found:
        rule = rule_for(weight, default, overrides)
        reason = weight.obstacle
        if not is_included(weight, types, model):
            reason = "its type is not in include"
        elif not reason and is_excluded(weight, exclude, model):
            reason = "excluded"
        if not reason:
            grid = make_grid(weight, rule)
            fewest = max(rule.min_blocks, 2)
            if grid.n_blocks >= fewest:
                times = _uses(weight, uses, example_input is not None, budget)
                layers.append(LayerPlan(weight.name, grid, rule.sparsity, times, rule.fixed))
                continue
            reason = f"{grid.n_blocks} {'block' if grid.n_blocks == 1 else 'blocks'}, fewer than {fewest}"
        known = not is_lazy(weight.tensor)
        shape = tuple(weight.tensor.shape) if known else ()
        # A tied weight is counted at the first of its names.
        skipped.append(Skipped(weight.name, shape, reason, known and id(weight.tensor) in wanted))
        wanted.discard(id(weight.tensor))
    if not layers:
        raise ValueError(_nothing(skipped, block, min_blocks))
    if budget == "flops" and example_input is None and any(len(layer.grid.shape) > 2 for layer in layers):
        raise ValueError("budget='flops' needs example_input in a model with convolutions: pass one batch.")
    if budget == "erk":
        free = [i for i, layer in enumerate(layers) if not layer.fixed]
        for i, share in zip(free, allot([layers[i].grid for i in free], default.sparsity), strict=True):
            layers[i] = replace(layers[i], sparsity=share)
    return Plan(tuple(layers), tuple(skipped), default.sparsity, budget)


def _uses(weight: Weight, uses: Mapping[str, float], counted: bool, budget: str) -> float:
    """Multiplications per entry: as counted, or 1 for all weights that multiply."""
    if isinstance(weight.module, nn.Embedding):
        return 0.0
    if counted and budget == "flops" and not uses.get(weight.name):
        raise ValueError(
            f"example_input does not reach {weight.name}, and budget='flops' must know what it costs: exclude it, "
            "or pass an example that uses it."
        )
    return uses.get(weight.name, 0.0 if counted else 1.0)


def _nothing(skipped: Sequence[Skipped], block: Any, min_blocks: int) -> str:
    """Why no layer was taken, and what would help."""
    if not skipped:
        return "the model has no linear layer, convolution, embedding or attention: there is nothing to prune."
    reasons = "; ".join(f"{entry.name}: {entry.reason}" for entry in skipped[:6])
    more = f"; and {len(skipped) - 6} more" if len(skipped) > 6 else ""
    hint = "exclude less, or include other types"
    if any("fewer than" in entry.reason for entry in skipped):
        hint = f"choose a smaller block than {block}, or a lower min_blocks than {min_blocks}"
    return f"no layer of the model matches ({reasons}{more}): {hint}."


def _matrix(shape: Sequence[int]) -> tuple[int, int]:
    return shape[0], prod(shape[1:])


def _size(numbers: Sequence[int]) -> str:
    return " x ".join(str(number) for number in numbers)
