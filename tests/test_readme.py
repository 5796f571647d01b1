"""What the README shows runs, and its regularizer of one's own works everywhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sparseopt import (
    GroupSparseClassifier,
    GroupSparseRegressor,
    Problem,
    bcd,
    cross_validate,
    fista,
    get_regularizer,
    lam_max,
    path,
)
from sparseopt.laws import check_regularizer

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
MODULES = {match[1]: block for block in BLOCKS if (match := re.match(r"# (\w+\.py)\n", block))}
SCRIPTS = [block for block in BLOCKS if block not in MODULES.values()]


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The README's modules in one folder: kernels with their classes are kept under the path of their file."""
    where = tmp_path_factory.mktemp("modules")
    for name, text in MODULES.items():
        (where / name).write_text(text)
    return where


@pytest.fixture
def folder(modules: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder with the README's modules, to import from and to work in."""
    monkeypatch.syspath_prepend(modules)
    yield modules
    for name in MODULES:
        sys.modules.pop(name.removesuffix(".py"), None)


def run(folder: Path, *command: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(folder)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_is_code_for_each_kind_of_user() -> None:
    assert len(SCRIPTS) >= 4
    assert list(MODULES) == ["shapes.py", "mymodule.py"]
    assert all(len(one.splitlines()) <= 35 for text in MODULES.values() for one in text.split("@regularizer")[1:])


@pytest.mark.parametrize("number", range(len(SCRIPTS)))
def test_the_code_runs(folder: Path, number: int) -> None:
    (folder / "script.py").write_text(SCRIPTS[number])
    run(folder, sys.executable, "-W", "error", "script.py")


def test_a_regularizer_of_ones_own_obeys_the_laws(folder: Path) -> None:
    for eps in (0.1, 1.0, 10.0):
        check_regularizer(get_regularizer("mymodule:Root", eps=eps))


@pytest.mark.parametrize("name", ["Ripple", "Square"])
def test_it_is_said_what_theorem_1_1_has_to_do_with_it(folder: Path, name: str) -> None:
    """The lines that the README shows are those that the command prints first."""
    for package in ("flint", "cvxpy", "matplotlib"):
        pytest.importorskip(package)
    check_regularizer(get_regularizer(f"shapes:{name}"))
    shown = re.search(rf"```\n({name}\(\)\n.*?)```", README, flags=re.DOTALL)
    assert shown
    printed = run(
        folder, sys.executable, "-m", "sparseopt", "check", "--regularizer", f"shapes:{name}",
        "--only", "regularizer_hypotheses", "sum_norm_bounds",
    )  # fmt: skip
    assert printed.startswith(shown[1])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Ripple", "Square"])
def test_every_check_of_it_is_as_expected(folder: Path, name: str) -> None:
    printed = run(folder, sys.executable, "-m", "sparseopt", "check", "--regularizer", f"shapes:{name}")
    assert "6 statements, all as expected" in printed


def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 24))
    return X, X[:, 0] - X[:, 1] + X[:, 4] + 0.3 * rng.normal(size=60)


def test_it_works_in_solvers_and_paths(folder: Path) -> None:
    X, y = data()
    problem = Problem.build(X, y, groups=4, penalty="mymodule:Root", lam=0.2)
    for solver in (bcd, fista):
        assert solver(problem, tol=1e-9).stationarity <= 1e-8
    composite = Problem.build(X, y, groups=4, penalty="mymodule:Root", lam=0.2, composite=True)
    assert bcd(composite, tol=1e-9).stationarity <= 1e-8
    assert not bcd(problem.at(1.001 * lam_max(problem))).w.any()
    assert path(problem, n_lams=10).best("bic").support.tolist() == [0, 1]
    assert cross_validate(problem, n_lams=5, cv=3).best.support.size >= 2


def test_it_works_in_estimators(folder: Path) -> None:
    X, y = data()
    model = GroupSparseRegressor(groups=4, penalty="mymodule:Root", lam=0.2).fit(X, y)
    assert list(model.selected_groups_) == ["0", "1"]
    labels = np.where(y > 0, "high", "low")
    assert GroupSparseClassifier(groups=4, penalty="mymodule:Root", lam=0.02).fit(X, labels).score(X, labels) > 0.9


def test_it_works_on_the_command_line(folder: Path) -> None:
    X, y = data()
    np.savez(folder / "data.npz", X=X, y=y, group=np.repeat(np.arange(6), 4))
    shown = run(
        folder, sys.executable, "-m", "sparseopt", "solve", "data.npz", "--penalty", "mymodule:Root",
        "--param", "eps=0.5", "--lam", "0.2",
    )  # fmt: skip
    assert "2 of 6 groups" in shown


def test_it_works_on_tensors(folder: Path) -> None:
    torch = pytest.importorskip("torch")
    import sparseopt.nn  # noqa: F401

    q = get_regularizer("mymodule:Root")
    u = torch.linspace(0.0, 5.0, 50, dtype=torch.float64, requires_grad=True)
    q.value(u).sum().backward()
    torch.testing.assert_close(u.grad, q.slope(u.detach()))
    torch.testing.assert_close(q.prox(u.detach(), 0.7), torch.tensor(q.prox(u.detach().numpy(), 0.7)))
