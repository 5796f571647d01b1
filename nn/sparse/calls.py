"""Running a model on an example: what reaches its layers, and whether two models say the same.

A run takes place in evaluation mode, without gradients and with the same random numbers every time, and leaves model
and example as they were. The fast path of transformers is off: it computes with the weights of layers that it does not
call, and gives other results where its input is padded.

The difference of two results is the largest, over their tensors of numbers a and b, of

    ||a - b|| / ||a||.

Entries that are NaN or the same infinity in both are equal. Indices, and tensors whose shapes depend on the numbers in
them, may change with the last digit and are not compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils import _pytree as pytree

__all__ = ["Seen", "apply", "difference", "evaluating", "inputs_of", "run"]


class Seen(NamedTuple):
    """An input of a layer, without its numbers."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    def sample(self) -> Tensor:
        """A tensor like it."""
        return torch.randn(self.shape, device=self.device).to(self.dtype)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; every module gets its own mode back."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def run(model: nn.Module, example_input: Any) -> Any:
    """The model's result on a tensor, a tuple of arguments or a dict of named ones.

    Raises
    ------
    ValueError
        When the model has lazy layers: running it would change them.
    """
    if any(is_lazy(tensor) for tensor in (*model.parameters(), *model.buffers())):
        raise ValueError("the model has lazy layers without shapes: run one batch through it before compressing it.")
    example = pytree.tree_map_only(Tensor, torch.clone, example_input)  # a model may write into its input
    fast = torch.backends.mha.get_fastpath_enabled()
    devices = {tensor.device for tensor in model.parameters() if tensor.device.type == "cuda"}
    with evaluating(model), torch.random.fork_rng(devices=devices):
        torch.manual_seed(0)
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            return apply(model, example)
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)


def apply(model: nn.Module, example: Any) -> Any:
    """model(example), model(*example) for a tuple, model(**example) for a dict."""
    if isinstance(example, Mapping):
        return model(**example)
    return model(*example) if isinstance(example, Sequence) else model(example)


def inputs_of(model: nn.Module, example_input: Any, modules: Iterable[nn.Module]) -> dict[nn.Module, Counter[Seen]]:
    """What reaches each of `modules` when the model runs once, and how often; those not reached are left out."""
    seen: dict[nn.Module, Counter[Seen]] = {}

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        seen.setdefault(module, Counter())[Seen(tuple(x.shape), x.dtype, x.device)] += 1

    handles = [module.register_forward_pre_hook(note, with_kwargs=True) for module in modules]
    try:
        run(model, example_input)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def difference(first: Any, second: Any) -> float:
    """The largest relative difference between tensors in two results.

    >>> difference({"y": torch.tensor([3.0, 4.0])}, {"y": torch.tensor([3.0, 4.5])})
    0.1
    """
    pairs = zip(pytree.tree_leaves(first), pytree.tree_leaves(second), strict=False)
    return max((_distance(a, b) for a, b in pairs if _are_numbers(a) and _are_numbers(b)), default=0.0)


def _are_numbers(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _distance(a: Tensor, b: Tensor) -> float:
    if a.shape != b.shape:
        return 0.0
    a, b = a.detach().double(), b.detach().double()
    same = (a == b) | (a.isnan() & b.isnan())
    error = torch.where(same, 0.0, a - b).norm()
    return float(error / torch.where(a.isfinite(), a, 0.0).norm()) if error else 0.0
