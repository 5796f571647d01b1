"""Raw rows to ids, against plain loops over the text: which values get ids, where each row goes, and only once."""

from __future__ import annotations

import collections
import gzip
import hashlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="conversion uses the files of sparseopt.nn")
pytest.importorskip("pyarrow")
mpmath = pytest.importorskip("mpmath")

from click_rows import cells, expected_ids, tree, value, write_rows  # noqa: E402

from sparseopt.experiments.clicks import vocabulary  # noqa: E402
from sparseopt.experiments.clicks.columns import Columns  # noqa: E402
from sparseopt.experiments.clicks.conversion import convert  # noqa: E402
from sparseopt.experiments.clicks.lines import CATEGORIES, FIELDS, NUMBERS  # noqa: E402
from sparseopt.experiments.clicks.splitting import by_time, x1, x4  # noqa: E402

SMALL = 1000  # rows of a staged part


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("raw"))


def same_ids(columns: Columns, part: str, expected: dict[str, list[int]]) -> bool:
    return all(columns.part(part).columns[field].tolist() == ids for field, ids in expected.items())


# -- ids ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("min_count", [1, 3, 10])
def test_ids_are_those_of_plain_loops(rows: Path, tmp_path: Path, min_count: int) -> None:
    sources = {"train": rows / "train.tsv.gz", "valid": rows / "valid.tsv"}
    columns = convert(sources, tmp_path / "out", min_count=min_count, rows=SMALL)
    train, valid = cells(sources["train"]), cells(sources["valid"])
    assert columns.part("train").labels.tolist() == [int(row[0]) for row in train]
    assert same_ids(columns, "train", expected_ids(train, train, min_count))
    assert same_ids(columns, "valid", expected_ids(train, valid, min_count))
    # counting the validation rows as well would be noticed
    assert not same_ids(columns, "valid", expected_ids(train + valid, valid, min_count))
    assert Columns.open(tmp_path / "out", check=True).vocabulary == columns.vocabulary


def test_the_vocabulary_is_kept(rows: Path, tmp_path: Path) -> None:
    convert(rows / "train.tsv.gz", tmp_path / "out", min_count=2)
    train = cells(rows / "train.tsv.gz")
    for field in ("C9", "C20", "I5"):
        counts = collections.Counter(
            value(field, row[1 + FIELDS.index(field)]) for row in train if row[1 + FIELDS.index(field)]
        )
        kept = sorted((v for v in counts if counts[v] >= 2), key=lambda v: (-counts[v], v))
        shift = 0 if field in CATEGORIES else 2**31
        assert (np.load(tmp_path / "out" / "vocabulary" / f"{field}.npy").astype(np.int64) - shift).tolist() == kept


@pytest.mark.parametrize("protocol", ["time", "x1", "x4"])
def test_protocols_send_rows_where_they_belong(rows: Path, tmp_path: Path, protocol: str) -> None:
    columns = convert(rows / "train.tsv.gz", tmp_path / "out", protocol=protocol, min_count=2, rows=SMALL)
    every = cells(rows / "train.tsv.gz")
    labels = [int(row[0]) for row in every]
    part_of = {"time": lambda: by_time(3000), "x1": lambda: x1(3000), "x4": lambda: x4(labels)}[protocol]()
    by_part = {
        name: [row for row, p in zip(every, part_of, strict=True) if p == i] for i, name in enumerate(columns.parts)
    }
    assert list(by_part) == ["train", "valid", "test"]
    for name, mine in by_part.items():
        assert columns.part(name).labels.tolist() == [int(row[0]) for row in mine]
        assert same_ids(columns, name, expected_ids(by_part["train"], mine, 2))


def mixed(field: int, code: int, bins: int) -> int:
    x, ones = field << 32 | code, 2**64 - 1
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & ones
    x = (x ^ x >> 27) * 0x94D049BB133111EB & ones
    return 2 + (x ^ x >> 31) % bins


