"""Proximal steps and then the best blocks: the group lasso, or any other regularizer, as a pruning method.

    dense, sparsify     after every step of the optimizer   W_T <- prox_{lr lam omega_T q}(||W_T||) / ||W_T|| W_T
    their end           the k blocks of largest norm stay
    sparse              fine-tuning on these, without shrinkage

The penalty drives blocks to 0 but does not know the budget; the choice at the end does. With lam so large that fewer
than k blocks are left, the choice takes zero blocks as well; with lam = 0 this is magnitude pruning. The prox acts on
the stored weights, so what lam is weighed against depends on the optimizer: see `sparseopt.nn.proximal.Proximal`.

References: Yuan, Lin (2006), JRSS B 68, for the group lasso; Wen, Wu, Wang, Chen, Li (2016), "Learning structured
sparsity in deep neural networks", NeurIPS, for its use in networks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from sparseopt.nn.layers import Layer
from sparseopt.nn.masks import PHASES
from sparseopt.nn.methods.method import Method
from sparseopt.nn.penalty import check_shrinkage, shrink
from sparseopt.nn.schedule import PhaseSchedule
from sparseopt.penalty import named_regularizer

__all__ = ["GroupLasso", "ProximalMethod"]


@dataclass(frozen=True)
class ProximalMethod(Method):
    """Proximal steps with any regularizer, then the blocks of largest norm; half of the steps dense, half sparse.

    Parameters
    ----------
    q : regularizer or str
        See `sparseopt.regularizers`; names mean what they mean in `Problem.build`.
    lam : float, >= 0
        Strength. With SGD in units of the loss per unit of the weights, with Adam in units of its normalised step.
    weights : {"sqrt", "one"}
        omega_T: the root of the number of entries of T, or 1.
    fine_tune : bool
        Train without shrinkage in sparse phases; False shrinks in all phases.

    Examples
    --------
    >>> ProximalMethod(q="log", lam=0.01)
    ProximalMethod(reset='layers', updates=100, share=Exponential(c=4.0), q='log', lam=0.01, weights='sqrt',
        fine_tune=True)
    """

    q: Any = "l2"
    lam: float = 1e-4
    weights: str = "sqrt"
    fine_tune: bool = True

    name: ClassVar[str] = "proximal"
    steps: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shrinkage(self.q, self.lam, self.weights)

    def schedule(self, total: int) -> PhaseSchedule:
        return PhaseSchedule.one_shot(total)

    def scores(self, layer: Layer) -> Tensor:
        return layer.norms()

    def stepped(self, layer: Layer, lr: float) -> None:
        # The phase is compared on the device: asking for it would wait for the device in every step.
        if layer.stored.requires_grad:
            only = layer.mask.phase != PHASES["sparse"] if self.fine_tune else None
            shrink(layer.stored, layer.grid, named_regularizer(self.q, self.lam), lr, self.lam, self.weights, only)


@dataclass(frozen=True)
class GroupLasso(ProximalMethod):
    """The group lasso, q(u) = u, then the blocks of largest norm."""

    name: ClassVar[str] = "group-lasso"
