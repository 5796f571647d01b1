"""Pruning methods: laws that all of them obey, and what each one promises by itself."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="networks need torch")

from torch import nn  # noqa: E402

from sparseopt.nn import METHODS, PhaseSchedule, Sparsifier, get_method, plan  # noqa: E402
from sparseopt.nn.blocks import BlockGrid  # noqa: E402
from sparseopt.nn.layers import Layer  # noqa: E402
from sparseopt.nn.masks import PHASES, LogitMask  # noqa: E402
from sparseopt.nn.methods import (  # noqa: E402
    ACDC,
    Expm1,
    GradualMagnitude,
    Magnitude,
    MaskedL1,
    Method,
    PowerPropagation,
    SequentialAttention,
)
from sparseopt.regularizers import Expm1Mask as Expm1Penalty  # noqa: E402
from sparseopt.regularizers import Power  # noqa: E402

SIDE, BLOCK = 24, 4
EVERY_METHOD = pytest.mark.parametrize("name", METHODS)


pytestmark = pytest.mark.usefixtures("one_thread")


# A linear teacher, 36 blocks of which four are not 0, and a student that sees its noisy answers.


@functools.cache
def teacher(seed: int) -> tuple[Any, Any]:
    """Weight, and which of its blocks are not 0."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.zeros(36, dtype=torch.bool)
    chosen[torch.randperm(36, generator=generator)[:4]] = True
    chosen = chosen.view(6, 6)
    entries = chosen.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)
    return torch.randn(SIDE, SIDE, generator=generator) * entries, chosen


def student(seed: int = 0, layers: int = 1) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(*(nn.Linear(SIDE, SIDE, bias=False) for _ in range(layers)))


def sparsifier(
    model: nn.Module, method: Any, total: int = 180, budget: str = "uniform", schedule: Any = None, **settings: Any
) -> Sparsifier:
    chosen = plan(model, 8 / 9, BLOCK, min_blocks=4, budget=budget)
    return Sparsifier(model, chosen, method, None if schedule else total, schedule, **settings)


def train(
    s: Sparsifier, seed: int = 0, each_step: Callable[[int], None] | None = None, lr: float = 0.02, decay: float = 0.0
) -> Sparsifier:
    """All steps of the schedule with Adam, on the teacher's answers."""
    weight, _ = teacher(seed)
    optimizer = torch.optim.Adam(s.model.parameters(), lr=lr, weight_decay=decay)
    s.attach(optimizer)
    generator = torch.Generator().manual_seed(seed + 1)
    for step in range(s.schedule.total):
        x = torch.randn(64, SIDE, generator=generator)
        y = x @ weight.T + 0.5 * torch.randn(64, SIDE, generator=generator)
        optimizer.zero_grad()
        (s.model(x) - y).square().sum(1).mean().backward()
        optimizer.step()
        if each_step is not None:
            each_step(step + 1)
    return s


def blocks_in_use(weight: Any) -> Any:
    """Blocks of a weight that are not 0, without the code that is tested."""
    return (weight.detach().unflatten(0, (-1, BLOCK)).unflatten(2, (-1, BLOCK)) != 0.0).any(3).any(1)


# The budget.


def check_budget(s: Sparsifier) -> None:
    """Exactly the plan's blocks, in every layer, and the folded weights are 0 elsewhere."""
    expected = [entry.kept for entry in s.plan.layers]
    kept = [layer.kept.clone() for layer in s.layers]
    assert [int(mask.sum()) for mask in kept] == expected
    model = s.fold()
    for mask, linear in zip(kept, model, strict=True):
        assert not bool((blocks_in_use(linear.weight) & ~mask).any())


@pytest.mark.parametrize("budget", ["uniform", "erk"])
@EVERY_METHOD
def test_every_method_reaches_the_budget(name: str, budget: str) -> None:
    check_budget(train(sparsifier(student(layers=2), name, 60, budget)))


