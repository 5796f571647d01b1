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

from sparseopt.nn.agreement import require_agreement, require_finite, require_replicas
from sparseopt.nn.events import Event, observe
from sparseopt.nn.identity import differences, identity, listed
from sparseopt.nn.layers import Layer
from sparseopt.nn.masking import attach_mask, fold
from sparseopt.nn.masks import PHASES
from sparseopt.nn.methods import Method, get_method
from sparseopt.nn.optstate import clear_state, drop_parameters, group_of, join, missing_from, nested, skipped
from sparseopt.nn.planning import Plan
from sparseopt.nn.readiness import planned_weights, require_optimizer, require_plain, require_ready, require_whole
from sparseopt.nn.schedule import PhaseSchedule
from sparseopt.nn.sharding import is_sharded, reshard

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
    process_group : ProcessGroup, optional
        The processes that train this model together, if these are not all.

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

    process_group: Any = None

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
        require_plain(model)
        weights = planned_weights(model, plan)
        self.model = model
        self.plan = plan
        self.method = method
        self.schedule = schedule
        self.step_count = 0
        self.history: list[Event] = []
        self.callbacks: list[Callable[[Event], None]] = []
        self.optimizer: Optimizer | None = None
        self._handle: Any = None
        self._checked = False
        self._probing: bool | None = None if method.probes else False  # None: whatever the buffers say
        self.layers = [Layer(entry, model) for entry in plan.layers]
        # All masks before the first is attached: whatever fails leaves the model as it was.
        masks = [method.mask(entry, weight) for entry, (_, weight) in zip(plan.layers, weights, strict=True)]
        for layer, mask in zip(self.layers, masks, strict=True):
            attach_mask(layer.module, layer.attribute, mask)
        try:
            self._begin()
        except Exception:
            fold(model)  # every mask is still the identity
            raise

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

        Logits of a frozen weight that the optimizer does not hold go to its first group.

        Raises
        ------
        ValueError
            When the optimizer does not train a weight of the plan, or a learning-rate schedule was built on it before
            and the logits need a group of their own.
        """
        weights = [(layer.name, layer.stored) for layer in self.layers]
        require_ready(optimizer, self.method, weights, logit_lr, logit_weight_decay)
        paths = {id(parameter): path for path, parameter in self.model.named_parameters()}
        new = [
            (paths[id(logits)], logits, layer.stored)
            for layer in self.layers
            if (logits := layer.logits) is not None and group_of(optimizer, logits) is None
        ]
        join(optimizer, new, logit_lr, logit_weight_decay)

    def attach(self, optimizer: Optimizer) -> None:
        """Follow the steps of `optimizer`: from now on every one of them advances the phases.

        Steps that a GradScaler skips do not count.

        Raises
        ------
        ValueError
            When the optimizer misses parameters of the pruned layers (frozen ones may be missing), or the sparsifier is
            attached already.
        """
        if self.optimizer is not None:
            raise ValueError("this sparsifier is attached to an optimizer already: detach() it first.")
        require_optimizer(optimizer)
        reshard(self.model)
        for layer in self.layers:
            require_whole(layer)
        missing = missing_from(optimizer, self._trained())
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise ValueError(
                f"the optimizer does not train {', '.join(missing[:3])}{more}: call s.add_to(optimizer) before "
                "s.attach(optimizer), or build the optimizer from model.parameters() after pruning starts."
            )
        self.optimizer = optimizer
        # Without `disable`, a compiled optimizer step would trace the engine.
        self._handle = optimizer.register_step_post_hook(torch.compiler.disable(self._after_step))

    def detach(self) -> None:
        """Stop following the optimizer."""
        if self._handle is not None:
            self._handle.remove()
        self._handle = self.optimizer = None

    def step(self, optimizer: Optimizer | None = None) -> None:
        """Advance by one step of an optimizer that is not attached; call it after `optimizer.step()`.

        Leave it out after a step that a GradScaler skipped. Without the optimizer, its state is not cleared when phases
        change.

        Raises
        ------
        ValueError
            When an optimizer is attached, or the method needs the learning rate and no optimizer is given.
        """
        if self.optimizer is not None:
            raise ValueError("this sparsifier follows its optimizer by itself: drop the call of step(), or detach().")
        self.layers[0].chain  # noqa: B018  there are masks
        if optimizer is not None:
            require_optimizer(optimizer)
        elif self.method.steps:
            raise ValueError(f"{self.method.name} changes parameters after every step: call s.step(optimizer).")
        self._advance(optimizer)

    def fold(self) -> nn.Module:
        """End pruning: the plain model, with its original names, the same parameters, and exact zeros.

        The attached optimizer may go on with them; it lets the logits go, and what it knows of the weights before their
        masks. Another one, driven by hand, should be built anew.

        Raises
        ------
        ValueError
            When the model is folded already, or a masked weight got another parametrization.
        FloatingPointError
            When a pruned layer holds NaN or infinite numbers.
        """
        reshard(self.model)
        if is_sharded(self.layers[0].stored):  # all processes fold together, or none
            require_replicas(self.layers, self.step_count, self.process_group)
        else:
            require_finite(self.layers, self.step_count)
        if self.phase.kind == "dense" or (self.phase.kind == "sparsify" and self.step_count < self.schedule.total):
            warnings.warn(
                f"folded after {self.step_count} of {self.schedule.total} steps, in a {self.phase.kind} phase: "
                f"{self.sparsity:.3f} of the weights are 0, not {self.plan.sparsity:.3f}.",
                stacklevel=2,
            )
        weights, logits = [layer.stored for layer in self.layers], [p for _, p in self.new_parameters()]
        model, optimizer = fold(self.model), self.optimizer
        self.detach()
        if optimizer is not None:
            drop_parameters(optimizer, logits)
            if self.method.reset != "none":
                clear_state(optimizer, weights)
        return model

    def state_dict(self) -> dict[str, Any]:
        """What the model and the optimizer do not save: steps, plan and history. Tensors of the model are not in it.

        Raises
        ------
        FloatingPointError
            When a pruned layer holds NaN or infinite numbers: a checkpoint of it would be worthless, and the one before
            it must not be overwritten.
        """
        require_finite(self.layers, self.step_count)
        return {
            "step": self.step_count,
            **identity(self.plan, self.method, self.schedule),
            "history": [event.to_list() for event in self.history],
        }

    def differences(self, state: Mapping[str, Any]) -> list[str]:
        """What a state of `state_dict` has otherwise, one phrase each; empty if it can be loaded."""
        return differences(state, self.plan, self.method, self.schedule)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken; load the model and the optimizer as well.

        Raises
        ------
        ValueError
            When the state belongs to another plan, method or schedule; the sentence says what differs.
        """
        found = self.differences(state)
        if found:
            raise ValueError(f"this state was made otherwise: {listed(found)}.")
        history = [Event.from_list(entry) for entry in state["history"]]
        self.step_count, self.history = int(state["step"]), history
        self._checked = False
        self._probing = None if self.method.probes else False

    def _begin(self) -> None:
        first = self.schedule.phases[0].kind
        if first == "sparse":
            self._choose(self.schedule.phases[0], ends=True)
        for layer in self.layers:
            layer.enter(first)
        self._probe()
        self._record(first, "enter")

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if not nested(optimizer) and not skipped(optimizer):
            self._advance(optimizer)

    def _advance(self, optimizer: Optimizer | None) -> None:
        phase = self.phase
        reshard(self.model)
        if not self._checked:
            self._require_phase(phase.kind)
        self.step_count += 1
        if self.method.steps and optimizer is not None:
            for layer in self.layers:
                group = group_of(optimizer, layer.stored if layer.logits is None else layer.logits)
                self.method.stepped(layer, float(group["lr"]) if group else 0.0)
        if self.phase != phase:
            self._change(phase, self.phase, optimizer)
        elif phase.kind == "sparsify" and self.step_count >= phase.stop:  # the last phase: nothing follows it
            if self.step_count == phase.stop:
                self._choose(phase, ends=True, optimizer=optimizer)
                self._record(phase.kind, "choose")
        elif self.method.due(phase, self.step_count):
            self._choose(phase, ends=False, optimizer=optimizer)
            self._record(phase.kind, "choose")
        self._probe()

    def _change(self, phase: Any, following: Any, optimizer: Optimizer | None) -> None:
        lost = missing_from(self.optimizer, self._trained()) if self.optimizer is not None else []
        if lost:
            raise ValueError(
                f"the optimizer does not train {lost[0]} any more: parameters were replaced after s.attach(optimizer), "
                "by a checkpoint loaded with assign=True for instance; build the optimizer and attach it after that."
            )
        if phase.kind == "sparsify" or (phase.kind == "dense" and following.kind != "sparsify"):
            self._choose(phase, ends=True, optimizer=optimizer)
        elif phase.kind == "dense":
            for layer in self.layers:
                layer.keep(torch.ones_like(layer.kept))
        for layer in self.layers:
            layer.enter(following.kind)
        if optimizer is not None and self.method.reset != "none":
            everything = [p for group in optimizer.param_groups for p in group["params"]]
            clear_state(optimizer, everything if self.method.reset == "all" else self._parameters())
        self._record(following.kind, "enter")

    def _choose(self, phase: Any, ends: bool, optimizer: Optimizer | None = None) -> None:
        require_replicas(self.layers, self.step_count, self.process_group)
        masks = self.method.choose(self.layers, self.plan, phase, self.step_count)
        require_agreement([layer.name for layer in self.layers], masks, self.process_group)
        for layer, mask in zip(self.layers, masks, strict=True):
            before = layer.mask.alive().clone()
            layer.keep(mask)
            self.method.chosen(layer, before, optimizer)
            if ends:
                self.method.selected(layer)

    def _probe(self) -> None:
        """Let gradients of dropped blocks through in the step before a choice that needs them."""
        wanted = self.method.probes and self.method.due(self.phase, self.step_count + 1)
        if self._probing != wanted:  # not in every step: a small kernel per layer
            for layer in self.layers:
                layer.mask.probe.fill_(wanted)  # type: ignore[operator]
            self._probing = wanted

    def _parameters(self) -> list[Tensor]:
        return [parameter for layer in self.layers for parameter in layer.parameters]

    def _trained(self) -> list[tuple[str, nn.Parameter]]:
        named = [(layer.name, layer.stored) for layer in self.layers] + self.new_parameters()
        return [(name, parameter) for name, parameter in named if parameter.requires_grad]

    def _require_phase(self, kind: str) -> None:
        """Masks and steps are saved in two state dicts: whoever loads one of them only would train another network."""
        for layer in self.layers:
            if int(layer.mask.phase) != PHASES[kind]:
                raise RuntimeError(
                    f"step {self.step_count} lies in a {kind} phase, and the mask of {layer.name} does not: load the "
                    "state dicts of the model and of the sparsifier, both from the same checkpoint."
                )
        self._checked = True

    def _record(self, kind: str, what: str) -> None:
        event = observe(self.layers, self.step_count, kind, what, self.sparsity)
        self.history.append(event)
        logger.info("%s", event)
        for callback in self.callbacks:
            callback(event)
