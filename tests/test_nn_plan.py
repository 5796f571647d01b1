"""Plans: which weights are taken, how many blocks they keep, what is counted, and what wrong arguments are told."""

from __future__ import annotations

import copy
import json
import math
import re
from collections import UserDict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="plans are made for networks")

from torch import Tensor, nn  # noqa: E402
from torch.nn.utils import parametrizations, prune  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from sparseopt.experiments.networks import click_model, resnet20, resnet50  # noqa: E402
from sparseopt.nn import Plan, Sparsifier, fold, plan, planning  # noqa: E402
from sparseopt.nn.weights import count_uses, weights_of  # noqa: E402

PAPER = {32: (68, 78, 88, 92), 64: (58, 66, 74, 79)}  # arXiv 2402.17902, table 1, at 70, 80, 90 and 95 %
NOMINAL = (0.7, 0.8, 0.9, 0.95)


@pytest.fixture(scope="module")
def meta_resnet50() -> nn.Module:
    with torch.device("meta"):
        return resnet50()


def mlp(*sizes: int) -> nn.Sequential:
    return nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(sizes)))


def names(made: Plan) -> list[str]:
    return [layer.name for layer in made.layers]


def reasons(made: Plan) -> dict[str, str]:
    return {entry.name: entry.reason for entry in made.skipped}


# --------------------------------------------------------------------------------------------------- the paper's plan


def unlike_the_paper(model: nn.Module, **settings: Any) -> list[tuple[int, float, float]]:
    """Block, nominal sparsity and printed real sparsity wherever that is not the paper's, in whole percents."""
    found = []
    for block, wanted in PAPER.items():
        for nominal, percents in zip(NOMINAL, wanted, strict=True):
            table = str(plan(model, nominal, block, **settings))
            printed = float(re.search(r"real sparsity (\d\.\d+) of", table)[1])  # type: ignore[index]
            if math.floor(100.0 * printed + 0.5) != percents:
                found.append((block, nominal, printed))
    return found


def test_resnet50_has_the_real_sparsities_of_the_paper(meta_resnet50: nn.Module) -> None:
    assert unlike_the_paper(meta_resnet50) == []


@pytest.mark.parametrize(
    ("block", "percents"), [(32, (68.12, 77.83, 87.56, 92.42)), (64, (57.94, 66.18, 74.45, 78.58))]
)
def test_real_sparsities_to_two_digits(meta_resnet50: nn.Module, block: int, percents: tuple[float, ...]) -> None:
    found = [round(100.0 * plan(meta_resnet50, s, block).real_sparsity, 2) for s in NOMINAL]
    assert found == list(percents)


@pytest.mark.parametrize("rounding", [round, math.ceil], ids=["nearest", "ceiling"])
def test_other_roundings_of_kept_blocks_are_not_the_papers(
    meta_resnet50: nn.Module, rounding: Callable[[float], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "kept_blocks", lambda n, s: max(1, rounding(round((1.0 - s) * n, 9))))
    assert unlike_the_paper(meta_resnet50) != []


@pytest.mark.parametrize("settings", [{"exclude": ["fc"]}, {"min_blocks": 2}, {"min_blocks": 200}], ids=str)
def test_other_layers_are_not_the_papers(meta_resnet50: nn.Module, settings: dict[str, Any]) -> None:
    assert unlike_the_paper(meta_resnet50, **settings) != []


@pytest.mark.parametrize(("block", "eligible"), [(8, 53), (16, 46), (32, 35), (64, 18)])
def test_eligible_layers_of_resnet50(meta_resnet50: nn.Module, block: int, eligible: int) -> None:
    made = plan(meta_resnet50, 0.9, block)
    assert (len(made.layers), len(made.skipped)) == (eligible, 54 - eligible)
    assert made.weights == 25_502_912
    assert all(layer.grid.n_blocks >= 100 for layer in made.layers)
    assert all(re.fullmatch(r"\d\d? blocks?, fewer than 100", entry.reason) for entry in made.skipped)


def test_the_real_sparsity_is_that_of_the_weights_where_blocks_are_equally_large() -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.Conv2d(16, 32, 3), nn.Linear(4, 4))
    made = plan(model, 0.83, 8, min_blocks=20)
    zeros = sum(layer.grid.numel - 64 * layer.kept for layer in made.layers)
    assert made.weights == 64 * 64 + 32 * 16 * 9 + 16
    assert made.real_sparsity == pytest.approx(zeros / made.weights, rel=1e-14)


def test_the_networks_of_the_experiments() -> None:
    made = plan(click_model([5] * 39), 0.9, 20)
    assert made.layers[0].grid.matrix_shape == (400, 390)
    assert made.layers[0].grid.counts == (20, 20)  # ragged: 390 is 19.5 times 20
    assert reasons(made) == {
        "embedding.weight": "its type is not in include",
        "dense.6.weight": "20 blocks, fewer than 100",
    }
    assert len(plan(resnet20(), 0.8, 8, min_blocks=30).layers) == 18


