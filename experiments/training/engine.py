"""Training by a recipe: one loop for every task, method, number of processes and machine.

Step n takes the global batch n; each process takes its share of it, in `accumulate` pieces,

    gradient of step n = mean over the global batch,

so that the number of processes changes nothing but rounding. Whatever is random in a step follows from (seed, n,
process). So a checkpoint between two steps, written whole or not at all, continues as if nothing had happened: model,
masks, optimizer, rates, the average of the weights, and the sums that the next line of the tables is made of.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from sparseopt.experiments.training.launching import Elsewhere, gatherer
from sparseopt.experiments.training.optimizers import learning_rate, make_optimizer
from sparseopt.experiments.training.recipes import Recipe
from sparseopt.experiments.training.resuming import save
from sparseopt.experiments.training.run_folder import RunFolder
from sparseopt.experiments.training.tasks import Feed, Task
from sparseopt.nn import JsonLinesLog, Sparsifier, TensorBoardLog, plan, prune

if TYPE_CHECKING:
    from lightning.fabric import Fabric

__all__ = ["Diverged", "Preempted", "Trainer"]


class Diverged(ArithmeticError):
    """The loss is not finite any more."""


class Preempted(RuntimeError):
    """The process was told to stop, and has written a checkpoint."""


class Trainer:
    """One run: everything that a step changes, and the steps.

    Parameters
    ----------
    recipe : Recipe
        With no sweep in it.
    task : Task
        Made from the recipe.
    fabric : Fabric
        Launched.
    folder : RunFolder
        Where checkpoints and tables go.
    """

    def __init__(self, recipe: Recipe, task: Task, fabric: Fabric, folder: RunFolder) -> None:
        training = recipe.training
        world = fabric.world_size
        if training.batch % (world * training.accumulate):
            raise ValueError(
                f"training.batch is {training.batch}, which {world} processes with training.accumulate="
                f"{training.accumulate} cannot share equally: take a multiple of {world * training.accumulate}."
            )
        self.recipe, self.task, self.fabric, self.folder = recipe, task, fabric, folder
        self.feed = task.feed("train", training.batch, fabric.global_rank, world)
        self.valid = task.feed("valid", training.batch, fabric.global_rank, world)
        self.total = training.steps or math.ceil((training.epochs or 0) * len(self.feed))
        self.step = 0
        self.seconds = 0.0
        # Sums of training loss and accuracy, and steps in them: since the last lines of steps.csv and of epochs.csv.
        exact = torch.float32 if fabric.device.type == "mps" else torch.float64  # which has no other
        self.sums = torch.zeros(2, 2, dtype=exact, device=fabric.device)
        self.counts = [0, 0]
        self._told_to_stop = False
        torch.manual_seed(training.seed)
        self.plain = task.network()
        if recipe.hardware.channels_last:
            self.plain = self.plain.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.sparsifier = self._pruned()
        if training.ema is not None and recipe.hardware.strategy == "fsdp":
            raise ValueError("training.ema takes a copy of the network, and fsdp cannot: choose ddp, or ema=null.")

    # -- the parts -----------------------------------------------------------------------------------------------------

    def _pruned(self) -> Sparsifier | None:
        pruning = self.recipe.pruning
        if pruning is None:
            return None
        layers = plan(self.plain, **pruning.plan_options(self.plain))
        method = pruning.make_method()
        phases = pruning.phases(self.total) or method.schedule(self.total)
        return prune(self.plain, method=method, plan=layers, schedule=phases)

    def set_up(self) -> None:
        """Spread the network over the processes, which call this together, and make its optimizer."""
        training, s = self.recipe.training, self.sparsifier
        model = torch.compile(self.plain) if self.recipe.hardware.compile else self.plain
        self.model = self.fabric.setup_module(model)
        logits = [] if s is None else [parameter for _, parameter in s.new_parameters()]
        optimizer = make_optimizer(self.plain, training, logits)
        if s is not None:
            assert self.recipe.pruning is not None
            s.add_to(optimizer, self.recipe.pruning.logit_lr, self.recipe.pruning.logit_weight_decay)
        self.rates = LambdaLR(optimizer, learning_rate(training, self.total, len(self.feed)))
        self.inner = optimizer
        # Fabric makes one for 16-mixed, and keeps it to itself.
        self.scaler = getattr(self.fabric._precision, "scaler", None)
        self.optimizer = self.fabric.setup_optimizers(optimizer)
        self.average = None
        if training.ema is not None:
            self.average = AveragedModel(self.plain, multi_avg_fn=get_ema_multi_avg_fn(training.ema), use_buffers=False)
        if s is not None:
            s.attach(optimizer)

    def _write_logs(self) -> None:
        """Let the first process write what the sparsifier does from now on, and what it did."""
        s = self.sparsifier
        if s is not None and not s.callbacks and self.fabric.is_global_zero:
            s.callbacks.append(JsonLinesLog(s, self.folder.path / "pruning.jsonl"))
            wanted = self.recipe.output.tensorboard
            if wanted is True or (wanted == "auto" and find_spec("tensorboard") is not None):
                s.callbacks.append(TensorBoardLog(s, self.folder.path / "tensorboard"))

    # -- the loop ------------------------------------------------------------------------------------------------------

    def fit(self, progress: bool = True) -> None:
        """All steps that are left.

        Raises
        ------
        Diverged
            When the loss is not finite.
        Preempted
            After SIGTERM, when the step is done and a checkpoint is written; Elsewhere in processes after the first.
        """
        output = self.recipe.output
        self._write_logs()
        # Only the main thread may listen to signals; elsewhere whoever started the thread has to.
        listening = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGTERM, self._note_stop) if listening else None
        bar = tqdm(total=self.total, initial=self.step, disable=not (progress and self.fabric.is_global_zero))
        began, spent, saved = time.monotonic(), self.seconds, time.monotonic()
        try:
            for batch in self._batches():
                self._advance(batch)
                bar.update()
                self.seconds = spent + time.monotonic() - began
                if self.step % output.log_steps == 0 or self.step == self.total:
                    bar.set_postfix_str(f"loss {self._log():.4f}", refresh=False)
                if self.step == self.total or self._is_due(output.evaluate_steps or len(self.feed)):
                    self._evaluate_and_log()
                minutes = output.checkpoint_minutes
                late = minutes is not None and self._agree(time.monotonic() - saved >= 60.0 * minutes)
                asked = self.fabric.world_size == 1 or self.step % output.log_steps == 0  # asking others takes time
                stop = asked and self._agree(self._told_to_stop)
                if self._is_due(output.checkpoint_steps) or late or stop or self.step == self.total:
                    save(self)
                    saved = time.monotonic()
                if stop:
                    told = f"told to stop after step {self.step}, which is saved: the same command goes on."
                    raise Preempted(told) if self.fabric.is_global_zero else Elsewhere(told)
        finally:
            bar.close()
            if listening:
                signal.signal(signal.SIGTERM, before)

    def _batches(self) -> Iterator[Any]:
        """This process's share of the global batches from the current step on, epoch after epoch."""
        while self.step < self.total:
            epoch, index = divmod(self.step, len(self.feed))
            for batch in self.feed.epoch(epoch, index):
                yield self.fabric.to_device(batch)
                if self.step >= self.total:
                    return

    def _advance(self, batch: Any) -> None:
        training = self.recipe.training
        # What dropout draws in a step must not depend on the steps before: those may lie in another process's life.
        torch.manual_seed(((training.seed * 1_000_003 + self.step) * 4099 + self.fabric.global_rank) % 2**63)
        self.model.train()
        self.optimizer.zero_grad()
        pieces = self.task.split(batch, training.accumulate) if training.accumulate > 1 else [batch]
        for number, piece in enumerate(pieces):
            with self.fabric.no_backward_sync(self.model, enabled=number + 1 < len(pieces)):
                output = self.model(*self.inputs(piece))
                loss = self.task.loss(output, piece) / len(pieces)
                self.fabric.backward(loss)
            right = self.task.right(output.detach(), piece)
            self.sums += torch.stack([loss.detach(), right / len(pieces)]).to(self.sums.dtype)
        if training.clip is not None:
            self.fabric.clip_gradients(self.model, self.optimizer, max_norm=training.clip)
        self.optimizer.step()
        self.rates.step()
        if self.average is not None:
            self.average.update_parameters(self.plain)
        self.step += 1
        self.counts = [count + 1 for count in self.counts]

    def inputs(self, batch: Any) -> tuple[Any, ...]:
        """The arguments of the network, in the precision and the memory format of the recipe."""
        inputs, hardware = self.task.inputs(batch), self.recipe.hardware
        if hardware.precision == "64-true":
            inputs = tuple(x.double() if x.is_floating_point() else x for x in inputs)
        if hardware.channels_last:
            inputs = tuple(x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x for x in inputs)
        return inputs

    def _is_due(self, every: int | None) -> bool:
        return every is not None and self.step % every == 0

    def _agree(self, said: bool) -> bool:
        """Whether any process says so."""
        if self.fabric.world_size == 1:
            return said
        votes = torch.tensor(float(said), device=self.fabric.device)
        return bool(self.fabric.all_reduce(votes, reduce_op="sum") > 0)

    def _note_stop(self, *_: Any) -> None:
        self._told_to_stop = True

    # -- what is said --------------------------------------------------------------------------------------------------

    def _log(self) -> float:
        """A line of steps.csv: the mean training loss since the last one."""
        loss, right = self._means(0)
        if not math.isfinite(loss):
            raise Diverged(f"the training loss is {loss} at step {self.step}: lower training.lr or pruning.logit_lr.")
        row = {"lr": self.inner.param_groups[0]["lr"], "loss": loss, "accuracy": right}
        self._add("steps.csv", {**row, "seconds": round(self.seconds, 2)})
        return loss

    def _evaluate_and_log(self) -> None:
        found = self.evaluate()
        row = dict(zip(("train_loss", "train_accuracy"), self._means(1), strict=True))
        self._add("epochs.csv", row | {f"valid_{name}": value for name, value in found.items()})

    def _means(self, which: int) -> tuple[float, float]:
        """Training loss and accuracy, over all processes and the steps since they were last asked for."""
        # Sums of float32 are exact in float64: the mean of all processes', in which a resumed run begins, is as good.
        sums = self.fabric.all_reduce(self.sums[which].clone(), reduce_op="mean").tolist()
        means = [each / max(1, self.counts[which]) for each in sums]
        self.sums[which], self.counts[which] = 0.0, 0
        return means[0], means[1]

    def _add(self, table: str, values: dict[str, Any]) -> None:
        s = self.sparsifier
        if self.fabric.is_global_zero:
            where = {
                "step": self.step,
                "epoch": round(self.step / len(self.feed), 4),
                "phase": "dense" if s is None else s.phase.kind,
                "sparsity": 0.0 if s is None else s.sparsity,
            }
            self.folder.add(table, where | values)

    @torch.no_grad()
    def evaluate(
        self, model: nn.Module | None = None, feed: Feed | None = None, alone: bool = False
    ) -> dict[str, float]:
        """Metrics on the validation examples of the network as it is now, or of another one.

        The average of the weights is what counts, where there is one; masks are buffers, which it takes as they are.

        Parameters
        ----------
        model : nn.Module, optional
        feed : Feed, optional
            Other batches than those of the validation examples.
        alone : bool
            Only this process calls.
        """
        if model is None:
            model = self.model if self.average is None else self.average.module
        model.eval()
        batches = (self.valid if feed is None else feed).epoch(0)

        def outputs() -> Iterator[tuple[torch.Tensor, Any]]:
            for batch in map(self.fabric.to_device, batches):
                with self.fabric.autocast():
                    output = model(*self.inputs(batch))
                yield output, batch

        return self.task.metrics(outputs(), (lambda tensor: tensor) if alone else gatherer(self.fabric))
