"""All processes of a distributed training must drop the same blocks.

They do when weights and logits are the same everywhere, since rankings are exact. That is checked whenever blocks are
chosen: one digest per layer is compared between the processes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["require_agreement"]


def require_agreement(names: Sequence[str], masks: Sequence[Tensor]) -> None:
    """Raise unless every process brings the same masks.

    Raises
    ------
    RuntimeError
        On all processes, naming the first layer whose masks differ.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return
    digests = torch.stack([_digest(mask) for mask in masks])
    gathered = [torch.empty_like(digests) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, digests)
    for other in gathered:
        differing = (other != digests).nonzero()
        if len(differing):
            raise RuntimeError(
                f"processes chose different blocks of {names[int(differing[0])]}: their weights or logits differ; "
                "start them from the same checkpoint, and let gradients be averaged in every step."
            )


def _digest(mask: Tensor) -> Tensor:
    """A number that changes when the mask does: the sum of pseudorandom numbers of the kept blocks, modulo 2^64."""
    place = torch.arange(1, mask.numel() + 1, dtype=torch.int64, device=mask.device)
    mixed = place * 0x9E3779B97F4A7C1 ^ (place << 31)
    mixed = (mixed ^ (mixed >> 29)) * 0x3F58476D1CE4E5B
    return (mixed * mask.flatten()).sum()
