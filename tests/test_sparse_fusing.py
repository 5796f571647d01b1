"""Fusing: BatchNorm and ReLU taken into the layer before them, channels taken out, and everything that must not be.

The oracle is the network itself, untouched and in float64. Wrong ways of fusing must not pass.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="fusing changes networks of torch")

from torch import fx, nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from sparseopt.nn.sparse import fusing, removal  # noqa: E402
from sparseopt.nn.sparse.fusing import absorb_relus, absorb_sums, fold_batch_norms, relu_after  # noqa: E402
from sparseopt.nn.sparse.layers import BlockSparseLinear  # noqa: E402
from sparseopt.nn.sparse.removal import remove_channels  # noqa: E402
from sparseopt.nn.sparse.wiring import Wiring, replace_module  # noqa: E402

torch.set_num_threads(1)

Make = Callable[[], tuple[nn.Module, Any]]
CLOSE = 1e-12


def trained(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model in float64 and in evaluation mode, its BatchNorms with statistics and factors of all signs."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            for name, tensor in module.state_dict().items():
                if name != "num_batches_tracked":
                    tensor.copy_(torch.randn(tensor.shape, generator=generator))
            if module.running_var is not None:
                module.running_var.abs_().mul_(0.01)  # so that eps counts
    return model.double().eval()


def uniform(*shape: int) -> Any:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(7))


def distance(first: nn.Module, second: nn.Module, x: Any) -> float:
    with torch.no_grad():
        wanted = first(x)
        return float((wanted - second(x)).norm() / wanted.norm())


class Forward(nn.Module):
    """Layers a, b, ..., and a function of them and of the input."""

    def __init__(self, function: Callable[[Any, Any], Any], **layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Any) -> Any:
        return self.function(self, x)


# BatchNorm.

FOLDED: dict[str, Make] = {
    "conv2d": lambda: (nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU()), uniform(2, 3, 7, 7)),
    "conv2d without bias": lambda: (
        nn.Sequential(nn.Conv2d(3, 6, 3, 2, bias=False), nn.BatchNorm2d(6, eps=0.1)),
        uniform(2, 3, 7, 7),
    ),
    "groups": lambda: (nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6)), uniform(2, 4, 5, 5)),
    "conv1d": lambda: (nn.Sequential(nn.Conv1d(3, 5, 3), nn.BatchNorm1d(5)), uniform(2, 3, 9)),
    "linear": lambda: (nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5)), uniform(6, 4)),
    "without factors": lambda: (nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5, affine=False)), uniform(6, 4)),
    "inside": lambda: (
        Forward(
            lambda m, x: x + m.norm(m.conv(x)).sum((2, 3), keepdim=True),
            conv=nn.Conv2d(3, 3, 3, padding=1),
            norm=nn.BatchNorm2d(3),
        ),
        uniform(2, 3, 5, 5),
    ),
}
KEPT: dict[str, Make] = {
    "the layer has a second reader": lambda: (
        Forward(lambda m, x: (y := m.conv(x)).tanh() + m.norm(y), conv=nn.Conv2d(3, 6, 3), norm=nn.BatchNorm2d(6)),
        uniform(2, 3, 7, 7),
    ),
    "the layer is called twice": lambda: (
        Forward(lambda m, x: m.norm(m.layer(m.layer(x))), layer=nn.Linear(4, 4), norm=nn.BatchNorm1d(4)),
        uniform(6, 4),
    ),
    "the norm is called twice": lambda: (
        Forward(lambda m, x: m.norm(m.norm(m.layer(x))), layer=nn.Linear(4, 4), norm=nn.BatchNorm1d(4)),
        uniform(6, 4),
    ),
    "something lies between": lambda: (nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.BatchNorm1d(5)), uniform(6, 4)),
    "statistics of the batch": lambda: (
        nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5, track_running_stats=False)),
        uniform(6, 4),
    ),
    "another dimension of the same size": lambda: (
        nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5)),
        uniform(6, 5, 4),
    ),
    "the weight is read": lambda: (
        Forward(lambda m, x: m.norm(m.layer(x)) @ m.layer.weight, layer=nn.Linear(4, 5), norm=nn.BatchNorm1d(5)),
        uniform(6, 4),
    ),
    "the weight is tied": lambda: (tied(), uniform(6, 4)),
}


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    return model


def dimensions_of(model: nn.Module, x: Any) -> dict[nn.Module, int]:
    """What an example shows: the dimensions of what each BatchNorm gets."""
    found: dict[nn.Module, int] = {}
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d)]
    handles = [each.register_forward_pre_hook(lambda m, args: found.update({m: args[0].ndim})) for each in norms]
    model(x)
    for handle in handles:
        handle.remove()
    return found


def norms_in(model: nn.Module) -> int:
    return sum(isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)) for module in model.modules())


def law_folding(make: Make) -> None:
    """The fused network has no BatchNorm left and computes the same."""
    model, x = make()
    model = trained(model)
    before, names = copy.deepcopy(model), list(dict(model.named_modules()))
    folded = fold_batch_norms(Wiring(model), dimensions_of(model, x))
    assert len(folded) == 1
    assert norms_in(model) == 0
    assert list(dict(model.named_modules())) == names
    assert distance(before, model, x) < CLOSE


@pytest.mark.parametrize("name", FOLDED)
def test_batch_norm_goes_into_the_layer_before_it(name: str) -> None:
    law_folding(FOLDED[name])


@pytest.mark.parametrize("name", KEPT)
def test_batch_norm_stays_where_something_else_would_notice(name: str) -> None:
    model, x = KEPT[name]()
    model = trained(model)
    before = copy.deepcopy(model)
    fold_batch_norms(Wiring(model), dimensions_of(model, x))
    assert norms_in(model) == 1
    assert distance(before, model, x) == 0.0


def test_without_an_example_batch_norm_of_one_dimension_stays() -> None:
    model = trained(FOLDED["linear"]()[0])
    assert fold_batch_norms(Wiring(model)) == {}
    assert norms_in(model) == 1


@torch.no_grad()
def fold_with_wrong_eps(layer: Any, batch_norm: Any) -> None:
    batch_norm.eps *= 2.0
    RIGHT_FOLD(layer, batch_norm)


@torch.no_grad()
def fold_without_mean(layer: Any, batch_norm: Any) -> None:
    batch_norm.running_mean.zero_()
    RIGHT_FOLD(layer, batch_norm)


@torch.no_grad()
def fold_weight_only(layer: Any, batch_norm: Any) -> None:
    RIGHT_FOLD(layer, batch_norm)
    layer.bias.zero_()


RIGHT_FOLD = fusing._fold


@pytest.mark.parametrize("wrong", [fold_with_wrong_eps, fold_without_mean, fold_weight_only])
@pytest.mark.parametrize("name", FOLDED)
def test_wrong_folding_is_rejected(name: str, wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusing, "_fold", wrong)
    with pytest.raises(AssertionError):
        law_folding(FOLDED[name])


def test_folding_keeps_zeros_and_what_trains() -> None:
    model = trained(nn.Sequential(nn.Conv2d(4, 8, 3, bias=False), nn.BatchNorm2d(8)))
    model[0].weight.data[2:5] = 0.0
    model[0].weight.requires_grad_(False)
    zeros = model[0].weight == 0
    fold_batch_norms(Wiring(model))
    assert torch.equal(model[0].weight == 0, zeros)
    assert not model[0].weight.requires_grad
    assert not model[0].bias.requires_grad


# What keeps a network from being traced.


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))

    def forward(self, x: Any) -> Any:
        return self.layers(x) if x.sum() > 0 else x


class Optional(Branching):
    def forward(self, x: Any, mask: Any = None) -> Any:
        y = self.layers(x)
        return y if mask is None else y * mask


def hooked() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    model[0].register_forward_hook(lambda m, args, y: y + 1)
    return model


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda: Branching().eval(), "torch.fx cannot trace it"),
        (lambda: Optional().eval(), "optional argument 'mask'"),
        (lambda: Branching().layers.train(), "training mode"),
        (hooked, "hooks"),
    ],
    ids=["branches", "optional arguments", "training", "hooks"],
)
def test_a_network_that_cannot_be_traced_stays(model: Callable[[], nn.Module], reason: str) -> None:
    given = model()
    wiring = Wiring(given)
    assert reason in wiring.obstacle
    assert fold_batch_norms(wiring) == {}
    assert norms_in(given) == 1


# ReLU.

RELUS: dict[str, Callable[[], nn.Module]] = {
    "module": lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)),
    "module in place": lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU(inplace=True), nn.Linear(8, 8)),
    "torch.relu": lambda: Forward(lambda m, x: m.b(torch.relu(m.a(x))), a=nn.Linear(8, 8), b=nn.Linear(8, 8)),
    "F.relu": lambda: Forward(
        lambda m, x: m.b(functional.relu(m.a(x), inplace=True)), a=nn.Linear(8, 8), b=nn.Linear(8, 8)
    ),
    "method": lambda: Forward(lambda m, x: m.b(m.a(x).relu()), a=nn.Linear(8, 8), b=nn.Linear(8, 8)),
    "one module for all": lambda: Forward(
        lambda m, x: m.relu(m.b(m.relu(m.a(x))) + x), a=nn.Linear(8, 8), b=nn.Linear(8, 8), relu=nn.ReLU()
    ),
}
NO_RELUS: dict[str, Callable[[], nn.Module]] = {
    "two readers": lambda: Forward(lambda m, x: (y := m.a(x)) - torch.relu(y), a=nn.Linear(8, 8)),
    "read again after": lambda: Forward(lambda m, x: (torch.relu(y := m.a(x)), y)[1], a=nn.Linear(8, 8)),
    "returned": lambda: Forward(lambda m, x: m.a(x), a=nn.Linear(8, 8)),
    "another function": lambda: Forward(lambda m, x: functional.gelu(m.a(x)), a=nn.Linear(8, 8)),
    "called twice": lambda: Forward(lambda m, x: m.a(torch.relu(m.a(x))), a=nn.Linear(8, 8)),
}


def law_absorbing(make: Callable[[], nn.Module]) -> nn.Module:
    """A first layer that applies ReLU itself computes the same without the ReLU behind it."""
    torch.manual_seed(1)
    model = trained(make())
    before, x = copy.deepcopy(model), uniform(5, 8)
    wiring = Wiring(model)
    name, layer = next((name, each) for name, each in model.named_modules() if isinstance(each, nn.Linear))
    if fusing.relu_after(wiring, name) is None:
        return model
    replace_module(model, layer, BlockSparseLinear.from_dense(layer, 4, activation="relu").eval())
    fused = absorb_relus(wiring, [name])
    assert distance(before, fused, x) < CLOSE
    assert {key.split(".")[0] for key in fused.state_dict()} == {key.split(".")[0] for key in before.state_dict()}
    return fused


@pytest.mark.parametrize("name", RELUS)
def test_relu_goes_into_the_layer_before_it(name: str) -> None:
    fused = law_absorbing(RELUS[name])
    wiring = Wiring(fused)
    relus = [node for node in wiring.graph.nodes if fusing._is_relu(wiring, node)]
    assert len(relus) == (1 if name == "one module for all" else 0)
    assert isinstance(fused, fx.GraphModule) == (name not in ("module", "module in place"))


@pytest.mark.parametrize("name", NO_RELUS)
def test_relu_stays_where_something_else_would_notice(name: str) -> None:
    model = trained(NO_RELUS[name]())
    assert relu_after(Wiring(model), "a") is None


def first_relu(wiring: Wiring, name: str) -> Any:
    """Wrong: whoever else reads the layer is forgotten."""
    return next((node for node in wiring.graph.nodes if fusing._is_relu(wiring, node)), None)


@pytest.mark.parametrize("name", ["two readers", "read again after", "called twice"])
def test_a_relu_with_company_must_not_be_absorbed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    law_absorbing(NO_RELUS[name])
    monkeypatch.setattr(fusing, "relu_after", first_relu)
    with pytest.raises(AssertionError):
        law_absorbing(NO_RELUS[name])


def test_only_what_follows_is_absorbed() -> None:
    wiring = Wiring(trained(NO_RELUS["returned"]()))
    with pytest.raises(ValueError, match="no ReLU follows a alone"):
        absorb_relus(wiring, ["a"])


# Sums of two branches.


def two(function: Callable[[Any, Any], Any], **more: nn.Module) -> Callable[[], nn.Module]:
    return lambda: Forward(function, a=nn.Linear(8, 8), b=nn.Linear(8, 8), **more)


SUMS: dict[str, tuple[Callable[[], nn.Module], int]] = {  # and how many sums are gone
    "residual": (two(lambda m, x: m.b(torch.relu(m.a(x))) + x), 1),
    "the other way round": (two(lambda m, x: x + m.b(torch.relu(m.a(x)))), 1),
    "with ReLU": (two(lambda m, x: torch.relu(m.b(torch.relu(m.a(x))) + x)), 1),
    "with a ReLU that serves twice": (two(lambda m, x: m.relu(m.b(m.relu(m.a(x))) + x), relu=nn.ReLU(inplace=True)), 1),
    "two layers": (two(lambda m, x: (m.a(x) + m.b(x)).relu()), 1),
    "torch.add": (two(lambda m, x: torch.add(m.a(x), x)), 1),
    "method": (two(lambda m, x: m.a(x).add_(x)), 1),
    "in place": (two(lambda m, x: operator.iadd(m.a(x), x)), 1),
    "three": (two(lambda m, x: m.a(x) + m.b(x) + x), 1),
    "a vector that is repeated": (two(lambda m, x: m.a(x) + x[0]), 1),
    "a matrix that is repeated": (two(lambda m, x: m.a(x[0]) + x), 1),
    "two readers": (two(lambda m, x: (y := m.a(x)) * (y + x)), 0),
    "in the other's place": (two(lambda m, x: (y := x * 2, y.add_(m.a(x)), y)[2]), 0),
    "with a factor": (two(lambda m, x: torch.add(m.a(x), x, alpha=2)), 0),
    "a number": (two(lambda m, x: m.a(x) + 1.0), 0),
    "itself": (two(lambda m, x: (y := m.a(x)) + y), 0),
    "called twice": (two(lambda m, x: m.a(m.a(x)) + x), 0),
    "the input changes before": (two(lambda m, x: (z := x * 2, y := m.a(z), z.mul_(3.0), y + x)[3]), 0),
}


def law_sums(make: Callable[[], nn.Module]) -> int:
    """Layers that add the other branch themselves compute the same without the sum."""
    torch.manual_seed(1)
    model = trained(make())
    before, x = copy.deepcopy(model), uniform(5, 8)
    wiring = Wiring(model)
    layers = {name: each for name, each in model.named_modules() if isinstance(each, nn.Linear)}
    for layer in layers.values():
        replace_module(model, layer, BlockSparseLinear.from_dense(layer, 4).eval())
    fused, n_sums = absorb_sums(wiring, list(layers))
    assert distance(before, fused, x) < CLOSE
    assert isinstance(fused, fx.GraphModule) == (n_sums > 0)
    return n_sums


@pytest.mark.parametrize("name", SUMS)
def test_sums_go_into_layers_where_nothing_else_would_notice(name: str) -> None:
    make, n_sums = SUMS[name]
    assert law_sums(make) == n_sums


@pytest.mark.parametrize(
    ("attribute", "wrong", "name"),
    [
        ("_changes_its_input", lambda wiring, node: False, "the input changes before"),
        ("_is_sum", lambda total, first: True, "with a factor"),
        ("_is_sum", lambda total, first: total.target in fusing._SUMS, "in the other's place"),
        ("_is_relu", lambda wiring, node: True, "three"),
    ],
    ids=["moved past a change", "a factor forgotten", "in the other's place", "ReLU where there is none"],
)
def test_wrong_sums_are_rejected(attribute: str, wrong: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusing, attribute, wrong)
    with pytest.raises(AssertionError):
        law_sums(SUMS[name][0])


# Channels.


def without_outputs(layer: Any, first: int, last: int) -> Any:
    layer.weight.data[first:last] = 0.0
    return layer


def without_inputs(layer: Any, first: int, last: int) -> Any:
    layer.weight.data[:, first:last] = 0.0
    return layer


def biased(layer: Any, value: float) -> Any:
    layer.bias.data.fill_(value)
    return layer


# A network, an input, and how many outputs each layer loses.
CHANNELS: dict[str, Callable[[], tuple[nn.Module, Any, dict[str, int]]]] = {
    "constant": lambda: (
        nn.Sequential(without_outputs(nn.Linear(8, 32), 8, 24), nn.ReLU(), nn.Linear(32, 4)),
        uniform(5, 8),
        {"0": 16},
    ),
    "constant through others": lambda: (
        nn.Sequential(
            without_outputs(nn.Linear(8, 32), 8, 24), nn.Sigmoid(), nn.Dropout(), nn.GELU(), nn.Linear(32, 4, False)
        ),
        uniform(5, 3, 8),
        {"0": 16},
    ),
    "no bias, and still a constant": lambda: (
        nn.Sequential(without_outputs(nn.Linear(8, 32, bias=False), 8, 24), nn.Sigmoid(), nn.Linear(32, 4)),
        uniform(5, 8),
        {"0": 16},
    ),
    "unread": lambda: (
        nn.Sequential(nn.Linear(8, 32), nn.Tanh(), without_inputs(nn.Linear(32, 4), 0, 8)),
        uniform(5, 8),
        {"0": 8},
    ),
    "one after the other": lambda: (
        nn.Sequential(
            nn.Linear(8, 16),
            nn.ReLU(),
            without_inputs_for(nn.Linear(16, 32), 24),
            without_inputs(nn.Linear(32, 4), 24, 32),
        ),
        uniform(5, 8),
        {"0": 8, "2": 8},
    ),
    "two readers": lambda: (
        Forward(
            lambda m, x: m.b(torch.relu(y := m.a(x))) + m.c(y.tanh()),
            a=without_outputs(nn.Linear(8, 32), 0, 8),
            b=without_inputs(nn.Linear(32, 4), 16, 32),
            c=without_inputs(nn.Linear(32, 4), 24, 32),
        ),
        uniform(5, 8),
        {"a": 16},
    ),
    "convolutions": lambda: (
        nn.Sequential(
            without_outputs(nn.Conv2d(3, 16, 3, padding=1), 0, 8), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(16, 4, 2)
        ),
        uniform(2, 3, 9, 9),
        {"0": 8},
    ),
    "padding, and a constant of zero": lambda: (
        nn.Sequential(
            biased(without_outputs(nn.Conv2d(3, 16, 3), 0, 8), -1.0), nn.ReLU(), nn.Conv2d(16, 4, 3, padding=1)
        ),
        uniform(2, 3, 9, 9),
        {"0": 8},
    ),
    "padding, and another constant": lambda: (
        nn.Sequential(
            biased(without_outputs(nn.Conv2d(3, 16, 3), 0, 8), 1.0), nn.ReLU(), nn.Conv2d(16, 4, 3, padding=1)
        ),
        uniform(2, 3, 9, 9),
        {},
    ),
    "one by one": lambda: (  # 11 of 32 vanish: 24 stay, a multiple of 8
        nn.Sequential(without_outputs(without_outputs(nn.Linear(8, 32), 3, 4), 10, 20), nn.ReLU(), nn.Linear(32, 4)),
        uniform(5, 8),
        {"0": 8},
    ),
    "all of them": lambda: (
        nn.Sequential(without_outputs(nn.Linear(8, 32), 0, 32), nn.ReLU(), nn.Linear(32, 4)),
        uniform(5, 8),
        {"0": 24},
    ),
    "added to something else": lambda: (
        Forward(lambda m, x: m.b(torch.relu(m.a(x) + x)), a=without_outputs(nn.Linear(8, 8), 0, 4), b=nn.Linear(8, 4)),
        uniform(5, 8),
        {},
    ),
    "in place, seen by another": lambda: (
        Forward(
            lambda m, x: (y := m.a(x), m.relu(y), m.b(y))[2],
            a=biased(without_outputs(nn.Linear(8, 32), 0, 16), -1.0),
            relu=nn.ReLU(inplace=True),
            b=nn.Linear(32, 4),
        ),
        uniform(5, 8),
        {},
    ),
    "pooled along the features": lambda: (
        nn.Sequential(without_outputs(nn.Linear(8, 32), 0, 8), nn.MaxPool2d(1), nn.Linear(32, 4)),
        uniform(2, 3, 5, 8),
        {},
    ),
    "softmax": lambda: (
        nn.Sequential(without_outputs(nn.Linear(8, 32), 0, 8), nn.Softmax(-1), nn.Linear(32, 4)),
        uniform(5, 8),
        {},
    ),
}


def without_inputs_for(layer: Any, outputs: int) -> Any:
    """The first outputs do not read the first half of the inputs; the others do."""
    layer.weight.data[:outputs, : layer.in_features // 2] = 0.0
    return layer


def law_removing(name: str) -> None:
    torch.manual_seed(2)
    model, x, expected = CHANNELS[name]()
    model = trained(model)
    before = copy.deepcopy(model)
    removed = remove_channels(Wiring(model))
    assert dict(removed) == expected
    assert distance(before, model, x) < CLOSE
    for layer, lost in expected.items():
        old, new = before.get_submodule(layer), model.get_submodule(layer)
        assert len(new.weight) == len(old.weight) - lost
        assert str(new) != str(old)


@pytest.mark.parametrize("name", CHANNELS)
def test_channels_leave_where_the_rest_computes_the_same(name: str) -> None:
    law_removing(name)


def test_excluded_layers_keep_their_channels() -> None:
    for name in ("0", "2"):
        model = trained(CHANNELS["constant"]()[0])
        assert remove_channels(Wiring(model), [name]) == {}


def bias_forgotten(layer: Any, function: Any) -> Any:
    return layer.weight.new_zeros(len(layer.weight))


def function_forgotten(layer: Any, function: Any) -> Any:
    return layer.weight.new_zeros(len(layer.weight)) if layer.bias is None else layer.bias.detach()


@pytest.mark.parametrize(
    ("wrong", "attribute", "name"),
    [
        (bias_forgotten, "_value", "constant"),
        (bias_forgotten, "_value", "convolutions"),
        (bias_forgotten, "_value", "padding, and another constant"),
        (function_forgotten, "_value", "constant through others"),
        (function_forgotten, "_value", "no bias, and still a constant"),
        (lambda wiring, node: False, "_is_in_place", "in place, seen by another"),
        (lambda wiring, node, kind: lambda k: k, "_function", "added to something else"),
        (lambda wiring, node, kind: lambda k: k, "_function", "softmax"),
        (lambda gone: ~gone, "_in_steps", "unread"),
    ],
)
def test_wrong_removal_is_rejected(wrong: Any, attribute: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    law_removing(name)
    monkeypatch.setattr(removal, attribute, wrong)
    with pytest.raises(AssertionError):
        law_removing(name)
