"""Finished runs are read whole, written small, and told of: what is no run is named, and nothing is lost on the way.

Folders of runs are made up, see `made_up_runs`; damaged and foreign ones are written here. Oracles: what was written,
and reading it back.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import made_up_runs as made_up
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_runs import click_run, click_runs, printed

from sparseopt.cli import main
from sparseopt.cli.table import add_table, run_table
from sparseopt.experiments.tables import Collection, Run, as_markdown, as_text, collect, document, write
from sparseopt.experiments.tables.cells import KINDS, OURS, grouped
from sparseopt.experiments.tables.runs import POINTS, thinned
from sparseopt.experiments.tables.text import Grid, Heading, Items

# -- reading -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished runs, and one of everything that is none."""
    home = tmp_path_factory.mktemp("runs")
    made_up.criteo(home, seeds=2)
    made_up.imagenet(home / "images", seeds=1)
    (home / "unfinished").mkdir()
    (home / "unfinished" / "recipe.yaml").write_text("made: up\n")
    for name, text in BROKEN.items():
        (home / name).mkdir()
        (home / name / "result.json").write_text(text)
    return home


def _broken(**changes: Any) -> str:
    asked = changes.pop("recipe", None) or made_up.recipe(OURS, 5, 0.9, 0)
    return json.dumps({"finished": True, "recipe": asked, "metrics": {"valid_loss": 7.0}, **changes})


BROKEN = {
    "cut": _broken()[:-9],
    "empty": "",
    "list": "[1, 2]",
    "other": '{"accuracy": 0.9}',
    "going": _broken(finished=False),
    "no-metrics": _broken(metrics={}),
    "no-metrics-at-all": _broken(metrics=None),
    "no-loss": _broken(metrics={"valid_auc": 0.7}),
    "text-for-a-seed": _broken(recipe=made_up.recipe(OURS, 5, 0.9, "x")),
    "no-block": _broken(recipe=made_up.recipe(OURS, None, 0.9, 0)),
    "sparsity-2": _broken(recipe=made_up.recipe(OURS, 5, 2.0, 0)),
    "number-for-a-method": _broken(recipe=made_up.recipe(7, 5, 0.5, 0)),
    "text-for-c": _broken(recipe=made_up.recipe(OURS, 5, 0.5, 0, pruning__settings__c="many")),
    "words-for-curves": _broken(curve=["a", "b"]),
    "other-task": _broken(recipe=made_up.recipe(OURS, 5, 0.9, 0, task="poems")),
}


def test_everything_that_is_no_run_is_named(folder: Path) -> None:
    collection = collect(folder)
    data = grouped(collection, "criteo")
    names = {each.name: each.why for each in data.left}
    images = {each.name for each in collection.runs if each.settings.get("task") == "images"}
    assert len(images) == 18
    assert names.keys() == {"unfinished", *BROKEN, *images}
    assert names["unfinished"] == "not finished: no result.json"
    assert names["going"].startswith("not finished")
    assert names["other"].startswith("foreign")
    assert names["other-task"] == "foreign: a run of the task 'poems'"
    assert names["images/dense_0"] == "foreign: a run of imagenet"
    rest = set(BROKEN) - {"going", "other", "list", "other-task"}
    assert {name for name, why in names.items() if why.startswith("damaged: ")} == rest
    text = as_text(document(collection, "criteo"))
    assert f"In no table: {len(names)} folders" in text
    assert all(f"* {name}: {why}" in text for name, why in names.items())


def test_every_folder_is_a_run_or_is_named(folder: Path) -> None:
    collection = collect(folder)
    folders = {file.parent.relative_to(folder).as_posix() for file in folder.rglob("re*.*")}
    for kind in KINDS:
        data = grouped(collection, kind)
        assert sorted([run.name for run in data.runs] + [each.name for each in data.left]) == sorted(folders)


