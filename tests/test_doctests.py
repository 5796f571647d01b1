"""The examples in docstrings run and print what they say.

pytest's own `--doctest-modules` would import nn/ from its folder, as a second module `nn`; here every module is
imported under the one name it has for users.
"""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

FOLDERS = {"sparseopt": "sparseopt"} | {f: f"sparseopt.{f}" for f in ("nn", "proofs_checks", "experiments")}
ROOT = Path(__file__).parent.parent


def modules_with_examples() -> list[str]:
    found = []
    for folder, package in FOLDERS.items():
        for file in sorted((ROOT / folder).rglob("*.py")):
            if ">>> " in file.read_text(encoding="utf-8"):
                parts = [package, *file.relative_to(ROOT / folder).with_suffix("").parts]
                found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return found


def run(module: object) -> tuple[int, str]:
    """How many examples of a module were tried, and what went wrong."""
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    for test in doctest.DocTestFinder(exclude_empty=True).find(module):  # type: ignore[arg-type]
        runner.run(test, out=report.append)
    return runner.tries, "".join(report)


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name.startswith("sparseopt.nn"):
        pytest.importorskip("torch", reason="the examples of sparseopt.nn need torch")
    monkeypatch.chdir(tmp_path)  # an example may write files
    tried, report = run(importlib.import_module(name))
    assert not report, report
    assert tried > 0, f"{name} contains '>>> ' in no docstring that doctest finds"


def test_a_wrong_example_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wrong_example.py").write_text('"""One and one.\n\n>>> 1 + 1\n3\n"""\n')
    monkeypatch.syspath_prepend(tmp_path)
    tried, report = run(importlib.import_module("wrong_example"))
    assert tried == 1
    assert "Expected:\n    3\nGot:\n    2" in report
