"""Layers with block-sparse weights: equal to dense ones, trained like them, and at home wherever a module goes."""

from __future__ import annotations

import copy
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="layers are torch modules")

from sparse_cases import dense, error, scattered  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from sparseopt.nn import BlockGrid  # noqa: E402
from sparseopt.nn.sparse.format import BlockSparse  # noqa: E402
from sparseopt.nn.sparse.layers import BlockSparseConv1d, BlockSparseConv2d, BlockSparseLinear  # noqa: E402

SPARSE: dict[type, Any] = {nn.Linear: BlockSparseLinear, nn.Conv1d: BlockSparseConv1d, nn.Conv2d: BlockSparseConv2d}
INPUTS: dict[type, tuple[int, ...]] = {nn.Linear: (5, 12), nn.Conv1d: (3, 12, 9), nn.Conv2d: (2, 12, 6, 7)}


def layers() -> dict[str, Any]:
    torch.manual_seed(0)
    return {
        "linear": nn.Linear(12, 10),
        "linear without bias": nn.Linear(12, 10, bias=False),
        "conv1d": nn.Conv1d(12, 10, 3, padding=1, stride=2),
        "conv2d": nn.Conv2d(12, 10, 3, padding=1),
        "conv2d uneven": nn.Conv2d(12, 10, (3, 2), stride=(2, 1), padding=(0, 2), dilation=(1, 3), bias=False),
        "conv2d same": nn.Conv2d(12, 10, (3, 5), padding="same", dilation=(2, 1)),
        "conv2d valid": nn.Conv2d(12, 10, 3, padding="valid"),
        "conv1d same": nn.Conv1d(12, 10, 3, padding="same"),
    }


def pruned(dense: Any, block: Any = (4, 6), seed: int = 0) -> tuple[Any, Any]:
    """Zeros in about half of the blocks of `dense`; the mask."""
    grid = BlockGrid(tuple(dense.weight.shape), block)
    mask = torch.rand(grid.counts, generator=torch.Generator().manual_seed(seed)) < 0.5
    mask[0, 0], mask[-1, 0] = True, False
    with torch.no_grad():
        dense.weight.mul_(grid.expand(mask.to(dense.weight.dtype)))
    return dense, mask


def pair(name: str = "linear", activation: str = "none", seed: int = 0) -> tuple[Any, Any, Tensor]:
    """A dense layer, the sparse one made of it, and an input for both."""
    layer, mask = pruned(layers()[name], seed=seed)
    x = torch.randn(INPUTS[type(layer)], generator=torch.Generator().manual_seed(2))
    return layer, SPARSE[type(layer)].from_dense(layer, (4, 6), mask, activation), x


ALL = sorted(layers())


# The same function.


@pytest.mark.parametrize("activation", ["none", "relu"])
@pytest.mark.parametrize("name", ALL)
def test_a_layer_is_the_dense_layer_and_its_activation(name: str, activation: str) -> None:
    layer, sparse, x = pair(name, activation)
    wanted = copy.deepcopy(layer).double()(x.double())
    assert error(sparse(x), wanted.relu() if activation == "relu" else wanted) < 1e-5
    assert torch.equal(scattered(sparse.weight), layer.weight)


@pytest.mark.parametrize("name", ALL)
def test_the_way_to_dense_and_back_loses_nothing(name: str) -> None:
    layer, sparse, x = pair(name)
    back = sparse.eval().to_dense()
    assert type(back) is type(layer)
    assert torch.equal(back.weight, layer.weight)
    assert torch.equal(back(x), layer(x))
    assert (back.bias is None) == (layer.bias is None)
    assert not back.training
    assert sparse.double().to_dense().weight.dtype == torch.float64


def test_a_layer_tells_what_it_is() -> None:
    _, sparse, _ = pair("conv2d", "relu")
    assert repr(sparse) == (
        "BlockSparseConv2d(12, 10, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), block=(4, 6), "
        f"density={sparse.density:.3g}, bias=True, activation='relu')"
    )
    assert sparse.density == sparse.weight.density == len(sparse.col) / 54
    assert dict(sparse.named_parameters()).keys() == {"values", "bias"}
    assert dict(sparse.named_buffers()).keys() == {"crow", "col"}
    linear = pair("linear")[1]
    assert (linear.in_features, linear.out_features, linear.block) == (12, 10, (4, 6))


