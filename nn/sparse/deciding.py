"""What takes the place of a layer: block-sparse and shrunk forms of it, timed against the dense one.

The dense layer gets every form that torch has for it, on the shapes that reach it in the network, and with the ReLU
behind it if a block-sparse layer would take that in. Convolutions in two dimensions are compared in the memory format
that suits each: channels_last for block-sparse ones, the better of both for dense ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from sparseopt.nn.blocks import BlockGrid
from sparseopt.nn.sparse.calls import Seen
from sparseopt.nn.sparse.candidates import Candidate
from sparseopt.nn.sparse.choices import LayerChoice
from sparseopt.nn.sparse.detection import blocks_for
from sparseopt.nn.sparse.layers import BlockSparseConv1d, BlockSparseConv2d, BlockSparseLayer, BlockSparseLinear
from sparseopt.nn.sparse.shrinking import ShrunkConv2d, ShrunkLayer, ShrunkLinear
from sparseopt.nn.sparse.timing import Call, Timer, dense_forms, with_relu

__all__ = ["activation_of", "decided", "forms_of"]

_SPARSE: dict[type[nn.Module], Any] = {
    nn.Linear: BlockSparseLinear,
    nn.Conv1d: BlockSparseConv1d,
    nn.Conv2d: BlockSparseConv2d,
}
_SHRUNK: dict[type[nn.Module], Any] = {nn.Linear: ShrunkLinear, nn.Conv2d: ShrunkConv2d}


def forms_of(layer: Any, grid: BlockGrid | None, activation: str) -> list[Any]:
    """Block-sparse layers to consider, the most promising first; none if no block is zero."""
    if grid is None:
        sizes: list[Any] = blocks_for(layer.weight)
    else:
        sizes = [grid if grid.shape == tuple(layer.weight.shape) else grid.block]  # channels may have been removed
    forms = [_SPARSE[type(layer)].from_dense(layer, size, activation=activation) for size in sizes]
    return [form for form in forms if form.density < 1.0]


def decided(
    candidate: Candidate,
    forms: list[Any],
    backend: str,
    activation: str,
    seen: dict[nn.Module, Counter[Seen]] | None,
    min_speedup: float,
    timer: Timer,
) -> tuple[nn.Module | None, LayerChoice]:
    """What takes the place of a layer, None if nothing does, and why."""
    layer: Any = candidate.module
    choice = _described(candidate)
    if candidate.obstacle:
        return None, replace(choice, reason=candidate.obstacle)
    if backend == "dense":
        return None, replace(choice, reason="backend is dense")
    if seen is not None and layer not in seen:
        return None, replace(choice, reason="example_input does not reach it")
    if seen is not None and isinstance(layer, (nn.Conv1d, nn.Conv2d)):
        if any(len(x.shape) != layer.weight.ndim for x in seen[layer]):
            return None, replace(choice, reason="its input has no batch dimension")
    if seen is None:
        return (forms[0], _chosen(choice, forms[0])) if forms else (None, replace(choice, reason="no block is zero"))
    shrunk = _shrunk(layer)
    if not forms and shrunk is None:
        return None, replace(choice, reason="no block is zero")
    dense_ms, taken = _measured(layer, [*forms, *filter(None, [shrunk])], activation, seen[layer], timer)
    choice = replace(choice, dense_ms=dense_ms, shrunk_ms=taken.get(shrunk))
    if forms:
        quick = min(forms, key=lambda form: taken[form])
        choice = replace(choice, block=quick.block, density=quick.density, sparse_ms=taken[quick])
    best = min(taken, key=lambda form: taken[form])
    if dense_ms > min_speedup * taken[best]:
        return best, _chosen(choice, best)
    why = "nothing is faster" if dense_ms <= taken[best] else f"nothing is {min_speedup:g} times as fast"
    return None, replace(choice, reason=why)


def _described(candidate: Candidate) -> LayerChoice:
    """A layer that stays as it is."""
    kind, shape, density, removed = type(candidate.module).__name__, candidate.shape, 1.0, (0, 0)
    if shape and not candidate.tensor.is_meta:
        now = candidate.tensor.detach()
        density = float((now != 0).to(torch.float64).mean())
        removed = (shape[0] - now.shape[0], shape[1] - now.shape[1])
    return LayerChoice(candidate.name, kind, shape, "dense", "", None, density, removed=removed)


def _chosen(choice: LayerChoice, form: Any) -> LayerChoice:
    if isinstance(form, ShrunkLayer):
        (out, into), (all_out, all_in) = form.weight.shape[:2], form.size
        return replace(choice, chosen="shrunk", reason=f"{out} of {all_out} outputs x {into} of {all_in} inputs")
    reason = "with ReLU" if form.activation == "relu" else ""
    return replace(choice, chosen="sparse", block=form.block, density=form.density, reason=reason)


def activation_of(layer: Any) -> str:
    """What a layer applies to its own results: "relu" or "none"."""
    return layer.activation if isinstance(layer, BlockSparseLayer) else "none"


def _shrunk(layer: Any) -> Any:
    """The layer without outputs and inputs that vanished, None if none did."""
    kind = _SHRUNK.get(type(layer))
    small = None if kind is None else kind.from_dense(layer)
    return small if small is not None and small.weight.numel() < layer.weight.numel() else None


def _measured(
    layer: Any, forms: Sequence[Any], activation: str, inputs: Counter[Seen], timer: Timer
) -> tuple[float, dict[Any, float]]:
    """Milliseconds of all calls of a layer in one run of the network: dense, and each other form."""
    dense_ms, taken = 0.0, dict.fromkeys(forms, 0.0)
    for example, count in inputs.items():
        x = example.sample()
        calls: dict[str, Call] = {f"dense {k}": call for k, call in dense_forms(layer, x, activation).items()}
        if isinstance(layer, nn.Conv2d):
            x = x.to(memory_format=torch.channels_last)  # as it will be in the network
        names = {form: _label(form) for form in forms}
        for form, name in names.items():
            calls[name] = with_relu(partial(form, x), "none" if activation_of(form) == activation else activation)
        seconds = timer(calls)
        dense_ms += 1e3 * count * min(time for name, time in seconds.items() if name.startswith("dense"))
        for form, name in names.items():
            taken[form] += 1e3 * count * seconds[name]
    return dense_ms, taken


def _label(form: Any) -> str:
    return "shrunk" if isinstance(form, ShrunkLayer) else f"sparse {form.block[0]} x {form.block[1]}"
