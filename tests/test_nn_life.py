"""Life around training: checkpoints of plain models, copies, averages, compiled models, and other dtypes."""

from __future__ import annotations

import copy
import io

import pytest

torch = pytest.importorskip("torch", reason="pruning needs torch")

import pruning_cases as cases  # noqa: E402
from torch import nn  # noqa: E402
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn  # noqa: E402

from sparseopt.nn import METHODS, BlockGrid, dense_state_dict, fold, masks, prune, sync_masks  # noqa: E402
from sparseopt.nn.masking import masks_of  # noqa: E402
from sparseopt.nn.masks import PHASES  # noqa: E402

SMALL = {"sparsity": 0.75, "block": 2, "min_blocks": 4}
POWER = "power-propagation"  # its stored weight is another than the one it computes with


def masked(method: str = "sequential-attention++", seed: int = 0) -> nn.Module:
    model = cases.network(seed)
    prune(model, None, method, schedule=cases.ALL_PHASES, **SMALL)
    return model


def same(a: torch.Tensor, b: torch.Tensor, method: str) -> bool:
    # PowerMask: norms, two powers and two products of float32.
    return torch.allclose(a, b, rtol=1e-5, atol=0.0) if method == POWER else torch.equal(a, b)


# ---- checkpoints of plain models


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_a_plain_checkpoint_loads_strictly_before_and_after_attaching(method, assign) -> None:
    checkpoint = cases.network(1).state_dict()
    copies, objects = {k: v.clone() for k, v in checkpoint.items()}, dict(checkpoint)
    before = cases.network()
    before.load_state_dict(checkpoint, strict=True, assign=assign)
    prune(before, None, method, schedule=cases.ALL_PHASES, **SMALL)
    after = masked(method)
    for _, _, _, mask in masks_of(after):
        if mask.logits is not None:
            mask.logits.data.add_(0.5 * torch.rand_like(mask.logits))  # they do not belong to the checkpoint
    if assign:
        checkpoint = copies
        copies, objects = {k: v.clone() for k, v in checkpoint.items()}, dict(checkpoint)
    result = after.load_state_dict(checkpoint, strict=True, assign=assign)
    assert not result.missing_keys
    assert not result.unexpected_keys
    for model in (before, after):
        assert all(same(model[i].weight, copies[f"{i}.weight"], method) for i in (0, 2))
    # The caller's dictionary is left alone.
    assert list(checkpoint) == list(objects)
    assert all(checkpoint[key] is objects[key] and torch.equal(checkpoint[key], copies[key]) for key in objects)
    # Training finds everything it needs.
    optimizer = torch.optim.SGD(after.parameters(), lr=0.1)
    cases.train(after, optimizer, 2)


def test_a_plain_checkpoint_taken_as_stored_weights_is_rejected(monkeypatch) -> None:
    model = masked(POWER)
    monkeypatch.setattr(masks.PowerMask, "right_inverse", lambda self, weight: weight)
    checkpoint = cases.network(1).state_dict()
    model.load_state_dict(checkpoint)
    assert not same(model[0].weight, checkpoint["0.weight"], POWER)


def test_a_plain_checkpoint_in_a_sparse_phase_meets_the_masks_that_are_there() -> None:
    model, optimizer, s = cases.start()
    cases.train(model, optimizer, 4)
    kept = s.layers[0].kept.clone()
    checkpoint = cases.network(1).state_dict()
    model.load_state_dict(checkpoint)
    assert torch.equal(s.layers[0].kept, kept)
    assert torch.equal(model[0].weight, checkpoint["0.weight"] * s.layers[0].grid.expand(kept))


@pytest.mark.parametrize("method", METHODS)
def test_a_checkpoint_of_other_layers_leaves_logits_alone(method) -> None:
    model = masked(method)
    for _, _, _, mask in masks_of(model):
        if mask.logits is not None:
            mask.logits.data.fill_(0.25)
    weight = model[0].weight.detach().clone()
    missing, unexpected = model.load_state_dict({"2.bias": torch.zeros(4)}, strict=False)
    assert not unexpected
    assert "0.parametrizations.weight.original" in missing
    assert torch.equal(model[0].weight, weight)
    # Of one layer only: the other keeps its logits.
    model.load_state_dict({"2.weight": torch.ones(4, 8)}, strict=False)
    assert torch.equal(model[0].weight, weight)
    assert same(model[2].weight, torch.ones(4, 8), method)


@pytest.mark.parametrize("method", METHODS)
def test_plain_checkpoints_load_into_parts_of_a_model_and_into_copies(method) -> None:
    model = nn.ModuleDict({"body": masked(method), "head": nn.Linear(4, 2)})
    checkpoint = cases.network(1).state_dict()
    model["body"].load_state_dict(checkpoint, strict=True)
    assert same(model["body"][0].weight, checkpoint["0.weight"], method)
    other = cases.network(2)
    model["body"][0].load_state_dict(other[0].state_dict(), strict=True)
    assert same(model["body"][0].weight, other[0].weight, method)
    assert same(model["body"][2].weight, checkpoint["2.weight"], method)
    twin = copy.deepcopy(model)
    twin["body"].load_state_dict(cases.network(3).state_dict(), strict=True)
    assert same(twin["body"][0].weight, cases.network(3)[0].weight, method)
    assert same(model["body"][0].weight, other[0].weight, method)


