"""Block penalties of a network, and one proximal step on them.

    Omega(W) = lam sum_T omega_T q(||W_T||)                          over the blocks T of the layers of a plan

    W_T <- prox_{t lam omega_T q}(||W_T||) / ||W_T|| W_T             blocks become 0 exactly

`value` and `prox` are methods of the same regularizers that the solvers in `sparseopt` use: their text runs on tensors
of any device. omega_T = sqrt(entries of T) unless said otherwise, so that the smaller blocks at ragged edges are as
hard to lose as the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from sparseopt.nn.blocks import BlockGrid
from sparseopt.nn.layers import Layer, full, write
from sparseopt.nn.planning import LayerPlan, Plan
from sparseopt.penalty import bounded_number, named_regularizer

__all__ = ["BlockPenalty", "block_weights", "check_shrinkage", "places", "shrink", "stored_weight"]

WEIGHTS = ("sqrt", "one")


@dataclass(frozen=True)
class BlockPenalty:
    """lam sum over layers and blocks omega_T q(||W_T||), of the stored weights W.

    Parameters
    ----------
    layers : Plan, or sequence of LayerPlan or Layer
        Which weights, cut into which blocks; the sparsities of a plan play no part. Layers of a `Sparsifier` know their
        model, others need it in `value` and `Proximal`.
    q : regularizer or str
        See `sparseopt.regularizers`; names mean what they mean in `Problem.build`.
    lam : float, >= 0
        Strength, in units of the loss per unit of the weights.
    weights : {"sqrt", "one"}
        omega_T: the root of the number of entries of T, or 1.

    Raises
    ------
    TypeError, ValueError
        When an argument is not as described.

    Examples
    --------
    >>> from sparseopt.nn import plan
    >>> model = nn.Sequential(nn.Linear(8, 4, bias=False))
    >>> penalty = BlockPenalty(plan(model, 0.5, block=(4, 2), min_blocks=2), "l2", lam=0.5, weights="one")
    >>> _ = nn.init.ones_(model[0].weight)
    >>> round(penalty.value(model), 6)  # four blocks of norm sqrt(8)
    5.656854
    """

    layers: Plan | Sequence[LayerPlan | Layer]
    q: Any = "l2"
    lam: float = 1e-4
    weights: str = "sqrt"

    def __post_init__(self) -> None:
        given = self.layers.layers if isinstance(self.layers, Plan) else tuple(self.layers)
        wrong = [each for each in given if not isinstance(each, (LayerPlan, Layer))]
        if wrong or not given:
            what = type(wrong[0]).__name__ if wrong else "an empty sequence"
            raise TypeError(f"layers must be a Plan, or LayerPlans or Layers, got {what}: see sparseopt.nn.plan.")
        object.__setattr__(self, "layers", given)
        check_shrinkage(self.q, self.lam, self.weights)

    @property
    def regularizer(self) -> Any:
        """q itself, also if it was given by name."""
        return named_regularizer(self.q, self.lam)

    @torch.no_grad()
    def value(self, model: nn.Module | None = None) -> float:
        """The penalty of the weights that `model` stores now."""
        total = 0.0
        for module, attribute, grid in places(self, model):
            weight = _wide(full(stored_weight(module, attribute)))
            omega = block_weights(grid, self.weights, weight)
            total += self.lam * float((omega * self.regularizer.value(grid.norms(weight))).sum(dtype=torch.float64))
        return total


@torch.no_grad()
def shrink(
    weight: Tensor,
    grid: BlockGrid,
    q: Any,
    lr: float | Tensor,
    lam: float,
    weights: str = "sqrt",
    only: Tensor | None = None,
) -> None:
    """One proximal step on a stored weight, in place: W_T <- prox_{lr lam omega_T q}(||W_T||) / ||W_T|| W_T.

    Norms and prox are computed in float32 or wider, without waiting for the device. A weight that is sharded is
    gathered and put back.

    Parameters
    ----------
    lr : float or Tensor of one entry
        0 changes nothing.
    only : bool Tensor, optional
        Where it is False nothing changes: of shape (R, C), or one entry for all blocks.
    """
    whole = _wide(full(weight))
    u = grid.norms(whole)
    rate = lr.to(u).reshape(()) if isinstance(lr, Tensor) else lr
    t = block_weights(grid, weights, u) * (rate * lam)
    factor = q.prox(u, t) / torch.where(u == 0.0, 1.0, u)
    moves = t > 0.0 if only is None else (t > 0.0) & only
    write(weight, grid.scale(whole, torch.where(moves, factor, 1.0)))


def block_weights(grid: BlockGrid, weights: str, like: Tensor) -> Tensor:
    """omega, (R, C), with the dtype and on the device of `like`.

    >>> block_weights(BlockGrid((4, 6), (4, 4)), "sqrt", torch.zeros(1))
    tensor([[4.0000, 2.8284]])
    """
    return _block_weights(grid, weights, like.dtype, like.device)


@lru_cache(maxsize=4096)
def _block_weights(grid: BlockGrid, weights: str, dtype: torch.dtype, device: torch.device) -> Tensor:
    sizes = grid.sizes().to(torch.float64)
    return (sizes.sqrt() if weights == "sqrt" else torch.ones_like(sizes)).to(device, dtype)


def check_shrinkage(q: Any, lam: float, weights: str) -> None:
    """Raise unless q is a regularizer, lam a number >= 0, and `weights` one of the words for omega."""
    named_regularizer(q, bounded_number("lam", lam, float("inf")))
    if weights not in WEIGHTS:
        raise ValueError(f"weights must be 'sqrt' or 'one', got {weights!r}.")


def places(penalty: BlockPenalty, model: nn.Module | None) -> list[tuple[Any, str, BlockGrid]]:
    """(module, attribute, grid) of every weight of the penalty."""
    inner: Any = model
    while hasattr(inner, "_orig_mod") or isinstance(inner, _WRAPPERS):
        inner = inner._orig_mod if hasattr(inner, "_orig_mod") else inner.module
    found: list[tuple[Any, str, BlockGrid]] = []
    for layer in penalty.layers:  # type: ignore[union-attr]
        owner, _, attribute = layer.name.rpartition(".")
        if isinstance(layer, Layer):
            module: Any = layer.module
        elif model is None:
            raise ValueError("model is missing: a penalty that was made from a plan knows only names of weights.")
        else:
            module = dict(inner.named_modules()).get(owner)
        weight = None if module is None else stored_weight(module, attribute)
        if weight is None or tuple(weight.shape) != layer.grid.shape:
            has = "no such weight" if weight is None else f"the shape {tuple(weight.shape)}"
            raise ValueError(
                f"{layer.name} has the shape {layer.grid.shape} in the plan, and in this model {has}: "
                "make the plan from this model."
            )
        found.append((module, attribute, layer.grid))
    return found


_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def stored_weight(module: Any, attribute: str) -> Any:
    """The trained parameter behind `module.attribute`, or None. Looked up at each step: sharding replaces it."""
    if is_parametrized(module, attribute):
        return getattr(module.parametrizations[attribute], "original", None)
    return module._parameters.get(attribute)


def _wide(weight: Tensor) -> Tensor:
    return weight.to(torch.promote_types(weight.dtype, torch.float32))
