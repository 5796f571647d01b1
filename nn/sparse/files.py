"""Block-sparse models in files: safetensors with a description, never pickle.

    tensors        every parameter and buffer, once
    description    JSON: the layers of sparseopt (`records`), names that share a tensor, and the architecture
                   (`graphs`), from which a process without the code of the model can build it

The checksum shows damage and keeps no forger away. So everything is checked as if there were none, and before a kernel
runs: the form of the description, every word in it, names, shapes and types of tensors against the model, and that no
block lies outside of its weight.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from sparseopt.nn.sparse.graphs import FORM, build, describe, is_below
from sparseopt.nn.sparse.literals import ANY, conform, parsed
from sparseopt.nn.sparse.records import FORM as RECORD
from sparseopt.nn.sparse.records import KINDS, check_replaced, kind_of, layer_of, positions, record_of, tensors_of
from sparseopt.nn.sparse.tensorfiles import read_tensors, writable, write_tensors

__all__ = ["load", "save"]

VERSION = 1
_FORM = {
    "version": int,
    "layers": [RECORD],
    "tied": {str: str},  # a name, and the one under which the tensor is stored
    "frozen": [str],
    "transient": [str],  # not in state_dict
    "identities": [str],  # perhaps another module has taken over their work
    "rewritten": [str],  # modules whose forward is a graph, no longer that of their class
    "channels_last": [str],
    "obstacle": str,  # why there is no architecture
    "model": ANY,
}


def save(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write a model with block-sparse layers to a file of safetensors, whole or not at all.

    The file holds all tensors and the block-sparse layers. If `torch.fx` can trace the model, and it consists of
    functions and modules of torch, the file holds its architecture too, and `load(path)` needs nothing else. Traced is
    the model in eval mode, and only with the arguments of `forward` that have no default.

    Parameters
    ----------
    model : nn.Module
        On any device; it is not changed.
    path : path
        Usually ending in ".safetensors".

    Raises
    ------
    ValueError
        When a tensor has no data that can be written: on the device "meta", sparse, distributed, or not yet made.

    Examples
    --------
    >>> from sparseopt.nn.sparse.layers import BlockSparseLinear
    >>> dense = nn.Linear(32, 32)
    >>> _ = dense.weight.data[:, 8:].zero_()
    >>> model = nn.Sequential(BlockSparseLinear.from_dense(dense, 8, activation="relu"), nn.Linear(32, 4))
    >>> save(model, "small.safetensors")
    >>> again = load("small.safetensors")
    >>> again.get_submodule("0")
    BlockSparseLinear(32, 32, block=(8, 8), density=0.25, bias=True, activation='relu')
    >>> x = torch.randn(3, 32)
    >>> torch.equal(again(x), model(x))
    True
    """
    write(model, path)


def load(path: str | os.PathLike[str], model: nn.Module | None = None, device: torch.device | str = "cpu") -> Any:
    """The model in a file of `save`, in eval mode.

    Parameters
    ----------
    path : path
    model : nn.Module, optional
        A dense model of the same architecture, for files that hold none. Its layers are replaced by the block-sparse
        ones of the file, its tensors by those of the file, and it is returned; it may be on the device "meta".
    device : device
        Where the model goes.

    Returns
    -------
    nn.Module
        `model`, or a `torch.fx.GraphModule`, or the layer if the file holds one layer only.

    Raises
    ------
    ValueError
        When the file is truncated, damaged or not by `save`; when it holds no architecture and `model` is not given;
        when `model` has other names, shapes or dtypes. `model` is then as it was.
    """
    try:
        return read(path, model).to(device)
    except ValueError as error:
        raise ValueError(f"{path} cannot be loaded: {error}") from error


def write(model: nn.Module, path: str | os.PathLike[str], with_architecture: bool = True) -> None:
    """`save`, on demand without the architecture."""
    model = model._modules.get("_orig_mod") or model  # what torch.compile wraps
    tensors, description = _contents(model)
    description |= {"obstacle": "it was saved without", "model": None}
    _layers({**tensors, **_tied(tensors, description)}, description)
    if with_architecture:
        try:
            architecture, constants = describe(model)
            more = {name: writable(name, tensor.clone(), set()) for name, tensor in constants.items()}
            transient = [*description["transient"], *constants]
            full = description | {"transient": transient, "obstacle": "", "model": architecture}
            _assembled(tensors | more, json.loads(json.dumps(full)), None)
            tensors, description = tensors | more, full
        except ValueError as error:
            description["obstacle"] = str(error).rstrip(".")
    write_tensors(path, tensors, json.dumps(description, allow_nan=False))


