"""Four folders, one import name: setup.cfg lists what is on disk, and nothing is ever imported under a second name."""

from __future__ import annotations

import ast
import configparser
import importlib.util
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

FOLDERS = {"sparseopt": "sparseopt"} | {f"sparseopt.{f}": f for f in ("nn", "proofs_checks", "experiments")}


@pytest.fixture(scope="module")
def config(root: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(root / "setup.cfg")
    return parser


def packages_on_disk(root: Path) -> set[str]:
    """Every folder below the four that holds modules."""
    found = set()
    for package, folder in FOLDERS.items():
        for directory in [root / folder, *(root / folder).rglob("*/")]:
            if directory.name != "__pycache__" and any(directory.glob("*.py")):
                found.add(".".join([package, *directory.relative_to(root / folder).parts]))
    return found


def modules(root: Path) -> dict[str, Path]:
    """Import name -> file, for every module of the four folders."""
    found = {}
    for package, folder in FOLDERS.items():
        for file in sorted((root / folder).rglob("*.py")):
            parts = [package, *file.relative_to(root / folder).with_suffix("").parts]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


@cache
def imports(file: Path) -> list[ast.Import | ast.ImportFrom]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]


def relative_imports(file: Path) -> list[int]:
    return [node.lineno for node in imports(file) if isinstance(node, ast.ImportFrom) and node.level > 0]


def imported_by_folder(file: Path) -> list[int]:
    """Lines that import a folder under its own name: `import nn` makes a second copy of `sparseopt.nn`."""
    own = set(FOLDERS.values()) - {"sparseopt"}
    lines = []
    for node in imports(file):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
        lines += [node.lineno for name in names if name.split(".")[0] in own]
    return lines


def test_setup_cfg_maps_the_four_folders(config: configparser.ConfigParser) -> None:
    lines = config["options"]["package_dir"].split("\n")
    assert dict(line.split(" = ") for line in lines if line) == FOLDERS


def test_setup_cfg_lists_the_packages_on_disk(config: configparser.ConfigParser, root: Path) -> None:
    assert set(config["options"]["packages"].split()) == packages_on_disk(root)


def test_every_package_has_an_init_file(root: Path) -> None:
    initialised = {name for name, file in modules(root).items() if file.name == "__init__.py"}
    assert packages_on_disk(root) <= initialised


def test_a_folder_that_is_not_listed_is_seen(tmp_path: Path) -> None:
    for folder in ("sparseopt/new", "nn", "proofs_checks", "experiments"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "__init__.py").touch()
    assert packages_on_disk(tmp_path) == {*FOLDERS, "sparseopt.new"} - {"sparseopt"}


def test_imports_are_absolute(root: Path) -> None:
    files = [*modules(root).values(), *(root / "tests").glob("*.py")]
    assert {str(f): lines for f in files if (lines := relative_imports(f))} == {}
    assert {str(f): lines for f in files if (lines := imported_by_folder(f))} == {}


@pytest.mark.parametrize("line", ["from ..groups import Groups", "from . import groups"])
def test_a_relative_import_is_seen(tmp_path: Path, line: str) -> None:
    (tmp_path / "wrong.py").write_text(f"def f():\n    {line}\n")
    assert relative_imports(tmp_path / "wrong.py") == [2]


@pytest.mark.parametrize("line", ["import nn", "import nn.blocks as b", "from experiments import x"])
def test_an_import_by_folder_is_seen(tmp_path: Path, line: str) -> None:
    (tmp_path / "wrong.py").write_text(f"import sparseopt.nn\n{line}\n")
    assert imported_by_folder(tmp_path / "wrong.py") == [2]


def test_importing_everything_loads_no_second_copy(root: Path, tmp_path: Path) -> None:
    # In a process and a folder of its own: pytest has put other things on the path here.
    names = [name for name in modules(root) if not name.endswith("__main__")]
    if importlib.util.find_spec("torch") is None:
        names = [name for name in names if not name.startswith("sparseopt.nn")]
    code = (
        "import importlib, sys\n"
        "from sparseopt.experiments.images.vision import prepare_torchvision\n"
        "prepare_torchvision()\n"
        f"for name in {names}: importlib.import_module(name)\n"
        f"print(sorted({set(FOLDERS.values()) - {'sparseopt'}} & {{name.split('.')[0] for name in sys.modules}}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"