@EVERY_METHOD
def test_every_method_reaches_a_budget_of_all_layers_together(name: str) -> None:
    s = train(sparsifier(student(layers=2), name, 60, "global"))
    assert sum(int(layer.kept.sum()) for layer in s.layers) == 8
    assert all(int(layer.kept.sum()) >= 1 for layer in s.layers)


@dataclass(frozen=True)
class _OneTooMany(Magnitude):
    def choose(self, layers: Any, plan: Any, phase: Any, step: int) -> list[Any]:
        masks = super().choose(layers, plan, phase, step)
        masks[0].view(-1)[int((~masks[0]).flatten().int().argmax())] = True
        return masks


def test_a_block_too_many_is_rejected() -> None:
    s = train(sparsifier(student(), _OneTooMany(), 20))
    with pytest.raises(AssertionError):
        check_budget(s)


# Sparsify phases.


def check_nested(method: Any) -> None:
    """Within a sparsify phase no block returns, and blocks do leave."""
    schedule = PhaseSchedule.from_list([("dense", 5), ("sparsify", 30), ("dense", 5), ("sparsify", 15), ("sparse", 5)])
    s = sparsifier(student(), method, schedule=schedule)
    seen: list[tuple[Any, Any]] = []
    train(s, each_step=lambda step: seen.append((schedule.at(step - 1), s.layers[0].kept.clone())), lr=0.1)
    inside = [(a, b) for (p, a), (q, b) in itertools.pairwise(seen) if p == q and p.kind == "sparsify"]
    assert not any(bool((after & ~before).any()) for before, after in inside)
    assert sum(int(before.sum()) > int(after.sum()) for before, after in inside) >= 10
    assert int(s.layers[0].kept.sum()) == 4


@EVERY_METHOD
def test_blocks_dropped_in_a_sparsify_phase_stay_out_of_it(name: str) -> None:
    check_nested(get_method(name))


@dataclass(frozen=True)
class _Forgetful(GradualMagnitude):
    def choose(self, layers: Any, plan: Any, phase: Any, step: int) -> list[Any]:
        for layer in layers:
            layer.keep(torch.ones_like(layer.kept))
        return super().choose(layers, plan, phase, step)

    def scores(self, layer: Layer) -> Any:
        return torch.rand(layer.grid.counts)


def test_blocks_that_return_are_rejected() -> None:
    with pytest.raises(AssertionError):
        check_nested(_Forgetful())


def test_a_share_that_falls_brings_no_block_back() -> None:
    method = GradualMagnitude(share=lambda t: 0.5 if 0.3 < t < 0.9 else t)
    schedule = PhaseSchedule.from_list([("sparsify", 60), ("sparse", 1)])
    s = sparsifier(student(), method, schedule=schedule)
    counts: list[int] = []
    train(s, each_step=lambda _: counts.append(int(s.layers[0].kept.sum())))
    assert counts == sorted(counts, reverse=True)


# Same seed, same result.


def check_repeatable(method: Any) -> None:
    results = [train(sparsifier(student(3), method, 60)).fold()[0].weight for _ in range(2)]
    assert torch.equal(*results)


@EVERY_METHOD
def test_the_same_seed_gives_the_same_weights(name: str) -> None:
    check_repeatable(get_method(name))


@dataclass(frozen=True)
class _Whim(Magnitude):
    calls: ClassVar[list[int]] = []

    def scores(self, layer: Layer) -> Any:
        self.calls.append(0)
        return torch.rand(layer.grid.counts, generator=torch.Generator().manual_seed(len(self.calls)))


def test_a_method_with_a_memory_is_rejected() -> None:
    with pytest.raises(AssertionError):
        check_repeatable(_Whim())


# Finding the teacher's blocks.


# A layer that keeps four blocks has no thirds to swap, and 180 steps are few for blocks to grow between swaps.
PATIENT: dict[str, dict[str, Any]] = {"ompr": {"updates": 9}, "rigl": {"updates": 9, "fraction": 0.8}}


