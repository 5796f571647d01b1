"""What a sparsifier tells of its steps: sparsity, phase, and the histogram of its attention."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="sparseopt.nn needs torch")

from resumable import SCHEDULE, Run, trained  # noqa: E402

from sparseopt.nn.events import BINS, RANGE, Event, observe  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


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
