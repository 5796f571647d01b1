"""The bridge to the core: blocks are groups, and a mask under weight decay is a regularizer.

A block W_T under a mask m_T = f(logit_T) enters the layer as U_T = m_T W_T, of norm u_T. The least decay that gives it
this norm is a penalty of u, and training the mask and the block with decay is training U with that penalty:

    factor q(u) = min over logit of   d(logit) + u^2 / f(logit)^2

    mask                   d           factor q(u)                  best logit                      source
    ExpMask                logit^2     LambertW                     W0(2 u^2) / 2                   Lemma 2.1
    Expm1Mask              logit^2     Expm1Mask                    w (e^w - 1)^3 e^-w = u^2        its repair
    LinearMask             |logit|     3/2 2^(1/3) Power(2/3)       2^(1/3) u^(2/3)                 Lemma 2.2
    LinearMask             logit^2     2 L2, the group lasso        sqrt(u)                         Hoff (2017)
    PowerMask(alpha)       0           Power(2/alpha), L2 for 2     none: ||W_T|| = u^(1/alpha)     Lemma 2.3
    SoftmaxMask, n blocks  0           n^-2 (sum_T u_T^(2/3))^3     log of n u^(2/3) / sum u^(2/3)  extension

The lemmas are those of arXiv 2402.17902. Softmax does not separate: its penalty is the square of problem (1) with
q = Power(2/3), divided by n^2. Decay on its logits as well, or a clip, leaves a ridge near 0 instead.

Reference: Hoff (2017), "Lasso, fractional norm and structured sparse estimation using a Hadamard product
parametrization", Comput. Statist. Data Anal. 115.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparseopt.groups import Groups
from sparseopt.nn.blocks import BlockGrid
from sparseopt.nn.layers import Layer, write
from sparseopt.nn.masks import BlockMask, Expm1Mask, ExpMask, LinearMask, PowerMask, SoftmaxMask
from sparseopt.regularizers import L2, LambertW, Power, Scaled
from sparseopt.regularizers import Expm1Mask as Expm1Penalty

__all__ = ["Pairing", "SoftmaxPairing", "groups_of", "imprint", "pairing_of"]


def groups_of(grid: BlockGrid, weights: Any = "sqrt") -> Groups:
    """The blocks of a weight as groups of the entries of `weight.flatten()`, numbered row by row.

    A layer of one output is a linear predictor with these groups of features; several outputs are one with the design
    kron(1, X), of the targets one output after the other.

    Examples
    --------
    >>> groups = groups_of(BlockGrid((2, 4), (2, 2)))
    >>> [groups[g].tolist() for g in range(2)], groups.names, groups.weights.tolist()
    ([[0, 1, 4, 5], [2, 3, 6, 7]], ('0,0', '0,1'), [2.0, 2.0])
    """
    number = torch.arange(grid.n_blocks).view(grid.counts)
    owner = grid.expand(number).flatten().numpy()
    sizes = np.bincount(owner, minlength=grid.n_blocks)
    names = [f"{r},{c}" for r in range(grid.counts[0]) for c in range(grid.counts[1])]
    return Groups(np.argsort(owner, kind="stable"), np.concatenate([[0], np.cumsum(sizes)]), weights, tuple(names))


@dataclass(frozen=True)
class Pairing:
    """A mask with decay mu d(logit) + lam ||W_T||^2 per block, and the regularizer that it amounts to.

    Made by `pairing_of`.

    Parameters
    ----------
    q : regularizer
        Of the core; `factor` times it is the penalty for lam = mu = 1.
    factor : float
    best : callable
        Norms u > 0 to (logits, ||W_T||) of least decay for lam = mu = 1; None for logits where a mask has none.
    attention : callable
        (logits, ||W_T||) to the mask.
    power : float
        p of d(logit) = |logit|^p.
    lam, mu : float
        Strength of the decay on blocks and on logits.
    """

    q: Any
    factor: float
    best: Callable[[Tensor], tuple[Tensor | None, Tensor]]
    attention: Callable[[Any, Tensor], Tensor]
    power: float = 2.0
    lam: float = 1.0
    mu: float = 1.0

    @property
    def regularizer(self) -> tuple[float, Any]:
        """(strength, q) of the core's `Penalty`, for groups of weight 1.

        mu d(logit) + lam ||W_T||^2 = mu (d(logit) + (s ||W_T||)^2) with s = sqrt(lam / mu): unequal decays change the
        unit of the norms.
        """
        unit = math.sqrt(self.mu / self.lam)
        q = self.q if unit == 1.0 or isinstance(self.q, L2) else Scaled(self.q, unit)
        return math.sqrt(self.lam * self.mu) * self.factor, q

    def value(self, u: Tensor) -> Tensor:
        """The penalty of all blocks, of norms u, together."""
        strength, q = self.regularizer
        return strength * q.value(u).sum()

    def split(self, u: Tensor) -> tuple[Tensor | None, Tensor]:
        """Norms u >= 0 of the blocks that the layer computes with to (logits, ||W_T||) of least decay."""
        scale = math.sqrt(self.lam / self.mu)
        positive = u > 0.0
        logits, stored = self.best(scale * torch.where(positive, u, 1.0).double())
        at_zero = None if logits is None else torch.where(positive, logits, 0.0).to(u.dtype)
        return at_zero, torch.where(positive, stored / scale, 0.0).to(u.dtype)

    def join(self, logits: Tensor | None, stored: Tensor) -> Tensor:
        """(logits, ||W_T||) to the norms u, the other way."""
        return self.attention(logits, stored).abs() * stored

    def cost(self, logits: Tensor | None, stored: Tensor) -> Tensor:
        """The decay of all blocks together."""
        blocks = self.lam * (stored**2).sum()
        return blocks if logits is None else blocks + self.mu * (logits.abs() ** self.power).sum()


@dataclass(frozen=True)
class SoftmaxPairing:
    """n softmax(logits) with decay lam ||W_T||^2 and none on logits: lam n^-2 (sum_T u_T^(2/3))^3, of a whole layer.

    The methods are those of `Pairing`. A block of norm 0 is reached in the limit only: its logit is -inf.

    Examples
    --------
    >>> pairing = SoftmaxPairing(lam=0.5)
    >>> u = torch.tensor([[8.0, 1.0], [0.0, 1.0]])
    >>> logits, stored = pairing.split(u)
    >>> (4 * torch.softmax(logits.flatten(), 0)).tolist(), stored.flatten().tolist()
    ([2.6666667461395264, 0.6666666865348816, 0.0, 0.6666666865348816], [3.0, 1.5, 0.0, 1.5])
    >>> float(pairing.cost(logits, stored)), float(pairing.value(u))
    (6.75, 6.75)
    """

    lam: float = 1.0

    def value(self, u: Tensor) -> Tensor:
        """The penalty of the layer."""
        return self.lam * (u ** (2.0 / 3.0)).sum() ** 3 / u.numel() ** 2

    def split(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Norms u >= 0, not all 0, to (logits, ||W_T||) of least decay; equal norms have logits 0."""
        wide = u.double()
        share = wide ** (2.0 / 3.0)
        attention = share * (u.numel() / share.sum())
        stored = torch.where(u > 0.0, wide / torch.where(u > 0.0, attention, 1.0), 0.0)
        return attention.log().to(u.dtype), stored.to(u.dtype)

    def join(self, logits: Tensor, stored: Tensor) -> Tensor:
        """(logits, ||W_T||) to the norms u."""
        return torch.softmax(logits.flatten(), 0).view(logits.shape) * logits.numel() * stored

    def cost(self, logits: Tensor | None, stored: Tensor) -> Tensor:
        """The decay of the layer."""
        return self.lam * (stored**2).sum()


