"""Conversions that are killed, run out of space or meet damaged files: no half results, and the next call goes on."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="conversion uses the files of sparseopt.nn")
pytest.importorskip("pyarrow")

from sparseopt.experiments.clicks import conversion
from sparseopt.experiments.clicks.columns import Columns
from sparseopt.experiments.clicks.conversion import convert
from sparseopt.experiments.clicks.synthetic import write_raw

SCRIPT = Path(__file__).parent / "killed_conversion.py"

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the conversions that are killed are forked")


def moments(report: dict[str, Any], step: int) -> list[int]:
    return list(range(1, report["operations"] + 1, step))


def reports(folder: Path, *tasks: str, before: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    command = [*before, sys.executable, str(SCRIPT), str(folder), *tasks]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# -- killed ------------------------------------------------------------------------------------------------------------


def test_a_killed_conversion_goes_on(tmp_path: Path) -> None:
    every, chain = reports(tmp_path, "every:83", "chain:150")
    assert every["problems"] == []
    assert every["right"] == every["kills"] == len(moments(every, 83))
    assert chain["problems"] == []
    assert chain["kills"] >= 2  # and not for ever: what was done is not done again


@pytest.mark.slow
def test_a_conversion_that_is_killed_anywhere_goes_on(tmp_path: Path) -> None:
    every, chain, early = reports(tmp_path, "every:5", "chain:150", "early,every:20")
    assert every["problems"] == []
    assert every["right"] == every["kills"] == len(moments(every, 5))
    # There is nothing under the final name up to the move, and all of it from there on.
    assert every["finished"]
    assert every["finished"] == moments(every, 5)[-len(every["finished"]) :]
    assert chain["problems"] == []
    assert any("another result" in problem for problem in early["problems"])


# -- no space ----------------------------------------------------------------------------------------------------------

PLACES = ("replacing", "count_run", "merged", "write", "_malformed", "finish")


def test_no_space_is_told_in_a_sentence_and_the_next_call_goes_on(tmp_path: Path) -> None:
    for report in reports(tmp_path, *(f"limit:{place}" for place in PLACES)):
        assert report["status"] == 3
        sentence = rf"OSError: {tmp_path}/out cannot be finished \(File too large\): make room and convert again, .*\."
        assert re.fullmatch(sentence, report["sentence"])
        assert not report["looks_finished"]
        assert report["problems"] == []
        assert report["right"] == 1


def test_a_full_disk(tmp_path: Path) -> None:
    alone = ("unshare", "--mount")  # the disk is gone with the process
    disk = ("mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(tmp_path))
    tried = (
        subprocess.run([*alone, *disk], capture_output=True, text=True, check=False)
        if shutil.which("unshare")
        else None
    )
    if tried is None or tried.returncode:
        pytest.skip(f"no disk of its own can be mounted here: {tried.stderr.strip() if tried else 'no unshare'}")
    mounted = ("sh", "-c", f'{" ".join(disk)} && exec "$@"', "sh")
    (report,) = reports(tmp_path, "space:128m", before=(*alone, *mounted))
    assert report["problems"] == []
    assert report["sentences"] == [
        f"OSError: {tmp_path}/out cannot be finished (No space left on device): make room and convert again, "
        "it goes on where it stopped."
    ]


# -- damaged -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    return write_raw(tmp_path / "rows.tsv.gz", 2000, seed=5).path


def refused(path: Path, out: Path) -> str:
    with pytest.raises(ValueError, match=path.name) as caught:
        convert(path, out, rows=500)
    assert not out.exists()
    with pytest.raises(FileNotFoundError):
        Columns.open(out)
    return str(caught.value)


def test_a_truncated_gzip_file(packed: Path, tmp_path: Path) -> None:
    whole = packed.read_bytes()
    for length in (len(whole) // 2, len(whole) - 8, len(whole) - 1):
        packed.write_bytes(whole[:length])
        said = refused(packed, tmp_path / "out")
        told = re.fullmatch(
            rf"{packed} is truncated \(the gzip file ends before its checksum\), after (\d+) well-formed rows: "
            r"fetch the file again, and convert it anew\.",
            said,
        )
        assert told, said
        assert (int(told[1]) == 2000) == (length > len(whole) // 2)
    packed.write_bytes(whole)  # fetched again
    assert convert(packed, tmp_path / "out").part("train").rows == 2000


def test_a_damaged_gzip_file(packed: Path, tmp_path: Path) -> None:
    whole = packed.read_bytes()
    packed.write_bytes(whole[:-8] + bytes(4) + whole[-4:])
    assert "is damaged (its checksum does not match), after " in refused(packed, tmp_path / "out")
    middle = len(whole) // 2
    packed.write_bytes(whole[:middle] + bytes(64) + whole[middle + 64 :])
    assert "is damaged (" in refused(packed, tmp_path / "out")
    packed.write_bytes(whole + b"more")
    assert "is damaged (something that is not gzip follows the text), after 2000 " in refused(packed, tmp_path / "out")
    packed.write_bytes(whole + whole)  # two members are no damage
    assert convert(packed, tmp_path / "out").part("train").rows == 4000


def test_a_plain_file_that_ends_in_a_line(packed: Path, tmp_path: Path) -> None:
    text = gzip.decompress(packed.read_bytes())
    path = tmp_path / "rows.tsv"
    path.write_bytes(text[:-150])
    columns = convert(path, tmp_path / "out", min_count=1)
    assert columns.part("train").rows == 1999
    told = (tmp_path / "out" / "malformed.tsv").read_text().splitlines()[1:]
    assert len(told) == 1
    assert told[0].startswith("rows.tsv\t2000\t")


# -- changed meanwhile -------------------------------------------------------------------------------------------------


def stopped(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def stop(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(conversion, where, stop)


@pytest.mark.parametrize("where", ["_split", "merged", "_malformed"])
def test_another_file_or_other_options_start_anew(packed: Path, tmp_path: Path, where: str) -> None:
    other = write_raw(tmp_path / "other.tsv.gz", 1500, seed=6).path
    right = convert(other, tmp_path / "right", min_count=3)
    with pytest.MonkeyPatch.context() as patch:
        stopped(patch, where)
        with pytest.raises(KeyboardInterrupt):
            convert(packed, tmp_path / "out", min_count=2, rows=500)
    assert (tmp_path / "out.staging").is_dir()
    with pytest.MonkeyPatch.context() as patch:
        stopped(patch, where)
        with pytest.raises(KeyboardInterrupt):
            convert(other, tmp_path / "out", min_count=2, rows=500)
    columns = convert(other, tmp_path / "out", min_count=3, rows=500)
    assert columns.vocabulary == right.vocabulary
    for name, column in right.part("train").columns.items():
        assert columns.part("train").columns[name].tolist() == column.tolist()
    assert not (tmp_path / "out.staging").exists()


def test_a_staging_folder_that_is_somebody_elses(packed: Path, tmp_path: Path) -> None:
    mine = tmp_path / "out.staging"
    mine.mkdir()
    (mine / "notes.txt").write_text("keep me")
    with pytest.raises(ValueError, match=r"out.staging holds other files: remove it, or choose another folder"):
        convert(packed, tmp_path / "out")
    assert (mine / "notes.txt").read_text() == "keep me"
