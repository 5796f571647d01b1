"""What a network has left: blocks, parameters and multiplications of every layer.

A block is kept if the weight that the layer computes with has an entry other than 0 in it. This one rule holds for a
network with masks in any phase, and for the plain network that `fold` leaves: both give the same report. Entries of a
kept block count as kept, zeros among them too, since a block is what is stored and multiplied. A weight that is not
cut into blocks counts entry by entry.

    parameters kept = entries of the kept blocks
    MACs            = (entries) x (how often one example uses each of them)

Two sparsities come out. `sparsity` is that of the layers with blocks, `real_sparsity` that of all convolutions, linear
layers and attention, the number that papers compare.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from sparseopt.console import columns
from sparseopt.nn.blocks import BlockGrid
from sparseopt.nn.layers import effective, full
from sparseopt.nn.masking import masks_of
from sparseopt.nn.masks import PHASES, BlockMask
from sparseopt.nn.planning import INCLUDED, Plan
from sparseopt.nn.planning import plan as make_plan
from sparseopt.nn.sharding import reshard
from sparseopt.nn.weights import CONVOLUTIONS, count_uses, weights_of

__all__ = ["Blocks", "LayerReport", "Report", "blocks_of", "plain", "report"]


@dataclass(frozen=True)
class LayerReport:
    """One weight.

    Attributes
    ----------
    name : str
        Its name in the plain model.
    kind : str
        Type of its module: "Linear", "Conv2d", ...
    shape : tuple of int
        Shape of the weight.
    block : (outputs, inputs) or None
        Size of its blocks; None if it is not cut into blocks.
    blocks, blocks_kept : int
        Blocks, and those that are not zero; 0 without blocks.
    parameters, parameters_kept : int
        Entries, and those of kept blocks.
    macs, macs_kept : int or None
        Multiplications for one example with all blocks, and with those kept; None where the uses are not known.
    mask : Tensor or None
        The kept blocks, bool (R, C) on the CPU.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    block: tuple[int, int] | None
    blocks: int
    blocks_kept: int
    parameters: int
    parameters_kept: int
    macs: int | None
    macs_kept: int | None
    mask: Tensor | None = field(default=None, repr=False, compare=False)

    @property
    def sparsity(self) -> float:
        """Share of the entries that need not be stored."""
        return 1.0 - self.parameters_kept / self.parameters

    def to_dict(self) -> dict[str, Any]:
        """Numbers, strings and lists only."""
        return {
            "name": self.name,
            "kind": self.kind,
            "shape": list(self.shape),
            "block": None if self.block is None else list(self.block),
            "blocks": self.blocks,
            "blocks_kept": self.blocks_kept,
            "parameters": self.parameters,
            "parameters_kept": self.parameters_kept,
            "macs": self.macs,
            "macs_kept": self.macs_kept,
            "sparsity": self.sparsity,
        }


@dataclass(frozen=True)
class Report:
    """All weights of a model and their sums. `print(report)` shows a table.

    Attributes
    ----------
    layers : tuple of LayerReport
        Convolutions, linear layers, embeddings and attention, in the model's order; tied weights once.
    other_parameters : int
        Parameters that are none of these: biases, normalisation, layers of other types. They stay dense.
    phase : str
        "dense", "sparsify" or "sparse" for a model with masks, else "". In a dense phase every block is in use.
    """

    layers: tuple[LayerReport, ...]
    other_parameters: int
    phase: str = ""

    @property
    def blocks(self) -> int:
        """Blocks of all layers."""
        return sum(layer.blocks for layer in self.layers)

    @property
    def blocks_kept(self) -> int:
        """Blocks that are not zero."""
        return sum(layer.blocks_kept for layer in self.layers)

    @property
    def parameters(self) -> int:
        """Parameters of the plain model."""
        return sum(layer.parameters for layer in self.layers) + self.other_parameters

    @property
    def parameters_kept(self) -> int:
        """Parameters without those of zero blocks."""
        return sum(layer.parameters_kept for layer in self.layers) + self.other_parameters

    @property
    def macs(self) -> int | None:
        """Multiplications of all listed layers for one example, or None."""
        return _sum(layer.macs for layer in self.layers)

    @property
    def macs_kept(self) -> int | None:
        """Multiplications with kept blocks, or None."""
        return _sum(layer.macs_kept for layer in self.layers)

    @property
    def sparsity(self) -> float:
        """Share of the entries of all weights with blocks that is in zero blocks; of all weights if none has blocks."""
        return _sparsity([layer for layer in self.layers if layer.block is not None] or list(self.layers))

    @property
    def real_sparsity(self) -> float:
        """The same share of all listed weights; embeddings only if they have blocks."""
        return _sparsity([layer for layer in self.layers if layer.kind != "Embedding" or layer.block is not None])

    def to_dict(self) -> dict[str, Any]:
        """Numbers, strings and lists only: for JSON."""
        totals = ("blocks", "blocks_kept", "parameters", "parameters_kept", "macs", "macs_kept")
        rates = ("sparsity", "real_sparsity", "other_parameters", "phase")
        return {
            "layers": [layer.to_dict() for layer in self.layers],
            **{name: getattr(self, name) for name in (*totals, *rates)},
        }

    def plot(self, figure: Any = None) -> Any:
        """A picture of every layer's block mask, see `sparseopt.nn.plot_masks`."""
        from sparseopt.nn.pictures import draw_masks

        return draw_masks({layer.name: layer.mask for layer in self.layers if layer.mask is not None}, figure)

    def __str__(self) -> str:
        counted = self.macs is not None
        heading = ("layer", "matrix", "block", "blocks", "kept", "weights", "kept", "MACs", "kept", "sparsity")
        rows = [_row(each, counted) for each in self.layers]
        weights, kept = (n - self.other_parameters for n in (self.parameters, self.parameters_kept))
        total = LayerReport(
            "total", "", (), None, self.blocks, self.blocks_kept, weights, kept, self.macs, self.macs_kept
        )
        table = [heading if counted else (*heading[:7], heading[9]), *rows, _row(total, counted)]
        notes = [
            f"sparsity {self.sparsity:.3f} in layers with blocks, {self.real_sparsity:.3f} in all convolutions, "
            "linear layers and attention"
            if self.blocks
            else f"sparsity {self.real_sparsity:.3f}, no layer has blocks",
            f"{self.other_parameters:,} other parameters (biases, normalisation, ...) are dense",
        ]
        if self.phase:
            notes.append(f"masks are in a {self.phase} phase" + (": every block is in use" * (self.phase == "dense")))
        return "\n".join((*columns(table, indent="", left=3), *notes))


