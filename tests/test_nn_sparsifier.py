"""The engine: counted steps, phases, what it refuses, and models that it must cope with."""

from __future__ import annotations

import copy
import math
from itertools import pairwise

import pytest

torch = pytest.importorskip("torch", reason="pruning needs torch")

import pruning_cases as cases  # noqa: E402
from torch import nn  # noqa: E402

from sparseopt.nn import METHODS, PhaseSchedule, Sparsifier, plan, prune, sparsifier  # noqa: E402
from sparseopt.nn.masking import masks_of  # noqa: E402

SMALL = {"sparsity": 0.75, "block": 2, "min_blocks": 4}


def unchanged(model: nn.Module) -> bool:
    """Whether the model has no masks: an error in `prune` must leave it as it was."""
    return not list(masks_of(model)) and type(model[0]) is nn.Linear


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


# ---- phases


@pytest.mark.parametrize("method", METHODS)
def test_phases_follow_the_schedule_step_by_step(method) -> None:
    model, optimizer, s = cases.start("adamw", method, schedule=cases.ALL_PHASES)
    kinds = []
    for seed in range(16):
        kinds.append(s.phase.kind)
        dense = s.phase.kind == "dense"
        assert bool(s.layers[0].mask.alive().all()) >= dense
        assert int(s.layers[0].mask.phase) == {"dense": 0, "sparsify": 1, "sparse": 2}[s.phase.kind]
        cases.step(model, optimizer, seed)
    assert kinds == ["dense"] * 3 + ["sparsify"] * 4 + ["sparse"] * 3 + ["dense"] * 3 + ["sparse"] * 3
    entered = [(event.step, event.phase) for event in s.history if event.what == "enter"]
    assert entered == [(0, "dense"), (3, "sparsify"), (7, "sparse"), (10, "dense"), (13, "sparse")]
    assert s.sparsity == 0.75


def test_a_sparsify_phase_drops_more_and_more_and_nothing_comes_back() -> None:
    model, optimizer, s = cases.start(method="gradual-magnitude", schedule=cases.ALL_PHASES)
    kept, masks = [], []
    for seed in range(10):
        cases.step(model, optimizer, seed)
        kept.append(int(s.layers[0].kept.sum()))
        masks.append(s.layers[0].kept.clone())
    assert kept[:2] == [16, 16]
    assert kept[3:] == sorted(kept[3:], reverse=True)
    assert kept[3] > kept[4] > kept[6] == kept[9] == 4
    assert all((later <= earlier).all() for earlier, later in pairwise(masks[3:]))


def test_a_schedule_that_ends_by_sparsifying_reaches_its_sparsity() -> None:
    schedule = PhaseSchedule.from_list([("dense", 2), ("sparsify", 7)])
    model, optimizer, s = cases.start(schedule=schedule, updates=3)
    cases.train(model, optimizer, 9)
    assert s.sparsity == 0.75
    history = len(s.history)
    cases.train(model, optimizer, 5, start=9)
    assert (s.sparsity, len(s.history)) == (0.75, history)
    s.fold()  # no warning


def test_a_schedule_that_ends_dense_stays_dense_and_folding_says_so() -> None:
    schedule = PhaseSchedule.from_list([("dense", 2), ("sparse", 2), ("dense", 2)])
    model, optimizer, s = cases.start(schedule=schedule)
    cases.train(model, optimizer, 8)
    assert (s.phase.kind, s.sparsity) == ("dense", 0.0)
    with pytest.warns(UserWarning, match=r"folded after 8 of 6 steps, in a dense phase: 0\.000 of the weights are 0"):
        s.fold()


