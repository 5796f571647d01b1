"""Optimizers under pruning: what a switch of phases clears, which steps count, learning rates, and no revival."""

from __future__ import annotations

import contextlib
import math

import pytest

torch = pytest.importorskip("torch", reason="pruning needs torch")

import pruning_cases as cases  # noqa: E402
from torch import nn  # noqa: E402

from sparseopt.nn import METHODS, PhaseSchedule, dense_state_dict, optstate, sparsifier  # noqa: E402
from sparseopt.nn.masks import BlockMask  # noqa: E402

STATEFUL = [name for name in cases.OPTIMIZERS if name not in cases.STATELESS]
ADAMS = [name for name in cases.OPTIMIZERS if "adam" in name]


def after_switch(name: str, method: str, **settings) -> tuple[nn.Module, nn.Module, list[str]]:
    """The network one step after its first switch, the same step by an optimizer built at the switch, pruned names."""
    model, optimizer, s = cases.start(name, method, **settings)
    cases.train(model, optimizer, 3)
    assert s.phase.kind == "sparse"
    twin, fresh = cases.rebuilt(optimizer, cases.OPTIMIZERS[name], model)
    cases.step(model, optimizer, 3)
    cases.step(twin, fresh, 3)
    return model, twin, [path for path, _ in model.named_parameters() if "parametrizations" in path]


def differing(model: nn.Module, twin: nn.Module) -> set[str]:
    theirs = dict(twin.named_parameters())
    return {path for path, parameter in model.named_parameters() if not torch.equal(parameter, theirs[path])}


@pytest.mark.parametrize("method", ["sequential-attention++", "ac/dc"])
@pytest.mark.parametrize("name", cases.OPTIMIZERS)
def test_the_first_update_after_a_switch_is_that_of_a_new_optimizer(name, method) -> None:
    model, twin, pruned = after_switch(name, method)
    assert not differing(model, twin) & set(pruned)
    if name in STATEFUL and name != "lbfgs":  # LBFGS has one state for all
        assert differing(model, twin)  # the other layers remember


@pytest.mark.parametrize("name", cases.OPTIMIZERS)
def test_all_parameters_may_be_reset(name) -> None:
    model, twin, _ = after_switch(name, "sequential-attention++", reset="all")
    assert not differing(model, twin)


@pytest.mark.parametrize("name", STATEFUL)
def test_without_reset_the_law_fails(name) -> None:
    model, twin, pruned = after_switch(name, "sequential-attention++", reset="none")
    assert differing(model, twin) & set(pruned)


@pytest.mark.parametrize("name", ADAMS)
def test_zero_moments_with_an_old_step_count_are_rejected(name, monkeypatch) -> None:
    def keep_count(optimizer, parameters) -> None:
        for parameter in parameters:
            for key, value in optimizer.state[parameter].items():
                if key not in ("step", "mu_product"):
                    value.zero_()

    monkeypatch.setattr(sparsifier, "clear_state", keep_count)
    model, twin, pruned = after_switch(name, "sequential-attention++")
    assert differing(model, twin) & set(pruned)


@pytest.mark.parametrize("clears", [True, False])
def test_the_update_after_a_long_dense_phase_is_not_three_times_too_large(clears) -> None:
    weight = nn.Parameter(torch.zeros(4, 4, dtype=torch.float64))
    optimizer = torch.optim.Adam([weight], lr=1e-3, eps=0.0)
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    optimizer.state[weight]["step"].fill_(1999.0)
    if clears:
        optstate.clear_state(optimizer, [weight])
    else:  # the wrong way
        optimizer.state[weight]["exp_avg"].zero_()
        optimizer.state[weight]["exp_avg_sq"].zero_()
    before = weight.detach().clone()
    optimizer.step()
    update = float((before - weight.detach()).mean() / 1e-3)
    wrong = 0.1 / (1.0 - 0.9**2000) * math.sqrt((1.0 - 0.999**2000) / 0.001)
    assert round(wrong, 2) == 2.94
    assert update == pytest.approx(1.0 if clears else wrong, rel=1e-12)


