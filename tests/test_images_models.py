"""Networks for images by name, and weights from files."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from sparseopt.experiments.images import models  # noqa: E402
from sparseopt.experiments.images.models import image_model, read_weights  # noqa: E402
from sparseopt.experiments.images.vision import prepare_torchvision  # noqa: E402
from sparseopt.experiments.networks import ResNet20, ResNet50, resnet50  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def with_torchvision() -> None:
    if not prepare_torchvision():
        pytest.skip("torchvision is not installed")


def spread(model: Any, seed: int = 0) -> Any:
    """A network in evaluation mode whose statistics and biases are no zeros and ones."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.ndim == 1:
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + (0.5 if "var" in name else 0.0))
    return model.eval()


def same(one: Any, other: Any) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


# -- names -------------------------------------------------------------------------------------------------------------


def test_the_network_of_cifar() -> None:
    model = image_model("resnet20", 7)
    assert isinstance(model, ResNet20)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


@pytest.mark.usefixtures("with_torchvision")
def test_resnet50_of_networks_is_that_of_torchvision() -> None:
    ours, theirs = spread(resnet50(12)), image_model("resnet50", 12)
    assert not isinstance(theirs, ResNet50)
    assert [(n, p.shape) for n, p in ours.named_parameters()] == [(n, p.shape) for n, p in theirs.named_parameters()]
    theirs.load_state_dict(ours.state_dict())  # the same names, or this is an error
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        one, other = ours.double()(x.double()), theirs.double().eval()(x.double())
    assert float(one.abs().max()) > 0.1
    assert torch.allclose(one, other, rtol=1e-6, atol=0.0)


def test_resnet50_needs_no_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    right = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torchvision" else right(name))
    assert isinstance(image_model("resnet50", 10), ResNet50)
    with pytest.raises(ImportError, match="torchvision is not installed"):
        image_model("resnet18")


@pytest.mark.usefixtures("with_torchvision")
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "squeezenet1_1"])
def test_networks_of_torchvision(name: str) -> None:
    assert image_model(name, 5)(torch.randn(2, 3, 64, 64)).shape == (2, 5)


@pytest.mark.usefixtures("with_torchvision")
def test_second_outputs_are_left_out(tmp_path: Path) -> None:
    from torchvision.models import googlenet

    model = image_model("googlenet", 5)
    assert model.train()(torch.randn(2, 3, 64, 64)).shape == (2, 5)
    theirs = googlenet(num_classes=5, aux_logits=True, init_weights=True)
    torch.save(theirs.state_dict(), tmp_path / "googlenet.pt")
    read = image_model("googlenet", 5, weights=tmp_path / "googlenet.pt")
    assert torch.equal(read.fc.weight, theirs.fc.weight)


def test_networks_of_timm() -> None:
    if importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed")
    assert image_model("timm:resnet10t", 5)(torch.randn(2, 3, 64, 64)).shape == (2, 5)
    assert image_model("timm:resnet10t.c3_in1k", 3)(torch.randn(2, 3, 64, 64)).shape == (2, 3)
    with pytest.raises(ValueError, match=r"timm has no model 'resnet10x': did you mean .*resnet10t"):
        image_model("timm:resnet10x")


def test_timm_that_is_not_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="timm is not installed, and the model timm:resnet10t needs it: pip install"):
        image_model("timm:resnet10t")


@pytest.mark.usefixtures("with_torchvision")
def test_names_that_nobody_has_are_one_sentence() -> None:
    with pytest.raises(ValueError, match=r"no model has the name 'resnet51': did you mean .*resnet50"):
        image_model("resnet51")
    with pytest.raises(ValueError, match="no model has the name 'qqqqq': there are resnet20, alexnet"):
        image_model("qqqqq")
    with pytest.raises(ValueError, match="no model has the name 'fasterrcnn_resnet50_fpn'"):  # it is for detection
        image_model("fasterrcnn_resnet50_fpn")
    with pytest.raises(ValueError, match="model 'hub:resnet50' names a package that is not known here"):
        image_model("hub:resnet50")


def test_no_classes_are_rejected() -> None:
    with pytest.raises(ValueError, match="classes is 0: give at least 1"):
        image_model("resnet20", 0)


# -- weights -----------------------------------------------------------------------------------------------------------


def _safetensors(state: dict[str, Any], folder: Path) -> Path:
    from safetensors.torch import save_file

    save_file(state, folder / "weights.safetensors")
    return folder / "weights.safetensors"


def _torch(wrap: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any], Path], Path]:
    def write(state: dict[str, Any], folder: Path) -> Path:
        torch.save(wrap(state), folder / "weights.pt")
        return folder / "weights.pt"

    return write