def test_a_run_is_read_as_it_was_written(folder: Path) -> None:
    run = next(run for run in collect(folder).runs if run.name == f"{OURS}_20_0.97_1")
    asked = made_up.recipe(OURS, 20, 0.97, 1)
    assert run.metrics == {"valid_loss": made_up.made_up_loss(OURS, 20, 0.97, 1), "train_loss": 7.25, "dropped": 0.5}
    assert (run.seed, run.diverged) == (1, False)
    assert run.settings["pruning.method"] == OURS
    assert run.settings["facts.train_rows"] == 4321
    ignored = ("training.seed", "name", "output.folder", "data.cache", "hardware.threads", "training.steps")
    assert not set(ignored) & run.settings.keys()
    assert [tuple(phase) for phase in run.phases] == list(made_up.phases(asked, 400))
    lines = made_up.course(asked, 400, run.metrics["valid_loss"])
    assert run.curves["steps"]["step"] == [line["step"] for line in lines]
    np.testing.assert_allclose(run.curves["steps"]["loss"], [line["loss"] for line in lines], rtol=1e-4)
    assert run.curves["epochs"].keys() == {"step", "loss", "valid_loss"}
    events = {event["step"]: event["sparsity"] for event in made_up.happened(asked, 400)}
    for step, sparsity in zip(run.curves["pruning"]["step"], run.curves["pruning"]["sparsity"], strict=True):
        assert sparsity == pytest.approx(events[step], rel=1e-4)
    entered = [event["step"] for event in made_up.happened(asked, 400) if event["what"] == "enter"]
    assert set(entered) <= set(run.curves["pruning"]["step"])


def test_half_a_last_line_is_dropped(tmp_path: Path) -> None:
    run = made_up.write(tmp_path / "runs" / "a", made_up.recipe(OURS, 5, 0.9, 0), 7.5)
    whole = collect(run.parent).runs[0]
    for name in ("steps.csv", "pruning.jsonl"):
        file = run / name
        file.write_text(file.read_text() + '{"step": 4')
    assert collect(run.parent).runs[0] == whole


def test_a_loss_that_is_no_number_diverged(tmp_path: Path) -> None:
    made_up.write(tmp_path / "a", made_up.recipe(OURS, 5, 0.9, 0), 7.0, metrics={"valid_loss": None})
    made_up.write(tmp_path / "b", made_up.recipe(OURS, 5, 0.9, 1), None)
    assert [run.diverged for run in collect(tmp_path).runs] == [True, True]


def test_a_single_run_is_a_folder_too(tmp_path: Path) -> None:
    run = made_up.write(tmp_path / "mine", made_up.recipe(OURS, 5, 0.9, 0), 7.0)
    assert [each.name for each in collect(run).runs] == ["mine"]


@pytest.mark.parametrize("name", ["nothing", "empty", "other.json", "cut.json"])
def test_what_is_no_source_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other.json").write_text('{"format": "else"}')
    (tmp_path / "cut.json").write_text(
        '{"format": "sparseopt runs 1", "runs": [{}], "lists": [], "left": [], "shared": {}}'
    )
    with pytest.raises((FileNotFoundError, ValueError), match=name):
        collect(tmp_path / name)


# -- the compact file --------------------------------------------------------------------------------------------------


def test_the_compact_file_gives_the_same(folder: Path, tmp_path: Path) -> None:
    collection, file = collect(folder), tmp_path / "results.json"
    write(collection, file)
    assert collect(file) == collection
    for kind in KINDS:
        assert document(collect(file), kind) == document(collection, kind)
    again = tmp_path / "again.json"
    write(collect(file), again)
    assert again.read_bytes() == file.read_bytes()
    lists = json.loads(file.read_text())["lists"]
    assert len(lists) == len({json.dumps(each) for each in lists})
    used = {json.dumps(each) for run in collection.runs for curve in run.curves.values() for each in curve.values()}
    assert {json.dumps(each) for each in lists} == used | {json.dumps(run.phases) for run in collection.runs}


@settings(max_examples=30, deadline=None)
@given(click_runs())
def test_any_runs_come_back_from_the_compact_file(tmp_path_factory: pytest.TempPathFactory, runs: list[Run]) -> None:
    file = tmp_path_factory.getbasetemp() / "any.json"
    write(Collection(tuple(runs)), file)
    back = collect(file)
    assert back.left == ()
    assert [replace(run, settings=dict(sorted(run.settings.items()))) for run in runs] == list(back.runs)


@given(st.integers(0, 400), st.integers(2, POINTS))
def test_thinning_keeps_the_ends_and_changes_nothing_twice(n: int, points: int) -> None:
    columns = {"step": list(range(n)), "loss": [1.0 / 3.0 + i for i in range(n)]}
    once = thinned(columns, points)
    assert len(once["step"]) == min(n, points)
    assert once["step"] == sorted(set(once["step"]))
    assert once["step"][:1] == list(range(n))[:1]
    assert once["step"][-1:] == list(range(n))[-1:]
    assert thinned(once, points) == once
    assert all(
        abs(loss - (1.0 / 3.0 + step)) <= 1e-4 * loss for step, loss in zip(once["step"], once["loss"], strict=True)
    )