@pytest.mark.parametrize(
    "name", ["adam", "adam-amsgrad", "rmsprop", "nadam", "adadelta", "adamax", "radam", "asgd", "rprop"]
)
def test_state_of_a_captured_graph_is_cleared_in_place(name) -> None:
    model = cases.network()
    optimizer = cases.OPTIMIZERS[name](model.parameters())
    cases.train(model, optimizer, 3)
    twin, fresh = cases.rebuilt(optimizer, cases.OPTIMIZERS[name], model)
    before = {p: dict(optimizer.state[p]) for p in model.parameters()}
    optimizer.param_groups[0]["capturable"] = True  # torch runs it on accelerators only
    optstate.clear_state(optimizer, model.parameters())
    optimizer.param_groups[0]["capturable"] = False
    for parameter, state in before.items():
        assert set(optimizer.state[parameter]) == set(state)
        assert all(optimizer.state[parameter][key] is value for key, value in state.items())
    cases.step(model, optimizer, 3)
    cases.step(twin, fresh, 3)
    assert not differing(model, twin)


class EagerAdagrad(torch.optim.Adagrad):
    """Adagrad as it was: state is made when it is built, and nowhere else."""

    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["sum"], self.state[parameter]["step"]
        return super().step(closure)


@pytest.mark.parametrize("logit_lr", [1.0, 0.1])
def test_an_optimizer_that_makes_its_state_when_it_is_built_keeps_having_one(logit_lr) -> None:
    model, optimizer, s = cases.start(lambda p: EagerAdagrad(p, lr=0.01), schedule=cases.ALL_PHASES, logit_lr=logit_lr)
    cases.train(model, optimizer, 16)
    assert s.step_count == 16
    s.fold()
    cases.train(model, optimizer, 1)


@pytest.mark.parametrize("own", [False, True], ids=["one group", "logits in their own"])
@pytest.mark.parametrize("name", cases.OPTIMIZERS)
def test_an_optimizer_goes_on_after_folding(name, own) -> None:
    if own and name == "lbfgs":
        pytest.skip("LBFGS has one group")
    model, optimizer, s = cases.start(name, logit_lr=0.5 if own else 1.0)
    cases.train(model, optimizer, 6)
    logits = s.layers[0].logits
    assert logits in optimizer.state or name in cases.STATELESS or name == "lbfgs"
    s.fold()
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())
    assert logits not in optimizer.state
    assert len(optimizer.param_groups) == (2 if own else 1)  # schedules count groups
    before = {path: parameter.detach().clone() for path, parameter in model.named_parameters()}
    cases.train(model, optimizer, 2, start=6)
    assert all(not torch.equal(parameter, before[path]) for path, parameter in model.named_parameters())
    optimizer.load_state_dict(optimizer.state_dict())


@pytest.mark.parametrize("name", cases.OPTIMIZERS)
def test_pruning_may_start_in_the_middle_of_a_training(name) -> None:
    model = cases.network(bias=name != "muon")
    optimizer = cases.OPTIMIZERS[name](model.parameters())
    cases.train(model, optimizer, 3)
    s = cases.prune(model, optimizer, sparsity=0.75, block=2, min_blocks=4, schedule=cases.ALL_PHASES, exclude=["2"])
    first = s.layers[0].logits.detach().clone()
    cases.train(model, optimizer, 1, start=3)
    assert not torch.equal(s.layers[0].logits, first)
    cases.train(model, optimizer, 15, start=4)
    assert (s.step_count, s.sparsity) == (16, 0.75)


