"""Compressing: the same results, the model untouched, choices that follow the measured times, blocks found in zeros.

Times come from a clock that the test sets, so that choices do not depend on the machine; one test uses the real one.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="compressing changes networks of torch")

from torch import nn  # noqa: E402

from sparseopt.experiments.networks import click_model, resnet20  # noqa: E402
from sparseopt.nn import BlockGrid, plan, prune  # noqa: E402
from sparseopt.nn.sparse import compression as compression_module  # noqa: E402
from sparseopt.nn.sparse import deciding, detection, timing  # noqa: E402
from sparseopt.nn.sparse.calls import difference, run  # noqa: E402
from sparseopt.nn.sparse.choices import Compression  # noqa: E402
from sparseopt.nn.sparse.compression import compress  # noqa: E402
from sparseopt.nn.sparse.detection import blocks_for  # noqa: E402
from sparseopt.nn.sparse.layers import BlockSparseConv1d, BlockSparseConv2d, BlockSparseLayer, BlockSparseLinear  # noqa: E402
from sparseopt.nn.sparse.shrinking import ShrunkConv2d, ShrunkLinear  # noqa: E402
from sparseopt.nn.sparse.timing import dense_forms, race  # noqa: E402

torch.set_num_threads(1)

CLOSE = 1e-5


def drop_blocks(model: nn.Module, block: tuple[int, int] = (8, 8), density: float = 0.3, seed: int = 0) -> nn.Module:
    """Blocks of every layer set to zero at random, and BatchNorms that do something, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d)):
            grid = BlockGrid(tuple(module.weight.shape), block)
            kept = torch.rand(grid.counts, generator=generator) < density
            for i in range(max(kept.shape)):  # every output is computed from something, every input is read
                kept[i % len(kept), i % kept.shape[1]] = True
            module.weight.data.mul_(grid.expand(kept.to(module.weight.dtype)))
        elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
            module.bias.data.normal_(generator=generator)
    return model.eval()


def batch(*shape: int) -> Any:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5))


def clock(**seconds: float) -> Any:
    """A timer that knows what everything takes by the first word of its name: dense, sparse, shrunk, compressed."""
    defaults = {"dense": 1.0, "sparse": 0.25, "shrunk": 9.0, "compressed": 0.5}

    def timer(calls: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
        for call in calls.values():
            call()
        return {name: {**defaults, **seconds}[name.split()[0]] for name in calls}

    return timer


def mlp() -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    layers = [nn.Linear(48, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 16)]
    return drop_blocks(nn.Sequential(*layers)), batch(6, 48)


def convolutions() -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(16, 32, 3, padding="same"), nn.BatchNorm1d(32), nn.ReLU(), nn.Conv1d(32, 16, 2, 2))
    return drop_blocks(model), batch(3, 16, 20)


def residual() -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    return drop_blocks(resnet20()), batch(2, 3, 32, 32)


def clicks() -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    rows = torch.randint(0, 5, (6, 39), generator=torch.Generator().manual_seed(1))
    return drop_blocks(click_model([5] * 39), (20, 10)), rows


def encoder() -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    return drop_blocks(nn.TransformerEncoder(layer, 2)), {"src": batch(2, 7, 32)}


MODELS = {"mlp": mlp, "convolutions": convolutions, "resnet": residual, "clicks": clicks, "transformer": encoder}


def sparse_layers(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, BlockSparseLayer)]


def chosen(model: nn.Module) -> dict[str, str]:
    return {layer.name: layer.chosen for layer in report_of(model).layers}


def report_of(model: Any) -> Compression:
    assert isinstance(model.compression, Compression)
    return model.compression


def state_of(model: nn.Module) -> dict[str, Any]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


# The same results.


