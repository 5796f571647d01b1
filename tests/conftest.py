"""What all tests share: no screen, few threads, kernels on disk, real data where a copy lies beside the repository."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

os.environ.setdefault("MPLBACKEND", "Agg")
# Tests and the processes that they start run side by side, on small matrices: threads of BLAS and OpenMP would spend
# their time waiting for each other. This is read when NumPy and torch are imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

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


@pytest.fixture(autouse=True, scope="module")
def sources_of_kernels(request: pytest.FixtureRequest) -> None:
    """Kernels are kept under the files of the package and of this test module, not of every module that was collected.

    A class for kernels counts for all that its process compiles. With those of all test modules counted, kernels of the
    package could not be shared with the processes that tests start, and each would compile them again.
    """
    jit = sys.modules.get("sparseopt.jit")
    if jit is not None:
        here = {sys.modules.get(getattr(value, "__module__", None) or "") for value in vars(request.module).values()}
        files = {Path(file).resolve() for module in here if (file := getattr(module, "__file__", None))}
        _count_only(jit, {file for file in _collected(jit) if file in files})


@pytest.fixture(autouse=True)
def sources_of_one_test(sources_of_kernels: None) -> Iterator[None]:
    """A class that a test makes counts for that test only, so that later ones find the kernels of the package."""
    jit = sys.modules.get("sparseopt.jit")
    before = set(jit._user_sources) if jit is not None else set()
    yield
    if jit is not None:
        _count_only(jit, before)


@cache
def _collected(jit: Any) -> frozenset[Path]:
    """Files with classes for kernels, after all test modules are imported and before the first test runs."""
    return frozenset(jit._user_sources)


def _count_only(jit: Any, files: set[Path]) -> None:
    if files != jit._user_sources:
        jit._user_sources.clear()
        jit._user_sources.update(files)
        jit._digest.cache_clear()
        for compiled in jit._kernels:
            jit._stamp(compiled)


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def use_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Sets the number of threads, up to three, whatever the machine has."""
    from sparseopt import threads

    with ThreadPoolExecutor(2) as pool:
        monkeypatch.setattr(threads, "_pool", lambda: pool)
        yield lambda n_threads: monkeypatch.setattr(threads, "available", lambda: n_threads)


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