@pytest.mark.parametrize("method", ["ac/dc", "magnitude"])
def test_a_first_phase_may_be_sparse(method) -> None:
    before = cases.network()[0].weight.detach()
    schedule = PhaseSchedule.from_list([("sparse", 3), ("dense", 2), ("sparse", 2)])
    model, optimizer, s = cases.start(method=method, schedule=schedule)
    assert s.sparsity == 0.75
    best = s.layers[0].grid.norms(before).flatten().argsort(descending=True)[:4]
    assert set(best.tolist()) == set(s.layers[0].kept.flatten().nonzero().flatten().tolist())
    cases.train(model, optimizer, 7)
    assert s.sparsity == 0.75


def test_dropped_weights_are_zero_or_kept_under_the_mask() -> None:
    for zero in (True, False):
        model, optimizer, s = cases.start("sgd", "ac/dc", zero=zero)
        cases.train(model, optimizer, 3)
        dropped = s.layers[0].grid.expand(~s.layers[0].kept)
        assert bool(s.layers[0].stored[dropped].any()) is not zero
        assert not model[0].weight[dropped].any()


# ---- driving


def test_steps_by_hand_do_what_an_attached_optimizer_does() -> None:
    by_hand, optimizer = cases.network(), None
    optimizer = cases.OPTIMIZERS["adamw"](by_hand.parameters())
    s = prune(by_hand, None, schedule=cases.ALL_PHASES, exclude=["2"], **SMALL)
    s.add_to(optimizer)
    for seed in range(16):
        cases.step(by_hand, optimizer, seed)
        s.step(optimizer)
    attached, other, t = cases.start("adamw", schedule=cases.ALL_PHASES)
    cases.train(attached, other, 16)
    assert all(torch.equal(a, b) for a, b in zip(by_hand.parameters(), attached.parameters(), strict=True))
    # Without the optimizer nothing clears its momentum.
    careless = cases.network()
    optimizer = cases.OPTIMIZERS["adamw"](careless.parameters())
    u = prune(careless, None, schedule=cases.ALL_PHASES, exclude=["2"], **SMALL)
    u.add_to(optimizer)
    for seed in range(16):
        cases.step(careless, optimizer, seed)
        u.step()
    assert (u.step_count, u.sparsity) == (t.step_count, t.sparsity)
    assert not torch.equal(careless[0].weight, attached[0].weight)


def test_steps_by_hand_beside_an_attached_optimizer_get_a_sentence() -> None:
    _, optimizer, s = cases.start()
    with pytest.raises(ValueError, match=r"follows its optimizer by itself: drop the call of step\(\), or detach\(\)"):
        s.step(optimizer)
    s.detach()
    s.step(optimizer)
    assert s.step_count == 1


def test_a_method_with_proximal_steps_needs_the_optimizer() -> None:
    s = prune(cases.network(), None, "group-lasso", total_steps=20, **SMALL)
    with pytest.raises(ValueError, match=r"group-lasso changes parameters after every step: call s.step\(optimizer\)"):
        s.step()


def test_a_detached_sparsifier_stands_still_and_another_optimizer_may_take_over() -> None:
    model, optimizer, s = cases.start(schedule=cases.ALL_PHASES)
    cases.train(model, optimizer, 2)
    s.detach()
    cases.train(model, optimizer, 2)
    assert s.step_count == 2
    second = torch.optim.Adam(model.parameters(), lr=0.01)
    s.attach(second)
    cases.train(model, second, 14)
    assert (s.step_count, s.sparsity) == (16, 0.75)


def test_callbacks_hear_every_event() -> None:
    model, optimizer, s = cases.start(schedule=cases.ALL_PHASES)
    heard = []
    s.callbacks.append(heard.append)
    cases.train(model, optimizer, 16)
    assert heard == s.history[1:]


# ---- models


# The others ask for the gradient of every block: they say which layer has none.
WITHOUT_GRADIENTS = [name for name, method in METHODS.items() if not method.probes]