def test_hashed_ids_are_those_of_plain_loops(rows: Path, tmp_path: Path) -> None:
    columns = convert(rows / "train.tsv.gz", tmp_path / "out", hash_bins=97)
    assert columns.vocabulary == (99,) * 39
    for place, field in enumerate(FIELDS):
        shift = 0 if field in CATEGORIES else 2**31
        row = [cell[1 + place] for cell in cells(rows / "train.tsv.gz")]
        ids = [mixed(place, value(field, cell) + shift, 97) if cell else 1 for cell in row]
        assert columns.part("train").columns[field].tolist() == ids
    assert not (tmp_path / "out" / "vocabulary").exists()


def test_numbers_as_values(rows: Path, tmp_path: Path) -> None:
    columns = convert(rows / "train.tsv.gz", tmp_path / "out", numbers="values")
    assert len(columns.vocabulary) == 26
    assert [field.name for field in columns.fields] == [*CATEGORIES, *NUMBERS]
    for place, field in enumerate(NUMBERS, start=1):
        row = [row[place] for row in cells(rows / "train.tsv.gz")]
        right = np.array([math.log(1 + max(int(cell), 0)) if cell else 0.0 for cell in row], np.float32)
        np.testing.assert_allclose(columns.part("train").columns[field], right, rtol=1e-7)


def test_buckets_are_exact_at_their_limits() -> None:
    with mpmath.workdps(50):
        for v in [*range(3, 3000), *vocabulary.thresholds().tolist(), *(vocabulary.thresholds() - 1).tolist()]:
            right = int(mpmath.floor(mpmath.log(v) ** 2)) if v > 2 else v
            assert vocabulary.bucket(np.array([v]))[0] == right
    # a logarithm of doubles goes wrong where the numbers are large
    limits = np.concatenate([vocabulary.thresholds(), vocabulary.thresholds() - 1])
    assert any(math.floor(math.log(v) ** 2) != vocabulary.bucket(np.array([v]))[0] for v in limits.tolist())


# -- counting ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spread", [50, 3000, 2**32])
def test_runs_are_merged_in_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spread: int) -> None:
    draw = np.random.default_rng(spread)
    runs, every = [], []
    for number in range(30):
        code = draw.integers(0, spread, 800, dtype=np.uint32)
        absent = draw.random(800) < 0.2
        columns = {"C2": code, "C3": code[::-1].copy(), "missing": absent.astype(np.uint64) << np.uint64(14)}
        vocabulary.count_run(columns, ("C2", "C3"), tmp_path / f"{number}.npy")
        runs.append(tmp_path / f"{number}.npy")
        every.append(code[~absent])
    sizes = []
    cut = vocabulary._ranges

    def watched(slices: Any, size: int) -> Iterator[Any]:
        for entries in cut(slices, size):
            sizes.append(len(entries))
            yield entries

    monkeypatch.setattr(vocabulary, "_ranges", watched)
    values, counts = vocabulary.merged(runs, "C2", 1, size=1000)
    right, how_many = np.unique(np.concatenate(every), return_counts=True)
    assert values.tolist() == right.tolist()
    assert counts.tolist() == how_many.tolist()
    step = 1000 // (4 * 30)  # of each run, every step-th entry is a sample
    assert max(sizes) <= 1000 + 2 * 30 * step
    kept = vocabulary.merged(runs, "C2", 3, size=1000)[0]
    assert kept.tolist() == right[how_many >= 3].tolist()


def test_a_field_that_is_never_there(tmp_path: Path) -> None:
    path = tmp_path / "rows.tsv"
    path.write_bytes(b"".join(b"%d" % (i % 2) + b"\t" * 39 + b"\n" for i in range(5)))
    columns = convert(path, tmp_path / "out", min_count=1)
    assert columns.vocabulary == (2,) * 39
    assert columns.part("train").columns["C7"].tolist() == [1] * 5


# -- files that are not such rows --------------------------------------------------------------------------------------