def read(path: str | os.PathLike[str], model: nn.Module | None) -> nn.Module:
    """`load` on the CPU."""
    tensors, text = read_tensors(path)
    description = parsed(text)
    if not isinstance(description, dict) or type(description.get("version")) is not int:
        raise ValueError("it holds no description of a model by sparseopt.")
    if description["version"] != VERSION:
        raise ValueError(
            f"it has format {description['version']}, and this sparseopt reads format {VERSION}: use the version of "
            "sparseopt that wrote it."
        )
    conform(description, _FORM)
    if description["model"] is not None:
        conform(description["model"], FORM)
    elif model is None:
        raise ValueError(
            f"it holds tensors and no architecture ({description['obstacle']!r:.200}): build the dense model and "
            "pass it, load(path, model=...)."
        )
    return _assembled(tensors, description, model).eval()


def _contents(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Every tensor once, and the description without the architecture."""
    layers: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if positions(module):
            layers.setdefault(module, []).append(name)
    again = {name for names in layers.values() for name in names[1:]}  # what lies there is told by `names`
    tensors: dict[str, Tensor] = {}
    lists: dict[str, list[str]] = {"frozen": [], "transient": [], "channels_last": []}
    tied, first, storages = dict[str, str](), dict[int, str](), set[int]()
    for name, home, key, tensor in _tensors(model):
        if is_below(name, again):
            continue
        if key in home._non_persistent_buffers_set:
            lists["transient"].append(name)
        if id(tensor) in first and key not in positions(home):
            tied[name] = first[id(tensor)]
            continue
        if key not in positions(home):
            first[id(tensor)] = name
        tensors[name] = writable(name, tensor, storages)
        if isinstance(tensor, nn.Parameter) and not tensor.requires_grad:
            lists["frozen"].append(name)
        if _is_channels_last(tensor):
            lists["channels_last"].append(name)
    records = [record_of(layer, names) for layer, names in layers.items()]
    lists["identities"] = [name for name, module in model.named_modules() if type(module) is nn.Identity]
    lists["rewritten"] = [name for name, module in model.named_modules() if isinstance(module, fx.GraphModule)]
    return tensors, {"version": VERSION, "layers": records, "tied": tied, **lists}


def _assembled(tensors: dict[str, Tensor], description: Mapping[str, Any], model: nn.Module | None) -> nn.Module:
    """The model of a description of the form _FORM; all is checked before `model` is changed."""
    stored = {**tensors, **_tied(tensors, description)}
    layers = _layers(stored, description)
    if model is None:
        model = build(description["model"], layers, stored)
    else:
        _check_forward(model, description)
    modules = dict(model.named_modules(remove_duplicate=False))
    for name, layer in layers.items():
        if layer is not modules.get(name):
            check_replaced(name, layer, modules.get(name))
    gone = (name for name in description["identities"] if name in modules and name not in layers)
    replaced = layers | {name: nn.Identity() for name in gone if type(modules[name]) is not nn.Identity}
    biases = _check_names(model, replaced, stored, description)
    for name, module in replaced.items():
        home, _, key = name.rpartition(".")
        if name:
            modules[home]._modules[key] = module
    for home in biases:
        modules[home].bias = nn.Parameter(torch.empty(0, device="meta"), requires_grad=False)
    model = replaced.get("", model)
    _fill(model, stored, description)
    return model


def _check_forward(model: nn.Module, description: Mapping[str, Any]) -> None:
    """Refuse a model that would call the layers otherwise, with the same names and shapes."""
    graphs = {name for name, module in model.named_modules() if isinstance(module, fx.GraphModule)}
    for name in description["rewritten"]:
        if name not in graphs:
            without = "without model=" if description["model"] is not None else "with model= that was rewritten alike"
            raise ValueError(f"the forward of its module {name!r:.60} was rewritten by torch.fx: load it {without}.")


def _layers(stored: Mapping[str, Tensor], description: Mapping[str, Any]) -> dict[str, nn.Module]:
    layers: dict[str, nn.Module] = {}
    for record in description["layers"]:
        if len({*record["names"], *layers}) < len(record["names"]) + len(layers):
            raise ValueError(f"a name among {record['names']!r:.60} is that of another layer.")
        layers.update(dict.fromkeys(record["names"], layer_of(record, stored)))
    return layers


def _tied(tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors that a second name has, or a third."""
    # Whoever else held the positions of blocks could change them after they have been checked.
    own = {
        f"{name}.{key}".lstrip(".")
        for record in description["layers"]
        for name in record["names"]
        for key in KINDS[kind_of(record)].positions
    }
    for name, origin in description["tied"].items():
        if name in tensors or origin not in tensors or name in own or origin in own:
            raise ValueError(f"its tensor {name!r:.60} cannot be the same as {origin!r:.60}.")
    return {name: tensors[origin] for name, origin in description["tied"].items()}


def _check_names(
    model: nn.Module, replaced: Mapping[str, nn.Module], stored: Mapping[str, Tensor], description: Mapping[str, Any]
) -> list[str]:
    """Refuse tensors that the model has not, or otherwise, and the lack of one; which layers get a first bias."""
    known = {name for record in description["layers"] for name in tensors_of(record).values()}
    known.update(description["transient"])
    for name, home, key, tensor in _tensors(model):
        if is_below(name, replaced):
            continue
        known.add(name)
        mine = stored.get(name)
        if mine is None and (key not in home._non_persistent_buffers_set or tensor.is_meta):
            raise ValueError(f"it has no tensor {name!r:.60}, which the model needs.")
        # A tensor on the device "meta" stands for any of its kind: the file knows which.
        if mine is not None and (mine.shape != tensor.shape or not _is_like(mine, tensor)):
            raise ValueError(
                f"its tensor {name!r:.60} is {mine.dtype} {tuple(mine.shape)!s:.60}, and {tensor.dtype} "
                f"{tuple(tensor.shape)!s:.60} in the model: convert the model first, or pass another one."
            )
    biases = []
    for home, module in model.named_modules(remove_duplicate=False):
        # Where BatchNorm was folded into a layer, the layer has a bias that the dense model has not.
        mine, dense = stored.get(f"{home}.bias"), isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d))
        if mine is not None and dense and module.bias is None and mine.shape == module.weight.shape[:1]:
            biases.append(home)
            known.add(f"{home}.bias")
    for name in stored.keys() - known:
        raise ValueError(f"its tensor {name!r:.60} has no place in the model.")
    return biases


