"""A pruned network made faster: each layer block-sparse where that is measured to be faster, dense where it is not.

    fold      BatchNorm goes into the layer before it
    remove    channels that are zero, or that nobody reads, leave the network
    measure   every layer, dense against block-sparse and against shrunk, on the shapes that reach it
    replace   those that win; ReLU and sums of branches go into block-sparse layers
    check     the network as a whole: its results, and that it is faster than the best dense one

A layer is replaced if  dense time > min_speedup x its time,  dense being the best of what torch offers; a tie is dense.
The same is asked of the whole network in the end, because layers that are timed alone do not pay for what lies between
them, such as a change of the memory format.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from sparseopt.nn.blocks import BlockGrid
from sparseopt.nn.masking import masks_of
from sparseopt.nn.planning import Plan
from sparseopt.nn.reporting import plain
from sparseopt.nn.rules import as_block
from sparseopt.nn.sparse.calls import apply, difference, evaluating, inputs_of, run
from sparseopt.nn.sparse.candidates import Candidate, candidates_of
from sparseopt.nn.sparse.choices import Compression, LayerChoice
from sparseopt.nn.sparse.deciding import activation_of, decided, forms_of
from sparseopt.nn.sparse.fusing import absorb_relus, absorb_sums, fold_batch_norms, relu_after
from sparseopt.nn.sparse.layers import BlockSparseConv2d, BlockSparseLayer
from sparseopt.nn.sparse.removal import remove_channels
from sparseopt.nn.sparse.timing import Timer, race
from sparseopt.nn.sparse.wiring import Wiring, replace_module

__all__ = ["BACKENDS", "compress"]

BACKENDS = ("auto", "sparse", "dense")


def compress(
    model: nn.Module,
    backend: str = "auto",
    example_input: Any = None,
    block: Any = None,
    plan: Plan | None = None,
    fuse: bool = True,
    min_speedup: float = 1.0,
    exclude: Sequence[str | type[nn.Module]] = (),
    timer: Timer = race,
) -> nn.Module:
    """A copy of a pruned model that computes the same and runs faster, with the reasons in its attribute `compression`.

    Parameters
    ----------
    model : nn.Module
        Folded: plain modules with exact zeros. Not changed. Compiled and data-parallel models are unwrapped.
    backend : {"auto", "sparse", "dense"}
        "auto" measures every layer on `example_input`, on this machine and with the threads that torch has now.
        "sparse" makes every layer block-sparse that has a zero block. "dense" only fuses.
    example_input : Tensor, or tuple or dict of arguments
        What the model will typically get, batch size included; needed for "auto". The result is compared on it.
    block : int or (outputs, inputs), optional
        Size of the blocks in all layers. Without it and without `plan`, sizes are found in the zeros.
    plan : Plan, optional
        The plan that the model was pruned by, `s.plan`.
    fuse : bool
        Whether to change the network across layers: fold BatchNorm, take ReLU and the sum with another branch into
        block-sparse layers, remove channels (under "auto" only). It takes a model in evaluation mode that `torch.fx`
        can trace; others are left as they are, and `compression.notes` has the reason. Where a sum is taken in or ReLU
        is called as a function, the result is a `torch.fx.GraphModule` with the model's submodules and without its
        other methods. Code that calls single layers of the result finds BatchNorm and ReLU applied by the layer before.
    min_speedup : float
        How many times faster a layer must be to be replaced; 1 by default.
    exclude : sequence of names or types
        Layers that stay as they are. Names may have wildcards, and cover what lies inside.
    timer : callable
        From a mapping of name to callable to a mapping of name to seconds.

    Returns
    -------
    nn.Module
        In the same mode, with the same names. `print(result.compression)` shows a table, see `Compression`.

    Raises
    ------
    ValueError
        When an argument is outside its range, "auto" has no example, the model still has its masks, or the result
        differs from the model's.
    TypeError
        When `model` is no module.

    Notes
    -----
    Linear, Conv1d and Conv2d with groups = 1 and zero padding have a block-sparse form. Layers that share a weight,
    attention, embeddings and subclasses of these types stay dense. A fast path of `nn.TransformerEncoderLayer` that
    computes with the weights of its linear layers itself is switched off where those are replaced.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3)).eval()
    >>> _ = model[0].weight.data[:, 16:].zero_()
    >>> fast = compress(model, backend="sparse", block=16)
    >>> print(fast.compression)
    layer     matrix   chosen  block    density  dense ms  sparse ms  speed-up  reason
    0.weight  64 x 64  sparse  16 x 16    0.250         -          -         -  with ReLU
    2.weight  3 x 64   dense   -          1.000         -          -         -  no block is zero
    >>> x = torch.randn(5, 64)
    >>> torch.allclose(fast(x), model(x), atol=1e-5)
    True
    """
    model = plain(model)
    _check(model, backend, example_input, block, plan, min_speedup)
    fast = deepcopy(model)
    wiring = Wiring(fast, trace=fuse)
    candidates = candidates_of(fast, wiring, exclude)
    grids = _given_grids(candidates, block, plan)
    notes = _folded(wiring, example_input) if fuse else []
    dense, seen = fast, None
    if backend == "auto":
        dense = deepcopy(fast)
        remove_channels(wiring, [each.owner for each in candidates if each.obstacle == "excluded"])
        seen = inputs_of(fast, example_input, [each.module for each in candidates if not each.obstacle])
    choices: list[LayerChoice] = []
    replaced: dict[str, Any] = {}
    for each in candidates:
        activation = "none" if each.obstacle or relu_after(wiring, each.owner) is None else "relu"
        forms = [] if each.obstacle or backend == "dense" else forms_of(each.module, grids.get(each.owner), activation)
        new, choice = decided(each, forms, backend, activation, seen, min_speedup, timer)
        choices.append(choice)
        if new is not None:
            replaced[each.owner] = new
            fast = wiring.model = replace_module(fast, each.module, _settled(new, each.module))
    fast = absorb_relus(wiring, [name for name, new in replaced.items() if activation_of(new) == "relu"])
    sparse = [name for name, new in replaced.items() if isinstance(new, BlockSparseLayer)]
    wiring.model = fast
    fast, n_sums = absorb_sums(wiring, sparse)
    notes += [f"{n_sums} sums with another branch are taken into layers"] if n_sums else []
    compression = Compression(tuple(choices), (*notes, *_arranged(fast)))
    if backend == "auto" and any(choice.chosen != "dense" or any(choice.removed) for choice in choices):
        dense, times = _raced(dense, fast, example_input, timer)
        compression = replace(compression, dense_ms=times[0], compressed_ms=times[1])
        if times[0] <= min(1.0, min_speedup) * times[1]:
            fast, compression = dense, _all_dense(compression, notes)
    if example_input is not None:
        _verify(model, fast, example_input)
    return _with_report(fast, compression)


def _check(model: nn.Module, backend: str, example_input: Any, block: Any, plan: Any, min_speedup: float) -> None:
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}.")
    if backend == "auto" and example_input is None:
        raise ValueError("backend='auto' measures layers on example_input: pass a typical batch, or backend='sparse'.")
    if block is not None and plan is not None:
        raise ValueError("plan and block are both given: pass the plan alone.")
    if plan is not None and not isinstance(plan, Plan):
        raise TypeError(f"plan must be a Plan, such as s.plan, got {type(plan).__name__}.")
    if not isinstance(min_speedup, (int, float)) or not 0.0 < min_speedup < float("inf"):
        raise ValueError(f"min_speedup must be a positive number, got {min_speedup!r}.")
    masked = next((name for name, *_ in masks_of(model)), None)
    if masked is not None:
        raise ValueError(f"{masked} still has its mask: call s.fold() or fold(model) before compressing the model.")
    if not isinstance(getattr(model, "compression", None), (Compression, type(None))):
        raise ValueError("the model has an attribute 'compression' of its own, where the report would go: rename it.")


def _given_grids(candidates: Sequence[Candidate], block: Any, plan: Plan | None) -> dict[str, BlockGrid]:
    """The grid of each layer, by the layer's name, as far as it was given."""
    owners = {each.name: each.owner for each in candidates}
    shapes = {each.name: each.shape for each in candidates}
    if plan is not None:
        for layer in plan.layers:
            if shapes.get(layer.name) != layer.grid.shape:
                has = f"the shape {shapes[layer.name]}" if layer.name in shapes else "no such weight"
                raise ValueError(
                    f"the plan has {layer.name} with the shape {layer.grid.shape}, the model has {has}: "
                    "use its own plan."
                )
        return {owners[layer.name]: layer.grid for layer in plan.layers}
    if block is None:
        return {}
    sides = (2**31 if side is None else side for side in as_block(block))  # a grid cuts them to the matrix
    size = (next(sides), next(sides))
    return {each.owner: BlockGrid(each.shape, size) for each in candidates if not each.obstacle}


