"""Compressing: layers without the channels that vanished, and blocks found in zeros."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="compressing changes networks of torch")

from compressed_cases import CLOSE, batch, clock, law_equal, mlp, report_of  # noqa: E402
from torch import nn  # noqa: E402

from sparseopt.nn import BlockGrid, plan  # noqa: E402
from sparseopt.nn.sparse import deciding, detection  # noqa: E402
from sparseopt.nn.sparse.calls import difference, run  # noqa: E402
from sparseopt.nn.sparse.compression import compress  # noqa: E402
from sparseopt.nn.sparse.detection import blocks_for  # noqa: E402
from sparseopt.nn.sparse.shrinking import ShrunkConv2d, ShrunkLinear  # noqa: E402

torch.set_num_threads(1)


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
