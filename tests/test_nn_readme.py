"""What nn/README.md shows runs as it stands, and its tables are those of the package."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the page is about sparseopt.nn, which needs torch")

import sparseopt  # noqa: E402
import sparseopt.nn as package  # noqa: E402
from sparseopt.nn import masks  # noqa: E402

PAGE = (Path(__file__).parents[1] / "nn" / "README.md").read_text(encoding="utf-8")


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)


def execute(block: str) -> None:
    """As a script of its own, in the folder that is current."""
    torch.manual_seed(0)
    exec(compile(block, "nn/README.md", "exec"), {"__name__": "__main__"})


def rows(page: str, first: str) -> list[list[str]]:
    """The cells of the table whose header starts with the cell `first`."""
    lines = page.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first} |"))
    found = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return found


def unknown_names(page: str) -> list[str]:
    """Words in code quotes that look like names of the package and are not."""
    known = set(dir(package)) | set(dir(sparseopt)) | set(dir(masks)) | set(dir(package.Sparsifier))
    quoted = re.findall(r"`([A-Za-z_]+)(?:\([^`]*\))?`", re.sub(r"```.*?```", "", page, flags=re.DOTALL))
    elsewhere = {"fully_shard", "total_steps", "attach", "schedule", "scores", "prox", "value", "slope"}
    return [name for name in quoted if name not in known | elsewhere]


@pytest.mark.parametrize("number", range(len(blocks(PAGE))))
def test_the_code_runs(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    execute(blocks(PAGE)[number])


def test_there_is_code_in_every_section() -> None:
    assert len(blocks(PAGE)) >= 8


def test_two_lines_are_enough() -> None:
    """The first block without its two marked lines is a training loop, and runs without sparseopt."""
    lines = blocks(PAGE)[0].splitlines()
    assert sum(bool(re.search(r"# the (first|second) line$", line)) for line in lines) == 2
    others = re.compile(r"# the (first|second) line$|report|sparseopt|torch.save")
    execute("\n".join(line for line in lines if not others.search(line)))


def test_the_table_of_methods_is_complete() -> None:
    named = [name for row in rows(PAGE, "`method=`") for name in re.findall(r'"([^"]+)"', row[0])]
    assert named == list(package.METHODS)


def test_the_table_of_masks_is_complete() -> None:
    named = {re.match(r"`(\w+)", row[0])[1] for row in rows(PAGE, "mask")}  # type: ignore[index]
    assert named == {name for name in masks.__all__ if name.endswith("Mask")} - {"BlockMask", "LogitMask"}
    for row in rows(PAGE, "mask"):
        for name in re.findall(r"`(\w+)\(", row[2]):
            assert name in sparseopt.__all__


def test_every_name_on_the_page_exists() -> None:
    assert unknown_names(PAGE) == []


def test_a_wrong_page_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = PAGE.replace("total_steps=N)", "steps=N)").replace("`dense_state_dict", "`plain_state_dict")
    with pytest.raises(TypeError, match="steps"):
        execute(blocks(page)[0])
    assert "plain_state_dict" in unknown_names(page)
    assert rows(PAGE.replace('"omp"', '"ompp"'), "`method=`") != rows(PAGE, "`method=`")