def law_equal(model: nn.Module, x: Any, way: Callable[..., nn.Module]) -> nn.Module:
    """The compressed model computes the same, and the given one is as it was."""
    before, modules = state_of(model), [(name, type(module)) for name, module in model.named_modules()]
    fast = way(model, example_input=x)
    assert difference(run(model, x), run(fast, x)) < CLOSE
    assert [(name, type(module)) for name, module in model.named_modules()] == modules
    after = state_of(model)
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert not {each.data_ptr() for each in model.parameters()} & {each.data_ptr() for each in fast.parameters()}
    return fast


@pytest.mark.parametrize("backend", ["auto", "sparse", "dense"])
@pytest.mark.parametrize("name", MODELS)
def test_the_compressed_model_computes_the_same(name: str, backend: str) -> None:
    fast = law_equal(*MODELS[name](), way=partial(compress, backend=backend, timer=clock()))
    assert bool(sparse_layers(fast)) == (backend != "dense")


@pytest.mark.parametrize("backend", ["auto", "sparse"])
def test_the_compressed_model_computes_the_same_in_float64(backend: str) -> None:
    model, x = mlp()
    fast = compress(model.double(), backend, x.double(), timer=clock())
    assert difference(run(model, x.double()), run(fast, x.double())) < 1e-12


def test_a_model_in_training_mode_stays_in_it_and_trains() -> None:
    model, x = mlp()
    model.train()
    model[3].eval()
    model[0].weight.requires_grad_(False)
    model[5].bias.requires_grad_(False)
    fast = compress(model, "sparse")
    assert [module.training for module in fast] == [module.training for module in model]
    assert not fast[0].values.requires_grad
    assert not fast[5].bias.requires_grad
    assert fast[3].values.requires_grad
    assert "not fused: it is in training mode" in str(report_of(fast))
    wanted, got = model(x), fast(x)
    assert difference(wanted.detach(), got.detach()) < CLOSE
    got.sum().backward()
    assert fast[3].values.grad is not None


def test_copies_states_and_compiled_models_work() -> None:
    for make in (mlp, residual):
        model, x = make()
        fast = compress(model, "sparse", x)
        wanted = run(fast, x)
        twin = copy.deepcopy(fast)
        assert difference(wanted, run(twin, x)) == 0.0
        assert report_of(twin) == report_of(fast)
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.zero_()
        twin.load_state_dict(fast.state_dict())
        assert difference(wanted, run(twin, x)) == 0.0
        assert difference(wanted, run(torch.compile(fast, backend="eager"), x)) < CLOSE


def test_wrappers_are_taken_off() -> None:
    model, x = mlp()
    fast = compress(nn.DataParallel(torch.compile(model, backend="eager")), "sparse")
    assert isinstance(fast, nn.Sequential)
    assert difference(run(model, x), run(fast, x)) < CLOSE


def test_a_single_layer_is_a_model() -> None:
    layer = drop_blocks(nn.Linear(32, 32))
    fast = compress(layer, "sparse", block=8)
    assert isinstance(fast, BlockSparseLinear)
    assert chosen(fast) == {"weight": "sparse"}
    assert difference(run(layer, batch(4, 32)), run(fast, batch(4, 32))) < CLOSE


