"""What a row is, and a file of them, against the words of the definition and another reader."""

from __future__ import annotations

import ast
import gzip
import hashlib
import io
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch", reason="conversion uses the files of sparseopt.nn")
pytest.importorskip("pyarrow")
pl = pytest.importorskip("polars")

from click_rows import cells, lines, number, tree, word, write_rows  # noqa: E402

from sparseopt.experiments.clicks import raw, staging, vocabulary  # noqa: E402
from sparseopt.experiments.clicks.conversion import convert  # noqa: E402
from sparseopt.experiments.clicks.lines import CATEGORIES, FIELDS, LINE, NUMBERS, explained, parsed  # noqa: E402
from sparseopt.experiments.clicks.raw import Source  # noqa: E402
from sparseopt.experiments.clicks.synthetic import write_raw  # noqa: E402

SMALL = 1000  # rows of a staged part


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("raw"))


# -- what a row is -----------------------------------------------------------------------------------------------------

GOOD = ["1", "5", "", "-2", *["0"] * 10, "68fd1e64", "", *["00000000"] * 24]
NUMBERS_LIKE = ["", "0", "1", "2", "-", "-0", "--1", "+1", "1.5", "007", " 1", "9" * 18, "9" * 19, "-" + "9" * 18]
WORDS_LIKE = [
    "0123456g",
    "0123abcd",
    "0123ABCD",
    "0123abc",
    "0123abcde",
    "é",
    "\r",
    "\x00",
    "1\r",
    "0123abcd\r",
    "0\ta",
]
ODD = st.sampled_from([*NUMBERS_LIKE, *WORDS_LIKE])


@given(st.lists(st.tuples(st.integers(0, 39), ODD), max_size=3), st.sampled_from(["\n", "\r\n"]), st.integers(38, 41))
def test_a_row_is_what_the_words_say(changes: list[tuple[int, str]], end: str, width: int) -> None:
    row = list(GOOD)
    for place, cell in changes:
        row[place] = cell
    row = [*row, "", ""][:width]
    line = ("\t".join(row) + end).encode()
    split = line.decode().removesuffix("\n").removesuffix("\r").split("\t")
    right = len(split) == 40 and split[0] in ("0", "1") and all(map(number, split[1:14])) and all(map(word, split[14:]))
    found = parsed(("\t".join(GOOD) + "\n").encode() + line)
    assert len(found.label) == 1 + right
    assert bool(re.fullmatch(LINE.encode(), line)) == right
    if right:
        assert found.label[1] == int(split[0])
        assert found.numbers[:, 1].tolist() == [int(cell or 0) for cell in split[1:14]]
        assert found.words[:, 1].tolist() == [int(cell or "0", 16) for cell in split[14:]]
        assert found.missing[1] == sum((not cell) << place for place, cell in enumerate(split[1:]))
    else:
        assert found.bad == ((2, line),)
        assert explained(line)
        quote = "'" if '"' in staging.escaped(line) else '"'
        assert ast.literal_eval(f"b{quote}{staging.escaped(line)}{quote}") == line[:-1]


def test_columns_are_those_of_another_reader(rows: Path) -> None:
    good = b"".join(b"\t".join(cell.encode() for cell in row) + b"\n" for row in cells(rows / "train.tsv.gz"))
    schema = {"label": pl.UInt8} | dict.fromkeys(NUMBERS, pl.Int64) | dict.fromkeys(CATEGORIES, pl.String)
    frame = pl.read_csv(io.BytesIO(good), separator="\t", has_header=False, schema=schema, quote_char=None)
    found = parsed(good)
    for place, name in enumerate(FIELDS):
        series = frame[name] if name in NUMBERS else frame[name].str.to_integer(base=16)
        mine = found.numbers[place] if name in NUMBERS else found.words[place - 13]
        assert mine.tolist() == series.fill_null(0).to_list()
        assert vocabulary.missing(name, found.missing).tolist() == series.is_null().to_list()


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("\t".join(GOOD[1:]), "39 fields, no label: a row of the competition's test set"),
        ("\t".join(GOOD[:-1]), "39 fields instead of 40"),
        ("\t".join([*GOOD, ""]), "41 fields instead of 40"),
        ("hello", "1 field instead of 40"),
        ("\t".join(["-1", *GOOD[1:]]), "the label is '-1', neither 0 nor 1"),
        ("\t".join([*GOOD[:2], "1.5", *GOOD[3:]]), "I2 is '1.5', no whole number of at most 18 digits"),
        ("\t".join([*GOOD[:39], "68FD1E64"]), "C26 is '68FD1E64', not eight hexadecimal digits"),
        ("\t".join([*GOOD[:39], "x" * 99]), f"C26 is '{'x' * 37}...', not eight hexadecimal digits"),
        ("", "an empty line"),
    ],
)
def test_reasons(line: str, why: str) -> None:
    assert explained(line.encode() + b"\n") == why
    assert explained(line.encode() + b"\r\n") == why


def test_a_reason_is_not_made_up_for_a_right_line() -> None:
    with pytest.raises(ValueError, match="is well-formed"):
        explained("\t".join(GOOD).encode() + b"\n")


