"""Growth and swaps: gradients of dropped blocks, a clean start for those that come in, and the choices of the core."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="networks need torch")

from torch import nn  # noqa: E402

from sparseopt import Problem, select  # noqa: E402
from sparseopt.nn import OMP, OMPR, PhaseSchedule, RigL, Sparsifier, get_method, plan, probing  # noqa: E402
from sparseopt.nn.blocks import BlockGrid  # noqa: E402
from sparseopt.nn.correspondence import groups_of  # noqa: E402
from sparseopt.nn.masking import attach_mask  # noqa: E402
from sparseopt.nn.masks import PHASES, BlockMask  # noqa: E402
from sparseopt.nn.probing import ProbedMask  # noqa: E402
from sparseopt.nn.schedule import Phase  # noqa: E402

SIDE, BLOCK = 12, 3  # 16 blocks
NAMES = ("omp", "ompr", "rigl")


pytestmark = pytest.mark.usefixtures("one_thread")


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(SIDE, SIDE), nn.Tanh(), nn.Linear(SIDE, SIDE)).double()


def sparsifier(model: nn.Module, method: Any, schedule: Any, sparsity: float = 0.75, **settings: Any) -> Sparsifier:
    return Sparsifier(model, plan(model, sparsity, BLOCK, min_blocks=4), method, schedule=schedule, **settings)


def phases(*pairs: tuple[str, int]) -> PhaseSchedule:
    return PhaseSchedule.from_list(pairs)


def batches(n: int, seed: int = 7) -> list[tuple[Any, Any]]:
    generator = torch.Generator().manual_seed(seed)
    pairs = torch.randn(n, 2, 16, SIDE, generator=generator, dtype=torch.float64)
    return [(x, y) for x, y in pairs]


def loss_of(model: nn.Module, batch: tuple[Any, Any]) -> Any:
    return (model(batch[0]) - batch[1]).square().mean()


def run(s: Sparsifier, optimizer: Any, data: list[Any], watch: Callable[[], None] | None = None) -> None:
    for batch in data:
        optimizer.zero_grad()
        loss_of(s.model, batch).backward()
        optimizer.step()
        if watch is not None:
            watch()


# The mask with a probe.


def probed_layer(kind: type[BlockMask] = ProbedMask, shape: tuple[int, ...] = (7, 10)) -> tuple[Any, Any, Any]:
    """A layer of ragged blocks, some dropped, and its mask; the plain layer with the weight that it computes with."""
    torch.manual_seed(1)
    layer = (nn.Linear(shape[1], shape[0]) if len(shape) == 2 else nn.Conv2d(shape[1], shape[0], shape[2:])).double()
    plain = copy.deepcopy(layer)
    mask = kind(BlockGrid(shape, (3, 4)))
    attach_mask(layer, "weight", mask)
    mask.mask.copy_(torch.rand(mask.grid.counts) < 0.5)
    mask.phase.fill_(PHASES["sparse"])
    with torch.no_grad():
        plain.weight.mul_(mask.grid.expand(mask.mask.double()))
    return layer, mask, plain


def check_probe(kind: type[BlockMask], shape: tuple[int, ...]) -> None:
    layer, mask, plain = probed_layer(kind, shape)
    x = torch.randn(5, *shape[1:], dtype=torch.float64)
    for phase in PHASES.values():
        for probe in (False, True):
            mask.phase.fill_(phase)
            mask.probe.fill_(probe)
            layer.zero_grad()
            plain.zero_grad()
            out, expected = layer(x), plain(x)
            (out.sin().sum()).backward()
            (expected.sin().sum()).backward()
            gradient = layer.parametrizations.weight.original.grad
            if phase != PHASES["dense"]:
                assert torch.equal(out, expected)
                passed = mask.grid.expand((mask.mask | probe).double())
                assert torch.equal(gradient, plain.weight.grad * passed)
            else:  # all blocks are in use, and have gradients
                assert not torch.equal(out, expected)
                assert bool((gradient != 0.0).all())


@pytest.mark.parametrize("shape", [(7, 10), (8, 6, 3, 2)])
def test_dropped_blocks_have_gradients_while_they_are_probed_and_never_a_value(shape: tuple[int, ...]) -> None:
    check_probe(ProbedMask, shape)


class _Deaf(ProbedMask):
    def forward(self, weight: Any) -> Any:
        return self.grid.scale(weight, self.alive().to(weight.dtype))


class _Leaky(ProbedMask):
    def forward(self, weight: Any) -> Any:
        return self.grid.scale(weight, (self.alive() | self.probe).to(weight.dtype))


@pytest.mark.parametrize("kind", [_Deaf, _Leaky])
def test_masks_that_block_gradients_or_leak_values_are_rejected(kind: type[BlockMask]) -> None:
    with pytest.raises(AssertionError):
        check_probe(kind, (7, 10))


def test_probing_and_phases_are_one_compiled_graph() -> None:
    layer, mask, _ = probed_layer()
    graphs = []

    def backend(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend=backend)
    x = torch.randn(5, 10, dtype=torch.float64)
    for phase in PHASES.values():
        for probe in (False, True):
            mask.phase.fill_(phase)
            mask.probe.fill_(probe)
            gradients = []
            for each in (compiled, layer):
                layer.zero_grad()
                each(x).sin().sum().backward()
                gradients.append(layer.parametrizations.weight.original.grad.clone())
            assert torch.equal(*gradients)
    assert len(graphs) == 1


def test_probing_sees_the_gradient_of_the_last_backward_pass_only_when_it_is_needed() -> None:
    s = sparsifier(network(), "ompr", phases(("sparse", 12)), every=4, until=0.7)
    optimizer = torch.optim.SGD(s.model.parameters(), lr=0.1)
    s.attach(optimizer)
    seen: list[bool] = []
    for batch in batches(12):
        optimizer.zero_grad()
        loss_of(s.model, batch).backward()
        dropped = ~s.layers[0].kept
        seen.append(bool((s.layers[0].gradient_norms()[dropped] > 0.0).any()))
        optimizer.step()
    assert [step + 1 for step, probed in enumerate(seen) if probed] == [4, 8]


# What a block is when it comes in.

OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.01),
    "amsgrad": lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True),
    "foreach": lambda p: torch.optim.AdamW(p, lr=0.01, foreach=True),
    "fused": lambda p: torch.optim.AdamW(p, lr=0.01, fused=True),
    "radam": lambda p: torch.optim.RAdam(p, lr=0.01),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.01),
    "adamax": lambda p: torch.optim.Adamax(p, lr=0.01),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.01, initial_accumulator_value=0.1),
    "adadelta": lambda p: torch.optim.Adadelta(p, lr=0.5),
    "rprop": lambda p: torch.optim.Rprop(p, lr=0.01),
}
_REMEMBERED = ("momentum_buffer", "exp_avg", "grad_avg", "exp_inf", "acc_delta", "sum", "prev")


SWAPS = RigL(every=5, until=0.9, fraction=0.8, regrow=False)


def check_arrivals(make: Callable[[Any], Any], method: Any = SWAPS) -> None:
    """Blocks that come in: weight 0, momentum 0. Blocks that stay: nothing of theirs changes at the event."""
    model = network()
    s = sparsifier(model, method, phases(("dense", 1), ("sparse", 44)), 0.5)
    optimizer = make(model.parameters())
    s.attach(optimizer)
    before: list[dict[str, Any]] = []
    arrived = 0
    # Runs between the optimizer's own update and the sparsifier: its hook was there first.
    optimizer._optimizer_step_post_hooks.move_to_end(
        optimizer.register_step_post_hook(lambda *_: before.append(snapshot(s, optimizer))).id, last=False
    )
    old = [layer.kept.clone() for layer in s.layers]
    for batch in batches(45):
        run(s, optimizer, [batch])
        for i, layer in enumerate(s.layers):
            came, stayed = layer.kept & ~old[i], layer.kept & old[i]
            arrived += int(came.sum())
            state = {key: value for key, value in snapshot(s, optimizer).items() if key.startswith(f"{i} ")}
            for key, value in state.items() if s.step_count > 1 and bool(came.any()) else ():
                entries = layer.grid.expand(stayed)
                assert torch.equal(value[entries], before[-1][key][entries]), key
                if key.split()[1] in ("weight", *_REMEMBERED):
                    first = 0.1 if key.endswith("sum") else 0.0
                    assert bool((value[layer.grid.expand(~stayed)] == first).all()), key
            old[i] = layer.kept.clone()
    assert arrived >= 8, arrived


def snapshot(s: Sparsifier, optimizer: Any) -> dict[str, Any]:
    found = {}
    for i, layer in enumerate(s.layers):
        found[f"{i} weight"] = layer.stored.detach().clone()
        for key, value in optimizer.state[layer.stored].items():
            if isinstance(value, torch.Tensor) and value.shape == layer.stored.shape:
                found[f"{i} {key}"] = value.clone()
    return found


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_blocks_come_in_at_zero_and_without_momentum(kind: str) -> None:
    check_arrivals(OPTIMIZERS[kind])


@pytest.mark.parametrize("method", [OMP(every=5, until=0.9), OMPR(every=5, until=0.9)], ids=repr)
def test_blocks_come_in_at_zero_in_every_method(method: Any) -> None:
    check_arrivals(OPTIMIZERS["sgd"], method)


def test_blocks_that_bring_their_weights_or_momentum_along_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(RigL, "chosen", lambda *_: None)
        with pytest.raises(AssertionError, match="0 weight"):
            check_arrivals(OPTIMIZERS["sgd"])
    monkeypatch.setattr(RigL, "chosen", lambda self, layer, before, _: layer.clear(~(before & layer.kept)))
    with pytest.raises(AssertionError, match="0 momentum_buffer"):
        check_arrivals(OPTIMIZERS["sgd"])


def check_first_updates() -> None:
    """After 2000 steps of Adam, a block that comes in moves by no more than the learning rate per step, on average.

    The gradient is the same number in every step, so a fresh Adam would move every entry by exactly the learning rate.
    """
    model = nn.Sequential(nn.Linear(SIDE, SIDE, bias=False)).double()
    s = sparsifier(model, OMPR(every=6, until=0.15), phases(("sparse", 46)))
    lr, layer = 1e-3, s.layers[0]
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    s.attach(optimizer)
    slopes = torch.full((SIDE, SIDE), 0.3, dtype=torch.float64)
    old = layer.kept.clone()
    for step in range(1, 47):
        optimizer.zero_grad()
        (model[0].weight * slopes).sum().backward()
        optimizer.step()
        if step == 1:
            optimizer.state[layer.stored]["step"].fill_(1995)
        if step > 6:
            moved = layer.stored.detach()[layer.grid.expand(layer.kept & ~old)].abs()
            assert len(moved) == BLOCK**2
            most = float(moved.max()) / lr
            assert most <= (step - 6) * (1.0 + 1e-7), f"{most:.2f} in {step - 6}"
    assert most > 20.0


def test_adam_moves_a_block_that_comes_in_by_no_more_than_the_learning_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    check_first_updates()
    # With second moments at 0 the first update would be three times as large, as in libraries for sparse training.
    monkeypatch.setattr(probing, "_MOMENTA", probing._MOMENTA | {"exp_avg_sq"})
    monkeypatch.setattr(probing, "_SQUARES", set())
    with pytest.raises(AssertionError, match=r"2\.94 in 1"):
        check_first_updates()


@pytest.mark.parametrize("name", NAMES)
def test_neither_momentum_nor_decay_moves_a_dropped_block(name: str) -> None:
    s = sparsifier(network(), name, phases(("dense", 3), ("sparse", 40)), every=5, first="magnitude")
    optimizer = torch.optim.AdamW(s.model.parameters(), lr=0.01, weight_decay=0.1)
    s.attach(optimizer)

    def watch() -> None:
        if s.phase.kind == "sparse":
            for layer in s.layers:
                stored = layer.stored.detach()[layer.grid.expand(~layer.kept)]
                assert bool((stored == 0.0).all())

    run(s, optimizer, batches(43), watch)


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


# The core's choices, in float64, with enough steps between events.


def regression(seed: int, outputs: int, features: int = 16, n: int = 60) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, features)) + 0.4 * rng.normal(size=(n, 1))
    W = rng.normal(size=(outputs, features)) * rng.uniform(0.2, 1.0, (outputs, features))
    return torch.from_numpy(X), torch.from_numpy(X @ W.T + 0.3 * rng.normal(size=(n, outputs)))


def problem_of(X: Any, Y: Any, grid: BlockGrid) -> Problem:
    design = np.kron(np.eye(Y.shape[1]), X.numpy())
    return Problem.build(design, Y.numpy().T.ravel(), groups_of(grid, "ones"), intercept=False)


def follow(method: Any, X: Any, Y: Any, block: tuple[int, int], k: int, events: int, gap: int) -> list[set[int]]:
    """The blocks in use after each event of a linear layer that starts from 0, trained by full gradient steps."""
    model = nn.Sequential(nn.Linear(X.shape[1], Y.shape[1], bias=False)).double()
    with torch.no_grad():
        model[0].weight.zero_()
    n = BlockGrid(tuple(model[0].weight.shape), block).n_blocks
    chosen = plan(model, 1.0 - k / n, block, min_blocks=2)
    schedule = phases(("dense", 1), ("sparse", (events + 1) * gap))
    s = Sparsifier(model, chosen, method, schedule=schedule)
    smooth = 2.0 * float(torch.linalg.matrix_norm(X, 2)) ** 2 / len(X)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0 / smooth)
    s.attach(optimizer)
    seen: list[set[int]] = []
    for _ in range(s.schedule.total):
        optimizer.zero_grad()
        ((model(X) - Y).square().sum() / len(X)).backward()
        optimizer.step()
        found = set(s.layers[0].kept.flatten().nonzero().flatten().tolist())
        if len(found) < n and (not seen or found != seen[-1]):
            seen.append(found)
    return seen


def check_omp(method: Any, seed: int, outputs: int, block: tuple[int, int], k: int = 5) -> None:
    X, Y = regression(seed, outputs)
    problem = problem_of(X, Y, BlockGrid((outputs, 16), block))
    path = [set(select(problem, size, method="omp").support.tolist()) for size in range(1, k + 1)]
    assert follow(method, X, Y, block, k, k - 1, 150) == path


OMP_STEPS = OMP(start=0.2, every=150, until=0.9)  # k = 5: one block first, one more at each of four events


@pytest.mark.parametrize(("outputs", "block"), [(1, (1, 2)), (2, (1, 4)), (4, (2, 4))])
@pytest.mark.parametrize("seed", range(3))
def test_growth_of_a_linear_layer_is_group_omp(seed: int, outputs: int, block: tuple[int, int]) -> None:
    check_omp(OMP_STEPS, seed, outputs, block)


@dataclass(frozen=True)
class _Timid(OMP):
    def pulls(self, layer: Any) -> Any:
        return -super().pulls(layer)


def test_growth_by_other_blocks_is_rejected() -> None:
    with pytest.raises(AssertionError):
        check_omp(_Timid(start=0.2, every=150, until=0.9), 0, 2, (1, 4))


def fit(X: Any, Y: Any, grid: BlockGrid, chosen: set[int]) -> tuple[Any, Any, float]:
    """Block norms and gradient norms of the least squares fit on some blocks, and its residual, by lstsq."""
    groups = groups_of(grid, "ones")
    design, y = np.kron(np.eye(Y.shape[1]), X.numpy()), Y.numpy().T.ravel()
    columns = np.concatenate([groups[g] for g in sorted(chosen)])
    w = np.zeros(design.shape[1])
    w[columns] = np.linalg.lstsq(design[:, columns], y, rcond=None)[0]
    gradient = design.T @ (design @ w - y)
    return groups.norms(w[:, None]), groups.norms(gradient[:, None]), float(np.sum((design @ w - y) ** 2))


@pytest.mark.parametrize("seed", range(3))
def test_swaps_of_a_linear_layer_are_orthogonal_matching_pursuit_with_replacement(seed: int) -> None:
    X, Y = regression(seed, 2, features=20)
    grid, k, events = BlockGrid((2, 20), (1, 4)), 4, 5
    seen = follow(OMPR(first="random", every=200, until=0.95, seed=seed), X, Y, grid.block, k, events, 200)
    by_hand = [seen[0]]
    residuals = []
    for _ in range(events):
        norms, pulls, residual = fit(X, Y, grid, by_hand[-1])
        residuals.append(residual)
        out = min(by_hand[-1], key=lambda g: norms[g])
        into = max(set(range(grid.n_blocks)) - by_hand[-1], key=lambda g: pulls[g])
        by_hand.append((by_hand[-1] - {out}) | {into})
    assert seen == by_hand
    # The core takes the same steps as long as they lower the residual.
    best = set(select(problem_of(X, Y, grid), k, method="ompr", start=seen[0]).support.tolist())
    lowered = [i for i in range(events - 1) if residuals[i + 1] < residuals[i] * (1.0 - 1e-9)]
    stop = next(i for i in range(events) if i not in lowered)
    assert best in seen
    if stop < events - 1:
        assert best == seen[stop]


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