def test_names_stay() -> None:
    model, _ = residual()
    fast = compress(model, "sparse")
    layers = [name for name, module in model.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    weights = [name for name, _ in fast.named_parameters() if not name.endswith(".bias")]
    assert [name.rpartition(".")[0] for name in weights] == layers
    assert sparse_layers(fast) == [name.removesuffix(".values") for name in weights if name.endswith(".values")]
    assert len(sparse_layers(fast)) > 15


# A transformer's layers are read past their modules.


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage")
@pytest.mark.parametrize("masked", [False, True])
def test_the_fast_path_of_transformers_does_not_meet_sparse_layers(masked: bool) -> None:
    model, inputs = encoder()
    if masked:
        inputs["src_key_padding_mask"] = torch.tensor([[False] * 7, [False] * 4 + [True] * 3])
    fast = compress(model, "sparse")
    names = [name.removesuffix(".weight") for name, what in chosen(fast).items() if what == "sparse"]
    assert names == [f"layers.{i}.{linear}" for i in (0, 1) for linear in ("linear1", "linear2")]
    reasons = {layer.name: layer.reason for layer in report_of(fast).layers}
    assert reasons["layers.0.self_attn.in_proj_weight"] == "attention computes with it itself"
    assert reasons["layers.0.self_attn.out_proj.weight"] == "attention computes with it itself"
    assert "the fast path of 2 transformer layers is off" in str(report_of(fast))
    with torch.no_grad():
        wanted, got = model(**inputs), fast(**inputs)
    real = ~inputs.get("src_key_padding_mask", torch.zeros(2, 7, dtype=torch.bool))  # what is padded is not defined
    assert difference(wanted[real], got[real]) < CLOSE
    assert difference(run(model, inputs), run(fast, inputs)) < CLOSE
    assert model.layers[0].activation_relu_or_gelu == 1


def test_without_that_switch_the_fast_path_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression_module, "_arranged", lambda model: [])
    model, inputs = encoder()
    fast = compress(model, "sparse")
    with torch.no_grad(), pytest.raises(AttributeError):
        fast(**inputs)


# Choices.


@pytest.mark.parametrize(
    ("seconds", "settings", "expected"),
    [
        ({}, {}, "sparse"),
        ({"sparse": 1.0}, {}, "dense"),  # a tie
        ({"sparse": 1.5}, {}, "dense"),
        ({"sparse": 0.999}, {}, "sparse"),
        ({"sparse": 0.6}, {"min_speedup": 2.0}, "dense"),
        ({"sparse": 0.4}, {"min_speedup": 2.0}, "sparse"),
        ({"sparse": 1.5, "compressed": 1.5}, {"min_speedup": 0.5}, "sparse"),
        ({"compressed": 1.0}, {}, "dense"),
        ({"compressed": 2.0}, {}, "dense"),
        ({}, {"exclude": ["0", "3", "5.weig*"]}, "dense"),
        ({}, {"exclude": nn.Linear}, "dense"),
    ],
)
def test_choices_follow_the_clock(seconds: Any, settings: Any, expected: str) -> None:
    model, x = mlp()
    fast = compress(model, example_input=x, timer=clock(**seconds), **settings)
    assert set(chosen(fast).values()) == {expected}
    assert difference(run(model, x), run(fast, x)) < CLOSE
    assert bool(sparse_layers(fast)) == (expected == "sparse")
    for layer in report_of(fast).layers:
        if layer.reason != "excluded":
            assert layer.dense_ms == pytest.approx(1e3)
            assert layer.sparse_ms == pytest.approx(1e3 * seconds.get("sparse", 0.25))
            assert layer.speedup == pytest.approx(1.0 / seconds.get("sparse", 0.25) if expected == "sparse" else 1.0)


def test_the_best_of_all_forms_counts() -> None:
    """Dense is as fast as its fastest form, and of several block sizes the fastest is taken."""

    def timer(calls: Mapping[str, Any]) -> dict[str, float]:
        by_name = {"dense torch": 5.0, "dense oneDNN": 2.0, "compressed": 1.0, "dense": 2.0, "sparse 8 x 8": 3.0}
        return {name: by_name.get(name, 1.0) for name in calls}

    layer = drop_blocks(nn.Linear(160, 160), (8, 8), 0.5)
    assert len(blocks_for(layer.weight)) > 1
    (choice,) = report_of(compress(layer, example_input=batch(2, 160), timer=timer)).layers
    assert choice.dense_ms == pytest.approx(2000.0)
    assert choice.sparse_ms == pytest.approx(1000.0)
    assert choice.block == blocks_for(layer.weight)[1]
    (choice,) = report_of(compress(layer, example_input=batch(2, 160), block=8, timer=timer)).layers
    assert (choice.chosen, choice.block) == ("dense", (8, 8))


