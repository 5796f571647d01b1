"""Logs: every event reaches the logger, the file and the writer, once and complete, and nothing else is touched."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="logs of prunings need torch")

import torch.distributed as dist  # noqa: E402
from torch import nn  # noqa: E402

from sparseopt.nn import JsonLinesLog, PhaseSchedule, Sparsifier, TensorBoardLog, logs, prune  # noqa: E402
from sparseopt.nn.events import BINS, RANGE, Event  # noqa: E402

torch.set_num_threads(1)
SCHEDULE = PhaseSchedule.from_list([("dense", 3), ("sparsify", 4), ("sparse", 2), ("dense", 2), ("sparse", 3)])


def pruning(method: str = "sequential-attention++") -> Sparsifier:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 8))
    s = prune(model, None, method, sparsity=0.75, block=4, min_blocks=2, schedule=SCHEDULE)
    for layer in s.layers:
        if layer.logits is not None:
            nn.init.normal_(layer.logits)
    return s


def advance(s: Sparsifier, steps: int) -> None:
    for _ in range(steps):
        s.step()


# -- logging -----------------------------------------------------------------------------------------------------------


def test_every_event_is_told_to_the_logger(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="sparseopt.nn")
    s = pruning()
    advance(s, SCHEDULE.total)
    told = [record for record in caplog.records if record.name == "sparseopt.nn"]
    assert [record.getMessage() for record in told] == [str(event) for event in s.history]
    assert {record.levelno for record in told} == {logging.INFO}
    assert told[-1].getMessage() == "step 11: enters a sparse phase, sparsity 0.750"


def test_logging_is_left_as_it_was() -> None:
    code = (
        "import logging, torch\n"
        "from sparseopt.nn import prune\n"
        "s = prune(torch.nn.Linear(32, 32), method='magnitude', sparsity=0.5, block=2, total_steps=2)\n"
        "s.step()\n"
        "logger = logging.getLogger('sparseopt.nn')\n"
        "print(logger.handlers, logging.root.handlers, logger.level, logger.propagate, logging.root.level)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[] [] 0 True 30\n", "")


# -- JSON lines --------------------------------------------------------------------------------------------------------


def wrong_lines(path: Path, s: Sparsifier) -> list[int]:
    """The numbers of the events whose line is missing, double or otherwise."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    expected = [
        {
            "step": event.step,
            "what": event.what,
            "phase": event.phase,
            "number": SCHEDULE.index(event.step),
            "sparsity": event.sparsity,
            "kept": dict(zip(("0.weight", "2.weight"), event.kept, strict=True)),
        }
        for event in s.history
    ]
    longest = max(len(lines), len(expected))
    return [i for i in range(longest) if lines[i : i + 1] != expected[i : i + 1]]


def test_the_file_holds_every_event_from_the_beginning(tmp_path: Path) -> None:
    s = pruning()
    path = tmp_path / "pruning.jsonl"
    s.callbacks.append(JsonLinesLog(s, path))
    assert not path.exists()
    advance(s, 4)
    assert wrong_lines(path, s) == []  # at any moment
    advance(s, SCHEDULE.total - 4)
    assert wrong_lines(path, s) == []
    assert json.loads(path.read_text().splitlines()[0])["step"] == 0


@pytest.mark.parametrize("first", ["the log", "the state"])
def test_a_resumed_run_leaves_no_line_twice(tmp_path: Path, first: str) -> None:
    path = tmp_path / "pruning.jsonl"
    s = pruning()
    s.callbacks.append(JsonLinesLog(s, path))
    advance(s, 5)
    model, state = {k: v.clone() for k, v in s.model.state_dict().items()}, s.state_dict()
    advance(s, 3)  # and the process is killed
    resumed = pruning()
    if first == "the log":
        resumed.callbacks.append(JsonLinesLog(resumed, path))
    resumed.model.load_state_dict(model)
    resumed.load_state_dict(state)
    if first == "the state":
        resumed.callbacks.append(JsonLinesLog(resumed, path))
    advance(resumed, SCHEDULE.total - 5)
    assert wrong_lines(path, resumed) == []


def test_a_log_that_starts_in_the_middle_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_from_the_beginning", lambda s, write: lambda event: write(event, False))
    s = pruning()
    s.callbacks.append(JsonLinesLog(s, tmp_path / "pruning.jsonl"))
    advance(s, SCHEDULE.total)
    assert wrong_lines(tmp_path / "pruning.jsonl", s) != []


def test_only_the_first_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / f"{rank}.jsonl" for rank in (0, 1)]
    for rank, path in enumerate(paths):
        s = pruning("magnitude")
        log = JsonLinesLog(s, path)
        with monkeypatch.context() as patch:
            patch.setattr(dist, "is_initialized", lambda: True)
            patch.setattr(dist, "get_rank", lambda rank=rank: rank)
            log(s.history[-1])
    assert [path.exists() for path in paths] == [True, False]


def test_a_missing_folder_is_told_before_the_training(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"the folder .*nowhere does not exist: create it before the training"):
        JsonLinesLog(pruning(), tmp_path / "nowhere" / "pruning.jsonl")


