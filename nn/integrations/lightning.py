"""Pruning under Lightning: a callback that follows the optimizer, and whose state is in every checkpoint.

    s = prune(module, sparsity=0.9, total_steps=N)          the LightningModule, or a part of it
    Trainer(callbacks=[Pruning(s, fold=True)]).fit(module)

`configure_optimizers` runs after that, and finds the logits in `self.parameters()`. Steps that a GradScaler skips and
batches of accumulated gradients do not count. `fit(ckpt_path=...)` continues exactly where the checkpoint was written.
"""

from __future__ import annotations

from typing import Any

from sparseopt.nn.integrations import state_of, warn_if_short
from sparseopt.nn.optstate import missing_from
from sparseopt.nn.sparsifier import Sparsifier

try:
    from lightning.pytorch.callbacks import Callback as _Base
except ImportError:
    try:
        from pytorch_lightning.callbacks import Callback as _Base
    except ImportError:
        _Base = object

__all__ = ["Pruning"]


class Pruning(_Base):
    """Lets a Sparsifier follow the optimizer of a Lightning Trainer, and warns if training ends before its last phase.

    Parameters
    ----------
    sparsifier : Sparsifier
        The result of `prune(module, ...)`, without an optimizer.
    fold : bool
        Fold the model when `fit` ends. Checkpoints written before that have the masks.

    Raises
    ------
    ImportError
        When neither lightning nor pytorch_lightning is installed.
    """

    def __init__(self, sparsifier: Sparsifier, fold: bool = False) -> None:
        if _Base is object:
            raise ImportError("this callback needs Lightning: pip install lightning.")
        self.sparsifier = sparsifier
        self.fold = fold

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Follow the optimizer that trains the pruned layers."""
        s = self.sparsifier
        s.detach()
        weights = [(layer.name, layer.stored) for layer in s.layers]
        training = [optimizer for optimizer in trainer.optimizers if not missing_from(optimizer, weights)]
        s.attach((training or trainer.optimizers)[0])

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Compare the length of the training with the schedule."""
        warn_if_short(self.sparsifier, trainer.estimated_stepping_batches)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Fold the model, if wanted: all checkpoints of the training are written by now."""
        if self.fold:
            self.sparsifier.fold()
        self.sparsifier.detach()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps beside the model and the optimizer."""
        return state_of(self.sparsifier)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue there."""
        if state_dict:
            self.sparsifier.load_state_dict(state_dict)
