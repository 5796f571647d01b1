"""All processes of a distributed training must drop the same blocks.

They do when weights and logits are the same everywhere, since rankings are exact. Whenever blocks are chosen, processes
exchange a few numbers per layer and compare them:

    before the choice    the step; masks and phase, by equal bits of a digest; weights W and logits, by r = a' W b with
                         random signs a and b and by the norm, up to sqrt(eps) ||W||; whether all of them are finite
    after it             the digest of the new masks

A digest changes with every bit. r moves by ||D|| or so when W becomes W + D: rounding that differs between kinds of
processors stays below the tolerance, a process that started from other weights or misses an average does not. Rows of
sharded weights exist once, and have no copies to compare.

Every process sees all numbers, so all of them raise the same error: none is left waiting for the others.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from sparseopt.nn.layers import Layer
from sparseopt.nn.sharding import full, is_sharded, local

__all__ = ["require_agreement", "require_finite", "require_replicas"]

_COMPARED = ("mask", "phase", "weights", "logits")
_START = "start them from the same checkpoint, and let gradients be averaged in every step."


def require_finite(layers: Sequence[Layer], step: int) -> None:
    """Raise if weights or logits that this process holds are not finite.

    Raises
    ------
    FloatingPointError
        With the layer's name.
    """
    flags = torch.stack([_finite(layer).cpu() for layer in layers])
    _raise_if_infinite(flags, layers, step, "")


def require_replicas(layers: Sequence[Layer], step: int, group: Any = None) -> None:
    """Raise unless all processes are about to choose blocks from the same numbers, and these are finite.

    Parameters
    ----------
    layers : sequence of Layer
        The pruned layers.
    step : int
        Steps taken.
    group : ProcessGroup, optional
        The processes that hold copies or shards of this model; all by default.

    Raises
    ------
    FloatingPointError
        On all processes, if weights or logits are not finite on one of them.
    RuntimeError
        On all processes, naming what differs in which layer.
    """
    if not _distributed(group):
        require_finite(layers, step)
        return
    names = " ".join(f"{layer.name} {layer.grid.counts}" for layer in layers)
    heads = _gather(torch.tensor([step, len(layers), zlib.crc32(names.encode())]), group)
    for rank, head in enumerate(heads):
        if head[0] != step:
            raise RuntimeError(
                f"process {rank} chooses blocks after {int(head[0])} steps, another one after {step}: "
                "give all processes the same schedule, and let all of them take or skip a step."
            )
        if not torch.equal(head, heads[0]):
            raise RuntimeError(
                f"process {rank} prunes other layers than process 0: give all processes the same model and plan."
            )
    exact = torch.stack(_gather(torch.stack([_exact(layer).cpu() for layer in layers]), group))
    _raise_if_infinite((exact[..., 2:] != 0).all(0), layers, step, " on one process")
    near = torch.stack(_gather(torch.stack([_near(layer) for layer in layers]).view(torch.int64), group))
    near = near.view(torch.float64).unflatten(-1, (2, 2))
    gaps = (near - near[:1]).abs().amax(-1)
    norms = near[..., 1].maximum(near[:1, ..., 1])
    norms[..., 1].clamp_(min=1.0)  # logits begin at 0, and what follows from them changes with their difference
    tolerances = torch.tensor([[_tolerance(layer.stored), _tolerance(layer.logits)] for layer in layers])
    differing = torch.cat([exact[..., :2] != exact[:1, :, :2], gaps > tolerances * norms], -1)
    if bool(differing.any()):
        rank, i = differing.any(-1).nonzero()[0].tolist()
        what = [name for name, differs in zip(_COMPARED, differing[rank, i].tolist(), strict=True) if differs]
        raise RuntimeError(
            f"processes 0 and {rank} differ in the {' and the '.join(what)} of {layers[i].name} after {step} steps: "
            f"{_START}"
        )


def require_agreement(names: Sequence[str], masks: Sequence[Tensor], group: Any = None) -> None:
    """Raise unless every process brings the same masks, one per layer of `names`.

    Raises
    ------
    RuntimeError
        On all processes, naming the first layer whose masks differ.
    """
    if not _distributed(group):
        return
    digests = _gather(torch.stack([_digest(mask).cpu() for mask in masks]), group)
    for other in digests:
        differing = (other != digests[0]).nonzero()
        if len(differing):
            raise RuntimeError(
                f"processes chose different blocks of {names[int(differing[0])]}: their weights or logits differ; "
                + _START
            )


def _exact(layer: Layer) -> Tensor:
    """What must be equal bit by bit, int64: digest of the mask, phase; and whether weights and logits are finite."""
    return torch.cat([_digest(layer.kept).view(1), layer.mask.phase.long().view(1), _finite(layer).long()])


@torch.no_grad()
def _near(layer: Layer) -> Tensor:
    """What must be equal up to rounding, float64: (r, norm) of the weights, (r, norm) of the logits."""
    return torch.cat([_fingerprint(layer.stored).cpu(), _fingerprint(layer.logits).cpu()])


def _tolerance(tensor: Tensor | None) -> float:
    """sqrt(eps): replicas drift apart by some eps of rounding per step, and by more when an average is missed."""
    return 0.0 if tensor is None else math.sqrt(torch.finfo(tensor.dtype).eps)


def _finite(layer: Layer) -> Tensor:
    """Whether weights and logits are finite here, two booleans."""
    weights = torch.isfinite(local(layer.stored)).all()
    return torch.stack([weights, weights if layer.logits is None else torch.isfinite(local(layer.logits)).all()])


def _raise_if_infinite(flags: Tensor, layers: Sequence[Layer], step: int, where: str) -> None:
    for layer, row in zip(layers, flags.tolist(), strict=True):
        for what, finite in zip(("weights", "logits"), row, strict=True):
            if not finite:
                raise FloatingPointError(
                    f"the {what} of {layer.name} are not finite after {step} steps{where}: go back to the last "
                    "checkpoint, with a smaller learning rate."
                )


def _fingerprint(tensor: Tensor | None) -> Tensor:
    """(a' W b, ||W||) in float64, for signs a and b; zeros where there are no copies to compare."""
    if tensor is None or not _has_copies(tensor):
        return torch.zeros(2, dtype=torch.float64)
    matrix = full(tensor).flatten(1)
    matrix = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
    rows, columns = (2.0 * (_noise(n, matrix.device) >> 40 & 1) - 1.0 for n in matrix.shape)
    strips = (matrix @ columns.to(matrix.dtype)).double()
    return torch.stack([rows.double() @ strips, torch.linalg.vector_norm(matrix).double()])


def _has_copies(tensor: Tensor) -> bool:
    """Whether several processes hold the same rows, as they do with copies, and with copies of shards (HSDP)."""
    return not is_sharded(tensor) or any(place.is_replicate() for place in tensor.placements)  # type: ignore[attr-defined]


def _digest(mask: Tensor) -> Tensor:
    """The sum of the kept blocks' pseudorandom numbers, modulo 2^64.

    They are different and none is 0, so one block more or less, or one in the place of another, always shows; any other
    difference is missed with probability 2^-64.
    """
    return (_noise(mask.numel(), mask.device) * mask.flatten()).sum()


def _noise(n: int, device: torch.device) -> Tensor:
    """n pseudorandom numbers of 64 bits, all different and the same everywhere: SplitMix64 (Steele et al. 2014)."""
    x = torch.arange(1, n + 1, dtype=torch.int64, device=device) * _signed(0x9E3779B97F4A7C15)
    x = (x ^ _shift(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shift(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shift(x, 31)


def _shift(x: Tensor, by: int) -> Tensor:
    """x >> by of the unsigned number that has the same bits."""
    return (x >> by) & ((1 << (64 - by)) - 1)


def _signed(constant: int) -> int:
    """The int64 with the bits of an unsigned constant."""
    return constant - (1 << 64) if constant >= 1 << 63 else constant


def _distributed(group: Any) -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size(group) > 1


def _gather(numbers: Tensor, group: Any) -> list[Tensor]:
    """The int64 tensors of all processes, on the CPU; they have equal shapes."""
    backends = dist.get_backend_config(group)  # "cpu:gloo,cuda:nccl": NCCL moves tensors between GPUs only
    sent = numbers.to("cpu" if "cpu:" in backends else backends.partition(":")[0])
    received = [torch.empty_like(sent) for _ in range(dist.get_world_size(group))]
    dist.all_gather(received, sent, group=group)
    return [each.cpu() for each in received]
