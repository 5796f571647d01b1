"""Compressing: the same results, the model untouched, names, tables and formats of memory kept.

Times come from a clock that the test sets, so that choices do not depend on the machine.
"""

from __future__ import annotations

import copy
import json
from functools import partial

import pytest

torch = pytest.importorskip("torch", reason="compressing changes networks of torch")

from compressed_cases import (  # noqa: E402
    CLOSE,
    MODELS,
    batch,
    chosen,
    clock,
    convolutions,
    drop_blocks,
    encoder,
    law_equal,
    mlp,
    report_of,
    residual,
    sparse_layers,
)
from torch import nn  # noqa: E402

from sparseopt.nn.sparse import compression as compression_module  # noqa: E402
from sparseopt.nn.sparse.calls import difference, run  # noqa: E402
from sparseopt.nn.sparse.compression import compress  # noqa: E402
from sparseopt.nn.sparse.layers import BlockSparseConv1d, BlockSparseConv2d, BlockSparseLinear  # noqa: E402

torch.set_num_threads(1)


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


def test_compressed_models_can_be_exported_and_cast() -> None:
    model, x = mlp()
    fast = compress(model, "sparse", x)
    exported = torch.export.export(fast, (x,)).module()
    assert difference(run(fast, x), exported(x).detach()) < CLOSE
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert run(fast, x).dtype == torch.bfloat16
