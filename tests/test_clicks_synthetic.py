"""Rows that nobody made: they have Criteo's format, their faults are where it is said, and they can be learned from.

Oracles: the format in a regular expression of its own, counts, and a logistic regression of scikit-learn.
"""

from __future__ import annotations

import gzip
import re
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("polars", reason="raw rows are written by polars")

from sparseopt.experiments.clicks.lines import parsed
from sparseopt.experiments.clicks.synthetic import KINDS, make_columns, write_raw

LINE = re.compile(rb"[01](\t(-?\d{1,18})?){13}(\t([0-9a-f]{8})?){26}")


def lines_of(path: Path) -> list[bytes]:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    assert data.endswith(b"\n")
    return data.split(b"\n")[:-1]


def cells(path: Path) -> np.ndarray:
    return np.array([line.split(b"\t") for line in lines_of(path)])


@pytest.mark.parametrize("name", ["train.tsv", "train.tsv.gz"])
def test_every_line_is_well_formed(tmp_path: Path, name: str) -> None:
    made = write_raw(tmp_path / name, 70_000)  # more than a chunk
    lines = lines_of(made.path)
    assert len(lines) == made.rows == 70_000
    assert all(LINE.fullmatch(line) for line in lines)
    assert sum(line.startswith(b"1") for line in lines) == made.clicks


@pytest.mark.parametrize("rows", [1, 7, 1000, 65_536, 65_537])
@pytest.mark.parametrize("malformed", [1, 10, 23])
def test_malformed_lines_are_where_they_are_said_to_be(tmp_path: Path, rows: int, malformed: int) -> None:
    plain = lines_of(write_raw(tmp_path / "plain.tsv", rows).path)
    made = write_raw(tmp_path / "train.tsv", rows, malformed=malformed)
    lines = lines_of(made.path)
    assert len(lines) == rows + malformed
    places = [each.line for each in made.malformed]
    assert places == [i + 1 for i, line in enumerate(lines) if not LINE.fullmatch(line)]
    assert [each.kind for each in made.malformed] == [KINDS[k % len(KINDS)] for k in range(malformed)]
    assert [line for i, line in enumerate(lines) if i + 1 not in set(places)] == plain


def test_kinds_of_malformed_lines_differ(tmp_path: Path) -> None:
    made = write_raw(tmp_path / "train.tsv", 100, malformed=len(KINDS))
    lines = lines_of(made.path)
    wrong = {each.kind: lines[each.line - 1].split(b"\t") for each in made.malformed}
    assert set(wrong) == set(KINDS)
    assert wrong["empty line"] == [b""]
    assert (len(wrong["too few fields"]), len(wrong["too many fields"])) == (39, 41)
    assert (wrong["label missing"][0], wrong["label not 0 or 1"][0]) == (b"", b"2")
    for kind, found in wrong.items():
        if "field" not in kind and "line" not in kind:
            assert len(found) == 40
    with pytest.raises(UnicodeDecodeError):
        b"\t".join(wrong["not UTF-8"]).decode()


def test_the_reader_of_raw_rows_agrees(tmp_path: Path) -> None:
    made = write_raw(tmp_path / "train.tsv", 1000, malformed=25)
    rows = parsed(made.path.read_bytes())
    assert rows.lines == 1025
    assert [line for line, _ in rows.bad] == [each.line for each in made.malformed]
    assert int(rows.label.sum()) == made.clicks


def test_rows_are_those_of_seed_and_part(tmp_path: Path) -> None:
    first = lines_of(write_raw(tmp_path / "a", 300).path)
    assert lines_of(write_raw(tmp_path / "b", 300).path) == first
    assert lines_of(write_raw(tmp_path / "c", 70_000).path)[:300] == first
    for options in ({"seed": 1}, {"part": 1}):
        other = lines_of(write_raw(tmp_path / "d", 300, **options).path)
        assert not set(other) & set(first)


def test_values_look_like_criteos(tmp_path: Path) -> None:
    table = cells(write_raw(tmp_path / "train.tsv", 30_000).path)
    missing = (table == b"").mean(0)
    assert missing[0] == 0
    assert 0.7 < missing[12] < 0.84  # I12
    assert 0.7 < missing[35] < 0.82  # C22
    assert (missing > 0.02).sum() > 15
    i2 = table[:, 2].astype(int)
    assert i2.min() == -1
    assert 0.02 < (i2 == -1).mean() < 0.9
    # Zipf: of C3's 50,000 values, a tenth of the rows or so have the first, and most values are rare
    counts = np.sort(np.unique(table[:, 16], return_counts=True)[1])[::-1]
    assert len(counts) > 5000
    assert 0.03 < counts[0] / 30_000 < 0.15
    assert np.median(counts) < 3
    assert len(np.unique(table[:, 22])) <= 3 + 1  # C9


def test_there_is_something_to_learn_and_parts_share_it(tmp_path: Path) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.preprocessing import OneHotEncoder

    tables = [cells(write_raw(tmp_path / f"{part}.tsv", 20_000, part=part).path) for part in (0, 1)]
    y = [table[:, 0] == b"1" for table in tables]
    assert all(0.15 < labels.mean() < 0.35 for labels in y)
    encoder = OneHotEncoder(min_frequency=10, handle_unknown="infrequent_if_exist").fit(tables[0][:, 1:])
    x = [encoder.transform(table[:, 1:]) for table in tables]
    model = LogisticRegression(C=0.1, solver="liblinear").fit(x[0], y[0])
    assert roc_auc_score(y[1], model.decision_function(x[1])) > 0.7


def test_columns_have_parts_and_a_model(tmp_path: Path) -> None:
    columns = make_columns(tmp_path, {"train": 70_000, "valid": 20_000}, [10, 100, 3, 5], values=2, seed=4)
    assert columns.vocabulary == (10, 100, 3, 5)
    assert [field.name for field in columns.fields] == ["C1", "C2", "C3", "C4", "I1", "I2"]
    train, valid = columns.part("train"), columns.part("valid")
    assert (train.rows, valid.rows) == (70_000, 20_000)
    assert not np.array_equal(train.columns["C2"][:1000], valid.columns["C2"][:1000])
    assert 0.1 < train.labels.mean() < 0.45
    # the rate of each id of the strongest field is the same in both parts, and differs between ids
    rates = [
        np.bincount(p.columns["C1"], p.labels, 10) / np.bincount(p.columns["C1"], minlength=10) for p in (train, valid)
    ]
    assert np.corrcoef(rates[0], rates[1])[0, 1] > 0.9
    assert np.ptp(rates[0]) > 0.1


@pytest.mark.parametrize(("rows", "malformed"), [(0, 0), (1, -1)])
def test_wrong_arguments(tmp_path: Path, rows: int, malformed: int) -> None:
    with pytest.raises(
        ValueError, match=rf"^rows is {rows} and malformed is {malformed}: give at least 1 and at least 0\.$"
    ):
        write_raw(tmp_path / "x", rows, malformed=malformed)


@pytest.mark.slow
def test_writing_is_fast(tmp_path: Path) -> None:
    best = 0.0
    for part in range(3):
        begun = time.perf_counter()
        write_raw(tmp_path / "x", 500_000, part=part)
        best = max(best, 500_000 / (time.perf_counter() - begun))
    assert best > 100_000  # three times as many on a quiet machine