def test_malformed_lines_are_told_with_their_places(tmp_path: Path) -> None:
    made = write_raw(tmp_path / "rows.tsv.gz", 2000, seed=1, malformed=20)
    columns = convert(made.path, tmp_path / "out", rows=SMALL)
    assert columns.part("train").rows == made.rows
    assert columns.meta["conversion"]["clicks"]["train"] == made.clicks
    assert columns.meta["conversion"]["sources"]["train"]["malformed"] == 20
    header, *told = (tmp_path / "out" / "malformed.tsv").read_text(encoding="ascii").splitlines()
    assert header == "file\tline\treason\tbytes"
    every = lines(made.path)
    assert [int(row.split("\t")[1]) for row in told] == [each.line for each in made.malformed]
    for row in told:
        name, line, why, kept = row.split("\t")
        assert name == "rows.tsv.gz"
        assert why
        assert staging.escaped(every[int(line) - 1]) == kept


# -- files -------------------------------------------------------------------------------------------------------------


def text_of(source: Source, **options: Any) -> bytes:
    return b"".join(block.data for block in source.blocks(**options))


@pytest.mark.parametrize("size", [1, 300, 5000, 1 << 20])
@pytest.mark.parametrize("packed", [False, True])
def test_blocks_are_the_file(rows: Path, tmp_path: Path, size: int, packed: bool) -> None:
    text = b"\n".join(lines(rows / "valid.tsv")) + b"\nlast line"
    path = tmp_path / "rows"
    # several members, one of them empty, and the zeros that fill a sector
    path.write_bytes(b"".join(map(gzip.compress, (text[:100], b"", text[100:]))) + bytes(1000) if packed else text)
    source = Source(path)
    blocks = list(source.blocks(size))
    assert b"".join(block.data for block in blocks) == text + b"\n"
    assert all(block.data.endswith(b"\n") for block in blocks)
    longest = max(map(len, text.splitlines())) + 1
    assert all(size - longest < len(block.data) <= max(size, longest) for block in blocks[:-1])
    assert len(blocks) >= len(text) // max(size, longest)
    assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    for block in blocks[:: max(1, len(blocks) // 5)]:
        again = Source(path)
        rest = text[block.end :]
        assert text_of(again, size=size, skip=block.end) == (rest + b"\n" if rest else b"")
        assert again.sha256 == source.sha256


def test_a_long_line_takes_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw, "_READ", 1 << 16)
    good = "\t".join(GOOD).encode()
    path = tmp_path / "rows.tsv"
    path.write_bytes(good + b"\n" + bytes(5_000_000) + b"\n" + good + b"\n")  # nothing else may hide between them
    blocks = list(Source(path).blocks(1 << 16))
    assert max(len(block.data) for block in blocks) < 1 << 18
    for block in blocks:  # taken up again at every place
        again = list(Source(path).blocks(1 << 16, block.end))
        assert b"".join(each.data for each in again) == b"".join(each.data for each in blocks if each.end > block.end)
    columns = convert(path, tmp_path / "out", min_count=1)
    assert columns.part("train").rows == 2
    (told,) = (tmp_path / "out" / "malformed.tsv").read_text().splitlines()[1:]
    assert told.split("\t")[1:3] == ["2", "longer than 65536 bytes; the rest is not kept"]


@pytest.mark.parametrize("change", ["carriage returns", "no last newline", "byte order mark", "commas below names"])
def test_other_ways_to_write_the_same_rows(rows: Path, tmp_path: Path, change: str) -> None:
    text = "\n".join("\t".join(row) for row in cells(rows / "valid.tsv")) + "\n"
    (tmp_path / "plain.tsv").write_text(text, newline="")
    names = ",".join(["Label", *FIELDS]) + "\n"
    other = {
        "carriage returns": text.replace("\n", "\r\n"),
        "no last newline": text[:-1],
        "byte order mark": "\ufeff" + text,
        "commas below names": names + text.replace("\t", ","),
    }[change]
    (tmp_path / "other.tsv").write_text(other, newline="", encoding="utf-8")
    plain = convert(tmp_path / "plain.tsv", tmp_path / "a", min_count=2)
    again = convert(tmp_path / "other.tsv", tmp_path / "b", min_count=2)
    assert again.meta["conversion"]["sources"]["train"]["malformed"] == 0
    assert again.vocabulary == plain.vocabulary
    for name, column in plain.part("train").columns.items():
        assert again.part("train").columns[name].tolist() == column.tolist()


def test_the_line_of_names_counts_as_a_line(tmp_path: Path) -> None:
    row = ",".join(GOOD)
    (tmp_path / "rows.csv").write_text(",".join(["label", *FIELDS]) + f"\n{row}\n{row}\noops\n{row}\n")
    convert(tmp_path / "rows.csv", tmp_path / "out", min_count=1)
    assert "rows.csv\t4\t1 field instead of 40\toops\n" in (tmp_path / "out" / "malformed.tsv").read_text()


def test_the_result_does_not_depend_on_parts_and_blocks(rows: Path, tmp_path: Path) -> None:
    sources = {"train": rows / "train.tsv.gz", "valid": rows / "valid.tsv"}
    trees = []
    for size in (200, 1100, 10**6):
        convert(sources, tmp_path / str(size), rows=size)
        trees.append(tree(tmp_path / str(size)))
    assert trees[0] == trees[1] == trees[2]
    assert not list(tmp_path.glob("*.staging"))