def test_resnet20_takes_published_weights(shared_data: Path) -> None:
    files = sorted((shared_data / "pretrained").glob("resnet20-*.th"))
    if not files:
        pytest.skip("no published ResNet-20 lies in the folder of data sets")
    published = torch.load(files[0], map_location="cpu", weights_only=True)["state_dict"]
    resnet20().load_state_dict({name.removeprefix("module."): value for name, value in published.items()})


# ------------------------------------------------------------------------------------------- which weights are taken


def test_one_block_more_or_less_than_min_blocks_decides() -> None:
    made = plan(nn.Sequential(nn.Linear(10, 10), nn.Linear(11, 9), nn.Linear(101, 1)), 0.5, 1)
    assert names(made) == ["0.weight", "2.weight"]
    assert reasons(made) == {"1.weight": "99 blocks, fewer than 100"}


def test_a_layer_of_one_block_is_never_taken() -> None:
    made = plan(mlp(4, 4, 16), 0.5, 4, min_blocks=2)
    assert reasons(made) == {"0.weight": "1 block, fewer than 2"}


class Deep(nn.Module):
    """Weights at several depths, one of them in the model itself."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(8, 8, 3)
        self.layer1 = nn.Sequential(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)), nn.Linear(8, 8))
        self.layer10 = nn.Sequential(nn.Linear(8, 8))
        self.words = nn.Embedding(8, 8)


EVERYTHING = ["stem", "layer1.0.0", "layer1.0.1", "layer1.1", "layer10.0"]


@pytest.mark.parametrize(
    ("exclude", "left"),
    [
        ((), EVERYTHING),
        (["stem"], EVERYTHING[1:]),
        (["stem.weight"], EVERYTHING[1:]),
        ("stem", EVERYTHING[1:]),
        (["layer1"], ["stem", "layer10.0"]),
        (["layer1*"], ["stem"]),
        (["layer1.*"], ["stem", "layer10.0"]),
        (["layer1.0"], ["stem", "layer1.1", "layer10.0"]),
        (["layer1.?"], ["stem", "layer10.0"]),
        (["*.0"], ["stem", "layer1.1"]),
        (["layer1.0.[1-9]"], ["stem", "layer1.0.0", "layer1.1", "layer10.0"]),
        ([nn.Conv2d], EVERYTHING[1:]),
        (nn.Conv2d, EVERYTHING[1:]),
        ([nn.Sequential], ["stem"]),
        ([nn.Conv2d, "layer10"], ["layer1.0.0", "layer1.0.1", "layer1.1"]),
    ],
    ids=str,
)
def test_exclude_takes_names_wildcards_and_types_with_what_lies_inside(exclude: Any, left: list[str]) -> None:
    made = plan(Deep(), 0.5, 1, min_blocks=2, exclude=exclude)
    assert names(made) == [f"{name}.weight" for name in left]
    assert {reason for name, reason in reasons(made).items() if name != "words.weight"} <= {"excluded"}


@pytest.mark.parametrize(
    ("include", "taken"),
    [
        ([nn.Linear], EVERYTHING[1:]),
        (nn.Linear, EVERYTHING[1:]),
        ([nn.Conv2d], ["stem"]),
        ([nn.Embedding], ["words"]),
        ([nn.Module], [*EVERYTHING, "words"]),
        ([nn.Linear, nn.Embedding], [*EVERYTHING[1:], "words"]),
    ],
    ids=str,
)
def test_include_takes_types(include: Any, taken: list[str]) -> None:
    made = plan(Deep(), 0.5, 1, min_blocks=2, include=include)
    assert names(made) == [f"{name}.weight" for name in taken]
    assert set(reasons(made).values()) <= {"its type is not in include"}
    assert made.weights == sum(layer.grid.numel for layer in made.layers)


def test_a_model_that_is_one_layer_can_be_planned() -> None:
    made = plan(nn.Linear(32, 32), 0.5, 2, overrides={"weight": {"block": 4}}, min_blocks=8)
    assert names(made) == ["weight"]
    assert made.layers[0].grid.block == (4, 4)


def test_attention_has_three_segments_and_an_output_projection() -> None:
    made = plan(nn.Sequential(nn.MultiheadAttention(20, 2)), 0.5, 8, min_blocks=2)
    stacked, out = made.layers
    assert (stacked.name, stacked.grid.segments, stacked.grid.counts) == ("0.in_proj_weight", 3, (9, 3))
    assert (out.name, out.grid.segments, out.grid.counts) == ("0.out_proj.weight", 1, (3, 3))
    heights = stacked.grid.sizes()[:, 0] // 8
    assert heights.tolist() == [8, 8, 4] * 3  # no block lies in two of queries, keys and values


def test_attention_with_keys_and_values_of_other_sizes_has_four_weights() -> None:
    made = plan(nn.MultiheadAttention(20, 2, kdim=12, vdim=8), 0.5, 4, min_blocks=2)
    assert [(layer.name, layer.grid.matrix_shape) for layer in made.layers] == [
        ("q_proj_weight", (20, 20)),
        ("k_proj_weight", (20, 12)),
        ("v_proj_weight", (20, 8)),
        ("out_proj.weight", (20, 20)),
    ]
    assert {layer.grid.segments for layer in made.layers} == {1}


class Attends(nn.Module):
    """A projection that is called like that of `nn.MultiheadAttention`, and is none."""

    def __init__(self) -> None:
        super().__init__()
        self.out_proj = nn.Linear(8, 8)


def test_the_output_projection_belongs_to_its_attention() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16)
    model = nn.ModuleDict({"layer": layer, "own": Attends()})
    settings: dict[str, Any] = {"sparsity": 0.5, "block": 2, "min_blocks": 2}
    attention = ["layer.self_attn.in_proj_weight", "layer.self_attn.out_proj.weight"]
    linear = ["layer.linear1.weight", "layer.linear2.weight", "own.out_proj.weight"]
    assert names(plan(model, **settings, include=[nn.MultiheadAttention])) == attention
    assert names(plan(model, **settings, exclude=[nn.MultiheadAttention])) == linear
    assert names(plan(model, **settings, exclude=[nn.TransformerEncoderLayer])) == linear[2:]
    assert names(plan(model, **settings, exclude=["*.out_proj"])) == [attention[0], *linear[:2]]


def test_tied_weights_are_left_out_with_a_reason_and_counted_once() -> None:
    model = nn.ModuleDict({"words": nn.Embedding(30, 20), "body": nn.Linear(20, 20), "head": nn.Linear(20, 30)})
    model["head"].weight = model["words"].weight  # type: ignore[assignment]
    made = plan(model, 0.5, 2, min_blocks=2)
    assert names(made) == ["body.weight"]
    assert reasons(made) == {"words.weight": "its type is not in include", "head.weight": "tied to words.weight"}
    assert made.weights == 400 + 600
    made = plan(model, 0.5, 2, min_blocks=2, include=[nn.Linear, nn.Embedding])
    assert reasons(made) == {"words.weight": "tied to head.weight", "head.weight": "tied to words.weight"}
    assert made.weights == 400 + 600


def test_a_weight_that_another_kind_of_module_holds_is_tied() -> None:
    class Holder(nn.Module):
        def __init__(self, weight: nn.Parameter) -> None:
            super().__init__()
            self.matrix = weight

    model = nn.ModuleDict({"a": nn.Linear(8, 8), "b": nn.Linear(8, 8)})
    model["holder"] = Holder(model["a"].weight)  # type: ignore[arg-type]
    assert reasons(plan(model, 0.5, 2, min_blocks=2)) == {"a.weight": "tied to holder.matrix"}


def test_a_module_that_occurs_twice_is_one_layer() -> None:
    shared = nn.Linear(8, 8)
    made = plan(nn.Sequential(shared, nn.ReLU(), shared), 0.5, 2, min_blocks=2)
    assert (names(made), made.skipped) == (["0.weight"], ())


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
def test_weights_with_another_parametrization_are_left_out_with_a_reason() -> None:
    model = nn.ModuleDict({name: nn.Linear(8, 8) for name in ("plain", "new", "spectral", "old", "pruned")})
    parametrizations.weight_norm(model["new"])
    parametrizations.spectral_norm(model["spectral"])
    nn.utils.weight_norm(model["old"])
    prune.l1_unstructured(model["pruned"], "weight", 0.5)
    before = copy.deepcopy(model.state_dict())  # reading a spectral norm while it trains would change it
    made = plan(model, 0.5, 2, min_blocks=2)
    assert names(made) == ["plain.weight"]
    assert reasons(made) == {
        "new.weight": "it has another parametrization",
        "spectral.weight": "it has another parametrization",
        "old.weight": "it is computed from other parameters, as by weight_norm",
        "pruned.weight": "it is computed from other parameters, as by weight_norm",
    }
    assert made.weights == 5 * 64
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_weights_that_cannot_be_masked_are_left_out_with_a_reason() -> None:
    model = nn.ModuleDict(
        {
            "plain": nn.Linear(8, 8),
            "whole": nn.Linear(8, 8),
            "clipped": nn.Embedding(8, 8, max_norm=1.0),
            "sparse": nn.Embedding(8, 8, sparse=True),
            "lazy": nn.LazyLinear(8),
        }
    )
    model["whole"].weight = nn.Parameter(torch.ones(8, 8, dtype=torch.int8), requires_grad=False)  # type: ignore[assignment]
    made = plan(model, 0.5, 2, min_blocks=2, include=[nn.Linear, nn.Embedding])
    assert reasons(made) == {
        "whole.weight": "its entries are torch.int8",
        "clipped.weight": "max_norm rescales it in place",
        "sparse.weight": "its gradient is sparse: build it with sparse=False",
        "lazy.weight": "it has no shape before the first batch",
    }
    assert made.weights == 4 * 64
    assert re.search(r"lazy.weight +\? +dense: it has no shape", str(made))


@pytest.mark.parametrize("block", [(1, None), (None, 1), (None, 3), [2, None]])
def test_none_is_the_whole_dimension(block: Any) -> None:
    made = plan(nn.Sequential(nn.Linear(30, 40), nn.Conv2d(4, 40, 3)), 0.5, block, min_blocks=2)
    for layer in made.layers:
        wanted = [side or whole for side, whole in zip(block, layer.grid.matrix_shape, strict=True)]
        assert list(layer.grid.block) == wanted


def test_planning_changes_nothing() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(), nn.Flatten(), nn.Linear(288, 16))
    before, types = copy.deepcopy(model.state_dict()), [type(module) for module in model.modules()]
    plan(model, 0.5, 2, example_input=torch.randn(4, 3, 8, 8))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert [type(module) for module in model.modules()] == types


# --------------------------------------------------------------------------------------------------------- overrides


def test_overrides_change_single_layers() -> None:
    overrides = {
        "*": {"min_blocks": 4},
        "1": {"block": (2, 4), "min_blocks": 8},
        "2": {"sparsity": 0.5, "min_blocks": 4},
        "3": {"segments": 3, "min_blocks": 4},
    }
    made = plan(mlp(32, 32, 32, 32, 33), 0.9, 8, min_blocks=1000, overrides=overrides)
    found = {
        layer.name[0]: (layer.grid.block, layer.sparsity, layer.grid.segments, layer.fixed) for layer in made.layers
    }
    assert found == {
        "0": ((8, 8), 0.9, 1, False),
        "1": ((2, 4), 0.9, 1, False),
        "2": ((8, 8), 0.5, 1, True),
        "3": ((8, 8), 0.9, 3, False),
    }


def test_the_last_override_that_matches_counts_alone() -> None:
    overrides: dict[str, Any] = {"*": {"block": 4, "sparsity": 0.25}, "0": {"sparsity": 0.5}}
    first, second = plan(mlp(64, 64, 64), 0.9, 2, overrides=overrides).layers
    assert (first.grid.block, first.sparsity) == ((2, 2), 0.5)
    assert (second.grid.block, second.sparsity) == ((4, 4), 0.25)


@pytest.mark.parametrize("budget", ["uniform", "global", "erk", "flops"])
def test_a_sparsity_of_its_own_holds_under_every_budget(budget: str) -> None:
    torch.manual_seed(0)
    model = mlp(80, 80, 160, 40)
    made = plan(model, 0.9, 4, overrides={"1": {"sparsity": 0.25}}, budget=budget)
    s = Sparsifier(model, made, "magnitude", total_steps=10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    s.attach(optimizer)
    for _ in range(10):
        model(torch.ones(1, 80)).sum().backward()
        optimizer.step()
    kept = {layer.name: int(layer.kept.sum()) for layer in s.layers}
    total = sum(layer.grid.n_blocks for layer in made.layers)
    assert kept["1.weight"] == 600
    assert sum(kept.values()) - 600 <= round(0.1 * (total - 800))


def test_what_overrides_change_shows_in_the_table() -> None:
    overrides: dict[str, Any] = {"1": {"sparsity": 0.25, "block": 8}}
    rows = {line.split()[0]: line for line in str(plan(mlp(80, 80, 80), 0.9, 4, overrides=overrides)).splitlines()}
    assert rows["0.weight"].split() == "0.weight 80 x 80 4 x 4 20 x 20 400 40 0.900".split()
    assert rows["1.weight"].split() == "1.weight 80 x 80 8 x 8 10 x 10 100 75 0.250".split()


# -------------------------------------------------------------------------------------------------- budgets and table


def test_erk_spreads_the_entries_over_the_layers() -> None:
    made = plan(mlp(64, 64, 256, 512), 0.8, 2, budget="erk")
    assert sum(layer.grid.numel * (1.0 - layer.sparsity) for layer in made.layers) == pytest.approx(
        0.2 * made.weights, rel=1e-12
    )
    assert made.layers[0].sparsity < made.layers[1].sparsity < made.layers[2].sparsity


def test_flops_needs_to_know_what_layers_cost() -> None:
    class Forked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.aside = nn.Conv2d(4, 16, 3), nn.Linear(16, 16)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x)

    with pytest.raises(ValueError, match=r"^budget='flops' needs example_input in a model with convolutions: pass one"):
        plan(Forked(), 0.5, 2, min_blocks=2, budget="flops")
    with pytest.raises(ValueError, match=r"^example_input does not reach aside.weight, and budget='flops' must know"):
        plan(Forked(), 0.5, 2, min_blocks=2, budget="flops", example_input=torch.zeros(1, 4, 8, 8))
    made = plan(
        Forked(), 0.5, 2, min_blocks=2, budget="flops", exclude=["aside"], example_input=torch.zeros(1, 4, 8, 8)
    )
    assert [layer.uses for layer in made.layers] == [36.0]
    uniform = plan(Forked(), 0.5, 2, min_blocks=2, example_input=torch.zeros(1, 4, 8, 8))
    assert [layer.uses for layer in uniform.layers] == [36.0, 0.0]


def test_embeddings_never_multiply_counted_or_not() -> None:
    model = nn.Sequential(nn.Embedding(50, 8), nn.Linear(8, 50))
    for example in (None, torch.zeros(2, 7, dtype=torch.int64)):
        settings: dict[str, Any] = {"include": [nn.Linear, nn.Embedding], "example_input": example}
        made = plan(model, 0.5, 2, budget="flops", **settings)
        assert [layer.uses for layer in made.layers] == [0.0, 1.0 if example is None else 7.0]


@pytest.mark.parametrize("budget", ["global", "flops"])
def test_numbers_that_depend_on_scores_are_marked_as_forecasts(budget: str) -> None:
    table = str(plan(mlp(80, 80, 80), 0.9, 4, overrides={"1": {"sparsity": 0.5}}, budget=budget))
    rows = {line.split()[0]: line.split()[-2:] for line in table.splitlines()}
    assert rows["0.weight"] == ["~40", "~0.900"]
    assert rows["1.weight"] == ["200", "0.500"]
    assert "about 240 blocks stay" in table
    assert "~" not in str(plan(mlp(80, 80, 80), 0.9, 4))


def test_the_table_is_aligned_and_complete(meta_resnet50: nn.Module) -> None:
    lines = str(plan(meta_resnet50, 0.9, 32)).splitlines()
    assert len(lines) == 1 + 54 + 2
    assert lines[0].split() == ["layer", "matrix", "block", "grid", "blocks", "kept", "sparsity"]
    assert len({len(line) for line in lines[:36]}) == 1
    assert {line.index("dense:") for line in lines[36:55]} == {lines[0].index("block")}
    assert max(map(len, lines)) < 100
    assert lines[-2] == "35 of 54 weights are cut into 24,256 blocks"
    assert lines[-1] == "2,407 blocks stay: real sparsity 0.876 of 25,502,912 weights, budget uniform"


def test_a_plan_goes_through_json_without_differences() -> None:
    model = nn.Sequential(nn.MultiheadAttention(16, 2), nn.Conv2d(8, 8, 3), nn.Linear(16, 16))
    made = plan(model, 0.9, 4, min_blocks=4, overrides={"2": {"sparsity": 0.5}}, budget="erk")
    assert made.differences(json.loads(json.dumps(made.to_dict()))) == []


def test_numpy_numbers_become_plain_ones() -> None:
    np = pytest.importorskip("numpy", reason="a plan may get its numbers from NumPy")
    size = np.int64(4)
    made = plan(mlp(32, 32), np.float64(0.5), size, np.int64(4), overrides={"0": {"sparsity": np.float32(0.25)}})
    assert json.loads(json.dumps(made.to_dict())) == made.to_dict()
    assert type(made.to_dict()["sparsity"]) is type(made.to_dict()["layers"][0]["sparsity"]) is float


def test_differences_name_what_differs() -> None:
    mine = plan(mlp(32, 32, 32), 0.9, 4, min_blocks=4)

    def against(**settings: Any) -> list[str]:
        model = settings.pop("model", mlp(32, 32, 32))
        return mine.differences(plan(model, **{"sparsity": 0.9, "block": 4, "min_blocks": 4, **settings}).to_dict())

    assert against() == []
    assert against(sparsity=0.5) == [
        "sparsity is 0.5 there, 0.9 here",
        "sparsity of 0.weight is 0.5 there, 0.9 here",
        "sparsity of 1.weight is 0.5 there, 0.9 here",
    ]
    assert against(budget="global") == ["budget is global there, uniform here"]
    assert against(exclude=["1"]) == ["1.weight is pruned here, not there"]
    assert against(model=mlp(32, 32, 32, 32)) == ["2.weight is pruned there, not here"]
    assert against(overrides={"1": {"block": 8, "min_blocks": 4}}) == ["block of 1.weight is [8, 8] there, [4, 4] here"]
    assert against(overrides={"1": {"segments": 2}}) == ["segments of 1.weight is 2 there, 1 here"]
    assert against(model=mlp(32, 32, 64)) == ["shape of 1.weight is [64, 32] there, [32, 32] here"]
    assert against(overrides={"1": {"sparsity": 0.9}}) == ["fixed of 1.weight is True there, False here"]
    assert against(example_input=torch.zeros(2, 5, 32)) == []  # counts matter where they are ranked by
    ranked = plan(mlp(32, 32), 0.9, 4, min_blocks=4, budget="flops")
    other = plan(mlp(32, 32), 0.9, 4, min_blocks=4, budget="flops", example_input=torch.zeros(2, 5, 32))
    assert ranked.differences(other.to_dict()) == ["uses of 0.weight is 5.0 there, 1.0 here"]


# ------------------------------------------------------------------------------------------------- counting and modes


def multiplications(model: nn.Module, example: Any) -> float:
    uses = count_uses(model, example)
    return sum(uses[weight.name] * weight.tensor.numel() for weight in weights_of(model))


def test_resnet50_multiplies_as_often_as_published(meta_resnet50: nn.Module) -> None:
    with torch.device("meta"):
        assert multiplications(meta_resnet50, torch.zeros(2, 3, 224, 224)) == 4_089_184_256
        assert multiplications(resnet20(), torch.zeros(2, 3, 32, 32)) == 40_551_040


class Tokens(nn.Module):
    """Linear layers on tokens, 1-D convolutions with stride and groups, and a layer that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(20, 12)
        self.conv = nn.Conv1d(12, 8, 3, stride=2, padding=1, groups=4)
        self.twice = nn.Linear(8, 8)
        self.head = nn.Linear(8, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(self.words(x).transpose(1, 2)).transpose(1, 2)
        return self.head(self.twice(self.twice(y)).mean(1))


COUNTED: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any]]] = {
    "tokens": (Tokens, lambda: torch.zeros(4, 14, dtype=torch.int64)),
    "resnet20": (resnet20, lambda: torch.zeros(2, 3, 32, 32)),
    "3d": (
        lambda: nn.Sequential(nn.Conv3d(2, 4, 3, dilation=2), nn.Conv3d(4, 4, 1)),
        lambda: torch.zeros(3, 2, 7, 6, 5),
    ),
    "click": (lambda: click_model([4] * 5), lambda: torch.zeros(7, 5, dtype=torch.int64)),
    "encoder": (
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 24, batch_first=True), 2),
        lambda: torch.ones(3, 6, 16),
    ),
    "decoder": (
        lambda: nn.TransformerDecoderLayer(16, 2, 24, batch_first=True),
        lambda: (torch.ones(3, 6, 16), torch.ones(3, 11, 16)),
    ),
    "other sizes": (
        lambda: nn.MultiheadAttention(16, 2, kdim=10, vdim=6, batch_first=True),
        lambda: (torch.ones(3, 6, 16), torch.ones(3, 9, 10), torch.ones(3, 9, 6)),
    ),
    "attention by keywords": (
        lambda: nn.MultiheadAttention(16, 2, batch_first=True),
        lambda: {"query": torch.ones(3, 6, 16), "key": torch.ones(3, 9, 16), "value": torch.ones(3, 9, 16)},
    ),
}