def greedy(candidate: Any, forms: Any, *rest: Any) -> Any:
    """Wrong: whatever is sparse is taken, however slow."""
    new, choice = RIGHT_DECISION(candidate, forms, *rest)
    return (new, choice) if new is not None or not forms else (forms[0], deciding._chosen(choice, forms[0]))


RIGHT_DECISION = deciding.decided


def test_a_wrong_choice_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression_module, "decided", greedy)
    with pytest.raises(AssertionError):
        test_choices_follow_the_clock({"sparse": 1.5}, {}, "dense")


def test_every_call_of_a_layer_counts() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = drop_blocks(nn.Linear(32, 32))

        def forward(self, x: Any) -> Any:
            return self.layer(self.layer(x)) + self.layer(x[:1])

    (choice,) = report_of(compress(Twice().eval(), example_input=batch(4, 32), timer=clock())).layers
    assert choice.dense_ms == pytest.approx(3e3)
    assert choice.sparse_ms == pytest.approx(750.0)


# Vanished outputs and inputs.


def vanished() -> nn.Linear:
    layer = nn.Linear(24, 40)
    layer.weight.data[5:30] = 0.0
    layer.weight.data[:, 3:19] = 0.0
    return layer.eval()


def test_a_layer_shrinks_where_that_is_fastest() -> None:
    layer, x = vanished(), batch(4, 24)
    fast = law_equal(layer, x, partial(compress, timer=clock(shrunk=0.1)))
    assert isinstance(fast, ShrunkLinear)
    assert tuple(fast.weight.shape) == (15, 8)
    (choice,) = report_of(fast).layers
    assert (choice.chosen, choice.reason) == ("shrunk", "15 of 40 outputs x 8 of 24 inputs")
    assert choice.speedup == pytest.approx(10.0)
    assert fast.density == pytest.approx(15 * 8 / (24 * 40))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("outputs", [(0, 0), (2, 9), (0, 12)])
@pytest.mark.parametrize("inputs", [(0, 0), (1, 5), (0, 8)])
def test_shrunk_layers_are_the_dense_ones(inputs: tuple[int, int], outputs: tuple[int, int], bias: bool) -> None:
    torch.manual_seed(0)
    for kind, dense, x in [
        (ShrunkLinear, nn.Linear(8, 12, bias), batch(2, 3, 8)),
        (ShrunkConv2d, nn.Conv2d(8, 12, 3, 2, 1, bias=bias), batch(2, 8, 7, 7)),
        (ShrunkConv2d, nn.Conv2d(8, 12, (1, 3), padding="same", dilation=2, bias=bias), batch(8, 7, 7)),
    ]:
        dense.weight.data[slice(*outputs)] = 0.0
        dense.weight.data[:, slice(*inputs)] = 0.0
        layer = kind.from_dense(dense)
        assert difference(dense(x).detach(), layer(x).detach()) < CLOSE
        assert layer.weight.numel() <= dense.weight.numel()
        gradients = [torch.autograd.grad(each(x).square().sum(), each.bias)[0] for each in (dense, layer) if bias]
        assert difference(gradients[:1], gradients[1:]) < CLOSE


class BiasDropped(ShrunkLinear):
    """Wrong: outputs without weights have no bias either."""

    def forward(self, x: Any) -> Any:
        y = super().forward(x)
        return torch.zeros_like(y).index_copy(-1, self.outputs, y[..., self.outputs])


