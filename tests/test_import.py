"""`import sparseopt` costs little and loads nothing heavy; its public names are where the table says."""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

import sparseopt

HEAVY = {"torch", "sklearn", "cvxpy", "matplotlib", "pandas", "polars", "scipy", "numba", "joblib", "tqdm", "flint"}


def seconds(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - start


def test_import_takes_less_than_half_a_second() -> None:
    both = [(seconds("import sparseopt"), seconds("0")) for _ in range(5)]
    assert statistics.median(full - bare for full, bare in both) < 0.5


@pytest.mark.slow
def test_the_first_solve_of_a_second_process_takes_less_than_a_second() -> None:
    code = (
        "import numpy as np, sparseopt\n"
        "X = np.random.default_rng(0).normal(size=(100, 60))\n"
        "assert sparseopt.solve(sparseopt.Problem.build(X, X[:, 0], groups=3)).status.ok"
    )
    seconds(code)  # compiles
    assert min(seconds(code) - seconds("import numpy") for _ in range(5)) < 1.0


def test_import_loads_nothing_heavy() -> None:
    code = f"import sys, sparseopt; print(sorted({HEAVY} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", sparseopt.__all__)
def test_public_name_exists(name: str) -> None:
    assert getattr(sparseopt, name) is not None
    assert name in dir(sparseopt)


def test_no_public_name_hides_a_module(root: Path) -> None:
    # `sparseopt.path` must not be a function or a module, depending on what was imported first.
    modules = {file.stem for file in (root / "sparseopt").iterdir()}
    assert modules & set(sparseopt.__all__) == set()


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'bdc': dir"):
        sparseopt.bdc  # type: ignore[attr-defined]
    assert not hasattr(sparseopt, "bdc")


def test_type_checkers_see_the_same_names(root: Path) -> None:
    tree = ast.parse((root / "sparseopt" / "__init__.py").read_text(encoding="utf-8"))
    declared = {
        alias.name: (node.module or "").removeprefix("sparseopt.")
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    }
    assert declared == sparseopt._HOMES
