"""What is made of the numbers of the benchmark: ratios, geometric means, aims, and a page from the JSON alone."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sparseopt.experiments import bench_solvers
from sparseopt.experiments.race import Row
from sparseopt.experiments.solver_report import goals, mean_ratio, ratios, read_rows, summary


def row(name: str, seconds: float | None, problem: str = "dense", task: str = "path", **rest: Any) -> Row:
    status = "over budget" if seconds is None else "passed"
    return Row(problem, task, name, status, seconds, 3, 1e-7, 1e-3, **rest)


ROWS = [
    row("sparseopt", 2.0, peak=150.0, gap=0.03, first=2.9, second=2.0),
    row("sparseopt_f32", 1.0, threads=2, peak=120.0, gap=0.04, first=2.5, second=1.0),
    row("adelie", 8.0, peak=200.0),
    row("adelie_f32", 4.0, threads=2, peak=100.0),
    row("adelie_cov", 0.5, size="large"),
    row("sparseopt", 2.0, size="large", gap=0.01),
    row("sparseopt", 1.0, "wide"),
    row("adelie", 1.0, "wide"),
    row("sparseopt", 3.0, "sgl"),
    row("skglm", 1.0, "sgl"),
    row("sparseopt", 3.0, "dense", "mcp", penalty="mcp"),
    row("sparseopt", 2.0, "dense", "mcp", penalty="l2"),
    row("skglm", 0.1, "dense", "mcp", penalty="mcp"),
    row("sparseopt", None, "tall"),
    row("celer", 2.0, "tall"),
    row("sparseopt", 2.0, "corr"),
    row("celer", None, "corr"),
]


def test_the_best_of_each_side_counts() -> None:
    found = {(each.problem, each.size, each.task): each for each in ratios(ROWS)}
    dense = found["dense", "full", "path"]
    assert (dense.own.name, dense.rival.name, dense.time) == ("sparseopt_f32", "adelie_f32", 0.25)  # type: ignore[union-attr]
    assert dense.memory == 1.2  # of the row whose time counts, over the leanest peer
    assert found["dense", "large", "path"].time == 4.0  # covariance mode counts
    assert found["dense", "full", "mcp"].time == 1.5  # to the own group lasso, whatever peers do
    assert found["tall", "full", "path"].time is None
    assert found["corr", "full", "path"].time is None


def test_means_are_geometric_and_over_the_classes() -> None:
    full = [each for each in ratios(ROWS) if (each.size, each.task) == ("full", "path")]
    assert mean_ratio(full) == pytest.approx((0.25 * 1.0) ** 0.5)  # dense and wide; sgl is beside them
    assert mean_ratio(full, "memory") == pytest.approx(1.2)
    assert mean_ratio([]) is None


def test_aims_take_the_worst_or_the_mean() -> None:
    figures = [figure for _, _, figure in goals(ROWS)]
    assert figures == [4.0, pytest.approx(1.0), None, 0.04, 1.5, None, 1.2, 1.5]
    assert all(figure is None for _, _, figure in goals([]))
    told = summary(ROWS)
    assert "dense full path: sparseopt_f32 0.25 x adelie_f32 (2 threads, 2 threads), memory 1.20" in told
    assert "tall full path: sparseopt did not pass" in told
    assert "corr full path: no peer passed" in told
    assert "worst class and size (at most 1): 4.00, NOT reached" in told
    assert "certified gaps, worst (at most 0.05): 0.04, reached" in told
    assert "SCAD: time over our own group-lasso path, worst (at most 1.3): not measured" in told


def test_of_two_runs_of_the_same_the_last_counts() -> None:
    again = replace(ROWS[0], seconds=0.1)
    assert read_rows([asdict(each) for each in (*ROWS, again)]) == [again, *ROWS[1:]]


def stored(folder: Path, name: str, content: Any) -> str:
    file = folder / name
    file.write_text(json.dumps(content), encoding="utf-8")
    return str(file)


ABOUT = {"python": "3.12", "machine": "m", "cpus": 2, "threads": [1, 2], "versions": {"numpy": "2"}}


def test_a_page_is_made_from_json_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    rows = [asdict(each) for each in ROWS]
    parts = [stored(tmp_path, f"{k}.json", {"environment": ABOUT, "rows": rows[k::2]}) for k in (0, 1)]
    sizes = [{"direction": "n", "size": x, "seconds": 0.1 * x, "epochs": 5, "active": 3} for x in (1.0, 10.0)]
    growth = stored(tmp_path, "growth.json", {"rows": sizes})
    chosen = {"case": "mid", "task": "range", "name": "abess", "seeds": 2, "exact": 0.5, "true": 4.0, "false": 0.0}
    selection = stored(tmp_path, "selection.json", {"rows": [chosen | {"seconds": 0.02, "ratio": None}]})
    notes = tmp_path / "notes.md"
    notes.write_text("Why *large* is slow.", encoding="utf-8")
    options = ["--from", *parts, "--growth", growth, "--selection", selection, "--notes", str(notes)]
    assert bench_solvers.main([*options, "--page", str(tmp_path / "page")]) == 0
    assert "dense large path: sparseopt 4.00 x adelie_cov" in capsys.readouterr().out
    page = (tmp_path / "page" / "index.md").read_text(encoding="utf-8")
    for line in (
        "m with 2 cores, 1 or 2 threads, Python 3.12; versions: numpy 2.",
        "| path: time over the fastest peer, worst class and size | 1 | 4.00 | not reached |",
        "| dense | full | path | sparseopt\\_f32 | 1 | 2 | adelie\\_f32 | 4 | 2 | 0.25 |",
        "| dense | large | path | 4.00 | adelie\\_cov | 1e-07 | 1e-07 | 1.0 | - |",  # above 0.7
        "| dense | full | path | sparseopt | 150 | - | 0.90 | 3.0 | - |",
        "Why *large* is slow.",
        "| n | 1 | 10 | 0.1 | 1 | 1.00 | 1.00 |",
        "| mid | range | abess | 2 | 0.50 | 4.00 | 0.00 | 0.02 | - |",
        "| celer | 1 | - | 1e-07 | 1e-03 | - | - | - | over budget |",
    ):
        assert line in page.splitlines()
    pictures = re.findall(r"\]\((\w+\.png)\)", page)
    assert pictures == ["time.png", "memory.png", "growth.png"]
    assert all((tmp_path / "page" / name).stat().st_size > 5000 for name in pictures)
    lines = page.splitlines()
    for line, after in pairwise(lines):  # every table has as many cells everywhere
        if line.startswith("|") and after.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) == len(re.findall(r"(?<!\\)\|", after))


def test_a_page_without_ratios_has_no_pictures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    part = stored(tmp_path, "rows.json", {"environment": ABOUT | {"threads": 1}, "rows": [asdict(ROWS[0])]})
    assert bench_solvers.main(["--from", part, "--page", str(tmp_path / "page")]) == 0
    assert [file.name for file in (tmp_path / "page").iterdir()] == ["index.md"]
