"""Pruning under the Trainer of transformers: a callback that follows the optimizer which the trainer makes.

    s = prune(model, sparsity=0.9, total_steps=N)
    Trainer(model, arguments, ..., callbacks=[Pruning(s, fold=True)]).train()

The state of `s` is in the `trainer_state.json` of every checkpoint, plain numbers and names; masks and phases are
buffers of the model and are saved with it. `train(resume_from_checkpoint=...)` continues exactly there.
"""

from __future__ import annotations

from typing import Any

from sparseopt.nn.integrations import state_of, warn_if_short
from sparseopt.nn.sparsifier import Sparsifier

try:
    from transformers.trainer_callback import ExportableState, TrainerCallback

    class _Base(TrainerCallback, ExportableState): ...

except ImportError:
    _Base = object  # type: ignore[assignment, misc]
__all__ = ["Pruning"]


class Pruning(_Base):
    """Lets a Sparsifier follow the optimizer of a Trainer, and warns if training ends before its last phase.

    Parameters
    ----------
    sparsifier : Sparsifier
        The result of `prune(model, ...)`, without an optimizer.
    fold : bool
        Fold the model when training ends; `trainer.save_model()` writes the plain one then.

    Raises
    ------
    ImportError
        When transformers is not installed.
    ValueError
        When training resumes from a checkpoint of another pruning, or of none.
    """

    def __init__(self, sparsifier: Sparsifier | None = None, fold: bool = False) -> None:
        if _Base is object:
            raise ImportError("this callback needs transformers and accelerate: pip install transformers accelerate.")
        if sparsifier is None:  # so does the trainer, when it builds callbacks anew
            reason = "it restores its state by itself, so leave out restore_callback_states_from_checkpoint."
            raise ValueError(f"Pruning needs the result of prune(...): {reason}")
        self.sparsifier = sparsifier
        self.fold = fold

    def on_train_begin(self, args: Any, state: Any, control: Any, optimizer: Any = None, **others: Any) -> None:
        """Follow the optimizer inside of what Accelerate has made of it, from where the checkpoint was written."""
        s, saved = self.sparsifier, state.stateful_callbacks.get(type(self).__name__)
        if saved is None:
            raise ValueError("this checkpoint was written without pruning: start from its weights, without resuming.")
        s.detach()
        s.attach(getattr(optimizer, "optimizer", optimizer))
        s.load_state_dict(saved["sparsifier"])
        warn_if_short(s, state.max_steps)

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Raise before a checkpoint with infinite weights is written, which might replace a good one."""
        if control.should_save:
            self.state()

    on_epoch_end = on_step_end

    def on_train_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Fold the model, if wanted."""
        if self.fold:
            self.sparsifier.fold()
        self.sparsifier.detach()

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps beside the model and the optimizer."""
        return {"args": {}, "attributes": {}, "sparsifier": state_of(self.sparsifier)}