def test_a_dropped_bias_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(deciding._SHRUNK, nn.Linear, BiasDropped)
    with pytest.raises(ValueError, match="differs from the given one"):
        compress(vanished(), example_input=batch(4, 24), timer=clock(shrunk=0.1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"outputs": torch.tensor([0, 0])}, "outputs must increase and lie between 0 and 3"),
        ({"inputs": torch.tensor([0, 4, 5])}, "inputs must increase and lie between 0 and 4"),
        ({"inputs": torch.tensor([0])}, "inputs must be 3 int64 numbers"),
        ({"outputs": torch.tensor([0.0, 1.0])}, "outputs must be 2 int64 numbers"),
        ({"bias": torch.zeros(2)}, r"bias must be \(4,\)"),
    ],
)
def test_a_shrunk_layer_refuses_what_does_not_fit(change: Any, message: str) -> None:
    right = {"outputs": torch.tensor([0, 2]), "inputs": torch.tensor([0, 1, 4]), "size": (4, 5)}
    assert ShrunkLinear(torch.ones(2, 3), **right)(torch.ones(5)).tolist() == [3.0, 0.0, 3.0, 0.0]
    with pytest.raises(ValueError, match=message):
        ShrunkLinear(torch.ones(2, 3), **{**right, **change})


def test_channels_leave_the_network() -> None:
    model, x = mlp()
    model[3].weight.data[16:40] = 0.0
    model[3].weight.data[:16] = 0.1
    fast = compress(model, example_input=x, timer=clock(sparse=2.0))
    assert fast[3].out_features == fast[5].in_features == 40
    assert [layer.removed for layer in report_of(fast).layers] == [(0, 0), (24, 0), (0, 24)]
    assert "24 outputs removed" in str(report_of(fast))
    assert difference(run(model, x), run(fast, x)) < CLOSE
    slow = compress(model, example_input=x, timer=clock(sparse=2.0, compressed=2.0))
    assert [layer.removed for layer in report_of(slow).layers] == [(0, 0)] * 3
    assert slow[3].out_features == 64
    kept = compress(model, example_input=x, timer=clock(sparse=2.0), exclude=["5"])
    assert kept[3].out_features == 64


# Blocks found in the zeros, or given.


def planted(block: tuple[int, int], shape: tuple[int, ...], density: float = 0.1, seed: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    grid = BlockGrid(shape, block)
    kept = torch.rand(grid.counts, generator=generator) < density
    kept.view(-1)[0] = True
    return torch.randn(shape, generator=generator) * grid.expand(kept.float())


BLOCKS = [*((b, b) for b in (4, 5, 8, 10, 16, 20, 32, 64)), (8, 32), (32, 8), (16, 1), (1, 16), (128, 128)]


def law_found(block: tuple[int, int], seed: int) -> None:
    assert blocks_for(planted(block, (640, 640), seed=seed))[0] == block


@pytest.mark.parametrize("block", BLOCKS, ids=str)
@pytest.mark.parametrize("seed", [0, 1])
def test_planted_blocks_are_found(block: tuple[int, int], seed: int) -> None:
    law_found(block, seed)


@pytest.mark.parametrize(
    ("wrong", "block"),
    [
        (lambda blocks, block: blocks, (8, 8)),  # few blocks, however large
        (lambda blocks, block: blocks * block[0] * block[1] ** 2, (32, 32)),  # small blocks cost nothing extra
    ],
)
def test_wrong_costs_are_rejected(wrong: Any, block: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "cost", wrong)
    with pytest.raises(AssertionError):
        law_found(block, 0)


@pytest.mark.parametrize("block", [(4, 4), (8, 8), (16, 16), (32, 32), (8, 32), (1, 16)], ids=str)
def test_planted_blocks_of_convolutions_are_found(block: tuple[int, int]) -> None:
    assert blocks_for(planted(block, (96, 64, 3, 3)))[0] == block


def test_weights_without_structure_have_no_blocks() -> None:
    assert blocks_for(torch.ones(64, 48)) == []
    assert blocks_for(torch.ones(64, 48).index_fill(0, torch.tensor([7]), 0.0)[:, :15]) == []
    assert blocks_for(torch.zeros(64, 48)) == [(64, 48)]


def test_blocks_can_be_given() -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)).eval()
    model[0].weight.data[:32] = 0.0
    made = plan(model, 0.5, (32, 16), min_blocks=2, overrides={"2": {"block": 8}})
    model[2].weight.data[:8, :8] = 0.0
    layers = report_of(compress(model, "sparse", plan=made)).layers
    assert [layer.block for layer in layers] == [(32, 16), (8, 8)]
    assert [layer.density for layer in layers] == [0.5, 63 / 64]
    layers = report_of(compress(model, "sparse", block=(16, None))).layers
    assert [layer.block for layer in layers] == [(16, 64), None]
    assert [layer.chosen for layer in layers] == ["sparse", "dense"]


