"""Reports: every number against a count over the folded weights, block by block and without the grids."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from collections.abc import Callable
from math import ceil, prod
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="reports of networks need torch")

from torch import nn  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from sparseopt.experiments.networks import click_model, resnet20  # noqa: E402
from sparseopt.nn import (  # noqa: E402
    METHODS,
    BlockGrid,
    PhaseSchedule,
    Plan,
    Report,
    Sparsifier,
    fold,
    plan,
    prune,
    report,
    reporting,
)

torch.set_num_threads(1)


class Cross(nn.Module):
    """Attention with keys and values of other widths than the queries: three projections of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(12, 2, kdim=9, vdim=10, batch_first=True)

    def forward(self, x: Any) -> Any:
        return self.attention(x, x[..., :9], x[..., :10])[0]


MODELS: dict[str, Callable[[], tuple[nn.Module, Any]]] = {
    "linear": lambda: (nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 8)), torch.randn(3, 16)),
    "ragged linear": lambda: (nn.Sequential(nn.Linear(29, 37, bias=False), nn.Linear(37, 11)), torch.randn(2, 5, 29)),
    "convolutions": lambda: (
        nn.Sequential(nn.Conv2d(3, 16, 3, 2, bias=False), nn.BatchNorm2d(16), nn.Conv2d(16, 10, (3, 1), groups=2)),
        torch.randn(2, 3, 11, 11),
    ),
    "convolution in 1d": lambda: (nn.Sequential(nn.Conv1d(6, 9, 5), nn.Conv1d(9, 7, 2)), torch.randn(4, 6, 20)),
    "embeddings": lambda: (
        nn.Sequential(nn.Embedding(51, 10), nn.Flatten(), nn.Linear(70, 6)),
        torch.randint(51, (2, 7)),
    ),
    "attention": lambda: (
        nn.TransformerEncoderLayer(22, 2, 33, batch_first=True),
        torch.randn(2, 6, 22),
    ),
    "cross attention": lambda: (Cross(), torch.randn(3, 5, 12)),
}
INCLUDE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Embedding, nn.MultiheadAttention)
BLOCKS = [(4, 4), (5, 3), (1, 7), (8, 2)]


def pruned(name: str, block: tuple[int, int], seed: int = 0) -> tuple[nn.Module, Plan, Any]:
    """A model with random masks in a sparse phase, with more and with fewer blocks from layer to layer."""
    torch.manual_seed(seed)
    model, example = MODELS[name]()
    s = Sparsifier(
        model,
        plan(model, 0.5, block, min_blocks=2, include=INCLUDE),
        "magnitude",
        schedule=PhaseSchedule.from_list([("sparse", 5)]),
    )
    for number, layer in enumerate(s.layers):
        layer.keep(torch.rand(layer.grid.counts) < (0.2, 0.5, 0.9)[number % 3])
    return model, s.plan, example


def tiles(weight: Any, block: tuple[int, int], segments: int) -> list[Any]:
    """The blocks of a weight, cut out one by one."""
    matrix = torch.stack([row.movedim(0, -1).flatten() if row.ndim > 1 else row for row in weight.detach()])
    height, (down, across) = len(matrix) // segments, block
    return [
        matrix[start + i : min(start + i + down, start + height), j : j + across]
        for start in range(0, len(matrix), height)
        for i in range(0, height, down)
        for j in range(0, matrix.shape[1], across)
    ]


def wrong_counts(found: Report, folded: nn.Module, block: tuple[int, int]) -> list[str]:
    """The names of the weights that a report counts otherwise than by looking at every block of the folded weight."""
    weights = dict(folded.named_parameters())
    wrong = []
    for layer in found.layers:
        weight = weights[layer.name]
        parts = tiles(weight, layer.block or (1, 1), 3 if layer.name.endswith("in_proj_weight") else 1)
        kept = [part for part in parts if any(float(entry) != 0.0 for entry in part.flatten())]
        expected = (
            tuple(weight.shape),
            len(parts) if layer.block else 0,
            len(kept) if layer.block else 0,
            weight.numel(),
            sum(part.numel() for part in kept),
        )
        counted = (layer.shape, layer.blocks, layer.blocks_kept, layer.parameters, layer.parameters_kept)
        if expected != counted:
            wrong.append(layer.name)
    return wrong


