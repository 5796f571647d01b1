"""Plans: wrong arguments and networks that cannot be planned get a sentence."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="plans are made for networks")

from plan_cases import Deep, mlp, names  # noqa: E402
from torch import nn  # noqa: E402

from sparseopt.nn import Sparsifier, fold, plan  # noqa: E402
from sparseopt.nn.weights import weights_of  # noqa: E402

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