def test_the_result_of_a_convolution_lies_channels_last() -> None:
    _, sparse, x = pair("conv2d")
    for image in (x, x.contiguous(memory_format=torch.channels_last)):
        assert sparse(image).is_contiguous(memory_format=torch.channels_last)
    _, sparse, x = pair("conv1d")
    assert sparse(x).stride(1) == 1
    assert pair("linear")[1](torch.ones(2, 3, 12)).is_contiguous()


REFUSED: dict[str, tuple[type[Exception], str, Callable[[], Any]]] = {
    "activation": (ValueError, "activation must be one of", lambda: pair("linear", "gelu")),
    "bias": (ValueError, r"bias must be \(10,\)", lambda: BlockSparseLinear(pair()[1].weight, torch.ones(9))),
    "convolution as Linear": (
        ValueError,
        r"takes a weight \(out, in\)",
        lambda: BlockSparseLinear(pair("conv1d")[1].weight),
    ),
    "one dimension": (
        ValueError,
        r"takes a weight \(out, in, kk\)",
        lambda: BlockSparseConv2d(pair("conv1d")[1].weight),
    ),
    "groups": (ValueError, "groups=2", lambda: BlockSparseConv2d.from_dense(nn.Conv2d(4, 4, 3, groups=2), 2)),
    "padding_mode": (
        ValueError,
        "padding_mode='circular'",
        lambda: BlockSparseConv1d.from_dense(nn.Conv1d(4, 4, 3, padding=1, padding_mode="circular"), 2),
    ),
    "even": (ValueError, "even kernel", lambda: BlockSparseConv1d.from_dense(nn.Conv1d(4, 4, 2, padding="same"), 2)),
    "stride": (ValueError, "stride must be", lambda: BlockSparseConv2d(pair("conv2d")[1].weight, stride=0)),
    "padding": (ValueError, "padding must be", lambda: BlockSparseConv2d(pair("conv2d")[1].weight, padding=(1, -1))),
    "dilation": (
        ValueError,
        "dilation must be",
        lambda: BlockSparseConv2d(pair("conv2d")[1].weight, dilation=(1, 1, 1)),
    ),
    "inputs": (ValueError, "the layer's 12 inputs", lambda: pair()[1](torch.ones(3, 11))),
    "channels": (ValueError, r"x must be \(N, 12, length\)", lambda: pair("conv1d")[1](torch.ones(3, 11, 9))),
    "unbatched": (ValueError, r"x must be \(N, 12, height, width\)", lambda: pair("conv2d")[1](torch.ones(12, 5, 5))),
    "small image": (RuntimeError, "as large as the kernel", lambda: pair("conv2d valid")[1](torch.ones(1, 12, 2, 2))),
    "whole numbers": (TypeError, "floating point", lambda: pair()[1](torch.ones(3, 12, dtype=torch.int64))),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_makes_no_sense_is_refused_in_one_sentence(name: str) -> None:
    kind, message, call = REFUSED[name]
    with pytest.raises(kind, match=message) as caught:
        call()
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


# Training.


@pytest.mark.parametrize("name", ["linear", "conv1d", "conv2d"])
def test_training_is_that_of_the_dense_layer_with_its_zeros_held(name: str) -> None:
    layer, sparse, x = pair(name, "relu")
    layer, sparse, x = layer.double(), sparse.double(), x.double()
    mask = (layer.weight != 0).double()
    for model in (layer, sparse):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for _ in range(5):
            optimizer.zero_grad()
            y = model(x)
            (y if model is sparse else y.relu()).sub(1).square().mean().backward()
            if model is layer:
                layer.weight.grad.mul_(mask)
            optimizer.step()
    assert error(scattered(sparse.weight), layer.weight) < 1e-10
    assert error(sparse.bias, layer.bias) < 1e-10


def test_training_a_layer_leaves_what_it_was_made_of() -> None:
    layer, sparse, x = pair("linear")
    before = copy.deepcopy(layer.state_dict())
    twin = BlockSparseLinear(sparse.weight, sparse.bias)
    optimizer = torch.optim.SGD(sparse.parameters(), lr=1.0)
    sparse(x).square().sum().backward()
    optimizer.step()
    assert all(torch.equal(before[name], now) for name, now in layer.state_dict().items())
    assert torch.equal(scattered(twin.weight), layer.weight)
    assert torch.equal(twin.bias, layer.bias)
    assert not torch.equal(sparse.bias, layer.bias)


OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "sgd foreach": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, foreach=True),
    "sgd fused": lambda p: torch.optim.SGD(p, lr=0.1, fused=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.1),
    "adam foreach": lambda p: torch.optim.Adam(p, lr=0.1, foreach=True),
    "adam fused": lambda p: torch.optim.Adam(p, lr=0.1, fused=True),
}