# Layers that stay dense.


class Custom(nn.Linear):
    def forward(self, x: Any) -> Any:
        return super().forward(x) * 2


class Uses(nn.Module):
    """Reads a weight without calling its layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.other = nn.Linear(32, 32), nn.Linear(32, 32)

    def forward(self, x: Any) -> Any:
        return nn.functional.linear(x, self.layer.weight) + self.other(x)


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 32))
    model[1].weight = model[0].weight
    return model


def hooked() -> nn.Module:
    model = nn.Sequential(nn.Linear(32, 32))
    model[0].register_forward_hook(lambda m, args, y: y + 1)
    return model


DENSE: dict[str, tuple[Callable[[], nn.Module], Any, str]] = {
    "groups": (lambda: nn.Conv2d(32, 32, 3, groups=2), (2, 32, 5, 5), "groups=2"),
    "padding mode": (lambda: nn.Conv2d(32, 32, 3, padding=1, padding_mode="reflect"), (2, 32, 5, 5), "'reflect'"),
    "even and same": (lambda: nn.Conv1d(32, 32, 2, padding="same"), (2, 32, 5), "padding='same' of an even kernel"),
    "transposed": (lambda: nn.ConvTranspose2d(32, 32, 3), (2, 32, 5, 5), "transposed"),
    "three dimensions": (lambda: nn.Conv3d(32, 32, 1), (2, 32, 2, 2, 2), "three dimensions"),
    "without a batch": (lambda: nn.Conv2d(32, 32, 3), (32, 5, 5), "no batch dimension"),
    "tied": (tied, (2, 32), "tied to"),
    "subclass": (lambda: Custom(32, 32), (2, 32), "Custom may compute something else"),
    "another parametrization": (
        lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(32, 32)),
        (2, 32),
        "it has another parametrization",
    ),
    "hooks": (hooked, (2, 32), "it has hooks"),
    "full": (lambda: nn.Linear(32, 32), (2, 32), "no block is zero"),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("name", DENSE)
def test_some_layers_stay_dense_and_say_why(name: str) -> None:
    make, shape, reason = DENSE[name]
    torch.manual_seed(0)
    model = make().eval()
    for parameter in model.parameters():
        if parameter.ndim > 1 and name != "full":
            parameter.data[:16] = 0.0
    fast = compress(model, example_input=batch(*shape), timer=clock())
    assert all(reason in layer.reason for layer in report_of(fast).layers)
    assert set(chosen(fast).values()) == {"dense"}
    assert difference(run(model, batch(*shape)), run(fast, batch(*shape))) == 0.0


def test_a_weight_that_is_read_elsewhere_stays() -> None:
    model = Uses().eval()
    model.layer.weight.data[:16] = model.other.weight.data[:16] = 0.0
    fast = compress(model, "sparse", batch(2, 32))
    assert chosen(fast) == {"layer.weight": "dense", "other.weight": "sparse"}
    assert report_of(fast).layers[0].reason == "other code reads its weight"


def test_embeddings_and_unreached_layers_stay() -> None:
    model, rows = clicks()
    model.spare = drop_blocks(nn.Linear(32, 32))
    fast = compress(model, example_input=rows, timer=clock())
    reasons = {layer.name: layer.reason for layer in report_of(fast).layers}
    assert reasons["embedding.weight"] == "a look-up multiplies nothing"
    assert reasons["spare.weight"] == "example_input does not reach it"


def test_convolutions_move_the_network_to_channels_last() -> None:
    model, x = residual()
    model.conv1.weight.data.fill_(0.1)
    fast = compress(model, "sparse")
    assert fast.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert not model.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert run(fast, x).shape == (2, 10)
    assert "channels_last" in str(report_of(fast))
    assert isinstance(fast.get_submodule("layer1.0.conv1"), BlockSparseConv2d)
    assert "channels_last" not in str(report_of(compress(model, "dense")))
    assert "channels_last" not in str(report_of(compress(convolutions()[0], "sparse")))
    assert isinstance(compress(convolutions()[0], "sparse")[3], BlockSparseConv1d)


# The report.


def test_the_table() -> None:
    model, x = mlp()
    made = report_of(compress(model, example_input=x, block=8, timer=clock(sparse=0.5), exclude=["5"]))
    expected = """\
