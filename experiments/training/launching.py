"""From the words of a recipe to processes and devices, by Lightning Fabric.

Fabric starts the processes (or finds those of torchrun or SLURM), wraps the model for data parallelism and mixed
precision, and leaves the loop alone. Accelerate does the same; Fabric was taken because it starts processes from a
plain command, `devices=2`, without a configuration file of its own, and shards with the same call.

"ddp" keeps a copy of the model in every process. "fsdp" cuts every parameter into one piece per process
(`torch.distributed.fsdp.fully_shard`); modules with children of their own that have parameters become units.
"""

from __future__ import annotations

import atexit
import logging
import subprocess
import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from sparseopt.experiments.images.vision import prepare_torchvision
from sparseopt.experiments.training.sections import Hardware

prepare_torchvision()  # Lightning imports it in passing, which fails beside builds of torch for the CPU
from lightning.fabric import Fabric  # noqa: E402
from lightning.fabric.strategies import DDPStrategy, ModelParallelStrategy  # noqa: E402

__all__ = ["Elsewhere", "agree", "gatherer", "is_lost", "launch", "make_fabric"]


PATIENCE = 10.0  # seconds


class Elsewhere(RuntimeError):
    """A process of this training has failed, and this one ends because of it and has nothing to tell."""


def make_fabric(hardware: Hardware) -> Fabric:
    """The engine of a recipe, not launched yet."""
    strategy: Any = hardware.strategy
    if strategy == "fsdp":
        strategy = ModelParallelStrategy(_sharded)
    elif strategy == "ddp":
        # Logits that a phase does not use get zeros and not None: no parameter is ever without a gradient.
        strategy = DDPStrategy(gradient_as_bucket_view=True)
    return Fabric(
        accelerator=hardware.accelerator,
        devices=hardware.devices,
        num_nodes=hardware.nodes,
        strategy=strategy,
        precision=hardware.precision,
    )


def launch(fabric: Fabric) -> None:
    """Start the processes, or join those that are started, without every one of them saying that it is there."""
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("fabric", "pytorch")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        fabric.launch()
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
    if processes := getattr(getattr(fabric, "_launcher", None), "procs", []):
        atexit.register(_end, processes)
    if fabric.world_size > 1 and dist.get_backend() == "gloo":
        atexit.register(_leave)


def _leave() -> None:
    """End gloo's threads: one that still runs when the interpreter is taken down aborts the process."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Leave no process behind that waits for this one; those that notice its end have ended by themselves."""
    for process in processes:
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()


def _sharded(model: nn.Module, mesh: Any) -> nn.Module:
    """Every block of the network, and then what is left of it."""
    # It means changes in place of what the network returns: there are none.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module")
    # The mesh that is given divides the processes of a machine among tensors, and only machines among examples.
    everyone = init_device_mesh(mesh.device_type, (dist.get_world_size(),))
    for child in model.modules():
        if child is not model and isinstance(child, (nn.Sequential, nn.ModuleList)):
            for unit in child.children():
                if any(True for _ in unit.parameters()) and any(True for _ in unit.children()):
                    fully_shard(unit, mesh=everyone)
    fully_shard(model, mesh=everyone)
    return model


def agree(fabric: Fabric, failure: Exception | None) -> None:
    """Called by all processes, with what went wrong in this one: none goes on, and none waits, if one of them failed.

    Raises
    ------
    Exception
        In the first process its own error, or the sentence of another one.
    Elsewhere
        In the others. What says that the training diverged is raised in all.
    """
    if fabric.world_size == 1:
        if failure is not None:
            raise failure
        return
    told: list[Any] = [None] * fabric.world_size
    dist.all_gather_object(told, None if failure is None else (str(failure), isinstance(failure, ArithmeticError)))
    said = [each for each in told if each is not None]
    if not said:
        return
    sentence, diverged = said[0]
    if diverged:
        raise FloatingPointError(sentence)
    if not fabric.is_global_zero:
        raise Elsewhere(sentence) from failure
    raise ValueError(sentence) if failure is None else failure


def is_lost(error: BaseException) -> bool:
    """Whether an error says that another process is not there any more."""
    words = ("gloo", "nccl", "connection closed by peer", "connection reset by peer")
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)
    )


def gatherer(fabric: Fabric) -> Any:
    """Joins tensors (n_r, ...) of all processes along the first axis; lengths may differ."""

    def gather(tensor: torch.Tensor) -> torch.Tensor:
        if fabric.world_size == 1:
            return tensor
        counts = [int(each) for each in _all(torch.tensor([len(tensor)]), fabric)]
        padded = tensor.new_zeros((max(counts), *tensor.shape[1:]))
        padded[: len(tensor)] = tensor
        return torch.cat([part[:count] for part, count in zip(_all(padded, fabric), counts, strict=True)])

    return gather


def _all(tensor: torch.Tensor, fabric: Fabric) -> list[torch.Tensor]:
    """The tensors of all processes, of one shape, on the CPU."""
    mine = tensor.to(fabric.device)
    parts = [torch.empty_like(mine) for _ in range(fabric.world_size)]
    dist.all_gather(parts, mine)
    return [part.cpu() for part in parts]