def pairing_of(
    mask: BlockMask, decay: str = "squares", lam: float = 1.0, mu: float | None = None
) -> Pairing | SoftmaxPairing:
    """What decay amounts to under `mask`.

    Parameters
    ----------
    mask : BlockMask
        Any mask but the plain one. PowerMask has no logits, and those of SoftmaxMask are without decay.
    decay : {"squares", "l1"}
        mu times the sum of the squares of the logits, or of their absolute values (LinearMask only).
    lam : float, > 0
        lam times the squares of the blocks. An optimizer with `weight_decay=wd` decays with the strength wd / 2.
    mu : float, > 0, optional
        lam by default.

    Raises
    ------
    ValueError
        When the pair is not in the table.

    Examples
    --------
    >>> linear = LinearMask(BlockGrid((2, 2), (1, 2)))
    >>> logits, stored = pairing_of(linear).split(torch.tensor([[4.0], [0.0]]))
    >>> logits.flatten().tolist(), stored.flatten().tolist()
    ([2.0, 0.0], [2.0, 0.0])
    >>> pairing_of(linear, lam=0.25).regularizer  # 0.25 (2^2 + 2^2) = 0.5 * 4
    (0.5, L2())
    """
    mu = lam if mu is None else mu
    if not (0.0 < lam < math.inf and 0.0 < mu < math.inf):
        raise ValueError(
            f"lam and mu must be positive and finite, got {lam} and {mu}: without decay nothing is chosen."
        )
    if decay not in ("squares", "l1"):
        raise ValueError(f"decay must be 'squares' or 'l1', got {decay!r}.")
    if isinstance(mask, LinearMask):
        if decay == "l1":
            factor = 1.5 * 2.0 ** (1.0 / 3.0)
            return Pairing(Power(2.0 / 3.0), factor, _cube_roots, _logits, 1.0, lam, mu)
        return Pairing(L2(), 2.0, lambda u: (u.sqrt(), u.sqrt()), _logits, 2.0, lam, mu)
    if decay == "l1":
        raise ValueError(f"decay='l1' goes with LinearMask, got {type(mask).__name__}: no formula is known.")
    if isinstance(mask, ExpMask):
        return Pairing(LambertW(), 1.0, _lambert, lambda logits, _: logits.exp(), 2.0, lam, mu)
    if isinstance(mask, Expm1Mask):
        return Pairing(Expm1Penalty(), 1.0, _expm1, lambda logits, _: torch.expm1(logits), 2.0, lam, mu)
    if isinstance(mask, SoftmaxMask):
        return SoftmaxPairing(lam)
    if isinstance(mask, PowerMask):
        alpha = mask.alpha
        if alpha < 2.0:
            raise ValueError(f"alpha={alpha} leaves u^{2.0 / alpha:g}, which is no sparse penalty: use 2 or more.")
        q = L2() if alpha == 2.0 else Power(2.0 / alpha)
        return Pairing(q, 1.0, lambda u: (None, u ** (1.0 / alpha)), lambda _, v: v ** (alpha - 1.0), 2.0, lam, lam)
    raise ValueError(f"{type(mask).__name__} trains nothing but the block: its penalty is the weight decay itself.")