@pytest.mark.parametrize("logit_lr", [1.0, 0.5])
def test_optimizers_with_named_parameters_name_the_logits_too(logit_lr) -> None:
    model = cases.network()
    optimizer = torch.optim.Adam(model.named_parameters(), lr=0.01)
    if "param_names" not in optimizer.param_groups[0]:
        pytest.skip("this torch has no named parameters")
    s = cases.prune(
        model, optimizer, sparsity=0.75, block=2, min_blocks=4, schedule=cases.TWO_PHASES, logit_lr=logit_lr
    )
    names = {id(p): name for name, p in model.named_parameters()}
    old = {"0.weight": cases.PRUNED, "2.weight": "2.weight"}
    for group in optimizer.param_groups:
        for name, parameter in zip(group["param_names"], group["params"], strict=True):
            assert names[id(parameter)] == (name if name not in old else names[id(parameter)])
    assert any("logits" in name for group in optimizer.param_groups for name in group["param_names"])
    optimizer.load_state_dict(optimizer.state_dict())
    cases.train(model, optimizer, 6)
    s.fold()
    assert all(len(group["param_names"]) == len(group["params"]) for group in optimizer.param_groups)


SCALED = ["sgd-momentum", "sgd-foreach", "adam", "adam-foreach", "adamw-foreach", "rmsprop"]
FUSED = ["sgd-fused", "adam-fused", "adamw-fused", "adagrad-fused"]


def scaled_run(name: str) -> tuple[int, int, bool]:
    """(steps that count, steps that should, whether a skipped step left the weights alone), with a GradScaler."""
    model, optimizer, s = cases.start(name, schedule=cases.ALL_PHASES)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    # When its very first step is skipped, fused SGD of torch goes on with momentum that nobody has set.
    first = 1 if name == "sgd-fused" else 0
    clean, alone = 0, True
    for seed in range(12):
        x, y = cases.data(seed)
        optimizer.zero_grad()
        overflow = seed in (first, 4, 5, 9)
        loss = nn.functional.mse_loss(model(x), y) * (math.inf if overflow else 1.0)
        scaler.scale(loss).backward()
        before = [p.detach().clone() for p in model.parameters()]
        scaler.step(optimizer)
        scaler.update()
        clean += not overflow
        if overflow:
            alone &= all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    return s.step_count, clean, alone


@pytest.mark.parametrize("name", SCALED + FUSED)
def test_steps_that_a_grad_scaler_skips_do_not_count(name) -> None:
    counted, clean, alone = scaled_run(name)
    assert counted == clean == 8
    assert alone


@pytest.mark.parametrize("name", FUSED)
def test_counting_every_call_of_a_fused_step_is_rejected(name, monkeypatch) -> None:
    monkeypatch.setattr(sparsifier, "skipped", lambda optimizer: False)
    counted, clean, _ = scaled_run(name)
    assert counted > clean


class Halved(torch.optim.SGD):
    """A subclass whose step calls the step of its class, which then runs its hooks as well."""

    def step(self, closure=None):
        result = super().step(closure)
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.mul_(0.999)
        return result


@pytest.mark.parametrize("right", [True, False])
def test_a_step_that_calls_its_own_class_counts_once(right, monkeypatch) -> None:
    torch.optim.SGD(cases.network().parameters(), lr=0.1)  # torch hooks into a class when it is first used
    if not right:
        monkeypatch.setattr(sparsifier, "nested", lambda optimizer: False)
    model, optimizer, s = cases.start(lambda p: Halved(p, lr=0.1), schedule=cases.ALL_PHASES)
    with contextlib.suppress(ZeroDivisionError):
        optimizer.step(lambda: 1 / 0)  # a step that fails leaves nothing behind
    cases.train(model, optimizer, 8)
    assert s.step_count == (8 if right else 16)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")  # torch's own, when its compiler is imported
def test_a_compiled_optimizer_step_counts_and_does_not_trace_the_engine() -> None:
    model, optimizer, s = cases.start("adam", schedule=cases.ALL_PHASES)
    graphs = []

    def backend(graph, example):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(optimizer.step, backend=backend)
    for seed in range(10):
        x, y = cases.data(seed)
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        compiled()
    torch._dynamo.reset()
    assert (s.step_count, s.phase.kind, s.sparsity) == (10, "dense", 0.0)
    assert s.history[-2].sparsity == 0.75
    assert not [node for graph in graphs for node in graph.graph.nodes if "mask" in node.name or "sort" in node.name]


