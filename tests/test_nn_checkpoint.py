"""Checkpoint files: whole or not there, and refused when damaged or foreign, without having changed anything."""

from __future__ import annotations

import copy
import json
import os
import pickle
import random
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="sparseopt.nn needs torch")

from resumable import OPTIMIZERS, SCHEDULE, Run, leaves, unequal  # noqa: E402
from torch import nn  # noqa: E402

from sparseopt.nn import METHODS, PhaseSchedule, checkpoint, plan, wholefile  # noqa: E402
from sparseopt.nn.checkpoint import load_checkpoint, save_checkpoint  # noqa: E402
from sparseopt.nn.events import BINS, RANGE, Event, observe  # noqa: E402
from sparseopt.nn.randomness import random_state, set_random_state  # noqa: E402
from sparseopt.nn.sharding import Processes  # noqa: E402
from sparseopt.nn.wholefile import read_whole, write_whole  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def trained(steps: int = 6, method: str = "sequential-attention++", optimizer: str = "sgd", **settings: Any) -> Run:
    run = Run(0, method, optimizer, **settings)
    for _ in range(steps):
        run.step()
    return run


# ---------------------------------------------------------------------------------------------------- whole files


SMALL = {"tensor": torch.arange(5), "text": "x", "numbers": [1, 2.5, (True, None)]}


def accepted_damage(path: Path, read: Callable[[Path], Any], every: int = 1) -> list[str]:
    """The changes of a file that `read` does not refuse: a bit of every byte, every smaller length, something more."""
    accepted = []

    def attempt(what: str) -> None:
        try:
            read(path)
        except ValueError as error:
            if str(path) in str(error) and str(error).endswith("."):
                return
        accepted.append(what)

    data = path.read_bytes()
    with open(path, "r+b", buffering=0) as file:
        for i in range(0, len(data), every):
            os.pwrite(file.fileno(), bytes([data[i] ^ 1 << i % 8]), i)
            attempt(f"bit {i % 8} of byte {i}")
            os.pwrite(file.fileno(), data[i : i + 1], i)
    assert path.read_bytes() == data
    for length in range(len(data) - 1, -1, -every):
        os.truncate(path, length)
        attempt(f"{length} bytes of {len(data)}")
    for what, more in (("one byte more", data + b"\n"), ("twice", data + data)):
        path.write_bytes(more)
        attempt(what)
    return accepted


@pytest.mark.skipif(os.name != "posix", reason="single bytes are written with pwrite")
def test_every_change_of_a_file_is_noticed(tmp_path: Path) -> None:
    write_whole(tmp_path / "small.pt", SMALL)
    assert accepted_damage(tmp_path / "small.pt", read_whole) == []


@pytest.mark.skipif(os.name != "posix", reason="single bytes are written with pwrite")
def test_a_reader_without_a_checksum_is_found_out(tmp_path: Path) -> None:
    def read(path: Path) -> Any:
        try:
            return torch.load(path, weights_only=True)
        except Exception as error:
            raise ValueError(f"{path}: {type(error).__name__}.") from error

    write_whole(tmp_path / "small.pt", SMALL)
    assert len(accepted_damage(tmp_path / "small.pt", read, every=7)) > 20


@pytest.mark.parametrize("name", ["empty", "text", "plain torch.save", "pickle", "zip end only"])
def test_files_that_something_else_wrote_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "foreign.pt"
    if name == "plain torch.save":
        torch.save({"model": {}}, path)
    else:
        contents = {"empty": b"", "text": b"epoch 3\n" * 50, "pickle": b"\x80\x04N.", "zip end only": b"PK\x05\x06"}
        path.write_bytes(contents[name])
    run = trained(1)
    with pytest.raises(ValueError, match=r"foreign\.pt is no whole checkpoint: .* give another file\.$"):
        run.load(path)


def test_a_later_format_is_named_and_a_missing_file_stays_a_missing_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(wholefile, "VERSION", 2)
        write_whole(tmp_path / "later.pt", SMALL)
    with pytest.raises(ValueError, match="has format 2, and this sparseopt reads format 1"):
        read_whole(tmp_path / "later.pt")
    with pytest.raises(FileNotFoundError):
        trained(1).load(tmp_path / "nowhere.pt")