WRITERS = {
    "safetensors": _safetensors,
    "torch": _torch(lambda state: state),
    "inside a checkpoint": _torch(lambda state: {"epoch": 3, "state_dict": state}),
    "inside torchvision's checkpoint": _torch(lambda state: {"model": state, "optimizer": {"lr": 0.1}}),
    "from several processes": _torch(lambda state: {f"module.{key}": each for key, each in state.items()}),
    "compiled": _torch(lambda state: {f"_orig_mod.module.{key}": each for key, each in state.items()}),
    "without counters": _torch(lambda state: {k: each for k, each in state.items() if "num_batches" not in k}),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_weights_are_read(tmp_path: Path, write: Callable[[dict[str, Any], Path], Path]) -> None:
    model = spread(image_model("resnet20", 10))
    file = write({key: tensor.clone() for key, tensor in model.state_dict().items()}, tmp_path)
    read = image_model("resnet20", 10, weights=str(file))
    assert not same(image_model("resnet20", 10), model)
    for key, tensor in model.state_dict().items():
        assert key.endswith("num_batches_tracked") or torch.equal(read.state_dict()[key], tensor)


@pytest.mark.parametrize("classes", [3, 100])
def test_the_last_layer_is_fresh_for_other_classes(tmp_path: Path, classes: int) -> None:
    model = spread(image_model("resnet20", 10))
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    torch.manual_seed(0)
    fresh = image_model("resnet20", classes)
    torch.manual_seed(0)
    read = image_model("resnet20", classes, weights=tmp_path / "weights.pt")
    for key, tensor in read.state_dict().items():
        source = fresh if key.startswith("linear.") else model
        assert torch.equal(tensor, source.state_dict()[key])


def test_weights_of_another_network_are_rejected(tmp_path: Path) -> None:
    state = image_model("resnet20", 10).state_dict()
    torch.save({k: v for k, v in state.items() if not k.startswith("layer3")}, tmp_path / "fewer.pt")
    with pytest.raises(
        ValueError, match=r"fewer.pt lacks \d+ tensors \(layer3\.0\.conv1\.weight \.\.\.\): give weights"
    ):
        image_model("resnet20", 10, weights=tmp_path / "fewer.pt")
    torch.save(state | {"more": torch.zeros(1)}, tmp_path / "more.pt")
    with pytest.raises(ValueError, match=r"more.pt has 1 that the network lacks \(more \.\.\.\): give weights"):
        image_model("resnet20", 10, weights=tmp_path / "more.pt")
    torch.save(state | {"conv1.weight": torch.zeros(16, 3, 5, 5)}, tmp_path / "shape.pt")
    with pytest.raises(ValueError, match=r"has conv1.weight of shape \(16, 3, 5, 5\), and the network \(16, 3, 3, 3\)"):
        image_model("resnet20", 10, weights=tmp_path / "shape.pt")
    torch.save(state | {"conv1.weight": torch.zeros(8, 3, 3, 3)}, tmp_path / "width.pt")  # no matter of classes
    with pytest.raises(ValueError, match=r"has conv1.weight of shape \(8, 3, 3, 3\)"):
        image_model("resnet20", 10, weights=tmp_path / "width.pt")


class Anything:
    pass


def test_files_that_are_no_weights_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no file .*none\.pt: give weights that lie here"):
        image_model("resnet20", 10, weights=tmp_path / "none.pt")
    torch.save({"model": Anything()}, tmp_path / "object.pt")
    with pytest.raises(ValueError, match="holds more than tensors and plain data and could run code when read"):
        read_weights(tmp_path / "object.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="holds no tensors by name: give a state dict"):
        read_weights(tmp_path / "list.pt")
    for name in ("text.pt", "text.safetensors"):
        (tmp_path / name).write_text("no weights at all")
        with pytest.raises(ValueError, match=rf"{name} (is no file of torch|cannot be read as weights)") as error:
            read_weights(tmp_path / name)
        assert "\n" not in str(error.value)


@pytest.mark.usefixtures("with_torchvision")
def test_default_weights_are_taken_from_the_folder_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"there is no file .*resnet18-.*\.pth: put https://.* there, or give"):
        image_model("resnet18", 1000, pretrained=True)
    model = image_model("resnet18", 1000)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(model.state_dict(), folder / "resnet18-f37072fd.pth")
    assert same(image_model("resnet18", 1000, pretrained=True), model)
    with pytest.raises(ValueError, match="pretrained is true, and resnet20 has no weights that are known here"):
        image_model("resnet20", 10, pretrained=True)


def test_the_weights_of_cifar_beside_the_repository(shared_data: Path) -> None:
    from sparseopt.experiments.images.cifar_feed import CifarImages, read_cifar
    from sparseopt.experiments.images.order import Order

    model = image_model("resnet20", 10, weights=shared_data / "pretrained" / "resnet20-12fca82f.th").eval()
    x, y = next(CifarImages(read_cifar(shared_data, "lossless"), Order(1000, 200, shuffle=False)).epoch(0))
    with torch.no_grad():
        assert (model(x).argmax(1) == y).float().mean() > 0.85
