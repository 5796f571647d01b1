"""What is in a checkpoint: everything comes back as it was, random numbers too, and NaN is not saved."""

from __future__ import annotations

import copy
import json
import os
import pickle
import random
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="sparseopt.nn needs torch")

from resumable import Run, leaves, trained, unequal  # noqa: E402
from torch import nn  # noqa: E402

from sparseopt.nn import METHODS, checkpoint, plan  # noqa: E402
from sparseopt.nn.checkpoint import load_checkpoint, save_checkpoint  # noqa: E402
from sparseopt.nn.randomness import random_state, set_random_state  # noqa: E402
from sparseopt.nn.sharding import Processes  # noqa: E402
from sparseopt.nn.wholefile import read_whole, write_whole  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


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
