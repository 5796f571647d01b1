"""An optimizer followed by the prox of any regularizer of the core, block by block.

    V   = W after the optimizer's step, with learning rate t
    W_T = prox_{t lam omega_T q}(||V_T||) / ||V_T|| V_T              for every block T

The prox measures distances as plain gradient descent does. With SGD this is the proximal (stochastic) gradient method
for F(W) = L(W) + lam sum_T omega_T q(||W_T||), and it rests where the core's solvers do. What lam means with other
optimizers is told in `Proximal`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from sparseopt.nn.optstate import missing_from, skipped
from sparseopt.nn.penalty import BlockPenalty, places, shrink, stored_weight

__all__ = ["Proximal"]


class Proximal(Optimizer):
    """An optimizer around an optimizer: its step, and then the prox of a block penalty.

    It shares the parameter groups and the state of the inner optimizer, and its state dict is the inner one's. Give the
    outer one to learning-rate schedules, to the GradScaler and to `Sparsifier.attach`. The prox uses the learning rate
    of each weight's group as it is at the step; where that is 0, nothing is shrunk, and neither are weights without a
    gradient, since the optimizer leaves those alone as well. A step that a GradScaler skips has no prox.

    Parameters
    ----------
    optimizer : Optimizer
        Trains the weights that the penalty names.
    penalty : BlockPenalty
        What to shrink: with masks on the weights, the stored weights under them.
    model : nn.Module, optional
        Where the weights are; not needed if the penalty was made from the layers of a `Sparsifier`. Wrapped and
        compiled models will do.

    Raises
    ------
    ValueError
        When a weight is not found, has another shape than the plan says, or is not trained by the optimizer.
    TypeError
        For LBFGS, whose steps are no multiple of its learning rate.

    Notes
    -----
    The optimizer decides what lam is weighed against:

    * SGD: the gradient. A zero block stays zero while ||grad_T|| <= lam omega_T q'(0+), as in `sparseopt.solve`. Weight
      decay acts as the ridge of the core's `Penalty`.
    * SGD with momentum mu and dampening d: a gradient that persists moves the weight by (1 - d) / (1 - mu) times its
      size per step, the prox still by lam. So it rests where plain SGD with (1 - mu) / (1 - d) lam does.
    * Adam, AdamW, RMSprop: this is not the prox in Adam's metric, which has no closed form for blocks. The threshold is
      weighed against the normalised step, whose entries lie between about -1 and 1, as the decoupled weight decay of
      AdamW is. A block of |T| entries moves by about lr sqrt(|T|) per step at most: with omega = sqrt(|T|) and q = L2,
      lam = 1 stops every block, and useful values lie well below 1, whatever the scale of the loss.

    Weights that are themselves stored in bfloat16 lose every shrinkage below 0.4 % of their size to rounding, as they
    lose small steps of any optimizer: keep them in float32, and compute in bfloat16 by autocast.

    References
    ----------
    Parikh, Boyd (2014), "Proximal algorithms", Found. Trends Optim. 1, section 4.2.
    Yun, Lozano, Yang (2021), "Adaptive proximal gradient methods for structured neural networks", NeurIPS, for the prox
    in the optimizer's own metric.

    Examples
    --------
    >>> from sparseopt.nn import plan
    >>> _ = torch.manual_seed(0)
    >>> model, x = nn.Linear(64, 1), torch.randn(200, 64)
    >>> penalty = BlockPenalty(plan(model, 0.5, block=(1, 4), min_blocks=16), "l2", lam=0.05)
    >>> optimizer = Proximal(torch.optim.SGD(model.parameters(), lr=0.2), penalty, model)
    >>> for _ in range(100):
    ...     optimizer.zero_grad()
    ...     (model(x)[:, 0] - x[:, :8].sum(1)).square().mean().backward()
    ...     optimizer.step()
    >>> bool(model.weight[:, :8].all()), int(model.weight[:, 8:].count_nonzero())
    (True, 0)
    """

    def __init__(self, optimizer: Optimizer, penalty: BlockPenalty, model: nn.Module | None = None) -> None:
        if isinstance(optimizer, torch.optim.LBFGS):
            raise TypeError("optimizer is LBFGS, whose steps are no multiple of its learning rate: use SGD.")
        found = places(penalty, model)
        names = [layer.name for layer in penalty.layers]  # type: ignore[union-attr]
        weights = [stored_weight(module, attribute) for module, attribute, _ in found]
        missing = missing_from(optimizer, zip(names, weights, strict=True))
        if missing:
            raise ValueError(f"the optimizer does not train {missing[0]}: build it from the parameters of this model.")
        # Optimizer.__init__ would make groups and state of its own; __setstate__ makes what step hooks need.
        self.__setstate__({"optimizer": optimizer, "penalty": penalty, "_places": found})

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for kind in ("state_dict_pre", "state_dict_post", "load_state_dict_pre", "load_state_dict_post"):
            name = f"_optimizer_{kind}_hooks"
            setattr(self, name, getattr(self.optimizer, name))
        super().__setstate__({})

    def __getstate__(self) -> dict[str, Any]:
        return {name: self.__dict__[name] for name in ("optimizer", "penalty", "_places")}

    def __getattr__(self, name: str) -> Any:
        """What else the inner optimizer has: `train` and `eval`, or its arrangements with a GradScaler."""
        if "optimizer" not in self.__dict__:  # while a copy is made
            raise AttributeError(name)
        return getattr(self.optimizer, name)

    def __repr__(self) -> str:
        return f"Proximal({self.penalty.q!r}, lam={self.penalty.lam:g}) of {self.optimizer!r}"

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The inner optimizer's."""
        return self.optimizer.param_groups

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        self.optimizer.param_groups = groups

    @property
    def state(self) -> Any:
        """The inner optimizer's."""
        return self.optimizer.state

    @state.setter
    def state(self, state: Any) -> None:
        self.optimizer.state = state

    @property
    def defaults(self) -> dict[str, Any]:
        """The inner optimizer's."""
        return self.optimizer.defaults

    @defaults.setter
    def defaults(self, defaults: dict[str, Any]) -> None:
        self.optimizer.defaults = defaults

    def state_dict(self) -> dict[str, Any]:
        """The inner optimizer's: a proximal step keeps no state."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` of this or of the inner optimizer gave."""
        self.optimizer.load_state_dict(state_dict)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add to the inner optimizer."""
        self.optimizer.add_param_group(param_group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients."""
        self.optimizer.zero_grad(set_to_none)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """The inner optimizer's step and then the prox; returns what the inner one returns."""
        # A GradScaler leaves these with the optimizer that it was given, for a fused step to find.
        told = {name: self.__dict__[name] for name in ("grad_scale", "found_inf") if name in self.__dict__}
        self.optimizer.__dict__.update(told)
        try:
            loss = self.optimizer.step() if closure is None else self.optimizer.step(closure)
        finally:
            for name in told:
                del self.optimizer.__dict__[name]
        if not skipped(self):
            self._prox()
        return loss

    def _prox(self) -> None:
        rates = {id(p): group["lr"] for group in self.param_groups for p in group["params"]}
        penalty, q = self.penalty, self.penalty.regularizer
        for module, attribute, grid in self._places:
            weight = stored_weight(module, attribute)
            if id(weight) not in rates:
                raise RuntimeError(
                    f"a weight of {type(module).__name__} is no longer the parameter that the optimizer trains: "
                    "shard or move the model first, and then build the optimizers."
                )
            if weight.grad is not None:
                shrink(weight, grid, q, rates[id(weight)], penalty.lam, penalty.weights)
