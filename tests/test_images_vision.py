"""torchvision beside a torch that it was not compiled for, and its presets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
Image = pytest.importorskip("PIL.Image")

from sparseopt.experiments.cifar import MEAN, STD  # noqa: E402
from sparseopt.experiments.images import vision  # noqa: E402
from sparseopt.experiments.images.presets import evaluation_transform, training_transform  # noqa: E402

ASKS = "import torch\ntorch.library.register_fake('torchvision::{}')(lambda *args: None)\n"
COUNTS = "import builtins\nbuiltins.tries = getattr(builtins, 'tries', 0) + 1\n"
# What a stand-in for torchvision does when imported, and what comes of it.
PACKAGES = {
    "operators that are known": (ASKS.format("nms") + ASKS.format("qnms"), "imported, 2 times complete"),
    "an operator that is not known": (ASKS.format("new"), "cannot be imported beside torch"),
    "another error": ("raise RuntimeError('no CUDA here')", "(no CUDA here): install the torchvision that belongs"),
    "nothing": ("", "imported, 1 times complete"),
}
SCRIPT = """
import builtins
from sparseopt.experiments.images.vision import import_torchvision, prepare_torchvision
try:
    assert import_torchvision() is import_torchvision()
    assert prepare_torchvision()
    print(f"imported, {builtins.tries} times complete")
except ImportError as error:
    print(error)
"""


def stand_in(folder: Path, code: str) -> Path:
    package = folder / "torchvision"
    package.mkdir()
    (package / "before.py").write_text(COUNTS)
    (package / "__init__.py").write_text(f"from torchvision import before\n{code}")
    (folder / "torchvision-9.9.dist-info").mkdir()
    (folder / "torchvision-9.9.dist-info" / "METADATA").write_text("Name: torchvision\nVersion: 9.9\n")
    return folder


@pytest.mark.parametrize(("code", "outcome"), PACKAGES.values(), ids=PACKAGES)
def test_missing_operators_are_declared(tmp_path: Path, code: str, outcome: str) -> None:
    script = f"import sys\nsys.path.insert(0, {str(stand_in(tmp_path, code))!r})\n{SCRIPT}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert outcome in done.stdout
    assert len(done.stdout.splitlines()) == 1
    if outcome.startswith("cannot"):
        assert done.stdout.startswith("torchvision 9.9 cannot be imported beside torch 2.")


def test_torchvision_that_is_not_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vision.importlib.util, "find_spec", lambda name: None)
    assert not vision.prepare_torchvision()
    with pytest.raises(
        ImportError, match=r"torchvision is not installed, and images need it: pip install 'sparseopt\["
    ):
        vision.import_torchvision()
    with pytest.raises(ImportError, match="torchvision is not installed"):
        training_transform()


# -- with the real one -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def torchvision() -> Any:
    if not vision.prepare_torchvision():
        pytest.skip("torchvision is not installed")
    return vision.import_torchvision()


def test_operators_without_code_say_so(torchvision: Any) -> None:
    if torchvision.extension._has_ops():
        pytest.skip("this torchvision belongs to this build of torch")
    with pytest.raises(RuntimeError, match="Couldn't load custom C\\+\\+ ops"):
        torchvision.ops.nms(torch.rand(2, 4), torch.rand(2), 0.5)


@pytest.mark.slow
@pytest.mark.usefixtures("torchvision")
@pytest.mark.parametrize("code", ["import lightning", "from transformers import Trainer"])
def test_packages_that_import_it_in_passing_can(tmp_path: Path, code: str) -> None:
    pytest.importorskip("transformers" if "transformers" in code else "lightning")
    script = f"from sparseopt.experiments.images.vision import *\nprepare_torchvision()\n{code}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def picture(width: int = 90, height: int = 70) -> Any:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.usefixtures("torchvision")
def test_evaluation_sees_the_middle() -> None:
    image = picture(90, 70)
    x = evaluation_transform(size=28, resize=35)(image)
    small = image.resize((45, 35), Image.Resampling.BILINEAR)  # the shorter side is 35
    pixels = np.asarray(small.crop((8, 4, 36, 32)), np.float32) / 255  # (45 - 28) / 2 = 8.5 is rounded to even
    expected = (pixels - np.float32(MEAN)) / np.float32(STD)
    assert x.dtype == torch.float32
    assert type(x) is torch.Tensor
    assert torch.allclose(x, torch.from_numpy(expected).permute(2, 0, 1), atol=1e-5)


@pytest.mark.usefixtures("torchvision")
@pytest.mark.parametrize("preset", ["basic", "trivial"])
def test_training_draws_from_the_global_generator(preset: str) -> None:
    transform = training_transform(preset, size=16, erasing=0.5)

    def drawn(seed: int) -> list[Any]:
        torch.manual_seed(seed)
        return [transform(picture()) for _ in range(8)]

    one, again, other = drawn(0), drawn(0), drawn(1)
    assert all(x.shape == (3, 16, 16) and x.dtype == torch.float32 and type(x) is torch.Tensor for x in one)
    assert all(torch.equal(x, y) for x, y in zip(one, again, strict=True))
    assert not any(torch.equal(x, y) for x, y in zip(one, other, strict=True))
    assert not torch.equal(one[0], one[1])


@pytest.mark.usefixtures("torchvision")
def test_presets_are_what_they_are_called() -> None:
    def names(transform: Any) -> list[str]:
        return [type(each).__name__ for each in transform.transforms]

    tensor = ["PILToTensor", "ToDtype", "Normalize", "ToPureTensor"]
    basic = ["RandomResizedCrop", "RandomHorizontalFlip"]
    assert names(training_transform()) == [*basic, *tensor]
    assert names(training_transform("trivial", erasing=0.1)) == [*basic, "TrivialAugmentWide", *tensor, "RandomErasing"]
    assert names(training_transform("none")) == names(evaluation_transform()) == ["Resize", "CenterCrop", *tensor]
    x, y = (
        make(size=20, resize=24)(picture())
        for make in (evaluation_transform, lambda **to: training_transform("none", **to))
    )
    assert torch.equal(x, y)


@pytest.mark.usefixtures("torchvision")
def test_wrong_presets_are_one_sentence() -> None:
    with pytest.raises(ValueError, match=r"preset is 'trivia': choose one of none, basic, trivial"):
        training_transform("trivia")
    with pytest.raises(ValueError, match=r"erasing is 2\.0: it is a probability, give 0 to 1"):
        training_transform(erasing=2.0)
    with pytest.raises(ValueError, match="size is 300 and resize 256: the middle is cut out"):
        evaluation_transform(300)