class FirstPacked(BlockSparseLinear):
    """Wrong: the weight is brought into order at the first call, and that copy is used from then on."""

    packed: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.packed is None:
            self.packed = self.weight.to_dense()
        return nn.functional.linear(x, self.packed, self.bias)


def up_to_date(make: type[BlockSparseLinear], change: Callable[[Any], None]) -> None:
    layer, mask = pruned(layers()["linear"])
    sparse = make.from_dense(layer, (4, 6), mask)
    x = torch.randn(5, 12, generator=torch.Generator().manual_seed(2))
    for _ in range(3):
        for grad in (False, True):
            with torch.set_grad_enabled(grad):
                assert error(sparse(x), dense(x, scattered(sparse.weight), sparse.bias)) < 1e-5
        sparse(x).square().sum().backward()
        before = sparse.values.detach().clone()
        change(sparse)
        sparse.zero_grad()
        assert not torch.equal(before, sparse.values)
    assert error(sparse(x), dense(x, scattered(sparse.weight), sparse.bias)) < 1e-5


def stepping(make: Callable[..., Any]) -> Callable[[Any], None]:
    return lambda layer: make(layer.parameters()).step()


def loading(**options: bool) -> Callable[[Any], None]:
    def change(layer: Any) -> None:
        state = {name: tensor * (2 if tensor.is_floating_point() else 1) for name, tensor in layer.state_dict().items()}
        layer.load_state_dict(state, **options)

    return change


def averaging(layer: Any) -> None:
    """As exponential averages of weights do: through `data`."""
    layer.values.data.mul_(0.9).add_(layer.values.data, alpha=0.5)


def exchanging(layer: Any) -> None:
    layer.values = nn.Parameter(layer.values.detach() * 2)


LAYER_CHANGES = {name: stepping(make) for name, make in OPTIMIZERS.items()} | {
    "load_state_dict": loading(),
    "load_state_dict, assigned": loading(assign=True),
    "averages": averaging,
    "another parameter": exchanging,
    "cast and back": lambda layer: torch.nn.utils.vector_to_parameters(
        torch.nn.utils.parameters_to_vector(layer.parameters()) * 2, layer.parameters()
    ),
}


@pytest.mark.parametrize("change", LAYER_CHANGES)
def test_a_layer_computes_with_the_weight_that_it_has_now(change: str) -> None:
    up_to_date(BlockSparseLinear, LAYER_CHANGES[change])
    with pytest.raises(AssertionError):
        up_to_date(FirstPacked, LAYER_CHANGES[change])


def test_gradients_pass_through_checkpoints() -> None:
    _, sparse, x = pair("conv2d", "relu")
    sparse(x).square().sum().backward()
    wanted = sparse.values.grad.clone()
    sparse.zero_grad()
    torch.utils.checkpoint.checkpoint(sparse, x, use_reentrant=False).square().sum().backward()
    assert torch.equal(sparse.values.grad, wanted)


# State, copies, dtypes, modes.