@torch.no_grad()
def imprint(layer: Layer, weight: Tensor, decay: str = "squares", lam: float = 1.0, mu: float | None = None) -> None:
    """Set block and logits of a masked layer so that it computes with `weight`, at the least decay.

    So a network can start from what a solver of the core found. Blocks that the mask has dropped stay dropped.

    Parameters
    ----------
    weight : Tensor
        Of the shape of the layer's weight.
    decay, lam, mu
        See `pairing_of`.

    Raises
    ------
    ValueError
        When the weight has another shape, or a clip does not let the attention be what it must be.

    Examples
    --------
    >>> from sparseopt.nn import plan
    >>> from sparseopt.nn.sparsifier import Sparsifier
    >>> model = torch.nn.Linear(4, 4, bias=False)
    >>> s = Sparsifier(model, plan(model, 0.5, block=2, min_blocks=4), clip=False, total_steps=100)
    >>> imprint(s.layers[0], torch.ones(4, 4))
    >>> bool(torch.allclose(model.weight, torch.ones(4, 4))), s.layers[0].logits.tolist()
    (True, [[0.0, 0.0], [0.0, 0.0]])
    """
    grid, mask = layer.grid, layer.mask
    if tuple(weight.shape) != grid.shape:
        raise ValueError(f"weight has the shape {tuple(weight.shape)}, the layer {layer.name} {grid.shape}.")
    u = grid.norms(weight.double())
    logits, stored = pairing_of(mask, decay, lam, mu).split(u)
    if isinstance(mask, SoftmaxMask) and mask.clip is not None:
        assert logits is not None
        attention = logits.exp()
        if float(attention.min()) < mask.clip[0] or float(attention.max()) > mask.clip[1]:
            raise ValueError(
                f"the blocks of {layer.name} need attention from {float(attention.min()):.3g} to "
                f"{float(attention.max()):.3g}, outside of the clip {mask.clip}: build the mask without a clip."
            )
    factor = torch.where(u > 0.0, stored / torch.where(u > 0.0, u, 1.0), 0.0)
    write(layer.stored, grid.scale(weight.double(), factor).to(layer.stored.dtype))
    if logits is not None:
        assert layer.logits is not None
        write(layer.logits, logits.to(layer.logits.dtype))


def _logits(logits: Tensor, _: Tensor) -> Tensor:
    return logits


def _cube_roots(u: Tensor) -> tuple[Tensor, Tensor]:
    logits = 2.0 ** (1.0 / 3.0) * u ** (2.0 / 3.0)
    return logits, u / logits


def _lambert(u: Tensor) -> tuple[Tensor, Tensor]:
    """The logit w solves w^2 + w = q(u), so the core's Lambert W serves here as well."""
    value = LambertW().value(u)
    logits = 2.0 * value / (1.0 + torch.sqrt(1.0 + 4.0 * value))
    return logits, u * torch.exp(-logits)


def _expm1(u: Tensor) -> tuple[Tensor, Tensor]:
    """log w / 2 + w + 3/2 log(1 - e^-w) = log u is concave in w: Newton's steps from below rise to the root."""
    logits = torch.log1p(u.sqrt())
    for _ in range(8):
        error = 0.5 * logits.log() + logits + 1.5 * torch.log(-torch.expm1(-logits)) - u.log()
        logits = logits - error / (0.5 / logits + 1.0 + 1.5 / torch.expm1(logits))
    return logits, u / torch.expm1(logits)
