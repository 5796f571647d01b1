"""The section of a recipe on pruning: from names and numbers to a method, its phases and a plan."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator
from torch import nn

from sparseopt.experiments.training.fields import (
    Items,
    Natural,
    NonNegative,
    OpenShare,
    Positive,
    Text,
    Truth,
    closest,
    plain,
    require_printable,
    shown,
)
from sparseopt.experiments.training.sections import Section
from sparseopt.nn import METHODS, Cubic, Exponential, Linear, Method, PhaseSchedule, get_method, plan

__all__ = ["DENSE", "Pruning", "method_name", "simple"]

DENSE = "dense"
_SHARES = {"exponential": Exponential(), "cubic": Cubic(), "linear": Linear()}


def method_name(value: Any) -> Any:
    """The name of a method, also of its short name; "dense" and what is no text stay as they are."""
    if not isinstance(value, str) or value == DENSE:
        return value
    name = value.lower().replace("_", "-")
    if name in METHODS:
        return name
    try:
        return get_method(name).name
    except (TypeError, ValueError) as error:
        raise ValueError(f"pruning.method {shown(value)} is not known: {closest(name, [DENSE, *METHODS])}") from error


def _block(value: Any) -> Any:
    value = plain(value)
    pair = isinstance(value, (list, tuple))
    sides = list(value) if pair else [value]
    numbers = [side for side in sides if side is not None or not pair]
    good = [type(side) in (int, float) and 1 <= side < 2**31 and side == int(side) for side in numbers]
    if len(sides) != 1 + pair or not good or not all(good):
        raise ValueError("must be a whole number of at least 1, or two, [outputs, inputs], one of them null for all")
    whole = tuple(None if side is None else int(side) for side in sides)
    return whole if pair else whole[0]


def _schedule(value: Any) -> Any:
    if isinstance(value, str):
        if value not in ("own", "imagenet", "criteo"):
            raise ValueError("must be own, imagenet, criteo, or a list such as [[dense, 0.2], [sparse, 0.8]]")
        return value
    value = plain(value)
    pairs = value if isinstance(value, (list, tuple)) else []
    good = [
        isinstance(pair, (list, tuple)) and len(pair) == 2 and isinstance(pair[0], str)
        and type(pair[1]) in (int, float) and abs(pair[1]) < 2**63
        for pair in pairs
    ]  # fmt: skip
    if not good or not all(good):
        raise ValueError("must be own, imagenet, criteo, or a list such as [[dense, 0.2], [sparse, 0.8]]")
    try:
        PhaseSchedule.from_list(pairs, 10**9)
    except ValueError as error:
        raise ValueError(f"pruning.schedule: {error}") from error
    return tuple((str(kind), float(share)) for kind, share in pairs)


def simple(value: Any) -> Any:
    """Data of the kinds that YAML and JSON share, but mappings."""
    if isinstance(value, (list, tuple)):
        return [simple(each) for each in value]
    if isinstance(value, (int, float)) and not abs(value) < 2**63:
        raise ValueError("must be a finite number")
    if isinstance(value, str):
        require_printable(value)
    elif not (value is None or isinstance(value, (bool, int, float))):
        raise ValueError("must be text, a number, true, false, null, or a list of these")
    return value


def _setting(value: Any) -> Any:
    return simple(plain(value))


def _names(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


class Pruning(Section):
    """How the network becomes sparse, see `sparseopt.nn.prune`.

    Parameters
    ----------
    method : a name in `sparseopt.nn.METHODS`.
    sparsity, block, min_blocks, exclude, budget : of `sparseopt.nn.plan`.
    include : names of the layers to prune, wildcards allowed; [] means all.
    schedule : "imagenet" and "criteo" of arXiv 2402.17902, "own" of the method, or phases and their shares.
    sparsify : whether "imagenet" and "criteo" have sparsify phases; null means if the method's own schedule has.
    logit_lr, logit_weight_decay : of the masks' logits; the first is a multiple of the learning rate.
    settings : of the method; share is exponential, cubic or linear, and c its exponent.
    """

    method: Text
    sparsity: OpenShare
    block: Annotated[int | tuple[int | None, int | None], BeforeValidator(_block)] = 16
    min_blocks: Natural = 100
    include: Annotated[tuple[Text, ...], Items, BeforeValidator(_names)] = ()
    exclude: Annotated[tuple[Text, ...], Items, BeforeValidator(_names)] = ()
    budget: Literal["uniform", "global", "erk", "flops"] = "uniform"
    schedule: Annotated[str | tuple[tuple[str, float], ...], BeforeValidator(_schedule)] = "own"
    sparsify: Truth | None = None
    logit_lr: Positive = 1.0
    logit_weight_decay: NonNegative | None = None
    settings: dict[str, Annotated[Any, BeforeValidator(_setting)]] = Field(default_factory=dict)

    @field_validator("method", mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        return method_name(value)

    @model_validator(mode="after")
    def _accepted(self) -> Pruning:
        try:
            self.make_method()
        except (TypeError, ValueError) as error:
            raise ValueError(f"pruning.settings: {error}") from error
        return self

    def make_method(self) -> Method:
        """The method with its settings."""
        settings = dict(self.settings)
        share = settings.pop("share", None)
        if "c" in settings:
            if share not in (None, "exponential"):
                raise ValueError(f"c is the exponent of the share exponential, and share is {share!r}.")
            c = settings.pop("c")
            if type(c) not in (int, float):
                raise ValueError(f"c must be a number of at least 0, got {c!r}.")
            settings["share"] = Exponential(float(c))
        elif share is not None:
            if not isinstance(share, str) or share not in _SHARES:
                raise ValueError(f"share must be {', '.join(_SHARES)}, got {share!r}.")
            settings["share"] = _SHARES[share]
        return get_method(self.method, **settings)

    def phases(self, total: int) -> PhaseSchedule | None:
        """The phases of a training of `total` steps; None leaves them to the method."""
        if self.schedule == "own":
            return None
        if isinstance(self.schedule, tuple):
            return PhaseSchedule.from_list(self.schedule, total)
        sparsify = self.sparsify
        if sparsify is None:
            sparsify = any(phase.kind == "sparsify" for phase in self.make_method().schedule(10_000).phases)
        make = PhaseSchedule.imagenet if self.schedule == "imagenet" else PhaseSchedule.criteo
        return make(total, sparsify=sparsify)

    def plan_options(self, model: nn.Module) -> dict[str, Any]:
        """Arguments of `sparseopt.nn.plan` besides the model: layers that are not included are excluded by name."""
        options = {key: getattr(self, key) for key in ("sparsity", "block", "min_blocks", "budget")}
        exclude = list(self.exclude)
        if self.include:
            every = plan(model, 0.5, block=1, min_blocks=2)
            names = [layer.name for layer in every.layers] + [entry.name for entry in every.skipped]
            modules = dict.fromkeys(name.rpartition(".")[0] for name in names)
            for pattern in self.include:
                if not any(_lies_in(name, pattern) for name in names):
                    raise ValueError(f"pruning.include: {pattern!r} matches no layer: {closest(pattern, modules)}")
            exclude += [name for name in names if not any(_lies_in(name, pattern) for pattern in self.include)]
        return {**options, "exclude": exclude}


def _lies_in(name: str, pattern: str) -> bool:
    """Whether a pattern is for a weight, its module, or what that lies in."""
    parts = name.split(".")
    return any(fnmatchcase(".".join(parts[:i]), pattern) for i in range(1, len(parts) + 1))
