"""ONNX files of compressed networks: what onnxruntime computes from them is what the network computes.

Oracles: the dense network in float64, and the reference evaluator of onnx, which is NumPy.
"""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="sparseopt.nn needs torch")
onnx = pytest.importorskip("onnx", reason="ONNX files need onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX files are checked in onnxruntime")
pytest.importorskip("onnxscript", reason="torch exports by onnxscript")

from torch import nn  # noqa: E402

from sparseopt.experiments.networks import click_model, resnet20  # noqa: E402
from sparseopt.nn import PhaseSchedule, prune  # noqa: E402
from sparseopt.nn.sparse import onnx_export  # noqa: E402
from sparseopt.nn.sparse.benchmark import drop_random_blocks  # noqa: E402
from sparseopt.nn.sparse.compression import compress  # noqa: E402
from sparseopt.nn.sparse.densify import densified  # noqa: E402
from sparseopt.nn.sparse.layers import BlockSparseConv1d, BlockSparseConv2d, BlockSparseLinear  # noqa: E402
from sparseopt.nn.sparse.onnx_export import export_onnx  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 5))


def compressed() -> nn.Module:
    """Convolutions in one and two dimensions and a linear layer of kept blocks, some with a fused ReLU."""
    return nn.Sequential(
        BlockSparseConv2d.from_dense(
            nn.Conv2d(8, 16, 3, stride=2, padding=1), 4, mask=torch.rand(4, 18) > 0.6, activation="relu"
        ),
        nn.Flatten(2),
        BlockSparseConv1d.from_dense(nn.Conv1d(16, 8, 3, dilation=2), (4, 8), mask=torch.rand(2, 6) > 0.5),
        nn.AdaptiveAvgPool1d(4),
        nn.Flatten(),
        BlockSparseLinear.from_dense(nn.Linear(32, 32, bias=False), 8, mask=torch.rand(4, 4) > 0.5, activation="relu"),
        nn.Linear(32, 3),
    )


def run(file: Path, *inputs: Any) -> list[Any]:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    return session.run(None, {name: each.numpy() for name, each in zip(names, inputs, strict=True)})


def exact(model: nn.Module, x: Any) -> Any:
    """The outputs of the dense network in float64."""
    with torch.no_grad():
        return densified(model).eval().double()(x.double() if x.is_floating_point() else x).numpy()


# -- right files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 3])
def test_a_network_of_linear_layers(tmp_path: Path, batch: int) -> None:
    model, file = mlp(), tmp_path / "mlp.onnx"
    assert export_onnx(model, torch.randn(batch, 12), file) < 1e-5
    for size in (1, 2, 7):
        x = torch.randn(size, 12)
        (got,) = onnx.reference.ReferenceEvaluator(str(file)).run(None, {"input": x.numpy()})
        np.testing.assert_allclose(got, exact(model, x), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(run(file, x)[0], exact(model, x), rtol=1e-5, atol=1e-6)


def test_a_residual_network_with_normalisation(tmp_path: Path) -> None:
    model, file = resnet20(), tmp_path / "resnet20.onnx"
    model(torch.randn(16, 3, 32, 32))  # running statistics
    before = copy.deepcopy(model.state_dict())
    assert export_onnx(model, torch.randn(2, 3, 32, 32), file) < 1e-5
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for size in (1, 5):
        x = torch.randn(size, 3, 32, 32)
        np.testing.assert_allclose(run(file, x)[0], exact(model, x), rtol=1e-3, atol=1e-4)


def test_a_compressed_network_is_written_with_dense_layers(tmp_path: Path) -> None:
    model, file = compressed(), tmp_path / "compressed.onnx"
    assert export_onnx(model, torch.randn(2, 8, 6, 6), file) < 1e-5
    for size in (2, 5):
        x = torch.randn(size, 8, 6, 6)
        np.testing.assert_allclose(run(file, x)[0], exact(model, x), rtol=1e-4, atol=1e-5)
    written = onnx.load(file)
    onnx.checker.check_model(written, full_check=True)
    assert {node.domain for node in written.graph.node} == {""}
    kinds = [node.op_type for node in written.graph.node]
    assert (kinds.count("Conv"), kinds.count("Relu")) == (2, 2)
    (weight,) = (entry for entry in written.graph.initializer if list(entry.dims) == [16, 8, 3, 3])
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(weight), model[0].weight.to_dense().numpy())


