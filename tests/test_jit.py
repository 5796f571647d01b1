"""Kernels: methods of NamedTuples inside them, and a disk cache that an edited source cannot fool."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from llvmlite.binding import parse_bitcode
from numba.core.caching import IndexDataCacheFile
from numba.core.errors import NumbaError

import sparseopt
from sparseopt import jit
from sparseopt.jit import kernel, lean_kernel
from sparseopt.structs import compiled


@compiled
class Line(NamedTuple):
    """Annotated and bare methods, one of them calling another."""

    a: float
    b: float

    def at(self, x: float) -> float:
        return self.a * x + self.b

    def root(self):
        return -self.b / self.a

    def check(self):
        return self.at(self.root())


@compiled
class Identity(NamedTuple):
    def at(self, x):
        return x

    def root(self):
        return 0.0


@compiled
class Shifted(NamedTuple):
    inner: Identity
    by: float

    def at(self, x):
        return self.inner.at(x - self.by)

    def root(self):
        return self.inner.root() + self.by


@kernel
def evaluate(line, x):
    return line.at(x) + 10.0 * line.root()


@lean_kernel
def total(rows, at):
    result = 0.0
    for x in rows[at]:
        result += x
    return result


@lean_kernel
def copied(rows):
    return np.zeros(len(rows))[0]


@lean_kernel
def shown(rows, at):
    return rows[at]


def test_methods_in_a_kernel() -> None:
    for line in (Line(2.0, 3.0), Identity(), Shifted(Identity(), 3.0), Shifted(Line(2.0, 3.0), 1.0)):
        assert evaluate(line, 5.0) == line.at(5.0) + 10.0 * line.root()


def test_a_lean_kernel_counts_no_references() -> None:
    """It looks at arrays and parts of them; one that makes or returns an array is refused."""
    rows = np.arange(6.0).reshape(2, 3)
    assert total(rows, 1) == 12.0
    refusal = "Only accept returning of array passed into the function"
    with pytest.raises(NumbaError, match=refusal):
        copied(rows)
    with pytest.raises(NumbaError, match=refusal):
        shown(rows, 1)


def test_a_method_may_call_another() -> None:
    @kernel
    def call(line):
        return line.check()

    assert call(Line(2.0, 3.0)) == 0.0


@pytest.mark.parametrize("written", ["at(self, y)", "at(self)", "at(self, x, y)", "at(self, x=1.0)", "at(self, *x)"])
def test_another_signature_is_refused(written: str) -> None:
    scope: dict[str, type] = {}
    exec(f"from typing import NamedTuple\nclass Other(NamedTuple):\n    def {written}: return 1.0", scope)
    with pytest.raises(TypeError) as caught:
        compiled(scope["Other"])
    known = "at(self, x): methods of one name share one signature."
    assert str(caught.value) == f"Other.{written} must be written {known}"


MODULE = """
from typing import NamedTuple
from sparseopt.structs import compiled

@compiled
class Mine(NamedTuple):
    def user_value(self, u):
        return {factor} * u
"""
KERNELS = """
from sparseopt.jit import kernel
from sparseopt.regularizers import LogSum

@kernel
def total(q, u):
    return q.user_value(u)

@kernel
def package_total(q, u):
    return q.value(u)
"""
RUN_USER = """
import mine, kernels
print(kernels.total(mine.Mine(), 1.0), sum(kernels.total.stats.cache_hits.values()))
"""
RUN_PACKAGE = """
import kernels
print(round(kernels.package_total(kernels.LogSum(1.0), 1.0), 6), sum(kernels.package_total.stats.cache_hits.values()))
"""
RUN_CALLER = """
import kernels
from sparseopt.jit import kernel

print(kernels.package_total(kernels.LogSum(1.0), 1.0), sum(kernels.package_total.stats.cache_hits.values()))

@kernel
def twice(q, u):
    return 2.0 * kernels.package_total(q, u)

