"""Checkpoints that a killed training continues from, with the same weights at the end.

A training is a map of states: x(n + 1) = F(x(n), batch n). A run that continues from x(n) ends where the uninterrupted
run ends if x(n) is whole:

    model        weights, logits, masks, phases, statistics of batch norms       in its state_dict
    optimizer    moments, step counts, learning rates                            in its state_dict
    sparsifier   steps, history; plan, method and schedule to compare with       in its state_dict
    scheduler, scaler, and the random numbers of torch, CUDA, NumPy and Python

The batch is the caller's: what the data loader needs to give batch n again (epoch, seed, position) belongs in `extra`.

Files are written as `sparseopt.nn.wholefile` does: at every moment the path holds the old checkpoint or the new one,
and a damaged file is noticed before anything is changed. Loading checks everything first and changes things then.
"""

from __future__ import annotations

import os
from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sparseopt.nn.identity import listed
from sparseopt.nn.randomness import random_state, set_random_state
from sparseopt.nn.sharding import is_sharded
from sparseopt.nn.sparsifier import Sparsifier
from sparseopt.nn.wholefile import read_whole, write_whole

__all__ = ["load_checkpoint", "save_checkpoint"]

_PLAIN = (type(None), bool, int, float, complex, str, bytes, Tensor, nn.Parameter)
_PLAIN += (torch.dtype, torch.device, torch.Size)  # type: ignore[assignment]


def save_checkpoint(
    path: str | os.PathLike[str],
    model: nn.Module,
    optimizer: Optimizer,
    sparsifier: Sparsifier,
    scheduler: Any = None,
    scaler: Any = None,
    extra: Any = None,
) -> None:
    """Write the whole state of a training, so that whoever is killed later loses the steps since then and no more.

    Call it between two steps of the optimizer: accumulated gradients are not saved.

    Parameters
    ----------
    path : path
        The file; an older one stays whole until the new one is. Beside it, `path` + ".tmp" is used meanwhile. What a
        killed run leaves there is overwritten by the next call, and several writers of one path wait for each other.
    model, optimizer, sparsifier
        The pruned model, bare or wrapped (`torch.compile`, `DistributedDataParallel`), its optimizer, and the result
        of `prune`.
    scheduler, scaler : optional
        Learning-rate schedule and GradScaler, if the training has them.
    extra : optional
        Numbers, strings, tensors, and lists, tuples and dicts of them; `load_checkpoint` returns it. The state of the
        data loader belongs here: the epoch and the batches taken from it, if the order of an epoch follows from its
        number; otherwise also the state of the loader's generator when the epoch began. So does the state dict of an
        averaged model.

    Raises
    ------
    FloatingPointError
        When a parameter holds NaN or infinity, or a buffer NaN; nothing is written.
    ValueError
        When something could not be loaded again (an object that is not plain data, a sharded parameter); nothing is
        written.
    OSError
        When the disk is full, for example; the older file is untouched.

    Notes
    -----
    On CPU, with one number of threads, a resumed run equals the uninterrupted one bit by bit. Of several processes with
    equal weights, the first one's file will do if nothing random happens in the model (dropout does); otherwise each
    process saves to a path of its own. Sharded models need `torch.distributed.checkpoint`.

    Examples
    --------
    >>> from sparseopt.nn import prune
    >>> model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 1))
    >>> optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    >>> s = prune(model, optimizer, sparsity=0.9, block=4, total_steps=60)
    >>> for n in range(30):
    ...     optimizer.zero_grad()
    ...     model(torch.randn(8, 32)).square().mean().backward()
    ...     optimizer.step()
    ...     if n == 19:
    ...         save_checkpoint("run.pt", model, optimizer, s, extra={"epoch": 0, "batch": n + 1})
    >>> load_checkpoint("run.pt", model, optimizer, s)
    {'epoch': 0, 'batch': 20}
    >>> s.step_count
    20
    """
    model = _bare(model)
    _require_finite(model, sparsifier.step_count)
    weights = model.state_dict()
    _plain(dict(weights), "model")
    content = {
        # As it is, and not as a plain dict: it carries the versions of its modules.
        "model": weights,
        "optimizer": _plain(optimizer.state_dict(), "optimizer"),
        "optimizer_kind": _kind(optimizer),
        "optimizer_holds": _names(model, optimizer),
        "sparsifier": _plain(sparsifier.state_dict(), "sparsifier"),
        "scheduler": None if scheduler is None else _plain(scheduler.state_dict(), "scheduler"),
        "scheduler_kind": type(scheduler).__name__,
        "scaler": None if scaler is None else _plain(scaler.state_dict(), "scaler"),
        "random": random_state(),
        "extra": _plain(extra, "extra"),
    }
    write_whole(path, content)


def load_checkpoint(
    path: str | os.PathLike[str],
    model: nn.Module,
    optimizer: Optimizer,
    sparsifier: Sparsifier,
    scheduler: Any = None,
    scaler: Any = None,
) -> Any:
    """Continue the training that `save_checkpoint` was called in: build everything as it was built there, and load.

    Returns
    -------
    object
        `extra`. Random numbers are those that followed the call of `save_checkpoint`, so load last.

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    ValueError
        When the file is truncated, damaged, or no checkpoint, or belongs to another model, plan, method, schedule or
        optimizer; the sentence says what differs, and nothing has been changed.

    Warns
    -----
    UserWarning
        When the file has random states of CUDA devices that are not here.
    """
    content = read_whole(path)
    model = _bare(model)
    differences = [
        *sparsifier.differences(content["sparsifier"]),
        *_model_differences(content["model"], model.state_dict()),
        *_optimizer_differences(content, model, optimizer),
        *_companion_differences(content, scheduler, scaler),
    ]
    if differences:
        raise ValueError(f"{path} was made otherwise: {listed(differences)}.")
    model.load_state_dict(content["model"])
    optimizer.load_state_dict(content["optimizer"])
    sparsifier.load_state_dict(content["sparsifier"])
    if scheduler is not None:
        scheduler.load_state_dict(content["scheduler"])
    if scaler is not None:
        scaler.load_state_dict(content["scaler"])
    set_random_state(content["random"])
    return content["extra"]


