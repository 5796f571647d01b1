"""Recipes that are valid: what is written is read as the same, and their pruning is made."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from recipe_cases import OURS, PLAIN

from sparseopt.experiments.networks import click_model
from sparseopt.experiments.training.recipes import (
    ClickData,
    ImageData,
    Model,
    Pruning,
    Recipe,
    Training,
)
from sparseopt.nn import METHODS, Exponential, plan

# -- valid recipes -----------------------------------------------------------------------------------------------------

SHARES = st.floats(0.01, 0.99)
POSITIVE = st.floats(1e-6, 1e6)
WORDS = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), min_size=1, max_size=12).filter(
    str.strip
)


def some(values: dict[str, st.SearchStrategy[Any]], **needed: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries(needed, optional=values)


def schedules() -> st.SearchStrategy[Any]:
    lengths = st.lists(st.integers(1, 20), min_size=1, max_size=5)
    shares = lengths.map(lambda counts: [["dense", n / sum(counts)] for n in counts])
    return st.sampled_from(["own", "imagenet", "criteo"]) | shares


CLICKS = some(
    {
        "protocol": st.sampled_from(["files", "x1", "x4", "time"]),
        "train": WORDS | st.none(),
        "min_count": st.integers(1, 100),
        "hash_bins": st.none() | st.integers(1, 10**6),
        "numbers": st.sampled_from(["buckets", "values"]),
        "holdout": st.just(0) | SHARES,
    },
    path=WORDS,
)
PICTURES = some({"kind": st.sampled_from(["folder", "cifar"]), "size": st.integers(1, 500)}, path=WORDS)
PRUNING = some(
    {
        "block": st.integers(1, 64) | st.tuples(st.integers(1, 9), st.none() | st.integers(1, 9)),
        "min_blocks": st.integers(0, 100),
        "include": st.lists(WORDS, max_size=2),
        "exclude": WORDS,
        "budget": st.sampled_from(["uniform", "global", "erk", "flops"]),
        "schedule": schedules(),
        "sparsify": st.booleans() | st.none(),
        "logit_weight_decay": st.none() | st.floats(0, 1),
        "settings": some(
            {"c": st.floats(0, 10), "reset": st.sampled_from(["layers", "all"]), "updates": st.just("1e2")}
        ),
    },
    method=st.sampled_from([*METHODS, "sa++", "ACDC", "l1"]),
    sparsity=SHARES,
)
TRAINING = some(
    {
        "optimizer": st.sampled_from(["adam", "adamw", "sgd"]),
        "final_lr": st.floats(0, 1),
        "decay": st.sampled_from(["cosine", "constant"]),
        "weight_decay": st.sampled_from([0, "1e-4", 1e-4]),
        "ema": st.none() | SHARES,
        "seed": st.integers(0, 2**40),
        "deterministic": st.booleans(),
    },
    epochs=st.integers(1, 100) | st.floats(0.1, 9.0),
    batch=st.integers(1, 10**5),
    lr=POSITIVE | st.just("1e-3"),
)
REST = {
    "about": st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Zl", "Zp")) | st.just("\n"), max_size=40),
    "hardware": some({"devices": st.just("auto") | st.integers(1, 8), "threads": st.none() | st.integers(1, 8)}),
    "output": some({"folder": WORDS, "tensorboard": st.sampled_from(["auto", True, False])}),
    "sweep": some(
        {
            "pruning.method": st.lists(st.sampled_from(["dense", "ac/dc", OURS]), min_size=1, max_size=3),
            "pruning.block": st.lists(st.integers(1, 9) | st.just([4, None]), min_size=1, max_size=3),
            "training.seed": st.lists(st.integers(0, 9), min_size=1, max_size=3),
            "output.folder": st.lists(WORDS, min_size=1, max_size=2),
        }
    ),
    "variants": some(
        {
            "pruning.block": st.dictionaries(st.integers(1, 9), some({"training.lr": POSITIVE}), max_size=2),
            "pruning.method": st.just({"ac/dc": {"pruning.settings.zero": False, "schedule": "own"}}),
        }
    ),
}
RECIPES = some({"pruning": PRUNING, **REST}, task=st.just("clicks"), data=CLICKS, training=TRAINING) | some(
    {"pruning": st.none() | PRUNING, **REST},
    task=st.just("images"),
    data=PICTURES,
    model=st.just({"name": "resnet20"}),
    training=TRAINING,
)


def without_settings_of_others(mapping: dict[str, Any]) -> dict[str, Any]:
    """A pruning of nothing cannot be swept; settings are left out where methods change, since not all have them."""
    if mapping.get("pruning") is None:
        mapping["sweep"] = {key: each for key, each in mapping.get("sweep", {}).items() if key[:8] != "pruning."}
    return mapping


@given(RECIPES.map(without_settings_of_others))
def test_what_is_written_is_read_as_the_same(mapping: dict[str, Any]) -> None:
    recipe = Recipe.from_mapping(mapping)
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe
    assert Recipe.from_mapping(recipe.to_mapping()) == recipe
    cells = recipe.cells()
    assert len({cell.name.lower() for cell in cells}) == len(cells)
    for cell in cells:
        assert re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,130}", cell.name)
        assert Recipe.from_yaml(cell.recipe.to_yaml()) == cell.recipe
        assert not cell.recipe.sweep
        assert not cell.recipe.variants


def test_numbers_may_be_written_without_a_point() -> None:
    text = yaml.safe_dump(PLAIN).replace("0.001", "1e-3").replace("1024", "1e3")
    training = Recipe.from_yaml(text).training
    assert (training.lr, training.batch) == (0.001, 1000)
    assert type(training.batch) is int


def test_sections_can_be_made_by_themselves() -> None:
    training = Training(epochs=2, batch=8, lr=0.1)
    recipe = Recipe(task="clicks", data=ClickData(path="rows"), training=training, sweep={"training.seed": [0, 1]})
    assert [cell.name for cell in recipe.cells()] == ["dense_seed0", "dense_seed1"]
    assert recipe.training.lr == 0.1
    assert (
        Recipe(task="images", data=ImageData(path="x"), model=Model(name="vit_b_16"), training=training).phases(9)
        is None
    )


def test_recipes_cannot_be_changed() -> None:
    recipe = Recipe.from_mapping(PLAIN)
    with pytest.raises(ValueError, match="frozen"):
        recipe.training.lr = 1.0


# -- pruning -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_every_method_can_be_in_a_recipe(name: str) -> None:
    pruning = Pruning(method=name, sparsity=0.9, settings={"c": 2})
    assert pruning.method == name
    assert pruning.make_method().share == Exponential(2.0)
    phases = Pruning(method=name, sparsity=0.9, schedule="criteo").phases(1000)
    own = pruning.make_method().schedule(1000)
    assert phases is not None
    assert {"sparsify"} & {phase.kind for phase in phases.phases} == {"sparsify"} & {phase.kind for phase in own.phases}


def test_whether_a_schedule_sparsifies_can_be_said() -> None:
    for schedule in ("imagenet", "criteo"):
        for sparsify in (True, False):
            pruning = Pruning(method="ac/dc", sparsity=0.9, schedule=schedule, sparsify=sparsify)
            phases = pruning.phases(1000)
            assert phases is not None
            assert any(phase.kind == "sparsify" for phase in phases.phases) is sparsify
    assert Pruning(method="ac/dc", sparsity=0.9).phases(1000) is None


def test_layers_are_included_by_name() -> None:
    model = click_model([5] * 39)
    for include, expected in (
        ((), {"dense.0.weight", "dense.2.weight", "dense.4.weight"}),
        (("dense.0",), {"dense.0.weight"}),
        (("dense.[24]",), {"dense.2.weight", "dense.4.weight"}),
        (("dense.0.weight", "dense.2"), {"dense.0.weight", "dense.2.weight"}),
    ):
        options = Pruning(method="ac/dc", sparsity=0.9, block=20, include=include).plan_options(model)
        assert {layer.name for layer in plan(model, **options).layers} == expected
    wrong = Pruning(method="ac/dc", sparsity=0.9, include=("dense.7",))
    with pytest.raises(ValueError, match=r"^pruning\.include: 'dense\.7' matches no layer: did you mean 'dense\."):
        wrong.plan_options(model)