# -- counts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", BLOCKS, ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_counts_are_those_of_the_folded_weights(name: str, block: tuple[int, int]) -> None:
    model, made, _ = pruned(name, block)
    found = report(model)
    folded = fold(model)
    assert wrong_counts(found, folded, block) == []
    assert {layer.name for layer in found.layers} == {
        name for name, p in folded.named_parameters() if is_listed(name, p)
    }
    assert {layer.name for layer in found.layers if layer.block} == {layer.name for layer in made.layers}
    assert found.blocks_kept < found.blocks
    assert found.parameters == sum(parameter.numel() for parameter in folded.parameters())


def is_listed(name: str, parameter: Any) -> bool:
    return parameter.ndim > 1 and "norm" not in name


@pytest.mark.parametrize("name", MODELS)
def test_the_folded_model_with_its_plan_gives_the_same_report(name: str) -> None:
    model, made, example = pruned(name, (5, 3))
    before = report(model, example)
    assert before.phase == "sparse"
    after = report(fold(model), example, plan=made)
    assert dataclasses.replace(before, phase="") == after
    for a, b in zip(before.layers, after.layers, strict=True):
        assert (a.mask is None) == (b.mask is None) == (a.block is None)
        assert a.mask is None or torch.equal(a.mask, b.mask)


def transposed(self: Any) -> Any:
    """Channels slowest, as if the weight were flattened as it lies in memory."""
    flat = BlockGrid((self.weight.shape[0], prod(self.weight.shape[1:])), self.grid.block, self.grid.segments)
    return flat.pool(self.weight.flatten(1) != 0) > 0


def unsegmented(self: Any) -> Any:
    return BlockGrid(self.grid.shape, self.grid.block).pool(self.weight != 0) > 0


WRONG_KEPT: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "channels slowest": ("convolutions", transposed),
    "no segments": ("attention", unsegmented),
    "norms that underflow": ("tiny", lambda self: self.grid.norms(self.weight) > 0),
    "only full blocks": ("linear", lambda self: self.grid.pool(self.weight != 0) == self.grid.sizes()),
}


@pytest.mark.parametrize(("name", "kept"), WRONG_KEPT.values(), ids=WRONG_KEPT)
def test_a_wrong_count_is_rejected(name: str, kept: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    block = (8, 3)  # in attention as many blocks with three segments of 22 rows as without
    model, made, _ = pruned("linear" if name == "tiny" else name, block)
    fold(model)
    with torch.no_grad():
        for parameter in model.parameters():
            if name == "tiny":
                parameter *= 1e-30
            if name == "linear":  # a zero inside of a kept block
                parameter.flatten()[parameter.flatten().nonzero()[0]] = 0.0
    assert wrong_counts(report(model, plan=made), model, block) == []
    monkeypatch.setattr(reporting.Blocks, "kept", kept)
    assert wrong_counts(report(model, plan=made), model, block) != []


def test_entries_of_ragged_blocks_counted_as_full_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _, _ = pruned("ragged linear", (5, 3))
    monkeypatch.setattr(BlockGrid, "sizes", lambda self: torch.full(self.counts, prod(self.block)))
    assert wrong_counts(report(model), fold(model), (5, 3)) != []


# -- every method, every phase -----------------------------------------------------------------------------------------

PHASES = {
    "dense": [("dense", 9)],
    "dense after sparse": [("dense", 1), ("sparse", 1), ("dense", 9)],
    "sparsify": [("dense", 1), ("sparsify", 9)],
    "sparse": [("dense", 1), ("sparse", 9)],
}


def in_phase(method: str, phases: str) -> tuple[nn.Module, Plan]:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 6))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = PhaseSchedule.from_list(PHASES[phases])
    s = prune(model, optimizer, method, sparsity=0.5, block=4, min_blocks=2, schedule=schedule)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.randn(8, 16)).square().mean().backward()
        optimizer.step()
    return model, s.plan


@pytest.mark.parametrize("phases", PHASES)
@pytest.mark.parametrize("method", METHODS)
def test_a_report_says_in_every_phase_what_folding_would_leave(method: str, phases: str) -> None:
    model, made = in_phase(method, phases)
    found = report(model)
    assert found.phase == PHASES[phases][-1][0]
    plain = fold(copy.deepcopy(model))
    assert wrong_counts(found, plain, (4, 4)) == []
    assert dataclasses.replace(found, phase="") == report(plain, plan=made)


