"""The layers that could become block-sparse, and why others cannot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from sparseopt.nn.rules import is_excluded, require_matches
from sparseopt.nn.sharding import is_sharded
from sparseopt.nn.sparse.wiring import Wiring
from sparseopt.nn.weights import Weight, weights_of

__all__ = ["Candidate", "candidates_of"]

_TYPES = (nn.Linear, nn.Conv1d, nn.Conv2d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class Candidate(NamedTuple):
    """A weight of a model, the shape it has there, and why its layer has to stay dense, or ""."""

    name: str
    owner: str
    module: nn.Module
    attribute: str
    shape: tuple[int, ...]
    obstacle: str

    @property
    def tensor(self) -> Tensor:
        """The weight as it is now."""
        return getattr(self.module, self.attribute)


def candidates_of(model: nn.Module, wiring: Wiring, exclude: Sequence[str | type[nn.Module]] = ()) -> list[Candidate]:
    """All weights of linear layers, convolutions, embeddings and attention, in the model's order.

    Raises
    ------
    ValueError
        When there are none, or a name in `exclude` matches none of them.
    """
    found = weights_of(model)
    found += [
        Weight(f"{owner}.weight" if owner else "weight", owner, module, "weight", module.weight, "")
        for owner, module in model.named_modules()
        if isinstance(module, _TRANSPOSED)
    ]
    order = {module: number for number, module in enumerate(model.modules())}
    found.sort(key=lambda weight: order[weight.module])
    if not found:
        raise ValueError("the model has no linear layer, convolution, embedding or attention: nothing to compress.")
    exclude = [exclude] if isinstance(exclude, (str, type)) else list(exclude)
    require_matches("exclude", [entry for entry in exclude if not isinstance(entry, type)], found)
    return [
        Candidate(
            *weight[:4],
            () if is_lazy(weight.tensor) else tuple(weight.tensor.shape),
            "excluded" if is_excluded(weight, exclude, model) else _obstacle(weight, model, wiring),
        )
        for weight in found
    ]


def _obstacle(weight: Weight, model: nn.Module, wiring: Wiring) -> str:
    module = weight.module
    parent = model.get_submodule(weight.owner.rpartition(".")[0])
    if isinstance(module, nn.MultiheadAttention) or isinstance(parent, nn.MultiheadAttention):
        return "attention computes with it itself"
    if isinstance(module, nn.Embedding):
        return "a look-up multiplies nothing"
    if isinstance(module, _TRANSPOSED):
        return "transposed convolutions have no block-sparse form"
    if isinstance(module, nn.Conv3d):
        return "convolutions in three dimensions have no block-sparse form"
    if weight.obstacle:
        return weight.obstacle
    if type(module) not in _TYPES:
        return f"{type(module).__name__} may compute something else"
    if is_sharded(weight.tensor):
        return "it is spread over processes"
    if weight.tensor.is_meta:
        return "it holds no numbers"
    if wiring.reads_past(weight.owner):
        return "other code reads its weight"
    if any(getattr(module, kind) for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")):
        return "it has hooks"
    return _geometry(module) if isinstance(module, (nn.Conv1d, nn.Conv2d)) else ""


def _geometry(conv: nn.Conv1d | nn.Conv2d) -> str:
    if conv.groups > 1:
        return f"groups={conv.groups}"
    if conv.padding_mode != "zeros":
        return f"padding_mode={conv.padding_mode!r}"
    reach = [dilation * (side - 1) for dilation, side in zip(conv.dilation, conv.kernel_size, strict=True)]
    if conv.padding == "same" and any(r % 2 for r in reach):
        return "padding='same' of an even kernel is not the same on both sides"
    return ""
