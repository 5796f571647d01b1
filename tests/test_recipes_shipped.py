"""The recipes that are shipped: every cell of the paper's tables, commands that work, networks that they fit."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from recipe_cases import OURS
from torch import nn

from sparseopt.experiments.networks import click_model, resnet20, resnet50
from sparseopt.experiments.training.overrides import lookup
from sparseopt.experiments.training.recipes import (
    Recipe,
    read_recipe,
    shipped,
)
from sparseopt.nn import Exponential, plan
from sparseopt.proofs_checks.paper_tables import tables

TABLES = {1: "imagenet-table1", 2: "criteo-table2", 3: "imagenet-table3", 4: "imagenet-table4"}


@cache
def the_cells(name: str) -> tuple[Any, ...]:
    return read_recipe(name).cells()


@cache
def network(name: str) -> nn.Module:
    return {"click": lambda: click_model([5] * 39), "resnet20": resnet20, "resnet50": resnet50}[name]()


def place(recipe: Recipe) -> tuple[Any, ...]:
    """(method, whether it sparsifies, c, block, percent, seed) of a cell of the paper's tables."""
    pruning = recipe.pruning
    if pruning is None:
        return ("dense", recipe.training.seed)
    share = pruning.make_method().share
    assert isinstance(share, Exponential)
    phases = recipe.phases(10_000)
    assert phases is not None
    gradual = any(phase.kind == "sparsify" for phase in phases.phases)
    return (
        pruning.method,
        gradual,
        share.c if gradual else None,
        pruning.block,
        round(100 * pruning.sparsity),
        recipe.training.seed,
    )


def places(number: int) -> list[tuple[Any, ...]]:
    """What the paper has in a table, seeds included."""
    rows = tables()[f"table{number}"]["rows"]
    if number == 1:
        pairs = [(row["block"], row["nominal_sparsity"]) for row in rows]
        ours, acdc = ((name, gradual, c) for name, gradual, c in ((OURS, True, 4.0), ("ac/dc", False, None)))
        return [("dense", 0), *((*method, *pair, 0) for method in (ours, acdc) for pair in pairs)]
    if number == 2:
        methods = {
            "magnitude": ("magnitude", False, None),
            "powerpropagation": ("power-propagation", False, None),
            "acdc": ("ac/dc", False, None),
            "sequential_attention_pp": (OURS, True, 4.0),
        }
        return [("dense", seed) for seed in range(3)] + [
            (*methods[column], row["block"], row["sparsity"], seed)
            for row in rows
            for column in methods
            if row[column] is not None
            for seed in range(3)
        ]
    if number == 3:
        return [(OURS, False, None, row["remapped_block"], row["remapped_sparsity"], 0) for row in rows]
    return [(OURS, True, float(row["c"]), row["block"], 90, 0) for row in rows]


@pytest.mark.parametrize("number", TABLES)
def test_every_cell_of_a_table_is_one_cell_of_its_recipe(number: int) -> None:
    assert Counter(place(cell.recipe) for cell in the_cells(TABLES[number])) == Counter(places(number))


def test_no_training_is_in_two_tables_but_that_with_c_4() -> None:
    found: dict[tuple[Any, ...], list[int]] = {}
    for number, name in TABLES.items():
        for cell in the_cells(name):
            found.setdefault((cell.recipe.task, *place(cell.recipe)), []).append(number)
    twice = {where: numbers for where, numbers in found.items() if len(numbers) > 1}
    assert set(twice) == {("images", OURS, True, 4.0, block, 90, 0) for block in (8, 16, 32, 64)}
    assert all(numbers == [1, 4] for numbers in twice.values())