def _bare(model: nn.Module) -> nn.Module:
    """The model without the wrappers of compilation and data parallelism, which put their names before all others."""
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif hasattr(model, "_orig_mod"):
            model = model._orig_mod  # type: ignore[assignment]
        else:
            return model


@torch.no_grad()
def _require_finite(model: nn.Module, steps: int) -> None:
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_sharded(tensor):
            raise ValueError(f"{name} is sharded: save such models with torch.distributed.checkpoint.")
        if not (tensor.is_floating_point() or tensor.is_complex()):
            continue
        # A buffer may hold an infinity on purpose: a running minimum begins with one.
        bad = torch.isnan(tensor) if not isinstance(tensor, nn.Parameter) else ~torch.isfinite(tensor)
        if bool(bad.any()):
            raise FloatingPointError(
                f"{name} is not finite after {steps} steps, so no checkpoint was written: go back to the last one, "
                "with a smaller learning rate."
            )


def _plain(value: Any, where: str) -> Any:
    """`value` with NumPy's numbers as Python's; a sentence about what `torch.load(weights_only=True)` would refuse."""
    if isinstance(value, np.generic):
        value = value.item()
    if type(value) in _PLAIN:
        return value
    if type(value) in (dict, OrderedDict, Counter):
        items = [(_plain(key, f"a key of {where}"), _plain(each, f"{where}[{key!r}]")) for key, each in value.items()]
        return type(value)(dict(items))
    if type(value) in (list, tuple):
        return type(value)(_plain(each, f"{where}[{i}]") for i, each in enumerate(value))
    raise ValueError(
        f"{where} is a {type(value).__name__}, which a checkpoint cannot hold: "
        "use numbers, strings, tensors, and lists, tuples and dicts of them."
    )


def _kind(optimizer: Optimizer) -> str:
    """The name of its class, and that of the optimizer that it is built around."""
    inner = getattr(optimizer, "optimizer", None)
    return type(optimizer).__name__ + (f" of {_kind(inner)}" if isinstance(inner, Optimizer) else "")


def _names(model: nn.Module, optimizer: Optimizer) -> list[list[str]]:
    """The names of the parameters in every group of the optimizer."""
    known = {id(parameter): name for name, parameter in model.named_parameters()}
    return [[known.get(id(p), "a parameter outside the model") for p in g["params"]] for g in optimizer.param_groups]


def _model_differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    found = [f"the model has {name} there, not here" for name in theirs if name not in ours]
    found += [f"the model has {name} here, not there" for name in ours if name not in theirs]
    for name, here in ours.items():
        there = theirs.get(name)
        if isinstance(there, Tensor) and isinstance(here, Tensor):
            if there.shape != here.shape:
                found.append(f"{name} has the shape {tuple(there.shape)} there, {tuple(here.shape)} here")
            elif there.dtype != here.dtype:
                found.append(f"{name} is {there.dtype} there, {here.dtype} here")
    return found


def _optimizer_differences(content: Mapping[str, Any], model: nn.Module, optimizer: Optimizer) -> list[str]:
    """Kinds, and the order of the parameters: an optimizer's state knows them by their place alone."""
    theirs, ours = content["optimizer_holds"], _names(model, optimizer)
    if content["optimizer_kind"] != _kind(optimizer):
        return [f"the optimizer is {content['optimizer_kind']} there, {_kind(optimizer)} here"]
    if len(theirs) != len(ours):
        return [f"the optimizer has {len(theirs)} parameter groups there, {len(ours)} here"]
    for number, (there, here) in enumerate(zip(theirs, ours, strict=True)):
        if len(there) != len(here):
            return [f"group {number} of the optimizer has {len(there)} parameters there, {len(here)} here"]
        for place, (a, b) in enumerate(zip(there, here, strict=True)):
            if a != b:
                return [
                    f"parameter {place} in group {number} of the optimizer is {a} there, {b} here (build it before "
                    "prune here if it was built before prune there, and after it otherwise)"
                ]
    return []


def _companion_differences(content: Mapping[str, Any], scheduler: Any, scaler: Any) -> list[str]:
    found = []
    for name, here in (("scheduler", scheduler), ("scaler", scaler)):
        if content[name] is not None and here is None:
            found.append(f"the training has a {name} there, and none here")
        elif content[name] is None and here is not None:
            found.append(f"the training has a {name} here, and none there")
    if not found and scheduler is not None and content["scheduler_kind"] != type(scheduler).__name__:
        found.append(f"the scheduler is {content['scheduler_kind']} there, {type(scheduler).__name__} here")
    if not found and scaler is not None and bool(content["scaler"]) != bool(scaler.state_dict()):
        found.append(f"the scaler is {'enabled' if content['scaler'] else 'disabled'} there and not here")
    return found