# -- what is said ------------------------------------------------------------------------------------------------------


def test_the_top_says_what_ours_were_trained_on(folder: Path) -> None:
    parts = document(collect(folder), "criteo")
    assert isinstance(parts[0], Items)
    mine, theirs, levels = parts[0].sentences
    assert mine.startswith(
        "Ours: made-up/rows, 4,321 rows for training, 765 rows for validation; 4 epochs, batches of 64; "
    )
    assert mine.endswith("runs, seeds 0, 1.")
    assert theirs == "The paper: 33 million training rows, 25 epochs, batches of 32768; means of three runs."
    assert "Levels are therefore not comparable" in levels


def test_levels_are_comparable_at_the_papers_size_only() -> None:
    like = {"training__epochs": 25.0, "training__batch": 32768, "facts__train_rows": 33_003_326}
    for change, comparable in (
        ({}, True),
        ({"training__epochs": 24.0}, False),
        ({"facts__train_rows": 9}, False),
        ({"data__holdout": 0.1}, False),
    ):
        told = document(Collection((click_run(OURS, 5, 0.9, 0, 7.0, **{**like, **change}),)), "criteo")[0]
        assert isinstance(told, Items)
        assert ("levels can be compared" in told.sentences[-1]) is comparable


def test_held_out_rows_are_told() -> None:
    run = click_run(OURS, 5, 0.9, 0, 7.0, data__holdout=0.1, facts__train_rows=90, facts__valid_rows=10)
    assert "10 rows for validation (held out of the training rows: 10 %)" in as_text(
        document(Collection((run,)), "criteo")
    )


def test_markdown_says_the_same(folder: Path) -> None:
    parts = document(collect(folder), "criteo")
    lines = as_markdown(parts).splitlines()
    rows = [
        [cell.strip().replace("\\", "") for cell in line.strip("|").split(" | ")]
        for line in lines
        if line.startswith("| ")
    ]
    expected = [[*row] for part in parts if isinstance(part, Grid) for table in part.tables for row in table]
    assert rows == expected
    assert sum(line.startswith("## ") for line in lines) == sum(isinstance(part, Heading) for part in parts)
    assert "\\_5\\_" in as_markdown([Items(("acdc_5_0.9",))])


def test_blocks_may_be_oblong() -> None:
    runs = [click_run(OURS, block, 0.9, 0, 7.0) for block in ([5, 10], [8, None], [5, 5])]
    found = printed(document(Collection(tuple(runs)), "criteo"))
    told = {key[3] for key, text in found.items() if key[1:3] == (OURS, "ours") and text != "not run"}
    assert told == {"5 x 10", "8 x all", "5 x 5"}


# -- the command -------------------------------------------------------------------------------------------------------


def command(*arguments: Any) -> list[str]:
    parser = argparse.ArgumentParser()
    add_table(parser)
    return list(run_table(parser.parse_args([str(each) for each in arguments])))


def test_the_command_prints_and_writes(folder: Path, tmp_path: Path) -> None:
    small, markdown = tmp_path / "results.json", tmp_path / "table.md"
    text = command("criteo", folder, "--json", small, "--markdown", markdown)
    assert "Table 2: Criteo" in text[0]
    assert text[1:] == [f"\nWrote the runs to {small}.", f"\nWrote the tables to {markdown}."]
    assert command("criteo", small)[0] == text[0]
    assert markdown.read_text(encoding="utf-8") == as_markdown(document(collect(folder), "criteo"))


@pytest.mark.parametrize("option", ["--json", "--markdown", "--figures"])
def test_a_folder_that_is_not_there_is_refused_before_reading(option: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        command("criteo", tmp_path / "nothing", option, tmp_path / "no" / "where")


def test_the_command_is_wired(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", "imagenet", str(folder)]) == 0
    assert "Table 4" in capsys.readouterr().out
    assert main(["table", "criteo", str(tmp_path / "nothing")]) == 2
    assert "nothing does not exist" in capsys.readouterr().err
    assert main(["table", "poems", str(folder)]) == 2
    assert "poems" in capsys.readouterr().err


def test_tables_need_no_torch(folder: Path) -> None:
    code = (
        "import sys\n"
        "from sparseopt.experiments.tables import as_text, collect, document\n"
        f"print(len(as_text(document(collect({str(folder)!r}), 'criteo'))) > 1000, 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]