layer     matrix   chosen  block  density  dense ms  sparse ms  speed-up  reason
0.weight  64 x 48  sparse  8 x 8    0.438      1000        500      2.00  with ReLU
3.weight  64 x 64  sparse  8 x 8    0.438      1000        500      2.00  with ReLU
5.weight  16 x 64  dense   -        0.625         -          -         -  excluded
whole network: dense 1000 ms, compressed 500 ms, speed-up 2.00
BatchNorm is folded into 1 layers"""
    assert str(made) == expected
    assert json.loads(json.dumps(made.to_dict()))["speedup"] == 2.0
    assert made.to_dict()["layers"][0]["block"] == [8, 8]


def test_without_fusing_the_network_keeps_its_modules() -> None:
    for make in (mlp, residual):
        model, _ = make()
        fast = compress(model, "sparse", fuse=False)
        assert type(fast) is type(model)
        assert {n for n, m in fast.named_modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d, nn.ReLU))} == {
            n for n, m in model.named_modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d, nn.ReLU))
        }
        assert report_of(fast).notes == (() if make is mlp else ("the network is in channels_last memory",))


# Errors.


def pruned() -> nn.Module:
    model = nn.Sequential(nn.Linear(32, 32))
    prune(model, torch.optim.SGD(model.parameters(), lr=0.1), sparsity=0.5, block=8, min_blocks=2, total_steps=100)
    return model


class Counting(nn.Module):
    """Its results depend on how often any copy of it was called."""

    count = 0

    def __init__(self) -> None:
        super().__init__()
        self.layer = drop_blocks(nn.Linear(32, 32))

    def forward(self, x: Any) -> Any:
        Counting.count += 1
        return self.layer(x) * Counting.count


def named_compression() -> nn.Module:
    model = nn.Sequential(nn.Linear(8, 8))
    model.compression = nn.Linear(8, 8)
    return model


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (mlp, {}, "pass a typical batch, or backend='sparse'"),
        (mlp, {"backend": "fast"}, "backend must be one of auto, sparse, dense, got 'fast'"),
        (mlp, {"backend": "sparse", "block": 0}, "block must be a positive whole number"),
        (mlp, {"backend": "sparse", "min_speedup": 0.0}, "min_speedup must be a positive number, got 0.0"),
        (mlp, {"backend": "sparse", "exclude": ["head"]}, "'head' matches no layer"),
        (lambda: (pruned(), None), {"backend": "sparse"}, "0.weight still has its mask: call s.fold"),
        (lambda: (nn.ReLU(), None), {"backend": "sparse"}, "nothing to compress"),
        (lambda: (nn.LazyLinear(3), None), {"backend": "dense", "example_input": batch(2, 3)}, "lazy layers"),
        (
            lambda: (Counting(), None),
            {"backend": "sparse", "example_input": batch(2, 32)},
            "differs from the given one",
        ),
        (lambda: (named_compression(), None), {"backend": "sparse"}, "'compression' of its own"),
        (mlp, {"backend": "sparse", "plan": plan(nn.Linear(8, 8), 0.5, 4, 2)}, "the plan has weight with the shape"),
        (mlp, {"backend": "sparse", "plan": plan(nn.Linear(8, 8), 0.5, 4, 2), "block": 4}, "plan and block are both"),
    ],
)
def test_errors_are_sentences(make: Any, settings: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        compress(make()[0], **settings)
    assert str(error.value).endswith(".")
    assert "\n" not in str(error.value)


def test_only_modules_and_plans() -> None:
    with pytest.raises(TypeError, match=r"pass the nn\.Module"):
        compress("model", "sparse")
    with pytest.raises(TypeError, match=r"plan must be a Plan, such as s\.plan, got int"):
        compress(nn.Linear(8, 8), "sparse", plan=3)


# The clock itself.


def test_the_race_takes_turns_and_medians() -> None:
    order: list[str] = []
    calls = {name: partial(order.append, name) for name in ("a", "b")}
    times = race(calls, seconds=0.0, least=3)
    assert order == ["a", "a", "b", "b"] + ["a"] * 4 + ["b"] * 4
    assert set(times) == {"a", "b"}
    order.clear()
    race(calls, seconds=60.0, most=10)
    assert order == ["a", "a", "b", "b"] + (["a"] * 4 + ["b"] * 4) * 3 + ["a"] * 2 + ["b"] * 2


def test_the_first_call_of_a_turn_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    cold = iter([9.0, 9.0, 9.0, 1.0, 2.0, 3.0])
    monkeypatch.setattr(timing, "_timed", lambda call: next(cold))
    assert race({"a": lambda: None}, seconds=0.0, least=1) == {"a": 2.0}


def test_the_race_orders_by_time() -> None:
    times = race({"much": lambda: sum(range(200_000)), "little": lambda: None}, seconds=0.05)
    assert times["little"] * 10 < times["much"]


@pytest.mark.parametrize("activation", ["none", "relu"])
def test_all_dense_forms_compute_the_layer(activation: str) -> None:
    layers = [nn.Linear(8, 5), nn.Conv2d(4, 5, 3), nn.Conv1d(4, 5, 3)]
    for layer, x in zip(layers, [batch(3, 8), batch(2, 4, 6, 6), batch(2, 4, 6)], strict=True):
        wanted = layer(x).detach()
        wanted = wanted.relu() if activation == "relu" else wanted
        for form in dense_forms(layer, x, activation).values():
            with torch.no_grad():
                assert difference(wanted, form()) < CLOSE


def test_the_real_clock_decides_and_the_result_is_right() -> None:
    model, x = mlp()
    fast = law_equal(model, x, partial(compress, timer=partial(race, seconds=0.01)))
    for layer in report_of(fast).layers:
        assert layer.dense_ms is not None
        assert layer.dense_ms > 0.0


def test_the_faster_memory_format_of_the_dense_network_is_the_rival() -> None:
    model, x = residual()

    def timer(calls: Mapping[str, Any]) -> dict[str, float]:
        times = {"dense contiguous": 9.0, "dense": 3.0, "dense channels_last": 1.0, "compressed": 2.0}
        return {name: times.get(name, 0.5) for name in calls}

    fast = compress(model, example_input=x, timer=timer)
    made = report_of(fast)
    assert (made.dense_ms, made.compressed_ms) == (1000.0, 2000.0)
    assert sparse_layers(fast) == []
    assert fast.get_submodule("layer2.0.conv1").weight.is_contiguous(memory_format=torch.channels_last)
    assert difference(run(model, x), run(fast, x)) < CLOSE


def test_compressed_models_can_be_exported_and_cast() -> None:
    model, x = mlp()
    fast = compress(model, "sparse", x)
    exported = torch.export.export(fast, (x,)).module()
    assert difference(run(fast, x), exported(x).detach()) < CLOSE
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert run(fast, x).dtype == torch.bfloat16