def test_with_accumulation_only_steps_of_the_optimizer_count() -> None:
    model, optimizer, s = cases.start(schedule=cases.ALL_PHASES)
    for seed in range(20):
        x, y = cases.data(seed)
        (nn.functional.mse_loss(model(x), y) / 4).backward()
        if seed % 4 == 3:
            optimizer.step()
            optimizer.zero_grad()
    assert s.step_count == 5
    assert s.phase.kind == "sparsify"


def test_clipping_sees_weights_and_logits_and_keeps_the_phases() -> None:
    model, optimizer, s = cases.start(schedule=cases.ALL_PHASES)
    for seed in range(16):
        x, y = cases.data(seed)
        optimizer.zero_grad()
        (100.0 * nn.functional.mse_loss(model(x), y)).backward()
        by_hand = math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters()))
        total = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        assert float(total) == pytest.approx(by_hand, rel=1e-6)
        assert s.layers[0].logits.grad.abs().sum() > 0.0 or s.step_count == 0 or not s.layers[0].mask.alive().any()
        optimizer.step()
    assert s.step_count == 16
    assert s.sparsity == 0.75


schedules = torch.optim.lr_scheduler
SCHEDULERS = {
    "step": lambda o: schedules.StepLR(o, 3, 0.5),
    "cosine": lambda o: schedules.CosineAnnealingLR(o, 16),
    "one-cycle": lambda o: schedules.OneCycleLR(o, 0.2, total_steps=17),
    "lambda": lambda o: schedules.LambdaLR(o, lambda n: 1.0 / (n + 1)),
    "warm-up": lambda o: schedules.SequentialLR(
        o, [schedules.LinearLR(o, 0.1, total_iters=4), schedules.CosineAnnealingLR(o, 12)], [4]
    ),
    "exponential": lambda o: schedules.ExponentialLR(o, 0.9),
}


def rates(scheduler: str, built: str, **settings) -> list[list[float]]:
    """The learning rate of every group in 16 steps; the schedule is `built` before or after pruning, or alone."""
    model = cases.network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    made = SCHEDULERS[scheduler](optimizer) if built == "before" else None
    if built != "alone":
        s = cases.prune(model, optimizer, sparsity=0.75, block=2, min_blocks=4, schedule=cases.ALL_PHASES, **settings)
    made = made or SCHEDULERS[scheduler](optimizer)
    found = []
    for seed in range(16):
        found.append([float(group["lr"]) for group in optimizer.param_groups])
        cases.step(model, optimizer, seed)
        made.step()
    if built != "alone":
        assert s.sparsity == 0.75
    return found


@pytest.mark.parametrize("built", ["before", "after"])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_learning_rate_schedules_are_what_they_are_without_pruning(scheduler, built) -> None:
    assert rates(scheduler, built) == rates(scheduler, "alone")


def test_an_engine_that_touches_learning_rates_is_rejected(monkeypatch) -> None:
    def clear_and_warm_up(optimizer, parameters) -> None:
        optstate.clear_state(optimizer, parameters)
        optimizer.param_groups[0]["lr"] *= 0.5

    monkeypatch.setattr(sparsifier, "clear_state", clear_and_warm_up)
    assert rates("step", "before") != rates("step", "alone")


@pytest.mark.parametrize("scheduler", ["step", "cosine", "lambda", "warm-up", "exponential"])
def test_logits_with_a_rate_of_their_own_follow_the_schedule(scheduler) -> None:
    alone = rates(scheduler, "alone")
    for (lr, logits), (expected,) in zip(rates(scheduler, "after", logit_lr=0.5), alone, strict=True):
        assert lr == expected
        assert logits == pytest.approx(0.5 * expected, rel=1e-12)


def test_logits_follow_a_plateau_schedule_that_was_built_before() -> None:
    model = cases.network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
    cases.prune(model, optimizer, sparsity=0.75, block=2, min_blocks=4, total_steps=60, logit_lr=0.1)
    scheduler.step(1.0)
    scheduler.step(1.0)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.05, 0.005])


