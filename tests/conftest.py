"""What all tests share: plots without a screen, and real data where a copy lies beside the repository."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("MPLBACKEND", "Agg")

ROOT = Path(__file__).parent.parent


if importlib.util.find_spec("torchvision") is not None:
    # Lightning and transformers import it in passing, which fails beside builds of torch for the CPU.
    from sparseopt.experiments.images.vision import prepare_torchvision

    prepare_torchvision()

# A deadline would time the machine, and the compilation that a first call may start.
settings.register_profile("sparseopt", deadline=None)
settings.load_profile("sparseopt")


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets, `../shared/data`: no part of the repository, so tests that need it may skip."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("real data sets are not here: they belong in ../shared/data, beside the repository")
    return folder


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run a command in an empty folder: exit status, what it printed, and what it complained about."""
    from sparseopt.cli import main

    monkeypatch.chdir(tmp_path)

    def command(*args: object) -> tuple[int, str, str]:
        status = main([str(a) for a in args])
        said = capsys.readouterr()
        return status, said.out, said.err

    return command


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One thread in torch: small matrices gain nothing by a second, and tests run side by side."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
