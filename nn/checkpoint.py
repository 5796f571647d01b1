"""Checkpoints that a killed training continues from, with the same weights at the end.

A training is a map of states: x(n + 1) = F(x(n), batch n). A run that continues from x(n) ends where the uninterrupted
run ends if x(n) is whole:

    model        weights, logits, masks, phases, statistics of batch norms       in its state_dict
    optimizer    moments, step counts, learning rates                            in its state_dict
    sparsifier   steps, history; plan, method and schedule to compare with       in its state_dict
    scheduler, scaler, and the random numbers of torch, CUDA, NumPy and Python

A file holds whole tensors, however the model is spread over processes: a run goes on with another number of them.

The batch is the caller's: what the data loader needs to give batch n again (epoch, seed, position) belongs in `extra`.

Files are written as `sparseopt.nn.wholefile` does: at every moment the path holds the old checkpoint or the new one,
and a damaged file is noticed before anything is changed. Loading checks everything first and changes things then.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sparseopt.nn.identity import listed
from sparseopt.nn.plaindata import mapped, plain, shards, states, whole
from sparseopt.nn.randomness import random_state, set_random_state
from sparseopt.nn.sharding import Processes, is_sharded, like, local, reshard
from sparseopt.nn.sparsifier import Sparsifier
from sparseopt.nn.wholefile import read_whole, write_whole

__all__ = ["load_checkpoint", "save_checkpoint"]

Parts = tuple[nn.Module, Optimizer, Sparsifier | None, Any, Any]


def save_checkpoint(
    path: str | os.PathLike[str],
    model: nn.Module,
    optimizer: Optimizer,
    sparsifier: Sparsifier | None,
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
        of `prune`; None for a model without masks, a dense baseline.
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
        When something could not be loaded again (an object that is not plain data); nothing is written.
    RuntimeError
        When the model is sharded, and the processes did not come here after the same step.
    OSError
        When the disk is full, for example; the older file is untouched.

    Notes
    -----
    On CPU, with one number of threads, a resumed run equals the uninterrupted one bit by bit. Of several processes with
    equal weights, the first one's file will do if nothing random happens in the model (dropout does); otherwise each
    process saves to a path of its own.

    Of a model that `fully_shard` spread over processes, all of them call this together. The first one gathers and
    writes one file for all, with room for the whole state in its main memory; the others need room for one tensor. It
    holds everybody's random numbers, and otherwise what the first process has: `extra`, and buffers, which such models
    do not keep equal (the statistics of batch norms). If one process fails, all raise its error.

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
    reshard(model)
    parts = model, optimizer, sparsifier, scheduler, scaler
    processes = Processes(model, None if sparsifier is None else sparsifier.process_group)
    content = processes.together(lambda: _content(parts, extra, processes.sharded))
    # Tensors are gathered by all processes in one order, or not at all.
    order = hashlib.sha256(repr(shards(content)).encode()).digest()
    notes = processes.exchange((_steps(content), order, random_state()))
    for rank, (step, theirs, _) in enumerate(notes):
        if (step, theirs) != notes[0][:2]:
            raise RuntimeError(
                f"process {rank} has other sharded tensors after {step} steps than process 0 after {notes[0][0]}: "
                "call save_checkpoint in all processes after the same step."
            )
    content["random"], *content["random_elsewhere"] = [state for _, _, state in notes]
    content = whole(content, processes.rank == 0)
    processes.together(lambda: write_whole(path, content) if processes.rank == 0 else None)


def load_checkpoint(
    path: str | os.PathLike[str],
    model: nn.Module,
    optimizer: Optimizer,
    sparsifier: Sparsifier | None,
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
        When the file has random states of CUDA devices that are not here, or of more or fewer processes than the model
        is spread over.

    Notes
    -----
    All processes of a sharded model call this together, and every one reads the file and keeps its part. How the model
    was spread when the file was written does not matter, nor whether it was: everything is the same, bit by bit. A run
    that goes on with another number of processes adds up gradients in another order, and equals the uninterrupted one
    up to that rounding. Tensors in `extra` come back whole.
    """
    model = _bare(model)
    reshard(model)
    parts = model, optimizer, sparsifier, scheduler, scaler
    processes = Processes(model, None if sparsifier is None else sparsifier.process_group)
    content = processes.together(lambda: _read(path, parts))
    steps = processes.exchange(_steps(content))
    if len(set(steps)) > 1:
        raise ValueError(f"{path} was written after {steps} steps, one per process: give all of them the same file.")
    processes.together(lambda: _restore(content, parts, processes.sharded))
    state = _random_here(content, processes, path)
    if state is not None:
        set_random_state(state)
    return content["extra"]


