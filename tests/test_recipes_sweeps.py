"""What overrides and sweeps make of a recipe."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recipe_cases import OURS, PLAIN, require_sentences

from sparseopt.experiments.training.fields import nearest_key
from sparseopt.experiments.training.overrides import VALUES, found_key
from sparseopt.experiments.training.recipes import (
    Pruning,
    Recipe,
)


def test_the_end_of_a_key_is_enough() -> None:
    for key in VALUES:
        assert found_key(key, "override") == key
    assert found_key("seed", "override") == "training.seed"
    assert found_key("settings.seed", "override") == "pruning.settings.seed"
    with pytest.raises(ValueError, match=r"^override: 'x' can be a\.x or b\.x: write more of it\.$"):
        found_key("x", "override", ["a.x", "b.x", "c.d.x"])
    with pytest.raises(ValueError, match=r"^override: 'blok' is no key of a recipe: did you mean 'pruning\.block'\?$"):
        found_key("blok", "override")
    assert nearest_key("zzzzzz", ["a.x", "b.y"]) == "choose one of a.x, b.y."


def changed(*changes: str, base: dict[str, Any] = PLAIN) -> Recipe:
    return Recipe.from_mapping(base).override(changes)


def test_overrides_change_values() -> None:
    recipe = changed("lr=1e-4", "block=[8, 16]", "method=sa++", "settings.c=2", "data=there", "schedule=[[sparse, 1]]")
    assert recipe.pruning == Pruning(
        method=OURS, sparsity=0.9, block=(8, 16), settings={"c": 2}, schedule=(("sparse", 1.0),)
    )
    assert (recipe.training.lr, recipe.data.path) == (0.0001, "there")
    assert changed("method=dense").pruning is changed("pruning=null").pruning is None
    assert changed("pruning=null", "method=ac/dc", "sparsity=.5").pruning == Pruning(method="ac/dc", sparsity=0.5)
    assert (changed("steps=7").training.steps, changed("steps=7").training.epochs) == (7, None)
    assert changed("steps=7", "epochs=2").training == changed("epochs=2").training
    assert changed("output.folder=a=b").output.folder == "a=b"
    assert changed() == Recipe.from_mapping(PLAIN)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("lr", "an override is written key=value, such as training.seed=1, got 'lr'."),
        ("=3", "an override is written key=value, such as training.seed=1, got '=3'."),
        ("learning_rate=3", "override: 'learning_rate' is no key of a recipe: "),
        ("lr=fast", "training.lr must be a number above 0, got 'fast'."),
        ("lr=[", "the value of lr is not YAML in line 1, column 2: "),
        ("training=3", "training must be a mapping of keys to values, got 3."),
        ("sweep=3", "sweep must be a mapping of keys to lists of values, got 3."),
        ("sweep.seed=3", "sweep.training.seed must be a list of values, got 3."),
    ],
)
def test_a_faulty_override_is_told(change: str, sentence: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(sentence)) as error:
        changed(change)
    require_sentences(str(error.value))


SWEPT = {
    **PLAIN,
    "pruning": {"sparsity": 0.5},
    "sweep": {"method": ["dense", "acdc", "magnitude"], "block": [5, 10], "sparsity": [0.9, 0.975], "seed": [0, 1]},
    "variants": {
        "method": {"acdc": {"settings.zero": False, "lr": 0.5}, "dense": {"lr": 2}},
        "block": {10: {"clip": 1}},
    },
}


def names(recipe: Recipe) -> list[str]:
    return [cell.name for cell in recipe.cells()]


def test_a_sweep_has_all_combinations_once() -> None:
    recipe = Recipe.from_mapping(SWEPT)
    expected = [f"dense_seed{n}" for n in range(2)] + [
        f"{method}_b{block}_s{share}_seed{seed}"
        for method in ("ac-dc", "magnitude")
        for block in (5, 10)
        for share in ("90", "97p5")
        for seed in range(2)
    ]
    assert names(recipe) == expected
    assert recipe.pruning is not None
    assert recipe.pruning.method == "ac/dc"  # the first that prunes


def test_variants_come_after_the_sweep_and_before_overrides() -> None:
    cells = {cell.name: cell.recipe for cell in Recipe.from_mapping(SWEPT).cells()}
    assert {cells[name].training.lr for name in cells if name.startswith("ac-dc")} == {0.5}
    assert {cells[name].training.lr for name in cells if name.startswith("magnitude")} == {0.001}
    assert {cells[name].training.lr for name in cells if name.startswith("dense")} == {2.0}
    assert {cells[name].training.clip for name in cells if "_b10_" in name} == {1.0}
    assert {cells[name].training.clip for name in cells if "_b10_" not in name} == {None}
    pruning = cells["ac-dc_b5_s90_seed0"].pruning
    assert pruning is not None
    assert pruning.settings == {"zero": False}
    for cell in changed("lr=0.25", base=SWEPT).cells():
        assert cell.recipe.training.lr == 0.25
    # a fixed value has its variants as well
    single = changed("method=ac/dc", "block=10", "sparsity=.9", "seed=1", base=SWEPT).single()
    assert single.name == "ac-dc_b10_s90_seed1"
    assert single.recipe == cells[single.name]


def test_overrides_fix_and_change_sweeps() -> None:
    assert names(changed("method=ac/dc", "block=10", "seed=0", base=SWEPT)) == [
        "ac-dc_b10_s90_seed0",
        "ac-dc_b10_s97p5_seed0",
    ]
    assert (
        names(changed("method=dense", base=SWEPT))
        == names(changed("pruning=null", base=SWEPT))
        == names(changed("method=[dense]", base=SWEPT))
        == ["dense_seed0", "dense_seed1"]
    )
    assert names(changed("seed=[3]", "block=[[4, null], 5]", "method=[ac/dc]", "sparsity=.9", base=SWEPT)) == [
        "ac-dc_b4xnull_s90_seed3",
        "ac-dc_b5_s90_seed3",
    ]
    assert names(changed("seed=[0, 1]", "lr=[1e-3, 1e-2]")) == [
        f"ac-dc_b20_s90_lr0p0{end}_seed{seed}" for seed in (0, 1) for end in ("01", "1")
    ]
    assert names(changed("sweep=null", base=SWEPT)) == ["ac-dc_b5_s50_seed0"]
    assert names(changed("sweep.seed=[7]", "method=[acdc]", "block=5", "sparsity=.9", base=SWEPT)) == [
        "ac-dc_b5_s90_seed7"
    ]


def test_one_training_is_a_single_one() -> None:
    recipe = Recipe.from_mapping(PLAIN)
    assert recipe.single().recipe == recipe
    assert recipe.single().name == "ac-dc_b20_s90_seed0"
    assert changed("seed=[3]").single().name == "ac-dc_b20_s90_seed3"
    with pytest.raises(
        ValueError, match=r"^the recipe is 2 trainings: use `sparseopt sweep`, or give a value for training\.seed\.$"
    ):
        changed("seed=[3, 4]").single()


@given(st.permutations(["method", "block", "sparsity", "seed"]), st.integers(0, 3))
def test_names_do_not_depend_on_what_else_is_swept(order: list[str], dropped: int) -> None:
    recipe = Recipe.from_mapping(SWEPT)
    values = {key: recipe.sweep[found_key(key, "test")] for key in order}
    turned = Recipe.from_mapping({**recipe.to_mapping(), "sweep": values})
    assert set(names(turned)) == set(names(recipe))
    by_name = {cell.name: cell.recipe for cell in recipe.cells()}
    fewer = {key: each[-1:] if key == order[dropped] else each for key, each in values.items()}
    for cell in Recipe.from_mapping({**recipe.to_mapping(), "sweep": fewer}).cells():
        assert by_name[cell.name] == cell.recipe


def test_names_are_told_apart() -> None:
    recipe = changed(
        "sweep.folder=[a/b, a-b, A B, ü, é]", "sweep.hidden=[[1], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]]"
    )
    assert len({*names(recipe)}) == 10
    assert all(re.fullmatch("[a-z0-9_-]+", name) for name in names(recipe))
    long = {f"training.{key}": [1, 2] for key in ("clip", "warmup", "recalibrate", "embedding_weight_decay", "lr")}
    long |= {
        "output.checkpoint_minutes": [1e-5, 2e-5],
        "output.evaluate_steps": [10**9, 10**10],
        "model.embedding": [9, 8],
    }
    found = names(Recipe.from_mapping({**PLAIN, "sweep": long}))
    assert len({*found}) == 2**8
    assert max(map(len, found)) <= 130
