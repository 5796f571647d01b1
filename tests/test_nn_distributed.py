"""Two processes prune one model: copies under DistributedDataParallel, shards under fully_shard.

What they check is in distributed_worker.py. One pair of processes runs all checks, and every check is a test.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from shared_report import shared_report

torch = pytest.importorskip("torch", reason="distributed pruning needs torch")
if not (torch.distributed.is_available() and torch.distributed.is_gloo_available()):
    pytest.skip("this build of torch has no gloo", allow_module_level=True)

WORKER = Path(__file__).parent / "distributed_worker.py"
LIMIT = 900.0  # seconds; a machine that does much else at a time may need some hundred


sys.path.insert(0, str(WORKER.parent))
try:
    from distributed_worker import CHECKS
finally:
    sys.path.pop(0)


def start(folder: Path) -> list[subprocess.Popen[str]]:
    # The processes talk over the loopback device, whatever else the machine has.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return [
        subprocess.Popen(
            [sys.executable, "-W", "error", str(WORKER), str(rank), str(folder)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]


def outcome(folder: Path, processes: list[subprocess.Popen[str]]) -> dict[str, str]:
    """What went wrong, by check: nothing, or the tracebacks of both processes."""
    said = []
    for process in processes:
        try:
            said.append(process.communicate(timeout=LIMIT)[0])
        except subprocess.TimeoutExpired:
            process.kill()
            said.append(f"{process.communicate()[0]}\nkilled after {LIMIT} seconds")
    files = [folder / f"{rank}.json" for rank in range(2)]
    found = [json.loads(file.read_text()) if file.exists() else {} for file in files]
    report = {}
    for name in CHECKS:
        wrong = [each.get(name, f"it did not run:\n{text[-2000:]}") for each, text in zip(found, said, strict=True)]
        report[name] = "\n".join(f"process {rank}: {what}" for rank, what in enumerate(wrong) if what)
    return report


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return shared_report(
        tmp_path_factory, "two_processes", lambda folder: outcome(folder, start(folder)), 2.0 * LIMIT + 30.0
    )


@pytest.mark.parametrize("name", CHECKS)
def test_two_processes(name: str, report: dict[str, str]) -> None:
    assert report[name] == ""


def test_processes_that_fail_or_never_start_are_reported(tmp_path: Path) -> None:
    first = next(iter(CHECKS))
    (tmp_path / "0.json").write_text(json.dumps({first: "Traceback: it broke"}))
    quiet = [subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    report = outcome(tmp_path, quiet)
    assert "process 0: Traceback: it broke" in report[first]
    assert all("it did not run" in what for what in report.values())
