"""The benchmark of pruning's cost measures what it says: turns, ratios, memory of fresh processes, pass and fail.

Oracles: times and sizes made by hand, and a method that is slow on purpose.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the benchmark trains networks in torch")

from sparseopt.experiments import bench_nn_overhead as bench  # noqa: E402
from sparseopt.experiments.bench_nn_overhead import CASES, VOCABULARY, Case, Row, row_of, table, with_memory  # noqa: E402
from sparseopt.nn import METHODS, Magnitude, plan  # noqa: E402

TINY = Case(
    lambda: torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 64)),
    lambda n: (torch.randn(n, 64), torch.randn(n, 64)),
    torch.nn.functional.mse_loss,
    lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
    8,
    (4,),
)


# -- arithmetic --------------------------------------------------------------------------------------------------------


def test_the_time_is_the_median_of_the_ratios_of_neighbours() -> None:
    row = row_of("click", 5, "ac/dc", [1.0, 10.0, 2.0], [1.2, 10.0, 2.2])
    assert row.time == pytest.approx(1.1)
    assert (row.low, row.high) == (pytest.approx(1.05), pytest.approx(1.15))
    assert row.total == pytest.approx(13.4 / 13.0)
    slow_minute = row_of("click", 5, "ac/dc", [1.0, 9.0, 9.0, 1.0], [1.0, 9.0, 9.0, 1.0])
    assert slow_minute.time == slow_minute.total == 1.0


def test_memory_is_compared_by_medians_and_counted_in_pruned_weights() -> None:
    row = with_memory(row_of("click", 5, "ac/dc", [1.0], [1.0]), [100, 90, 5000], [110, 120, 100], 5)
    assert row.megabytes == pytest.approx(1e-4)
    assert row.memory == pytest.approx(1.1)
    assert row.added == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("times", "memories", "passed"),
    [
        (1.10, 1.15, True),
        (1.101, 1.0, False),
        (1.0, 1.151, False),
        (0.9, None, True),
        (1.2, None, False),
    ],
)
def test_both_targets_decide(times: float, memories: float | None, passed: bool) -> None:
    row = Row("click", 5, "ac/dc", 1.0, times, times, times, times, None if memories is None else 500.0, memories)
    assert row.passed is passed
    line = table([row]).splitlines()[1].split()
    assert line[:5] == ["click", "5", "ac/dc", "1", f"{times:.3f}"]
    assert line[-1] == ("pass" if passed else "FAIL")
    assert "time at most 1.10, memory at most 1.15" in table([row])


# -- cases -------------------------------------------------------------------------------------------------------------


def test_the_click_cases_prune_the_first_dense_layer_and_all_of_them() -> None:
    model = CASES["click"].model()
    for block in CASES["click"].blocks:
        assert [layer.name for layer in plan(model, 0.9, block, exclude=CASES["click"].exclude).layers] == [
            "dense.0.weight"
        ]
        names = [layer.name for layer in plan(model, 0.9, block, exclude=CASES["click-all"].exclude).layers]
        assert names == ["dense.0.weight", "dense.2.weight", "dense.4.weight"]
    rows, y = CASES["click"].batch(7)
    assert rows.shape == (7, 39)
    assert y.shape == model(rows).shape
    assert 265_000 < sum(VOCABULARY) < 270_000


@pytest.mark.parametrize("block", CASES["resnet50"].blocks)
def test_the_image_case_prunes_most_weights_of_the_network(block: int) -> None:
    pruned = plan(CASES["resnet50"].model(), 0.9, block)
    assert pruned.real_sparsity > 0.8
    x, y = CASES["resnet50"].batch(2)
    assert (x.shape, y.shape) == ((2, 3, 224, 224), (2,))


# -- measuring ---------------------------------------------------------------------------------------------------------


def test_steps_take_turns_and_only_one_network_is_pruned(monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[str] = []

    def trainer(case: Case, method: str | None, block: int, size: int) -> object:
        def step() -> float:
            turns.append(method or "dense")
            return float(len(turns))

        return step

    monkeypatch.setattr(bench, "trainer", trainer)
    dense, pruned = bench.step_times(TINY, "ac/dc", 4, 8, repeats=3)
    assert turns == ["dense", "ac/dc"] * (bench.WARM + 3)
    first = 2 * bench.WARM
    assert (dense, pruned) == ([first + 1, first + 3, first + 5], [first + 2, first + 4, first + 6])


def test_the_timed_steps_are_in_a_sparsify_phase_with_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    original = bench.prune

    def prune(*arguments: object, **options: object) -> object:
        made.append(original(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(bench, "prune", prune)
    bench.step_times(TINY, "sequential-attention++", 4, 8, repeats=7)
    (sparsifier,) = made
    assert sparsifier.step_count == bench.WARM + 7
    assert sparsifier.phase.kind == "sparsify"
    assert [event.step for event in sparsifier.history if event.what == "choose"] == [bench.WARM + 3, bench.WARM + 6]


def test_a_method_that_is_slow_on_purpose_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(Magnitude):
        name = "slow"
        steps = True

        def stepped(self, layer: object, lr: float) -> None:
            time.sleep(0.02)

    monkeypatch.setitem(METHODS, "slow", Slow)
    row = row_of("tiny", 4, "slow", *bench.step_times(TINY, "slow", 4, 8, repeats=5))
    assert row.seconds < 0.02
    assert row.time > 2.0
    assert not row.passed


def _allocate(pipe: object, name: str, method: str | None, block: int, size: int, threads: int) -> None:
    before = bench.peak()
    filled = torch.ones(size, dtype=torch.uint8)
    pipe.send(bench.peak() - before if int(filled[-1]) else 0)  # type: ignore[attr-defined]


def test_a_fresh_process_is_measured_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    # With the mark of this process, the child would not see its own allocation.
    large = torch.ones(500 * 2**20, dtype=torch.uint8)
    monkeypatch.setattr(bench, "_measure", _allocate)
    assert bench.memory("click", None, 5, 200 * 2**20, 1) == pytest.approx(200 * 2**20, rel=0.05)
    assert bench.peak() > large.numel()


def test_a_process_that_dies_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stillborn:
        Pipe = staticmethod(multiprocessing.Pipe)

        def Process(self, target: object, args: object) -> Stillborn:
            return self

        def start(self) -> None:
            pass

        join = start

    monkeypatch.setattr(bench.multiprocessing, "get_context", lambda kind: Stillborn())
    with pytest.raises(RuntimeError, match="the process that measures click died"):
        bench.memory("click", None, 5, 1, 1)


# -- a whole run -------------------------------------------------------------------------------------------------------


def test_a_quick_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(bench.CASES, "click", TINY)
    monkeypatch.setattr(bench, "memory", lambda name, method, *rest: 100 if method is None else 200)
    file = tmp_path / "rows.json"
    threads = torch.get_num_threads()
    arguments = ["--cases", "click", "--repeats", "3", "--threads", str(threads), "--method", "ac/dc", "--profile"]
    assert bench.main([*arguments, "--json", str(file)]) == 1  # twice the memory
    result = json.loads(file.read_text(encoding="utf-8"))
    (row,) = result["rows"]
    assert (row["case"], row["block"], row["method"], row["memory"], row["passed"]) == ("click", 4, "ac/dc", 2.0, False)
    assert row["seconds"] > 0.0
    assert result["environment"]["versions"]["torch"] == torch.__version__
    printed = capsys.readouterr().out
    assert "FAIL" in printed
    assert "Self CPU" in printed
    assert bench.main([*arguments[:-1], "--processes", "0", "--repeats", "1", "--blocks", "4", "2"]) in (0, 1)
    assert capsys.readouterr().out.count("click") == 2
