"""The wheel: it holds every file of the four folders under one name, and the command it brings runs anywhere.

It is built from a copy, without build folders that may hold files since deleted, and installed into an environment of
its own that borrows the other packages of this one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

FOLDERS = {"sparseopt": "sparseopt"} | {f: f"sparseopt/{f}" for f in ("nn", "proofs_checks", "experiments")}
CACHES = shutil.ignore_patterns("__pycache__", "*.py[cod]", "*.nb[ic]", "*.egg-info")


def run(*command: str | Path, cwd: Path) -> str:
    # Nothing of the repository may be on the path; the message of a failure is what the command wrote.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


# Figures and numbers of single machines: part of the repository, which the pages that explain them point to.
RESULTS = "sparseopt/experiments/results/"


def contents(root: Path) -> set[str]:
    """Where every file of the four folders should lie in the wheel."""
    found = set()
    for folder, package in FOLDERS.items():
        for file in (root / folder).rglob("*"):
            if file.is_file():
                found.add(f"{package}/{file.relative_to(root / folder).as_posix()}")
    return {name for name in found if not name.startswith(RESULTS)}


@pytest.fixture(scope="module")
def source(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("source")
    for folder in FOLDERS:
        shutil.copytree(root / folder, copy / folder, ignore=CACHES)
    for file in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(root / file, copy)
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", where, source, cwd=where)
    (built,) = where.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the commands of a fresh environment with the wheel in it."""
    where = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", where, cwd=where)
    python = where / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python)
    run(*pip, "install", "--no-deps", "--no-index", wheel, cwd=where)
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=where).strip())
    # A .pth file adds the folder after the wheel's; the editable installation in there is not followed.
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python.parent


def test_wheel_holds_every_file_and_nothing_else(wheel: Path, source: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    metadata = {name for name in names if name.split("/")[0].endswith(".dist-info")}
    assert names - metadata == contents(source)
    assert {"sparseopt/py.typed", "sparseopt/nn/__init__.py", "sparseopt/experiments/__init__.py"} <= names
    assert any(name.endswith("LICENSE") for name in metadata)


def test_a_file_that_is_no_package_data_is_seen(wheel: Path, source: Path, tmp_path: Path) -> None:
    shutil.copytree(source, tmp_path, dirs_exist_ok=True)
    (tmp_path / "nn" / "forgotten.txt").touch()
    missing = contents(tmp_path) - set(zipfile.ZipFile(wheel).namelist())
    assert missing == {"sparseopt/nn/forgotten.txt"}


def test_installed_package_is_the_one_imported(environment: Path, tmp_path: Path) -> None:
    code = "import sparseopt, sparseopt.experiments as e; print(sparseopt.__file__, e.__file__, sep='\\n')"
    for file in run(environment / "python", "-c", code, cwd=tmp_path).split():
        assert environment.parent in Path(file).parents


def test_a_demo_runs_from_the_wheel(environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interpreted: an installed copy has no compiled kernels yet."""
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    said = run(environment / "sparseopt", "demo", "diabetes", cwd=tmp_path)
    assert "The requested accuracy was reached." in said


@pytest.mark.slow
def test_all_demos_run_compiled_from_the_wheel(environment: Path, tmp_path: Path) -> None:
    assert run(environment / "sparseopt", "demo", cwd=tmp_path)
