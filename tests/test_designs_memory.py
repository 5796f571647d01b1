"""Designs: memory that can be used where it lies is used there, read-only or mapped or not."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numba
import numpy as np
import pytest
import scipy.sparse as sp
from design_cases import N, P, check_all_blocks, check_whole, csc, dense, matrix

from sparseopt.designs import Dense, Design, as_design, writeable_design
from sparseopt.designs.convert import writeable
from sparseopt.designs.products import accumulate, some_dots


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_columns_are_used_where_they_lie(dtype: type) -> None:
    X = np.asfortranarray(matrix(dtype))
    assert np.shares_memory(as_design(X).columns, X)
    assert not np.shares_memory(as_design(np.ascontiguousarray(X)).columns, X)
    design = as_design(X)
    assert as_design(design) is design


@pytest.mark.parametrize("kind", [sp.csc_array, sp.csc_matrix])
def test_canonical_csc_is_used_where_it_lies(kind: Any) -> None:
    X = kind(matrix(np.float64))
    design = as_design(X)
    for name in ("data", "indices", "indptr"):
        assert np.shares_memory(getattr(design, name), getattr(X, name))
    assert as_design(design) is design


def freeze(X: Any) -> Any:
    for array in [X] if isinstance(X, np.ndarray) else [X.data, X.indices, X.indptr]:
        array.flags.writeable = False
    return X


@pytest.mark.parametrize("convert", [np.asfortranarray, np.ascontiguousarray, sp.csc_array, sp.csr_array])
def test_read_only_is_no_type_of_its_own(convert: Any) -> None:
    X = matrix(np.float64)
    W, R = np.ones((P, 1)), np.ones((N, 1))
    usual, frozen = as_design(convert(X)), as_design(freeze(convert(X)))
    assert numba.typeof(frozen) == numba.typeof(usual)
    check_whole(usual, X, W, R)
    compiled = len(accumulate.signatures), len(some_dots.signatures)
    check_whole(frozen, X, W, R)
    assert (len(accumulate.signatures), len(some_dots.signatures)) == compiled


def test_read_only_arrays_would_have_another_type() -> None:
    X = np.asfortranarray(matrix(np.float64))
    assert numba.typeof(Dense(freeze(X.copy(order="F")).T)) != numba.typeof(Dense(X.T))


def test_an_alias_keeps_its_array_alive() -> None:
    alias = writeable(freeze(np.arange(10_000.0)))
    gc.collect()
    others = [np.full(10_000, -1.0) for _ in range(20)]  # would take the memory, were it free
    np.testing.assert_array_equal(alias, np.arange(10_000.0))
    assert len(others) == 20
    assert alias.flags.writeable
    array = np.arange(3.0)
    assert writeable(array) is array


@pytest.mark.parametrize("build", [dense, csc])
def test_a_design_from_a_memory_map(build: Callable[[np.ndarray], Design], tmp_path: Path) -> None:
    X = matrix(np.float64)
    joblib.dump(build(X), tmp_path / "design")
    mapped = joblib.load(tmp_path / "design", mmap_mode="r")
    assert not mapped[0].flags.writeable
    design = writeable_design(mapped)
    assert type(design) is type(mapped)
    assert design.shape == X.shape
    assert np.shares_memory(design[0], mapped[0])
    del mapped
    gc.collect()
    assert numba.typeof(design) == numba.typeof(build(X))
    check_all_blocks(design, X, 1)


def test_a_dense_design_needs_no_scipy() -> None:
    code = (
        "import sys, sparseopt.designs as d; print(d.as_design([[1.0]]).shape, 'scipy.sparse' in sys.modules, "
        "'pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "(1, 1) False False\n"