def _folded(wiring: Wiring, example_input: Any) -> list[str]:
    """Fold BatchNorm; what there is to say about it."""
    if wiring.obstacle:
        return [f"the network is not fused: {wiring.obstacle}"]
    norms = [module for module in wiring.model.modules() if isinstance(module, nn.BatchNorm1d)]
    notes, dimensions = [], {}
    if norms and example_input is None:
        notes.append("BatchNorm1d stays: only an example_input shows which dimension it normalises")
    elif norms:
        reached = inputs_of(wiring.model, example_input, norms)
        sizes = {norm: {len(each.shape) for each in inputs} for norm, inputs in reached.items()}
        dimensions = {norm: min(size) for norm, size in sizes.items() if len(size) == 1}
    folded = fold_batch_norms(wiring, dimensions)
    return [*notes, f"BatchNorm is folded into {len(folded)} layers"] if folded else notes


def _settled(new: Any, old: Any) -> nn.Module:
    """`new` in the mode of `old`, with gradients for what had them."""
    weight: nn.Parameter = new.values if isinstance(new, BlockSparseLayer) else new.weight
    weight.requires_grad_(old.weight.requires_grad)
    if new.bias is not None:
        new.bias.requires_grad_(old.bias.requires_grad)
    return new.train(old.training)