print(twice(kernels.LogSum(1.0), 1.0))
library = next(iter(kernels.package_total.overloads.values())).library
print(int(library._shared_module is not None))
"""
RUN_MAIN = """
import kernels
{module}
print(kernels.total(Mine(), 1.0), sum(kernels.total.stats.cache_hits.values()))
"""


class Project:
    """A user's folder with a copy of the package, its own cache, and a fresh process for every run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("__init__", "scalar", "jit", "structs"):
            source = Path(sparseopt.__file__).parent / f"{name}.py"
            (folder / "sparseopt").mkdir(exist_ok=True)
            shutil.copy(source, folder / "sparseopt")
        regularizers = Path(sparseopt.__file__).parent / "regularizers"
        shutil.copytree(
            regularizers, folder / "sparseopt" / "regularizers", ignore=shutil.ignore_patterns("__pycache__")
        )
        self.write("mine.py", MODULE.format(factor=2.0))
        self.write("kernels.py", KERNELS)

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def run(self, script: str) -> list[float]:
        self.write("script.py", script)
        environment = os.environ | {
            "PYTHONPATH": str(self.folder),
            "NUMBA_CACHE_DIR": str(self.folder / "cache"),
            "PYTHONDONTWRITEBYTECODE": "1",  # two edits within one second would share a .pyc
        }
        command = [sys.executable, "-W", "error", str(self.folder / "script.py")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        return [float(word) for word in done.stdout.split()]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_the_cache_follows_a_users_file(project: Project) -> None:
    assert project.run(RUN_USER) == [2.0, 0]
    assert project.run(RUN_USER) == [2.0, 1]
    project.write("mine.py", MODULE.format(factor=3.0))
    assert project.run(RUN_USER) == [3.0, 0]
    assert project.run(RUN_USER) == [3.0, 1]


def test_a_lost_class_makes_the_cache_stale_not_broken(project: Project) -> None:
    assert project.run(RUN_USER) == [2.0, 0]
    project.write("mine.py", MODULE.format(factor=3.0).replace("Mine", "Renamed"))
    assert project.run(RUN_USER.replace("Mine", "Renamed")) == [3.0, 0]


def test_the_cache_follows_the_package(project: Project) -> None:
    assert project.run(RUN_PACKAGE) == [0.693147, 0]
    assert project.run(RUN_PACKAGE) == [0.693147, 1]
    source = project.folder / "sparseopt" / "regularizers" / "concave.py"
    text = source.read_text()
    formula = "return log1p(u / self.eps)"
    assert text.count(formula) == 1
    source.write_text(text.replace(formula, "return 2.0 * log1p(u / self.eps)"))
    assert project.run(RUN_PACKAGE) == [1.386294, 0]


def test_a_kernel_from_disk_has_no_text_until_another_calls_it(project: Project) -> None:
    one, two = 0.6931471805599453, 1.3862943611198906
    project.run(RUN_PACKAGE)
    assert project.run(RUN_CALLER) == [one, 1, two, 0]


def test_the_order_of_imports_does_not_matter_to_the_cache(project: Project) -> None:
    first, second = RUN_USER, RUN_USER.replace("import mine, kernels", "import kernels, mine")
    assert first != second
    assert project.run(first) == [2.0, 0]
    assert project.run(second) == [2.0, 1]
    project.write("mine.py", MODULE.format(factor=3.0))
    assert project.run(second) == [3.0, 0]
    assert project.run(first) == [3.0, 1]


def check_files_of_two_processes(make: type[IndexDataCacheFile], folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Between any two files that one process writes, another reads and writes; both get what they asked for or none."""

    def cache(stamp: str) -> IndexDataCacheFile:
        return make(cache_path=str(folder), filename_base="lines.f-1.py3", source_stamp=stamp)

    def loaded(key: str) -> str | None:
        found = cache("new").load(key)
        assert found in (None, f"new {key}")
        return found

    cache("old").save("a", "old a")
    one, other = cache("new"), cache("new")
    replace = os.replace
    others_turn = [True]

    def replace_and_wait(source: str, target: str) -> None:
        replace(source, target)
        loaded("a")
        if others_turn:
            others_turn.clear()
            other.save("b", "new b")
            loaded("b")

    with patch.context() as patched:
        patched.setattr(os, "replace", replace_and_wait)
        one.save("a", "new a")
    assert loaded("a")
    assert loaded("b")
    assert len(list(folder.iterdir())) == 2  # "old a" is gone
    one.flush()
    assert loaded("a") is loaded("b") is None


def test_processes_that_compile_at_once_do_not_mix_their_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_files_of_two_processes(jit._CacheFile, tmp_path, monkeypatch)


def test_numbered_files_are_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError, match="old a"):
        check_files_of_two_processes(IndexDataCacheFile, tmp_path, monkeypatch)


def test_a_kernel_of_another_version_of_numba_or_another_key_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [jit._CacheFile(cache_path=str(tmp_path), filename_base="f", source_stamp="s") for _ in range(2)]
    files[0].save("a", 1)
    files[1]._version = "0.0"
    assert (files[0].load("a"), files[1].load("a")) == (1, None)
    monkeypatch.setattr(jit, "_short", lambda text: "same")
    files[0].save("a", 1)
    assert (files[0].load("a"), files[0].load("b")) == (1, None)


def test_names_are_those_of_the_text() -> None:
    evaluate(Line(2.0, 3.0), 5.0)
    library = next(iter(evaluate.overloads.values())).library
    text = library._get_module_for_linking().as_bitcode()
    short = jit._names(text)

    def names(text: bytes) -> set[str]:
        module = parse_bitcode(text)
        return {d.name for each in (module.functions, module.global_variables) for d in each if not d.is_declaration}

    assert names(short) == names(text) != set()
    assert all(len(list(block.instructions)) == 1 for f in parse_bitcode(short).functions for block in f.blocks)


def test_a_users_process_does_not_evict_the_package(project: Project) -> None:
    assert project.run(RUN_PACKAGE) == [0.693147, 0]
    assert project.run("import mine\n" + RUN_PACKAGE) == [0.693147, 0]
    assert project.run(RUN_PACKAGE) == [0.693147, 1]
    assert project.run("import mine\n" + RUN_PACKAGE) == [0.693147, 1]


def test_a_class_of_the_script_is_never_taken_from_the_cache(project: Project) -> None:
    assert project.run(RUN_MAIN.format(module=MODULE.format(factor=2.0))) == [2.0, 0]
    assert project.run(RUN_MAIN.format(module=MODULE.format(factor=3.0))) == [3.0, 0]
    assert project.run(RUN_MAIN.format(module=MODULE.format(factor=3.0))) == [3.0, 0]


def test_without_compiler_kernels_are_functions(project: Project) -> None:
    script = "import os\nos.environ['NUMBA_DISABLE_JIT'] = '1'\nimport kernels\n"
    assert project.run(script + "print(kernels.package_total(kernels.LogSum(1.0), 0.0))") == [0.0]