class Odd(nn.Module):
    """A model with a layer that is never used, and one that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Linear(8, 8)
        self.unused = nn.Linear(8, 8)
        self.out = nn.Linear(8, 4)

    def forward(self, x):
        return self.out(torch.tanh(self.used(self.used(x))))


@pytest.mark.parametrize("method", WITHOUT_GRADIENTS)
@pytest.mark.parametrize("name", ["sgd-momentum", "adamw", "adamw-fused"])
def test_layers_that_are_never_used_are_pruned_like_others(name, method) -> None:
    torch.manual_seed(0)
    model = Odd()
    optimizer = cases.OPTIMIZERS[name](model.parameters())
    s = prune(model, optimizer, method, schedule=cases.ALL_PHASES, exclude=["out"], **SMALL)
    cases.train(model, optimizer, 16)
    assert s.layers[1].stored.grad is None
    assert [int(layer.kept.sum()) for layer in s.layers] == [4, 4]
    s.fold()


@pytest.mark.parametrize("method", [name for name in METHODS if name not in WITHOUT_GRADIENTS])
def test_methods_that_need_gradients_say_which_layer_has_none(method) -> None:
    model = Odd()
    optimizer = sgd(model)
    prune(model, optimizer, method, schedule=cases.ALL_PHASES, exclude=["out"], **SMALL)
    with pytest.raises(RuntimeError, match=r"unused\.weight has no gradient when"):
        cases.train(model, optimizer, 16)


@pytest.mark.parametrize("held", [True, False], ids=["held", "not held"])
@pytest.mark.parametrize("method", WITHOUT_GRADIENTS)
def test_frozen_layers_are_pruned_whether_or_not_the_optimizer_holds_them(method, held) -> None:
    model = cases.network()
    model[0].weight.requires_grad_(False)
    parameters = model.parameters() if held else [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1)
    before = model[0].weight.detach().clone()
    s = prune(model, optimizer, method, schedule=cases.ALL_PHASES, exclude=["2"], **SMALL)
    logits = s.layers[0].logits
    first = None if logits is None else logits.detach().clone()
    cases.train(model, optimizer, 16)
    assert not s.layers[0].stored.requires_grad
    assert s.sparsity == 0.75
    assert logits is None or not torch.equal(logits, first)  # the mask trains
    kept = s.layers[0].grid.expand(s.layers[0].kept)
    if logits is None and method != "power-propagation":
        assert torch.equal(model[0].weight[kept], before[kept])
    assert s.fold()[0].weight.requires_grad is False


# ---- refusals


def test_an_optimizer_without_the_logits_is_named_with_the_line_that_mends_it() -> None:
    model = cases.network()
    optimizer = sgd(model)
    s = prune(model, None, total_steps=60, **SMALL)
    with pytest.raises(ValueError, match=r"does not train logits of 0\.weight, logits of 2\.weight: call s\.add_to"):
        s.attach(optimizer)
    s.add_to(optimizer)
    s.attach(optimizer)
    with pytest.raises(ValueError, match=r"attached to an optimizer already: detach\(\) it first"):
        s.attach(optimizer)
    s.add_to(optimizer)  # a second time changes nothing
    assert len(optimizer.param_groups[0]["params"]) == 6


def test_an_optimizer_without_a_weight_is_refused_before_the_model_is_touched() -> None:
    model = cases.network()
    with pytest.raises(ValueError, match=r"does not train 0\.weight: exclude it from the plan, or add it"):
        prune(model, torch.optim.SGD(model[2].parameters(), lr=0.1), total_steps=60, **SMALL)
    assert unchanged(model)
    with pytest.raises(TypeError, match=r"optimizer must be a torch.optim.Optimizer, got StepLR"):
        prune(model, torch.optim.lr_scheduler.StepLR(sgd(model), 1), total_steps=60, **SMALL)
    assert unchanged(model)


REFUSED = {
    "no sparsity": ({"sparsity": None}, ValueError, "sparsity is missing: give the share of the blocks to drop"),
    "sparsity 1": ({"sparsity": 1.0}, ValueError, r"sparsity must be in \[0, 1\), got 1.0"),
    "sparsity < 0": ({"sparsity": -0.1}, ValueError, r"sparsity must be in \[0, 1\), got -0.1"),
    "no steps": ({"total_steps": None}, ValueError, "total_steps is missing: give the number of optimizer steps"),
    "few steps": ({"total_steps": 5}, ValueError, "has no step in a training of 5 steps"),
    "zero steps": ({"total_steps": 0}, ValueError, "total must be a positive whole number of steps, got 0"),
    "sparse first": ({"schedule": cases.PhaseSchedule.from_list([("sparse", 60)])}, ValueError, "ranks none of them"),
    "two totals": ({"schedule": cases.TWO_PHASES}, ValueError, "the schedule has 6 steps and total_steps is 60"),
    "method": ({"method": "ac-dc"}, ValueError, "method 'ac-dc' is not known: did you mean"),
    "setting": ({"clips": True}, TypeError, "has no setting 'clips': did you mean 'clip'"),
    "reset": ({"reset": "some"}, ValueError, "reset must be 'layers', 'all' or 'none', got 'some'"),
    "no layer": ({"min_blocks": 1000}, ValueError, "no layer of the model matches"),
    "large block": ({"block": 64, "min_blocks": 1}, ValueError, "a block of 64 x 64 covers all of 0.weight"),
    "block 0": ({"block": 0}, ValueError, "block must be a positive"),
    "logit_lr": ({"logit_lr": -1.0}, ValueError, "logit_lr must be a finite number of at least 0, got -1.0"),
    "decay": ({"logit_weight_decay": math.nan}, ValueError, "logit_weight_decay must be a finite number"),
    "exclude": ({"exclude": ["fc"]}, ValueError, "exclude: 'fc' matches no layer"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_gets_a_sentence_and_leaves_model_and_optimizer_alone(name) -> None:
    settings, kind, sentence = REFUSED[name]
    model = cases.network()
    optimizer = sgd(model)
    state = copy.deepcopy(model.state_dict())
    with pytest.raises(kind, match=sentence) as caught:
        prune(model, optimizer, **({**SMALL, "total_steps": 60} | settings))
    assert str(caught.value).endswith((".", "?"))
    assert unchanged(model)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert len(optimizer.param_groups) == 1
    assert len(optimizer.param_groups[0]["params"]) == 4
    assert not optimizer._optimizer_step_post_hooks


def test_weight_decay_for_logits_needs_an_optimizer_that_has_one() -> None:
    model = cases.network()
    with pytest.raises(ValueError, match="Rprop has no weight decay: leave logit_weight_decay out"):
        prune(model, torch.optim.Rprop(model.parameters()), total_steps=60, logit_weight_decay=0.0, **SMALL)
    assert unchanged(model)


@pytest.mark.parametrize("own", [{"logit_lr": 0.1}, {"logit_weight_decay": 0.0}])
def test_a_schedule_built_before_forbids_a_group_of_its_own(own) -> None:
    model = cases.network()
    optimizer = sgd(model)
    torch.optim.lr_scheduler.StepLR(optimizer, 10)
    with pytest.raises(ValueError, match=r"call prune\(...\) first and build the schedule after it"):
        prune(model, optimizer, total_steps=60, **SMALL, **own)
    assert unchanged(model)


def test_pruning_twice_gets_a_sentence() -> None:
    model = cases.network()
    made = plan(model, 0.75, 2, 4)
    prune(model, None, plan=made, total_steps=60)
    with pytest.raises(ValueError, match=r"0.weight is already being pruned: fold\(\) the model before planning again"):
        prune(model, None, total_steps=60, **SMALL)
    with pytest.raises(ValueError, match=r"0.weight is being pruned already: fold\(\) the model before pruning it"):
        Sparsifier(model, made, total_steps=60)


def test_a_plan_of_another_model_gets_a_sentence() -> None:
    made = plan(cases.network(), 0.75, 2, 4)
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh())
    with pytest.raises(ValueError, match=r"the model has no parameter 2\.weight: make the plan from this model"):
        Sparsifier(model, made, total_steps=60)
    assert unchanged(model)
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 5))
    with pytest.raises(ValueError, match=r"2.weight has the shape \(5, 8\), in the plan \(4, 8\)"):
        Sparsifier(model, made, total_steps=60)
    assert unchanged(model)
    with pytest.raises(ValueError, match=r"sparsity is 0.5 and the plan has 0.75: leave sparsity out"):
        prune(cases.network(), None, plan=made, sparsity=0.5, total_steps=60)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_model_that_is_not_finite_is_refused(value) -> None:
    model = cases.network()
    model[2].weight.data[1, 1] = value
    with pytest.raises(FloatingPointError, match=r"the weights of 2\.weight are not finite: start from a sound"):
        prune(model, sgd(model), total_steps=60, **SMALL)
    assert unchanged(model)


@pytest.mark.parametrize("what", ["weights", "logits"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_are_not_finite_stop_pruning_with_the_name_of_the_layer(what, value) -> None:
    model, optimizer, s = cases.start("sgd")
    cases.train(model, optimizer, 2)
    good = s.state_dict()
    layer = s.layers[0]
    (layer.stored if what == "weights" else layer.logits).data[1, 1] = value
    kept = layer.kept.clone()
    sentence = f"the {what} of 0.weight are not finite after 2 steps: go back to the last checkpoint"
    with pytest.raises(FloatingPointError, match=sentence):
        s.state_dict()
    with pytest.raises(FloatingPointError, match=sentence):
        s.fold()
    with pytest.raises(FloatingPointError, match=r"the (weights|logits) of 0.weight are not finite after 3 steps"):
        cases.step(model, optimizer, 2)
    assert torch.equal(layer.kept, kept)
    assert good["step"] == 2


def test_an_engine_that_does_not_look_for_nan_is_rejected(monkeypatch) -> None:
    monkeypatch.setattr(sparsifier, "require_finite", lambda *arguments: None)
    monkeypatch.setattr(sparsifier, "require_replicas", lambda *arguments: None)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        test_numbers_that_are_not_finite_stop_pruning_with_the_name_of_the_layer("weights", math.nan)


def test_parameters_replaced_behind_the_optimizer_are_noticed_at_the_next_switch() -> None:
    model, optimizer, s = cases.start()
    model.load_state_dict({k: v.clone() for k, v in model.state_dict().items()}, assign=True)
    with pytest.raises(ValueError, match=r"does not train 0\.weight any more: parameters were replaced after s.attach"):
        cases.train(model, optimizer, 3)
    assert s.step_count == 3


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda m: torch.compile(m, backend="eager")], ids=["DP", "compiled"])
def test_a_wrapped_model_is_refused(wrap) -> None:
    model = cases.network()
    with pytest.raises(ValueError, match="prune it first, then"):
        prune(wrap(model), sgd(model), total_steps=60, **SMALL)
    assert unchanged(model)


def test_a_folded_sparsifier_says_so() -> None:
    model, optimizer, s = cases.start()
    cases.train(model, optimizer, 6)
    s.fold()
    for call in (s.fold, s.step, s.state_dict, lambda: s.sparsity, lambda: s.attach(optimizer)):
        with pytest.raises(ValueError, match=r"0\.weight has no mask any more: the model was folded"):
            call()


def test_a_sparsifier_that_never_chooses_is_rejected(monkeypatch) -> None:
    monkeypatch.setattr(sparsifier.Sparsifier, "_choose", lambda self, *args, **kwargs: None)
    with pytest.raises(AssertionError):
        test_phases_follow_the_schedule_step_by_step("sequential-attention++")
    with pytest.raises(AssertionError):
        test_a_schedule_that_ends_by_sparsifying_reaches_its_sparsity()