# -- TensorBoard -------------------------------------------------------------------------------------------------------


class Recorder:
    """A writer that remembers."""

    def __init__(self) -> None:
        self.scalars: dict[str, list[tuple[int, float]]] = {}
        self.histograms: list[tuple[str, dict[str, Any]]] = []
        self.closed = False

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.scalars.setdefault(tag, []).append((step, value))

    def add_histogram_raw(self, tag: str, **values: Any) -> None:
        self.histograms.append((tag, values))

    def close(self) -> None:
        self.closed = True


def expected_scalars(history: list[Event]) -> dict[str, list[tuple[int, float]]]:
    return {
        "pruning/sparsity": [(event.step, event.sparsity) for event in history],
        "pruning/phase": [(event.step, SCHEDULE.index(event.step)) for event in history],
        "pruning kept/0.weight": [(event.step, event.kept[0]) for event in history],
        "pruning kept/2.weight": [(event.step, event.kept[1]) for event in history],
    }


def test_a_writer_gets_scalars_and_histograms() -> None:
    s = pruning()
    writer = Recorder()
    log = TensorBoardLog(s, writer)
    s.callbacks.append(log)
    advance(s, SCHEDULE.total)
    assert writer.scalars == expected_scalars(s.history)
    entered = [event for event in s.history if event.what == "enter"]
    assert [values["global_step"] for _, values in writer.histograms] == [event.step for event in entered]
    for (tag, values), event in zip(writer.histograms, entered, strict=True):
        assert tag == "pruning/attention"
        assert values["bucket_counts"] == event.attention
        assert values["num"] == sum(event.attention) == sum(event.kept)
        limits = values["bucket_limits"]
        assert len(limits) == BINS
        assert limits[-1] == pytest.approx(RANGE[1], abs=1e-12)
        assert values["min"] <= values["sum"] / values["num"] <= values["max"]
        assert values["sum"] ** 2 <= values["sum_squares"] * values["num"] * (1.0 + 1e-12)
    log.close()
    assert writer.closed


def test_moments_of_the_histogram_are_those_of_the_bins() -> None:
    s = pruning("magnitude")
    attention = [0] * BINS
    attention[BINS // 4], attention[-1] = 3, 1
    s.history.append(Event(1, "enter", "dense", 0.0, [16, 8], attention))
    writer = Recorder()
    TensorBoardLog(s, writer)(s.history[-1])
    ((_, values),) = writer.histograms
    width = (RANGE[1] - RANGE[0]) / BINS
    at = [RANGE[0] + (BINS // 4 + 0.5) * width, RANGE[1] - 0.5 * width]
    assert values["num"] == 4
    assert values["sum"] == pytest.approx(3 * at[0] + at[1], rel=1e-12)
    assert values["sum_squares"] == pytest.approx(3 * at[0] ** 2 + at[1] ** 2, rel=1e-12)


def test_methods_without_attention_write_no_histogram() -> None:
    s = pruning("ac/dc")
    writer = Recorder()
    s.callbacks.append(TensorBoardLog(s, writer))
    advance(s, SCHEDULE.total)
    assert writer.scalars == expected_scalars(s.history)
    assert writer.histograms == []


def test_kept_blocks_under_the_names_of_other_layers_are_rejected() -> None:
    s = pruning()
    advance(s, SCHEDULE.total)
    for layers, right in ((s.layers, True), (s.layers[::-1], False)):
        writer = Recorder()
        follows: Any = SimpleNamespace(layers=layers, schedule=s.schedule, history=s.history)
        TensorBoardLog(follows, writer)(s.history[-1])
        assert (writer.scalars == expected_scalars(s.history)) == right


@pytest.mark.parametrize("as_path", [True, False])
def test_tensorboard_reads_what_was_written(tmp_path: Path, as_path: bool) -> None:
    pytest.importorskip("tensorboard", reason="needs tensorboard: pip install tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    s = pruning()
    log = TensorBoardLog(s, tmp_path if as_path else str(tmp_path))
    s.callbacks.append(log)
    advance(s, SCHEDULE.total)
    log.close()
    read = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0, "histograms": 0})
    read.Reload()
    expected = expected_scalars(s.history)
    assert set(read.Tags()["scalars"]) == set(expected)
    for tag, points in expected.items():
        found = [(point.step, point.value) for point in read.Scalars(tag)]
        assert found == [(step, pytest.approx(value, rel=1e-6)) for step, value in points]
    entered = [event for event in s.history if event.what == "enter"]
    histograms = read.Histograms("pruning/attention")
    assert [each.step for each in histograms] == [event.step for event in entered]
    for each, event in zip(histograms, entered, strict=True):
        assert [int(count) for count in each.histogram_value.bucket] == event.attention


def test_missing_tensorboard_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(
        ImportError, match="tensorboard, which shows this log, is not installed: pip install tensorboard"
    ):
        TensorBoardLog(pruning("magnitude"), tmp_path)
    TensorBoardLog(pruning("magnitude"), Recorder())  # a writer of another library will do