def test_a_wrong_file_is_told_by_its_first_line(rows: Path, tmp_path: Path) -> None:
    unlabelled = tmp_path / "test.txt"
    unlabelled.write_text("".join("\t".join(row[1:]) + "\n" for row in cells(rows / "valid.tsv")))
    sentence = (
        r"test.txt does not look like rows of Criteo's data, 400 of its first 400 lines are malformed: line 1 is .*"
    )
    with pytest.raises(ValueError, match=sentence + "39 fields, no label"):
        convert({"train": rows / "train.tsv.gz", "test": unlabelled}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def made(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content) and None


@pytest.mark.parametrize(
    ("write", "why"),
    [
        (made(b"PK\x03\x04" + bytes(99)), "is a zip archive: unpack it"),
        (made(b"PAR1" + bytes(99)), "is a Parquet file: unpack it"),
        (
            made(gzip.compress(bytes(257) + b"ustar" + bytes(999))),
            "is a tar archive: unpack it, and give its train.txt",
        ),
        (made(b""), "is empty: give a file of rows"),
        (made(gzip.compress(b"")), "rows holds no well-formed row in 0 lines: give a file of rows"),
        (made(b"\n" * 10), "10 of its first 10 lines are malformed: line 1 is ''"),
        (made(bytes(10**6)), "1 of its first 1 lines are malformed"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, write: Callable[[Path], None], why: str) -> None:
    write(tmp_path / "rows")
    with pytest.raises(ValueError, match=re.escape(why)):
        convert(tmp_path / "rows", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# -- once --------------------------------------------------------------------------------------------------------------


def test_a_finished_folder_is_opened(rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "valid.tsv"
    shutil.copyfile(rows / "valid.tsv", source)
    convert(source, tmp_path / "out", min_count=2)
    before = tree(tmp_path / "out")
    monkeypatch.setattr("sparseopt.experiments.clicks.conversion.stage", None)  # nothing is read again
    convert(source, tmp_path / "out", min_count=2)
    os.utime(source, (1, 1))  # another time, the same bytes
    convert(source, tmp_path / "out", min_count=2)
    assert tree(tmp_path / "out") == before
    with pytest.raises(ValueError, match=r"out was converted with min_count 2, not 3: choose another folder"):
        convert(source, tmp_path / "out", min_count=3)
    with pytest.raises(ValueError, match="with protocol 'files', not 'x1'; "):
        convert(source, tmp_path / "out", protocol="x1", hash_bins=5)
    with pytest.raises(ValueError, match="from files for train, not for train, test: choose another folder"):
        convert({"train": source, "test": source}, tmp_path / "out", min_count=2)
    source.write_bytes(source.read_bytes().replace(b"\t", b"\t ", 1)[:-1])
    with pytest.raises(ValueError, match=r"from another file than .*valid.tsv: choose another folder"):
        convert(source, tmp_path / "out", min_count=2)
    with source.open("ab") as file:
        file.write(b"more\n")
    with pytest.raises(ValueError, match="from another file"):
        convert(source, tmp_path / "out", min_count=2)


def test_other_folders_are_left_alone(rows: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    with pytest.raises(ValueError, match="mine is there already, and is no converted data set: choose another folder"):
        convert(rows / "valid.tsv", tmp_path / "mine")
    with pytest.raises(ValueError, match=r"notes.txt is there already"):
        convert(rows / "valid.tsv", tmp_path / "mine" / "notes.txt")
    assert tree(tmp_path / "mine") == {"notes.txt": hashlib.sha256(b"keep me").hexdigest()}
    (tmp_path / "empty").mkdir()
    assert convert(rows / "valid.tsv", tmp_path / "empty").part("train").rows == 400


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"protocol": "x2"}, "protocol is 'x2': choose one of files, time, x1, x4"),
        ({"numbers": "floats"}, "numbers is 'floats': choose 'buckets' or 'values'"),
        ({"min_count": 0}, "min_count is 0: give at least 1"),
        ({"hash_bins": 0}, "hash_bins is 0: give 1 to"),
        ({"shares": (0.5, 0.5)}, "shares are given, and protocol is 'files': they are for 'time' alone"),
        ({"shares": (0.5, 0.2), "protocol": "time"}, "shares are"),
    ],
)
def test_wrong_options_are_refused(rows: Path, tmp_path: Path, options: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        convert(rows / "valid.tsv", tmp_path / "out", **options)


def test_wrong_sources_are_refused(rows: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"sources are named \['valid'\]: give 'train'"):
        convert({"valid": rows / "valid.tsv"}, tmp_path / "out")
    with pytest.raises(ValueError, match="protocol 'x4' splits one file, and 2 are given"):
        convert({"train": rows / "valid.tsv", "test": rows / "valid.tsv"}, tmp_path / "out", protocol="x4")
    with pytest.raises(FileNotFoundError, match=r"nowhere.tsv"):
        convert(tmp_path / "nowhere.tsv", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_processes_that_want_the_same_folder_wait(rows: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from sparseopt.experiments.clicks.conversion import convert\n"
        "print(convert(sys.argv[1], sys.argv[2], rows=1000).part('train').rows)"
    )
    command = [sys.executable, "-c", script, str(rows / "train.tsv.gz"), str(tmp_path / "out")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    answers = [process.communicate() for process in both]
    assert [out for out, _ in answers] == ["3000\n"] * 3, answers
    alone = convert(rows / "train.tsv.gz", tmp_path / "alone")
    assert tree(tmp_path / "out") == tree(alone.folder)
    assert not (tmp_path / "out.staging").exists()


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_command(run: Any, rows: Path) -> None:
    train, valid = rows / "train.tsv.gz", rows / "valid.tsv"
    status, out, err = run("convert", train, "--valid", valid, "--out", "columns", "--min-count", 5, "--check")
    assert (status, err) == (0, "")
    assert "train  3,000" in out
    assert "valid    400" in out
    assert re.search(r"[\d,]+ ids in 39 fields \(min_count 5\)", out)
    assert "15 malformed lines: see " in out
    assert "Every column has the SHA-256 that meta.json says." in out
    columns = Columns.open(Path("columns"))
    assert f"{np.mean(columns.part('train').labels):.4f}" in out
    damaged = Path("columns") / "train" / "C3.npy"
    with damaged.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(bytes([255 ^ damaged.read_bytes()[-1]]))
    status, _, err = run("convert", train, "--valid", valid, "--out", "columns", "--min-count", 5, "--check")
    assert status == 2
    assert re.search(r"C3\S*\.npy is not what was written \(its SHA-256 differs\)", err)
    # without the option nobody reads the numbers
    assert run("convert", train, "--valid", valid, "--out", "columns", "--min-count", 5)[0] == 0


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--hash-bins", "5", "--min-count", "2"], "--min-count and --hash-bins exclude each other"),
        (["--protocol", "x1", "--valid", "x"], "--valid and --test are for the protocol files, not x1"),
        (["--shares", "0.5", "0.5"], "shares are given, and protocol is 'files'"),
        (["--valid", "nowhere"], "nowhere does not exist: check the name"),
    ],
)
def test_wrong_commands(run: Any, rows: Path, options: list[str], why: str) -> None:
    status, _, err = run("convert", rows / "train.tsv.gz", "--out", "columns", *options)
    assert status == 2
    assert why in err
    assert err.count("\n") == 1


def test_the_command_names_its_folder(run: Any, rows: Path, tmp_path: Path) -> None:
    shutil.copyfile(rows / "valid.tsv", tmp_path / "day.tsv")
    status, out, _ = run("convert", "day.tsv", "--hash-bins", 50, "--numbers", "values")
    assert status == 0
    assert "day.columns: protocol files" in out
    assert "hashes into 50 bins" in out
    assert "I13 a number" in out


# -- real rows ---------------------------------------------------------------------------------------------------------


def test_real_rows(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "criteo"
    columns = convert({"train": folder / "train.tsv.gz", "valid": folder / "valid.tsv.gz"}, tmp_path / "out")
    assert {name: part.rows for name, part in columns.parts.items()} == {"train": 110_824, "valid": 13_085}
    about = columns.meta["conversion"]
    assert [source["malformed"] for source in about["sources"].values()] == [0, 0]
    sums = (shared_data / "SHA256SUMS").read_text(encoding="utf-8")
    for source in about["sources"].values():
        assert re.search(rf"{source['sha256']}\s+\S*criteo/{source['name']}", sums)
    assert round(about["clicks"]["train"] / 110_824, 4) == 0.2567
    assert round(about["clicks"]["valid"] / 13_085, 4) == 0.2537
    train = cells(folder / "train.tsv.gz")
    assert same_ids(columns, "valid", expected_ids(train, cells(folder / "valid.tsv.gz"), 10))
    assert json.loads((tmp_path / "out" / "meta.json").read_text())["format"] == "sparseopt clicks"
