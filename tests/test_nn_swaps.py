"""Growth and swaps: which blocks come and go, how many and when, in runs that may be interrupted."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="networks need torch")

from swap_cases import BLOCK, NAMES, SIDE, batches, loss_of, network, phases, run, sparsifier  # noqa: E402

from sparseopt.nn import OMP, OMPR, RigL, Sparsifier, get_method, plan  # noqa: E402
from sparseopt.nn.schedule import Phase  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


# Which blocks come and go.


def brute_pulls(s: Sparsifier, batch: tuple[Any, Any]) -> list[Any]:
    """Gradient norms of all blocks, from a copy of the network without masks."""
    plain = network()
    state = {f"{layer.name}": layer.weight() for layer in s.layers}
    for i in (0, 2):
        state[f"{i}.bias"] = s.model[i].bias.detach()
    plain.load_state_dict(state)
    loss_of(plain, batch).backward()
    side = SIDE // BLOCK
    return [
        plain[i].weight.grad.unflatten(0, (side, BLOCK)).unflatten(2, (side, BLOCK)).pow(2).sum((1, 3)).sqrt()
        for i in (0, 2)
    ]


def check_events(name: str, **settings: Any) -> int:
    """At every event, the blocks of largest gradient outside come in; for swaps, those of smallest norm go out."""
    s = sparsifier(network(), name, phases(("dense", 2), ("sparse", 40)), 0.5, every=4, **settings)
    optimizer = torch.optim.SGD(s.model.parameters(), lr=0.05, momentum=0.9)
    s.attach(optimizer)
    events = 0
    for batch in batches(42):
        pulls = brute_pulls(s, batch)
        old = [layer.kept.clone() for layer in s.layers]
        optimizer.zero_grad()
        loss_of(s.model, batch).backward()
        hooks = dict(optimizer._optimizer_step_post_hooks)
        optimizer._optimizer_step_post_hooks.clear()
        optimizer.step()
        norms = [layer.norms() for layer in s.layers]
        optimizer._optimizer_step_post_hooks.update(hooks)
        s._advance(optimizer)
        if s.step_count <= 2:
            continue
        for layer, before, pull, norm in zip(s.layers, old, pulls, norms, strict=True):
            came, left = layer.kept & ~before, before & ~layer.kept
            events += int(came.sum())
            assert int(came.sum()) == (int(left.sum()) if name != "omp" else int(layer.kept.sum() - before.sum()))
            if came.any():
                assert float(pull[came].min()) >= float(pull[~before & ~came].max())
            if left.any():
                assert float(norm[left].max()) <= float(norm[before & layer.kept].min())
    return events


def test_growth_adds_the_blocks_with_the_largest_gradients() -> None:
    assert check_events("omp", first="magnitude") == 2 * 8 - 2  # from one block of each layer to eight


def test_swaps_exchange_the_smallest_blocks_for_those_with_the_largest_gradients() -> None:
    assert check_events("ompr") > 4
    assert check_events("ompr", count=2) > 8
    assert check_events("rigl", regrow=False) > 4


@pytest.mark.parametrize("name", ["omp", "ompr"])
def test_the_smallest_gradients_are_rejected(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = type(get_method(name))
    right = kind.pulls
    monkeypatch.setattr(kind, "pulls", lambda self, layer: -right(self, layer))
    with pytest.raises(AssertionError):
        check_events(name, first="magnitude")


def test_the_largest_norms_leaving_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OMPR, "scores", lambda self, layer: -layer.norms())
    with pytest.raises(AssertionError):
        check_events("ompr")


def test_a_block_that_leaves_may_come_back_at_once_with_its_weights() -> None:
    s = sparsifier(network(), RigL(first="magnitude", fraction=1.0, decay="none"), phases(("sparse", 10)), 0.5, every=2)
    optimizer = torch.optim.SGD(s.model.parameters(), lr=0.01)
    s.attach(optimizer)
    old = s.layers[0].kept.clone()
    run(s, optimizer, batches(2))
    again = s.layers[0].kept & old
    assert 0 < int(again.sum()) < 8
    assert bool((s.layers[0].norms()[again] > 0.0).all())
    assert bool((s.layers[0].norms()[~again] == 0.0).all())


# How many, and when.


def check_drop_fraction(method: RigL, phase: Phase) -> None:
    """f(t) = alpha / 2 (1 + cos(t pi / T_end)), equation (1) of Evci et al., with alpha = 0.3 and T_end = 75 %."""
    end = 0.75 * (phase.stop - phase.start)
    for t in (0, 100, 1600, 12000, 18000, 24000):
        published = 0.3 / 2 * (1 + math.cos(t * math.pi / end))
        assert method.share_swapped(phase, phase.start + t) == pytest.approx(published, rel=1e-12, abs=1e-15)
        assert method.swapped(phase, phase.start + t, 640) == math.floor(published * 640)


def test_rigl_swaps_the_published_share() -> None:
    for start in (0, 500):
        check_drop_fraction(RigL(every=100), Phase("sparse", start, start + 32000))
    for wrong in (RigL(fraction=0.2), RigL(until=1.0), RigL(decay="none")):
        with pytest.raises(AssertionError):
            check_drop_fraction(wrong, Phase("sparse", 0, 32000))


def test_rigl_swaps_every_hundred_steps_until_three_quarters() -> None:
    method, phase = RigL(every=100), Phase("sparse", 500, 32500)
    assert [t for t in range(501, 33000) if method.due(phase, t)] == list(range(600, 24501, 100))
    assert (method.first, method.until, method.fraction, method.decay) == ("random", 0.75, 0.3, "cosine")


def test_the_events_of_a_run_swap_as_many_blocks_as_the_formula_says(monkeypatch: pytest.MonkeyPatch) -> None:
    method = RigL(every=4, regrow=False)
    s = sparsifier(network(), method, phases(("sparse", 40)), 0.5)
    optimizer = torch.optim.SGD(s.model.parameters(), lr=0.05)
    s.attach(optimizer)
    swapped: list[int] = []
    for batch in batches(40):
        old = s.layers[0].kept.clone()
        run(s, optimizer, [batch])
        swapped.append(int((s.layers[0].kept & ~old).sum()))
    expected = [0] * 40
    for t in range(4, 31, 4):
        expected[t - 1] = math.floor(0.15 * (1 + math.cos(math.pi * t / 30)) * 8)
    assert sum(expected) >= 6
    assert swapped == expected


@pytest.mark.parametrize("length", [2, 3, 7, 10, 75, 100, 333])
@pytest.mark.parametrize(
    "settings", [{}, {"every": 5}, {"every": 1000}, {"updates": 3}, {"until": 1.0}, {"until": 1e-6}]
)
def test_every_sparse_phase_has_events_and_none_in_its_last_step(length: int, settings: dict[str, Any]) -> None:
    for kind in (OMP, OMPR, RigL):
        method = kind(**settings)
        phase = Phase("sparse", 50, 50 + length)
        due = [t for t in range(51, 60 + length) if method.due(phase, t)]
        assert due
        assert len(due) == method.spacing(phase)[1]
        if "every" not in settings:  # with it, the number of events follows from the length
            assert len(due) <= method.updates
        assert max(due) < phase.stop
        assert max(due) - 50 <= max(1.0, method.until * length)
    assert OMP(**settings).filled(phase, 50) == 0.1
    assert OMP(**settings).filled(phase, max(due)) == OMP(**settings).filled(phase, phase.stop) == 1.0


def test_growth_only_adds_until_the_budget_is_in_use() -> None:
    for budget in ("uniform", "global", "flops", "erk"):
        model = network()
        s = Sparsifier(model, plan(model, 0.5, BLOCK, min_blocks=4, budget=budget), OMP(start=0.0), total_steps=60)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        s.attach(optimizer)
        masks: list[Any] = []
        run(s, optimizer, batches(60), lambda: masks.append(torch.cat([layer.kept for layer in s.layers])))  # noqa: B023
        assert int(masks[0].sum()) == 2, budget
        assert all(bool((after | ~before).all()) for before, after in itertools.pairwise(masks))
        assert len({int(mask.sum()) for mask in masks}) > 5
        assert int(masks[-1].sum()) == (16 if budget != "erk" else sum(entry.kept for entry in s.plan.layers))


@pytest.mark.parametrize("name", ["ompr", "rigl"])
@pytest.mark.parametrize("budget", ["uniform", "global", "flops", "erk"])
def test_swaps_keep_the_number_of_blocks_of_every_layer(name: str, budget: str) -> None:
    model = network()
    s = Sparsifier(model, plan(model, 0.5, BLOCK, min_blocks=4, budget=budget), name, total_steps=30)
    counts = [int(layer.kept.sum()) for layer in s.layers]
    assert sum(counts) == (16 if budget != "erk" else sum(entry.kept for entry in s.plan.layers))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    s.attach(optimizer)

    def watch() -> None:
        assert [int(layer.kept.sum()) for layer in s.layers] == counts

    first = [layer.kept.clone() for layer in s.layers]
    run(s, optimizer, batches(30), watch)
    assert any(not torch.equal(a, layer.kept) for a, layer in zip(first, s.layers, strict=True))


def test_random_first_blocks_depend_on_the_seed_alone() -> None:
    def first(seed: int) -> list[Any]:
        torch.manual_seed(123 + seed)
        return [layer.kept for layer in sparsifier(network(), "rigl", phases(("sparse", 9)), seed=seed).layers]

    assert all(torch.equal(a, b) for a, b in zip(first(3), first(3), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first(3), first(4), strict=True))
    one, two = first(3)
    assert not torch.equal(one, two)


def test_a_network_that_is_dense_has_nothing_to_swap() -> None:
    s = sparsifier(network(), "ompr", phases(("sparse", 10)), 0.0, every=2)
    optimizer = torch.optim.SGD(s.model.parameters(), lr=0.05)
    s.attach(optimizer)
    run(s, optimizer, batches(10))
    assert s.sparsity == 0.0


# Interrupted, and wrongly used.


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("at", [1, 4, 5, 11])
def test_a_run_that_was_interrupted_ends_with_the_same_weights(name: str, at: int) -> None:
    data = batches(24)

    def start() -> tuple[Sparsifier, Any]:
        s = sparsifier(network(), name, phases(("dense", 1), ("sparse", 23)), every=4)
        optimizer = torch.optim.AdamW(s.model.parameters(), lr=0.01)
        s.attach(optimizer)
        return s, optimizer

    whole, optimizer = start()
    run(whole, optimizer, data)
    first, optimizer = start()
    run(first, optimizer, data[:at])
    saved = copy.deepcopy((first.model.state_dict(), optimizer.state_dict(), first.state_dict()))
    second, optimizer = start()
    second.model.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    second.load_state_dict(saved[2])
    run(second, optimizer, data[at:])
    for a, b in zip(whole.fold().parameters(), second.fold().parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_loop_that_hides_the_gradients_gets_a_sentence() -> None:
    s = sparsifier(network(), "ompr", phases(("sparse", 10)), every=2)
    optimizer = torch.optim.SGD(s.model.parameters(), lr=0.05)
    optimizer.register_step_post_hook(lambda *_: optimizer.zero_grad())
    s.attach(optimizer)
    with pytest.raises(RuntimeError, match=r"0\.weight has no gradient when ompr chooses its blocks: every step"):
        run(s, optimizer, batches(2))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: OMP(first="best"), "first must be 'magnitude', 'random' or 'gradient', got 'best'."),
        (lambda: OMP(start=1.5), "start must be in [0, 1], got 1.5: "),
        (lambda: OMP(until=0), "until must be in (0, 1], got 0.0: "),
        (lambda: OMPR(every=0), "every must be a positive number of steps, or None, got 0."),
        (lambda: OMPR(every=2.5), "every must be a positive number of steps, or None, got 2.5."),
        (lambda: OMPR(every=True), "every must be a positive number of steps, or None, got True."),
        (lambda: OMPR(count=0), "count must be at least 1, got 0: "),
        (lambda: OMPR(fraction=0), "fraction must be in (0, 1], or None to swap count blocks, got 0.0."),
        (lambda: OMPR(decay="linear"), "decay must be 'none' or 'cosine', got 'linear'."),
        (lambda: OMPR(decay="cosine"), "decay='cosine' lowers a fraction, and fraction is None: give fraction=0.3."),
        (lambda: OMPR().share_swapped(Phase("sparse", 0, 9), 1), "fraction is None: count blocks are swapped"),
        (
            lambda: sparsifier(network(), OMP(), phases(("sparse", 9))),
            "first='gradient' needs a dense phase before the sparse one",
        ),
    ],
)
def test_bad_settings_get_a_sentence(call: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011  the sentence is compared below
        call()
    assert str(error.value).startswith(sentence)
    assert str(error.value).endswith(".")


def test_equal_fractions_read_the_same() -> None:
    assert repr(OMPR(fraction=1)) == repr(OMPR(fraction=1.0))