@pytest.mark.parametrize("backend", ["auto", "sparse"])
def test_what_compress_makes_can_be_exported(tmp_path: Path, backend: str) -> None:
    model, file = resnet20(), tmp_path / "resnet20.onnx"
    model(torch.randn(16, 3, 32, 32))
    drop_random_blocks(model.eval(), 0.9, 8)
    model.layer3[0].conv1.weight.data[8:24] = 0.0  # channels that compress removes
    x = torch.randn(3, 3, 32, 32)
    fast = compress(model, backend=backend, example_input=x, block=8)
    assert export_onnx(fast, x, file) < 1e-5
    np.testing.assert_allclose(run(file, x[:1])[0], exact(model, x[:1]), rtol=1e-3, atol=1e-4)


def test_integers_go_in(tmp_path: Path) -> None:
    model, file = click_model([5] * 39), tmp_path / "click.onnx"
    rows = torch.randint(0, 5, (4, 39))
    assert export_onnx(model, rows, file) < 1e-5
    np.testing.assert_allclose(run(file, rows[:3])[0], exact(model, rows[:3]), rtol=1e-4, atol=1e-6)


def test_half_precision_is_widened(tmp_path: Path) -> None:
    model, file = compressed().to(torch.bfloat16), tmp_path / "half.onnx"
    assert export_onnx(model, torch.randn(2, 8, 6, 6, dtype=torch.bfloat16), file) < 1e-5
    assert next(model.parameters()).dtype == torch.bfloat16
    x = torch.randn(3, 8, 6, 6)
    np.testing.assert_allclose(run(file, x)[0], exact(model, x), rtol=1e-4, atol=1e-5)


class Several(nn.Module):
    def forward(self, second: Any, first: Any, flip: bool = False) -> dict[str, Any]:
        return {"difference": second - first if flip else first - second, "mask": first > second}


@pytest.mark.parametrize("named", [True, False])
def test_several_inputs_and_outputs(tmp_path: Path, named: bool) -> None:
    file, a, b = tmp_path / "several.onnx", torch.randn(2, 3), torch.randn(2, 3)
    example = {"first": a, "second": b, "flip": True} if named else (b, a, True)
    assert export_onnx(Several(), example, file) == 0.0
    graph = onnx.load(file).graph
    assert sorted(entry.name for entry in graph.input) == ["first", "second"]
    assert [entry.name for entry in graph.output] == ["output_0", "output_1"]
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    difference, mask = session.run(None, {"first": a.numpy(), "second": b.numpy()})
    np.testing.assert_array_equal(difference, b - a)
    np.testing.assert_array_equal(mask, a > b)


def test_a_fixed_batch_stays_fixed(tmp_path: Path) -> None:
    file = tmp_path / "fixed.onnx"
    export_onnx(mlp(), torch.randn(2, 12), file, dynamic_batch=False)
    assert run(file, torch.randn(2, 12))[0].shape == (2, 5)
    with pytest.raises(Exception, match="Got: 3 Expected: 2"):
        run(file, torch.randn(3, 12))


# -- dense twins -------------------------------------------------------------------------------------------------------


