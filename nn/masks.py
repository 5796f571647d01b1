"""Block masks: parametrizations W -> W * expand(scale) of a weight by one number per block.

    scale = alive * f(logits),      alive = mask or (phase is dense)

    BlockMask      f = 1                                          AC/DC, magnitude, growth, proximal steps
    SoftmaxMask    f = clip(n softmax(logits)), mean 1            SequentialAttention++
    ExpMask        f = e^logit                                    Lemma 2.1 of arXiv 2402.17902: not sparse
    Expm1Mask      f = e^max(logit, 0) - 1                        its repair
    LinearMask     f = logit                                      Lemma 2.2, with an l1 penalty on the logits
    PowerMask      f = ||W_T||^(alpha - 1)                        block PowerPropagation, Lemma 2.3 for alpha = 2

`mask` (bool, one per block) and `phase` (uint8) are buffers: they are saved with the model, copied by deepcopy, and a
change of phase changes no code, so `torch.compile` keeps one graph. Since the mask is a factor, neither momentum nor
weight decay can bring a dropped block back. Logits have two dimensions, so that rules like "no decay for vectors" do
decay them. Every mask begins with f = 1: pruning starts from the function that the network computes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from sparseopt.nn.blocks import BlockGrid

__all__ = ["PHASES", "BlockMask", "ExpMask", "Expm1Mask", "LinearMask", "LogitMask", "PowerMask", "SoftmaxMask"]

PHASES = {"dense": 0, "sparsify": 1, "sparse": 2}


class BlockMask(nn.Module):
    """W * expand(alive): the blocks that the mask keeps, or all of them in a dense phase.

    Parameters
    ----------
    grid : BlockGrid
        The blocks of the weight.
    device : torch.device
        Where the weight lives.

    Examples
    --------
    >>> linear = nn.Linear(4, 4, bias=False)
    >>> block = BlockMask(BlockGrid((4, 4), (2, 2)), linear.weight.device)
    >>> nn.utils.parametrize.register_parametrization(linear, "weight", block)
    ParametrizedLinear(...)
    >>> block.mask[0] = False
    >>> block.phase.fill_(PHASES["sparse"])
    tensor(2, dtype=torch.uint8)
    >>> linear.weight[:2].abs().sum().item()
    0.0
    """

    mask: Tensor
    phase: Tensor
    logits: nn.Parameter | None
    followers: tuple[str, ...] = ()  # parameters of the module that come after the weight

    def __init__(self, grid: BlockGrid, device: torch.device | None = None) -> None:
        super().__init__()
        self.grid = grid
        self.register_buffer("mask", torch.ones(grid.counts, dtype=torch.bool, device=device))
        self.register_parameter("logits", None)
        self.register_buffer("phase", torch.zeros((), dtype=torch.uint8, device=device))

    def alive(self) -> Tensor:
        """The blocks in use, bool (R, C)."""
        return self.mask | (self.phase == PHASES["dense"])

    def factors(self, weight: Tensor) -> Tensor:
        """scale, (R, C): what each block of the stored weight is multiplied by."""
        return self.alive().to(weight.dtype)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight that the layer computes with."""
        return self.grid.scale(weight, self.factors(weight))

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The stored weight for which a fresh mask gives `weight`."""
        return weight

    def fresh(self) -> dict[str, Tensor]:
        """What `state_dict` gives, with the logits of f = 1: for checkpoints of the plain model, which have none."""
        return self.state_dict()

    def extra_repr(self) -> str:
        return f"{self.grid.counts[0]} x {self.grid.counts[1]} blocks of {self.grid.block[0]} x {self.grid.block[1]}"


class LogitMask(BlockMask, ABC):
    """A mask with one trainable number per block, (R, C) and at least float32."""

    first = 0.0  # the logit of f = 1

    def __init__(self, grid: BlockGrid, device: torch.device | None = None, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(grid, device)
        wide = torch.promote_types(dtype, torch.float32)
        self.logits = nn.Parameter(torch.full(grid.counts, self.first, dtype=wide, device=device))

    @abstractmethod
    def attention(self) -> Tensor:
        """f(logits), (R, C), whether or not the blocks are alive."""

    def factors(self, weight: Tensor) -> Tensor:
        return (self.attention() * self.alive()).to(weight.dtype)

    def fresh(self) -> dict[str, Tensor]:
        assert self.logits is not None
        return {**super().fresh(), "logits": torch.full_like(self.logits, self.first, requires_grad=False)}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> LogitMask:
        # `model.to(torch.bfloat16)` is about weights. Logits that differ by less than 2^-8 would stop to differ.
        assert self.logits is not None
        before = self.logits.data
        gradient = None if self.logits.grad is None else self.logits.grad.data
        super()._apply(fn, recurse)
        wide = torch.promote_types(self.logits.dtype, torch.float32)
        if self.logits.dtype != wide:
            self.logits.data = before.to(self.logits.device, wide)
            self.logits.grad = None if gradient is None else gradient.to(self.logits.device, wide)
        return self


class SoftmaxMask(LogitMask):
    """f = clip(n softmax(logits), low, high): attention with mean 1 over the n blocks of the layer.

    Parameters
    ----------
    clip : tuple of float or None
        (low, high). arXiv 2402.17902 clips to [density, 1 / density] (printed with a factor n too many): 1 / density is
        what n density equal survivors have. None does not clip.
    over : {"all", "alive"}
        Blocks in the denominator. With "alive", n is their number, and dropped blocks have no influence.
    """

    def __init__(
        self,
        grid: BlockGrid,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        clip: tuple[float, float] | None = None,
        over: str = "all",
    ) -> None:
        if over not in ("all", "alive"):
            raise ValueError(f"over must be 'all' or 'alive', got {over!r}.")
        if clip is not None and not 0.0 <= clip[0] <= 1.0 <= clip[1]:
            raise ValueError(f"clip must be (low, high) with low <= 1 <= high, the mean of the attention, got {clip}.")
        super().__init__(grid, device, dtype)
        self.clip = clip
        self.over = over

    def attention(self) -> Tensor:
        assert self.logits is not None
        logits = self.logits.flatten()
        if self.over == "alive":
            alive = self.alive().flatten()
            logits = logits.masked_fill(~alive, -math.inf)
        # Divided by the mean, and not as softmax times n, which is 1 - 6e-8 for 41 equal logits.
        powers = (logits - logits.max().detach()).exp()
        attention = powers / (powers.sum() / alive.sum() if self.over == "alive" else powers.mean())
        if self.clip is not None:
            attention = attention.clamp(*self.clip)
        return attention.view(self.grid.counts)


class ExpMask(LogitMask):
    """f = e^logit. With weight decay on both, the penalty is `LambertW`, a ridge near 0: no block is ever exactly 0."""

    def attention(self) -> Tensor:
        assert self.logits is not None
        return self.logits.exp()


class Expm1Mask(LogitMask):
    """f = e^max(logit, 0) - 1: 0 at no cost. With weight decay on both, the penalty is the sparse `Expm1Mask`."""

    first = math.log(2.0)

    def attention(self) -> Tensor:
        assert self.logits is not None
        return torch.expm1(self.logits.clamp(min=0.0))


class LinearMask(LogitMask):
    """f = logit. Weight decay on the block and lam |logit| leave u^(2/3) (Lemma 2.2); decay on both leaves 2 u."""

    first = 1.0

    def attention(self) -> Tensor:
        assert self.logits is not None
        return self.logits


class PowerMask(BlockMask):
    """f = ||W_T||^(alpha - 1), alpha >= 1: blocks W_T ||W_T||^(alpha - 1), so that the rich get richer.

    With weight decay on W the penalty is u^(2 / alpha): the group lasso for alpha = 2 (Lemma 2.3 of arXiv 2402.17902).
    The derivative at a block that is 0 is 0 for alpha > 1: such a block stays 0.
    """

    def __init__(self, grid: BlockGrid, device: torch.device | None = None, alpha: float = 2.0) -> None:
        if not alpha >= 1.0:
            raise ValueError(f"alpha must be at least 1, got {alpha}: smaller exponents have no derivative at 0.")
        super().__init__(grid, device)
        self.alpha = alpha

    def factors(self, weight: Tensor) -> Tensor:
        wide = weight.to(torch.promote_types(weight.dtype, torch.float32))  # in half precision 1e-4 squared is 0
        squares = self.grid.pool(wide * wide)
        zero = squares == 0.0
        powers = torch.where(zero, 1.0, squares) ** (0.5 * (self.alpha - 1.0))
        powers = torch.where(zero, 0.0 if self.alpha > 1.0 else 1.0, powers) * self.alive()
        return powers.to(weight.dtype)

    def right_inverse(self, weight: Tensor) -> Tensor:
        wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
        norms = self.grid.norms(wide)
        powers = torch.where(norms == 0.0, 1.0, norms) ** (1.0 / self.alpha - 1.0)
        return self.grid.scale(wide, powers).to(weight.dtype)
