"""Compressing: choices follow the measured times, and times are measured fairly.

Times come from a clock that the test sets, so that choices do not depend on the machine; one test uses the real one.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="compressing changes networks of torch")

from compressed_cases import (  # noqa: E402
    CLOSE,
    batch,
    chosen,
    clock,
    drop_blocks,
    law_equal,
    mlp,
    report_of,
    residual,
    sparse_layers,
)
from torch import nn  # noqa: E402

from sparseopt.nn.sparse import compression as compression_module  # noqa: E402
from sparseopt.nn.sparse import deciding, timing  # noqa: E402
from sparseopt.nn.sparse.calls import difference, run  # noqa: E402
from sparseopt.nn.sparse.compression import compress  # noqa: E402
from sparseopt.nn.sparse.detection import blocks_for  # noqa: E402
from sparseopt.nn.sparse.timing import dense_forms, race  # noqa: E402

torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("seconds", "settings", "expected"),
    [
        ({}, {}, "sparse"),
        ({"sparse": 1.0}, {}, "dense"),  # a tie
        ({"sparse": 1.5}, {}, "dense"),
        ({"sparse": 0.999}, {}, "sparse"),
        ({"sparse": 0.6}, {"min_speedup": 2.0}, "dense"),
        ({"sparse": 0.4}, {"min_speedup": 2.0}, "sparse"),
        ({"sparse": 1.5, "compressed": 1.5}, {"min_speedup": 0.5}, "sparse"),
        ({"compressed": 1.0}, {}, "dense"),
        ({"compressed": 2.0}, {}, "dense"),
        ({}, {"exclude": ["0", "3", "5.weig*"]}, "dense"),
        ({}, {"exclude": nn.Linear}, "dense"),
    ],
)
def test_choices_follow_the_clock(seconds: Any, settings: Any, expected: str) -> None:
    model, x = mlp()
    fast = compress(model, example_input=x, timer=clock(**seconds), **settings)
    assert set(chosen(fast).values()) == {expected}
    assert difference(run(model, x), run(fast, x)) < CLOSE
    assert bool(sparse_layers(fast)) == (expected == "sparse")
    for layer in report_of(fast).layers:
        if layer.reason != "excluded":
            assert layer.dense_ms == pytest.approx(1e3)
            assert layer.sparse_ms == pytest.approx(1e3 * seconds.get("sparse", 0.25))
            assert layer.speedup == pytest.approx(1.0 / seconds.get("sparse", 0.25) if expected == "sparse" else 1.0)


def test_the_best_of_all_forms_counts() -> None:
    """Dense is as fast as its fastest form, and of several block sizes the fastest is taken."""

    def timer(calls: Mapping[str, Any]) -> dict[str, float]:
        by_name = {"dense torch": 5.0, "dense oneDNN": 2.0, "compressed": 1.0, "dense": 2.0, "sparse 8 x 8": 3.0}
        return {name: by_name.get(name, 1.0) for name in calls}

    layer = drop_blocks(nn.Linear(160, 160), (8, 8), 0.5)
    assert len(blocks_for(layer.weight)) > 1
    (choice,) = report_of(compress(layer, example_input=batch(2, 160), timer=timer)).layers
    assert choice.dense_ms == pytest.approx(2000.0)
    assert choice.sparse_ms == pytest.approx(1000.0)
    assert choice.block == blocks_for(layer.weight)[1]
    (choice,) = report_of(compress(layer, example_input=batch(2, 160), block=8, timer=timer)).layers
    assert (choice.chosen, choice.block) == ("dense", (8, 8))


def greedy(candidate: Any, forms: Any, *rest: Any) -> Any:
    """Wrong: whatever is sparse is taken, however slow."""
    new, choice = RIGHT_DECISION(candidate, forms, *rest)
    return (new, choice) if new is not None or not forms else (forms[0], deciding._chosen(choice, forms[0]))


RIGHT_DECISION = deciding.decided


def test_a_wrong_choice_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression_module, "decided", greedy)
    with pytest.raises(AssertionError):
        test_choices_follow_the_clock({"sparse": 1.5}, {}, "dense")


def test_every_call_of_a_layer_counts() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = drop_blocks(nn.Linear(32, 32))

        def forward(self, x: Any) -> Any:
            return self.layer(self.layer(x)) + self.layer(x[:1])

    (choice,) = report_of(compress(Twice().eval(), example_input=batch(4, 32), timer=clock())).layers
    assert choice.dense_ms == pytest.approx(3e3)
    assert choice.sparse_ms == pytest.approx(750.0)


# The clock itself.


def test_the_race_takes_turns_and_medians() -> None:
    order: list[str] = []
    calls = {name: partial(order.append, name) for name in ("a", "b")}
    times = race(calls, seconds=0.0, least=3)
    assert order == ["a", "a", "b", "b"] + ["a"] * 4 + ["b"] * 4
    assert set(times) == {"a", "b"}
    order.clear()
    race(calls, seconds=60.0, most=10)
    assert order == ["a", "a", "b", "b"] + (["a"] * 4 + ["b"] * 4) * 3 + ["a"] * 2 + ["b"] * 2


def test_the_first_call_of_a_turn_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    cold = iter([9.0, 9.0, 9.0, 1.0, 2.0, 3.0])
    monkeypatch.setattr(timing, "_timed", lambda call: next(cold))
    assert race({"a": lambda: None}, seconds=0.0, least=1) == {"a": 2.0}


def test_the_race_orders_by_time() -> None:
    times = race({"much": lambda: sum(range(200_000)), "little": lambda: None}, seconds=0.05)
    assert times["little"] * 10 < times["much"]


@pytest.mark.parametrize("activation", ["none", "relu"])
def test_all_dense_forms_compute_the_layer(activation: str) -> None:
    layers = [nn.Linear(8, 5), nn.Conv2d(4, 5, 3), nn.Conv1d(4, 5, 3)]
    for layer, x in zip(layers, [batch(3, 8), batch(2, 4, 6, 6), batch(2, 4, 6)], strict=True):
        wanted = layer(x).detach()
        wanted = wanted.relu() if activation == "relu" else wanted
        for form in dense_forms(layer, x, activation).values():
            with torch.no_grad():
                assert difference(wanted, form()) < CLOSE


def test_the_real_clock_decides_and_the_result_is_right() -> None:
    model, x = mlp()
    fast = law_equal(model, x, partial(compress, timer=partial(race, seconds=0.01)))
    for layer in report_of(fast).layers:
        assert layer.dense_ms is not None
        assert layer.dense_ms > 0.0


def test_the_faster_memory_format_of_the_dense_network_is_the_rival() -> None:
    model, x = residual()

    def timer(calls: Mapping[str, Any]) -> dict[str, float]:
        times = {"dense contiguous": 9.0, "dense": 3.0, "dense channels_last": 1.0, "compressed": 2.0}
        return {name: times.get(name, 0.5) for name in calls}

    fast = compress(model, example_input=x, timer=timer)
    made = report_of(fast)
    assert (made.dense_ms, made.compressed_ms) == (1000.0, 2000.0)
    assert sparse_layers(fast) == []
    assert fast.get_submodule("layer2.0.conv1").weight.is_contiguous(memory_format=torch.channels_last)
    assert difference(run(model, x), run(fast, x)) < CLOSE