def test_the_dense_twin_keeps_names_modes_and_shared_layers() -> None:
    layer = BlockSparseLinear.from_dense(nn.Linear(8, 8), 4, mask=torch.eye(2) > 0, activation="relu")
    model = nn.ModuleDict({"first": nn.ModuleList([layer, nn.Linear(8, 8)]), "again": layer}).eval()
    model.first[1].train()
    twin = densified(model)
    assert twin.again is twin.first[0]
    assert isinstance(model.again, BlockSparseLinear)
    assert [each.training for each in (twin.again, twin.first[1])] == [False, True]
    x = torch.randn(3, 8)
    assert torch.allclose(twin.again(x), layer(x), atol=1e-6)
    assert bool((twin.again(x) >= 0).all())
    assert isinstance(densified(layer), nn.Sequential)


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_masks_must_be_folded(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(32, 32), nn.ReLU())
    sparse = PhaseSchedule.from_list([("sparse", 1.0)], 10)
    s = prune(model, torch.optim.SGD(model.parameters(), lr=0.1), "magnitude", 0.5, 2, schedule=sparse)
    with pytest.raises(
        ValueError, match=r"the blocks of 0\.weight are still hidden behind a mask: call fold\(\) first"
    ):
        export_onnx(model, torch.randn(2, 32), tmp_path / "model.onnx")
    s.fold()
    assert export_onnx(model, torch.randn(2, 32), tmp_path / "model.onnx") < 1e-5


def test_wrong_paths(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist: create it first"):
        export_onnx(mlp(), torch.randn(2, 12), tmp_path / "nowhere" / "model.onnx")
    with pytest.raises(ValueError, match="is a folder: give the name of a file"):
        export_onnx(mlp(), torch.randn(2, 12), tmp_path)


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    present = importlib.util.find_spec
    monkeypatch.setattr(onnx_export, "find_spec", lambda name: None if name == package else present(name))
    with pytest.raises(ImportError, match=rf'^{package} must be installed.*pip install "sparseopt\[onnx\]"\.$'):
        export_onnx(mlp(), torch.randn(2, 12), tmp_path / "model.onnx")


def test_without_a_runtime_nothing_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    present = importlib.util.find_spec
    monkeypatch.setattr(onnx_export, "find_spec", lambda name: None if name == "onnxruntime" else present(name))
    assert np.isnan(export_onnx(mlp(), torch.randn(2, 12), tmp_path / "model.onnx"))
    assert run(tmp_path / "model.onnx", torch.randn(4, 12))[0].shape == (4, 5)


def test_a_file_over_the_limit_of_the_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_export, "LARGEST", 4 * (12 * 24 + 24 + 24 * 5 + 5))
    with pytest.raises(ValueError, match=r"the dense weights take 0\.0 GB, and an ONNX file holds"):
        export_onnx(mlp(), torch.randn(2, 12), tmp_path / "model.onnx")


class Undecided(nn.Module):
    def forward(self, x: Any) -> Any:
        return x if x.sum() > 0 else -x


def test_a_network_that_torch_cannot_trace(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^torch cannot export the model, \w+: [^\n]*dynamic_batch=False[^\n]*\.$"):
        export_onnx(Undecided(), torch.randn(2, 3), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


# -- wrong exporters ---------------------------------------------------------------------------------------------------


def _biased(model: Any, *arguments: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
    with torch.no_grad():
        model[-1].bias += 1e-3
    return arguments, options


def _not_a_number(model: Any, *arguments: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
    with torch.no_grad():
        model[-1].bias[0] = float("nan")
    return arguments, options


def _of_one_size(model: Any, *arguments: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
    return arguments, options | {"dynamic_shapes": None}


def _without_relu(model: Any, *arguments: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
    model[1] = nn.Identity()
    return arguments, options


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (_biased, r"differ by [\d.]+e-0[34] of the largest, more than 0\.0001"),
        (_without_relu, r"differ by [\d.]+e[-+]\d+ of the largest"),
        (_not_a_number, "differ by nan of the largest"),
        (_of_one_size, r"onnxruntime cannot run the exported model on \(2, 12\)"),
    ],
)
def test_a_wrong_exporter_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: Any, reason: str) -> None:
    file, right = tmp_path / "model.onnx", torch.onnx.export
    export_onnx(mlp(), torch.randn(2, 12), file)
    before = file.read_bytes()

    def export(model: Any, *arguments: Any, **options: Any) -> Any:
        arguments, options = wrong(model, *arguments, **options)
        return right(model, *arguments, **options)

    monkeypatch.setattr(torch.onnx, "export", export)
    with pytest.raises(ValueError, match=reason) as refused:
        export_onnx(mlp(), torch.randn(2, 12), file)
    assert "\n" not in str(refused.value)
    assert file.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["model.onnx"]