def _content(parts: Parts, extra: Any, sharded: bool) -> dict[str, Any]:
    """What this process holds, checked; tensors are in shards as they are in the model."""

    def checked(value: Any, where: str) -> Any:
        return mapped(value, where, lambda each, place: each if sharded and is_sharded(each) else plain(each, place))

    model, optimizer, sparsifier, scheduler, scaler = parts
    _require_finite(model, None if sparsifier is None else sparsifier.step_count)
    state = optimizer.state_dict()
    for parameter, own in states(state, optimizer) if sharded else ():
        for key, value in own.items():
            if any(found != ("", parameter.shape) for found in shards(value)):
                raise ValueError(
                    f"the optimizer has shards of {key} in another shape than the parameter's, which could not be "
                    "spread again: save this training with torch.distributed.checkpoint."
                )
    return {
        "model": checked(model.state_dict(), "model"),
        "optimizer": checked(state, "optimizer"),
        "optimizer_kind": _kind(optimizer),
        "optimizer_holds": _names(model, optimizer),
        "sparsifier": None if sparsifier is None else checked(sparsifier.state_dict(), "sparsifier"),
        "scheduler": None if scheduler is None else checked(scheduler.state_dict(), "scheduler"),
        "scheduler_kind": type(scheduler).__name__,
        "scaler": None if scaler is None else checked(scaler.state_dict(), "scaler"),
        "extra": checked(extra, "extra"),
    }


def _read(path: str | os.PathLike[str], parts: Parts) -> dict[str, Any]:
    """The file, if it belongs to this training."""
    model, optimizer, sparsifier, scheduler, scaler = parts
    content: dict[str, Any] = read_whole(path)
    differences = [
        *_pruning_differences(content["sparsifier"], sparsifier),
        *_model_differences(content["model"], model.state_dict()),
        *_optimizer_differences(content, model, optimizer),
        *_companion_differences(content, scheduler, scaler),
    ]
    if differences:
        raise ValueError(f"{path} was made otherwise: {listed(differences)}.")
    return content


def _restore(content: dict[str, Any], parts: Parts, sharded: bool) -> None:
    model, optimizer, sparsifier, scheduler, scaler = parts
    weights = content["model"]
    for name, here in model.state_dict().items():
        if is_sharded(here):
            weights[name] = like(here, weights[name])
    for parameter, state in states(content["optimizer"], optimizer) if sharded else ():
        for key, value in state.items():
            # Others are counts, which every process has.
            if is_sharded(parameter) and isinstance(value, Tensor) and value.shape == parameter.shape:
                state[key] = like(parameter, value)
    model.load_state_dict(weights)
    optimizer.load_state_dict(content["optimizer"])
    if sparsifier is not None:
        sparsifier.load_state_dict(content["sparsifier"])
    if scheduler is not None:
        scheduler.load_state_dict(content["scheduler"])
    if scaler is not None:
        scaler.load_state_dict(content["scaler"])


def _random_here(content: Mapping[str, Any], processes: Processes, path: str | os.PathLike[str]) -> Any:
    """The random state for this process; None if the file has none for it."""
    states = [content["random"], *content.get("random_elsewhere", [])]  # older files are those of one process
    if len(states) != processes.size:
        warnings.warn(
            f"{path} has random states of {len(states)} processes, and this model is spread over {processes.size}: "
            "what is drawn (dropout) will differ from the uninterrupted run.",
            stacklevel=3,
        )
    return states[processes.rank] if processes.rank < len(states) else None


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
def _require_finite(model: nn.Module, steps: int | None) -> None:
    after = "" if steps is None else f" after {steps} steps"
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if not (tensor.is_floating_point() or tensor.is_complex()):
            continue
        # A buffer may hold an infinity on purpose: a running minimum begins with one.
        held = local(tensor)
        bad = torch.isnan(held) if not isinstance(tensor, nn.Parameter) else ~torch.isfinite(held)
        if bool(bad.any()):
            raise FloatingPointError(
                f"{name} is not finite{after}, so no checkpoint was written: go back to the last one, "
                "with a smaller learning rate."
            )


def _kind(optimizer: Optimizer) -> str:
    """The name of its class, and that of the optimizer that it is built around."""
    inner = getattr(optimizer, "optimizer", None)
    return type(optimizer).__name__ + (f" of {_kind(inner)}" if isinstance(inner, Optimizer) else "")


def _names(model: nn.Module, optimizer: Optimizer) -> list[list[str]]:
    """The names of the parameters in every group of the optimizer."""
    known = {id(parameter): name for name, parameter in model.named_parameters()}
    return [[known.get(id(p), "a parameter outside the model") for p in g["params"]] for g in optimizer.param_groups]


def _steps(content: Mapping[str, Any]) -> int:
    """The steps that were taken; 0 where nobody counts them."""
    return 0 if content["sparsifier"] is None else int(content["sparsifier"]["step"])


def _pruning_differences(theirs: Mapping[str, Any] | None, sparsifier: Sparsifier | None) -> list[str]:
    if theirs is None or sparsifier is None:
        there, here = ("without masks" if each is None else "pruned" for each in (theirs, sparsifier))
        return [f"the model is {there} there, {here} here"] if there != here else []
    return sparsifier.differences(theirs)


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
