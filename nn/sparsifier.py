"""The engine: counts the optimizer's steps, changes phases, and lets the method choose blocks.

After every step of the optimizer, in this order:

    method.stepped       proximal steps and projections, for methods that have them
    choose               if the method is due inside a phase, or if a dense or sparsify phase ends here
    enter                if the phase ends: the masks' phase, and a cleared optimizer state

A network is pruned by two lines around a training loop,

    s = prune(model, optimizer, sparsity=0.9, total_steps=N)
    ...                                                            the loop, unchanged
    model = s.fold()

Learning rates are never touched, and `requires_grad` neither: gradient buckets of distributed training depend on it.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sparseopt.nn.agreement import require_agreement
from sparseopt.nn.events import Event, observe
from sparseopt.nn.layers import Layer, full
from sparseopt.nn.masking import attach_mask, fold
from sparseopt.nn.methods import Method, get_method
from sparseopt.nn.optstate import clear_state, group_of, missing_from, skipped
from sparseopt.nn.planning import Plan
from sparseopt.nn.schedule import PhaseSchedule

__all__ = ["Sparsifier"]

logger = logging.getLogger("sparseopt.nn")


class Sparsifier:
    """Trains the weights of a plan to block sparsity.

    Parameters
    ----------
    model : nn.Module
        Gets a mask on every weight of the plan, in place. Its parameters stay the objects that they were.
    plan : Plan
        See `sparseopt.nn.plan`.
    method : str or Method
        A name of `METHODS`, or a method with settings.
    total_steps : int
        Optimizer steps of the whole training; may be left out with a schedule.
    schedule : PhaseSchedule, optional
        The method's own by default.
    **settings
        Settings of the method.

    Attributes
    ----------
    step_count : int
        Steps that the optimizer took.
    history : list of Event
        One entry per choice of blocks and per change of phase.
    callbacks : list of callable
        Called with every new Event.

    Raises
    ------
    ValueError
        When the model is pruned already, wrapped for distributed training, or the schedule does not fit.

    Examples
    --------
    >>> from sparseopt.nn import plan
    >>> model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8))
    >>> s = Sparsifier(model, plan(model, 0.75, block=8, min_blocks=16), "magnitude", total_steps=4)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> s.attach(optimizer)
    >>> for _ in range(4):
    ...     model(torch.randn(5, 64)).square().mean().backward()
    ...     optimizer.step()
    >>> s.phase.kind, s.sparsity
    ('sparse', 0.75)
    >>> model = s.fold()
    >>> (model[0].weight == 0).float().mean().item()
    0.75
    """

    def __init__(
        self,
        model: nn.Module,
        plan: Plan,
        method: str | Method = "sequential-attention++",
        total_steps: int | None = None,
        schedule: PhaseSchedule | None = None,
        **settings: Any,
    ) -> None:
        method = get_method(method, **settings)
        if schedule is None:
            if total_steps is None:
                raise ValueError("total_steps is missing: give the number of optimizer steps, or a schedule.")
            schedule = method.schedule(total_steps)
        elif total_steps is not None and total_steps != schedule.total:
            raise ValueError(
                f"the schedule has {schedule.total} steps and total_steps is {total_steps}: leave total_steps out."
            )
        _require_plain(model)
        self.model = model
        self.plan = plan
        self.method = method
        self.schedule = schedule
        self.step_count = 0
        self.history: list[Event] = []
        self.callbacks: list[Callable[[Event], None]] = []
        self.optimizer: Optimizer | None = None
        self._handle: Any = None
        self.layers = [Layer(entry, model) for entry in plan.layers]
        for layer in self.layers:
            weight = getattr(layer.module, layer.attribute)
            if tuple(weight.shape) != layer.grid.shape:
                raise ValueError(
                    f"{layer.name} has the shape {tuple(weight.shape)}, in the plan {layer.grid.shape}: "
                    "make the plan from this model."
                )
            attach_mask(layer.module, layer.attribute, method.mask(layer.plan, weight))
        self._begin()

    @property
    def phase(self) -> Any:
        """The phase of the next step."""
        return self.schedule.at(self.step_count)

    @property
    def sparsity(self) -> float:
        """Share of the entries of the plan's weights that the model multiplies by 0 now."""
        dropped = sum(float((layer.grid.sizes() * ~layer.mask.alive().cpu()).sum()) for layer in self.layers)
        return dropped / sum(layer.grid.numel for layer in self.layers)

    def new_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """Names and parameters that pruning added to the model: the logits of the masks."""
        return [(f"logits of {layer.name}", p) for layer in self.layers if (p := layer.logits) is not None]

    def add_to(self, optimizer: Optimizer, logit_lr: float = 1.0, logit_weight_decay: float | None = None) -> None:
        """Let an optimizer that was built before train the logits as well.

        Parameters
        ----------
        optimizer : Optimizer
            Trains the weights of the model.
        logit_lr : float
            Learning rate of the logits, as a multiple of that of the layer's weight.
        logit_weight_decay : float, optional
            Weight decay of the logits; that of the layer's weight by default.

        Raises
        ------
        ValueError
            When a learning-rate schedule was built on the optimizer before, and the logits need a group of their own.
        """
        own = logit_lr != 1.0 or logit_weight_decay is not None
        if own and hasattr(optimizer.step, "_wrapped_by_lr_sched"):
            raise ValueError(
                "a learning-rate schedule was built before the logits got their own learning rate or weight decay: "
                "call prune(...) first and build the schedule after it."
            )
        groups: dict[int, dict[str, Any]] = {}
        for layer in self.layers:
            if layer.logits is None or group_of(optimizer, layer.logits) is not None:
                continue
            group = group_of(optimizer, layer.stored)
            if group is None:
                raise ValueError(f"the optimizer does not train {layer.name}: exclude it from the plan, or add it.")
            if not own:
                group["params"].append(layer.logits)
                continue
            if id(group) not in groups:
                groups[id(group)] = {k: v for k, v in group.items() if k not in ("params", "initial_lr")}
                groups[id(group)] |= {"params": [], "lr": group["lr"] * logit_lr}
                if logit_weight_decay is not None:
                    groups[id(group)]["weight_decay"] = logit_weight_decay
            groups[id(group)]["params"].append(layer.logits)
        for extra in groups.values():
            optimizer.add_param_group(extra)

    def attach(self, optimizer: Optimizer) -> None:
        """Follow the steps of `optimizer`: from now on every one of them advances the phases.

        Steps that a GradScaler skips do not count.

        Raises
        ------
        ValueError
            When the optimizer misses parameters of the pruned layers, or the sparsifier is attached already.
        """
        if self.optimizer is not None:
            raise ValueError("this sparsifier is attached to an optimizer already: detach() it first.")
        wanted = [(layer.name, layer.stored) for layer in self.layers] + self.new_parameters()
        missing = missing_from(optimizer, wanted)
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise ValueError(
                f"the optimizer does not train {', '.join(missing[:3])}{more}: call s.add_to(optimizer) before "
                "s.attach(optimizer), or build the optimizer from model.parameters() after pruning starts."
            )
        self.optimizer = optimizer
        self._handle = optimizer.register_step_post_hook(self._after_step)

    def detach(self) -> None:
        """Stop following the optimizer."""
        if self._handle is not None:
            self._handle.remove()
        self._handle = self.optimizer = None

    def step(self, optimizer: Optimizer | None = None) -> None:
        """Advance by one step of an optimizer that is not attached; call it after `optimizer.step()`.

        Without the optimizer, its state is not cleared when phases change, and methods with proximal steps cannot know
        their learning rate.
        """
        if self.optimizer is not None:
            raise ValueError("this sparsifier follows its optimizer by itself: drop the call of step(), or detach().")
        self._advance(optimizer)

    def fold(self) -> nn.Module:
        """End pruning: the plain model, with its original names, the same parameters, and exact zeros."""
        if self.phase.kind != "sparse":
            warnings.warn(
                f"folded after {self.step_count} of {self.schedule.total} steps, in a {self.phase.kind} phase: "
                f"{self.sparsity:.3f} of the weights are 0, not {self.plan.sparsity:.3f}.",
                stacklevel=2,
            )
        optimizer = self.optimizer
        self.detach()
        if optimizer is not None:
            gone = {id(p) for _, p in self.new_parameters()}
            clear_state(optimizer, [p for _, p in self.new_parameters()])
            for group in optimizer.param_groups:
                group["params"] = [p for p in group["params"] if id(p) not in gone]
        return fold(self.model)

    def state_dict(self) -> dict[str, Any]:
        """What the model and the optimizer do not save: steps, plan and history. Tensors of the model are not in it.

        Raises
        ------
        FloatingPointError
            When a pruned layer holds NaN or infinite numbers: a checkpoint of it would be worthless, and the one before
            it must not be overwritten.
        """
        self._require_finite()
        return {
            "step": self.step_count,
            "plan": self.plan.to_dict(),
            "method": self.method.name,
            "settings": repr(self.method),
            "schedule": self.schedule.to_list(),
            "history": [event.to_list() for event in self.history],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken; load the model and the optimizer as well.

        Raises
        ------
        ValueError
            When the state belongs to another plan, method or schedule; the sentence says what differs.
        """
        differences = self.plan.differences(state["plan"])
        if state["settings"] != repr(self.method):
            differences.append(f"the method is {state['settings']} there, {self.method!r} here")
        if state["schedule"] != self.schedule.to_list():
            differences.append(f"the schedule is {state['schedule']} there, {self.schedule.to_list()} here")
        if differences:
            more = f"; and {len(differences) - 4} more" if len(differences) > 4 else ""
            raise ValueError(f"this state was made otherwise: {'; '.join(differences[:4])}{more}.")
        self.step_count = int(state["step"])
        self.history = [Event.from_list(entry) for entry in state["history"]]

    def _begin(self) -> None:
        first = self.schedule.phases[0].kind
        if first == "sparse":
            self._choose(self.schedule.phases[0], ends=True)
        for layer in self.layers:
            layer.enter(first)
        self._probe()
        self._record(first, "enter")

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if not skipped(optimizer):
            self._advance(optimizer)

    def _advance(self, optimizer: Optimizer | None) -> None:
        phase = self.phase
        self.step_count += 1
        if self.method.steps and optimizer is not None:
            for layer in self.layers:
                group = group_of(optimizer, layer.stored)
                self.method.stepped(layer, float(group["lr"]) if group else 0.0)
        if self.phase != phase:
            self._change(phase, self.phase, optimizer)
        elif self.method.due(phase, self.step_count):
            self._choose(phase, ends=False)
            self._record(phase.kind, "choose")
        self._probe()

    def _change(self, phase: Any, following: Any, optimizer: Optimizer | None) -> None:
        if phase.kind == "sparsify" or (phase.kind == "dense" and following.kind != "sparsify"):
            self._choose(phase, ends=True)
        elif phase.kind == "dense":
            for layer in self.layers:
                layer.keep(torch.ones_like(layer.kept))
        for layer in self.layers:
            layer.enter(following.kind)
        if optimizer is not None and self.method.reset != "none":
            everything = [p for group in optimizer.param_groups for p in group["params"]]
            clear_state(optimizer, everything if self.method.reset == "all" else self._parameters())
        self._record(following.kind, "enter")

    def _choose(self, phase: Any, ends: bool) -> None:
        self._require_finite()
        masks = self.method.choose(self.layers, self.plan, phase, self.step_count)
        require_agreement([layer.name for layer in self.layers], masks)
        for layer, mask in zip(self.layers, masks, strict=True):
            layer.keep(mask)
            if ends:
                self.method.selected(layer)

    def _probe(self) -> None:
        """Let gradients of dropped blocks through in the step before a choice that needs them."""
        if self.method.probes:
            wanted = self.method.due(self.phase, self.step_count + 1)
            for layer in self.layers:
                layer.mask.probe.fill_(wanted)  # type: ignore[operator, union-attr]

    def _parameters(self) -> list[Tensor]:
        return [parameter for layer in self.layers for parameter in layer.parameters]

    def _require_finite(self) -> None:
        for layer in self.layers:
            for what, tensor in (("weights", layer.stored), ("logits", layer.logits)):
                if tensor is not None and not bool(torch.isfinite(full(tensor)).all()):
                    raise FloatingPointError(
                        f"the {what} of {layer.name} are not finite after {self.step_count} steps: go back to the last "
                        "checkpoint, with a smaller learning rate."
                    )

    def _record(self, kind: str, what: str) -> None:
        event = observe(self.layers, self.step_count, kind, what, self.sparsity)
        self.history.append(event)
        logger.info("%s", event)
        for callback in self.callbacks:
            callback(event)


def _require_plain(model: nn.Module) -> None:
    kind = type(model).__name__
    if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)) or kind == "FullyShardedDataParallel":
        raise ValueError(f"the model is wrapped in {kind}: prune it first, then wrap it.")
    if hasattr(model, "_orig_mod"):
        raise ValueError("the model is compiled: prune it first, then compile it.")
    if any(hasattr(parameter, "full_tensor") for parameter in model.parameters()):
        raise ValueError("the model's parameters are sharded: prune it first, then shard it.")
