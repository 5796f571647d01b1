"""Trainings by several processes are those of one process, and end together.

distributed_training.py does it in processes that talk through gloo: one process with everything imported forks them as
torchrun starts them, and every line of its report is a test here. Lightning's own start (`hardware.devices=2`) and
torchrun itself are tried once each.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("lightning", reason="training needs lightning")
pytest.importorskip("pydantic", reason="recipes need pydantic")
pytest.importorskip("pyarrow", reason="clicks are converted with pyarrow")
if not (torch.distributed.is_available() and torch.distributed.is_gloo_available()):
    pytest.skip("this build of torch has no gloo", allow_module_level=True)

from shared_report import shared_report  # noqa: E402
from training_cases import NAME, outcome, table, write_recipe, write_rows  # noqa: E402

SCRIPT = Path(__file__).parent / "distributed_training.py"
LIMIT = 1200.0  # seconds; a machine that does much else at a time needs some hundred

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes are forked")

CHECKS = (
    "two_processes_are_one_with_accumulated_gradients",
    "two_processes_are_one_in_float64",
    "two_processes_are_one_in_float32",
    "shards_are_one_in_float32",
    "wrong_ways_are_noticed",
    "the_order_of_blocks_is_clear",
    "killed_processes_go_on",
    "killed_shards_go_on",
    "a_full_disk_of_the_first_ends_both",
    "a_full_disk_at_the_end_ends_both",
    "an_error_of_one_process_ends_both",
    "what_is_wrong_from_the_start_is_told_once",
    "sigterm_of_the_first_is_for_both",
    "both_know_that_a_run_diverges",
)


def checked(folder: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder)], capture_output=True, text=True, check=False, timeout=LIMIT
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return shared_report(tmp_path_factory, "distributed_trainings", checked, LIMIT + 30.0)


@pytest.mark.parametrize("name", CHECKS)
def test_two_processes(name: str, report: dict[str, Any]) -> None:
    assert report[name] == []


def test_every_check_is_a_test(report: dict[str, Any]) -> None:
    assert sorted(report) == sorted(CHECKS)


# -- processes that somebody else starts -------------------------------------------------------------------------------


def command(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    raw = write_rows(tmp_path / "raw")
    return write_recipe(tmp_path / "recipe.yaml", data={"path": str(raw), "min_count": 20})


def test_the_plain_command_starts_its_processes(recipe: Path, tmp_path: Path) -> None:
    done = command(tmp_path, "sparseopt", "prune", str(recipe), "devices=2", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    found = outcome(tmp_path / "runs" / NAME)
    assert found["dropped"] == pytest.approx(0.5, abs=0.02)
    assert json.loads((tmp_path / "runs" / NAME / "result.json").read_text())["processes"] == 2
    assert [row["step"] for row in table(tmp_path / "runs" / NAME, "epochs.csv")] == ["8", "16", "24"]


@pytest.mark.slow
def test_torchrun_starts_the_processes(recipe: Path, tmp_path: Path) -> None:
    run = ("torch.distributed.run", "--nproc-per-node", "2", "-m", "sparseopt", "prune", str(recipe), "devices=2")
    done = command(tmp_path, *run, "--quiet")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert json.loads((tmp_path / "runs" / NAME / "result.json").read_text())["processes"] == 2
    again = command(tmp_path, *run)
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith(f"runs/{NAME} is finished.\n{NAME}: valid loss 0.")
    assert again.stdout.count(NAME) == 2  # told once, and not by each
