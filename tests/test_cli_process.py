"""The command line as a process: regularizers of a folder, pipes, Ctrl-C, the demo."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_cases import MODULE, groups_in, numbers, write_arrays
from conftest import Run

from sparseopt import REGULARIZERS, Problem, __version__, solve


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    return write_arrays(tmp_path / "arrays.npz")


def test_a_regularizer_from_this_folder(tmp_path: Path) -> None:
    """Without the compiler: that such a class works in kernels as well is tested on the one in the README."""
    (tmp_path / "half_of_l2.py").write_text(MODULE)
    X, y = numbers()
    np.savez(tmp_path / "d.npz", X=X, y=y, group=[0, 0, 0, 1, 1, 1])
    command = [str(Path(sys.executable).parent / "sparseopt"), "solve", "d.npz", "--lam", "0.2", "--tol", "1e-5"]
    penalty = ["--penalty", "half_of_l2:Half", "--param", "strength=0.25"]
    plain = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run([*command, *penalty], cwd=tmp_path, env=plain, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    reference = solve(Problem.build(X, y, 3, lam=0.05), tol=1e-7)
    for name, (_, _, norm) in groups_in(done.stdout).items():
        assert norm == pytest.approx(reference.group_norms[int(name)], rel=1e-3)


def test_list_of_regularizers(run: Run) -> None:
    status, out, err = run("regularizers")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(REGULARIZERS)
    assert re.fullmatch(
        r"mcp +MCP\(gamma=3.0\) +1 +0.3333 +1.5 +no +yes +yes", lines[1 + list(REGULARIZERS).index("mcp")]
    )


def process(*args: object, cwd: Path, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sparseopt", *map(str, args)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, **more)


def test_version_and_help(tmp_path: Path) -> None:
    assert process("--version", cwd=tmp_path).stdout == f"sparseopt {__version__}\n"
    assert "examples:" in process("--help", cwd=tmp_path).stdout
    text = process("solve", "--help", cwd=tmp_path).stdout
    assert "--lam 5% " in text
    for option in ("--target", "--groups", "--penalty", "--rule", "--standardize", "--save"):
        assert option in text


def test_nobody_reads_the_output(tmp_path: Path) -> None:
    read, write_end = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "sparseopt", "regularizers"]
    done = subprocess.run(command, cwd=tmp_path, stdout=write_end, stderr=subprocess.PIPE, text=True)
    os.close(write_end)
    assert (done.returncode, done.stderr) == (141, "")


def test_control_c(run: Run, arrays: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*args: object, **keywords: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sparseopt.cli.solve.path", stopped)
    status, _, err = run("solve", arrays)
    assert (status, err) == (130, "sparseopt: stopped by Ctrl-C.\n")


def test_demo(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    done = process("demo", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert {file.name for file in tmp_path.iterdir()} == {
        f"sparseopt_{n}.png" for n in ("breast", "diabetes", "digits")
    }
    assert done.stdout.count("The requested accuracy was reached.") == 3
    printed = groups_in(done.stdout)
    assert {"radius", "bmi"} <= printed.keys()
    assert printed["radius"][0] == 3


def test_demo_without_matplotlib(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sparseopt.cli.demo.can_draw", lambda: False)
    monkeypatch.setattr("sparseopt.cli.figures.can_draw", lambda: False)
    status, out, err = run("demo", "diabetes")
    assert (status, err) == (0, "")
    assert "matplotlib is not installed" in out
    assert "bmi" in out
    assert list(tmp_path.iterdir()) == []
    np.savez("d.npz", X=numbers()[0], y=numbers()[1])
    status, _, err = run("solve", "d.npz", "--plot", "p.png")
    assert status == 2
    assert "pip install matplotlib" in err