def flop_counter(model: nn.Module, example: Any) -> float:
    """Multiplications with weights per example, by PyTorch's own counter; attention itself has no weights."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            if isinstance(example, dict):
                model.eval()(**example)
            else:
                model.eval()(*(example if isinstance(example, tuple) else (example,)))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    first = next(iter(example.values())) if isinstance(example, dict) else example
    batch = len(first[0] if isinstance(first, tuple) else first)
    operations = counter.get_flop_counts()["Global"]
    weights = (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.convolution)
    return sum(number for operation, number in operations.items() if operation in weights) / 2 / batch


def wrongly_counted(count: Callable[[nn.Module, Any], float]) -> list[str]:
    found = []
    with torch.device("meta"):
        for name, (model, example) in COUNTED.items():
            network = model()
            if round(count(network, example())) != round(flop_counter(network, example())):
                found.append(name)
    return found


def test_multiplications_are_those_of_pytorchs_counter() -> None:
    assert wrongly_counted(multiplications) == []


def test_wrong_counts_are_rejected() -> None:
    def once(model: nn.Module, example: Any) -> float:
        return sum(weight.tensor.numel() for weight in weights_of(model))

    def per_batch(model: nn.Module, example: Any) -> float:
        return 2.0 * multiplications(model, example)

    assert set(wrongly_counted(once)) == set(wrongly_counted(per_batch)) == set(COUNTED)


def test_padded_batches_of_a_transformer_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 24, batch_first=True), 2)
    padding = torch.zeros(3, 6, dtype=torch.bool)
    padding[0, 4:] = True
    uses = count_uses(model, {"src": torch.ones(3, 6, 16), "src_key_padding_mask": padding})
    assert len(uses) == 8
    assert set(uses.values()) == {6.0}
    monkeypatch.setattr("torch.backends.mha.set_fastpath_enabled", lambda enabled: None)
    with pytest.raises((RuntimeError, UserWarning)):
        count_uses(model, {"src": torch.ones(3, 6, 16), "src_key_padding_mask": padding})


def test_examples_come_in_many_forms_and_sizes() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 4)

        def forward(self, x: Tensor, y: Tensor, flag: bool = True) -> Tensor:
            return self.b(self.a(x)) + (self.b(y) if flag else 0.0)

    wanted = {"a.weight": 5.0, "b.weight": 10.0}
    for n in (1, 3):
        x, y = torch.zeros(n, 5, 4), torch.zeros(n, 5, 6)
        named = {"flag": True, "x": x, "y": y}
        for example in ((x, y), [x, y], (x, y, True), named, UserDict(named)):
            assert count_uses(Two(), example) == wanted
    assert count_uses(Two(), None) == {}
    assert count_uses(nn.Sequential(nn.Linear(4, 6)), torch.zeros(2, 5, 4)) == {"0.weight": 5.0}


def test_counting_leaves_modes_hooks_and_statistics_as_they_were() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Conv2d(4, 4, 3))
    model.train()
    model[1].eval()
    before = copy.deepcopy(model.state_dict())
    fast = torch.backends.mha.get_fastpath_enabled()
    for example, fails in ((torch.randn(2, 3, 8, 8), False), (torch.randn(2, 5, 8, 8), True)):
        if fails:
            with pytest.raises(RuntimeError, match="channels"):
                count_uses(model, example)
        else:
            count_uses(model, example)
        assert [module.training for module in model.modules()] == [True, True, False, True, True]
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
        assert torch.backends.mha.get_fastpath_enabled() == fast
        assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_lazy_models_are_not_run() -> None:
    for model in (
        nn.Sequential(nn.Linear(4, 4), nn.LazyLinear(8)),
        nn.Sequential(nn.Linear(4, 4), nn.LazyBatchNorm1d(affine=False)),
    ):
        with pytest.raises(ValueError, match=r"^the model has lazy layers without shapes: run one batch through it"):
            plan(model, 0.5, 2, min_blocks=2, example_input=torch.zeros(2, 4))
        assert type(model[1]).__name__.startswith("Lazy")


# ------------------------------------------------------------------------------------------------------ bad arguments

WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"sparsity": 1.0}, ValueError, "sparsity must be in [0, 1), got 1.0: it is the share of the blocks to drop."),
    ({"sparsity": -0.1}, ValueError, "sparsity must be in [0, 1), got -0.1: it is the share of the blocks to drop."),
    ({"sparsity": math.nan}, ValueError, "sparsity must be in [0, 1), got nan: it is the share of the blocks to drop."),
    ({"sparsity": 90}, ValueError, "sparsity must be in [0, 1), got 90.0: it is the share of the blocks to drop."),
    (
        {"sparsity": "0.9"},
        TypeError,
        "sparsity must be a number in [0, 1), got '0.9': it is the share of the blocks to drop.",
    ),
    (
        {"sparsity": None},
        TypeError,
        "sparsity must be a number in [0, 1), got None: it is the share of the blocks to drop.",
    ),
    ({"block": 0}, ValueError, "block must be a positive whole number, or two: (outputs, inputs), got 0."),
    ({"block": 2.5}, ValueError, "block must be a positive whole number, or two: (outputs, inputs), got 2.5."),
    ({"block": "16"}, ValueError, "block must be a positive whole number, or two: (outputs, inputs), got '16'."),
    ({"block": (2, 0)}, ValueError, "block must be a positive whole number, or two: (outputs, inputs), got (2, 0)."),
    (
        {"block": (2, 2, 2)},
        ValueError,
        "block must be a positive whole number, or two: (outputs, inputs), got (2, 2, 2).",
    ),
    ({"block": None}, ValueError, "block must be a positive whole number, or two: (outputs, inputs), got None."),
    (
        {"min_blocks": -1},
        ValueError,
        "min_blocks must be a whole number, 0 or more, got -1: layers with fewer blocks stay dense.",
    ),
    (
        {"min_blocks": 1.5},
        ValueError,
        "min_blocks must be a whole number, 0 or more, got 1.5: layers with fewer blocks stay dense.",
    ),
    ({"budget": "latency"}, ValueError, "budget must be one of uniform, global, erk, flops, got 'latency'."),
    (
        {"exclude": ["layer9"]},
        ValueError,
        "exclude: 'layer9' matches no layer with a weight to prune: did you mean 'layer1'?",
    ),
    (
        {"exclude": ["zzz"]},
        ValueError,
        "exclude: 'zzz' matches no layer with a weight to prune: print(plan(model, ...)) lists the names.",
    ),
    ({"exclude": [3]}, TypeError, "exclude: 3 is no name of a layer: use a string."),
    (
        {"overrides": {"stm": {}}},
        ValueError,
        "overrides: 'stm' matches no layer with a weight to prune: did you mean 'stem'?",
    ),
    (
        {"overrides": {"stem": {"sparsty": 0.5}}},
        ValueError,
        "overrides['stem'] has the key 'sparsty': use sparsity, block, min_blocks or segments.",
    ),
    ({"overrides": {"stem": 0.5}}, TypeError, "overrides['stem'] must be a dict such as {'block': 8}, got 0.5."),
    (
        {"overrides": {"stem": {"sparsity": 2}}},
        ValueError,
        "overrides['stem']['sparsity'] must be in [0, 1), got 2.0: it is the share of the blocks to drop.",
    ),
    (
        {"overrides": {"stem": {"min_blocks": "4"}}},
        ValueError,
        "overrides['stem']['min_blocks'] must be a whole number, 0 or more, got '4': "
        "layers with fewer blocks stay dense.",
    ),
    (
        {"overrides": {"stem": {"segments": 0}}},
        ValueError,
        "overrides['stem']['segments'] must be a positive whole number, got 0: 1 does not cut.",
    ),
    (
        {"overrides": {"stem": {"segments": 3}}},
        ValueError,
        "segments=3 does not divide the 8 outputs of stem.weight: choose a divisor, or 1.",
    ),
    (
        {"overrides": {"stem": {"block": -1}}},
        ValueError,
        "block must be a positive whole number, or two: (outputs, inputs), got -1.",
    ),
    (
        {"overrides": {"stem": {"block": 100}}},
        ValueError,
        "a block of 100 x 100 covers all of stem.weight (8 x 72): choose a smaller block for it, or exclude it.",
    ),
    (
        {"block": 64, "min_blocks": 1, "exclude": ["stem"]},
        ValueError,
        "a block of 64 x 64 covers all of layer1.0.0.weight (8 x 8): choose a smaller block for it, or exclude it.",
    ),
    ({"include": ["Linear"]}, TypeError, "include takes module types such as nn.Linear, got 'Linear'."),
    (
        {"include": [nn.LSTM]},
        ValueError,
        "include: LSTM has no weight that can be cut into blocks: "
        "use Linear, Conv1d, Conv2d, Conv3d, MultiheadAttention, Embedding.",
    ),
    (
        {"block": 4, "min_blocks": 100},
        ValueError,
        "no layer of the model matches (stem.weight: 36 blocks, fewer than 100; "
        "layer1.0.0.weight: 4 blocks, fewer than 100; layer1.0.1.weight: 4 blocks, fewer than 100; "
        "layer1.1.weight: 4 blocks, fewer than 100; layer10.0.weight: 4 blocks, fewer than 100; "
        "words.weight: its type is not in include): choose a smaller block than 4, or a lower min_blocks than 100.",
    ),
]


@pytest.mark.parametrize(("settings", "error", "sentence"), WRONG, ids=[str(each[0]) for each in WRONG])
def test_wrong_arguments_get_a_sentence(settings: dict[str, Any], error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(sentence)}$"):
        plan(Deep(), **{"sparsity": 0.5, "block": 2, "min_blocks": 2, **settings})


def test_models_without_layers_get_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"^the model has no linear layer, convolution, embedding or attention: there"):
        plan(nn.Sequential(nn.ReLU(), nn.BatchNorm1d(4)), 0.5)
    with pytest.raises(ValueError, match=r"^no layer of the model matches \(0.weight: excluded\): exclude less, or"):
        plan(nn.Sequential(nn.Linear(64, 64)), 0.5, 4, exclude=["0"])
    with pytest.raises(TypeError, match=r"^model must be an nn.Module, got dict.$"):
        plan({}, 0.5)  # type: ignore[arg-type]


def test_models_that_are_pruned_already_get_a_sentence() -> None:
    model = mlp(64, 64)
    Sparsifier(model, plan(model, 0.5, 4), "magnitude", total_steps=4)
    with pytest.raises(
        ValueError, match=r"^0.weight is already being pruned: fold\(\) the model before planning again.$"
    ):
        plan(model, 0.5, 4)
    fold(model)
    assert names(plan(model, 0.5, 4)) == ["0.weight"]


def test_a_masked_weight_is_the_stored_one_and_its_mask_does_not_run() -> None:
    model = mlp(64, 64)
    stored = model[0].weight
    Sparsifier(model, plan(model, 0.5, 4), "sequential-attention++", total_steps=40)
    (entry,) = weights_of(model)
    assert entry.tensor is stored
    assert entry.obstacle == "it has another parametrization"