def _fill(model: nn.Module, stored: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
    """Give the model the tensors of the file; names that share one get the same parameter."""
    frozen, last, tied = set(description["frozen"]), set(description["channels_last"]), description["tied"]
    made: dict[str, Tensor] = {}
    for name, home, key, _ in list(_tensors(model)):
        if name not in stored:
            continue
        origin = tied.get(name, name)
        tensor = made.get(origin, stored[name])
        if origin not in made and origin in last and tensor.ndim == 4:
            tensor = tensor.contiguous(memory_format=torch.channels_last)
        if key in home._parameters and not isinstance(tensor, nn.Parameter):
            trains = tensor.is_floating_point() or tensor.is_complex()
            tensor = nn.Parameter(tensor, requires_grad=trains and origin not in frozen)
        made[origin] = tensor
        setattr(home, key, tensor)


def _tensors(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, Tensor]]:
    """Every name of every parameter and buffer, with the module that has it and its key there."""
    for prefix, home in model.named_modules(remove_duplicate=False):
        for key, tensor in (*home._parameters.items(), *home._buffers.items()):
            if tensor is not None:
                yield f"{prefix}.{key}" if prefix else key, home, key, tensor


def _is_like(mine: Tensor, tensor: Tensor) -> bool:
    floats = tensor.is_meta and tensor.is_floating_point() and mine.is_floating_point()
    return floats or mine.dtype == tensor.dtype


def _is_channels_last(tensor: Tensor) -> bool:
    last = torch.channels_last
    return tensor.ndim == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=last)