@pytest.mark.parametrize("lr", [0.1, torch.tensor(0.1)], ids=["float", "tensor"])
def test_a_schedule_changes_every_group_once(lr) -> None:
    model = cases.network()
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    cases.prune(model, optimizer, sparsity=0.75, block=2, min_blocks=4, total_steps=60, logit_weight_decay=0.0)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    cases.step(model, optimizer, 0)
    scheduler.step()
    # One tensor in two groups would be halved twice.
    assert [float(group["lr"]) for group in optimizer.param_groups] == pytest.approx([0.05, 0.05])


def test_logits_have_the_decay_and_the_rate_that_were_asked_for() -> None:
    def groups(**settings) -> list[dict]:
        return cases.start(lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1), **settings)[1].param_groups

    (together,) = groups()
    assert len(together["params"]) == 5
    weights, logits = groups(logit_weight_decay=0.0)
    assert (weights["weight_decay"], logits["weight_decay"], logits["lr"]) == (0.1, 0.0, 0.01)
    weights, logits = groups(logit_lr=3.0)
    assert (logits["weight_decay"], logits["lr"], len(logits["params"])) == (0.1, pytest.approx(0.03), 1)


def revived(name: str, method: str, **settings) -> bool:
    """Whether a dropped block of the weight that the layer computes with was ever not exactly 0."""
    model, optimizer, s = cases.start(name, method, schedule=cases.ALL_PHASES, **settings)
    found = False
    for seed in range(20):
        cases.step(model, optimizer, seed)
        for layer in s.layers:
            dropped = layer.grid.expand(~layer.kept)
            if s.phase.kind != "dense":
                found |= bool((layer.module.weight[dropped] != 0.0).any())
                found |= bool((dense_state_dict(model)[layer.name][dropped] != 0.0).any())
    dropped = [layer.grid.expand(~layer.kept) for layer in s.layers]
    weight = s.fold()[0].weight
    return found or bool((weight[dropped[0]] != 0.0).any())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["sgd-momentum", "adamw", "lbfgs"])
def test_neither_momentum_nor_weight_decay_revives_a_block(name, method) -> None:
    if name == "lbfgs" and METHODS[method].steps:
        with pytest.raises(ValueError, match="needs steps in proportion to the learning rate, LBFGS has none: use SGD"):
            cases.start(name, method)
        return
    assert not revived(name, method)


@pytest.mark.parametrize("name", ["sgd-momentum", "adamw"])
def test_masks_that_act_only_when_blocks_are_chosen_are_rejected(name, monkeypatch) -> None:
    monkeypatch.setattr(BlockMask, "factors", lambda self, weight: torch.ones(self.grid.counts))
    assert revived(name, "ac/dc", reset="none")


def test_lbfgs_has_one_group_and_says_so() -> None:
    model = cases.network()
    optimizer = torch.optim.LBFGS(model.parameters())
    with pytest.raises(ValueError, match="LBFGS has one group for all parameters: leave out"):
        cases.prune(model, optimizer, sparsity=0.75, block=2, min_blocks=4, total_steps=60, logit_lr=0.5)
    assert type(model[0]) is nn.Linear


def test_sparse_adam_is_never_asked_to_train_a_mask() -> None:
    model = nn.Sequential(nn.Embedding(64, 8, sparse=True), nn.Linear(8, 8))
    plan = cases.make_plan(model, 0.5, block=2, min_blocks=4, include=[nn.Linear, nn.Embedding])
    assert [layer.name for layer in plan.layers] == ["1.weight"]
    assert plan.skipped[0].reason == "its gradient is sparse: build it with sparse=False"
    with pytest.raises(ValueError, match=r"no layer of the model matches \(0.weight: its gradient is sparse"):
        cases.make_plan(model[:1], 0.5, block=2, min_blocks=4, include=[nn.Embedding])


def test_extra_steps_stay_in_the_last_phase() -> None:
    model, optimizer, s = cases.start(schedule=PhaseSchedule.from_list([("dense", 2), ("sparse", 2)]))
    cases.train(model, optimizer, 4)
    kept = s.layers[0].kept.clone()
    cases.train(model, optimizer, 6, start=4)
    assert (s.step_count, s.phase.kind) == (10, "sparse")
    assert torch.equal(s.layers[0].kept, kept)
