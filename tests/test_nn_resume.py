"""A training that was interrupted ends with the same bits as one that was not.

The uninterrupted run saves after every step. From every file, everything is built anew from other random numbers,
loaded, and trained to the end. Then the process itself is killed, at random moments and at every system call of a save.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="sparseopt.nn needs torch")

import resumable  # noqa: E402
from resumable import OPTIMIZERS, SCHEDULE, Run, unequal  # noqa: E402

from sparseopt.nn import METHODS  # noqa: E402
from sparseopt.nn.checkpoint import load_checkpoint  # noqa: E402

# For methods that need more than a name.
SETTINGS: dict[str, dict[str, Any]] = {
    "masked-l1": {"lam": 0.05},
    "group-lasso": {"lam": 0.02},
    "proximal": {"lam": 0.02, "q": "log"},
}
EVERY = range(SCHEDULE.total + 1)


@pytest.fixture(autouse=True)
def one_thread_and_no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr("os.fsync", lambda _: None)
    yield
    torch.set_num_threads(threads)


def build(seed: int, method: str, optimizer: str = "sgd") -> Run:
    return Run(seed, method, optimizer, **SETTINGS.get(method, {}))


def uninterrupted(folder: Path, method: str, optimizer: str = "sgd") -> list[dict[str, Any]]:
    """The state after every step; files 0.pt, 1.pt, ... are written on the way."""
    run = build(0, method, optimizer)
    run.save(folder / "0.pt")
    states = [run.state()]
    while run.done < SCHEDULE.total:
        run.step()
        run.save(folder / f"{run.done}.pt")
        states.append(run.state())
    return states


def finished_from(file: Path, seed: int, method: str, optimizer: str = "sgd") -> dict[str, Any]:
    run = build(seed, method, optimizer)
    run.load(file)
    run.finish()
    return run.state()


def model_of(state: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if name.startswith("/model/")}


def test_the_training_passes_through_every_phase_and_every_change() -> None:
    kinds = [phase.kind for phase in SCHEDULE.phases]
    changes = set(zip(kinds, kinds[1:], strict=False))
    assert changes == {
        *(("dense", "dense"), ("dense", "sparsify"), ("dense", "sparse")),
        *(("sparsify", "sparse"), ("sparsify", "dense"), ("sparse", "dense")),
    }
    run = build(0, "sequential-attention++")
    run.finish()
    inside = [e.step for e in run.sparsifier.history if e.what == "choose"]
    assert len(inside) >= 4  # choices inside a phase, so that interruptions fall between them
    assert all(0 < e.kept[0] for e in run.sparsifier.history)
    assert len({tuple(e.kept) for e in run.sparsifier.history}) > 4


@pytest.mark.parametrize("method", METHODS)
def test_a_run_that_is_interrupted_after_every_single_step_stays_the_same_run(method: str, tmp_path: Path) -> None:
    optimizer = list(OPTIMIZERS)[list(METHODS).index(method) % 2]
    whole = build(0, method, optimizer)
    run = build(0, method, optimizer)
    for n in range(SCHEDULE.total):
        whole.step()
        run.step()
        run.save(tmp_path / "run.pt")
        run = build(n + 1, method, optimizer)
        run.load(tmp_path / "run.pt")
        assert unequal(whole.state(), run.state()) == [], f"after step {n + 1}"


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    "method", [pytest.param(m, marks=() if m == "sequential-attention++" else pytest.mark.slow) for m in METHODS]
)
def test_from_every_checkpoint_the_run_ends_with_the_same_bits(method: str, optimizer: str, tmp_path: Path) -> None:
    states = uninterrupted(tmp_path, method, optimizer)
    # With the other optimizers, the fast tests look at the steps around the changes of phase.
    for k in EVERY:
        end = finished_from(tmp_path / f"{k}.pt", k + 1, method, optimizer)
        assert unequal(states[-1], end) == [], f"continued after step {k}"


def forget_steps(run: Run) -> None:
    # The phase is as it should be, only the position in it is not.
    run.sparsifier.step_count = run.sparsifier.phase.start


def forget_masks(run: Run) -> None:
    for layer in run.sparsifier.layers:
        layer.keep(torch.ones_like(layer.kept))


def forget_logits(run: Run) -> None:
    for _, logits in run.sparsifier.new_parameters():
        logits.detach().zero_()


def forget_moments(run: Run) -> None:
    run.optimizer.state.clear()


def forget_statistics(run: Run) -> None:
    run.model[1].reset_running_stats()


def forget_learning_rate(run: Run) -> None:
    run.scheduler.last_epoch = 0


def forget_batches(run: Run) -> None:
    run.done = run.done // 8 * 8 + (run.done + 1) % 8


def forget_torch(run: Run) -> None:
    torch.manual_seed(99)


def forget_numpy(run: Run) -> None:
    np.random.seed(99)  # noqa: NPY002


def forget_python(run: Run) -> None:
    random.seed(98)


FORGETFUL = [
    *(forget_steps, forget_masks, forget_logits, forget_moments, forget_statistics),
    *(forget_learning_rate, forget_batches, forget_torch, forget_numpy, forget_python),
]


@pytest.fixture(scope="module")
def attention_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("attention")
    return folder, uninterrupted(folder, "sequential-attention++", "adamw")[-1]


@pytest.mark.parametrize("forget", FORGETFUL, ids=lambda forget: forget.__name__)
def test_whoever_forgets_one_part_ends_with_other_weights(
    forget: Callable[[Run], None], attention_run: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, end = attention_run

    def load(self: Run, path: Any) -> None:
        true(self, path)
        forget(self)

    true = Run.load
    monkeypatch.setattr(Run, "load", load)
    # Step 7 is inside a sparsify phase, where some blocks have left and others have yet to.
    other = finished_from(folder / "7.pt", 1, "sequential-attention++", "adamw")
    different = unequal(model_of(end), model_of(other))
    assert any(name.endswith("original") for name in different) or forget is forget_statistics and different


def test_a_resumed_run_folds_to_the_same_network(tmp_path: Path) -> None:
    whole, run = build(0, "ac/dc"), build(1, "ac/dc")
    for _ in range(20):
        whole.step()
    whole.save(tmp_path / "run.pt")
    run.load(tmp_path / "run.pt")
    random.seed(3)
    for each in (whole, run):
        load_checkpoint(tmp_path / "run.pt", *each.parts)
        each.finish()
        each.sparsifier.fold()
    assert unequal({"w": whole.model[0].weight.tolist()}, {"w": run.model[0].weight.tolist()}) == []
    assert float((run.model[0].weight == 0).float().mean()) > 0.5


def test_a_shuffling_loader_continues_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    """The recipe in the documentation of `save_checkpoint`: the generator as the epoch began, and batches taken."""

    def train(run: Run, stop: int, saves: bool, start: dict[str, Any] | None = None) -> list[list[int]]:
        generator = torch.Generator().manual_seed(3)
        loader = torch.utils.data.DataLoader(range(20), batch_size=4, shuffle=True, generator=generator)
        taken, seen = 0, []
        if start is not None:
            generator.set_state(start["generator"])
            taken = start["taken"]
        while True:
            began = generator.get_state()
            for number, batch in enumerate(loader):
                if number < taken:
                    continue
                seen.append(batch.tolist())
                run.step()
                if run.done == stop:
                    if saves:
                        extra = {"generator": began, "taken": number + 1, "done": run.done}
                        resumable.save_checkpoint(tmp_path / "run.pt", *run.parts, extra=extra)
                    return seen
            taken = 0

    order = train(build(0, "magnitude"), 23, saves=False)
    first = train(build(0, "magnitude"), 12, saves=True)
    run = build(1, "magnitude")
    extra = load_checkpoint(tmp_path / "run.pt", *run.parts)
    run.done = extra["done"]
    assert first + train(run, 23, saves=False, start=extra) == order
    assert len({tuple(batch) for batch in order}) > 15


def killed(folder: Path, *arguments: str) -> dict[str, Any]:
    script = Path(__file__).with_name("killed_run.py")
    command = [sys.executable, str(script), str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="the processes to be killed are forked")
def test_a_run_that_is_killed_20_times_loses_no_more_than_the_steps_since_its_last_checkpoint(tmp_path: Path) -> None:
    report = killed(tmp_path, "random", "20")
    assert report["problems"] == []
    assert report["kills"] == 20
    assert report["while_saving"] >= 5  # moments that matter are among them
    assert report["while_training"] >= 3
    assert max(report["lost"]) <= report["interval"]
    assert max(report["lost"]) > 0
    assert report["finished"] >= 1
    assert report["ends"] == [report["reference"]] * report["finished"]
    assert report["left_over"] == []


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="the processes to be killed are forked")
def test_a_save_that_is_killed_at_any_of_its_operations_leaves_the_old_checkpoint_or_the_new_one(tmp_path: Path) -> None:
    report = killed(tmp_path, "operations")
    assert report["problems"] == []
    assert report["operations"] > 50
    assert set(report["found"]) == {"old", "new"}
    # The old one until the file gets its name, and the new one from then on.
    assert report["found"] == sorted(report["found"], reverse=True)


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="the processes to be killed are forked")
def test_a_writer_that_writes_in_place_is_found_out(tmp_path: Path) -> None:
    report = killed(tmp_path, "operations", "in-place")
    assert len(report["problems"]) > 50