def _arranged(model: nn.Module) -> list[str]:
    """Adapt what surrounds the new layers; what there is to say about it."""
    notes = []
    if isinstance(model, torch.fx.GraphModule):
        notes.append("what its forward computes has changed, so the network has become a torch.fx.GraphModule")
    if any(isinstance(module, BlockSparseConv2d) for module in model.modules()):
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        notes.append("the network is in channels_last memory")
    layers = [module for module in model.modules() if isinstance(module, nn.TransformerEncoderLayer)]
    changed = [each for each in layers if {type(each.linear1), type(each.linear2)} != {nn.Linear}]
    for each in changed:
        each.activation_relu_or_gelu = 0  # says that its activation has no fast path
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder) and any(each in changed for each in module.layers):
            module.use_nested_tensor = False  # only the fast path of its layers takes nested tensors
    if changed:
        notes.append(f"the fast path of {len(changed)} transformer layers is off: it reads dense weights")
    return notes


def _raced(dense: nn.Module, fast: nn.Module, example: Any, timer: Timer) -> tuple[nn.Module, tuple[float, float]]:
    """The dense network in the memory format that suits it, and milliseconds of it and of the compressed one."""
    networks = {"dense": dense, "compressed": fast}
    if any(isinstance(module, nn.Conv2d) for module in dense.modules()):
        networks["dense channels_last"] = deepcopy(dense).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with ExitStack() as modes:
        for network in networks.values():
            modes.enter_context(evaluating(network))
        seconds = timer({name: partial(apply, network, example) for name, network in networks.items()})
    best = min((name for name in networks if name != "compressed"), key=lambda name: seconds[name])
    return networks[best], (1e3 * seconds[best], 1e3 * seconds["compressed"])


def _all_dense(compression: Compression, notes: list[str]) -> Compression:
    """The report on a network that was compressed in vain."""
    layers = [
        layer if layer.chosen == "dense" else replace(layer, chosen="dense", reason="the whole network is not faster")
        for layer in compression.layers
    ]
    kept = tuple(replace(layer, removed=(0, 0)) for layer in layers)
    return replace(compression, layers=kept, notes=tuple(notes))


def _verify(model: nn.Module, fast: nn.Module, example_input: Any) -> None:
    epsilons = [torch.finfo(each.dtype).eps for each in model.parameters() if each.is_floating_point()]
    allowed = min(0.1, 30.0 * max(epsilons, default=0.0) ** 0.5)
    found = difference(run(model, example_input), run(fast, example_input))
    if not found <= allowed:
        raise ValueError(
            f"the compressed model differs from the given one on example_input, by {found:.2g} relative: pass "
            "fuse=False if code reads layers from outside, and make the model deterministic in evaluation mode."
        )


def _with_report(model: Any, compression: Compression) -> nn.Module:
    model.compression = compression
    if isinstance(model, torch.fx.GraphModule):  # whose copies keep the attributes listed here only
        model.meta["_user_preserved_attributes"] = {"compression": compression}
    return model