@pytest.mark.parametrize("method", METHODS)
def test_a_masked_checkpoint_loads_into_another_masked_model(method) -> None:
    model, optimizer, _ = cases.start("adamw", method, schedule=cases.ALL_PHASES)
    cases.train(model, optimizer, 8)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other, _, _ = cases.start("adamw", method, seed=5, schedule=cases.ALL_PHASES)
    other.load_state_dict(torch.load(file, weights_only=True), strict=True)
    assert torch.equal(other[0].weight, model[0].weight)
    for (_, _, _, a), (_, _, _, b) in zip(masks_of(model), masks_of(other), strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a.buffers(), b.buffers(), strict=True))
    with pytest.raises(RuntimeError, match="parametrizations"):
        cases.network().load_state_dict(model.state_dict())  # a plain model has no masks


def test_a_checkpoint_that_lacks_a_layer_is_still_refused() -> None:
    checkpoint = cases.network(1).state_dict()
    del checkpoint["2.weight"]
    with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict"):
        masked().load_state_dict(checkpoint)


@pytest.mark.parametrize("method", METHODS)
def test_the_dense_state_dict_is_a_checkpoint_of_the_plain_model(method) -> None:
    model, optimizer, s = cases.start("adamw", method, schedule=cases.ALL_PHASES)
    for seed in range(16):
        cases.step(model, optimizer, seed)
        file = io.BytesIO()
        torch.save(dense_state_dict(model), file)
        file.seek(0)
        plain = cases.network(7)
        plain.load_state_dict(torch.load(file, weights_only=True), strict=True)
        x, _ = cases.data(99)
        assert torch.equal(plain(x), model(x))
    folded = s.fold().state_dict()
    assert list(folded) == list(plain.state_dict())
    assert all(torch.equal(folded[key], value) for key, value in plain.state_dict().items())


# ---- copies and averages


@pytest.mark.parametrize("method", METHODS)
def test_a_copy_is_independent(method) -> None:
    model, optimizer, _ = cases.start("adamw", method, schedule=cases.ALL_PHASES)
    cases.train(model, optimizer, 8)
    twin, state = copy.deepcopy(model), {k: v.clone() for k, v in model.state_dict().items()}
    x, _ = cases.data(99)
    out = model(x)
    assert torch.equal(twin(x), out)
    cases.train(model, optimizer, 8, start=8)
    assert all(torch.equal(twin.state_dict()[key], value) for key, value in state.items())
    assert torch.equal(twin(x), out)
    assert not torch.equal(model(x), out)


def averaged(method: str, use_buffers: bool) -> tuple[nn.Module, AveragedModel]:
    model, optimizer, _ = cases.start("adamw", method, schedule=cases.ALL_PHASES)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=use_buffers)
    for seed in range(16):
        cases.step(model, optimizer, seed)
        average.update_parameters(model)
    return model, average


def masks_agree(model: nn.Module, average: nn.Module) -> bool:
    pairs = zip(masks_of(model), masks_of(average), strict=True)
    return all(
        torch.equal(a.mask, b.mask) and torch.equal(a.phase, b.phase) and torch.equal(a.alive(), b.alive())
        for (_, _, _, a), (_, _, _, b) in pairs
    )


@pytest.mark.parametrize("use_buffers", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_an_average_of_models_has_the_masks_of_the_model(method, use_buffers) -> None:
    model, average = averaged(method, use_buffers)
    if use_buffers:
        # An average of masks is no mask: whatever was ever alive stays, and phases are between phases.
        assert not masks_agree(model, average)
        sync_masks(model, average)
    assert masks_agree(model, average)
    x, _ = cases.data(99)
    assert not torch.equal(average(x), model(x))
    (_, _, _, mask), *_ = masks_of(model)
    dropped = mask.grid.expand(~mask.mask)
    assert not average.module[0].weight[dropped].any()
    assert not dense_state_dict(average)["module.0.weight"][dropped].any()
    out = average(x)
    assert type(fold(average).module[0]) is nn.Linear
    assert torch.equal(average(x), out)
    assert not average.module[0].weight[dropped].any()
    assert len(list(masks_of(model))) == 1


def test_an_average_made_before_pruning_is_refused() -> None:
    model = cases.network()
    average = AveragedModel(model)
    prune(model, None, total_steps=60, **SMALL)
    with pytest.raises(ValueError, match=r"the target has no mask on 0\.weight: copy the model after pruning starts"):
        sync_masks(model, average)


# ---- compiled models


def graphs(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> int:
    """How many graphs torch.compile makes of the model in so many steps."""
    torch._dynamo.reset()
    found = []

    def backend(graph, example):
        found.append(graph)
        return graph.forward

    cases.train(torch.compile(model, backend=backend, fullgraph=True), optimizer, steps)
    torch._dynamo.reset()
    return len(found)


@pytest.mark.parametrize("method", METHODS)
def test_all_phases_are_one_compiled_graph(method) -> None:
    model, optimizer, s = cases.start("adamw", method, schedule=cases.ALL_PHASES)
    eager, same_optimizer, _ = cases.start("adamw", method, schedule=cases.ALL_PHASES)
    assert graphs(model, optimizer, 16) == 1
    assert (s.step_count, s.sparsity) == (16, 0.75)
    cases.train(eager, same_optimizer, 16)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), eager.parameters(), strict=True))


