"""A table for the command line, and what its output says of a solution. Imported by tests of the command line."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FAST = ("--path", "8", "--tol", "1e-4")


def numbers(seed: int = 0, n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """X (n, 6) and a target that columns 0 to 2 decide."""
    rng = np.random.default_rng(seed)
    X = np.round(rng.normal(size=(n, 6)), 3)
    return X, np.round(X[:, :3] @ [2.0, -1.0, 1.5] + 0.3 * rng.normal(size=n), 3)


COLUMNS = ("a_1", "a_2", "a_3", "b_1", "b_2", "b_3")


def rows_of(X: np.ndarray, y: Any, header: bool = True) -> list[list[str]]:
    rows = [[f"{v:g}" for v in x] + [str(t)] for x, t in zip(X, y, strict=True)]
    return [[*COLUMNS, "y"], *rows] if header else rows


def write(file: Path, rows: list[list[str]], mark: str = ",") -> Path:
    text = "".join(mark.join(row) + "\n" for row in rows)
    if file.suffix == ".gz":
        file.write_bytes(gzip.compress(text.encode()))
    else:
        file.write_text(text)
    return file


def write_arrays(file: Path) -> Path:
    """The same numbers as NPZ, in two groups."""
    X, y = numbers()
    np.savez(file, X=X, y=y, group=[0, 0, 0, 1, 1, 1], group_names=["first", "second"])
    return file


def groups_in(out: str) -> dict[str, tuple[int, int, float]]:
    """The table that was printed: size, nonzero coefficients and norm of each group."""
    found = re.findall(r"^  (\S.*?) +(\d+) +(\d+) +(\S+)$", out, flags=re.MULTILINE)
    return {name: (int(size), int(nonzero), float(norm)) for name, size, nonzero, norm in found}


def number_after(word: str, out: str) -> float:
    (found,) = re.findall(rf"\b{word} (-?[\d.]+(?:e[-+]\d+)?)", out)
    return float(found)


def agrees(out: str, solution: Any) -> None:
    """Assert that what was printed describes this solution."""
    groups = solution.problem.groups
    expected = {
        groups.names[g]: (groups.sizes[g], np.count_nonzero(solution.w[groups[int(g)]]), solution.group_norms[g])
        for g in solution.support
    }
    printed = groups_in(out)
    assert printed.keys() == expected.keys()
    for name, (size, nonzero, norm) in expected.items():
        assert printed[name][:2] == (int(size), int(nonzero))
        assert printed[name][2] == pytest.approx(norm, rel=1e-4)
    norms = [norm for _, _, norm in printed.values()]
    assert norms == sorted(norms, reverse=True)
    assert number_after("lam", out) == pytest.approx(solution.problem.lam, rel=1e-5)
    assert number_after("objective", out) == pytest.approx(solution.objective, rel=1e-6)
    assert number_after("loss", out) == pytest.approx(solution.loss, rel=1e-6)
    assert f"{len(expected)} of {len(groups)} groups" in out
    assert solution.status.value in out


MODULE = """
from typing import NamedTuple
from sparseopt import regularizer
from sparseopt.scalar import maximum

@regularizer
class Half(NamedTuple):
    strength: float = 0.5
    def value(self, u): return self.strength * u
    def slope(self, u): return self.strength + 0.0 * u
    def prox(self, u, t): return maximum(u - self.strength * t, 0.0)
    def slope_at_zero(self): return self.strength
"""
