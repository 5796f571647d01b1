"""Trainings that are killed, stopped, or run out of space go on to the end of an uninterrupted one, bit by bit.

killed_training.py does it in real processes; one process with everything imported forks them, and every line of its
report is a test here.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from shared_report import shared_report

pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("lightning", reason="training needs lightning")
pytest.importorskip("pydantic", reason="recipes need pydantic")
pytest.importorskip("pyarrow", reason="clicks are converted with pyarrow")

SCRIPT = Path(__file__).parent / "killed_training.py"
LIMIT = 1200.0  # seconds; a machine that does much else at a time needs some hundred
KILLED = -signal.SIGKILL

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the trainings that are killed are forked")

# Where runs are killed: each is killed at all of the places, one life after another, before it may go on to the end.
KILLS = {
    "before the first checkpoint": "step:1:write:9:half:2:replace-checkpoint:1:evaluate:1",
    "around checkpoints": "write:30:save:2:forget:1:step:9:half:4",
    "while going on": "step:14:begin:1:rewind:1:replace-steps.csv:1:replace-epochs.csv:1:replace-recipe:1:save:3",
    "at the end": "evaluate:3:save:1:fold:1:model:1:replace-model:1:end:1:replace-result:1:forget:1",
}
DAMAGE = ("flip", "cut")
LIMITS = ("save:1", "save:3", "line:4", "model:1", "end:1")
WRONG = ("optimizer", "rates", "sums", "counts", "logits", "masks", "seeds", "batches", "lines")
TASKS = [
    *(f"kill:{places}" for places in KILLS.values()),
    *(f"chain:{seed}" for seed in (0, 1)),
    *(f"stop:{step}" for step in (7, 24)),
    *(f"damage:{how}" for how in (*DAMAGE, "all")),
    *(f"limit:{where}" for where in LIMITS),
    "space:200k",
    "truncated",
    *(f"wrong:{how}" for how in WRONG),
]


def said_by_the_script(folder: Path) -> dict[str, Any]:
    # With mounts of its own a disk of the script is gone with the script.
    alone = ["unshare", "--mount"]
    may = shutil.which("unshare") and not subprocess.run([*alone, "true"], capture_output=True, check=False).returncode
    command = [*(alone if may else []), sys.executable, str(SCRIPT), str(folder), *TASKS]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return shared_report(tmp_path_factory, "killed_trainings", said_by_the_script, LIMIT + 30.0)


def report_of(reports: dict[str, Any], task: str) -> dict[str, Any]:
    report = reports[task]
    assert "failed" not in report, report
    return report


def sentence_of(report: dict[str, Any], words: str) -> None:
    """The process ended with status 2 and one sentence, and no traceback."""
    assert report["statuses"][0] == 2
    lines = report.get("told", report["said"]).splitlines()
    assert len(lines) == 1, lines
    assert re.fullmatch(f"sparseopt: {words}", lines[0]), lines[0]


@pytest.mark.parametrize("where", KILLS)
def test_killed_in_chosen_states(where: str, reports: dict[str, Any]) -> None:
    report = report_of(reports, f"kill:{KILLS[where]}")
    kills = KILLS[where].count(":") // 2 + 1
    assert report["statuses"] == [KILLED] * kills + [0]
    assert report["differs"] == []


@pytest.mark.parametrize("seed", [0, 1])
def test_killed_again_and_again(seed: int, reports: dict[str, Any]) -> None:
    report = report_of(reports, f"chain:{seed}")
    assert report["statuses"][:-1] == [KILLED] * (len(report["statuses"]) - 1)
    assert len(report["statuses"]) > 3
    assert report["statuses"][-1] == 0
    assert report["differs"] == []


@pytest.mark.parametrize("step", [7, 24])
def test_sigterm_ends_with_a_checkpoint(step: int, reports: dict[str, Any]) -> None:
    report = report_of(reports, f"stop:{step}")
    assert report["statuses"] == [128 + signal.SIGTERM, 0]
    assert report["saved"][0] == f"checkpoint-{step:09d}.pt"
    assert report["said"].startswith(f"told to stop after step {step}, which is saved: the same command goes on.\n")
    assert report["differs"] == []


@pytest.mark.parametrize("how", DAMAGE)
def test_the_checkpoint_before_a_damaged_one(how: str, reports: dict[str, Any]) -> None:
    report = report_of(reports, f"damage:{how}")
    assert report["statuses"] == [0]
    warning, told = report["said"].splitlines()
    assert re.fullmatch(r"\S+checkpoint-000000010\.pt is .* Trying the checkpoint before it\.", warning)
    assert re.fullmatch(r"goes on from \S+checkpoint-000000005\.pt, after 5 of 24 steps\.", told)
    assert report["differs"] == []


def test_only_damaged_checkpoints(reports: dict[str, Any]) -> None:
    report = report_of(reports, "damage:all")
    assert report["statuses"] == [2, 0]
    *warnings, told = report["told"].splitlines()
    assert len(warnings) == 2
    assert all(line.endswith("Trying the checkpoint before it.") for line in warnings)
    assert re.fullmatch(r"sparseopt: no checkpoint in \S+ can be used \(.*\): start anew with --resume never\.", told)
    assert report["kept"]  # nothing was deleted or changed
    assert report["differs"] == []  # --resume never


@pytest.mark.parametrize("where", LIMITS)
def test_no_space(where: str, reports: dict[str, Any]) -> None:
    report = report_of(reports, f"limit:{where}")
    sentence_of(
        report, r"\S+seed0 cannot be written to \(File too large\): make room; the same command then goes on .*\."
    )
    assert "result.json" not in report["partial"]
    assert not any(name.endswith(".tmp") for name in report["partial"])
    assert report["statuses"] == [2, 0]
    assert report["differs"] == []


def test_a_full_disk(reports: dict[str, Any]) -> None:
    report = report_of(reports, "space:200k")
    if not report["mounted"]:
        pytest.skip("no disk of its own can be mounted here")
    sentence_of(report, r"\S+seed0 cannot be written to \(No space left on device\): make room; the same command .*\.")
    assert report["statuses"] == [2, 0]
    assert report["differs"] == []


def test_raw_rows_that_are_cut_short(reports: dict[str, Any]) -> None:
    report = report_of(reports, "truncated")
    sentence_of(report, r".*train\.tsv\.gz.*\.")
    assert report["begun"] == ["lock"]  # no training, and no recipe that the right file would have to agree with


@pytest.mark.parametrize("how", WRONG)
def test_wrong_ways_to_go_on_are_noticed(how: str, reports: dict[str, Any]) -> None:
    report = report_of(reports, f"wrong:{how}")
    assert report["statuses"] == [99 if how == "masks" else 0]  # masks are checked against phases
    assert report["differs"] != []