def report(model: nn.Module, example_input: Any = None, plan: Plan | None = None, block: Any = None) -> Report:
    """Blocks, parameters and multiplications that every layer of `model` has and keeps.

    Parameters
    ----------
    model : nn.Module
        With masks, in any phase, or plain; compiled, averaged and data-parallel models are unwrapped. Not changed.
    example_input : tensor, or tuple or dict of arguments
        A batch, examples along its first dimension. Run once in evaluation mode to count multiplications. Without it
        they are known only in models without convolutions: one use per row of input.
    plan : Plan, optional
        For a plain model: the blocks that were pruned, `s.plan`.
    block : int or (outputs, inputs), optional
        For a plain model instead of a plan: the same blocks in all layers.

    Returns
    -------
    Report
        Multiplications of a weight by activations in the listed layers only: those between activations, as in
        attention scores, and layers that are not called as modules are not counted.

    Raises
    ------
    TypeError
        When `model` is no module.
    ValueError
        When a model with masks gets a plan or block, the plan belongs to another model, or there is nothing to report.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> with torch.no_grad():
    ...     model[0].weight.fill_(1.0)[:4] = 0.0
    >>> print(report(model, block=4))
    layer     matrix  block  blocks  kept  weights  kept  MACs  kept  sparsity
    0.weight  8 x 8   4 x 4       4     2       64    32    64    32     0.500
    2.weight  3 x 8   3 x 4       2     2       24    24    24    24     0.000
    total                         6     4       88    56    88    56     0.364
    sparsity 0.364 in layers with blocks, 0.364 in all convolutions, linear layers and attention
    11 other parameters (biases, normalisation, ...) are dense
    """
    model = plain(model)
    found = list(blocks_of(model, plan, block))
    if not found:
        raise ValueError("the model has no linear layer, convolution, embedding or attention: nothing to report.")
    uses = count_uses(model, example_input)
    if example_input is None and not any(isinstance(entry.module, CONVOLUTIONS) for entry in found):
        names = [name for entry in found for name in entry.names]
        uses = {name: float(not isinstance(model.get_submodule(_owner(name)), nn.Embedding)) for name in names}
    known = example_input is not None or bool(uses)
    masks = [mask for _, _, _, mask in masks_of(model)]
    # All masks of a model are in the same phase.
    phase = next((name for name, code in PHASES.items() if masks and code == int(masks[0].phase)), "")
    logits = {id(mask.logits) for mask in masks}
    everything = sum(parameter.numel() for parameter in model.parameters() if id(parameter) not in logits)
    layers = tuple(_count(entry, uses if known else None) for entry in found)
    return Report(layers, max(0, everything - sum(layer.parameters for layer in layers)), phase)


class Blocks(NamedTuple):
    """A weight of a model, all its names, what it computes with, its grid and its mask, if it has them."""

    names: tuple[str, ...]
    module: nn.Module
    weight: Tensor
    grid: BlockGrid | None
    mask: BlockMask | None

    def kept(self) -> Tensor | None:
        """The blocks that are not zero, bool (R, C) on the CPU."""
        # Counted, not measured: the square of 1e-30 is 0 in float32.
        return None if self.grid is None else (self.grid.pool(self.weight != 0) > 0).cpu()


