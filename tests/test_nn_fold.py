"""Folding: plain modules, original names in their order, the same parameters, exact zeros, equal outputs."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch", reason="folding needs torch")

import pruning_cases as cases  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn.utils import parametrize  # noqa: E402

from sparseopt.nn import METHODS, dense_state_dict, fold, masking, prune  # noqa: E402
from sparseopt.nn.masking import masks_of  # noqa: E402


class Doubled(nn.Module):
    """A parametrization that is not ours."""

    def forward(self, x):
        return 2.0 * x

    def right_inverse(self, x):
        return 0.5 * x


class Attention(nn.Module):
    """Self-attention, with projections in one weight or in three."""

    def __init__(self, **settings) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(8, 2, batch_first=True, **settings)
        self.keys = settings.get("kdim", 8)

    def forward(self, x):
        keys = x[..., :1].expand(*x.shape[:-1], self.keys)
        return self.inner(x, keys, keys, need_weights=False)[0]


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 5, 2), nn.Flatten(), nn.Linear(45, 4)
    )


def with_another() -> nn.Module:
    model = cases.network()
    parametrize.register_parametrization(model[0], "bias", Doubled())
    return model


def encoder() -> nn.Module:
    return nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)


floats = lambda *shape: lambda: torch.randn(*shape, generator=torch.Generator().manual_seed(3))  # noqa: E731
indices = lambda: torch.randint(0, 12, (5, 3), generator=torch.Generator().manual_seed(3))  # noqa: E731
MODELS = {
    "linear": (cases.network, floats(16, 8)),
    "no bias": (lambda: cases.network(bias=False), floats(16, 8)),
    "one layer": (lambda: nn.Linear(8, 8), floats(16, 8)),
    "convolutions": (convolutions, floats(4, 3, 6, 6)),
    "embedding": (lambda: nn.Sequential(nn.Embedding(12, 6, padding_idx=0), nn.Flatten(), nn.Linear(18, 5)), indices),
    "attention": (Attention, floats(3, 5, 8)),
    "three projections": (lambda: Attention(kdim=4, vdim=4), floats(3, 5, 8)),
    "encoder": (encoder, floats(3, 5, 8)),
    "another parametrization": (with_another, floats(16, 8)),
}
INCLUDE = (nn.Linear, nn.Conv2d, nn.Embedding, nn.MultiheadAttention)


def trained(name: str, method: str = "sequential-attention++"):
    """(model, optimizer, sparsifier, parameters by name before, a plain copy, input), in the last sparse phase."""
    make, example = MODELS[name]
    torch.manual_seed(0)
    model, x = make(), example()
    plain, before = copy.deepcopy(model), dict(model.named_parameters())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    s = prune(model, optimizer, method, 0.75, 2, min_blocks=2, include=INCLUDE, schedule=cases.TWO_PHASES)
    for _ in range(5):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    return model, optimizer, s, before, plain, x


def check_plain(model: nn.Module, plain: nn.Module) -> None:
    """The same modules, names, order, types and instance attributes as before pruning."""
    assert not list(masks_of(model))
    assert list(model.state_dict()) == list(plain.state_dict())
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in plain.named_parameters()]
    for (_, mine), (_, other) in zip(model.named_modules(), plain.named_modules(), strict=True):
        assert type(mine).__mro__[-3:] == type(other).__mro__[-3:]
        assert parametrize.is_parametrized(mine) == parametrize.is_parametrized(other)
        assert parametrize.is_parametrized(mine) or type(mine) is type(other)
        assert set(mine.__dict__) == set(other.__dict__)
        assert list(mine._parameters) == list(other._parameters)
        assert not mine._load_state_dict_pre_hooks
        assert "weight" not in vars(type(mine)) or type(mine) is type(other)


@pytest.mark.parametrize("method", ["sequential-attention++", "ac/dc", "power-propagation"])
@pytest.mark.parametrize("name", MODELS)
def test_folding_gives_back_the_plain_model_with_zeros(name, method) -> None:
    model, _, s, before, plain, x = trained(name, method)
    model.eval()
    was, out = {key: value.clone() for key, value in dense_state_dict(model).items()}, model(x)
    dropped = {layer.name: layer.grid.expand(~layer.kept) for layer in s.layers}
    gradients = {layer.name: layer.stored.grad for layer in s.layers}
    assert s.fold() is model
    check_plain(model, plain)
    after = dict(model.named_parameters())
    assert {key: id(value) for key, value in after.items()} == {key: id(value) for key, value in before.items()}
    assert all(value.requires_grad for value in after.values())
    assert torch.equal(model(x), out)
    assert dropped
    for key, where in dropped.items():
        assert where.any()
        assert not after[key][where].any()
        assert not torch.signbit(after[key][where]).any()
        assert after[key][~where].any()
        assert after[key].grad is gradients[key]
    # What `dense_state_dict` promised: names, order and bits.
    state = model.state_dict()
    assert list(was) == list(state)
    assert all(torch.equal(was[key], state[key]) and was[key].dtype == state[key].dtype for key in state)
    fresh = MODELS[name][0]().eval()
    fresh.load_state_dict(was, strict=True)
    assert torch.equal(fresh(x), out)


@pytest.mark.parametrize("first", ["copy", "original"])
@pytest.mark.parametrize("name", MODELS)
def test_folding_a_copy_leaves_the_original_working_and_the_other_way_round(name, first) -> None:
    model, _, _, _, plain, x = trained(name)
    model.eval()
    twin = copy.deepcopy(model)
    one, other = (twin, model) if first == "copy" else (model, twin)
    out, keys = model(x), list(model.state_dict())
    fold(one)
    assert list(other.state_dict()) == keys
    assert torch.equal(other(x), out)
    assert torch.equal(one(x), out)
    other(x).sum().backward()
    check_plain(fold(other), plain)
    assert torch.equal(other(x), out)


@pytest.mark.parametrize("name", ["linear", "attention", "three projections"])
def test_removing_parametrizations_by_torch_is_rejected(name) -> None:
    def torch_fold(model: nn.Module) -> None:
        for _, module, attribute, _ in list(masks_of(model)):
            parametrize.remove_parametrizations(module, attribute)

    model, _, _, _, plain, x = trained(name)
    twin = copy.deepcopy(model)
    torch_fold(twin)
    with pytest.raises(AssertionError):
        check_plain(twin, plain)  # the order of the names is another
    with pytest.raises(AttributeError):
        model(x)  # the property is gone from the class of the original


@pytest.mark.parametrize("name", ["linear", "attention", "three projections"])
def test_weights_that_come_last_among_their_names_are_rejected(name, monkeypatch) -> None:
    monkeypatch.setattr(masking, "_place", lambda names, followers: len(names))
    with pytest.raises(AssertionError):
        test_folding_gives_back_the_plain_model_with_zeros(name, "ac/dc")
    model, _, _, _, plain, _ = trained(name)
    assert list(dense_state_dict(model)) != list(plain.state_dict())


def test_training_goes_on_after_folding_with_the_same_optimizer() -> None:
    model, optimizer, s, _, _, x = trained("linear")
    assert optimizer.state[s.layers[0].stored]
    stored = [layer.stored for layer in s.layers]
    s.fold()
    assert len(optimizer.param_groups[0]["params"]) == 4
    assert not any(optimizer.state.get(parameter) for parameter in stored)  # momentum of W, not of W times attention
    assert optimizer.state[model[0].bias]
    before = model[0].weight.detach().clone()
    steps = s.step_count
    optimizer.zero_grad()
    model(x).square().mean().backward()
    optimizer.step()
    assert s.step_count == steps
    torch.testing.assert_close(before - model[0].weight.detach(), 0.05 * model[0].weight.grad, rtol=1e-4, atol=1e-7)


def test_the_foreign_parametrization_keeps_working() -> None:
    model, _, s, _, _, x = trained("another parametrization")
    assert "bias" in model[0].parametrizations
    s.fold()
    assert parametrize.is_parametrized(model[0], "bias")
    assert not parametrize.is_parametrized(model[0], "weight")
    assert torch.equal(model[0].bias, 2.0 * model[0].parametrizations.bias.original)
    model(x).sum().backward()
    parametrize.remove_parametrizations(model[0], "bias")
    assert type(model[0]) is nn.Linear


def test_a_second_parametrization_of_the_same_weight_is_refused_before_anything_is_folded() -> None:
    model, _, s, _, _, _ = trained("linear")
    parametrize.register_parametrization(model[2], "weight", Doubled())
    with pytest.raises(ValueError, match=r"2\.weight got another parametrization \(Doubled\) besides its mask: remove"):
        s.fold()
    with pytest.raises(ValueError, match=r"2\.weight got another parametrization"):
        dense_state_dict(model)
    assert len(list(masks_of(model))) == 2


@pytest.mark.parametrize("method", METHODS)
def test_folding_early_warns_with_the_numbers(method) -> None:
    model, optimizer, s = cases.start("sgd-momentum", method)
    cases.train(model, optimizer, 2)
    with pytest.warns(UserWarning, match=r"folded after 2 of 6 steps, in a dense phase: 0\.\d{3} of the weights are 0"):
        s.fold()
    assert type(model[0]) is nn.Linear


def test_the_fast_path_of_an_encoder_respects_the_masks(monkeypatch) -> None:
    model, _, _, _, _, x = trained("encoder")
    calls = []
    original = torch._transformer_encoder_layer_fwd

    def counted(*arguments):
        calls.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(torch, "_transformer_encoder_layer_fwd", counted)
    slow = model(x)
    assert not calls
    model.eval()
    with torch.no_grad():
        fast = model(x)
        assert len(calls) == 1
        # float32 sums of at most 16 terms, in another order, through two norms.
        torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-5)
        for _, _, _, mask in masks_of(model):
            mask.mask.fill_(True)
        assert not torch.allclose(model(x), slow, rtol=1e-2, atol=1e-2)


def test_channels_last_stays_channels_last() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    s = prune(model, optimizer, "magnitude", 0.75, 2, min_blocks=2, schedule=cases.TWO_PHASES)
    last = {"memory_format": torch.channels_last}
    for _ in range(4):
        optimizer.zero_grad()
        model(torch.randn(2, 4, 8, 8).contiguous(**last)).square().mean().backward()
        optimizer.step()
        assert all(layer.module.weight.is_contiguous(**last) for layer in s.layers)
    s.fold()
    assert all(model[i].weight.is_contiguous(**last) for i in (0, 2))


def test_only_the_gradient_of_alive_blocks_reaches_the_stored_weight() -> None:
    _, _, s, _, _, _ = trained("linear")
    for layer in s.layers:
        where = layer.grid.expand(~layer.kept)
        assert not layer.stored.grad[where].any()
        assert layer.stored.grad[~where].any()