@pytest.mark.parametrize("name", ["linear", "linear without bias", "conv1d", "conv2d"])
def test_a_state_saved_and_loaded_is_the_layer(name: str) -> None:
    _, sparse, x = pair(name)
    held = io.BytesIO()
    torch.save(sparse.state_dict(), held)
    held.seek(0)
    other = copy.deepcopy(sparse)
    order = torch.randperm(len(other.col), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        other.values.copy_(other.values[order] + 1)
    other.load_state_dict(torch.load(held, weights_only=True))
    assert torch.equal(other(x), sparse(x))


def three_blocks(crow: list[int], col: list[int]) -> BlockSparseLinear:
    values = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(0))
    index = (torch.tensor(numbers, dtype=torch.int32) for numbers in (crow, col))
    return BlockSparseLinear(BlockSparse(values, *index, (10, 12)), torch.ones(10))


def test_a_state_with_other_blocks_brings_them_along_or_is_refused() -> None:
    x = torch.randn(5, 12, generator=torch.Generator().manual_seed(2))
    into, source = three_blocks([0, 1, 2, 3], [0, 0, 0]), three_blocks([0, 0, 2, 3], [0, 1, 1])
    assert error(into(x), dense(x, scattered(into.weight), into.bias)) < 1e-5
    into.load_state_dict(source.state_dict())
    assert error(into(x), dense(x, scattered(source.weight), source.bias)) < 1e-5
    whole = BlockSparseLinear(BlockSparse.from_dense(torch.ones(10, 12), (4, 6)), torch.ones(10))
    with pytest.raises(RuntimeError, match="size mismatch for values"):
        whole.load_state_dict(source.state_dict())


def test_copies_are_apart() -> None:
    for name in ("linear", "conv2d"):
        _, sparse, x = pair(name)
        wanted = sparse(x)
        twin = copy.deepcopy(sparse)
        assert torch.equal(twin(x), wanted)
        with torch.no_grad():
            twin.values.zero_()
            twin.bias.zero_()
        assert torch.equal(sparse(x), wanted)
        assert twin(x).count_nonzero() == 0
    assert copy.deepcopy(sparse.train()).training


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["linear", "conv2d"])
def test_a_layer_can_be_cast(name: str, dtype: torch.dtype) -> None:
    layer, sparse, x = pair(name)
    sparse, x = sparse.to(dtype), x.to(dtype)
    y = sparse(x)
    wanted = copy.deepcopy(layer).to(dtype).double()(x.double())
    assert y.dtype == dtype
    assert (sparse.crow.dtype, sparse.col.dtype) == (torch.int32, torch.int32)
    assert error(y, wanted) < (1e-12 if dtype == torch.float64 else torch.finfo(dtype).eps)


@pytest.mark.parametrize("name", ["linear", "conv1d", "conv2d"])
def test_autocast_gives_the_dtype_that_dense_layers_give(name: str) -> None:
    layer, sparse, x = pair(name)
    wanted = layer(x)
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        dense_layer, own = (copy.deepcopy(each) for each in (layer, sparse))
        if dtype == torch.float64:
            dense_layer, own = dense_layer.double(), own.double()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = own(x.to(dtype))
            assert y.dtype == dense_layer(x.to(dtype)).dtype
            y.float().square().sum().backward()
        assert error(y, wanted.double()) < 0.02
        assert own.values.grad.dtype == own.values.dtype
        assert own.values.grad.isfinite().all()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=False):
            assert own(x.to(own.values.dtype)).dtype == own.values.dtype


def test_inference_mode_and_its_tensors() -> None:
    for name in ("linear", "conv1d", "conv2d"):
        layer, sparse, x = pair(name)
        wanted = layer(x).detach().double()
        with torch.inference_mode():
            inside = x.clone()
            made = type(sparse).from_dense(layer, (4, 6))
            assert sparse(x).is_inference()
            for each, given in ((sparse, x), (sparse, inside), (made, inside)):
                assert error(each(given), wanted) < 1e-5
            made.values.mul_(2)
            if made.bias is not None:
                made.bias.mul_(2)
            assert error(made(inside), 2 * wanted) < 1e-5
        with torch.no_grad():
            assert error(sparse(inside), wanted) < 1e-5
            assert error(made(inside), 2 * wanted) < 1e-5
        assert error(sparse(x), wanted) < 1e-5


def test_functional_call_takes_other_parameters() -> None:
    _, sparse, x = pair("linear")
    doubled = {name: 2 * parameter for name, parameter in sparse.named_parameters()}
    y = torch.func.functional_call(sparse, doubled, (x,))
    assert error(y, 2 * sparse(x).double()) < 1e-5
    y.sum().backward()
    assert sparse.values.grad is not None


