"""Training loops of other libraries, each by one file of its own that is imported by name:

    sparseopt.nn.integrations.lightning        Pruning(s), a callback of Lightning's Trainer
    sparseopt.nn.integrations.transformers     Pruning(s), a callback of the Trainer of transformers
    sparseopt.nn.integrations.accelerate       attach(accelerator, s, optimizer)

All of them want `s = prune(model, ...)` before the library sees the model, and do what two lines do in a loop of one's
own: `s.attach(optimizer)` and, if asked to, `s.fold()`. In addition, their checkpoints carry the state of `s`.
"""

from __future__ import annotations

import warnings
from typing import Any

from sparseopt.nn.masking import masks_of
from sparseopt.nn.sparsifier import Sparsifier

__all__ = ["state_of", "warn_if_short"]


def state_of(sparsifier: Sparsifier) -> dict[str, Any]:
    """Its state dict: numbers, strings and lists; nothing once the model is folded, when there is nothing to resume."""
    return sparsifier.state_dict() if any(masks_of(sparsifier.model)) else {}


def warn_if_short(sparsifier: Sparsifier, steps: float) -> None:
    """Warn if training stops after `steps` steps, and the last phase begins later. Unknown numbers are not positive."""
    last = sparsifier.schedule.phases[-1].start
    if 0 < steps < last:
        warnings.warn(
            f"the trainer takes {steps} steps, and the last phase begins after {last}: prune with total_steps={steps}.",
            stacklevel=3,
        )
