"""Pruning under Accelerate: one line after `accelerator.prepare`.

    s = prune(model, sparsity=0.9, total_steps=N)
    model, optimizer, loader = accelerator.prepare(model, torch.optim.AdamW(model.parameters()), loader)
    attach(accelerator, s, optimizer)
    ...                                                     the loop, with accelerator.backward and accumulate
    model = s.fold()

Batches of accumulated gradients, and steps that a GradScaler skips (`optimizer.step_was_skipped`), do not count.
`save_state` writes the state of `s` beside the model, whole or not at all, and `load_state` continues exactly there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sparseopt.nn.integrations import state_of
from sparseopt.nn.masking import masks_of
from sparseopt.nn.sparsifier import Sparsifier
from sparseopt.nn.wholefile import read_whole, write_whole

__all__ = ["attach"]


def attach(accelerator: Any, sparsifier: Sparsifier, optimizer: Any, file: str = "sparsifier.pt") -> None:
    """Follow a prepared optimizer, and let `accelerator.save_state` and `load_state` care for the sparsifier as well.

    `register_for_checkpointing` would do the latter too, but loads with pickle.

    Parameters
    ----------
    accelerator : Accelerator
        The one that prepared the optimizer.
    sparsifier : Sparsifier
        The result of `prune(model, ...)`, called before `prepare` and without an optimizer.
    optimizer : AcceleratedOptimizer
        What `prepare` returned.
    file : str
        Name of the file in the folder of a checkpoint; another one for a second sparsifier.

    Raises
    ------
    ValueError
        When the optimizer misses parameters of the pruned layers, or the sparsifier is attached already.
    """
    # The hook must sit on the optimizer inside: the outer one is also called for batches that are accumulated.
    sparsifier.attach(getattr(optimizer, "optimizer", optimizer))

    def save(models: Any, weights: Any, folder: str) -> None:
        state = state_of(sparsifier)
        if state and accelerator.is_local_main_process:
            write_whole(Path(folder, file), state)

    def load(models: Any, folder: str) -> None:
        if any(masks_of(sparsifier.model)):  # not a folded one
            sparsifier.load_state_dict(read_whole(Path(folder, file)))

    accelerator.register_save_state_pre_hook(save)
    accelerator.register_load_state_pre_hook(load)
