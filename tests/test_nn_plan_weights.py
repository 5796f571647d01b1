"""Plans: which weights are taken, and which are left out for what reason."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="plans are made for networks")

from plan_cases import Deep, mlp, names, reasons  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn.utils import parametrizations, prune  # noqa: E402

from sparseopt.nn import plan  # noqa: E402


def test_one_block_more_or_less_than_min_blocks_decides() -> None:
    made = plan(nn.Sequential(nn.Linear(10, 10), nn.Linear(11, 9), nn.Linear(101, 1)), 0.5, 1)
    assert names(made) == ["0.weight", "2.weight"]
    assert reasons(made) == {"1.weight": "99 blocks, fewer than 100"}


def test_a_layer_of_one_block_is_never_taken() -> None:
    made = plan(mlp(4, 4, 16), 0.5, 4, min_blocks=2)
    assert reasons(made) == {"0.weight": "1 block, fewer than 2"}


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
