"""A training that was interrupted ends with the same bits as one that was not.

The uninterrupted run saves after every step. From every file, everything is built anew from other random numbers,
loaded, and trained to the end. Then the process itself is killed, at random moments and at every system call of a save.
"""

from __future__ import annotations

import itertools
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
from sparseopt.nn.penalty import BlockPenalty  # noqa: E402
from sparseopt.nn.proximal import Proximal  # noqa: E402

# For methods that need more than a name.
SETTINGS: dict[str, dict[str, Any]] = {
    "masked-l1": {"lam": 0.05},
    "group-lasso": {"lam": 0.02},
    "proximal": {"lam": 0.02, "q": "log"},
}
EVERY = range(SCHEDULE.total + 1)


@pytest.fixture(scope="module", autouse=True)
def one_thread_and_no_waiting_for_the_disk() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)
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


ATTENTION = ("sequential-attention++", "adamw")
Trace = tuple[Path, dict[str, Any]]  # where its files are, and its end


@pytest.fixture(scope="module")
def attention_run(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    folder = tmp_path_factory.mktemp("attention")
    return folder, uninterrupted(folder, *ATTENTION)[-1]


def finished_from(file: Path, seed: int, method: str, optimizer: str = "sgd") -> dict[str, Any]:
    run = build(seed, method, optimizer)
    run.load(file)
    run.finish()
    return run.state()


def model_of(state: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if name.startswith("/model/")}


def test_the_training_passes_through_every_phase_and_every_change() -> None:
    kinds = [phase.kind for phase in SCHEDULE.phases]
    changes = set(itertools.pairwise(kinds))
    assert changes == {
        *(("dense", "dense"), ("dense", "sparsify"), ("dense", "sparse")),
        *(("sparsify", "sparse"), ("sparsify", "dense"), ("sparse", "dense")),
    }
    run = build(0, *ATTENTION)
    run.finish()
    inside = [e.step for e in run.sparsifier.history if e.what == "choose"]
    assert len(inside) >= 4  # choices inside a phase, so that interruptions fall between them
    assert all(0 < e.kept[0] for e in run.sparsifier.history)
    assert len({tuple(e.kept) for e in run.sparsifier.history}) >= 4  # all blocks, the target, and between


@pytest.mark.parametrize("method", METHODS)
def test_from_every_checkpoint_the_next_step_is_the_same_and_leads_to_the_same_state(
    method: str, tmp_path: Path
) -> None:
    # So the step after it is the same as well, and so on: the state is all that the rest of the training depends on.
    optimizer = list(OPTIMIZERS)[list(METHODS).index(method) % 2]
    states = uninterrupted(tmp_path, method, optimizer)
    for k in EVERY[:-1]:
        run = build(k + 1, method, optimizer)
        run.load(tmp_path / f"{k}.pt")
        run.step()
        assert unequal(states[k + 1], run.state()) == [], f"continued after step {k}"


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.slow
def test_from_every_checkpoint_the_run_ends_with_the_same_bits(method: str, optimizer: str, tmp_path: Path) -> None:
    states = uninterrupted(tmp_path, method, optimizer)
    for k in EVERY:
        end = finished_from(tmp_path / f"{k}.pt", k + 1, method, optimizer)
        assert unequal(states[-1], end) == [], f"continued after step {k}"


def test_the_attention_run_ends_with_the_same_bits_from_wherever_it_continues(attention_run: Trace) -> None:
    folder, end = attention_run
    for k in EVERY[::3]:
        other = finished_from(folder / f"{k}.pt", k + 1, *ATTENTION)
        assert unequal(end, other) == [], f"continued after step {k}"


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
    run.data = run.data.roll(8, 0)


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


@pytest.mark.parametrize("forget", FORGETFUL, ids=lambda forget: forget.__name__)
def test_whoever_forgets_one_part_ends_with_other_weights(
    forget: Callable[[Run], None], attention_run: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, end = attention_run

    def load(self: Run, path: Any) -> None:
        true(self, path)
        forget(self)

    true = Run.load
    monkeypatch.setattr(Run, "load", load)
    # Step 7 is inside a sparsify phase, where some blocks have left and others have yet to.
    other = finished_from(folder / "7.pt", 1, *ATTENTION)
    different = unequal(model_of(end), model_of(other))
    # Statistics of batch norms have no influence on training: they are what differs then.
    assert any(name.endswith("running_mean" if forget is forget_statistics else "original") for name in different)


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


def test_an_optimizer_with_proximal_steps_resumes_too(tmp_path: Path) -> None:
    def build_proximal(seed: int) -> Run:
        run = build(seed, "magnitude")
        run.sparsifier.detach()
        run.optimizer = Proximal(run.optimizer, BlockPenalty(run.sparsifier.layers, "l2", lam=0.05))
        run.sparsifier.attach(run.optimizer)
        run.scheduler = torch.optim.lr_scheduler.StepLR(run.optimizer, 7)
        return run

    whole = build_proximal(0)
    for n in range(SCHEDULE.total):
        if n == 11:
            whole.save(tmp_path / "run.pt")
        whole.step()
    run = build_proximal(1)
    run.load(tmp_path / "run.pt")
    run.finish()
    assert unequal(whole.state(), run.state()) == []
    with pytest.raises(ValueError, match="the optimizer is Proximal of SGD there, SGD here"):
        build(1, "magnitude").load(tmp_path / "run.pt")


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


def killed(folder: Path, *tasks: str) -> list[dict[str, Any]]:
    command = [sys.executable, str(Path(__file__).with_name("killed_run.py")), str(folder), *tasks]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    if sys.platform != "linux":
        pytest.skip("the processes to be killed are forks of one that uses torch, which is safe on Linux")
    tasks = ("random:20", "operations:12", "in-place,random:12", "in-place,operations:12")
    return killed(tmp_path_factory.mktemp("killed"), *tasks)


def test_a_run_that_is_killed_20_times_loses_no_more_than_the_steps_since_its_last_checkpoint(
    reports: list[dict[str, Any]],
) -> None:
    report = reports[0]
    assert report["problems"] == []
    assert (report["while_saving"], report["while_training"]) == (10, 10)
    assert 0 < max(report["lost"]) <= report["interval"]
    assert report["finished"] >= 1
    assert report["ends"] == [report["reference"]] * report["finished"]
    assert report["left_over"] == []


def rests_on_whole_files(report: dict[str, Any]) -> bool:
    """The old file until it is replaced by the last operation but one, and the new one from then on."""
    return report["problems"] == [] and report["found"] == ["old"] * (len(report["found"]) - 2) + ["new", "new"]


def test_a_save_that_is_killed_at_some_operation_leaves_the_old_file_or_the_new_one(
    reports: list[dict[str, Any]],
) -> None:
    assert rests_on_whole_files(reports[1])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_a_save_that_is_killed_at_any_operation_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    (report,) = killed(tmp_path, "operations:1")
    assert rests_on_whole_files(report)
    assert len(report["found"]) == report["operations"] + 1 > 100


def test_a_writer_that_writes_in_place_is_found_out(reports: list[dict[str, Any]]) -> None:
    assert len(reports[2]["problems"]) > 0
    assert not rests_on_whole_files(reports[3])
    assert reports[3]["found"].count("damaged") > 5