def test_counting_the_masks_and_not_the_weights_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    # AC/DC starts its second dense phase with blocks that are in use, and 0 until the first step.
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(16, 16))
    schedule = PhaseSchedule.from_list(PHASES["dense after sparse"])
    s = prune(model, None, "ac/dc", sparsity=0.5, block=4, min_blocks=2, schedule=schedule)
    s.step()
    s.step()
    plain = fold(copy.deepcopy(model))
    assert report(model).blocks_kept == 8
    assert wrong_counts(report(model), plain, (4, 4)) == []
    monkeypatch.setattr(reporting.Blocks, "kept", lambda self: self.mask.alive())
    assert wrong_counts(report(model), plain, (4, 4)) != []


# -- multiplications ---------------------------------------------------------------------------------------------------


def multiplications(model: nn.Module, example: Any, n: int) -> int:
    """What the operators count, without those between activations."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(example)
    counts = counter.get_flop_counts()["Global"]
    between = sum(flops for name, flops in counts.items() if "bmm" in str(name) or "attention" in str(name))
    return (sum(counts.values()) - between) // (2 * n)


@pytest.mark.parametrize("name", [*MODELS, "resnet20"])
def test_multiplications_are_those_that_the_operators_count(name: str) -> None:
    torch.manual_seed(0)
    model, example = (resnet20(), torch.randn(2, 3, 32, 32)) if name == "resnet20" else MODELS[name]()
    model.train()  # in evaluation attention runs in one fused operator, which nobody counts
    assert report(model, example).macs == multiplications(model, example, len(example))


def test_resnet20_has_the_published_number() -> None:
    assert report(resnet20(), torch.randn(1, 3, 32, 32)).macs == 40_551_040


@pytest.mark.parametrize("name", MODELS)
def test_kept_multiplications_have_the_share_of_the_kept_entries(name: str) -> None:
    model, _, example = pruned(name, (5, 3))
    found = report(model, example)
    for layer in found.layers:
        assert layer.macs * layer.parameters_kept == layer.macs_kept * layer.parameters
    assert found.macs_kept == sum(layer.macs_kept for layer in found.layers)
    assert found.macs == sum(layer.macs for layer in found.layers) > found.macs_kept


def test_without_an_example_only_models_without_convolutions_are_counted() -> None:
    model = click_model([3] * 39)
    found = report(model)
    assert [layer.macs for layer in found.layers] == [0, *(layer.parameters for layer in found.layers[1:])]
    with_example = report(model, torch.zeros(4, 39, dtype=torch.int64))
    assert found == with_example
    found = report(resnet20())
    assert found.macs is found.macs_kept is None
    assert {layer.macs for layer in found.layers} == {None}
    assert "MACs" not in str(found)


def test_a_layer_that_is_called_twice_counts_twice_and_one_that_is_not_called_counts_nothing() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: Any) -> Any:
            return self.used(self.used(x))

    found = report(Twice(), torch.randn(5, 8))
    assert [layer.macs for layer in found.layers] == [128, 0]


# -- sums, tied weights, wrappers --------------------------------------------------------------------------------------


def test_sparsities_are_those_of_plan_and_sparsifier() -> None:
    model = nn.Sequential(nn.Conv2d(16, 32, 3), nn.Conv2d(32, 64, 3), nn.Flatten(), nn.Linear(64, 3))
    made = plan(model, 0.8, 8, min_blocks=20)
    s = Sparsifier(model, made, "magnitude", schedule=PhaseSchedule.from_list([("sparse", 1)]))
    found = report(model)
    assert found.sparsity == pytest.approx(s.sparsity, abs=1e-12)
    assert found.real_sparsity == pytest.approx(made.real_sparsity, abs=1e-12)
    assert found.real_sparsity < found.sparsity


def test_embeddings_count_in_the_real_sparsity_only_with_blocks() -> None:
    model = nn.Sequential(nn.Embedding(40, 8), nn.Linear(8, 8))
    with torch.no_grad():
        model[1].weight[:4] = 0.0
    without = plan(model, 0.5, 4, min_blocks=2)
    with_blocks = plan(model, 0.5, 4, min_blocks=2, include=(nn.Linear, nn.Embedding))
    assert report(model, plan=without).real_sparsity == 0.5
    assert report(model, plan=with_blocks).real_sparsity == pytest.approx(32 / (320 + 64), abs=1e-12)


def test_without_blocks_entries_are_counted() -> None:
    model = nn.Linear(10, 10)
    with torch.no_grad():
        model.weight[0, :7] = 0.0
    found = report(model)
    assert (found.blocks, found.parameters_kept, found.sparsity) == (0, 103, pytest.approx(0.07, abs=1e-12))


def test_tied_weights_are_counted_once_and_their_multiplications_for_every_use() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.hidden, self.out = nn.Embedding(30, 6), nn.Linear(6, 6), nn.Linear(6, 30, bias=False)
            self.out.weight = self.embedding.weight

        def forward(self, x: Any) -> Any:
            return self.out(self.hidden(self.embedding(x)))

    model = Tied()
    for found in (report(model), report(model, torch.zeros(3, dtype=torch.int64))):
        assert [(layer.name, layer.macs) for layer in found.layers] == [
            ("embedding.weight", 180),
            ("hidden.weight", 36),
        ]
        assert found.parameters == sum(parameter.numel() for parameter in model.parameters()) == 222


def test_parameters_of_other_layers_and_of_masks() -> None:
    model = nn.ModuleDict({"rnn": nn.LSTM(4, 4), "norm": nn.LayerNorm(8), "linear": nn.Linear(8, 8)})
    plain = sum(parameter.numel() for parameter in model.parameters())
    prune(model, None, "sa++", sparsity=0.5, block=2, total_steps=100, min_blocks=2)
    assert sum(parameter.numel() for parameter in model.parameters()) == plain + 16  # logits
    found = report(model)
    assert (found.parameters, found.other_parameters) == (plain, plain - 64)


def test_wrapped_models_give_the_report_of_the_model_inside() -> None:
    model, _, example = pruned("convolutions", (4, 4))
    expected = report(model, example)
    averaged = torch.optim.swa_utils.AveragedModel(model)
    compiled = nn.Module()
    compiled._orig_mod = model  # as torch.compile keeps it
    for wrapped in (averaged, nn.DataParallel(model), compiled):
        assert report(wrapped, example) == expected


def test_a_sharded_model_gives_the_same_report() -> None:
    fsdp = pytest.importorskip("torch.distributed.fsdp", reason="this torch has no distributed training")
    if not hasattr(fsdp, "fully_shard"):
        pytest.skip("fully_shard came with torch 2.6")
    dist = torch.distributed
    model, _ = in_phase("sequential-attention++", "sparse")
    expected = report(model, torch.randn(3, 16))
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        fsdp.fully_shard(model, mesh=dist.init_device_mesh("cpu", (1,)))
        assert report(model, torch.randn(3, 16)) == expected
        assert report(model, torch.randn(3, 16)) == expected  # after a forward pass
    finally:
        dist.destroy_process_group()


def test_a_report_changes_nothing() -> None:
    model, _, example = pruned("convolutions", (4, 4))
    model.train()
    model[1].eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.get_rng_state()
    report(model, example)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert [module.training for module in model][:3] == [True, False, True]
    assert not any(module._forward_hooks for module in model.modules())


# -- table and dict ----------------------------------------------------------------------------------------------------


def test_the_table_holds_the_numbers_and_is_aligned() -> None:
    model, _, example = pruned("convolutions", (5, 3))
    found = report(model, example)
    heading, *rows, total = str(found).splitlines()[: len(found.layers) + 2]
    assert len({len(line) for line in (heading, *rows, total)}) == 1
    assert heading.split() == [
        "layer",
        "matrix",
        "block",
        "blocks",
        "kept",
        "weights",
        "kept",
        "MACs",
        "kept",
        "sparsity",
    ]
    for line, layer in zip(rows, found.layers, strict=True):
        name, matrix, block, *numbers = re.split(r"\s{2,}", line)
        assert name == layer.name
        assert matrix == f"{layer.shape[0]} x {prod(layer.shape[1:])}"
        assert block == f"{layer.block[0]} x {layer.block[1]}"
        counted = [int(number.replace(",", "")) for number in numbers[:4]]
        assert counted == [layer.blocks, layer.blocks_kept, layer.parameters, layer.parameters_kept]
        assert numbers[-1] == f"{layer.sparsity:.3f}"
    sums = re.split(r"\s{2,}", total)
    assert sums[0] == "total"
    assert int(sums[2].replace(",", "")) == found.blocks_kept
    assert f"{found.other_parameters:,} other parameters" in str(found)
    assert str(found).endswith("masks are in a sparse phase")


@pytest.mark.parametrize(
    ("number", "text"),
    [
        *((0, "0"), (999, "999"), (1000, "1.00 k"), (9_994, "9.99 k"), (9_996, "10.0 k"), (99_960, "100 k")),
        *((999_499, "999 k"), (999_600, "1.00 M"), (4_089_184_256, "4.09 G"), (5 * 10**15, "5000 T")),
    ],
)
def test_multiplications_have_three_digits(number: int, text: str) -> None:
    assert reporting._short(number) == text


def test_a_dense_phase_says_that_every_block_is_in_use() -> None:
    model = nn.Linear(32, 32)
    prune(model, None, "ac/dc", sparsity=0.5, block=2, total_steps=100)
    assert str(report(model)).endswith("masks are in a dense phase: every block is in use")


@pytest.mark.parametrize("example", [False, True])
def test_the_dict_is_json_and_holds_rows_and_sums(example: bool) -> None:
    model, _, batch = pruned("convolutions", (5, 3))
    found = report(model, batch if example else None)
    loaded = json.loads(json.dumps(found.to_dict()))
    assert loaded == found.to_dict()
    assert [row["name"] for row in loaded["layers"]] == [layer.name for layer in found.layers]
    for key in ("blocks", "blocks_kept", "macs", "macs_kept"):
        rows = [row[key] for row in loaded["layers"]]
        assert loaded[key] == (None if None in rows else sum(rows))
    assert loaded["parameters_kept"] == sum(row["parameters_kept"] for row in loaded["layers"]) + found.other_parameters
    for frozen in (found, found.layers[0]):
        with pytest.raises(dataclasses.FrozenInstanceError):
            frozen.phase = "dense"  # type: ignore[misc]


@pytest.mark.parametrize("block", [8, (8, None), (None, 1)])
def test_a_block_size_cuts_all_layers_of_a_plain_model(block: Any) -> None:
    model = nn.Sequential(nn.Linear(30, 20), nn.Embedding(9, 20), nn.Conv1d(4, 6, 3))
    found = report(model, block=block)
    for layer in found.layers:
        rows, columns = layer.shape[0], prod(layer.shape[1:])
        sides = (block, block) if isinstance(block, int) else (block[0] or rows, block[1] or columns)
        down, across = min(sides[0], rows), min(sides[1], columns)
        expected = ceil(rows / down) * ceil(columns / across)
        assert layer.blocks == (expected if expected > 1 else 0)
    assert any(layer.blocks for layer in found.layers)


def masked() -> nn.Module:
    return pruned("linear", (4, 4))[0]


REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "a sparsifier": (
        lambda: report(prune(nn.Linear(32, 32), sparsity=0.5, block=2, total_steps=100)),  # type: ignore[arg-type]
        TypeError,
        r"model is a Sparsifier: pass the nn\.Module, such as s\.model",
    ),
    "a plan for masks": (
        lambda: report(masked(), plan=pruned("linear", (4, 4))[1]),
        ValueError,
        "the model has masks, and they know their blocks: leave plan and block out",
    ),
    "a block for masks": (lambda: report(masked(), block=4), ValueError, "leave plan and block out"),
    "plan and block": (
        lambda: report(nn.Linear(16, 24), plan=pruned("linear", (4, 4))[1], block=4),
        ValueError,
        "plan and block are both given",
    ),
    "the plan of another model": (
        lambda: report(nn.Sequential(nn.Linear(16, 25)), plan=pruned("linear", (4, 4))[1]),
        ValueError,
        r"the plan has 0\.weight with the shape \(24, 16\), the model has the shape \(25, 16\): use its own plan",
    ),
    "the plan of a longer model": (
        lambda: report(nn.Sequential(nn.Linear(16, 24)), plan=pruned("linear", (4, 4))[1]),
        ValueError,
        r"2\.weight with the shape \(8, 24\), the model has no such weight",
    ),
    "no layer": (lambda: report(nn.LayerNorm(4)), ValueError, "nothing to report"),
    "no numbers": (lambda: report(nn.Linear(4, 4, device="meta")), ValueError, "weight holds no numbers yet"),
    "no shape": (lambda: report(nn.Sequential(nn.LazyLinear(4))), ValueError, r"0\.weight holds no numbers yet"),
}


@pytest.mark.parametrize(("call", "kind", "words"), REFUSED.values(), ids=REFUSED)
@pytest.mark.filterwarnings("ignore:Lazy modules:UserWarning")
def test_wrong_arguments_are_refused(call: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        call()
