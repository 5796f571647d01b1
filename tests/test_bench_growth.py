"""The benchmark of growth measures what it says: slopes of known laws, and whole runs on small sizes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sparseopt.experiments.bench_growth import DIRECTIONS, main
from sparseopt.experiments.growth_report import Row, exponent, table


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_the_exponent_of_a_power_law_is_its_power(power: float) -> None:
    sizes = np.array([10.0, 30.0, 100.0])
    assert exponent(sizes, 3.0 * sizes**power) == pytest.approx(power, abs=1e-12)


def test_the_table_ends_each_direction_with_its_exponents() -> None:
    rows = [Row("n", x, 0.001 * x, 5, 10) for x in (1.0, 10.0)] + [Row("n", 100.0, 1.0, 5, 10)]
    *_, last = table(rows)
    assert last.split() == ["n", "100", "1.0000", "5", "10", "1.50", "2.00"]


def test_a_direction_grows_in_one_thing_only() -> None:
    for name, direction in DIRECTIONS.items():
        made = [direction.make(x) for x in direction.sizes]
        features = {how["n_groups"] * how["size"] for how, _ in made}
        assert (len(features) == 1) == (name not in ("p", "groups"))
        assert (len({how["n_groups"] for how, _ in made}) == 1) == (name not in ("groups", "size"))
        assert (len({how["size"] for how, _ in made}) == 1) == (name not in ("p", "size"))
        assert (len({how["n"] for how, _ in made}) == 1) == (name != "n")
        assert (len({lams for _, lams in made}) == 1) == (name != "lams")


@pytest.mark.slow
def test_a_run_prints_writes_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, picture = tmp_path / "growth.json", tmp_path / "growth.png"
    words = [
        "--quick",
        "--repeats",
        "1",
        "--directions",
        "lams",
        "density",
        "--json",
        str(file),
        "--figure",
        str(picture),
    ]
    assert main(words) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].split() == ["direction", "size", "seconds", "epochs", "groups", "exponent", "last", "step"]
    rows = json.loads(file.read_text())["rows"]
    assert [row["direction"] for row in rows] == ["lams", "lams", "density", "density"]
    assert all(row["seconds"] > 0.0 and row["epochs"] > 0 and row["active"] >= 8 for row in rows)
    assert picture.stat().st_size > 10_000
