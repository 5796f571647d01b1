"""The Triton kernels against dense float64 products: in the interpreter, compiled, and on a GPU if there is one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the block-sparse product needs torch")

from sparseopt.nn.sparse import triton_kernels  # noqa: E402

WORKER = Path(__file__).parent / "triton_worker.py"

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")


def report(mode: str, folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """What `triton_worker.py` says of the kernels, and of the altered ones."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TRITON_CACHE_DIR": str(folder)}
    environment.pop("TRITON_INTERPRET", None)
    if mode == "interpret":
        environment["TRITON_INTERPRET"] = "1"
    command = [sys.executable, "-W", "error", str(WORKER), mode, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    checks = json.loads((folder / "report.json").read_text())
    altered = {name: wrong for name, wrong in checks.items() if "altered" in name}
    return {name: wrong for name, wrong in checks.items() if name not in altered}, altered


@needs_triton
def test_products_and_gradients_in_the_interpreter(tmp_path: Path) -> None:
    kernels, altered = report("interpret", tmp_path)
    assert len(kernels) > 30
    assert {name: wrong for name, wrong in kernels.items() if wrong} == {}
    assert len(altered) > 12
    assert [name for name, wrong in altered.items() if not wrong] == []


@needs_triton
def test_machine_code_for_gpus_that_are_not_here(tmp_path: Path) -> None:
    kernels, altered = report("compile", tmp_path)
    assert len(kernels) == 3
    assert {name: wrong for name, wrong in kernels.items() if wrong} == {}
    assert len(altered) == 3
    assert [name for name, wrong in altered.items() if not wrong] == []


@needs_triton
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_products_and_gradients_on_a_gpu(tmp_path: Path) -> None:
    kernels, _ = report("run", tmp_path)
    assert len(kernels) > 30
    assert {name: wrong for name, wrong in kernels.items() if wrong} == {}


def test_tensors_on_the_cpu_are_for_the_interpreter_only(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.ones(2, 1, 1, 4)
    monkeypatch.setattr(triton_kernels, "_has_triton", lambda: True)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert not triton_kernels.is_available(x)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert triton_kernels.is_available(x, x.half(), x.bfloat16())
    assert not triton_kernels.is_available(x, x.double())
    monkeypatch.setattr(triton_kernels, "_has_triton", lambda: False)
    assert not triton_kernels.is_available(x)


def test_the_package_needs_no_triton() -> None:
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "import torch\n"
        "from sparseopt.nn.sparse import layers, triton_kernels\n"
        "print(triton_kernels.is_available(torch.ones(1)))"
    )
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