def test_a_layer_without_memory_knows_the_shape_of_its_result() -> None:
    for name in ("linear", "conv1d", "conv2d"):
        layer, sparse, x = pair(name)
        y = sparse.to("meta")(x.to("meta"))
        assert (y.shape, y.dtype, y.device.type) == (layer(x).shape, torch.float32, "meta")


# Compilers.


def network() -> tuple[nn.Sequential, nn.Sequential, Tensor]:
    """Convolution, relu, Linear; dense and sparse."""
    torch.manual_seed(0)
    conv, linear = pruned(nn.Conv2d(6, 8, 3, padding=1), (4, 6))[0], pruned(nn.Linear(8 * 16, 10), (4, 8))[0]
    dense_one = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), linear)
    first, last = (
        BlockSparseConv2d.from_dense(conv, (4, 6), activation="relu"),
        BlockSparseLinear.from_dense(linear, (4, 8)),
    )
    return dense_one, nn.Sequential(first, nn.Flatten(), last), torch.randn(3, 6, 4, 4)


def compiled_as_plain(backend: str, dynamic: bool | None = None, activation: str = "relu") -> None:
    torch.compiler.reset()
    dense_one, sparse, x = network()
    sparse[0].activation = activation
    compiled = torch.compile(sparse, backend=backend, fullgraph=True, dynamic=dynamic)
    for batch in (3, 1, 5):
        given = torch.cat([x, x])[:batch].clone().requires_grad_()
        y = compiled(given)
        assert error(y, dense_one(given).double()) < 1e-5
        y.square().sum().backward()
        gradient, given.grad = given.grad, None
        dense_one(given).square().sum().backward()
        assert error(gradient, given.grad.double()) < 1e-5
    with torch.no_grad():
        assert error(compiled(x), dense_one(x).double()) < 1e-5
        sparse[0].values.mul_(2)
        sparse[2].bias.add_(1)
        assert error(compiled(x), sparse(x).double()) < 1e-5
    torch.compiler.reset()


def test_compiled_by_aot_eager_without_a_break() -> None:
    compiled_as_plain("aot_eager")
    compiled_as_plain("aot_eager", dynamic=True)
    with pytest.raises(AssertionError):
        compiled_as_plain("aot_eager", activation="none")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # torch's own use of it
def test_compiled_by_inductor_without_a_break() -> None:
    from torch._inductor import cpp_builder

    try:
        cpp_builder.get_cpp_compiler()
    except Exception as missing:
        pytest.skip(f"no C++ compiler is here: {missing}")
    compiled_as_plain("inductor")


def test_exported_with_a_batch_of_any_size() -> None:
    dense_one, sparse, x = network()
    program = torch.export.export(sparse.eval(), (x,), dynamic_shapes={"input": {0: torch.export.Dim("batch")}})
    assert [str(node.target) for node in program.graph.nodes].count("sparseopt.block_product.default") == 2
    for batch in (2, 3, 9):
        given = torch.randn(batch, 6, 4, 4)
        assert error(program.module()(given), dense_one(given).double()) < 1e-5
    held = io.BytesIO()
    torch.export.save(program, held)
    held.seek(0)
    assert error(torch.export.load(held).module()(x), dense_one(x).double()) < 1e-5


# Other processes.


def told(*arguments: str) -> Any:
    script = Path(__file__).parent / "sparse_process.py"
    done = subprocess.run(
        [sys.executable, script, *arguments], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-300:]
    return json.loads(done.stdout)


def test_workers_that_were_forked_compute_the_same() -> None:
    assert told("fork") == "equal"


def test_tensors_that_were_tampered_with_are_refused_or_harmless() -> None:
    outcomes = told("tamper")
    assert {key for key, said in outcomes.items() if said not in ("raised", "finite")} == set()
    assert len(outcomes) > 100
    assert {said for key, said in outcomes.items() if "values with" in key} == {"raised"}
    assert "raised" in {said for key, said in outcomes.items() if "crow[2]" in key}
    assert told("unchecked") == "memory of others"
