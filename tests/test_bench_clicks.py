"""The benchmark of clicks: what it calls a pass, and a small run of all of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("pyarrow")

from sparseopt.experiments import bench_clicks as bench

MIB = 1 << 20
GOOD = bench.Row(10**6, 10**8, 4.0, 7.0, 900 * MIB, 500 * MIB, 0.5, 400 * MIB, 200 * MIB, 6 * 10**7, 0.1)


def test_targets_are_missed_one_by_one() -> None:
    large = replace(GOOD, rows=20 * 10**6, convert_seconds=80.0, load_seconds=10.0)
    assert [passed for _, passed in bench.targets([GOOD, large])] == [True, True, True]
    for change, missed in [
        ({"convert_memory": 2049 * MIB}, 0),
        ({"load_memory": 2049 * MIB}, 0),
        ({"convert_seconds": 101.0}, 1),
        ({"load_seconds": 21.0}, 2),
    ]:
        found = [passed for _, passed in bench.targets([GOOD, replace(large, **change)])]
        assert found == [place != missed for place in range(3)]
    assert "101" not in bench.table([GOOD, large])
    assert "FAIL" in bench.table([GOOD, replace(large, load_seconds=21.0)])


@pytest.mark.slow
def test_a_small_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rows.json"
    bench.main(["--rows", "6000", "8e3", "--folder", str(tmp_path / "rows"), "--json", str(file), "--hash-bins", "100"])
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    assert [row["rows"] for row in rows] == [6000, 8000]
    for row in rows:
        assert row["convert_memory"] > 100 * MIB  # the interpreter and its libraries
        assert 0 < row["convert_own"] < row["convert_memory"]
        assert row["convert_cpu"] > 0.0
        assert row["columns_bytes"] > 40 * row["rows"]
    assert list((tmp_path / "rows").iterdir()) == []
    assert "6,000" in capfd.readouterr().out


@pytest.mark.slow
def test_a_task_that_dies_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="the process for load ended with status 1"):
        bench.measured("load", "nowhere")
