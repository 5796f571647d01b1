"""Columns on disk hold what was written, all of it, and say in one sentence what is wrong with what they hold instead.

Oracles: the arrays that were written, `numpy.load`, SHA-256 by hashlib.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseopt.experiments.clicks.columns import Columns, ColumnsWriter, Field, Part

FIELDS = [Field("C1", 3), Field("C2", 300), Field("I1"), Field("C3", 70_000)]
ROWS = {"train": 1000, "valid": 37}


def columns_of(rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    ids = {field.name: draw.integers(0, field.ids, rows) for field in FIELDS if field.ids}
    return {**ids, "I1": draw.standard_normal(rows).astype(np.float32), "label": draw.integers(0, 2, rows)}


def cut(columns: dict[str, np.ndarray], start: int, stop: int) -> dict[str, np.ndarray]:
    return {name: column[start:stop] for name, column in columns.items()}


def written(folder: Path) -> tuple[Columns, dict[str, dict[str, np.ndarray]]]:
    """A data set of two parts, and what was written."""
    content = {part: columns_of(rows, seed) for seed, (part, rows) in enumerate(ROWS.items())}
    writer = ColumnsWriter(folder, ROWS, FIELDS)
    for part, columns in content.items():
        writer.write(part, 0, columns)
    return writer.finish({"source": ["a", 1]}), content


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    written(tmp_path / "rows")
    return tmp_path / "rows"


def one_sentence(error: BaseException) -> str:
    """The message, which is one sentence: it begins, ends with a full stop, and is one line."""
    text = str(error)
    assert text.endswith(".")
    assert "\n" not in text
    return text


def same(part: Part, columns: dict[str, np.ndarray]) -> None:
    """The law of storage: every column comes back, alone and side by side, in the types that are promised."""
    assert part.rows == len(columns["label"])
    np.testing.assert_array_equal(part.labels, columns["label"])
    for field in part.fields:
        np.testing.assert_array_equal(part.columns[field.name], columns[field.name])
        assert part.columns[field.name].dtype == field.dtype
    ids, values, labels = part.read(0, part.rows)
    assert (ids.dtype, labels.dtype) == (np.int32, np.float32)
    np.testing.assert_array_equal(ids, np.stack([columns[f.name] for f in part.fields if f.ids], 1))
    np.testing.assert_array_equal(labels, columns["label"])
    plain = [columns[f.name] for f in part.fields if not f.ids]
    if plain:
        assert values is not None
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, np.stack(plain, 1))
    else:
        assert values is None


# -- what is written comes back ----------------------------------------------------------------------------------------


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    made, content = written(tmp_path / "rows")
    for columns in (made, Columns.open(tmp_path / "rows"), Columns.open(tmp_path / "rows", check=True)):
        assert columns.fields == tuple(FIELDS)
        assert columns.vocabulary == (3, 300, 70_000)
        assert list(columns.parts) == ["train", "valid"]
        assert columns.meta["source"] == ["a", 1]
        for part, given_columns in content.items():
            same(columns.part(part), given_columns)


def test_a_lost_or_moved_row_is_seen(tmp_path: Path) -> None:
    made, content = written(tmp_path / "rows")
    for wrong in (cut(content["train"], 0, 999), {k: np.roll(v, 1) for k, v in content["train"].items()}):
        with pytest.raises(AssertionError):
            same(made.part("train"), wrong)


def test_files_are_ordinary_arrays(folder: Path) -> None:
    digests = json.loads((folder / "meta.json").read_text())["sha256"]
    columns = Columns.open(folder)
    for name in ("label", "C1", "C2", "C3", "I1"):
        array = np.load(folder / "valid" / f"{name}.npy")
        assert len(array) == 37
        assert digests["valid"][name] == hashlib.sha256(array.tobytes()).hexdigest()
        if name != "label":
            np.testing.assert_array_equal(array, columns.part("valid").columns[name])


@settings(max_examples=25)
@given(st.data())
def test_rows_may_come_in_any_order_and_again(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 60))
    cuts = sorted({0, rows, *data.draw(st.lists(st.integers(0, rows), max_size=5))})
    pieces = list(itertools.pairwise(cuts))
    order = data.draw(st.permutations(pieces))
    again = data.draw(st.lists(st.sampled_from(pieces), max_size=3))
    columns = columns_of(rows)
    folder = tmp_path_factory.mktemp("any") / "rows"
    for start, stop in [*order, *again]:  # a new writer each time: it takes up what is there
        ColumnsWriter(folder, {"train": rows}, FIELDS).write("train", start, cut(columns, start, stop))
    same(ColumnsWriter(folder, {"train": rows}, FIELDS).finish().part("train"), columns)


@pytest.mark.parametrize("bounds", [(0, 0), (5, 5), (0, 1), (999, 1000), (3, 900)])
def test_a_stretch_is_read(folder: Path, bounds: tuple[int, int]) -> None:
    start, stop = bounds
    ids, values, labels = Columns.open(folder).part("train").read(start, stop)
    expected = cut(columns_of(1000), start, stop)
    np.testing.assert_array_equal(ids[:, 2], expected["C3"])
    assert values is not None
    np.testing.assert_array_equal(values[:, 0], expected["I1"])
    np.testing.assert_array_equal(labels, expected["label"])


def test_reading_goes_over_tiles(tmp_path: Path) -> None:
    rows = 20_000
    writer = ColumnsWriter(tmp_path / "rows", {"train": rows}, [Field("C1", rows)])
    writer.write("train", 0, {"C1": np.arange(rows), "label": np.zeros(rows, int)})
    ids, values, _ = writer.finish().part("train").read(1, rows)
    assert values is None
    np.testing.assert_array_equal(ids[:, 0], np.arange(1, rows))


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 65535, 65536, 65537, 2**31 - 1])
def test_the_largest_id_of_every_type(tmp_path: Path, size: int) -> None:
    writer = ColumnsWriter(tmp_path / "rows", {"train": 2}, [Field("C1", size)])
    writer.write("train", 0, {"C1": np.array([0, size - 1]), "label": [0, 1]})
    assert writer.finish().part("train").read(0, 2)[0].tolist() == [[0], [size - 1]]


def test_what_is_mapped_cannot_be_written_to(folder: Path) -> None:
    part = Columns.open(folder).part("train")
    with pytest.raises(ValueError, match="read-only"):
        part.columns["C1"][0] = 1
    with pytest.raises(TypeError):
        part.columns["C1"] = np.zeros(1)  # type: ignore[index]


# -- what is not finished ----------------------------------------------------------------------------------------------


def test_without_finish_there_is_no_data_set(tmp_path: Path) -> None:
    ColumnsWriter(tmp_path, ROWS, FIELDS).write("train", 0, columns_of(1000))
    with pytest.raises(FileNotFoundError, match="not finished: run it again") as caught:
        Columns.open(tmp_path)
    one_sentence(caught.value)


def test_a_forgotten_row_is_told(tmp_path: Path) -> None:
    writer = ColumnsWriter(tmp_path, {"train": 10}, FIELDS)
    writer.write("train", 0, columns_of(4))
    writer.write("train", 6, columns_of(4))
    with pytest.raises(ValueError, match="2 rows of part 'train' were not written, row 4 first") as caught:
        writer.finish()
    one_sentence(caught.value)
    assert not (tmp_path / "meta.json").exists()


def test_other_rows_or_fields_begin_anew(tmp_path: Path) -> None:
    ColumnsWriter(tmp_path, {"train": 4}, FIELDS).write("train", 0, columns_of(4))
    for parts, fields in (({"train": 4}, [Field("C1", 4), *FIELDS[1:]]), ({"train": 5}, FIELDS)):
        with pytest.raises(ValueError, match=r"^\d rows of part 'train' were not written, row 0 first"):
            ColumnsWriter(tmp_path, parts, fields).finish()


def test_files_without_the_mark_of_a_writer_are_not_taken_for_rows(tmp_path: Path) -> None:
    # as after a stop between two of the files: the mark comes last
    ColumnsWriter(tmp_path, {"train": 4}, FIELDS).write("train", 0, columns_of(4))
    (tmp_path / "unfinished.json").unlink()
    with pytest.raises(ValueError, match="4 rows of part 'train' were not written"):
        ColumnsWriter(tmp_path, {"train": 4}, FIELDS).finish()


def test_other_files_in_the_folder_stay(tmp_path: Path) -> None:
    (tmp_path / "vocabulary").mkdir()
    (tmp_path / "vocabulary" / "C1.txt").write_text("kept")
    written(tmp_path)
    assert (tmp_path / "vocabulary" / "C1.txt").read_text() == "kept"
    assert {file.name for file in tmp_path.iterdir()} == {"vocabulary", "train", "valid", "meta.json"}


def test_a_finished_data_set_is_not_overwritten(folder: Path) -> None:
    with pytest.raises(FileExistsError, match="is a finished data set: remove it") as caught:
        ColumnsWriter(folder, ROWS, FIELDS)
    one_sentence(caught.value)


def test_nothing_is_written_after_finish(tmp_path: Path) -> None:
    writer = ColumnsWriter(tmp_path, {"train": 4}, FIELDS)
    writer.write("train", 0, columns_of(4))
    writer.finish()
    with pytest.raises(ValueError, match="is finished: write before finish"):
        writer.write("train", 0, columns_of(4))


def test_meta_that_json_cannot_hold(tmp_path: Path) -> None:
    writer = ColumnsWriter(tmp_path, {"train": 4}, FIELDS)
    writer.write("train", 0, columns_of(4))
    with pytest.raises(TypeError):
        writer.finish({"a": object()})
    assert not (tmp_path / "meta.json").exists()


# -- wrong rows --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"C1": [0, 3]}, "column C1 has 3 in row 6 of part 'train': give 0 to 2."),
        ({"C3": [-1, 0]}, "column C3 has -1 in row 5 of part 'train': give 0 to 69999."),
        ({"C2": [2**40, 0]}, "column C2 has 1099511627776 in row 5 of part 'train': give 0 to 299."),
        ({"C2": [0.5, 0.0]}, "column C2 has values of type float64: give whole numbers."),
        ({"label": [0, 2]}, "column label has 2 in row 6 of part 'train': give 0 to 1."),
        ({"label": [0, 255]}, "column label has 255 in row 6 of part 'train': give 0 to 1."),
        ({"I1": [np.nan, 0.0]}, "column I1 has nan in row 5 of part 'train': give finite numbers."),
        ({"I1": [0.0, 1e300]}, "column I1 has 1e+300 in row 6 of part 'train': give finite numbers."),
        ({"C1": [0]}, "column C1 has shape (1,), and labels (2,): give one value per row."),
        ({"label": [[0], [1]]}, "column C1 has shape (2,), and labels (2, 1): give one value per row."),
        ({"C9": [0, 0]}, "the columns C9 are missing or unknown: give labels and all fields."),
    ],
)
def test_wrong_rows_are_told_and_not_written(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    writer = ColumnsWriter(tmp_path, {"train": 10}, FIELDS)
    before = {file: file.read_bytes() for file in (tmp_path / "train").iterdir()}
    right: dict[str, Any] = {"C1": [0, 1], "C2": [0, 1], "C3": [0, 1], "I1": [0.0, 1.0], "label": [0, 1]}
    with pytest.raises(ValueError, match=f"^{re.escape(told)}$") as caught:
        writer.write("train", 5, right | change)
    one_sentence(caught.value)
    assert {file: file.read_bytes() for file in (tmp_path / "train").iterdir()} == before


@pytest.mark.parametrize(("start", "part"), [(-1, "train"), (9, "train"), (11, "train"), (0, "test")])
def test_rows_outside_a_part(tmp_path: Path, start: int, part: str) -> None:
    writer = ColumnsWriter(tmp_path, {"train": 10}, FIELDS)
    with pytest.raises(ValueError, match=r"exceed its 10\.|has no part 'test': it has train\."):
        writer.write(part, start, columns_of(2))


@pytest.mark.parametrize(
    ("parts", "fields", "told"),
    [
        ({"train": 1}, [], "there are no fields"),
        ({}, FIELDS, "parts are {}"),
        ({"train": 0}, FIELDS, "at least 1"),
        ({"train": True}, FIELDS, "at least 1"),
        ({"../x": 1}, FIELDS, "'../x'"),
        ({"train": 1}, [Field("label", 3)], "'label' is taken twice"),
        ({"train": 1}, [Field("C1", 3), Field("c1", 4)], "taken twice"),
        ({"train": 1, "Train": 1}, FIELDS, "taken twice"),
        ({"train": 1}, [Field("a/b", 3)], "'a/b'"),
        ({"train": 1}, [Field("", 3)], "''"),
        ({"train": 1}, [Field("C1", -1)], "expected a name and its number of ids"),
        ({"train": 1}, [Field("C1", 2**31)], "expected a name and its number of ids"),
    ],
)
def test_wrong_parts_and_fields(tmp_path: Path, parts: dict[str, int], fields: list[Field], told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)) as caught:
        ColumnsWriter(tmp_path / "rows", parts, fields)
    one_sentence(caught.value)
    assert not (tmp_path / "rows").exists()


# -- wrong folders -----------------------------------------------------------------------------------------------------


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


@pytest.mark.parametrize("name", ["label", "C1", "C2", "C3", "I1"])
@pytest.mark.parametrize("kept", [0, 5, 127, 128, 129, -1])
def test_a_truncated_column(folder: Path, name: str, kept: int) -> None:
    file = folder / "valid" / f"{name}.npy"
    data = file.read_bytes()
    file.write_bytes(data[:kept])
    with pytest.raises(ValueError, match="convert the rows again") as caught:
        Columns.open(folder)
    assert f"{name}.npy" in one_sentence(caught.value)


def test_a_column_that_is_too_long(folder: Path) -> None:
    with (folder / "train" / "C2.npy").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ValueError, match=r"C2.npy has 2129 bytes, and 1000 rows of uint16 take 2128") as caught:
        Columns.open(folder)
    one_sentence(caught.value)


def test_a_missing_column(folder: Path) -> None:
    (folder / "train" / "C2.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"C2.npy is missing: convert the rows again\.") as caught:
        Columns.open(folder)
    one_sentence(caught.value)


@pytest.mark.parametrize("kind", ["<i2", "<f2", ">u2"])
def test_a_column_of_another_type(folder: Path, kind: str) -> None:
    np.save(folder / "train" / "C2.npy", np.zeros(1000, kind))
    with pytest.raises(ValueError, match=r"C2\.npy does not begin like 1000 rows of uint16") as caught:
        Columns.open(folder)
    one_sentence(caught.value)


@pytest.mark.parametrize("name", ["label", "C1", "C2", "C3", "I1"])
def test_a_changed_number_is_found_by_check(folder: Path, name: str) -> None:
    file = folder / "train" / f"{name}.npy"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    Columns.open(folder)
    with pytest.raises(ValueError, match="SHA-256 differs") as caught:
        Columns.open(folder, check=True)
    assert f"{name}.npy" in one_sentence(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "told"), [("C1", 3, "column C1"), ("C3", -1, "column C3"), ("label", 9, "label")]
)
def test_an_id_out_of_range_is_told_by_its_column(folder: Path, name: str, value: int, told: str) -> None:
    file = folder / "train" / f"{name}.npy"
    array = np.load(file)
    array[500] = value
    file.write_bytes(file.read_bytes()[:128] + array.tobytes())
    part = Columns.open(folder).part("train")
    part.read(0, 500)
    part.read(501, 1000)
    with pytest.raises(ValueError, match="in row 500, where 0 to") as caught:
        part.read(0, 1000)
    assert told in one_sentence(caught.value)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_an_unknown_version(folder: Path, version: object) -> None:
    edit(folder / "meta.json", lambda meta: meta.update(version=version))
    with pytest.raises(ValueError, match="this release reads 1") as caught:
        Columns.open(folder)
    assert f"version {version!r}" in one_sentence(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda meta: meta.pop("parts"),
        lambda meta: meta["parts"].update(train="1000"),
        lambda meta: meta["parts"].update(train=-1),
        lambda meta: meta.update(parts=[]),
        lambda meta: meta.update(fields=None),
        lambda meta: meta.update(fields=[["C1"]]),
        lambda meta: meta.update(fields=[["../../C1", 3]]),
        lambda meta: meta.update(fields=[["C1", 3.0]]),
        lambda meta: meta.update(parts={"../train": 1000}),
        lambda meta: meta.pop("sha256"),
        lambda meta: meta.update(sha256={"train": []}),
        lambda meta: meta.pop("meta"),
        lambda meta: meta.pop("format"),
    ],
)
def test_a_wrong_meta(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    edit(folder / "meta.json", change)
    with pytest.raises(ValueError, match=r"meta\.json") as caught:
        Columns.open(folder)
    one_sentence(caught.value)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b"null", b'"x"'])
def test_a_meta_that_is_none(folder: Path, data: bytes) -> None:
    (folder / "meta.json").write_bytes(data)
    with pytest.raises(ValueError, match=r"meta\.json") as caught:
        Columns.open(folder)
    one_sentence(caught.value)


def test_missing_digests_fail_the_check(folder: Path) -> None:
    edit(folder / "meta.json", lambda meta: meta.update(sha256={}))
    with pytest.raises(ValueError, match="SHA-256 differs"):
        Columns.open(folder, check=True)


def test_a_folder_without_rows(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="give a folder of converted rows") as caught:
        Columns.open(tmp_path)
    one_sentence(caught.value)


def test_a_part_that_is_not_there(folder: Path) -> None:
    with pytest.raises(ValueError, match="has no part 'test': it has train, valid") as caught:
        Columns.open(folder).part("test")
    one_sentence(caught.value)


@pytest.mark.parametrize("bounds", [(-1, 5), (5, 4), (0, 1001)])
def test_rows_that_are_not_there(folder: Path, bounds: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="it has 1000"):
        Columns.open(folder).part("train").read(*bounds)