class Branching(masks.BlockMask):
    """A mask that asks for its phase in Python."""

    def enter(self, kind: str) -> None:
        self.kind = kind

    def forward(self, weight):
        return weight if self.kind == "dense" else super().forward(weight)


def test_a_phase_in_a_python_attribute_makes_more_graphs(monkeypatch) -> None:
    from sparseopt.nn.layers import Layer
    from sparseopt.nn.methods import Method

    monkeypatch.setattr(Method, "mask", lambda self, layer, weight: Branching(layer.grid))
    plain_enter = Layer.enter

    def enter(self, kind):
        plain_enter(self, kind)
        self.mask.enter(kind)

    monkeypatch.setattr(Layer, "enter", enter)
    model, optimizer, _ = cases.start("adamw", "ac/dc", schedule=cases.ALL_PHASES)
    assert graphs(model, optimizer, 16) > 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")  # torch's own, when its compiler is imported
@pytest.mark.parametrize("method", ["sequential-attention++", POWER])
def test_compiled_training_does_what_eager_training_does(method) -> None:
    torch._dynamo.reset()
    model, optimizer, s = cases.start("sgd-momentum", method, schedule=cases.ALL_PHASES)
    eager, same_optimizer, t = cases.start("sgd-momentum", method, schedule=cases.ALL_PHASES)
    cases.train(torch.compile(model, fullgraph=True), optimizer, 16)
    cases.train(eager, same_optimizer, 16)
    torch._dynamo.reset()
    assert torch.equal(s.layers[0].kept, t.layers[0].kept)
    # 16 steps of float32 in another order of sums.
    for a, b in zip(model.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


# ---- dtypes


@pytest.mark.parametrize("method", METHODS)
def test_under_autocast_factors_and_gradients_stay_in_float32(method, monkeypatch) -> None:
    model, optimizer, s = cases.start("adamw", method, schedule=cases.ALL_PHASES)
    seen = set()
    mask = s.layers[0].mask
    mask.register_forward_hook(lambda module, inputs, output: seen.add((inputs[0].dtype, output.dtype)))
    scale = BlockGrid.scale

    def recorded(self, weight, values):
        seen.add((weight.dtype, values.dtype))
        return scale(self, weight, values)

    monkeypatch.setattr(BlockGrid, "scale", recorded)
    for seed in range(16):
        x, y = cases.data(seed)
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = model(x)
            loss = nn.functional.mse_loss(out, y)
        loss.backward()
        assert out.dtype == torch.bfloat16
        assert all(p.dtype == p.grad.dtype == torch.float32 for p in model.parameters())
        optimizer.step()
    seen.discard((torch.float32, torch.bool))  # a mask without logits may be its own factor
    assert seen == {(torch.float32, torch.float32)}
    assert s.sparsity == 0.75
    assert s.fold()[0].weight.dtype == torch.float32


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_models_of_other_dtypes_are_pruned(method, dtype, when) -> None:
    model = cases.network()
    if when == "before":
        model.to(dtype)
    s = prune(model, None, method, schedule=cases.ALL_PHASES, exclude=["2"], **SMALL)
    model.to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    s.attach(optimizer)
    for seed in range(16):
        x, y = (each.to(dtype) for each in cases.data(seed))
        optimizer.zero_grad()
        out = model(x)
        assert out.dtype == dtype
        nn.functional.mse_loss(out, y).backward()
        optimizer.step()
    assert int(s.layers[0].kept.sum()) == 4
    dropped = s.layers[0].grid.expand(~s.layers[0].kept)
    weight = s.fold()[0].weight
    assert weight.dtype == dtype
    assert not weight[dropped].any()
    assert torch.isfinite(weight).all()


def test_moving_the_model_moves_masks_and_phases() -> None:
    model = masked().to("meta")
    for _, _, _, mask in masks_of(model):
        assert {each.device.type for each in (mask.mask, mask.phase, mask.logits)} == {"meta"}
    assert PHASES["dense"] == 0  # a fresh buffer of zeros is a dense phase