def check_finds(method: Any) -> None:
    """Over three teachers, 10 of 12 blocks: drawing 4 of 36 at random finds 10 or more with probability below 1e-8."""
    found = 0
    for seed in range(3):
        s = train(sparsifier(student(seed), method), seed)
        found += int((blocks_in_use(s.fold()[0].weight) & teacher(seed)[1]).sum())
    assert found >= 10, found


@EVERY_METHOD
def test_every_method_finds_the_teachers_blocks(name: str) -> None:
    check_finds(get_method(name, **PATIENT.get(name, {})))


@EVERY_METHOD
def test_every_method_misses_them_with_scores_of_the_wrong_sign(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    method = get_method(name, **PATIENT.get(name, {}))
    word = "pulls" if name == "omp" else "scores"
    right = getattr(type(method), word)
    monkeypatch.setattr(type(method), word, lambda self, layer: -right(self, layer))
    with pytest.raises(AssertionError, match=r"^[0-9]"):
        check_finds(method)


# Names and settings.


@EVERY_METHOD
def test_names_lead_to_methods_and_settings_to_their_texts(name: str) -> None:
    method = get_method(name)
    assert method.name == name
    assert type(method) is METHODS[name]
    assert get_method(name.upper().replace("-", "_")) == method == get_method(METHODS[name]) == get_method(method)
    assert repr(method) == repr(get_method(name)) == repr(replace(method))
    assert " at 0x" not in repr(method)
    assert type(method).__doc__ is not None
    assert not type(method).__doc__.startswith(f"{type(method).__name__}(")  # what a dataclass writes by itself


@EVERY_METHOD
def test_equal_settings_read_the_same(name: str) -> None:
    method = get_method(name)
    numbers = {f.name: getattr(method, f.name) for f in fields(method) if isinstance(f.default, (int, float))}
    other = {key: v if isinstance(v, bool) else np.float64(v) for key, v in numbers.items()}
    assert repr(replace(method, **other)) == repr(method)
    assert get_method(name, updates=7.0) == get_method(name, updates=7)


def test_short_names_are_known() -> None:
    for short, kind in (
        ("sa++", SequentialAttention),
        ("acdc", ACDC),
        ("powerprop", PowerPropagation),
        ("L1", MaskedL1),
    ):
        assert type(get_method(short)) is kind


@pytest.mark.parametrize(
    ("call", "kind", "sentence"),
    [
        (lambda: get_method("magnitud"), ValueError, "method 'magnitud' is not known: did you mean 'magnitude'?"),
        (lambda: get_method("zzz"), ValueError, "method 'zzz' is not known: choose one of sequential-attention++, "),
        (lambda: get_method(7), ValueError, "method 7 is not known: choose one of "),
        (
            lambda: get_method("ac/dc", zeros=True),
            TypeError,
            "method 'ac/dc' has no setting 'zeros': did you mean 'zero'?",
        ),
        (
            lambda: get_method("ac/dc", x=1),
            TypeError,
            "method 'ac/dc' has no setting 'x': it has reset, updates, share, zero.",
        ),
        (lambda: get_method(ACDC(), x=1), TypeError, "method 'ac/dc' has no setting 'x': it has "),
        (lambda: get_method(_Needy), TypeError, "method 'needy' needs a setting 'what': pass what=..."),
        (lambda: get_method("rigl", fraction="much"), ValueError, "fraction must be a number, got 'much'."),
        (lambda: get_method("omp", seed=0.5), ValueError, "seed must be a whole number, got 0.5."),
        (lambda: get_method("ac/dc", zero="no"), ValueError, "zero must be True or False, got 'no'."),
        (lambda: Magnitude(updates=0), ValueError, "updates must be at least 1, got 0."),
        (lambda: Magnitude(reset="some"), ValueError, "reset must be 'layers', 'all' or 'none', got 'some'."),
        (lambda: Magnitude(share=lambda t: t / 2), ValueError, "share(1) must be 1, got 0.5: "),
        (lambda: PowerPropagation(alpha=0.5), ValueError, "alpha must be at least 1 and finite, got 0.5: "),
        (lambda: PowerPropagation(alpha=math.nan), ValueError, "alpha must be at least 1 and finite, got nan: "),
        (lambda: MaskedL1(lam=-1), ValueError, "lam must be 0 or a positive number, got -1.0."),
        (lambda: Expm1(rank="size"), ValueError, "rank must be 'norm' or 'logit', got 'size'."),
        (lambda: SequentialAttention(rank="size"), ValueError, "rank must be 'attention' or 'norm', got 'size'."),
    ],
)
def test_bad_settings_get_a_sentence(call: Callable[[], Any], kind: type[Exception], sentence: str) -> None:
    with pytest.raises(kind) as error:
        call()
    assert str(error.value).startswith(sentence)
    assert str(error.value).endswith((".", "?"))


@dataclass(frozen=True, kw_only=True)
class _Needy(Magnitude):
    what: float

    name: ClassVar[str] = "needy"


def test_a_method_of_ones_own_must_say_how_it_ranks_and_in_which_phases() -> None:
    class Vague(Method):
        def scores(self, layer: Any) -> Any:
            return layer.norms()

    with pytest.raises(TypeError, match="schedule"):
        Vague()
    with pytest.raises(TypeError, match="attention"):
        LogitMask(BlockGrid((4, 4), (2, 2)))


# Before the first step.


def test_magnitude_prunes_before_the_first_step() -> None:
    model = student(5)
    weight = model[0].weight.detach().clone()
    s = sparsifier(model, "magnitude", schedule=PhaseSchedule.from_list([("sparse", 10)]))
    norms = weight.unflatten(0, (6, 4)).unflatten(2, (6, 4)).square().sum((1, 3)).sqrt()
    expected = torch.zeros(36, dtype=torch.bool)
    expected[norms.flatten().argsort(descending=True)[:4]] = True
    assert torch.equal(s.layers[0].kept.flatten(), expected)
    assert s.sparsity == pytest.approx(8 / 9)


def test_attention_refuses_to_rank_blocks_that_it_has_not_seen() -> None:
    schedule = PhaseSchedule.from_list([("sparse", 10)])
    with pytest.raises(ValueError, match="before the first step all blocks have the same attention"):
        sparsifier(student(), "sa++", schedule=schedule)
    s = sparsifier(student(), "sa++", schedule=schedule, rank="norm")
    assert int(s.layers[0].kept.sum()) == 4


def test_attention_ranks_logits_that_float32_cannot_tell_apart_by_their_attention() -> None:
    s = sparsifier(student(), "sa++", clip=False)
    layer = s.layers[0]
    with torch.no_grad():
        layer.logits.view(-1)[20] = 1e-9
    assert bool((layer.mask.attention() == layer.mask.attention()[0, 0]).all())
    assert int(s.method.scores(layer).argmax()) == 20


# Block PowerPropagation.


def test_power_propagation_starts_from_the_networks_function() -> None:
    for alpha in (1.0, 1.7, 2.0, 4.0):
        model = student(2)
        weight = model[0].weight.detach().clone()
        s = sparsifier(model, "powerprop", alpha=alpha)
        torch.testing.assert_close(s.layers[0].weight(), weight, rtol=1e-5, atol=1e-7)
        assert s.method.scores(s.layers[0]).equal(s.layers[0].norms() ** alpha)
        torch.testing.assert_close(s.method.scores(s.layers[0]), s.layers[0].grid.norms(s.layers[0].weight()))


def check_decay_is_a_power(alpha: float) -> None:
    """sum of W^2 = sum of u^(2 / alpha), with u the norms of the blocks that the layer computes with."""
    s = sparsifier(student(2), "powerprop", alpha=2.0)
    layer = s.layers[0]
    u = layer.grid.norms(layer.weight()).double()
    torch.testing.assert_close(layer.stored.detach().double().square().sum(), u.pow(2.0 / alpha).sum())


def test_weight_decay_under_power_propagation_is_the_group_lasso() -> None:
    check_decay_is_a_power(2.0)
    with pytest.raises(AssertionError):
        check_decay_is_a_power(3.0)


def test_power_propagation_with_exponent_one_is_magnitude() -> None:
    with_power = train(sparsifier(student(1), "powerprop", 60, alpha=1.0)).fold()[0].weight
    assert torch.equal(with_power, train(sparsifier(student(1), "magnitude", 60)).fold()[0].weight)


def check_dead_stays_dead(method: Any) -> None:
    s = sparsifier(student(1), method, schedule=PhaseSchedule.from_list([("dense", 20), ("sparse", 5)]))
    dead = torch.zeros(6, 6, dtype=torch.bool)
    dead[1, 2:5] = True
    s.layers[0].clear(dead)
    train(s)
    assert bool((s.layers[0].norms()[dead] == 0.0).all())


def test_a_block_at_zero_stays_there_under_power_propagation() -> None:
    check_dead_stays_dead(PowerPropagation())
    with pytest.raises(AssertionError):
        check_dead_stays_dead(PowerPropagation(alpha=1.0))


# Masks under a penalty: the balance that every stationary point has, worked out by hand.


def settle(method: Method, decay: float, logit_decay: float, steps: int = 1000) -> Layer:
    """One layer in a dense phase, trained to a stationary point by gradient steps on 1/2 ||W_hat - V||^2."""
    noise = torch.randn(SIDE, SIDE, generator=torch.Generator().manual_seed(9))
    target = (teacher(0)[0] + 0.005 * noise).double()
    model = student(4).double()
    s = sparsifier(model, method, schedule=PhaseSchedule.from_list([("dense", steps + 1), ("sparse", 1)]))
    layer = s.layers[0]
    groups = [
        {"params": [layer.stored], "weight_decay": decay},
        {"params": [layer.logits], "weight_decay": logit_decay},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.05)
    s.attach(optimizer)
    for _ in range(steps):
        optimizer.zero_grad()
        (0.5 * (model[0].weight - target).square().sum()).backward()
        optimizer.step()
    layer.stored.grad.copy_(model[0].weight.detach() - target)  # that of the weight that the layer computes with
    return layer


def check_balance(layer: Layer, stored: Callable[[Any], Any], slope: Callable[[Any], Any]) -> None:
    """On the teacher's blocks, ||W_T||^2 = stored(logit) and ||gradient|| = slope(u); the others go to 0.

    In 1000 steps of 0.05, errors of the balance shrink by e^(-50 rate), rate 2 decay = 0.6 under the expm1 mask and
    3 lam / m / (1 + u^2 / m^4) > 0.4 under l1, and blocks on their way to 0 by e^(-50 (decay - 0.02)) or to exactly 0.
    """
    true, logits, norms = teacher(0)[1], layer.logits.detach(), layer.norms()
    u = norms * layer.factors().abs()
    assert float(u[~true].max()) < 1e-6
    assert float(u[true].min()) > 1.0
    torch.testing.assert_close(norms[true] ** 2, stored(logits[true]), rtol=1e-7, atol=0.0)
    torch.testing.assert_close(layer.gradient_norms()[true], slope(u[true]), rtol=1e-7, atol=0.0)


def check_l1(layer: Layer, lam: float, decay: float) -> None:
    scale = 1.5 * lam ** (2 / 3) * decay ** (1 / 3)
    check_balance(layer, lambda m: lam / decay * m.abs(), lambda u: scale * Power(2 / 3).slope(u))
    assert bool((layer.logits[~teacher(0)[1]] == 0.0).all())


def test_masks_under_an_l1_penalty_settle_where_lemma_2_2_says() -> None:
    check_l1(settle(MaskedL1(lam=0.6), 0.9, 0.0), 0.6, 0.9)
    with pytest.raises(AssertionError):
        check_l1(settle(MaskedL1(lam=0.6), 0.9, 0.1), 0.6, 0.9)


def check_expm1(layer: Layer, decay: float) -> None:
    check_balance(layer, lambda w: w * -torch.expm1(-w), lambda u: 0.5 * decay * Expm1Penalty().slope(u))


def test_expm1_masks_settle_where_their_penalty_says() -> None:
    check_expm1(settle(Expm1(), 0.3, 0.3), 0.3)
    with pytest.raises(AssertionError):
        check_expm1(settle(Expm1(), 0.3, 0.1), 0.3)


def one_step(method: Method, lr: float, logits: Any, kind: str = "dense", logit_lr: float = 1.0) -> tuple[Layer, Any]:
    """A step of SGD on the sum of the weights, from given logits; the layer, and the gradient of the logits."""
    s = sparsifier(student(4), method, schedule=PhaseSchedule.from_list([(kind, 10)]))
    layer = s.layers[0]
    with torch.no_grad():
        layer.logits.copy_(logits)
    optimizer = torch.optim.SGD([layer.stored], lr=lr)
    s.add_to(optimizer, logit_lr=logit_lr)
    s.attach(optimizer)
    s.model[0].weight.sum().backward()
    gradient = layer.logits.grad.clone()
    optimizer.step()
    return layer, gradient


@pytest.mark.parametrize("logit_lr", [1.0, 0.1])
def test_the_l1_step_is_the_soft_threshold_at_the_logits_learning_rate(logit_lr: float) -> None:
    start = torch.linspace(-1.0, 1.0, 36).view(6, 6)
    lr, lam = 0.02, 3.0
    layer, gradient = one_step(MaskedL1(lam=lam), lr, start, logit_lr=logit_lr)
    free = start - lr * logit_lr * gradient
    torch.testing.assert_close(
        layer.logits.detach(), torch.nn.functional.softshrink(free, lr * logit_lr * lam), rtol=0, atol=1e-6
    )
    if logit_lr == 1.0:
        assert int((layer.logits == 0.0).sum()) > 0


def test_the_l1_penalty_ends_with_the_choice() -> None:
    start = torch.linspace(0.1, 1.0, 36).view(6, 6)
    layer, gradient = one_step(MaskedL1(lam=3.0), 0.02, start, "sparse")
    assert int(layer.mask.phase) == PHASES["sparse"]
    torch.testing.assert_close(layer.logits.detach(), start - 0.02 * gradient)


def check_projection(method: Method) -> None:
    start = torch.linspace(0.0, 0.1, 36).view(6, 6)
    layer, gradient = one_step(method, 0.1, start)
    torch.testing.assert_close(layer.logits.detach(), (start - 0.1 * gradient).clamp(min=0.0))
    assert 0 < int((layer.logits == 0.0).sum()) < 36


class _NoProjection(Expm1):
    def stepped(self, layer: Layer, lr: float) -> None:
        pass


def test_logits_of_expm1_masks_are_projected_after_each_step() -> None:
    check_projection(Expm1())
    with pytest.raises(AssertionError):
        check_projection(_NoProjection())


def test_a_logit_at_zero_comes_back_where_its_block_lowers_the_loss() -> None:
    layer, gradient = one_step(Expm1(), 0.1, torch.zeros(6, 6))
    sums = layer.grid.pool(layer.stored.detach())  # <W_T, 1>: the weights of blocks at 0 get no gradient
    torch.testing.assert_close(gradient, sums)
    assert torch.equal(layer.logits > 0.0, sums < 0.0)
    assert 0 < int((sums < 0.0).sum()) < 36


def test_blocks_at_exactly_zero_rank_last() -> None:
    for method in (MaskedL1(), Expm1()):
        s = sparsifier(student(4), method)
        layer = s.layers[0]
        with torch.no_grad():
            layer.logits[0, :3] = 0.0
        assert int(method.scores(layer).flatten().argsort()[:3].max()) < 3
        assert bool((method.scores(layer)[0, :3] == 0.0).all())