def test_the_file_is_a_zip_archive_that_torch_reads_without_pickle(tmp_path: Path) -> None:
    run = trained()
    run.save(tmp_path / "run.pt")
    content = torch.load(tmp_path / "run.pt", weights_only=True)
    assert unequal(leaves(content["model"]), leaves(run.model.state_dict())) == []
    assert content["sparsifier"] == run.sparsifier.state_dict()


def system_calls(monkeypatch: pytest.MonkeyPatch, write: Callable[[], None], folder: Path) -> list[str]:
    """What `write` asks of the disk, in order."""
    calls: list[str] = []
    fsync, replace, digesting = os.fsync, os.replace, wholefile._Digesting.put

    def on_fsync(descriptor: int) -> None:
        calls.append("flush folder" if os.path.samestat(os.fstat(descriptor), os.stat(folder)) else "flush file")
        fsync(descriptor)

    def on_replace(source: Any, target: Any) -> None:
        calls.append("replace")
        replace(source, target)

    def on_write(self: Any, data: Any) -> None:
        if calls[-1:] != ["write"]:
            calls.append("write")
        digesting(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", on_fsync)
        patch.setattr(os, "replace", on_replace)
        patch.setattr(wholefile._Digesting, "put", on_write)
        write()
    return calls


@pytest.mark.skipif(os.name != "posix", reason="folders cannot be flushed here")
def test_contents_reach_the_disk_before_the_name_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = system_calls(monkeypatch, lambda: write_whole(tmp_path / "x.pt", SMALL), tmp_path)
    assert calls == ["write", "flush file", "replace", "flush folder"]


def failures(path: Path, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Let one call after the other of a save fail, as a full disk would; yields after each."""
    content = {"new": torch.ones(3), **SMALL}
    counted: list[str] = []

    def failing(owner: Any, name: str, at: int) -> Callable[..., Any]:
        true = getattr(owner, name)

        def call(*arguments: Any) -> Any:
            counted.append(name)
            if len(counted) == at:
                raise error
            return true(*arguments)

        return call

    def save(to: Path, at: int) -> None:
        counted.clear()
        with monkeypatch.context() as patch:
            for owner, name in ((wholefile._Digesting, "put"), (os, "replace")):
                patch.setattr(owner, name, failing(owner, name, at))
            write_whole(to, content)

    save(path.with_name("elsewhere"), 0)
    os.unlink(path.with_name("elsewhere"))
    for at, name in enumerate(list(counted), 1):
        with pytest.raises(type(error)):
            save(path, at)
        yield name


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=repr)
def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.pt"
    write_whole(path, SMALL)
    old, tried = path.read_bytes(), []
    for name in failures(path, error, monkeypatch):
        tried.append(name)
        assert path.read_bytes() == old
        assert os.listdir(tmp_path) == ["x.pt"]
    assert tried.count("put") > 10
    assert tried[-1] == "replace"


def test_what_a_killed_run_left_is_overwritten_and_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.pt.tmp").write_bytes(b"half a file" * 10_000)
    (tmp_path / "latest.pt").symlink_to("real.pt")
    write_whole(tmp_path / "latest.pt", SMALL)
    assert sorted(os.listdir(tmp_path)) == ["latest.pt", "real.pt"]
    assert (tmp_path / "latest.pt").is_symlink()
    assert read_whole(tmp_path / "latest.pt")["text"] == "x"


def waits_for_another_writer(path: Path) -> bool:
    other = wholefile._claim(path.with_name(path.name + ".tmp"))
    other.write(b"half")
    other.flush()
    writer = threading.Thread(target=write_whole, args=(path, SMALL))
    writer.start()
    writer.join(0.15)
    waited = writer.is_alive()
    other.close()
    writer.join(10.0)
    assert not writer.is_alive()
    return waited


@pytest.mark.skipif(os.name != "posix", reason="files cannot be locked here")
def test_writers_of_one_path_wait_for_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert waits_for_another_writer(tmp_path / "x.pt")
    assert read_whole(tmp_path / "x.pt")["text"] == "x"
    monkeypatch.setattr(wholefile.fcntl, "flock", lambda *_: None)
    assert not waits_for_another_writer(tmp_path / "x.pt")


def test_many_writers_and_a_reader_meet_whole_files_only(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    write_whole(path, {"writer": 0, "data": torch.zeros(100)})
    errors: list[BaseException] = []

    def write(number: int) -> None:
        try:
            for _ in range(8):
                write_whole(path, {"writer": number, "data": torch.full((100,), float(number))})
        except BaseException as error:
            errors.append(error)

    writers = [threading.Thread(target=write, args=(i,)) for i in range(1, 5)]
    for each in writers:
        each.start()
    while any(each.is_alive() for each in writers):
        content = read_whole(path)
        assert bool((content["data"] == content["writer"]).all())
    assert errors == []
    assert os.listdir(tmp_path) == ["x.pt"]


# ---------------------------------------------------------------------------------------------- what is in the file


def test_extra_comes_back_as_it_was(tmp_path: Path) -> None:
    run = trained()
    extra = {
        "epoch": np.int64(3),
        "loss": np.float64(0.1),
        "best": float("inf"),
        "names": ["a", ("b", None, True)],
        7: {"tensor": torch.arange(3), "half": torch.ones(2, dtype=torch.bfloat16), "raw": b"\x00\xff"},
        "counted": Counter({3: 2}),
        "ordered": OrderedDict(z=1, a=2),
        "kind": torch.float16,
    }
    save_checkpoint(tmp_path / "run.pt", *run.parts, extra=extra)
    back = load_checkpoint(tmp_path / "run.pt", *run.parts)
    assert leaves(back) == leaves({**extra, "epoch": 3, "loss": 0.1})
    assert [type(value) for value in back.values()] == [
        int,
        float,
        float,
        list,
        dict,
        Counter,
        OrderedDict,
        torch.dtype,
    ]


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        ({"rng": np.random.default_rng(0)}, r"extra\['rng'\] is a Generator, which a checkpoint cannot hold: use"),
        ({"a": [1, {"b": {2}}]}, r"extra\['a'\]\[1\]\['b'\] is a set,"),
        ([np.zeros(3)], r"extra\[0\] is a ndarray,"),
        ({(1, Path("x")): 0}, r"a key of extra\[1\] is a PosixPath"),
        (len, "extra is a builtin_function_or_method,"),
    ],
)
def test_what_could_not_be_loaded_again_is_refused_at_once(extra: Any, sentence: str, tmp_path: Path) -> None:
    run = trained()
    run.save(tmp_path / "run.pt")
    old = (tmp_path / "run.pt").read_bytes()
    with pytest.raises(ValueError, match=sentence):
        save_checkpoint(tmp_path / "run.pt", *run.parts, extra=extra)
    assert (tmp_path / "run.pt").read_bytes() == old
    assert os.listdir(tmp_path) == ["run.pt"]


def poison_weight(run: Run) -> None:
    run.sparsifier.layers[0].stored.detach()[0, 0, 0, 0] = float("nan")


def poison_logits(run: Run) -> None:
    run.sparsifier.layers[1].logits.detach()[0, 0] = float("inf")


def poison_dense_layer(run: Run) -> None:
    run.model[1].bias.detach()[2] = -float("inf")


def poison_statistics(run: Run) -> None:
    run.model[1].running_mean[0] = float("nan")


def overwrites_with_nan(run: Run, path: Path) -> bool:
    """Whether a save of a poisoned run goes through, or leaves another trace."""
    old = path.read_bytes()
    try:
        run.save(path)
    except FloatingPointError:
        return path.read_bytes() != old or os.listdir(path.parent) != [path.name]
    return True


@pytest.mark.parametrize("poison", [poison_weight, poison_logits, poison_dense_layer, poison_statistics])
def test_nan_does_not_overwrite_the_last_good_checkpoint(
    poison: Callable[[Run], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained()
    run.save(tmp_path / "run.pt")
    poison(run)
    assert not overwrites_with_nan(run, tmp_path / "run.pt")
    with pytest.raises(FloatingPointError, match=r"^[^ ]*[01]\..* (is|are) not finite after 6 steps.*checkpoint.*\.$"):
        run.save(tmp_path / "run.pt")
    # Without the two checks, it would.
    monkeypatch.setattr(checkpoint, "_require_finite", lambda *_: None)
    monkeypatch.setattr("sparseopt.nn.sparsifier.require_finite", lambda *_: None)
    assert overwrites_with_nan(run, tmp_path / "run.pt")


def test_an_infinite_buffer_is_no_accident(tmp_path: Path) -> None:
    run = trained()
    run.model.register_buffer("smallest", torch.tensor(float("inf")))
    run.save(tmp_path / "run.pt")
    run.model.smallest.fill_(1.0)
    run.load(tmp_path / "run.pt")
    assert run.model.smallest.item() == float("inf")


@pytest.mark.parametrize("method", METHODS)
def test_the_state_of_a_sparsifier_is_plain_data(method: str, tmp_path: Path) -> None:
    run = trained(12, method)
    state = run.sparsifier.state_dict()
    torch.save(state, tmp_path / "s.pt")
    for back in (torch.load(tmp_path / "s.pt", weights_only=True), json.loads(json.dumps(state))):
        assert back == state
        other = Run(1, method)
        other.sparsifier.load_state_dict(back)
        assert other.sparsifier.history == run.sparsifier.history
        assert other.sparsifier.step_count == 12
        assert other.sparsifier.state_dict() == state


def test_the_state_of_a_sparsifier_shares_nothing_with_it() -> None:
    run = trained()
    state = run.sparsifier.state_dict()
    before = copy.deepcopy(state)
    for _ in range(6):
        run.step()
    run.sparsifier.history[0].kept.append(-1)
    assert state == before


def test_numbers_of_numpy_in_a_plan_do_not_end_up_in_the_file(tmp_path: Path) -> None:
    model = nn.Linear(16, 16)
    written = plan(model, np.float64(0.5), block=2, min_blocks=8).to_dict()
    torch.save(written, tmp_path / "plan.pt")
    assert torch.load(tmp_path / "plan.pt", weights_only=True) == written


def test_random_numbers_continue_where_they_were() -> None:
    def draw() -> list[float]:
        drawn = [torch.rand(1).item(), random.random(), random.gauss(0.0, 1.0)]
        return [*drawn, np.random.rand(), np.random.normal()]  # noqa: NPY002

    draw()  # leaves NumPy and Python with half a pair of normal numbers
    state = copy.deepcopy(random_state())
    first = [draw() for _ in range(3)]
    set_random_state(state)
    assert [draw() for _ in range(3)] == first
    assert [draw() for _ in range(3)] != first


def test_every_device_gets_its_own_random_state_back(monkeypatch: pytest.MonkeyPatch) -> None:
    states = [torch.full((16,), i, dtype=torch.uint8) for i in range(3)]
    given: dict[int, torch.Tensor] = {}
    for name, replacement in {
        "is_initialized": lambda: True,
        "is_available": lambda: True,
        "device_count": lambda: 3,
        "get_rng_state_all": lambda: states,
        "set_rng_state": lambda state, device: given.__setitem__(device, state),
    }.items():
        monkeypatch.setattr(torch.cuda, name, replacement)
    set_random_state(random_state())
    assert given == dict(enumerate(states))


def test_random_states_of_devices_that_are_not_here_are_mentioned() -> None:
    state = random_state()
    here = torch.cuda.device_count() if torch.cuda.is_available() else 0
    state["cuda"] = [torch.cuda.get_rng_state(i) for i in range(here)] + [torch.zeros(16, dtype=torch.uint8)]
    with pytest.warns(UserWarning, match=f"random states of {here + 1} CUDA devices, and {here} devices are here"):
        set_random_state(state)


def test_a_file_of_an_older_sparseopt_has_the_random_state_of_one_process(tmp_path: Path) -> None:
    run = trained()
    run.save(tmp_path / "run.pt")
    content = read_whole(tmp_path / "run.pt")
    assert content.pop("random_elsewhere") == []
    write_whole(tmp_path / "older.pt", content)
    saved = run.state()
    run.finish()
    run.load(tmp_path / "older.pt")
    assert unequal(run.state(), saved) == []


def test_random_states_of_other_processes_are_mentioned_and_the_first_one_is_taken(tmp_path: Path) -> None:
    run = trained()
    run.save(tmp_path / "run.pt")
    content = read_whole(tmp_path / "run.pt")
    saved = run.state()
    run.finish()
    write_whole(tmp_path / "two.pt", {**content, "random_elsewhere": [random_state()]})
    sentence = r"^.*two\.pt has random states of 2 processes, and this model is spread over 1: what is drawn .*\.$"
    with pytest.warns(UserWarning, match=sentence):
        run.load(tmp_path / "two.pt")
    assert unequal(run.state(), saved) == []


class Pair(Processes):
    """Process 0 of two, the other of which has failed or not."""

    def __init__(self, other: BaseException | None) -> None:
        self.size, self.rank, self.other = 2, 0, other

    def exchange(self, value: Any) -> list[Any]:
        return [value, self.other]


def told(error: BaseException) -> BaseException:
    """What another process raises when `error` happens in this one."""

    class Told(Pair):
        def exchange(self, value: Any) -> list[Any]:
            return [None, value]

    def work() -> None:
        raise error

    with pytest.raises((Exception, KeyboardInterrupt)) as caught:
        Told(None).together(work)
    return caught.value


@pytest.mark.parametrize(
    ("error", "kind", "sentence"),
    [
        (OSError(28, "No space left on device", "x.pt"), OSError, "[Errno 28] No space left on device: 'x.pt'"),
        (FileNotFoundError(2, "No such file", Path("x")), FileNotFoundError, None),
        (OSError("x is a folder."), OSError, "x is a folder."),
        (FloatingPointError("a is not finite."), FloatingPointError, "a is not finite."),
        (torch.OutOfMemoryError("no memory."), RuntimeError, "no memory."),
        (KeyboardInterrupt(), RuntimeError, "KeyboardInterrupt in another process: "),
        (KeyError("a"), RuntimeError, "KeyError in another process: 'a'"),
    ],
    ids=repr,
)
def test_an_error_is_the_same_in_other_processes(error: BaseException, kind: type, sentence: str | None) -> None:
    other = told(error)
    assert type(other) is kind
    assert str(other) == (str(error) if sentence is None else sentence)
    assert str(pickle.loads(pickle.dumps(other))) == str(other)


def test_the_first_process_that_failed_is_heard() -> None:
    def work() -> None:
        raise own

    own, other = ValueError("mine."), ValueError("that of process 1.")
    assert Pair(None).together(lambda: 3) == 3
    with pytest.raises(ValueError, match="that of process 1") as caught:
        Pair(other).together(lambda: 3)
    assert caught.value is other
    with pytest.raises(ValueError, match="mine") as caught:
        Pair(other).together(work)
    assert caught.value is own


# -------------------------------------------------------------------------------- what does not belong to each other


def other_model() -> Run:
    run = trained(2)
    run.model[1] = nn.BatchNorm2d(8, affine=False)
    return run


def other_shape() -> Run:
    run = trained(2)
    run.model[1].running_mean = torch.zeros(9)
    return run


def other_precision() -> Run:
    run = trained(2)
    run.model.double()
    return run


def other_order() -> Run:
    run = trained(2)
    run.optimizer.param_groups[0]["params"].reverse()
    return run


def other_groups() -> Run:
    run = trained(2)
    group = run.optimizer.param_groups[0]
    run.optimizer.add_param_group({"params": [group["params"].pop()]})
    return run


def other_scheduler() -> Run:
    run = trained(2)
    run.scheduler = torch.optim.lr_scheduler.StepLR(run.optimizer, 3)
    return run


def other_layers() -> Run:
    run = trained(2)
    run.sparsifier.plan = plan(nn.Sequential(nn.Linear(64, 64)), 0.7, block=(2, 4), min_blocks=8)
    return run


def other_schedule() -> PhaseSchedule:
    phases = SCHEDULE.to_list()
    phases[2], phases[3] = ["sparse", 3], ["dense", 5]
    return PhaseSchedule.from_list(phases)


MISFITS: dict[str, tuple[Callable[[], Run], str]] = {
    "model": (other_model, r"the model has 1\.weight there, not here; the model has 1\.bias there, not here"),
    "shape": (other_shape, r"1\.running_mean has the shape \(8,\) there, \(9,\) here"),
    "precision": (other_precision, r"weight\.original is torch\.float32 there, torch\.float64 here"),
    "method": (lambda: trained(2, "ac/dc"), r"method is 'sequential-attention\+\+' there, 'ac/dc' here"),
    "setting": (lambda: trained(2, clip=False), "clip of the method is True there, False here"),
    "updates": (lambda: trained(2, updates=4), "updates of the method is 3 there, 4 here"),
    "sparsity": (lambda: trained(2, sparsity=0.6), "sparsity is 0.7 there, 0.6 here; sparsity of 0.weight is 0.7"),
    "block": (lambda: trained(2, block=4), r"block of 0\.weight is \[2, 4\] there, \[4, 4\] here"),
    "layers": (other_layers, "5.weight is pruned there, not here"),
    "total": (
        lambda: trained(2, schedule=PhaseSchedule.from_list([("dense", 9), ("sparse", 8)])),
        "the schedule has 40 steps there, 17 here",
    ),
    "schedule": (
        lambda: trained(2, schedule=other_schedule()),
        "phase 3 of the schedule is sparse for 4 steps there, sparse for 3 here",
    ),
    "optimizer": (lambda: trained(2, optimizer="adamw"), "the optimizer is SGD there, AdamW here"),
    "order": (other_order, "parameter 0 in group 0 of the optimizer is 0.par.* there, 5.bias here .build it before"),
    "groups": (other_groups, "the optimizer has 2 parameter groups there, 3 here"),
    "scheduler": (other_scheduler, "the scheduler is OneCycleLR there, StepLR here"),
}


def changes_when_refused(run: Run, path: Path, load: Callable[[Run, Path], None], sentence: str) -> list[str]:
    random_before = leaves(random_state())
    before = run.state()
    with pytest.raises((ValueError, RuntimeError), match=sentence):
        load(run, path)
    return unequal(before, run.state()) + unequal(random_before, leaves(random_state()))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "run.pt"
    trained(7).save(path)
    return path


@pytest.mark.parametrize("case", MISFITS)
def test_a_checkpoint_of_something_else_is_refused_with_what_differs_and_changes_nothing(
    case: str, saved: Path
) -> None:
    other, difference = MISFITS[case]
    sentence = rf"^.*run\.pt was made otherwise: .*{difference}.*\.$"
    assert changes_when_refused(other(), saved, Run.load, sentence) == []


def test_a_loader_that_checks_as_it_goes_is_found_out(saved: Path) -> None:
    def load(run: Run, path: Path) -> None:
        content = read_whole(path)
        set_random_state(content["random"])
        run.model.load_state_dict(content["model"])
        run.optimizer.load_state_dict(content["optimizer"])
        run.sparsifier.load_state_dict(content["sparsifier"])

    changed = changes_when_refused(trained(2, updates=4), saved, load, "made otherwise: updates")
    assert any(name.startswith("/model") for name in changed)
    assert any(name.startswith("/optimizer") for name in changed)
    assert any("torch" in name for name in changed)


def test_a_damaged_checkpoint_changes_nothing(saved: Path, tmp_path: Path) -> None:
    data = bytearray(saved.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "damaged.pt").write_bytes(data)
    sentence = r"damaged\.pt is damaged, its contents do not match its checksum: go back to an older file\."
    assert changes_when_refused(trained(2), tmp_path / "damaged.pt", Run.load, sentence) == []


def test_a_scheduler_or_scaler_on_one_side_only_is_mentioned(saved: Path, tmp_path: Path) -> None:
    run = trained(2)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    with pytest.raises(ValueError, match="the training has a scheduler there, and none here"):
        load_checkpoint(saved, run.model, run.optimizer, run.sparsifier)
    with pytest.raises(ValueError, match="the training has a scaler here, and none there"):
        load_checkpoint(saved, *run.parts, scaler)
    save_checkpoint(tmp_path / "scaled.pt", *run.parts, scaler)
    with pytest.raises(ValueError, match="the scaler is enabled there and not here"):
        load_checkpoint(tmp_path / "scaled.pt", *run.parts, torch.amp.GradScaler("cpu", enabled=False))
    other = torch.amp.GradScaler("cpu", init_scale=2.0)
    load_checkpoint(tmp_path / "scaled.pt", *run.parts, other)
    assert other.state_dict() == scaler.state_dict()


def test_functions_among_the_settings_are_known_again_in_another_process(tmp_path: Path) -> None:
    def run() -> Run:
        return trained(6, share=lambda t: t)  # another object each time, at another address

    first, second = run(), run()
    assert first.sparsifier.method != second.sparsifier.method
    first.save(tmp_path / "run.pt")
    second.load(tmp_path / "run.pt")


def test_a_foreign_state_is_no_state_of_a_sparsifier() -> None:
    run = trained(2)
    with pytest.raises(ValueError, match="it has no entry 'plan', so it is no state of a sparsifier"):
        run.sparsifier.load_state_dict(run.optimizer.state_dict())


@pytest.mark.parametrize("missing", ["model", "sparsifier"])
def test_whoever_loads_half_of_a_state_hears_of_it_at_the_next_step(missing: str) -> None:
    first, second = trained(12), trained(2)  # a sparse phase and a dense one
    assert (first.sparsifier.phase.kind, second.sparsifier.phase.kind) == ("sparse", "dense")
    if missing != "model":
        second.model.load_state_dict(first.model.state_dict())
        second.sparsifier.load_state_dict(second.sparsifier.state_dict())
    if missing != "sparsifier":
        second.sparsifier.load_state_dict(first.sparsifier.state_dict())
    with pytest.raises(RuntimeError, match=r"the mask of 0\.weight does not: load the state dicts of the model and of"):
        second.step()


def test_checkpoints_do_not_depend_on_wrappers(tmp_path: Path) -> None:
    run = trained()
    compiled = torch.compile(run.model, backend="eager")
    save_checkpoint(tmp_path / "run.pt", compiled, *run.parts[1:])
    other = Run(1, "sequential-attention++")
    load_checkpoint(tmp_path / "run.pt", nn.DataParallel(other.model), *other.parts[1:])
    other.done = run.done
    assert unequal(run.state(), other.state()) == []


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_optimizer_goes_on_driving_the_sparsifier_after_loading(optimizer: str, tmp_path: Path) -> None:
    run = trained(3, optimizer=optimizer)
    run.save(tmp_path / "run.pt")
    run.step()
    run.load(tmp_path / "run.pt")
    run.finish()
    assert run.sparsifier.step_count == SCHEDULE.total
    assert run.sparsifier.phase.kind == "sparse"
    assert [group["params"][0].requires_grad for group in run.optimizer.param_groups] == [True, True]


# ---------------------------------------------------------------------------------------------------------- history


def test_history_tells_sparsity_and_phase_at_every_step() -> None:
    run = Run(0, "sequential-attention++")
    seen = [(run.sparsifier.phase.kind, run.sparsifier.sparsity)]
    while run.done < SCHEDULE.total:
        run.step()
        seen.append((run.sparsifier.phase.kind, run.sparsifier.sparsity))
    events = run.sparsifier.history
    assert [e.step for e in events] == sorted(e.step for e in events)
    told = [[e for e in events if e.step <= n][-1] for n in range(SCHEDULE.total + 1)]
    assert [(e.phase, e.sparsity) for e in told] == seen
    entered = [(e.step, e.phase) for e in events if e.what == "enter"]
    assert entered == [(phase.start, phase.kind) for phase in SCHEDULE.phases]


def histogram_is_right(run: Run) -> bool:
    """Against NumPy's, in float64, from the weights that the layers compute with."""
    layers = run.sparsifier.layers
    factors = np.concatenate([layer.factors().double().numpy().ravel() for layer in layers])
    powers = np.log10(np.abs(factors[factors != 0.0])).clip(*RANGE)
    expected = np.histogram(powers, BINS, RANGE)[0]
    event = observe(layers, 3, "sparse", "enter", run.sparsifier.sparsity)
    return event.attention == expected.tolist() and sum(event.attention) == sum(event.kept)


def test_the_histogram_counts_the_attention_of_blocks_in_use() -> None:
    run = trained(12)
    assert run.sparsifier.phase.kind == "sparse"
    for layer in run.sparsifier.layers:
        layer.logits.data.copy_(torch.linspace(-30.0, 9.0, layer.logits.numel()).view_as(layer.logits))
    run.sparsifier.layers[0].mask.clip = None
    assert histogram_is_right(run)
    assert observe(run.sparsifier.layers, 3, "sparse", "choose", 0.7).attention == []


def test_the_histogram_counts_negative_factors_by_their_size_and_has_a_bin_for_one() -> None:
    run = trained(0, "masked-l1")
    ones = observe(run.sparsifier.layers, 0, "dense", "enter", 0.0)
    assert ones.attention == [0] * (BINS // 2) + [sum(ones.kept)] + [0] * (BINS // 2)
    for layer in run.sparsifier.layers:
        layer.logits.data.copy_(torch.linspace(-3.0, 3.0, layer.logits.numel()).view_as(layer.logits))
    assert histogram_is_right(run)


def test_masks_without_logits_have_no_histogram() -> None:
    assert trained(12, "ac/dc").sparsifier.history[-1].attention == []


def test_an_event_survives_a_list_and_says_what_happened() -> None:
    event = Event(3, "choose", "sparsify", 0.25, [3, 4], [])
    assert Event.from_list(json.loads(json.dumps(event.to_list()))) == event
    assert str(event) == "step 3: has chosen blocks in its sparsify phase, sparsity 0.250"
    written = event.to_list()
    written[4].append(5)
    assert event.kept == [3, 4]