@torch.no_grad()
def blocks_of(model: nn.Module, plan: Plan | None = None, block: Any = None) -> Iterator[Blocks]:
    """Every weight of the model that can be cut into blocks, one at a time; `plan` and `block` as in `report`."""
    reshard(model)
    masks = {
        name: (module.parametrizations[attribute].original, mask) for name, module, attribute, mask in masks_of(model)
    }
    if masks and (plan is not None or block is not None):
        raise ValueError("the model has masks, and they know their blocks: leave plan and block out.")
    if plan is not None and block is not None:
        raise ValueError("plan and block are both given: pass the plan alone.")
    if block is not None:
        plan = make_plan(model, 0.0, block, min_blocks=2, include=(*INCLUDED, nn.Embedding))
    grids = {} if plan is None else {layer.name: layer.grid for layer in plan.layers}
    found = weights_of(model)
    shapes = {weight.name: tuple(weight.tensor.shape) for weight in found if not _is_empty(weight.tensor)}
    for name, grid in grids.items():
        if shapes.get(name) != grid.shape:
            has = f"the shape {shapes[name]}" if name in shapes else "no such weight"
            raise ValueError(f"the plan has {name} with the shape {grid.shape}, the model has {has}: use its own plan.")
    names: dict[int, list[str]] = {}
    for entry in found:
        names.setdefault(id(entry.tensor), []).append(entry.name)
    for entry in found:
        stored, mask = masks.get(entry.name, (entry.tensor, None))
        if _is_empty(stored):
            raise ValueError(f"{entry.name} holds no numbers yet: run the model once, off the meta device.")
        if names[id(entry.tensor)][0] == entry.name:
            weight = full(stored) if mask is None else effective(mask, stored)
            grid_of = grids.get(entry.name) if mask is None else mask.grid
            yield Blocks(tuple(names[id(entry.tensor)]), entry.module, weight, grid_of, mask)


def plain(model: nn.Module) -> nn.Module:
    """The model inside of compiled, averaged and data-parallel ones."""
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel, torch.optim.swa_utils.AveragedModel)
    while hasattr(model, "_orig_mod") or isinstance(model, wrappers):
        model = model._orig_mod if hasattr(model, "_orig_mod") else model.module  # type: ignore[assignment]
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}: pass the nn.Module, such as s.model.")
    return model


def _count(entry: Blocks, uses: dict[str, float] | None) -> LayerReport:
    grid, mask = entry.grid, entry.kept()
    numel = entry.weight.numel()
    kept = int((entry.weight != 0).sum()) if grid is None or mask is None else int(grid.sizes()[mask].sum())
    times = None if uses is None else sum(uses.get(name, 0.0) for name in entry.names)
    kind = next(t.__name__ for t in (*INCLUDED, nn.Embedding) if isinstance(entry.module, t))
    return LayerReport(
        entry.names[0],
        kind,
        tuple(entry.weight.shape),
        None if grid is None else grid.block,
        0 if grid is None else grid.n_blocks,
        0 if mask is None else int(mask.sum()),
        numel,
        kept,
        None if times is None else round(times * numel),
        None if times is None else round(times * kept),
        mask,
    )


def _row(layer: LayerReport, counted: bool) -> tuple[str, ...]:
    matrix = (layer.shape[0], prod(layer.shape[1:])) if layer.shape else ()
    sides = " x ".join(map(str, matrix))
    block = "" if not layer.shape else "-" if layer.block is None else " x ".join(map(str, layer.block))
    blocks = [f"{n:,}" if layer.blocks else "-" for n in (layer.blocks, layer.blocks_kept)]
    weights = [f"{n:,}" for n in (layer.parameters, layer.parameters_kept)]
    macs = [_short(n) for n in (layer.macs, layer.macs_kept)] if counted else []
    return (layer.name, sides, block, *blocks, *weights, *macs, f"{layer.sparsity:.3f}")


def _short(number: int | None) -> str:
    """Three digits: 512, 65.5 k, 4.09 G."""
    value = float(number or 0)
    for unit in ("", " k", " M", " G", " T"):
        if value < 999.5 or unit == " T":
            break
        value /= 1000.0
    return f"{value:.0f}{unit}" if not unit or value >= 99.95 else f"{value:.{1 if value >= 9.995 else 2}f}{unit}"


def _sparsity(layers: list[LayerReport]) -> float:
    total = sum(layer.parameters for layer in layers)
    return 1.0 - sum(layer.parameters_kept for layer in layers) / total if total else 0.0


def _sum(numbers: Iterator[int | None]) -> int | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if known else None


def _owner(name: str) -> str:
    return name.rpartition(".")[0]


def _is_empty(tensor: Tensor) -> bool:
    return is_lazy(tensor) or tensor.is_meta