def test_criteo_recipes_are_pruned_as_the_paper_says() -> None:
    for cell in the_cells("criteo-table2"):
        recipe = cell.recipe
        assert (recipe.training.batch, recipe.training.epochs, recipe.training.optimizer) == (32768, 25, "adam")
        assert (recipe.training.lr, recipe.training.final_lr, recipe.training.decay) == (0.02, 0.0003, "exponential")
        if recipe.pruning is None:
            continue
        assert recipe.pruning.settings == ({"zero": False} if recipe.pruning.method == "ac/dc" else {})
        phases = recipe.phases(1000)
        assert phases is not None
        kinds = [phase.kind for phase in phases.phases]
        if recipe.pruning.method in ("magnitude", "power-propagation"):
            assert phases.to_list() == [["dense", 800], ["sparse", 200]]
        else:
            assert phases.to_list()[0] == ["dense", 200]
            assert phases.to_list()[-1] == ["sparse", 200]
            assert kinds.count("dense") == 11 - (recipe.pruning.method == OURS)


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_recipe_says_what_it_is(name: str, root: Path) -> None:
    recipe = read_recipe(name)
    assert f"\nsparseopt {'sweep' if recipe.sweep else 'prune'} {name} data=DIR" in recipe.about
    assert "\nCost" in recipe.about
    assert "arXiv 2402.17902" in recipe.about
    text = (root / "experiments" / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("name", shipped())
def test_commands_in_shipped_recipes_work(name: str) -> None:
    for line in read_recipe(name).about.splitlines():
        if not line.startswith("sparseopt "):
            continue
        words = line.split("  ")[0].split()
        changes = [word for word in words[3:] if "=" in word]
        recipe = read_recipe(words[2], changes)
        assert words[1] == "sweep" or recipe.single().name
        assert lookup(recipe.to_mapping(), "data.path").startswith("DIR")


@pytest.mark.parametrize("name", shipped())
def test_the_pruning_of_a_shipped_recipe_fits_its_network(name: str) -> None:
    seen = set()
    for cell in the_cells(name):
        pruning = cell.recipe.pruning
        if pruning is None:
            continue
        options = pruning.plan_options(network(cell.recipe.model.name))
        if repr(options) not in seen:
            seen.add(repr(options))
            found = plan(network(cell.recipe.model.name), **options)
            if cell.recipe.task == "clicks":
                assert [layer.name for layer in found.layers] == ["dense.0.weight"]
            else:
                assert all(layer.grid.n_blocks >= pruning.min_blocks for layer in found.layers)
                assert not any(layer.name.startswith(tuple(pruning.exclude) or ("-",)) for layer in found.layers)
        # Shortest trainings of the recipes: 60 steps, and 4 epochs of 108.
        total = cell.recipe.training.steps or 432
        phases = cell.recipe.phases(total) or pruning.make_method().schedule(total)
        assert phases.total == total
        assert phases.phases[-1].kind == "sparse"


def test_real_sparsities_of_table_1_are_the_papers() -> None:
    real = {(row["block"], row["nominal_sparsity"]): row["real_sparsity"] for row in tables()["table1"]["rows"]}
    for cell in the_cells("imagenet-table1"):
        if (pruning := cell.recipe.pruning) is not None and pruning.method == OURS:
            found = plan(network("resnet50"), **pruning.plan_options(network("resnet50")))
            assert round(100 * found.real_sparsity) == real[place(cell.recipe)[3:5]]


@pytest.mark.parametrize("name", shipped())
def test_shipped_recipes_are_the_same_after_writing(name: str) -> None:
    recipe = read_recipe(name)
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe
    for cell in the_cells(name)[::11]:
        again = Recipe.from_yaml(cell.recipe.to_yaml())
        assert again == cell.recipe
        assert again.single().recipe == again
        assert again.to_yaml() == cell.recipe.to_yaml()


@pytest.mark.parametrize(("name", "shorter"), [("criteo-laptop", ()), ("cifar-laptop", ("training.epochs=1",))])
def test_a_laptop_sweep_has_the_single_training_in_it(name: str, shorter: tuple[str, ...]) -> None:
    def decisive(recipe: Recipe) -> dict[str, Any]:
        return {key: each for key, each in recipe.to_mapping().items() if key not in ("about", "hardware", "output")}

    single = read_recipe(name, shorter).single()
    inside = [cell for cell in the_cells(f"{name}-sweep") if cell.name == single.name]
    assert [decisive(cell.recipe) for cell in inside] == [decisive(single.recipe)]
